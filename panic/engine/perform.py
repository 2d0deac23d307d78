"""Perform an experiment: open the store, pin, start executor and writer, let the driver work, close.

    from panic import run
    run("configs/demo.yaml", "panic-store")

The same call goes on where an earlier one stopped, whatever stopped it.
"""

from __future__ import annotations

import logging
import os
import queue
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from panic.config import ExperimentConfig, identity_digest
from panic.devices.device import Device, open_device
from panic.engine.buckets import Buckets
from panic.engine.calibration import Trial
from panic.engine.contents import ContentCache
from panic.engine.diagrams import DiagramStages, add_measures, warn_of_short_runs
from panic.engine.driver import Driver, Inbox
from panic.engine.embeddings import EmbeddingStage
from panic.engine.loops import Loop, Loops
from panic.engine.memory import MemorySettings, learn, memory_settings
from panic.engine.pinning import Pin, pin, refuse_conflicts, shapes, untried
from panic.engine.plan import CheckedConfig, Plan, check_config, make_plan
from panic.engine.pool import Pool
from panic.engine.progress import Progress
from panic.engine.queue import Item, Lane, ReadyQueue
from panic.engine.restore import LOST, Restorer
from panic.engine.workers import Seat, count_workers, open_executors, refuse_impossible
from panic.engine.writer import Entry, Writer
from panic.errors import Interrupted, UsageError
from panic.interrupts import stop_on_signals
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import DEFAULT_STORE, Store
from panic.store.provenance import provenance
from panic.store.records import Counts, NewInvocation, RunRow

log = logging.getLogger("panic.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an experiment has come to. state: "complete", or "failed" if some runs ended with a reason."""

    experiment: str
    name: str
    state: str
    counts: Counts
    store: Path


def run(
    config: ExperimentConfig | CheckedConfig | str | os.PathLike[str],
    store: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    on_progress: Callable[[Progress], None] | None = None,
    command: str = "",
    retry_failed: bool = False,
    repair: bool = False,
) -> Outcome:
    """Perform an experiment until nothing is missing in its store.

    Args:
        config: a config, checked or not, or the path of one.
        store: folder of the store, created if missing; by default the config's, then ./panic-store.
        overrides: dotted settings such as "max_length=10"; for a path only.
        command: kept with the session; by default this process's command line.
        retry_failed: try runs again that ended with a failure.
        repair: look at every stored image, drop those that are damaged, and try again to compute lost ones.
            Missing images are always computed again.

    Raises: Interrupted after SIGINT or SIGTERM, ConfigError, ConflictError, StoreError, ModelError. Whatever
    is raised, what was computed is stored.
    """
    if isinstance(config, str | os.PathLike):
        config = check_config(config, overrides, ask=True)
    elif overrides:
        raise UsageError("overrides change a config file; this config is loaded already")
    checked = config if isinstance(config, CheckedConfig) else CheckedConfig.of(config, ask=True)
    config = checked.config
    refuse_impossible(config)
    device = open_device(config.device)
    plan = make_plan(checked, device.kind)
    fingerprints = registry.fingerprints(plan.specs)
    warn_of_short_runs(plan)
    path = Path(store or config.store or DEFAULT_STORE)
    identity = identity_digest(config)
    with stop_on_signals() as stop_requested, Store(path, write=True, create=True) as writing:
        for row in writing.experiments():
            if row.identity_digest == identity:
                refuse_conflicts(writing, row.id, plan, fingerprints, device.kind)
        experiment = writing.start_experiment(config.name, identity, config.model_dump(mode="json"))
        if retry_failed:
            writing.forget_failures(experiment)
        if repair:
            writing.forget_failures(experiment, LOST)
            writing.drop_images(writing.damaged_images(experiment))
        run_ids = writing.add_runs(experiment, plan.runs)
        session = writing.start_session(experiment, command or shlex.join(sys.argv), provenance())
        uid = writing.experiment(experiment).uid
        memory = memory_settings(writing, device, fingerprints, uid, session)
        state = "failed"
        try:
            with Store(path) as reading:
                _perform(
                    plan,
                    fingerprints,
                    experiment,
                    session,
                    run_ids,
                    device,
                    memory,
                    writing,
                    reading,
                    stop_requested,
                    on_progress or (lambda progress: None),
                )
            state = "done"
        except Interrupted:
            state = "interrupted"
            raise
        finally:
            learn(writing, device, fingerprints, memory)
            writing.end_session(session, state)
        row = writing.experiment(experiment)
        counts = writing.counts(experiment)
    return Outcome(
        experiment=row.uid,
        name=row.name,
        state="failed" if counts.failed else "complete",
        counts=counts,
        store=path,
    )


def _perform(
    plan: Plan,
    fingerprints: Mapping[str, str],
    experiment: int,
    session: int,
    run_ids: Sequence[int],
    device: Device,
    memory: MemorySettings,
    writing: Store,
    reading: Store,
    stop_requested: Callable[[], bool],
    on_progress: Callable[[Progress], None],
) -> None:
    config, specs = plan.config, plan.specs
    measures = add_measures(writing, config)
    inbox: Inbox = queue.SimpleQueue()
    contents = ContentCache(
        config.pixel_cache_bytes,
        lambda digest, kind: reading.image(digest) if kind is Modality.IMAGE else reading.text(digest),
    )
    buckets = Buckets(specs, contents)
    epochs = reading.epochs(experiment)
    called = shapes(plan, epochs, device.kind)

    def enqueue(model: str, item: Item) -> None:
        ready.put(model, buckets.of(model, item.input, specs[model].modalities_in[0]), item)

    def open_epoch(name: str, batch_size: int) -> Pin:
        old = pins[name]
        number = writing.add_epoch(
            experiment,
            name,
            model=old.model,
            batch_size=batch_size,
            device_kind=device.kind,
            threads=old.threads,
        )
        return Pin(model=old.model, epoch=number, batch_size=batch_size, threads=old.threads)

    with ExitStack() as stack:
        writer = Writer(writing.commit, contents.saved)
        stack.callback(writer.close)
        num_runs, num_missing = _missing(reading, experiment, run_ids)
        num_workers = count_workers(plan, called, device, num_runs, num_missing)
        seats = [Seat(e) for e in open_executors(plan, called, device, num_workers, inbox.put, memory)]
        for seat in seats:
            stack.callback(seat.executor.close)
        trial = Trial(seats[0].executor, inbox, specs, buckets, stop_requested)
        wanted = {name: called[name].batch_size for name in untried(plan, epochs, device)}
        pins = pin(writing, experiment, plan, fingerprints, device.kind, trial.batch_sizes(wanted))
        ready = ReadyQueue(
            Lane(
                model=name,
                batch_size=pins[name].batch_size,
                order=order,
                eager=name in plan.generative and Modality.IMAGE in spec.modalities_in,
            )
            for order, (name, spec) in enumerate(specs.items())
        )
        loops = Loops(enqueue)
        restorer = Restorer(
            executors=[seat.executor for seat in seats],
            inbox=inbox,
            writer=writer,
            contents=contents,
            buckets=buckets,
            max_retries=config.max_retries,
            stop_requested=stop_requested,
            on_progress=on_progress,
        )
        lost = restorer.restore(reading, experiment)
        embeddings = EmbeddingStage(reading, experiment, plan.embedding, pins, buckets, ready.put, lost)
        diagrams = None
        if config.diagrams:
            pool = Pool(reading.path, config.diagrams, inbox.put, num_workers=config.diagram_workers)
            stack.callback(pool.close)
            models = [pins[name].model for name in _diagrammed(plan)]
            diagrams = DiagramStages(pool, reading, experiment, models, config.diagrams, *measures)
        before = _resume(plan, pins, experiment, run_ids, reading, loops, writer, lost)
        Driver(
            pins=pins,
            session=session,
            ready=ready,
            loops=loops,
            embeddings=embeddings,
            diagrams=diagrams,
            seats=seats,
            writer=writer,
            contents=contents,
            buckets=buckets,
            inbox=inbox,
            max_retries=config.max_retries,
            fail_fast=config.fail_fast,
            next_batch=writing.next_batch_id,
            open_epoch=open_epoch,
            stop_requested=stop_requested,
            on_progress=on_progress,
            before=before,
        ).perform()


def _missing(store: Store, experiment: int, run_ids: Sequence[int]) -> tuple[int, int]:
    """(runs that have not ended, invocations they lack if none gets stuck)."""
    wanted = set(run_ids)
    lacking = [
        row.max_length - row.num_steps
        for row in store.runs(experiment)
        if row.id in wanted and row.state in ("todo", "running")
    ]
    return len(lacking), sum(lacking)


def _resume(
    plan: Plan,
    pins: dict[str, Pin],
    experiment: int,
    run_ids: Sequence[int],
    store: Store,
    loops: Loops,
    writer: Writer,
    lost: frozenset[bytes],
) -> Progress:
    """Bring every run of the plan to where the store has it, and set it going."""
    rows = {row.id: row for row in store.runs(experiment)}
    tails = {run: (num_steps, digest) for run, num_steps, digest in store.tails(experiment)}
    wanted = dict(zip(run_ids, plan.runs, strict=True))
    unfinished = [id for id in wanted if rows[id].state in ("todo", "running")]
    for id in unfinished:
        loops.add(Loop(id, wanted[id], plan.config.root_seed, rows[id].max_length))
    _recall(pins, experiment, rows, store, loops, lost)
    entry = Entry()
    for id in unfinished:
        loops.start(id, *tails[id], entry)
    if entry.invocations or entry.stuck:
        writer.add(entry)
    loops.take_ended()
    counts = store.counts(experiment)
    ended = [row for row in rows.values() if row.state not in ("todo", "running")]
    return Progress(
        runs_total=len(rows),
        runs_stuck=sum(row.state == "stuck" for row in ended),
        runs_failed=sum(row.state == "failed" for row in ended),
        invocations=sum(num_steps for num_steps, _ in tails.values()) + len(entry.invocations),
        embeddings=counts.embeddings,
        diagrams=counts.diagrams,
        vectorisations=counts.vectorisations,
        distances=counts.distances,
    )


def _recall(
    pins: dict[str, Pin],
    experiment: int,
    rows: dict[int, RunRow],
    store: Store,
    loops: Loops,
    lost: frozenset[bytes],
) -> None:
    """Tell the loops what fixed-seed runs have computed already; nothing can go on from a lost image."""
    for run, step, _, epoch, seed, input, output, batch in store.fixed_seed_history(experiment):
        if output in lost:
            continue
        network = rows[run].network
        model = network[step % len(network)]
        known = NewInvocation(run, step, input, output, seed, batch)
        is_current = model in pins and pins[model].epoch == epoch
        loops.recall(model, known, is_current=is_current)


def _diagrammed(plan: Plan) -> list[str]:
    """The embedding models whose vectors become diagrams."""
    settings = plan.config.diagrams
    return [
        name for name, spec in plan.embedding.items() if settings and settings.modality in spec.modalities_in
    ]
