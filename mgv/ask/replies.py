"""Replies: the honest form of an answer, by the kind of its question.

Every reply rests on whole sentences, on what the picture looks like, on chapters or on the library's tables; one that
rests on nothing says why, and what is nearest. A language model only words what a sentence already carries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mgv.ask.answer import Phraser, citations
from mgv.ask.evidence import Passage, Sentence, around
from mgv.ask.grounding import CITATION, carrier, claims
from mgv.ask.kinds import Asked, Kind
from mgv.ask.numbers import numbers, tokens
from mgv.ask.reading import SURE, Scored, score
from mgv.encoders.base import embed_few
from mgv.library.words import coverage
from mgv.records import Answer, Moment, Quote, clock

if TYPE_CHECKING:
    from mgv.ask.library import Library

CANDIDATES = 12
"""Moments whose sentences are read, before the best of them are kept."""
PROBABLE = 0.35
"""A sentence at least this likely to answer shows that a moment is about the question."""
VERY_SURE = 0.9
"""One this likely shows it though it does not have the question's own words."""
LOOKS_SURE = 0.3
"""A picture looks like something where the frame embedder is at least this sure of it."""
ALIKE = 0.6
"""A label names what is asked for where their embeddings have at least this cosine: `rocket` and `missile`."""
MAX_LISTED = 5
_DETAIL = re.compile(
    r"\b(?:colou?rs?|wear(?:s|ing)?|holding|how many|which (?:side|hand|shape|word)|left|right|expression)\b",
    re.IGNORECASE,
)
_CANNOT_LOOK = (
    "this answerer reads words and the names that a classifier gives to pictures; `--answerer video_llm`, `hf` or "
    "`openai` looks at the frames"
)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered, before it is cited."""

    text: str | None
    moments: tuple[Moment, ...] = ()
    quotes: tuple[Quote, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Replier:
    """Answers one question of a library."""

    library: Library
    asked: Asked
    videos: Sequence[str] | None
    """The ids that it is asked of; None: all."""
    phraser: Phraser | None
    """Words what a sentence carries; None: sentences are quoted."""

    def answer(self) -> Answer:
        """The reply with its citations, or the reason and what is nearest."""
        reply = _REPLIES[self.asked.kind](self)
        moments = reply.moments or (() if reply.text else self._relevant)
        unanswered = Answer(
            question=self.asked.text, text=None, citations=(), moments=moments, kind=self.asked.kind
        )
        if reply.text is None:
            return replace(unanswered, reason=reply.reason, nearest=tuple(self._ranked[:3]))
        named = [int(n) for match in CITATION.finditer(reply.text) for n in match[1].split(",")]
        return replace(
            unanswered, text=reply.text, citations=citations(named, moments, reply.quotes)
        )

    # what is known

    @cached_property
    def _ranked(self) -> list[Moment]:
        limit = max(CANDIDATES, self.library.workspace.params.ask.moments)
        return self.library.search(self.asked.text, limit=limit, videos=self.videos)

    @property
    def _relevant(self) -> tuple[Moment, ...]:
        """The moments that search is sure enough of; of named videos, the nearest."""
        ask = self.library.workspace.params.ask
        floor = ask.min_score if self.videos is None else 0.0
        return tuple(moment for moment in self._ranked if moment.score >= floor)[: ask.moments]

    @cached_property
    def _scored(self) -> list[Scored]:
        """The sentences around the moments, likeliest first, each once."""
        passages = [
            self._passage(number, moment) for number, moment in enumerate(self._ranked, start=1)
        ]
        scored = score(self.asked, passages, self.library.opened.parts.text_embedder)
        by_text: dict[str, Scored] = {}
        for one in scored:
            by_text.setdefault(one.sentence.text, one)
        return list(by_text.values())

    def _passage(self, number: int, moment: Moment) -> Passage:
        sentences = self.library.opened.sentences(moment.video_id)
        return Passage(
            number=number, moment=moment, sentences=around(sentences, moment.start_s, moment.end_s)
        )

    @property
    def _likely(self) -> list[Scored]:
        """Sentences that answer: sure enough, and with what is asked for."""
        return [each for each in self._scored if each.holds and each.probability >= SURE]

    def _numbered(self, scored: Sequence[Scored]) -> tuple[tuple[Moment, ...], list[Scored]]:
        """Moments in the order of their best sentence, then the rest; the sentences with the new numbers."""
        order = list(dict.fromkeys([each.passage.number for each in scored]))
        rest = [n for n in range(1, len(self._ranked) + 1) if n not in order]
        kept = [*order, *rest][: max(len(order), self.library.workspace.params.ask.moments)]
        place = {old: new for new, old in enumerate(kept, start=1)}
        again = [
            replace(each, passage=replace(each.passage, number=place[each.passage.number]))
            for each in scored
        ]
        return tuple(self._ranked[old - 1] for old in kept), again

    def _refused(self, wanted: str = "") -> Reply:
        if not self._ranked:
            return Reply(text=None, reason="nothing in the library is about that")
        best = self._scored[0] if self._scored else None
        if best is None:
            return Reply(text=None, reason=f"nothing is said there; {_CANNOT_LOOK}")
        if not best.holds:
            return Reply(
                text=None,
                reason=f"what is said nearest to it holds no {wanted or _WANTED[self.asked.expects]}",
            )
        return Reply(text=None, reason="what is said nearest to it does not answer it")

    # said

    def said(self) -> Reply:
        """The sentence that answers, worded by the language model where a sentence carries its words."""
        likely = self._likely
        if not likely:
            return self._refused()
        best = likely[0]
        others = _other_videos(best, likely[1:]) if self.asked.expects else []
        moments, (best, *others) = self._numbered([best, *others])
        text, quotes = self._worded(best)
        for other in others:
            text += f" {other.passage.moment.video} {_agreement(best, other)}: {_quoted(other)}"
        return Reply(
            text=text, moments=moments, quotes=(*quotes, *(_quote(each) for each in others))
        )

    def _worded(self, best: Scored) -> tuple[str, list[Quote]]:
        """In the model's words, if the sentence carries all of them; else the sentence."""
        if self.phraser is not None:
            passage = replace(best.passage, sentences=best.quoted)
            written = self.phraser.phrase(self.asked.text, [passage])
            if written and self._stands(written, passage):
                return f"{CITATION.sub('', written).strip()} [{passage.number}]", [_quote(best)]
        return _quoted(best), [_quote(best)]

    def _stands(self, written: str, passage: Passage) -> bool:
        says_more = coverage(list(self.asked.subject), written) < 1 or len(tokens(written)) > len(
            self.asked.subject
        )
        return says_more and all(carrier(claim, [passage]) for claim in claims(written))

    # when, where, presence, count

    def when(self) -> Reply:
        """At which moments: where it is said, else where the picture looks like it."""
        likely = self._likely
        if likely:
            moments, (best,) = self._numbered(likely[:1])
            at = f"At {clock(best.sentence.start_s)} in {best.passage.moment.video}"
            return Reply(text=f"{at}: {_quoted(best)}", moments=moments, quotes=(_quote(best),))
        shown = [] if self.asked.expects else self._shown()
        if not shown:
            return self._refused()
        moments, lines = _listed([(moment, look) for moment, look in shown[:1]])
        return Reply(text=f"By the picture: {lines}.", moments=moments)

    def where(self) -> Reply:
        """In which videos, one moment of each."""
        pairs = self._found()
        firsts = {each[0].video_id: each for each in reversed(pairs)}
        kept = [each for each in pairs if firsts[each[0].video_id] is each][:MAX_LISTED]
        return self._listing(kept, "In ")

    def presence(self) -> Reply:
        """Yes, with moments; or not found."""
        pairs = self._found(strict=True)
        if not pairs:
            about = " ".join(self.asked.subject) or "that"
            return Reply(
                text=None,
                reason=f"not found: nothing that is said or recognised in the picture is {about!r}",
            )
        return self._listing(pairs[:3], "Yes: ")

    def count(self) -> Reply:
        """How many videos, or how often it is said."""
        pairs = self._found(strict=True)
        if not pairs:
            return Reply(
                text=None, reason="none found in what is said or recognised in the picture"
            )
        if re.search(r"\btimes\b|\boften\b", self.asked.text.lower()):
            return self._times()
        number = len({moment.video_id for moment, _ in pairs})
        firsts = list(
            {moment.video_id: (moment, detail) for moment, detail in reversed(pairs)}.values()
        )[::-1]
        noun = "video" if number == 1 else "videos"
        return self._listing(
            firsts[:MAX_LISTED], f"{number} {noun}, by what is said or recognised in the picture: "
        )

    def _times(self) -> Reply:
        """How many sentences of the videos asked hold the subject's words."""
        opened = self.library.opened
        ids = self.videos if self.videos is not None else sorted(self.library.video_ids_in_view)
        sentences = [
            (video_id, each)
            for video_id in ids
            for each in opened.sentences(video_id)
            if _about(self.asked, each.text)
        ]
        if not sentences:
            return Reply(
                text=None,
                reason="nobody says it; how often it is seen only an answerer that looks can count",
            )
        pairs = [
            (opened.stretch(video_id, each.start_s, each.end_s), f"“{each.text}”")
            for video_id, each in sentences
        ]
        noun = "sentence" if len(pairs) == 1 else "sentences"
        return self._listing(pairs[:MAX_LISTED], f"In {len(pairs)} {noun}: ")

    def _found(self, *, strict: bool = False) -> list[tuple[Moment, str]]:
        """Moments that are about the question, with what shows it. strict: the subject's own words, or looks."""
        best: dict[int, Scored] = {}
        for each in self._scored:
            is_named = bool(self.asked.subject) and _about(self.asked, each.sentence.text)
            if is_named or each.probability >= (VERY_SURE if strict else PROBABLE):
                best.setdefault(each.passage.number, each)
        spoken_pairs = [
            (self._ranked[number - 1], _quoted(each, cited=False)) for number, each in best.items()
        ]
        spoken = {moment.start_s for moment, _ in spoken_pairs}
        return spoken_pairs + [
            (moment, look) for moment, look in self._shown() if moment.start_s not in spoken
        ]

    def _shown(self) -> list[tuple[Moment, str]]:
        """Moments whose picture looks like the subject, surest first."""
        subject = " ".join(self.asked.subject)
        if not subject or not self._ranked:
            return []
        looks = self.library.opened.looks(self._ranked)
        names = sorted({name for look in looks for name in look})
        if not names:
            return []
        vectors = embed_few(self.library.opened.parts.text_embedder, [subject, *names])
        cosines = dict(zip(names, (vectors[1:] @ vectors[0]).tolist(), strict=True))
        akin = {
            name
            for name in names
            if cosines[name] >= ALIKE or coverage(self.asked.subject, name) == 1
        }
        sure = []
        for moment, look in zip(self._ranked, looks, strict=True):
            name, share = max(
                ((n, p) for n, p in look.items() if n in akin),
                key=lambda pair: pair[1],
                default=("", 0.0),
            )
            if share >= LOOKS_SURE:
                sure.append((share, moment, f"the picture looks like {name}, {share:.0%} sure"))
        return [(moment, text) for _, moment, text in sorted(sure, key=lambda each: -each[0])]

    def _listing(self, pairs: Sequence[tuple[Moment, str]], begin: str) -> Reply:
        if not pairs:
            return self._refused()
        moments, lines = _listed(pairs)
        return Reply(text=f"{begin}{lines}", moments=moments)

    # seen

    def seen(self) -> Reply:
        """What is said of it; else what the picture looks like, and how sure that is."""
        if self._likely:
            return self.said()
        if _DETAIL.search(self.asked.text):
            return Reply(text=None, reason=f"nobody says it, and {_CANNOT_LOOK}")
        moments = self._whole_moments() or self._relevant
        if not moments:
            return self._refused()
        look = self.library.opened.looks(moments[:1])[0]
        sure = [
            f"{name} ({share:.0%})"
            for name, share in list(look.items())[:3]
            if share >= LOOKS_SURE / 2
        ]
        if not sure:
            return Reply(
                text=None,
                moments=moments,
                reason=f"the picture looks like nothing that is known for sure; {_CANNOT_LOOK}",
            )
        first = moments[0]
        text = f"{first.video} at {clock(first.start_s)} looks like {', '.join(sure)} [1]."
        return Reply(
            text=f"{text} A classifier says so; it cannot look closer.", moments=tuple(moments)
        )

    def _whole_moments(self) -> tuple[Moment, ...]:
        """A named video as a whole, where the question is about nothing in particular."""
        if self.videos is None or len(self.videos) != 1 or self.asked.subject:
            return ()
        opened = self.library.opened
        return (opened.whole(opened.videos[self.videos[0]]),)

    # whole videos

    def whole(self) -> Reply:
        """The chapters in order of time, or what comes first, last, before, after, at an instant."""
        video_id = self._one_video()
        if video_id is None:
            return self._all_abouts()
        if self.asked.order:
            return self._in_order(video_id)
        opened = self.library.opened
        chapters = opened.chapters(video_id)
        if not chapters:
            return Reply(text=None, reason="nothing is said or seen in it")
        moments = tuple(opened.stretch(video_id, each.start_s, each.end_s) for each in chapters)
        parts = [
            f"{clock(each.start_s)} {each.title} [{n}]" for n, each in enumerate(chapters, start=1)
        ]
        name = opened.videos[video_id]["name"]
        if len(parts) == 1:
            return Reply(text=f"{name}: {chapters[0].title} [1]", moments=moments)
        return Reply(
            text=f"{name} has {len(parts)} parts: " + "; ".join(parts) + ".", moments=moments
        )

    def _one_video(self) -> str | None:
        """The video that is asked about: the named one, the only one, else the one that is nearest by far."""
        if self.videos is not None and len(self.videos) == 1:
            return self.videos[0]
        ids = self.videos if self.videos is not None else sorted(self.library.video_ids_in_view)
        if len(ids) == 1:
            return ids[0]
        if not self.asked.subject or not self._relevant:
            return None
        return self._relevant[0].video_id

    def _all_abouts(self) -> Reply:
        """Of several videos, a line each."""
        opened = self.library.opened
        ids = (
            self.videos
            if self.videos is not None
            else [video.video_id for video in self.library.videos()]
        )
        if self.asked.order or len(ids) > MAX_LISTED:
            return Reply(
                text=None,
                reason=f"there are {len(ids)} videos; say which one is meant, by --in VIDEO or its name",
            )
        chapters = [(video_id, opened.chapters(video_id)) for video_id in ids]
        pairs = [
            (
                opened.stretch(video_id, parts[0].start_s, parts[-1].end_s),
                f"“{_longest_title(parts)}”",
            )
            for video_id, parts in chapters
            if parts
        ]
        return self._listing(pairs, "")

    def _in_order(self, video_id: str) -> Reply:
        sentences = self.library.opened.sentences(video_id)
        at_s = self.asked.at_s if self.asked.at_s is not None else self._anchor_s()
        picked = _picked(sentences, self.asked.order, at_s)
        if not picked:
            return self._looks_at(video_id, at_s)
        moment = self.library.opened.stretch(video_id, picked[0].start_s, picked[-1].end_s)
        text = " ".join(each.text for each in picked)
        quote = Quote(number=1, start_s=moment.start_s, end_s=moment.end_s, text=text)
        return Reply(
            text=f"At {clock(moment.start_s)}: “{text}” [1]", moments=(moment,), quotes=(quote,)
        )

    def _anchor_s(self) -> float | None:
        """When that happens before or after which something is asked for."""
        likely = [each for each in self._scored if each.probability >= PROBABLE]
        if not self.asked.anchor or not likely:
            return None
        best = max(likely, key=lambda each: coverage(self.asked.anchor.split(), each.sentence.text))
        return best.sentence.start_s if self.asked.order == "before" else best.sentence.end_s

    def _looks_at(self, video_id: str, at_s: float | None) -> Reply:
        """What the picture looks like at an instant at which nobody speaks."""
        if at_s is None:
            return Reply(
                text=None, reason="what it asks before or after is not found in what is said"
            )
        opened = self.library.opened
        moment = opened.stretch(video_id, at_s, at_s + 1.0)
        look = next(iter(opened.looks([moment])[0].items()), None)
        if look is None:
            return Reply(text=None, reason=f"nothing is said or seen at {clock(at_s)}")
        return Reply(
            text=f"At {clock(at_s)} nobody speaks; the picture looks like {look[0]} ({look[1]:.0%}) [1].",
            moments=(moment,),
        )

    # several videos

    def comparison(self) -> Reply:
        """What each video says of it, and whether their numbers agree."""
        firsts: dict[str, Scored] = {}
        for each in self._scored:
            if each.probability >= PROBABLE:
                firsts.setdefault(each.passage.moment.video_id, each)
        if len(firsts) < 2:
            return Reply(
                text=None,
                reason=f"{len(firsts)} of the videos says something of it: there is nothing to compare",
            )
        moments, kept = self._numbered(list(firsts.values())[:MAX_LISTED])
        lines = [f"{each.passage.moment.video}: {_quoted(each)}" for each in kept]
        verdict = {"says the same": "They agree. ", "says otherwise": "They differ. "}.get(
            _agreement(kept[0], kept[1]), ""
        )
        return Reply(
            text=verdict + "; ".join(lines),
            moments=moments,
            quotes=tuple(_quote(each) for each in kept),
        )

    # the library, and chat

    def tables(self) -> Reply:
        """From the library's tables."""
        from mgv.ask.tables import table_reply

        return table_reply(self.library, self.asked.text, self.videos)

    def chat(self) -> Reply:
        """What can be asked here."""
        number = len(self.library.video_ids_in_view)
        noun = "video" if number == 1 else "videos"
        asked = "Ask what is said or seen in them, when, where, or what one is about."
        return Reply(text=f"This library has {number} {noun}. {asked}")


_REPLIES: dict[Kind, Callable[[Replier], Reply]] = {
    "said": Replier.said, "when": Replier.when, "where": Replier.where, "presence": Replier.presence,
    "count": Replier.count, "seen": Replier.seen, "whole": Replier.whole, "comparison": Replier.comparison,
    "library": Replier.tables, "chat": Replier.chat,
}  # fmt: skip
_WANTED = {
    "": "answer to it", "age": "age", "money": "price", "duration": "length of time", "date": "day or time",
    "count": "number of them", "number": "number", "name": "name", "length": "length", "weight": "weight",
    "heat": "temperature", "speed": "speed", "rate": "word on how often", "person": "person who did it",
}  # fmt: skip


def _about(asked: Asked, text: str) -> bool:
    """Whether a sentence has all words of the subject."""
    return bool(asked.subject) and coverage(asked.subject, text) == 1.0


def _quote(each: Scored) -> Quote:
    sentences = each.quoted
    return Quote(
        number=each.passage.number,
        start_s=sentences[0].start_s,
        end_s=sentences[-1].end_s,
        text=" ".join(sentence.text for sentence in sentences),
    )


def _quoted(each: Scored, *, cited: bool = True) -> str:
    text = " ".join(sentence.text for sentence in each.quoted)
    return f"“{text}”" + (f" [{each.passage.number}]" if cited else "")


def _listed(pairs: Sequence[tuple[Moment, str]]) -> tuple[tuple[Moment, ...], str]:
    lines = [
        f"{moment.video} at {clock(moment.start_s)}, {detail} [{n}]"
        for n, (moment, detail) in enumerate(pairs, start=1)
    ]
    return tuple(moment for moment, _ in pairs), "; ".join(lines)


def _longest_title(parts: Sequence[object]) -> str:
    best = max(parts, key=lambda part: part.end_s - part.start_s)  # type: ignore[attr-defined]
    return str(best.title)  # type: ignore[attr-defined]


def _other_videos(best: Scored, likely: Sequence[Scored]) -> list[Scored]:
    """The best sentence of one more video that answers as well, unless it is nearly the same words."""
    mine = set(tokens(best.sentence.text))
    for each in likely:
        theirs = set(tokens(each.sentence.text))
        is_copy = len(mine & theirs) > 0.7 * len(mine | theirs)
        if each.passage.moment.video_id != best.passage.moment.video_id and not is_copy:
            return [each]
    return []


def _agreement(one: Scored, other: Scored) -> str:
    """Whether two sentences name the same numbers."""
    values = [
        {number.value for number in numbers(tokens(each.sentence.text))} for each in (one, other)
    ]
    if not values[0] or not values[1]:
        return "says"
    return "says the same" if values[0] & values[1] else "says otherwise"


def _picked(said: Sequence[Sentence], order: str, at_s: float | None) -> Sequence[Sentence]:
    """The sentence that is first, last, or before, at or after an instant."""
    if order == "first":
        return said[:1]
    if order == "last":
        return said[-1:]
    if at_s is None:
        return ()
    if order == "at":
        return around(said, at_s - 0.1, at_s + 0.5, more=0)
    if order == "before":
        return [each for each in said if each.end_s <= at_s + 0.1][-1:]
    return [each for each in said if each.start_s >= at_s - 0.1][:1]
