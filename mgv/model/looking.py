"""Looking: which frames of a video the model is shown, and what its vision encoder makes of them.

T frames, N vision tokens, V vision width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mgv.media.frames import read_all_frames
from mgv.media.images import read_image
from mgv.media.probe import probe
from mgv.model.processor import Clip, Processor
from mgv.model.video_llm import VideoLLM
from mgv.records import Sample


@torch.no_grad()
def see(clip: Clip, model: VideoLLM, processor: Processor) -> Tensor:
    """The features of a clip's frames, rounded as they are kept: float16 [T, N, V] on the encoder's device."""
    device = next(model.vision_encoder.parameters()).device
    pixels = processor.pixel_values(clip).to(device)
    return model.encode(pixels[None], torch.tensor([clip.num_frames]))[0].half()


def read_sample(sample: Sample, processor: Processor, root: Path = Path()) -> Clip:
    """The frames that the processor's rule takes of a sample, without its cues."""
    if sample.is_image:
        image = read_image(root / sample.media)[None]
        return Clip(question="", frames=image, frame_times_s=(0.0,), is_image=True)
    path = root / sample.media
    video = probe(path, sample.media_id)
    start_s = max(sample.start_s, 0.0)
    end_s = min(sample.end_s, video.duration_s) if sample.end_s is not None else video.duration_s
    return read_stretch(path, start_s, end_s, video.frame_rate, processor)


def read_stretch(
    path: Path, start_s: float, end_s: float, frame_rate: float, processor: Processor
) -> Clip:
    """The frames that the processor's rule takes of [start_s, end_s] of a video."""
    times_s = processor.sample_times(start_s, end_s, frame_rate)
    reading_s = processor.reading_times(times_s, frame_rate)
    frames = read_all_frames(path, reading_s, size_px=processor.config.image_size_px).frames
    return Clip(
        question="",
        frames=frames,
        frame_times_s=tuple(times_s[: len(frames)]),
        frame_rate=frame_rate,
    )
