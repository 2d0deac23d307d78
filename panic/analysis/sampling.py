"""Which part of the data is looked at where all of it would be too much: the one place that chooses.

sample(load(store, "latest"))           # some runs of a large experiment, all of a small one
spread(rows, 40)                        # runs to draw, over networks and prompts
of_some_runs(steps, 2500)               # steps of whole runs, taken at random
thinned(steps, 200)                     # so many steps of an axis
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.data import ExperimentData
from panic.store.records import RunRow

MAX_RUNS = 300  # that figures sum up
MAX_TOTAL_STEPS = 100_000  # of these runs together
LEAST_RUNS = 12  # however long they are
GOLDEN = (5**0.5 - 1) / 2

T = TypeVar("T")


def sample(
    data: ExperimentData,
    *,
    max_runs: int = MAX_RUNS,
    max_total_steps: int = MAX_TOTAL_STEPS,
    least: int = LEAST_RUNS,
) -> ExperimentData:
    """The runs that figures sum up: those that have begun, some of them if there are very many.

    At most `max_runs`, and so few that all are as long as the longest within `max_total_steps`, yet `least`.
    """
    begun = [run for run in data.rows if run.num_steps]
    longest = max((run.num_steps for run in begun), default=1)
    limit = max(least, min(max_runs, max_total_steps // longest))
    return data.part(run.id for run in spread(begun, limit))


def spread(runs: list[RunRow], limit: int) -> list[RunRow]:
    """At most `limit` runs, as evenly as can be over networks, kinds of seed and prompts, in their order.

    Kinds of seed are a fixed one and fresh noise. Where there are more groups than runs to choose, each
    network and kind of seed has the same prompts, from all over their list.
    """
    groups: dict[tuple[tuple[str, ...], bool, str], list[RunRow]] = {}
    for run in runs:
        groups.setdefault(((*run.network, run.arm), run.seed == -1, run.prompt), []).append(run)
    prompts = {prompt: _halved(i) for i, prompt in enumerate(dict.fromkeys(run.prompt for run in runs))}
    turns = [
        (turn, prompts[prompt], run.id)
        for (_, _, prompt), group in groups.items()
        for turn, run in enumerate(group)
    ]
    chosen = {run for *_, run in sorted(turns)[:limit]}
    return [run for run in runs if run.id in chosen]


def basis(shown: int, total: int) -> str:
    """Which runs a figure rests on, where they are not all; "" where they are."""
    if shown >= total:
        return ""
    return f"Of {shown:,} of {total:,} runs, spread over networks, kinds of seed and prompts."


def not_asked(absent: Sequence[str], why: str) -> str:
    """Name the networks of which a sentence says nothing, and why; "" where there are none."""
    if not absent:
        return ""
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    return f" Not asked ({why}): {', '.join(absent[:3])}{more}."


def _halved(number: int) -> float:
    """A place in [0, 1): 0, 1/2, 1/4, 3/4, ... (van der Corput), so that any first few are spread."""
    place, step = 0.0, 0.5
    while number:
        place, number, step = place + step * (number & 1), number >> 1, step / 2
    return place


def evenly(items: list[T], limit: int) -> list[T]:
    """At most `limit` of the items, evenly chosen, the first and the last among them."""
    if len(items) <= limit:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def of_some_runs(steps: pl.DataFrame, max_points: int, seed: int = 0) -> pl.DataFrame:
    """At most `max_points` steps, of whole runs taken at random; of one run at least, cut if it is longer."""
    if len(steps) <= max_points:
        return steps
    sizes = steps.group_by("run", maintain_order=True).len().sample(fraction=1.0, shuffle=True, seed=seed)
    kept = sizes.filter(pl.col("len").cum_sum() <= max_points)["run"]
    kept = kept if len(kept) else sizes["run"].head(1)
    return steps.filter(pl.col("run").is_in(kept.implode())).head(max_points)


def thinned(frame: pl.DataFrame, max_steps: int) -> pl.DataFrame:
    """Only so many different steps, chosen by `scattered`."""
    steps = frame["step"].unique().sort()
    if len(steps) <= max_steps:
        return frame
    return frame.filter(pl.col("step").is_in(steps.gather(scattered(len(steps), max_steps)).implode()))


def scattered(count: int, most: int) -> NDArray[np.int64]:
    """The numbers (m,) of at most `most` (2 or more) of `count` things in a row, with the first and the last.

    One of each stretch of equal length, by the golden ratio at ever other places in it: of every n-th a
    cycle of n would be drawn as if it stood still.
    """
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, most + 1).round().astype(np.int64)
    chosen = edges[:-1] + (np.arange(most) * GOLDEN % 1 * np.diff(edges)).astype(np.int64)
    chosen[-1] = count - 1
    return chosen
