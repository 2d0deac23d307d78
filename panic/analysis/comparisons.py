"""What makes the difference: the prompt, the network, the noise? And do experiments end in the same places?

Runs of one prompt are not independent, so labels are shuffled among runs that are alike in everything else:
networks within a prompt, prompts within a network. p values are corrected for their number (Holm).

    what_matters(load(store, "latest"), "PocketText", "text")
    reference = reference_of(load(store, "demo"), "PocketText", "text")     # frozen: keep it
    cluster_shares(reference, {"other": load(store, "other")}, "PocketText", "text")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.clustering import Reference, assign, freeze
from panic.analysis.loading import ARROW, Frames
from panic.analysis.statistics import GroupTest, adjust, label_test, permanova
from panic.analysis.tables import clusters, steps_of, trajectories
from panic.store import reading
from panic.topology import distance_matrix, pairwise

T = TypeVar("T")
Array = NDArray[np.float64]
MAX_RUNS = 150  # compared pair by pair
ENDS, COMPONENTS, LOOPS = "where runs end", "H0 diagrams", "H1 diagrams"
EFFECTS = {
    "factor": pl.String, "measure": pl.String, "effect": pl.Float64, "effect_name": pl.String,
    "baseline": pl.Float64, "baseline_high": pl.Float64, "p_value": pl.Float64, "p_adjusted": pl.Float64,
    "num_runs": pl.Int64, "num_groups": pl.Int64,
}  # fmt: skip
SHARES = {
    "experiment": pl.String, "label": pl.Int64, "name": pl.String, "share": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "num_runs": pl.Int64,
}  # fmt: skip


def what_matters(
    data: Frames, model: str, modality: str, *, num_permutations: int = 999, max_runs: int = MAX_RUNS
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Tests of every factor on where runs end and on their diagrams, one row each as in EFFECTS; what lacks.

    Factors: prompt, network, seed ("fresh" is one of them) and, where networks share models, the model at
    each of their places. Where runs end: PERMANOVA of the chordal distances of last vectors. Diagrams:
    Robinson and Turner's test of Wasserstein distances. Of at most `max_runs` runs, evenly chosen; factors
    with one level are left out, those that cannot be tested are told with the reason.
    """
    runs = with_factors(data.runs)
    factors = [name for name in runs.columns if name != "run"]
    tests: list[tuple[str, str, GroupTest]] = []
    absent: dict[str, str] = {}
    for measure, chosen, distances in _distances(data, model, modality, max_runs):
        of = pl.DataFrame({"run": chosen}).join(runs, on="run", maintain_order="left")
        for factor in factors:
            if of[factor].n_unique() < 2:
                continue
            test = permanova if measure == ENDS else label_test
            try:
                found = test(
                    distances,
                    of[factor].to_list(),
                    units=exchangeable(of, factor),
                    num_permutations=num_permutations,
                )
            except AnalysisError as error:
                absent[f"{factor}, {measure}"] = error.message
                continue
            tests.append((factor, measure, found))
    adjusted = adjust([found.p_value for *_, found in tests])
    rows = [
        (
            factor, measure, t.effect, t.effect_name, t.baseline, t.baseline_high, t.p_value, float(p),
            t.num_values, t.num_groups,
        )
        for (factor, measure, t), p in zip(tests, adjusted, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, EFFECTS, orient="row"), absent


def with_factors(runs: pl.DataFrame) -> pl.DataFrame:
    """run, prompt, network, seed ("fresh" for -1), and "model 1", ... where networks share models."""
    found = runs.select(
        "run",
        "prompt",
        "network",
        seed=pl.when(pl.col("seed") == -1).then(pl.lit("fresh")).otherwise(pl.col("seed").cast(pl.String)),
    )
    parts = [network.split(ARROW) for network in runs["network"]]
    num_networks = runs["network"].n_unique()
    if len({len(part) for part in parts}) != 1 or len(parts[0]) == 1:
        return found
    for place, models in enumerate(zip(*parts, strict=True), start=1):
        if 1 < len(set(models)) < num_networks:
            found = found.with_columns(pl.Series(f"model {place}", models))
    return found


def exchangeable(runs: pl.DataFrame, factor: str) -> list[str] | None:
    """What must stay together while a factor's labels are shuffled, one name per run; None: nothing.

    `runs` as `with_factors` gives them. Labels move among runs that agree in all other factors. Where every
    prompt has one label only (other prompts for every network), whole prompts move.
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
    return runs["prompt"].to_list() if factor != "prompt" else None


def reference_of(data: Frames, model: str, modality: str, *, min_cluster_size: int = 5) -> Reference:
    """Clusters of these runs, frozen, with their names and the model's fingerprint.

    AnalysisError without clusters.
    """
    states = clusters(data, model, modality, min_cluster_size=min_cluster_size)
    return freeze(
        data.matrix(model)[states.rows],
        states.clustering,
        names=[states.names[label] for label in range(states.clustering.num_clusters)],
        fingerprint=reading.model(data.store, model).fingerprint,
    )


def cluster_shares(
    reference: Reference,
    experiments: Mapping[str, Frames],
    model: str,
    modality: str,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> pl.DataFrame:
    """How much of an experiment's runs lies in each cluster of a frozen reference: columns as in SHARES.

    Shares of the steps of a run, averaged over runs, so that long runs do not count for more; outside all
    clusters has the label -1. (low, high): 95 % interval by resampling prompts, NaN for one prompt.
    Experiments without such vectors are left out. AnalysisError for a reference of another embedding model.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, int, str, float, float, float, int]] = []
    names = {OUTLIER: "outside all clusters", **dict(enumerate(reference.names))}
    for experiment, data in experiments.items():
        steps = steps_of(data, model, modality)
        if steps.is_empty():
            continue
        fingerprint = reading.model(data.store, model).fingerprint
        if reference.fingerprint and fingerprint != reference.fingerprint:
            raise AnalysisError(
                f"the reference belongs to another embedding model than {model}",
                hint="freeze one from vectors of this model",
            )
        used, place = np.unique(steps["row"].to_numpy(), return_inverse=True)
        found = assign(reference, data.matrix(model)[used])[place]
        number = steps["run"].rank("dense").to_numpy().astype(np.int64) - 1
        shares = np.zeros((int(number.max()) + 1, len(reference.centres) + 1))
        np.add.at(shares, (number, found), 1.0)  # the last column is that of -1
        shares /= shares.sum(axis=1, keepdims=True)
        prompts = steps.group_by("run", maintain_order=True).first()["prompt"].rank("dense").to_numpy() - 1
        low, high = _resampled(shares, prompts.astype(np.int64), num_resamples, rng)
        for label in (*range(len(reference.centres)), OUTLIER):
            mean = float(shares[:, label].mean())
            name = names.get(label, f"cluster {label}")
            rows.append((experiment, label, name, mean, low[label], high[label], len(shares)))
    return pl.DataFrame(rows, SHARES, orient="row")


def _distances(data: Frames, model: str, modality: str, max_runs: int) -> list[tuple[str, list[int], Array]]:
    """(measure, runs, distances of them): of last vectors, and of diagrams where there are any."""
    found: list[tuple[str, list[int], Array]] = []
    ends = [(run, points[-1]) for run, points in trajectories(data, model, modality, least=1)]
    ends = [(run, point) for run, point in _some(ends, max_runs) if np.any(point)]
    if len(ends) > 2:
        last = np.array([point for _, point in ends], dtype=np.float64)
        found.append((ENDS, [run for run, _ in ends], pairwise(last, "chordal")))
    bars = data.bars.filter(pl.col("model") == model, pl.col("death").is_finite())
    with_diagram = data.bars.filter(pl.col("model") == model)["run"].unique(maintain_order=True).to_list()
    for dimension, measure in ((0, COMPONENTS), (1, LOOPS)):
        groups = bars.filter(pl.col("dimension") == dimension).group_by("run", maintain_order=True)
        of = {run: rows.select("birth", "death").to_numpy() for (run,), rows in groups}
        chosen = _some(with_diagram, max_runs)
        if of and len(chosen) > 2:
            diagrams = [of.get(run, np.empty((0, 2))) for run in chosen]
            found.append((measure, chosen, distance_matrix(diagrams, kind="wasserstein")))
    return found


def _some(items: list[T], limit: int) -> list[T]:
    """At most `limit` of them, evenly chosen."""
    if len(items) <= limit:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def _resampled(
    shares: Array, prompts: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """95 % interval (k,), (k,) of the mean over runs when prompts are drawn with their runs."""
    num_prompts = int(prompts.max()) + 1
    if num_prompts < 2:
        return np.full(shares.shape[1], np.nan), np.full(shares.shape[1], np.nan)
    sums, sizes = np.zeros((num_prompts, shares.shape[1])), np.bincount(prompts)
    np.add.at(sums, prompts, shares)
    drawn = rng.integers(num_prompts, size=(count, num_prompts))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)[:, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high
