"""What a command may import: a budget in modules, which holds on any machine, unlike one in seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.workspace import Workspace
from tests.conftest import RANDOM_PARTS, set_params
from tests.media.make_video import make_video

HEAVY = (
    "torch",
    "transformers",
    "whisper",
    "faster_whisper",
    "peft",
    "prefect",
    "dvc",
    "lancedb",
    "pandas",
)
PARTS = RANDOM_PARTS | {
    "frame_embedder": {"name": "conse", "pretrained": "random"},
    "text_embedder": {"name": "sentence", "pretrained": "starter"},
}
COMMANDS = {
    "--help": set(),
    "models": set(),
    "videos": {"lancedb"},
    "search a white parrot": {"lancedb"},
}


@pytest.fixture(scope="module")
def library(_made_workspace, tmp_path_factory) -> Workspace:
    """One silent video, whose queries are embedded by the starter's text embedder."""
    import shutil

    root = tmp_path_factory.mktemp("imports") / "workspace"
    shutil.copytree(_made_workspace, root, symlinks=True)
    workspace = set_params(root, materialize=PARTS)
    ingest(workspace, [make_video(root.parent / "still.mp4", num_frames=26)])
    materialize(workspace)
    return workspace


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_only_what_it_needs(library: Workspace, command: str):
    words = (
        command.split()
        if command.startswith("-")
        else [*command.split(maxsplit=1), "--library", str(library.root)]
    )
    script = (
        "import sys\nfrom mgv.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\nelse:\n    code = 0\n"
        f"print('IMPORTED', *sorted(set({HEAVY}) & set(sys.modules)))\nsys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split("IMPORTED")[1].split()) == COMMANDS[command]


def test_the_rest_client_of_lance_is_imported_when_it_is_asked_for():
    script = (
        "import sys, mgv.library.store\n"
        "assert 'lance_namespace_urllib3_client.api' not in sys.modules\n"
        "from lance_namespace_urllib3_client import TableApi\n"
        "print(TableApi.__name__)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "TableApi"
