"""Embedding models: text (sentence-transformers style), image, and joint text and image.

Texts are padded to one of a few token lengths (`bucket`), because a vector changes by some 5e-7 with its
padding: texts of one bucket share a batch, so a vector does not depend on batch mates. Vectors are float32,
of unit length unless the model says otherwise; a vector that is not finite is answered with
`OutputRejected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panic.errors import ModelError, OutputRejected
from panic.models import weights
from panic.models.loading import calling, loading, module_bytes, torch_dtype
from panic.models.pooling import Dense, Recipe, pool, read_recipe
from panic.models.spec import ModelSpec

BUCKETS = (16, 32, 64, 128, 256, 512)


class _Embedder:
    """What the three have in common: a transformers model in a folder, vectors out."""

    modality_out = "vector"

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.parameters = dict(spec.parameters)
        self._model: Any = None

    @property
    def size_bytes(self) -> int:
        return weights.size_bytes(self.spec) if self._model is None else module_bytes(self._model)

    def weight_modules(self) -> list[Any]:
        """Everything loaded that has weights."""
        return [self._model]

    def load(self, device: str) -> None:
        """Read the weights if that has not been done, and bring them onto a device.

        Raises ModelMissing, ModelError, OutOfMemory.
        """
        folder = weights.folder_of(self.spec)
        with loading(self.spec, folder):
            if self._model is None:
                from transformers import AutoModel

                part = folder / str(self.spec.options.get("model_folder", ""))
                model = AutoModel.from_pretrained(part, dtype=torch_dtype(self.spec))
                self._load_others(folder)
                self._model = model.eval()
            self._model.to(device)

    def _load_others(self, folder: Path) -> None:
        raise NotImplementedError

    def _vectors(self, vectors: torch.Tensor, normalise: bool, usable: Sequence[bool] = ()) -> list[Any]:
        """(n, d) on a device -> n float32 arrays (d,), or OutputRejected in place of one."""
        vectors = vectors.float()
        if normalise:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        array = vectors.cpu().numpy()
        keep = np.isfinite(array).all(axis=1)
        if usable:
            keep &= np.asarray(usable)
        broken = OutputRejected(f"{self.spec.name} gave no finite vector")
        return [row.copy() if good else broken for row, good in zip(array, keep, strict=True)]


class TextEmbedder(_Embedder):
    """Text -> vector, pooled as the model demands."""

    modality_in = "text"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._tokenizer: Any = None
        self._recipe: Recipe | None = None
        self._dense: list[Dense] = []

    def _load_others(self, folder: Path) -> None:
        self._dense = [Dense(path) for path in self._prepared().dense]

    def weight_modules(self) -> list[Any]:
        return [self._model, *self._dense]

    def load(self, device: str) -> None:
        self._prepared()
        super().load(device)
        for dense in self._dense:
            dense.to(device)

    def _prepared(self) -> Recipe:
        """The tokenizer and the recipe, read once; they do not need the weights."""
        if self._recipe is None:
            from transformers import AutoTokenizer

            folder = weights.folder_of(self.spec)
            part = str(self.spec.options.get("tokenizer_folder", ""))
            with loading(self.spec, folder):
                self._tokenizer = AutoTokenizer.from_pretrained(folder / part, padding_side="right")
            self._recipe = read_recipe(self.spec, folder, self._tokenizer.model_max_length)
        return self._recipe

    def bucket(self, item: str) -> int:
        """The token length a text is padded to (or cut at)."""
        recipe = self._prepared()
        tokens = len(
            self._tokenizer(recipe.prefix + item, truncation=True, max_length=recipe.max_tokens).input_ids
        )
        return next((size for size in BUCKETS if tokens <= size < recipe.max_tokens), recipe.max_tokens)

    def invoke(self, inputs: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        """n texts -> n vectors (d,) float32 (or OutputRejected in place of one)."""
        recipe = self._prepared()
        length = max(self.bucket(text) for text in inputs)
        tokens = self._tokenizer(
            [recipe.prefix + text for text in inputs],
            padding="max_length",
            truncation=True,
            max_length=length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        usable = [bool(row) for row in tokens["attention_mask"].any(dim=1).tolist()]
        with calling(self.spec, len(inputs)):
            tokens = tokens.to(self._model.device)
            hidden = self._model(**tokens).last_hidden_state
            vectors = pool(hidden, tokens["attention_mask"], recipe.pooling)
            for dense in self._dense:
                vectors = dense(vectors)
            return self._vectors(vectors, recipe.normalise, usable)


class ImageEmbedder(_Embedder):
    """Image -> vector (DINOv2, ViT): the pooler's output, the class token or the mean over patches."""

    modality_in = "image"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._processor: Any = None

    def _load_others(self, folder: Path) -> None:
        from transformers import AutoImageProcessor

        self._processor = AutoImageProcessor.from_pretrained(folder)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """n images -> n vectors (d,) float32 (or OutputRejected in place of one)."""
        with calling(self.spec, len(inputs)):
            pixels = _pixels(self._processor, inputs, self._model)
            output = self._model(pixel_values=pixels)
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


class JointEmbedder(_Embedder):
    """Text or image -> vector in one space (CLIP, SigLIP): a batch is of one modality."""

    modality_in = ("text", "image")

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._processor: Any = None
        self._tokenizer: Any = None

    def _load_others(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer

        self._processor = AutoImageProcessor.from_pretrained(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """n texts or n images -> n vectors (d,) float32 (or OutputRejected in place of one)."""
        with calling(self.spec, len(inputs)):
            if isinstance(inputs[0], str):
                output = self._model.get_text_features(**self._tokens(inputs))
            else:
                pixels = _pixels(self._processor, inputs, self._model)
                output = self._model.get_image_features(pixel_values=pixels)
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


def _pixels(processor: Any, images: Sequence[Any], model: Any) -> torch.Tensor:
    converted = [image.convert("RGB") for image in images]
    pixels: torch.Tensor = processor(images=converted, return_tensors="pt")["pixel_values"]
    return pixels.to(model.device, model.dtype)
