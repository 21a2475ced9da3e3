"""Hostile: mutated inputs, kills, full disks, read-only libraries and damage; what fell, by a seed.

python -m tests.bench hostile [--quick]       MGV_HOSTILE_SEED=7 draws another campaign

Whole commands are run, as a person runs them. A command falls when it prints a traceback, takes longer than a minute,
loses what was there, or touches a file that is not mgv's. A full disk is a limit on the size of any file that is
written (RLIMIT_FSIZE), which strikes at the same calls; as root, the read-only commands run without root's powers.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mgv.library.ingest import ingest
from mgv.library.manifest import read_manifest
from mgv.library.materialize import materialize
from mgv.workspace import Workspace, find_workspace, init_workspace
from tests.bench.measure import ROOT, Figure, Result
from tests.conftest import RANDOM_PARTS, set_params
from tests.media.make_video import make_video

LIMIT_S = 60.0
MEMORY_GOAL_MB = 2000.0
SRT = "1\n00:00:00,000 --> 00:00:01,000\nA parrot sings.\n\n2\n00:00:01,000 --> 00:00:01,900\nIt rains.\n"
ROWS = [
    {"media": "a.mp4", "start_s": 1, "turns": [{"question": "What?", "answer": "A cat."}]},
    {"media": "b.mp4", "turns": [{"question": "Who?", "answer": "Ann", "choices": ["Ann", "Bob"]}]},
]
QUERIES = (
    "a parrot",
    "rain\x00\x1b[2J",
    "' OR 1=1 --",
    "\u202egnp",
    "采购订单",
    "x" * 5000,
    "\ud83d",
    "%s{}$()`id`",
)
READERS = (
    ("videos",),
    ("search", "parrot"),
    ("doctor",),
    ("metrics",),
    ("search-and-ask", "parrot"),
)


@dataclass
class Campaign:
    """What was tried and what fell."""

    folder: Path
    dice: random.Random
    num_tried: int = 0
    fallen: list[str] = field(default_factory=list)

    def run(
        self, what: str, *words: str, **options: object
    ) -> subprocess.CompletedProcess[str] | None:
        """One command; None where it hung."""
        self.num_tried += 1
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mgv.cli", *words], capture_output=True, text=True, errors="replace",
                timeout=LIMIT_S, env=environment, cwd=self.folder, check=False, **options,  # type: ignore[call-overload]
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.fell(what, f"longer than {LIMIT_S:.0f} s")
            return None
        if "Traceback (most recent call last)" in done.stderr:
            self.fell(what, done.stderr.strip().splitlines()[-1])
        elif done.returncode < 0:
            self.fell(what, f"ended by signal {-done.returncode}")
        return done

    def fell(self, what: str, how: str) -> None:
        """Note a fall, and say it at once."""
        self.fallen.append(f"{what}: {how}")
        print(f"  fell  {self.fallen[-1]}"[:300], flush=True)

    def copy(self, workspace: Workspace) -> Workspace:
        """A copy of a workspace to ruin."""
        place = self.folder / "copy"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(workspace.root, place, symlinks=True)
        return find_workspace(place)

    def check_whole(self, what: str, workspace: Workspace, digest: str) -> None:
        """After `doctor --fix` and `materialize` the library is what it was."""
        self.run(what, "doctor", "--fix", "-l", str(workspace.root))
        self.run(what, "materialize", "-l", str(workspace.root))
        try:
            manifest = read_manifest(workspace.manifest)
        except Exception as error:
            self.fell(what, f"not mended: {error}")
            return
        if manifest is None or manifest.digest != digest:
            self.fell(what, "the library is not what it was")


def run(quick: bool) -> Result:
    """One figure for each promise, beside how much was tried."""
    seed = int(os.environ.get("MGV_HOSTILE_SEED", "0"))
    num_inputs, num_kills, num_full, num_damaged = (60, 6, 4, 12) if quick else (500, 200, 20, 1000)
    print(f"  seed {seed}", flush=True)
    warnings.filterwarnings("ignore", message="lancedb fork")  # nothing of it is used in the child
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name), random.Random(seed))
        campaign.folder.chmod(0o755)
        made = _library(campaign.folder)
        manifest = read_manifest(made.manifest)
        assert manifest is not None
        stranger = _stranger(campaign.folder)
        _inputs(campaign, num_inputs)
        _kills(campaign, made, manifest.digest, num_kills)
        _full_disks(campaign, made, manifest.digest, num_full)
        _read_only(campaign, made)
        _damage(campaign, made, manifest.digest, num_damaged)
        if stranger.read_text() != "mine":
            campaign.fell("a stranger's file", "changed")
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Result(
        figures=[
            Figure(
                what=f"fell, of {campaign.num_tried} commands",
                value=len(campaign.fallen),
                unit="",
                goal=0,
                beside=f"seed {seed}",
            ),
            Figure(what="peak memory of a command", value=peak_mb, unit="MB", goal=MEMORY_GOAL_MB),
        ],
        sizes={"inputs": num_inputs, "kills": num_kills, "full disks": num_full, "seed": seed},
        details={"fallen": campaign.fallen},
    )


def _library(folder: Path) -> Workspace:
    init_workspace(folder / "made")
    workspace = set_params(folder / "made", materialize=RANDOM_PARTS)
    talk = make_video(folder / "talk.mp4", num_frames=50)
    talk.with_suffix(".srt").write_text(SRT)
    ingest(workspace, [talk, make_video(folder / "still.mp4", num_frames=30)])
    materialize(workspace)
    return workspace


def _stranger(folder: Path) -> Path:
    place = folder / "copy.broken" / "thesis.txt"
    place.parent.mkdir()
    place.write_text("mine")
    return place


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Content with bytes changed, cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 3, 20))):
        at = dice.randrange(len(data) + 1)
        kind = dice.randrange(5)
        if kind == 0 and data:
            data[at - 1] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[at : at + dice.choice((1, 16, 1000))]
        elif kind == 2:
            data[at:at] = data[at : at + dice.choice((1, 64, 4000))]
        elif kind == 3:
            data[at:at] = dice.choice(
                (b"\x00" * 9, b"9" * 5000, b"\xff\xfe", b"[" * 3000, b"-->", b"\x1b[2J")
            )
        else:
            data = data[at:] + data[:at]
    return bytes(data)


def _inputs(campaign: Campaign, count: int) -> None:
    """Media and subtitles by the folder; annotations, params and queries one by one."""
    folder, dice = campaign.folder, campaign.dice
    workspace = init_workspace(folder / "fed")
    set_params(folder / "fed", materialize=RANDOM_PARTS)
    films = folder / "films"
    films.mkdir()
    kinds = (
        ("mp4", "libx264"),
        ("mkv", "libx264"),
        ("ts", "libx264"),
        ("avi", "mpeg4"),
        ("webm", "libvpx"),
    )
    for suffix, codec in kinds:
        make_video(folder / f"seed.{suffix}", num_frames=25, codec=codec)
    for number in range(count // 2):
        suffix = dice.choice(kinds)[0]
        content = (folder / f"seed.{suffix}").read_bytes()
        (films / f"v{number}.{suffix}").write_bytes(mutated(content, dice))
        (films / f"v{number}.srt").write_bytes(mutated(SRT.encode(), dice))
    good = make_video(films / "zz_good.mp4", num_frames=25)
    campaign.run("ingest of mutated media", "ingest", str(films), "-l", str(workspace.root))
    campaign.run("materialising mutated media", "materialize", "-l", str(workspace.root))
    done = campaign.run("videos", "videos", "-l", str(workspace.root))
    if done is None or good.name not in done.stdout:
        campaign.fell("a good video behind bad ones", "it is not in the library")
    for number in range(count // 2):
        rows = "\n".join(map(json.dumps, ROWS)) if number % 2 else json.dumps(ROWS)
        path = folder / "rows.json"
        path.write_bytes(mutated(rows.encode(), dice))
        source = dice.choice(("samples", "llava", "video_chatgpt", "webvid"))
        if number % 8 == 0:  # each takes a process
            campaign.run(f"rows {number}", "prepare", "--check", str(path), "--source", source)
    for query in QUERIES:
        words = ("search", query.replace("\0", "").encode("utf-8", "replace").decode())
        campaign.run(f"query {query[:20]!r}", *words, "-l", str(workspace.root))


def _kills(campaign: Campaign, made: Workspace, digest: str, count: int) -> None:
    for number in range(count):
        workspace = campaign.copy(made)
        process = subprocess.Popen(
            [sys.executable, "-m", "mgv.cli", "materialize", "--rebuild", "-l", str(workspace.root)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        time.sleep(campaign.dice.uniform(0.5, 6.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        campaign.num_tried += 1
        campaign.run(f"search after kill {number}", "search", "parrot", "-l", str(workspace.root))
        campaign.check_whole(f"kill {number}", workspace, digest)


def _full_disks(campaign: Campaign, made: Workspace, digest: str, count: int) -> None:
    for _ in range(count):
        workspace = campaign.copy(made)
        num_bytes = int(
            campaign.dice.choice((0, 100, 1000, 5000, 20_000)) * campaign.dice.uniform(0.5, 2)
        )
        limit = partial(_limit_files, num_bytes)
        for words in (("ingest", str(campaign.folder / "seed.mp4")), ("materialize", "--rebuild")):
            what = f"{words[0]} with files of at most {num_bytes} bytes"
            campaign.run(what, *words, "-l", str(workspace.root), preexec_fn=limit)
        if not (workspace.videos_dir / "seed.mp4").exists():
            campaign.check_whole(f"a disk full at {num_bytes} bytes", workspace, digest)


def _limit_files(num_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def _read_only(campaign: Campaign, made: Workspace) -> None:
    workspace = campaign.copy(made)
    writers = (
        ("ingest", "seed.mp4"),
        ("materialize",),
        ("materialize", "--rebuild"),
        ("remove", "talk.mp4"),
        ("clean",),
    )
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(workspace.root)], check=True)
    options = {"preexec_fn": _drop_powers} if os.geteuid() == 0 else {}
    for words in (*READERS, *writers):
        done = campaign.run(
            f"{words[0]} on a read-only library", *words, "-l", str(workspace.root), **options
        )
        if words in READERS[:2] and done is not None and done.returncode:
            campaign.fell(f"{words[0]} on a read-only library", done.stderr.strip()[:200])
    subprocess.run(["chmod", "-R", "u+w", str(workspace.root)], check=True)


def _drop_powers() -> None:
    """Have root ask for permission as others do: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH after exec."""
    for capability in (1, 2):
        if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            raise OSError("root cannot give up its powers here; run the campaign as another user")


def _own_files(workspace: Workspace) -> Iterator[Path]:
    """The files that mgv, and DVC for it, has written."""
    for path in sorted(workspace.root.rglob("*")):
        place = path.relative_to(workspace.root).parts
        if path.is_file() and place[0] in ("data", ".dvc") and place[:2] != ("data", "videos"):
            yield path.relative_to(workspace.root)


def _spoil(kind: str, path: Path) -> None:
    ways: dict[str, Callable[[], object]] = {
        "cut": lambda: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "rubbish": lambda: path.write_bytes(b"\xff\x00{" * 50),
        "deep": lambda: path.write_text("[" * 100_000),
        "folder": lambda: (path.unlink(), path.mkdir()),
        "gone": path.unlink,
    }
    path.chmod(0o644)
    ways[kind]()


def _damage(campaign: Campaign, made: Workspace, digest: str, count: int) -> None:
    kinds = ("cut", "rubbish", "deep", "folder", "gone")
    cases = [(path, kind) for path in _own_files(made) for kind in kinds]
    for path, kind in campaign.dice.sample(cases, min(count, len(cases))):
        workspace = campaign.copy(made)
        _spoil(kind, workspace.root / path)
        what = f"{path} {kind}"
        for words in (("search", "parrot"), ("videos",), ("clean", "--dry-run")):
            campaign.run(f"{words[0]} with {what}", *words, "-l", str(workspace.root))
        campaign.check_whole(what, workspace, digest)
