"""Do groups of runs differ, by how much, and what makes the difference?

Runs that start from one prompt are not independent, so prompts (`units`) are what is permuted: where the
grouping is between prompts, whole prompts change groups; where every prompt is in several groups (each
prompt under each network), labels change within prompts. Without units every value is its own.

    permutation_test(drift, networks, units=prompts)
    permanova(distances, networks, units=prompts)
    decompose(vectors, {"prompt": prompts, "network": networks})
    adjust([a.p_value, b.p_value])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, codes, series, vectors
from panic.analysis.permutations import Design, design_of, halves, inside, per_pair, permute

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTest:
    """A test's statistic, its p value, an effect size (`effect_name`), and what was resampled.

    `baseline` and `baseline_high`: the effect's mean and 95 % quantile if groups made no difference. More
    groups explain more by chance, so an effect means something beside them only. `p_least`: the smallest p
    that the design could have given, with so few values to shuffle; NaN where nothing was shuffled.
    """

    statistic: float
    p_value: float
    effect: float
    effect_name: str
    baseline: float
    baseline_high: float
    num_groups: int
    num_values: int
    num_units: int
    resampling: str
    p_least: float = float("nan")


def permutation_test(
    values: ArrayLike,
    groups: Sequence[Any] | ArrayLike,
    *,
    units: Sequence[Any] | ArrayLike | None = None,
    num_permutations: int = 9999,
    seed: int = 0,
) -> GroupTest:
    """One-way test of equal group means of values (n,): F by permutation, effect eta squared."""
    numbers = series(values, "values")
    design = design_of(len(numbers), groups, units)
    total = float(((numbers - numbers.mean()) ** 2).sum())

    def f(labels: Codes) -> Array:
        size = len(labels), design.num_groups
        cells = (labels + size[1] * np.arange(size[0])[:, None]).ravel()
        counts = np.bincount(cells, minlength=size[0] * size[1]).reshape(size)
        sums = np.bincount(cells, np.tile(numbers, size[0]), size[0] * size[1]).reshape(size)
        between = (counts * (sums / counts - numbers.mean()) ** 2).sum(axis=1)
        return _f(between, total - between, design.num_groups, len(numbers))

    statistic, p, draws = permute(f, design, num_permutations, seed)
    shares = _shares(np.append(statistic, draws), design.num_groups, len(numbers))
    return _made(statistic, p, shares, design, "eta squared")


def permanova(
    distances: ArrayLike,
    groups: Sequence[Any] | ArrayLike,
    *,
    units: Sequence[Any] | ArrayLike | None = None,
    within: Sequence[Any] | ArrayLike | None = None,
    num_permutations: int = 999,
    seed: int = 0,
) -> GroupTest:
    """Pseudo-F of groups in a distance matrix (n, n) by permutation (Anderson 2001); effect R squared.

    Sensitive to a difference in spread as well as in place. `within` (n,): groups are compared inside each of
    its levels, so that a difference that is another one in every level counts. The effect is a share of the
    whole sum of squares, as without. Units must lie within levels.
    """
    squares = _square(distances) ** 2
    size = len(squares)
    design = design_of(size, groups, units, within)
    levels = design.levels
    together = np.where(levels[:, None] == levels, squares, 0.0)
    total = float(inside(together, levels[None], int(levels.max()) + 1, levels, halves)[0])
    num_cells = len(np.unique(levels * design.num_groups + design.groups))
    # Groups of one level: as many as cells beyond the levels' own means, of so many values.
    num_groups, num_values = num_cells - int(levels.max()), size - int(levels.max())
    if num_groups < 2 or num_values <= num_groups:
        raise AnalysisError("no two values are in one group and one level: nothing repeats there")

    def f(labels: Codes) -> Array:
        rest = inside(together, labels, design.num_groups, levels, halves)
        return _f(total - rest, rest, num_groups, num_values)

    statistic, p, draws = permute(f, design, num_permutations, seed)
    whole = float(squares.sum()) / (2 * size)
    shares = _shares(np.append(statistic, draws), num_groups, num_values) * (total / whole if whole else 0.0)
    return _made(statistic, p, shares, design, "R squared")


def label_test(
    distances: ArrayLike,
    groups: Sequence[Any] | ArrayLike,
    *,
    order: float = 1,
    units: Sequence[Any] | ArrayLike | None = None,
    num_permutations: int = 999,
    seed: int = 0,
) -> GroupTest:
    """Robinson and Turner's test (2017) of groups of diagrams, from their distance matrix (n, n).

    The statistic is the mean distance^order within groups, summed over groups; small means that the groups
    are tight. The effect is the share by which it is below its mean over permutations.
    """
    powers = _square(distances) ** order
    design = design_of(len(powers), groups, units)

    def minus_loss(labels: Codes) -> Array:
        return -inside(powers, labels, design.num_groups, np.zeros_like(design.groups), per_pair)

    statistic, p, draws = permute(minus_loss, design, num_permutations, seed)
    mean = float(draws.mean()) if draws.size else 0.0  # of minus the loss
    tightness = 1 - np.append(statistic, draws) / mean if mean else np.zeros(1 + len(draws))
    return _made(-statistic, p, tightness, design, "relative tightness")


def kruskal(
    values: ArrayLike, groups: Sequence[Any] | ArrayLike, *, units: Sequence[Any] | ArrayLike | None = None
) -> GroupTest:
    """Kruskal-Wallis on the means of each unit in each group; effect epsilon squared, H / (n - 1).

    Equal values everywhere give p = 1. Between units only: for units in several groups use
    `permutation_test`, which AnalysisError says.
    """
    from scipy import stats

    numbers = series(values, "values")
    design = design_of(len(numbers), groups, units)
    if design.resampling == "within units":
        raise AnalysisError(
            "Kruskal-Wallis takes units as independent, and here one unit is in several groups",
            hint="use permutation_test with the same units",
        )
    means = np.bincount(design.units, weights=numbers) / np.bincount(design.units)
    group_of_unit = design.groups[np.unique(design.units, return_index=True)[1]]
    parts = [means[group_of_unit == group] for group in range(design.num_groups)]
    if np.ptp(means) == 0:
        h, p = 0.0, 1.0
    else:
        h, p = (float(x) for x in stats.kruskal(*parts))
    freedom = len(parts) - 1
    made = _made(h, p, np.array([h / (len(means) - 1)]), design, "epsilon squared")
    # H has its known law: chi squared with a mean of as many as there are degrees of freedom.
    high = float(stats.chi2.ppf(0.95, freedom))
    return replace(made, baseline=freedom / (len(means) - 1), baseline_high=high / (len(means) - 1))


LEAST_WITHIN = 4  # rows beyond the first of each group; with 2 errors came out near 0, and p with them


def mixed_model(frame: pl.DataFrame, formula: str, *, groups: str) -> pl.DataFrame:
    """Linear mixed model with a random intercept per value of column `groups`, by REML (statsmodels).

    `formula` in R's notation: "drift ~ network". One row per term: term, estimate, standard_error, low, high
    (95 %), p_value, is_converged; the term "Group Var" is the variance between groups, without a p value.
    Intervals and p values are of Student's t: the normal law of statsmodels called 23 of 91 clear, of 16 rows
    in 14 groups without an effect. A term that varies within groups has the degrees of freedom of rows within
    them, another those of groups (the inner-outer rule; Pinheiro and Bates, "Mixed-Effects Models in S and
    S-PLUS", 2000, section 2.4.2); without an intercept all have the fewer. That a term does another thing in
    every group is not in the model: such a difference makes p too small.
    AnalysisError for unknown columns, NaN, one group only, fewer than two groups of several rows (what groups
    differ by could not be told from what rows do, and p would be near 0), fewer than LEAST_WITHIN rows beyond
    the first of each group, or a model that cannot be fitted.
    """
    import warnings

    import statsmodels.formula.api as smf
    from scipy import stats

    if groups not in frame.columns:
        raise AnalysisError(f"no column {groups!r}", hint=f"there are: {', '.join(frame.columns)}")
    if frame[groups].n_unique() < 2:
        raise AnalysisError(f"all rows have one {groups}: nothing varies between groups")
    if (frame[groups].value_counts()["count"] > 1).sum() < 2:
        raise AnalysisError(f"a mixed model needs 2 values of {groups} with several rows each")
    if len(frame) - frame[groups].n_unique() < LEAST_WITHIN:
        raise AnalysisError(f"{len(frame)} rows in {frame[groups].n_unique()} values of {groups} are too few")
    columns = {name: frame[name].to_numpy() for name in frame.columns}
    if any(values.dtype.kind == "f" and not np.isfinite(values).all() for values in columns.values()):
        raise AnalysisError("the frame holds NaN or infinity", hint="drop those rows")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is in is_converged
            model = smf.mixedlm(formula, columns, groups=columns[groups])
            fitted = model.fit(reml=True)
    except Exception as error:  # patsy and linear algebra raise what they like
        raise AnalysisError(f"the mixed model {formula!r} cannot be fitted: {error}") from error
    num_terms, freedom = len(model.exog_names), _freedom(model.exog_li)
    estimates, errors = (np.asarray(column)[:num_terms] for column in (fitted.params, fitted.bse))
    half = stats.t.ppf(0.975, freedom) * errors
    p = 2 * stats.t.sf(np.abs(estimates / errors), freedom)
    table = np.stack([estimates, errors, estimates - half, estimates + half, p], axis=1)
    rows = [(name, *table[i], fitted.converged) for i, name in enumerate(model.exog_names)]
    rows.append(("Group Var", np.asarray(fitted.cov_re)[0, 0], *[None] * 4, fitted.converged))
    schema = dict.fromkeys(("estimate", "standard_error", "low", "high", "p_value"), pl.Float64)
    return pl.DataFrame(
        [(row[0], *(None if v is None else float(v) for v in row[1:-1]), bool(row[-1])) for row in rows],
        schema={"term": pl.String, **schema, "is_converged": pl.Boolean},
        orient="row",
    )


def _freedom(groups: Sequence[Array]) -> Array:
    """Degrees of freedom (num_terms,) of terms of a mixed model, from its rows (n, num_terms) by group."""
    is_inner = np.any([(rows != rows[0]).any(axis=0) for rows in groups], axis=0)
    inner = sum(map(len, groups)) - len(groups) - is_inner.sum()
    outer = len(groups) - (len(is_inner) if is_inner.all() else (~is_inner).sum())
    found = np.where(is_inner, min(inner, outer) if is_inner.all() else inner, outer)
    return np.maximum(found, 1)


def decompose(values: ArrayLike, factors: Mapping[str, Sequence[Any] | ArrayLike]) -> pl.DataFrame:
    """Which factor explains how much of the variance of values (n,) or vectors (n, d)?

    One row per factor: `alone` (eta squared of a model of this factor only), `unique` (what is lost when it
    is left out of the model of all main effects), num_levels; then "all" (main effects together) and
    "rest". In a balanced design alone = unique. More levels explain more by chance: compare `by_chance`,
    (levels - 1) / (n - 1).
    """
    numbers = vectors(values, "values", least=2)
    centred = numbers - numbers.mean(axis=0)
    total = float((centred**2).sum())
    designs = {name: _dummies(codes(np.asarray(levels))) for name, levels in factors.items()}
    for name, design in designs.items():
        if len(design) != len(numbers):
            raise AnalysisError(f"{len(numbers)} values and {len(design)} levels of {name} do not pair up")
    if not designs:
        raise AnalysisError("there are no factors")
    whole = _explained(list(designs.values()), centred, total)
    rows: list[tuple[str, float, float | None, int, float]] = []
    for name, design in designs.items():
        others = [other for key, other in designs.items() if key != name]
        alone = _explained([design], centred, total)
        levels = design.shape[1]
        rows.append(
            (
                name,
                alone,
                whole - _explained(others, centred, total),
                levels,
                (levels - 1) / (len(numbers) - 1),
            )
        )
    rows.append(("all", whole, None, 0, 0.0))
    rows.append(("rest", 1 - whole if total else 0.0, None, 0, 0.0))
    schema = {"factor": pl.String, "alone": pl.Float64, "unique": pl.Float64, "num_levels": pl.Int64}
    return pl.DataFrame(rows, schema={**schema, "by_chance": pl.Float64}, orient="row")


def adjust(p_values: ArrayLike, method: str = "holm") -> Array:
    """p values (m,) corrected for their number: "holm" (any error), "bh" (false discovery rate)."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise AnalysisError("p values must be numbers from 0 to 1")
    if method not in ("holm", "bh"):
        raise AnalysisError(f"unknown method {method!r}", hint="known: holm, bh")
    order, ranks = np.argsort(p), np.arange(len(p))
    adjusted = np.empty(len(p))
    if method == "holm":  # Holm 1979: by what is left, never below the one before
        adjusted[order] = np.maximum.accumulate((len(p) - ranks) * p[order])
    else:  # Benjamini and Hochberg 1995: by the share of those up to here, never above the next
        adjusted[order] = np.minimum.accumulate((p[order] * len(p) / (ranks + 1))[::-1])[::-1]
    return np.minimum(adjusted, 1.0)


def cohens_d(a: ArrayLike, b: ArrayLike) -> float:
    """Difference of means over the pooled standard deviation, with Hedges' correction.

    NaN without spread, also where values of a group differ by rounding alone.
    """
    x, y = series(a, "values", least=2), series(b, "values", least=2)
    freedom = len(x) + len(y) - 2
    pooled = np.sqrt((x.var() * len(x) + y.var() * len(y)) / freedom)
    if pooled <= 1e-12 * max(np.abs(x).max(), np.abs(y).max()):
        return float("nan")
    return float((x.mean() - y.mean()) / pooled * (1 - 3 / (4 * freedom - 1)))


def cliffs_delta(a: ArrayLike, b: ArrayLike) -> float:
    """P(a > b) - P(a < b) over all pairs: -1 to 1, without any assumption on the shape."""
    x, y = series(a, "values", least=1), np.sort(series(b, "values", least=1))
    below, up_to = np.searchsorted(y, x, side="left"), np.searchsorted(y, x, side="right")
    return float((below - (len(y) - up_to)).sum() / (len(x) * len(y)))


def _shares(f: Array, num_groups: int, num_values: int) -> Array:
    """Shares of the sum of squares that belong to values of F."""
    odds = f * (num_groups - 1) / max(num_values - num_groups, 1)
    return np.where(np.isinf(odds), 1.0, odds / (1 + np.where(np.isinf(odds), 0, odds)))


def _made(statistic: float, p: float, effects: Array, design: Design, name: str) -> GroupTest:
    """The test; `effects` are that of the data, then those of permutations, if there are any."""
    by_chance = effects[1:]
    return GroupTest(
        statistic=float(statistic),
        p_value=float(p),
        effect=float(effects[0]),
        effect_name=name,
        baseline=float(by_chance.mean()) if by_chance.size else float("nan"),
        baseline_high=float(np.quantile(by_chance, 0.95)) if by_chance.size else float("nan"),
        num_groups=design.num_groups,
        num_values=len(design.groups),
        num_units=int(design.units.max()) + 1,
        resampling=design.resampling,
        p_least=design.p_least if by_chance.size else float("nan"),
    )


def _f(between: Array, within: Array, num_groups: int, size: int) -> Array:
    """F of sums of squares; 0 where nothing varies, inf where only groups do."""
    scale = between + within
    is_flat = (scale <= 0) | (between <= 1e-15 * scale)
    is_sharp = ~is_flat & (within <= 1e-15 * scale)
    safe = np.where(is_flat | is_sharp, 1.0, within)
    odds = (between / (num_groups - 1)) / (safe / max(size - num_groups, 1))
    return np.where(is_flat, 0.0, np.where(is_sharp, np.inf, odds))


def _square(distances: ArrayLike) -> Array:
    matrix = vectors(distances, "distances")
    if matrix.shape[0] != matrix.shape[1]:
        raise AnalysisError(f"a distance matrix must be square, found {matrix.shape}")
    if (matrix < 0).any() or np.abs(matrix - matrix.T).max(initial=0.0) > 1e-6 * matrix.max(initial=0.0):
        raise AnalysisError("distances must be symmetric and not negative")
    return matrix


def _dummies(levels: Codes) -> Array:
    return np.eye(int(levels.max(initial=-1)) + 1)[levels]


def _explained(designs: list[Array], centred: Array, total: float) -> float:
    """Share of the total sum of squares that factors explain; their columns add up to a constant."""
    if not designs or total == 0:
        return 0.0
    columns = np.concatenate(designs, axis=1)
    basis, values, _ = np.linalg.svd(columns, full_matrices=False)
    basis = basis[:, values > 1e-10 * values[0]]
    return float(((basis.T @ centred) ** 2).sum() / total)
