"""Null models as runs in the store: what charts, diagrams and statistics read like any other runs.

Every run of an experiment gets a surrogate of its vectors under one embedding model: an experiment of its
own, a run from the same prompt, a text per step that says what it is, and the surrogate's vector as that
text's embedding under the same model. Where the experiment asks for diagrams, its nulls have them too. What
is there already is kept, so the call can be repeated.

    with Store("panic-store", write=True) as store:
        name = write_nulls(store, "demo", "PocketText", "matched_walk")
        load(store, name).trajectory(...)
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from panic.analysis import nulls
from panic.analysis.checks import AnalysisError
from panic.analysis.data import load
from panic.config.diagrams import DiagramSettings, one_or_several
from panic.models.protocol import Modality
from panic.store import (
    Commit,
    NewBatch,
    NewDiagram,
    NewEmbedding,
    NewInvocation,
    NewOutput,
    NewRun,
    Store,
    contents,
    missing,
    reading,
    writing,
)
from panic.store.codec import text_digest
from panic.topology import TopologyError, asked

log = logging.getLogger("panic.analysis")


def write_nulls(
    store: Store, experiment: int | str, model: str, kind: str, *, modality: str = "text", seed: int = 0
) -> str:
    """Write a surrogate of every run of an experiment that has vectors; the name of the new experiment.

    The name tells the kind, the model, and a modality or a seed that is not the default. It is then the
    store's latest experiment. `store` must be open for writing. Runs without a step of this modality are
    left out. AnalysisError for an unknown kind or when no run can have a surrogate; NotFound when a vector
    is missing.
    """
    kinds = nulls.kinds()
    if kind not in kinds:
        raise AnalysisError(f"unknown null model {kind!r}", hint=f"known: {', '.join(kinds)}")
    source, embedding = reading.experiment(store, experiment), reading.model(store, model)
    data = load(store, source.id)
    identity = json.dumps([source.uid, embedding.fingerprint, kind, modality, seed])
    digest = hashlib.sha256(identity.encode()).hexdigest()
    surrogates: list[tuple[int, str, np.ndarray[Any, np.dtype[np.float64]]]] = []
    for run, prompt in data.runs.select("run", "prompt").iter_rows():
        vectors = data.trajectory(run, model, modality)
        if len(vectors):
            # Of the run's own row, so that runs added later change none that are there.
            surrogates.append((run, prompt, kinds[kind](vectors, np.random.default_rng([seed, run]))))
    if not surrogates:
        raise AnalysisError(
            f"no run of {source.name} has {modality} outputs: there is nothing to make nulls of"
        )
    told = ["null", kind, re.sub(r"[^A-Za-z0-9._-]+", "-", model)]
    told += [modality] if modality != "text" else []
    told += [f"seed{seed}"] if seed else []
    name, network = "-".join([source.name, *told]), (f"null/{kind}",)
    config = {
        "name": name, "networks": [list(network)], "prompts": sorted({prompt for _, prompt, _ in surrogates}),
        "seeds": [-1], "max_length": max(len(made) for *_, made in surrogates), "embeddings": [model],
        "diagrams": source.config.get("diagrams"), "null_of": source.uid, "null_seed": seed,
        "null_digest": digest,
    }  # fmt: skip
    known = reading.named(store, name)
    if known is not None and known.config.get("null_digest", digest) != digest:
        raise AnalysisError(
            f"{name} was made of another experiment or model of these names",
            hint=f"panic delete {name} makes room for another",
        )
    target = writing.start_experiment(store, name, config)
    turn: Counter[str] = Counter()
    asked = []
    for _, prompt, made in surrogates:
        asked.append(
            NewRun(network=network, prompt=prompt, seed=-1, repeat=turn[prompt], max_length=len(made))
        )
        turn[prompt] += 1
    rows = writing.add_runs(store, target, asked)
    spec = {"modalities_in": ["text"], "modality_out": "text", "null": kind}
    maker = writing.add_model(store, network[0], f"null-{kind}", spec)
    writing.add_epoch(store, target, network[0], model=maker, batch_size=1, device_kind="cpu")
    writing.add_epoch(store, target, model, model=embedding.id, batch_size=1, device_kind="cpu")
    session = writing.start_session(store, target, f"write_nulls {source.name} {kind}", {})
    done = {run.id for run in reading.runs(store, target) if run.num_steps}
    for row, (run, prompt, made) in zip(rows, surrogates, strict=True):
        if row not in done:
            writing.commit(
                store,
                _commit(
                    store,
                    row,
                    f"{kind} of run {run}, {digest[:8]}",
                    prompt,
                    made,
                    maker,
                    embedding.id,
                    session,
                ),
            )
    wanted = [one for one in _diagram_settings(source.config) if one.modality == modality]
    for settings in wanted:
        _add_diagrams(store, target, embedding.id, settings)
    writing.end_session(store, session, "done")
    return name


def _diagram_settings(config: Mapping[str, Any]) -> list[DiagramSettings]:
    return [DiagramSettings.model_validate(one) for one in one_or_several(config.get("diagrams"))]


def _add_diagrams(store: Store, experiment: int, model: int, settings: DiagramSettings) -> None:
    """Write the diagrams that surrogates lack; their vectors stand for texts, whatever the runs' are of."""
    window = settings.window
    lacking = missing.diagrams(
        store,
        experiment,
        model,
        settings.digest,
        Modality.TEXT,
        min_points=1 if window is None else window.span,
    )
    for run in lacking:
        vectors = contents.run_vectors(store, run, model, Modality.TEXT)
        start = time.perf_counter()
        try:
            found = asked(vectors, settings)
        except TopologyError as error:
            log.warning("run %d has no diagram: %s", run, error.message)
            continue
        row = NewDiagram(
            run=run,
            model=model,
            settings=settings.key,
            settings_digest=settings.digest,
            num_points=len(vectors),
            num_unique=found.num_unique,
            bars={dimension: found.bars(dimension) for dimension in range(settings.max_dimension + 1)},
            generators=dict(enumerate(found.generators or ())),
            error=found.error,
            duration_s=time.perf_counter() - start,
        )
        writing.commit(store, Commit(diagrams=[row]))


def _commit(
    store: Store, row: int, title: str, prompt: str, made: Any, maker: int, embedding: int, session: int
) -> Commit:
    """One surrogate: two batches of one text and one vector per step."""
    batches = [
        NewBatch(
            id=writing.next_batch_id(store), session=session, model=model, epoch=0, device="cpu",
            size=len(made),
            padded_size=len(made), started_at=time.time(), duration_s=0.0,
        )
        for model in (maker, embedding)
    ]  # fmt: skip
    texts = [f"{title}, step {step}" for step in range(len(made))]
    digests = [text_digest(text) for text in texts]
    inputs = [text_digest(prompt), *digests[:-1]]
    return Commit(
        batches=batches,
        outputs=[
            NewOutput(digest=digest, modality="text", text=text)
            for digest, text in zip(digests, texts, strict=True)
        ],
        invocations=[
            NewInvocation(row, step, before, after, step, batches[0].id)
            for step, (before, after) in enumerate(zip(inputs, digests, strict=True))
        ],
        embeddings=[
            NewEmbedding(output=digest, model=embedding, batch=batches[1].id, vector=vector)
            for digest, vector in zip(digests, made, strict=True)
        ],
    )
