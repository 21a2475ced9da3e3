"""Benchmark of the video language model: encode, fuse, first token, follow-up question, tokens, memory.

    python -m tests.bench.bench_model                       # CPU: the starter parts, or tiny ones with --size tiny
    python -m tests.bench.bench_model --size 7b             # GPU: EVA ViT-g and Llama-2-7B's shapes, random bf16

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
from mgv.model.connectors import build_connector
from mgv.model.language import byte_tokenizer, random_language_model
from mgv.model.processor import Clip, Processor
from mgv.model.session import VideoSession
from mgv.model.video_llm import VideoLLM, VideoLLMConfig

QUESTIONS = ("what is shown?", "who is speaking?", "what happens at the end?", "where does it take place?")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=["tiny", "small", "starter", "7b"], default="starter")
    parser.add_argument("--frames", type=int, default=45)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, processor = {"tiny": tiny, "small": small, "starter": starter, "7b": real}[args.size](args.frames)
    frames = np.random.default_rng(0).integers(0, 255, (args.frames, 240, 320, 3), dtype=np.uint8)
    clip = Clip(question=QUESTIONS[0], frames=frames, frame_times_s=tuple(map(float, range(args.frames))))
    measure(model, processor, clip, args.new_tokens)


def measure(model: VideoLLM, processor: Processor, clip: Clip, num_new: int) -> None:
    """Print each step's time."""
    device = model.get_input_embeddings().weight.device
    prepare_s, batch = timed(lambda: processor([clip]).to(device), 1)
    num_frames = len(batch.prompts[0].frames)
    assert batch.pixel_values is not None
    encode_s, features = timed(lambda: model.encode(batch.pixel_values, batch.num_frames), 1)
    seen = processor([replace(clip, features=features[0], frames=None)]).to(device)
    connect_s, visual = timed(lambda: model.see(batch.num_frames, features=features), 3)
    fuse_s, _ = timed(lambda: model.embed(batch.input_ids, visual, batch.num_frames), 3)
    first_s, _ = timed(lambda: model.generate(**seen.inputs(), max_new_tokens=1), 3)
    ids = batch.input_ids.clamp(min=0)
    bare = {
        "attention_mask": batch.attention_mask,
        "max_new_tokens": 1,
        "do_sample": False,
        "pad_token_id": 0,
    }
    bare_s, _ = timed(lambda: model.language_model.generate(ids, **bare), 3)
    many: dict[str, Any] = {"min_new_tokens": num_new, "max_new_tokens": num_new}
    whole_s, _ = timed(lambda: model.generate(**seen.inputs(), **many), 1)
    bare_whole_s, _ = timed(lambda: model.language_model.generate(ids, **(bare | many)), 1)
    session = VideoSession(model, processor, replace(clip, features=features[0].to(device)))
    session.generate(QUESTIONS[0], max_new_tokens=1)
    follow_s = statistics.median(
        timed(lambda q=q: session.generate(q, max_new_tokens=1), 1)[0] for q in QUESTIONS[1:]
    )
    print(f"{num_frames} frames, {ids.shape[1]} prompt tokens, {device}, {torch.get_num_threads()} threads")
    print(f"pixels             {1e3 * prepare_s:9.1f} ms")
    print(f"encode             {1e3 * encode_s:9.1f} ms   {num_frames / encode_s:.1f} frames/s")
    print(f"connect            {1e3 * connect_s:9.1f} ms")
    print(f"fuse               {1e3 * fuse_s:9.1f} ms")
    print(f"first token        {1e3 * first_s:9.1f} ms   from cached features")
    print(f"bare first token   {1e3 * bare_s:9.1f} ms   so ours adds {100 * (first_s / bare_s - 1):+.1f} %")
    print(
        f"follow-up question {1e3 * follow_s:9.1f} ms   {first_s / follow_s:.1f} times sooner than the first"
    )
    print(
        f"tokens             {num_new / whole_s:9.1f} /s, prompt included; bare {num_new / bare_whole_s:.1f} /s"
    )
    if device.type == "cuda":
        print(f"memory             {torch.cuda.max_memory_allocated() / 2**30:9.1f} GiB at most")


def timed(call: Callable[[], Any], times: int) -> tuple[float, Any]:
    """Median seconds and the last result; one run to warm up where there are several."""
    taken = []
    with torch.inference_mode():
        result = call() if times > 1 else None
        for _ in range(times):
            _wait()
            start = time.perf_counter()
            result = call()
            _wait()
            taken.append(time.perf_counter() - start)
    return statistics.median(taken), result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def tiny(num_frames: int) -> tuple[VideoLLM, Processor]:
    """Random and tiny, to see that the benchmark runs."""
    model, tokenizer = build_video_llm("minigpt4_video", device="cpu")
    return model, build_processor(model, tokenizer, num_frames=num_frames)


def small(num_frames: int) -> tuple[VideoLLM, Processor]:
    """64 tokens a frame as published, beside a random Llama of 8 layers, 512 wide."""
    model, tokenizer = build_video_llm("minigpt4_video", vision_options={"image_size_px": 224}, device="cpu")
    sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
    language, _ = random_language_model(num_key_value_heads=8, max_position_embeddings=8192, **sizes)
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
    return model, build_processor(model, byte_tokenizer(), num_frames=num_frames, max_new_tokens=128)


if __name__ == "__main__":
    main()
