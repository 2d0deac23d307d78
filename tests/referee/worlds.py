"""Experiments whose truth is known, written into stores without an engine: a run is texts and vectors.

A run alternates as a real one does: an image before every text. Images are small and repeat where texts do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panic.analysis.evidence import Evidence
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
from panic.store.codec import image_digest, text_digest
from panic.topology import diagram

Array = NDArray[np.float64]

DRAW, TELL, EMBED = "draw", "tell", "embed"
SIDE = 4  # pixels of an image
DULL = "dull"  # the first word of texts whose image is nearly grey
CALL_S = 0.25  # what every call took, so that "What took how long" has a known answer


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedRun:
    """A run of an image and a text in turn: its texts, their vectors (n, d), the place (n,) that each is at.

    The models of its network take turns. `places` are numbers of regions, as they were drawn; all 0 where a
    design has none. A stuck run holds the outputs up to its first repeated state, `entry` and `period` count
    outputs. `num_outputs`: how many texts were asked for. A failed run fails at the step after its last text.
    """

    prompt: str
    texts: list[str]
    vectors: Array
    places: NDArray[np.int64]
    network: tuple[str, ...] = (DRAW, TELL)
    seed: int = -1
    repeat: int = 0
    arm: str = BASELINE
    num_outputs: int = 0
    entry: int | None = None
    period: int | None = None
    is_failed: bool = False

    def index_at(self, output: int) -> int | None:
        """Which stored text the run is at as its `output`-th, by its cycle if it is stuck; None: nowhere."""
        if output >= self.num_outputs:
            return None
        if self.entry is not None and self.period is not None and output >= self.entry:
            return self.entry + (output - self.entry) % self.period
        return output if output < len(self.texts) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The runs of an experiment, and the vectors of its prompts."""

    runs: list[SimulatedRun]
    prompts: dict[str, Array]
    name: str = "referee"
    has_diagrams: bool = False
    arms: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    others: list[World] = field(default_factory=list)


@contextmanager
def evidence_of(world: World) -> Iterator[Evidence]:
    """The evidence of a world's experiment, in a store that is there as long."""
    with TemporaryDirectory() as folder, Store(Path(folder) / "store", write=True, create=True) as store:
        for other in world.others:
            write(store, other)
        write(store, world)
        yield Evidence.of(store, reading.experiment(store, world.name))


def write(store: Store, world: World) -> None:
    """Store an experiment: a commit per network, one for vectors and one for diagrams."""
    config = {
        "name": world.name,
        "networks": [list(network) for network in dict.fromkeys(run.network for run in world.runs)],
        "prompts": list(world.prompts),
        "seeds": sorted({run.seed for run in world.runs}),
        "max_length": 2 * max(run.num_outputs for run in world.runs),
        "embeddings": [EMBED],
        "arms": world.arms,
    } | ({"diagrams": {"max_dimension": 1}} if world.has_diagrams else {})
    experiment = writing.start_experiment(store, world.name, config)
    models = _models(store, experiment, {name for run in world.runs for name in run.network})
    session = writing.start_session(store, experiment, "panic run referee.yaml", {})
    rows = writing.add_runs(store, experiment, [_new_run(run) for run in world.runs])
    batches = {name: _batch(store, session, model) for name, model in models.items()}
    outputs: dict[bytes, NewOutput] = {}
    steps: list[NewInvocation] = []
    vectors = {text_digest(prompt): vector for prompt, vector in world.prompts.items()}
    for row, run in zip(rows, world.runs, strict=True):
        steps += _steps(row, run, batches, outputs)
        vectors |= {text_digest(text): v for text, v in zip(run.texts, run.vectors, strict=True)}
    embeddings = [
        NewEmbedding(output=digest, model=models[EMBED], batch=batches[EMBED].id, vector=_single(vector))
        for digest, vector in vectors.items()
    ]
    writing.commit(
        store,
        Commit(
            batches=list(batches.values()),
            outputs=list(outputs.values()),
            invocations=steps,
            embeddings=embeddings,
            stuck=[s for row, run in zip(rows, world.runs, strict=True) for s in _stuck(row, run)],
            failures=[
                NewFailure(run=row, step=2 * len(run.texts), kind="output", message="the caption was empty")
                for row, run in zip(rows, world.runs, strict=True)
                if run.is_failed
            ],
            diagrams=_diagrams(rows, world, models[EMBED]),
        ),
    )
    writing.end_session(store, session, "done")


def _models(store: Store, experiment: int, names: Iterable[str]) -> dict[str, int]:
    models = {}
    for name in [*sorted(names), EMBED]:
        is_drawing = name.startswith(DRAW)
        ends = ("text", "vector") if name == EMBED else ("text", "image") if is_drawing else ("image", "text")
        spec = {"modalities_in": [ends[0]], "modality_out": ends[1], "parameters": {}, "base": name}
        models[name] = writing.add_model(store, name, f"{name}-fingerprint", spec)
        writing.add_epoch(
            store, experiment, name, model=models[name], batch_size=4, device_kind="cpu", threads=1
        )
    return models


def _new_run(run: SimulatedRun) -> NewRun:
    return NewRun(
        network=run.network,
        prompt=run.prompt,
        seed=run.seed,
        repeat=run.repeat,
        arm=run.arm,
        max_length=2 * run.num_outputs,
    )


def _batch(store: Store, session: int, model: int) -> NewBatch:
    return NewBatch(
        id=writing.next_batch_id(store), session=session, model=model, epoch=0, device="cpu", size=4,
        padded_size=4, started_at=1e9, duration_s=CALL_S,
    )  # fmt: skip


def _steps(
    row: int, run: SimulatedRun, batches: dict[str, NewBatch], outputs: dict[bytes, NewOutput]
) -> list[NewInvocation]:
    """The invocations of a run; its outputs are added to those of all."""
    steps, before = [], text_digest(run.prompt)
    for number, text in enumerate(run.texts):
        image = image_of(text)
        told = NewOutput(digest=text_digest(text), modality="text", text=text)
        for step, made in ((2 * number, image), (2 * number + 1, told)):
            model = run.network[step % len(run.network)]
            steps.append(NewInvocation(row, step, before, made.digest, abs(run.seed), batches[model].id))
            outputs.setdefault(made.digest, made)
            before = made.digest
    return steps


@lru_cache(1 << 16)
def image_of(text: str) -> NewOutput:
    """The image that was drawn before a text: small, and another one for every text; nearly grey if it is
    DULL."""
    *colour, spare = text_digest(text)[:4]
    red, green, blue = (112 + c // 8 if text.startswith(DULL) else c for c in colour)
    digest = image_digest(Image.new("RGB", (SIDE, SIDE), (red, green, blue)))
    encoded = one_coloured(red, green, blue, spare=spare % 3)  # sizes differ by chance
    return NewOutput(digest=digest, modality="image", width=SIDE, height=SIDE, image=encoded)


def one_coloured(red: int, green: int, blue: int, spare: int = 0) -> bytes:
    """Lossless WebP of SIDE x SIDE pixels of one colour (RFC 9649): five prefix codes of one symbol each, and
    so many bytes that nothing reads.

    A world has thousands of images, and an encoder takes most of the time that a world takes.
    """
    fields = [(0x2F, 8), (SIDE - 1, 14), (SIDE - 1, 14), (0, 4)]  # no alpha, version 0
    fields += [(0, 3)]  # no transform, no colour cache, one set of codes
    for channel in (green, red, blue, 255):
        fields += [(0b101, 3), (channel, 8)]  # a simple code of one symbol of 8 bits
    fields += [(0b0001, 4)]  # of distances: one symbol of 1 bit
    bits = places = 0
    for value, width in fields:
        bits, places = bits | value << places, places + width
    chunk = bits.to_bytes((places + 7) // 8 + spare, "little")
    padding = len(chunk) % 2
    size = struct.pack("<I", 12 + len(chunk) + padding)
    return b"RIFF" + size + b"WEBPVP8L" + struct.pack("<I", len(chunk)) + chunk + bytes(padding)


def _stuck(row: int, run: SimulatedRun) -> list[NewStuck]:
    if run.entry is None or run.period is None:
        return []
    return [NewStuck(run=row, entry_step=2 * run.entry, period=2 * run.period)]


def _diagrams(rows: list[int], world: World, model: int) -> list[NewDiagram]:
    if not world.has_diagrams:
        return []
    found = [(row, diagram(run.vectors)) for row, run in zip(rows, world.runs, strict=True)]
    return [
        NewDiagram(
            run=row, model=model, settings={"metric": "euclidean"}, settings_digest="d",
            num_points=one.num_points, num_unique=one.num_unique, duration_s=0.5,
            bars={k: one.bars(k) for k in (0, 1)},
        )
        for row, one in found
    ]  # fmt: skip


def _single(vector: Array) -> NDArray[np.float32]:
    return vector.astype(np.float32)
