"""A store of any size, written with bulk inserts: for measuring what reads it.

python -m benchmarks.frames_store /tmp/big 1000000 500000 256
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from panic.store import NewRun, Store, writing
from panic.store.codec import text_digest

STEPS = 1000


def fill(path: Path, num_invocations: int, num_embeddings: int, dimension: int) -> None:
    """Runs of 1,000 steps; every second output a distinct text, the others pictures; vectors of the texts."""
    rng = np.random.default_rng(0)
    with Store(path, write=True, create=True) as store:
        experiment = writing.start_experiment(store, "big", {"name": "big"})
        spec = {"modalities_in": ["text"], "modality_out": "image"}
        draw = writing.add_model(store, "draw", "draw-fingerprint", spec)
        tell = writing.add_model(store, "tell", "tell-fingerprint", {**spec, "modality_out": "text"})
        embed = writing.add_model(store, "embed", "embed-fingerprint", {**spec, "modality_out": "vector"})
        session = writing.start_session(store, experiment, "benchmark", {})
        runs = [
            NewRun(network=("draw", "tell"), prompt=f"prompt {i}", seed=-1, max_length=STEPS)
            for i in range(-(-num_invocations // STEPS))
        ]
        rows = writing.add_runs(store, experiment, runs)
        first = store.last_output_id + 1
        with store.transaction() as connection:
            for number, model in enumerate((draw, tell, embed), start=1):
                connection.execute(
                    "INSERT INTO batch VALUES (?, ?, ?, 0, 'cpu', 8, 8, 0, 0.0, 0.1)",
                    (number, session, model),
                )
            for start in range(0, num_invocations, 100_000):
                steps = range(start, min(start + 100_000, num_invocations))
                connection.executemany(
                    "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        (
                            first + i,
                            text_digest(str(i)),
                            "text",
                            f"a caption of step {i} that says things",
                            None,
                            None,
                        )
                        if i % 2
                        else (first + i, text_digest(str(i)), "image", None, 64, 64)
                        for i in steps
                    ),
                )
                connection.executemany(
                    "INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        (rows[i // STEPS], i % STEPS, first + max(i - 1, 0), first + i, i, 1 + i % 2)
                        for i in steps
                    ),
                )
            for start in range(0, num_embeddings, 20_000):
                count = min(20_000, num_embeddings - start)
                vectors = rng.normal(size=(count, dimension)).astype("<f4")
                connection.executemany(
                    "INSERT INTO embedding VALUES (?, ?, 3, ?, ?)",
                    (
                        (first + 2 * (start + i) + 1, embed, dimension, vectors[i].tobytes())
                        for i in range(count)
                    ),
                )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5]))
