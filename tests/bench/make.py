"""Makes what the benchmarks read: videos of any length, encoded once and looped, and workspaces that hold them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mgv.library.ingest import ingest
from mgv.workspace import Workspace, init_workspace

NARRATED = sorted((Path(__file__).parents[2] / "mgv" / "demo" / "videos").glob("*.mp4"))
"""The demo's narrated videos."""
SCENE_S = 5.0


def make_workspace(root: Path, videos: Sequence[Path]) -> Workspace:
    """A workspace with the default parts that has ingested some videos."""
    workspace = init_workspace(root)
    rejected = [result for result in ingest(workspace, videos) if result.outcome == "rejected"]
    assert not rejected, rejected
    return workspace


def make_pictures(
    path: Path,
    *,
    seconds: float,
    size: tuple[int, int] = (1280, 720),
    rate: int = 25,
    gop: int = 250,
    seed: int = 0,
) -> Path:
    """Write h264 without sound: a camera pans over blotches and lines, another scene every SCENE_S."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop
        stream.codec_context.time_base = Fraction(1, rate)
        scene = None
        for number in range(round(seconds * rate)):
            scene_number, in_scene = divmod(number, round(SCENE_S * rate))
            if scene is None or in_scene == 0:
                scene = _scene(width * 3 // 2, height * 3 // 2, seed * 1000 + scene_number)
            left, top = width * in_scene // (4 * rate) // 2, height * in_scene // (4 * rate) // 2
            picture = np.ascontiguousarray(scene[top : top + height, left : left + width])
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _scene(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """A picture [H, W, 3] with large and small detail."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for columns, strength in ((6, 0.6), (40, 0.3), (240, 0.1)):
        rows = max(1, columns * height // width)
        blotches = Image.fromarray(random.integers(0, 256, (rows, columns, 3), np.uint8))
        picture += strength * np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC))
    picture[:: height // 9, :] = 20
    picture[:, :: width // 16] = 230
    return picture.clip(0, 255).astype(np.uint8)


def mux_looped(path: Path, *, length_s: float, pictures: Path, sounds: Sequence[Path] = ()) -> Path:
    """Write a video of this length by copying packets: one file's pictures over and over, others' sound likewise."""
    with av.open(str(path), "w") as container:
        with av.open(str(pictures)) as first:
            tracks = [container.add_stream_from_template(first.streams.video[0])]
        flows = [_looped([pictures], "video", 0, length_s)]
        if sounds:
            with av.open(str(sounds[0])) as first:
                tracks.append(container.add_stream_from_template(first.streams.audio[0]))
            flows.append(_looped(sounds, "audio", 1, length_s))
        for _, number, packet in heapq.merge(*flows, key=lambda item: item[:2]):
            packet.stream = tracks[number]
            container.mux(packet)
    return path


def _looped(
    sources: Sequence[Path], kind: str, number: int, length_s: float
) -> Iterator[tuple[float, int, av.Packet]]:
    """(decoding time in seconds, number, packet) of the sources' tracks of a kind, end to end, up to length_s."""
    begin: Fraction = Fraction(0)
    for source in itertools.cycle(sources):
        with av.open(str(source)) as container:
            stream = container.streams.best(kind)
            assert stream is not None, source
            assert stream.time_base is not None, source
            tick = stream.time_base
            first: int | None = None
            end = 0
            for packet in container.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                first = packet.dts if first is None else first
                end = max(end, packet.dts - first + (packet.duration or 0))
                shift = round(begin / tick) - first
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                if packet.dts * tick >= length_s:
                    return
                yield float(packet.dts * tick), number, packet
            begin += end * tick


def narrated_videos(folder: Path, seconds: Sequence[float]) -> list[Path]:
    """The demo's narrated videos, each looped to so many seconds, as far as seconds goes."""
    return [
        mux_looped(
            folder / f"{source.stem}-{number}.mp4",
            length_s=length_s,
            pictures=source,
            sounds=[source],
        )
        for number, (source, length_s) in enumerate(
            zip(itertools.cycle(NARRATED), seconds, strict=False)
        )
    ]
