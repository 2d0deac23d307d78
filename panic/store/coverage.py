"""How much of what is taken of an experiment's runs is there: vectors, diagrams, and measures of these.

    for part in coverage(store, experiment, config, models_of(store, experiment, config)):
        print(part.stage, part.of, part.stored, part.missing)

What is missing is what could be computed now: runs that have not ended will ask for more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from panic.config import DiagramSettings, ExperimentConfig
from panic.store import missing
from panic.store.codec import canonical_json
from panic.store.reading import CURRENT, USED_OUTPUTS, epochs, models
from panic.store.store import Store

NOT_THERE = -1
"""The row of a model or an experiment that a store has never seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel:
    """An embedding model as a config names it; `row` is that of its fingerprint in the store."""

    name: str
    row: int
    modalities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Results of one stage and kind: how many there are, and how many could be computed now.

    of: what they are made of or with, in words; model: the embedding model behind them. per: results for
    each vector, diagram or pair of diagrams.
    """

    stage: str
    of: str
    model: str
    stored: int
    missing: int
    per: int


def models_of(store: Store, experiment: int, config: ExperimentConfig) -> list[EmbeddingModel]:
    """The embedding models of a config, as the experiment has pinned them."""
    pinned = {epoch.name: epoch.model for epoch in epochs(store, experiment)}
    modalities = {model.id: tuple(model.spec.get("modalities_in", ["text"])) for model in models(store)}
    return [
        EmbeddingModel(name=name, row=row, modalities=modalities.get(row, ("text",)))
        for name in config.embeddings
        for row in [pinned.get(name, NOT_THERE)]
    ]


def is_complete(store: Store, experiment: int, config: ExperimentConfig) -> bool:
    """Whether nothing that the config takes of runs could be computed now."""
    found = coverage(store, experiment, config, models_of(store, experiment, config))
    return not any(part.missing for part in found)


def coverage(
    store: Store | None,
    experiment: int,
    config: ExperimentConfig,
    embedding_models: Sequence[EmbeddingModel],
    growing: Collection[int] = (),
) -> Iterator[Part]:
    """The parts of what a config takes of an experiment's runs, in the order in which they are computed.

    Without a store there is nothing. growing: rows of runs that will go on, so that their diagrams do not
    count.
    """
    for model in embedding_models:
        yield _vectors(store, experiment, model)
    for settings, model in product(config.diagrams, embedding_models):
        if settings.modality not in model.modalities:
            continue
        usable, num_due = _diagrams(store, (experiment, model.row, settings), growing)
        of = f"{model.name}, {diagram_title(settings)}"
        yield Part(stage="diagrams", of=of, model=model.name, stored=len(usable), missing=num_due, per=1)
        dimensions = settings.max_dimension + 1
        pairs = len(usable) * (len(usable) - 1) // 2
        for stage, number, rows, measures in (
            ("vectorisations", len(usable), "vectorisation WHERE diagram IN given", config.vectorisations),
            ("distances", pairs, "distance WHERE a IN given AND b IN given", config.distances),
        ):
            for measure in measures:
                stored = _count(store, rows, measure.key, usable)
                yield Part(
                    stage=stage,
                    of=f"{measure.kind} of {of}",
                    model=model.name,
                    stored=stored,
                    missing=number * dimensions - stored,
                    per=dimensions,
                )


def diagram_title(settings: DiagramSettings) -> str:
    """Diagram settings in a few words: what differs from the defaults, beside dimension and modality."""
    default = DiagramSettings()
    words = [f"{settings.modality}, H0 to H{settings.max_dimension}"]
    for name, value in settings.key.items():
        if name not in ("max_dimension", "modality") and value != getattr(default, name):
            words.append(f"{name} {canonical_json(value)}" if isinstance(value, dict) else f"{name} {value}")
    return ", ".join(words)


def _vectors(store: Store | None, experiment: int, model: EmbeddingModel) -> Part:
    stored = lacking = 0
    if store is not None:
        sql = f"SELECT count(*) FROM embedding WHERE model = ?2 AND output IN ({USED_OUTPUTS})"
        stored = store.db.value(sql, experiment, model.row)
        lacking = len(missing.embeddings(store, experiment, model.row, model.modalities))
    return Part(stage="embeddings", of=model.name, model=model.name, stored=stored, missing=lacking, per=1)


def _diagrams(
    store: Store | None, of: tuple[int, int, DiagramSettings], growing: Collection[int]
) -> tuple[list[int], int]:
    """Rows of the diagrams of runs that have ended, and how many runs lack theirs."""
    experiment, model, settings = of
    if store is None:
        return [], 0
    min_points = 1 if settings.window is None else settings.window.span
    due = missing.diagrams(
        *(store, experiment, model, settings.digest, settings.modality), min_points=min_points
    )
    rows = store.db.rows(f"SELECT id, run FROM ({CURRENT})", experiment, model, settings.digest)
    stale = {*due, *growing}
    return [id for id, run in rows if run not in stale], len(due)


def _count(store: Store | None, rows: str, measure: Mapping[str, Any], diagrams: Sequence[int]) -> int:
    """How many rows of a measure there are for these diagrams, which the clause calls `given`."""
    if store is None:
        return 0
    digest = hashlib.sha256(canonical_json(measure).encode()).hexdigest()
    return int(
        store.db.value(
            f"WITH given AS (SELECT value FROM json_each(?1)) SELECT count(*) FROM {rows}"
            " AND measure = (SELECT id FROM measure WHERE digest = ?2)",
            *(json.dumps(list(diagrams)), digest),
        )
    )
