"""MiniGPT4-Video: multimodal LLMs for video with interleaved visual-textual tokens (arXiv 2404.03413).

States encode_img of minigpt4/models/mini_gpt4_llama_v2.py (Vision-CAIR/MiniGPT4-video): MiniGPT-v2's connector on
every frame at 224 px. 16 x 16 = 256 patches -> 64 tokens a frame; 45 frames (Llama-2) 2880, 90 (Mistral) 5760 tokens.
What is new is the layout: each frame's subtitle follows its tokens (mgv/model/prompt.py).
"""

from __future__ import annotations

from mgv.model.systems.base import PublishedDefaults
from mgv.model.systems.minigpt_v2 import MiniGPTv2

UPSTREAM_KEYS = {"llama_proj.": "proj."}
PUBLISHED = PublishedDefaults(
    vision_encoder="eva_clip_g",
    num_frames=45,
    prompt="minigpt4_video",
    generation={"repetition_penalty": 1.5},
)


class MiniGPT4Video(MiniGPTv2):
    """MiniGPT-v2's arithmetic, frame by frame."""
