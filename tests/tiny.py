"""Tiny real models, built offline and saved to a folder in well under a second.

Each `build_...(folder, seed=0)` writes what `save_pretrained` writes, so that the adapters load it like any
downloaded model. The weights are random but scaled up: fresh random models are nearly blind to their input.

    from tests import tiny
    tiny.build_stable_diffusion(tmp_path / "sd")     # then use "local:.../sd" in a network
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 300
SPECIAL = {"pad": 0, "bos": 1, "unk": 2, "eos": 3, "image": 4}  # CLIP reads an eos of 2 as "old model"
_CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant:{% endif %}"
)


def tokenizer(*, max_length: int = 64, ends: bool = True, names: dict[str, str] | None = None) -> Any:
    """A byte-level BPE tokenizer. `ends`: it adds <s> and </s>; `names`: special tokens by name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "<unk>", "</s>", "<image>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*special, *letters, *(names or {}).values()])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if ends:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", SPECIAL["bos"]), ("</s>", SPECIAL["eos"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=names or ["<image>"],
        model_max_length=max_length,
    )


def sharpen(model: torch.nn.Module, factor: float = 6.0) -> torch.nn.Module:
    """Scale the weight matrices so that outputs depend visibly on inputs."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(factor)
    return model


def _text_encoder_config(max_length: int) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=37,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=max_length,
        bos_token_id=SPECIAL["bos"],
        eos_token_id=SPECIAL["eos"],
        pad_token_id=SPECIAL["pad"],
    )


def build_stable_diffusion(
    folder: Path, seed: int = 0, *, scheduler: str = "DDIMScheduler", **scheduler_options: Any
) -> Path:
    """A StableDiffusionPipeline of 64x64 pixels, about 1.2 MB."""
    import diffusers
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    options = {"beta_schedule": "scaled_linear", "steps_offset": 1, **scheduler_options}
    if scheduler in ("DDIMScheduler", "DDPMScheduler"):
        options["clip_sample"] = False
    pipeline = diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=sharpen(CLIPTextModel(_text_encoder_config(77)), 10.0),
        tokenizer=tokenizer(max_length=77),
        scheduler=getattr(diffusers, scheduler)(**options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def build_flux(folder: Path, seed: int = 0, **scheduler_options: Any) -> Path:
    """A FluxPipeline: it gives its generators to the latents, but not to `scheduler.step`."""
    import diffusers
    from transformers import CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(seed)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    t5 = T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    diffusers.FluxPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=sharpen(CLIPTextModel(_text_encoder_config(77)), 10.0),
        text_encoder_2=sharpen(T5EncoderModel(t5), 10.0),
        tokenizer=tokenizer(max_length=77),
        tokenizer_2=tokenizer(max_length=77),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler_options),
    ).save_pretrained(folder)
    return folder


def _image_processor(kind: str, size: int, **options: Any) -> Any:
    import transformers

    square = {"height": size, "width": size}
    return getattr(transformers, kind)(size=square, **options)


def build_blip(folder: Path, seed: int = 0) -> Path:
    """A BlipForConditionalGeneration of 32x32 pixels."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor

    torch.manual_seed(seed)
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 37,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": SPECIAL["bos"],
        "eos_token_id": SPECIAL["eos"],
        "sep_token_id": SPECIAL["eos"],
        "pad_token_id": SPECIAL["pad"],
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "initializer_range": 0.2,  # the default of 1e-10 makes image features vanish
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    sharpen(model.text_decoder)
    model.decoder_input_ids = SPECIAL["bos"]
    model.save_pretrained(folder)
    BlipProcessor(_image_processor("BlipImageProcessor", 32), tokenizer()).save_pretrained(folder)
    return folder


def build_git(folder: Path, seed: int = 0) -> Path:
    """A GitForCausalLM of 32x32 pixels."""
    from transformers import GitConfig, GitForCausalLM, GitProcessor

    torch.manual_seed(seed)
    config = GitConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 37,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=64,
        bos_token_id=SPECIAL["bos"],
        eos_token_id=SPECIAL["eos"],
        pad_token_id=SPECIAL["pad"],
    )
    sharpen(GitForCausalLM(config)).save_pretrained(folder)
    processor = _image_processor("CLIPImageProcessor", 32, crop_size={"height": 32, "width": 32})
    GitProcessor(processor, tokenizer(ends=False)).save_pretrained(folder)
    return folder


def build_vision_encoder_decoder(folder: Path, seed: int = 0) -> Path:
    """A ViT + GPT-2 VisionEncoderDecoderModel, saved without a processor of its own."""
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
    )

    torch.manual_seed(seed)
    encoder = ViTConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    decoder = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=SPECIAL["bos"],
        eos_token_id=SPECIAL["eos"],
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = SPECIAL["bos"]
    config.pad_token_id = SPECIAL["pad"]
    sharpen(VisionEncoderDecoderModel(config), 10.0).save_pretrained(folder)
    _image_processor("ViTImageProcessor", 32).save_pretrained(folder)
    tokenizer(ends=False).save_pretrained(folder)
    return folder


def build_llava(folder: Path, seed: int = 0) -> Path:
    """A LLaVA chat model (CLIP vision, Llama text) of 32x32 pixels with a chat template."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=SPECIAL["bos"],
        eos_token_id=SPECIAL["eos"],
        pad_token_id=SPECIAL["pad"],
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=SPECIAL["image"], image_seq_length=16
    )
    sharpen(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    processor = LlavaProcessor(
        _image_processor("CLIPImageProcessor", 32, crop_size={"height": 32, "width": 32}),
        tokenizer(max_length=256, ends=False),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=_CHAT,
    )
    processor.save_pretrained(folder)
    return folder


def build_sentence_bert(
    folder: Path, seed: int = 0, *, pooling: str = "pooling_mode_mean_tokens", dense: bool = False
) -> Path:
    """A BertModel with sentence-transformers' files around it, 120 kB."""
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=128,
    )
    modules = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    modes = ("pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_lasttoken")
    words, chosen = tokenizer(max_length=128), {mode: mode == pooling for mode in modes}
    save_sentences(folder, sharpen(BertModel(config)), words, modules, chosen)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 100})
    if dense:
        activation = "torch.nn.modules.activation.Tanh"
        layer = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": activation}
        _write(folder / "2_Dense/config.json", layer)
        weights = {"linear.weight": torch.randn(8, 32), "linear.bias": torch.randn(8)}
        save_file(weights, folder / "2_Dense/model.safetensors")
    return folder


def save_sentences(folder: Path, model: Any, words: Any, modules: list[str], pooling: dict[str, Any]) -> Path:
    """Save an encoder with the files of sentence-transformers around it."""
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    listed = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(modules)
    ]
    _write(folder / "modules.json", listed)
    _write(folder / "1_Pooling/config.json", pooling)
    return folder


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def build_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIPModel of 32x32 pixels and 77 tokens."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPVisionConfig

    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    config = CLIPConfig(
        text_config=_text_encoder_config(77).to_dict(), vision_config=vision.to_dict(), projection_dim=32
    )
    sharpen(CLIPModel(config)).save_pretrained(folder)
    processor = _image_processor("CLIPImageProcessor", 32, crop_size={"height": 32, "width": 32})
    CLIPProcessor(processor, tokenizer(max_length=77)).save_pretrained(folder)
    return folder


def build_siglip(folder: Path, seed: int = 0) -> Path:
    """A SiglipModel of 32x32 pixels and 64 tokens."""
    from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig

    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "bos_token_id": SPECIAL["bos"],
        "eos_token_id": SPECIAL["eos"],
        "pad_token_id": SPECIAL["pad"],
        **shape,
    }
    vision = SiglipVisionConfig(image_size=32, patch_size=8, **shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a fan of zero in its initialisation
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision.to_dict()))
    sharpen(model).save_pretrained(folder)
    _image_processor("SiglipImageProcessor", 32).save_pretrained(folder)
    tokenizer(max_length=64).save_pretrained(folder)
    return folder


def build_dinov2(folder: Path, seed: int = 0) -> Path:
    """A Dinov2Model of 32x32 pixels."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        mlp_ratio=2,
        image_size=32,
        patch_size=8,
    )
    sharpen(Dinov2Model(config)).save_pretrained(folder)
    processor = _image_processor("BitImageProcessor", 32, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder


BUILDERS = {
    "stable-diffusion": build_stable_diffusion,
    "flux": build_flux,
    "blip": build_blip,
    "git": build_git,
    "vision-encoder-decoder": build_vision_encoder_decoder,
    "llava": build_llava,
    "sentence-bert": build_sentence_bert,
    "clip": build_clip,
    "siglip": build_siglip,
    "dinov2": build_dinov2,
}
