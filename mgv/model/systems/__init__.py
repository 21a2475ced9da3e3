"""Connectors: how vision features become language tokens. Each file is one published system."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from mgv.encoders.vision import VisionSpec
from mgv.errors import ConfigError
from mgv.model.systems import llama_vid, minigpt4_video, minigpt_v2, video_llava
from mgv.model.systems.base import Connector, PublishedDefaults, Question, concat_neighbours

__all__ = [
    "CONNECTORS",
    "Connector",
    "PublishedDefaults",
    "Question",
    "build_connector",
    "concat_neighbours",
    "published",
]

CONNECTORS: dict[str, tuple[type[Connector], ModuleType]] = {
    "minigpt4_video": (minigpt4_video.MiniGPT4Video, minigpt4_video),
    "minigpt_v2": (minigpt_v2.MiniGPTv2, minigpt_v2),
    "video_llava": (video_llava.VideoLlava, video_llava),
    "llama_vid": (llama_vid.LlamaVid, llama_vid),
}


def _find(name: str) -> tuple[Any, ModuleType]:
    if name not in CONNECTORS:
        raise ConfigError(f"model.connector.name: {name!r} is none of {', '.join(CONNECTORS)}")
    return CONNECTORS[name]


def build_connector(name: str, vision: VisionSpec, model_size: int, **options: Any) -> Connector:
    """The connector of that name between features of that shape and a language model of that width."""
    try:
        connector: Connector = _find(name)[0](vision, model_size, **options)
    except TypeError as error:
        raise ConfigError(f"connector {name!r} does not take these options: {error}") from error
    return connector


def published(name: str) -> PublishedDefaults:
    """The defaults that the system of that name was published with."""
    defaults: PublishedDefaults = _find(name)[1].PUBLISHED
    return defaults


def upstream_keys(name: str) -> dict[str, str]:
    """Prefixes of the system's own tensor names -> ours."""
    keys: dict[str, str] = _find(name)[1].UPSTREAM_KEYS
    return keys
