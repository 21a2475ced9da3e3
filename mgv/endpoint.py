"""Endpoint: chat with any server that speaks as OpenAI's does. The key comes from the environment only."""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol

from mgv.errors import ConfigError, MgvError

logger = logging.getLogger(__name__)

BUSY = (408, 409, 429, 500, 502, 503, 504)
"""Answers of an endpoint that are worth another try."""
LONGEST_WAIT_S = 60.0
"""Between two tries, whatever the endpoint asks for by `Retry-After`."""


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
            raise ConfigError(f"{section}.pretrained: name the endpoint's model, for example gpt-4o-mini")
        self._key = os.environ.get(params.api_key_env)
        if not self._key and "api.openai.com" in params.base_url:
            raise ConfigError(
                f"{section}: set the environment variable {params.api_key_env} to the endpoint's key"
            )
        self._params = params

    def chat(self, messages: Sequence[dict[str, Any]], max_tokens: int) -> Reply:
        """The reply to a conversation, at temperature 0.

        Raises MgvError when the endpoint refuses, is still busy after the last try, or replies with no text.
        """
        body = {
            "model": self._params.pretrained,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        reply = self._post(body)
        try:
            usage = reply.get("usage") or {}
            return Reply(
                text=str(reply["choices"][0]["message"]["content"] or ""),
                model=str(reply.get("model") or self._params.pretrained),
                input_tokens=_count(usage.get("prompt_tokens")),
                output_tokens=_count(usage.get("completion_tokens")),
            )
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise MgvError(
                f"{self._params.base_url}: its reply holds no answer: {str(reply)[:200]}"
            ) from error

    def _post(self, body: dict[str, Any]) -> Any:
        url = f"{self._params.base_url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        for attempt in range(self._params.retries + 1):
            wait_s = 2.0**attempt
            try:
                with _OPENER.open(request, timeout=self._params.timeout_s) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                reason = _reason(error)
                if error.code not in BUSY:
                    raise MgvError(f"{url}: {reason}") from error
                wait_s = max(wait_s, _asked_wait_s(error.headers.get("Retry-After")))
            except (OSError, HTTPException, ValueError, RecursionError) as error:  # cut off, or no JSON
                reason = str(error) or type(error).__name__
            if attempt < self._params.retries:
                logger.warning("%s: %s; trying again", url, reason)
                time.sleep(min(wait_s, LONGEST_WAIT_S))
        raise MgvError(f"{url}: no answer after {self._params.retries + 1} tries: {reason}")


def _count(tokens: Any) -> int | None:
    return tokens if isinstance(tokens, int) else None


def _reason(error: urllib.error.HTTPError) -> str:
    """What a refusal says, as far as it can be read."""
    try:
        said = error.read(300).decode("utf-8", "replace")
    except (OSError, HTTPException):
        said = "(cut off)"
    return f"{error.code} {error.reason}: {said}"


def _asked_wait_s(header: str | None) -> float:
    """The seconds of a `Retry-After`; 0 without one, or where it is a date."""
    return float(header) if header and header.isdecimal() else 0.0
