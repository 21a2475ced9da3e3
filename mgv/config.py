"""Config: params.yaml as frozen, checked sections. A wrong key or type is named in the error.

A stage's word names its section. A part is chosen by `name` (which code) and `pretrained` (which weights):
`starter` is the embedded default, `random` a tiny seeded part for tests, anything else a folder or a hub id.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from mgv.errors import ConfigError
from mgv.files import replacing

if TYPE_CHECKING:
    from ruamel.yaml import YAML

_STRICT = ConfigDict(extra="forbid")
Quantization = Literal["none", "8bit", "4bit"]


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
    """A speech recogniser: `auto` takes `faster_whisper` where it is installed, else `whisper`."""

    name: str = "auto"
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
    engine: Literal["local", "ray"] = "local"
    """Who computes when the stage runs as a flow: threads of its process, or Ray workers (extra `ray`)."""
    ray_address: str = "auto"
    """`ray`: the cluster: `auto` (the one this machine belongs to), HOST:PORT, or `local` (one for this run)."""
    num_workers: int | None = Field(default=None, ge=1)
    """Videos computed at once; None: 2, on Ray as many as the cluster has room for."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Cores for one video; None: all, of a Ray worker one. Vectors are equal to the last bit for equal numbers only."""
    num_gpus: float | None = Field(default=None, ge=0)
    """`ray`: GPUs of each worker, 0.5 to have two share one; None: one where there are any."""


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

    name: str = "quote"
    """`quote` (the sentence that answers, no language model), `text` (a language model over evidence), `video_llm` (our
    own video language model: `starter`, `champion` or a folder), `hf` (a vision-language model of transformers) or
    `openai` (an endpoint that speaks as OpenAI's)."""
    max_new_tokens: int = Field(default=64, ge=1)
    num_frames: int = Field(default=8, ge=1)
    """Frames shown of each moment (`video_llm`, `hf`, `openai`)."""
    quantization: Quantization = "none"
    """`video_llm`, `hf`: weights of the language model in `8bit` or `4bit`, on CUDA with bitsandbytes."""
    device_map: str | None = None
    """`video_llm`, `hf`: `auto` or `balanced` spreads the language model over several GPUs."""
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
class ConnectorParams:
    """How an image's features become tokens of the language model."""

    name: str = "minigpt4_video"
    """`minigpt4_video`, `minigpt_v2`, `video_llava` or `llama_vid`."""
    options: dict[str, Any] | None = None
    """Arguments of that connector; None: as published."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LanguageModelParams:
    """The language model that a connector speaks to."""

    pretrained: str = "starter"
    quantization: Quantization = "none"
    """`8bit` and `4bit` need CUDA and bitsandbytes; with `lora`, 4 bit is QLoRA (arXiv 2305.14314)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LoraParams:
    """LoRA (arXiv 2106.09685). MiniGPT4-Video: rank 64, alpha 16, dropout 0.05 on q_proj and v_proj."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelParams:
    """The parts of the video language model that is trained."""

    connector: ConnectorParams = Field(default_factory=ConnectorParams)
    vision_encoder: PartParams = Field(default_factory=lambda: PartParams(name="efficientnet_lite"))
    language_model: LanguageModelParams = Field(default_factory=LanguageModelParams)
    lora: LoraParams = Field(default_factory=LoraParams)
    num_frames: int | None = Field(default=4, ge=1)
    """Frames of a video; None: as many as published (45, with Mistral 90)."""
    chat: str | None = "plain"
    """How the language model is spoken to: `plain` (a line each, fewest tokens), `tokenizer` (its own template) or a
    published chat's name; None: as published."""
    mode: Literal["corrected", "upstream"] = "corrected"
    """How prompts are written; `upstream` is the published training, quirks and all."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StageParams:
    """One stage of training."""

    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many steps, also within an epoch."""
    batch_size: int = Field(default=4, ge=1)
    """Videos (or images) of an optimizer step, over all processes."""
    micro_batch_size: int = Field(default=4, ge=1)
    """Videos of one forward pass of one process; the rest is accumulated."""
    turns_per_video: int = Field(default=16, ge=1)
    """Questions about one video that share its frames in one pass."""
    learning_rate: float = Field(default=1.0e-3, gt=0)
    min_learning_rate: float = Field(default=1.0e-4, ge=0)
    warmup_learning_rate: float = Field(default=1.0e-6, ge=0)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    """None: gradients are not clipped, as published."""
    connector: Literal["full", "frozen"] = "full"
    language_model: Literal["lora", "full", "frozen"] = "lora"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainParams:
    """How the model is trained: three stages, each from the one before."""

    seed: int = 42
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 where the GPU has it, fp32 on a CPU."""
    gradient_checkpointing: bool = False
    """Less memory, about a third more time."""
    cache_features: bool = True
    """Keep the frozen vision encoder's features (under data/features): each video is looked at once."""
    cache_max_gb: float = Field(default=20.0, gt=0)
    log_every: int = Field(default=10, ge=1)
    """Steps."""
    validate_every: int = Field(default=200, ge=1)
    validate_samples: int = Field(default=48, ge=1)
    save_every: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    pretrain_image: StageParams = Field(default_factory=lambda: StageParams(epochs=1.0))
    pretrain_video: StageParams = Field(default_factory=lambda: StageParams(epochs=1.25))
    instruct: StageParams = Field(default_factory=lambda: StageParams(epochs=2.0))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SourceParams:
    """Annotations to learn from, and the media that they are about. Paths are relative to the workspace."""

    name: str
    """The format: `scenes` (the starter data set, made by mgv itself), `samples`, `llava`, … (docs/data.md)."""
    stage: Literal["pretrain_image", "pretrain_video", "instruct"] | None = None
    """Which stage trains on it; None: the format's own (of `scenes`: all three)."""
    annotations: str | None = None
    """The annotation file; of `webdataset` a shard, a folder of shards, or a range `{00000..00012}.tar`."""
    media: str = "data/videos"
    """The folder that the annotations' media names lie in."""
    subtitles: str | None = None
    """A folder of .vtt or .srt files by the videos' names; None: they lie beside the videos."""
    split: Literal["auto", "train", "validation", "test"] = "auto"
    """`auto` splits by the content of each video or image."""
    limit: int | None = Field(default=None, ge=1)
    """Take no more samples than this."""
    weight: float | None = Field(default=None, gt=0)
    """Its part of what its stage trains on, beside the weights of the stage's other sources; None: by its size."""
    num_videos: int = Field(default=800, ge=1)
    """`scenes`: how many videos to make."""
    seed: int = Field(default=0, ge=0)
    """`scenes`: another seed makes other videos."""

    @model_validator(mode="after")
    def _has_annotations(self) -> SourceParams:
        if self.annotations is None and self.name != "scenes":
            raise ValueError(f"the source {self.name!r} needs `annotations`")
        if self.weight is not None and self.split in ("validation", "test"):
            raise ValueError(
                f"the source {self.name!r} has a `weight`, but its split {self.split} is not trained on"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PrepareParams:
    """What the model learns from, and how it is split."""

    sources: tuple[SourceParams, ...] = (SourceParams(name="scenes"),)
    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """A source with a larger share of bad rows stops the run."""
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    """Of the videos and images of sources with split `auto`."""
    test_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    """Another seed splits otherwise."""

    @model_validator(mode="after")
    def _has_something_to_train_on(self) -> PrepareParams:
        if not self.sources:
            raise ValueError("no sources; take the line out for the starter data set")
        if len({source.seed for source in self.sources if source.name == "scenes"}) > 1:
            raise ValueError("`scenes` are drawn into one folder: give all of them the same seed")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self


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
    workers: int = Field(default=4, ge=1, le=64)
    """`openai`: how many verdicts are waited for at once."""
    input_price: float | None = None
    """`openai`: price of a million tokens read, in the currency of your bill; None leaves the cost unknown."""
    output_price: float | None = None
    """`openai`: price of a million tokens written."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvaluateParams:
    """What is evaluated, on what, and by whom it is judged."""

    model: str = "models/train/instruct"
    """The folder of a video language model, `champion` or a published version, or `starter`, which comes with mgv."""
    quantization: Quantization = "none"
    """How its language model is held: `8bit` and `4bit` need CUDA and bitsandbytes."""
    questions: str | None = "data/prepare/instruct/test.jsonl"
    """A question file that the model answers from the clips; `starter`: scenes that come with mgv; or None."""
    questions_format: str = "samples"
    """`samples` (what `prepare` wrote), `mgv` (docs/evaluation.md) or a data set's own."""
    videos: str | None = None
    """The folder that the questions' videos lie in; None is the workspace's videos (`samples` name theirs)."""
    subtitles: str | None = None
    """Subtitles of the questions' videos: a folder, or TVQA's file."""
    use_subtitles: bool = True
    """False: the model sees the frames only."""
    library_questions: str | None = None
    """A question file that the library answers by search-and-ask; `starter`: the demo library's; or None."""
    library_questions_format: str = "mgv"
    within_video: bool = False
    """`library_questions`: ask the video that a question is about, instead of the whole library."""
    queries: str | None = None
    """A query file for retrieval; `starter`: the demo library's; or None."""
    queries_format: str = "mgv"
    """`mgv` or a data set's own."""
    transcripts: str | None = None
    """A folder of subtitles to hold speech recognition against; `starter`: the demo library's; or None."""
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
class PublishParams:
    """What happens to a version that is published."""

    push_to_hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Push it to this Hub repository too, OWNER/NAME; the token comes from HF_TOKEN."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RetrainParams:
    """How new videos become a new model, on a schedule (docs/retraining.md)."""

    inbox: str = "data/inbox"
    """The folder that new videos are put into."""
    settle_s: float = Field(default=30.0, ge=0)
    """A file is taken in when it has not changed for so long; what is still being written waits for the next run."""
    cron: str = "0 3 * * *"
    """When a deployment runs: minute, hour, day of the month, month, day of the week."""
    timezone: str = "UTC"
    """Of the schedule: `Europe/Berlin`."""
    gate: dict[str, float] = Field(default_factory=lambda: {"qa.accuracy": 0.01})
    """Metric → how much worse than the champion's the candidate's may be."""
    incumbent: str = "starter"
    """What the first candidate is compared with: `starter`, a model's folder, or `none`."""
    stage_hours: float = Field(default=48.0, gt=0)
    """A stage that takes longer is stopped and has failed."""
    retries: int = Field(default=1, ge=0)
    """How often a stage that died is started again; what is wrong with data or parameters is not tried again."""
    push: bool = True
    """Push data, models and commits to the remotes of DVC and git, where there are any."""
    notify: tuple[str, ...] = ()
    """Prefect blocks that are told of promotions, refused candidates and failures: `custom-webhook/mgv`."""

    @model_validator(mode="after")
    def _has_a_time_zone(self) -> RetrainParams:
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"timezone {self.timezone!r} is none; for example Europe/Berlin"
            ) from error
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OperationsParams:
    """What `mgv clean` keeps, and how much disk a workspace may take."""

    keep_libraries: int = Field(default=5, ge=1)
    """Newest libraries that stay; so do those of published models and of the champion's history."""
    older_than_days: float = Field(default=30.0, ge=0)
    """Nothing younger goes."""
    grace_hours: float = Field(default=24.0, ge=0)
    """How long a library's tables stay after it was taken out of the list, for those who are reading it."""
    disk_budget_gb: float | None = Field(default=None, gt=0)
    """More than this on the workspace's disk stops a retrain before it begins; None: no limit."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Params:
    """All of params.yaml."""

    materialize: MaterializeParams = Field(default_factory=MaterializeParams)
    model: ModelParams = Field(default_factory=ModelParams)
    train: TrainParams = Field(default_factory=TrainParams)
    search: SearchParams = Field(default_factory=SearchParams)
    ask: AskParams = Field(default_factory=AskParams)
    prepare: PrepareParams = Field(default_factory=PrepareParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)
    publish: PublishParams = Field(default_factory=PublishParams)
    retrain: RetrainParams = Field(default_factory=RetrainParams)
    operations: OperationsParams = Field(default_factory=OperationsParams)


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises ConfigError naming the key at fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: not found; a workspace has one (make one with `mgv init DIR`)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    return parse_params(text, str(path))


def parse_params(text: str, name: str, sections: Collection[str] | None = None) -> Params:
    """A params.yaml's text; `name` says in errors where it is from. Raises ConfigError naming the key at fault.

    sections: read only these: an older file may have keys elsewhere that are gone by now.
    """
    try:
        raw: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: cannot be read: {' '.join(str(error).split())}") from error
    if sections is not None and isinstance(raw, dict):
        raw = {key: section for key, section in raw.items() if key in sections}
    try:
        return TypeAdapter(Params).validate_python({} if raw is None else raw)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()
        ]
        raise ConfigError(f"{name}: " + "; ".join(faults)) from error


def setting(params: Params, key: str) -> Any:
    """What a dotted key such as `search.limit` is set to, plain data; the empty key is everything.

    Raises ConfigError naming the keys there are, when there is none of that name.
    """
    value: Any = asdict(params)
    path = key.split(".") if key else []
    for depth, word in enumerate(path):
        pairs = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value if isinstance(value, list | tuple) else ())
        )
        entries = {str(name): entry for name, entry in pairs}
        if word not in entries:
            section = ".".join(path[:depth]) or "params.yaml"
            known = f"it has {', '.join(entries)}" if entries else "it is a single value"
            raise ConfigError(f"{key}: {section} has no key {word!r}; {known}")
        value = entries[word]
    return value


def write_setting(path: Path, key: str, text: str) -> None:
    """Set a dotted key of params.yaml to a YAML value; comments, order and all other lines stay.

    Raises ConfigError naming the fault, before anything is written, when the key or value is not allowed.
    """
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import YAMLError

    editor = _editor()
    try:
        document = editor.load(path.read_text(encoding="utf-8")) or CommentedMap()
        value = editor.load(
            re.sub(r"^([+-]?\d+)(e[+-]?\d+)$", r"\1.0\2", text.strip())
        )  # YAML 1.1 wants the dot
    except YAMLError as error:
        raise ConfigError(
            f"{key}: {text!r} is not a YAML value: {' '.join(str(error).split())}"
        ) from error
    try:
        *sections, name = (int(word) if word.isdecimal() else word for word in key.split("."))
        section: Any = document
        for word in sections:
            section = (
                section.setdefault(word, CommentedMap())
                if isinstance(section, dict)
                else section[word]
            )
        section[name] = value
    except (TypeError, IndexError) as error:
        raise ConfigError(
            f"{key}: params.yaml has no such place; `mgv config get` shows what there is"
        ) from error
    out = io.StringIO()
    editor.dump(document, out)
    parse_params(out.getvalue(), str(path))
    with replacing(path, ConfigError) as file:
        file.write(out.getvalue())


def _editor() -> YAML:
    """YAML with its comments, written in the style of the params.yaml that mgv makes."""
    from ruamel.yaml import YAML

    editor = YAML()
    representer = editor.representer
    representer.yaml_representers = representer.yaml_representers | {
        type(None): lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    }
    editor.preserve_quotes = True
    editor.width = 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    return editor
