"""Features are kept: the same as looked at again, and only for the video, weights and instants they belong to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import nn

from mgv.errors import MediaError
from mgv.media.probe import probe
from mgv.model.build import build_processor, build_video_llm
from mgv.model.looking import read_sample
from mgv.model.processor import Processor
from mgv.records import Cue, Sample, Turn
from mgv.train.features import ClipFeatures, FeatureCache, FeatureExtractor, fingerprint
from mgv.train.training_rows import TrainingRow, collate
from tests.media.make_video import make_video, number_of

TURNS = (Turn(question="what?", answer="that"),)


@pytest.fixture(scope="module")
def parts() -> Any:
    torch.set_num_threads(1)
    model, tokenizer = build_video_llm(
        "minigpt4_video", vision_encoder="efficientnet_lite", device="cpu"
    )
    model.requires_grad_(False)
    return model, build_processor(model, tokenizer, num_frames=3)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    path = make_video(tmp_path / "clip.mp4")
    return Sample(sample_id="a", media=str(path), media_id="f" * 64, turns=TURNS)


def test_a_kept_look_is_the_look_itself(parts: Any, sample: Sample, tmp_path: Path):
    model, processor = parts
    fresh = FeatureExtractor(model, processor).look(sample)
    cache = FeatureCache(tmp_path / "features", 1.0)
    assert FeatureExtractor(model, processor, cache).keep([sample, sample]) == 1
    kept = FeatureExtractor(model, processor, FeatureCache(tmp_path / "features", 1.0)).look(sample)
    assert torch.equal(kept.features, fresh.features)
    assert kept.times_s == fresh.times_s
    assert kept.features.dtype == torch.float16
    assert kept.features.shape == (3, 64, 72)


def test_frames_are_the_middles_of_equal_parts(parts: Any, sample: Sample):
    model, processor = parts
    video = probe(Path(sample.media), sample.media_id)
    part_s = video.duration_s / 3
    expected = [video.start_s + part_s * (i + 0.5) for i in range(3)]
    assert FeatureExtractor(model, processor).look(sample).times_s == pytest.approx(expected)


def test_upstream_frames_are_those_counted_also_where_a_file_rounds_its_times(tmp_path: Path):
    """Matroska keeps whole milliseconds: frame 2 of 30 a second is at 67 ms, after 2 / 30 s."""
    path = make_video(tmp_path / "clip.mkv", rate=30, num_frames=40)
    model, tokenizer = build_video_llm(
        "minigpt4_video", vision_encoder="efficientnet_lite", device="cpu"
    )
    processor = build_processor(model, tokenizer, mode="upstream", num_frames=10)
    sample = Sample(sample_id="a", media=str(path), media_id="f" * 64, turns=TURNS)
    clip = read_sample(sample, processor)
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [4 * i for i in range(10)]


def test_what_is_kept_needs_no_video(parts: Any, sample: Sample, tmp_path: Path):
    model, processor = parts
    eye = FeatureExtractor(model, processor, FeatureCache(tmp_path / "features", 1.0))
    eye.keep([sample])
    Path(sample.media).unlink()
    assert eye.look(sample).features.shape[0] == 3
    with pytest.raises(MediaError):
        eye.look(replace(sample, end_s=0.5))


def test_the_key_follows_video_stretch_weights_and_frames(parts: Any, sample: Sample):
    model, processor = parts
    eye = FeatureExtractor(model, processor)
    other_model, tokenizer = build_video_llm(
        "minigpt4_video", vision_encoder="efficientnet_lite", device="cpu"
    )
    with torch.no_grad():
        other_model.vision_encoder.tower._conv_head.weight.mul_(1.5)
    keys = {
        eye.key(sample),
        eye.key(replace(sample, media_id="e" * 64)),
        eye.key(replace(sample, end_s=0.5)),
        FeatureExtractor(other_model, processor).key(sample),
        FeatureExtractor(model, build_processor(model, tokenizer, num_frames=2)).key(sample),
    }
    assert len(keys) == 5
    assert eye.key(replace(sample, media="elsewhere.mp4", sample_id="b", turns=())) == eye.key(
        sample
    )


def test_connectors_that_look_at_the_same_frames_share_what_is_kept(parts: Any, sample: Sample):
    model, processor = parts

    def eye(prompt: str, mode: Any = "corrected") -> FeatureExtractor:
        return FeatureExtractor(
            model,
            Processor(replace(processor.config, prompt=prompt, mode=mode), processor.tokenizer),
        )

    image = replace(sample, is_image=True)
    prompts = ("minigpt4_video", "minigpt_v2", "video_llava", "llama_vid")
    assert len({eye(prompt).key(sample) for prompt in prompts}) == 2  # LLaMA-VID takes one a second
    assert (
        len({eye(prompt, "upstream").key(sample) for prompt in prompts}) == 3
    )  # and Video-LLaVA its own
    assert (
        len(
            {
                eye(prompt, mode).key(image)
                for prompt in prompts
                for mode in ("corrected", "upstream")
            }
        )
        == 1
    )
    assert eye("llama_vid").key(sample) != eye("llama_vid", "upstream").key(sample)


def test_a_full_cache_keeps_no_more_and_looking_goes_on(parts: Any, sample: Sample, tmp_path: Path):
    model, processor = parts
    eye = FeatureExtractor(model, processor, FeatureCache(tmp_path / "features", 1e-6))  # 1 kB
    others = [replace(sample, media_id=letter * 64) for letter in "abc"]
    eye.keep(others[:1])
    assert eye.keep(others[1:]) == 0
    assert eye.cache is not None
    assert (len(eye.cache), eye.cache.is_full, eye.cache.num_bytes) == (1, True, 3 * 64 * 72 * 2)
    assert len(eye.look_all(others)) == 3


def test_a_file_that_is_gone_is_named_and_what_was_seen_before_it_is_kept(
    parts: Any, sample: Sample, tmp_path: Path
):
    model, processor = parts
    eye = FeatureExtractor(model, processor, FeatureCache(tmp_path / "features", 1.0))
    gone = replace(sample, media="gone.mp4", media_id="a" * 64)
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        eye.keep([sample, gone])
    assert eye.cache is not None
    assert eye.key(sample) in eye.cache


def test_several_are_read_in_the_order_asked_for(tmp_path: Path):
    cache = FeatureCache(tmp_path / "features", 1.0)
    looks = {
        str(i): ClipFeatures(
            features=torch.full((1, 2, 3), i, dtype=torch.float16), times_s=(0.5,), frame_rate=i / 4
        )
        for i in range(5)
    }
    cache.write(looks)
    nine = torch.full((2, 1, 3), 9, dtype=torch.float16)
    cache.write({"9": ClipFeatures(features=nine, times_s=(0.0, 1.0), frame_rate=25.0)})
    found = cache.read(["3", "9", "none", "1"])
    assert {key: float(look.features[0, 0, 0]) for key, look in found.items()} == {
        "1": 1.0,
        "3": 3.0,
        "9": 9.0,
    }
    assert found["9"].features.shape == (2, 1, 3)
    assert (found["9"].times_s, found["9"].frame_rate) == ((0.0, 1.0), 25.0)


def look_of(value: int) -> ClipFeatures:
    return ClipFeatures(
        features=torch.full((1, 2, 3), value, dtype=torch.float16), times_s=(0.5,), frame_rate=1.0
    )


def value_in(cache: FeatureCache, key: str) -> float:
    return float(cache.read([key])[key].features[0, 0, 0])


def test_two_that_fill_a_cache_by_turns_find_their_own(tmp_path: Path):
    one, two = (FeatureCache(tmp_path / "features", 1.0) for _ in range(2))
    one.write({"a": look_of(1)})
    two.write({"b": look_of(2), "a": look_of(1)})  # "a" is there since
    one.write({"c": look_of(3)})
    assert [value_in(one, key) for key in "abc"] == [1, 2, 3]
    assert [value_in(two, key) for key in "ab"] == [1, 2]
    fresh = FeatureCache(tmp_path / "features", 1.0)
    assert (len(fresh), fresh.num_bytes) == (3, 3 * 2 * 3 * 2)


def test_none_of_several_that_make_a_cache_at_once_empties_it(tmp_path: Path):
    def fill(number: int) -> None:
        together.wait()
        cache = FeatureCache(folder, 1.0)
        cache.write({str(number): look_of(number)})

    with ThreadPoolExecutor(4) as pool:
        for turn in range(20):
            folder, together = tmp_path / str(turn), Barrier(4)
            list(pool.map(fill, range(4)))
            cache = FeatureCache(folder, 1.0)
            assert [value_in(cache, str(number)) for number in range(4)] == [0, 1, 2, 3]


def test_a_cache_of_another_form_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    import lancedb

    old = lancedb.connect(tmp_path / "features").create_table(
        "features", [{"key": "a", "num_bytes": 1}]
    )
    assert old.count_rows() == 1
    cache = FeatureCache(tmp_path / "features", 1.0)
    assert (len(cache), cache.read(["a"])) == (0, {})
    assert "kept by another version in another form" in caplog.text
    caplog.clear()
    assert len(FeatureCache(tmp_path / "features", 1.0)) == 0
    assert not caplog.text


def test_upstream_training_hears_a_stretch_by_the_published_rule_with_and_without_a_cache(
    sample: Sample, tmp_path: Path
):
    model, tokenizer = build_video_llm(
        "minigpt4_video", vision_encoder="efficientnet_lite", device="cpu"
    )
    model.requires_grad_(False)
    processor = build_processor(model, tokenizer, mode="upstream", num_frames=3)
    video = probe(Path(sample.media), sample.media_id)
    start_s = video.start_s + 0.5
    cues = (
        Cue(start_s=start_s, end_s=start_s + 0.01, text="that is the theatre"),
        Cue(start_s=start_s + 0.02, end_s=start_s + 0.2, text="the hat is a cat"),
    )
    heard = replace(sample, start_s=start_s, end_s=start_s + 0.9, cues=cues)
    lesson = TrainingRow(heard, 0, 1)
    fresh = collate([lesson], processor, FeatureExtractor(model, processor))
    eye = FeatureExtractor(model, processor, FeatureCache(tmp_path / "features", 1.0))
    eye.keep([heard])
    Path(sample.media).unlink()
    kept = collate(
        [lesson],
        processor,
        FeatureExtractor(model, processor, FeatureCache(tmp_path / "features", 1.0)),
    )
    assert fresh.input_ids.tolist() == kept.input_ids.tolist()
    words = tokenizer.decode([i for i in fresh.input_ids[0].tolist() if i > 2])
    # the first line with the frame it begins on; of the second, what is no part of the first, with the next frame
    assert words.count("<Cap>") == 2
    assert "<Cap>that is the theatre <Img><Cap>cat <Img>" in words
    with torch.no_grad():
        assert model(**fresh.inputs()).loss == model(**kept.inputs()).loss


def test_a_fingerprint_tells_weights_apart():
    one, same = nn.Linear(4, 4), nn.Linear(4, 4)
    same.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(same)
    with torch.no_grad():
        same.bias[0] += 0.01
    assert fingerprint(one) != fingerprint(same)
