"""Experiments side by side: one page with what differs in their configs, then question by question.

Each experiment is asked by itself, one after another, so that the vectors of only one are in memory. Every
chart keeps its own scales.

    write_comparison(store, ["demo", "other"], "beside.html")
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from panic.analysis.answers import SUMMARY, parts
from panic.analysis.evidence import Evidence
from panic.analysis.page import render_page, short_paths, write_page
from panic.analysis.questions import Figure, ask, questions
from panic.analysis.report import key_figures
from panic.store import Store, reading, standing
from panic.store.records import ExperimentRow

IMAGE_BUDGET_BYTES = 4 * 2**20
"""Bytes of images in the charts of all experiments together."""
MAX_ROWS = 8
MAX_CHARACTERS = 60
SHOWN_ENTRIES = 5
"""Entries of a list in a config that one experiment alone has."""
PLACES = ("name", "store", "base_folder")


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
    """One experiment: its standing, the fingerprints of its models, its entries by question and heading."""

    experiment: ExperimentRow
    state: str
    numbers: list[tuple[str, str, str]]
    fingerprints: dict[str, str]
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
    configs = [side.experiment.config for side in sides]
    return render_page(
        "comparison.html",
        specs=[spec for section in sections for row in section.charts for spec in row if spec],
        title=" · ".join(side.experiment.name for side in sides),
        sides=sides,
        numbers=[(label[0][0], label) for label in zip(*(side.numbers for side in sides), strict=True)],
        differences=differences(configs) + _other_models([side.fingerprints for side in sides]),
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
        fingerprints={epoch.name: epoch.fingerprint for epoch in evidence.whole.epochs},
        entries={
            (place, figure.title): _entry(figure)
            for place, question in enumerate(questions())
            for figure in ask(question, evidence)
        },
    )


def _entry(figure: Figure) -> Entry:
    tables = {} if figure.answer is None else parts(figure.answer)
    summary = tables.pop(SUMMARY, pl.DataFrame())
    single = summary.row(0, named=True) if summary.height == 1 else {}
    return Entry(
        sentence=figure.sentence,
        caveat=figure.caveat,
        missing=figure.missing,
        specs=dict(zip(figure.charts, figure.specs, strict=True)),
        values={name: _text(value) for name, value in single.items()},
        table=next((made for frame in tables.values() if (made := _table(frame))), None),
    )


def _table(frame: pl.DataFrame) -> Table | None:
    """The beginning of a table; vectors, images and other columns that nobody can read are left out."""
    head = frame.head(MAX_ROWS)
    plain = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    names = [name for name in plain if not _is_image(head[name])]
    if not names or not frame.height:
        return None
    rows = [[_text(value) for value in row] for row in head.select(names).iter_rows()]
    return Table(columns=names, rows=rows, height=frame.height)


def _is_image(column: pl.Series) -> bool:
    return column.dtype == pl.String and bool(column.str.starts_with("data:").any())


def _text(value: Any) -> str:
    """A value in a cell: four digits of a number, the beginning of a text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


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


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """What configs say differently: the field, and what each says; of lists what one of them alone has."""
    flat = [dict(_fields(config)) for config in configs]
    found = []
    for name in dict.fromkeys(name for config in flat for name in config):
        values = [config.get(name) for config in flat]
        if any(value != values[0] for value in values):
            others = [[o for j, o in enumerate(values) if j != i] for i in range(len(values))]
            found.append((name, [_said(value, rest) for value, rest in zip(values, others, strict=True)]))
    return found


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a config but what it is called and where it lies; every model and batch size is one."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}: {key}", one) for key, one in value.items())
        elif name not in PLACES:
            yield name, value


def _said(value: Any, others: Sequence[Any]) -> str:
    if value is None:
        return "-"
    if not isinstance(value, list):
        return short_paths(_as_text(value))
    elsewhere = [entry for other in others if isinstance(other, list) for entry in other]
    own = [short_paths(_text(_as_text(entry))) for entry in value if entry not in elsewhere]
    more = f"; and {len(own) - SHOWN_ENTRIES:,} more" if len(own) > SHOWN_ENTRIES else ""
    if not own:
        return f"{len(value):,}, none of them only here"
    return f"{len(value):,}, only here: {'; '.join(own[:SHOWN_ENTRIES])}{more}"


def _as_text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " → ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _other_models(fingerprints: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Models that are called alike and are not the same."""
    shared = [name for name in fingerprints[0] if all(name in of_one for of_one in fingerprints)]
    return [
        (f"fingerprint of {name}", [of_one[name][:12] for of_one in fingerprints])
        for name in shared
        if len({of_one[name] for of_one in fingerprints}) > 1
    ]
