"""Answers of single questions: by name, as frames, as one chart, of one experiment or side by side.

question = find("drift")
found = answers(question, Evidence.of(store, reading.experiment(store, "latest")))
parts(found[0].value)                       # {"frame": ..., "bands": ..., "summary": ...}
side_by_side({"demo": ask(question, evidence)})
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl
from threadpoolctl import threadpool_limits

from panic.analysis.charts import themed
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View
from panic.analysis.parts import joined, parts
from panic.analysis.questions import Figure, Question, named
from panic.errors import NotFound, nearest


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
    return joined(labelled)


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
