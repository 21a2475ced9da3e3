"""A server on this machine that speaks as OpenAI's and gives what a test has planned."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Planned = str | float | int | bytes | tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""A text; seconds to be silent, then a verdict; a status; or a status, what its body holds, and headers; bytes stand
for the whole reply, after which the connection is cut."""
SAID_LATE = '{"correct": "yes", "score": 5}'


@dataclass
class ChatServer:
    """What it will say, and what it was asked."""

    url: str
    replies: list[Planned] = field(default_factory=list)
    """The next one first."""
    answer: Callable[[dict[str, Any]], Planned] | None = None
    """Instead of replies: what to say to a request."""
    requests: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)
    """Path, authorization and body of each."""
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for *_, body in self.requests]

    def take(
        self, path: str, authorization: str | None, body: dict[str, Any]
    ) -> bytes | tuple[int, Any, dict[str, str]]:
        """The status, the content and the headers of the reply to a request."""
        with self.lock:
            self.requests.append((path, authorization, body))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            planned = self.answer(body) if self.answer else self.replies.pop(0)
        if isinstance(planned, float):
            time.sleep(planned)
            planned = SAID_LATE
        with self.lock:
            self.under_way -= 1
        if isinstance(planned, bytes):
            return planned
        if isinstance(planned, tuple):
            return planned if len(planned) == 3 else (*planned, {})
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        reply = {
            "model": "big-2024-01-01",
            "choices": [{"message": {"content": planned}}],
            "usage": usage,
        }
        return (planned, {}, {}) if isinstance(planned, int) else (200, reply, {})


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """The server, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            taken = chat.take(self.path, self.headers.get("Authorization"), body)
            if isinstance(taken, bytes):
                self.wfile.write(taken)
                return
            status, reply, headers = taken
            content = json.dumps(reply).encode()
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # who asked has gone
                pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chat = ChatServer(url=f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
