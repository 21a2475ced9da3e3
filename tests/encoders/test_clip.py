"""CLIP: pixels as the model wants them, unit vectors, and models from a folder."""

import json

import numpy as np
import pytest
import torch

from mgv.config import PartParams
from mgv.encoders.clip import CLIP_MEAN, PixelSpec, load, read_pixel_spec, to_pixel_values
from mgv.encoders.sentence import HashedWords
from mgv.errors import WeightsError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def load_clip(pretrained: str):
    return load(PartParams(name="clip", pretrained=pretrained, device="cpu"), HashedWords, "")


def test_a_center_crop_keeps_the_square_in_the_middle_and_squashing_keeps_all():
    frames = torch.zeros(1, 4, 8, 3, dtype=torch.uint8)
    frames[:, :, 2:6] = 255  # the middle half is white
    cropped = to_pixel_values(frames, PixelSpec(size_px=4, **PLAIN))
    assert cropped.eq(1).all()
    squashed = to_pixel_values(frames, PixelSpec(size_px=4, center_crop=False, **PLAIN))
    assert squashed.shape == (1, 3, 4, 4)
    assert squashed.mean() == pytest.approx(0.5, abs=0.02)


def test_mean_and_std_are_per_channel():
    frames = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    spec = PixelSpec(size_px=2, mean=(1.0, 0.5, 0.0), std=(1.0, 0.5, 0.25))
    assert to_pixel_values(frames, spec)[0, :, 0, 0].tolist() == [0, 1, 4]


def test_the_models_own_preprocessing_is_read_from_its_folder(tmp_path):
    assert read_pixel_spec(tmp_path, 224) == PixelSpec(size_px=224, mean=CLIP_MEAN)
    raw = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(raw))
    spec = read_pixel_spec(tmp_path, 384)
    assert spec == PixelSpec(size_px=384, mean=(0.5,) * 3, std=(0.5,) * 3, center_crop=False)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_pixel_spec(tmp_path, 384)


def test_the_random_model_gives_the_same_unit_vectors_each_time():
    first, second = load_clip("random"), load_clip("random")
    frames = np.random.default_rng(0).integers(0, 256, (20, 30, 40, 3), dtype=np.uint8)
    vectors = first.embed_frames(frames).vectors
    assert vectors.shape == (20, first.dim)
    np.testing.assert_array_equal(vectors, second.embed_frames(frames).vectors)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert first.embed_frames(frames).labels == ((),) * 20
    queries = first.embed_queries(["a dog", "", "long " * 100])
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(first.embed_queries(["a dog"])[0], queries[0], atol=1e-5)
    assert first.embed_frames(frames[:0]).vectors.shape == (0, first.dim)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_model_saved_in_a_folder_gives_what_transformers_gives(tmp_path, family):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPConfig,
        CLIPModel,
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipModel,
    )

    words = {"<pad>": 0, "<end>": 1, "a": 2, "dog": 3, "<unknown>": 4}
    tower = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        **tower,
        "vocab_size": 5,
        "max_position_embeddings": 6,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    vision = {**tower, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    if family == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    model.eval().save_pretrained(tmp_path)
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(tmp_path)
    part = load_clip(str(tmp_path))
    (vector,) = part.embed_queries(["a dog"])
    ids = torch.tensor([[2, 3]] if family == "clip" else [[2, 3, 0, 0, 0, 0]])
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=ids).pooler_output[0]
    np.testing.assert_allclose(vector, (expected / expected.norm()).numpy(), atol=1e-5)
    assert part.embed_frames(np.zeros((1, 20, 20, 3), dtype=np.uint8)).vectors.shape == (
        1,
        part.dim,
    )
    assert part.relevance.ceiling < 0.4


def test_there_is_no_starter_and_a_text_model_is_refused():
    with pytest.raises(WeightsError, match="no starter weights"):
        load_clip("starter")
    from mgv.starter.weights import text_model_dir

    with pytest.raises(WeightsError, match="takes CLIP or SigLIP"):
        load_clip(str(text_model_dir()))
