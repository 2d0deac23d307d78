"""The functions of `metrics.py`: each gives one number per run, in a frame with the columns run and value.

FUNCTIONS["drift"](data)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from panic.analysis.data import ExperimentData
from panic.store.codec import prompt_digest
from panic.store.served import answer_tokens

VALUE = {"run": pl.Int64, "value": pl.Float64}


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


FUNCTIONS: Mapping[str, Callable[[ExperimentData], pl.DataFrame]] = {
    "stuck_share": stuck_share,
    "period": period,
    "entry_step": entry_step,
    "drift": drift,
    "entropy": entropy,
    "seconds": seconds,
    "tokens": tokens,
}
"""By the names of metrics."""
