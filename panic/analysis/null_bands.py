"""What a question's statistic is on null models of the same runs: one mechanism for all questions with one.

A question says in STATISTIC (`evidence.Statistic`) what it measures of a single run. Here its mean over the
runs of a network stands beside the band in which the mean of as many surrogates would lie: surrogates that
are stored as the null experiment `NAME/null-KIND` (`panic nulls`), read by the same code.

    bands = answers_beside(find("lag"), evidence, "shuffled")
    figures_beside(find("lag"), evidence, ["shuffled", "matched_walk"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from threadpoolctl import threadpool_limits

from panic.analysis.added import AddedQuestion
from panic.analysis.answers import Answer
from panic.analysis.charts import names_of, null_band, plain
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, Statistic, View
from panic.analysis.nulls import surrogate_of
from panic.analysis.questions import Figure, Question, named
from panic.errors import NotFound
from panic.store import reading
from panic.store.records import ENDED

LEAST_RUNS = 3
BAND = {
    "network": pl.String, "part": pl.String, "x": pl.Float64, "value": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "mean": pl.Float64, "num_runs": pl.Int64, "num_null": pl.Int64,
}  # fmt: skip
CAVEAT = (
    "A mean over runs, beside the 95 % band of means of as many surrogates (Student's t, as large as the "
    "difference of two means makes it): chance alone puts one place in twenty outside, and places of one "
    "curve are not independent. Each surrogate is of one run that has ended, and of its stored outputs; runs "
    "that met count once."
)
MAX_DRAWN = 6  # curves
MAX_TOLD = 4
EQUAL = 1e-6  # of values: surrogates that cannot differ, such as diagrams of outputs in another order


def statistic_of(question: Question) -> Statistic:
    """What a question measures of single runs. AnalysisError, naming those that do, for one that does not."""
    found = getattr(question, "STATISTIC", None)
    if isinstance(found, Statistic):
        return found
    known = named().items()
    own = getattr(question, "name", "this question")  # an added one is made anew whenever it is asked for
    name = next((name for name, one in known if one is question), own)
    with_one = [name for name, one in known if isinstance(getattr(one, "STATISTIC", None), Statistic)]
    raise AnalysisError(
        f"{name} has no statistic of single runs, so there is nothing that null models could be asked for",
        hint=f"these have one: {', '.join(with_one)}",
    )


def nulls_of(evidence: Evidence, kind: str, modality: str) -> Evidence:
    """The evidence of the stored null models of a kind. NotFound tells the command that makes them."""
    found = evidence.nulls.get((kind, modality))
    if found is not None:
        return found
    name = evidence.experiment.name
    surrogate_of(kind)
    if reading.is_null(name):
        raise NotFound(f"{name} holds null models, and has none of its own.")
    of = "" if modality == "text" else f" of its {modality}s"
    raise NotFound(f"{name} has no null models {kind}{of}.", hint=f"panic nulls {name} {kind} makes them")


def answers_beside(question: Question, evidence: Evidence, kind: str) -> list[Answer]:
    """The bands of a question by view, as frames of the columns BAND, without x where there is one place."""
    statistic = statistic_of(question)
    found = []
    with threadpool_limits(1):
        for view in question.views(evidence):
            if view is None:
                if isinstance(question, AddedQuestion) and question.problem is not None:
                    found.append(Answer(view=None, missing=question.problem.message))
                continue
            try:
                null = nulls_of(evidence, kind, view.modality)
                own, drawn = _values(statistic, evidence, view), _values(statistic, null, view)
                frame = beside(own, drawn, is_share=statistic.is_share)
            except (AnalysisError, NotFound) as error:
                if kind not in {known for known, _ in evidence.nulls}:
                    raise
                found.append(Answer(view=view, missing=error.message))
                continue
            found.append(Answer(view=view, value=frame if statistic.x_title else frame.drop("x")))
    return found


def _values(statistic: Statistic, evidence: Evidence, view: View) -> pl.DataFrame:
    """The statistic of ended runs, copies once: network (of a surrogate its run's), part, run, x, value."""
    is_null = reading.is_null(evidence.experiment.name)
    found = statistic.of(evidence, View(view.model, "text") if is_null else view)
    runs = evidence.data.runs.filter(pl.col("state").is_in(ENDED), pl.col("run").is_in(evidence.distinct))
    ended = runs.select("run", "network", "plain_network")
    kind = evidence.experiment.config.get("null", "")
    network = pl.col("network")
    if is_null:  # its one model is called so
        network = pl.col("plain_network").str.strip_prefix(f"{kind} of ").alias("network")
    part = pl.col("part") if "part" in found.columns else pl.lit("")
    x = pl.col("x") if "x" in found.columns else pl.lit(0.0)
    return found.join(ended, on="run").select(
        network, part.alias("part"), "run", x.cast(pl.Float64).alias("x"),
        pl.col("value").cast(pl.Float64),
    )  # fmt: skip


def beside(own: pl.DataFrame, null: pl.DataFrame, *, is_share: bool = False) -> pl.DataFrame:
    """Means of values of runs beside the band for means of as many surrogates: columns BAND.

    Both have network, part, run, x, value. The band of n runs beside N surrogates is mean +- t s sqrt(1 / n +
    1 / N), with the surrogates' deviation s and the 97.5 % quantile t of Student's law of N - 1 degrees of
    freedom. With `is_share` values are 0 or 1, the surrogates' share is (k + 1) / (N + 2), and s that of a
    coin. Places with fewer than LEAST_RUNS of either are left out; AnalysisError where none is left.
    """
    from scipy.stats import t

    place = ["network", "part", "x"]
    means = (
        own.drop_nulls("value")
        .group_by(place, maintain_order=True)
        .agg(value=pl.col("value").mean(), num_runs=pl.len().cast(pl.Int64))
    )
    drawn = (
        null.drop_nulls("value")
        .group_by(place)
        .agg(mean=pl.col("value").mean(), spread=pl.col("value").std(), num_null=pl.len().cast(pl.Int64))
    )
    if is_share:
        share = (pl.col("mean") * pl.col("num_null") + 1) / (pl.col("num_null") + 2)
        drawn = drawn.with_columns(mean=share, spread=(share * (1 - share)).sqrt())
    found = means.join(drawn, on=place, maintain_order="left").filter(
        pl.min_horizontal("num_runs", "num_null") >= LEAST_RUNS
    )
    if found.is_empty():
        raise AnalysisError(f"nothing has {LEAST_RUNS} runs and as many null models that can be measured")
    quantile = pl.Series(t.ppf(0.975, found["num_null"].to_numpy() - 1))
    half = quantile * pl.col("spread") * (1 / pl.col("num_runs") + 1 / pl.col("num_null")).sqrt()
    found = found.with_columns(low=pl.col("mean") - half, high=pl.col("mean") + half)
    if min(pl.concat([own["value"], null["value"]]).drop_nulls(), default=-1.0) >= 0:  # never below 0
        found = found.with_columns(pl.col("low").clip(lower_bound=0.0))
    if is_share:
        found = found.with_columns(pl.col("high").clip(upper_bound=1.0))
    curves = found.select(*BAND).partition_by("network", "part", maintain_order=True)
    return pl.concat(curve.sort("x") for curve in curves)


def figures_beside(question: Question, evidence: Evidence, of_kinds: Sequence[str]) -> list[Figure]:
    """The bands of a question as figures, one per view, with the charts of all these kinds of null models."""
    statistic = statistic_of(question)
    by_view: dict[View | None, list[tuple[str, Answer]]] = {}
    for kind in of_kinds:
        for answer in answers_beside(question, evidence, kind):
            by_view.setdefault(answer.view, []).append((kind, answer))
    return [_figure(statistic, question, view, found) for view, found in by_view.items()]


def _figure(
    statistic: Statistic, question: Question, view: View | None, found: list[tuple[str, Answer]]
) -> Figure:
    modality, model = ("", "") if view is None else (view.modality, f" · {view.model}")
    title = question.TITLE if isinstance(question.TITLE, str) else question.TITLE[modality]
    title = f"{title}{model} · beside null models"
    good = [(kind, answer.value) for kind, answer in found if not answer.missing]
    missing = [f"{kind}: {answer.missing.rstrip('.')}." for kind, answer in found if answer.missing]
    if not good:
        return Figure(title=title, missing=" ".join(missing))
    charts = {
        heading: chart
        for kind, frame in good
        for heading, chart in band_charts(statistic, frame, kind).items()
    }
    told = [band_sentence(statistic, frame, kind) for kind, frame in good]
    return Figure(title=title, charts=charts, sentence=" ".join([*told, *missing]), caveat=CAVEAT)


def band_charts(statistic: Statistic, frame: pl.DataFrame, kind: str) -> dict[str, Any]:
    """A curve per network where the statistic has places on an axis; else one row per network."""
    caption = f"Blue: mean over runs. Grey: 95 % of means of as many null models ({kind}), and their mean."
    named_rows = frame.with_columns(name=_name())
    if not statistic.x_title:
        rows = named_rows.select("value", "low", "high", "mean", x="name")
        heading = f"beside {kind}"
        return {heading: null_band(rows, heading, value_title=statistic.what, caption=caption)}
    return {
        f"{name} beside {kind}": null_band(
            named_rows.filter(pl.col("name") == name).select("x", "value", "low", "high", "mean"),
            f"{name} beside {kind}",
            x_title=statistic.x_title,
            value_title=statistic.what,
            caption=caption,
        )
        for name in names_of(named_rows, "name")[:MAX_DRAWN]
    }


def _name() -> pl.Expr:
    return (
        pl.when(pl.col("part") == "")
        .then("network")
        .otherwise(pl.concat_str("network", "part", separator=" · "))
    )


def band_sentence(statistic: Statistic, frame: pl.DataFrame, kind: str) -> str:
    """Where the statistic leaves its band, network by network."""
    rows = frame.with_columns(name=_name())
    names = names_of(rows, "name")
    parts = [_said(statistic, name, rows.filter(pl.col("name") == name)) for name in names[:MAX_TOLD]]
    more = f"; and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else ""
    return f"{statistic.what[:1].upper()}{statistic.what[1:]}, beside {kind}: {'; '.join(parts)}{more}."


def _said(statistic: Statistic, name: str, rows: pl.DataFrame) -> str:
    num_runs = int(rows["num_runs"].max())  # type: ignore[arg-type]
    runs = f"{num_runs:,} runs"
    if (rows["value"] - rows["mean"]).abs().max() <= EQUAL * rows["value"].abs().max():  # type: ignore[operator]
        return f"{name} ({runs}) cannot be told from its null models, which keep this statistic as it is"
    if not statistic.x_title:
        row = rows.row(0, named=True)
        where = "above" if row["value"] > row["high"] else "below" if row["value"] < row["low"] else "within"
        return (
            f"{name} {plain(row['value'])} of {runs}, {where} the band {plain(row['low'])} to "
            f"{plain(row['high'])}"
        )
    above, below = rows["value"] > rows["high"], rows["value"] < rows["low"]
    outside = rows.filter(above | below)
    if outside.is_empty():
        return f"{name} ({runs}) is within its band at all {len(rows)} places"
    sides = f"above at {int(above.sum())}, below at {int(below.sum())}"
    first = f"first at {plain(float(outside['x'][0]))}"
    return f"{name} ({runs}) leaves its band at {len(outside)} of {len(rows)} places ({sides}; {first})"
