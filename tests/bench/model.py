"""The video language model: what ours adds to the bare language model, and how much sooner a follow-up starts.

    python -m tests.bench model [--quick]           # CPU: a random Llama of 8 layers; tiny with --quick
    python -m tests.bench.model --size starter      # EfficientNet-Lite2 and SmolLM2-135M, step by step
    python -m tests.bench.model --size 7b           # GPU: EVA ViT-g and Llama-2-7B's shapes, random bf16

Beside it the bare language model is given the same lengths as ids: the difference is what our model adds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mgv.encoders.vision.eva_clip_g import EvaClipG
from mgv.model.build import build_processor, build_video_llm
from mgv.model.language import byte_tokenizer, random_language_model
from mgv.model.processor import Clip, Processor
from mgv.model.session import VideoSession
from mgv.model.systems import build_connector
from mgv.model.video_llm import VideoLLM, VideoLLMConfig
from tests.bench.measure import Figure, Result

RATIO_OF = "processor time, pair by pair: what else the machine does counts little"
QUESTIONS = (
    "what is shown?",
    "who is speaking?",
    "what happens at the end?",
    "where does it take place?",
)


def run(quick: bool) -> Result:
    """First token beside the bare language model's, and a follow-up question beside the first."""
    torch.set_num_threads(2)
    model, processor = tiny(45) if quick else small(45)
    steps = measure(model, processor, make_clip(45), num_new=8, times=5)
    return Result(
        figures=[
            Figure(
                what=f"first token, 45 frames cached, {steps['tokens']:.0f} tokens",
                value=steps["first_ratio"],
                unit="x",
                goal=1.05,
                beside=f"bare language model, the same length: {steps['bare_first_s']:.2f} s; {RATIO_OF}",
            ),
            Figure(
                what="first token of a follow-up question over the first question's",
                value=steps["follow_s"] / steps["first_s"],
                unit="x",
                goal=0.2,
                beside=f"{steps['first_s'] / steps['follow_s']:.1f} times sooner",
            ),
        ],
        sizes={"frames": 45, "new_tokens": 8, "times": 5},
        details=steps,
    )


def main() -> None:
    """Print every step's time at one size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=["tiny", "small", "starter", "7b"], default="starter")
    parser.add_argument("--frames", type=int, default=45)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes = {"tiny": tiny, "small": small, "starter": starter, "7b": real}
    model, processor = sizes[args.size](args.frames)
    for step, value in measure(
        model, processor, make_clip(args.frames), args.new_tokens, times=3
    ).items():
        print(f"{step:20} {value:10.3f}")


def make_clip(num_frames: int) -> Clip:
    """Random frames, one a second."""
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, 240, 320, 3), dtype=np.uint8)
    return Clip(
        question=QUESTIONS[0], frames=frames, frame_times_s=tuple(map(float, range(num_frames)))
    )


def measure(
    model: VideoLLM, processor: Processor, clip: Clip, num_new: int, times: int
) -> dict[str, float]:
    """Seconds of each step; ours and the bare language model's in turn, and the ratio of each pair."""
    device = model.get_input_embeddings().weight.device
    batch = processor([clip]).to(device)
    assert batch.pixel_values is not None
    encode_s, features = timed(lambda: model.encode(batch.pixel_values, batch.num_frames))
    seen = processor([replace(clip, features=features[0], frames=None)]).to(device)
    ids = batch.input_ids.clamp(min=0)
    bare: dict[str, Any] = {
        "attention_mask": batch.attention_mask,
        "do_sample": False,
        "pad_token_id": 0,
    }
    sides: dict[str, Callable[[], Any]] = {
        "connect_s": lambda: model.see(batch.num_frames, features=features),
        "first_s": lambda: model.generate(**seen.inputs(), max_new_tokens=1),
        "bare_first_s": lambda: model.language_model.generate(ids, **bare, max_new_tokens=1),
        "whole_s": lambda: model.generate(**seen.inputs(), **exactly(num_new)),
        "bare_whole_s": lambda: model.language_model.generate(ids, **bare, **exactly(num_new)),
    }
    for side in sides.values():
        timed(side)  # to warm up
    taken: dict[str, list[float]] = {name: [] for name in sides}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(times):
        for name, side in sides.items():
            before = time.process_time()
            taken[name].append(timed(side)[0])
            spent[name].append(time.process_time() - before)
    compared = spent if device.type == "cpu" else taken
    session = VideoSession(model, processor, replace(clip, features=features[0].to(device)))
    session.generate(QUESTIONS[0], max_new_tokens=1)
    follow_s = [timed(lambda q=q: session.generate(q, max_new_tokens=1))[0] for q in QUESTIONS[1:]]
    num_frames = len(batch.prompts[0].frames)
    steps = {"frames": float(num_frames), "tokens": float(ids.shape[1]), "encode_s": encode_s}
    steps |= {name: statistics.median(seconds) for name, seconds in taken.items()}
    for step in ("first", "whole"):
        pairs = zip(compared[f"{step}_s"], compared[f"bare_{step}_s"], strict=True)
        steps[f"{step}_ratio"] = statistics.median(ours / bare for ours, bare in pairs)
    steps |= {"follow_s": statistics.median(follow_s), "frames_per_s": num_frames / encode_s}
    if device.type == "cuda":
        steps["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return steps


def exactly(num_new: int) -> dict[str, int]:
    return {"min_new_tokens": num_new, "max_new_tokens": num_new}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and the result."""
    with torch.inference_mode():
        _wait()
        start = time.perf_counter()
        result = call()
        _wait()
        return time.perf_counter() - start, result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def tiny(num_frames: int) -> tuple[VideoLLM, Processor]:
    """Random and tiny, to see that the benchmark runs."""
    model, tokenizer = build_video_llm("minigpt4_video", device="cpu")
    return model, build_processor(model, tokenizer, num_frames=num_frames)


def small(num_frames: int) -> tuple[VideoLLM, Processor]:
    """64 tokens a frame as published, beside a random Llama of 8 layers, 512 wide."""
    model, tokenizer = build_video_llm(
        "minigpt4_video", vision_options={"image_size_px": 224}, device="cpu"
    )
    sizes = {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    }
    language, _ = random_language_model(
        num_key_value_heads=8, max_position_embeddings=8192, **sizes
    )
    connector = build_connector("minigpt4_video", model.vision_encoder.spec, 512)
    model = VideoLLM(model.config, model.vision_encoder, connector, language).eval()
    return model, build_processor(model, tokenizer, num_frames=num_frames)


def starter(num_frames: int) -> tuple[VideoLLM, Processor]:
    """EfficientNet-Lite2 and SmolLM2-135M: 16 tokens a frame."""
    model, tokenizer = build_video_llm(
        "minigpt4_video",
        vision_encoder="efficientnet_lite",
        vision_pretrained="starter",
        language_model="starter",
    )
    return model, build_processor(model, tokenizer, num_frames=num_frames)


def real(num_frames: int) -> tuple[VideoLLM, Processor]:
    """EVA ViT-g and Llama-2-7B's shapes in random bf16 on a GPU."""
    from transformers import Blip2VisionConfig, Blip2VisionModel, LlamaConfig, LlamaForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        tower = Blip2VisionModel(Blip2VisionConfig(initializer_range=0.02))
        llama = LlamaForCausalLM(LlamaConfig(max_position_embeddings=4096))
    torch.set_default_dtype(torch.float32)
    encoder = EvaClipG(tower, 224, "identity", "imagenet_squash")
    connector = build_connector("minigpt4_video", encoder.spec, 4096).to("cuda")
    config = VideoLLMConfig(
        vision_encoder={"name": "eva_clip_g", "pretrained": "random"},
        connector={"name": "minigpt4_video"},
        language_model={"pretrained": "random"},
    )
    model = VideoLLM(config, encoder, connector, llama).eval()
    return model, build_processor(
        model, byte_tokenizer(), num_frames=num_frames, max_new_tokens=128
    )


if __name__ == "__main__":
    main()
