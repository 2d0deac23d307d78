"""Embedding models: text (sentence-transformers style), image, and joint text and image.

Texts are padded to one of a few token lengths (`TextReader.bucket`), because a vector changes by some 5e-7
with its padding: texts of one bucket share a batch, so a vector does not depend on batch mates. Vectors are
float32, of unit length unless the model says otherwise; a vector that is not finite is answered with
`OutputRejected`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panic.errors import ModelError, OutputRejected
from panic.models import kernels, library_source, weights
from panic.models.kind import Bucketer, Folder, Kind, Parameter
from panic.models.loading import FromFolder, calling, loading, reading_options
from panic.models.protocol import Modality, ModelSpec

if TYPE_CHECKING:
    import torch

    from panic.models.pooling import Dense, Recipe

BUCKETS = (16, 32, 64, 128, 256, 512)
_JOINT = {"clip", "siglip", "siglip2", "align", "altclip", "chinese_clip", "metaclip_2"}


class Embedder(FromFolder):
    """Embedders and detectors share this: a transformers model is read from a folder, vectors come out."""

    modality_out = "vector"

    def _read(self, folder: Path) -> Any:
        part = folder / str(self.spec.options.get("model_folder", ""))
        model = self._read_model(part, reading_options(self.spec, part))
        self._read_others(folder)
        return model.eval()

    def _read_model(self, folder: Path, how: dict[str, Any]) -> Any:
        """Read the transformers model itself; `how` is for its `from_pretrained`."""
        from transformers import AutoModel

        return AutoModel.from_pretrained(folder, **how)

    @abstractmethod
    def _read_others(self, folder: Path) -> None:
        """Read what it needs besides."""

    def _vectors(self, vectors: torch.Tensor, normalise: bool) -> list[Any]:
        """(n, d) on a device -> n float32 arrays (d,), or OutputRejected in place of one."""
        import torch

        vectors = vectors.float()
        if normalise:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        array = vectors.cpu().numpy()
        keep = np.isfinite(array).all(axis=1)
        broken = OutputRejected(f"{self.spec.name} gave no finite vector")
        return [row.copy() if good else broken for row, good in zip(array, keep, strict=True)]


class TextReader:
    """The tokenizer and the recipe of a text model, read once, at their first use, without its weights."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = weights.folder_of(self._spec)
        part = str(self._spec.options.get("tokenizer_folder", ""))
        with loading(self._spec, folder):
            return AutoTokenizer.from_pretrained(folder / part, padding_side="right")

    @cached_property
    def recipe(self) -> Recipe:
        from panic.models.pooling import read_recipe

        return read_recipe(self._spec, weights.folder_of(self._spec), self.tokenizer.model_max_length)

    def bucket(self, text: str) -> int:
        """The token length that a text is padded to (or cut at)."""
        most = self.recipe.max_tokens
        tokens = len(self.tokenizer(self.recipe.prefix + text, truncation=True, max_length=most).input_ids)
        return next((size for size in BUCKETS if tokens <= size < most), most)

    def tokens(self, texts: Sequence[str]) -> Any:
        """Token ids and attention mask (n, tokens), padded to the longest bucket of the texts."""
        return self.tokenizer(
            [self.recipe.prefix + text for text in texts],
            padding="max_length",
            truncation=True,
            max_length=max(self.bucket(text) for text in texts),
            return_attention_mask=True,
            return_tensors="pt",
        )


class TextEmbedder(Embedder):
    """Text -> vector, pooled as the model demands."""

    modality_in = "text"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._reader = TextReader(spec)
        self._dense: list[Dense] = []

    def _read_others(self, folder: Path) -> None:
        from panic.models.pooling import Dense

        self._dense = [Dense(path) for path in self._reader.recipe.dense]

    def weight_modules(self) -> list[Any]:
        return [self._model, *self._dense]

    def load(self, device: str) -> None:
        _ = self._reader.recipe  # tells what is wrong with it before the weights are read
        super().load(device)
        for dense in self._dense:
            dense.to(device)

    def invoke(self, inputs: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        """n texts -> n vectors (d,) float32 (or OutputRejected in place of one)."""
        from panic.models.pooling import pool

        recipe, tokens = self._reader.recipe, self._reader.tokens(inputs)
        usable = [bool(row) for row in tokens["attention_mask"].any(dim=1).tolist()]
        with calling(self.spec, len(inputs)):
            tokens = tokens.to(self._model.device)
            hidden = self._model(**tokens).last_hidden_state
            vectors = pool(hidden, tokens["attention_mask"], recipe.pooling)
            for dense in self._dense:
                vectors = dense(vectors)
            found = self._vectors(vectors, recipe.normalise)
        empty = OutputRejected(f"{self.spec.name} finds no token in this text")
        return [vector if is_usable else empty for vector, is_usable in zip(found, usable, strict=True)]


class ImageEmbedder(Embedder):
    """Image -> vector (DINOv2, ViT): the pooler's output, the class token or the mean over patches."""

    modality_in = "image"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._processor: Any = None

    def _read_others(self, folder: Path) -> None:
        from transformers import AutoImageProcessor

        self._processor = AutoImageProcessor.from_pretrained(folder)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """n images -> n vectors (d,) float32 (or OutputRejected in place of one)."""
        with calling(self.spec, len(inputs)):
            output = self._model(**_seen(self._processor, inputs, self._model))
            return self._vectors(self._pool(output), bool(self.parameters["normalise"]))

    def _pool(self, output: Any) -> torch.Tensor:
        pooling = self.parameters["pooling"]
        hidden: torch.Tensor = output.last_hidden_state
        if pooling == "mean":
            first = 1 + int(getattr(self._model.config, "num_register_tokens", 0))
            return hidden[:, first:].float().mean(dim=1)
        if pooling == "cls":
            return hidden[:, 0]
        pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
        if pooled is None:
            raise ModelError(f"{self.spec.name} has no pooler", hint="set pooling: cls or mean")
        return pooled


class JointEmbedder(Embedder):
    """Text or image -> vector in one space (CLIP, SigLIP): a batch is of one modality."""

    modality_in = ("text", "image")

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._processor: Any = None
        self._tokenizer: Any = None

    def _read_others(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer

        self._processor = AutoImageProcessor.from_pretrained(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """n texts or n images -> n vectors (d,) float32 (or OutputRejected in place of one)."""
        with calling(self.spec, len(inputs)):
            if isinstance(inputs[0], str):
                output = self._model.get_text_features(**self._tokens(inputs))
            else:
                output = self._model.get_image_features(**_seen(self._processor, inputs, self._model))
            vectors = getattr(output, "pooler_output", output)
            return self._vectors(vectors, bool(self.parameters["normalise"]))

    def _tokens(self, texts: Sequence[str]) -> Any:
        """Texts padded to the model's whole context: 77 tokens for CLIP, 64 for SigLIP."""
        lower = self.spec.options.get("lower_case", False)
        tokens = self._tokenizer(
            [text.lower() if lower else text for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_attention_mask=True,
            return_tensors="pt",
        )
        if self._model.config.model_type.startswith("siglip"):
            del tokens["attention_mask"]  # trained on padded texts, without a mask
        return tokens.to(self._model.device)


def _seen(processor: Any, images: Sequence[Any], model: Any) -> dict[str, torch.Tensor]:
    """Images -> what a vision model reads of them, on its device: (n, 3, h, w), or patches with shapes."""
    features = processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
    names = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
    seen = {name: features[name].to(model.device) for name in names if name in features}
    return seen | {"pixel_values": seen["pixel_values"].to(model.dtype)}


def _text_bucketing(spec: ModelSpec) -> Bucketer:
    return TextReader(spec).bucket


def _is_joint(folder: Folder) -> bool:
    return not folder.is_sentence_transformer and folder.model_type in _JOINT


def _is_image(folder: Folder) -> bool:
    sees = bool({"image_size", "patch_size"} & folder.config.keys())
    return not folder.is_sentence_transformer and folder.architecture.endswith("Model") and sees


def _is_text(folder: Folder) -> bool:
    """Whether it is a sentence transformer, or a class that encodes and writes nothing."""
    writes = any(
        folder.architecture in library_source.classes_for(task).get(folder.model_type, ())
        for task in ("CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM")
    )
    encodes = folder.architecture.endswith(("Model", "ForMaskedLM")) and not writes
    return folder.is_sentence_transformer or encodes


_NORMALISE = Parameter(kind=bool, default=True)

JOINT_KIND = Kind(
    name="joint-embedder",
    build=JointEmbedder,
    modalities_in=(Modality.TEXT, Modality.IMAGE),
    modality_out=Modality.VECTOR,
    parameters={"normalise": _NORMALISE, **kernels.OF_ENCODERS},
    weights="files",
    reads_images=True,
    is_invariant=weights.is_pocket,
    detect=_is_joint,
)

IMAGE_KIND = Kind(
    name="image-embedder",
    build=ImageEmbedder,
    modalities_in=(Modality.IMAGE,),
    modality_out=Modality.VECTOR,
    parameters={
        "pooling": Parameter(kind=str, default="pooler", choices=("pooler", "cls", "mean")),
        "normalise": _NORMALISE,
        **kernels.OF_ENCODERS,
    },
    weights="files",
    reads_images=True,
    is_invariant=weights.is_pocket,
    detect=_is_image,
)

TEXT_KIND = Kind(
    name="text-embedder",
    build=TextEmbedder,
    modalities_in=(Modality.TEXT,),
    modality_out=Modality.VECTOR,
    parameters={
        "pooling": Parameter(kind=str, choices=("mean", "cls", "last")),
        "normalise": Parameter(kind=bool),
        "prefix": Parameter(kind=str),
        "max_tokens": Parameter(kind=int, low=1, high=512),
        **kernels.OF_ENCODERS,
    },
    weights="files",
    is_invariant=weights.is_pocket,
    detect=_is_text,
    bucketing=_text_bucketing,
)
