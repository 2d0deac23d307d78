"""What performing a config would do, without doing it.

panic run configs/demo.yaml --dry-run
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from panic.arms import networks
from panic.config import ExperimentConfig, union
from panic.devices.device import Device, DeviceGroup, open_devices
from panic.engine.pinning import (
    REMOTE,
    as_started,
    fitting_shapes,
    known_config,
    most_ready,
    num_cores,
    refuse_conflicts,
    shapes,
    untried,
)
from panic.engine.plan import CheckedConfig, Plan, joined_runs, left_alone, make_plan, open_runs, run_key
from panic.errors import ModelError, NotFound, StoreMissing
from panic.models import registry
from panic.models.imported import GIVEN
from panic.models.protocol import ModelSpec
from panic.store import Store, coverage, missing, reading
from panic.store.codec import prompt_modality
from panic.store.coverage import EmbeddingModel, Part
from panic.store.records import CUT_SHORT, EpochRow, ExperimentRow, NewRun, RunRow
from panic.store.served import ServedModel, served_models
from panic.topology import Estimate, estimate

if TYPE_CHECKING:
    from panic.engine.placing import Placing

ASSUMED_COORDINATES = 768
"""Coordinates of a vector, for the estimate of diagrams: most embedding models have 384 to 1,024."""

TOLERATED_PADDING = 0.1
"""The share of padding above which a smaller batch size is a better one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewModel:
    """A model that the experiment uses.

    size_bytes: of the weights, None if they are not here to be counted. shape_from: who says the batch size:
    the "experiment" that has started, the "config", the "model", or a "trial" before the first item that
    may halve it; None if nothing is known of the model without running it. fitting_batch_size: what it would
    be if nothing were pinned. absence: why the model cannot be loaded here, "" if it can. num_ready: the most
    items that wait for the model at the same time. num_items: what is left for it. order: 1 for the model
    that is loaded first, None for a model without work.
    """

    name: str
    modality: str
    size_bytes: int | None
    batch_size: int | None
    fitting_batch_size: int
    shape_from: str
    absence: str
    num_ready: int
    num_items: int
    order: int | None
    is_remote: bool = False

    @property
    def is_present(self) -> bool:
        """Whether the model could be loaded at once."""
        return not self.absence

    @property
    def padding(self) -> float | None:
        """The share of places in batches that no item fills while all runs are in step."""
        if self.batch_size is None:
            return None
        places = -(-self.num_ready // self.batch_size) * self.batch_size
        return 1 - self.num_ready / places if places else 0.0

    @property
    def is_misfit(self) -> bool:
        """Whether the batch size that fits takes fewer calls, or clearly less padding."""
        if self.batch_size is None:
            return False
        fewer = self.num_calls(self.fitting_batch_size) < self.num_calls(self.batch_size)
        is_wasteful = (self.padding or 0.0) > TOLERATED_PADDING
        return fewer or (is_wasteful and self.fitting_batch_size < self.batch_size)

    def num_calls(self, batch_size: int) -> int:
        """Calls for what is left, while all runs are in step, in batches of this size."""
        rounds = self.num_items / max(1, self.num_ready)
        return max(round(rounds * -(-self.num_ready // batch_size)), -(-self.num_items // batch_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What there is to do. invocations_total and eta_s are upper bounds: a run that gets stuck ends early.

    runs_existing: runs that have ended. images_missing: whose pixels the store has lost. parts: what is taken
    of the runs; `missing` includes at most as much as the runs to come will ask for. eta_s: model time at
    the speed seen in this store; None where a model has not been seen. diagrams: what those that are missing
    will take if no run gets stuck; None if there are none. served: what endpoints have been sent and said so
    far. placing: which of several devices serves what; None for one device.
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
    parts: list[Part]
    left_alone: list[str]
    eta_s: float | None
    diagrams: Estimate | None
    served: Sequence[ServedModel] = ()
    placing: Placing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What a store has of an experiment; nothing of a new one."""

    row: ExperimentRow | None = None
    runs: Sequence[RunRow] = ()
    epochs: Sequence[EpochRow] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)


def preview(
    config: ExperimentConfig | CheckedConfig,
    store_path: str | os.PathLike[str],
    runs: Sequence[NewRun] | None = None,
) -> Preview:
    """Compare a config, or exactly these runs of it, with what a store has; a missing store has nothing.

    No file of a user is run: what its source does not tell is not known, and not compared.

    Raises ConflictError where the experiment started with other settings, or with models that have changed.
    """
    checked = config if isinstance(config, CheckedConfig) else CheckedConfig.of(config, ask=False)
    config = checked.config
    device = open_devices(config.device)
    plan = make_plan(checked, device.kind, runs)
    fingerprints = _fingerprints(plan)
    try:
        with Store(store_path) as store:
            row = reading.named(store, config.name)
            if row is None:
                return _preview(plan, device, Path(store_path), store, _Stored(fingerprints=fingerprints))
            plan, fingerprints = as_started(store, plan, fingerprints)
            epochs = reading.epochs(store, row.id)
            kind = device.kind if config.executor != "ray" else _kind_there(epochs, device.kind)
            refuse_conflicts(store, row, plan, fingerprints, kind)
            known = _Stored(
                row=row,
                runs=reading.runs(store, row.id),
                epochs=epochs,
                fingerprints=fingerprints,
            )
            return _preview(plan, device, Path(store_path), store, known)
    except StoreMissing:
        return _preview(plan, device, Path(store_path), None, _Stored(fingerprints=fingerprints))


def _kind_there(epochs: Iterable[EpochRow], here: str) -> str:
    """The kind of the devices of a cluster, which nobody asks: that on which the experiment has begun."""
    return next((one.device_kind for one in epochs if one.device_kind not in (REMOTE, GIVEN)), here)


def _fingerprints(plan: Plan) -> dict[str, str]:
    """The fingerprints of models that are here, and of which enough is known without running their code."""
    found = {}
    for name, spec in plan.specs.items():
        with contextlib.suppress(NotFound):
            if registry.is_present(spec) and not spec.unread:
                found[name] = registry.fingerprint(spec)
    return found


def _preview(plan: Plan, device: Device, path: Path, store: Store | None, known: _Stored) -> Preview:
    rows = {run_key(row): row for row in known.runs}
    existing = total = ended = 0
    left: Counter[str] = Counter()
    growing: list[NewRun] = []
    for run in plan.runs:
        begin, end = _steps(run, rows.get(run_key(run)))
        existing, total, ended = existing + begin, total + end, ended + (begin == end)
        growing += [run] if begin < end else []
        left.update(_calls(plan, run, begin, end))
    parts = _parts(plan, store, known, growing, left)
    for part in parts:
        if part.stage == "embeddings":
            left[part.model] = part.missing
    row = known.row
    return Preview(
        name=plan.config.name,
        store=path,
        is_known=row is not None,
        runs_total=len(plan.runs),
        runs_existing=ended,
        invocations_total=total,
        invocations_existing=existing,
        images_missing=sum(1 for _ in missing.images(store, row.id)) if store and row else 0,
        models=_models(plan, device, known, left),
        parts=parts,
        left_alone=left_alone(plan, known.runs, None if row is None else _union(row, plan.config)),
        eta_s=_eta_s({name: left[name] for name in plan.generative}, _seconds_per_item(store)),
        diagrams=_diagrams(plan, parts),
        served=served_models(store, row.id) if store and row else (),
        placing=_placing(plan, device, store),
    )


def _placing(plan: Plan, device: Device, store: Store | None) -> Placing | None:
    if not isinstance(device, DeviceGroup):
        return None
    from panic.engine.placing import open_placing  # most experiments have one device

    return open_placing(plan, device, reading.model_times(store) if store is not None else ())


def _union(row: ExperimentRow, config: ExperimentConfig) -> ExperimentConfig | None:
    known = known_config(row)
    return None if known is None else union(known, config)


def _models(plan: Plan, device: Device, known: _Stored, left: Mapping[str, int]) -> list[PreviewModel]:
    called = shapes(plan, known.epochs, device.kind, joined_runs(plan.runs, known.runs))
    runs = open_runs(plan, known.runs)
    fitting = fitting_shapes(plan, known.epochs, device.kind, runs)
    ready = most_ready(plan, runs)
    origin = (
        dict.fromkeys(plan.specs, "model")
        | dict.fromkeys(untried(plan, known.epochs, device), "trial")
        | dict.fromkeys(plan.config.batch_sizes, "config")
        | dict.fromkeys((epoch.name for epoch in known.epochs), "experiment")
    )
    decided = {*plan.config.batch_sizes, *(epoch.name for epoch in known.epochs)}
    order = [name for name in plan.specs if left[name]]
    return [
        PreviewModel(
            name=name,
            modality=spec.mapping,
            size_bytes=_size_bytes(spec),
            batch_size=None if spec.unread and name not in decided else called[name].batch_size,
            fitting_batch_size=fitting[name].batch_size,
            shape_from=origin[name],
            absence=registry.absence(spec),
            num_ready=left[name] if spec.is_embedding else min(ready[name], left[name]),
            num_items=left[name],
            order=order.index(name) + 1 if name in order else None,
            is_remote=registry.is_remote(spec),
        )
        for name, spec in plan.specs.items()
    ]


def _parts(
    plan: Plan, store: Store | None, known: _Stored, growing: Sequence[NewRun], left: Mapping[str, int]
) -> list[Part]:
    """What the store has of each part, and at most how much is missing when all runs have ended."""
    rows = {run_key(row): row for row in known.runs}
    coming = {"text": 0, "image": 0}
    for name, number in left.items():
        coming[str(plan.specs[name].modality_out)] += number
    for prompt in {run.prompt for run in plan.runs} - {row.prompt for row in known.runs}:
        coming[prompt_modality(prompt)] += 1
    grown = {rows[key].id for key in map(run_key, growing) if key in rows}
    complete = sum(row.state in ("done", "stuck", "repeated") and row.id not in grown for row in known.runs)
    num_diagrams = complete + len(growing)
    found: list[Part] = []
    for part in _stored_parts(plan, store, known, grown):
        spec = plan.specs[part.model]
        most = part.stored + part.missing + sum(coming[str(kind)] for kind in spec.modalities_in)
        if part.stage in ("diagrams", "vectorisations"):
            most = num_diagrams * part.per
        elif part.stage == "distances":
            most = num_diagrams * (num_diagrams - 1) // 2 * part.per
        found.append(replace(part, missing=max(0, most - part.stored)))
    return found


def _stored_parts(plan: Plan, store: Store | None, known: _Stored, grown: set[int]) -> list[Part]:
    """What the store has of each part; a model that others have used is known by its fingerprint."""
    rows = {model.fingerprint: model.id for model in reading.models(store)} if store else {}
    models = [
        EmbeddingModel(
            name=name,
            row=rows.get(known.fingerprints.get(name, ""), coverage.NOT_THERE),
            modalities=tuple(str(kind) for kind in spec.modalities_in),
        )
        for name, spec in plan.embedding.items()
    ]
    experiment = coverage.NOT_THERE if known.row is None else known.row.id
    return list(coverage.coverage(store, experiment, plan.config, models, grown))


def _steps(run: NewRun, stored: RunRow | None) -> tuple[int, int]:
    """How many steps a run has and will have; equal if it has ended."""
    if stored is None:
        return 0, run.max_length
    if stored.state in CUT_SHORT:
        return stored.num_steps, stored.num_steps
    return stored.num_steps, max(run.max_length, stored.num_steps)


def _calls(plan: Plan, run: NewRun, begin: int, end: int) -> Counter[str]:
    """How often the steps [begin, end) of a run call each model."""
    calls: Counter[str] = Counter()
    arm = plan.arms.get(run.arm, ())
    for network, first, stop in networks(run.network, arm, end) if arm else [(run.network, 0, end)]:
        for position, name in enumerate(network):
            calls[name] += _steps_at(position, len(network), max(begin, first) - first, stop - first)
    for one in arm:
        if one.model:
            calls[one.model] += one.num_due(begin, end)
    return calls


def _steps_at(position: int, length: int, begin: int, end: int) -> int:
    """How many steps of [begin, end) are at a position of a network: step mod length = position.

    >>> [_steps_at(position, 2, 1, 6) for position in (0, 1)]
    [2, 3]
    """
    return len(range(begin + (position - begin) % length, end, length))


def _diagrams(plan: Plan, parts: Iterable[Part]) -> Estimate | None:
    """What the diagrams that are missing will take: as many as that, each of the longest run's cloud."""
    num_missing = sum(part.missing for part in parts if part.stage == "diagrams")
    if not num_missing:
        return None
    settings = plan.config.diagrams
    return estimate(
        num_missing,
        max(plan.num_outputs(run, one.modality) for run in plan.runs for one in settings),
        ASSUMED_COORDINATES,
        max(one.max_dimension for one in settings),
        workers=plan.config.diagram_workers or num_cores(),
    )


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
