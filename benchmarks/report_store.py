"""A store of an experiment of very many runs, as a driver would have left it: for measuring a report.

Half of the runs have a fixed seed and get stuck, half have fresh noise; texts are distinct, with vectors that
wander from their prompt's; 200 images stand for all. Diagrams have made-up bars.

    python -m benchmarks.report_store STORE 10000
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from panic.store import (
    Commit,
    NewBatch,
    NewDiagram,
    NewEmbedding,
    NewInvocation,
    NewOutput,
    NewRun,
    NewStuck,
    Store,
    writing,
)
from panic.store.codec import encode_image, image_digest, text_digest

NETWORKS = (("draw", "tell"), ("sketch", "tell"))
NUM_PROMPTS, NUM_IMAGES, DIMENSION = 50, 200, 256
STEPS = 100
PERIOD = 8
RUNS_IN_COMMIT = 50
SETTINGS = {"max_dimension": 1, "metric": "euclidean", "modality": "text"}


def fill(path: Path, num_runs: int) -> None:
    """Write an experiment of `num_runs` runs of up to 100 steps."""
    each = max(1, num_runs // (len(NETWORKS) * NUM_PROMPTS * 2))
    prompts = [f"a start number {number}" for number in range(NUM_PROMPTS)]
    config = {
        "name": "large", "networks": [list(network) for network in NETWORKS], "prompts": prompts,
        "seeds": [*range(each), -1], "repeats": each, "max_length": STEPS, "embeddings": ["embed"],
        "diagrams": [SETTINGS],
    }  # fmt: skip
    runs = [
        NewRun(network=network, prompt=prompt, seed=seed, repeat=repeat, max_length=STEPS)
        for network in NETWORKS
        for prompt in prompts
        for seed, repeat in [*((seed, 0) for seed in range(each)), *((-1, repeat) for repeat in range(each))]
    ]
    with Store(path, write=True, create=True) as store:
        experiment = writing.start_experiment(store, "large", config)
        models = _models(store, experiment)
        session = writing.start_session(store, experiment, "benchmark", {})
        writer = _Writer(store, session, models)
        writer.prompts(prompts)
        rows = list(zip(writing.add_runs(store, experiment, runs), runs, strict=True))
        for start in range(0, len(rows), RUNS_IN_COMMIT):
            writing.commit(store, writer.commit(rows[start : start + RUNS_IN_COMMIT]))
        writing.end_session(store, session, "done")


def _models(store: Store, experiment: int) -> dict[str, int]:
    ends = {"draw": "image", "sketch": "image", "tell": "text", "embed": "vector"}
    found = {}
    for name, end in ends.items():
        start = "image" if end == "text" else "text"
        spec = {"modalities_in": [start], "modality_out": end, "base": name}
        found[name] = writing.add_model(store, name, f"{name}-fingerprint", spec)
        writing.add_epoch(
            store, experiment, name, model=found[name], batch_size=50, device_kind="cpu", threads=1
        )
    return found


class _Writer:
    """Makes commits of runs; numbers what is random."""

    def __init__(self, store: Store, session: int, models: dict[str, int]) -> None:
        self.store, self.session, self.models = store, session, models
        self.rng = np.random.default_rng(0)
        self.images = [_image(self.rng) for _ in range(NUM_IMAGES)]
        self.starts: dict[str, np.ndarray] = {}

    def prompts(self, texts: list[str]) -> None:
        """Write the prompts, with the vectors from which their runs start."""
        self.starts = {text: self.rng.normal(size=DIMENSION) for text in texts}
        batch = self._batch("embed", len(texts))
        outputs = [NewOutput(digest=text_digest(text), modality="text", text=text) for text in texts]
        vectors = [self._vector(text, self.starts[text], batch) for text in texts]
        writing.commit(self.store, Commit(batches=[batch], outputs=outputs, embeddings=vectors))

    def commit(self, runs: list[tuple[int, NewRun]]) -> Commit:
        """What these runs have done, all of them in one batch per model."""
        batches = {name: self._batch(name, len(runs) * STEPS) for name in self.models}
        found = Commit(batches=list(batches.values()), outputs=list(self.images))
        for row, run in runs:
            self._add(found, row, run, batches)
        return found

    def _add(self, found: Commit, row: int, run: NewRun, batches: dict[str, NewBatch]) -> None:
        end = STEPS if run.seed == -1 else int(self.rng.integers(PERIOD // 2, STEPS // 2)) * 2
        before, at = text_digest(run.prompt), self.starts[run.prompt]
        for step in range(end):
            model = run.network[step % 2]
            if step % 2 == 0:
                output = self.images[int(self.rng.integers(NUM_IMAGES))]
            else:
                at = 0.95 * at + 0.3 * self.rng.normal(size=DIMENSION)
                text = f"a caption of run {row} at step {step} that says things"
                output = NewOutput(digest=text_digest(text), modality="text", text=text)
                found.outputs.append(output)
                found.embeddings.append(self._vector(text, at, batches["embed"]))
            found.invocations.append(
                NewInvocation(row, step, before, output.digest, max(run.seed, 0), batches[model].id)
            )
            before = output.digest
        if run.seed != -1:
            found.stuck.append(NewStuck(run=row, entry_step=end - PERIOD, period=PERIOD))
        found.diagrams.append(self._diagram(row, end // 2))

    def _vector(self, text: str, vector: np.ndarray, batch: NewBatch) -> NewEmbedding:
        return NewEmbedding(
            output=text_digest(text), model=self.models["embed"], batch=batch.id,
            vector=vector.astype(np.float32),
        )  # fmt: skip

    def _diagram(self, run: int, num_points: int) -> NewDiagram:
        deaths = np.sort(self.rng.uniform(4.0, 8.0, num_points))
        births = self.rng.uniform(4.0, 8.0, num_points // 4)
        bars = {
            0: np.column_stack([np.zeros(num_points), np.append(deaths[:-1], np.inf)]),
            1: np.column_stack([births, births + self.rng.uniform(0.1, 1.0, len(births))]),
        }
        return NewDiagram(
            run=run, model=self.models["embed"], settings=SETTINGS, settings_digest="d",
            num_points=num_points, num_unique=num_points, duration_s=0.01, bars=bars,
        )  # fmt: skip

    def _batch(self, model: str, size: int) -> NewBatch:
        return NewBatch(
            id=writing.next_batch_id(self.store), session=self.session, model=self.models[model], epoch=0,
            device="cpu", size=size, padded_size=size, started_at=0.0, duration_s=0.1,
        )  # fmt: skip


def _image(rng: np.random.Generator) -> NewOutput:
    image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((64, 64), 0)
    return NewOutput(
        digest=image_digest(image), modality="image", width=64, height=64, image=encode_image(image)
    )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
