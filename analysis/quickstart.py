"""A first look at an experiment: what ran, what it looked like, what took how long, how far it drifted.

marimo edit analysis/quickstart.py        # or: marimo run, python analysis/quickstart.py

PANIC_STORE names the store, PANIC_EXPERIMENT the experiment that is chosen at first.
"""

import marimo

app = marimo.App(width="medium", app_title="panic · quickstart")

with app.setup:
    import marimo as mo

    from panic.analysis.notebooks import choice_of_runs, chosen, drawn, experiment_choice, open_store, show
    from panic.store import reading


@app.cell
def _():
    import polars as pl

    from panic.analysis import charts
    from panic.analysis.questions import drift, grid, time
    from panic.store import contents

    store = open_store()
    choice = experiment_choice(store)
    mo.vstack([mo.md("# Quickstart\n\nWhat a store holds, in five steps. Choose an experiment:"), choice])
    return charts, choice, contents, drift, grid, pl, store, time


@app.cell
def _(choice, store):
    evidence = chosen(store, choice)
    data = evidence.whole
    counts = reading.counts(store, evidence.experiment.id)
    mo.vstack(
        [
            mo.md(
                f"## 1. What ran\n\n**{counts.runs}** runs of `{evidence.experiment.name}`: {counts.done} "
                f"went to the end, {counts.stuck} got stuck, {counts.failed} failed. "
                f"{counts.invocations:,} model calls, "
                f"{counts.embeddings:,} vectors, {counts.diagrams:,} diagrams. Steps and periods "
                "are counted in model calls, from 0."
            ),
            mo.ui.table(data.runs.to_dicts(), page_size=8, selection=None),
        ]
    )
    return data, evidence


@app.cell
def _(data):
    run_choice = choice_of_runs(data.rows)
    mo.vstack([mo.md("## 2. What a run looked like"), run_choice])
    return (run_choice,)


@app.cell
def _(charts, contents, evidence, pl, run_choice, store):
    _shown = []
    mo.stop(run_choice.value is None, mo.md("_No run was begun._"))
    for _step in contents.invocations(store, run_choice.value.id):
        if _step.modality == "image":
            _shown.append({"step": _step.step, "image": evidence.thumbnails.get(_step.output)[0], "text": ""})
        elif _shown:
            _shown[-1]["text"] = _step.text
    mo.vstack(
        [drawn(charts.run_strip(pl.DataFrame(_shown[:18]), f"Run {run_choice.value.id}"))]
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
