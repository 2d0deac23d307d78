"""What the index of captions costs the writer: commits of pairs of images and captions, old and new in turns.

`old` is a store without the index, its indices and stamps.

    pytest benchmarks/test_writer_index.py -m ''
"""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from pathlib import Path

import pytest

from benchmarks.many_experiments import WORDS
from benchmarks.record import record
from panic.store import Commit, NewBatch, NewInvocation, NewOutput, NewRun, Store, indexing, writing
from panic.store.codec import prompt_digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUNS, COMMITS, ROUNDS = 256, 100, 5
INDICES = ("invocation_output", "intervention_output", "run_prompt", "session_experiment")


def seconds(folder: Path, *, is_old: bool) -> float:
    """Processor time of the commits."""
    rng = random.Random(0)
    with Store(folder, write=True, create=True) as store:
        if is_old:
            for name in INDICES:
                store.db.execute(f"DROP INDEX {name}")
            store.last_indexed_id = indexing.NEVER
        experiment = writing.start_experiment(store, "b", {"name": "b"})
        model = writing.add_model(store, "m", "f", {})
        session = writing.start_session(store, experiment, "benchmark", {})
        prompts = [f"prompt {i}" for i in range(RUNS)]
        runs = [NewRun(network=("a", "b"), prompt=prompt, seed=-1, max_length=10**6) for prompt in prompts]
        rows, last, image = (
            writing.add_runs(store, experiment, runs),
            list(map(prompt_digest, prompts)),
            bytes(3000),
        )
        commits = []
        for number in range(COMMITS):
            shape = {"session": session, "model": model, "epoch": 0, "device": "cpu", "size": RUNS}
            times = {"padded_size": RUNS, "started_at": 1.0, "duration_s": 1.0}
            batches = [NewBatch(id=2 * number + i, **shape, **times) for i in (1, 2)]
            commit = Commit(batches=batches)
            for place, run in enumerate(rows):
                drawn = hashlib.sha256(f"{number} {place}".encode()).digest()
                text = f"{' '.join(rng.choices(WORDS, k=9))} {number} {place}"
                said = prompt_digest(text)
                commit.outputs.append(
                    NewOutput(digest=drawn, modality="image", width=64, height=64, image=image)
                )
                commit.outputs.append(NewOutput(digest=said, modality="text", text=text))
                for step, (given, made) in enumerate(((last[place], drawn), (drawn, said)), 2 * number):
                    commit.invocations.append(NewInvocation(run, step, given, made, 42, batches[step % 2].id))
                last[place] = said
            commits.append(commit)
        began = time.process_time()
        for commit in commits:
            writing.commit(store, commit)
        return time.process_time() - began


def test_the_index_costs_the_writer_little(tmp_path: Path) -> None:
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(ROUNDS):
        for is_old in (True, False) if turn % 2 else (False, True):
            taken[is_old].append(seconds(tmp_path / f"{turn}{is_old}", is_old=is_old))
    old, new = (statistics.median(taken[is_old]) for is_old in (True, False))
    per = 1e6 / (2 * RUNS * COMMITS)
    record(
        "writer with the index of captions", new * per, unit="us CPU per invocation", baseline=old * per,
        ratio=new / old, limit=1.05, file="search", baseline_is="the same without index and indices",
        fastest=min(taken[False]) / min(taken[True]), rounds=ROUNDS,
    )  # fmt: skip
    print(f"old {old * per:.1f} new {new * per:.1f} us per invocation, ratio {new / old:.3f}")


OUTPUTS = 1_000_000


def test_the_index_of_an_old_store_is_made_fast(tmp_path: Path) -> None:
    """Texts as captioners give them, written in bulk; wall time, as whoever waits for it sees it."""
    rng = random.Random(0)
    with Store(tmp_path, write=True, create=True) as store:
        texts = (f"{' '.join(rng.choices(WORDS, k=9))} {number}" for number in range(OUTPUTS))
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO output (digest, modality, text) VALUES (?, 'text', ?)",
                ((prompt_digest(text), text) for text in texts),
            )
    with Store(tmp_path, write=True) as store:
        began, began_cpu = time.monotonic(), time.process_time()
        assert indexing.complete(store) == OUTPUTS
        taken, cpu = time.monotonic() - began, time.process_time() - began_cpu
    record(
        "index of captions of an old store", OUTPUTS / taken, unit="outputs/s", limit=100_000.0,
        file="search", outputs=OUTPUTS, per_cpu_s=OUTPUTS / cpu, input="texts of ten words",
    )  # fmt: skip
    print(f"{OUTPUTS / taken:,.0f} outputs/s of wall time, {OUTPUTS / cpu:,.0f} of processor time")
