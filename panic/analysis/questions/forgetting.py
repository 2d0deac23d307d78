"""Is the start forgotten? The length of the last text against that of the prompt, over prompts.

Attractor strength and position as in Perez et al., ICLR 2025: 1 - |slope|, and the length that is kept,
intercept / (1 - slope), of the least-squares line of final on initial lengths.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from panic.analysis.chance import LEAST_PROMPTS, least_told, pairing
from panic.analysis.charts import GREY, colour, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.dynamics import attractor
from panic.analysis.evidence import Evidence, View, once
from panic.analysis.grouping import grouped_by
from panic.analysis.whereabouts import continued
from panic.store.codec import IMAGE_PROMPT

TITLE = "Is the start forgotten?"
CAVEAT = (
    "Lengths in words, one point per prompt: its own length, and the mean over its runs of the last text. A "
    "forgotten length need not be a forgotten topic. Failed and unfinished runs are left out; a stuck run is "
    "where its cycle is at the end. p: lengths at the end are shuffled among prompts."
)
LINES = {
    "network": pl.String, "strength": pl.Float64, "position": pl.Float64, "slope": pl.Float64,
    "intercept": pl.Float64, "p_value": pl.Float64, "p_least": pl.Float64, "num_prompts": pl.Int64,
    "num_runs": pl.Int64,
}  # fmt: skip

views = once


def table(evidence: Evidence, view: View | None = None) -> pl.DataFrame | None:
    """Lengths by network and prompt with the columns of LINES; None where no run ends with a text.

    AnalysisError where there are fewer than 3 prompts, or all are equally long.
    """
    lengths = end_lengths(evidence.data)
    if lengths.is_empty():
        return None
    return with_lines(lengths)


def with_lines(lengths: pl.DataFrame) -> pl.DataFrame:
    """The lengths, as `end_lengths` has them, with the columns of LINES.

    p_value is NaN where too few prompts are there for a test (`LEAST_PROMPTS`). AnalysisError as of `table`.
    """
    rows = []
    for (network,), group in lengths.group_by("network", maintain_order=True):
        initial, final = group["initial"].to_numpy(), group["final"].to_numpy()
        if len(group) > 2 and group["initial"].n_unique() == 1:
            raise AnalysisError(f"the prompts of {network} have all as many words: nothing to regress on")
        found = attractor(initial, final)
        p = p_least = float("nan")
        if len(group) >= LEAST_PROMPTS:
            chance = pairing(initial, final)
            p, p_least = float(chance.p_value), chance.p_least
        rows.append((network, found.strength, found.position, found.slope, found.intercept, p, p_least,
                     len(group), int(group["num_runs"].sum())))  # fmt: skip
    lines = pl.DataFrame(rows, LINES, orient="row")
    return lengths.drop("num_runs").join(lines, on="network", maintain_order="left")


def end_lengths(data: ExperimentData) -> pl.DataFrame:
    """network, prompt, initial and final (words, mean over runs), num_runs.

    They are of the runs that have ended, and that begin with a text.
    """
    has_words = ~pl.col("prompt").str.contains(f"^{IMAGE_PROMPT.pattern}$")
    ended = data.runs.filter(pl.col("state").is_in(["done", "stuck"]), has_words)
    texts = data.outputs.filter(pl.col("modality") == "text").select("output", "text")
    told = data.invocations.filter(pl.col("modality").cast(pl.String) == "text").select(
        "run", "step", "output"
    )
    last = continued(told, ended).group_by("run", maintain_order=True).last()
    words = pl.col("text").str.split(" ").list.len()
    return (
        ended.select("run", "network", "prompt")
        .join(last.join(texts, on="output").select("run", final=words), on="run", maintain_order="left")
        .group_by("network", "prompt", maintain_order=True)
        .agg(final=pl.col("final").mean(), num_runs=pl.len().cast(pl.Int64))
        .with_columns(initial=pl.col("prompt").str.split(" ").list.len().cast(pl.Float64))
        .select("network", "prompt", "initial", "final", "num_runs")
    )


def chart(answer: pl.DataFrame) -> Any:
    """The length at the end over that of the prompt, one dot per prompt, with the line of each network."""
    ends = answer.group_by("network", maintain_order=True).agg(
        pl.col("slope", "intercept").first(), low=pl.col("initial").min(), high=pl.col("initial").max()
    )
    lines = pl.concat(
        [
            ends.select("network", initial=end, final=pl.col("intercept") + pl.col("slope") * pl.col(end))
            for end in ("low", "high")
        ]
    )
    shade = colour("network", names_of(answer, "network"))
    x = alt.X("initial:Q", title="words of the prompt")
    y = alt.Y("final:Q", title="words of the last text")
    top = max(float(answer.select("initial", "final").to_numpy().max()), 1.0)
    same = pl.DataFrame({"initial": [0.0, top], "final": [0.0, top]})
    tips = [alt.Tooltip("prompt:N"), alt.Tooltip("initial:Q"), alt.Tooltip("final:Q", format=".1f")]
    layers = (
        alt.Chart(data(same)).mark_line(color=GREY, strokeDash=[4, 4]).encode(x=x, y=y),
        alt.Chart(data(lines)).mark_line(strokeWidth=2.2).encode(x=x, y=y, color=shade),
        alt.Chart(data(answer.select("network", "prompt", "initial", "final")))
        .mark_point(filled=True, size=60, opacity=0.7)
        .encode(x=x, y=y, color=shade, tooltip=tips),
    )
    caption = (
        f"One dot per prompt and {grouped_by(answer['network'])}, mean over its runs. Dashed: the length is "
        "kept. Flat: forgotten."
    )
    return finish(alt.layer(*layers), "Length at the end and at the start", caption)


def sentence(answer: pl.DataFrame) -> str:
    """Strength and position by network."""
    rows = answer.group_by("network", maintain_order=True).first()
    parts = [
        f"{row['network']} {row['strength']:.2f}, towards {row['position']:.3g} words "
        f"({row['num_prompts']} prompts, {row['num_runs']} runs, {_tested(row)})"
        for row in rows.head(4).iter_rows(named=True)
    ]
    more = f"; and {len(rows) - 4} more" if len(rows) > 4 else ""
    return (
        "Attractor strength of the length (0: the prompt's length is kept, 1: forgotten) and where it is "
        f"pulled: {'; '.join(parts)}{more}."
    )


def _tested(row: dict[str, Any]) -> str:
    if row["p_value"] != row["p_value"]:
        return f"fewer than {LEAST_PROMPTS} are not tested"
    return f"p = {row['p_value']:.2g} for lengths shuffled among prompts{least_told(row['p_least'])}"
