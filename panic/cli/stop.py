"""`panic stop` and `panic end`: what is being performed, or what will not be any more.

panic stop demo --wait; panic stop checkpoints/mine; panic end demo; panic end mine
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from panic.cli.common import EitherArgument, Shared, command, tell_options
from panic.cli.one_training import LOOK_AGAIN_S, end_training, stop_training
from panic.cli.render import console
from panic.cli.run import TrustOption
from panic.errors import UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.records import ExperimentRow


@command
def stop(
    shared: Shared,
    experiment: EitherArgument = "latest",
    wait: Annotated[bool, typer.Option("--wait", help="Until it has stopped.")] = False,
) -> None:
    """Ask the process that performs an experiment, or a training, to stop; it can go on later.

    It finishes the batch or step in flight and keeps all; `panic resume` goes on. Only a process of this
    machine can be asked.
    """
    from panic.store import reading, standing
    from panic.store.driver import ask_to_stop
    from panic.store.trainings import named_training

    with shared.open_store() as store:
        if training := named_training(store, experiment):
            return stop_training(training, wait=wait, quiet=shared.quiet)
        row = reading.experiment(store, experiment)
        pid = standing.standing(store, row).pid
        holder = store.lock_holder
        if pid is None or holder is None or holder.pid != pid:
            return console().print(_nobody(store, row))
        ask_to_stop(store.path, holder)
        if not shared.quiet:
            console().print(
                f"Process {pid} was asked to stop: it finishes the batch in flight of {row.name}."
            )
        while wait and standing.standing(store, row).pid == pid:
            time.sleep(LOOK_AGAIN_S)
    if wait and not shared.quiet:
        console().print(f"{row.name} has stopped. panic resume {row.name} goes on.")
    return None


def _nobody(store: Store, row: ExperimentRow) -> str:
    """That nobody performs an experiment, and what the store's driver does instead."""
    from panic.store import reading, standing

    known = {one.id: one.name for one in reading.experiments(store)}
    busy = [known[id] for id, one in standing.last_sessions(store).items() if one.is_alive and id in known]
    if busy:
        return f"Nobody performs {row.name}; {busy[0]} is being performed: panic stop {busy[0]}"
    if holder := store.lock_holder:
        return f"Nobody performs {row.name}; process {holder.pid} on {holder.host} writes something else."
    return f"Nobody performs {row.name}."


@command
def end(shared: Shared, experiment: EitherArgument = "latest", trust: TrustOption = False) -> None:
    """Declare an experiment, or a training, complete at its present length.

    No run goes on, and runs without a step are dropped. A training has the steps of its last checkpoint,
    whose model is written unless it is there. A config that asks for more reopens both.
    """
    from panic.store import Store, reading, standing
    from panic.store.ending import end_runs
    from panic.store.trainings import named_training

    with shared.open_store() as store:
        training = named_training(store, experiment)
    if training is not None:
        return end_training(shared, training, trust=trust)
    tell_options({"--trust": trust}, "for an experiment, of which nothing is computed")
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        if reading.is_null(row.name):
            raise UsageError(f"{row.name} holds null models, which end with what they are of.")
    with Store(store.path, write=True) as store:
        shortened, dropped = end_runs(store, row)
        now = standing.standing(store, row)
    if shared.quiet:
        return None
    if not shortened + dropped:
        console().print(f"All runs of {row.name} have ended.")
    else:
        told = f"{shortened:,} runs end where they are, {dropped:,} without a step are dropped"
        console().print(f"{row.name} is {now.state}: {told}. A longer config reopens it.")
    if now.state == "incomplete":
        console().print(f"Vectors or diagrams of what there is are missing: panic resume {row.name}")
    return None
