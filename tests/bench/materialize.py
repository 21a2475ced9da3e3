"""Materialise: the whole of it beside its bare parts, one after another, with the same loaded networks.

decode      decord, told the frame numbers, at the size that mgv decodes to
encode      the frame embedder's network on those frames, resized and normalised
transcribe  whisper.transcribe on the sound, decoded beforehand
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import decord
import numpy as np
import torch
import whisper
from numpy.typing import NDArray

from mgv.config import MaterializeParams
from mgv.encoders.loaded import Parts
from mgv.library.materialize import materialize
from mgv.media.audio import read_audio
from mgv.media.frames import interval_times
from mgv.media.probe import probe
from mgv.workspace import Workspace
from tests.bench.make import make_workspace, narrated_videos
from tests.bench.measure import Figure, Result, ratio, rounds

GOAL = 1.25


def run(quick: bool) -> Result:
    """One row: mgv over the sum of its bare parts, models loaded beforehand on both sides."""
    lengths_s, num_rounds = ([40.0, 40.0], 3) if quick else ([75.0] * 4, 5)
    parts = Parts(MaterializeParams())
    with tempfile.TemporaryDirectory() as folder:
        videos = narrated_videos(Path(folder), lengths_s)
        workspace = make_workspace(Path(folder, "workspace"), videos)
        frames = [list(decode(path)) for path in videos]
        sounds = [np.concatenate([chunk.samples for chunk in read_audio(path)]) for path in videos]
        sides: dict[str, Callable[[], object]] = {
            "mgv": partial(_materialize, workspace, parts),
            "decode": lambda: [list(decode(path)) for path in videos],
            "encode": lambda: [
                encode(parts.frame_embedder, batch) for each in frames for batch in each
            ],
            "transcribe": lambda: [transcribe(parts.transcriber, sound) for sound in sounds],
        }
        for name, side in sides.items():  # once untimed: everything is loaded and warm
            if name != "decode":
                _empty(workspace)
                side()
        seconds = rounds(sides, num_rounds, before=partial(_empty, workspace))
    bare = list(sides)[1:]
    bare_s = [sum(each) for each in zip(*(seconds.wall[name] for name in bare), strict=True)]
    figure = Figure(
        what=f"materialising {len(videos)} narrated videos of {lengths_s[0]:.0f} s, models loaded",
        value=ratio(seconds.wall["mgv"], bare_s),
        unit="x",
        goal=GOAL,
        beside="bare "
        + " + ".join(f"{name} {median(seconds.wall[name]):.1f}" for name in bare)
        + f" = {median(bare_s):.1f} s",
    )
    sizes = {
        "lengths_s": lengths_s,
        "num_frames": sum(len(b) for each in frames for b in each),
        "rounds": num_rounds,
    }
    return Result(
        figures=[figure],
        sizes=sizes,
        details=asdict(seconds) | {"torch_threads": torch.get_num_threads()},
    )


def _materialize(workspace: Workspace, parts: Parts) -> None:
    report = materialize(workspace, parts=parts)
    assert report.manifest.num_segments, report
    assert not report.manifest.failed, report


def _empty(workspace: Workspace) -> None:
    """Take the library away, so that everything is to be made."""
    shutil.rmtree(workspace.store_uri, ignore_errors=True)
    workspace.manifest.unlink(missing_ok=True)


def decode(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Batches of frames [T, H, W, 3] by decord: those on screen at mgv's times."""
    params = MaterializeParams()
    video = probe_once(path)
    scale = params.frame_size_px / min(video.width, video.height)
    reader = decord.VideoReader(
        str(path), width=round(video.width * scale), height=round(video.height * scale)
    )
    times_s = interval_times(0.0, video.duration_s, params.frame_interval_s)
    numbers = [min(int(time_s * video.frame_rate + 1e-6), len(reader) - 1) for time_s in times_s]
    for begin in range(0, len(numbers), params.batch_size):
        yield reader.get_batch(numbers[begin : begin + params.batch_size]).asnumpy()


_probed: dict[Path, Any] = {}


def probe_once(path: Path) -> Any:
    """A video's facts, found the first time (untimed)."""
    if path not in _probed:
        _probed[path] = probe(path, "")
    return _probed[path]


def encode(embedder: Any, frames: NDArray[np.uint8], batch_size: int = 16) -> NDArray[np.float32]:
    """Frames [T, H, W, 3] resized and through the embedder's bare network -> logits [T, K]."""
    return np.concatenate(
        [
            embedder._logits(frames[begin : begin + batch_size])
            for begin in range(0, len(frames), batch_size)
        ]
    )


def transcribe(transcriber: Any, sound: NDArray[np.float32]) -> str:
    """Sound [S] through the transcriber's bare model, with mgv's options -> the words."""
    options: dict[str, Any] = {
        "temperature": 0.0,
        "condition_on_previous_text": False,
        "fp16": False,
    }
    heard = whisper.transcribe(transcriber._model, sound, language="en", **options)
    return str(heard["text"])
