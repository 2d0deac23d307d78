"""What performing a config would do, without doing it.

panic run configs/demo.yaml --dry-run
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from panic.config import ExperimentConfig, identity_digest
from panic.devices.device import Device, open_device
from panic.engine.pinning import refuse_conflicts, shapes, untried
from panic.engine.plan import Plan, make_plan
from panic.errors import ModelError, StoreMissing
from panic.models import registry
from panic.models.spec import ModelSpec
from panic.store import Store, missing, reading
from panic.store.records import EpochRow, ExperimentRow, NewRun, RunRow

Key = tuple[tuple[str, ...], str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewModel:
    """A model that the experiment uses.

    size_bytes: of the weights, None if they are not here to be counted. shape_from: who says the batch size:
    the "experiment" that has started, the "config", the "model", or a "trial" before the first item that
    may halve it. order: 1 for the model that is loaded first, None for a model without work.
    """

    name: str
    modality: str
    size_bytes: int | None
    batch_size: int
    shape_from: str
    is_present: bool
    order: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What there is to do. invocations_total and eta_s are upper bounds: a run that gets stuck ends early.

    runs_existing: runs that have ended. images_missing: whose pixels the store has lost. eta_s: model time at
    the speed seen in this store; None where a model has not been seen.
    """

    name: str
    store: Path
    is_known: bool
    runs_total: int
    runs_existing: int
    invocations_total: int
    invocations_existing: int
    images_missing: int
    models: list[PreviewModel]
    eta_s: float | None


def preview(config: ExperimentConfig, store_path: str | os.PathLike[str]) -> Preview:
    """Compare a config with what a store has; a store that is not there has nothing.

    Raises ConflictError where the experiment started with other settings, or with models that have changed.
    """
    device = open_device(config.device)
    plan = make_plan(config, device.kind)
    identity = identity_digest(config)
    try:
        with Store(store_path) as store:
            row = next(
                (row for row in reading.experiments(store) if row.identity_digest == identity),
                None,
            )
            if row is not None:
                present = {name: spec for name, spec in plan.specs.items() if registry.is_present(spec)}
                refuse_conflicts(store, row.id, plan, registry.fingerprints(present), device.kind)
            return _preview(plan, device, Path(store_path), store, row)
    except StoreMissing:
        return _preview(plan, device, Path(store_path), None, None)


def _preview(
    plan: Plan, device: Device, path: Path, store: Store | None, row: ExperimentRow | None
) -> Preview:
    known: dict[Key, RunRow] = {}
    epochs: list[EpochRow] = []
    if store is not None and row is not None:
        known = {(r.network, r.prompt, r.seed, r.repeat): r for r in reading.runs(store, row.id)}
        epochs = reading.epochs(store, row.id)
    existing = total = ended = 0
    left: Counter[str] = Counter()
    for run in plan.runs:
        stored = known.get((run.network, run.prompt, run.seed, run.repeat))
        begin, end = _steps(run, stored)
        existing, total, ended = existing + begin, total + end, ended + (begin == end)
        for position, name in enumerate(run.network):
            left[name] += _steps_at(position, len(run.network), begin, end)
    pinned = {epoch.name: epoch.model for epoch in epochs}
    idle = {name for name in plan.generative if not left[name]}
    if store is not None and row is not None and total == existing:
        idle |= {
            name
            for name, spec in plan.embedding.items()
            if name in pinned and not missing.embeddings(store, row.id, pinned[name], spec.modalities_in)
        }
    order = [name for name in plan.specs if name not in idle]
    called = shapes(plan, epochs, device.kind)
    origin = (
        dict.fromkeys(plan.specs, "model")
        | dict.fromkeys(untried(plan, epochs, device), "trial")
        | dict.fromkeys(plan.config.batch_sizes, "config")
        | dict.fromkeys(pinned, "experiment")
    )
    return Preview(
        name=plan.config.name,
        store=path,
        is_known=row is not None,
        runs_total=len(plan.runs),
        runs_existing=ended,
        invocations_total=total,
        invocations_existing=existing,
        images_missing=sum(1 for _ in missing.images(store, row.id)) if store and row else 0,
        models=[
            PreviewModel(
                name=name,
                modality=f"{' or '.join(spec.modalities_in)} → {spec.modality_out}",
                size_bytes=_size_bytes(spec),
                batch_size=called[name].batch_size,
                shape_from=origin[name],
                is_present=registry.is_present(spec),
                order=order.index(name) + 1 if name in order else None,
            )
            for name, spec in plan.specs.items()
        ],
        eta_s=_eta_s(left, _seconds_per_item(store)),
    )


def _steps(run: NewRun, stored: RunRow | None) -> tuple[int, int]:
    """How many steps a run has and will have; equal if it has ended."""
    if stored is None:
        return 0, run.max_length
    if stored.state in ("stuck", "failed"):
        return stored.num_steps, stored.num_steps
    return stored.num_steps, max(run.max_length, stored.max_length)


def _steps_at(position: int, length: int, begin: int, end: int) -> int:
    """How many steps of [begin, end) are at a position of a network: step mod length = position.

    >>> [_steps_at(position, 2, 1, 6) for position in (0, 1)]
    [2, 3]
    """
    return len(range(begin + (position - begin) % length, end, length))


def _seconds_per_item(store: Store | None) -> dict[str, float]:
    times = reading.model_times(store) if store is not None else []
    return {time.model: time.duration_s / time.items for time in times}


def _eta_s(left: Mapping[str, int], speed: Mapping[str, float]) -> float | None:
    work: Iterable[tuple[str, int]] = [(name, number) for name, number in left.items() if number]
    if any(name not in speed for name, _ in work):
        return None
    return sum(number * speed[name] for name, number in work)


def _size_bytes(spec: ModelSpec) -> int | None:
    try:
        return registry.size_bytes(spec)
    except ModelError:
        return None
