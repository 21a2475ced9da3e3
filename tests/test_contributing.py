"""The examples of CONTRIBUTING.md work as they are printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from mgv.config import TranscriberParams
from mgv.data import sources
from mgv.data.rows import SampleRow
from mgv.encoders.vision import VisionSpec
from mgv.model.systems.base import Connector

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(name: str, into: dict[str, object] | None = None) -> dict[str, object]:
    """The names that the code block called `name` defines."""
    (code,) = re.findall(rf"^```python {name}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    module = ModuleType(name)
    names = module.__dict__ if into is None else into
    exec(compile(code, f"CONTRIBUTING.md: {name}", "exec"), names)
    return names


def test_the_system_averages_a_frames_patches():
    connector = example("mean_pool")["MeanPool"](VisionSpec(hidden_size=2, grid=2), 2)  # type: ignore[operator]
    assert isinstance(connector, Connector)
    connector.proj.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    class_token, patches = [9.0, 9.0], [[1.0, 0.0], [3.0, 0.0], [1.0, 4.0], [3.0, 4.0]]
    tokens = connector(torch.tensor([[[class_token, *patches]]]))
    assert tokens.tolist() == [[[[2.0, 2.0]]]]  # [B, T, M, D], M = 1


def test_the_part_hears_nothing():
    transcriber = example("silent")["load"](TranscriberParams(name="silent"))  # type: ignore[operator]
    assert transcriber.transcribe(np.ones(16_000, dtype=np.float32)) == []


def test_the_format_reads_captions(tmp_path: Path):
    (tmp_path / "cat.mp4").touch()
    rows = [{"file": "cat", "text": "A cat."}, {"file": "cat"}, {"file": "../cat", "text": "Out."}]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    names = example("read_captions", dict(vars(sources)))
    folder = sources.MediaFolder(tmp_path)
    good, *bad = names["read_captions"](tmp_path / "captions.json", folder, "captions")  # type: ignore[operator]
    assert isinstance(good, SampleRow)
    assert (good.sample.media, good.sample.turns[0].answer) == (str(tmp_path / "cat.mp4"), "A cat.")
    assert len(bad) == 2
    assert not any(isinstance(row, SampleRow) for row in bad)
