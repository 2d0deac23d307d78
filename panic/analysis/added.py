"""Questions of other packages, held to what the pages rely on of ours.

An added question that raises, prints or answers with something else than its kind says so in its own place
of the page (AnalysisError), and the questions beside it are answered.

    AddedQuestion("longest_text", importlib.import_module("panic_plugin.longest_text"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import polars as pl

from panic.analysis.charts import spec
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, Statistic, View, each_model, first_model, once
from panic.analysis.parts import parts
from panic.analysis.plugins import performed
from panic.errors import UsageError
from panic.store.codec import told_json

PARTS = ("TITLE", "CAVEAT", "views", "table", "chart", "sentence")
OUR_VIEWS = (once, first_model, each_model)
MOST_SENTENCE = 10_000
MOST_CHART_BYTES = 16 * 2**20
"""A page holds its charts, and a browser has to draw them."""


class AddedQuestion:
    """A question as `panic.analysis.questions.Question` describes it, made of what a package calls one.

    problem: why it could not say under what it is asked, when it was asked that last.

    Args:
        name: of its entry point.
        own: the module or object of the package. UsageError if it is none.
    """

    def __init__(self, name: str, own: Any) -> None:
        self.name, self._own = name, (own := _read(name, own))
        self.__doc__ = own.__doc__ if isinstance(own.__doc__, str) else ""
        self.TITLE, self.CAVEAT = _words(name, own.TITLE), _words(name, own.CAVEAT)
        self.views: Callable[[Evidence], Sequence[View | None]] = (
            own.views if any(own.views is one for one in OUR_VIEWS) else self._views
        )
        self.problem: AnalysisError | None = None
        if isinstance(own.STATISTIC, Statistic):
            self.STATISTIC = replace(own.STATISTIC, of=self._statistic)

    def _views(self, evidence: Evidence) -> Sequence[View | None]:
        """Under what it is asked; where it cannot say that, it is asked once and fails for that reason."""
        self.problem = None
        try:
            return performed(self.name, self._asked, evidence)
        except AnalysisError as error:
            self.problem = error
            return [None]

    def _asked(self, evidence: Evidence) -> list[View | None]:
        found = list(self._own.views(evidence))
        if all(one is None or (isinstance(one, View) and one in evidence.views) for one in found):
            return found
        raise AnalysisError(f"{self.name}, which another package adds, is asked under what is no view")

    def table(self, evidence: Evidence, view: View | None) -> Any:
        """The answer: a frame, a dataclass, a list of those, or None."""
        if self.problem is not None:
            raise self.problem
        answer = performed(self.name, self._own.table, evidence, view)
        if answer is None:
            return None
        if not isinstance(answer, pl.DataFrame | list) and not is_dataclass(answer):
            raise self._no("answer", answer)
        performed(self.name, parts, answer)
        return answer

    def chart(self, answer: Any) -> dict[str, Any]:
        """Its charts by heading."""
        made = performed(self.name, self._own.chart, answer)
        charts = {str(key): one for key, one in made.items()} if isinstance(made, Mapping) else {"": made}
        for chart in charts.values():
            size = len(performed(self.name, lambda chart=chart: told_json(spec(chart))))
            if size > MOST_CHART_BYTES:
                raise AnalysisError(
                    f"a chart of {self.name}, which another package adds, has {size:,} bytes: at most"
                    f" {MOST_CHART_BYTES:,} are shown"
                )
        return charts

    def sentence(self, answer: Any) -> str:
        """What it says of an answer."""
        found = performed(self.name, self._own.sentence, answer)
        if not isinstance(found, str) or len(found) > MOST_SENTENCE:
            raise self._no("sentence", found)
        return found

    def _statistic(self, evidence: Evidence, view: View) -> pl.DataFrame:
        found = performed(self.name, self._own.STATISTIC.of, evidence, view)
        if not isinstance(found, pl.DataFrame) or not {"run", "value"} <= set(found.columns):
            raise self._no("frame of runs and values", found)
        return performed(self.name, _typed, found)

    def _no(self, what: str, found: object) -> AnalysisError:
        return AnalysisError(
            f"what {self.name}, which another package adds, gives is no {what}, but a {type(found).__name__}"
        )


def _read(name: str, own: Any) -> SimpleNamespace:
    """The parts of a question, read once: what an object says of itself may be code, too."""
    wanted = (*PARTS, "STATISTIC", "__doc__")
    try:
        found = performed(name, lambda: {part: getattr(own, part) for part in wanted if hasattr(own, part)})
    except AnalysisError as error:
        raise UsageError(f"{name} is no question: {error.message}") from error
    if lacks := [part for part in PARTS if part not in found]:
        raise UsageError(f"{name} is no question: it has no {' and no '.join(lacks)}")
    return SimpleNamespace(**{"STATISTIC": None, "__doc__": None} | found)


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Of a statistic what is joined with our frames, in the types that those have."""
    types = {"run": pl.Int64, "value": pl.Float64, "x": pl.Float64, "part": pl.String}
    return frame.select(pl.col(name).cast(of) for name, of in types.items() if name in frame.columns)


def _words(name: str, words: object) -> dict[str, str] | str:
    """A title or caveat for every modality and none."""
    if isinstance(words, Mapping) and words and all(isinstance(one, str) for one in words.values()):
        return {**dict.fromkeys(("", "text", "image"), next(iter(words.values()))), **words}
    if isinstance(words, str):
        return words
    raise UsageError(f"{name} is no question: its TITLE and CAVEAT are texts, or a text for each modality")
