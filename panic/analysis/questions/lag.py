"""Does it wander or come back? D(k), the distance of outputs k apart, beside shuffles of their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import GREY, STEPS, colour, counted, data, finish, in_order, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import Vectors
from panic.analysis.evidence import Evidence, Statistic, View, by_run, each_model
from panic.analysis.movement import LEAST_LAGS, Movement, movement
from panic.analysis.nulls import shuffled
from panic.analysis.whereabouts import continued
from panic.topology import pairwise

TITLE = "Does it wander or come back?"
CAVEAT = (
    "Only outputs of one kind are compared, at lags up to half of a run; a lag counts outputs, not model "
    "calls. Runs that are stuck, such with a fixed seed and such with fresh noise are apart; of stuck ones, "
    "which are drawn on by their cycle, nothing is said, for their period is known, and runs that met count "
    "once. The value at lag 1 is "
    "noise and motion together; 2 D(1) - D(2) estimates the noise of a walk. Who wanders off within these "
    "lags may be held back later, and who stays may leave."
)
MAX_LAG = 40
NUM_SHUFFLES = 79
SHUFFLED = 400  # outputs of a run whose order is shuffled
MAX_RUNS = 60  # of a group whose movement is tested

views = each_model


def _num_lags(points: Vectors) -> int:
    """Longer lags would compare the beginning of a run with its end and little else."""
    return min(MAX_LAG, max(1, len(points) // 2))


def _distances(points: Vectors) -> NDArray[np.float64]:
    """D(1), D(2), ... of one run."""
    return dynamics.distance_by_lag(points, _num_lags(points))[1:]


FRESH, FIXED, STUCK = KINDS = ("fresh noise", "fixed seed", "stuck")
DASHES = {FRESH: [1, 0], FIXED: [8, 4], STUCK: [2, 3]}
LEGEND = alt.Legend(  # a symbol is as long as a dash and its gap at least; the points are not its filling
    orient="top", title=None, symbolType="stroke", symbolSize=400, symbolStrokeColor=GREY,
    symbolFillColor="transparent",
)  # fmt: skip

STATISTIC = Statistic(
    what="mean cosine distance of outputs k apart, D(k)",
    of=by_run(_distances, least=3),
    x_title="lag k (outputs of one kind)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """D(k) by group, as `lag_curves` gives it, of outputs of a modality; how each group moves, by its name.

    A group holds the runs of one kind of a network. num_stuck: stuck runs, whose groups have no movement.
    """

    curves: pl.DataFrame
    movements: dict[str, Movement]
    num_stuck: int
    modality: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Path:
    """The vectors (n, d) of a run, its network, and which of KINDS it is."""

    network: str
    kind: str
    points: Vectors
    is_copy: bool

    @property
    def group(self) -> str:
        """What its curve is called."""
        return self.network if self.kind == FRESH else f"{self.network}, {self.kind}"

    @property
    def is_stuck(self) -> bool:
        return self.kind == STUCK

    @property
    def num_lags(self) -> int:
        return _num_lags(self.points)


def table(evidence: Evidence, view: View) -> Lags:
    """D(k) up to MAX_LAG with bands of shuffles. AnalysisError where no run has 3 outputs with vectors."""
    paths = list(_paths(evidence, view))
    if not paths:
        raise AnalysisError(f"no run has 3 {view.modality} vectors of {view.model}")
    curves = lag_curves(paths)
    movements, bands = {}, []
    rng = np.random.default_rng(0)
    for group in names_of(curves, "group"):
        chosen = _tested([path for path in paths if path.group == group])
        if chosen:
            movements[group], band = _movement(group, chosen, rng)
            bands.append(band)
    if bands:
        curves = curves.join(pl.concat(bands), on=["group", "lag"], how="left", maintain_order="left")
    num_stuck = sum(path.is_stuck for path in paths)
    return Lags(curves=curves, movements=movements, num_stuck=num_stuck, modality=view.modality)


def _paths(evidence: Evidence, view: View) -> Iterator[_Path]:
    """Runs with 3 outputs or more, none of them without a direction; stuck ones as long again as computed."""
    data = evidence.data
    undirected = set(evidence.zeros(view)["run"])
    matrix = data.matrix(view.model)
    kinds = {
        row["run"]: row for row in data.runs.select("run", "network", "seed", "period").iter_rows(named=True)
    }
    longest = 2 * int(data.runs["num_steps"].max() or 0)  # type: ignore[arg-type]
    steps = data.steps(view.model, view.modality).select("run", "step", "row")
    for (run,), rows in continued(steps, data.runs, limit=longest).group_by("run", maintain_order=True):
        kind = kinds[run]
        name = STUCK if kind["period"] is not None else FIXED if kind["seed"] != -1 else FRESH
        if len(rows) >= 3 and run not in undirected:
            points = matrix[rows["row"].to_numpy()]
            yield _Path(
                network=kind["network"], kind=name, points=points, is_copy=run not in evidence.distinct
            )


def lag_curves(paths: list[_Path]) -> pl.DataFrame:
    """D(k) by group: network, kind, group, lag, distance (median), low and high (quartiles), num_runs."""
    parts = [
        pl.DataFrame(
            {
                "network": path.network,
                "kind": path.kind,
                "group": path.group,
                "lag": np.arange(path.num_lags + 1),
                "distance": dynamics.distance_by_lag(path.points, path.num_lags),
            }
        )
        for path in paths
    ]
    curves = (
        pl.concat(parts)
        .group_by("network", "kind", "group", "lag", maintain_order=True)
        .agg(
            low=pl.col("distance").quantile(0.25, "linear"),
            high=pl.col("distance").quantile(0.75, "linear"),
            distance=pl.col("distance").median(),
            num_runs=pl.len(),
        )
    )
    return in_order(curves, "network", pl.col("kind").cast(pl.Enum(KINDS)), "lag")


def _tested(paths: list[_Path]) -> list[_Path]:
    """The runs of a group whose movement is tested: no copies, none that ended early, and not too many."""
    longest = max(len(path.points) for path in paths)
    long = [path for path in paths if not (path.is_stuck or path.is_copy) and 2 * len(path.points) >= longest]
    if not long:
        return []
    return [long[i] for i in np.unique(np.linspace(0, len(long) - 1, MAX_RUNS).round().astype(int))]


def _movement(group: str, paths: list[_Path], rng: np.random.Generator) -> tuple[Movement, pl.DataFrame]:
    """How the runs of a group move, and the 95 % band of their median D(k) in a random order."""
    num_lags = max(path.num_lags for path in paths)
    distances = np.full((len(paths), num_lags), np.nan)
    for place, path in enumerate(paths):
        distances[place, : path.num_lags] = dynamics.distance_by_lag(path.points, path.num_lags)[1:]
    draws = _shuffled([path.points for path in paths], num_lags, rng)
    low, high = np.quantile(np.nanmedian(draws, axis=0), [0.025, 0.975], axis=0, method="weibull")
    band = pl.DataFrame(
        {"group": group, "lag": np.arange(1, num_lags + 1), "null_low": low, "null_high": high}
    )
    return movement(distances, np.nanmean(draws, axis=0)), band


def _shuffled(runs: list[Vectors], num_lags: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """D(1), D(2), ... in random orders of all but the first: (runs, NUM_SHUFFLES, lags), NaN beyond a run."""
    draws = np.full((len(runs), NUM_SHUFFLES, num_lags), np.nan)
    for place, points in enumerate(runs):
        apart = pairwise(points[:SHUFFLED].astype(np.float64), "cosine")
        orders = np.array([shuffled(np.arange(len(apart)), rng) for _ in range(NUM_SHUFFLES)])
        for lag in range(1, min(num_lags, max(1, len(apart) // 2)) + 1):
            draws[place, :, lag - 1] = apart[orders[:, :-lag], orders[:, lag:]].mean(axis=1)
    return draws


def chart(answer: Lags) -> Any:
    """Mean distance of outputs k apart, beside a grey band per network of where shuffles of the order lie."""
    frame = answer.curves
    by = colour("network", names_of(frame, "network"))
    kinds = [kind for kind in KINDS if kind in frame["kind"]]
    dash = alt.StrokeDash(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[DASHES[kind] for kind in kinds]),
        legend=None if len(kinds) < 2 else LEGEND,
    )
    x = alt.X("lag:Q", title="lag k (outputs of one kind, not model calls)", axis=STEPS)
    base = alt.Chart(data(frame)).encode(x=x, color=by, detail="group:N")
    y = alt.Y("distance:Q", title="mean cosine distance")
    chart = alt.layer(
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="mean cosine distance"), y2="high:Q"),
        base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36)).encode(
            y=y,
            strokeDash=dash,
            tooltip=[
                alt.Tooltip("group:N"),
                alt.Tooltip("lag:Q", title="lag (outputs of one kind)"),
                alt.Tooltip("distance:Q", format=".4f"),
                alt.Tooltip("low:Q", format=".4f", title="lower quartile"),
                alt.Tooltip("high:Q", format=".4f", title="upper quartile"),
                alt.Tooltip("num_runs:Q", title="runs"),
            ],
        ),
    )
    caption = (
        "Rising to the end: it wanders off. Dips: it comes back after so many outputs. Level: it stays. "
        "The jump at the first lag is noise and motion together. Line: median of runs, band: quartiles."
    )
    if "null_low" in frame.columns:
        shuffled = alt.Chart(data(frame.filter(pl.col("null_low").is_not_null())))
        band = shuffled.mark_area(color=GREY, opacity=0.4).encode(
            x=x, y=alt.Y("null_low:Q", title="mean cosine distance"), y2="null_high:Q", detail="group:N"
        )
        chart = alt.layer(band, chart)
        caption += " Grey: where the median lies in 95 % of shuffles of the order."
    return finish(chart, "How far apart are outputs k apart: D(k)", caption)


def sentence(answer: Lags) -> str:
    """How runs move, group by group: what they remember, and whether they come back, wander off or stay."""
    parts = [
        f"{group} ({counted(found.num_runs, 'run')}) {_said(found, answer, group)}"
        for group, found in answer.movements.items()
    ]
    more = f" {len(parts) - 4} more groups are not told." if len(parts) > 4 else ""
    text = f"{'. '.join(parts[:4])}.{more}" if parts else ""
    if answer.num_stuck:
        are = "is" if answer.num_stuck == 1 else "are"
        text = f"{text} {counted(answer.num_stuck, 'run')} {are} stuck and drawn apart.".strip()
    return f"By distances D(k) of {answer.modality}s of one run, k of them apart: {text}"


MEMORY = {
    "nearer": "is nearer to the {} before than in a random order",
    "farther": "is farther from the {} before than in a random order",
    "none": "is about as far from the {} before as in a random order",
}


def _said(found: Movement, answer: Lags, group: str) -> str:
    """What is said of one group; every claim with the numbers that it rests on."""
    if found.course == "still":
        return "stands still"
    rows = answer.curves.filter(pl.col("group") == group, pl.col("lag") > 0).sort("lag")
    text = f"{MEMORY[found.memory].format(answer.modality)} (D(1) = {rows['distance'][0]:.2g})"
    if found.course == "short":
        return f"{text}; with fewer than {LEAST_LAGS} lags nothing more is said"
    if found.returns_after is not None:
        back = float(rows["distance"][found.returns_after - 1])
        typical = float(rows["distance"].to_numpy().mean())
        return (
            f"{text} and comes back after {counted(found.returns_after, answer.modality)} "
            f"(D({found.returns_after}) = {back:.2g}, over all lags {typical:.2g})"
        )
    parts = _parts(rows) if found.course == "grows" else ""
    return f"{text}{parts} and {_course(found, int(rows['lag'][-1]))}"


def _course(found: Movement, last: int) -> str:
    """Whether D(k) goes on to grow, with the interval."""
    first = last - max(3, last // 3) + 1
    if found.num_runs < 3:
        return "whether it wanders off cannot be said of fewer than 3 runs"
    measured = (
        f"from lag {first} to {last} D {'grows' if found.growth >= 0 else 'changes'} by {found.growth:.0%}, "
        "95 % interval "
        f"{found.growth_low:.0%} to {found.growth_high:.0%}"
    )
    return {
        "grows": f"wanders off ({measured})",
        "creeps": f"goes on to move away, by little ({measured})",
        "stays": f"stays in its region ({measured})",
    }.get(found.course, f"whether it wanders off or stays could not be told ({measured})")


def _parts(rows: pl.DataFrame) -> str:
    """Noise and drift in D(1), where the curve's beginning is that of a walk with noise."""
    if rows["lag"][:2].to_list() != [1, 2]:
        return ""
    one, two = rows["distance"][:2]
    noise = dynamics.noise([0.0, one, two])
    return f", noise {noise:.2g} and drift {one - noise:.2g} an output," if 0 < noise < one else ""
