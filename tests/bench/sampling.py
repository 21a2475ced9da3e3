"""Sampling: mgv's reader beside the loops a person would write, at the same times and size, on 720p h264."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median

import av
import decord

from mgv.media.frames import interval_times, read_frames
from tests.bench.make import make_pictures, mux_looped
from tests.bench.measure import Figure, Result, ratio, rounds

RATE = 25
SIZE_PX, WIDTH = 288, 512
BATCH_SIZE = 32
GOAL = 1.1


def run(quick: bool) -> Result:
    """A row for each distance between key frames."""
    length_s, num_rounds = (60.0, 3) if quick else (300.0, 7)
    times_s = interval_times(0.0, length_s, 1.0)
    figures, details = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for gop in (250, 30):
            piece = make_pictures(Path(folder, f"piece-{gop}.mp4"), seconds=20, gop=gop, rate=RATE)
            path = mux_looped(Path(folder, f"gop-{gop}.mp4"), length_s=length_s, pictures=piece)
            sides = {
                "mgv": partial(read_mgv, path, times_s),
                "decord": partial(read_decord, path, times_s),
                "pyav": partial(read_pyav, path, times_s),
            }
            counts = {name: side() for name, side in sides.items()}
            assert len(set(counts.values())) == 1, counts
            seconds = rounds(sides, num_rounds)
            faster = min("decord", "pyav", key=lambda name: median(seconds.wall[name]))
            figures.append(
                Figure(
                    what=f"sampling a frame a second, 720p h264, key frame every {gop}",
                    value=ratio(seconds.wall["mgv"], seconds.wall[faster]),
                    unit="x",
                    goal=GOAL,
                    beside=f"bare {faster}: {median(seconds.wall[faster]):.1f} s",
                )
            )
            size_mb = path.stat().st_size / 1e6
            details[f"gop {gop}"] = asdict(seconds) | {"size_mb": round(size_mb, 1)}
    sizes = {
        "length_s": length_s,
        "num_frames": len(times_s),
        "size_px": SIZE_PX,
        "rounds": num_rounds,
    }
    return Result(figures=figures, sizes=sizes, details=details)


def read_mgv(path: Path, times_s: list[float]) -> int:
    """The number of frames that mgv gives."""
    return sum(
        len(batch.times_s)
        for batch in read_frames(path, times_s, size_px=SIZE_PX, batch_size=BATCH_SIZE)
    )


def read_decord(path: Path, times_s: list[float]) -> int:
    """The number of frames by decord, told which frame number is on screen at each time."""
    video = decord.VideoReader(str(path), width=WIDTH, height=SIZE_PX)
    numbers = [int(time_s * RATE + 1e-6) for time_s in times_s]
    batches = (numbers[begin : begin + BATCH_SIZE] for begin in range(0, len(numbers), BATCH_SIZE))
    return sum(len(video.get_batch(batch).asnumpy()) for batch in batches)


def read_pyav(path: Path, times_s: list[float]) -> int:
    """The number of frames by PyAV, decoding from the first to the last."""
    here = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            assert frame.time is not None
            if here < len(times_s) and frame.time + 1 / RATE > times_s[here] + 1e-6:
                frame.reformat(width=WIDTH, height=SIZE_PX, format="rgb24").to_ndarray()
                here += 1
    return here
