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
from panic.analysis.data import ARROW, ExperimentData
from panic.analysis.whereabouts import at_end


def with_factors(runs: pl.DataFrame) -> pl.DataFrame:
    """run, prompt, network, seed ("fresh" for -1), and "model 1", ... where networks share models.

    A place of the network has a column where its model varies, if there is any place at which networks that
    differ have the same model.
    """
    found = runs.select(
        "run",
        "prompt",
        "network",
        seed=pl.when(pl.col("seed") == -1).then(pl.lit("fresh")).otherwise(pl.col("seed").cast(pl.String)),
    )
    parts = [network.split(ARROW) for network in runs["network"]]
    if len({len(part) for part in parts}) != 1 or len(parts[0]) == 1:
        return found
    places = {f"model {place}": models for place, models in enumerate(zip(*parts, strict=True), start=1)}
    if not any(1 < len(set(models)) < runs["network"].n_unique() for models in places.values()):
        return found
    return found.with_columns(
        pl.Series(name, models) for name, models in places.items() if len(set(models)) > 1
    )


def factors_of(runs: pl.DataFrame) -> list[str]:
    """The factors that vary, of runs as `with_factors` gives them.

    A place at which each network has a model of its own is left out: it is the network by another name.
    """
    names = [name for name in runs.columns if name in ("prompt", "network", "seed")]
    names += [name for name in runs.columns if name.startswith("model ")]
    distinct = {name: runs[name].n_unique() for name in names}
    return [
        name
        for name in names
        if distinct[name] > 1 and (not name.startswith("model ") or distinct[name] < distinct["network"])
    ]


def trajectories(data: ExperimentData) -> pl.DataFrame:
    """run and its trajectory, a number: runs of one network and fixed seed that coalesced have the same.

    With a fixed seed the future depends on the state alone. So runs that ended in one cycle, or with the same
    output at the same step, are copies of one trajectory from where they met, whatever their prompts were.
    That holds only where all models are repeatable.
    """
    runs = data.runs.select("run", "network", "seed", "entry_step", "period", "is_repeatable")
    steps = data.invocations.select("run", "step", "output")
    in_cycle = pl.col("step").is_between(
        pl.col("entry_step"), pl.col("entry_step") + pl.col("period"), closed="left"
    )
    where = ["network", "seed"]
    cycles = (
        steps.join(runs.filter(pl.col("period").is_not_null()), on="run")
        .filter(in_cycle)
        .with_columns(cycle=pl.col("output").min().over("run"))
        .select(*where, "output", "cycle")
        .unique(subset=[*where, "output"], keep="first", maintain_order=True)
    )
    fixed = at_end(steps, data.runs).join(runs.filter(pl.col("seed") != -1, "is_repeatable"), on="run")
    met = fixed.join(cycles, on=[*where, "output"], how="left").select(
        "run", met=pl.coalesce("cycle", "output")
    )
    found = runs.join(met, on="run", how="left", maintain_order="left").with_columns(
        own=pl.when(pl.col("met").is_null()).then("run")
    )
    number = pl.struct(*where, "met", "own").rank("dense")
    return found.select("run", trajectory=number.cast(pl.Int64))


def collapsed(runs: pl.DataFrame, factor: str, *, seed: int = 0) -> pl.DataFrame:
    """One run of every trajectory, taken at random, where copies would count as if they were independent.

    `runs` has the columns of `with_factors` and `trajectory`. The prompt of what is kept is all prompts of
    its copies. For the factor "prompt" all runs are kept: that they coalesced is what it is asked about.
    """
    if factor == "prompt":
        return runs
    order = runs.columns
    return (
        runs.with_row_index("place")
        .sample(fraction=1.0, shuffle=True, seed=seed)
        .group_by("trajectory", maintain_order=True)
        .agg(pl.exclude("prompt").first(), pl.col("prompt").unique().sort().str.join("\n"))
        .sort("place")
        .select(order)
    )


def separate_prompts(runs: pl.DataFrame) -> dict[int, int]:
    """By run the number, from 0, of its prompt and of all prompts whose runs met one of its runs.

    `runs` has run, prompt and trajectory. Prompts whose runs are copies of each other's say nothing of how
    far other prompts might be, so intervals over prompts take them for one.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    prompts = (runs["prompt"].rank("dense").to_numpy() - 1).astype(np.int64)
    paths = (runs["trajectory"].rank("dense").to_numpy() - 1).astype(np.int64) + int(prompts.max()) + 1
    size = int(paths.max()) + 1
    edges = coo_array((np.ones(len(runs)), (prompts, paths)), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    _, number = np.unique(component[prompts], return_inverse=True)
    return dict(zip(runs["run"].to_list(), number.tolist(), strict=True))


def exchangeable(runs: pl.DataFrame, factor: str) -> list[str] | None:
    """What must stay together while a factor's labels are shuffled, one name per run; None: nothing.

    `runs` as `with_factors` gives them. Labels move among runs that agree in all other factors. Where every
    prompt has one label only (other prompts for every network), whole prompts move. AnalysisError where the
    factor varies with the others only, so that nothing can be said of it.
    """
    models = [name for name in runs.columns if name.startswith("model ")]
    beside = {"prompt", "seed", *models} if factor in models else {"prompt", "network", "seed"}
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
