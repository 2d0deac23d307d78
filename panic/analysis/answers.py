"""Answers of single questions: by name, as frames, as one chart, of one experiment or side by side.

question = find("drift")
found = answers(question, Evidence.of(store, reading.experiment(store, "latest")))
parts(found[0].value)                       # {"frame": ..., "bands": ..., "summary": ...}
side_by_side({"demo": ask(question, evidence)})
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType
from typing import Any, cast

import altair as alt
import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from panic.analysis.charts import themed
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View
from panic.analysis.plugins import added
from panic.analysis.questions import GROUP, QUESTIONS, Figure, Question
from panic.errors import NotFound, nearest

SUMMARY = "summary"
"""The part of an answer that holds its single values, in one row."""


def named() -> dict[str, Question]:
    """Every question by its name: ours by that of the module, in the order of the page, then added ones.

    UsageError, naming the entry point, for one that cannot be loaded.
    """
    ours = {cast(ModuleType, one).__name__.rpartition(".")[2]: one for one in QUESTIONS}
    return {**ours, **{name: one for name, one in added(GROUP) if name not in ours}}


def find(name: str) -> Question:
    """The question of this name. NotFound names the nearest, or all."""
    known = named()
    if name in known:
        return known[name]
    near = nearest(name, known)
    raise NotFound(
        f"There is no question {name!r}.",
        hint=f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a question's table says under one view; `missing` says why there is none."""

    view: View | None
    value: Any = None
    missing: str = ""


def answers(question: Question, evidence: Evidence) -> list[Answer]:
    """The answers of a question, one per view; none where nobody would ask it of these data."""
    found = []
    with threadpool_limits(1):
        for view in question.views(evidence):
            try:
                value = question.table(evidence, view)
            except (AnalysisError, NotFound) as error:
                found.append(Answer(view=view, missing=error.message))
                continue
            if value is not None:
                found.append(Answer(view=view, value=value))
    return found


def parts(answer: Any) -> dict[str, pl.DataFrame]:
    """The tables of an answer by the names of its fields, the main one first.

    A frame is the only part, named "table". A list of answers is joined part by part. Of a dataclass every
    frame is a part, and so is every list or mapping of further answers (a mapping's key becomes the column
    `key`) and every matrix, with the columns row, column, value. What is left, numbers and texts, is the
    part "summary", with one row.
    """
    if isinstance(answer, pl.DataFrame):
        return {"table": answer}
    if isinstance(answer, list):
        return _joined([({}, parts(one)) for one in answer])
    frames: dict[str, pl.DataFrame] = {}
    nested: dict[str, pl.DataFrame] = {}
    single: dict[str, Any] = {}
    for field in fields(answer):
        value = getattr(answer, field.name)
        if isinstance(value, pl.DataFrame):
            frames[field.name] = value
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            nested[field.name] = _cells(value)
        elif _is_nested(value):
            joined = _joined([(key, _parts_of_entry(one)) for key, one in _entries(value)])
            nested |= {_named(field.name, part): frame for part, frame in joined.items()}
        else:
            single |= _plain(field.name, value)
    summary = {SUMMARY: pl.DataFrame([single])} if single else {}
    return frames | nested | summary


def _is_nested(value: Any) -> bool:
    is_list = isinstance(value, list) and any(map(is_dataclass, value))
    return is_list or isinstance(value, Mapping) or is_dataclass(value)


def _entries(value: Any) -> list[tuple[dict[str, str], Any]]:
    """What a field holds, entry by entry, with what names each."""
    if isinstance(value, Mapping):
        return [({"key": str(key)}, one) for key, one in value.items()]
    return [({}, one) for one in (value if isinstance(value, list) else [value])]


def _parts_of_entry(value: Any) -> dict[str, pl.DataFrame]:
    return parts(value) if is_dataclass(value) else {SUMMARY: pl.DataFrame([_plain("value", value)])}


def _named(field: str, part: str) -> str:
    return field if part == SUMMARY else f"{field}.{part}"


def _cells(matrix: np.ndarray[Any, Any]) -> pl.DataFrame:
    row, column = np.indices(matrix.shape)
    return pl.DataFrame({"row": row.ravel(), "column": column.ravel(), "value": matrix.ravel()})


def _plain(name: str, value: Any) -> dict[str, Any]:
    """The columns of a value that is no table; a tuple has one per place."""
    if isinstance(value, tuple):
        return {f"{name}.{place}": one for place, one in enumerate(value)}
    if isinstance(value, np.ndarray):
        return {name: value.tolist()}
    return {name: value.item() if isinstance(value, np.generic) else value}


def _joined(
    labelled: Sequence[tuple[Mapping[str, str], Mapping[str, pl.DataFrame]]],
) -> dict[str, pl.DataFrame]:
    """Tables part by part, one below the other; labels become the first columns, where a frame lacks them.

    The label `experiment` takes the place of a column of row numbers.
    """
    found: dict[str, list[pl.DataFrame]] = {}
    for labels, frames in labelled:
        for part, frame in frames.items():
            frame = frame.drop("experiment", strict=False)
            new = {name: text for name, text in labels.items() if name not in frame.columns}
            columns = [pl.lit(text).alias(name) for name, text in new.items()]
            found.setdefault(part, []).append(frame.select(*columns, pl.all()))
    return {part: pl.concat(frames, how="diagonal_relaxed") for part, frames in found.items()}


def tables(answered: Mapping[str, Sequence[Answer]]) -> dict[str, pl.DataFrame]:
    """The parts of several experiments' answers, by the name of the part.

    The first columns say whose a row is: experiment, and model and modality where there is a view.
    """
    labelled = [
        ({"experiment": experiment} | ({} if one.view is None else one.view._asdict()), parts(one.value))
        for experiment, of_one in answered.items()
        for one in of_one
        if not one.missing
    ]
    return _joined(labelled)


def side_by_side(figures: Mapping[str, Sequence[Figure]], *, mode: str = "light") -> Any:
    """One chart of all the figures of experiments, by their names: below each other, experiments abreast.

    Charts of one heading stand in one row. Every chart keeps its own scales and colours, and a single one
    stays as it is.
    """
    columns = {name: dict(_charts(of_one)) for name, of_one in figures.items()}
    rows = dict.fromkeys(key for charts in columns.values() for key in charts) or {("", ""): None}
    if len(columns) == len(rows) == 1:
        [charts], [key] = columns.values(), rows
        return themed(charts[key] if charts else _cell(None, ""), mode)
    cells = [
        _cell(charts.get(key), name if len(columns) > 1 else "")
        for key in rows
        for name, charts in columns.items()
    ]
    with warnings.catch_warnings():
        # Legends of equal charts share their selection: a click on one name picks it in all, as it should.
        warnings.filterwarnings("ignore", message="Automatically deduplicated selection parameter")
        # In one list, not lists of lists: altair tells equal charts apart by their place in a list.
        whole = alt.concat(*cells, columns=len(columns))
    # A shared offset halves the rows of charts that have none.
    own = whole.resolve_scale(
        color="independent", fill="independent", size="independent", yOffset="independent"
    )
    return themed(own, mode)


def _charts(figures: Sequence[Figure]) -> Iterator[tuple[tuple[str, str], Any]]:
    for figure in figures:
        for heading, chart in figure.charts.items():
            yield (figure.title, heading), chart


def _cell(chart: Any | None, experiment: str) -> Any:
    """A chart without its theme, which altair takes for the whole alone, and with the experiment's name."""
    if chart is None:
        chart = (
            alt.Chart(alt.InlineData(values=[{"text": "nothing to show"}])).mark_text().encode(text="text:N")
        )
    alone = chart.copy(deep=False)
    alone.config = alt.Undefined
    if experiment:
        title = alone.title if isinstance(alone.title, alt.Title) else alt.Title("")
        alone.title = title.copy(deep=False)
        alone.title.text = f"{experiment}: {title.text}" if title.text else experiment
    return alone
