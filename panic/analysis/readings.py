"""One plain sentence of what a figure shows, and one of what it does not: text for reports.

drift_reading(drift_bands(drift(store, experiment, "PocketText")))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import log
from statistics import median
from typing import Any

import polars as pl

from panic.analysis import dynamics
from panic.analysis.charts import seconds
from panic.store.records import RunRow

STUCK_CAVEAT = (
    "Only runs with a fixed seed can be stuck: with fresh noise at every step the same picture may lead "
    "elsewhere."
)
TIME_CAVEAT = (
    "These are durations of calls, so work that ran side by side counts fully for each; loading of models"
    " and writing are not in it."
)
DRIFT_CAVEATS = {
    "text": (
        "A stuck run is continued by its cycle, a failed one is not. A captioner's texts differ from "
        "prompts in style alone, so the first step may be far from the prompt where nothing was lost: "
        "read what follows it."
    ),
    "image": (
        "A stuck run is continued by its cycle, a failed one is not. Measured from the first picture, not"
        " from the prompt: a text and a picture of the same thing are far apart even under a model that "
        "reads both."
    ),
}
DIAGRAM_CAVEAT = (
    "All runs of a network are drawn together. The diagrams ignore the order of the steps, and random "
    "walks of the same size make bars, too: without such a control a long bar is a hint, not a finding."
)

PERIODS_CAVEAT = (
    "The period is counted in model calls: a loop of a drawing and a describing model that repeats one "
    "picture has the period 2. Early entries are common where a captioner has few words for many "
    "pictures."
)
GRID_CAVEAT = (
    "One picture per cell hides how much repeats differ; the command panic images --step N shows all runs."
)
LAG_CAVEAT = (
    "Only outputs of one kind are compared, at lags up to half of a run. A stuck run counts up to the step "
    "at which it got stuck. The value at lag 1 is noise and motion together; 2 D(1) - D(2) estimates the "
    "noise of a walk. A shuffle keeps the first output, so its band need not be flat."
)
TWIN_CAVEAT = (
    "Runs of one prompt with fresh noise are apart from their first step on, so this is no response to a "
    "small change; a rate needs several steps of growth before the distances saturate, else none is "
    "given."
)
MAP_CAVEAT = (
    "Two of many dimensions: what lies together here may be apart in others. Axes have no unit and no sign."
)
CLUSTER_CAVEAT = (
    "HDBSCAN on directions of vectors; what it leaves out is grey, and shares of 60 to 70 % are usual for"
    " captions. Agreement is the adjusted Rand index with clusterings that lack a fifth of the runs: 1 is"
    " the same, 0 is chance; below about 0.7 the borders are not to be trusted. Stuck runs go on by their"
    " cycle."
)
DWELL_CAVEAT = (
    "Dwells that the end of a run cuts off are counted as such, not dropped; an outlier ends a dwell. A "
    "stuck run stays for good, up to its full length. Runs with a fixed seed are not random, so the bands"
    " speak for those with fresh noise."
)
RECURRENCE_CAVEAT = (
    "Exactly the same text or picture, not a similar one. A stuck run is drawn on for as long again as it"
    " was computed, for its future is known; the shares are of what is drawn."
)
ENTROPY_CAVEAT = (
    "It grows with the number of bars, and so with the length of a run and the variety of its outputs: "
    "compare runs of equal length, and look at the bars. A walk comes back to no place exactly, so a run "
    "that repeats itself is below its band for that alone."
)
LOOP_CAVEAT = (
    "Each walk has the run's own step angles and distances from its start, and otherwise no direction; it"
    " comes back to no place exactly. One run in forty is above its band by chance, another one below."
)
LONGEST_LOOP = ("longest loop", "walks")
ENTROPY = ("entropy of the components", "walks")
DWELL = ("mean dwell", "shuffles")
EFFECTS_CAVEAT = (
    "Labels are shuffled among runs that agree in all else, so a difference between prompts is not taken "
    "for one between networks. PERMANOVA also answers to a difference in spread; more levels explain more"
    " by chance (the grey bars). With few prompts nothing can become clear."
)
SHARES_CAVEAT = (
    "The clusters are those of this experiment, frozen: places that only others visit lie outside all. A "
    "cluster is a ball around its mean here."
)
PROBE_CAVEAT = (
    "Linear probes on the first principal components, whole runs held out. A probe that fails may lack "
    "data; one that succeeds says what can be read, not what the loop uses."
)


def stuck_reading(runs: list[RunRow]) -> str:
    """How many runs with a fixed seed are stuck, how soon, with which period."""
    fixed = [run for run in runs if run.seed != -1]
    if not fixed:
        return "All runs draw fresh noise at every step, so none can be stuck."
    stuck = [run for run in fixed if run.period is not None]
    if not stuck:
        return f"None of the {len(fixed):,} runs with a fixed seed is stuck so far."
    entries = [run.entry_step for run in stuck if run.entry_step is not None]
    period, times = Counter(run.period for run in stuck).most_common(1)[0]
    return (
        f"{len(stuck):,} of {len(fixed):,} runs with a fixed seed repeat themselves forever, half of them "
        f"from step {median(entries):g} on; the most common period is {period} steps ({times:,} runs)."
    )


def time_reading(frame: pl.DataFrame, wall_s: float) -> str:
    """Who took most of the work, and how it compares with the clock."""
    total = float(frame["seconds"].sum())
    first = frame.row(0, named=True)
    return (
        f"Most of the work went into {first['name']}: {first['seconds'] / (total or 1):.0%} of "
        f"{seconds(total)}; the sessions lasted {seconds(wall_s)} in all."
    )


def drift_reading(bands: pl.DataFrame, modality: str = "text") -> str:
    """How far from their start the networks are at the end."""
    start = "prompt" if modality == "text" else "first picture"
    last = bands.group_by("network", maintain_order=True).last().sort("median", descending=True)
    first = bands.group_by("network", maintain_order=True).first()
    starts = dict(zip(first["network"], first["median"], strict=True))
    parts = [
        f"{row['network']} is at {row['median']:.2f} at step {row['step']} "
        f"(it began at {starts[row['network']]:.2f})"
        for row in last.head(4).iter_rows(named=True)
    ]
    more = f"; {len(last) - 4} more networks lie below" if len(last) > 4 else ""
    return (
        f"Half of the {'texts' if modality == 'text' else 'pictures'} are farther from the {start} than the "
        f"line: {'; '.join(parts)}{more}."
    )


def step_reading(bands: pl.DataFrame, modality: str = "text") -> str:
    """Whether the steps become smaller; nothing where there are none."""
    parts = []
    for (network,), rows in bands.sort("step").group_by("network", maintain_order=True):
        third = max(1, len(rows) // 3)
        early, late = _median(rows["median"].head(third)), _median(rows["median"].tail(third))
        parts.append(f"{network} {early:.2g} early and {late:.2g} late")
    if not parts:
        return ""
    more = f"; and {len(parts) - 4} more" if len(parts) > 4 else ""
    return f" A step from one {modality} to the next covers, in the median: {'; '.join(parts[:4])}{more}."


def diagram_reading(frame: pl.DataFrame) -> str:
    """What the bars of one model say: typical death of components, longest loop."""
    finite = frame.filter(pl.col("death").is_finite()).with_columns(length=pl.col("death") - pl.col("birth"))
    components = finite.filter(pl.col("dimension") == 0)
    loops = finite.filter(pl.col("dimension") == 1).sort("length", descending=True)
    if components.is_empty():
        return "Every run came back to a single point: there are no finite bars."
    typical = float(components["death"].median() or 0.0)  # type: ignore[arg-type]
    text = f"Half of the distinct outputs join their nearest group within a distance of {typical:.2g}"
    if loops.is_empty():
        return f"{text}; there are no loops."
    longest = loops.row(0, named=True)
    return (
        f"{text}; of {len(loops):,} loop{'s' if len(loops) != 1 else ''} the longest lives "
        f"from {longest['birth']:.2g} to {longest['death']:.2g} (run {longest['run']}, {longest['network']})."
    )


def periods_reading(runs: pl.DataFrame) -> str:
    """Which periods there are, by network."""
    stuck = runs.filter(pl.col("period").is_not_null())
    turns = (stuck["period"] == stuck["num_models"]).sum()
    latest = stuck.sort("entry_step").row(-1, named=True)
    return (
        f"{len(stuck):,} runs are stuck; {turns:,} of them stand still (their period is one turn of the "
        f"network). The longest way there was that of run {latest['run']}: "
        f"it entered its cycle at step {latest['entry_step']}."
    )


def grid_reading(num_prompts: int, num_networks: int, max_prompts: int, max_networks: int) -> str:
    """What the grid of pictures shows, and how much of it."""
    cut = num_prompts > max_prompts or num_networks > max_networks
    some = f"; {min(num_prompts, max_prompts)} x {min(num_networks, max_networks)} are shown" if cut else ""
    return (
        f"The last picture of the first run of each prompt (rows: {num_prompts}) under each network "
        f"(columns: {num_networks}{some}). Rows that look alike have forgotten the network, columns the "
        "prompt."
    )


def lag_reading(curves: pl.DataFrame, modality: str) -> str:
    """Does the distance grow with the lag, compared with shuffles of the order if they are there?"""
    parts = []
    for (group,), rows in curves.filter(pl.col("lag") > 0).group_by("group", maintain_order=True):
        rows = rows.sort("lag")
        first, last = float(rows["distance"][0]), float(rows["distance"][-1])
        values = f"D({rows['lag'][0]}) = {first:.2g}, D({rows['lag'][-1]}) = {last:.2g}"
        if "null_low" in rows.columns and rows["null_low"][0] is not None:
            kind = _motion(rows)
        else:
            kind = "wanders off" if last > 1.5 * max(first, 1e-9) else "stays within what one step covers"
        values += "" if "comes back" in kind else _parts(rows)
        parts.append(f"{group} {kind} ({values})")
    more = f"; and {len(parts) - 4} more" if len(parts) > 4 else ""
    return f"By {modality}s of one run, k of them apart: {'; '.join(parts[:4])}{more}."


def _parts(rows: pl.DataFrame) -> str:
    """Noise and drift in D(1), where the curve's beginning is that of a walk with noise."""
    if rows["lag"][:2].to_list() != [1, 2]:
        return ""
    one, two = rows["distance"][:2]
    noise = dynamics.noise([0.0, one, two])
    return f"; noise {noise:.2g}, drift {one - noise:.2g} a step" if 0 < noise < one else ""


def _motion(rows: pl.DataFrame) -> str:
    """What a curve D(1), D(2), ... says beside its null band."""
    if rows["distance"].max() == 0:
        return "stands still"
    late = rows.tail(max(1, len(rows) // 3))
    below = pl.min_horizontal("null_low", pl.lit(rows["distance"][0] / 2))
    back = rows.filter(pl.col("lag") > 1, pl.col("distance") < below)["lag"]
    nearer = rows["distance"][0] < rows["null_low"][0]
    kind = f"{'remembers' if nearer else 'does not remember'} the output before"
    if len(back):
        return f"{kind} and comes back after {back[0]}"
    farther = (late["distance"] > late["null_high"]).all()
    return f"{kind} and {'wanders off' if farther else 'stays in its region'}"


def twin_reading(pairs: pl.DataFrame, fit: Any, why: str) -> str:
    """How far runs of one prompt end up from each other, and whether that grew."""
    last = pairs.sort("step").group_by("pair").last()["distance"]
    text = (
        f"{pairs['pair'].n_unique():,} pairs of runs that differ in their noise end {_median(last):.2g} apart"
    )
    if fit is None:
        return f"{text}; no rate of growth is given: {why}."
    return f"{text}; the distance grows by {fit.rate:.2g} per step at first (R² {fit.r2:.2f})."


def map_reading(places: pl.DataFrame, share: float | None, modality: str) -> str:
    """How much of what there is the map shows."""
    where = f"in the plane that carries {share:.0%} of their variance" if share is not None else "by UMAP"
    return (
        f"{len(places):,} {modality}s of {places['run'].n_unique():,} runs, {where}. Point at one to see it "
        "and the path of its run."
    )


def cluster_reading(found: Any, num_steps: int, agreement: float | None = None) -> str:
    """How many clusters, how much lies outside, and how well they hold (`agreement`: median ARI)."""
    if not found.num_clusters:
        return f"No cluster was found in {num_steps:,} steps: no region is visited much more than others."
    clusters = "one cluster" if found.num_clusters == 1 else f"{found.num_clusters} clusters"
    outside = f"{found.outlier_share:.0%} of the outputs lie outside."
    told = "" if agreement is None else f" Clusterings without a fifth of the runs agree by {agreement:.2f}."
    return f"{num_steps:,} steps fall into {clusters}; {outside}{told}"


def dwell_reading(dwells: pl.DataFrame) -> str:
    """How long a run stays in a cluster."""
    cut = float(dwells["is_censored"].mean() or 0.0)  # type: ignore[arg-type]
    return (
        f"{len(dwells):,} stays in clusters, of {_median(dwells['length']):g} outputs in the median; "
        f"{cut:.0%} last to the end of their run, so the true ones are longer."
    )


def recurrence_reading(rates: list[float], num_runs: int) -> str:
    """How often outputs come back."""
    back = sum(rate > 0 for rate in rates)
    return (
        f"{back} of the {len(rates)} runs shown (of {num_runs:,}) say or draw something again; "
        f"in the median {median(rates):.0%} of the pairs of steps are equal."
    )


def entropy_reading(entropies: pl.DataFrame) -> str:
    """Median entropies of the components by network."""
    medians = (
        entropies.filter(pl.col("dimension") == 0)
        .group_by("group", maintain_order=True)
        .agg(pl.col("entropy").median(), pl.col("num_bars").median())
        .sort("entropy", descending=True)
    )
    parts = [
        f"{row['group']} {row['entropy']:.2f} (of at most {log(max(row['num_bars'], 1)):.2f})"
        for row in medians.head(4).iter_rows(named=True)
    ]
    return f"Median entropy of the components: {'; '.join(parts)}. Equal bars reach the maximum."


def band_reading(table: pl.DataFrame, what: tuple[str, str]) -> str:
    """How many runs leave their band at either side; `what` is measured, and what the surrogates are."""
    statistic, surrogates = what
    parts = []
    for side, outside in (
        ("above", pl.col("value") > pl.col("high")),
        ("below", pl.col("value") < pl.col("low")),
    ):
        names = table.filter(outside)["x"].to_list()
        told = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
        parts.append(
            f"{side} what 97.5 % of its {surrogates} have in {len(names)} of {len(table)} runs{told}"
        )
    chance = f"chance alone would give {len(table) / 40:.2g} at each side"
    return f"The {statistic} is {' and '.join(parts)}; {chance}."


def effects_reading(table: pl.DataFrame, absent: Mapping[str, str]) -> str:
    """Which factors make a difference, and which of them the largest."""
    parts = []
    for (measure,), rows in table.group_by("measure", maintain_order=True):
        clear = rows.filter(pl.col("p_adjusted") < 0.05).sort("effect", descending=True)
        named = [f"the {row['factor']} ({row['effect']:.0%})" for row in clear.iter_rows(named=True)]
        parts.append(f"{measure}: {', then '.join(named) or 'nothing is clear'}")
    text = "; ".join(parts)
    left_out = f" Not tested: {', '.join(absent)}." if absent else ""
    return f"What makes a difference to {text}.{left_out}"


def shares_reading(shares: pl.DataFrame, own: str) -> str:
    """How much of other experiments lies in this one's clusters."""
    inside = (
        shares.filter(pl.col("label") >= 0)
        .group_by("experiment", maintain_order=True)
        .agg(pl.col("share").sum())
    )
    parts = [
        f"{row['share']:.0%} of {'its own steps' if row['experiment'] == own else row['experiment']}"
        for row in inside.iter_rows(named=True)
    ]
    return f"In the clusters of {own}: {', '.join(parts)}."


def probe_reading(scores: pl.DataFrame, absent: Mapping[str, str]) -> str:
    """What can be read, what not, and what was not asked."""
    parts = [
        f"the {row['target']} can {'' if row['accuracy'] > row['baseline_high'] else 'not '}be read "
        f"({row['accuracy']:.0%} right; shuffled labels {row['baseline']:.0%})"
        for row in scores.iter_rows(named=True)
    ]
    text = "; ".join(parts)
    left_out = f" Not tried: {', '.join(absent)} (too few runs of each, or only one kind)." if absent else ""
    return f"{text[:1].upper()}{text[1:]}.{left_out}"


def _median(values: pl.Series) -> float:
    return float(values.median() or 0.0)  # type: ignore[arg-type]
