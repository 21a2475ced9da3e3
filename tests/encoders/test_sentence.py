"""Sentence encoders: unit vectors, the same alone as in a batch, near for near meanings."""

import subprocess
import sys

import numpy as np
import pytest

from mgv.config import PartParams
from mgv.encoders.sentence import HashedWords, load, measured_relevance
from mgv.errors import WeightsError


@pytest.fixture(scope="module")
def minilm():
    return load(PartParams(name="sentence", device="cpu"))


def test_texts_of_any_length_have_unit_vectors_in_their_own_order(minilm):
    texts = ["a cat sits on the mat", "", "rain", "word " * 2000, "日本語"]
    together = minilm.embed(texts)
    assert together.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    alone = np.concatenate([minilm.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert minilm.embed([]).shape == (0, 384)


def test_what_is_meant_is_near_and_what_is_not_lies_below_the_floor(minilm):
    query, said, other = minilm.embed(
        [
            "how does photosynthesis work",
            "Plants turn sunlight, water and air into sugar inside their green leaves.",
            "The central bank raised interest rates again in March.",
        ]
    )
    assert query @ said > minilm.relevance.floor
    assert query @ other < minilm.relevance.floor


def test_mean_pooling_leaves_the_padding_out(minilm):
    short = minilm.embed(["rain"])[0]
    beside_a_long_one = minilm.embed(
        ["rain", "a much longer sentence about something else entirely"]
    )[0]
    np.testing.assert_allclose(short, beside_a_long_one, atol=1e-5)


def test_floor_and_ceiling_of_an_unknown_encoder_are_measured(minilm):
    measured = measured_relevance(minilm.embed)
    assert 0.05 < measured.floor < 0.3
    assert 0.3 < measured.ceiling < 0.7
    assert measured_relevance(lambda texts: np.ones((len(texts), 1), dtype=np.float32)).floor == 1


def test_random_vectors_are_near_when_words_are_shared_and_the_same_in_every_process():
    words = HashedWords()
    near, far = words.embed(["the red fox", "red fox"]), words.embed(["blue whale"])
    assert near[0] @ near[1] > words.relevance.floor
    assert abs(near[1] @ far[0]) < words.relevance.floor
    np.testing.assert_allclose(np.linalg.norm(words.embed(["", "!?"]), axis=1), 1, rtol=1e-5)
    script = "from mgv.encoders.sentence import HashedWords; print(HashedWords().embed(['red fox'])[0, :3].tolist())"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(near[1, :3].tolist())


def test_a_folder_without_a_model_is_one_line_of_error(tmp_path):
    with pytest.raises(WeightsError, match="cannot be loaded") as caught:
        load(PartParams(name="sentence", pretrained=str(tmp_path)))
    assert "\n" not in str(caught.value)
