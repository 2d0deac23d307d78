"""Tiny pipelines of the real diffusers classes, built offline and saved: what the table's entries load.

Each `build_...(folder)` writes what `save_pretrained` of the real class writes, with random weights that are
scaled up where a fresh model is blind to its prompt. Sizes are multiples of 8 or more, because kernels treat
others differently at the end of a row: those are not representative.

    from tests import tiny_classes
    tiny_classes.build_lumina2(tmp_path / "lumina")     # then use "local:.../lumina" in a network
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import SPECIAL, VOCABULARY, sharpen, tokenizer

WIDTH = 32
CHAT = (
    "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant{% endif %}"
)


def save(folder: Path, pipeline: str, **parts: Any) -> Path:
    """Save a pipeline made of its parts."""
    import diffusers

    getattr(diffusers, pipeline)(**parts).save_pretrained(folder)
    return folder


def chat_tokenizer(max_length: int = 2048) -> Any:
    """A tokenizer with a chat template."""
    found = tokenizer(max_length=max_length, ends=False)
    found.chat_template = CHAT
    return found


def language_model(kind: str, **more: Any) -> Any:
    """A tiny model of a transformers class, such as "Gemma2Model", that depends visibly on its text."""
    import transformers

    model = getattr(transformers, kind)
    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "bos_token_id": SPECIAL["bos"],
        "eos_token_id": SPECIAL["eos"],
        "pad_token_id": SPECIAL["pad"],
    }
    return sharpen(model(model.config_class(**{**config, **more})), 4.0)


def clip_text(kind: str = "CLIPTextModel") -> Any:
    """A tiny text encoder of CLIP with 77 tokens."""
    return language_model(kind, max_position_embeddings=77, projection_dim=WIDTH)


def t5(width: int = WIDTH) -> Any:
    """A tiny T5 encoder."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=VOCABULARY, d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return sharpen(T5EncoderModel(config), 4.0)


def autoencoder(blocks: int = 4, channels: int = 4, kind: str = "AutoencoderKL", **more: Any) -> Any:
    """A tiny autoencoder that halves an image `blocks` - 1 times."""
    import diffusers

    return getattr(diffusers, kind)(
        block_out_channels=(8,) * blocks,
        layers_per_block=1,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        norm_num_groups=4,
        **more,
    )


def flow_autoencoder() -> Any:
    """The autoencoder of models that match flows."""
    plain = {"use_quant_conv": False, "use_post_quant_conv": False}
    return autoencoder(shift_factor=0.06, scaling_factor=1.5, **plain)


def flow_scheduler(**more: Any) -> Any:
    """The scheduler of models that match flows."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**more)


def _unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
        **more,
    )


def build_sd_turbo(folder: Path) -> Path:
    """A StableDiffusionPipeline with Euler steps, as sd-turbo has."""
    from diffusers import EulerDiscreteScheduler

    return save(
        folder,
        "StableDiffusionPipeline",
        unet=_unet(cross_attention_dim=WIDTH),
        vae=autoencoder(),
        text_encoder=clip_text(),
        tokenizer=tokenizer(max_length=77),
        scheduler=EulerDiscreteScheduler(timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_sdxl(folder: Path) -> Path:
    """A StableDiffusionXLPipeline with ancestral Euler steps, as sdxl-turbo has."""
    from diffusers import EulerAncestralDiscreteScheduler

    unet = _unet(
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return save(
        folder,
        "StableDiffusionXLPipeline",
        unet=unet,
        vae=autoencoder(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text("CLIPTextModelWithProjection"),
        tokenizer=tokenizer(max_length=77),
        tokenizer_2=tokenizer(max_length=77),
        scheduler=EulerAncestralDiscreteScheduler(timestep_spacing="trailing"),
        add_watermarker=False,
    )


def build_flux_schnell(folder: Path) -> Path:
    """A FluxPipeline without guidance embedding, as FLUX.1-schnell is: CLIP reads 77 tokens, T5 more."""
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=False,
    )
    return save(
        folder,
        "FluxPipeline",
        transformer=transformer,
        vae=flow_autoencoder(),
        text_encoder=clip_text(),
        tokenizer=tokenizer(max_length=77),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(max_length=512),
        scheduler=flow_scheduler(),
    )


def build_flux2_klein(folder: Path) -> Path:
    """A Flux2KleinPipeline: three of its text encoder's layers are read, the last of them the 27th."""
    import diffusers

    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    return save(
        folder,
        "Flux2KleinPipeline",
        transformer=transformer,
        vae=autoencoder(kind="AutoencoderKLFlux2"),
        text_encoder=language_model("Qwen3ForCausalLM", num_hidden_layers=28),
        tokenizer=chat_tokenizer(),
        scheduler=flow_scheduler(),
        is_distilled=True,
    )


def build_z_image(folder: Path) -> Path:
    """A ZImagePipeline."""
    import diffusers

    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=WIDTH,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 128, 128],
    )
    with torch.no_grad():  # its paddings are made without values
        transformer.x_pad_token.normal_()
        transformer.cap_pad_token.normal_()
    return save(
        folder,
        "ZImagePipeline",
        transformer=transformer,
        vae=flow_autoencoder(),
        text_encoder=language_model("Qwen3Model"),
        tokenizer=chat_tokenizer(),
        scheduler=flow_scheduler(),
    )


def build_sana_sprint(folder: Path) -> Path:
    """A SanaSprintPipeline."""
    import diffusers

    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=16,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=32,  # it draws squares of 1024 pixels, and makes them smaller
        qk_norm="rms_norm_across_heads",
        guidance_embeds=True,
    )
    blocks = (*("ResBlock",) * 5, "EfficientViTBlock")
    scales = (*((),) * 5, (5,))
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8,) * 6,
        decoder_block_out_channels=(8,) * 6,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.4,
    )
    return save(
        folder,
        "SanaSprintPipeline",
        transformer=transformer,
        vae=vae,
        text_encoder=language_model("Gemma2Model"),
        tokenizer=tokenizer(max_length=2048),
        scheduler=diffusers.SCMScheduler(),
    )


def build_sd3(folder: Path, *, has_t5: bool = True) -> Path:
    """A StableDiffusion3Pipeline with its three text encoders, or without the third."""
    import diffusers

    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_projection_dim=WIDTH,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
    )
    return save(
        folder,
        "StableDiffusion3Pipeline",
        transformer=transformer,
        vae=flow_autoencoder(),
        text_encoder=clip_text("CLIPTextModelWithProjection"),
        text_encoder_2=clip_text("CLIPTextModelWithProjection"),
        text_encoder_3=t5(2 * WIDTH) if has_t5 else None,
        tokenizer=tokenizer(max_length=77),
        tokenizer_2=tokenizer(max_length=77),
        tokenizer_3=tokenizer(max_length=512) if has_t5 else None,
        scheduler=flow_scheduler(shift=3.0),
    )


def build_lumina2(folder: Path) -> Path:
    """A Lumina2Pipeline; its transformer pads to the longest prompt of a batch."""
    import diffusers

    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        hidden_size=WIDTH,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(8, 4, 4),
        axes_lens=(300, 128, 128),
        cap_feat_dim=WIDTH,
    )
    return save(
        folder,
        "Lumina2Pipeline",
        transformer=transformer,
        vae=flow_autoencoder(),
        text_encoder=language_model("Gemma2Model"),
        tokenizer=tokenizer(max_length=2048),
        scheduler=flow_scheduler(),
    )


DRAWING = {
    "sd-turbo": build_sd_turbo,
    "sdxl-turbo": build_sdxl,
    "FLUX.1-schnell": build_flux_schnell,
    "FLUX.2-klein-4B": build_flux2_klein,
    "Z-Image-Turbo": build_z_image,
    "SANA-Sprint-0.6B": build_sana_sprint,
    "SANA-Sprint-1.6B": build_sana_sprint,
    "SD3.5-medium": build_sd3,
    "Lumina-Image-2.0": build_lumina2,
}
"""By entry of the table."""
