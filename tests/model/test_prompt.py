"""Token ids of every format, against SentencePiece itself and Mistral's own vocabulary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mgv.errors import ConfigError, UsageError
from mgv.model.processor import LIMITS, Clip, Limits, Processor, ProcessorConfig
from mgv.model.prompt import PROMPTS, SegmentEncoder, find_chat, find_layout, frame_pieces, joined
from mgv.records import Cue

M = 2  # visual tokens a frame
CURIOUS = (
    "A chat between a curious {} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {}'s questions. "
)


def frame(f: int) -> list[int]:
    return [-1 - (f * M + i) for i in range(M)]


def processor(
    tokenizer: Any,
    prompt: str,
    mode: str = "upstream",
    limits: Limits | None = None,
    **changes: Any,
) -> Any:
    config = ProcessorConfig(
        prompt=prompt,
        tokens_per_frame=M,
        pixels="imagenet_squash",
        image_size_px=14,
        mode=mode,  # type: ignore[arg-type]
        limits=limits or LIMITS[prompt],
        **({"context_tokens": 4096} | changes),
    )
    return Processor(config, tokenizer)


def clip(num_frames: int = 3, question: str = "What happens?", **kwargs: Any) -> Clip:
    return Clip(
        question=question,
        frames=np.zeros((num_frames, 4, 4, 3), dtype=np.uint8),
        frame_times_s=tuple(float(i) for i in range(num_frames)),
        frame_rate=10.0,
        **kwargs,
    )


SPOKEN = (
    Cue(start_s=0.3, end_s=0.8, text="hello there"),
    Cue(start_s=1.0, end_s=1.4, text="good  bye"),
)
TEXTS = [
    "<Img>", "", " leading", "two  spaces", "\nWhat happens? [/INST]", "<Cap>hello there <Img>",
    "naïve 日本 😀", "a\n\nb",
    "{<10><20><30><40>}", "it's 3.14!", "\ttab", "[vqa] what",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_has_the_ids_of_sentencepiece(text: str, mistral_tokenizer: Any, pieces: Any):
    assert SegmentEncoder(mistral_tokenizer)(text) == pieces.encode(text)


def test_minigpt4_video_inference_is_as_published_with_two_bos(mistral_tokenizer: Any, pieces: Any):
    prompt = processor(mistral_tokenizer, "minigpt4_video").write(clip(cues=SPOKEN))
    # "hello there" is under way at 0.3 s, so it comes with the frame at 1 s, and "good  bye" begins with that frame
    assert prompt.input_ids == [
        1, 1, *pieces.encode("[INST] <Img>"), *frame(0),
        *pieces.encode("<Img>"), *frame(1),
        *pieces.encode("<Cap>hello there good  bye <Img>"), *frame(2),
        *pieces.encode("\nWhat happens? [/INST]"),
    ]  # fmt: skip


def test_minigpt4_video_evaluation_has_one_more_space_and_repeats_the_last_frame(
    mistral_tokenizer: Any, pieces: Any
):
    limits = replace(LIMITS["minigpt4_video"], num_frames=4)
    prompt = processor(mistral_tokenizer, "minigpt4_video", "upstream_eval", limits).write(clip(2))
    assert prompt.input_ids == [
        1, 1, *pieces.encode("[INST]  <Img>"), *frame(0), *pieces.encode("<Img>"), *frame(1),
        *pieces.encode("<Img>"), *frame(1), *pieces.encode("<Img>"), *frame(1),
        *pieces.encode("\nWhat happens? [/INST]"),
    ]  # fmt: skip
    assert prompt.frames == (0, 1)


def test_minigpt4_video_training_has_one_bos_and_no_space_before_the_closing_tag(
    mistral_tokenizer: Any, pieces: Any
):
    limits = replace(LIMITS["minigpt4_video"], num_frames=2)
    prompt = processor(mistral_tokenizer, "minigpt4_video", limits=limits).write(
        clip(1, answer="A dog.")
    )
    assert prompt.input_ids == [
        1, *pieces.encode("[INST] <Img>"), *frame(0), *pieces.encode("<Img>"), *frame(0),
        *pieces.encode("\nWhat happens?[/INST]"),
    ]  # fmt: skip
    assert prompt.answer_ids == [*pieces.encode("A dog."), 2]


def test_minigpt_v2_writes_one_image_and_a_task(mistral_tokenizer: Any, pieces: Any):
    writer = processor(mistral_tokenizer, "minigpt_v2")
    asked = writer.write(clip(1, "[vqa] what is it?"))
    assert asked.input_ids == [
        1, 1, *pieces.encode("[INST] <Img>"), *frame(0), *pieces.encode("</Img> [vqa] what is it? [/INST]"),
    ]  # fmt: skip
    learnt = writer.write(clip(1, "[refer] the dog", answer="{<1><2><3><4>}"))
    assert learnt.input_ids == [
        1, *pieces.encode("[INST] <Img>"), *frame(0), *pieces.encode("</Img> [refer] the dog  [/INST]"),
    ]  # fmt: skip


def test_video_llava_is_asked_as_a_curious_human_after_eight_frames(
    mistral_tokenizer: Any, pieces: Any
):
    prompt = processor(mistral_tokenizer, "video_llava").write(clip(8, cues=SPOKEN))
    assert prompt.input_ids == [
        1, *pieces.encode(CURIOUS.format("human", "human") + "USER: "), *(i for f in range(8) for i in frame(f)),
        *pieces.encode("\nWhat happens? ASSISTANT:"),
    ]  # fmt: skip
    assert prompt.report.num_words == 0
    assert (
        prompt.report.num_words_given == 4
    )  # its published inference has no subtitles: said in the report


def test_video_llava_learns_as_a_curious_user_and_within_one_limit(
    mistral_tokenizer: Any, pieces: Any
):
    limits = Limits(num_frames=8, train_tokens=64)
    writer = processor(mistral_tokenizer, "video_llava", limits=limits)
    prompt = writer.write(clip(8, " What\nhappens?", answer="A dog runs."))
    opening = [1, *pieces.encode(CURIOUS.format("user", "user") + "USER: ")]
    asked = pieces.encode("\n What\nhappens? ASSISTANT:")
    assert prompt.input_ids == [*opening, *(i for f in range(8) for i in frame(f)), *asked]
    answer = [*pieces.encode("A dog runs."), 2]
    assert prompt.answer_ids == answer[:2]
    assert prompt.report.num_answer_tokens_cut == len(answer) - 2


def test_llama_vid_learns_a_question_without_space_around_it_and_counts_a_video_once(
    mistral_tokenizer: Any, pieces: Any
):
    opening = [1, *pieces.encode(CURIOUS.format("user", "user") + "USER: ")]
    asked, answer = pieces.encode("\nWhat\nhappens? ASSISTANT:"), [*pieces.encode("A dog."), 2]
    most = len(opening) + 1 + len(asked) + 2
    writer = processor(
        mistral_tokenizer,
        "llama_vid",
        limits=Limits(num_frames=9, train_tokens=most, train_counts_video_once=True),
    )
    prompt = writer.write(clip(5, " What\nhappens? \n", answer="A dog."))
    assert prompt.input_ids == [*opening, *(i for f in range(5) for i in frame(f)), *asked]
    assert prompt.answer_ids == answer[:2]


def test_upstream_goes_on_from_earlier_turns(mistral_tokenizer: Any, pieces: Any):
    first = clip(8, "What?", answer="A dog.")
    later = replace(first, question="Where?", answer="Here.", history=(("What?", "A dog."),))
    writer = processor(mistral_tokenizer, "video_llava")
    before = writer.write(first)
    assert writer.write(later).input_ids == [
        *before.input_ids, *before.answer_ids, *pieces.encode("USER: Where? ASSISTANT:"),
    ]  # fmt: skip


def test_minigpt_v2_begins_every_turn_with_bos_and_ends_an_answer_in_training_only(
    mistral_tokenizer: Any, pieces: Any
):
    writer = processor(mistral_tokenizer, "minigpt_v2")
    opening = [*pieces.encode("[INST] <Img>"), *frame(0)]
    told = (("What?", "A dog."),)
    assert writer.write(clip(1, "Where?", history=told)).input_ids == [
        1, 1, *opening, *pieces.encode("</Img> What? [/INST]A dog."), 1, *pieces.encode("[INST] Where? [/INST]"),
    ]  # fmt: skip
    assert writer.write(clip(1, "Where?", history=told, answer="Here.")).input_ids == [
        1, *opening, *pieces.encode("</Img> What?  [/INST]"), *pieces.encode("A dog."), 2,
        1, *pieces.encode("[INST] Where?  [/INST]"),
    ]  # fmt: skip


def test_minigpt4_video_learns_an_image_by_itself_with_a_closed_tag(
    mistral_tokenizer: Any, pieces: Any
):
    image = replace(clip(1, "Describe this image.", answer="A dog."), is_image=True, frame_rate=0.0)
    prompt = processor(mistral_tokenizer, "minigpt4_video").write(image)
    assert prompt.input_ids == [
        1, *pieces.encode("[INST] <Img>"), *frame(0), *pieces.encode("</Img> Describe this image. [/INST] "),
    ]  # fmt: skip


def test_upstream_times_count_from_the_first_frame_that_is_shown(mistral_tokenizer: Any):
    writer = processor(mistral_tokenizer, "minigpt4_video")
    shifted = tuple(replace(cue, start_s=cue.start_s + 70, end_s=cue.end_s + 70) for cue in SPOKEN)
    later = replace(clip(cues=shifted), frame_times_s=(70.0, 71.0, 72.0))
    assert writer.write(later).input_ids == writer.write(clip(cues=SPOKEN)).input_ids


def test_llama_vid_is_asked_as_a_curious_user_and_a_movie_is_framed(
    mistral_tokenizer: Any, pieces: Any
):
    writer = processor(mistral_tokenizer, "llama_vid")
    opening = CURIOUS.format("user", "user") + "USER: "
    assert writer.write(clip(2)).input_ids == [
        1, *pieces.encode(opening), *frame(0), *frame(1), *pieces.encode("\nWhat happens? ASSISTANT:"),
    ]  # fmt: skip
    before = (
        "Below is a movie. Memorize the content and answer my question after watching this movie."
    )
    assert writer.write(clip(2, cues=SPOKEN)).input_ids == [
        1, *pieces.encode(opening + before), *frame(0), *pieces.encode("hello there"), *frame(1),
        *pieces.encode("good  byeNow the movie end.\nWhat happens? ASSISTANT:"),
    ]  # fmt: skip


def test_corrected_has_one_bos_and_the_question_by_itself(mistral_tokenizer: Any, pieces: Any):
    writer = processor(mistral_tokenizer, "minigpt4_video", "corrected")
    shown = [
        1, *pieces.encode("[INST] <Img>"), *frame(0), *pieces.encode("<Cap>hello <Img>"), *frame(1),
        *pieces.encode("<Cap>bye"),
    ]  # fmt: skip
    cues = (Cue(start_s=0.0, end_s=0.4, text=" hello\n"), Cue(start_s=0.9, end_s=1.4, text="bye"))
    asked = writer.write(clip(2, cues=cues))
    assert asked.input_ids == [*shown, *pieces.encode("\nWhat happens? [/INST]")]
    learnt = writer.write(clip(2, cues=cues, answer="A dog."))
    assert learnt.input_ids == asked.input_ids  # training and answering see the same prompt
    assert learnt.answer_ids == [*pieces.encode("A dog."), 2]


def test_a_follow_up_comes_after_the_earlier_question_and_answer(
    mistral_tokenizer: Any, pieces: Any
):
    writer = processor(mistral_tokenizer, "minigpt4_video", "corrected")
    first, second = (
        writer.write(clip(1)),
        writer.write(clip(1, "And then?", history=(("What happens?", "Rain."),))),
    )
    assert second.input_ids == [
        *first.input_ids, *pieces.encode("Rain."), 2, *pieces.encode("[INST] And then? [/INST]"),
    ]  # fmt: skip


def test_frames_of_another_kind_are_refused(mistral_tokenizer: Any):
    writer = processor(mistral_tokenizer, "minigpt4_video", "corrected")
    with pytest.raises(UsageError, match="no frames"):
        writer.write(clip(0))
    for wrong in (np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 4, 4), np.uint8)):
        with pytest.raises(UsageError, match=r"expected uint8 \[T, H, W, 3\]"):
            writer.write(replace(clip(2), frames=wrong))


def test_special_tokens_in_what_a_person_writes_are_taken_out(mistral_tokenizer: Any):
    writer = processor(mistral_tokenizer, "minigpt4_video", "corrected")
    cues = (Cue(start_s=0.0, end_s=0.1, text="</s>stop"),)
    ids = writer.write(clip(1, "a</s> b <s>", cues=cues)).input_ids
    assert ids.count(1) == 1
    assert 2 not in ids


def test_upstream_inference_loses_its_beginning_and_training_its_question(
    mistral_tokenizer: Any, pieces: Any
):
    limits = Limits(
        num_frames=45, subtitle_words=400, prompt_tokens=20, train_prompt_tokens=20, answer_tokens=3
    )
    writer = processor(mistral_tokenizer, "minigpt4_video", limits=limits)
    whole = processor(mistral_tokenizer, "minigpt4_video").write(clip(8)).input_ids
    asked = writer.write(clip(8))
    assert asked.input_ids == whole[-20:]
    assert asked.report.num_tokens_cut == len(whole) - 20
    learnt = writer.write(clip(8, answer="a long answer"))
    assert len(learnt.input_ids) == 21  # BOS and 20
    assert learnt.input_ids == whole[1:22]
    assert learnt.answer_ids == pieces.encode("a long answer")[:3]  # its end mark is gone
    assert learnt.frames == (0, 1, 2)


def test_corrected_thins_frames_first_and_keeps_the_question_whole(
    mistral_tokenizer: Any, pieces: Any
):
    writer = processor(
        mistral_tokenizer, "minigpt4_video", "corrected", context_tokens=120, max_new_tokens=20
    )
    prompt = writer.write(clip(45, cues=SPOKEN))
    assert len(prompt.input_ids) <= 100
    assert prompt.input_ids[-len(pieces.encode("\nWhat happens? [/INST]")) :] == pieces.encode(
        "\nWhat happens? [/INST]"
    )
    report = prompt.report
    assert report.num_frames_given == 45
    assert 10 <= report.num_frames < 45
    assert (report.num_words, report.num_words_given) == (4, 4)
    steps = np.diff(prompt.frames)
    assert steps.max() - steps.min() <= 1  # still evenly spread
    assert str(report).startswith(
        f"{len(prompt.input_ids)} prompt tokens: {report.num_frames} of 45 frames"
    )


def test_corrected_cuts_captions_when_one_frame_is_left_and_then_refuses(mistral_tokenizer: Any):
    long = (Cue(start_s=0.0, end_s=1.0, text="word " * 300),)
    writer = processor(
        mistral_tokenizer, "minigpt4_video", "corrected", context_tokens=64, max_new_tokens=16
    )
    prompt = writer.write(clip(5, cues=long))
    assert len(prompt.input_ids) <= 48
    assert prompt.report.is_cut
    assert prompt.report.num_words < 300
    with pytest.raises(UsageError, match="do not fit: the model reads 64 tokens, 16 are kept"):
        writer.write(clip(5, "why " * 60))


def test_a_long_answer_is_cut_before_its_end_mark(mistral_tokenizer: Any):
    writer = processor(
        mistral_tokenizer,
        "minigpt4_video",
        "corrected",
        replace(LIMITS["minigpt4_video"], answer_tokens=5),
    )
    prompt = writer.write(clip(1, answer="one two three four five six seven"))
    assert len(prompt.answer_ids) == 5
    assert prompt.answer_ids[-1] == 2
    assert prompt.report.num_answer_tokens_cut == 3


def test_a_language_model_is_spoken_to_by_its_own_template():
    from mgv.model.language import byte_tokenizer

    tokenizer = byte_tokenizer()
    with pytest.raises(ConfigError, match="no chat template"):
        find_chat("tokenizer", tokenizer)
    tokenizer.chat_template = (
        "<s>SYSTEM be kind.\n{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}</s>{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    chat = find_chat("tokenizer", tokenizer)
    assert chat.opening == "SYSTEM be kind.\nuser: "
    assert chat.assistant == "\nassistant: "
    assert chat.end == "</s>"
    assert chat.user == "\nuser: "
    text = tokenizer.decode(
        processor(tokenizer, "minigpt4_video", "corrected", chat="tokenizer")
        .write(clip(1))
        .input_ids[:25]
    )
    assert text.startswith("<s>SYSTEM be kind.\nuser")


def test_pieces_that_meet_become_one_text():
    layout = PROMPTS["minigpt4_video"]
    assert joined(["a", "", "b", 0, "", "c", 1]) == ["ab", 0, "c", 1]
    assert joined(frame_pieces(layout, ["x ", ""])) == ["<Img>", 0, "<Cap>x <Img>", 1]
    with pytest.raises(ConfigError, match=r"model\.prompt: 'x' is none of"):
        find_layout("x")


@pytest.mark.parametrize(
    ("prompt", "mode", "expected"),
    [
        (
            "minigpt4_video",
            "upstream",
            [39 * i for i in range(45)],
        ),  # 1798 frames in a minute at 29.97
        ("video_llava", "upstream", [0, 256, 513, 770, 1026, 1283, 1540, 1797]),
        ("llama_vid", "upstream", [30 * i for i in range(60)]),
    ],
)
def test_frames_are_sampled_as_published(
    prompt: str, mode: str, expected: list[int], mistral_tokenizer: Any
):
    times_s = processor(mistral_tokenizer, prompt, mode).sample_times(0.0, 60.0, 29.97)
    assert [round(time_s * 29.97) for time_s in times_s] == expected


def test_corrected_sampling_is_even_and_short_clips_give_what_they_have(mistral_tokenizer: Any):
    writer = processor(mistral_tokenizer, "minigpt4_video", "corrected")
    times_s = writer.sample_times(10.0, 100.0, 29.97)
    assert len(times_s) == 45
    assert (times_s[0], times_s[-1]) == (11.0, 99.0)
    assert len(writer.sample_times(0.0, 0.1, 25.0)) == 2
    assert len(writer.sample_times(0.0, 0.0, 25.0)) == 1


@pytest.mark.parametrize("frame_rate", [12.5, 24000 / 1001, 25.0, 30000 / 1001, 60000 / 1001])
def test_a_video_has_all_its_frames_at_any_rate(frame_rate: float, mistral_tokenizer: Any):
    def sampled(prompt: str, num_source: int) -> list[int]:
        times_s = processor(mistral_tokenizer, prompt).sample_times(
            0.0, num_source / frame_rate, frame_rate
        )
        return [round(time_s * frame_rate) for time_s in times_s]

    for num_source in range(1, 130):
        assert sampled("video_llava", num_source)[-1] == num_source - 1
        step = max(1, num_source // 45)
        assert sampled("minigpt4_video", num_source) == [*range(0, num_source, step)][:45]
        per_second = round(frame_rate)
        assert sampled("llama_vid", num_source) == [*range(0, num_source, per_second)]
