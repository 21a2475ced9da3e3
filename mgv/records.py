"""Records: the plain values that cross borders between modules.

Times are seconds on the video's own clock (the presentation time stamps of its frames), so a video
that starts at 7.0 s has its first frame at 7.0. Ids come from content: `video_id` is the SHA-256 of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A video file's facts, as probed."""

    video_id: str
    """SHA-256 of the file's bytes, hex."""
    name: str
    """File name inside the library, for example `talk.mp4`."""
    start_s: float
    """Time of its beginning on the container's own clock. Everywhere else times count from the beginning."""
    duration_s: float
    """Time from the beginning to the end of the track that lasts longest."""
    width: int
    """Pixels as shown: after rotation, before scaling to square pixels."""
    height: int
    frame_rate: float
    """Average frames per second."""
    video_codec: str
    audio_codec: str | None
    """None when there is no sound track."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cue:
    """One subtitle: words and when they are said."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A short stretch of speech, the unit of subtitle search: one or more cues."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A name that a classifier gives a frame, with its probability."""

    name: str
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A ranked stretch of one video."""

    video: str
    """File name."""
    video_id: str
    start_s: float
    end_s: float
    score: float
    """Fused score in (0, 1]: comparable within one query, not between queries."""
    channels: tuple[str, ...]
    """Which channels found it: `frames`, `segments`, `text`, `screen`; `video` for all of a named video."""
    text: str
    """The words said in it, empty when none."""
    labels: tuple[str, ...] = ()
    """What its frames show, by the frame embedder, likeliest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Citation:
    """The moment that a bracketed number of an answer stands for."""

    number: int
    video: str
    video_id: str
    start_s: float
    """Of what was said, where a sentence is quoted; else of the moment."""
    end_s: float
    quote: str = ""
    """The whole sentences that carry what is said; empty where it rests on the moment's picture or on all of it."""


Locate = Callable[[Moment], Path]
"""Names the file of a moment's raw video. Raises MediaError where its content is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The frames of one moment that an answerer looked at."""

    number: int
    """The moment's, from 1, as in citations."""
    times_s: tuple[float, ...]
    """When each frame begins, on the video's own clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """Whole sentences of one moment that carry an answer."""

    number: int
    """The moment's, from 1, as in citations."""
    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What an answerer wrote, and what it looked at to write it."""

    text: str | None
    """With [n] for the n-th moment; None when the moments hold no answer."""
    looks: tuple[Look, ...] = ()
    quotes: tuple[Quote, ...] = ()
    """The sentences that it rests on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer and what it rests on. `text` is None when nothing in the library answers the question."""

    question: str
    text: str | None
    citations: tuple[Citation, ...]
    moments: tuple[Moment, ...]
    looks: tuple[Look, ...] = ()
    """The frames that the answerer looked at; none where it reads words only."""
    kind: str = ""
    """What kind of question it was taken for: mgv.ask.kinds; empty in receipts made before there were kinds."""
    reason: str | None = None
    """Why there is no answer; None where there is one."""
    nearest: tuple[Moment, ...] = ()
    """The nearest moments, where there is no answer."""
    receipt_id: str | None = None
    """By which `mgv explain` and `mgv replay` know the answer; None where no receipt was kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str
    kind: str = ""
    """What sort of question it is, for scores by sort: `colour`, `narration`."""
    choices: tuple[str, ...] = ()
    """All answers that a closed question admits; empty for an open one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What there is to learn, or to be asked, about one stretch of video or one image."""

    sample_id: str
    """Unique within a data set, and the same on every run: `SOURCE/KEY`."""
    media: str
    """Path of the video or image file; an image inside a tar shard is `SHARD.tar/MEMBER`."""
    media_id: str
    """SHA-256 of the video's or image's bytes, hex; empty until prepared."""
    turns: tuple[Turn, ...]
    start_s: float = 0.0
    end_s: float | None = None
    """None: to the end; or it is an image."""
    cues: tuple[Cue, ...] = ()
    """Subtitles within the stretch, on the video's own clock."""
    is_dialogue: bool = False
    """True: a turn builds on those ahead of it. False: each stands alone."""
    is_image: bool = False


def clock(time_s: float) -> str:
    """A time as people write it: 1:05, or 1:02:03 from an hour on."""
    hours, rest = divmod(max(0, int(time_s)), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
