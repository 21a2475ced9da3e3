"""BERT in numpy: a query is embedded without importing torch, which takes longer than all the rest of a search.

Devlin et al. 2019 (arXiv 1810.04805), as transformers' BertModel computes it in evaluation mode. Made for one short
text at a time; batches belong on torch. L tokens, D width, H heads.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from mgv.encoders.base import Float32


class NumpyBert:
    """A BERT encoder of a folder with config.json, model.safetensors and tokenizer.json."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """max_tokens: what a longer text is cut to."""
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
            raise ValueError(f"{folder}: expected a BERT with GELU, found {config['model_type']}")
        self._num_heads, self._epsilon = config["num_attention_heads"], config["layer_norm_eps"]
        self._num_layers = config["num_hidden_layers"]
        self._weights = _mapped_weights(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def embed(self, text: str) -> Float32:
        """The mean of the last layer over the text's tokens, at unit length: [D]."""
        mean = self._hidden(self._tokenizer.encode(text).ids).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def _hidden(self, ids: list[int]) -> Float32:
        """Token ids -> the last layer [L, D]."""
        tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        words, positions, types = (self._weights[f"embeddings.{name}.weight"] for name in tables)
        x = self._norm("embeddings.LayerNorm", words[ids] + positions[: len(ids)] + types[0])
        for layer in range(self._num_layers):
            name = f"encoder.layer.{layer}"
            attended = self._linear(
                f"{name}.attention.output.dense", self._attend(f"{name}.attention.self", x)
            )
            x = self._norm(f"{name}.attention.output.LayerNorm", x + attended)
            wide = gelu(self._linear(f"{name}.intermediate.dense", x))
            x = self._norm(
                f"{name}.output.LayerNorm", x + self._linear(f"{name}.output.dense", wide)
            )
        return x

    def _attend(self, name: str, x: Float32) -> Float32:
        """Self-attention over all tokens: [L, D] -> [L, D]."""
        length, width = x.shape
        queries, keys, values = (
            self._linear(f"{name}.{part}", x)
            .reshape(length, self._num_heads, -1)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )  # [H, L, D/H]
        scores = (
            queries @ keys.transpose(0, 2, 1) / math.sqrt(width // self._num_heads)
        )  # [H, L, L]
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (powers / powers.sum(axis=-1, keepdims=True)) @ values
        return np.asarray(mixed.transpose(1, 0, 2).reshape(length, width), dtype=np.float32)

    def _linear(self, name: str, x: Float32) -> Float32:
        return np.asarray(
            x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"], np.float32
        )

    def _norm(self, name: str, x: Float32) -> Float32:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._epsilon)
        return np.asarray(
            centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"],
            np.float32,
        )


def gelu(x: Float32) -> Float32:
    """x times the normal distribution's share below x; the error function by formula 7.1.26 of Abramowitz and Stegun
    (Handbook of Mathematical Functions, 1964), which is off by at most 1.5e-7.
    """
    size = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.polynomial.polynomial.polyval(t, _SERIES)
    tail = series * np.exp(-size * size)  # erfc(size)
    return np.asarray(np.where(x > 0, x * (1 - tail / 2), x * tail / 2), dtype=np.float32)


_SERIES = np.array(
    [0, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429], dtype=np.float32
)


def _mapped_weights(path: Path) -> dict[str, Float32]:
    """The float32 tensors of a safetensors file, mapped: of the word table only the rows in use are read.

    The format: a header's length as 8 bytes, the header as JSON, then the tensors.
    """
    content = np.memmap(path, dtype=np.uint8, mode="r")
    begin = 8 + int(content[:8].view("<u8")[0])
    header = json.loads(content[8:begin].tobytes())
    return {
        name: content[begin + facts["data_offsets"][0] : begin + facts["data_offsets"][1]]
        .view("<f4")
        .reshape(facts["shape"])
        for name, facts in header.items()
        if name != "__metadata__" and facts["dtype"] == "F32"
    }
