"""How long a run stays where it is: dwell times with their censoring, and what can be said despite it.

A run begins at its prompt, so its first dwell begins there, too; its last one goes on beyond the end and is
censored. Taking only complete dwells favours short ones: two states with means of 50 and 20 steps, seen in
windows of 100, come out as 29 instead of 50; time per exit gives 50.6.

    dwells = dwell_times(labels)
    mean_dwell(dwells), survival(dwells["length"], dwells["is_censored"])
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from panic.analysis.checks import OUTLIER, AnalysisError, runs_of_labels

DWELLS = {
    "run": pl.Int64,
    "label": pl.Int64,
    "start": pl.Int64,
    "length": pl.Int64,
    "is_censored": pl.Boolean,
}


def dwell_times(labels: Any) -> pl.DataFrame:
    """One row per dwell in labels (n,) of a run or of several: run, label, start, length, is_censored.

    A dwell is a stretch of equal labels. Outliers (-1) have none and end what they interrupt: A, -, A are
    two dwells of one step each. The last dwell of a run is censored.
    """
    parts = [pl.DataFrame(schema=DWELLS)]
    for number, run in enumerate(runs_of_labels(labels)):
        if not run.size:
            continue
        starts = np.append(0, np.flatnonzero(np.diff(run)) + 1)
        ends = np.append(starts[1:], len(run))
        kept = run[starts] != OUTLIER
        parts.append(
            pl.DataFrame(
                {
                    "run": np.full(int(kept.sum()), number),
                    "label": run[starts][kept],
                    "start": starts[kept],
                    "length": (ends - starts)[kept],
                    "is_censored": (ends == len(run))[kept],
                },
                schema=DWELLS,
            )
        )
    return pl.concat(parts)


def mean_dwell(dwells: pl.DataFrame) -> pl.DataFrame:
    """Mean dwell per label, from time and exits: label, mean, num_exits, time, low, high.

    Time spent divided by the number of exits is right for memoryless dwells in spite of censoring; inf where
    no exit was seen. (low, high) is the 95 % interval of that mean from the number of exits (exponential).
    """
    from scipy.stats import chi2

    found = (
        dwells.group_by("label")
        .agg(time=pl.col("length").sum(), num_exits=(~pl.col("is_censored")).sum())
        .with_columns(mean=pl.col("time") / pl.col("num_exits"))
        .sort("label")
    )
    time, exits = found["time"].to_numpy().astype(float), found["num_exits"].to_numpy().astype(float)
    high = np.divide(
        2 * time, chi2.ppf(0.025, 2 * np.maximum(exits, 0.5)), where=exits > 0, out=time * np.inf
    )
    low = 2 * time / chi2.ppf(0.975, 2 * exits + 2)
    return found.with_columns(low=pl.Series(low), high=pl.Series(high)).select(
        "label", "mean", "num_exits", "time", "low", "high"
    )


def survival(lengths: ArrayLike, is_censored: ArrayLike) -> pl.DataFrame:
    """Kaplan-Meier estimate of P(dwell > length): length, survival, low, high, num_at_risk.

    One row per length at which something ended, after a first one of length 0; the band is Greenwood's 95 %
    on the log-log scale. AnalysisError without dwells, or for lengths that are no positive numbers.
    """
    from statsmodels.duration.survfunc import SurvfuncRight

    time, censored = np.asarray(lengths, dtype=np.float64), np.asarray(is_censored, dtype=bool)
    if time.shape != censored.shape or time.ndim != 1:
        raise AnalysisError(f"lengths {time.shape} and flags {censored.shape} must pair up")
    if not time.size or not np.isfinite(time).all() or (time <= 0).any():
        raise AnalysisError("lengths must be positive numbers, at least one")
    if censored.all():
        rows = [(0.0, 1.0, 1.0, 1.0, len(time))]
    else:
        made = SurvfuncRight(time, ~censored)
        share = made.surv_prob
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = 1.96 * made.surv_prob_se / (share * np.log(share))
            low, high = share ** np.exp(-spread), share ** np.exp(spread)
        low, high = np.where(share > 0, low, 0.0), np.where(share > 0, high, 0.0)
        rows = [(0.0, 1.0, 1.0, 1.0, len(time))]
        rows += list(zip(made.surv_times, share, low, high, made.n_risk.astype(int), strict=True))
    names = ("length", "survival", "low", "high", "num_at_risk")
    table = np.array(rows, dtype=np.float64)
    frame = pl.DataFrame({name: table[:, place] for place, name in enumerate(names)})
    return frame.with_columns(pl.col("num_at_risk").cast(pl.Int64))
