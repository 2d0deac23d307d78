"""From a store to the tables that charts take: maps, clusters in time, dwells, D(k), pictures, surrogates.

Steps are those of one modality, because an alternating loop resembles itself at lag 2 by construction; a
stuck run is continued by its cycle where time matters (`frames.continued`), for its future is known.

    data = load(store, "latest")
    places, share = place_map(data, "PocketText", "text")
    states = clusters(data, "PocketText", "text")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import shorten

import numpy as np
import polars as pl
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from panic.analysis import dynamics
from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.clustering import Clustering, assign, cluster, freeze, stability
from panic.analysis.frames import continued
from panic.analysis.loading import Frames
from panic.analysis.nulls import shuffled
from panic.analysis.probing import probe
from panic.analysis.projections import PROJECTIONS
from panic.errors import NotFound
from panic.topology import entropy
from panic.topology import pairwise as pairwise_distances

Vectors = NDArray[np.float32]
MAX_CLUSTERED = 5000  # HDBSCAN on more takes minutes
SHUFFLED = 400  # outputs of a run whose order is shuffled
FACTORS = ("prompt", "network", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """Steps with their cluster: what the run is, step, output, label, text, is_known; and what names each.

    Stuck runs go on by their cycle (`frames.continued`; `is_known`). `rows` of the matrix were clustered: an
    output as often as it was visited, within limits.
    """

    frame: pl.DataFrame
    names: dict[int, str]
    clustering: Clustering
    rows: NDArray[np.int64]

    def labels(self, network: str | None = None) -> list[NDArray[np.int64]]:
        """Labels (n,) of every run, or every run of a network, in step order."""
        rows = self.frame if network is None else self.frame.filter(pl.col("network") == network)
        groups = rows.sort("run", "step").group_by("run", maintain_order=True)
        return [group["label"].to_numpy() for _, group in groups]


def steps_of(data: Frames, model: str, modality: str) -> pl.DataFrame:
    """Steps whose output has a vector under a model: what the run is, step, output, row in the matrix."""
    of = data.embeddings(model).select("output").with_row_index("row")
    return (
        data.invocations.filter(pl.col("modality").cast(pl.String) == modality)
        .join(of, on="output")
        .join(data.runs.select("run", "network", "prompt", "seed", "repeat"), on="run")
        .sort("run", "step")
        .select("run", "network", "prompt", "seed", "repeat", "step", "output", "row")
    )


def trajectories(data: Frames, model: str, modality: str, *, least: int = 2) -> Iterator[tuple[int, Vectors]]:
    """Every run that has at least `least` vectors of a modality, (steps, d) in step order."""
    matrix = data.matrix(model)
    for (run,), group in steps_of(data, model, modality).group_by("run", maintain_order=True):
        if len(group) >= least:
            yield int(run), matrix[group["row"].to_numpy()]


def place_map(
    data: Frames, model: str, modality: str, *, method: str = "pca", max_points: int = 4000, seed: int = 0
) -> tuple[pl.DataFrame, float | None]:
    """Outputs in two dimensions: the columns of `steps_of`, text, x, y; and the variance's share in them.

    `pca`: the plane of their two main directions. `umap` (extra `umap`): neighbours stay neighbours, by the
    cosine; distances and sizes of groups mean nothing there, and no share of variance is given. Of at most
    `max_points` steps, taken by whole runs. AnalysisError with fewer than 3 distinct outputs (umap: 10).
    """
    if method not in PROJECTIONS:
        raise AnalysisError(f"unknown method {method!r}", hint=f"known: {', '.join(PROJECTIONS)}")
    steps = steps_of(data, model, modality)
    steps = _of_some_runs(steps, max_points, seed)
    used = steps["row"].unique().sort().to_numpy()
    if len(used) < 3:
        raise AnalysisError(f"a map needs 3 distinct outputs, found {len(used)}")
    points = data.matrix(model)[used].astype(np.float64)
    plane, share = PROJECTIONS[method](points, seed)
    where = pl.DataFrame({"row": used, "x": plane[:, 0], "y": plane[:, 1]}).cast({"row": steps["row"].dtype})
    texts = data.outputs.select("output", "text")
    return steps.join(where, on="row").join(texts, on="output", how="left").sort("run", "step"), share


def clusters(data: Frames, model: str, modality: str, *, min_cluster_size: int = 5) -> States:
    """Clusters of the outputs (HDBSCAN), and every step's label. AnalysisError without outputs.

    An output counts as often as it was visited, up to `min_cluster_size` times, so that one that a run comes
    back to is a cluster of its own. Beyond MAX_CLUSTERED, a sample is clustered and the rest assigned.
    """
    steps = steps_of(data, model, modality)
    if steps.is_empty():
        raise AnalysisError(f"there are no {modality} vectors of {model}")
    rows, visits = np.unique(steps["row"].to_numpy(), return_counts=True)
    weighted = np.repeat(rows, np.minimum(visits, min_cluster_size))
    chosen = weighted[:: -(-len(weighted) // MAX_CLUSTERED)]
    found = cluster(data.matrix(model)[chosen], min_cluster_size=min_cluster_size)
    if len(chosen) == len(weighted) or not found.num_clusters:
        label_of = dict(zip(chosen.tolist(), found.labels.tolist(), strict=True))
    else:
        reference = freeze(data.matrix(model)[chosen], found)
        label_of = dict(zip(rows.tolist(), assign(reference, data.matrix(model)[rows]).tolist(), strict=True))
    frame = steps.join(data.outputs.select("output", "text"), on="output", how="left").with_columns(
        label=pl.col("row").replace_strict(label_of, default=OUTLIER, return_dtype=pl.Int64)
    )
    texts = dict(frame.select("row", "text").unique().iter_rows())
    medoids = enumerate(chosen[found.medoids].tolist())
    names = {label: shorten(texts.get(row) or f"output {row}", 52, placeholder="…") for label, row in medoids}
    stored = data.runs.select("run", "num_steps")
    whole = continued(frame, data.runs).join(stored, on="run", maintain_order="left")
    return States(
        frame=whole.with_columns(is_known=pl.col("step") >= pl.col("num_steps")).drop("num_steps"),
        names=names,
        clustering=found,
        rows=chosen.astype(np.int64),
    )


def cluster_stability(
    data: Frames, model: str, modality: str, *, max_points: int = 1500, repeats: int = 8, seed: int = 0
) -> NDArray[np.float64]:
    """`clustering.stability` (repeats,) of the steps when a fifth of the runs is left out, of some runs."""
    steps = _of_some_runs(steps_of(data, model, modality), max_points, seed)
    points = data.matrix(model)[steps["row"].to_numpy()]
    return stability(points, units=steps["run"].to_numpy(), repeats=repeats, seed=seed)


def lag_curves(
    data: Frames,
    model: str,
    modality: str,
    max_lag: int = 20,
    *,
    num_surrogates: int = 0,
    max_runs: int = 60,
    seed: int = 0,
) -> pl.DataFrame:
    """D(k) by network: group, lag, distance (median over runs), low, high (quartiles), num_runs.

    Of every run up to half of its length: longer lags compare its beginning with its end and little else.
    With `num_surrogates` also null_low, null_high: the 95 % band of the median when the order of every run
    but its first state is shuffled, from at most `max_runs` runs of each network; null for lag 0.
    """
    networks = dict(data.runs.select("run", "network").iter_rows())
    parts = []
    for run, points in trajectories(data, model, modality, least=3):
        lags = min(max_lag, max(1, len(points) // 2))
        found = dynamics.distance_by_lag(points, lags)
        parts.append(
            pl.DataFrame({"group": networks[run], "run": run, "lag": np.arange(lags + 1), "distance": found})
        )
    if not parts:
        raise AnalysisError(f"no run has 3 {modality} vectors of {model}")
    curves = (
        pl.concat(parts)
        .group_by("group", "lag", maintain_order=True)
        .agg(
            low=pl.col("distance").quantile(0.25, "linear"),
            high=pl.col("distance").quantile(0.75, "linear"),
            distance=pl.col("distance").median(),
            num_runs=pl.len(),
        )
        .sort("group", "lag", maintain_order=True)
    )
    if not num_surrogates:
        return curves
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[Vectors]] = {}
    for run, points in trajectories(data, model, modality, least=3):
        of_network = chosen.setdefault(networks[run], [])
        if len(of_network) < max_runs:
            of_network.append(points)
    bands = [
        pl.DataFrame({"group": group, "lag": np.arange(1, max_lag + 1), "null_low": low, "null_high": high})
        for group, runs in chosen.items()
        for low, high in [_shuffled_band(runs, max_lag, num_surrogates, rng)]
    ]
    beside = pl.concat(bands).with_columns(pl.col("null_low", "null_high").fill_nan(None))
    return curves.join(beside, on=["group", "lag"], how="left", maintain_order="left")


def _shuffled_band(
    runs: list[Vectors], max_lag: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % band (max_lag,), (max_lag,) of the median over runs of D(1), D(2), ... of shuffled orders."""
    draws = np.full((len(runs), count, max_lag), np.nan)
    for place, points in enumerate(runs):
        apart = pairwise_distances(points[:SHUFFLED].astype(np.float64), "cosine")
        for number in range(count):
            order = shuffled(np.arange(len(apart)), rng)
            for lag in range(1, min(max_lag, max(1, len(apart) // 2)) + 1):
                draws[place, number, lag - 1] = apart[order[:-lag], order[lag:]].mean()
    known = ~np.isnan(draws).all(axis=(0, 1))
    low, high = np.full(max_lag, np.nan), np.full(max_lag, np.nan)
    medians = np.nanmedian(draws[:, :, known], axis=0)
    low[known], high[known] = np.quantile(medians, [0.025, 0.975], axis=0)
    return low, high


def dwell_curves(states: States, *, by: str = "network") -> pl.DataFrame:
    """Survival of dwells by group: group, then the columns of `dynamics.survival`."""
    parts = []
    for (group,), rows in states.frame.sort("run", "step").group_by(by, maintain_order=True):
        labels = [one["label"].to_numpy() for _, one in rows.group_by("run", maintain_order=True)]
        dwells = dynamics.dwell_times(labels)
        if len(dwells):
            curve = dynamics.dwell_survival(dwells)
            parts.append(curve.select(pl.lit(str(group)).alias("group"), pl.all()))
    if not parts:
        raise AnalysisError("no step belongs to a cluster, so nothing dwells")
    return pl.concat(parts)


def twins(data: Frames, model: str, modality: str, *, max_pairs: int = 200) -> pl.DataFrame:
    """Distances of runs of one network and prompt that differ in seed or repeat: pair, step, distance."""
    points = dict(trajectories(data, model, modality))
    steps = steps_of(data, model, modality)
    parts = [pl.DataFrame(schema={"pair": pl.String, "step": pl.Int64, "distance": pl.Float64})]
    for _, group in data.runs.filter(pl.col("seed") == -1).group_by("network", "prompt", maintain_order=True):
        runs = [run for run in group["run"] if run in points]
        for a, b in pairwise(runs):
            if len(parts) > max_pairs:
                break
            apart = dynamics.divergence(points[a], points[b])
            at = steps.filter(pl.col("run") == a)["step"].to_numpy()[: len(apart)]
            parts.append(pl.DataFrame({"pair": f"runs {a} and {b}", "step": at, "distance": apart}))
    return pl.concat(parts)


def growth(pairs: pl.DataFrame) -> dynamics.Ftle:
    """`dynamics.ftle` of `twins`, per step of the run, over the steps that all pairs have.

    `first` and `last` are steps. AnalysisError where there was no early growth.
    """
    wide = pairs.pivot(on="pair", index="step", values="distance").sort("step").drop_nulls()
    steps = wide["step"].to_numpy()
    stride = float(np.diff(steps).min()) if len(steps) > 1 else 1.0
    found = dynamics.ftle(wide.drop("step").to_numpy().T, step=stride)
    return replace(found, first=int(steps[found.first]), last=int(steps[found.last]))


def entropies(data: Frames, model: str) -> pl.DataFrame:
    """Persistence entropy of every run: group (network), run, dimension, entropy, num_bars, longest."""
    networks = dict(data.runs.select("run", "network").iter_rows())
    rows = []
    for (run, dimension), group in data.bars.filter(pl.col("model") == model).group_by(
        "run", "dimension", maintain_order=True
    ):
        ends = group.select("birth", "death").to_numpy()
        finite = ends[np.isfinite(ends[:, 1])]
        longest = float((finite[:, 1] - finite[:, 0]).max()) if len(finite) else 0.0
        rows.append((networks[run], run, dimension, entropy(finite), len(finite), longest))
    schema = {"group": pl.String, "run": pl.Int64, "dimension": pl.Int64, "entropy": pl.Float64}
    return pl.DataFrame(rows, {**schema, "num_bars": pl.Int64, "longest": pl.Float64}, orient="row")


def probe_table(
    data: Frames,
    model: str,
    modality: str,
    *,
    targets: Sequence[str] = FACTORS,
    max_points: int = 1000,
    num_components: int = 24,
    num_shuffles: int = 20,
) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """Probe scores by target, and why some lack: target, accuracy, baseline, baseline_high, p_value, chance.

    From the first `num_components` principal components of at most `max_points` steps: probes of all
    dimensions of 150 texts took 0.2 s per fit, and there are 100 fits per target.
    """
    steps = steps_of(data, model, modality).with_columns(
        seed=pl.when(pl.col("seed") == -1).then(pl.lit("fresh")).otherwise(pl.col("seed").cast(pl.String))
    )
    if len(steps) > max_points:
        steps = steps.gather_every(-(-len(steps) // max_points))
    points = data.matrix(model)[steps["row"].to_numpy()].astype(np.float64)
    left, spread, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    is_real = spread > 1e-6 * spread.max(initial=0.0)  # standardising would blow rounding up to a feature
    scores = (left * spread)[:, is_real][:, :num_components]
    rows, absent = [], {}
    for target in targets:
        try:
            with threadpool_limits(1):  # small problems: 0.5 s of CPU instead of 9
                score = probe(scores, steps[target].to_numpy(), steps["run"], num_shuffles=num_shuffles)
        except AnalysisError as error:
            absent[target] = error.message
            continue
        chance = 1 / score.num_classes
        rows.append((target, score.accuracy, score.baseline, score.baseline_high, score.p_value, chance))
    names = ("target", "accuracy", "baseline", "baseline_high", "p_value", "chance")
    schema = {name: pl.String if name == "target" else pl.Float64 for name in names}
    return pl.DataFrame(rows, schema, orient="row"), absent


def modality_of(data: Frames, model: int | str) -> str:
    """What a model's vectors stand for: the modality that it reads and the loops write; text first.

    NotFound if it has no vectors.
    """
    written = data.invocations.join(data.embeddings(model).select("output"), on="output", how="semi")
    found = written["modality"].cast(pl.String).unique().sort(descending=True).to_list()
    if not found:
        raise NotFound(f"There are no vectors of {model} yet.")
    return str(found[0])


def final_images(data: Frames) -> pl.DataFrame:
    """The last picture of one run per prompt and network: row, column, run, digest, text (drawn from)."""
    outputs = data.outputs.select("output", "digest", "text")
    last = (
        data.invocations.filter(pl.col("modality").cast(pl.String) == "image")
        .group_by("run", maintain_order=True)
        .last()
        .select("run", "input", "output")
    )
    return (
        data.runs.select("run", "network", "prompt", "seed", "repeat")
        .join(last, on="run", maintain_order="left")
        .join(outputs.drop("text"), on="output", maintain_order="left")
        .join(outputs.select(input="output", text="text"), on="input", how="left", maintain_order="left")
        .group_by("prompt", "network", maintain_order=True)
        .first()
        .select(row="prompt", column="network", run="run", digest="digest", text="text")
    )


def _of_some_runs(steps: pl.DataFrame, max_points: int, seed: int) -> pl.DataFrame:
    """At most `max_points` steps, of whole runs taken at random; of one run at least, cut if it is longer."""
    if len(steps) <= max_points:
        return steps
    sizes = steps.group_by("run", maintain_order=True).len().sample(fraction=1.0, shuffle=True, seed=seed)
    kept = sizes.filter(pl.col("len").cum_sum() <= max_points)["run"]
    kept = kept if len(kept) else sizes["run"].head(1)
    return steps.filter(pl.col("run").is_in(kept.implode())).head(max_points)
