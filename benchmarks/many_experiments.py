"""A store of very many experiments, written in bulk, for measuring what lists, filters and searches.

python -m benchmarks.many_experiments /tmp/many 10000 10 10     # experiments, runs of each, steps of each
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from panic.store import Store, indexing, writing

NETWORK = json.dumps(["draw", "tell"], separators=(",", ":"))
COLOURS = ("red", "blue", "green", "purple", "yellow", "striped", "dotted")
SHAPES = ("circle", "square", "triangle", "star", "lighthouse", "horse", "boat", "sea", "field", "photo")
WORDS = (*COLOURS, *SHAPES, "small", "large", "tiny", "above", "below", "beside", "behind", "of", "the", "a")
PROVENANCE = json.dumps(
    {"packages": {f"package-{i}": f"{i}.{i % 7}.{i % 5}" for i in range(150)}, "git": "0" * 40}
)


def config(name: str, number: int) -> str:
    """A config as experiments have them."""
    return json.dumps(
        {
            "name": name,
            "project": f"project-{number % 12}",
            "networks": [["draw", "tell"]],
            "models": {"draw": {"base": "PocketDiffusion", "steps": 1 + number % 8}},
            "prompts": [f"prompt {i} of {number % 500}" for i in range(10)],
            "seeds": [42, -1],
            "max_length": 10,
            "embeddings": ["PocketText"],
        }
    )


def fill(path: Path, experiments: int, runs: int, steps: int) -> None:
    """Experiments of one session each; every second output is a new text, a third of the runs stuck."""
    rng = random.Random(0)
    with Store(path, write=True, create=True) as store:
        for name in ("draw", "tell"):
            writing.add_model(store, name, f"{name}-fingerprint", {"modalities_in": ["text"]})
        first = store.last_output_id + 1
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO output VALUES (?, ?, 'text', ?, NULL, NULL)",
                ((first + i, hashlib.sha256(f"p{i}".encode()).digest(), f"prompt {i}") for i in range(5_000)),
            )
        output, run, batch = first + 5_000, 1, 1
        begun = time.time() - 86_400 * 300
        for start in range(0, experiments, 200):
            with store.transaction() as connection:
                numbers = range(start + 1, min(start + 200, experiments) + 1)
                put(connection, numbers, begun)
                rows: list[tuple[int, ...]] = []
                run_rows: list[tuple[Any, ...]] = []
                first_output, first_batch = output, batch
                for number in numbers:
                    for place in range(runs):
                        last = first + (number * 7 + place) % 5_000
                        run_rows.append((run, number, NETWORK, last, 42 if place % 2 else -1, place, steps))
                        for step in range(steps):
                            rows.append((run, step, last, output, 42, batch + step % 2))
                            last, output = output, output + 1
                        run += 1
                    batch += 2
                connection.executemany("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, 'baseline')", run_rows)
                connection.executemany(
                    "INSERT INTO batch VALUES (?, ?, ?, 0, 'cpu', 8, 8, 0, 1.0, 0.1)",
                    ((b, (b + 1) // 2, 1 + (b + 1) % 2) for b in range(first_batch, batch)),
                )
                connection.executemany(
                    "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?)", outputs(first_output, output, rng)
                )
                connection.executemany("INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?)", rows)
                connection.executemany(
                    "INSERT INTO stuck VALUES (?, 0, 2)", ((r[0],) for r in run_rows if r[0] % 3 == 0)
                )
            store.last_output_id = output - 1
        indexing.complete(store)


def put(connection: Any, numbers: range, begun: float) -> None:
    """Experiments with these numbers, a session and the epochs of each."""
    names = [f"night-{number:06}" for number in numbers]
    connection.executemany(
        "INSERT INTO experiment (id, uid, name, config, created_at) VALUES (?, ?, ?, ?, ?)",
        (
            (n, f"{n:032x}", name, config(name, n), begun + n * 60)
            for n, name in zip(numbers, names, strict=True)
        ),
    )
    connection.executemany(
        "INSERT INTO session (id, experiment, command, pid, host, started_at, ended_at, end_state,"
        " provenance, config) VALUES (?, ?, 'panic run night.yaml', 1, 'node7', ?, ?, 'done', ?, ?)",
        (
            (n, n, begun + n * 60, begun + n * 60 + 50, PROVENANCE, config(name, n))
            for n, name in zip(numbers, names, strict=True)
        ),
    )
    connection.executemany(
        "INSERT INTO epoch VALUES (?, ?, 0, ?, 8, 'cpu', 1, 1.0, 'start', 'bucket')",
        ((n, name, model) for n in numbers for model, name in ((1, "draw"), (2, "tell"))),
    )


def outputs(begin: int, end: int, rng: random.Random) -> Iterator[tuple[Any, ...]]:
    """Rows of outputs: images and captions in turn."""
    for number in range(begin, end):
        digest = hashlib.sha256(str(number).encode()).digest()
        if number % 2:
            yield (number, digest, "text", f"{' '.join(rng.choices(WORDS, k=9))} {number}", None, None)
        else:
            yield (number, digest, "image", None, 64, 64)


if __name__ == "__main__":
    began = time.perf_counter()
    fill(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5]))
    print(f"{time.perf_counter() - began:.1f} s")
