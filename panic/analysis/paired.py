"""Summary metrics of experiments beside each other, and whether they differ by more than chance gives.

Each other experiment is compared with the first, prompt by prompt (and arm by arm, where there are arms) that
both have. Prompts whose runs met in either experiment count as one start, since what follows are copies, and
so do the arms of a prompt. Of a start the difference is the mean of those. If the experiments made no
difference, the sign of each start's difference could have been the other: all swaps of signs, or 999 drawn
ones, give p; Holm's correction is for all metrics and experiments together.

    for one in pairing(store, rows).comparisons:
        print(one.metric, one.other, one.difference, one.p_adjusted)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from panic.analysis.chance import LEAST_UNITS, holm, swapping
from panic.analysis.data import ExperimentData, load
from panic.analysis.factors import separate_prompts, trajectories
from panic.analysis.metrics import METRICS, metric
from panic.store import Store
from panic.store.records import ExperimentRow

PER_STEP = "seconds_per_step"
CAVEAT = (
    "The spread is the standard deviation of the means of single seeds and repeats. Starts are prompts that"
    " both have; those whose runs met are one. p: signs of the starts' differences swapped, corrected for the"
    f" number of comparisons (Holm); below {LEAST_UNITS} starts that differ nothing is tested."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A metric over the runs of an experiment that have it: mean, spread over seeds, number of runs.

    spread: standard deviation of the means of single seeds and repeats; None where there is one.
    """

    metric: str
    experiment: str
    mean: float | None
    spread: float | None
    num_runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The mean difference of another experiment from the first over the starts that both have.

    p_value, p_adjusted: None where there are too few starts to test.
    """

    metric: str
    first: str
    other: str
    difference: float | None
    num_starts: int
    p_value: float | None = None
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """All summaries, by metric and experiment, and all comparisons, by metric and other experiment."""

    summaries: list[Summary]
    comparisons: list[Comparison]

    def rows(self) -> list[tuple[str, list[Summary], list[Comparison]]]:
        """The metrics that any experiment has, with a summary per experiment."""
        names = dict.fromkeys(one.metric for one in self.summaries)
        found = [
            (
                name,
                [one for one in self.summaries if one.metric == name],
                [one for one in self.comparisons if one.metric == name],
            )
            for name in names
        ]
        return [row for row in found if any(one.num_runs for one in row[1])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is compared: runs of an experiment with all metrics as columns, and which of its prompts met."""

    name: str
    runs: pl.DataFrame
    met: list[tuple[str, str]]


def pairing(store: Store, experiments: Sequence[ExperimentRow]) -> Pairing:
    """Return every metric of experiments, and each compared with the first."""
    return paired([side(store, row) for row in experiments])


def paired(sides: Sequence[Side]) -> Pairing:
    """Return every metric of what is compared, and each side compared with the first."""
    names = [name for name in sides[0].runs.columns if name in METRICS or name == PER_STEP]
    comparisons = [_compared(name, sides[0], other) for name in names for other in sides[1:]]
    known = pl.Series([one.p_value for one in comparisons], dtype=pl.Float64).fill_null(float("nan"))
    adjusted = holm(known).to_list() if comparisons else []
    return Pairing(
        summaries=[_summary(name, side) for name in names for side in sides],
        comparisons=[
            replace(one, p_adjusted=None if one.p_value is None else p)
            for one, p in zip(comparisons, adjusted, strict=True)
        ],
    )


def side(store: Store, row: ExperimentRow, run: int | None = None, name: str = "") -> Side:
    """Return an experiment, or one run of it alone, to be compared with others; `name`: another than its own.

    The others may be of other stores. A run is compared with others of its prompt whatever their arms are.
    """
    data = load(store, row.id)
    if run is not None:
        data = data.part([run])
    frame = data.runs.drop(one for one in METRICS if one in data.runs.columns)
    for one in METRICS:
        frame = frame.join(metric(data, one).rename({"value": one}), on="run", maintain_order="left")
    if run is not None:
        frame = frame.drop("arm", strict=False)
    steps = pl.when(pl.col("num_steps") > 0).then("num_steps")
    return Side(
        name=name or row.name,
        runs=frame.with_columns((pl.col("seconds") / steps).alias(PER_STEP)),
        met=_met(data),
    )


def _met(data: ExperimentData) -> list[tuple[str, str]]:
    """Pairs of prompts that count as one start: each with the first of those that its runs met."""
    of = data.runs.select("run", "prompt").join(trajectories(data), on="run")
    numbers = separate_prompts(of)
    firsts: dict[int, str] = {}
    pairs = ((firsts.setdefault(numbers[run], prompt), prompt) for run, prompt, _ in of.iter_rows())
    return list(dict.fromkeys(pairs))


def _starts(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """By prompt the one that stands for all that are one start with it."""
    leader: dict[str, str] = {}

    def find(prompt: str) -> str:
        while (above := leader.setdefault(prompt, prompt)) != prompt:
            prompt = above
        return prompt

    for one, other in pairs:
        leader[find(other)] = find(one)
    return {prompt: find(prompt) for prompt in list(leader)}


def _compared(name: str, first: Side, other: Side) -> Comparison:
    means = [_by_prompt(name, side) for side in (first, other)]
    alike = [c for c in means[0].columns if c != "value" and c in means[1].columns]
    both = means[0].join(means[1], on=alike, suffix="_other")
    starts = _starts([*first.met, *other.met])
    units = both.with_columns(start=pl.col("prompt").replace_strict(starts, default=pl.col("prompt")))
    differences = (  # arms of one start begin as copies of each other: they are no starts of their own
        units.with_columns(difference=pl.col("value_other") - pl.col("value"))
        .group_by("start", maintain_order=True)
        .agg(pl.col("difference").mean())["difference"]
        .to_numpy()
    )
    found = Comparison(
        metric=name,
        first=first.name,
        other=other.name,
        difference=float(differences.mean()) if len(differences) else None,
        num_starts=len(differences),
    )
    # Where nothing differs there is nothing to swap.
    if len(differences) < LEAST_UNITS or not differences.any():
        return found
    chance = swapping(
        lambda swaps: float(np.where(swaps, -differences, differences).mean()), len(differences)
    )
    return replace(found, p_value=float(chance.p_value))


def _by_prompt(name: str, side: Side) -> pl.DataFrame:
    """The mean of a metric by prompt, and by arm where there are arms."""
    by = [column for column in ("prompt", "arm") if column in side.runs.columns]
    known = side.runs.filter(pl.col(name).is_not_null())
    return known.group_by(by, maintain_order=True).agg(value=pl.col(name).mean())


def _summary(name: str, side: Side) -> Summary:
    known = side.runs.filter(pl.col(name).is_not_null())
    by_seed = known.group_by("seed", "repeat").agg(pl.col(name).mean())[name]
    return Summary(
        metric=name,
        experiment=side.name,
        mean=_number(known[name].mean()),
        spread=_number(by_seed.std()) if len(by_seed) > 1 else None,
        num_runs=len(known),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
