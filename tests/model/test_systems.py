"""Connectors against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mgv.encoders.vision import VisionSpec
from mgv.errors import ConfigError
from mgv.model.systems import Question, build_connector, published
from mgv.model.systems.base import concat_neighbours
from mgv.model.systems.llama_vid import TINY_QFORMER, context_attention, pool_content

SPEC = VisionSpec(hidden_size=6, grid=4)
QFORMER = {"qformer": TINY_QFORMER, "vocab_size": 20, "num_queries": 3}


def test_neighbours_are_four_in_a_row_of_the_raster_not_a_square():
    patches = torch.arange(16.0).reshape(1, 16, 1)  # a 4 x 4 grid, numbered as it is read
    assert concat_neighbours(patches, 4).tolist() == [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    ]


@pytest.mark.parametrize("name", ["minigpt4_video", "minigpt_v2"])
def test_minigpt_drops_cls_joins_four_and_maps_them(name: str):
    connector = build_connector(name, SPEC, 5)
    features = torch.randn(2, 3, 17, 6, generator=torch.Generator().manual_seed(0))
    weight, bias = connector.proj.weight.detach(), connector.proj.bias.detach()  # type: ignore[union-attr]
    tokens = connector(features)
    assert tokens.shape == (2, 3, connector.tokens_per_frame, 5) == (2, 3, 4, 5)
    for token in range(4):
        joined = torch.cat([features[1, 2, 1 + 4 * token + i] for i in range(4)])
        assert torch.allclose(tokens[1, 2, token], weight @ joined + bias, atol=1e-5)


def test_tokens_per_frame_are_as_published():
    def count(name: str, grid: int, **options: object) -> int:
        spec = VisionSpec(hidden_size=8, grid=grid)
        small = QFORMER if name == "llama_vid" else {}
        return build_connector(name, spec, 4, **small, **options).tokens_per_frame

    assert count("minigpt4_video", 16) == 64
    assert count("minigpt_v2", 32) == 256
    assert count("video_llava", 16) == 257
    assert count("video_llava", 16, keep_prefix=False) == 256
    assert count("llama_vid", 16) == 2
    assert count("llama_vid", 16, content="grid:2") == 5
    assert count("llama_vid", 16, content="grid:4") == 17
    assert count("llama_vid", 16, content="grid:3") == 10
    assert count("llama_vid", 24, content="grid:12") == 145
    assert count("llama_vid", 16, content="all") == 257
    assert count("llama_vid", 24, content="all") == 577
    assert 64 * published("minigpt4_video").num_frames == 2880
    assert 257 * published("video_llava").num_frames == 2056


def test_video_llava_is_a_two_layer_mlp_with_exact_gelu():
    connector = build_connector("video_llava", SPEC, 5)
    features = torch.randn(1, 2, 17, 6, generator=torch.Generator().manual_seed(0))
    w = {name: tensor.double().numpy() for name, tensor in connector.state_dict().items()}
    x = features.double().numpy() @ w["mlp.0.weight"].T + w["mlp.0.bias"]
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    expected = x @ w["mlp.2.weight"].T + w["mlp.2.bias"]
    np.testing.assert_allclose(connector(features).detach().numpy(), expected, atol=1e-5)
    dropped = build_connector("video_llava", SPEC, 5, keep_prefix=False)
    dropped.load_state_dict(connector.state_dict())
    np.testing.assert_allclose(dropped(features).detach().numpy(), expected[:, :, 1:], atol=1e-5)


def test_context_attention_is_the_mean_over_queries_of_what_each_attends_to():
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(1, n, 4, generator=generator) for n in (3, 5, 5))
    q, k, v = (x[0].double().numpy() for x in (queries, keys, values))
    attended = []
    for query in q:
        weights = np.array([math.exp(float(query @ key) / math.sqrt(4)) for key in k])
        attended.append((weights / weights.sum()) @ v)
    expected = sum(attended) / 3
    np.testing.assert_allclose(
        context_attention(queries, keys, values)[0, 0].numpy(), expected, atol=1e-6
    )


def test_content_is_pooled_by_mean_or_by_the_cells_of_a_grid():
    patches = torch.arange(16.0).reshape(1, 16, 1)
    assert pool_content(patches, "mean").flatten().tolist() == [7.5]
    # the top left cell holds 0, 1, 4, 5
    assert pool_content(patches, "grid:2").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_content(patches, "grid:4").flatten().tolist() == list(map(float, range(16)))
    five = torch.arange(25.0).reshape(
        1, 25, 1
    )  # two cells of 2 x 2 a row; the last row and column are left out
    assert pool_content(five, "grid:2").flatten().tolist() == [3.0, 5.0, 13.0, 15.0]
    assert pool_content(patches, "all").flatten().tolist() == list(map(float, range(16)))


def test_llama_vid_reads_the_question_keeps_cls_for_the_queries_and_puts_context_first():
    connector = build_connector("llama_vid", SPEC, 5, **QFORMER).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in connector.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    features = torch.randn(1, 2, 17, 6, generator=generator)

    def ask(ids: list[int], mask: list[int], seen: torch.Tensor = features) -> torch.Tensor:
        question = Question(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask]))
        return connector(seen, question).detach()  # type: ignore[no-any-return]

    tokens = ask([2, 7, 3], [1, 1, 1])
    other = ask([2, 9, 3], [1, 1, 1])
    padded = ask([2, 7, 3, 0, 0], [1, 1, 1, 0, 0])
    assert not torch.allclose(tokens[:, :, 0], other[:, :, 0], atol=1e-4)  # context
    assert torch.allclose(tokens[:, :, 1], other[:, :, 1])  # content
    assert torch.allclose(tokens, padded, atol=1e-5)
    changed = features.clone()
    changed[:, :, 0] += 5 * torch.randn(6, generator=generator)
    again = ask([2, 7, 3], [1, 1, 1], changed)
    assert not torch.allclose(tokens[:, :, 0], again[:, :, 0], atol=1e-4)
    assert torch.allclose(tokens[:, :, 1], again[:, :, 1])


def test_a_grid_that_does_not_divide_the_side_and_other_misfits_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"does not divide the side of 16 patches; choose a grid of 2, 3, 4, 5, 8, 16$",
    ):
        build_connector("llama_vid", VisionSpec(hidden_size=8, grid=16), 4, content="grid:6")
    with pytest.raises(ConfigError, match="content is"):
        build_connector("llama_vid", SPEC, 4, content="max")
    with pytest.raises(ConfigError, match="169 patches"):
        build_connector("minigpt4_video", VisionSpec(hidden_size=8, grid=13), 4)
    with pytest.raises(ConfigError, match="none of minigpt4_video"):
        build_connector("qformer", SPEC, 4)
    with pytest.raises(ConfigError, match="does not take these options"):
        build_connector("video_llava", SPEC, 4, grid=2)
