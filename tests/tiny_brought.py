"""Tiny pipelines of classes that people bring and the table does not have; as `tests.tiny_classes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import SPECIAL, VOCABULARY, sharpen, tokenizer
from tests.tiny_classes import WIDTH, autoencoder, clip_text, flow_scheduler, language_model, save, t5
from tests.tiny_readers import image_processor

VISION_TOKENS = {"image_token": "<image>", "video_token": "<video>"}


def build_cogview4(folder: Path) -> Path:
    """A CogView4Pipeline; it pads to the longest prompt of a batch, and attends to the padding."""
    import diffusers

    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=WIDTH,
        condition_dim=16,
    )
    shifts = {
        "base_shift": 0.25,
        "max_shift": 0.75,
        "use_dynamic_shifting": True,
        "time_shift_type": "linear",
    }
    return save(
        folder,
        "CogView4Pipeline",
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=language_model("GlmModel"),
        tokenizer=tokenizer(max_length=2048),
        scheduler=flow_scheduler(**shifts),
    )


def qwen25_vl(**tokens: int) -> Any:
    """A tiny Qwen2_5_VLForConditionalGeneration, as a text encoder.

    Args:
        tokens: the ids of its special tokens, where they are not the usual ones.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "pad_token_id": SPECIAL["pad"],
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    ids = {
        "image_token_id": SPECIAL["image"],
        "video_token_id": SPECIAL["unk"],
        "vision_start_token_id": SPECIAL["bos"],
        "vision_end_token_id": SPECIAL["eos"],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids | tokens)
    return sharpen(Qwen2_5_VLForConditionalGeneration(config), 4.0)


def qwen_image_parts() -> dict[str, Any]:
    """What draws in a QwenImagePipeline, and in one that edits."""
    import diffusers

    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return {"transformer": transformer, "vae": vae, "scheduler": flow_scheduler()}


def build_qwen_image(folder: Path) -> Path:
    """A QwenImagePipeline."""
    return save(
        folder,
        "QwenImagePipeline",
        text_encoder=qwen25_vl(),
        tokenizer=tokenizer(max_length=2048, ends=False),
        **qwen_image_parts(),
    )


def build_qwen_image_edit(folder: Path) -> Path:
    """A QwenImageEditPipeline: its text encoder sees the image, too. It needs torchvision."""
    import transformers as t

    names = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    words = tokenizer(max_length=2048, ends=False, names=names)
    ids = {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in names.items()}
    seen = image_processor("Qwen2VLImageProcessor", max_pixels=112 * 112, min_pixels=56 * 56)
    return save(
        folder,
        "QwenImageEditPipeline",
        text_encoder=qwen25_vl(**ids),
        tokenizer=words,
        processor=t.Qwen2VLProcessor(seen, words, t.Qwen2VLVideoProcessor(), chat_template="{{ messages }}"),
        **qwen_image_parts(),
    )


def build_pixart_sigma(folder: Path) -> Path:
    """A PixArtSigmaPipeline."""
    import diffusers

    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=32,
        num_layers=2,
        patch_size=2,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=WIDTH,
        out_channels=8,
    )
    return save(
        folder,
        "PixArtSigmaPipeline",
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=t5(),
        tokenizer=tokenizer(max_length=300),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def build_kandinsky5(folder: Path) -> Path:
    """A Kandinsky5T2IPipeline; its images have sizes of its own, which are made smaller here by its parts."""
    import diffusers
    import transformers as t

    words = tokenizer(max_length=2048, ends=False, names=VISION_TOKENS)
    words.padding_side = "right"
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=WIDTH,
        model_dim=WIDTH,
        ff_dim=64,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
    )
    for name, part in transformer.named_modules():
        if name.endswith("modulation.out_layer"):  # zero when new: blocks would do nothing, and see no text
            torch.nn.init.normal_(part.weight, std=0.5)
    return save(
        folder,
        "Kandinsky5T2IPipeline",
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=qwen25_vl(),
        tokenizer=t.Qwen2VLProcessor(
            image_processor("Qwen2VLImageProcessor"),
            words,
            t.Qwen2VLVideoProcessor(),
            chat_template="{{ messages }}",
        ),
        text_encoder_2=clip_text(),
        tokenizer_2=tokenizer(max_length=77),
        scheduler=flow_scheduler(),
    )


BROUGHT = {
    "CogView4": build_cogview4,
    "Qwen-Image": build_qwen_image,
    "PixArt-Sigma": build_pixart_sigma,
    "Kandinsky-5": build_kandinsky5,
}
