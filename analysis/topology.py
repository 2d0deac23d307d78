"""The shape of trajectories: diagrams, bars, entropies, distances between diagrams, and what chance makes.

marimo edit analysis/topology.py        # or: marimo run, python analysis/topology.py
"""

import marimo

app = marimo.App(width="medium", app_title="panic · topology")

with app.setup:
    from panic.store import reading


@app.cell
def _():
    import os

    import marimo as mo
    import numpy as np
    import polars as pl

    from panic import topology
    from panic.analysis import AnalysisError, against_chance, charts, load, readings, statistics, tables
    from panic.store import Store

    store = Store(os.environ.get("PANIC_STORE", "panic-store"))
    experiment = reading.experiment(store)
    data = load(store, experiment.id)
    model = experiment.config["embeddings"][0]
    modality = tables.modality_of(data, model)
    mo.md(
        f"""# Topology

        Each run of `{experiment.name}` is a cloud of points under `{model}`. Growing balls around them join
        into components (H0) and close loops (H1); a bar lives from the radius where its feature appears to
        where it ends. Plain diagrams ignore the order of the steps; sliding windows do not."""
    )
    return (
        AnalysisError,
        against_chance,
        charts,
        data,
        mo,
        modality,
        model,
        np,
        pl,
        readings,
        statistics,
        tables,
        topology,
    )


@app.cell
def _(charts, mo, np, pl, topology):
    _angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    _found = topology.diagram(np.stack([np.cos(_angles), np.sin(_angles)], axis=1))
    _bars = pl.concat(
        [
            pl.DataFrame({"dimension": d, "birth": _found.bars(d)[:, 0], "death": _found.bars(d)[:, 1]})
            for d in (0, 1)
        ]
    )
    _born, _dies = _found.bars(1)[0]
    mo.vstack(
        [
            mo.md(
                f"""## A shape whose answer is known

                20 points on a circle of radius 1: one loop, from 2 sin(π/20) = 0.3129 to 2 sin(7π/20) =
                1.7820. Found: {_born:.4f} to {_dies:.4f}."""
            ),
            charts.barcode(_bars, "20 points on a circle"),
        ]
    )
    return


@app.cell
def _(charts, data, mo, model, pl):
    of_model = data.bars.filter(pl.col("model") == model)
    _finite = of_model.filter(pl.col("death").is_finite())
    _runs = _finite.group_by("run", maintain_order=True).len().sort("len", descending=True)["run"]
    mo.vstack(
        [
            mo.md("## The diagrams of all runs, and the bars of the one that has most"),
            charts.persistence(of_model),
            charts.barcode(of_model.filter(pl.col("run") == _runs[0]), f"Run {_runs[0]}"),
        ]
        if len(_runs)
        else [mo.md("There are no finite bars: no diagrams yet, or every run is a single point.")]
    )
    return (of_model,)


@app.cell
def _(charts, data, mo, model, readings, tables):
    _entropies = tables.entropies(data, model)
    mo.vstack(
        [
            mo.md(f"## Entropy\n\n{readings.entropy_reading(_entropies)}"),
            charts.entropy_by_group(_entropies),
            mo.md(f"_{readings.ENTROPY_CAVEAT}_"),
        ]
        if len(_entropies)
        else [mo.md("There are no diagrams.")]
    )
    return


@app.cell
def _(AnalysisError, data, mo, np, of_model, pl, statistics, topology):
    _finite = of_model.filter(pl.col("dimension") == 0, pl.col("death").is_finite())
    _groups = {}
    for (_run,), _rows in _finite.group_by("run", maintain_order=True):
        _groups[_run] = _rows.select("birth", "death").to_numpy()
    _prompts = dict(data.runs.select("run", "prompt").iter_rows())
    try:
        _matrix = topology.distance_matrix(list(_groups.values()), kind="wasserstein")
        _test = statistics.label_test(np.asarray(_matrix), [_prompts[run] for run in _groups])
        _side = "closer to" if _test.effect >= 0 else "farther from"
        _text = (
            f"Runs of one prompt are {abs(_test.effect):.0%} {_side} each other than under shuffled labels "
            f"(p = {_test.p_value:.3f}, {_test.num_values} diagrams, {_test.num_groups} prompts)."
        )
    except AnalysisError as _error:
        _text = f"No test: {_error.message}."
    mo.md(
        f"""## Do diagrams know the prompt?

        Wasserstein distances of the H0 diagrams, and Robinson and Turner's permutation test of their labels.
        {_text} Total H0 lifetime is nearly determined by plain distances, so this is rarely news of its
        own."""
    )
    return


@app.cell
def _(AnalysisError, against_chance, charts, data, mo, modality, model, readings):
    try:
        _table = against_chance.loops_against_walks(data, model, modality)
        _parts = [
            mo.md(readings.band_reading(_table, readings.LONGEST_LOOP)),
            charts.null_band(
                _table, "Longest loop and random walks", value_title="length of the longest H1 bar"
            ),
            mo.md(f"_{readings.LOOP_CAVEAT}_"),
        ]
    except AnalysisError as _error:
        _parts = [mo.md(f"No band: {_error.message}.")]
    mo.vstack([mo.md("## Is the longest loop more than a random walk makes?"), *_parts])
    return


@app.cell
def _(charts, mo, np, pl, topology):
    _t = np.linspace(0, 12 * np.pi, 240)
    _windows = topology.sliding_window(np.sin(_t), 12, 2)
    _found = topology.diagram(_windows[::2])
    _bars = pl.concat(
        [
            pl.DataFrame({"dimension": d, "birth": _found.bars(d)[:, 0], "death": _found.bars(d)[:, 1]})
            for d in (0, 1)
        ]
    )
    mo.vstack(
        [
            mo.md(
                "## Time, seen as shape\n\nWindows of a periodic series lie on a loop (Perea and Harer): a "
                "sine has one long H1 bar."
            ),
            charts.persistence(_bars, "Sliding windows of a sine"),
        ]
    )
    return


if __name__ == "__main__":
    app.run()
