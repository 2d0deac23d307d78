"""What is pinned with an experiment at its first start: fingerprints, batch sizes, device kind, threads.

Kernels differ by shape and device, and a loop amplifies the last bit into another trajectory. So what an
experiment started with, it goes on with; a setting that says otherwise is refused, not ignored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from panic.engine.plan import Plan, small_bytes
from panic.errors import ConflictError
from panic.models.spec import ModelSpec
from panic.store import Store
from panic.store.records import EpochRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A model of an experiment as it is called now: its row in the store and its shape epoch."""

    model: int
    epoch: int
    batch_size: int
    threads: int


def refuse_conflicts(
    store: Store, experiment: int, plan: Plan, fingerprints: Mapping[str, str], device_kind: str
) -> None:
    """Raise ConflictError if the plan contradicts what an experiment started with.

    That is: another device kind, another explicit batch size or number of threads, or a model whose
    content has changed under its name.
    """
    conflicts = [
        problem
        for row in store.epochs(experiment)
        if row.name in fingerprints
        for problem in _conflicts(plan, row, fingerprints[row.name], device_kind)
    ]
    if conflicts:
        raise ConflictError(
            "\n".join(dict.fromkeys(conflicts)),
            hint="What an experiment started with stays. Undo the setting, or give the config another name.",
        )


def pin(
    store: Store, experiment: int, plan: Plan, fingerprints: Mapping[str, str], device_kind: str
) -> dict[str, Pin]:
    """The current shape epoch of every model of a plan; models that are new to the experiment are pinned."""
    pinned = {row.name: row for row in store.epochs(experiment)}
    return {
        name: _pin_model(store, experiment, plan, spec, fingerprints[name], device_kind, pinned.get(name))
        for name, spec in plan.specs.items()
    }


def _pin_model(
    store: Store,
    experiment: int,
    plan: Plan,
    spec: ModelSpec,
    fingerprint: str,
    device_kind: str,
    row: EpochRow | None,
) -> Pin:
    if row is not None:
        return Pin(
            model=row.model, epoch=row.number, batch_size=row.batch_size, threads=row.threads or num_cores()
        )
    model = store.add_model(spec.name, fingerprint, _plain(spec))
    batch_size = plan.config.batch_sizes.get(spec.name, spec.batch_size)
    threads = plan.config.threads or _default_threads(plan, device_kind)
    number = store.add_epoch(
        experiment, spec.name, model=model, batch_size=batch_size, device_kind=device_kind, threads=threads
    )
    return Pin(model=model, epoch=number, batch_size=batch_size, threads=threads)


def _conflicts(plan: Plan, row: EpochRow, fingerprint: str, device_kind: str) -> list[str]:
    config, name = plan.config, row.name
    found = []
    if row.fingerprint != fingerprint:
        found.append(f"{name} is not the model this experiment started with: its weights or code changed")
    if row.device_kind != device_kind:
        found.append(f"{name} started on a device of kind {row.device_kind!r}; here it is {device_kind!r}")
    asked = config.batch_sizes.get(name)
    if asked is not None and row.number == 0 and asked != row.batch_size:
        found.append(f"batch_sizes.{name} is {asked}; this experiment started with {row.batch_size}")
    if config.threads is not None and row.threads is not None and config.threads != row.threads:
        found.append(f"threads is {config.threads}; this experiment started with {row.threads}")
    return found


def _default_threads(plan: Plan, device_kind: str) -> int:
    """One for small models, which several workers serve better; else all cores. Never depends on workers."""
    return num_cores() if small_bytes(plan, device_kind) is None else 1


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plain(spec: ModelSpec) -> dict[str, Any]:
    return {name: value for name, value in asdict(spec).items() if value not in (None, "", (), {})}
