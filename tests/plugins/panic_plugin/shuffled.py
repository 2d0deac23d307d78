"""A kind of model: the words of a text in another order, drawn with the item's seed."""

import random

from panic.models.kind import Kind


class Shuffled:
    modality_in = modality_out = "text"
    size_bytes = 0

    def load(self, device):
        pass

    def invoke(self, inputs, seeds):
        pairs = zip(inputs, seeds, strict=True)
        return [" ".join(random.Random(seed).sample(text.split(), len(text.split()))) for text, seed in pairs]


KIND = Kind(
    name="shuffled",
    build=lambda spec: Shuffled(),
    modalities_in=("text",),
    modality_out="text",
    weights="none",
    prefix="shuffled/",
    models=lambda: [KIND.spec("shuffled/words")],
)
