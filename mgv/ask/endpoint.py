"""Endpoint: chat with any server that speaks as OpenAI's does. The key comes from the environment only."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from typing import Any, Protocol

from mgv.errors import ConfigError, MgvError

logger = logging.getLogger(__name__)

BUSY = (408, 409, 429, 500, 502, 503, 504)
"""Answers of an endpoint that are worth another try."""
LONGEST_WAIT_S = 60.0
"""Between two tries, whatever the endpoint asks for by `Retry-After`."""
UNSUPPORTED = re.compile(r"[Uu]nsupported (?:parameter|value): '(max_tokens|temperature)'")
"""How OpenAI's newer models refuse the names of the older ones."""


class EndpointParams(Protocol):
    """What a section of params.yaml says about an endpoint; `pretrained` is the model's name there."""

    @property
    def pretrained(self) -> str: ...
    @property
    def base_url(self) -> str: ...
    @property
    def api_key_env(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def retries(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What an endpoint wrote, and what it says of itself."""

    text: str
    model: str
    """The model that answered: often more exact than the name it was asked by."""
    input_tokens: int | None
    output_tokens: int | None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes no redirect: the key is for the address that params.yaml names, and for no other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class Endpoint:
    """A server with `/chat/completions`."""

    def __init__(self, section: str, params: EndpointParams) -> None:
        """section: of params.yaml, for errors. Raises ConfigError without a model's name, an address or a key."""
        if not params.base_url.startswith(("https://", "http://")):
            raise ConfigError(f"{section}.base_url: {params.base_url!r} is no http(s) address")
        if params.pretrained == "starter":
            raise ConfigError(
                f"{section}.pretrained: name the endpoint's model, for example gpt-4o-mini"
            )
        self._key = os.environ.get(params.api_key_env)
        if not self._key and "api.openai.com" in params.base_url:
            raise ConfigError(
                f"{section}: set the environment variable {params.api_key_env} to the endpoint's key"
            )
        self._params = params
        self._refused: set[str] = set()

    def chat(self, messages: Sequence[dict[str, Any]], max_tokens: int) -> Reply:
        """The reply to a conversation, at temperature 0.

        Raises MgvError when the endpoint refuses, is still busy after the last try, or replies with no text.
        """
        reply = self._post(list(messages), max_tokens)
        try:
            usage = reply.get("usage") or {}
            text = reply["choices"][0]["message"]["content"]
            if not isinstance(text, str | None):
                raise TypeError(f"content is {type(text).__name__}, not text")
            return Reply(
                text=text or "",
                model=str(reply.get("model") or self._params.pretrained),
                input_tokens=_count(usage.get("prompt_tokens")),
                output_tokens=_count(usage.get("completion_tokens")),
            )
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise MgvError(
                f"{self._params.base_url}: its reply holds no answer: {str(reply)[:200]}"
            ) from error

    def _body(self, messages: list[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
        limit = "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"
        body = {"model": self._params.pretrained, "messages": messages, limit: max_tokens}
        return body if "temperature" in self._refused else body | {"temperature": 0}

    def _post(self, messages: list[dict[str, Any]], max_tokens: int) -> Any:
        url = f"{self._params.base_url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        attempt = 0
        while True:
            body, wait_s = self._body(messages, max_tokens), 2.0**attempt
            try:
                request = urllib.request.Request(url, json.dumps(body).encode(), headers)
                return _read(request, self._params.timeout_s)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}: {_beginning(error)}"
                refused = UNSUPPORTED.search(reason)
                if error.code == 400 and refused and refused[1] in body:
                    logger.warning("%s: takes no %s; asked again without", url, refused[1])
                    self._refused.add(refused[1])
                    continue
                if error.code not in BUSY:
                    raise MgvError(f"{url}: {reason}") from error
                wait_s = max(wait_s, _asked_wait_s(error.headers.get("Retry-After")))
            except (
                OSError,
                HTTPException,
                ValueError,
                RecursionError,
            ) as error:  # cut off, or no JSON
                reason = f"{error}".strip() or type(error).__name__
            attempt += 1
            if attempt > self._params.retries:
                raise MgvError(f"{url}: no answer after {attempt} tries: {reason}")
            logger.warning("%s: %s; trying again", url, reason)
            time.sleep(min(wait_s, LONGEST_WAIT_S))


def _read(request: urllib.request.Request, timeout_s: float) -> Any:
    """The JSON of the reply, all of it within the time."""
    end_s = time.monotonic() + timeout_s
    content = b""
    with _OPENER.open(request, timeout=timeout_s) as response:
        while piece := response.read1():
            content += piece
            if time.monotonic() > end_s:
                raise TimeoutError(f"the reply took longer than {timeout_s:g} s")
        if response.length:  # what Content-Length said is still to come
            raise IncompleteRead(content, response.length)
    return json.loads(content)


def _beginning(error: urllib.error.HTTPError) -> str:
    """What an endpoint says of its refusal, as far as that can be read."""
    try:
        return error.read(500).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return "(cut off)"


def _count(tokens: Any) -> int | None:
    return tokens if isinstance(tokens, int) else None


def _asked_wait_s(header: str | None) -> float:
    """The seconds of a `Retry-After`; 0 without one, or where it is a date."""
    return float(header) if header and header.isdecimal() else 0.0
