"""Fixtures: a fresh workspace, as `mgv init` makes it, and a tiny model on disk. Commands, as the docs have them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mgv.config import EvaluateParams
from mgv.evaluate.results import Run
from mgv.workspace import Workspace, find_workspace, init_workspace

ROOT = Path(__file__).parents[1]
RANDOM_PARTS = {
    "frame_embedder": {"name": "clip", "pretrained": "random"},
    "text_embedder": {"name": "sentence", "pretrained": "random"},
    "transcriber": {"name": "whisper", "pretrained": "random"},
}


@pytest.fixture(scope="session", autouse=True)
def _prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Flows keep their runs in the tests' own folder; its database is made once, which takes seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        yield


@pytest.fixture(scope="session")
def _made_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_workspace(tmp_path_factory.mktemp("made") / "workspace").root


@pytest.fixture
def workspace(_made_workspace: Path, tmp_path: Path) -> Workspace:
    """A workspace whose parts are tiny and random."""
    root = tmp_path / "workspace"
    shutil.copytree(_made_workspace, root, symlinks=True)
    set_params(root, materialize=RANDOM_PARTS)
    return find_workspace(root)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MiniGPT4-Video of a few thousand weights, which looks at 3 frames."""
    import torch

    from mgv.model.adapt import Lora, adapt
    from mgv.model.build import build_processor, build_video_llm
    from mgv.model.checkpoint import save_checkpoint

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "model"
    model, tokenizer = build_video_llm("minigpt4_video", device="cpu")
    adapt(model, lora=Lora(rank=2))
    save_checkpoint(
        model, build_processor(model, tokenizer, num_frames=3, max_new_tokens=16), folder
    )
    return folder


def evaluated(workspace: Workspace, model: Path, folder: Path, *, of_library: bool = False) -> Run:
    """A real evaluation, in `folder`: two questions about the first video, to a model and to the library."""
    from mgv.evaluate.results import write_run
    from mgv.evaluate.run import evaluate

    video = min(path.name for path in workspace.videos_dir.glob("*.mp4"))
    rows = [
        {
            "item_id": f"q{n}",
            "video": video,
            "question": f"is it {word}?",
            "answer": word,
            "choices": ["grey", "red"],
        }
        for n, word in enumerate(("grey", "red"))
    ]
    questions = folder / "asked.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    params = EvaluateParams(
        model=str(model), questions=str(questions), questions_format="mgv", videos=str(workspace.videos_dir),
        library_questions=str(questions) if of_library else None, queries=None, max_new_tokens=4, num_bootstrap=50,
    )  # fmt: skip
    run = evaluate(workspace, params, folder)
    write_run(folder, run)
    return run


def set_params(root: Path, **sections: dict[str, object]) -> Workspace:
    """Change keys of sections of a workspace's params.yaml."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in sections.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    return find_workspace(root)


def documented(page: str, name: str) -> str:
    """The commands that docs/PAGE.md shows in the block called `name`."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```sh {name}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return str(block).strip()


def documented_environment(page: str) -> dict[str, str]:
    """What docs/PAGE.md has a shell export."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^export (\w+)=(\S+)$", text, flags=re.MULTILINE))
