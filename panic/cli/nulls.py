"""`panic nulls`: what an experiment's statistics would be if nothing of interest were going on, as runs.

panic nulls demo matched_walk shuffled; panic report demo/null-shuffled
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from panic.cli.common import ExperimentArgument, Shared, command, complete_kind, say
from panic.cli.render import console
from panic.cli.run import bring_up_to_date
from panic.errors import Interrupted

SHOW_EVERY_S = 10.0


@command
def nulls(
    shared: Shared,
    experiment: ExperimentArgument,
    kinds: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND",
            help="One of sphere_walk, matched_walk, autoregression, gaussian_process, shuffled, markov, all.",
            autocompletion=complete_kind,
        ),
    ],
) -> None:
    """Write null models of an experiment's runs beside it, as NAME/null-KIND, with the same diagrams.

    What is there is kept; runs that have ended since are added. They are deleted with the experiment.
    """
    from panic.analysis.null_runs import write_nulls
    from panic.analysis.nulls import kinds as known
    from panic.analysis.nulls import surrogate_of
    from panic.interrupts import stop_on_signals
    from panic.store import Store, reading

    named = [kind for kind in kinds if kind != "all"]
    wanted = list(dict.fromkeys([*named, *known()] if "all" in kinds else named))
    for kind in named:
        surrogate_of(kind)  # a misspelt one is told before the first is written
    shown_at = time.monotonic()
    bring_up_to_date(shared.store_path())
    with Store(shared.store_path(), write=True) as store, stop_on_signals() as stop_requested:
        row = reading.experiment(store, experiment)

        def show(what: str, done: int, total: int) -> None:
            nonlocal shown_at
            if stop_requested():
                raise Interrupted(f"{row.name}: stopped; the same command goes on.")
            if not shared.quiet and time.monotonic() - shown_at > SHOW_EVERY_S:
                say(f"{row.name}: {done:,} of {total:,} {what}", err=True)
                shown_at = time.monotonic()

        for kind in wanted:
            for name in write_nulls(store, row.id, kind, show=show):
                if not shared.quiet:
                    console().print(f"{name}: {reading.counts(store, name)}")
