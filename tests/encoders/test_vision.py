"""Vision encoders against arithmetic written out here."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mgv.encoders.vision import build_vision_encoder, to_pixel_values
from mgv.encoders.vision.languagebind import TemporalLayer
from mgv.errors import ConfigError, WeightsError
from mgv.model.importing import eva_state

Array = NDArray[np.float64]
erf = np.vectorize(math.erf)


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps) * weight + bias


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, num_heads: int) -> Array:
    """[L, V] each -> [L, V], head by head."""
    size = q.shape[1] // num_heads
    heads = []
    for head in range(num_heads):
        cut = slice(head * size, (head + 1) * size)
        heads.append(softmax(q[:, cut] * size**-0.5 @ k[:, cut].T) @ v[:, cut])
    return np.concatenate(heads, 1)


def lavis_state(
    width: int, hidden: int, depth: int, grid: int, patch: int
) -> dict[str, torch.Tensor]:
    """Random tensors by the names of eva_vit_g.pth."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    state = {
        "cls_token": random(1, 1, width),
        "pos_embed": random(1, grid**2 + 1, width),
        "patch_embed.proj.weight": random(width, 3, patch, patch),
        "patch_embed.proj.bias": random(width),
    }
    for i in range(depth):
        for name, shape in {
            "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
            "attn.qkv.weight": (3 * width, width), "attn.q_bias": (width,), "attn.v_bias": (width,),
            "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
            "mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,),
        }.items():  # fmt: skip
            state[f"blocks.{i}.{name}"] = random(*shape)
    return state


def eva_by_hand(
    state: dict[str, torch.Tensor], image: Array, num_heads: int, patch: int, positions: Array
) -> Array:
    """[3, S, S] -> [N, V]: the raw stream after the last block."""
    w = {name: tensor.double().numpy() for name, tensor in state.items()}
    grid = image.shape[1] // patch
    tokens = [w["cls_token"][0, 0]]
    for row in range(grid):
        for column in range(grid):
            tile = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            kernel = w["patch_embed.proj.weight"]
            tokens.append((kernel * tile).sum((1, 2, 3)) + w["patch_embed.proj.bias"])
    x = np.stack(tokens) + positions
    depth = len({name.split(".")[1] for name in w if name.startswith("blocks.")})
    for i in range(depth):
        b = {
            name.removeprefix(f"blocks.{i}."): value
            for name, value in w.items()
            if name.startswith(f"blocks.{i}.")
        }
        qkv = layer_norm(x, b["norm1.weight"], b["norm1.bias"], 1e-6) @ b["attn.qkv.weight"].T
        q, k, v = np.split(qkv, 3, axis=1)
        mixed = attention(q + b["attn.q_bias"], k, v + b["attn.v_bias"], num_heads)
        x = x + mixed @ b["attn.proj.weight"].T + b["attn.proj.bias"]
        h = (
            layer_norm(x, b["norm2.weight"], b["norm2.bias"], 1e-6) @ b["mlp.fc1.weight"].T
            + b["mlp.fc1.bias"]
        )
        h = h * 0.5 * (1 + erf(h / math.sqrt(2)))
        x = x + h @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
    return x


def bicubic(grid: Array, size: int) -> Array:
    """[g, g, V] -> [size, size, V]: cubic convolution, a = -0.75, cell centres aligned, edges repeated."""

    def weight(distance: float) -> float:
        d, a = abs(distance), -0.75
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    def along(rows: Array) -> Array:
        num = len(rows)
        out = []
        for i in range(size):
            place = (i + 0.5) * num / size - 0.5
            first = math.floor(place) - 1
            out.append(
                sum(
                    weight(place - j) * rows[min(max(j, 0), num - 1)]
                    for j in range(first, first + 4)
                )  # type: ignore[arg-type]
            )
        return np.stack(out)

    return along(along(grid).transpose(1, 0, 2)).transpose(1, 0, 2)


def eva_from(state: dict[str, torch.Tensor], image_size_px: int, **options: Any) -> Any:
    encoder = build_vision_encoder("eva_clip_g", "random", image_size_px=image_size_px, **options)
    encoder.tower.load_state_dict(eva_state(state))
    return encoder


@pytest.mark.parametrize("image_size_px", [56, 84])
def test_eva_equals_its_arithmetic_and_interpolates_its_positions(image_size_px: int):
    state = lavis_state(width=32, hidden=64, depth=2, grid=4, patch=14)
    image = torch.randn(3, image_size_px, image_size_px, generator=torch.Generator().manual_seed(0))
    learned = state["pos_embed"][0].double().numpy()
    patches = learned[1:].reshape(4, 4, 32)
    grid = image_size_px // 14
    resized = patches if grid == 4 else bicubic(patches, grid)
    positions = np.concatenate([learned[:1], resized.reshape(-1, 32)])
    expected = eva_by_hand(state, image.double().numpy(), 2, 14, positions)
    with torch.no_grad():
        raw = eva_from(state, image_size_px, norm="none")(image[None, None])[0, 0]
        normed = eva_from(state, image_size_px)(image[None, None])[0, 0]
    np.testing.assert_allclose(raw.numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(
        normed.numpy(), layer_norm(expected, np.array(1), np.array(0), 1e-5), atol=2e-5
    )


def test_a_trained_final_norm_does_not_leak_into_eva():
    from transformers import Blip2VisionConfig, Blip2VisionModel

    from mgv.encoders.vision.eva_clip_g import EvaClipG

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = Blip2VisionConfig(**sizes, image_size=28, patch_size=14, initializer_range=0.5)
    tower = Blip2VisionModel(config).eval()
    torch.nn.init.constant_(tower.post_layernorm.weight, 7.0)
    torch.nn.init.constant_(tower.post_layernorm.bias, 5.0)
    with torch.no_grad():
        features = EvaClipG(tower, 28, "identity", "imagenet_squash")(torch.randn(1, 1, 3, 28, 28))
    assert features.mean(-1).abs().max() < 1e-5
    assert torch.allclose(features.std(-1, unbiased=False), torch.ones(1), atol=1e-3)


@pytest.mark.parametrize(("size_px", "num_tokens"), [(224, 257), (336, 577), (448, 1025)])
def test_eva_has_the_published_number_of_tokens(size_px: int, num_tokens: int):
    encoder = build_vision_encoder("eva_clip_g", "random", image_size_px=size_px)
    assert encoder.spec.num_tokens == num_tokens
    with torch.no_grad():
        assert encoder(torch.zeros(1, 1, 3, size_px, size_px)).shape == (1, 1, num_tokens, 32)


@pytest.mark.parametrize("num_windows", [1, 3])
def test_temporal_attention_equals_its_arithmetic(num_windows: int):
    """Of thrice as many frames as there are positions for, each run is by itself, as rearrange's (b t) makes it."""
    encoder = build_vision_encoder("languagebind", "random", num_frames=4)
    layer = encoder.tower.encoder.layers[0]
    assert isinstance(layer, TemporalLayer)
    hidden = torch.randn(1, 4 * num_windows, 3, 32, generator=torch.Generator().manual_seed(1))
    w = {name: tensor.double().numpy() for name, tensor in layer.state_dict().items()}
    expected = np.zeros((4 * num_windows, 3, 32))
    for first, place in product(
        range(0, 4 * num_windows, 4), range(3)
    ):  # each position over its four frames
        x = hidden[0, first : first + 4, place].double().numpy() + w["temporal_embedding"][0]
        n = layer_norm(x, w["temporal_layer_norm1.weight"], w["temporal_layer_norm1.bias"], 1e-5)
        q, k, v = (
            n @ w[f"temporal_attn.{p}_proj.weight"].T + w[f"temporal_attn.{p}_proj.bias"]
            for p in "qkv"
        )
        mixed = attention(q, k, v, 2)
        expected[first : first + 4, place] = (
            x + mixed @ w["temporal_attn.out_proj.weight"].T + w["temporal_attn.out_proj.bias"]
        )
    with torch.no_grad():
        np.testing.assert_allclose(layer.across_time(hidden)[0].numpy(), expected, atol=1e-5)


def test_languagebind_sees_the_order_of_frames_and_clip_does_not():
    pixels = torch.randn(1, 4, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    turned = pixels.flip(1)
    with torch.no_grad():
        for name, differs in (("languagebind", True), ("clip", False)):
            encoder = build_vision_encoder(name, "random")
            same = torch.allclose(encoder(pixels).flip(1), encoder(turned), atol=1e-4)
            assert same is not differs


@pytest.mark.parametrize(
    "name", ["eva_clip_g", "clip", "siglip", "languagebind", "efficientnet_lite"]
)
def test_padding_frames_change_nothing_and_have_zero_features(name: str):
    encoder = build_vision_encoder(name, "random")
    size = encoder.image_size_px
    pixels = torch.randn(2, 3, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        padded = encoder(pixels, torch.tensor([3, 1]))
        alone = encoder(pixels[1:, :1])
    assert padded.shape == (2, 3, encoder.spec.num_tokens, encoder.spec.hidden_size)
    assert torch.allclose(padded[1, :1], alone[0], atol=1e-5)
    assert padded[1, 1:].abs().max() == 0


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_clip_and_siglip_give_the_layer_before_the_last(name: str):
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModel,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    from mgv.encoders.vision.clip import TINY, ClipTower

    models = {
        "clip": (CLIPVisionModel, CLIPVisionConfig),
        "siglip": (SiglipVisionModel, SiglipVisionConfig),
    }
    network, config = models[name]
    tower = network(config(**TINY)).eval()
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = tower(pixels, output_hidden_states=True).hidden_states[-2]
        assert torch.allclose(
            ClipTower(tower, 56, -2, "clip_crop").encode(pixels), expected, atol=1e-5
        )


def test_minigpt_pixels_are_squashed_and_take_imagenet_figures():
    frame = np.random.default_rng(0).integers(0, 255, (1, 30, 50, 3), dtype=np.uint8)
    squashed = (
        np.asarray(Image.fromarray(frame[0]).resize((14, 14), Image.Resampling.BICUBIC)) / 255.0
    )
    expected = (squashed - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    pixels = to_pixel_values(frame, "imagenet_squash", 14)
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(60, 97, 3), (97, 60, 3), (64, 64, 3)])
def test_clip_pixels_equal_the_image_processor_of_transformers(shape: tuple[int, int, int]):
    from transformers import CLIPImageProcessor

    frame = np.random.default_rng(0).integers(0, 255, (1, *shape), dtype=np.uint8)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    expected = processor(Image.fromarray(frame[0]), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(
        to_pixel_values(frame, "clip_crop", 28)[0].numpy(), expected, atol=1e-5
    )


def test_video_llava_pixels_keep_the_centre():
    frame = np.zeros((1, 20, 40, 3), dtype=np.uint8)
    frame[0, :, 10:30] = 255
    pixels = to_pixel_values(frame, "video_crop", 10)
    white = (1 - 0.48145466) / 0.26862954
    assert pixels.shape == (1, 3, 10, 10)
    assert torch.allclose(pixels[0, 0], torch.tensor(white), atol=1e-5)


def test_unknown_names_options_and_missing_weights_are_told():
    with pytest.raises(ConfigError, match="none of eva_clip_g"):
        build_vision_encoder("resnet", "random")
    with pytest.raises(ConfigError, match="does not take these options"):
        build_vision_encoder("clip", "random", norm="none")
    with pytest.raises(ConfigError, match="no starter weights"):
        build_vision_encoder("clip", "starter")
    with pytest.raises(ConfigError, match="multiple of the patch"):
        build_vision_encoder("eva_clip_g", "random", image_size_px=100)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        build_vision_encoder("siglip", "/no/such/folder")


@pytest.mark.parametrize("name", ["eva_clip_g", "clip", "siglip"])
def test_a_tower_is_read_out_of_the_whole_model_or_refused_when_weights_are_missing(
    name: str, tmp_path: Any
):
    from safetensors.torch import load_file, save_file
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        CLIPConfig,
        CLIPModel,
        SiglipConfig,
        SiglipModel,
    )

    from mgv.encoders.vision.clip import TINY

    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 50,
    }
    if name == "eva_clip_g":
        qformer = text | {"encoder_hidden_size": 32}
        opt = {"model_type": "opt", "ffn_dim": 16, "word_embed_proj_dim": 16} | text
        vision = TINY | {"initializer_range": 0.1}
        model = Blip2ForConditionalGeneration(
            Blip2Config(vision_config=vision, qformer_config=qformer, text_config=opt)
        )
    elif name == "clip":
        model = CLIPModel(CLIPConfig(vision_config=TINY, text_config=text))
    else:
        model = SiglipModel(SiglipConfig(vision_config=TINY, text_config=text))
    model.eval().save_pretrained(tmp_path)
    pixels = torch.randn(1, 1, 3, 56, 56)
    encoder = build_vision_encoder(
        name, str(tmp_path), **({"norm": "none"} if name == "eva_clip_g" else {})
    )
    with torch.no_grad():
        embedded = model.vision_model.embeddings(pixels[0])
        if name == "clip":
            embedded = model.vision_model.pre_layrnorm(embedded)
        layers = model.vision_model.encoder.layers
        for layer in layers if name == "eva_clip_g" else layers[:-1]:
            embedded = layer(embedded) if name == "eva_clip_g" else layer(embedded, None)
        assert (encoder(pixels)[0] - embedded).abs().max() < 1e-5
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {key: tensor for key, tensor in state.items() if "layers.1.mlp" not in key},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(WeightsError, match="weights are missing, among them"):
        build_vision_encoder(name, str(tmp_path))
