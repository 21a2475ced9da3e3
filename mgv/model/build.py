"""Building: a model and its Processor from the names of their parts. What is not given is as published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mgv.encoders.vision import build_vision_encoder
from mgv.model.language import load_language_model, load_question_tokenizer
from mgv.model.processor import LIMITS, Mode, Processor, ProcessorConfig
from mgv.model.systems import CONNECTORS, build_connector, published
from mgv.model.video_llm import VideoLLM, VideoLLMConfig


def build_video_llm(
    connector: str,
    *,
    vision_encoder: str | None = None,
    vision_pretrained: str = "random",
    vision_options: dict[str, Any] | None = None,
    language_model: str = "random",
    connector_options: dict[str, Any] | None = None,
    **language_options: Any,
) -> tuple[VideoLLM, Any]:
    """The model in evaluation mode, and the language model's tokenizer. language_options: see load_language_model."""
    defaults = published(connector)
    name = vision_encoder or defaults.vision_encoder
    options = vision_defaults(connector, name, vision_pretrained) | (vision_options or {})
    encoder = build_vision_encoder(name, vision_pretrained, **options)
    language, tokenizer = load_language_model(language_model, **language_options)
    place = language.get_input_embeddings().weight
    if connector_options is None:
        connector_options = defaults.tiny_options if language_model == "random" else {}
    part = build_connector(connector, encoder.spec, place.shape[1], **connector_options)
    config = VideoLLMConfig(
        vision_encoder={"name": name, "pretrained": vision_pretrained, "options": options},
        connector={"name": connector, "options": connector_options},
        language_model={"pretrained": language_model},
    )
    on_gpu = place.device.type != "cpu" and place.is_floating_point()
    encoder.to(
        place.device, place.dtype if on_gpu else None
    )  # half-precision convolutions crawl on a CPU
    part.to(place.device)
    return VideoLLM(config, encoder, part, language).eval(), tokenizer


def vision_defaults(connector: str, vision_encoder: str, pretrained: str) -> dict[str, Any]:
    """The options that the system was published with, where its own vision encoder is used."""
    defaults = published(connector)
    if vision_encoder != defaults.vision_encoder:
        return {}
    options = dict(defaults.vision_options)
    if pretrained == "random":
        options.pop("image_size_px", None)
    return options


def build_processor(
    model: VideoLLM,
    tokenizer: Any,
    *,
    mode: Mode = "corrected",
    chat: str | None = None,
    num_frames: int | None = None,
    max_new_tokens: int | None = None,
) -> Processor:
    """The Processor of a model. The starter's language model is spoken to by its own chat template."""
    pretrained = model.config.language_model["pretrained"]
    config = processor_config(
        model.config.connector["name"],
        tokens_per_frame=model.connector.tokens_per_frame,
        pixels=model.vision_encoder.pixels,
        image_size_px=model.vision_encoder.image_size_px,
        language_config=model.language_model.config,
        mode=mode,
        chat=chat or ("tokenizer" if pretrained == "starter" else None),
        num_frames=num_frames,
        max_new_tokens=max_new_tokens,
    )
    questions = "random" if pretrained == "random" else "starter"
    return Processor(
        config, tokenizer, load_question_tokenizer(questions) if config.reads_question else None
    )


def processor_config(
    connector: str,
    *,
    tokens_per_frame: int,
    pixels: str,
    image_size_px: int,
    language_config: Any,
    mode: Mode = "corrected",
    chat: str | None = None,
    num_frames: int | None = None,
    max_new_tokens: int | None = None,
) -> ProcessorConfig:
    """The published limits, within what the language model reads."""
    is_mistral = connector == "minigpt4_video" and language_config.model_type == "mistral"
    limits = LIMITS["minigpt4_video_mistral" if is_mistral else connector]
    context_tokens = language_config.max_position_embeddings
    return ProcessorConfig(
        prompt=published(connector).prompt,
        tokens_per_frame=tokens_per_frame,
        pixels=pixels,
        image_size_px=image_size_px,
        context_tokens=context_tokens,
        mode=mode,
        chat=chat,
        limits=replace(limits, num_frames=num_frames) if num_frames else limits,
        max_new_tokens=max_new_tokens or min(512, context_tokens // 8),
        reads_question=CONNECTORS[connector][0].reads_question,
    )
