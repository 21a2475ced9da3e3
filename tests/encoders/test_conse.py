"""ConSE: a frame is the mean of the words for what it may show; worked by hand with three classes."""

import numpy as np
import pytest

from mgv.config import PartParams
from mgv.encoders.conse import (
    conse_vectors,
    likeliest_labels,
    load,
    read_class_names,
    what_is_seen,
    with_reach,
)
from mgv.encoders.sentence import HashedWords
from mgv.errors import ConfigError
from mgv.records import Label

CLASS_VECTORS = np.eye(3, dtype=np.float32)


def logits(*probabilities: float) -> np.ndarray:
    return np.log(np.array([probabilities], dtype=np.float32))


def test_a_frame_is_the_weighted_mean_of_its_likeliest_classes():
    # of 0.6, 0.3, 0.1 the two likeliest weigh 2/3 and 1/3; to unit length: (2, 1) / sqrt(5)
    vectors = conse_vectors(logits(0.3, 0.6, 0.1), CLASS_VECTORS, temperature=1.0, num_classes=2)
    np.testing.assert_allclose(vectors, [[1 / 5**0.5, 2 / 5**0.5, 0]], rtol=1e-5)


def test_temperature_takes_roots_of_the_probabilities():
    # 0.64, 0.32, 0.04 at temperature 2 are as 8 : 4 sqrt(2) : 2
    vectors = conse_vectors(logits(0.64, 0.32, 0.04), CLASS_VECTORS, temperature=2.0, num_classes=3)
    expected = np.array([8, 4 * 2**0.5, 2]) / np.linalg.norm([8, 4 * 2**0.5, 2])
    np.testing.assert_allclose(vectors[0], expected, rtol=1e-5)


def test_labels_are_first_names_likeliest_first_with_the_networks_own_probability():
    names = ["tench, Tinca tinca", "goldfish", "cock"]
    (labels,) = likeliest_labels(logits(0.3, 0.1, 0.6), names, num_labels=2)
    assert [label.name for label in labels] == ["cock", "tench"]
    assert [round(label.probability, 5) for label in labels] == [0.6, 0.3]
    assert isinstance(labels[0], Label)


def test_a_query_that_many_classes_answer_counts_less_than_one_that_few_answer():
    # twenty classes at cosine 0.5: reach 0.5, so half the length stays; the other query reaches 0: all of it stays
    class_vectors = np.tile(np.array([[0.5, 0.75**0.5, 0]], dtype=np.float32), (20, 1))
    queries = np.array([[1, 0, 0], [0, 0, 1]], dtype=np.float32)
    vectors = with_reach(queries, class_vectors)
    np.testing.assert_allclose(vectors, [[0.5, 0, 0, 0.75**0.5], [0, 0, 1, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("scene where the rocket lifts off", "the rocket lifts off"),
        ("find the moment when a dog runs", "a dog runs"),
        ("Show me a video of two cats", "two cats"),
        ("show me the parrot", "the parrot"),
        ("a photo of a violin", "a violin"),
        ("a video camera on a tripod", "a video camera on a tripod"),
        ("screen recording of the settings", "screen recording of the settings"),
        ("the scene of", "the scene of"),
        ("", ""),
    ],
)
def test_the_words_of_asking_are_left_out(query, seen):
    assert what_is_seen(query) == seen


def test_there_are_a_thousand_class_names_in_the_networks_order():
    names = read_class_names()
    assert len(names) == 1000
    assert names[1] == "goldfish, Carassius auratus"
    assert names[849] == "teapot"


@pytest.fixture
def conse(tmp_path, monkeypatch):
    monkeypatch.setenv("MGV_CACHE", str(tmp_path))
    return load(PartParams(name="conse", pretrained="random", device="cpu"), HashedWords, "words-1")


def test_vectors_have_unit_length_and_are_the_same_each_time(conse):
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    first, second = conse.embed_frames(frames), conse.embed_frames(frames)
    assert first.vectors.shape == (3, conse.dim)
    np.testing.assert_allclose(np.linalg.norm(first.vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert [len(labels) for labels in first.labels] == [5, 5, 5]
    assert conse.embed_frames(frames[:0]).vectors.shape == (0, conse.dim)
    queries = conse.embed_queries(["a dog", ""])
    assert queries.shape == (2, conse.dim)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)


def test_class_vectors_are_computed_once_per_text_embedder(conse, tmp_path):
    class NeverCalled(HashedWords):
        def embed(self, texts):
            raise AssertionError("should have come from the cache")

    params = PartParams(name="conse", pretrained="random", device="cpu")
    assert load(params, NeverCalled, "words-1").dim == conse.dim
    (cached,) = (tmp_path / "conse").iterdir()
    cached.write_bytes(b"half a file")
    assert load(params, HashedWords, "words-1").dim == conse.dim
    with pytest.raises(AssertionError):
        load(params, NeverCalled, "words-2")


def test_weights_it_does_not_know_are_refused():
    with pytest.raises(ConfigError, match="frame embedder clip"):
        load(PartParams(name="conse", pretrained="openai/clip"), HashedWords, "words-1")


def test_the_starter_finds_a_teapot_and_knows_a_page_from_a_colour():
    from mgv.encoders.parts import load_frame_embedder

    part = load_frame_embedder(PartParams(name="conse"), PartParams(name="sentence"))
    (teapot, piano) = part.embed_queries(
        ["scene where someone pours from a teapot", "a grand piano"]
    )
    names = read_class_names()
    shown = np.full((1, 1000), -4.0, dtype=np.float32)
    shown[0, names.index("teapot")] = 8.0
    vector = np.append(conse_vectors(shown, part._class_vectors)[0], 0)
    assert vector @ teapot > part.relevance.ceiling
    assert vector @ piano < part.relevance.floor


def test_an_empty_frame_shows_nothing_but_a_black_screen():
    from mgv.encoders.parts import load_frame_embedder

    part = load_frame_embedder(PartParams(name="conse"), PartParams(name="sentence"))
    rng = np.random.default_rng(0)
    black = rng.integers(0, 3, (1, 64, 64, 3), dtype=np.uint8)  # as a codec leaves it
    white, picture = np.full_like(black, 254), rng.integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    embedded = part.embed_frames(np.concatenate([black, white, picture]))
    assert [bool(labels) for labels in embedded.labels] == [False, False, True]
    screen, cat, dog = part.embed_queries(
        ["a black screen", "a cat", "a dog runs through the snow"]
    )
    assert embedded.vectors[0] @ screen > part.relevance.ceiling
    assert max(embedded.vectors[0] @ cat, embedded.vectors[0] @ dog) < part.relevance.floor
