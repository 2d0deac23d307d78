"""The architectures of the pocket pair, freshly initialised, in the standard classes.

Two sizes: `pocket` is what the package ships, `tiny` is for tests.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from panic.pocket import folder
from panic.pocket.scene import SIDE
from panic.pocket.tokens import MAX_TOKENS, build
from panic.pocket.world import examples

# Zero terminal SNR decides between success and failure on small flat pictures: with the usual betas the
# mean colour stays visible at the last step and sampling from pure noise ignores the prompt.
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    # StableDiffusionPipeline insists on clip_sample off; thresholding at 1 is the same clipping.
    "clip_sample": False,
    "thresholding": True,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
}
_UNET: dict[str, dict[str, Any]] = {
    "pocket": {"block_out_channels": (64, 96)},
    "tiny": {"block_out_channels": (16, 16)},
}
_DECODER = {"pocket": 24, "tiny": 8}
_CAPTIONER: dict[str, dict[str, Any]] = {
    "pocket": {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4},
    "tiny": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2},
}
_CAPTIONER_LAYERS = {"pocket": (4, 2), "tiny": (1, 1)}
_TEXT: dict[str, dict[str, Any]] = {
    "pocket": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
    "tiny": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
}


@cache
def tokenizer() -> Any:
    """The shipped tokenizer, or where there is none yet, one learnt on 4,000 training captions."""
    from transformers import AutoTokenizer

    shipped = folder("PocketDiffusion") / "tokenizer"
    if shipped.exists():
        return AutoTokenizer.from_pretrained(shipped)
    return build([example.caption for example in examples("train", 4000, 7)])


def unet(size: str, seed: int) -> Any:
    """A UNet on 16x16x12: a 32x32 picture folded 2x2, half the cost of 32x32x3 at the same parameters."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=12,
        out_channels=12,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_TEXT[size]["hidden_size"],
        attention_head_dim=2,  # diffusers means the number of heads
        norm_num_groups=16,
        **_UNET[size],
    )


def text_encoder(size: str, seed: int) -> Any:
    """A small causal CLIP text encoder."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = tokenizer()
    torch.manual_seed(seed + 1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
            **_TEXT[size],
        )
    )


def autoencoder(size: str, seed: int) -> Any:
    """Between 64x64x3 pictures and the UNet's 16x16x12: `decode` sharpens, `encode` shrinks and folds."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed + 3)
    width = _DECODER[size]
    return AutoencoderTiny(
        latent_channels=12,
        encoder_block_out_channels=(16,) * 3,
        decoder_block_out_channels=(width,) * 3,
        num_encoder_blocks=(0, 1, 1),
        num_decoder_blocks=(2, 1, 1),
        scaling_factor=1.0,
    )


def captioner(size: str, seed: int) -> Any:
    """A small BLIP: a vision transformer on 8x8 patches, a causal decoder that looks at it."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    tokens = tokenizer()
    torch.manual_seed(seed + 2)
    seeing, speaking = _CAPTIONER_LAYERS[size]
    width = _CAPTIONER[size]["hidden_size"]
    config = BlipConfig(
        vision_config=dict(
            image_size=SIDE,
            patch_size=8,
            num_hidden_layers=seeing,
            initializer_range=0.02,  # BLIP's default of 1e-10 makes the picture vanish
            **_CAPTIONER[size],
        ),
        text_config=dict(
            vocab_size=len(tokens),
            encoder_hidden_size=width,
            num_hidden_layers=speaking,
            max_position_embeddings=MAX_TOKENS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            label_smoothing=0.0,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            sep_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
            **_CAPTIONER[size],
        ),
        projection_dim=width,
        image_text_hidden_size=width,
    )
    model = BlipForConditionalGeneration(config)
    model.generation_config.update(
        max_new_tokens=MAX_TOKENS - 2,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return model


def processor() -> Any:
    """The captioner's processor: 64x64 pictures scaled to [-1, 1], and the tokenizer."""
    from transformers import BlipImageProcessor, BlipProcessor

    images = BlipImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return BlipProcessor(images, tokenizer())
