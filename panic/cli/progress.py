"""How far a run is: bars on a terminal, otherwise one line at once, one a minute and one at the end.

with showing_progress() as on_progress: run(config, store, on_progress=on_progress)
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from panic.cli.common import say
from panic.cli.render import console, duration
from panic.engine.progress import Progress
from panic.errors import Interrupted
from panic.interrupts import stop_on_signals

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_EVERY_S = 60.0
SENTENCE_EVERY_S = 10.0
ESTIMATE_EVERY_S = 1.0
OnProgress = Callable[[Progress], None]
Tell = Callable[[str, int, int], None]
"""Hears of what so much is done, and of how much; 0 where nobody knows."""


@contextlib.contextmanager
def showing_progress() -> Iterator[OnProgress]:
    """Show progress on stderr until the block ends."""
    if sys.stderr.isatty():
        with _bars() as on_progress:
            yield on_progress
    else:
        with _lines() as on_progress:
            yield on_progress


@contextlib.contextmanager
def telling(name: str, *, quiet: bool, goes_on: bool = True) -> Iterator[Tell]:
    """Say now and then on stderr how far long work is, and end it with Interrupted when a signal comes.

    Args:
        goes_on: whether what was done till then stays, for the same command to go on with.
    """
    said_at = time.monotonic()
    with stop_on_signals() as stop_requested:

        def tell(what: str, done: int, total: int) -> None:
            nonlocal said_at
            if stop_requested():
                then = "goes on" if goes_on else "begins anew"
                raise Interrupted(f"{name}: stopped; the same command {then}.")
            if not quiet and time.monotonic() - said_at > SENTENCE_EVERY_S:
                of = f" of {total:,}" if total else ""
                say(f"{name}: {done:,}{of} {what}", err=True)
                said_at = time.monotonic()

        yield tell


def line(progress: Progress) -> str:
    """Progress in one line of text."""
    parts = [
        f"runs {progress.runs_ended:,}/{progress.runs_total:,}",
        f"invocations {progress.invocations:,}/{progress.invocations_total:,}",
    ]
    if progress.runs_stuck:
        parts[0] += f" ({progress.runs_stuck:,} stuck)"
    if progress.runs_repeated:
        parts[0] += f" ({progress.runs_repeated:,} repeated)"
    if progress.runs_failed:
        parts.append(f"failed {progress.runs_failed:,}")
    for what, done, total in _stages(progress):
        parts.append(f"{what} {done:,}/{total:,}")
    if progress.message:
        parts.append(progress.message)
    parts.append(f"elapsed {duration(progress.elapsed_s)}")
    if progress.eta_s:
        parts.append(f"at most {duration(progress.eta_s)} left")
    if progress.model_seconds:
        parts.append(_seconds(progress.model_seconds))
    return ", ".join(parts)


def _stages(progress: Progress) -> list[tuple[str, int, int]]:
    return [(name, *stage) for name, stage in progress.stages.items() if stage.total]


def _seconds(seconds: Mapping[str, float]) -> str:
    """Time per model, most first."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {duration(spent)}" for name, spent in ordered)


@contextlib.contextmanager
def _lines() -> Iterator[OnProgress]:
    last: list[Progress] = []
    printed_at = -LINE_EVERY_S

    def on_progress(progress: Progress) -> None:
        nonlocal printed_at
        last[:] = [progress]
        if time.monotonic() - printed_at >= LINE_EVERY_S:
            printed_at = time.monotonic()
            say(line(progress), err=True)

    try:
        yield on_progress
    finally:
        if last:
            say(line(last[0]), err=True)


@contextlib.contextmanager
def _bars() -> Iterator[OnProgress]:
    from rich.live import Live

    latest, estimate = Progress(), steady()
    with Live(
        get_renderable=lambda: _picture(latest), console=console(err=True), refresh_per_second=4
    ) as live:

        def on_progress(progress: Progress) -> None:
            nonlocal latest
            latest = replace(progress, eta_s=estimate(progress.eta_s))

        yield on_progress
        live.refresh()


def steady(now: Callable[[], float] = time.monotonic) -> Callable[[float | None], float | None]:
    """What shows an estimate that changes at most once a second, so that people can read it."""
    shown, since = None, -ESTIMATE_EVERY_S

    def show(estimate: float | None) -> float | None:
        nonlocal shown, since
        if now() - since >= ESTIMATE_EVERY_S or shown is None:
            shown, since = estimate, now()
        return shown

    return show


def _picture(progress: Progress) -> RenderableType:
    """Bars of the runs and of all stages that follow them, and the time per model below."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    # A run's steps move its bar, so that it does not stand still while all runs are half done.
    steps = (progress.invocations, progress.invocations_total)
    note = f"{progress.runs_ended:,}/{progress.runs_total:,}"
    for number, what in (
        (progress.runs_stuck, "stuck"),
        (progress.runs_repeated, "repeated"),
        (progress.runs_failed, "failed"),
    ):
        note += f", {number:,} {what}" if number else ""
    rows = [("runs", *steps, f"{note}  ({steps[0]:,}/{steps[1]:,} invocations)")]
    rows += [(what, done, total, f"{done:,}/{total:,}") for what, done, total in _stages(progress)]
    for what, done, total, text in rows:
        grid.add_row(what, ProgressBar(max(1, total), done, width=40), text)
    left = f", at most {duration(progress.eta_s)} left" if progress.eta_s else ""
    lines = [Text(f"{duration(progress.elapsed_s)}{left}", style="dim")]
    if progress.model_seconds:
        lines.append(Text(f"model time: {_seconds(progress.model_seconds)}", style="dim"))
    if progress.message:
        lines.append(Text(progress.message))
    return Group(grid, *lines)
