"""The questions that are asked of an experiment, in the order of the report's page: one module each.

Report, notebooks, and whoever else shows figures walk `questions()`; `ask` makes the figures of one. To add a
figure, add one file here and one line in QUESTIONS. The file, from top to bottom:

    TITLE     the heading; or one per modality, {"text": ..., "image": ..., "": where there is no model}
    CAVEAT    what the figure does not show; likewise one, or one per modality
    views     under what it is asked: `once`, `first_model` or `each_model` of `panic.analysis.evidence`
    table     (evidence, view) -> the answer: a polars frame, or a small dataclass of frames and numbers. It
              calls the libraries of pure functions (dynamics, statistics, clustering, nulls, projections).
              It raises AnalysisError with the reason where the data cannot answer, which the page then says;
              it returns None where nobody would ask.
    chart     (answer) -> one altair chart (`charts.finish`), or several by their heading; the heading "" is
              of the chart for which the figure's own title is enough
    STATISTIC what is measured of single runs (`Statistic`), where that makes sense: null models of the runs
              are measured alike, and `panic.analysis.null_bands` shows their band; left out otherwise
    sentence  (answer) -> plain English: what was found, with units, the number of runs, what chance gives

`time` is a short example. Libraries stay in `panic/analysis`; a chart that several questions draw is in
`panic/analysis/charts`. Other packages add questions by an entry point of the group "panic.questions", which
names such a module (or an object with these attributes); theirs come last. Of ours it is counted how often
each sentence is false (`tests/referee`: a question without a predicate fails the tests); of theirs nothing is
demanded but that they can be loaded, and the caveat says that nobody counted; they can bring predicates. One
that fails says so in its place (`panic.analysis.added`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol, cast

from threadpoolctl import threadpool_limits

from panic.analysis.added import AddedQuestion
from panic.analysis.charts import spec
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View, undirected
from panic.analysis.plugins import added
from panic.analysis.questions import (
    chain,
    clusters,
    diagrams,
    dimension,
    drift,
    dwell,
    effects,
    entropies,
    forgetting,
    grid,
    image_quality,
    initial_cluster,
    lag,
    loops,
    map,
    matched_pairs,
    mean_dwells,
    milestones,
    networks,
    novelty,
    patterns,
    period,
    probes,
    recoverability,
    recurrence,
    regimes,
    reversal,
    semantic_drift,
    shares,
    shock,
    stuck,
    territories,
    time,
    twins,
    two_periodicity,
    vendi,
)
from panic.analysis.sampling import basis
from panic.errors import NotFound

GROUP = "panic.questions"


class Question(Protocol):
    """What a module of this package is; see above."""

    @property
    def TITLE(self) -> str | Mapping[str, str]: ...  # noqa: N802

    @property
    def CAVEAT(self) -> str | Mapping[str, str]: ...  # noqa: N802

    @property
    def views(self) -> Callable[[Evidence], Sequence[View | None]]: ...

    @property
    def table(self) -> Callable[[Evidence, Any], Any]: ...

    @property
    def chart(self) -> Callable[[Any], Any]: ...

    @property
    def sentence(self) -> Callable[[Any], str]: ...


@dataclass(frozen=True, kw_only=True)  # no slots: `specs` are made once and kept
class Figure:
    """Charts (by heading) that belong together, a sentence on what they show, and a caveat.

    `answer` is what the question's table says; `missing` says why there is none.
    """

    title: str
    answer: Any = field(default=None, repr=False)
    charts: Mapping[str, Any] = field(default_factory=dict)
    sentence: str = ""
    caveat: str = ""
    missing: str = ""

    @cached_property
    def specs(self) -> list[dict[str, Any]]:
        """Vega-Lite specifications for a page; only charts with a heading of their own show a title."""
        return [spec(chart, title=bool(heading)) for heading, chart in self.charts.items()]


QUESTIONS: tuple[Question, ...] = (
    time,
    stuck,
    grid,
    image_quality,
    drift,
    semantic_drift,
    forgetting,
    networks,
    lag,
    patterns,
    period,
    two_periodicity,
    regimes,
    twins,
    matched_pairs,
    shock,
    map,
    clusters,
    territories,
    dwell,
    mean_dwells,
    initial_cluster,
    chain,
    milestones,
    reversal,
    recurrence,
    novelty,
    vendi,
    diagrams,
    entropies,
    loops,
    dimension,
    effects,
    probes,
    recoverability,
    shares,
)


UNCOUNTED = "Another package asks this question: how often its sentence errs has not been counted."

OF_ALL_RUNS: tuple[Question, ...] = (time, stuck)
"""The questions that are answered from all runs, however many, and not from those of `Evidence.data`."""


def named() -> dict[str, Question]:
    """Every question by its name: ours by that of the module, in the order of the page, then added ones.

    UsageError, naming the entry point, for one that cannot be loaded.
    """
    ours = {cast(ModuleType, one).__name__.rpartition(".")[2]: one for one in QUESTIONS}
    return {**ours, **{name: AddedQuestion(name, own) for name, own in added(GROUP, ours)}}


def questions() -> list[Question]:
    """The questions of this package in the order of the page, then those that other packages add.

    UsageError, naming the entry point, for one that cannot be loaded.
    """
    return list(named().values())


def ask(question: Question, evidence: Evidence) -> list[Figure]:
    """The figures of a question, one per view; one that cannot be answered says why."""
    # Many small problems: threads of linear algebra wait for each other longer than they work.
    with threadpool_limits(1):
        figures = [_figure(question, evidence, view) for view in question.views(evidence)]
    return [figure for figure in figures if figure is not None]


def _figure(question: Question, evidence: Evidence, view: View | None) -> Figure | None:
    title = _of(question.TITLE, view) + (f" · {view.model}" if view is not None else "")
    zeros = "" if view is None else undirected(evidence, view)
    try:
        answer = question.table(evidence, view)
        if answer is None:
            return None
        charts, said = question.chart(answer), question.sentence(answer)
    except (AnalysisError, NotFound) as error:
        text = error.message[:1].upper() + error.message[1:]
        return Figure(title=title, missing=f"{text if text.endswith('.') else f'{text}.'} {zeros}".strip())
    is_of_all = question in OF_ALL_RUNS
    rests_on = "" if is_of_all else basis(len(evidence.data.rows), evidence.num_begun)
    uncounted = "" if question in QUESTIONS else UNCOUNTED
    return Figure(
        title=title,
        answer=answer,
        charts=charts if isinstance(charts, Mapping) else {"": charts},
        sentence=f"{said} {zeros}".strip(),
        caveat=" ".join(filter(None, [_of(question.CAVEAT, view), rests_on, uncounted])),
    )


def _of(words: str | Mapping[str, str], view: View | None) -> str:
    return words if isinstance(words, str) else words["" if view is None else view.modality]
