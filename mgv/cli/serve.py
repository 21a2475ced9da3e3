"""The command that serves a library to a browser and to programs on this machine."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from mgv.cli.app import app
from mgv.cli.console import (
    HERE,
    Json,
    LibraryDir,
    length,
    open_library,
    open_workspace,
    printable,
    show,
    spinner,
)
from mgv.errors import BusyError, UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@app.command()
def serve(
    library: LibraryDir = HERE,
    host: Annotated[
        str, typer.Option(help="127.0.0.1 or ::1: the server answers this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 7860,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Serve the library on this machine: a page to search, watch and ask, and an API under /api/v1."""
    import socket
    import webbrowser

    if host not in LOOPBACK:
        raise UsageError(
            f"--host {host}: the server has no passwords, so it listens on this machine only (127.0.0.1); to share it, "
            "put a web server with TLS and a login in front (docs/serving.md)"
        )
    workspace = open_workspace(library)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BusyError(f"{address} is taken; choose another port by --port") from error
    import uvicorn

    from mgv.serve.app import create_app

    application = create_app(workspace.root)
    print(f"mgv: serving {workspace.root} at {address} (Ctrl-C ends it)", file=sys.stderr)
    if open_browser:
        webbrowser.open(address)
    uvicorn.run(
        application,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=60,
        server_header=False,
    )


@app.command()
def clip(
    stretch: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO@START-END", help="In seconds or m:ss, for example talk.mp4@1:05-1:20."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The MP4 file to write.")
    ],
    library: LibraryDir = HERE,
    as_json: Json = False,
) -> None:
    """Cut a stretch out of a video, exactly, as an MP4 that plays everywhere (H.264, AAC)."""
    from mgv.media.clips import cut_clip

    name, start_s, end_s = _stretch(stretch)
    if out.exists():
        raise UsageError(f"{out} is there already; name another file by --out")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder")
    opened = open_library(library)
    video = opened.video(name)
    with spinner("cutting"):
        cut_clip(opened.path_of(video), start_s, end_s, out)
    value = {"video": video.name, "start_s": start_s, "end_s": end_s, "file": str(out)}
    show(
        as_json,
        value,
        f"{printable(str(out))}: {printable(video.name)} {length(start_s)}-{length(end_s)}",
    )


def _stretch(text: str) -> tuple[str, float, float]:
    """`talk.mp4@1:05-1:20` -> the video, start and end in seconds. Raises UsageError for anything else."""
    name, at, times = text.rpartition("@")
    first, dash, last = times.partition("-")
    try:
        if not (name and at and dash):
            raise ValueError
        start_s, end_s = _seconds(first), _seconds(last)
    except ValueError:
        raise UsageError(
            f"{text!r}: expected VIDEO@START-END, for example talk.mp4@1:05-1:20"
        ) from None
    if not 0 <= start_s < end_s:
        raise UsageError(f"{text!r}: its end does not come after its start")
    return name, start_s, end_s


def _seconds(text: str) -> float:
    """`65`, `65.5`, `1:05`, `1:01:05` -> seconds."""
    parts = [float(part) for part in text.split(":")]
    if len(parts) > 3 or not all(math.isfinite(part) and part >= 0 for part in parts):
        raise ValueError(text)
    return float(sum(part * 60.0**place for place, part in enumerate(reversed(parts))))
