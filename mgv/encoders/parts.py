"""Parts: which name stands for which code, family by family. Importing this loads no model and no torch."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from mgv.config import MaterializeParams, PartParams, TranscriberParams
from mgv.encoders import hub
from mgv.encoders.base import FrameEmbedder, ScreenReader, TextEmbedder, Transcriber
from mgv.errors import ConfigError
from mgv.starter.weights import SPEECH, TEXT, VISION, StarterPart, package_version

# name -> "module:loader"
FRAME_EMBEDDERS = {"conse": "mgv.encoders.conse:load", "clip": "mgv.encoders.clip:load"}
TEXT_EMBEDDERS = {"sentence": "mgv.encoders.sentence:load"}
TRANSCRIBERS = {
    "whisper": "mgv.encoders.whisper:load",
    "faster_whisper": "mgv.encoders.faster_whisper:load",
}
SCREEN_READERS = {"none": "mgv.encoders.ocr:load_none", "rapidocr": "mgv.encoders.ocr:load"}

FAMILIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "frame_embedder": FRAME_EMBEDDERS,
        "text_embedder": TEXT_EMBEDDERS,
        "transcriber": TRANSCRIBERS,
        "ocr": SCREEN_READERS,
    }
)
"""By the key of `materialize` in params.yaml."""

CODE_VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "conse": 3,
        "clip": 2,
        "sentence": 1,
        "whisper": 3,
        "faster_whisper": 3,
        "rapidocr": 1,
        "none": 1,
    }
)
"""Goes up whenever a part's code gives other results with the same weights: what it computed is then redone."""

STARTERS: Mapping[str, StarterPart] = MappingProxyType(
    {"conse": VISION, "sentence": TEXT, "whisper": SPEECH, "faster_whisper": SPEECH}
)


def load_frame_embedder(params: PartParams, text_embedder: PartParams) -> FrameEmbedder:
    """The frame embedder of `params`; conse also needs the text embedder, and loads it at the first query."""
    loader = _loader("frame_embedder", params.name)
    revision = part_revision("text_embedder", text_embedder)
    embedder: FrameEmbedder = loader(params, partial(load_text_embedder, text_embedder), revision)
    return embedder


@cache
def load_text_embedder(params: PartParams) -> TextEmbedder:
    """The text embedder of `params`; one per process, so that the frame embedder shares it."""
    embedder: TextEmbedder = _loader("text_embedder", params.name)(params)
    return embedder


def load_transcriber(params: TranscriberParams) -> Transcriber:
    """The transcriber of `params`."""
    params = chosen_transcriber(params)
    transcriber: Transcriber = _loader("transcriber", params.name)(params)
    return transcriber


def chosen_transcriber(params: TranscriberParams) -> TranscriberParams:
    """The transcriber that `auto` stands for on this machine; another as it is. Imports neither."""
    if params.name != "auto":
        return params
    is_installed = importlib.util.find_spec("faster_whisper") is not None
    return replace(params, name="faster_whisper" if is_installed else "whisper")


def load_screen_reader(params: PartParams) -> ScreenReader | None:
    """The screen reader of `params`; None for `none`."""
    reader: ScreenReader | None = _loader("ocr", params.name)(params)
    return reader


def part_revision(family: str, params: PartParams, text_embedder: PartParams | None = None) -> str:
    """A text that changes whenever the part would give other results: its code, its weights, its settings.

    `text_embedder` counts for conse, whose vectors lie in that part's space. Loads nothing.
    """
    if isinstance(params, TranscriberParams):
        params = chosen_transcriber(params)
    _loader_path(family, params.name)
    revision = f"{params.name}-{CODE_VERSIONS[params.name]}/{_weights(params)}"
    if isinstance(params, TranscriberParams) and params.language:
        revision += f"/{params.language}"
    if params.name == "conse" and text_embedder is not None:
        revision += f"+{part_revision('text_embedder', text_embedder)}"
    return revision


def part_revisions(params: MaterializeParams) -> dict[str, str]:
    """The revision of every part in use, by its key in params.yaml."""
    return {
        family: part_revision(family, getattr(params, family), params.text_embedder)
        for family in FAMILIES
    }


def _weights(params: PartParams) -> str:
    if params.name == "none":
        return "none"
    if params.pretrained == "starter" and params.name in STARTERS:
        part = STARTERS[params.name]
        return f"{part.package}-{package_version(part)}"
    if params.pretrained in ("starter", "random"):
        return params.pretrained
    return hub.weights_revision(params.pretrained)


def _loader_path(family: str, name: str) -> str:
    try:
        return FAMILIES[family][name]
    except KeyError as error:
        known = ", ".join(sorted(FAMILIES[family]))
        raise ConfigError(
            f"materialize.{family}.name: no part is called {name!r}; known: {known}"
        ) from error


def _loader(family: str, name: str) -> Callable[..., Any]:
    module, _, function = _loader_path(family, name).partition(":")
    loader: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loader
