"""Do the images decay? Sharpness, contrast, saturation and compressed size along the runs, of stored
images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.chance import LEAST_UNITS, holm, swapping
from panic.analysis.charts import call_axis, call_tip, colour, data, finish, in_order, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.dynamics import image_quality
from panic.analysis.evidence import Evidence, View, once
from panic.analysis.factors import independent_starts
from panic.analysis.sampling import spread
from panic.analysis.whereabouts import continued
from panic.errors import NotFound, StoreCorrupt
from panic.store import Store, contents
from panic.store.codec import decode_image

TITLE = "Do the images decay?"
CAVEAT = (
    "Sharpness: variance of the Laplacian of the luma (0 to 1), which noise raises as detail does. Contrast: "
    "standard deviation of the luma. Saturation: of HSV, mean over pixels. Size: bytes of the lossless WebP "
    "per pixel, which for small images is mostly the file's head. Images of other sizes are not comparable. "
    "p: early and late images of what is independent are swapped, corrected for measures, networks and arms "
    "(Holm). Stuck runs go on by their cycle; failed runs are left out."
)
LEVEL = 0.05
MEASURES = {
    "sharpness": "variance of the Laplacian", "contrast": "RMS contrast", "saturation": "saturation",
    "bytes_per_pixel": "bytes per pixel",
}  # fmt: skip
MAX_IMAGES = 600  # that are read
MAX_PIXELS = 60_000_000  # of them together: about 5 s
MAX_STEPS = 12
VALUES = {
    "network": pl.String,
    "run": pl.Int64,
    "step": pl.Int64,
    "stretch": pl.Int64,
    "digest": pl.String,
} | dict.fromkeys(MEASURES, pl.Float64)
TESTS = {
    "network": pl.String, "measure": pl.String, "early": pl.Float64, "late": pl.Float64, "falls": pl.Int64,
    "num_runs": pl.Int64, "num_units": pl.Int64, "p_value": pl.Float64, "p_least": pl.Float64,
}  # fmt: skip

views = once


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualities:
    """The measures of images (VALUES), and their first and last third (TESTS, p_adjusted), by network.

    num_read of num_images different ones were read, and num_missing could not be. `falls` counts runs.
    """

    values: pl.DataFrame
    tests: pl.DataFrame
    num_read: int
    num_images: int
    num_missing: int


def table(evidence: Evidence, view: View | None = None) -> Qualities | None:
    """Measures of a sample of stored images of runs that did not fail; None where there are no images.

    AnalysisError where all runs with images failed, or where none can be read.
    """
    drawn = evidence.data.invocations.filter(pl.col("modality").cast(pl.String) == "image")
    if drawn.is_empty():
        return None
    standing = evidence.data.runs.filter(pl.col("state") != "failed")  # what broke a run may be in its last
    drawn = drawn.filter(pl.col("run").is_in(standing["run"].implode()))
    if drawn.is_empty():
        raise AnalysisError("all runs that have images failed")
    steps = _sampled(evidence.data, drawn.select("run", "step", "output"))
    known = list(_measured(evidence.store, steps["digest"].unique(maintain_order=True).to_list()))
    if not known:
        raise AnalysisError("none of the images can be read", hint="panic check names them")
    measures = pl.DataFrame(known, {"digest": pl.String} | dict.fromkeys(MEASURES, pl.Float64), orient="row")
    values = steps.join(measures, on="digest", maintain_order="left")
    return Qualities(
        values=values.select(*VALUES),
        tests=changes(values, evidence.data),
        num_read=len(known),
        num_images=drawn["output"].n_unique(),
        num_missing=steps["digest"].n_unique() - len(known),
    )


def _sampled(data: ExperimentData, drawn: pl.DataFrame) -> pl.DataFrame:
    """network, run, step, stretch, place, digest of some steps of some runs, within the limits.

    Of every run there is the same number, one of each stretch of its length, and as many of each place in its
    network. `stretch` is the step at its middle. Where in it an image is taken is by chance, run by run: at
    equal distances a cycle would always be met at the same few of its phases. Runs are spread over networks,
    kinds of seed and prompts.
    """
    images = data.outputs.filter(pl.col("modality") == "image")
    pixels = max(int((images["width"] * images["height"]).max() or 1), 1)  # type: ignore[arg-type]
    limit = max(2, min(MAX_IMAGES, MAX_PIXELS // pixels))
    num_steps = min(MAX_STEPS, max(2, limit // 12))
    having = set(drawn["run"])
    rows = spread([row for row in data.rows if row.id in having], max(1, limit // num_steps))
    chosen = drawn.filter(pl.col("run").is_in([row.id for row in rows]))
    limit_steps = 2 * int(data.runs["num_steps"].max() or 0)  # type: ignore[arg-type]
    steps = continued(chosen, data.runs, limit=limit_steps).join(
        data.runs.select("run", "network", "num_models"), on="run", maintain_order="left"
    )
    steps = steps.with_columns(place=pl.col("step") % pl.col("num_models")).with_columns(
        num_places=pl.col("place").n_unique().over("run")
    )
    parts = []
    for _, of_place in steps.group_by("run", "place", maintain_order=True):
        share = max(2, num_steps // int(of_place["num_places"][0]))
        parts.append(_of_stretches(of_place, share))
    return (
        pl.concat(parts)
        .sort("run", "step")
        .join(images.select("output", "digest"), on="output", maintain_order="left")
    )


def _of_stretches(steps: pl.DataFrame, count: int) -> pl.DataFrame:
    """One step of each of so many stretches of a run, by chance, with `stretch`; all if they are few."""
    if len(steps) <= count:
        return steps.with_columns(stretch=pl.col("step"))
    edges = np.linspace(0, len(steps), count + 1).astype(int)
    rng = np.random.default_rng(int(steps["run"][0]))
    chosen = rng.integers(edges[:-1], edges[1:])
    middle = (edges[:-1] + edges[1:]) // 2
    return steps[chosen].with_columns(stretch=steps["step"].gather(middle))


def _measured(store: Store, digests: list[str]) -> Iterator[tuple[str | float, ...]]:
    """digest and the measures of every image that can be read, one image in memory at a time."""
    for digest in digests:
        try:
            encoded = contents.image_bytes(store, digest)
            array = np.asarray(decode_image(encoded))
            found = image_quality(array)
        except (
            NotFound,
            StoreCorrupt,
            AnalysisError,
            ValueError,
        ):  # lost, damaged, or too small to have an inside
            continue
        size = len(encoded) / (array.shape[0] * array.shape[1])
        yield digest, found.sharpness, found.contrast, found.saturation, size


def changes(values: pl.DataFrame, data: ExperimentData) -> pl.DataFrame:
    """TESTS of networks whose runs have two images or more, with corrected p values.

    A change is the mean over units of late - early, and either of a unit's is the mean over its runs of the
    mean of a third of their images; p is that of `chance.swapping`. `values`: VALUES and `place`.
    """
    of = independent_starts(data)
    made_by = ["run", "place"]  # models that draw in turn draw unlike each other, early and late
    number, count = pl.int_range(pl.len()).over(made_by), pl.len().over(made_by)
    third = pl.max_horizontal(count // 3, pl.lit(1))
    sided = values.filter(count > 1).with_columns(is_early=number < third, is_late=number >= count - third)
    rows = []
    for (network,), of_network in sided.group_by("network", maintain_order=True):
        for measure in MEASURES:
            value = pl.col(measure)
            by_place = of_network.group_by(made_by, maintain_order=True).agg(
                early=value.filter(pl.col("is_early")).mean(), late=value.filter(pl.col("is_late")).mean()
            )
            ends = by_place.group_by("run", maintain_order=True).agg(pl.col("early", "late").mean())
            rows.append((network, measure, *_test(ends.join(of, on="run", maintain_order="left"))))
    found = pl.DataFrame(rows, TESTS, orient="row")
    return found.with_columns(p_adjusted=holm(found["p_value"]))


def _test(ends: pl.DataFrame) -> tuple[float | int, ...]:
    """Early and late means, how many runs fall, runs, units, p, p_least, of run, early, late, unit."""
    units = ends.group_by("unit", maintain_order=True).agg(change=(pl.col("late") - pl.col("early")).mean())
    change = units["change"].to_numpy()
    p = p_least = float("nan")
    if len(change) >= LEAST_UNITS:
        found = swapping(lambda swaps: float(np.where(swaps, -change, change).mean()), len(change))
        p, p_least = float(found.p_value), found.p_least
    early, late = (float(ends[name].mean() or 0.0) for name in ("early", "late"))  # type: ignore[arg-type]
    return early, late, int((ends["late"] < ends["early"]).sum()), len(ends), len(units), p, p_least


def chart(answer: Qualities) -> dict[str, Any]:
    """Median and quartiles of every measure by step and network."""
    return {title: _chart(answer.values, measure, title) for measure, title in MEASURES.items()}


def _chart(values: pl.DataFrame, measure: str, title: str) -> Any:
    value = pl.col(measure)
    bands = values.group_by("network", step="stretch", maintain_order=True).agg(
        low=value.quantile(0.25, "linear"),
        median=value.median(),
        high=value.quantile(0.75, "linear"),
        num_images=pl.len(),
    )
    bands = in_order(bands, "network", "step")
    by = colour("network", names_of(bands, "network"))
    base = alt.Chart(data(bands)).encode(x=call_axis(), color=by)
    tips = [alt.Tooltip("network:N"), call_tip(), alt.Tooltip("median:Q", format=".4g"),
            alt.Tooltip("low:Q", format=".4g", title="lower quartile"),
            alt.Tooltip("high:Q", format=".4g", title="upper quartile"),
            alt.Tooltip("num_images:Q", title="images"),
    ]  # fmt: skip
    layers = alt.layer(
        base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_line(strokeWidth=2.4, point=alt.OverlayMarkDef(size=36)).encode(
            y=alt.Y("median:Q", title=title), tooltip=tips
        ),
    )
    return finish(layers, title, "Line: median of runs, band: quartiles.", height=200)


def sentence(answer: Qualities) -> str:
    """What falls and what rises from the first to the last third of the images, by network."""
    some = f" of {answer.num_images:,}" if answer.num_read < answer.num_images else ""
    text = f"Measured: {answer.num_read:,}{some} different images"
    if answer.num_missing:
        text += f" ({answer.num_missing:,} more are missing or too small)"
    groups = list(answer.tests.group_by("network", maintain_order=True))
    parts = [f"{network}: {', '.join(map(_said, rows.to_dicts()))}" for (network,), rows in groups[:4]]
    more = f"; and {len(groups) - 4} more" if len(groups) > 4 else ""
    untested = answer.tests.filter(pl.col("p_value").is_nan())
    few = f" With fewer than {LEAST_UNITS} independent starts no change is tested." if len(untested) else ""
    tested = answer.tests.drop_nans("p_least")
    least = len(tested) * max(tested["p_least"], default=0.0)  # of Holm's first
    few += f" So few starts could not have given a p below {least:.2g}." if least > LEVEL else ""
    return (
        f"{text}. Means over runs, of the first and of the last third: "
        f"{'; '.join(parts) or 'no run has two images'}{more}.{few}"
    )


def _said(row: dict[str, Any]) -> str:
    """One measure; "falls" or "rises" is said of what is clear only."""
    change = "falls" if row["late"] < row["early"] else "rises"
    is_clear = row["p_adjusted"] <= LEVEL
    p = "" if row["p_adjusted"] != row["p_adjusted"] else f"p = {row['p_adjusted']:.2g}, "
    lower = f"lower in {row['falls']:,} of {row['num_runs']:,} runs" if row["num_runs"] > 1 else "one run"
    return (
        f"{MEASURES[row['measure']]} {change if is_clear else 'goes'} from {row['early']:.3g} to "
        f"{row['late']:.3g} "
        f"({p}{lower})"
    )
