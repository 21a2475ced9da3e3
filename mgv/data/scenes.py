"""Scenes: the starter data set, short narrated videos of moving shapes, made on the spot from a seed.

A scene is drawn from a recipe: which shapes in which colours, how many, where they move, in what order they appear,
which word is on the screen, and what a narrator says that no picture shows. What a scene is about is a colour, a
shape, and a number (or direction, or place in the order); test and validation scenes combine them as no training scene
does, so they cannot be answered by remembering. (Keeping pairs of colour and shape apart instead teaches that a
circle is never green: what is learnt of the training set then excludes just the right answers.)

    FOLDER/videos/<split>-00017.mp4 and .vtt     video stages; the words are subtitles, there is no sound track
    FOLDER/images/<split>-00017.png              image stage
    FOLDER/drawn.json                            the seed that they were drawn from
    FOLDER/queries.jsonl                         scene search: a query and the test videos' moments that it means
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import cos, pi, sin
from pathlib import Path
from typing import Any

from mgv.files import file_digest, replacing, write_json
from mgv.media.subtitles import write_webvtt
from mgv.records import Cue, Sample, Turn

GENERATOR = 1
"""Another one draws other pictures of the same seed."""

COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (245, 222, 60),
    "green": (50, 165, 70),
    "blue": (45, 95, 215),
    "purple": (135, 60, 175),
    "pink": (245, 145, 190),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "arrow")
COUNTS = ("one", "two", "three", "four", "five")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
WORDS = ("OPEN", "STOP", "SALE", "EXIT", "NEWS", "LIVE", "HELP", "TAXI")
FACTS = {
    "city": (
        "Which city is it filmed in?",
        ("Lisbon", "Cairo", "Oslo", "Lima", "Tokyo", "Paris", "Delhi", "Rome", "Boston", "Sydney"),
        (
            "This was filmed in {}.",
            "We are in {} today.",
            "Welcome to {}, where we made this film.",
        ),
    ),
    "name": (
        "What is the narrator's name?",
        ("Anna", "Peter", "Maria", "John", "Sarah", "David", "Emma", "Thomas", "Laura", "Simon"),
        ("My name is {}.", "Hello, I am {}.", "This is {} speaking."),
    ),
    "day": (
        "On which day is it shown?",
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        ("You can see it every {}.", "It is shown on {}.", "Come back on {} for the show."),
    ),
    "price": (
        "How many dollars is a ticket?",
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"),
        (
            "A ticket is {} dollars.",
            "You pay {} dollars for a ticket.",
            "Tickets cost {} dollars each.",
        ),
    ),
}
"""Of each kind of spoken fact: the question, its answers, how the narrator says it."""
SIZE_PX = 256
DURATION_S = 4.0
FRAME_RATE = 8
NUM_IMAGES = 4
"""For each video."""
SPLITS = {"train": 0.8, "validation": 0.08, "test": 0.12}
BORDERS_S = (0.0, 1.0, 3.0, 4.0)
"""When the three things of an `order` scene appear, one after another."""
Pair = tuple[str, str]
"""A colour and a shape."""
NUM_PLACES = {"group": len(COUNTS), "motion": len(DIRECTIONS), "order": 3}
"""How many numbers, directions or places in the order there are, by the sort of scene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One shape on the screen. Places are fractions of the picture."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    direction: str | None = None
    span_s: tuple[float, float] = (0.0, DURATION_S)
    """When it is to be seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A recipe, drawn by rng."""

    sort: str
    """group, motion or order"""
    things: tuple[Thing, ...]
    word: str | None
    background: tuple[int, int, int]
    facts: dict[str, str] = field(default_factory=dict)
    cues: tuple[Cue, ...] = ()


def recipes(split: str, sort: str) -> list[tuple[str, str, int]]:
    """What a split's scenes are about: of colour, shape and place six eighths, one and one, none shared."""
    rest = {"test": (0,), "validation": (4,), "train": (1, 2, 3, 5, 6, 7)}[split]
    return [
        (colour, shape, place)
        for i, colour in enumerate(COLOURS)
        for j, shape in enumerate(SHAPES)
        for place in range(NUM_PLACES[sort])
        if (i + 3 * j + 5 * place) % 8 in rest
    ]


def make_scenes(
    folder: Path,
    *,
    num_videos: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    splits: Sequence[str] = tuple(SPLITS),
) -> Iterator[tuple[str, str, Sample]]:
    """Write the data set and yield (stage, split, sample). The same seed gives the same bytes.

    NUM_IMAGES times as many images as videos. A file that is there already is not drawn again, unless it is
    another seed's.
    splits: only these of it.
    """
    _clear_for(folder, seed)
    queries: list[dict[str, Any]] = []
    done, total = 0, (1 + NUM_IMAGES) * num_videos
    for split in splits:
        share = SPLITS[split]
        for number in range(round(share * NUM_IMAGES * num_videos)):
            rng = random.Random(f"{seed}/image/{split}/{number}")
            path = folder / "images" / f"{split}-{number:05}.png"
            scene = draw_lots(rng, split, "group")
            if not path.exists():
                _write_image(scene, path)
            yield "pretrain_image", split, _image_sample(scene, path, rng)
            done += 1
            if progress:
                progress(done, total)
        for number in range(round(share * num_videos)):
            rng = random.Random(f"{seed}/video/{split}/{number}")
            path = folder / "videos" / f"{split}-{number:05}.mp4"
            scene = draw_lots(rng, split, ("group", "motion", "order")[number % 3])
            if not path.exists():
                write_webvtt(scene.cues, path.with_suffix(".vtt"))
                _write_video(scene, path)
            described, asked = _video_samples(scene, path, rng)
            yield "pretrain_video", split, described
            yield "instruct", split, asked
            if split == "test":
                queries += _queries(scene, path)
            done += 1
            if progress:
                progress(done, total)
    _write_queries(folder / "queries.jsonl", queries)


def _clear_for(folder: Path, seed: int) -> None:
    """The folders, without what another seed or another generator has drawn there."""
    drawn, ours = folder / "drawn.json", {"seed": seed, "generator": GENERATOR}
    try:
        same = json.loads(drawn.read_text(encoding="utf-8")) == ours
    except (OSError, ValueError):
        same = False
    for part in ("videos", "images"):
        if not same:
            shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_json(drawn, ours)


# what is in a scene


def draw_lots(rng: random.Random, split: str, sort: str) -> Scene:
    """A scene of the sort, about one of the split's own recipes."""
    colour, shape, place = rng.choice(recipes(split, sort))
    things = {"group": _group, "motion": _motion, "order": _order}[sort](
        rng, (colour, shape), place
    )
    facts = {kind: rng.choice(FACTS[kind][1]) for kind in rng.sample(sorted(FACTS), 2)}
    facts_told = [rng.choice(FACTS[kind][2]).format(value) for kind, value in facts.items()]
    half_s = DURATION_S / 2
    cues = tuple(
        Cue(start_s=i * half_s, end_s=(i + 1) * half_s - 0.1, text=text)
        for i, text in enumerate(facts_told)
    )
    return Scene(
        sort=sort,
        things=things,
        word=rng.choice(WORDS) if rng.random() < 0.6 else None,
        background=tuple(rng.randint(15, 75) for _ in range(3)),  # type: ignore[arg-type]
        facts=facts,
        cues=cues,
    )


def _others(rng: random.Random, main: Pair, number: int) -> list[Pair]:
    """Pairs to go with the main one; no colour and no shape comes twice."""
    colours = rng.sample([colour for colour in COLOURS if colour != main[0]], number)
    shapes = rng.sample([shape for shape in SHAPES if shape != main[1]], number)
    return list(zip(colours, shapes, strict=True))


def _group(rng: random.Random, main: Pair, place: int) -> tuple[Thing, ...]:
    """One to five of the main pair, apart from each other, and sometimes one other thing."""
    number = place + 1
    pairs = [main] * number + (_others(rng, main, 1) if number < 4 and rng.random() < 0.5 else [])
    spots = [(x, y) for x in (0.2, 0.5, 0.8) for y in (0.18, 0.47)]
    things = []
    for (colour, shape), (x, y) in zip(pairs, rng.sample(spots, len(pairs)), strict=True):
        jitter = (rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03))
        radius = rng.uniform(0.1, 0.125)
        things.append(
            Thing(colour=colour, shape=shape, x=x + jitter[0], y=y + jitter[1], radius=radius)
        )
    return tuple(things)


def _motion(rng: random.Random, main: Pair, place: int) -> tuple[Thing, ...]:
    """The main pair crosses the picture; another thing rests."""
    direction = list(DIRECTIONS)[place]
    dx, _ = DIRECTIONS[direction]
    lane = rng.choice((0.22, 0.5)) if dx else rng.choice((0.22, 0.5, 0.78))
    x, y = (0.5, lane) if dx else (lane, 0.38)
    mover = Thing(
        colour=main[0], shape=main[1], x=x, y=y, radius=rng.uniform(0.12, 0.15), direction=direction
    )
    colour, shape = _others(rng, main, 1)[0]
    if dx:
        rest = (rng.choice((0.2, 0.5, 0.8)), 0.6 if lane < 0.4 else 0.14)
    else:
        rest = (rng.choice([spot for spot in (0.2, 0.5, 0.8) if abs(spot - lane) > 0.2]), 0.38)
    return mover, Thing(colour=colour, shape=shape, x=rest[0], y=rest[1], radius=0.11)


def _order(rng: random.Random, main: Pair, place: int) -> tuple[Thing, ...]:
    """Three things, each alone on the screen, one after another."""
    pairs = _others(rng, main, 2)
    pairs.insert(place, main)
    return tuple(
        Thing(
            colour=colour,
            shape=shape,
            x=rng.uniform(0.3, 0.7),
            y=rng.uniform(0.3, 0.45),
            radius=rng.uniform(0.15, 0.2),
            span_s=span_s,
        )
        for (colour, shape), span_s in zip(pairs, pairwise(BORDERS_S), strict=True)
    )


# what is asked about it


def _image_sample(scene: Scene, path: Path, rng: random.Random) -> Sample:
    return Sample(
        sample_id=f"scenes/{path.stem}-image",
        media=str(path),
        media_id=file_digest(path),
        turns=(
            Turn(question=rng.choice(DESCRIBE_IMAGE), answer=describe(scene), kind="describe"),
            *_look_closely(scene, rng),
        ),
        is_image=True,
    )


def _video_samples(scene: Scene, path: Path, rng: random.Random) -> tuple[Sample, Sample]:
    common: dict[str, Any] = {
        "media": str(path),
        "media_id": file_digest(path),
        "end_s": DURATION_S,
        "cues": scene.cues,
    }
    described = Sample(
        sample_id=f"scenes/{path.stem}-description",
        turns=(
            Turn(question=rng.choice(DESCRIBE_VIDEO), answer=describe(scene), kind="describe"),
            *_watch(scene, rng),
        ),
        **common,
    )
    asked = Sample(
        sample_id=f"scenes/{path.stem}",
        turns=(*_look(scene, rng), *_watch(scene, rng), *_listen(scene)),
        **common,
    )
    return described, asked


DESCRIBE_IMAGE = (
    "Describe the picture.",
    "What does the picture show?",
    "Say in short what is to be seen.",
)
DESCRIBE_VIDEO = (
    "Describe the video.",
    "What happens in the video?",
    "Say in short what is to be seen.",
)


def describe(scene: Scene) -> str:
    """The caption: what happens, then the word on the screen."""
    first = scene.things[0]
    if scene.sort == "motion":
        text = f"{_a(first)} moves {first.direction} while {_a(scene.things[1])} rests."
    elif scene.sort == "order":
        text = (
            f"First {_a(scene.things[0])}, then {_a(scene.things[1])}, then {_a(scene.things[2])}."
        )
    else:
        number = _number(scene)
        others = [f" and {_a(thing)}" for thing in scene.things[number:]]
        amount = _a(first) if number == 1 else f"{COUNTS[number - 1]} {first.colour} {first.shape}s"
        text = f"{amount}{''.join(others)}."
    text = text[0].upper() + text[1:]
    return f"{text} The word {scene.word} is on the screen." if scene.word else text


def _look(scene: Scene, rng: random.Random) -> list[Turn]:
    """What one picture can answer: shape, colour, number, presence, the word."""
    turns = []
    if scene.sort == "group":
        turns += [*_counted(scene.things[0], _number(scene)), *_shape_alone(scene)]
    elif scene.sort == "motion":
        rest = scene.things[1]
        turns.append(
            _closed("colour", f"What colour is the {rest.shape}?", rest.colour, tuple(COLOURS))
        )
    thing = rng.choice(scene.things)
    turns.append(_presence(scene, thing, rng.random() >= 0.5, rng))
    return [*turns, *_word(scene)]


def _look_closely(scene: Scene, rng: random.Random) -> list[Turn]:
    """The same of everything in the picture of a group, each thing also in a colour that it has not.

    Pictures are where colours, numbers and `no` are learnt: they take many examples, and a picture is cheap.
    """
    number = _number(scene)
    turns = []
    for thing, count in (
        (scene.things[0], number),
        *((other, 1) for other in scene.things[number:]),
    ):
        turns += [
            *_counted(thing, count),
            *(_presence(scene, thing, there, rng) for there in (True, False)),
        ]
    return [*turns, *_shape_alone(scene), *_word(scene)]


def _counted(thing: Thing, number: int) -> list[Turn]:
    are, plural = ("are the", "s") if number > 1 else ("is the", "")
    return [
        _closed(
            "colour", f"What colour {are} {thing.shape}{plural}?", thing.colour, tuple(COLOURS)
        ),
        _closed("count", f"How many {thing.shape}s are there?", COUNTS[number - 1], COUNTS),
    ]


def _shape_alone(scene: Scene) -> list[Turn]:
    alone = len(scene.things) == _number(scene)
    return (
        [_closed("shape", "Which shape is shown?", scene.things[0].shape, SHAPES)] if alone else []
    )


def _word(scene: Scene) -> list[Turn]:
    return (
        [_closed("word", "Which word is on the screen?", scene.word, WORDS)] if scene.word else []
    )


def _presence(scene: Scene, thing: Thing, is_there: bool, rng: random.Random) -> Turn:
    """Yes or no; a `no` differs from the thing shown in the colour alone."""
    colour = thing.colour
    if not is_there:
        shown = {other.colour for other in scene.things if other.shape == thing.shape}
        colour = rng.choice([c for c in COLOURS if c not in shown])
    return _closed("presence", f"Is there a {colour} {thing.shape}?".replace("a orange", "an orange"),
                   "yes" if is_there else "no", ("yes", "no"))  # fmt: skip


def _watch(scene: Scene, rng: random.Random) -> list[Turn]:
    """What only the course of time answers: direction, order."""
    if scene.sort == "motion":
        mover = scene.things[0]
        return [
            _closed("motion", f"Which way does the {mover.shape} move?", str(mover.direction),
                    tuple(DIRECTIONS)),
            _closed("motion", "Which shape moves?", mover.shape, SHAPES),
        ]  # fmt: skip
    if scene.sort == "order":
        first, middle, last = scene.things
        turns = [
            _closed("order", "Which shape comes first?", first.shape, SHAPES),
            _closed("order", "Which shape comes last?", last.shape, SHAPES),
            _closed("order", f"Which shape comes after the {first.shape}?", middle.shape, SHAPES),
            _closed("order", f"Which shape comes before the {last.shape}?", middle.shape, SHAPES),
            _closed("colour", f"What colour is the {middle.shape}?", middle.colour, tuple(COLOURS)),
        ]
        return rng.sample(turns, 3)
    return []


def _listen(scene: Scene) -> list[Turn]:
    """What only the narrator says."""
    return [
        _closed("narration", FACTS[kind][0], value, FACTS[kind][1])
        for kind, value in scene.facts.items()
    ]


def _closed(kind: str, question: str, answer: str, choices: Sequence[str]) -> Turn:
    return Turn(question=question, answer=answer, kind=kind, choices=tuple(choices))


def _number(scene: Scene) -> int:
    first = scene.things[0]
    return sum((thing.colour, thing.shape) == (first.colour, first.shape) for thing in scene.things)


def _a(thing: Thing) -> str:
    article = "an" if thing.colour[0] in "aeiou" else "a"
    return f"{article} {thing.colour} {thing.shape}"


def _queries(scene: Scene, path: Path) -> list[dict[str, Any]]:
    """Scene search: what the narrator says, and what is shown, each with its moment."""
    whole = {"video": path.name, "start_s": 0.0, "end_s": DURATION_S}
    narrated = [
        {"kind": "narration", "query": cue.text.rstrip("."),
         "moments": [whole | {"start_s": cue.start_s, "end_s": cue.end_s}]}
        for cue in scene.cues
    ]  # fmt: skip
    return [*narrated, {"kind": "scene", "query": describe(scene), "moments": [whole]}]


def _write_queries(path: Path, queries: Sequence[dict[str, Any]]) -> None:
    """One line a query; what is said or shown alike in several videos has all their moments."""
    merged: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for query in queries:
        merged.setdefault((query["kind"], query["query"]), []).extend(query["moments"])
    lines = [
        json.dumps(
            {"query_id": f"scenes/{number:05}", "query": query, "kind": kind, "moments": moments}
        )
        for number, ((kind, query), moments) in enumerate(merged.items())
    ]
    with replacing(path) as out:
        out.writelines(f"{line}\n" for line in lines)


# pictures


def draw(scene: Scene, time_s: float) -> Any:
    """The picture at a time, a PIL image of SIZE_PX squared."""
    from PIL import Image, ImageDraw, ImageFont

    scale = 2  # drawn larger and made smaller, for smooth edges
    image = Image.new("RGB", (SIZE_PX * scale, SIZE_PX * scale), scene.background)
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        if thing.span_s[0] <= time_s < thing.span_s[1]:
            x, y = thing.x, thing.y
            if thing.direction:
                dx, dy = DIRECTIONS[thing.direction]
                way = (time_s / DURATION_S - 0.5) * (0.66 if dx else 0.44)
                x, y = x + dx * way, y + dy * way
            size = SIZE_PX * scale
            _draw_shape(
                pen, thing.shape, x * size, y * size, thing.radius * size, COLOURS[thing.colour]
            )
    if scene.word:
        font = ImageFont.load_default(size=48 * scale)
        box = pen.textbbox((0, 0), scene.word, font=font)
        left = (SIZE_PX * scale - box[2] + box[0]) / 2
        pen.rectangle(
            (0, 0.78 * SIZE_PX * scale, SIZE_PX * scale, SIZE_PX * scale), fill=(235, 235, 230)
        )
        pen.text((left, 0.79 * SIZE_PX * scale), scene.word, font=font, fill=(20, 20, 20))
    return image.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)


def _draw_shape(
    pen: Any, shape: str, x: float, y: float, r: float, colour: tuple[int, int, int]
) -> None:
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif shape == "ring":
        pen.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=max(1, round(r * 0.35)))
    elif shape == "heart":
        half = r * 0.55
        for side in (-1, 1):
            centre = x + side * half * 0.92
            pen.ellipse(
                (centre - half, y - r * 0.75, centre + half, y - r * 0.75 + 2 * half), fill=colour
            )
        pen.polygon([(x - r, y + 0.02 * r), (x + r, y + 0.02 * r), (x, y + r)], fill=colour)
    else:
        pen.polygon([(x + r * a, y + r * b) for a, b in _OUTLINES[shape]], fill=colour)


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "star": [
        (sin(k * pi / 5) * (1.1 if k % 2 == 0 else 0.45), -cos(k * pi / 5) * (1.1 if k % 2 == 0 else 0.45))
        for k in range(10)
    ],
    "cross": [
        (-0.32, -1), (0.32, -1), (0.32, -0.32), (1, -0.32), (1, 0.32), (0.32, 0.32),
        (0.32, 1), (-0.32, 1), (-0.32, 0.32), (-1, 0.32), (-1, -0.32), (-0.32, -0.32),
    ],
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)],
}  # fmt: skip


def _write_image(scene: Scene, path: Path) -> None:
    partial = path.with_suffix(".partial")
    draw(scene, 0.0).save(partial, "PNG")
    partial.replace(path)


def _write_video(scene: Scene, path: Path) -> None:
    """H.264, one thread, so that the same scene gives the same bytes."""
    import av
    import numpy as np

    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=FRAME_RATE, options={"crf": "20", "preset": "veryfast"}
        )
        stream.width = stream.height = SIZE_PX
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        moves = any(thing.direction for thing in scene.things)
        shown: tuple[Thing, ...] | None = None
        for index in range(round(DURATION_S * FRAME_RATE)):
            time_s = index / FRAME_RATE
            now = tuple(
                thing for thing in scene.things if thing.span_s[0] <= time_s < thing.span_s[1]
            )
            if moves or now != shown:
                pixels, shown = np.asarray(draw(scene, time_s)), now
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    partial.replace(path)
