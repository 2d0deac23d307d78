"""Which items may share a batch: those that a model would pad to the same shape.

Where a model's padding follows the longest text of a batch (or the size of its pictures), mixing lengths
would make results depend on batch mates. Such models name the padded length class of an item (`bucket`);
a batch has items of one bucket, and of one modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from panic.engine.contents import Content, ContentCache
from panic.models.protocol import Modality, Model
from panic.models.spec import ModelSpec

JOINT_IMAGES = -1
"""Bucket of the images of a joint text/image model."""


class Buckets:
    """The bucket of any item of an experiment's models.

    Args:
        build: makes a model without loading its weights.
    """

    def __init__(
        self, specs: Mapping[str, ModelSpec], build: Callable[[ModelSpec], Model], contents: ContentCache
    ) -> None:
        self._specs, self._contents = specs, contents
        models = {name: build(spec) for name, spec in specs.items()}
        self._bucketers: dict[str, Callable[[Content], int]] = {
            name: model.bucket for name, model in models.items() if hasattr(model, "bucket")
        }

    def of(self, model: str, digest: bytes, modality: Modality) -> int:
        """The bucket of an output as an input of a model; 0 where all of them fit together."""
        if self._is_joint_image(model, modality):
            return JOINT_IMAGES
        bucketer = self._bucketers.get(model)
        return bucketer(self._contents.get(digest, modality)) if bucketer else 0

    def of_content(self, model: str, content: Content) -> int:
        """The bucket of a content that need not be in the store."""
        modality = Modality.TEXT if isinstance(content, str) else Modality.IMAGE
        if self._is_joint_image(model, modality):
            return JOINT_IMAGES
        bucketer = self._bucketers.get(model)
        return bucketer(content) if bucketer else 0

    def _is_joint_image(self, model: str, modality: Modality) -> bool:
        return modality is Modality.IMAGE and len(self._specs[model].modalities_in) > 1

    def modality(self, model: str, bucket: int) -> Modality:
        """What the items of a bucket are."""
        return Modality.IMAGE if bucket == JOINT_IMAGES else self._specs[model].modalities_in[0]
