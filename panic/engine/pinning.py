"""What an experiment goes on with: what its name means, and what is pinned at its first start.

A name means a root seed, whether images of one colour are refused, and what each model is. Pinned are
fingerprints, batch sizes, device kind and threads: kernels differ by shape and device, and a loop amplifies
the last bit into another trajectory. A setting that says otherwise is refused, not ignored; only `repin`
changes shapes, on request.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from panic.config import ExperimentConfig, contradictions, stored, union
from panic.config.fields import MAX_BATCH, MAX_WORKERS
from panic.devices.device import Device
from panic.engine.plan import Plan, joined_runs, open_runs, run_key, small_bytes
from panic.errors import ConfigError, ConflictError, PanicError, StoreCorrupt
from panic.models import imported, registry
from panic.models.kinds import kind_of
from panic.models.protocol import ModelSpec
from panic.store import Store, invariance, missing, provenance, reading, writing
from panic.store.codec import canonical_json, prompt_modality
from panic.store.invariance import Measured, Verdict
from panic.store.records import CUT_SHORT, EpochRow, ExperimentRow, NewEpoch, NewRun, RunRow

log = logging.getLogger("panic.engine")

REMOTE = "endpoint"
"""The kind of device of a model behind an endpoint, as far as the store can tell."""
_KERNELS = ("torch", "diffusers", "transformers")
"""Packages that decide how numbers are rounded, and who pads what."""
SWITCHES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Variables by which libraries are asked for other kernels of the processor than their own choice."""


def refuse_more(most: int, number: int, what: str) -> None:
    """Raise StoreCorrupt for a number that no config can ask for: memory would be filled by it."""
    if number > most:
        raise StoreCorrupt(
            f"the store says {number:,} {what}, and {most:,} is the most",
            hint="panic check names where; a store of somebody else's may be made to do harm.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a model is called."""

    batch_size: int
    threads: int
    mates: str = "bucket"
    """Items that may share a batch: those of a bucket, or those with as many tokens ("length")."""

    def __post_init__(self) -> None:
        refuse_more(MAX_BATCH, self.batch_size, "items in a batch")
        refuse_more(MAX_WORKERS, self.threads, "threads of a model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin(Shape):
    """A model of an experiment as it is called now: its row in the store and its shape epoch."""

    model: int
    epoch: int


def most_ready(plan: Plan, runs: Iterable[NewRun | RunRow]) -> dict[str, int]:
    """How many items can wait for each model of a plan at the same time, at most.

    A run waits for one model at a time, so for a generative model these are the runs whose networks have it;
    for an embedding model all outputs of the runs that it reads, prompts included.
    """
    numbers: Counter[tuple[tuple[str, ...], str, int]] = Counter()
    alike: dict[tuple[tuple[str, ...], str, int], NewRun | RunRow] = {}
    prompts = set()
    for run in runs:
        key = run.network, run.arm, run.max_length
        numbers[key] += 1
        alike.setdefault(key, run)
        prompts.add(run.prompt)
    called = {key: plan.models_of(run) for key, run in alike.items()}
    ready = {
        name: sum(number for key, number in numbers.items() if name in called[key])
        for name in plan.generative
    }
    for name, spec in plan.embedding.items():
        ready[name] = sum(prompt_modality(prompt) in spec.modalities_in for prompt in prompts)
        for key, run in alike.items():
            outputs = run.max_length
            if all(model in plan.specs for model in called[key]):
                outputs = sum(plan.num_outputs(run, kind) for kind in spec.modalities_in)
            ready[name] += numbers[key] * outputs
    return ready


def shapes(
    plan: Plan,
    epochs: Iterable[EpochRow],
    device_kind: str,
    runs: Iterable[NewRun | RunRow] | None = None,
) -> dict[str, Shape]:
    """How the models of a plan are called if nothing proves too large.

    That is what the experiment has pinned (its epochs, oldest first), else what the config says, else what
    the model itself asks for, but not more than can be ready at the same time of `runs` (the experiment's in
    the store with those of the plan; by default those of the plan).
    """
    pinned = {row.name: row for row in epochs}
    ready = most_ready(plan, plan.runs if runs is None else runs)
    found = {
        name: Shape(batch_size=row.batch_size, threads=row.threads or num_cores(), mates=row.mates)
        for name, row in pinned.items()
        if name in plan.specs
    }
    for name in plan.specs.keys() - found.keys():
        fitting = max(1, min(plan.specs[name].batch_size, ready[name], MAX_BATCH))  # 1 behind an endpoint
        found[name] = Shape(
            batch_size=plan.config.batch_sizes.get(name, fitting),
            threads=plan.config.threads or _default_threads(plan, device_kind),
        )
    return {name: found[name] for name in plan.specs}


def fitting_shapes(
    plan: Plan, epochs: Iterable[EpochRow], device_kind: str, runs: Iterable[NewRun | RunRow]
) -> dict[str, Shape]:
    """How the models of a plan would be called by these runs if nothing were pinned.

    Where memory has been short, with the batches that were left by that, unless the config says otherwise; a
    model that these runs do not call, as it is called now.
    """
    runs = list(runs)
    rows = list(epochs)
    left = {row.name: row.batch_size for row in rows if row.reason == "memory"}
    now, ready = shapes(plan, rows, device_kind, runs), most_ready(plan, runs)
    found = {}
    for name, shape in shapes(plan, (), device_kind, runs).items():
        most = shape.batch_size if name in plan.config.batch_sizes else left.get(name, shape.batch_size)
        fitting = replace(shape, batch_size=min(shape.batch_size, most))
        found[name] = fitting if ready[name] else now[name]
    return found


def untried(plan: Plan, epochs: Iterable[EpochRow], device: Device) -> list[str]:
    """Models whose batch size nobody has decided: on a device with memory of its own it is tried out.

    Models without weights take none.
    """
    decided = {*plan.config.batch_sizes, *(row.name for row in epochs)}
    return [
        name
        for name, spec in plan.specs.items()
        if device.has_own_memory and name not in decided and registry.has_weights(spec)
    ]


def unproven(
    plan: Plan,
    called: Mapping[str, Shape],
    epochs: Iterable[EpochRow],
    busy: Collection[str],
    device: Device,
) -> list[str]:
    """Models of which has to be measured whether an item's result depends on its batch mates.

    Not pinned ones that have nothing to do, nor those whose kind vouches for them on a device like those of
    its tests.

    Args:
        busy: generative models that runs wait for.
    """
    pinned = {row.name for row in epochs}
    is_tested = device.torch_name == "cpu" and is_known_to_be_steady(device)
    return [
        name
        for name, spec in plan.specs.items()
        if called[name].batch_size > 1
        and (name in busy or name not in pinned)
        and not registry.is_invariant(spec, is_tested)
    ]


def adapted(shape: Shape, verdict: Verdict) -> Shape:
    """The shape in which results do not depend on batch mates, by what was measured."""
    if verdict == "length":
        return replace(shape, mates="length")
    return replace(shape, batch_size=1, mates="bucket") if verdict == "alone" else shape


def steady_kernels(instructions: Collection[str]) -> str:
    """The value of MKL_CBWR with which no kernel rounds by an item's place; "" if none is needed or known.

    With AVX-512, products of matrices do not. With AVX2 those of small ones do (one in 24 images of the
    pocket model changed with its place in a batch of four) unless MKL is asked to be strict.
    """
    return "AVX2,STRICT" if "avx2" in instructions and "avx512f" not in instructions else ""


def ask_for_steady_kernels() -> None:
    """Ask MKL, before its first use, for kernels that do not round by place; what the user asks for stays."""
    if wanted := steady_kernels(provenance.vector_instructions()):
        os.environ.setdefault("MKL_CBWR", wanted)


def is_known_to_be_steady(device: Device) -> bool:
    """Whether kernels of a processor, chosen as they are there, were tested not to round by place."""
    if (told := getattr(device, "is_steady", None)) is not None:  # by a node of a cluster, of itself
        return bool(told)
    return "avx512f" in provenance.vector_instructions() and not any(one in os.environ for one in SWITCHES)


def surroundings(device: Device) -> str:
    """What a measured verdict depends on beside model and shape: device and versions, as canonical JSON."""
    if told := getattr(device, "surroundings", ""):  # by a node of a cluster: this machine may be another one
        return str(told)
    versions = provenance.packages()
    here = {name: versions[name] for name in _KERNELS if name in versions}
    here["device"] = device.kind
    if not device.has_own_memory:
        ask_for_steady_kernels()
        here["device"] += f" {provenance.processor()}"
        here["instructions"] = " ".join(provenance.vector_instructions())
        here |= {switch: os.environ[switch] for switch in SWITCHES if switch in os.environ}
    return canonical_json(here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Another shape of a model in an experiment; `model` is its row."""

    name: str
    model: int
    before: Shape
    after: Shape


def changes(store: Store, experiment: int, plan: Plan, device: Device) -> list[Change]:
    """What `repin` would do: the models of a plan whose pinned shape is not the one that fits the work.

    Nor is it where results were seen to depend on batch mates, in whatever shape.
    """
    epochs = reading.epochs(store, experiment)
    runs = open_runs(plan, reading.runs(store, experiment))
    now, after = shapes(plan, epochs, device.kind), fitting_shapes(plan, epochs, device.kind, runs)
    leaking = {one.fingerprint: one.verdict for one in _leaks(store, device)}
    for row in epochs:
        if row.name in after and row.fingerprint in leaking:
            after[row.name] = adapted(after[row.name], leaking[row.fingerprint])
    return [
        Change(name=name, model=row.model, before=now[name], after=after[name])
        for name, row in {row.name: row for row in epochs if row.name in after}.items()
        if after[name] != now[name] and row.device_kind != REMOTE
    ]


def _leaks(store: Store, device: Device) -> list[Measured]:
    """Where results were seen to depend on batch mates; the worst of a model's verdicts comes last."""
    known = invariance.verdicts(store, surroundings(device))
    leaks = [one for one in known if one.verdict in ("alone", "length")]
    return sorted(leaks, key=lambda one: one.verdict == "alone")


def repin(
    store: Store, experiment: int, plan: Plan, fingerprints: Mapping[str, str], device: Device
) -> list[Change]:
    """Open a shape epoch for every model whose shape does not fit the work: all of them or none.

    Runs that have ended stay as they are. Those that go on do so in the new shapes, and what was computed
    in the old ones says nothing about their future: no run is stuck by a state of another epoch.
    Raises ConflictError for a plan that contradicts the experiment in anything else.
    """
    row = reading.experiment(store, experiment)
    refuse_conflicts(store, row, plan, fingerprints, device.kind, shapes_may_change=True)
    found = changes(store, experiment, plan, device)
    opened = [
        NewEpoch(
            name=change.name,
            model=change.model,
            batch_size=change.after.batch_size,
            device_kind=device.kind,
            threads=change.after.threads,
            reason="request",
            mates=change.after.mates,
        )
        for change in found
    ]
    writing.add_epochs(store, experiment, opened)
    return found


def as_started(store: Store, plan: Plan, fingerprints: Mapping[str, str]) -> tuple[Plan, dict[str, str]]:
    """The plan and its fingerprints, with models that an experiment of its name started with.

    That is where the words of a config have come to mean another model since: the fingerprint that is pinned
    says which it was. A new experiment takes what the words mean now.
    """
    row = reading.named(store, plan.config.name)
    pinned = {epoch.name: epoch.fingerprint for epoch in reading.epochs(store, row.id)} if row else {}
    then = {
        name: old
        for name, spec in plan.specs.items()
        if fingerprints.get(name) != pinned.get(name)
        for old in registry.earlier(spec)
        if registry.fingerprint(old) == pinned.get(name)
    }
    generative, embedding = (
        {name: then.get(name, spec) for name, spec in part.items()}
        for part in (plan.generative, plan.embedding)
    )
    started = replace(plan, generative=generative, embedding=embedding)
    return started, {**fingerprints, **{name: pinned[name] for name in then}}


def known_fingerprints(store: Store, plan: Plan) -> dict[str, str]:
    """The fingerprints of a plan's models; of those that are not here and not called, as they are pinned.

    Raises ModelMissing that names all whose weights would be needed.
    """
    row = reading.named(store, plan.config.name)
    pinned = {epoch.name: epoch for epoch in reading.epochs(store, row.id)} if row else {}
    found: dict[str, str] = {}
    needed: dict[str, ModelSpec] = {}
    for name, spec in plan.specs.items():
        try:
            found |= registry.fingerprints({name: spec})
        except PanicError:
            if row is None or name not in pinned or is_called(store, row, plan, pinned[name]):
                needed[name] = spec
            else:
                found[name] = pinned[name].fingerprint
    return found | registry.fingerprints(needed)


def is_called(store: Store, row: ExperimentRow, plan: Plan, epoch: EpochRow) -> bool:
    """Whether a plan has anything to ask of a model of its experiment."""
    known = {run_key(run): run for run in reading.runs(store, row.id)}
    growing = [run for run in plan.runs if not has_come_as_far(known.get(run_key(run)), run)]
    if epoch.name in plan.embedding:
        modalities = plan.embedding[epoch.name].modalities_in
        return bool(growing) or any(missing.embeddings(store, row.id, epoch.model, modalities))
    return any(epoch.name in plan.models_of(run) for run in growing) or any(missing.images(store, row.id))


def has_come_as_far(row: RunRow | None, run: NewRun) -> bool:
    """Whether a stored run has all the outputs that are asked of it, or will have no more."""
    return row is not None and (row.state in CUT_SHORT or row.num_steps >= run.max_length)


def begin(
    store: Store,
    plan: Plan,
    fingerprints: Mapping[str, str],
    device_kind: str,
    origin: tuple[str, tuple[Any, ...]] | None = None,
) -> int:
    """Start the experiment of the plan's name, or continue it: its row. Its config becomes the union.

    It stays as it is where the plan is of what is done once.

    origin: the uid of a new one, and a remark that says what it was made from.

    Raises ConflictError, before anything is changed, if the plan contradicts what is there.
    """
    config = plan.config
    row = reading.named(store, config.name)
    if row is None:
        refuse_given(plan, [], [], device_kind)
    else:
        refuse_conflicts(store, row, plan, fingerprints, device_kind)
        if plan.is_once:
            return row.id
        known = known_config(row)
        config = config if known is None else union(known, config)
    uid, remark = origin if origin is not None else ("", None)
    return writing.start_experiment(store, config.name, config.model_dump(mode="json"), uid, remark)


def refuse_conflicts(
    store: Store,
    row: ExperimentRow,
    plan: Plan,
    fingerprints: Mapping[str, str],
    device_kind: str,
    *,
    shapes_may_change: bool = False,
) -> None:
    """Raise ConflictError if the plan contradicts what an experiment started with.

    That is: another root seed, another meaning of a model (its variant, or its content under the same name),
    another device kind, or, unless they may change, another explicit batch size or number of threads.
    """
    pinned = reading.epochs(store, row.id)
    refuse_given(plan, pinned, reading.runs(store, row.id), device_kind)
    unchanged = {epoch.name for epoch in pinned if fingerprints.get(epoch.name) == epoch.fingerprint}
    known = known_config(row)
    found = {} if known is None else contradictions(known, plan.config, unchanged)
    lines = list(found.values())
    for epoch in pinned:
        if epoch.name in fingerprints:
            lines += _other_model(epoch, fingerprints[epoch.name], device_kind, is_told=epoch.name in found)
    deliberate = {epoch.name: epoch for epoch in pinned if epoch.number == 0 or epoch.reason != "memory"}
    for epoch in deliberate.values() if not shapes_may_change else ():
        lines += _other_shape(plan, epoch)
    if lines:
        raise ConflictError(
            "\n".join(dict.fromkeys(lines)),
            hint="What an experiment started with stays. Undo the setting, or perform it under another name:"
            " --name NAME.",
        )


def refuse_given(plan: Plan, epochs: Iterable[EpochRow], rows: Iterable[RunRow], device_kind: str) -> None:
    """Raise ConflictError if a plan asks for outputs that only an import can bring; an import may.

    Args:
        epochs, rows: of the experiment, as far as it is there.
    """
    is_of_given = any(epoch.device_kind == imported.GIVEN for epoch in epochs)
    is_of_given |= any(kind_of(spec).is_given for spec in plan.generative.values())
    if device_kind == imported.GIVEN or not is_of_given:
        return
    known = {run_key(row): row for row in rows}
    lacking = 0
    for run in plan.runs:
        lacking += not has_come_as_far(known.get(run_key(run)), run)
    if lacking:
        raise ConflictError(
            f"The outputs of {plan.config.name} are imported and cannot be computed, and {lacking:,} of"
            " the runs that this asks for lack some.",
            hint="panic import brings more. An experiment of your own needs another name: --name NAME.",
        )


def known_config(row: ExperimentRow) -> ExperimentConfig | None:
    """What an experiment was asked for; None if another version stored it in words of its own."""
    try:
        return stored(row.config, row.name)
    except ConfigError:
        log.warning("%s: its stored config is not one of this version and is replaced", row.name)
        return None


def pin(
    store: Store,
    experiment: int,
    plan: Plan,
    fingerprints: Mapping[str, str],
    device_kind: str,
    tried: Mapping[str, int] | None = None,
    proven: Mapping[str, Shape] | None = None,
) -> dict[str, Pin]:
    """The current shape epoch of every model of a plan; models that are new to the experiment are pinned.

    Args:
        tried: batch sizes that were tried out.
        proven: shapes in which results were seen not to depend on batch mates.
    """
    pinned = {row.name: row for row in reading.epochs(store, experiment)}
    runs = joined_runs(plan.runs, reading.runs(store, experiment))
    pins: dict[str, Pin] = {}
    for name, shape in shapes(plan, pinned.values(), device_kind, runs).items():
        spec = plan.specs[name]
        is_remote = registry.is_remote(spec)
        fitting = replace(shape, batch_size=(tried or {}).get(name, shape.batch_size))
        called = (proven or {}).get(name, fitting)
        if row := pinned.get(name):
            model, number = row.model, row.number
        else:
            is_repeatable = registry.is_repeatable(spec)
            model = writing.add_model(
                store, name, fingerprints[name], plain(spec), is_repeatable=is_repeatable
            )
            opened = NewEpoch(
                name=name,
                model=model,
                batch_size=called.batch_size,
                device_kind=REMOTE if is_remote else device_kind,
                threads=None if is_remote else called.threads,
                reason="memory" if fitting.batch_size < shape.batch_size else "start",
                mates=called.mates,
            )
            [number] = writing.add_epochs(store, experiment, [opened])
        pins[name] = Pin(model=model, epoch=number, **asdict(called))
    return pins


def _other_model(epoch: EpochRow, fingerprint: str, device_kind: str, *, is_told: bool) -> list[str]:
    """How model and device differ from a shape epoch's; is_told: of the model it was said already."""
    name, found = epoch.name, []
    if epoch.fingerprint != fingerprint and not is_told:
        found.append(f"{name} is not the model this experiment started with: its weights or code changed")
    if epoch.device_kind not in (device_kind, imported.GIVEN, REMOTE):
        found.append(f"{name} started on a device of kind {epoch.device_kind!r}; here it is {device_kind!r}")
    return found


def _other_shape(plan: Plan, epoch: EpochRow) -> list[str]:
    """How the shape that the config says differs from the one that was pinned deliberately."""
    config, name, found = plan.config, epoch.name, []
    pinned = "started with" if epoch.reason == "start" else "was pinned anew to"
    asked = config.batch_sizes.get(name)
    if asked is not None and asked != epoch.batch_size:
        found.append(f"batch_sizes.{name} is {asked}; this experiment {pinned} {epoch.batch_size}")
    if config.threads is not None and epoch.threads is not None and config.threads != epoch.threads:
        found.append(f"threads is {config.threads}; this experiment {pinned} {epoch.threads}")
    return found


def _default_threads(plan: Plan, device_kind: str) -> int:
    """One for small models, which several workers serve better; else all cores. Never depends on workers."""
    return num_cores() if small_bytes(plan, device_kind) is None else 1


def num_cores() -> int:
    """Cores that this process may use, as far as they can be asked for."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, MAX_WORKERS)


def plain(spec: ModelSpec) -> dict[str, Any]:
    """What is stored of a spec: what it says beyond nothing."""
    return {name: value for name, value in asdict(spec).items() if value not in (None, "", (), {})}
