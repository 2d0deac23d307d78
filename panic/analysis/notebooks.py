"""What the notebooks in `analysis/` share: their store, the choice of an experiment, figures of questions.

The store is the folder PANIC_STORE, else ./panic-store; the experiment that is chosen at first is
PANIC_EXPERIMENT (a name, or the beginning of an id), else the newest. Charts take the notebook's theme.

    store = open_store(); choice = experiment_choice(store)         # one cell
    evidence = chosen(store, choice); show(drift, evidence)         # others
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import marimo as mo

from panic.analysis.charts import themed
from panic.analysis.evidence import Evidence
from panic.analysis.questions import Question, ask
from panic.analysis.shortening import shorten
from panic.store import Store, reading
from panic.store.records import RunRow

IMAGE_BUDGET_BYTES = 8 * 2**20


def open_store() -> Store:
    """The notebook's store, for reading. Raises StoreMissing."""
    return Store(os.environ.get("PANIC_STORE", "panic-store"))


def experiment_choice(store: Store) -> Any:
    """A dropdown of the store's experiments, the newest first. Raises NotFound for a PANIC_EXPERIMENT."""
    first = reading.experiment(store, os.environ.get("PANIC_EXPERIMENT") or "latest")
    names = dict.fromkeys(row.name for row in reversed(reading.experiments(store)))
    return mo.ui.dropdown(list(names), value=first.name, label="experiment")


def chosen(store: Store, choice: Any) -> Evidence:
    """What figures of the chosen experiment rest on."""
    return Evidence.of(store, reading.experiment(store, choice.value), image_budget_bytes=IMAGE_BUDGET_BYTES)


def choice_of_runs(runs: Sequence[RunRow]) -> Any:
    """A dropdown of the runs that were begun; its value is one of them, None if there are none."""
    choices = {
        f"{run.id} · {'fresh noise' if run.seed == -1 else run.seed} · {shorten(run.prompt, 40)}": run
        for run in runs
        if run.num_steps
    }
    return mo.ui.dropdown(choices, value=next(iter(choices), None), label="run")


def show(question: Question, evidence: Evidence) -> Any:
    """The figures of a question, as the report has them: sentence, charts, caveat."""
    parts: list[Any] = []
    for figure in ask(question, evidence):
        parts.append(mo.md(f"## {figure.title}\n\n{figure.sentence or figure.missing}"))
        parts += [drawn(chart) for chart in figure.charts.values()]
        parts += [mo.md(f"_{figure.caveat}_")] if figure.caveat else []
    title = question.TITLE if isinstance(question.TITLE, str) else question.TITLE[""]
    return mo.vstack(parts or [mo.md(f"_{title} · nothing here answers it_")])


def drawn(chart: Any) -> Any:
    """A chart in the theme of the notebook."""
    return themed(chart, mo.app_meta().theme)
