"""Kinds of questions, told apart by their words. No model is asked: the same question is always of the same kind.

presence    is there, does anyone: yes with moments, or not found
when        at which moment, on which day
where       in which video
count       how many videos or times
library     the library itself: the longest, the newest, how many videos
said        who, what, how much, why: what somebody says
seen        what the picture shows
whole       what a whole video is about, its chapters, what comes first or last
comparison  several videos beside each other
chat        greetings, thanks, who are you
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mgv.ask.numbers import MONTHS, numbers, tokens
from mgv.library.words import content_words

Kind = Literal[
    "presence", "when", "where", "count", "library", "said", "seen", "whole", "comparison", "chat"
]  # fmt: skip
Expects = Literal[
    "",
    "age",
    "money",
    "duration",
    "date",
    "count",
    "length",
    "weight",
    "heat",
    "speed",
    "rate",
    "number",
    "person",
    "name",
]
"""What a sentence has to hold to answer at all; empty: anything."""
Order = Literal["", "first", "last", "before", "after", "at"]

_VIDEO = r"(?:videos?|clips?|films?|movies?|recordings?|talks?|lectures?|episodes?|footage)"
_BEST = r"(?:longest|shortest|newest|latest|oldest|largest|biggest|smallest|most recent)"
_RULES: dict[Kind, tuple[str, ...]] = {
    "chat": (
        r"^(?:hi|hello|hey|thanks?|thank you|good (?:morning|evening|day)|bye|goodbye|ok(?:ay)?)\b[^?]{0,30}$",
        r"^(?:who|what) are you\b",
        r"^what can you do\b",
        r"^how are you\b",
        r"^help\W*$",
    ),
    "comparison": (
        r"\bcompar",
        r"\bdifferen(?:ce|t)\b.*\b(?:between|from)\b",
        r"\bagree|\bcontradict|\bin common\b",
        rf"\bboth {_VIDEO}",
        rf"\b(?:all|across|each of) (?:the |these )?{_VIDEO}.*\bsay",
    ),
    "library": (
        rf"\b(?:which|what) {_VIDEO} (?:is|are|was) the {_BEST}\b",
        rf"\b{_BEST}(?: of (?:the|all))? {_VIDEO}\W*$",
        rf"\bhow many {_VIDEO}(?: are there| do (?:you|we|i) have)?(?: in)?(?: (?:the|this|my|our))?(?: library)?\W*$",
        rf"\bhow long (?:is|are) (?:the |this |that |all )?(?:library|{_VIDEO}|\S+\.\w{{2,4}})\W*$",
        r"\bwhat (?:came|was added|is new)\b",
        r"\b(?:came in|added|new) (?:today|yesterday|this (?:week|month))",
        rf"\b(?:which|what) {_VIDEO} (?:do (?:you|we|i) have|are (?:there|in the library))",
        rf"\blist (?:all )?(?:the )?{_VIDEO}",
        r"\b(?:have|has|without|with) (?:no )?(?:subtitles|sound)\W*$",
    ),
    "count": (
        rf"\bhow many (?:{_VIDEO}|times|moments)\b",
        r"\bhow often (?:is|are|does|do|was)\b.*\b(?:mention|say|said|show)",
    ),
    "whole": (
        r"\bsummar|\bchapters?\b|\boverview\b|\boutline\b|\bgist\b",
        rf"\bwhat (?:is|was|are) (?:the |this |that |these )?(?:\S+ )?{_VIDEO}(?: \S+)? about\b",
        rf"\bwhat .*\bin (?:this|the) {_VIDEO} about\b|\btell me about (?:this|the) {_VIDEO}",
        r"\bwhat (?:is|was) (?:it|this|that|\S+\.\w{2,4}) about\b",
        r"\bwhat happens(?: in\b|\W*$)",
        r"\bmain (?:points?|topics?|idea)\b|\btopics? (?:of|are|is)\b",
    ),
    "where": (
        rf"\b(?:which|what) (?:of the |one of )?{_VIDEO}\b",
        r"\bwhere (?:do|does|did|is|are|was|were|can|could)\b.*\b(?:mention|said|say|shown|talk|discuss|explain|find"
        r"|see|seen|appear|describe|covered)",
        rf"\bfind (?:the |a |me )?(?:the )?(?:{_VIDEO}|moment|scene|part)",
        r"^(?:the )?(?:scene|moment|part|shot) (?:where|when|with|of|in)\b",
    ),
    "when": (
        r"\bwhen\b(?! it)",
        r"\b(?:at|on) (?:what|which) (?:time|moment|point|day|date)\b",
        r"\b(?:what|which) (?:time|day|date|year|month)\b",
    ),
    "seen": (
        r"\b(?:shown|seen|visible|wear(?:s|ing)?|looks? like|on (?:the )?screen)\b",
        r"\bwhat (?:can|do|could) (?:i|you|we|one) see\b",
        r"\b(?:what|which) colou?r|\bdescribe\b",
        r"\bwhat (?:kind of )?(?:animal|object|thing)s? (?:is|are|can|appear)",
        r"\bin the (?:picture|image|background|foreground)\b",
        r"\b(?:is|are) (?:he|she|they|it) holding\b",
    ),
    "presence": (
        r"^(?:has|have|is|can) (?:any(?:one|body|thing)?|some(?:one|body)|we|i|you)\b",
        r"\bany (?:mention|scene|video)\b",
    ),
}
"""In this order: the first kind with a pattern that matches counts."""
_PRESENCE_FIRST = (
    r"^(?:is|are|was|were) there\b",
    r"^(?:is|are|was|were|do|does|did|can|could) .*\b(?:shown|seen|visible|mentioned|discussed|any)\b",
    r"^(?:do|does|did) .*\b(?:appear|occur|show up|come up)\b",
    r"^(?:do|does|did|has) (?:any|some)(?:one|body|thing)\b",
    r"^(?:can|could) (?:i|you|we) see\b",
)
"""Questions for a yes or no, which come before `seen`: "is a dog shown?"."""
_COMPILED: list[tuple[Kind, re.Pattern[str]]] = [
    ("presence", re.compile("|".join(_PRESENCE_FIRST))),
    *((kind, re.compile("|".join(patterns))) for kind, patterns in _RULES.items()),
]

_EXPECTS: dict[Expects, tuple[str, ...]] = {
    "age": (r"\bhow old\b", r"\bwhat age\b", r"\bage of\b"),
    "money": (
        r"\bhow much\b.*\b(?:costs?|pay|paid|charged?|earns?|worth|price|spend|spent|sold|sells?)\b",
        r"\bprice\b|\bhow expensive\b",
        r"\bwhat (?:do|does|did) .*\bcost\b",
        r"\b(?:what|which) (?:amount|sum)\b",
    ),
    "length": (
        r"\bhow (?:far|tall|high|deep|wide|thick)\b|\bwhat (?:distance|depth|height|width)\b",
        r"\bhow long (?:is|are|was|were) (?:the |a |this )?(?:\w+ )?"
        r"(?:rope|bridge|road|river|wall|tunnel|street|coast|line|table|snake|tail|train|ship|boat|cable)s?\b",
    ),
    "duration": (
        r"\bhow long\b",
        r"\bhow many (?:seconds|minutes|hours|days|weeks|months|years)\b",
    ),
    "count": (r"\bhow many\b",),
    "weight": (r"\bhow heavy\b|\bhow much\b.*\bweigh|\bwhat weight\b",),
    "heat": (
        r"\bhow (?:hot|cold|warm|cool)\b|\b(?:what|which) temperature\b|\btemperature (?:of|is|was|in|on)\b",
    ),
    "speed": (r"\bhow (?:fast|quickly)\b|\bwhat speed\b",),
    "rate": (r"\bhow often\b",),
    "number": (
        r"\bhow (?:big|large|small|much|loud)\b|\bwhat (?:percentage|percent|share|number|size)\b",
    ),
    "date": (
        r"\bwhen (?:is|was|were|are|will)\b",
        r"\b(?:what|which) (?:day|date|year|month|time)\b",
    ),
    "name": (
        r"\bwhat(?: is| was| are) (?:the |his |her |its |their |your |my )?(?:\S+ ){0,2}names?\b",
        r"\bwhat (?:is|are|was) .*\b(?:called|named)\b",
        r"\bname of\b",
    ),
    "person": (r"^(?:and |so )?(?:who|whom|whose)\b|\bby whom\b",),
}
_EXPECTED = [(expects, re.compile("|".join(patterns))) for expects, patterns in _EXPECTS.items()]

_FRAME_WORDS = frozenset(
    """
    age amount anybody anyone anything appear appears avi big called chapter chapters cold compare cost
    costs date day deep describe described describes difference discuss discussed discusses does episode
    exactly expensive explain explained explains far fast file film films footage give happen happened
    happens heavy high hot kind kinds known lecture lectures library long main many mentioned mention
    mentions mkv moments month mov mp4 much name named names number often old one overview people percent
    percentage person please point points price recording say see seen sort speaker speakers summarise
    summarize summary talked tall tell there thing things time times today told topic topics type visible
    want webm weigh weighs wide year yes
    """.split()  # noqa: SIM905
)
"""Words of a question that say what is asked for, not what it is about."""
_CLOCK = re.compile(
    r"\b(?:at|after|before|around|about|from)\s+(?:minute\s+)?"
    r"(\d{1,2}(?::\d{2}){1,2}|\d+(?:\.\d+)?\s*(?:s|sec|seconds)\b|\d+ minutes?\b)"
)
_THINGS = r"\b(?:said|says?|shown|seen|happens?|appears?|words?|thing|sentence)\b.*\b"
_FIRST = re.compile(
    rf"{_THINGS}(?:first|at the (?:beginning|start))\b|\bfirst (?:thing|words?|sentence|scene|picture)\b"
    r"|\bhow does .* (?:begin|start)\b"
)
_LAST = re.compile(
    rf"{_THINGS}(?:last|at the (?:very )?end)\b|\blast (?:thing|words?|sentence|scene|picture)\b"
    r"|\bhow does .* end\b"
)
_BESIDE = re.compile(
    r"\b(?:happens?|comes?|said|shown|seen|next|right|follows?|do|does|did)\b.*?\b(before|after)\b (.+?)\W*$"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question, understood."""

    text: str
    kind: Kind
    expects: Expects
    subject: tuple[str, ...]
    """The words that it is about; what answers it has to be about them."""
    names: tuple[str, ...]
    """Those of them that are written as names."""
    order: Order = ""
    at_s: float | None = None
    """Where it asks about one instant, `at 0:22`."""
    anchor: str = ""
    """What it asks before or after: `what happens after the lift-off?`."""


def understand(text: str) -> Asked:
    """What kind of question this is, what it is about, and what an answer has to hold."""
    lower = re.sub(r"^(\w+)'s ", r"\1 is ", " ".join(text.lower().replace("’", "'").split()))
    order, at_s, anchor = _order(lower)
    kind = kind_of(lower)
    if order and kind in ("said", "seen", "when"):
        kind = "whole"
    words = (word for word in content_words(text) if word not in _FRAME_WORDS)
    subject = tuple(word for word in words if len(word) > 1 or word.isdigit())
    expects: Expects = next((expects for expects, rule in _EXPECTED if rule.search(lower)), "")
    return Asked(
        text=text, kind=kind, expects=expects, subject=subject, names=_names(text, subject),
        order=order, at_s=at_s, anchor=anchor,
    )  # fmt: skip


def kind_of(lower: str) -> Kind:
    """The kind of a question in lower case."""
    return next((kind for kind, rule in _COMPILED if rule.search(lower)), "said")


def _order(lower: str) -> tuple[Order, float | None, str]:
    """What a question asks by order, the instant it names, and what it asks before or after."""
    if match := _CLOCK.search(lower):
        word = match[0].split()[0]
        order: Order = "after" if word == "after" else "before" if word == "before" else "at"
        return order, _seconds(match[1]), ""
    if match := _BESIDE.search(lower):
        return ("before" if match[1] == "before" else "after"), None, match[2]
    if _FIRST.search(lower):
        return "first", None, ""
    return ("last", None, "") if _LAST.search(lower) else ("", None, "")


def _seconds(written: str) -> float:
    """`1:02:03`, `22 s`, `3 minutes` in seconds."""
    if ":" in written:
        total = 0.0
        for part in written.split(":"):
            total = 60 * total + float(part)
        return total
    value = float(re.sub(r"[^\d.]", "", written))
    return value * 60 if "minute" in written else value


def _names(text: str, subject: tuple[str, ...]) -> tuple[str, ...]:
    """Words with a capital inside the sentence: `how old is Kiwi?`."""
    capital = {word.lower() for word in re.findall(r"(?<!^)(?<![.!?] )\b([A-Z]\w*)", text)}
    return tuple(word for word in subject if word in capital)


_TIME_UNITS = frozenset(
    unit + ending
    for unit in (
        "second",
        "minute",
        "hour",
        "day",
        "week",
        "month",
        "year",
        "decade",
        "century",
        "night",
    )
    for ending in ("", "s")
)
_MONEY = re.compile(
    r"[$€£¥]|\b(?:dollars?|euros?|pounds?|cents?|francs?|yen|bucks|pence|rupees?|shillings?|pesos?|marks?|crowns?"
    r"|roubles?|rubles?|million|billion|free of charge|for free|is free|are free)\b"
)
_SEASONS = "spring|summer|autumn|fall|winter"
_DATES = re.compile(
    r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\b(?:today|tomorrow|yesterday|noon|midnight|tonight)\b"
    rf"|\b(?:{'|'.join(sorted(MONTHS - {'may', 'march'}))})\b|\b(?:in|of|on|for) (?:may|march)\b"
    r"|\b(?:1[5-9]|20)\d\d\b|\b\d{1,2}(?::\d\d| ?[ap]\.?m\b| o'clock)|\b(?:century|o'clock)\b"
    rf"|\b(?:last|next|this|every) (?:week|month|year|morning|evening|night|{_SEASONS})\b"
    r"|\b(?:years?|months?|weeks?|days?|hours?|minutes?|centur(?:y|ies)) (?:ago|later|before|earlier)\b"
    rf"|\bin (?:the )?(?:morning|evening|afternoon|nineteen|twenty|{_SEASONS})\b"
)
_AN_AMOUNT = re.compile(
    r"\b(?:an?|dozens?|couple|pair|few|single|hundreds|thousands|millions|half|several|both)\b"
)
_A_WHILE = re.compile(
    r"\b(?:since|until|overnight|forever|half an hour|all (?:day|night))\b"
    r"|\ban? (?:\w+ )?(?:second|minute|hour|day|week|month|year|century|decade|lifetime)\b"
)
_UNITS: dict[str, frozenset[str]] = {
    kind: frozenset(units.split())
    for kind, units in (
        ("length", """
        meter meters metre metres kilometer kilometers kilometre kilometres centimeter centimeters
        centimetre centimetres millimeters millimetres mile miles foot feet inch inches yard yards km cm
        mm m block blocks story stories floors fathoms
        """),
        ("weight", "gram grams kilo kilos kilogram kilograms pound pounds ton tons tonne tonnes ounces kg g lbs"),
        ("heat", "degree degrees celsius fahrenheit kelvin"),
        ("speed", "meters metres kilometers kilometres miles km mph knots kmh feet times centimeters frames"),
    )
}  # fmt: skip
_A_RATE = re.compile(
    r"\b(?:every|each|once|twice|times|daily|weekly|monthly|yearly|always|never|hourly|rarely|often|sometimes)\b"
)
_PEOPLE = frozenset(
    """
    man woman boy girl child baby brother sister mother father parents son daughter wife husband friend friends nurse
    doctor teacher students volunteers team neighbor neighbour people children kids uncle aunt grandfather grandmother
    king queen president mayor captain professor engineer engineers scientists artist author writer owner company
    police farmers workers postman mechanic keeper customers parents crew community government
    """.split()  # noqa: SIM905
)
_A_PERSON = re.compile(
    r"(?<![.!?] )(?<!^)\b(?!I\b|I')[A-Z]\w+|^[A-Z]\w+ [A-Z]\w+"
    r"|^(?!The|A|An|In|On|It|We|This|That|There|They|He|She|If|When)[A-Z]\w+ \w+(?:ed|s|te|ew)\b"
    rf"|\b(?i:{'|'.join(sorted(_PEOPLE))})\b"
)
_A_NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z]\w+|\b(?:called|named?)\b")


def holds(asked: Asked, sentence: str) -> bool:
    """Whether a sentence has the kind of thing that is asked for: a number for `how many`, a day for `when`."""
    lower = sentence.lower().replace("’", "'")
    words = tokens(lower)
    named = numbers(words)
    match asked.expects:
        case "":
            return True
        case "money":
            return _MONEY.search(lower) is not None
        case "date":
            return _DATES.search(lower) is not None or any(number.is_ordinal for number in named)
        case "name":
            return _A_NAME.search(sentence) is not None
        case "person":
            return _A_PERSON.search(sentence) is not None
        case "age":
            return any(_is_age(words, number.first, number.after) for number in named)
        case "duration":
            return _units_follow(words) or _A_WHILE.search(lower) is not None
        case "count":
            return bool(named) or _AN_AMOUNT.search(lower) is not None
        case "rate":
            return _A_RATE.search(lower) is not None
        case "number":
            return bool(named) or "half" in words
        case _:
            return any(
                _UNITS[asked.expects] & set(words[number.after : number.after + 3])
                for number in named
            )


def _is_age(words: Sequence[str], first: int, after: int) -> bool:
    """Whether a number is somebody's age: nine years old, aged nine, a boy of six, she is nine."""
    ahead, behind = words[max(0, first - 2) : first], words[after : after + 3]
    if "ago" in behind:
        return False
    if behind[:1] and behind[0] in _TIME_UNITS:
        return "old" in behind or bool(
            {"is", "was", "were", "be", "turned", "aged"} & set(ahead[-1:])
        )
    of_a_child = ahead[-1:] == ["of"] and bool(_PEOPLE & set(ahead[:1]))
    return of_a_child or bool({"aged", "turned", "turns"} & set(ahead))


def _units_follow(words: Sequence[str]) -> bool:
    """Whether a number is followed closely by a unit of time, and says how long: not `every two hours`."""
    lasting = [number for number in numbers(words) if words[max(0, number.first - 1)] != "every"]
    return any(_TIME_UNITS & set(words[number.after : number.after + 3]) for number in lasting)
