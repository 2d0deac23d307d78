"""A first look at an experiment: what ran, what it looked like, what took how long, how far it drifted.

marimo edit analysis/quickstart.py        # or: marimo run, python analysis/quickstart.py, PANIC_STORE=folder
"""

import marimo

app = marimo.App(width="medium", app_title="panic · quickstart")

with app.setup:
    import os

    import marimo as mo

    from panic.analysis.evidence import Evidence
    from panic.analysis.questions import ask
    from panic.store import Store, reading

    def show(question, evidence):
        """The figures of a question, as the report has them: sentence, charts, caveat."""
        parts = []
        for figure in ask(question, evidence):
            parts += [
                mo.md(f"## {figure.title}\n\n{figure.sentence or figure.missing}"),
                *figure.charts.values(),
            ]
            parts.append(mo.md(f"_{figure.caveat}_" if figure.caveat else ""))
        return mo.vstack(parts or [mo.md(f"_{question.__name__.rpartition('.')[2]}: nothing to ask here._")])


@app.cell
def _():
    import polars as pl

    from panic.analysis import charts
    from panic.analysis.questions import drift, grid, time
    from panic.store import contents

    store = Store(os.environ.get("PANIC_STORE", "panic-store"))
    names = [row.name for row in reading.experiments(store)]
    experiment_choice = mo.ui.dropdown(
        list(dict.fromkeys(names)), value=reading.experiment(store).name, label="experiment"
    )
    mo.vstack(
        [mo.md("# Quickstart\n\nWhat a store holds, in five steps. Choose an experiment:"), experiment_choice]
    )
    return charts, contents, drift, experiment_choice, grid, pl, store, time


@app.cell
def _(experiment_choice, store):
    experiment = reading.experiment(store, experiment_choice.value)
    evidence = Evidence.of(store, experiment, image_budget_bytes=8 * 2**20)
    data = evidence.whole
    counts = reading.counts(store, experiment.id)
    mo.vstack(
        [
            mo.md(
                f"## 1. What ran\n\n**{counts.runs}** runs of `{experiment.name}`: {counts.done} went to the "
                f"end, {counts.stuck} got stuck, {counts.failed} failed. {counts.invocations:,} model calls, "
                f"{counts.embeddings:,} vectors, {counts.diagrams:,} diagrams. Steps and periods "
                "are counted in model calls, from 0."
            ),
            mo.ui.table(data.runs.to_dicts(), page_size=8, selection=None),
        ]
    )
    return data, evidence


@app.cell
def _(data):
    runs = {
        f"{row['run']} · {row['prompt'][:40]} · {'fresh noise' if row['seed'] == -1 else row['seed']}": row[
            "run"
        ]
        for row in data.runs.iter_rows(named=True)
        if row["num_steps"]
    }
    run_choice = mo.ui.dropdown(runs, value=next(iter(runs), None), label="run")
    mo.vstack([mo.md("## 2. What a run looked like"), run_choice])
    return (run_choice,)


@app.cell
def _(charts, contents, evidence, pl, run_choice, store):
    _shown = []
    for _step in contents.invocations(store, run_choice.value):
        if _step.modality == "image":
            _shown.append({"step": _step.step, "image": evidence.thumbnails.get(_step.output)[0], "text": ""})
        elif _shown:
            _shown[-1]["text"] = _step.text
    mo.vstack(
        [charts.run_strip(pl.DataFrame(_shown[:18]), f"Run {run_choice.value}")]
        if _shown
        else [mo.md("This run has no images.")]
    )
    return


@app.cell
def _(evidence, grid):
    show(grid, evidence)
    return


@app.cell
def _(evidence, time):
    show(time, evidence)
    return


@app.cell
def _(evidence, drift):
    show(drift, evidence)
    return


if __name__ == "__main__":
    app.run()
