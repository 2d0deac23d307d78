"""Shards of any size, written with bulk inserts: for measuring what merges them.

python -m benchmarks.merge_store FOLDER SHARD NUM_INVOCATIONS IMAGE_BYTES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from panic.store import NewRun, Store, writing
from panic.store.codec import ENCODING, text_digest

STEPS, BATCH, DIMENSION = 1000, 16, 64
FIXED = 42


def fill(path: Path, shard: int, num_invocations: int, image_bytes: int) -> None:
    """Runs of 1,000 steps, half of them with a fixed seed; texts with vectors and images take turns."""
    rng = np.random.default_rng(shard)
    with Store(path, write=True, create=True) as store:
        experiment = writing.start_experiment(store, "big", {"name": "big"})
        draw, tell, embed = (
            writing.add_model(store, name, f"fingerprint of {name}", {}) for name in ("draw", "tell", "embed")
        )
        for name, model in (("draw", draw), ("tell", tell), ("embed", embed)):
            writing.add_epoch(store, experiment, name, model=model, batch_size=BATCH, device_kind="cpu")
        session = writing.start_session(store, experiment, f"shard {shard}", {})
        runs = [
            NewRun(
                network=("draw", "tell"),
                prompt=f"prompt {shard} {i}",
                seed=FIXED if i % 2 else -1,
                max_length=STEPS,
            )
            for i in range(-(-num_invocations // STEPS))
        ]
        rows = writing.add_runs(store, experiment, runs)
        first = store.last_output_id + 1
        steps = range(num_invocations)
        texts = {i: f"a caption of step {i} of shard {shard} that says things" for i in steps if i % 2}
        digests = [text_digest(texts.get(i, f"image {shard} {i}")) for i in steps]
        with store.images.transaction() as connection:
            connection.executemany(
                "INSERT INTO image VALUES (?, ?, ?)",
                ((digests[i], ENCODING, rng.bytes(image_bytes)) for i in steps if not i % 2),
            )
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO batch VALUES (?, ?, ?, 0, 'cpu', 16, 16, 0, ?, 0.1)",
                (
                    (1 + i, session, tell if i % 2 else draw, shard + i / 1e6)
                    for i in range(num_invocations // BATCH + 2)
                ),
            )
            connection.executemany(
                "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (first + i, digests[i], "text", texts[i], None, None)
                    if i % 2
                    else (first + i, digests[i], "image", None, 64, 64)
                    for i in steps
                ),
            )
            connection.executemany(
                "INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (
                        rows[i // STEPS],
                        i % STEPS,
                        first + max(i - 1, 0),
                        first + i,
                        FIXED,
                        1 + i // BATCH // 2 * 2 + i % 2,
                    )
                    for i in steps
                ),
            )
            vectors = rng.normal(size=(num_invocations // 2, DIMENSION)).astype("<f4")
            connection.executemany(
                "INSERT INTO embedding VALUES (?, ?, 1, ?, ?)",
                ((first + 2 * i + 1, embed, DIMENSION, one.tobytes()) for i, one in enumerate(vectors)),
            )
        writing.end_session(store, session, "done")


if __name__ == "__main__":
    fill(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5]))
