"""What the engine benchmarks perform: the zero-cost synthetic pair, and the same work done by hand.

200 runs x 100 steps of `draw` and `chain` with fresh seeds and `distinct: true`: 10,000 different 64x64
images and 10,000 different texts. `by_hand` makes the same contents and rows without the engine, one thing
after another: what models, hashing, encoding and SQLite cost by themselves.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from panic.config import ExperimentConfig
from panic.engine.plan import run_root, step_seed
from panic.models import synthetic
from panic.store.codec import encode_image, image_digest, text_digest

NETWORK = ["draw", "chain"]
DRAW: dict[str, Any] = {"states": 8, "size": 64, "distinct": True}
CHAIN: dict[str, Any] = {"states": 8, "kernel": "dirichlet", "distinct": True}


def synthetic_config(
    *, runs: int, steps: int, batch_size: int = 32, delay_s: float = 0.0, **changes: Any
) -> ExperimentConfig:
    """An experiment of the synthetic pair: at most 20 prompts, each repeated equally often."""
    prompts = math.gcd(20, runs)
    fields = {
        "name": "engine",
        "networks": [NETWORK],
        "models": {
            "draw": {"base": "synthetic/text-to-image", "delay_s": delay_s, **DRAW},
            "chain": {"base": "synthetic/image-to-text", "delay_s": delay_s, **CHAIN},
        },
        "prompts": [f"prompt {number}" for number in range(prompts)],
        "seeds": [-1],
        "repeats": runs // prompts,
        "max_length": steps,
        "device": "cpu",
        "batch_sizes": {"draw": batch_size, "chain": batch_size},
    }
    return ExperimentConfig.model_validate(fields | changes)


def by_hand(config: ExperimentConfig, folder: Path) -> Counter[str]:
    """Perform a config of `synthetic_config` in lockstep without the engine; processor s per kind of work.

    Rows of 1,000 steps per transaction into two bare SQLite files of 16 KiB pages in WAL mode.
    """
    spent: Counter[str] = Counter()
    draw, chain = synthetic.TextToImage(**DRAW), synthetic.ImageToText(**CHAIN)
    folder.mkdir()
    store = _database(folder / "store.sqlite", "NORMAL", OUTPUT, INVOCATION)
    images = _database(folder / "images.sqlite", "FULL", IMAGE)
    runs = [
        (run_root(config.root_seed, NETWORK, prompt, repeat), prompt)
        for prompt in config.prompts
        for repeat in range(config.repeats)
    ]
    values: list[Any] = [prompt for _, prompt in runs]
    digests = [text_digest(prompt) for prompt in values]
    outputs, invocations, pictures = [], [], []
    for step in range(config.max_length):
        seeds = [step_seed(root, step) for root, _ in runs]
        with _clock(spent, "models"):
            values = (chain if step % 2 else draw).invoke(values, seeds)
        before = digests
        with _clock(spent, "hash"):
            digests = [image_digest(v) if isinstance(v, Image.Image) else text_digest(v) for v in values]
        with _clock(spent, "encode"):
            if not step % 2:
                pictures += [(d, encode_image(v)) for d, v in zip(digests, values, strict=True)]
        outputs += [(d, v if step % 2 else None) for d, v in zip(digests, values, strict=True)]
        invocations += [
            (run, step, a, b, seed)
            for run, (a, b, seed) in enumerate(zip(before, digests, seeds, strict=True))
        ]
        if len(invocations) >= 1000 or step == config.max_length - 1:
            with _clock(spent, "write"):
                with images:
                    images.executemany("INSERT INTO image VALUES (?, ?)", pictures)
                with store:
                    store.executemany("INSERT INTO output VALUES (?, ?)", outputs)
                    store.executemany("INSERT INTO invocation VALUES (?, ?, ?, ?, ?)", invocations)
            outputs, invocations, pictures = [], [], []
    with _clock(spent, "write"):
        store.close()
        images.close()
    return spent


OUTPUT = "CREATE TABLE output (digest BLOB UNIQUE, text TEXT) STRICT"
IMAGE = "CREATE TABLE image (digest BLOB PRIMARY KEY, bytes BLOB) STRICT"
INVOCATION = (
    "CREATE TABLE invocation (run INTEGER, step INTEGER, input BLOB, output BLOB, seed INTEGER,"
    " PRIMARY KEY (run, step)) STRICT, WITHOUT ROWID"
)


def _database(path: Path, synchronous: str, *tables: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    for pragma in ("page_size=16384", "journal_mode=WAL", f"synchronous={synchronous}"):
        connection.execute(f"PRAGMA {pragma}")
    for table in tables:
        connection.execute(table)
    return connection


@contextmanager
def _clock(spent: Counter[str], kind: str) -> Iterator[None]:
    start = time.process_time()
    yield
    spent[kind] += time.process_time() - start
