"""Config: params.yaml as frozen, checked sections. A wrong key or type is named in the error.

A stage's word names its section. A part is chosen by `name` (which code) and `pretrained` (which weights):
`starter` is the embedded default, `random` a tiny seeded part for tests, anything else a folder or a hub id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mgv.errors import ConfigError

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PartParams:
    """A part: its code by name, its weights by `pretrained`."""

    name: str
    pretrained: str = "starter"
    """`starter`, `random`, a folder, or a hub id."""
    device: str = "auto"
    """`auto` takes CUDA, then MPS, then the CPU."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TranscriberParams(PartParams):
    """A speech recogniser."""

    name: str = "whisper"
    language: str | None = None
    """Spoken language as a code such as `en`; None lets the recogniser decide (tiny.en knows only English)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MaterializeParams:
    """What is computed of every video, and with what."""

    store: str = "data/library"
    """Where LanceDB keeps the tables: a folder (relative to the workspace) or an object-store URI."""
    reader: Literal["auto", "decord", "pyav"] = "auto"
    frame_interval_s: float = Field(default=1.0, ge=0.01)
    """A frame is taken in the middle of every such interval."""
    frame_size_px: int = Field(default=288, ge=32)
    """Frames are decoded with this short side; the frame embedder resizes further."""
    batch_size: int = Field(default=32, ge=1)
    thumbnail_px: int = Field(default=160, ge=16)
    """Long side of the stored JPEG."""
    segment_length_s: float = Field(default=6.0, ge=0.1)
    """Cues are joined into segments up to this length; a longer cue is cut at its words."""
    index_min_rows: int = Field(default=20_000, ge=256)
    """From this many rows on, vectors get an approximate index; below it search is flat and exact."""
    frame_embedder: PartParams = Field(default_factory=lambda: PartParams(name="conse"))
    text_embedder: PartParams = Field(default_factory=lambda: PartParams(name="sentence"))
    transcriber: TranscriberParams = Field(default_factory=TranscriberParams)
    ocr: PartParams = Field(default_factory=lambda: PartParams(name="none"))
    """On-screen text: `none` or `rapidocr` (extra `ocr`)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ChannelWeights:
    """How much each channel counts when ranks are fused."""

    frames: float = Field(default=1.0, ge=0)
    segments: float = Field(default=1.0, ge=0)
    text: float = Field(default=1.0, ge=0)
    screen: float = Field(default=1.0, ge=0)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SearchParams:
    """How moments are found and ranked."""

    limit: int = Field(default=5, ge=1)
    candidates: int = Field(default=100, ge=1)
    """Rows that each channel may give."""
    rrf_k: float = Field(default=20.0, gt=0)
    """Reciprocal rank fusion: a hit of rank r counts 1 / (rrf_k + r)."""
    merge_gap_s: float = Field(default=2.0, ge=0)
    """Hits of one video closer than this become one moment."""
    moment_length_s: float = Field(default=20.0, gt=0)
    """No moment grows longer than this."""
    weights: ChannelWeights = Field(default_factory=ChannelWeights)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AnswererParams(PartParams):
    """The part that turns evidence into an answer."""

    name: str = "text"
    """`text` (a language model over evidence), `video_llm` (a folder of `mgv`'s own video language model), `hf` (a
    vision-language model of transformers) or `openai` (an endpoint that speaks as OpenAI's)."""
    max_new_tokens: int = Field(default=64, ge=1)
    num_frames: int = Field(default=8, ge=1)
    """Frames shown of each moment (`video_llm`, `hf`, `openai`)."""
    base_url: str = "https://api.openai.com/v1"
    """`openai`: where the endpoint is; `pretrained` is then the model's name there."""
    api_key_env: str = "OPENAI_API_KEY"
    """`openai`: the environment variable that holds the key; a local endpoint needs none."""
    timeout_s: float = Field(default=60.0, gt=0)
    """`openai`: how long one request may take."""
    retries: int = Field(default=2, ge=0, le=10)
    """`openai`: how often a request is tried again after a time-out or a busy endpoint."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AskParams:
    """How a question is answered."""

    moments: int = Field(default=4, ge=1)
    """How many moments the answerer reads."""
    min_score: float = Field(default=0.12, ge=0, le=1)
    """A moment below this score is no evidence: search shows it, an answer does not rest on it."""
    answerer: AnswererParams = Field(default_factory=AnswererParams)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class JudgeParams(PartParams):
    """The part that says whether an answer is right."""

    name: str = "rule"
    """`rule` (words compared, no model), `openai` (an endpoint) or `hf` (a language model on this machine)."""
    tries: int = Field(default=3, ge=1, le=10)
    """How often a verdict is asked for before the item counts as failed."""
    max_new_tokens: int = Field(default=64, ge=1)
    base_url: str = "https://api.openai.com/v1"
    """`openai`: where the endpoint is; `pretrained` is then the model's name there: name a dated version."""
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = Field(default=60.0, gt=0)
    retries: int = Field(default=2, ge=0, le=10)
    """`openai`: how often a request is sent again after a time-out or to a busy endpoint."""
    input_price: float | None = None
    """`openai`: price of a million tokens read, in the currency of your bill; None leaves the cost unknown."""
    output_price: float | None = None
    """`openai`: price of a million tokens written."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvaluateParams:
    """What is evaluated, on what, and by whom it is judged."""

    system: Literal["model", "library"] = "model"
    """Who answers the questions: a trained model on the clips, or the library by search-and-ask."""
    model: str = "models/train/instruct"
    """`model`: the folder of a video language model."""
    questions: str | None = "data/prepare/instruct/test.jsonl"
    """A question file, or None."""
    questions_format: str = "samples"
    """`samples` (what `prepare` wrote), `mgv` (docs/evaluation.md) or a data set's own."""
    videos: str | None = None
    """The folder that the questions' videos lie in; None is the workspace's videos (`samples` name theirs)."""
    subtitles: str | None = None
    """Subtitles of the questions' videos: a folder, or TVQA's file."""
    use_subtitles: bool = True
    """False: the model sees the frames only."""
    within_video: bool = False
    """`library`: ask the video that a question is about, instead of the whole library."""
    queries: str | None = None
    """A query file for retrieval, or None."""
    queries_format: str = "mgv"
    """`mgv` or a data set's own."""
    limit: int | None = Field(default=None, ge=1)
    """Only this many questions and queries, drawn by the seed; None takes all."""
    max_new_tokens: int = Field(default=64, ge=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    """MiniGPT4-Video's own evaluation has 1.5."""
    choices: Literal["generate", "likelihood"] = "generate"
    """How a model chooses: by what it writes, or by which choice it finds likeliest."""
    judge: JudgeParams = Field(default_factory=JudgeParams)
    search_depth: int = Field(default=20, ge=1)
    """How many moments of each search are scored."""
    num_bootstrap: int = Field(default=1000, ge=10)
    """Resamples behind each 95 % interval."""
    seed: int = 0
    shards: int = Field(default=1, ge=1)
    """The flow answers in this many processes, on a GPU each where there are any."""
    baseline: str | None = None
    """Metrics that a run must not fall below: a file written by `mgv evaluate --freeze FILE`."""
    gate: dict[str, float] = Field(default_factory=dict)
    """Metric → how much worse than the baseline it may be."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Params:
    """All of params.yaml."""

    materialize: MaterializeParams = Field(default_factory=MaterializeParams)
    search: SearchParams = Field(default_factory=SearchParams)
    ask: AskParams = Field(default_factory=AskParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises ConfigError naming the key at fault."""
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: not found; a workspace has one (make one with `mgv init DIR`)") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    try:
        return TypeAdapter(Params).validate_python({} if raw is None else raw)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(faults)) from error
