"""Summary metrics of single runs, each one number: what experiments are compared and ranked by.

metric(data, "drift")            # run, value: one row per run, null where it has none
METRICS                          # what there is, in words

A mean over the runs of an experiment is the experiment's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from panic.analysis.data import ExperimentData
from panic.errors import NotFound, nearest
from panic.store.codec import prompt_digest
from panic.store.served import answer_tokens

VALUE = {"run": pl.Int64, "value": pl.Float64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number per run: what it is, with its unit, and the function that gives it."""

    what: str
    of: Callable[[ExperimentData], pl.DataFrame]


def metric(data: ExperimentData, name: str) -> pl.DataFrame:
    """Return run and value (null where a run has none), one row per run in the order of `data.runs`.

    Raises NotFound, naming the nearest.
    """
    if name not in METRICS:
        near = nearest(name, METRICS)
        there_are = f"There are: {', '.join(METRICS)}."
        raise NotFound(
            f"No metric is called {name!r}.", hint=f"Did you mean {near[0]}?" if near else there_are
        )
    found = METRICS[name].of(data).select(pl.col("run").cast(pl.Int64), pl.col("value").cast(pl.Float64))
    return data.runs.select("run").join(found, on="run", how="left", maintain_order="left")


def stuck_share(data: ExperimentData) -> pl.DataFrame:
    """Return 1 for stuck runs and 0 for runs that could have got stuck and ended otherwise."""
    can_be = data.runs.filter(pl.col("seed") != -1, "is_repeatable", pl.col("state").is_in(["stuck", "done"]))
    return can_be.select("run", value=pl.col("state") == "stuck")


def period(data: ExperimentData) -> pl.DataFrame:
    """Return the period of stuck runs, in steps."""
    return data.runs.select("run", value="period")


def entry_step(data: ExperimentData) -> pl.DataFrame:
    """Return the step at which stuck runs entered their cycle."""
    return data.runs.select("run", value="entry_step")


def drift(data: ExperimentData) -> pl.DataFrame:
    """Return the cosine distance of a run's last text from its prompt, under the first model that has both.

    A stuck run is followed to its full length; a run that has not ended has none.
    """
    names = dict.fromkeys(epoch.name for epoch in data.epochs)
    models = [name for name in names if "text" in data.model(name).spec.get("modalities_in", [])]
    prompts = data.runs.select("run", digest=pl.col("prompt").map_elements(_hex, pl.String))
    starts = prompts.join(data.outputs.select("digest", start="output"), on="digest")
    for name in models:
        places = data.places(name)
        if places.is_empty():
            continue
        start = starts.join(places.select(start="output", first="row"), on="start")
        pairs = data.ends(name, "text").select("run", "row").join(start, on="run")
        if pairs.is_empty():
            continue
        matrix = data.matrix(name)
        one, other = (matrix[pairs[column].to_numpy()].astype(np.float64) for column in ("first", "row"))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        products = (one * other).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
        return pairs.select("run", value=pl.Series(1 - products, dtype=pl.Float64))
    return pl.DataFrame(schema=VALUE)


def _hex(prompt: str) -> str:
    return prompt_digest(prompt).hex()


def entropy(data: ExperimentData) -> pl.DataFrame:
    """Return the Shannon entropy of how often each output came up in a run's stored steps, in bits."""
    counts = data.invocations.group_by("run", "modality", "output").len()
    share = pl.col("len") / pl.col("len").sum().over("run", "modality")
    of_modality = counts.with_columns(part=-share * share.log(2)).group_by("run", "modality").agg(
        pl.col("part").sum()
    )  # fmt: skip
    return of_modality.group_by("run").agg(value=pl.col("part").mean())


def seconds(data: ExperimentData) -> pl.DataFrame:
    """Return the model time of a run: of every call its share by the number of items in it."""
    share = data.timings.select("batch", share=pl.col("duration_s") / pl.col("size"))
    return data.invocations.join(share, on="batch").group_by("run").agg(value=pl.col("share").sum())


def tokens(data: ExperimentData) -> pl.DataFrame:
    """Return how many tokens servers counted for a run, sent and answered; none without an endpoint."""
    rows = pl.DataFrame(answer_tokens(data.store), {"batch": pl.Int64, "tokens": pl.Int64}, orient="row")
    if rows.is_empty():
        return pl.DataFrame(schema=VALUE)
    return data.invocations.join(rows, on="batch").group_by("run").agg(value=pl.col("tokens").sum())


METRICS: Mapping[str, Metric] = {
    "stuck_share": Metric(what="share of the runs that got stuck", of=stuck_share),
    "period": Metric(what="period of stuck runs, in steps", of=period),
    "entry_step": Metric(what="step at which stuck runs entered their cycle", of=entry_step),
    "drift": Metric(what="cosine distance of the last text from the prompt", of=drift),
    "entropy": Metric(what="entropy of the outputs of a run, in bits", of=entropy),
    "seconds": Metric(what="model time of a run, in seconds", of=seconds),
    "tokens": Metric(what="tokens of a run, as servers count them", of=tokens),
}
"""The metrics by name."""
