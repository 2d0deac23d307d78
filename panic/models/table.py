"""The models that are known by name: one entry each, plain data.

Adding a model is adding an entry. Steps and guidance are always stated, because several pipelines' own
defaults belong to another checkpoint (FLUX.2-klein 4 steps, signature 50; Z-Image-Turbo 8 steps at guidance
0, signature 50 at 5.0). Numbers of parameters include text encoders. `dtype` is the one on an accelerator;
on a CPU it is float32 unless a variant says otherwise. Licences are the checkpoints' own: read them.
"""

from __future__ import annotations

from typing import Any

from panic.models import kinds
from panic.models.pipeline_files import NOT_CALLED
from panic.models.protocol import ModelSpec
from panic.pocket import folder as pocket_folder

_SIZE = ("steps", "guidance", "width", "height")
_CLIP_CONTEXT = 77
_POCKET_CONTEXT = 48
_POCKET: dict[str, Any] = {"dtype": "float32", "batch_size": 32, "licence": "MIT"}
# Some fresh noise at every step (eta, DDIM): right shape and colour in 68 % of drawings, without it in 62 %.
_POCKET_SAMPLING = {"steps": 10, "guidance": 2.5, "eta": 0.7}


def _spec(name: str, adapter: str, parameters: dict[str, Any], **fields: Any) -> ModelSpec:
    kind = kinds.named(adapter)
    assert kind is not None
    merged = {**kind.spec(name).parameters, **parameters}
    if fields.get("accepts"):
        merged = {key: value for key, value in merged.items() if key in fields["accepts"]}
    return kind.spec(name, parameters=merged, **fields)


def _draws(
    name: str, source: str, *, takes: tuple[str, ...] = (), size: int | None, **fields: Any
) -> ModelSpec:
    parameters = {"width": size, "height": size, **fields.pop("parameters")}
    is_pocket = source.startswith("pocket:")  # no files are for these
    accepts = (*_SIZE, *(name for name in NOT_CALLED if not is_pocket or name != "gguf"), *takes)
    fields = {"dtype": "bfloat16", "batch_size": 4, "accepts": accepts, **fields}
    return _spec(name, "diffusers", parameters, source=source, **fields)


def _captions(name: str, source: str, **fields: Any) -> ModelSpec:
    fields = {"dtype": "bfloat16", "batch_size": 16, **fields}
    return _spec(name, "captioner", fields.pop("parameters", {}), source=source, **fields)


def _embeds(name: str, adapter: str, source: str, **fields: Any) -> ModelSpec:
    fields = {"dtype": "float32", "batch_size": 64, **fields}
    return _spec(name, adapter, fields.pop("parameters", {}), source=source, **fields)


_CHAT_CAPTION = "Describe this image in one or two sentences."
_SMOLVLM: dict[str, Any] = {
    "licence": "Apache-2.0",
    "parameters": {"prompt": _CHAT_CAPTION, "max_new_tokens": 96},
}
_SANA: dict[str, Any] = {
    "licence": "NVIDIA and Gemma terms",
    "parameters": {"steps": 2, "guidance": 4.5},
    "takes": ("max_sequence_length",),
    "size": 1024,
    "context_tokens": 300,
    "note": "the pipeline's prompt-rewriting instruction is off",
}

_REWRITE = "Rewrite the following text in your own words. Answer with the new text alone."


def _writes(
    name: str, source: str, millions: int, licence: str, context_tokens: int, **fields: Any
) -> ModelSpec:
    fields = {"dtype": "bfloat16", "batch_size": 16, "parameters": {"prompt": _REWRITE}, **fields}
    fields |= {"num_parameters": millions * 1_000_000, "licence": licence, "context_tokens": context_tokens}
    return _spec(name, "text-to-text", fields.pop("parameters"), source=source, **fields)


def _edits(name: str, source: str, millions: int, licence: str, **fields: Any) -> ModelSpec:
    parameters = fields.pop("parameters")
    takes = ("prompt", "steps", "width", "height", *NOT_CALLED, *parameters, *fields.pop("takes", ()))
    fields = {"dtype": "bfloat16", "batch_size": 1, "accepts": tuple(dict.fromkeys(takes)), **fields}
    fields |= {"num_parameters": millions * 1_000_000, "licence": licence}
    return _spec(name, "image-to-image", parameters, source=source, **fields)


_ENTRIES = [
    # text -> image
    _draws(
        "sd-turbo",
        "stabilityai/sd-turbo",
        parameters={"steps": 1, "guidance": 0.0},
        takes=("negative_prompt",),
        size=512,
        dtype="float16",
        batch_size=16,
        licence="Stability AI community",
        num_parameters=1_290_000_000,
        context_tokens=_CLIP_CONTEXT,
    ),
    _draws(
        "sdxl-turbo",
        "stabilityai/sdxl-turbo",
        parameters={"steps": 1, "guidance": 0.0},
        takes=("negative_prompt",),
        size=512,
        dtype="float16",
        batch_size=8,
        licence="Stability AI non-commercial",
        num_parameters=3_470_000_000,
        context_tokens=_CLIP_CONTEXT,
    ),
    _draws(
        "FLUX.1-schnell",
        "black-forest-labs/FLUX.1-schnell",
        parameters={"steps": 4, "guidance": 0.0, "max_sequence_length": 256},
        takes=("max_sequence_length",),
        size=1024,
        licence="Apache-2.0",
        num_parameters=16_870_000_000,
        gated=True,
        context_tokens=256,
    ),
    _draws(
        "FLUX.2-klein-4B",
        "black-forest-labs/FLUX.2-klein-4B",
        parameters={"steps": 4, "guidance": 1.0, "max_sequence_length": 512},
        takes=("max_sequence_length",),
        size=1024,
        licence="Apache-2.0",
        num_parameters=8_000_000_000,
        context_tokens=512,
    ),
    _draws(
        "Z-Image-Turbo",
        "Tongyi-MAI/Z-Image-Turbo",
        parameters={"steps": 8, "guidance": 0.0, "max_sequence_length": 512},
        takes=("max_sequence_length",),
        size=1024,
        batch_size=1,
        licence="Apache-2.0",
        num_parameters=10_250_000_000,
        context_tokens=512,
        note="slower in batches than one by one (others' figure, 0.85x)",
    ),
    _draws(
        "SANA-Sprint-0.6B",
        "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers",
        num_parameters=3_500_000_000,
        **_SANA,
    ),
    _draws(
        "SANA-Sprint-1.6B",
        "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
        num_parameters=4_500_000_000,
        **_SANA,
    ),
    _draws(
        "SD3.5-medium",
        "stabilityai/stable-diffusion-3.5-medium",
        parameters={"steps": 28, "guidance": 4.5, "max_sequence_length": 256},
        takes=("negative_prompt", "max_sequence_length"),
        size=1024,
        licence="Stability AI community",
        num_parameters=8_100_000_000,
        gated=True,
        context_tokens=256,
        note="T5 reads 256 tokens of a prompt, its two CLIP encoders the first 77",
    ),
    _draws(
        "Lumina-Image-2.0",
        "Alpha-VLLM/Lumina-Image-2.0",
        parameters={"steps": 30, "guidance": 4.0, "system_prompt": "", "max_sequence_length": 256},
        takes=("negative_prompt", "system_prompt", "max_sequence_length"),
        size=1024,
        licence="Apache-2.0",
        num_parameters=5_300_000_000,
        context_tokens=256,
        note="the pipeline's own system prompt is off",
    ),
    # image -> text
    _captions(
        "BLIP-base",
        "Salesforce/blip-image-captioning-base",
        licence="BSD-3-Clause",
        num_parameters=247_000_000,
        dtype="float16",
        batch_size=32,
    ),
    _captions(
        "BLIP-2", "Salesforce/blip2-opt-2.7b", licence="MIT", num_parameters=3_745_000_000, dtype="float16"
    ),
    _captions(
        "Florence-2-base",
        "florence-community/Florence-2-base",
        licence="MIT",
        num_parameters=231_000_000,
        parameters={"prompt": "<MORE_DETAILED_CAPTION>", "max_new_tokens": 128},
    ),
    _captions(
        "Florence-2-large",
        "florence-community/Florence-2-large",
        licence="MIT",
        num_parameters=776_000_000,
        parameters={"prompt": "<MORE_DETAILED_CAPTION>", "max_new_tokens": 128},
    ),
    _captions(
        "SmolVLM2-256M", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct", num_parameters=256_000_000, **_SMOLVLM
    ),
    _captions(
        "SmolVLM2-500M", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", num_parameters=507_000_000, **_SMOLVLM
    ),
    _captions(
        "SmolVLM2-2.2B", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", num_parameters=2_247_000_000, **_SMOLVLM
    ),
    _captions(
        "Qwen3-VL-2B",
        "Qwen/Qwen3-VL-2B-Instruct",
        licence="Apache-2.0",
        num_parameters=2_128_000_000,
        parameters={"prompt": _CHAT_CAPTION, "max_new_tokens": 96},
    ),
    _captions(
        "Qwen3-VL-4B",
        "Qwen/Qwen3-VL-4B-Instruct",
        licence="Apache-2.0",
        num_parameters=4_438_000_000,
        parameters={"prompt": _CHAT_CAPTION, "max_new_tokens": 96},
    ),
    # text -> text
    _writes("Qwen3-0.6B", "Qwen/Qwen3-0.6B", 596, "Apache-2.0", 40_960),
    _writes("Qwen3-1.7B", "Qwen/Qwen3-1.7B", 1721, "Apache-2.0", 40_960),
    _writes("Qwen3-4B", "Qwen/Qwen3-4B", 4022, "Apache-2.0", 40_960, batch_size=8),
    _writes("Gemma-3-270M", "google/gemma-3-270m-it", 268, "Gemma terms", 32_768, gated=True),
    _writes("Gemma-3-1B", "google/gemma-3-1b-it", 1000, "Gemma terms", 32_768, gated=True),
    _writes("SmolLM3-3B", "HuggingFaceTB/SmolLM3-3B", 3075, "Apache-2.0", 65_536, batch_size=8),
    _writes("Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct", 1236, "Llama 3.2", 131_072, gated=True),
    _writes(
        "flan-t5-base",
        "google/flan-t5-base",
        248,
        "Apache-2.0",
        512,
        parameters={"prompt": "Rephrase: {text}"},
    ),
    # image -> image
    _edits(
        "sd-turbo-variation",
        "stabilityai/sd-turbo",
        1290,
        "Stability AI community",
        parameters={"steps": 2, "guidance": 0.0, "strength": 0.5},
        dtype="float16",
        batch_size=16,
    ),
    _edits(
        "instruct-pix2pix",
        "timbrooks/instruct-pix2pix",
        1066,
        "MIT",
        parameters={"steps": 20, "guidance": 7.5, "image_guidance": 1.5},
        takes=("negative_prompt",),
        dtype="float16",
        batch_size=8,
    ),
    _edits(
        "FLUX.2-klein-4B-edit",
        "black-forest-labs/FLUX.2-klein-4B",
        8000,
        "Apache-2.0",
        parameters={"steps": 4, "guidance": 1.0, "max_sequence_length": 512},
    ),
    _edits(
        "FLUX.1-Kontext-dev",
        "black-forest-labs/FLUX.1-Kontext-dev",
        16_870,
        "FLUX.1 non-commercial",
        parameters={"steps": 28, "guidance": 2.5, "max_sequence_length": 512},
        gated=True,
        note="draws at about a million pixels unless width and height are given",
    ),
    _edits(
        "Qwen-Image-Edit",
        "Qwen/Qwen-Image-Edit",
        28_850,
        "Apache-2.0",
        parameters={
            "steps": 50,
            "true_guidance": 4.0,
            "negative_prompt": " ",  # without one it is not guided
            "max_sequence_length": 512,
        },
        note="draws at about a million pixels unless width and height are given",
    ),
    # embeddings
    _embeds(
        "all-mpnet-base-v2",
        "text-embedder",
        "sentence-transformers/all-mpnet-base-v2",
        licence="Apache-2.0",
        num_parameters=109_486_464,
        parameters={"pooling": "mean", "normalise": True, "max_tokens": 384},
        context_tokens=384,
    ),
    _embeds(
        "all-MiniLM-L6-v2",
        "text-embedder",
        "sentence-transformers/all-MiniLM-L6-v2",
        licence="Apache-2.0",
        num_parameters=22_713_216,
        parameters={"pooling": "mean", "normalise": True, "max_tokens": 256},
        context_tokens=256,
    ),
    _embeds(
        "Qwen3-Embedding-0.6B",
        "text-embedder",
        "Qwen/Qwen3-Embedding-0.6B",
        licence="Apache-2.0",
        num_parameters=595_776_512,
        dtype="bfloat16",
        batch_size=32,
        parameters={"pooling": "last", "normalise": True, "max_tokens": 512},
        context_tokens=32_768,
        note="last-token pooling",
    ),
    _embeds(
        "embeddinggemma-300m",
        "text-embedder",
        "google/embeddinggemma-300m",
        licence="Gemma terms",
        num_parameters=307_581_696,
        gated=True,
        parameters={
            "pooling": "mean",
            "normalise": True,
            "prefix": "task: clustering | query: ",
            "max_tokens": 512,
        },
        context_tokens=2048,
        note="mean pooling, two dense layers, task prefix; float16 is not supported by the model",
    ),
    _embeds(
        "nomic-embed-text-v1.5",
        "text-embedder",
        "nomic-ai/nomic-embed-text-v1.5",
        licence="Apache-2.0",
        num_parameters=136_731_648,
        parameters={"pooling": "mean", "normalise": True, "prefix": "clustering: ", "max_tokens": 512},
        context_tokens=8192,
        note="needs a task prefix",
    ),
    _embeds(
        "siglip2-base-patch16-224",
        "joint-embedder",
        "google/siglip2-base-patch16-224",
        licence="Apache-2.0",
        num_parameters=375_187_970,
        options={"lower_case": True},
        context_tokens=64,
    ),
    _embeds(
        "clip-vit-base-patch32",
        "joint-embedder",
        "openai/clip-vit-base-patch32",
        licence="MIT",
        num_parameters=151_277_313,
        context_tokens=_CLIP_CONTEXT,
    ),
    _embeds(
        "dinov2-base",
        "image-embedder",
        "facebook/dinov2-base",
        licence="Apache-2.0",
        num_parameters=86_580_480,
        parameters={"pooling": "pooler", "normalise": True},
    ),
    # the pocket family: weights are in the package
    _draws(
        "PocketDiffusion",
        "pocket:PocketDiffusion",
        parameters=_POCKET_SAMPLING,
        takes=("eta",),
        size=None,
        **_POCKET,
        context_tokens=_POCKET_CONTEXT,
    ),
    _draws(
        "PocketDiffusion-B",
        "pocket:PocketDiffusion",
        parameters={**_POCKET_SAMPLING, "lora": str(pocket_folder("PocketDiffusion-B"))},
        takes=("eta",),
        size=None,
        **_POCKET,
        context_tokens=_POCKET_CONTEXT,
        note="its backgrounds are one colour further than the text says",
    ),
    _captions(
        "PocketCaptioner",
        "pocket:PocketCaptioner",
        parameters={"max_new_tokens": 32},
        **_POCKET,
    ),
    _captions(
        "PocketCaptioner-B",
        "pocket:PocketCaptioner",
        parameters={"max_new_tokens": 32, "lora": str(pocket_folder("PocketCaptioner-B"))},
        **_POCKET,
        note="tells the largest object alone",
    ),
    _embeds(
        "PocketCLIP", "joint-embedder", "pocket:PocketCLIP", licence="MIT", context_tokens=_POCKET_CONTEXT
    ),
    _embeds(
        "PocketText",
        "text-embedder",
        "pocket:PocketDiffusion",
        parameters={"pooling": "mean", "normalise": True},
        options={"model_folder": "text_encoder", "tokenizer_folder": "tokenizer"},
        licence="MIT",
        context_tokens=_POCKET_CONTEXT,
    ),
    _spec(
        "PocketPixels",
        "class",
        {},
        source="class:panic.pocket.pixels:PixelProjection",
        modalities_in=("image",),
        modality_out="vector",
        batch_size=64,
        licence="MIT",
        num_parameters=0,
    ),
]

TABLE: dict[str, ModelSpec] = {spec.name: spec for spec in _ENTRIES}
