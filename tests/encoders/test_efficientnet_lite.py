"""The image network: the arithmetic of its shapes, and the same numbers as the weights' own package."""

import pytest
import torch
from safetensors.torch import load_file

from mgv.encoders.efficientnet_lite import (
    EfficientNetLite,
    same_padding,
    scaled_width,
    to_pixel_values,
)
from mgv.starter.weights import vision_weights


def test_same_padding_gives_a_cell_for_every_started_stride():
    assert same_padding(260, kernel=3, stride=2) == (0, 1)  # 130 cells: 129 * 2 + 3 - 260 = 1
    assert same_padding(65, kernel=5, stride=2) == (2, 2)  # 33 cells: 32 * 2 + 5 - 65 = 4
    assert same_padding(9, kernel=1, stride=1) == (0, 0)


def test_widths_are_multiples_of_eight_that_lose_at_most_a_tenth():
    assert [scaled_width(c, 1.1) for c in (16, 24, 40, 80, 112, 192, 320)] == [
        16, 24, 48, 88, 120, 208, 352,
    ]  # fmt: skip


def test_pixels_are_scaled_as_the_weights_were_trained():
    frames = torch.full((2, 30, 40, 3), 255, dtype=torch.uint8)
    frames[1] = 127
    pixels = to_pixel_values(frames, 16)
    assert pixels.shape == (2, 3, 16, 16)
    assert pixels[0].eq(1.0).all()
    assert pixels[1].eq(0.0).all()


def test_a_tiny_network_gives_a_grid_and_logits_and_folding_changes_neither():
    torch.manual_seed(0)
    network = EfficientNetLite(width=0.25, depth=0.3, num_classes=5, num_features=16).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    pixels = torch.randn(2, 3, 70, 50)
    with torch.inference_mode():
        grid, logits = network.features(pixels), network(pixels)
        assert grid.shape == (2, 16, 3, 2)
        assert logits.shape == (2, 5)
        network.fold_batch_norms()
        torch.testing.assert_close(network(pixels), logits, rtol=1e-4, atol=1e-5)


def test_the_starter_weights_fill_the_network_and_agree_with_their_own_package():
    reference_module = pytest.importorskip("efficientnet_lite_pytorch")
    state = load_file(vision_weights())
    network = EfficientNetLite()
    network.load_state_dict(state, strict=True)
    reference = reference_module.EfficientNet.from_name("efficientnet-lite2")
    reference.load_state_dict(state)
    pixels = torch.randn(1, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(pixels), reference.eval()(pixels))
        torch.testing.assert_close(network.features(pixels), reference.extract_features(pixels))
        assert network.features(pixels).shape == (1, 1280, 9, 9)
