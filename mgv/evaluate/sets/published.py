"""Published: what others report on the data sets that can be imported here, and how their measuring differs.

Read off the projects' own tables (MiniGPT4-Video's README at ecabd7a, LLaMA-VID's and Video-LLaVA's READMEs,
LocalizingMoments' README and utils/eval.py, the benchmarks' result tables), in per cent unless it is a score of 0 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgv.registry.evaluation import Facts


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedResult:
    """One system's figures on one set."""

    system: str
    metrics: Mapping[str, float]
    """By our metric's name without `qa.` or `retrieval.`, on our scale."""
    subtitles: bool | None = None
    note: str = ""


_JUDGED = "judged by gpt-3.5-turbo, version not recorded: versions move MSVD by 10 points (FreeVA)"
_GREEDY = "8-bit weights, greedy, repetition penalty 1.5"


def _open(
    system: str, accuracy: float, score: float, subtitles: bool | None = None, note: str = _JUDGED
) -> PublishedResult:
    return PublishedResult(
        system=system,
        metrics={"accuracy": accuracy / 100, "score": score},
        subtitles=subtitles,
        note=note,
    )


def _choice(
    system: str, accuracy: float, subtitles: bool | None = None, note: str = ""
) -> PublishedResult:
    return PublishedResult(
        system=system, metrics={"accuracy": accuracy / 100}, subtitles=subtitles, note=note
    )


def _aspects(
    system: str, values: tuple[float, ...], names: tuple[str, ...], subtitles: bool | None
) -> PublishedResult:
    return PublishedResult(
        system=system,
        metrics=dict(zip(names, values, strict=True)),
        subtitles=subtitles,
        note=_JUDGED,
    )


def _recall(system: str, recall: float, note: str) -> PublishedResult:
    return PublishedResult(system=system, metrics={"recall_at_1": recall / 100}, note=note)


def _didemo(
    system: str, rank_at_1: float, rank_at_5: float, iou: float, note: str
) -> PublishedResult:
    metrics = {"didemo_rank_at_1": rank_at_1, "didemo_rank_at_5": rank_at_5, "didemo_iou": iou}
    return PublishedResult(system=system, metrics=metrics, note=note)


_LLAMA, _MISTRAL = "MiniGPT4-Video (Llama-2 7B)", "MiniGPT4-Video (Mistral 7B)"
_FIVE: Mapping[str, tuple[bool | None, tuple[float, ...]]] = {
    "Video-ChatGPT 7B": (None, (2.40, 2.52, 2.62, 1.98, 2.37)),
    "LLaMA-VID 7B": (None, (2.96, 3.00, 3.53, 2.46, 2.51)),
    _LLAMA: (False, (2.93, 2.97, 3.45, 2.47, 2.60)),
    f"{_LLAMA} ": (True, (3.08, 3.02, 3.57, 2.65, 2.67)),
    _MISTRAL: (False, (2.83, 2.52, 3.01, 2.32, 2.40)),
    f"{_MISTRAL} ": (True, (2.91, 2.57, 3.11, 2.33, 2.39)),
}


def _five(names: tuple[str, ...], places: slice) -> tuple[PublishedResult, ...]:
    return tuple(
        _aspects(system.strip(), values[places], names, subtitles)
        for system, (subtitles, values) in _FIVE.items()
    )


_WHOLE = "whole-video search, zero-shot, re-scored by a cross-encoder"
QUESTIONS: Mapping[str, tuple[PublishedResult, ...]] = {
    "msvd": (
        _open("Video-ChatGPT 7B", 64.9, 3.3),
        _open("LLaMA-VID 7B", 69.7, 3.7),
        _open("Video-LLaVA 7B", 70.7, 3.9),
        _open(_LLAMA, 72.93, 3.84, note=f"{_JUDGED}; {_GREEDY}"),
        _open(_MISTRAL, 73.92, 4.06, note=f"{_JUDGED}; {_GREEDY}"),
    ),
    "msrvtt": (
        _open("Video-ChatGPT 7B", 49.3, 2.8),
        _open("LLaMA-VID 7B", 57.7, 3.2),
        _open("Video-LLaVA 7B", 59.2, 3.5),
        _open(_LLAMA, 58.83, 3.29, False),
        _open(_LLAMA, 59.73, 3.3, True),
        _open(_MISTRAL, 58.26, 3.52, False),
        _open(_MISTRAL, 58.68, 3.53, True),
    ),
    "tgif": (
        _open("Video-ChatGPT 7B", 51.4, 3.0),
        _open("Video-LLaVA 7B", 70.0, 4.0),
        _open(_LLAMA, 67.9, 3.71),
        _open(_MISTRAL, 72.22, 4.08),
    ),
    "activitynet": (
        _open("Video-ChatGPT 7B", 35.2, 2.7),
        _open("LLaMA-VID 7B", 47.4, 3.3),
        _open("Video-LLaVA 7B", 45.3, 3.3),
        _open(_LLAMA, 45.85, 3.23, False),
        _open(_LLAMA, 46.3, 3.4, True),
        _open(_MISTRAL, 44.25, 3.35, False),
        _open(_MISTRAL, 44.38, 3.36, True),
    ),
    "tvqa": (
        _choice("Video-ChatGPT 7B", 23.35),
        _choice(_LLAMA, 36.45, False, "their scorer is not published"),
        _choice(_LLAMA, 46.94, True, "their scorer is not published"),
        _choice(_MISTRAL, 33.90, False, "their scorer is not published"),
        _choice(_MISTRAL, 54.21, True, "their scorer is not published"),
    ),
    "tvqa_long": (
        _choice("LLaMA-VID", 24.63, False, "judged by gpt-3.5-turbo"),
        _choice("Goldfish", 28.61, False, "judged by gpt-3.5-turbo"),
        _choice("LLaMA-VID", 26.86, True, "judged by gpt-3.5-turbo"),
        _choice(
            "Goldfish",
            41.78,
            True,
            "judged by gpt-3.5-turbo; 3 clips of an episode, OpenAI embeddings",
        ),
    ),
    "video_chatgpt_generic": _five(("correctness", "detail", "context"), slice(0, 3)),
    "video_chatgpt_temporal": _five(("temporal",), slice(3, 4)),
    "video_chatgpt_consistency": _five(("consistency",), slice(4, 5)),
    "video_mme": (
        _choice("Video-LLaVA 7B", 39.9, False, "8 frames"),
        _choice("Video-LLaVA 7B", 41.6, True, "8 frames"),
        _choice("Qwen2.5-VL 7B", 65.1, False),
        _choice("Qwen2.5-VL 7B", 71.6, True),
        _choice("GPT-4o", 71.9, False),
        _choice("GPT-4o", 77.2, True),
    ),
    "mvbench": (
        _choice("Video-LLaVA 7B", 41.0),
        _choice("LLaMA-VID 7B", 41.9),
        _choice("Qwen2.5-VL 7B", 69.6),
    ),
    "longvideobench": (
        _choice("Qwen2.5-VL 7B", 54.7),
        _choice("InternVideo2.5 8B", 60.6),
        _choice("GPT-4o", 66.7),
    ),
}
QUERIES: Mapping[str, tuple[PublishedResult, ...]] = {
    "msrvtt": (
        _recall("Perception Encoder G", 51.2, "whole-video search, zero-shot dual encoder"),
        _recall("InternVideo2 6B", 55.9, _WHOLE),
    ),
    "didemo": (
        _didemo(
            "MCN, RGB and flow",
            0.2708,
            0.7853,
            0.4053,
            "test split; trained on DiDeMo, as retrained for release",
        ),
        _didemo(
            "moment frequency prior",
            0.186842,
            0.686842,
            0.252216,
            "validation split; the training set's order",
        ),
    ),
    "didemo_paragraph": (_recall("InternVideo2 6B", 57.9, _WHOLE),),
    "activitynet_paragraph": (_recall("InternVideo2 6B", 63.2, _WHOLE),),
    "tvr": (
        PublishedResult(
            system="XML",
            metrics={"moment_recall_at_1_iou_0_5": 0.0725, "moment_recall_at_1_iou_0_7": 0.0325},
            note="test split; trained on TVR",
        ),
    ),
    "qvhighlights": (
        PublishedResult(
            system="CLIP, shots, watershed",
            metrics={
                "moment_recall_at_1_iou_0_5": 0.4833,
                "moment_recall_at_1_iou_0_7": 0.3096,
                "moment_map": 0.2796,
            },
            note="zero-shot, filtered val split (Diwan et al. 2023)",
        ),
        PublishedResult(
            system="Moment-DETR",
            metrics={
                "moment_recall_at_1_iou_0_5": 0.529,
                "moment_recall_at_1_iou_0_7": 0.330,
                "moment_map": 0.307,
            },
            note="test split; trained on QVHighlights",
        ),
    ),
}


def differences(facts: Facts, of: str) -> list[str]:
    """What of this run is not as in the published ones, in sentences."""
    sentences = []
    asked = facts.sets()[of]
    limit, missing = facts.limit, asked.missing
    if limit:
        sentences.append(
            f"at most {limit} of the {of}, drawn by seed {facts.seed}, are asked here; all of them there"
        )
    if missing:
        sentences.append(f"{len(missing)} videos of the set are missing here")
    if of == "queries":
        return [*sentences, _searching(asked.format)]
    sentences.append(_judging(facts.judge or {}, asked.format))
    if of == "library_questions":
        sentences.append(
            "here a library searches and answers from what it finds; there a model is shown the clip"
        )
        return sentences
    model = facts.model
    assert model is not None, "questions are answered by a model"
    sentences.append(
        f"decoding here is greedy, at most {model.max_new_tokens} tokens, repetition penalty "
        f"{model.repetition_penalty:g}"
    )
    if model.quantization != "none":
        sentences.append(f"the language model is held in {model.quantization} here")
    if not model.use_subtitles:
        sentences.append("subtitles are not shown here")
    return sentences


def _judging(judge: Mapping[str, Any], format: str) -> str:
    """Open answers are judged; where the set has choices, the choice is read from the answer."""
    if all(set(other.metrics) == {"accuracy"} for other in QUESTIONS.get(format, ())):
        return "a choice is read here from the answer's letter or words; each project reads it in its own way"
    named = f"{judge['judge']} {judge.get('model', '')}".strip()
    return f"open answers are judged here by {named}, version {judge['version']}; there by a chat model"


def _searching(format: str) -> str:
    if format == "didemo":
        return "here moments of any length stand for DiDeMo's 21 segments; there all 21 are ranked"
    if any("recall_at_1" in other.metrics for other in QUERIES.get(format, ())):
        return "here videos are found by their moments, with subtitles; there by one embedding a video, frames only"
    return "here a moment is what a search joins from its hits, made for no data set; there spans are proposed"
