"""Models that change inputs in place and give one buffer again and again: the store holds what they meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from panic import run
from panic.store import Store, check, contents, reading
from tests.engine.conftest import make_config

MODELS = """
import time
import numpy as np
from PIL import Image

def noise(seed):
    return np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)

class Draw:
    modality_in, modality_out, size_bytes = "text", "image", 0
    def __init__(self, careless=False):
        self.buffer = np.zeros((4, 32, 32, 3), np.uint8) if careless else None
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        if self.buffer is None:
            return [Image.fromarray(noise(seed)) for seed in seeds]
        self.buffer[:] = [noise(seed) for seed in seeds]
        return list(self.buffer)

class Describe:
    modality_in, modality_out, size_bytes = "image", "text", 0
    def __init__(self, careless=False):
        self.careless = careless
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        copies = inputs if self.careless else [image.copy() for image in inputs]
        for image in copies:
            image.paste((1, 2, 3), (0, 0, 16, 16))
            image.thumbnail((8, 8))
        return [f"{image.getpixel((6, 6))} of {image.size}" for image in copies]

class Measure:
    modality_in, modality_out, size_bytes = "image", "vector", 0
    def __init__(self, careless=False):
        self.buffer = np.zeros((4, 3), np.float32) if careless else None
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        rows = [np.asarray(image, np.float32).mean(axis=(0, 1)) for image in inputs]
        if self.buffer is None:
            return rows
        self.buffer[:] = rows
        return list(self.buffer)
"""


@pytest.mark.parametrize("executor", ["local", "process"])
def test_what_a_model_changes_later_is_not_stored(tmp_path: Path, executor: str) -> None:
    (tmp_path / "own.py").write_text(MODELS)

    def perform(careless: bool) -> tuple[list[str], set[str], dict[str, bytes], list[str]]:
        config = make_config(
            networks=[["draw", "tell"]],
            models={
                name: {"base": f"python:{tmp_path}/own.py:{cls}", "careless": careless}
                for name, cls in (("draw", "Draw"), ("tell", "Describe"), ("mean", "Measure"))
            },
            prompts=["one", "two", "three"],
            max_length=10,
            embeddings=["mean"],
            batch_sizes=dict.fromkeys(("draw", "tell", "mean"), 4),
            executor=executor,
        )
        store = tmp_path / f"careless-{careless}"
        run(config, store)
        with Store(store) as opened:
            texts = [
                step.text or ""
                for row in reading.runs(opened)
                for step in contents.invocations(opened, row.id)
            ]
            images = {row.digest for row in contents.outputs(opened) if row.modality == "image"}
            vectors = contents.vectors(opened, "mean")
            rows = [np.ascontiguousarray(row).tobytes() for row in vectors.vectors]
            return texts, images, dict(zip(vectors.digests, rows, strict=True)), check.check(opened)

    careful, careless = perform(False), perform(True)
    assert careful[3] == careless[3] == []
    assert careless == careful
