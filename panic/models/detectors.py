"""Detectors: an image -> a fixed number of regions, each with a box, a score and a vector (DETR, OWLv2).

An output is one vector as any embedding model's, of `regions` rows in a row: the box (x0, y0, x1, y1) within
[0, 1] of the image's width and height, the score, then the region's own vector; `unpack` takes it apart.
Rows are in the order of falling scores. DETR's score is the probability of its likeliest class, its vector
the decoder's last hidden state of the query; OWLv2's score is its objectness, its vector the image-class
embedding, of unit length, and no text is asked for.

The regions are those that non-maximum suppression leaves; where it leaves too few, boxes may overlap more.

    spec = registry.resolve("it", {"it": {"base": "local:detr", "regions": 36}})
    boxes, scores, vectors = unpack(np.stack(model.invoke([image], [0])), 36)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panic.errors import ModelError, OutputRejected
from panic.models import weights
from panic.models.embedders import Embedder
from panic.models.kind import Bucketer, Folder, Kind, Parameter
from panic.models.loading import calling
from panic.models.protocol import Modality, ModelSpec

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

OVERLAPS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of two boxes whose intersection over union is more, that of the lower score goes; tried in this order."""
BOX, SCORE = 4, 1


def unpack(packed: Floats, regions: int) -> tuple[Floats, Floats, Floats]:
    """Split outputs (n, regions * (5 + d)) into boxes (n, regions, 4), scores and vectors (n, regions, d)."""
    rows = packed.reshape(len(packed), regions, -1)
    return rows[:, :, :BOX], rows[:, :, BOX], rows[:, :, BOX + SCORE :]


def choose(boxes: Floats, scores: Floats, regions: int) -> NDArray[np.int64]:
    """Which of n boxes (n, 4) with scores (n,) are the regions, in the order of falling scores.

    Those that non-maximum suppression leaves at the smallest overlap that leaves enough, else the best by
    score; boxes without an area only where all others are taken. n must be at least `regions`.
    """
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.lexsort((-scores, ~has_area))
    for overlap in OVERLAPS:
        kept = _suppressed(boxes, order[: has_area.sum()], overlap, regions)
        if len(kept) == regions:
            return kept
    best = order[:regions]
    return best[np.argsort(-scores[best], kind="stable")]


def _suppressed(boxes: Floats, order: NDArray[np.int64], overlap: float, most: int) -> NDArray[np.int64]:
    """The first `most` boxes of an order without those that overlap an earlier one more than so much."""
    kept: list[int] = []
    while len(order) and len(kept) < most:
        kept.append(int(order[0]))
        order = order[1:]
        order = order[intersection_over_union(boxes[kept[-1]], boxes[order]) <= overlap]
    return np.array(kept, np.int64)


def intersection_over_union(box: Floats, others: Floats) -> Floats:
    """The share of a box (4,) and each of some others (n, 4) that is common to both: (n,), 0 without area."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.prod(np.clip(sides, 0, None), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - common
    shares: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


class Detector(Embedder):
    """Image -> regions."""

    modality_in = "image"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._processor: Any = None
        self._regions = int(self.parameters["regions"])

    def _read_others(self, folder: Path) -> None:
        from transformers import AutoImageProcessor

        self._processor = AutoImageProcessor.from_pretrained(folder)

    def _read_model(self, folder: Path, how: dict[str, Any]) -> Any:
        import transformers

        model = getattr(transformers, _architecture(self.spec)).from_pretrained(folder, **how)
        vision = getattr(model.config, "vision_config", None)
        most = (vision.image_size // vision.patch_size) ** 2 if vision else model.config.num_queries
        if self._regions > most:
            raise ModelError(f"{self.spec.name} finds {most:,} regions at most, not {self._regions:,}")
        return model

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """n images -> n vectors (regions * (5 + d),) float32 (or OutputRejected in place of one)."""
        images = [image.convert("RGB") for image in inputs]
        with calling(self.spec, len(inputs)):
            features = self._processor(images=images, return_tensors="pt").to(self._model.device)
            features["pixel_values"] = features["pixel_values"].to(self._model.dtype)
            found = self._open(features, images) if hasattr(self._model, "owlv2") else self._closed(features)
            boxes, scores, vectors = (part.float().cpu().numpy() for part in found)
        return [self._packed(*one) for one in zip(boxes, scores, vectors, strict=True)]

    def _closed(self, features: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """DETR: boxes (n, q, 4), scores (n, q), decoder states (n, q, d) of all queries."""
        output = self._model(**features)
        scores = output.logits.float().softmax(dim=-1)[..., :-1].amax(dim=-1)  # the last class is: no object
        return _corners(output.pred_boxes), scores, output.last_hidden_state

    def _open(self, features: Any, images: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """OWLv2: boxes (n, p, 4), objectness (n, p), image-class embeddings (n, p, d) of all patches.

        Its boxes are of the image padded to a square on the right or below.
        """
        import torch

        grid, _ = self._model.image_embedder(pixel_values=features["pixel_values"])
        patches = grid.flatten(1, 2)
        boxes = _corners(self._model.box_predictor(patches, grid))
        sides = [[max(image.size) / image.width, max(image.size) / image.height] * 2 for image in images]
        scale = torch.tensor(sides, dtype=boxes.dtype, device=boxes.device)[:, None]
        scores = self._model.objectness_predictor(patches).float().sigmoid()
        # Without a text to compare with the model leaves them as long as they come.
        vectors = torch.nn.functional.normalize(self._model.class_predictor(patches)[1], dim=-1)
        return boxes * scale, scores, vectors

    def _packed(self, boxes: Floats, scores: Floats, vectors: Floats) -> Any:
        if not all(np.isfinite(part).all() for part in (boxes, scores, vectors)):
            return OutputRejected(f"{self.spec.name} gave boxes or vectors that are not finite")
        boxes = np.clip(boxes, 0, 1)
        chosen = choose(boxes, scores, self._regions)
        return np.hstack([boxes[chosen], scores[chosen, None], vectors[chosen]]).astype(np.float32).ravel()


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (..., 4) given by centre and size as those given by two corners."""
    import torch

    boxes = boxes.float()
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)


_ARCHITECTURES = ("DetrForObjectDetection", "Owlv2ForObjectDetection")


def _architecture(spec: ModelSpec) -> str:
    config = weights.read_json(weights.folder_of(spec) / "config.json", spec.name)
    given = [str(name) for name in config.get("architectures") or _ARCHITECTURES[:1]]
    found = next((name for name in _ARCHITECTURES if name in given), None)
    if found is None:
        raise ModelError(
            f"{spec.name}: {', '.join(given)} is no detector that is known here",
            hint=f"known are {', '.join(_ARCHITECTURES)}",
        )
    return found


def _bucketing(spec: ModelSpec) -> Bucketer | None:
    """DETR keeps the sides' ratio and pads to the largest image of a batch; OWLv2 makes all of one size."""
    if _architecture(spec) != "DetrForObjectDetection":
        return None
    return lambda image: image.width << 16 | image.height


def _detect(folder: Folder) -> bool:
    return folder.architecture in _ARCHITECTURES


KIND = Kind(
    name="detector",
    build=Detector,
    modalities_in=(Modality.IMAGE,),
    modality_out=Modality.VECTOR,
    parameters={"regions": Parameter(kind=int, default=36, low=1, high=10_000)},
    weights="files",
    reads_images=True,
    detect=_detect,
    bucketing=_bucketing,
)
