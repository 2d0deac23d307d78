"""What a folder of weights is: which adapter can run it, read from its JSON files alone.

A diffusers pipeline has model_index.json; anything else is a transformers model, whose config.json names
its architecture. Where that is not enough, a variant says `adapter:` itself.
"""

from __future__ import annotations

from pathlib import Path

from panic.errors import ModelError
from panic.models.protocol import Modality
from panic.models.weights import index_file, read_json

_TEXT, _IMAGE = (Modality.TEXT,), (Modality.IMAGE,)

ADAPTER_MODALITIES: dict[str, tuple[tuple[Modality, ...], Modality]] = {
    "diffusers": (_TEXT, Modality.IMAGE),
    "captioner": (_IMAGE, Modality.TEXT),
    "text-embedder": (_TEXT, Modality.VECTOR),
    "image-embedder": (_IMAGE, Modality.VECTOR),
    "joint-embedder": (_TEXT + _IMAGE, Modality.VECTOR),
}

_JOINT = {"clip", "siglip", "siglip2", "align", "altclip", "chinese_clip", "metaclip_2"}
_CAPTION_ENDINGS = (
    "ForConditionalGeneration",
    "ForImageTextToText",
    "VisionEncoderDecoderModel",
    "GitForCausalLM",
)


def detect_adapter(folder: Path, name: str) -> str:
    """The adapter for a folder of weights; ModelError if there is none."""
    index = index_file(folder)
    if index is None:
        raise ModelError(f"{name}: {folder} has neither model_index.json (diffusers) nor config.json")
    if index.name == "model_index.json":
        return "diffusers"
    config = read_json(index, name)
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else ""
    architecture = first if isinstance(first, str) else ""
    if (folder / "modules.json").is_file():
        return "text-embedder"
    if str(config.get("model_type")) in _JOINT:
        return "joint-embedder"
    if architecture.endswith(_CAPTION_ENDINGS):
        return "captioner"
    if architecture.endswith("Model") and {"image_size", "patch_size"} & config.keys():
        return "image-embedder"
    if architecture.endswith(("Model", "ForMaskedLM")):
        return "text-embedder"
    raise ModelError(
        f"{name}: no adapter for the architecture {architecture or 'missing in config.json'} of {folder}",
        hint=f"say which in a variant: {{base: {name}, adapter: {' | '.join(ADAPTER_MODALITIES)}}}",
    )
