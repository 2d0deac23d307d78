"""What is pinned with an experiment at its first start: fingerprints, batch sizes, device kind, threads.

Kernels differ by shape and device, and a loop amplifies the last bit into another trajectory. So what an
experiment started with, it goes on with; a setting that says otherwise is refused, not ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from panic.devices.device import Device
from panic.engine.plan import Plan, small_bytes
from panic.errors import ConflictError
from panic.models.spec import ModelSpec
from panic.store import Store, reading, writing
from panic.store.records import EpochRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a model is called."""

    batch_size: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin(Shape):
    """A model of an experiment as it is called now: its row in the store and its shape epoch."""

    model: int
    epoch: int


def shapes(plan: Plan, epochs: Iterable[EpochRow], device_kind: str) -> dict[str, Shape]:
    """How the models of a plan are called if nothing proves too large.

    That is what the experiment has pinned (its epochs, oldest first), else what the config says, else what
    the model itself asks for.
    """
    pinned = {row.name: row for row in epochs}
    return {name: _shape(plan, spec, device_kind, pinned.get(name)) for name, spec in plan.specs.items()}


def _shape(plan: Plan, spec: ModelSpec, device_kind: str, row: EpochRow | None) -> Shape:
    if row is not None:
        return Shape(batch_size=row.batch_size, threads=row.threads or num_cores())
    return Shape(
        batch_size=plan.config.batch_sizes.get(spec.name, spec.batch_size),
        threads=plan.config.threads or _default_threads(plan, device_kind),
    )


def untried(plan: Plan, epochs: Iterable[EpochRow], device: Device) -> list[str]:
    """Models whose batch size nobody has decided: on a device with memory of its own it is tried out.

    Synthetic models take none.
    """
    decided = {*plan.config.batch_sizes, *(row.name for row in epochs)}
    return [
        name
        for name, spec in plan.specs.items()
        if device.has_own_memory and name not in decided and spec.adapter != "synthetic"
    ]


def refuse_conflicts(
    store: Store, experiment: int, plan: Plan, fingerprints: Mapping[str, str], device_kind: str
) -> None:
    """Raise ConflictError if the plan contradicts what an experiment started with.

    That is: another device kind, another explicit batch size or number of threads, or a model whose
    content has changed under its name.
    """
    conflicts = [
        problem
        for row in reading.epochs(store, experiment)
        if row.name in fingerprints
        for problem in _conflicts(plan, row, fingerprints[row.name], device_kind)
    ]
    if conflicts:
        raise ConflictError(
            "\n".join(dict.fromkeys(conflicts)),
            hint="What an experiment started with stays. Undo the setting, or give the config another name.",
        )


def pin(
    store: Store,
    experiment: int,
    plan: Plan,
    fingerprints: Mapping[str, str],
    device_kind: str,
    tried: Mapping[str, int] | None = None,
) -> dict[str, Pin]:
    """The current shape epoch of every model of a plan; models that are new to the experiment are pinned.

    Args:
        tried: batch sizes that were tried out.
    """
    pinned = {row.name: row for row in reading.epochs(store, experiment)}
    pins: dict[str, Pin] = {}
    for name, shape in shapes(plan, pinned.values(), device_kind).items():
        batch_size, threads = (tried or {}).get(name, shape.batch_size), shape.threads
        if row := pinned.get(name):
            model, number = row.model, row.number
        else:
            model = writing.add_model(store, name, fingerprints[name], _plain(plan.specs[name]))
            number = writing.add_epoch(
                store,
                experiment,
                name,
                model=model,
                batch_size=batch_size,
                device_kind=device_kind,
                threads=threads,
            )
        pins[name] = Pin(model=model, epoch=number, batch_size=batch_size, threads=threads)
    return pins


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
