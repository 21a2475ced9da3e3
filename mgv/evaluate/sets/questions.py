"""Questions: items to be answered and how each is scored; prepared samples, our JSONL, and data sets' own files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mgv.data.samples import SampleFile
from mgv.errors import ConfigError, MgvError
from mgv.evaluate.sets.annotations import (
    Row,
    Shelf,
    json_rows,
    line_rows,
    parquet_rows,
    plain_name,
    read_cues,
    read_json,
    say_missing,
    table_rows,
    tvqa_cues,
    video_shelf,
)
from mgv.evaluate.sets.queries import check_unique, own_span
from mgv.evaluate.spans import Span
from mgv.media.images import split_member
from mgv.media.sidecars import SUBTITLE_SUFFIXES
from mgv.records import Cue, Sample

ASPECTS = ("correctness", "detail", "context", "temporal", "consistency")
"""Video-ChatGPT's five, each scored 0 to 5 by a judge."""
KINDS = {
    "tgif": dict(enumerate(("object", "number", "colour", "place"))),
    "activitynet": dict(
        enumerate(
            ("motion", "space", "time", "yes or no", "colour", "object", "place", "number", "other")
        )
    ),
}
"""What the numbers of a data set's `type` stand for (TGIF-QA's and ActivityNet-QA's dataset/README.md)."""
MVBENCH_FOLDERS = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "object_interaction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "counterfactual_inference": "clevrer/video_validation",
    "object_shuffle": "perception/videos",
    "action_count": "perception/videos",
    "state_change": "perception/videos",
    "character_order": "perception/videos",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "fine_grained_pose": "nturgbd",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
}
"""MVBench: the folder of a task's videos; CLEVRER's and Perception Test's have the same names (video_10009.mp4)."""
_LETTERED = re.compile(r"^\(?[A-Z][.):]\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationItem:
    """A question and what is right."""

    item_id: str
    videos: tuple[str, ...]
    """Path of the video (or image, or folder of frames) that it is about; several where one show is cut into clips."""
    question: str
    answer: str | None
    """None: the video does not say; the right thing is not to answer."""
    choices: tuple[str, ...] = ()
    shows_choices: bool = True
    """Whether the choices are written under the question. False where training did not."""
    kind: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    cues: tuple[Cue, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    """Earlier questions of a dialogue, with their right answers."""
    also_asked: str = ""
    """The same question in other words, for `consistency`."""
    protocols: tuple[str, ...] = ("match",)
    """How it is judged: `match`, or some of ASPECTS."""
    moments: tuple[Span, ...] = ()
    """Where the answer is, for citations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """A question set as it can be asked here."""

    items: tuple[EvaluationItem, ...]
    missing: dict[str, int]
    """Video that is not here → how many items were left out for it."""
    digest: str
    """SHA-256 of all items that can be asked, apart from where their videos lie."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """An item whose `videos` are still the names of the annotation file."""

    item: EvaluationItem
    subtitles: str = ""
    """Name of the subtitle file, where it is not the video's."""
    shift_s: float = 0.0
    """How much later the subtitles' clock is than the video's."""


def read_questions(
    path: Path, format: str = "mgv", *, videos: Path | None = None, subtitles: Path | None = None
) -> Questions:
    """The items of a question file whose videos are here.

    videos: the folder that they lie in; for `samples`, whose paths are relative, the workspace. subtitles: a folder of
    subtitle files, or TVQA's file. Raises ConfigError for an unknown format, MgvError for a row that cannot be
    understood, or when none of the videos is here.
    """
    if format not in ("samples", *QUESTION_FORMATS):
        known = ", ".join(["samples", *sorted(QUESTION_FORMATS)])
        raise ConfigError(f"evaluate.questions_format: {format!r} is none of {known}")
    if videos is None:
        raise ConfigError(
            "evaluate.videos: name the folder that the videos of these questions lie in"
        )
    find = _finder(videos) if format == "samples" else video_shelf(videos).find
    entries = _samples(path) if format == "samples" else QUESTION_FORMATS[format](path)
    cues = _cues_reader(subtitles)
    items: list[EvaluationItem] = []
    missing: dict[str, int] = {}
    for entry in entries:
        _check_answer(path, entry.item)
        media = [find(name) for name in entry.item.videos]
        absent = [
            name for name, place in zip(entry.item.videos, media, strict=True) if place is None
        ]
        for name in absent:
            missing[name] = missing.get(name, 0) + 1
        if not absent:
            places = tuple(str(place) for place in media)
            item = replace(entry.item, videos=places)
            items.append(
                item if format == "samples" else replace(item, cues=cues(replace(entry, item=item)))
            )
    say_missing(f"{path}", missing)
    if not items:
        reason = (
            f"none of its {len(missing)} videos is in {videos} (first: {min(missing)})"
            if missing
            else "no questions"
        )
        raise MgvError(f"{path}: {reason}")
    check_unique((item.item_id for item in items), path)
    return Questions(items=tuple(items), missing=missing, digest=items_digest(items))


def _check_answer(path: Path, item: EvaluationItem) -> None:
    """Raises MgvError for a question that nobody can answer rightly."""
    if item.choices and item.answer is not None and item.answer not in item.choices:
        raise MgvError(
            f"{path}: {item.item_id}: the answer {item.answer[:60]!r} is none of its {len(item.choices)} choices"
        )


def items_digest(items: Sequence[EvaluationItem]) -> str:
    """SHA-256 of items, in any order, wherever their videos lie."""
    rows = [
        asdict(replace(item, videos=tuple(Path(video).name for video in item.videos)))
        for item in items
    ]
    rows.sort(key=lambda row: str(row["item_id"]))
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _cues_reader(subtitles: Path | None) -> Callable[[_Entry], tuple[Cue, ...]]:
    """Gives an entry's cues: none where there are no subtitles for it. Not told where, it looks beside the video."""
    if subtitles is None:
        return _cues_beside()
    if subtitles.is_file():
        by_video = tvqa_cues(subtitles)
        return lambda entry: by_video.get(plain_name(entry.item.videos[0]), ())
    shelf = Shelf(subtitles, {*SUBTITLE_SUFFIXES, ".json"})
    kept: dict[tuple[Path, float], tuple[Cue, ...]] = {}

    def read(entry: _Entry) -> tuple[Cue, ...]:
        place = shelf.find(entry.subtitles or entry.item.videos[0])
        if place is None:
            return ()
        key = (place, entry.shift_s)
        if key not in kept:
            kept[key] = read_cues(place, shift_s=entry.shift_s)
        return kept[key]

    return read


def _cues_beside() -> Callable[[_Entry], tuple[Cue, ...]]:
    kept: dict[str, tuple[Cue, ...]] = {}

    def read(entry: _Entry) -> tuple[Cue, ...]:
        video = entry.item.videos[0]
        if video not in kept:
            places = (Path(video).with_suffix(suffix) for suffix in SUBTITLE_SUFFIXES)
            place = next((each for each in places if each.is_file()), None)
            kept[video] = read_cues(place) if place else ()
        return kept[video]

    return read


# prepared samples


def _samples(path: Path) -> Iterator[_Entry]:
    for sample in SampleFile(path):
        yield from (_Entry(item=item) for item in sample_items(sample))


def _finder(root: Path) -> Callable[[str], Path | None]:
    """Finds a sample's media: a path from the workspace, or a member of a tar shard there."""

    def find(media: str) -> Path | None:
        place = root / media
        return place if place.exists() or split_member(place) else None

    return find


def sample_items(sample: Sample) -> Iterator[EvaluationItem]:
    """An item for each turn. In a dialogue the turns ahead of it, with their right answers, are its history."""
    for place, turn in enumerate(sample.turns):
        before = sample.turns[:place] if sample.is_dialogue else ()
        yield EvaluationItem(
            item_id=f"{sample.sample_id}#{place}",
            videos=(sample.media,),
            question=turn.question,
            answer=turn.answer,
            choices=turn.choices,
            shows_choices=False,
            kind=turn.kind,
            start_s=sample.start_s,
            end_s=sample.end_s,
            cues=sample.cues,
            history=tuple((each.question, each.answer) for each in before),
        )


# our JSONL


def _own(path: Path) -> Iterator[_Entry]:
    """`{"item_id", "video", "question", "answer"}` and, where there are any, choices, kind, start_s, end_s, moments."""
    for row in line_rows(path):
        video = row.text("video")
        yield _Entry(
            item=EvaluationItem(
                item_id=row.text("item_id"),
                videos=(video,),
                question=row.text("question"),
                answer=row.text("answer") if row.has("answer") else None,
                choices=row.texts("choices") if row.has("choices") else (),
                kind=row.text("kind") if row.has("kind") else "",
                start_s=row.number("start_s") if row.has("start_s") else 0.0,
                end_s=row.number("end_s") if row.has("end_s") else None,
                moments=tuple(
                    own_span(Row({"video": video, **each}, row.where))
                    for each in row.values.get("moments") or ()
                ),
            )
        )


# open questions


def _open(name: str, *video: str) -> Callable[[Path], Iterator[_Entry]]:
    """A list of question and answer, or a list of questions beside one of answers (`test_q.json`, `test_a.json`)."""

    def read(path: Path) -> Iterator[_Entry]:
        names = _msvd_names(path)
        for place, row in enumerate(_with_answers(path)):
            given = row.raw(*video)
            given_key = next((id for id in ("question_id", "id", "vid_id") if row.has(id)), None)
            key = row.text(given_key) if given_key else str(place)
            if isinstance(given, int):  # MSVD-QA and MSRVTT-QA number their videos
                given = (
                    names.get(f"vid{given}", f"vid{given}") if name == "msvd" else f"video{given}"
                )
            yield _Entry(
                item=EvaluationItem(
                    item_id=f"{name}/{key}",
                    videos=(
                        _activitynet_name(str(given)) if name == "activitynet" else str(given),
                    ),
                    question=row.text("question"),
                    answer=row.text("answer"),
                    kind=_kind(row, KINDS.get(name, {})),
                )
            )

    return read


def _kind(row: Row, words: Mapping[int, str]) -> str:
    if not row.has("type"):
        return ""
    return words.get(row.index("type"), "other") if words else row.text("type")


def _with_answers(path: Path) -> Iterator[Row]:
    """Questions with the answers of the file beside them, by question_id; or rows that hold both."""
    beside = path.with_name(path.name.replace("_q.", "_a."))
    if beside == path or not beside.is_file():
        yield from table_rows(path) if path.suffix in (".csv", ".tsv") else json_rows(path)
        return
    answers = {row.text("question_id"): row for row in json_rows(beside)}
    for row in json_rows(path):
        key = row.text("question_id")
        if key not in answers:
            raise MgvError(f"{row.where}: {beside.name} has no answer for question_id {key!r}")
        yield Row(row.values | answers[key].values, row.where)


def _msvd_names(path: Path) -> dict[str, str]:
    """MSVD's `youtube_mapping.txt`, where it lies beside the questions: vid1 → the file's name."""
    mapping = path.with_name("youtube_mapping.txt")
    if not mapping.is_file():
        return {}
    lines = (line.split() for line in mapping.read_text(encoding="utf-8").splitlines())
    return {words[1]: words[0] for words in lines if len(words) == 2}


def _activitynet_name(name: str) -> str:
    """ActivityNet-QA leaves out the `v_` that the files have."""
    return name if name.startswith("v_") else f"v_{name}"


def _video_chatgpt(name: str, protocols: tuple[str, ...]) -> Callable[[Path], Iterator[_Entry]]:
    """Video-ChatGPT's benchmark: Q (or Q1 and Q2), A, video_name."""

    def read(path: Path) -> Iterator[_Entry]:
        for place, row in enumerate(json_rows(path)):
            yield _Entry(
                item=EvaluationItem(
                    item_id=f"{name}/{place}",
                    videos=(row.text("video_name"),),
                    question=row.text("Q1", "Q"),
                    also_asked=row.text("Q2") if name.endswith("consistency") else "",
                    answer=row.text("A"),
                    protocols=protocols,
                )
            )

    return read


# multiple choice


def _tvqa(path: Path) -> Iterator[_Entry]:
    """TVQA, tvqa_val.jsonl: q, a0 to a4, answer_idx, vid_name, ts."""
    for row in json_rows(path):
        yield _Entry(item=_tvqa_item(row, "tvqa", (row.text("vid_name"),)))


def _tvqa_long(path: Path) -> Iterator[_Entry]:
    """TVQA-Long, tvqa_val_edited.json: show → season → episode → clips and their questions, asked over all clips."""
    for show, seasons in _levels(path, read_json(path)):
        for season, episodes in _levels(path, seasons):
            for episode, values in _levels(path, episodes):
                row = Row(values, f"{path}: {show}, {season}, {episode}")
                clips = row.texts("clips")
                for question in row.raw("questions"):
                    item = _tvqa_item(Row(question, row.where), "tvqa_long", clips)
                    yield _Entry(item=replace(item, kind=show))


def _levels(path: Path, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        raise MgvError(f"{path}: expected show → season → episode, found {str(value)[:60]!r}")
    yield from ((str(key), each) for key, each in value.items())


def _tvqa_item(row: Row, name: str, videos: tuple[str, ...]) -> EvaluationItem:
    choices = tuple(row.text(f"a{i}") for i in range(5))
    moments: tuple[Span, ...] = ()
    if row.has("ts"):
        start_s, end_s = row.span("ts")  # NaN-NaN where it is not known
        moments = (
            (Span(video=row.text("vid_name"), start_s=start_s, end_s=end_s),)
            if end_s > start_s
            else ()
        )
    return EvaluationItem(
        item_id=f"{name}/{row.text('qid')}",
        videos=videos,
        question=row.text("q"),
        choices=choices,
        answer=_choice(row, choices, row.index("answer_idx")),
        kind=row.text("show_name") if row.has("show_name") else "",
        moments=moments,
    )


def _choice(row: Row, choices: Sequence[str], place: int) -> str:
    if not 0 <= place < len(choices):
        raise MgvError(
            f"{row.where}: the right choice is number {place}, but there are {len(choices)}"
        )
    return choices[place]


def _video_mme(path: Path) -> Iterator[_Entry]:
    """Video-MME: the hub's parquet, a row a question; or the JSON form, a video with its questions."""
    rows = parquet_rows(path) if path.suffix == ".parquet" else json_rows(path)
    for row in rows:
        asked = row.raw("questions") if row.has("questions") else [row.values]
        for each in asked:
            one = Row(row.values | each, row.where)
            options = tuple(_LETTERED.sub("", option) for option in one.texts("options", "choices"))
            place = "ABCDEFGH".find(one.text("answer")[:1].upper())
            yield _Entry(
                item=EvaluationItem(
                    item_id=f"video_mme/{one.text('question_id')}",
                    videos=(one.text("videoID", "url", "video_id"),),
                    question=one.text("question"),
                    choices=options,
                    answer=_choice(one, options, place),
                    kind=one.text("duration") if one.has("duration") else "",
                )
            )


def _mvbench(path: Path) -> Iterator[_Entry]:
    """MVBench: a folder with a JSON file a task, or one of them: video, question, candidates, answer, start, end."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    for file in files:
        for place, row in enumerate(json_rows(file)):
            cut = row.has("start", "end")
            yield _Entry(
                item=EvaluationItem(
                    item_id=f"mvbench/{file.stem}/{place}",
                    videos=(
                        f"{MVBENCH_FOLDERS.get(file.stem, '')}/{row.text('video')}".lstrip("/"),
                    ),
                    question=row.text("question"),
                    choices=row.texts("candidates"),
                    answer=row.text("answer"),
                    kind=file.stem,
                    start_s=row.number("start") if cut else 0.0,
                    end_s=row.number("end") if cut else None,
                )
            )


def _longvideobench(path: Path) -> Iterator[_Entry]:
    """LongVideoBench, lvb_val.json: candidates, correct_choice, video_path; subtitles are those of the whole source."""
    for row in json_rows(path):
        choices = row.texts("candidates")
        shifted = row.has("starting_timestamp_for_subtitles")
        yield _Entry(
            item=EvaluationItem(
                item_id=f"longvideobench/{row.text('id')}",
                videos=(row.text("video_path", "video_id"),),
                question=row.text("question"),
                choices=choices,
                answer=_choice(row, choices, row.index("correct_choice")),
                kind=row.text("duration_group") if row.has("duration_group") else "",
            ),
            subtitles=row.text("subtitle_path") if row.has("subtitle_path") else "",
            shift_s=row.number("starting_timestamp_for_subtitles") if shifted else 0.0,
        )


QUESTION_FORMATS: dict[str, Callable[[Path], Iterator[_Entry]]] = {
    "mgv": _own,
    "msvd": _open("msvd", "video_id", "video_name", "video"),
    "msrvtt": _open("msrvtt", "video_id", "video_name", "video"),
    "activitynet": _open("activitynet", "video_id", "video_name", "video"),
    "tgif": _open("tgif", "gif_name", "video_name"),
    "tvqa": _tvqa,
    "tvqa_long": _tvqa_long,
    "video_chatgpt_generic": _video_chatgpt(
        "video_chatgpt_generic", ("correctness", "detail", "context")
    ),
    "video_chatgpt_temporal": _video_chatgpt("video_chatgpt_temporal", ("temporal",)),
    "video_chatgpt_consistency": _video_chatgpt("video_chatgpt_consistency", ("consistency",)),
    "video_mme": _video_mme,
    "mvbench": _mvbench,
    "longvideobench": _longvideobench,
}
"""Question files by the name of their format; `samples` are those that `prepare` wrote."""
