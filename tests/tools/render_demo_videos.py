"""Render the demo library's four narrated videos into mgv/demo/videos/.

Run by hand, once: the results are in the repository. Needs espeak-ng on the PATH (narration), and the sample
photographs that scikit-image's wheel carries:

    pip download --no-deps scikit-image && unzip scikit_image-*.whl 'skimage/data/*'
    python tests/tools/render_demo_videos.py skimage/data mgv/demo/videos

Every sentence is synthesised by itself and laid on the time line, so its times in SOURCES.md and talk.vtt
are exact.
Shapes: S samples of a sound.
"""

import argparse
import io
import math
import subprocess
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH_PX, HEIGHT_PX = 480, 270
FPS = 12
SAMPLE_RATE = 22050
"""What espeak-ng writes."""
LEAD_S, PAUSE_S, TAIL_S = 0.6, 0.65, 1.0
"""Silence before a video's first sentence, between two sentences, and after the last."""

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
NIGHT, PAPER, INK, ACCENT, GREY = (
    (16, 24, 48),
    (246, 243, 236),
    (38, 40, 48),
    (200, 84, 48),
    (170, 166, 158),
)

Shot = Callable[[float, float], Image.Image]
"""A picture of what is seen, from (progress of the scene in 0..1, seconds since the scene began)."""


@dataclass(frozen=True)
class Scene:
    """A shot, and the sentences heard during it."""

    shot: Shot
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A sentence and when it is heard."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Film:
    """One video: its file name, what it shows, its scenes."""

    name: str
    shows: str
    photos: tuple[str, ...]
    scenes: tuple[Scene, ...]


# Sound ------------------------------------------------------------------------------------------------------


def speak(text: str) -> NDArray[np.int16]:
    """The sentence spoken by espeak-ng, without the silence around it: int16 [S]."""
    command = ["espeak-ng", "-v", "en-us", "-s", "140", "--stdout", text]
    spoken = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(spoken)) as sound:
        assert sound.getframerate() == SAMPLE_RATE, sound.getframerate()
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 200)
    return samples[loud[0] : loud[-1] + 1]


def silence(seconds: float) -> NDArray[np.int16]:
    return np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def lay_out(film: Film) -> tuple[NDArray[np.int16], list[Line], list[float]]:
    """The whole sound track, each sentence's times, and the second at which each scene ends."""
    pieces, lines, scene_ends_s = [silence(LEAD_S)], [], []
    clock = len(pieces[0])
    for number, scene in enumerate(film.scenes, start=1):
        for text in scene.sentences:
            spoken = speak(text)
            lines.append(Line(text, clock / SAMPLE_RATE, (clock + len(spoken)) / SAMPLE_RATE))
            pieces += [spoken, silence(PAUSE_S)]
            clock += len(spoken) + len(pieces[-1])
        if number == len(film.scenes):
            pieces.append(silence(TAIL_S))
            clock += len(pieces[-1])
        scene_ends_s.append(clock / SAMPLE_RATE)
    return np.concatenate(pieces), lines, scene_ends_s


# Pictures ---------------------------------------------------------------------------------------------------


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that no system font is needed."""
    return ImageFont.load_default(size_px)


@cache
def photo(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def ease(progress: float) -> float:
    """0..1 to 0..1, slow at both ends."""
    return 0.5 - 0.5 * math.cos(math.pi * min(max(progress, 0.0), 1.0))


def crop(image: Image.Image, centre_x: float, centre_y: float, width: float) -> Image.Image:
    """The part of the image round a centre (in fractions of its size), as a frame; kept inside the image."""
    box_w = min(image.width * width, image.height * WIDTH_PX / HEIGHT_PX)
    box_h = box_w * HEIGHT_PX / WIDTH_PX
    left = min(max(centre_x * image.width - box_w / 2, 0), image.width - box_w)
    top = min(max(centre_y * image.height - box_h / 2, 0), image.height - box_h)
    return image.resize(
        (WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS, box=(left, top, left + box_w, top + box_h)
    )


def pan(path: Path, start: tuple[float, float, float], end: tuple[float, float, float]) -> Shot:
    """A slow move over a photograph between two (centre x, centre y, width), all in fractions of its size."""

    def shot(progress: float, _: float) -> Image.Image:
        part = ease(progress)
        return crop(photo(path), *(a + (b - a) * part for a, b in zip(start, end, strict=True)))

    return shot


def slide(
    title: str,
    rows: tuple[str, ...] = (),
    drawing: Callable[[ImageDraw.ImageDraw, float], None] | None = None,
) -> Shot:
    """A titled slide; its rows come in one after the other, a drawing fills the right-hand side."""

    def shot(progress: float, _: float) -> Image.Image:
        image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), PAPER)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, WIDTH_PX, 8), fill=ACCENT)
        draw.text((28, 30), title, fill=INK, font=font(30))
        for number, row in enumerate(rows):
            if progress * (len(rows) + 1) >= number:
                y = 94 + number * 42
                draw.ellipse((30, y + 7, 38, y + 15), fill=ACCENT)
                draw.text((50, y), row, fill=INK, font=font(21))
        if drawing is not None:
            drawing(draw, progress)
        return image

    return shot


def draw_splits(draw: ImageDraw.ImageDraw, progress: float) -> None:
    """A bar in three parts: training, validation, test."""
    shades: tuple[Colour, ...] = (ACCENT, (222, 160, 60), (70, 120, 150))
    left, right = 30.0, 30 + 420 * ease(progress * 2)
    for name, part, shade in zip(
        ("train", "validate", "test"), (0.8, 0.1, 0.1), shades, strict=True
    ):
        end = min(left + 420 * part, right)
        if end > left:
            draw.rectangle((left, 190, end, 225), fill=shade)
            draw.text((left, 232), name, fill=INK, font=font(13))
        left += 420 * part


def draw_scale(draw: ImageDraw.ImageDraw, progress: float) -> None:
    """A kitchen scale, its tray filling with ground coffee."""
    heap = 34 * ease(progress * 1.5)
    draw.ellipse((318, 150 - heap, 422, 150 + heap), fill=(96, 60, 36))
    draw.rectangle((300, 150, 440, 160), fill=GREY)
    draw.rectangle((300, 160, 440, 190), fill=PAPER)
    draw.polygon([(320, 160), (420, 160), (440, 220), (300, 220)], fill=INK)
    draw.rounded_rectangle((335, 178, 405, 206), 5, fill=(190, 220, 200))


def draw_thermometer(draw: ImageDraw.ImageDraw, progress: float) -> None:
    """A thermometer, its column rising."""
    draw.rounded_rectangle((358, 80, 382, 220), 12, outline=INK, width=3)
    draw.ellipse((350, 200, 390, 240), fill=ACCENT, outline=INK, width=3)
    draw.rectangle((366, 205 - 105 * ease(progress * 1.5), 374, 215), fill=ACCENT)
    for tick in range(6):
        draw.line((390, 100 + tick * 18, 402, 100 + tick * 18), fill=INK, width=2)


def draw_clock(draw: ImageDraw.ImageDraw, progress: float) -> None:
    """A stop watch, its hand going round."""
    draw.rectangle((362, 86, 378, 104), fill=INK)
    draw.ellipse((310, 100, 430, 220), fill=(255, 255, 255), outline=INK, width=5)
    angle = 2 * math.pi * progress
    draw.line(
        (370, 160, 370 + 46 * math.sin(angle), 160 - 46 * math.cos(angle)), fill=ACCENT, width=5
    )


def draw_bowl(draw: ImageDraw.ImageDraw, progress: float) -> None:
    """A bowl of food and two fish."""
    for number, x in enumerate((330, 392)):
        y = 120 + 14 * math.sin(2 * math.pi * (2 * progress + number / 2))
        draw.ellipse((x - 24, y - 10, x + 20, y + 10), fill=(222, 130, 100))
        draw.polygon([(x + 16, y), (x + 34, y - 11), (x + 34, y + 11)], fill=(222, 130, 100))
    draw.chord((295, 120, 435, 240), 0, 180, fill=(70, 120, 150))


def blast(size: tuple[int, int], x: float, y: float, seconds: float) -> Image.Image:
    """Fire below a rocket's tail at (x, y), and smoke rolling out where it meets the ground."""
    fire = Image.new("RGB", size)
    draw = ImageDraw.Draw(fire)
    for number in range(14):
        swirl = 26 * math.sin(2.3 * number) * min(seconds + 1, 5)
        radius = 10 + 4 * min(seconds, 4) + 3 * math.sin(number + 5 * seconds)
        draw.ellipse(
            (x + swirl - radius, 404 - radius, x + swirl + radius, 404 + radius),
            fill=(128, 112, 104),
        )
    fire = fire.filter(ImageFilter.GaussianBlur(9))
    draw = ImageDraw.Draw(fire)
    length = 90 + 10 * math.sin(23 * seconds)
    draw.polygon(
        [(x - 13, y), (x + 13, y), (x + 5, y + length), (x - 5, y + length)], fill=(255, 150, 60)
    )
    draw.polygon([(x - 9, y), (x + 9, y), (x, y + length * 0.7)], fill=(255, 250, 220))
    return fire.filter(ImageFilter.GaussianBlur(3))


def cut_out(
    path: Path, box: tuple[int, int, int, int]
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """What stands in the box of a photograph, its mask, and the photograph without it.

    The hole is filled with the sky from both its sides.
    """
    left, top, right, bottom = box
    sky = np.asarray(photo(path).filter(ImageFilter.GaussianBlur(7)), np.float32)[top:bottom]
    part = np.linspace(0, 1, right - left, dtype=np.float32)[None, :, None]
    fill = sky[:, left - 12, None] * (1 - part) + sky[:, right + 12, None] * part
    thing = photo(path).crop(box)
    contrast = np.abs(np.asarray(thing, np.float32) - fill).max(axis=2)
    mask = Image.fromarray((np.clip((contrast - 14) / 20, 0, 1) * 255).astype(np.uint8))
    without = photo(path).copy()
    without.paste(Image.fromarray(fill.astype(np.uint8)), box)
    return thing, mask, without


def lift_off(path: Path, wait_s: float) -> Shot:
    """The photograph's rocket rising from its pad after wait_s, the camera following."""
    left, top, right, bottom = (
        303,
        125,
        338,
        402,
    )  # where the rocket stands, in the photograph's pixels
    rocket, mask, without = cut_out(path, (left, top, right, bottom))

    def shot(_: float, seconds: float) -> Image.Image:
        burning_s = max(seconds - wait_s, 0.0)
        rise = 10.0 * burning_s**2
        scene = without.copy()
        if burning_s:
            fire = blast(scene.size, (left + right) / 2, bottom - rise - 6, burning_s)
            scene = Image.fromarray(np.maximum(np.asarray(scene), np.asarray(fire)))
        scene.paste(rocket, (left, round(top - rise)), mask)
        return crop(scene, 0.5, 0.62 - min(rise / 900, 0.2), 0.95)

    return shot


# The four films ---------------------------------------------------------------------------------------------


def rocket_film(photos: Path) -> Film:
    picture = photos / "rocket.jpg"
    opening = slide("Launch of a space observatory", ("Cape Canaveral", "11 February 2015"))
    closing = slide(
        "After the launch",
        ("First stage falls away", "Journey to its post", "First pictures of Earth"),
    )
    count = ("Ten. Nine. Eight. Seven. Six. Five. Four.", "Three. Two. One.")
    wait_s = sum(len(speak(text)) / SAMPLE_RATE + PAUSE_S for text in count)
    return Film(
        "rocket.mp4",
        "a title slide, a Falcon 9 rocket on its pad at dusk, countdown and lift-off, a closing slide",
        ("rocket.jpg",),
        (
            Scene(opening, ("This rocket carries a weather observatory into deep space.",)),
            Scene(
                pan(picture, (0.5, 0.25, 0.45), (0.5, 0.62, 0.95)),
                (
                    "The payload weighs five hundred seventy kilograms.",
                    "All systems are ready for launch.",
                ),
            ),
            Scene(
                lift_off(picture, wait_s),
                (
                    *count,
                    "Lift off! The rocket lifts off and clears the tower.",
                    "It climbs into the evening sky.",
                ),
            ),
            Scene(
                closing,
                (
                    "Eighty kilometers above the ground, the first stage falls away.",
                    "The journey takes one hundred ten days.",
                ),
            ),
        ),
    )


def talk_film(photos: Path) -> Film:
    return Film(
        "talk.mp4",
        "a short talk with slides on releasing a data set of galaxy pictures; its subtitles are in talk.vtt",
        ("hubble_deep_field.jpg",),
        (
            Scene(
                slide(
                    "Releasing a data set", ("What is in it", "How it is split", "Who may use it")
                ),
                ("Welcome. Today I talk about releasing our data set.",),
            ),
            Scene(
                pan(photos / "hubble_deep_field.jpg", (0.35, 0.35, 0.9), (0.6, 0.6, 0.5)),
                (
                    "It holds twelve thousand pictures of galaxies.",
                    "Fifty volunteers labeled every picture by hand.",
                ),
            ),
            Scene(
                slide("How it is split", ("Split by galaxy, never by picture",), draw_splits),
                ("Eighty percent of the galaxies are used for training.",),
            ),
            Scene(
                slide("Licence", ("Free to share", "Free to change", "Credit the authors")),
                (
                    "I propose the Creative Commons Attribution licence.",
                    "Everyone may use the pictures, if they name the authors.",
                ),
            ),
            Scene(
                slide("Next steps", ("Review", "Release", "Yearly update")),
                ("We plan the release for March the first.", "Thank you. Are there any questions?"),
            ),
        ),
    )


def coffee_film(photos: Path) -> Film:
    cup = photos / "coffee.png"
    return Film(
        "coffee.mp4",
        "how to brew coffee: a red cup on a wooden table; drawings of a scale, a thermometer, a stop watch",
        ("coffee.png",),
        (
            Scene(
                pan(cup, (0.5, 0.5, 1.0), (0.55, 0.4, 0.7)),
                ("Here is how to brew very good coffee.",),
            ),
            Scene(
                slide("1. Weigh and grind", (), draw_scale),
                ("First, weigh eighteen grams of coffee beans and grind them.",),
            ),
            Scene(
                slide("2. Heat the water", (), draw_thermometer),
                ("Heat the water to ninety three degrees Celsius.",),
            ),
            Scene(
                slide("3. Pour and wait", (), draw_clock),
                (
                    "Now pour three hundred grams of water over the ground coffee.",
                    "Wait for four minutes, and then press the filter down.",
                ),
            ),
            Scene(
                pan(cup, (0.6, 0.4, 0.55), (0.5, 0.5, 1.0)),
                ("Serve the coffee in a warm cup.", "A little salt makes it less bitter."),
            ),
        ),
    )


def cat_film(photos: Path) -> Film:
    picture = photos / "chelsea.png"
    return Film(
        "cat.mp4",
        "a tabby cat at home, its face and eyes from near by; a slide with a bowl of fish",
        ("chelsea.png",),
        (
            Scene(
                pan(picture, (0.5, 0.45, 1.0), (0.5, 0.45, 0.75)),
                (
                    "This cat lives with us at home. Her name is Matilda.",
                    "We found her behind the bakery, four years ago.",
                ),
            ),
            Scene(
                slide("What she eats", ("Breakfast: 7 o'clock", "Dinner: 6 o'clock"), draw_bowl),
                (
                    "Every morning she eats salmon and a spoon of pumpkin.",
                    "She does not like milk.",
                ),
            ),
            Scene(
                pan(picture, (0.35, 0.35, 0.5), (0.72, 0.42, 0.5)),
                ("All day long she looks at the birds in the garden.",),
            ),
            Scene(
                pan(picture, (0.5, 0.7, 0.55), (0.5, 0.45, 1.0)),
                (
                    "At night she sleeps in a basket beside the warm stove.",
                    "When it rains, she hides under the kitchen table.",
                ),
            ),
        ),
    )


PHOTO_SOURCES = {
    "rocket.jpg": "Falcon 9 with DSCOVR at Cape Canaveral, by SpaceX, released into the public domain; "
    "in the countdown the rocket is cut out and moved, fire and smoke are drawn",
    "hubble_deep_field.jpg": "Hubble eXtreme Deep Field, by NASA, public domain",
    "coffee.png": "a coffee cup, by Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0",
    "chelsea.png": "Chelsea the cat, by Stefan van der Walt, CC0",
}


# Files ------------------------------------------------------------------------------------------------------


def frames(film: Film, scene_ends_s: list[float]) -> Iterator[Image.Image]:
    """Every frame of the film, in order."""
    starts_s = [0.0, *scene_ends_s[:-1]]
    for number in range(math.floor(scene_ends_s[-1] * FPS)):
        now_s = number / FPS
        at = next(i for i, end_s in enumerate(scene_ends_s) if now_s < end_s)
        since_s = now_s - starts_s[at]
        if at == 0:  # the lead belongs to no scene's clock
            since_s = max(since_s - LEAD_S, 0.0)
        yield film.scenes[at].shot(since_s / (scene_ends_s[at] - starts_s[at]), since_s)


def write_video(path: Path, pictures: Iterator[Image.Image], samples: NDArray[np.int16]) -> None:
    """An mp4 of h264 yuv420p and mono AAC, its index in front."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        options = {
            "crf": "32",
            "preset": "veryslow",
            "tune": "stillimage",
            "g": str(5 * FPS),
            "threads": "1",
        }
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 32_000
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode(None))
        for start in range(0, len(samples), 1024):
            sound = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "s16", "mono")
            sound.sample_rate, sound.pts = SAMPLE_RATE, start
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def clock_time(seconds: float) -> str:
    """Seconds as WebVTT writes them."""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def write_vtt(path: Path, lines: list[Line]) -> None:
    cues = (
        f"{clock_time(line.start_s)} --> {clock_time(line.end_s)}\n{line.text}\n" for line in lines
    )
    path.write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")


def describe(film: Film, lines: list[Line], duration_s: float) -> str:
    """The film's part of SOURCES.md."""
    credits_ = [f"* photograph `{name}`: {PHOTO_SOURCES[name]}." for name in film.photos]
    spoken = [f"| {line.start_s:.2f} | {line.end_s:.2f} | {line.text} |" for line in lines]
    head = [f"## {film.name} ({duration_s:.1f} s)", "", f"Shows {film.shows}.", "", *credits_, ""]
    return "\n".join([*head, "| start_s | end_s | narration |", "|---|---|---|", *spoken, ""])


SOURCES_HEAD = f"""# The demo library's videos

Made once by `tests/tools/render_demo_videos.py`: {WIDTH_PX} x {HEIGHT_PX}, {FPS} frames a second, h264 and
mono AAC. The photographs are sample images of scikit-image (`skimage/data`), all in the public domain; slides
and drawings are the script's own. The voice is espeak-ng's (`en-us`). The stories are made up; the rocket's
mission is DSCOVR's. `talk.vtt` holds the subtitles of `talk.mp4`; the other three have none, so their words
come from speech recognition.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the demo library's narrated videos.")
    parser.add_argument(
        "photos", type=Path, help="the folder skimage/data of an unpacked scikit-image wheel"
    )
    parser.add_argument("videos", type=Path, help="where the videos are written")
    arguments = parser.parse_args()
    parts = []
    for make in (rocket_film, talk_film, coffee_film, cat_film):
        film = make(arguments.photos)
        samples, lines, scene_ends_s = lay_out(film)
        path = arguments.videos / film.name
        write_video(path, frames(film, scene_ends_s), samples)
        parts.append(describe(film, lines, scene_ends_s[-1]))
        if film.name == "talk.mp4":
            write_vtt(path.with_suffix(".vtt"), lines)
        print(f"{path}: {scene_ends_s[-1]:.1f} s, {path.stat().st_size / 1000:.0f} kB")
    (arguments.videos / "SOURCES.md").write_text(SOURCES_HEAD + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
