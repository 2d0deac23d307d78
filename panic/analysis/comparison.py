"""Experiments side by side: one page with what differs in their configs, then question by question.

Each experiment is asked by itself, one after another, so that the vectors of only one are in memory. Every
chart keeps its own scales.

    write_comparison(store, ["demo", "other"], "beside.html")
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from panic.analysis.contrasts import contrasts, shortened
from panic.analysis.evidence import Evidence
from panic.analysis.metrics import METRICS
from panic.analysis.page import render_page, write_page
from panic.analysis.paired import CAVEAT, PER_STEP, pairing
from panic.analysis.parts import SUMMARY, parts
from panic.analysis.questions import Figure, ask, questions
from panic.analysis.report import key_figures
from panic.store import Store, reading, standing
from panic.store.records import ExperimentRow

IMAGE_BUDGET_BYTES = 4 * 2**20
"""Bytes of images in the charts of all experiments together."""
MAX_ROWS = 8
WORDS = {
    "step": "model call", "first_step": "first model call", "last_step": "last model call",
    "entry_step": "entered at model call", "until": "until model call", "since": "model calls since",
    "began": "from model call", "num_steps": "model calls made", "max_length": "model calls at most",
    "step_size": "distance from the output before", "p_value": "p", "p_adjusted": "p, corrected",
    "p_least": "smallest possible p", "low": "lower end", "high": "upper end", "null_mean": "by chance",
    "null_low": "by chance, lower end", "null_high": "by chance, upper end", "baseline": "shuffled, mean",
    "baseline_high": "shuffled, 95 %", "r2": "R²", "lag1": "likeness at lag 1", "lag2": "likeness at lag 2",
    "most.0": "visited most", "most.1": "its share", "absent.0": "not asked", "label": "cluster, number",
    "source_label": "source, number", "target_label": "target, number", "wall_s": "sessions lasted (s)",
    "told_s": "workers' time (s)", "cramers_v": "Cramér's V", "key": "whose",
    "unrelated": "distance of different starts, median",
}  # fmt: skip
"""What columns are called on a page, where their names say too little."""
PERIODS = {"stuck": "model calls", "period": "outputs", "regimes": "turns of the network"}
"""What a question counts periods in."""
METRIC_PER_STEP = "model time of a model call, in seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The first rows of a table as texts, and how many it has in all."""

    columns: list[str]
    rows: list[list[str]]
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one experiment says to one question: a figure of which only texts and specifications are kept.

    specs: by the headings of charts.
    """

    sentence: str = ""
    caveat: str = ""
    missing: str = ""
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    table: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One experiment: its standing, its entries by question and heading."""

    experiment: ExperimentRow
    state: str
    numbers: list[tuple[str, str, str]]
    entries: dict[tuple[int, str], Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A question as the page has it: an entry per experiment, single values in one table.

    charts: rows of specifications of one heading, one per experiment; None where it has no such chart.
    """

    title: str
    entries: list[Entry]
    charts: list[list[dict[str, Any] | None]]
    values: list[tuple[str, list[str]]]
    caveats: list[str]


def write_comparison(store: Store, experiments: Sequence[int | str], path: str | os.PathLike[str]) -> Path:
    """Write the page of experiments (as `write_report` takes them) to `path` and return it.

    Raises NotFound for an unknown experiment, OSError that names `path` where it cannot be written.
    """
    return write_page(render(store, [reading.experiment(store, name) for name in experiments]), path)


def render(store: Store, experiments: Sequence[ExperimentRow]) -> str:
    """The page as a text."""
    budget_bytes = IMAGE_BUDGET_BYTES // len(experiments)
    sides = [_side(store, row, budget_bytes) for row in experiments]
    sections = list(_sections(sides))
    return render_page(
        "comparison.html",
        specs=[spec for section in sections for row in section.charts for spec in row if spec],
        title=" · ".join(side.experiment.name for side in sides),
        sides=sides,
        numbers=[(label[0][0], label) for label in zip(*(side.numbers for side in sides), strict=True)],
        differences=[one for one in contrasts(store, experiments) if not one.is_same],
        pairing=pairing(store, experiments),
        metric_words={name: one.what for name, one in METRICS.items()} | {PER_STEP: METRIC_PER_STEP},
        pairing_caveat=CAVEAT,
        sections=sections,
        written_at=time.time(),
        revision=store.revision,
    )


def _side(store: Store, experiment: ExperimentRow, image_budget_bytes: int) -> Side:
    now = standing.standing(store, experiment)
    evidence = Evidence.of(store, experiment, is_over=now.is_over, image_budget_bytes=image_budget_bytes)
    return Side(
        experiment=experiment,
        state=now.state,
        numbers=key_figures(now.counts, evidence.whole.rows),
        entries={
            (place, figure.title): _entry(figure, getattr(question, "__name__", "").rpartition(".")[2])
            for place, question in enumerate(questions())
            for figure in ask(question, evidence)
        },
    )


def _entry(figure: Figure, question: str) -> Entry:
    tables = {} if figure.answer is None else parts(figure.answer)
    summary = tables.pop(SUMMARY, pl.DataFrame())
    single = summary.row(0, named=True) if summary.height == 1 else {}
    return Entry(
        sentence=figure.sentence,
        caveat=figure.caveat,
        missing=figure.missing,
        specs=dict(zip(figure.charts, figure.specs, strict=True)),
        values={in_words(name, question): shortened(value) for name, value in single.items()},
        table=next((made for frame in tables.values() if (made := _table(frame, question))), None),
    )


def in_words(name: str, question: str = "") -> str:
    """What people call a column, or a single value, of the answer of a question."""
    if name == "period" and question in PERIODS:
        return f"period ({PERIODS[question]})"
    if name in WORDS:
        return WORDS[name]
    words = name.removeprefix("is_")
    if words.startswith("num_"):
        words = f"number of {words[4:]}"
    if words.endswith("_s"):
        words = f"{words[:-2]} (s)"
    base, dot, place = words.rpartition(".")
    if dot and place.isdigit():
        words = f"{base} {int(place) + 1}"
    return words.replace("_", " ").replace(".", ", ")


def _table(frame: pl.DataFrame, question: str = "") -> Table | None:
    """The beginning of a table; vectors, images and other columns that nobody can read are left out."""
    head = frame.head(MAX_ROWS)
    plain = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    names = [name for name in plain if not _is_image(head[name])]
    if not names or not frame.height:
        return None
    rows = [[shortened(value) for value in row] for row in head.select(names).iter_rows()]
    return Table(columns=[in_words(name, question) for name in names], rows=rows, height=frame.height)


def _is_image(column: pl.Series) -> bool:
    return column.dtype == pl.String and bool(column.str.starts_with("data:").any())


def _sections(sides: Sequence[Side]) -> Iterator[Section]:
    """The questions in the order of the report; under one that some experiment does not answer it says so."""
    for key in sorted({key for side in sides for key in side.entries}, key=_order(sides)):
        entries = [side.entries.get(key, Entry(missing="Nothing to ask it of.")) for side in sides]
        names = dict.fromkeys(name for entry in entries for name in entry.values)
        headings = dict.fromkeys(heading for entry in entries for heading in entry.specs)
        yield Section(
            title=key[1],
            entries=entries,
            charts=[[entry.specs.get(heading) for entry in entries] for heading in headings],
            values=[(name, [entry.values.get(name, "") for entry in entries]) for name in names],
            caveats=list(dict.fromkeys(entry.caveat for entry in entries if entry.caveat)),
        )


def _order(sides: Sequence[Side]) -> Any:
    """A key that sorts by question, then what anybody answers in the order of the first that does."""
    places = dict.fromkeys(key for side in sides for key in side.entries)
    answered = {key for side in sides for key, entry in side.entries.items() if not entry.missing}
    ranks = {key: (key[0], key not in answered, place) for place, key in enumerate(places)}
    return ranks.__getitem__
