"""Sources: the annotation formats of the field, each read as samples.

A reader takes the annotations, the folder of the media and a label for its sample ids, and gives one SampleRow or
BadRow a row. Media names come from the annotations, so they are untrusted: none may leave its folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mgv.data.rows import BadRow, SampleRow, read_rows
from mgv.data.samples import RowError, parse_row, sample_from_row, text_of
from mgv.errors import ConfigError, DataError, MediaError
from mgv.media.images import (
    IMAGE_SUFFIXES,
    TarFault,
    TarMember,
    read_media,
    split_member,
    tar_members,
)
from mgv.media.probe import VIDEO_SUFFIXES
from mgv.records import Sample, Turn

Rows = Iterator[SampleRow | BadRow]
Reader = Callable[[Path, "MediaFolder", str], Rows]

INSTRUCTIONS = (
    "Describe what you see.",
    "What does this show?",
    "Say in a sentence what is going on here.",
    "Give a short description of the scene.",
    "What is happening?",
    "Tell me what can be seen here.",
    "Summarise what is shown.",
    "Write a caption for this.",
    "How would you describe this to someone who cannot see it?",
    "What is the main thing to notice here?",
    "Put into words what is shown.",
    "Describe the people, things and actions in view.",
)
"""Questions for captions, in our own words; upstream draws from lists of 4, 13 and 17 such lines."""


@dataclass(frozen=True, slots=True)
class MediaFolder:
    """Where a source's videos and images are; `path` None looks none up (a check of the format alone)."""

    path: Path | None

    def file(self, name: str) -> str:
        """The path of a file by its name in the folder. Raises RowError when it is not there."""
        path = self._inside(name)
        if self.path is not None and not _is_file(path) and not split_member(path):
            raise RowError(f"no such file: {path}")
        if self.path is not None and _is_empty(path):
            raise RowError(f"an empty file: {path}")
        return str(path)

    def video(self, stem: str) -> str:
        """The path of a video by its name without suffix. Raises RowError naming what was looked for."""
        path = self._inside(stem)
        if self.path is None:
            return str(path)
        if path.suffix.lower() in VIDEO_SUFFIXES and _is_file(path):
            return str(path)
        for suffix in (".mp4", *sorted(VIDEO_SUFFIXES - {".mp4"})):
            if _is_file(video := path.with_name(path.name + suffix)):
                return str(video)
        raise RowError(f"no such video: {path}.mp4, nor .mkv, .webm or another video suffix")

    def _inside(self, name: str) -> Path:
        outside = (
            PurePosixPath(name).is_absolute()
            or PureWindowsPath(name).drive
            or name.startswith("\\")
        )
        if (
            outside
            or ".." in re.split(r"[/\\]", name)
            or "\0" in name
            or not PurePosixPath(name).name
        ):
            raise RowError(
                f"{name[:200]!r} leads out of the media folder, expected a name inside it"
            )
        return (self.path or Path()) / name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that the file system refuses, such as one of a thousand characters
        return False


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:  # a member of a shard
        return False


def instruction(sample_id: str) -> str:
    """The question that a caption answers: drawn by the sample's id, so the same on every run."""
    return INSTRUCTIONS[
        int.from_bytes(hashlib.sha256(sample_id.encode()).digest()[:8]) % len(INSTRUCTIONS)
    ]


def read_samples(annotations: Path, media: MediaFolder, label: str) -> Rows:
    """Our own JSON Lines (samples.py). A media id that is written there is not believed."""

    def sample(row: Any, number: int) -> Sample:
        given = sample_from_row(row)
        key = given.sample_id or str(number)
        return replace(
            given,
            sample_id=f"{label}/{key}",
            media=media.file(given.media),
            media_id="",
            is_image=given.is_image or given.media.lower().endswith(IMAGE_SUFFIXES),
        )

    return _each(annotations, sample)


def read_llava(annotations: Path, media: MediaFolder, label: str) -> Rows:
    """Conversations as LLaVA writes them, and after it Video-LLaVA and LLaMA-VID: `image` or `video`, `conversations`.

    Rows as LLaMA-Factory and Hugging Face's TRL write them are read too: `images` or `videos` with one name, and
    `messages` of `role` and `content`. The marks <image> and <video> are taken out: what is shown always comes first.
    Rows of text alone, as in llava_v1_5_mix665k.json, are left out.
    """

    def sample(row: Any, number: int) -> Sample | None:
        shown = _shown_media(_object(row))
        turns_key = next(
            (key for key in ("conversations", "messages") if row.get(key)), "conversations"
        )
        if shown is None:
            if _MARK.search(json.dumps(row.get(turns_key))):
                keys = ", ".join(sorted(map(str, row)))[:200]
                raise RowError(
                    f"<image> or <video> in the text, but no {_MEDIA_KEYS} among its keys ({keys})"
                )
            return None
        key, name = shown
        turns = _conversation(row, turns_key)
        return Sample(
            sample_id=f"{label}/{number}",
            media=media.file(text_of({key: name}, key)),
            media_id="",
            turns=turns,
            is_dialogue=len(turns) > 1,
            is_image=key.startswith("image"),
        )

    return _each(annotations, sample)


_MARK = re.compile(r"\s*<(?:image|video)>\s*")
_MEDIA_KEYS = "'image', 'images', 'video' or 'videos'"
_SPEAKERS = {"human": 0, "user": 0, "gpt": 1, "assistant": 1}
_TURN_KEYS = {"conversations": ("from", "value"), "messages": ("role", "content")}


def _shown_media(row: dict[str, Any]) -> tuple[str, Any] | None:
    """What a row shows, and the key that says so; None for text alone."""
    given = [key for key in ("image", "images", "video", "videos") if row.get(key)]
    if not given:
        return None
    if len(given) > 1:
        raise RowError(f"{' and '.join(map(repr, given))}, expected one of them")
    (key,) = given
    name = row[key]
    if isinstance(name, list):
        if len(name) != 1:
            raise RowError(f"{key} names {len(name)} files, expected one")
        (name,) = name
    return key, name


def _conversation(row: dict[str, Any], key: str) -> tuple[Turn, ...]:
    turns = row.get(key)
    speaker_key, text_key = _TURN_KEYS[key]
    if not isinstance(turns, list) or not turns:
        raise RowError(
            f"no {key!r}, expected a list of turns with {speaker_key!r} and {text_key!r}"
        )
    for number, turn in enumerate(turns):
        speaker = _object(turn).get(speaker_key)
        if not isinstance(speaker, str) or _SPEAKERS.get(speaker.lower()) != number % 2:
            expected = (("human", "gpt"), ("user", "assistant"))[key == "messages"][number % 2]
            raise RowError(
                f"turn {number + 1} is from {str(speaker)[:40]!r}, expected {expected!r}"
            )
    if len(turns) % 2:
        raise RowError("the last turn has no answer, expected a question and an answer in turn")
    asked = [text_of(turn, text_key, f"turn {2 * n + 1}: ") for n, turn in enumerate(turns[::2])]
    if (marks := sum(len(_MARK.findall(text)) for text in asked)) > 1:
        raise RowError(f"{marks} marks <image> or <video>, expected one")
    return tuple(
        Turn(
            question=text_of(
                {text_key: _MARK.sub("\n", question).strip()}, text_key, f"turn {2 * n + 1}: "
            ),
            answer=text_of(answer, text_key, f"turn {2 * n + 2}: "),
        )
        for n, (question, answer) in enumerate(zip(asked, turns[1::2], strict=True))
    )


def read_video_chatgpt(annotations: Path, media: MediaFolder, label: str) -> Rows:
    """VideoInstruct100K: rows of `q`, `a`, `video_id`; all rows of a video become one sample.

    The rows are held until the last is read (the published file has 42 MB), for a video's need not be neighbours.
    """
    turns: dict[str, list[Turn]] = {}
    places: dict[str, str] = {}
    for place, row in read_rows(annotations):
        try:
            _raise(row)
            video_id = _id_of(row, "video_id")
            turn = Turn(question=text_of(row, "q"), answer=text_of(row, "a"))
        except RowError as error:
            yield BadRow(annotations, place, str(error))
            continue
        turns.setdefault(video_id, []).append(turn)
        places.setdefault(video_id, place)
    for video_id, own in turns.items():
        try:
            sample = Sample(
                sample_id=f"{label}/{video_id}",
                media=media.video(video_id),
                media_id="",
                turns=tuple(own),
            )
            yield SampleRow(annotations, places[video_id], sample)
        except RowError as error:
            yield BadRow(annotations, places[video_id], str(error))


def read_cmd(annotations: Path, media: MediaFolder, label: str) -> Rows:
    """CMD (Condensed Movies): `image_id`, `caption`; the video is `<image_id>.mp4`, or has another video suffix."""
    return _each(
        annotations,
        lambda row, number: _captioned(
            f"{label}/{number}", media.video(_id_of(row, "image_id")), text_of(row, "caption")
        ),
    )


def read_webvid(annotations: Path, media: MediaFolder, label: str) -> Rows:
    """WebVid, its CSV or upstream's JSON: `videoid`, `page_dir`, `name`; the video is `<page_dir>/<videoid>.mp4`.

    The caption is the whole of `name`, as WebVid documents it. Upstream keeps what follows the last "-" and ":"
    (video_datasets.py:282), which makes " slow motion" of "Close-up of a non-stop train: slow motion".
    """

    def sample(row: Any, number: int) -> Sample:
        folder, stem = str(_object(row).get("page_dir") or ""), _id_of(row, "videoid")
        return _captioned(
            f"{label}/{number}",
            media.video(f"{folder}/{stem}" if folder else stem),
            text_of(row, "name"),
        )

    return _each(annotations, sample)


def read_cc_sbu_align(annotations: Path, media: MediaFolder, label: str) -> Rows:
    """MiniGPT-4's aligned captions, filter_cap.json: `image_id`, `caption`; the image is `<image_id>.jpg`."""
    return _each(
        annotations,
        lambda row, number: _captioned(
            f"{label}/{number}",
            media.file(f"{_id_of(row, 'image_id')}.jpg"),
            text_of(row, "caption"),
            is_image=True,
        ),
    )


def read_webdataset(annotations: Path, media: MediaFolder, label: str) -> Rows:
    """Tar shards of images and captions, as img2dataset writes LAION, CC and SBU: 000001.jpg with .json or .txt.

    annotations: a shard, a folder of shards, or a range such as `{00000..10488}.tar`. The caption is the JSON's
    `caption`, else the text. Members with one name up to the first dot belong together and are neighbours.
    """
    for shard in _shards(annotations):
        try:
            yield from _shard_rows(shard, f"{label}/{shard.stem}")
        except MediaError as error:
            yield BadRow(shard, "shard", str(error))


def _shard_rows(shard: Path, label: str) -> Rows:
    group: dict[str, TarMember] = {}
    key = ""
    for member in tar_members(shard):
        if isinstance(member, TarFault):
            yield BadRow(shard, member.name, member.reason)
            continue
        folder, name = str(PurePosixPath(member.name).parent), PurePosixPath(member.name).name
        stem, _, suffix = name.partition(".")
        own = stem if folder == "." else f"{folder}/{stem}"
        if own != key:
            yield from _grouped(shard, label, key, group)
            key, group = own, {}
        group[f".{suffix.lower()}"] = member
    yield from _grouped(shard, label, key, group)


def _grouped(shard: Path, label: str, key: str, group: dict[str, TarMember]) -> Rows:
    """The sample of the members with one key, or why there is none."""
    if not group:
        return
    try:
        image = next((group[suffix] for suffix in IMAGE_SUFFIXES if suffix in group), None)
        if image is None:
            raise RowError(f"no image among {', '.join(group)}, expected .jpg, .png or .webp")
        if ".." in PurePosixPath(image.name).parts or image.name.startswith("/"):
            raise RowError(f"{image.name!r} leads out of the shard")
        caption = _shard_caption(shard, group)
        sample = _captioned(f"{label}/{key}", f"{shard}/{image.name}", caption, is_image=True)
        yield SampleRow(shard, image.name, sample)
    except (RowError, MediaError) as error:
        yield BadRow(shard, key, str(error))


def _shard_caption(shard: Path, group: dict[str, TarMember]) -> str:
    if ".json" in group:
        row = parse_row(_member_bytes(shard, group[".json"]))
        if _object(row).get("caption") is not None or ".txt" not in group:
            return text_of(row, "caption")
    if ".txt" not in group:
        raise RowError(f"no caption among {', '.join(group)}, expected .json or .txt")
    try:
        return text_of({"caption": _member_bytes(shard, group[".txt"]).decode()}, "caption")
    except UnicodeDecodeError as error:
        raise RowError(f"the caption is not UTF-8 (byte {error.start})") from error


def _member_bytes(shard: Path, member: TarMember) -> bytes:
    if member.size_bytes > 2**20:
        raise RowError(f"{member.name}: {member.size_bytes} bytes, expected a caption")
    return read_media(f"{shard}/{member.name}")


def _shards(annotations: Path) -> Iterable[Path]:
    if annotations.is_dir():
        if not (shards := sorted(annotations.glob("*.tar"))):
            raise DataError(f"{annotations}: no .tar files in it, expected webdataset shards")
        return shards
    if numbers := re.search(r"\{(\d+)\.\.(\d+)\}", annotations.name):
        first, last = numbers.groups()
        if not 0 <= int(last) - int(first) < 10**6:
            raise DataError(f"{annotations}: a range of shards that is empty or beyond a million")
        return (
            annotations.with_name(
                annotations.name.replace(numbers[0], str(number).zfill(len(first)))
            )
            for number in range(int(first), int(last) + 1)
        )
    return [annotations]


def _each(annotations: Path, make: Callable[[Any, int], Sample | None]) -> Rows:
    """make's sample of each row, which is told the row's number; None leaves a row of text alone out."""
    for number, (place, row) in enumerate(read_rows(annotations), start=1):
        try:
            _raise(row)
            sample = make(row, number)
        except RowError as error:
            yield BadRow(annotations, place, str(error))
            continue
        if sample is None:
            yield BadRow(annotations, place, "text alone, no image or video", is_fault=False)
        else:
            yield SampleRow(annotations, place, sample)


def _raise(row: Any) -> None:
    if isinstance(row, RowError):
        raise row


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowError(f"{str(row)[:80]!r}, expected an object")
    return row


def _id_of(row: Any, key: str) -> str:
    """An id, which some files write as a number."""
    value = _object(row).get(key)
    return (
        str(value) if isinstance(value, int) and not isinstance(value, bool) else text_of(row, key)
    )


def _captioned(sample_id: str, media: str, caption: str, *, is_image: bool = False) -> Sample:
    turn = Turn(question=instruction(sample_id), answer=" ".join(caption.split()), kind="caption")
    return Sample(sample_id=sample_id, media=media, media_id="", turns=(turn,), is_image=is_image)


@dataclass(frozen=True, slots=True)
class AnnotationFormat:
    """A format: its reader, and the stage that trains on it unless params.yaml says another."""

    read: Reader
    stage: str


SOURCES: dict[str, AnnotationFormat] = {
    "samples": AnnotationFormat(read_samples, "instruct"),
    "llava": AnnotationFormat(read_llava, "instruct"),
    "video_chatgpt": AnnotationFormat(read_video_chatgpt, "instruct"),
    "cmd": AnnotationFormat(read_cmd, "pretrain_video"),
    "webvid": AnnotationFormat(read_webvid, "pretrain_video"),
    "cc_sbu_align": AnnotationFormat(read_cc_sbu_align, "pretrain_image"),
    "webdataset": AnnotationFormat(read_webdataset, "pretrain_image"),
}


def source_named(name: str) -> AnnotationFormat:
    """The source of this name. Raises ConfigError with those that exist."""
    if name not in SOURCES:
        raise ConfigError(
            f"prepare.sources: no source {name!r}; there are scenes, {', '.join(SOURCES)}"
        )
    return SOURCES[name]
