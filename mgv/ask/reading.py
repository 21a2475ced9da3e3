"""Reading: which sentence answers a question, and how sure that is. An embedder and rules; no language model.

A sentence is scored by what it has in common with the question: its meaning (cosine), the question's own words in it
and around it, and whether it holds the kind of thing that is asked for. The weights were set by hand on development
questions, of which a third are answered nowhere (docs/answers.md); a logistic fit did worse at the same threshold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from mgv.ask.evidence import Passage, Sentence
from mgv.ask.kinds import Asked, holds
from mgv.ask.numbers import numbers, tokens
from mgv.encoders.base import TextEmbedder, embed_few
from mgv.library.words import alike, content_words, coverage, stem

BIAS = -5.0
WEIGHTS = {"context": 5.0, "sentence": 2.0, "near": 2.5, "inside": 1.5, "holds": 1.0}
"""Of cosine in context and alone, of the share of the question's words near and inside, of what is asked for."""
SURE = 0.75
"""A sentence less likely than this to answer is not quoted."""
CLOSE = 0.6
"""A sentence this near to the question, by cosine, may answer it in other words."""
_UNKNOWN = re.compile(r"\b(?:some(?:one|body)|any(?:one|body)|unknown|stranger)\b", re.IGNORECASE)
_IRREGULAR = dict(
    pair.split(":")
    for pair in """
    rode:ride ridden:ride went:go gone:go came:come took:take taken:take made:make gave:give given:give
    saw:see bought:buy brought:bring thought:think taught:teach caught:catch built:build sent:send
    spent:spend lost:lose left:leave kept:keep slept:sleep felt:feel met:meet led:lead fed:feed
    sold:sell told:tell held:hold stood:stand understood:understand found:find paid:pay flew:fly
    flown:fly grew:grow grown:grow knew:know drew:draw threw:throw blew:blow ate:eat eaten:eat
    drank:drink drunk:drink sang:sing swam:swim began:begin ran:run won:win wore:wear wrote:write
    written:write drove:drive driven:drive rose:rise fell:fall fallen:fall spoke:speak spoken:speak
    broke:break broken:break chose:choose stole:steal stolen:steal died:die dead:die death:die hid:hide
    hidden:hide bit:bite bitten:bite dug:dig shot:shoot sank:sink froze:freeze woke:wake became:become
    born:bear mice:mouse feet:foot children:child women:woman men:man teeth:tooth
    """.split()  # noqa: SIM905
)
_PRONOUN = re.compile(
    r"^(?:and |but |so |then )?(?:he|she|it|they|this|that|these|those|his|her|its|their)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A sentence as an answer."""

    passage: Passage
    place: int
    """Of the sentence in its passage."""
    features: tuple[float, ...]
    """In the order of WEIGHTS."""
    holds: bool
    """It has the kind of thing that is asked for, about the right thing."""

    @property
    def sentence(self) -> Sentence:
        return self.passage.sentences[self.place]

    @property
    def probability(self) -> float:
        z = BIAS + sum(
            weight * value for weight, value in zip(WEIGHTS.values(), self.features, strict=True)
        )
        return 1.0 / (1.0 + math.exp(-z))

    @property
    def quoted(self) -> tuple[Sentence, ...]:
        """The sentence, with the one ahead of it where it begins by a pronoun: who `she` is."""
        leans = self.place > 0 and _PRONOUN.match(self.sentence.text)
        return self.passage.sentences[self.place - 1 if leans else self.place : self.place + 1]


def score(asked: Asked, passages: Sequence[Passage], embedder: TextEmbedder) -> list[Scored]:
    """Every sentence of the passages as an answer, likeliest first; those that lack what is asked for come last."""
    places = [(passage, place) for passage in passages for place in range(len(passage.sentences))]
    if not places:
        return []
    alone = [passage.sentences[place].text for passage, place in places]
    context = [
        " ".join(each.text for each in passage.sentences[max(0, place - 1) : place + 1])
        for passage, place in places
    ]
    vectors = embed_few(embedder, [asked.text, *alone, *context])
    cosines = vectors[1:] @ vectors[0]
    scored = []
    for n, (passage, place) in enumerate(places):
        near = " ".join(each.text for each in passage.sentences[max(0, place - 2) : place + 2])
        near += f" {_plain_name(passage)}"
        asks_back = alone[n].rstrip(')"”’').endswith("?")
        does_hold = not asks_back and holds(asked, alone[n]) and _counts_it(asked, alone[n])
        features = (
            float(cosines[len(places) + n]),
            float(cosines[n]),
            _share(asked.subject, near),
            _share(asked.subject, alone[n]),
            float(bool(asked.expects) and does_hold),
        )
        is_about = _is_about(asked, alone[n], f"{context[n]} {_plain_name(passage)}", features[1])
        scored.append(
            Scored(passage=passage, place=place, features=features, holds=does_hold and is_about)
        )
    return sorted(
        scored,
        key=lambda each: (not each.holds, -each.probability, each.passage.number, each.place),
    )


def _plain_name(passage: Passage) -> str:
    return re.sub(r"[\W_]+", " ", PurePath(passage.moment.video).stem)


def _is_about(asked: Asked, sentence: str, context: str, cosine: float) -> bool:
    """Whether a sentence is about what is asked: its names, and, where one fact is asked for, all its words.

    "How much does a kilo of tomatoes cost?" is not answered by a kilo of salmon. A sentence that means nearly the same
    (CLOSE) may say it in other words. What somebody did has to be in the sentence itself: "who stole the tent?" is not
    answered by who found it, nor by "somebody stole it".
    """
    if not all(_share((name,), context) for name in asked.names):
        return False
    if not asked.expects:
        return True
    if asked.expects == "person" and (
        (asked.subject and not _share(asked.subject[:1], sentence)) or _UNKNOWN.search(sentence)
    ):
        return False
    return cosine >= CLOSE or _share(asked.subject, context) == 1.0 or len(asked.subject) == 0


def _share(words: Sequence[str], text: str) -> float:
    """The share of words that a text holds, `rode` being `ride`; half where there are none."""
    return (
        coverage([_IRREGULAR.get(word, word) for word in words], _regular(text)) if words else 0.5
    )


def _regular(text: str) -> str:
    return re.sub(r"\w+", lambda word: _IRREGULAR.get(word[0].lower(), word[0]), text)


def _counts_it(asked: Asked, sentence: str) -> bool:
    """For `how many volunteers`: whether a number stands close ahead of what is counted."""
    match = re.search(r"\bhow many (\w+(?: \w+)?)", asked.text.lower())
    if asked.expects != "count" or match is None:
        return True
    counted = content_words(match[1])[:1]
    if not counted:
        return True
    words = tokens(sentence)
    near = [word for number in numbers(words) for word in words[number.after : number.after + 4]]
    near += re.findall(
        r"\b(?:an?|dozens?|several|both|half|hundreds|thousands|millions)\W+(?:\w+\W+){0,2}?(\w+)",
        sentence.lower(),
    )
    return any(alike(stem(counted[0]), stem(word)) for word in near)
