"""CTranslate2: a Whisper model folder of that format, rebuilt as an openai-whisper checkpoint.

`model.bin`, little endian: u32 version, text spec, u32 revision, u32 number of variables, then per variable text name,
u8 rank, u32 per dimension, u8 type, u32 number of bytes, data (before version 4: u8 item size, u32 number of items);
from version 3 on u32 number of aliases, then per alias text alias, text name. A text is u16 length, bytes, a NUL that
counts. As written by `ModelSpec._serialize` in OpenNMT/CTranslate2 python/ctranslate2/specs/model_spec.py; the layers'
names are those of `WhisperSpec` in whisper_spec.py there, and of whisper/model.py here.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgv.errors import WeightsError

BFLOAT16 = 5
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2", BFLOAT16: "<u2"}
TYPES_BY_SIZE = {4: "<f4", 2: "<i2", 1: "<i1"}
HEAD_WIDTH = 64
"""Of every Whisper size."""

Variables = dict[str, NDArray[Any]]


class _Reader:
    """Takes values off the front of a file's bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.position = path, memoryview(path.read_bytes()), 0

    def take(self, num_bytes: int) -> memoryview:
        taken = self.data[self.position : self.position + num_bytes]
        if len(taken) < num_bytes:
            raise WeightsError(
                f"{self.path}: ends at byte {len(self.data)}, in the middle of a value"
            )
        self.position += num_bytes
        return taken

    def number(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]
        return value

    def text(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode("utf-8")


def read_variables(path: Path) -> Variables:
    """The variables of a CTranslate2 Whisper `model.bin` by name, aliases included."""
    reader = _Reader(path)
    version = reader.number("I")
    if not 2 <= version <= 6:
        raise WeightsError(
            f"{path}: CTranslate2 binary version {version}; versions 2 to 6 are known"
        )
    spec, _revision = reader.text(), reader.number("I")
    if spec != "WhisperSpec":
        raise WeightsError(f"{path}: holds a {spec!r}; expected 'WhisperSpec'")
    variables: Variables = {}
    for _ in range(reader.number("I")):
        name, rank = reader.text(), reader.number("B")
        shape = tuple(reader.number("I") for _ in range(rank))
        kind, length = reader.number("B"), reader.number("I")
        dtype = TYPES[kind] if version >= 4 else TYPES_BY_SIZE[kind]
        num_bytes = length if version >= 4 else length * kind
        values: NDArray[Any] = np.frombuffer(reader.take(num_bytes), dtype)
        if version >= 4 and kind == BFLOAT16:  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        variables[name] = values.reshape(shape)
    for _ in range(reader.number("I") if version >= 3 else 0):
        alias, name = reader.text(), reader.text()
        variables[alias] = variables[name]
    if reader.position != len(reader.data):
        raise WeightsError(
            f"{path}: {len(reader.data) - reader.position} bytes after the last value"
        )
    return variables


class _Mapping:
    """Builds the state dict of openai-whisper, name by name."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.state: dict[str, Tensor] = {}

    def get(self, name: str) -> Tensor:
        values = self.variables[name]
        if values.dtype in (np.int8, np.int16):  # quantised: a scale per row, or one for all
            scale = self.variables[f"{name}_scale"].astype(np.float32)
            values = values.astype(np.float32) / (scale[:, None] if scale.ndim == 1 else scale)
        return torch.from_numpy(values.astype(np.float32))

    def linear(self, name: str, source: str) -> None:
        self.state[f"{name}.weight"] = self.get(f"{source}/weight")
        self.state[f"{name}.bias"] = self.get(f"{source}/bias")

    def norm(self, name: str, source: str) -> None:
        self.state[f"{name}.weight"] = self.get(f"{source}/gamma")
        self.state[f"{name}.bias"] = self.get(f"{source}/beta")

    def fused(self, name: str, source: str, parts: tuple[str, ...]) -> None:
        """One matrix that stacks several: CTranslate2 gives the key a bias of zeros, Whisper gives it none."""
        weights = self.get(f"{source}/weight").chunk(len(parts))
        biases = self.get(f"{source}/bias").chunk(len(parts))
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            self.state[f"{name}.{part}.weight"] = weight.clone()
            if part != "key":
                self.state[f"{name}.{part}.bias"] = bias.clone()
            elif bias.abs().max() > 1e-6:
                raise WeightsError(f"{source}: its key has a bias; Whisper's has none")

    def layer(self, side: str, index: int) -> None:
        name, source = f"{side}.blocks.{index}", f"{side}/layer_{index}"
        self.norm(f"{name}.attn_ln", f"{source}/self_attention/layer_norm")
        self.fused(f"{name}.attn", f"{source}/self_attention/linear_0", ("query", "key", "value"))
        self.linear(f"{name}.attn.out", f"{source}/self_attention/linear_1")
        if side == "decoder":
            self.norm(f"{name}.cross_attn_ln", f"{source}/attention/layer_norm")
            self.linear(f"{name}.cross_attn.query", f"{source}/attention/linear_0")
            self.fused(f"{name}.cross_attn", f"{source}/attention/linear_1", ("key", "value"))
            self.linear(f"{name}.cross_attn.out", f"{source}/attention/linear_2")
        self.norm(f"{name}.mlp_ln", f"{source}/ffn/layer_norm")
        self.linear(f"{name}.mlp.0", f"{source}/ffn/linear_0")
        self.linear(f"{name}.mlp.2", f"{source}/ffn/linear_1")


def whisper_checkpoint_from(folder: Path) -> dict[str, Any]:
    """A CTranslate2 folder as an openai-whisper checkpoint: `dims`, `model_state_dict` (float16), `alignment_heads`."""
    variables = read_variables(folder / "model.bin")
    mapping = _Mapping(variables)
    dims: dict[str, int] = {}
    try:
        mapping.linear("encoder.conv1", "encoder/conv1")
        mapping.linear("encoder.conv2", "encoder/conv2")
        for side, kind in (("encoder", "audio"), ("decoder", "text")):
            positions = mapping.get(f"{side}/position_encodings/encodings")
            mapping.state[f"{side}.positional_embedding"] = positions
            num_layers = 0
            while f"{side}/layer_{num_layers}/ffn/linear_0/weight" in variables:
                mapping.layer(side, num_layers)
                num_layers += 1
            num_heads = variables.get(f"{side}/num_heads")
            dims[f"n_{kind}_ctx"], dims[f"n_{kind}_state"] = positions.shape
            dims[f"n_{kind}_head"] = (
                positions.shape[1] // HEAD_WIDTH if num_heads is None else int(num_heads)
            )
            dims[f"n_{kind}_layer"] = num_layers
        mapping.norm("encoder.ln_post", "encoder/layer_norm")
        mapping.norm("decoder.ln", "decoder/layer_norm")
        mapping.state["decoder.token_embedding.weight"] = mapping.get("decoder/embeddings/weight")
    except KeyError as error:
        raise WeightsError(f"{folder / 'model.bin'}: has no variable {error}") from error
    dims["n_mels"] = mapping.state["encoder.conv1.weight"].shape[1]
    dims["n_vocab"] = mapping.state["decoder.token_embedding.weight"].shape[0]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {
        "dims": dims,
        "model_state_dict": {name: value.half() for name, value in mapping.state.items()},
        "alignment_heads": config.get("alignment_heads", []),
    }
