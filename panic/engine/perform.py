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
from functools import partial
from pathlib import Path

from panic.config import ExperimentConfig
from panic.devices.device import Device, open_device
from panic.engine.buckets import Buckets
from panic.engine.calibration import Trial
from panic.engine.contents import Content, ContentCache
from panic.engine.diagrams import DiagramStages, add_measures, warn_of_short_runs
from panic.engine.driver import Driver, Inbox
from panic.engine.embeddings import EmbeddingStage
from panic.engine.loops import Loop, Loops
from panic.engine.memory import MemorySettings, learn, memory_settings
from panic.engine.pinning import Pin, begin, pin, shapes, untried
from panic.engine.plan import Plan, load_config, make_plan
from panic.engine.pool import Pool
from panic.engine.preview import warn_of_what_stays
from panic.engine.progress import Progress
from panic.engine.queue import Item, Lane, ReadyQueue
from panic.engine.restore import LOST, Restorer
from panic.engine.workers import Seat, count_workers, open_executors, refuse_impossible
from panic.engine.writer import Entry, Writer
from panic.errors import Interrupted, UsageError
from panic.interrupts import stop_on_signals
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import DEFAULT_STORE, Store, images, missing, reading, writing
from panic.store import contents as stored
from panic.store.provenance import provenance
from panic.store.records import Counts, NewRun, RunRow
from panic.store.standing import standing

log = logging.getLogger("panic.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an experiment has come to.

    state: "complete", "failed" if some runs ended with a reason, or "incomplete" if it was asked for more
    before.
    """

    experiment: str
    name: str
    state: str
    counts: Counts
    store: Path


def run(
    config: ExperimentConfig | str | os.PathLike[str],
    store: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    on_progress: Callable[[Progress], None] | None = None,
    command: str = "",
    retry_failed: bool = False,
    repair: bool = False,
    runs: Sequence[NewRun] | None = None,
) -> Outcome:
    """Perform an experiment until nothing is missing in its store.

    Args:
        config: a config, or the path of one.
        store: folder of the store, created if missing; by default the config's, then ./panic-store.
        overrides: dotted settings such as "max_length=10"; for a path only.
        command: kept with the session; by default this process's command line.
        retry_failed: try runs again that ended with a failure.
        repair: look at every stored image, drop those that are damaged, and try again to compute lost ones.
            Missing images are always computed again.
        runs: exactly these runs, by default all that the config asks for.

    Raises: Interrupted after SIGINT or SIGTERM, ConfigError, ConflictError, StoreError, ModelError. Whatever
    is raised, what was computed is stored.
    """
    if not isinstance(config, ExperimentConfig):
        config = load_config(config, overrides)
    elif overrides:
        raise UsageError("overrides change a config file; this config is loaded already")
    refuse_impossible(config)
    device = open_device(config.device)
    plan = make_plan(config, device.kind, runs)
    fingerprints = registry.fingerprints(plan.specs)
    warn_of_short_runs(plan)
    path = Path(store or config.store or DEFAULT_STORE)
    with stop_on_signals() as stop_requested, Store(path, write=True, create=True) as opened:
        experiment = begin(opened, plan, fingerprints, device.kind)
        if retry_failed:
            writing.forget_failures(opened, experiment)
        if repair:
            writing.forget_failures(opened, experiment, LOST)
            writing.drop_images(opened, images.damaged_images(opened, experiment))
        warn_of_what_stays(opened, experiment, plan)
        run_ids = writing.add_runs(opened, experiment, plan.runs)
        asked = config.model_dump(mode="json")
        called = command or shlex.join(sys.argv)
        session = writing.start_session(opened, experiment, called, provenance(), asked)
        uid = reading.experiment(opened, experiment).uid
        memory = memory_settings(opened, device, fingerprints, uid, session)
        state = "failed"
        try:
            with Store(path) as reader:
                _perform(
                    plan,
                    fingerprints,
                    experiment,
                    session,
                    run_ids,
                    device,
                    memory,
                    opened,
                    reader,
                    stop_requested,
                    on_progress or (lambda progress: None),
                )
            state = "done"
        except Interrupted:
            state = "interrupted"
            raise
        finally:
            learn(opened, device, fingerprints, memory)
            writing.end_session(opened, session, state)
        row = reading.experiment(opened, experiment)
        now = standing(opened, row)
    return Outcome(
        experiment=row.uid,
        name=row.name,
        state=now.state,
        counts=now.counts,
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
    store: Store,
    reader: Store,
    stop_requested: Callable[[], bool],
    on_progress: Callable[[Progress], None],
) -> None:
    config, specs = plan.config, plan.specs
    measures = add_measures(store, config)
    inbox: Inbox = queue.SimpleQueue()
    contents = ContentCache(
        config.pixel_cache_bytes,
        lambda digest, kind: (
            stored.image(reader, digest) if kind is Modality.IMAGE else stored.text(reader, digest)
        ),
    )
    buckets = Buckets(specs, registry.build, contents)
    epochs = reading.epochs(reader, experiment)
    called = shapes(plan, epochs, device.kind, reading.runs(reader, experiment))

    def enqueue(model: str, item: Item) -> None:
        ready.put(model, buckets.of(model, item.input, specs[model].modalities_in[0]), item)

    def open_epoch(name: str, batch_size: int) -> Pin:
        old = pins[name]
        number = writing.add_epoch(
            store,
            experiment,
            name,
            model=old.model,
            batch_size=batch_size,
            device_kind=device.kind,
            threads=old.threads,
        )
        return Pin(model=old.model, epoch=number, batch_size=batch_size, threads=old.threads)

    with ExitStack() as stack:
        writer = Writer(partial(writing.commit, store), contents.saved)
        stack.callback(writer.close)
        num_runs, num_missing = _missing(reader, experiment, run_ids)
        num_workers = count_workers(plan, called, device, num_runs, num_missing)
        seats = [Seat(e) for e in open_executors(plan, called, device, num_workers, inbox.put, memory)]
        for seat in seats:
            stack.callback(seat.executor.close)
        trial = Trial(seats[0].executor, inbox, specs, buckets, stop_requested)
        wanted = {name: called[name].batch_size for name in untried(plan, epochs, device)}
        pins = pin(store, experiment, plan, fingerprints, device.kind, trial.batch_sizes(wanted))
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
        lost = restorer.restore(reader, experiment)
        embeddings = EmbeddingStage(reader, experiment, plan.embedding, pins, buckets, ready.put, lost)
        diagrams = None
        if config.diagrams:
            most = max(config.diagrams, key=lambda settings: settings.max_dimension)
            pool = Pool(reader.path, most, inbox.put, num_workers=config.diagram_workers)
            stack.callback(pool.close)
            wanted_diagrams = [(pins[name].model, settings) for name, settings in plan.diagrams]
            diagrams = DiagramStages(pool, reader, experiment, wanted_diagrams, *measures)
        before = _resume(plan, pins, experiment, run_ids, reader, loops, writer, lost)
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
            next_batch=partial(writing.next_batch_id, store),
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
        for row in reading.runs(store, experiment)
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
    rows = {row.id: row for row in reading.runs(store, experiment)}
    tails = {tail.run: (tail.num_steps, tail.output) for tail in missing.tails(store, experiment)}
    wanted = dict(zip(run_ids, plan.runs, strict=True))
    unfinished = [id for id in wanted if rows[id].state in ("todo", "running")]
    for id in unfinished:
        loops.add(Loop(id, wanted[id], plan.config.root_seed, wanted[id].max_length))
    _recall(pins, experiment, rows, store, loops, lost)
    entry = Entry()
    for id in unfinished:
        loops.start(id, *tails[id], entry)
    if entry.invocations or entry.stuck:
        writer.add(entry)
    loops.take_ended()
    counts = reading.counts(store, experiment)
    ended = [rows[id] for id in wanted if rows[id].state not in ("todo", "running")]
    return Progress(
        runs_total=len(wanted),
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
    for known in missing.fixed_seed_history(store, experiment):
        if known.output in lost:
            continue
        network = rows[known.run].network
        model = network[known.step % len(network)]
        is_current = model in pins and pins[model].epoch == known.epoch
        loops.recall(model, known, is_current=is_current)


def _read(store: Store, digest: bytes, modality: Modality) -> Content:
    if modality is Modality.IMAGE:
        return stored.image(store, digest)
    return stored.text(store, digest)
