"""Folders of models with random bfloat16 weights in real sizes, built from configs; nothing is downloaded.

sd-turbo's pipeline (1.3 B parameters), FLUX.2-klein-4B's (8 B with its text encoder), a captioner of 2 B
(CLIP ViT-L/14-336, a Llama of 28 layers). Tokenizers know bytes alone. `rehearse` builds the same classes in
miniature.

    build("turbo", Path("weights/turbo"), device="cuda", rehearse=False)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests import tiny, tiny_classes
from tests.tiny import SPECIAL, VOCABULARY

TOKENS = {"pad_token_id": SPECIAL["pad"], "bos_token_id": SPECIAL["bos"], "eos_token_id": SPECIAL["eos"]}
WORDS = 512
"""Tokens of the captioner's vocabulary."""


def build(name: str, folder: Path, *, device: str, rehearse: bool) -> Path:
    """Save a model; random numbers are made on `device`, where that is fast."""
    torch.manual_seed(0)
    return BUILDERS[name](folder, device, rehearse)


def _made(device: str, make: Callable[[], Any]) -> Any:
    with torch.device(device):
        return make().to(torch.bfloat16).to("cpu")


def _turbo(folder: Path, device: str, rehearse: bool) -> Path:
    import diffusers
    import transformers

    if rehearse:
        return tiny_classes.build_sd_turbo(folder)
    unet = _made(device, lambda: diffusers.UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024, use_linear_projection=True,
    ))  # fmt: skip
    vae = _made(device, lambda: diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ))  # fmt: skip
    text = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23,
        num_attention_heads=16, projection_dim=512, max_position_embeddings=77, **TOKENS,
    )  # fmt: skip
    return tiny_classes.save(
        folder,
        "StableDiffusionPipeline",
        unet=unet,
        vae=vae,
        text_encoder=_made(device, lambda: transformers.CLIPTextModel(text)),
        tokenizer=tiny.tokenizer(max_length=77),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _klein(folder: Path, device: str, rehearse: bool) -> Path:
    import diffusers
    import transformers

    if rehearse:
        return tiny_classes.build_flux2_klein(folder)
    transformer = _made(device, lambda: diffusers.Flux2Transformer2DModel(
        in_channels=128, num_layers=5, num_single_layers=20, attention_head_dim=128, num_attention_heads=24,
        joint_attention_dim=3 * 2560, guidance_embeds=False,
    ))  # fmt: skip
    text = transformers.Qwen3Config(
        vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True, **TOKENS,
    )  # fmt: skip
    return tiny_classes.save(
        folder,
        "Flux2KleinPipeline",
        transformer=transformer,
        vae=_made(device, diffusers.AutoencoderKLFlux2),
        text_encoder=_made(device, lambda: transformers.Qwen3ForCausalLM(text)),
        tokenizer=tiny_classes.chat_tokenizer(),
        scheduler=tiny_classes.flow_scheduler(),
        is_distilled=True,
    )


def _captioner(folder: Path, device: str, rehearse: bool) -> Path:
    """One that never ends by itself, so that every caption takes as long, and that writes letters alone."""
    import transformers as t

    size, patch = (32, 8) if rehearse else (336, 14)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2}  # fmt: skip
    if not rehearse:
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                  "num_attention_heads": 16}  # fmt: skip
        text = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 28,
                "num_attention_heads": 32, "num_key_value_heads": 8}  # fmt: skip
    patches = (size // patch) ** 2
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(image_size=size, patch_size=patch, **vision),
        text_config=t.LlamaConfig(vocab_size=max(WORDS, VOCABULARY), max_position_embeddings=2048, **text,
                                  **{**TOKENS, "eos_token_id": None}),
        image_token_index=SPECIAL["image"], image_seq_length=patches,
    )  # fmt: skip
    model = _made(device, lambda: t.LlavaForConditionalGeneration(config))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = SPECIAL["pad"]
    words = tiny.tokenizer(max_length=2048, ends=False)
    unseen = [token for token in range(WORDS) if not words.decode([token], skip_special_tokens=True).strip()]
    model.generation_config.suppress_tokens = unseen  # a caption without a letter is refused
    model.save_pretrained(folder)
    square = {"height": size, "width": size}
    t.LlavaProcessor(
        t.CLIPImageProcessor(size=square, crop_size=square),
        words,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder


CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant:{% endif %}"
)
BUILDERS: dict[str, Callable[[Path, str, bool], Path]] = {
    "turbo": _turbo,
    "klein": _klein,
    "captioner": _captioner,
}
