"""One plain sentence of what a figure shows, and one of what it does not: text for reports.

drift_reading(drift_bands(drift(store, experiment, "PocketText")))
"""

from __future__ import annotations

from collections import Counter
from statistics import median

import polars as pl

from panic.analysis.charts import seconds
from panic.store.records import RunRow

STUCK_CAVEAT = (
    "Only runs with a fixed seed can be stuck: with fresh noise at every step the same picture may lead "
    "elsewhere."
)
TIME_CAVEAT = (
    "These are durations of calls, so work that ran side by side counts fully for each; "
    "loading of models and writing are not in it."
)
DRIFT_CAVEAT = (
    "A stuck run is continued by its cycle, a failed one is not. A captioner's texts differ from prompts in "
    "style alone, so the first step may be far from the prompt where nothing was lost: read what follows it."
)
DIAGRAM_CAVEAT = (
    "All runs of a network are drawn together. The diagrams ignore the order of the steps, and random walks "
    "of the same size make bars, too: without such a control a long bar is a hint, not a finding."
)


def stuck_reading(runs: list[RunRow]) -> str:
    """How many runs with a fixed seed are stuck, how soon, with which period."""
    fixed = [run for run in runs if run.seed != -1]
    if not fixed:
        return "All runs draw fresh noise at every step, so none can be stuck."
    stuck = [run for run in fixed if run.period is not None]
    if not stuck:
        return f"None of the {len(fixed):,} runs with a fixed seed is stuck so far."
    entries = [run.entry_step for run in stuck if run.entry_step is not None]
    period, times = Counter(run.period for run in stuck).most_common(1)[0]
    return (
        f"{len(stuck):,} of {len(fixed):,} runs with a fixed seed repeat themselves forever, half of them "
        f"from step {median(entries):g} on; the most common period is {period} steps ({times:,} runs)."
    )


def time_reading(frame: pl.DataFrame, wall_s: float) -> str:
    """Who took most of the work, and how it compares with the clock."""
    total = float(frame["seconds"].sum())
    first = frame.row(0, named=True)
    return (
        f"Most of the work went into {first['name']}: {first['seconds'] / (total or 1):.0%} of "
        f"{seconds(total)}; the sessions lasted {seconds(wall_s)} in all."
    )


def drift_reading(bands: pl.DataFrame) -> str:
    """How far from their prompts the networks are at the end."""
    last = bands.group_by("network", maintain_order=True).last().sort("median", descending=True)
    first = bands.group_by("network", maintain_order=True).first()
    starts = dict(zip(first["network"], first["median"], strict=True))
    parts = [
        f"{row['network']} is at {row['median']:.2f} at step {row['step']} "
        f"(it began at {starts[row['network']]:.2f})"
        for row in last.head(4).iter_rows(named=True)
    ]
    more = f"; {len(last) - 4} more networks lie below" if len(last) > 4 else ""
    return f"Half of the texts are farther from the prompt than the line: {'; '.join(parts)}{more}."


def diagram_reading(frame: pl.DataFrame) -> str:
    """What the bars of one model say: typical death of components, longest loop."""
    finite = frame.filter(pl.col("death").is_finite()).with_columns(length=pl.col("death") - pl.col("birth"))
    components = finite.filter(pl.col("dimension") == 0)
    loops = finite.filter(pl.col("dimension") == 1).sort("length", descending=True)
    if components.is_empty():
        return "Every run came back to a single point: there are no finite bars."
    typical = float(components["death"].median() or 0.0)  # type: ignore[arg-type]
    text = f"Half of the distinct outputs join their nearest group within a distance of {typical:.2g}"
    if loops.is_empty():
        return f"{text}; there are no loops."
    longest = loops.row(0, named=True)
    return (
        f"{text}; of {len(loops):,} loops the longest lives from {longest['birth']:.2g} to "
        f"{longest['death']:.2g} (run {longest['run']}, {longest['network']})."
    )
