"""Sampling: which frames of a video a model looks at: the published rules. (Evenly: mgv.media.frames.frame_times.)"""

from __future__ import annotations


def even_subset(num_given: int, num_kept: int) -> list[int]:
    """num_kept of num_given positions, evenly spread: the middles of equal parts."""
    return [int((i + 0.5) * num_given / num_kept) for i in range(num_kept)]


def floor_step_indices(num_source_frames: int, max_frames: int) -> list[int]:
    """MiniGPT4-Video: every step-th frame from the first, step = floor(total / max), at most max of them.

    As extract_video_info and match_frames_and_subtitles in minigpt4_video_inference.py. Flooring the step loses the
    tail: 89 frames at 45 cover half of the video.
    """
    step = max(1, num_source_frames // max_frames)
    return list(range(0, num_source_frames, step))[:max_frames]


def linspace_indices(num_source_frames: int, num_frames: int = 8) -> list[int]:
    """Video-LLaVA: numpy's linspace(0, n - 1, num_frames, dtype=int), the last frame included.

    As load_and_transform_video in languagebind/video/processing_video.py.
    """
    import numpy as np

    return [int(i) for i in np.linspace(0, num_source_frames - 1, num_frames, dtype=int)]


def per_second_indices(num_source_frames: int, frame_rate: float) -> list[int]:
    """LLaMA-VID: every round(frame_rate)-th frame, about one a second (load_video in eval/model_msvd_qa.py)."""
    return list(range(0, num_source_frames, max(1, round(frame_rate))))
