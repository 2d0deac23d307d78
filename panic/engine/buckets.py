"""Buckets tell which items may share a batch: those that a model would pad to the same shape.

Where a model's padding follows the longest text of a batch (or the size of its images), mixing lengths
would make results depend on batch mates. The kind of such a model tells the padded length class of an item
(`Kind.bucketing`) without building the model; a batch has items of one bucket, and of one modality.
"""

from __future__ import annotations

from collections.abc import Mapping

from panic.engine.contents import Content, ContentCache
from panic.models import registry
from panic.models.protocol import Modality
from panic.models.spec import ModelSpec

JOINT_IMAGES = -1
"""Bucket of the images of a joint text/image model."""


class Buckets:
    """The bucket of any item of an experiment's models."""

    def __init__(self, specs: Mapping[str, ModelSpec], contents: ContentCache) -> None:
        self._specs, self._contents = specs, contents
        self._bucketers = {name: registry.bucketing(spec) for name, spec in specs.items()}

    def of(self, model: str, digest: bytes, modality: Modality) -> int:
        """The bucket of an output as an input of a model; 0 where all of them fit together."""
        if self._is_joint_image(model, modality):
            return JOINT_IMAGES
        bucketer = self._bucketers[model]
        return bucketer(self._contents.get(digest, modality)) if bucketer else 0

    def of_content(self, model: str, content: Content) -> int:
        """The bucket of a content that need not be in the store."""
        modality = Modality.TEXT if isinstance(content, str) else Modality.IMAGE
        if self._is_joint_image(model, modality):
            return JOINT_IMAGES
        bucketer = self._bucketers[model]
        return bucketer(content) if bucketer else 0

    def _is_joint_image(self, model: str, modality: Modality) -> bool:
        return modality is Modality.IMAGE and len(self._specs[model].modalities_in) > 1

    def modality(self, model: str, bucket: int) -> Modality:
        """The modality of the items of a bucket."""
        return Modality.IMAGE if bucket == JOINT_IMAGES else self._specs[model].modalities_in[0]
