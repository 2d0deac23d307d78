"""Summary metrics of single runs, each one number: what experiments are compared, ranked and found by.

metric(data, "drift")            # run, value: one row per run, null where it has none
METRICS                          # what there is, in words

A mean over the runs of an experiment is the experiment's. The functions are in `run_metrics.py`, because what
only names metrics needs none of the libraries that they take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from panic.errors import NotFound, nearest

if TYPE_CHECKING:
    import polars as pl

    from panic.analysis.data import ExperimentData

VERSION = 1
"""Of the definitions: whoever changes what a metric is raises it, and what was stored is worked out again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number per run: what it is, with its unit.

    is_of_experiment: it depends on the models of the experiment, so that experiments are measured one by one.
    """

    what: str
    example: str
    is_of_experiment: bool = False


METRICS: Mapping[str, Metric] = {
    "stuck_share": Metric(what="share of the runs that got stuck", example="stuck_share > 0.5"),
    "period": Metric(what="period of stuck runs, in model calls", example="period > 2"),
    "entry_step": Metric(
        what="model call at which stuck runs entered their cycle", example="entry_step < 10"
    ),
    "drift": Metric(
        what="cosine distance of the last text from the prompt", example="drift > 0.3", is_of_experiment=True
    ),
    "entropy": Metric(what="entropy of the outputs of a run, in bits", example="entropy < 1"),
    "seconds": Metric(what="model time of a run, in seconds", example="seconds > 60"),
    "tokens": Metric(what="tokens of a run, as servers count them", example="tokens > 1000"),
}
"""The metrics by name."""


def require_metric(name: str) -> None:
    """Raise NotFound for what is no metric, naming the nearest."""
    if name not in METRICS:
        near = nearest(name, METRICS)
        there_are = f"There are: {', '.join(METRICS)}."
        raise NotFound(
            f"No metric is called {name!r}.", hint=f"Did you mean {near[0]}?" if near else there_are
        )


def metric(data: ExperimentData, name: str) -> pl.DataFrame:
    """Return run and value (null where a run has none, or no number), one row per run as in `data.runs`.

    Raises NotFound, naming the nearest.
    """
    require_metric(name)
    import polars as pl

    from panic.analysis.run_metrics import FUNCTIONS

    found = FUNCTIONS[name](data).select(
        pl.col("run").cast(pl.Int64), pl.col("value").cast(pl.Float64).fill_nan(None)
    )
    return data.runs.select("run").join(found, on="run", how="left", maintain_order="left")
