"""Answerers: the parts that write an answer, by name."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from mgv.ask.answer import Answerer
from mgv.config import AnswererParams
from mgv.encoders.base import TextEmbedder
from mgv.errors import ConfigError, WeightsError
from mgv.files import file_digests
from mgv.records import Locate

ANSWERERS = {
    "quote": "mgv.ask.answerers.quote",
    "text": "mgv.ask.answerers.text",
    "video_llm": "mgv.ask.answerers.video_llm",
    "hf": "mgv.ask.answerers.hub",
    "openai": "mgv.ask.answerers.openai",
}
"""The module of each, with its `load`."""
QUOTE_VERSION = 1
"""Goes up when `quote` answers otherwise."""


def load_answerer(params: AnswererParams, embedder: TextEmbedder, locate: Locate) -> Answerer:
    """The answerer of params.yaml; those that look at frames read them from the file that `locate` names.

    Raises ConfigError for a name that does not exist.
    """
    if params.name not in ANSWERERS:
        raise ConfigError(
            f"ask.answerer.name: {params.name!r} is not one of {', '.join(sorted(ANSWERERS))}"
        )
    load: Callable[[AnswererParams, TextEmbedder, Locate], Answerer] = importlib.import_module(
        ANSWERERS[params.name]
    ).load
    return load(params, embedder, locate)


def answerer_weights(params: AnswererParams) -> str:
    """The revision of an answerer's weights: a folder's digest, a package's version, a hub's commit. Loads nothing.

    Of an endpoint only the model's name is known: what answers under it may change at any time. Raises WeightsError
    for a folder that is not there.
    """
    from mgv.encoders.hub import weights_revision
    from mgv.starter.weights import LANGUAGE, package_version

    if params.name == "quote":
        return f"quote-{QUOTE_VERSION}"
    if params.name == "openai":
        return f"{params.base_url} {params.pretrained}"
    if params.name == "video_llm":
        from mgv.model.checkpoint import model_folder

        return _model_digest(model_folder(params.pretrained))
    if params.pretrained == "starter":
        return f"{LANGUAGE.package}-{package_version(LANGUAGE)}"
    return weights_revision(params.pretrained).rpartition("@")[2]


_ABOUT = re.compile(r"README\.md|(train|lineage|metrics|run)\.json|(curves|training)/.*")
"""Files of a model's folder that tell of it and answer nothing; publishing adds some."""


def _model_digest(folder: Path) -> str:
    """SHA-256 of what a video language model answers with: equal for a trained model and its published version."""
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder}: no model there (config.json is missing)")
    digests = {
        name: digest for name, digest in file_digests(folder).items() if not _ABOUT.fullmatch(name)
    }
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
