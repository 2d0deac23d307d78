"""Perform an experiment: open the store and a session, start the workers, pin, let the driver work through
the stages.

    from panic import run
    run("configs/demo.yaml", "panic-store")

The same call goes on where an earlier one stopped, whatever stopped it.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from panic.config import ExperimentConfig
from panic.devices.device import DeviceGroup
from panic.engine.calibration import Trial
from panic.engine.driver import AnyStage, Driver
from panic.engine.pinning import Shape, as_started, known_fingerprints, shapes, unproven, untried
from panic.engine.plan import CheckedConfig, check_config, make_plan, warn_of_short_runs
from panic.engine.pool import Pool
from panic.engine.progress import Progress
from panic.engine.session import Session, open_session
from panic.engine.stages.diagrams import DiagramStage
from panic.engine.stages.distances import DistanceStage
from panic.engine.stages.embeddings import EmbeddingStage
from panic.engine.stages.images import ImageStage
from panic.engine.stages.loops import LoopStage
from panic.engine.stages.vectorisations import VectorisationStage
from panic.engine.workers import Workers, count_workers, open_places, refuse_impossible, start_workers
from panic.errors import UsageError
from panic.models import registry
from panic.store import DEFAULT_STORE, Store, reading
from panic.store.records import Counts, EpochRow, NewRun, RunRow
from panic.store.standing import standing

if TYPE_CHECKING:
    from panic.engine.placing import Placing

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
    config: ExperimentConfig | CheckedConfig | str | os.PathLike[str],
    store: Store | str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    on_progress: Callable[[Progress], None] = lambda progress: None,
    command: str = "",
    retry_failed: bool = False,
    repair: bool = False,
    runs: Sequence[NewRun] | None = None,
) -> Outcome:
    """Perform an experiment until nothing is missing in its store.

    Args:
        config: a config, checked or not, or the path of one.
        store: folder of the store, created if missing; by default the config's, then ./panic-store. Or a
            store that is open for writing.
        overrides: dotted settings such as "max_length=10"; for a path only.
        command: kept with the session; by default this process's command line.
        retry_failed: try runs again that ended with a failure.
        repair: look at every stored image, drop those that are damaged, and try again to compute lost ones.
            Missing images are always computed again.
        runs: exactly these runs, by default all that the config asks for.

    Raises: Interrupted after SIGINT or SIGTERM, ConfigError, ConflictError, StoreError, ModelError. Whatever
    is raised, what was computed is stored.
    """
    if isinstance(config, str | os.PathLike):
        path = store.path if isinstance(store, Store) else store
        config = check_config(config, overrides, ask=True, store=lambda of: Path(path or of or DEFAULT_STORE))
    elif overrides:
        raise UsageError("overrides change a config file; this config is loaded already")
    checked = config if isinstance(config, CheckedConfig) else CheckedConfig.from_python(config)
    config = checked.config
    with ExitStack() as stack:
        if config.notify is not None:
            from panic.engine.notices import telling  # not imported where nobody asks

            on_progress = stack.enter_context(telling(config.notify, config.name, on_progress))
        if config.ray is not None and config.executor != "ray":
            log.warning("ray: has no effect with executor: %s", config.executor)
        device = open_places(config, stack)
        refuse_impossible(config, device)
        plan = make_plan(checked, device.kind, runs)
        warn_of_short_runs(plan)
        if not isinstance(store, Store):
            path = Path(store or config.store or DEFAULT_STORE)
            if not path.exists():
                registry.fingerprints(plan.specs)  # where weights are missing, nothing is made
            store = stack.enter_context(Store(path, write=True, create=True))
        if config.snapshot is not None:
            from panic.engine.snapshots import keeping_snapshots  # not imported where nobody asks

            stack.enter_context(keeping_snapshots(config.snapshot, store))
        plan, fingerprints = as_started(store, plan, known_fingerprints(store, plan))
        with open_session(
            plan,
            fingerprints,
            device,
            store,
            command=command or shlex.join(sys.argv),
            on_progress=on_progress,
            retry_failed=retry_failed,
            repair=repair,
        ) as session:
            _perform(session)
        store.require_in_place()
        row = reading.experiment(store, session.experiment)
        now = standing(store, row)
        return Outcome(
            experiment=row.uid,
            name=row.name,
            state=now.state,
            counts=now.counts,
            store=store.path,
        )


def _perform(session: Session) -> None:
    with ExitStack() as stack:
        workers = pinned_workers(session, stack)
        session.open_spending()
        loops = LoopStage(session)
        Driver(
            session,
            workers,
            phases(session, workers, loops, stack),
            standing=(lambda: loops.standing) if session.device.has_own_memory else None,
            on_epoch=loops.forget,
        ).perform()


def pinned_workers(session: Session, stack: ExitStack) -> Workers:
    """Start the workers of a session, which end with the stack, and pin the shapes of its models."""
    plan, device = session.plan, session.device
    epochs = reading.epochs(session.reader, session.experiment)
    called = shapes(plan, epochs, device.kind, reading.runs(session.reader, session.experiment))
    num_runs, num_missing = _missing(session)
    num_workers = count_workers(plan, called, device, num_runs, num_missing)
    start = partial(start_workers, plan, called, device, num_workers, session.memory, session.fingerprints)
    placing = _placed(session) if isinstance(device, DeviceGroup) else None
    workers = stack.enter_context(closing(Workers(start, session.ledger, placing)))
    if plan.remote:
        _start_endpoints(session, workers, has_runs=num_missing > 0)
    wanted = {name: called[name].batch_size for name in untried(plan, epochs, device)}
    tried = Trial(session, workers).batch_sizes(wanted) if wanted else {}
    called |= {name: replace(called[name], batch_size=size) for name, size in tried.items()}
    busy = {name for row in _unfinished(session) for name in plan.models_of(row)}
    suspects = {name: called[name] for name in unproven(plan, called, epochs, busy, device)}
    session.pin(tried, _proven(session, workers, suspects, epochs) if suspects else {})
    return workers


def _placed(session: Session) -> Placing:
    from panic.engine.placing import open_placing  # most experiments have one device

    times = reading.model_times(session.reader)
    found = open_placing(session.plan, session.device, times, session.memory.peaks)
    log.info("%s", found.described())
    return found


def _start_endpoints(session: Session, workers: Workers, *, has_runs: bool) -> None:
    """Give every model behind an endpoint its worker. Raises ModelMissing for a key that is not there.

    has_runs: there are runs that have not ended; otherwise no generative model is asked.
    """
    from panic.engine.endpoints import start_endpoints  # brings an HTTP client

    plan = session.plan
    asked = {name: spec for name, spec in plan.remote.items() if has_runs or spec.is_embedding}
    constant = plan.config.reject_constant_images
    for name, worker in start_endpoints(asked, workers.post, reject_constant_images=constant).items():
        workers.add_endpoint(worker, name, asked[name].parameters["concurrency"])


def phases(session: Session, workers: Workers, loops: LoopStage, stack: ExitStack) -> list[list[AnyStage]]:
    """The stages that an experiment has, by when they run.

    What loops need comes before them; what can follow single runs overlaps with them; what needs all of that
    to be there comes after them. The pool that jobs are computed in is closed with the stack.
    """
    plan, before = session.plan, reading.counts(session.reader, session.experiment)
    before_loops: list[AnyStage] = [ImageStage(session, before)] if before.invocations else []
    with_loops: list[AnyStage] = [loops]
    after_loops: list[AnyStage] = []
    if plan.embedding:
        with_loops.append(EmbeddingStage(session, loops, before))
    if settings := plan.config.diagrams:
        pool = Pool(
            session.store.path,
            settings,
            workers.post,
            num_workers=plan.config.diagram_workers,
            ledger=session.ledger,
            hidden=plan.secrets,
        )
        stack.enter_context(closing(pool))
        with_loops.append(DiagramStage(session, pool, before))
        after_loops += [VectorisationStage(session, pool, before), DistanceStage(session, pool, before)]
    return [before_loops, with_loops, after_loops]


def _proven(
    session: Session, workers: Workers, suspects: Mapping[str, Shape], epochs: Sequence[EpochRow]
) -> dict[str, Shape]:
    from panic.engine.invariance import Probe  # most experiments need none

    return Probe(session, workers, {row.name for row in epochs}).shapes(suspects)


def _missing(session: Session) -> tuple[int, int]:
    """(runs that have not ended, invocations they lack if none gets stuck)."""
    lacking = [row.max_length - row.num_steps for row in _unfinished(session)]
    return len(lacking), sum(lacking)


def _unfinished(session: Session) -> list[RunRow]:
    """The runs of the plan that have not ended."""
    wanted = set(session.run_ids)
    rows = reading.runs(session.reader, session.experiment)
    return [row for row in rows if row.id in wanted and row.state in ("todo", "running")]
