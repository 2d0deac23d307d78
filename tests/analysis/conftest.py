"""Small stores whose numbers are known, made through the Store API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panic.analysis.evidence import Evidence, View
from panic.arms import BASELINE
from panic.store import (
    Commit,
    NewBatch,
    NewDiagram,
    NewEmbedding,
    NewFailure,
    NewInvocation,
    NewOutput,
    NewRun,
    NewStuck,
    Store,
    reading,
    writing,
)
from panic.store.codec import encode_image, image_digest, text_digest
from panic.topology import diagram

HOSTILE = 'a red house </script><img src=x onerror="document.body.dataset.owned=1"> & "waves"'
NETWORK = ("draw", "tell")
TEXT = View("embed", "text")


def picture(number: int, size: int = 16) -> Image.Image:
    """A different picture for every number."""
    return Image.new("RGB", (size, size), (number * 37 % 256, number * 101 % 256, 40 + number // 256))


def angle_vector(degrees: float) -> np.ndarray:
    """A unit vector; its cosine distance from `angle_vector(0)` is 1 - cos."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


def corner(number: int) -> np.ndarray:
    """One of four unit vectors at right angles."""
    return np.eye(4, dtype=np.float32)[number]


class Bench:
    """Writes runs of one experiment into a store, text by text."""

    def __init__(self, store: Store, **config: Any) -> None:
        self.store = store
        self.config = {
            "name": "demo",
            "networks": [list(NETWORK)],
            "prompts": ["a start", HOSTILE],
            "seeds": [42, -1],
            "repeats": 2,
            "max_length": 10,
            "embeddings": ["embed"],
            "diagrams": {"max_dimension": 1},
            **config,
        }
        self.experiment = writing.start_experiment(store, "demo", self.config)
        self.models = {}
        for name, ends in {
            "draw": ("text", "image"),
            "tell": ("image", "text"),
            "embed": ("text", "vector"),
        }.items():
            spec = {
                "modalities_in": [ends[0]],
                "modality_out": ends[1],
                "parameters": {"steps": 2},
                "base": name,
            }
            self.models[name] = writing.add_model(store, name, f"{name}-fingerprint", spec)
            writing.add_epoch(
                store,
                self.experiment,
                name,
                model=self.models[name],
                batch_size=4,
                device_kind="cpu",
                threads=1,
            )
        provenance = {
            "packages": {"torch": "2.13.0"},
            "hardware": {"processor": "a processor", "num_cpus": 2},
        }
        self.session = writing.start_session(store, self.experiment, "panic run demo.yaml", provenance)

    def add(
        self, prompt: str, texts: list[str], *, network: tuple[str, ...] = NETWORK, seed: int = 42, **run: Any
    ) -> int:
        """A run that drew a picture before every text; all of it in one batch per model."""
        run = {"max_length": 10, "size": 16, **run}
        new = NewRun(
            network=network,
            prompt=prompt,
            seed=seed,
            repeat=run.get("repeat", 0),
            max_length=run["max_length"],
            arm=run.get("arm", BASELINE),
        )
        (row,) = writing.add_runs(self.store, self.experiment, [new])
        batches = [self._batch(name, len(texts)) for name in network]
        outputs, steps, before = [], [], text_digest(prompt)
        for i, text in enumerate(texts):
            image = picture(i, run["size"])
            made = NewOutput(
                digest=image_digest(image), modality="image", width=image.width, height=image.height,
                image=encode_image(image),
            )  # fmt: skip
            told = NewOutput(digest=text_digest(text), modality="text", text=text)
            for output in (made, told) if len(network) == 2 else (told,):
                batch = batches[len(steps) % len(network)].id
                steps.append(NewInvocation(row, len(steps), before, output.digest, abs(seed), batch))
                outputs.append(output)
                before = output.digest
        writing.commit(self.store, Commit(batches=batches, outputs=outputs, invocations=steps))
        return row

    def walk(self, letters: str, **how: Any) -> int:
        """A run of full length whose texts are single letters."""
        return self.add("start", list(letters), max_length=2 * len(letters), **how)

    @property
    def evidence(self) -> Evidence:
        """What the figures of a report rest on, of what is in the store by now."""
        return Evidence.of(self.store, reading.experiment(self.store, "demo"), is_over=False)

    def embed(self, vectors: dict[str, np.ndarray]) -> None:
        """Vectors of texts that are in the store."""
        batch = self._batch("embed", len(vectors))
        new = [
            NewEmbedding(output=text_digest(text), model=self.models["embed"], batch=batch.id, vector=vector)
            for text, vector in vectors.items()
        ]
        writing.commit(self.store, Commit(batches=[batch], embeddings=new))

    def embed_images(self, vectors: dict[int, np.ndarray], size: int = 16) -> None:
        """Vectors of the pictures of these numbers, by the same model as texts."""
        batch = self._batch("embed", len(vectors))
        new = [
            NewEmbedding(
                output=image_digest(picture(number, size)), model=self.models["embed"], batch=batch.id,
                vector=vector,
            )
            for number, vector in vectors.items()
        ]  # fmt: skip
        writing.commit(self.store, Commit(batches=[batch], embeddings=new))

    def diagram(self, run: int, points: np.ndarray, metric: str = "euclidean", digest: str = "d") -> None:
        found = diagram(points, metric=metric)
        new = NewDiagram(
            run=run, model=self.models["embed"], settings={"metric": metric}, settings_digest=digest,
            num_points=found.num_points, num_unique=found.num_unique, duration_s=0.5,
            bars={k: found.bars(k) for k in (0, 1)},
        )  # fmt: skip
        writing.commit(self.store, Commit(diagrams=[new]))

    def stuck(self, run: int, entry_step: int, period: int) -> None:
        writing.commit(self.store, Commit(stuck=[NewStuck(run=run, entry_step=entry_step, period=period)]))

    def fail(self, run: int, step: int) -> None:
        message = "the caption was <empty>"
        writing.commit(
            self.store, Commit(failures=[NewFailure(run=run, step=step, kind="output", message=message)])
        )

    def _batch(self, model: str, size: int) -> NewBatch:
        return NewBatch(
            id=writing.next_batch_id(self.store), session=self.session, model=self.models[model], epoch=0,
            device="cpu", size=size, padded_size=size, started_at=time.time(), duration_s=0.25,
        )  # fmt: skip


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with Store(tmp_path / "store", write=True, create=True) as store:
        yield lambda **config: Bench(store, **config)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


@pytest.fixture
def full(bench: Bench) -> Bench:
    """A stuck run, one with fresh noise, a failed one, one that has not begun; vectors and diagrams."""
    texts = [f"text {i}" for i in range(5)]
    circle = {text: angle_vector(72 * i) for i, text in enumerate(texts)}
    stuck = bench.add("a start", texts)
    bench.stuck(stuck, 0, 10)
    fresh = bench.add(HOSTILE, [*texts[::-1]], seed=-1)
    failed = bench.add("a start", texts[:2], seed=-1, repeat=1)
    bench.fail(failed, 4)
    writing.add_runs(
        bench.store,
        bench.experiment,
        [NewRun(network=NETWORK, prompt=HOSTILE, seed=-1, repeat=1, max_length=10)],
    )
    bench.embed({"a start": angle_vector(0), HOSTILE: angle_vector(30), **circle})
    for run in (stuck, fresh):
        bench.diagram(run, np.array(list(circle.values())))
    return bench
