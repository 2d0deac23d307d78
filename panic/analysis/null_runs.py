"""Null models as runs in the store: what charts, diagrams and statistics read like any other runs.

Every run that has ended gets a surrogate of its vectors, under each embedding model that has them all: a run
from the same prompt, a text per step that says what it is, and the surrogate's vectors as that text's
embeddings. They are an experiment of their own, `NAME/null-KIND` (of image outputs `NAME/null-KIND-images`),
which goes when its source is deleted. What the source asks for of diagrams, its nulls have too
(`null_shapes`).

What comes out depends on the root seed, the kind, and which run and model it is of; not on when it is made.
What is there already is kept, so the call can be repeated, also after a kill.

    with Store("panic-store", write=True) as store:
        [name] = write_nulls(store, "demo", "matched_walk")
        load(store, name).trajectory(...)
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panic.analysis import nulls
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData, load
from panic.analysis.grouping import course_name
from panic.analysis.null_shapes import Show, add_shapes, shapes_of
from panic.arms import BASELINE
from panic.errors import NotFound
from panic.store import (
    Commit,
    NewBatch,
    NewEmbedding,
    NewInvocation,
    NewOutput,
    NewRun,
    Store,
    missing,
    reading,
    writing,
)
from panic.store.codec import prompt_digest, text_digest
from panic.store.delete import delete_experiment
from panic.store.records import ENDED, ExperimentRow, RunRow

log = logging.getLogger("panic.analysis")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surrogate:
    """What is to be made of a run of the source: the null run, its texts, vectors (n, d) by model's row."""

    run: NewRun
    texts: list[str]
    make: dict[int, Callable[[], NDArray[np.float64]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Null:
    """One null experiment: its name, kind, modality, what it is of, its runs, and its models by name."""

    name: str
    kind: str
    modality: str
    source: ExperimentRow
    surrogates: list[_Surrogate]
    models: dict[str, int]


def write_nulls(
    store: Store, experiment: int | str, kind: str, *, show: Show = lambda what, done, total: None
) -> list[str]:
    """Write a surrogate of every run of an experiment that has ended and has vectors.

    Returns the names of the null experiments: one per modality that has vectors, texts first. `store` must be
    open for writing. NotFound for an unknown kind; AnalysisError when no run can have a surrogate, or for an
    experiment of nulls.
    """
    surrogate = nulls.surrogate_of(kind)
    source = reading.experiment(store, experiment)
    if reading.is_null(source.name):
        raise AnalysisError(f"{source.name} has null models already, and they have none of their own")
    data = load(store, source.id)
    found = [_null(source, data, kind, surrogate, modality) for modality in ("text", "image")]
    found = [one for one in found if one.surrogates]
    if not found:
        raise AnalysisError(
            f"no run of {source.name} has ended and has vectors: there is nothing to make nulls of"
        )
    for one in found:
        _write(store, one, show)
    return [one.name for one in found]


def _null(
    source: ExperimentRow, data: ExperimentData, kind: str, surrogate: nulls.Surrogate, modality: str
) -> _Null:
    """What the null experiment of a kind and modality is to hold."""
    name = f"{source.name}/null-{kind}" + ("" if modality == "text" else "-images")
    pinned = {epoch.name: epoch.model for epoch in data.epochs}
    specs = {model.id: model.spec for model in data.models}
    models = {
        name: pinned[name]
        for name in source.config.get("embeddings", [])
        if name in pinned and modality in specs[pinned[name]].get("modalities_in", ["text"])
    }
    turn: Counter[tuple[str, str]] = Counter()
    surrogates = []
    for run in data.rows:
        network = f"{kind} of {course_name(run)}"
        repeat = turn[network, run.prompt]
        turn[network, run.prompt] += 1
        if run.state not in ENDED:
            continue
        vectors = dict(_vectors(data, run, models, modality))
        if not vectors:
            continue
        of_run = [kind, modality, run.network, run.prompt, run.seed, run.repeat]
        of_run += [run.arm] if run.arm != BASELINE else []
        seed = [source.config.get("root_seed", 0), *of_run]
        title = f"{name}, run {_digest(seed)[:12]}"
        length = len(next(iter(vectors.values())))
        surrogates.append(
            _Surrogate(
                run=NewRun(network=(network,), prompt=run.prompt, seed=-1, repeat=repeat, max_length=length),
                texts=[f"{title}, step {step}" for step in range(length)],
                make={
                    models[model]: _maker(surrogate, own, int(_digest([*seed, model]), 16))
                    for model, own in vectors.items()
                },
            )
        )
    return _Null(name=name, kind=kind, modality=modality, source=source, surrogates=surrogates, models=models)


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _maker(
    surrogate: nulls.Surrogate, own: NDArray[np.float32], seed: int
) -> Callable[[], NDArray[np.float64]]:
    return lambda: np.asarray(surrogate(own, np.random.default_rng(seed)), dtype=np.float64)


def _vectors(
    data: ExperimentData, run: RunRow, models: dict[str, int], modality: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The run's vectors under each model that has those of all its outputs."""
    for model in models:
        try:
            found = data.trajectory(run.id, model, modality)
        except NotFound:
            continue
        if len(found):
            yield model, found


def _write(store: Store, null: _Null, show: Show) -> None:
    """Write what a null experiment lacks; one of runs that have grown meanwhile is made anew."""
    known = reading.named(store, null.name)
    if known is not None and _is_outdated(store, known, null.surrogates):
        delete_experiment(store, known.id)
    runs = [one.run for one in null.surrogates]
    config = {
        "name": null.name,
        "networks": [list(network) for network in dict.fromkeys(run.network for run in runs)],
        "prompts": sorted({run.prompt for run in runs}),
        "seeds": [-1],
        "max_length": max(run.max_length for run in runs),
        "embeddings": list(null.models),
        **shapes_of(null.source.config, null.modality).config,
        "null_of": null.source.uid,
        "null": null.kind,
    }
    target = writing.start_experiment(store, null.name, config)
    command = f"panic nulls {null.source.name} {null.kind}"
    with writing.recorded_session(store, target, command, {}) as session:
        spec = {"modalities_in": ["text"], "modality_out": "text", "null": null.kind}
        maker = writing.add_model(store, f"null-{null.kind}", f"null-{null.kind}", spec)
        pinned = {epoch.name for epoch in reading.epochs(store, target)}
        for name, model in [*((run.network[0], maker) for run in runs), *null.models.items()]:
            if name not in pinned:
                writing.add_epoch(store, target, name, model=model, batch_size=1, device_kind="cpu")
                pinned.add(name)
        _add_surrogates(store, target, null, maker, session, show)
        asked = shapes_of(null.source.config, null.modality)
        for model in null.models.values():
            add_shapes(store, target, model, asked, show)


def _add_surrogates(store: Store, target: int, null: _Null, maker: int, session: int, show: Show) -> None:
    """Write the runs and vectors that are missing; those that cannot be made are left out, with a warning.

    AnalysisError, and no experiment, where that leaves none.
    """
    begun = {_key(run): run.id for run in reading.runs(store, target) if run.num_steps}
    failures: Counter[str] = Counter()
    for number, one in enumerate(null.surrogates):
        show("surrogates", number, len(null.surrogates))
        row = begun.get(_key(one.run))
        made = {}
        for model, make in one.make.items():
            if row is not None and not _is_lacking(store, target, model, row, one.texts):
                continue
            try:
                made[model] = make()
            except AnalysisError as error:
                failures[error.message] += 1
        if row is None and made:
            [row] = writing.add_runs(store, target, [one.run])
            writing.commit(store, _steps(store, one, row, maker, session))
        for model, vectors in made.items():
            writing.commit(store, _embeddings(store, one.texts, model, vectors, session))
    if not reading.runs(store, target):
        delete_experiment(store, target)
        raise AnalysisError(
            f"no null model {null.kind} of {null.source.name} can be made: {'; '.join(failures)}"
        )
    for reason, num in failures.items():
        log.warning("%s: %d surrogates are left out: %s", null.name, num, reason)


def _key(run: NewRun | RunRow) -> tuple[tuple[str, ...], str, int]:
    return run.network, run.prompt, run.repeat


def _is_lacking(store: Store, target: int, model: int, row: int, texts: Sequence[str]) -> bool:
    """Whether a null run's texts have no vectors under a model."""
    lacking = dict(missing.embeddings(store, target, model, ["text"], run=row))
    return any(text_digest(text) in lacking for text in texts)


def _is_outdated(store: Store, known: ExperimentRow, surrogates: Sequence[_Surrogate]) -> bool:
    """Whether a run has another length than the surrogate that is stored of it."""
    lengths = {_key(run): run.max_length for run in reading.runs(store, known.id)}
    keys = {_key(one.run): len(one.texts) for one in surrogates}
    return any(lengths.get(key, length) != length for key, length in keys.items())


def _steps(store: Store, one: _Surrogate, row: int, maker: int, session: int) -> Commit:
    """The texts of a null run, in one batch."""
    batch = _batch(store, maker, len(one.texts), session)
    digests = [text_digest(text) for text in one.texts]
    inputs = [prompt_digest(one.run.prompt), *digests[:-1]]
    return Commit(
        batches=[batch],
        outputs=[
            NewOutput(digest=digest, modality="text", text=text)
            for digest, text in zip(digests, one.texts, strict=True)
        ],
        invocations=[
            NewInvocation(row, step, before, after, step, batch.id)
            for step, (before, after) in enumerate(zip(inputs, digests, strict=True))
        ],
    )


def _embeddings(
    store: Store, texts: list[str], model: int, vectors: NDArray[np.float64], session: int
) -> Commit:
    """The vectors of a null run under a model, in one batch."""
    batch = _batch(store, model, len(texts), session)
    return Commit(
        batches=[batch],
        embeddings=[
            NewEmbedding(output=text_digest(text), model=model, batch=batch.id, vector=vector)
            for text, vector in zip(texts, vectors, strict=True)
        ],
    )


def _batch(store: Store, model: int, size: int, session: int) -> NewBatch:
    return NewBatch(
        id=writing.next_batch_id(store), session=session, model=model, epoch=0, device="cpu", size=size,
        padded_size=size, started_at=time.time(), duration_s=0.0,
    )  # fmt: skip
