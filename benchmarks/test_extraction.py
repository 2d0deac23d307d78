"""How much of a model's own speed is left when vectors of files are extracted: decoding, batches, writing.

The model sleeps 20 ms per batch of 4, as one on a GPU leaves the processor alone. Against it: the same files
decoded ahead by as many threads in a plain loop, the same model called on them, nothing checked, kept or
written. What the cores can read (decoding, and the digest that a row has) is the limit beside it, and what an
image takes of the processor in all, here and in the plain loop. PNG takes Pillow 10 to 12 ms of a core per
image, so that two cores cannot read 200 a second by hand; a model of 40 ms is asked, too.
Figures go to benchmarks/results/extraction.json.

    pytest benchmarks/test_extraction.py -m ''
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.record import record
from panic.engine.pinning import num_cores
from panic.extraction.extract import Extraction, extract
from panic.extraction.inputs import Item, list_images, read
from panic.models.kinds import named
from panic.models.protocol import ModelSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BATCH, IMAGES, SIDE = 4, 1200, 512
BAR = 0.95


class Sleeping:
    """An image embedding model that takes 20 ms per batch and no processor."""

    modality_in, modality_out, size_bytes = "image", "vector", 0
    call_s = 0.02

    def load(self, device: str) -> None: ...

    def invoke(self, inputs: Any, seeds: Any) -> list[Any]:
        time.sleep(self.call_s)
        return [np.full(768, image.width, np.float32) for image in inputs]


class Slower(Sleeping):
    """One that takes 40 ms."""

    call_s = 0.04


def draw(folder: Path, ending: str) -> Path:
    """As many links to a few images with the detail of photographs: blotches and a little noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        noisy = np.asarray(coarse, np.int16) + rng.integers(-6, 7, (SIDE, SIDE, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}{ending}")
    for number in range(20, IMAGES):
        (folder / f"{number:04}{ending}").hardlink_to(folder / f"{number % 20:04}{ending}")
    return folder


def by_hand(folder: Path, model: Sleeping) -> int:
    """Decode ahead and call the model, nothing else."""
    found = 0

    def decode(path: Path) -> Image.Image:
        with Image.open(path) as image:
            return image.convert("RGB")

    def images(pool: ThreadPoolExecutor) -> Iterator[Image.Image]:
        ahead: deque[Future[Image.Image]] = deque()
        for path in sorted(folder.iterdir()):
            ahead.append(pool.submit(decode, path))
            if len(ahead) > 4 * BATCH:
                yield ahead.popleft().result()
        for one in ahead:
            yield one.result()

    batch: list[Image.Image] = []
    with ThreadPoolExecutor(num_cores()) as pool:
        for image in images(pool):
            batch.append(image)
            if len(batch) == BATCH:
                found += len(model.invoke(batch, [0] * BATCH))
                batch = []
    return found


def reading_s(items: list[Item]) -> float:
    """Processor time that reading one of these items takes, as an extraction reads it."""
    start = time.thread_time()
    for item in items:
        read(item)
    return (time.thread_time() - start) / len(items)


def vectors(folder: Path, spec: ModelSpec, output: Path) -> int:
    """Extract the vectors of a folder, as `panic embed --folder` does."""
    items = list_images(str(folder)).items
    return extract(Extraction(items=items, specs={"sleeping": spec}, device="cpu", output=output)).num_rows


def measured(work: Callable[[], int]) -> tuple[float, float]:
    """Images per second of the clock, and milliseconds of processor time per image."""
    cpu, start = time.process_time(), time.perf_counter()
    assert work() == IMAGES
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return IMAGES / seconds, 1e3 * cpu / IMAGES


@pytest.mark.parametrize(
    ("name", "ending", "model"),
    [("jpg", ".jpg", Sleeping), ("png", ".png", Sleeping), ("png.slower", ".png", Slower)],
)
def test_an_extraction_is_as_fast_as_its_model(
    tmp_path: Path, name: str, ending: str, model: type[Sleeping]
) -> None:
    folder = draw(tmp_path / "photos", ending)
    kind = named("class")
    assert kind is not None
    spec = kind.spec(
        "sleeping",
        source=f"class:benchmarks.test_extraction:{model.__name__}",
        modalities_in=("image",),
        modality_out="vector",
        batch_size=BATCH,
    )
    own: list[tuple[float, float]] = []
    by_hands: list[tuple[float, float]] = []
    read_s = min(reading_s(list_images(str(folder)).items[:100]) for _ in range(3))
    for attempt in range(3):
        by_hands.append(measured(partial(by_hand, folder, model())))
        own.append(measured(partial(vectors, folder, spec, tmp_path / f"f{attempt}.parquet")))
    (rate, cpu_ms), (hand, hand_cpu_ms) = max(own), max(by_hands)
    record(
        f"extraction.{name}",
        rate,
        unit="images/s",
        baseline=hand,
        ratio=rate / hand,
        limit=BAR,
        file="extraction",
        model_alone=BATCH / model.call_s,
        cpu_ms=cpu_ms,
        cpu_ms_by_hand=hand_cpu_ms,
        reading_ms=1e3 * read_s,
        cores_can_read=num_cores() / read_s,
        note=f"{IMAGES} images of {SIDE} px, {BATCH} a batch of {1000 * model.call_s:.0f} ms, best of 3",
    )
    assert rate / hand >= BAR
