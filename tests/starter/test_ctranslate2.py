"""A Whisper model in CTranslate2's format becomes an openai-whisper checkpoint, value by value."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mgv.errors import WeightsError
from mgv.starter.ctranslate2 import read_variables, whisper_checkpoint_from

WIDTH, MELS, CONTEXT, VOCABULARY = 64, 4, 6, 10
TYPE_IDS = {"float32": 0, "int8": 1, "float16": 4}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def write_model(path: Path, variables: dict[str, np.ndarray], spec: str = "WhisperSpec") -> None:
    """CTranslate2's binary version 6."""
    parts = [
        struct.pack("<I", 6),
        text(spec),
        struct.pack("<I", 3),
        struct.pack("<I", len(variables)),
    ]
    for name, values in variables.items():
        shape = struct.pack(f"<{values.ndim}I", *values.shape)
        head = (
            struct.pack("<B", values.ndim) + shape + struct.pack("<B", TYPE_IDS[values.dtype.name])
        )
        parts += [text(name), head, struct.pack("<I", values.nbytes), values.tobytes()]
    parts += [
        struct.pack("<I", 1),
        text("decoder/projection/weight"),
        text("decoder/embeddings/weight"),
    ]
    path.write_bytes(b"".join(parts))


def tiny_variables() -> dict[str, np.ndarray]:
    """One layer a side; every matrix holds other numbers."""
    random = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float16).astype(np.float32)

    variables = {
        "encoder/conv1/weight": values(WIDTH, MELS, 3),
        "encoder/conv1/bias": values(WIDTH),
        "encoder/conv2/weight": values(WIDTH, WIDTH, 3),
        "encoder/conv2/bias": values(WIDTH),
        "decoder/embeddings/weight": values(VOCABULARY, WIDTH),
    }
    linears = {
        "self_attention/linear_0": 3 * WIDTH, "self_attention/linear_1": WIDTH, "ffn/linear_0": 4 * WIDTH,
    }  # fmt: skip
    cross = {
        "attention/linear_0": WIDTH,
        "attention/linear_1": 2 * WIDTH,
        "attention/linear_2": WIDTH,
    }
    for side in ("encoder", "decoder"):
        variables[f"{side}/position_encodings/encodings"] = values(CONTEXT, WIDTH)
        norms = [f"{side}/layer_norm"]
        norms += [f"{side}/layer_0/{part}/layer_norm" for part in ("self_attention", "ffn")]
        if side == "decoder":
            norms.append("decoder/layer_0/attention/layer_norm")
        for norm in norms:
            variables[f"{norm}/gamma"], variables[f"{norm}/beta"] = values(WIDTH), values(WIDTH)
        for name, outputs in (linears | (cross if side == "decoder" else {})).items():
            variables[f"{side}/layer_0/{name}/weight"] = values(outputs, WIDTH)
            variables[f"{side}/layer_0/{name}/bias"] = values(outputs)
        variables[f"{side}/layer_0/ffn/linear_1/weight"] = values(WIDTH, 4 * WIDTH)
        variables[f"{side}/layer_0/ffn/linear_1/bias"] = values(WIDTH)
        variables[f"{side}/layer_0/self_attention/linear_0/bias"][WIDTH : 2 * WIDTH] = (
            0  # the key's
        )
    variables["decoder/layer_0/attention/linear_1/bias"][:WIDTH] = 0
    return variables


def write_folder(folder: Path, variables: dict[str, np.ndarray]) -> Path:
    write_model(folder / "model.bin", variables)
    (folder / "config.json").write_text(json.dumps({"alignment_heads": [[0, 0]]}))
    return folder


def test_the_checkpoint_loads_into_whisper_with_no_key_left_over(tmp_path):
    from whisper.model import ModelDimensions, Whisper

    checkpoint = whisper_checkpoint_from(write_folder(tmp_path, tiny_variables()))
    assert checkpoint["dims"] == {
        "n_mels": MELS, "n_vocab": VOCABULARY,
        "n_audio_ctx": CONTEXT, "n_audio_state": WIDTH, "n_audio_head": 1, "n_audio_layer": 1,
        "n_text_ctx": CONTEXT, "n_text_state": WIDTH, "n_text_head": 1, "n_text_layer": 1,
    }  # fmt: skip
    model = Whisper(ModelDimensions(**checkpoint["dims"]))
    model.load_state_dict(checkpoint["model_state_dict"], strict=True)
    assert checkpoint["alignment_heads"] == [[0, 0]]


def test_fused_matrices_are_cut_into_query_key_and_value(tmp_path):
    variables = tiny_variables()
    state = whisper_checkpoint_from(write_folder(tmp_path, variables))["model_state_dict"]

    def same(key: str, expected: np.ndarray) -> bool:
        return torch.equal(state[key], torch.from_numpy(expected).half())

    fused = variables["decoder/layer_0/self_attention/linear_0/weight"]
    assert same("decoder.blocks.0.attn.query.weight", fused[:64])
    assert same("decoder.blocks.0.attn.key.weight", fused[64:128])
    assert same("decoder.blocks.0.attn.value.weight", fused[128:])
    crossed = variables["decoder/layer_0/attention/linear_1/bias"]
    assert same("decoder.blocks.0.cross_attn.value.bias", crossed[64:])
    assert "decoder.blocks.0.cross_attn.key.bias" not in state
    assert same("encoder.blocks.0.mlp.2.weight", variables["encoder/layer_0/ffn/linear_1/weight"])
    assert same("encoder.ln_post.weight", variables["encoder/layer_norm/gamma"])
    assert same(
        "decoder.blocks.0.cross_attn_ln.bias",
        variables["decoder/layer_0/attention/layer_norm/beta"],
    )


def test_eight_bit_weights_are_divided_by_the_scale_of_their_row(tmp_path):
    variables = tiny_variables()
    quantised = np.arange(-320, 320).clip(-127, 127).astype(np.int8).reshape(VOCABULARY, WIDTH)
    variables["decoder/embeddings/weight"] = quantised
    variables["decoder/embeddings/weight_scale"] = np.full(VOCABULARY, 64, dtype=np.float32)
    state = whisper_checkpoint_from(write_folder(tmp_path, variables))["model_state_dict"]
    assert state["decoder.token_embedding.weight"][0, 0] == -127 / 64
    assert state["decoder.token_embedding.weight"][5, 1] == 1 / 64


def test_an_alias_names_the_same_values(tmp_path):
    write_model(tmp_path / "model.bin", tiny_variables())
    variables = read_variables(tmp_path / "model.bin")
    assert variables["decoder/projection/weight"] is variables["decoder/embeddings/weight"]


def test_a_key_with_a_bias_is_refused(tmp_path):
    variables = tiny_variables()
    variables["encoder/layer_0/self_attention/linear_0/bias"][WIDTH] = 1.0
    with pytest.raises(WeightsError, match="its key has a bias"):
        whisper_checkpoint_from(write_folder(tmp_path, variables))


def test_a_cut_file_another_model_and_a_missing_variable_are_named(tmp_path):
    path = tmp_path / "model.bin"
    write_model(path, tiny_variables())
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(WeightsError, match="in the middle of a value"):
        read_variables(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(WeightsError, match="4 bytes after the last value"):
        read_variables(path)
    write_model(path, tiny_variables(), spec="TransformerSpec")
    with pytest.raises(WeightsError, match="holds a 'TransformerSpec'"):
        read_variables(path)
    variables = tiny_variables()
    del variables["decoder/layer_norm/gamma"]
    with pytest.raises(WeightsError, match="no variable 'decoder/layer_norm/gamma'"):
        whisper_checkpoint_from(write_folder(tmp_path, variables))
