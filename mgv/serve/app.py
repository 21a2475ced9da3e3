"""The app: REST under /api/v1, and the page. What it gives as JSON is what the command line gives."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from mgv import __version__
from mgv.ask.as_json import answer_json, moments_json, plain
from mgv.ask.library import Library
from mgv.ask.receipts import read_receipt
from mgv.errors import BusyError, MediaError, MgvError, UsageError, WorkspaceError
from mgv.lineage.replay import replay
from mgv.media.clips import cut_clip
from mgv.media.subtitles import webvtt
from mgv.records import Answer, Video, clock
from mgv.registry import champion, published
from mgv.serve.live import LiveLibrary
from mgv.serve.safety import secure

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
API = "/api/v1"
STATUS: dict[type[MgvError], int] = {
    UsageError: 400,
    WorkspaceError: 503,
    MediaError: 422,
    BusyError: 409,
}
"""Of the errors that a person can mend; others are 500, with their own words."""
_PLAYABLE = {"h264": "mp4", "vp8": "webm", "vp9": "webm", "av1": "webm"}
"""Codecs that browsers play, and the container that they play it in."""
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mp4", ".webm": "webm"}

VideoId = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ReceiptId = Annotated[str, Field(pattern="^(last|[0-9]{8}-[0-9]{6}-[0-9a-z]{8})$")]


class Question(BaseModel):
    """A question to the library."""

    question: str = Field(min_length=1, max_length=4000)
    videos: list[VideoId] | None = Field(default=None, max_length=1000)
    stream: bool = False
    """Server-sent events: pieces of the text, then the answer."""


def create_app(root: Path) -> FastAPI:
    """The app of a workspace. Raises WorkspaceError where there is none."""
    app = FastAPI(
        title="mgv",
        version=__version__,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    served = LiveLibrary(root)
    secure(app)

    async def said(request: Request, error: Exception) -> Response:
        """An error that a person can mend, in its own words, without this machine's paths."""
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        words = (
            str(error)
            .replace(f"{served.workspace.videos_dir}/", "")
            .replace(str(served.workspace.root), "the workspace")
        )
        return JSONResponse({"error": words}, status_code=status)

    app.add_exception_handler(MgvError, said)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    _add_page(app, served)
    _add_library(app, served)
    _add_media(app, served)
    _add_answers(app, served)
    return app


# the page


def _add_page(app: FastAPI, served: LiveLibrary) -> None:
    templates = Jinja2Templates(directory=HERE / "templates")
    templates.env.filters["clock"] = clock

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request, q: Annotated[str, Query(max_length=4000)] = "") -> Response:
        """The page; with a query, its results: they are there without JavaScript too."""
        library = served.get()
        moments = library.search(q) if q.strip() else []
        videos = library.videos()
        context = {
            "query": q,
            "moments": moments,
            "videos": videos,
            "failed": library.manifest.failed,
            "tag": library.manifest.tag,
            "champion": library.live.version,
            "playable": {video.video_id: is_playable(video) for video in videos},
        }
        return templates.TemplateResponse(request, "page.html", context)


def is_playable(video: Video) -> bool:
    """Whether browsers play a video's file as it is; of another a clip is cut."""
    return _PLAYABLE.get(video.video_codec) == _CONTAINERS.get(
        Path(video.name).suffix.lower(), "none"
    )


# the library


def _add_library(app: FastAPI, served: LiveLibrary) -> None:
    @app.get(f"{API}/health")
    def health() -> dict[str, str]:
        """That the server runs."""
        return {"status": "ok", "mgv": __version__}

    @app.get(f"{API}/ready")
    def ready() -> dict[str, str]:
        """That there is a library to ask; its tag."""
        return {"status": "ready", "library": served.get().manifest.tag}

    @app.get(f"{API}/search")
    def search(
        q: Annotated[str, Query(min_length=1, max_length=4000)],
        limit: Annotated[int | None, Query(ge=1, le=200)] = None,
        video: Annotated[list[VideoId] | None, Query(max_length=1000)] = None,
    ) -> dict[str, Any]:
        """Ranked moments."""
        return {
            "query": q,
            "moments": moments_json(served.get().search(q, limit=limit, videos=video)),
        }

    @app.get(f"{API}/videos")
    def videos() -> dict[str, Any]:
        """The library's videos, and those that could not be read."""
        library = served.get()
        rows = [plain(asdict(video)) for video in library.videos()]
        return {"videos": rows, "failed": library.manifest.failed}

    @app.get(f"{API}/models")
    def models() -> dict[str, Any]:
        """Published models, and which is live."""
        current = champion(served.workspace)
        names = [version.version for version in published(served.workspace)]
        return {"models": names, "champion": current.version if current else None}


# pictures and sound, by id: no path goes in or out


def _add_media(app: FastAPI, served: LiveLibrary) -> None:
    @app.get(f"{API}/videos/{{video_id}}/media")
    def media(video_id: VideoId) -> FileResponse:
        """The video's own file; byte ranges are served."""
        library = served.get()
        video = library.video(video_id)
        suffix = Path(video.name).suffix.lower()
        kind = (
            f"video/{_CONTAINERS[suffix]}" if suffix in _CONTAINERS else "application/octet-stream"
        )
        return FileResponse(library.path_of(video), media_type=kind)

    @app.get(f"{API}/videos/{{video_id}}/thumbnail")
    def thumbnail(video_id: VideoId, t: Annotated[float, Query(ge=0, le=1e7)] = 0.0) -> Response:
        """The JPEG of the frame that stands for a time in seconds."""
        picture = served.get().opened.thumbnail(video_id, t)
        if picture is None:
            raise HTTPException(404, "no picture there")
        return Response(
            picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
        )

    @app.get(f"{API}/videos/{{video_id}}/subtitles.vtt")
    def subtitles(video_id: VideoId) -> Response:
        """What is said, as WebVTT."""
        _, cues = served.get().subtitles(video_id)
        return Response(webvtt(cues), media_type="text/vtt; charset=utf-8")

    @app.get(f"{API}/videos/{{video_id}}/clip.mp4")
    def clip(
        video_id: VideoId,
        start: Annotated[float, Query(ge=0, le=1e7)],
        end: Annotated[float, Query(ge=0, le=1e7)],
    ) -> FileResponse:
        """A stretch, cut exactly, as H.264 and AAC: for download, and for videos that browsers do not play."""
        library = served.get()
        path = library.path_of(library.video(video_id))
        folder = tempfile.TemporaryDirectory(prefix="mgv-clip-")
        target = Path(folder.name) / "clip.mp4"
        try:
            cut_clip(path, start, end, target)
        except BaseException:
            folder.cleanup()
            raise
        return FileResponse(
            target, media_type="video/mp4", background=BackgroundTask(folder.cleanup)
        )


# answers


def _add_answers(app: FastAPI, served: LiveLibrary) -> None:
    @app.post(f"{API}/ask")
    def ask(asked: Question) -> Response:
        """An answer with the moments it rests on; one is written at a time."""
        library = served.get()
        if asked.stream:
            return StreamingResponse(
                _events(served, library, asked), media_type="text/event-stream"
            )
        with served.answering:
            return JSONResponse(answer_json(library.ask(asked.question, videos=asked.videos)))

    @app.get(f"{API}/receipts/{{receipt_id}}")
    def receipt(
        receipt_id: ReceiptId,
    ) -> dict[str, Any]:
        """What made an answer."""
        content: dict[str, Any] = plain(asdict(read_receipt(served.workspace, receipt_id)))
        return content

    @app.post(f"{API}/receipts/{{receipt_id}}/replay")
    def replayed(
        receipt_id: ReceiptId,
    ) -> dict[str, Any]:
        """The question asked again of exactly what answered it."""
        with served.answering:
            outcome = replay(served.workspace, read_receipt(served.workspace, receipt_id))
        return {
            "receipt": outcome.receipt_id,
            "identical": outcome.identical,
            "differences": list(outcome.differences),
            "remarks": list(outcome.remarks),
            "answer": answer_json(outcome.answer),
        }


def _events(served: LiveLibrary, library: Library, asked: Question) -> Iterator[str]:
    """Server-sent events: `text` with a piece, at last `answer` with all of it, or `error`."""
    try:
        with served.answering:
            for piece in library.ask_stream(asked.question, videos=asked.videos):
                if isinstance(piece, Answer):
                    yield _event("answer", answer_json(piece))
                else:
                    yield _event("text", {"text": piece})
    except MgvError as error:
        yield _event("error", {"error": str(error)})


def _event(name: str, value: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"
