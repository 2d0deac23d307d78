"""A large store for measuring the web view: one experiment of many runs, bulk inserts, distinct images.

python -m benchmarks.view_store /tmp/large 10000 100        # 1,000,000 invocations
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from panic.store import NewRun, Store, writing
from panic.store.codec import encode_image, image_digest, text_digest

NUM_IMAGES = 2_000
SIDE = 512
RUNS_AT_ONCE = 500


def fill(path: Path, num_runs: int, steps: int) -> None:
    """Runs of `steps` steps, image and text in turn; every third is stuck, every hundredth failed."""
    rng = np.random.default_rng(0)
    with Store(path, write=True, create=True) as store:
        config = {"name": "large", "max_length": 2 * steps, "networks": [["draw", "tell"]]}
        experiment = writing.start_experiment(store, "large", config)
        models = [
            writing.add_model(store, name, f"{name}-fingerprint", {"modality_out": end})
            for name, end in (("draw", "image"), ("tell", "text"))
        ]
        session = writing.start_session(store, experiment, "benchmark", {})
        runs = [
            NewRun(
                network=("draw", "tell"), prompt=f"prompt {i % 50}", seed=-1, repeat=i, max_length=2 * steps
            )
            for i in range(num_runs)
        ]
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO output (digest, modality, text) VALUES (?, 'text', ?)",
                ((text_digest(f"prompt {i}"), f"prompt {i}") for i in range(50)),
            )
            connection.executemany(
                "INSERT INTO batch VALUES (?, ?, ?, 0, 'cpu', 8, 8, 0, 0.0, 0.1)",
                ((number, session, model) for number, model in enumerate(models, start=1)),
            )
        rows = writing.add_runs(store, experiment, runs)
        images = _images(store, rng)
        for start in range(0, num_runs, RUNS_AT_ONCE):
            _add(store, rows[start : start + RUNS_AT_ONCE], steps, images, rng)
        writing.end_session(store, session, "done")


def _images(store: Store, rng: np.random.Generator) -> list[int]:
    """The rows of NUM_IMAGES distinct images, smooth as pictures are."""
    first = store.db.value("SELECT max(id) FROM output") + 1
    found, data = [], []
    for number in range(NUM_IMAGES):
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        image = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        found.append((first + number, image_digest(image), "image", None, SIDE, SIDE))
        data.append((image_digest(image), encode_image(image)))
    with store.images.transaction() as connection:
        connection.executemany(
            "INSERT INTO image (digest, encoding, bytes) VALUES (?, 'webp-lossless', ?)", data
        )
    with store.transaction() as connection:
        connection.executemany("INSERT INTO output VALUES (?, ?, ?, ?, ?, ?)", found)
    return [row[0] for row in found]


def _add(store: Store, runs: list[int], steps: int, images: list[int], rng: np.random.Generator) -> None:
    first = store.db.value("SELECT max(id) FROM output") + 1
    texts, invocations, last = [], [], first
    chosen = rng.integers(len(images), size=(len(runs), steps))
    for place, run in enumerate(runs):
        before = store.db.value("SELECT prompt FROM run WHERE id = ?", run)
        for step in range(steps):
            output = images[chosen[place, step]]
            if step % 2:
                output, last = last, last + 1
                text = f"a caption of run {run} at step {step} that says a few things about it"
                texts.append((output, text_digest(text), "text", text, None, None))
            invocations.append((run, step, before, output, step, 1 + step % 2))
            before = output
    with store.transaction() as connection:
        connection.executemany("INSERT INTO output VALUES (?, ?, ?, ?, ?, ?)", texts)
        connection.executemany("INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?)", invocations)
        connection.executemany(
            "INSERT INTO stuck VALUES (?, ?, 8)", ((run, steps - 8) for run in runs if run % 3 == 0)
        )
        connection.executemany(
            "INSERT INTO failure VALUES (?, ?, 'output', 'empty caption', '', 1, 0.0)",
            ((run, steps) for run in runs if run % 100 == 1),
        )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
