"""Starter: the sets that come with mgv, named `starter` in params.yaml.

questions           the first 48 test scenes of the starter data set, seed 0, for the starter model (or yours)
library_questions   questions to the demo library, queries to it, and what its narrators say
queries
transcripts
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from mgv.data import scenes
from mgv.data.samples import write_samples
from mgv.errors import MgvError
from mgv.starter.weights import cache_dir

DEMO = Path(__file__).parents[2] / "demo"
NUM_VIDEOS = 400
"""Of the starter data set; 12 % are test scenes: the first half of those of 800 videos, which the model learnt from."""


def starter_set(key: str) -> Path:
    """The file (for transcripts: the folder) behind `starter`; key: the set's name in params.yaml."""
    names = {
        "library_questions": "questions.jsonl",
        "queries": "queries.jsonl",
        "transcripts": "transcripts",
    }
    return scene_questions() if key == "questions" else DEMO / names[key]


def scene_questions() -> Path:
    """The frozen test scenes as a sample file, their videos beside it; made once into the cache, a few seconds."""
    version = hashlib.sha256(Path(scenes.__file__).read_bytes()).hexdigest()[:12]
    folder = cache_dir() / "scenes" / f"{version}-{NUM_VIDEOS}"
    target = folder / "test.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not target.exists():
                _make(folder, target)
    except OSError as error:
        raise MgvError(f"{folder}: the starter's scenes cannot be written: {error}; MGV_CACHE may name another place"
                       ) from error  # fmt: skip
    return target


def _make(folder: Path, target: Path) -> None:
    made = scenes.make_scenes(folder, num_videos=NUM_VIDEOS, seed=0, splits=("test",))
    asked = (sample for stage, _, sample in made if stage == "instruct")
    relative = (
        replace(each, media=Path(each.media).relative_to(folder).as_posix()) for each in asked
    )
    write_samples(target, relative)
