"""A first look at an experiment: what ran, what it looked like, what took how long, how far it drifted.

marimo edit analysis/quickstart.py        # or: marimo run, python analysis/quickstart.py, PANIC_STORE=folder
"""

import marimo

app = marimo.App(width="medium", app_title="panic · quickstart")

with app.setup:
    from panic.store import contents, reading


@app.cell
def _():
    import os

    import marimo as mo
    import polars as pl

    from panic.analysis import charts, frames, load, readings, tables
    from panic.analysis.strips import Thumbnails
    from panic.store import Store

    return Store, Thumbnails, charts, frames, load, mo, os, pl, readings, tables


@app.cell
def _(Store, load, mo, os):
    store = Store(os.environ.get("PANIC_STORE", "panic-store"))
    names = [row.name for row in reading.experiments(store)]
    experiment_choice = mo.ui.dropdown(
        list(dict.fromkeys(names)), value=reading.experiment(store).name, label="experiment"
    )
    mo.vstack(
        [mo.md("# Quickstart\n\nWhat a store holds, in five steps. Choose an experiment:"), experiment_choice]
    )
    return experiment_choice, load, store


@app.cell
def _(experiment_choice, load, mo, store):
    experiment = reading.experiment(store, experiment_choice.value)
    data = load(store, experiment.id)
    counts = reading.counts(store, experiment.id)
    mo.vstack(
        [
            mo.md(
                f"## 1. What ran\n\n**{counts.runs}** runs of `{experiment.name}`: {counts.done} went to the "
                f"end, {counts.stuck} got stuck, {counts.failed} failed. {counts.invocations:,} model calls, "
                f"{counts.embeddings:,} vectors, {counts.diagrams:,} diagrams."
            ),
            mo.ui.table(data.runs.to_dicts(), page_size=8, selection=None),
        ]
    )
    return data, experiment


@app.cell
def _(data, mo):
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
def _(Thumbnails, charts, mo, pl, run_choice, store):
    thumbnails = Thumbnails(store, 8 * 2**20)
    _shown = []
    for _step in contents.invocations(store, run_choice.value):
        if _step.modality == "image":
            _shown.append({"step": _step.step, "image": thumbnails.get(_step.output)[0], "text": ""})
        elif _shown:
            _shown[-1]["text"] = _step.text
    mo.vstack(
        [charts.run_strip(pl.DataFrame(_shown[:18]), f"Run {run_choice.value}")]
        if _shown
        else [mo.md("This run has no pictures.")]
    )
    return (thumbnails,)


@app.cell
def _(charts, data, mo, pl, tables, thumbnails):
    _cells = tables.final_images(data).head(48)
    _cells = _cells.with_columns(
        image=pl.Series([thumbnails.get(d)[0] for d in _cells["digest"]], dtype=pl.String)
    )
    mo.vstack(
        [
            mo.md("## 3. Where the pictures ended\n\nOne run per prompt (rows) and network (columns)."),
            charts.image_grid(_cells) if len(_cells) else mo.md("There are no pictures."),
        ]
    )
    return


@app.cell
def _(charts, experiment, frames, mo, readings, store):
    _times = frames.times(store, experiment)
    mo.vstack(
        [
            mo.md("## 4. What took how long"),
            charts.time_by_model(_times) if len(_times) else mo.md("Nothing was called yet."),
            mo.md(f"_{readings.TIME_CAVEAT}_"),
        ]
    )
    return


@app.cell
def _(charts, experiment, frames, mo, readings, store):
    _parts = [mo.md("## 5. How far it drifted from the prompt")]
    for _model in experiment.config.get("embeddings", []):
        _drift = frames.drift(store, experiment, _model)
        if len(_drift):
            _bands = frames.drift_bands(_drift)
            _parts += [mo.md(f"{readings.drift_reading(_bands)} ({_model})"), charts.drift(_bands, _drift)]
    _parts.append(mo.md(f"_{readings.DRIFT_CAVEATS['text']}_"))
    mo.vstack(_parts)
    return


if __name__ == "__main__":
    app.run()
