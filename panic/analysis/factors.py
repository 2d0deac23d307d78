"""The design of an experiment: the factors of its runs, which runs are copies, and what may be shuffled.

of = with_factors(data.runs)                       # prompt, network, seed, and models at their places
of = of.join(trajectories(data), on="run")         # runs that coalesced are one trajectory
of = collapsed(of, "network")                      # one run of each, for all factors but the prompt
units = exchangeable(of, "network")                # labels move among runs that have the same unit
held_out = matched(of, "network", units)           # sets of runs that hold every label once
"""

from __future__ import annotations

import numpy as np
import polars as pl

from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.grouping import ARROW
from panic.analysis.whereabouts import at_end


def with_factors(runs: pl.DataFrame) -> pl.DataFrame:
    """run, prompt, network, seed ("fresh" for -1), and "model at place 1", ... where networks share models.

    A place of the network has a column where its model varies, if there is any place at which networks that
    differ have the same model. Where runs have several arms, there are `arm` and `repeat`; where all prompts
    have a group, `group`; and "tag ..." ("yes", "no") for every tag that some of them have.
    """
    found = runs.select(
        "run",
        "prompt",
        network="plain_network",
        seed=pl.when(pl.col("seed") == -1).then(pl.lit("fresh")).otherwise(pl.col("seed").cast(pl.String)),
    )
    if runs["arm"].n_unique() > 1:
        found = found.with_columns(runs["arm"], runs["repeat"])
    found = found.with_columns(_labels(runs))
    parts = [network.split(ARROW) for network in runs["plain_network"]]
    # Of a name that was cut, or a model that is called "a → b", the models are not told.
    is_misread = [len(part) for part in parts] != runs["num_models"].to_list()
    if is_misread or len({len(part) for part in parts}) != 1 or len(parts[0]) == 1:
        return found
    places = {
        f"model at place {place}": models for place, models in enumerate(zip(*parts, strict=True), start=1)
    }
    if not any(1 < len(set(models)) < found["network"].n_unique() for models in places.values()):
        return found
    return found.with_columns(
        pl.Series(name, models) for name, models in places.items() if len(set(models)) > 1
    )


def _labels(runs: pl.DataFrame) -> list[pl.Series]:
    """`group`, and a column for every tag; not where each prompt has its own, or all have the same."""
    num_prompts = runs["prompt"].n_unique()
    found = []
    if not runs["group"].null_count() and runs["group"].n_unique() < num_prompts:
        found.append(runs["group"])
    tags = runs["tags"].str.split(", ")
    for tag in sorted(set(tags.explode().to_list()) - {"", None}):
        has = tags.list.contains(tag)
        found.append(pl.select(pl.when(has).then(pl.lit("yes")).otherwise(pl.lit("no"))).to_series())
        found[-1] = found[-1].alias(f"tag {tag}")
    return found


def is_of_prompts(factor: str) -> bool:
    """Whether a factor is a word that prompts are called by."""
    return factor == "group" or factor.startswith("tag ")


def factors_of(runs: pl.DataFrame) -> list[str]:
    """The factors that vary, of runs as `with_factors` gives them.

    A place at which each network has a model of its own is left out: it is the network by another name.
    """
    names = [name for name in runs.columns if name in ("prompt", "network", "seed", "arm")]
    names += [name for name in runs.columns if name.startswith("model ") or is_of_prompts(name)]
    distinct = {name: runs[name].n_unique() for name in names}
    return [
        name
        for name in names
        if distinct[name] > 1 and (not name.startswith("model ") or distinct[name] < distinct["network"])
    ]


def trajectories(data: ExperimentData) -> pl.DataFrame:
    """run and its trajectory, a number: runs of one network and fixed seed that coalesced have the same.

    With a fixed seed the future depends on the state alone. So runs that ended in one cycle, or with the same
    output at the same step, are copies of one trajectory from where they met, whatever their prompts and arms
    were. That holds only where all models are repeatable, and where the same steps in from there on.
    """
    runs = data.runs.select("run", "map", "round", "seed", "entry_step", "period", "is_repeatable")
    steps = data.invocations.select("run", "step", "output")
    in_cycle = pl.col("step").is_between(
        pl.col("entry_step"), pl.col("entry_step") + pl.col("period"), closed="left"
    )
    where = ["map", "seed", "phase"]
    phase = pl.col("step") % pl.col("round")
    cycles = (
        steps.join(runs.filter(pl.col("period").is_not_null()), on="run")
        .filter(in_cycle)
        .with_columns(cycle=pl.col("output").min().over("run"), phase=phase)
        .with_columns(at=pl.when(pl.col("output") == pl.col("cycle")).then("phase").min().over("run"))
        .select(*where, "output", "cycle", "at")
        .unique(subset=[*where, "output"], keep="first")
    )
    fixed = at_end(steps, data.runs).join(runs.filter(pl.col("seed") != -1, "is_repeatable"), on="run")
    fixed = fixed.with_columns(phase=phase)
    met = fixed.join(cycles, on=[*where, "output"], how="left").select(
        "run", "at", met=pl.coalesce("cycle", "output")
    )
    found = runs.join(met, on="run", how="left", maintain_order="left").with_columns(
        own=pl.when(pl.col("met").is_null()).then("run")
    )
    number = pl.struct("map", "seed", "met", "at", "own").rank("dense")
    return found.select("run", trajectory=number.cast(pl.Int64))


def collapsed(runs: pl.DataFrame, factor: str, *, seed: int = 0) -> pl.DataFrame:
    """One run of every trajectory, taken at random, where copies would count as if they were independent.

    `runs` has the columns of `with_factors` and `trajectory`. The prompt of what is kept is all prompts of
    its copies. For prompts, and what they are called by, all runs are kept: that they coalesced is what is
    asked about. So it is of arms; of several starts whose runs are copies arm by arm one is kept.
    """
    if factor == "prompt" or is_of_prompts(factor):
        return runs
    if factor == "arm":
        start = ["network", "prompt", "seed", "repeat"]
        outcomes = runs.group_by(start, maintain_order=True).agg(
            outcome=pl.struct("arm", "trajectory").sort_by("arm")
        )
        kept = outcomes.unique("outcome", keep="first")
        return runs.join(kept, on=start, how="semi", maintain_order="left")
    order = runs.columns
    return (
        runs.with_row_index("place")
        .sample(fraction=1.0, shuffle=True, seed=seed)
        .group_by("trajectory")
        .agg(pl.exclude("prompt").first(), pl.col("prompt").unique().sort().str.join("\n"))
        .sort("place")
        .select(order)
    )


def separate_prompts(runs: pl.DataFrame) -> dict[int, int]:
    """By run the number, from 0, of its prompt and of all prompts whose runs met one of its runs.

    `runs` has run, prompt and trajectory. Prompts whose runs are copies of each other's say nothing of how
    far other prompts might be, so intervals over prompts take them for one.
    """
    if runs.is_empty():
        return {}
    ranked = runs.select("run", "trajectory", prompt=pl.col("prompt").rank("dense").cast(pl.Int64) - 1)
    leaders = list(range(ranked["prompt"].n_unique()))
    firsts: dict[int, int] = {}
    for trajectory, prompt in ranked.select("trajectory", "prompt").unique().iter_rows():
        one, other = (_leader(leaders, of) for of in (firsts.setdefault(trajectory, prompt), prompt))
        leaders[max(one, other)] = min(one, other)
    of_all = np.array([_leader(leaders, prompt) for prompt in ranked["prompt"]])
    _, number = np.unique(of_all, return_inverse=True)
    return dict(zip(runs["run"].to_list(), number.tolist(), strict=True))


def _leader(leaders: list[int], prompt: int) -> int:
    """The first of those that a prompt counts as one with; on the way there half of the way is cut."""
    while leaders[prompt] != prompt:
        leaders[prompt] = prompt = leaders[leaders[prompt]]
    return prompt


def independent_starts(data: ExperimentData) -> pl.DataFrame:
    """run, trajectory, and unit: a number, alike for runs of a network whose prompts are not separate.

    Tests of one network take units for independent: runs of one prompt are not, and neither are prompts of
    which any runs met (`separate_prompts`), under whichever seed they did.
    """
    of = trajectories(data).join(
        data.runs.select("run", prompt=pl.concat_str("network", "prompt", separator="\n")),
        on="run",
        maintain_order="left",
    )
    numbers = separate_prompts(of)
    units = pl.DataFrame(
        {"run": [*numbers], "unit": [*numbers.values()]}, {"run": pl.Int64, "unit": pl.Int64}
    )
    return of.select("run", "trajectory").join(units, on="run", maintain_order="left")


def exchangeable(runs: pl.DataFrame, factor: str) -> list[str] | None:
    """What must stay together while a factor's labels are shuffled, one name per run; None: nothing.

    `runs` as `with_factors` gives them. Labels move among runs that agree in all other factors; arms, whose
    noise is the same, among runs of one repeat. Where every prompt has one label only (other prompts for
    every network, groups, tags), whole prompts move. AnalysisError where the
    factor varies with the others only, so that nothing can be said of it.
    """
    models = [name for name in runs.columns if name.startswith("model ")]
    if is_of_prompts(factor):
        return runs["prompt"].to_list()
    beside = {"prompt", "seed", *models} if factor in models else {"prompt", "network", "seed"}
    beside |= {"repeat"} if factor == "arm" else {"arm"}
    others = [name for name in runs.columns if name in beside - {factor} and runs[name].n_unique() > 1]
    if not others:
        return None
    strata = runs.select(pl.concat_str(others, separator="\n")).to_series()
    levels = runs.group_by(strata.alias("stratum")).agg(pl.col(factor).n_unique())[factor]
    if (levels > 1).any():
        return strata.to_list()
    if factor == "network" and (runs.group_by("prompt").agg(pl.col(factor).n_unique())[factor] == 1).all():
        return runs["prompt"].to_list()
    raise AnalysisError(
        f"the {factor} is confounded: no two runs differ in it and agree in {', '.join(sorted(others))}"
    )


def matched(runs: pl.DataFrame, factor: str, units: list[str] | None) -> list[int]:
    """Which set each run is in: runs of one unit (of `exchangeable`), one per label of the factor.

    Leaving out whole sets leaves all labels equally often in every unit, as far as there are runs of each.
    """
    stratum = pl.Series("unit", units if units is not None else [""] * len(runs))
    of = runs.select("run", pl.col(factor).alias("label")).with_columns(stratum)
    one_label = (of.group_by("unit").agg(pl.col("label").n_unique())["label"] == 1).all()
    if one_label:  # whole prompts move: the first of each label, the second of each, ...
        number = pl.col("unit").rank("dense").over("label")
        return of.select(number.cast(pl.Int64))["unit"].to_list()
    number = pl.int_range(pl.len()).over("unit", "label")
    return of.with_columns(number=number).select(pl.struct("unit", "number").rank("dense"))["unit"].to_list()
