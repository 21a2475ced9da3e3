"""Safety: who may ask, how much they may send, and what a browser may do with what it gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""What a request may call this server: another name is a page from elsewhere that was made to point here."""
MAX_BODY_BYTES = 64 * 1024
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Next = Callable[[Request], Awaitable[Response]]


def secure(app: FastAPI) -> None:
    """Put the checks in front of every request, and the headers on every response."""
    app.middleware("http")(_checked)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))


async def _checked(request: Request, call_next: Next) -> Response:
    if (fault := _fault(request)) is not None:
        status, reason = fault
        response: Response = JSONResponse({"error": reason}, status_code=status)
    else:
        response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _fault(request: Request) -> tuple[int, str] | None:
    """Why a request is refused: its status and words; None where it is not."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return None
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return 403, "a page from elsewhere may not write here"
    if request.headers.get("sec-fetch-site") not in (None, "same-origin", "none"):
        return 403, "a page from elsewhere may not write here"
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return 411, "a body needs a Content-Length"
    if int(length) > MAX_BODY_BYTES:
        return 413, f"a body of {int(length)} bytes, expected at most {MAX_BODY_BYTES}"
    return None
