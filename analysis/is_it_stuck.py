"""Is it stuck? Did it ever come back? Periods, recurrences, distances by lag, dwells.

marimo edit analysis/is_it_stuck.py        # or: marimo run, python analysis/is_it_stuck.py
"""

import marimo

app = marimo.App(width="medium", app_title="panic · is it stuck?")

with app.setup:
    from panic.store import reading


@app.cell
def _():
    import os

    import marimo as mo
    import polars as pl

    from panic.analysis import AnalysisError, charts, dynamics, frames, load, readings, tables
    from panic.store import Store

    store = Store(os.environ.get("PANIC_STORE", "panic-store"))
    experiment = reading.experiment(store)
    data = load(store, experiment.id)
    model = experiment.config["embeddings"][0]
    modality = tables.modality_of(data, model)
    mo.md(
        f"""# Is it stuck?

        A run with a fixed seed is a map: the first repeated state makes the rest of it periodic. With fresh
        noise a run is never stuck by definition, yet it may linger. This notebook asks both of
        `{experiment.name}`, by the {modality}s that `{model}` sees."""
    )
    return (
        AnalysisError,
        charts,
        data,
        dynamics,
        experiment,
        frames,
        mo,
        modality,
        model,
        pl,
        readings,
        store,
        tables,
    )


@app.cell
def _(charts, data, experiment, mo, readings, store):
    _runs = reading.runs(store, experiment.id)
    _stuck = data.runs["period"].is_not_null().any()
    mo.vstack(
        [
            mo.md(f"## Periods\n\n{readings.stuck_reading(_runs)}"),
            charts.stuck_periods(data.runs) if _stuck else mo.md("No dot to draw."),
            mo.md(f"_{readings.PERIODS_CAVEAT}_"),
        ]
    )
    return


@app.cell
def _(data, mo):
    choices = {
        f"{row['run']} · {'fresh noise' if row['seed'] == -1 else row['seed']} · {row['prompt'][:40]}": row[
            "run"
        ]
        for row in data.runs.sort("num_steps", descending=True).iter_rows(named=True)
        if row["num_steps"] > 3
    }
    run_choice = mo.ui.dropdown(choices, value=next(iter(choices), None), label="run")
    mo.vstack(
        [
            mo.md(
                "## Has it been here before?\n\nExactly the same words again, at which steps? "
                "A fair die with K sides has a rate of 1/K."
            ),
            run_choice,
        ]
    )
    return (run_choice,)


@app.cell
def _(charts, data, dynamics, frames, mo, pl, run_choice):
    _stored = data.invocations.filter(pl.col("run") == run_choice.value)
    _steps = frames.continued(_stored, data.runs, limit=2 * len(_stored))  # a stuck run's future is known
    _texts = _steps.filter(pl.col("modality").cast(pl.String) == "text")
    _texts = (_texts if len(_texts) > 1 else _steps).tail(120)
    _symbols = _texts["output"].to_numpy()
    _found = dynamics.recurrence(_symbols)
    _stride = int(_texts["step"].diff().drop_nulls().min() or 1)
    _first = int(_texts["step"][0])
    mo.hstack(
        [
            charts.recurrence_plot(
                dynamics.recurrence_matrix(_symbols), f"Run {run_choice.value}", stride=_stride, first=_first
            ),
            mo.md(
                f"""
                | | |
                |---|---|
                | equal pairs of steps | {_found.rate:.1%} |
                | of them on diagonals (determinism) | {_found.determinism:.1%} |
                | mean length of a diagonal | {_found.mean_line:.2f} |
                | of them in blocks (laminarity) | {_found.laminarity:.1%} |"""
            ),
        ],
        justify="start",
        gap=2,
    )
    return


@app.cell
def _(charts, data, mo, modality, model, readings, tables):
    _curves = tables.lag_curves(data, model, modality)
    mo.vstack(
        [
            mo.md(f"## Does it wander or come back?\n\n{readings.lag_reading(_curves, modality)}"),
            charts.distance_by_lag(_curves),
            mo.md(f"_{readings.LAG_CAVEAT}_"),
        ]
    )
    return


@app.cell
def _(AnalysisError, charts, data, dynamics, mo, modality, model, readings, tables):
    states = tables.clusters(data, model, modality)
    try:
        _curve = charts.dwell_survival(tables.dwell_curves(states))
        _text = readings.dwell_reading(dynamics.dwell_times(states.labels()))
    except AnalysisError as _error:
        _curve, _text = mo.md("There is nothing to draw."), _error.message
    mo.vstack(
        [
            mo.md(f"## Where it lingers\n\n{readings.cluster_reading(states.clustering, len(states.frame))}"),
            charts.cluster_timeline(states.frame, names=states.names),
            mo.md(f"{_text}"),
            _curve,
            mo.md(f"_{readings.DWELL_CAVEAT}_"),
        ]
    )
    return


if __name__ == "__main__":
    app.run()
