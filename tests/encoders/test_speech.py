"""Speech: which stretches of sound are listened to, and which of the words heard are believed."""

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgv.config import TranscriberParams
from mgv.encoders.parts import load_transcriber
from mgv.encoders.speech import (
    SAMPLE_RATE_HZ,
    EnergyTranscriber,
    Heard,
    levelled,
    recognise,
    sounding_spans,
    sounds_foreign,
    to_cues,
    was_said,
)
from mgv.errors import WeightsError

READ_ALOUD = Path(
    "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0890.wav"
)
SAID = Heard(
    start_s=0, end_s=2, text=" Hello there.", no_speech=0.1, mean_log_prob=-0.3, compression=1.0
)


def silence(duration_s: float) -> np.ndarray:
    return np.zeros(int(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)


def tone(duration_s: float, level: float = 0.1) -> np.ndarray:
    times = np.arange(int(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (level * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def noise(duration_s: float, level: float) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(int(duration_s * SAMPLE_RATE_HZ))
    return (level * samples).astype(np.float32)


def test_silence_is_not_listened_to():
    assert sounding_spans(silence(40)) == []
    assert sounding_spans(silence(0)) == []
    assert sounding_spans(noise(5, level=0.0005)) == []


def test_a_long_silence_parts_two_spans_and_a_short_one_does_not():
    audio = np.concatenate(
        [silence(3), tone(1.5), silence(2), tone(1.5), silence(9), tone(1.5), silence(3)]
    )
    spans = [(begin / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ) for begin, end in sounding_spans(audio)]
    # sound at 3-4.5, 6.5-8 and 17-18.5, with 0.3 s about each span and steps of 0.03 s
    np.testing.assert_allclose(spans, [(2.7, 8.3), (16.7, 18.8)], atol=0.04)


def test_a_span_stays_inside_the_sound():
    assert sounding_spans(tone(0.1)) == [(0, 1600)]


@pytest.mark.parametrize(
    ("change", "believed"),
    [
        ({}, True),
        ({"mean_log_prob": -1.4}, True),  # a name it does not know, though it is sure of a voice
        ({"mean_log_prob": -1.4, "no_speech": 0.5}, False),
        ({"no_speech": 0.8}, False),
        ({"compression": 10.0}, False),
        ({"text": " ..."}, False),
        ({"text": " Thank you.", "no_speech": 0.5}, False),
        ({"text": " Thank you."}, True),
        ({"text": " ♪♪"}, False),
    ],
)
def test_what_is_believed(change, believed):
    assert was_said(replace(SAID, **change)) is believed


def test_cues_lie_inside_the_sound_and_words_over_silence_are_left_out():
    audio = np.concatenate([tone(2), silence(3)])
    heard = [replace(SAID, start_s=0.5, end_s=7.0), replace(SAID, start_s=3.0, end_s=4.0)]
    (cue,) = to_cues(heard, audio)
    assert (cue.start_s, cue.end_s, cue.text) == (0.5, 5.0, "Hello there.")


def test_the_random_transcriber_gives_the_same_words_for_the_same_sound():
    audio = np.concatenate([silence(1), tone(2), silence(1), tone(1, level=0.3)])
    first, second = EnergyTranscriber().transcribe(audio), EnergyTranscriber().transcribe(audio)
    assert first == second
    assert [round(cue.start_s) for cue in first] == [1, 4]
    assert len(first[0].text.split()) == 5  # two words a second, of 2.6 s
    assert EnergyTranscriber().transcribe(silence(5)) == []


@pytest.fixture(scope="module", params=["whisper", "faster_whisper"])
def whisper(request):
    return load_transcriber(TranscriberParams(name=request.param, device="cpu"))


@pytest.mark.parametrize(
    "audio",
    [
        silence(5),
        noise(5, level=0.1),
        tone(5),
        np.tile(np.append(tone(0.2), silence(0.8)), 6),
    ],
    ids=["silence", "noise", "a tone", "beeps"],
)
def test_whisper_hears_no_words_where_nobody_speaks(whisper, audio):
    assert whisper.transcribe(audio) == []


@pytest.mark.skipif(not READ_ALOUD.exists(), reason="needs Debian's pocketsphinx-testdata")
@pytest.mark.parametrize("name", ["whisper", "faster_whisper"])
def test_read_sentences_are_heard_where_they_are_said(name):
    if name == "faster_whisper":
        pytest.importorskip("faster_whisper")
    with wave.open(str(READ_ALOUD)) as file:
        words = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    transcriber = load_transcriber(TranscriberParams(name=name, device="cpu"))
    audio = np.concatenate([silence(12), words, silence(2)])
    cues = transcriber.transcribe(audio)
    heard = " ".join(cue.text for cue in cues).lower()
    assert "rather cold" in heard
    assert "rather selfish" in heard
    assert 11.5 < cues[0].start_s < 13
    assert 16 < cues[-1].end_s <= 19.3
    assert transcriber.transcribe(audio) == cues


def test_a_path_that_is_no_checkpoint_is_an_error_of_one_line(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        load_transcriber(TranscriberParams(name="whisper", pretrained="tiny.en"))
    path = tmp_path / "model.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="not an openai-whisper checkpoint") as caught:
        load_transcriber(TranscriberParams(name="whisper", pretrained=str(path)))
    assert "\n" not in str(caught.value)


def test_quiet_speech_is_raised_and_a_quiet_fan_is_not():
    speech = np.concatenate([tone(1, level=0.0008), silence(1), tone(1, level=0.0008)])
    assert sounding_spans(speech) == []
    raised = levelled(speech)
    # the loud parts' root mean square, 0.0008 / sqrt(2), becomes 0.1
    assert np.sqrt(np.mean(raised[: SAMPLE_RATE_HZ // 2] ** 2)) == pytest.approx(0.1, rel=0.02)
    fan, loud = noise(5, level=0.0008), tone(2, level=0.1)
    assert levelled(fan) is fan
    assert levelled(loud) is loud
    assert len(levelled(silence(0))) == 0


def test_a_stretch_of_repetitions_is_heard_again_in_parts_and_what_follows_is_kept():
    audio = np.concatenate([tone(2), silence(0.5), tone(2), silence(0.5), tone(2)])
    lengths_s = []

    def hear(part):
        lengths_s.append(round(len(part) / SAMPLE_RATE_HZ, 1))
        if len(part) > 4 * SAMPLE_RATE_HZ:  # as a recogniser does: it loops, and misses the end
            return [replace(SAID, end_s=7.0, text="row row row row", compression=9.0)]
        return [replace(SAID, end_s=2.0, text=f"part {len(lengths_s)}")]

    cues, _ = recognise(audio, hear)
    assert [cue.text for cue in cues] == ["part 2", "part 3", "part 4"]
    assert [round(cue.start_s, 1) for cue in cues] == [0.0, 2.2, 4.7]  # 0.3 s before each tone


def test_speech_that_the_recogniser_doubts_throughout_is_of_another_language():
    doubtful = replace(SAID, text="The half and nicer hat wagon list", mean_log_prob=-1.1)
    assert sounds_foreign([doubtful])
    assert not sounds_foreign(
        [doubtful, replace(SAID, text="A longer sentence that was heard well", mean_log_prob=-0.4)]
    )
    assert not sounds_foreign([replace(doubtful, text="Krishnamurthy")])  # one name
    assert not sounds_foreign([])
