"""A store of runs whose vectors are given, without models: where the diagrams stage starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from panic.store import Commit, NewBatch, NewEmbedding, NewInvocation, NewOutput, NewRun, Store, writing
from panic.store.codec import text_digest

NETWORK = ("teller",)


def build(folder: Path, num_runs: int, cloud: Callable[[int], np.ndarray]) -> tuple[int, int]:
    """Store `num_runs` runs; the k-th has the vectors `cloud(k)` (n, d). (experiment, embedding model)."""
    with Store(folder, write=True, create=True) as store:
        experiment = writing.start_experiment(store, "vectors", {"name": "vectors"})
        teller, embedder = (
            writing.add_model(store, "teller", "teller", {}),
            writing.add_model(store, "embedder", "embedder", {}),
        )
        length = len(cloud(0))
        wanted = [
            NewRun(network=NETWORK, prompt=f"run {k}", seed=1, max_length=length) for k in range(num_runs)
        ]
        runs = writing.add_runs(store, experiment, wanted)
        session = writing.start_session(store, experiment, "benchmark", {})
        for k, run in enumerate(runs):
            called = [
                NewBatch(
                    id=writing.next_batch_id(store), session=session, model=model, epoch=0, device="cpu",
                    size=length, padded_size=length, started_at=time.time(), duration_s=0.0,
                )
                for model in (teller, embedder)
            ]  # fmt: skip
            texts = [f"run {k}", *(f"text {step} of run {k}" for step in range(length))]
            digests = [text_digest(text) for text in texts]
            writing.commit(
                store,
                Commit(
                    batches=called,
                    outputs=[
                        NewOutput(digest=d, modality="text", text=t)
                        for d, t in zip(digests[1:], texts[1:], strict=True)
                    ],
                    invocations=[
                        NewInvocation(run, step, digests[step], digests[step + 1], 1, called[0].id)
                        for step in range(length)
                    ],
                    embeddings=[
                        NewEmbedding(output=d, model=embedder, batch=called[1].id, vector=vector)
                        for d, vector in zip(digests[1:], cloud(k), strict=True)
                    ],
                ),
            )
    return experiment, embedder
