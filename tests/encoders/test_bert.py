"""BERT in numpy: the vectors of transformers' BERT, without torch."""

from __future__ import annotations

import math
import string

import numpy as np
import pytest

from mgv.config import PartParams
from mgv.encoders.bert import NumpyBert, gelu
from mgv.encoders.sentence import load

TEXTS = ["a taxi", "What licence is proposed?", "", "Ελλάδα 中文 \N{PARROT} e\u0301", "word " * 400]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random BERT as transformers saves one."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase]
    words += [f"##{letter}" for letter in string.ascii_lowercase]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                        intermediate_size=48, max_position_embeddings=64)  # fmt: skip
    BertModel(config).eval().save_pretrained(folder)
    return folder


def test_it_computes_what_transformers_computes(folder):
    encoder = load(PartParams(name="sentence", pretrained=str(folder), device="cpu"))
    bert = NumpyBert(folder, max_tokens=64)
    texts = [text[:40] for text in TEXTS]
    expected = np.concatenate([encoder.embed([text]) for text in texts])
    np.testing.assert_allclose(np.stack([bert.embed(text) for text in texts]), expected, atol=1e-6)


def test_the_starters_queries_are_embedded_as_its_sentences_are():
    starter = load(PartParams(name="sentence", device="cpu"))
    expected = np.concatenate([starter.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(starter.embed_queries(TEXTS), expected, atol=1e-6)
    assert starter.embed_queries(TEXTS).dtype == np.float32
    assert starter.dim == 384


def test_gelu_is_x_times_the_normal_distribution():
    x = np.array([-8, -3, -1, -0.5, 0, 1e-4, 0.5, 1, 3, 8], dtype=np.float32)
    expected = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x.tolist()]
    np.testing.assert_allclose(gelu(x), expected, atol=3e-7)


def test_another_kind_of_network_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mpnet", "hidden_act": "gelu"}')
    with pytest.raises(ValueError, match="expected a BERT with GELU, found mpnet"):
        NumpyBert(tmp_path, max_tokens=64)
