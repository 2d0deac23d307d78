"""Tiny captioners and embedding models of the real transformers classes, built offline and saved.

As `tests.tiny_classes`, for what reads images and texts. SmolVLM2, Qwen3-VL and InternVL need the extra `vlm`
to be built and loaded, because their processors bring one for videos.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tests.tiny import SPECIAL, VOCABULARY, save_sentences, sharpen, tokenizer
from tests.tiny_classes import WIDTH, language_model

NEEDS_VLM = {
    *("SmolVLM2-256M", "SmolVLM2-500M", "SmolVLM2-2.2B", "Qwen3-VL-2B", "Qwen3-VL-4B", "InternVL"),
    "Kandinsky-5",
}
"""These need torchvision and num2words."""
_VISION: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_TEXT: dict[str, Any] = {
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


def chat_template(image: str) -> str:
    """A chat template with these tokens in the place of an image."""
    return (
        "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )


def named_tokenizer(**names: str) -> Any:
    """A tokenizer with special tokens that its processor asks for by name: image_token="<image>"."""
    return tokenizer(max_length=4096, ends=False, names=names)


def image_processor(kind: str, **options: Any) -> Any:
    """An image processor of the back end that is here."""
    import transformers

    found = getattr(transformers, kind, None) or getattr(transformers, f"{kind}Pil")
    return found(**options)


def build_blip2(folder: Path) -> Path:
    """A Blip2ForConditionalGeneration with an OPT decoder."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor

    text = {
        "model_type": "opt",
        **{key: value for key, value in _TEXT.items() if "head" not in key and key != "intermediate_size"},
        "ffn_dim": 64,
        "num_attention_heads": 2,
        "word_embed_proj_dim": WIDTH,
        "max_position_embeddings": 256,
    }
    qformer = {**_VISION, "vocab_size": VOCABULARY, "encoder_hidden_size": WIDTH}
    config = Blip2Config(
        vision_config={**_VISION, "initializer_range": 0.2},
        qformer_config={
            key: value for key, value in qformer.items() if key not in ("image_size", "patch_size")
        },
        text_config=text,
        num_query_tokens=8,
        image_token_index=SPECIAL["image"],
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)  # fresh ones are zero, and see nothing
    sharpen(model, 4.0).save_pretrained(folder)
    pixels = image_processor("BlipImageProcessor", size={"height": 32, "width": 32})
    Blip2Processor(pixels, tokenizer(max_length=256, ends=False), num_query_tokens=8).save_pretrained(folder)
    return folder


def build_florence2(folder: Path) -> Path:
    """A Florence2ForConditionalGeneration (DaViT, BART)."""
    from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

    vision = {
        "depths": (1, 1, 1, 1),
        "embed_dim": (16, 16, 16, 32),
        "num_heads": (2, 2, 2, 2),
        "num_groups": (2, 2, 2, 2),
        "window_size": 4,
        "projection_dim": WIDTH,
    }
    text = {
        "model_type": "bart",
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 256,
        "bos_token_id": SPECIAL["bos"],
        "eos_token_id": SPECIAL["eos"],
        "pad_token_id": SPECIAL["pad"],
        "decoder_start_token_id": SPECIAL["eos"],
        "forced_eos_token_id": SPECIAL["eos"],
    }
    config = Florence2Config(
        vision_config=vision,
        text_config={**text, "tie_word_embeddings": False},  # tied ones say what they heard last: the start
        image_token_id=SPECIAL["image"],
        tie_word_embeddings=False,
    )
    sharpen(Florence2ForConditionalGeneration(config), 4.0).save_pretrained(folder)
    square = {"height": 64, "width": 64}
    pixels = image_processor("CLIPImageProcessor", size=square, crop_size=square)
    pixels.image_seq_length = 4 + 1  # 64 pixels / 32, and their mean
    words = tokenizer(max_length=256, names={"image_token": "<image>"})
    Florence2Processor(pixels, words).save_pretrained(folder)
    return folder


def build_smolvlm(folder: Path) -> Path:
    """A SmolVLMForConditionalGeneration; it cuts images into pieces of 32x32 pixels."""
    import transformers as t

    names = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
        "video_token": "<video>",
    }
    config = t.SmolVLMConfig(
        vision_config=_VISION,
        text_config={"model_type": "llama", **_TEXT},
        image_token_id=SPECIAL["image"],
        scale_factor=2,
        pad_token_id=SPECIAL["pad"],
    )
    sharpen(t.SmolVLMForConditionalGeneration(config), 4.0).save_pretrained(folder)
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    t.SmolVLMProcessor(
        image_processor("SmolVLMImageProcessor", **sizes),
        named_tokenizer(**names),
        t.SmolVLMVideoProcessor(**sizes),
        image_seq_len=4,
        chat_template=chat_template("<image>"),
    ).save_pretrained(folder)
    return folder


def build_qwen3_vl(folder: Path) -> Path:
    """A Qwen3VLForConditionalGeneration; it sees every image at its own size."""
    import transformers as t

    names = {
        "image_token": "<image>",
        "video_token": "<video>",
        "vision_start_token": "<vision_start>",
        "vision_end_token": "<vision_end>",
    }
    words = named_tokenizer(**names)
    ids = {name: words.convert_tokens_to_ids(token) for name, token in names.items()}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    config = t.Qwen3VLConfig(
        text_config={**_TEXT, "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_start_token"],
        vision_end_token_id=ids["vision_end_token"],
    )
    sharpen(t.Qwen3VLForConditionalGeneration(config), 4.0).save_pretrained(folder)
    sizes = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}}
    t.Qwen3VLProcessor(
        image_processor("Qwen2VLImageProcessor", **sizes),
        words,
        t.Qwen3VLVideoProcessor(**sizes),
        chat_template=chat_template("<vision_start><image><vision_end>"),
    ).save_pretrained(folder)
    return folder


def build_paligemma(folder: Path) -> Path:
    """A PaliGemmaForConditionalGeneration (SigLIP, Gemma)."""
    import transformers as t

    words = named_tokenizer(image_token="<image>")
    pixels = image_processor("SiglipImageProcessor", size={"height": 32, "width": 32})
    pixels.image_seq_length = 16
    t.PaliGemmaProcessor(pixels, words).save_pretrained(folder)
    config = t.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **_VISION, "projection_dim": WIDTH},
        text_config={"model_type": "gemma", **_TEXT, "vocab_size": len(words), "tie_word_embeddings": False},
        image_token_index=words.image_token_id,
        vocab_size=len(words),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        tie_word_embeddings=False,
        pad_token_id=SPECIAL["pad"],
    )
    sharpen(t.PaliGemmaForConditionalGeneration(config), 4.0).save_pretrained(folder)
    return folder


def build_internvl(folder: Path) -> Path:
    """An InternVLForConditionalGeneration; it cuts images into pieces of 32x32 pixels."""
    import transformers as t

    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<image>",
        "video_token": "<video>",
    }
    config = t.InternVLConfig(
        vision_config={**_VISION, "image_size": (32, 32), "patch_size": (8, 8)},
        text_config={"model_type": "qwen2", **_TEXT},
        image_token_id=SPECIAL["image"],
        image_seq_length=4,
    )
    sharpen(t.InternVLForConditionalGeneration(config), 4.0).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    t.InternVLProcessor(
        image_processor("GotOcr2ImageProcessor", size=square, crop_to_patches=True, max_patches=4),
        named_tokenizer(**names),
        t.InternVLVideoProcessor(size=square),
        image_seq_length=4,
        chat_template=chat_template("<image>\n"),
    ).save_pretrained(folder)
    return folder


def build_gemma3(folder: Path) -> Path:
    """A Gemma3ForConditionalGeneration (SigLIP, Gemma 3)."""
    import transformers as t

    words = named_tokenizer(image_token="<image>", boi_token="<boi>", eoi_token="<eoi>")
    config = t.Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", **_VISION},
        text_config={**_TEXT, "query_pre_attn_scalar": 16, "sliding_window": 64},
        mm_tokens_per_image=4,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        image_token_index=words.image_token_id,
    )
    model = t.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # fresh ones are zero
    sharpen(model, 4.0).save_pretrained(folder)
    t.Gemma3Processor(
        image_processor("Gemma3ImageProcessor", size={"height": 32, "width": 32}),
        words,
        chat_template=chat_template("<boi>"),
        image_seq_length=4,
    ).save_pretrained(folder)
    return folder


def build_mpnet(folder: Path) -> Path:
    """An MPNetModel with mean pooling."""
    text = {key: value for key, value in _TEXT.items() if key not in ("num_key_value_heads", "head_dim")}
    model = language_model("MPNetModel", **{**text, "max_position_embeddings": 514})
    words = tokenizer(max_length=512)
    return save_sentences(
        folder, model, words, ["Transformer", "Pooling", "Normalize"], {"pooling_mode_mean_tokens": True}
    )


def build_minilm(folder: Path) -> Path:
    """A BertModel with mean pooling."""
    model = language_model("BertModel", max_position_embeddings=512)
    words = tokenizer(max_length=512)
    return save_sentences(
        folder, model, words, ["Transformer", "Pooling", "Normalize"], {"pooling_mode_mean_tokens": True}
    )


def build_sentences_without_ends(folder: Path) -> Path:
    """A BertModel whose tokenizer adds nothing to a text: an empty one has no tokens."""
    model = language_model("BertModel", max_position_embeddings=512)
    words = tokenizer(max_length=512, ends=False)
    return save_sentences(
        folder, model, words, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True}
    )


def build_qwen3_embedding(folder: Path) -> Path:
    """A Qwen3Model with last-token pooling."""
    words = tokenizer(max_length=2048)
    words.padding_side = "left"  # as it is saved; the adapter pads on the right
    return save_sentences(
        folder,
        language_model("Qwen3Model"),
        words,
        ["Transformer", "Pooling", "Normalize"],
        {"pooling_mode_lasttoken": True},
    )


def build_embedding_gemma(folder: Path) -> Path:
    """A Gemma3TextModel that attends in both directions, with two dense layers."""
    from safetensors.torch import save_file

    model = language_model(
        "Gemma3TextModel", use_bidirectional_attention=True, query_pre_attn_scalar=16, sliding_window=64
    )
    for place in (2, 3):
        dense = folder / f"{place}_Dense"
        dense.mkdir(parents=True)
        activation = "torch.nn.modules.linear.Identity"
        layer = {
            "in_features": WIDTH,
            "out_features": WIDTH,
            "bias": False,
            "activation_function": activation,
        }
        (dense / "config.json").write_text(json.dumps(layer), encoding="utf-8")
        save_file({"linear.weight": torch.randn(WIDTH, WIDTH)}, dense / "model.safetensors")
    modules = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    return save_sentences(
        folder, model, tokenizer(max_length=2048), modules, {"pooling_mode_mean_tokens": True}
    )


def build_nomic(folder: Path) -> Path:
    """A NomicBertModel with mean pooling."""
    return save_sentences(
        folder,
        language_model("NomicBertModel"),
        tokenizer(max_length=2048),
        ["Transformer", "Pooling"],
        {"pooling_mode_mean_tokens": True},
    )


def build_siglip2_naflex(folder: Path) -> Path:
    """A Siglip2Model: the NaFlex variant, which keeps the shape of an image."""
    import transformers as t

    vision = {key: value for key, value in _VISION.items() if key != "image_size"}
    text = {key: value for key, value in _TEXT.items() if key not in ("num_key_value_heads", "head_dim")}
    config = t.Siglip2Config(
        text_config={**text, "max_position_embeddings": 64, "projection_size": WIDTH},
        vision_config={**vision, "num_patches": 16},
    )
    sharpen(t.Siglip2Model(config), 4.0).save_pretrained(folder)
    image_processor("Siglip2ImageProcessor", patch_size=8, max_num_patches=16).save_pretrained(folder)
    tokenizer(max_length=64).save_pretrained(folder)
    return folder


READING = {
    "BLIP-base": tiny.build_blip,
    "BLIP-2": build_blip2,
    "Florence-2-base": build_florence2,
    "Florence-2-large": build_florence2,
    "SmolVLM2-256M": build_smolvlm,
    "SmolVLM2-500M": build_smolvlm,
    "SmolVLM2-2.2B": build_smolvlm,
    "Qwen3-VL-2B": build_qwen3_vl,
    "Qwen3-VL-4B": build_qwen3_vl,
    "LLaVA": tiny.build_llava,
    "PaliGemma": build_paligemma,
    "InternVL": build_internvl,
    "Gemma-3": build_gemma3,
}
"""By entry of the table; the last ones are classes that people bring."""

EMBEDDING = {
    "all-mpnet-base-v2": build_mpnet,
    "all-MiniLM-L6-v2": build_minilm,
    "Qwen3-Embedding-0.6B": build_qwen3_embedding,
    "embeddinggemma-300m": build_embedding_gemma,
    "nomic-embed-text-v1.5": build_nomic,
    "siglip2-base-patch16-224": tiny.build_siglip,
    "clip-vit-base-patch32": tiny.build_clip,
    "dinov2-base": tiny.build_dinov2,
    "SigLIP2-NaFlex": build_siglip2_naflex,
}
