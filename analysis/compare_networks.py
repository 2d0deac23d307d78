"""What dominates: the prompt, the network, the seed? Variance, permutation tests, probes.

marimo edit analysis/compare_networks.py        # or: marimo run, python analysis/compare_networks.py
"""

import marimo

app = marimo.App(width="medium", app_title="panic · compare networks")

with app.setup:
    from panic.store import reading


@app.cell
def _():
    import os

    import marimo as mo
    import numpy as np
    import polars as pl

    from panic.analysis import charts, comparisons, frames, load, readings, statistics, tables
    from panic.store import Store

    store = Store(os.environ.get("PANIC_STORE", "panic-store"))
    experiment = reading.experiment(store)
    data = load(store, experiment.id)
    model = experiment.config["embeddings"][0]
    modality = tables.modality_of(data, model)
    runs = data.runs.with_columns(
        noise=pl.when(pl.col("seed") == -1).then(pl.lit("fresh noise")).otherwise(pl.lit("fixed seed"))
    )
    factors = [name for name in ("network", "prompt", "noise") if runs[name].n_unique() > 1]
    mo.md(
        f"""# What dominates?

        `{experiment.name}` has networks: {runs["network"].n_unique()}, prompts: {runs["prompt"].n_unique()},
        seeds: {runs["seed"].n_unique()}. Runs of one prompt are not independent, so tests resample prompts,
        or labels within them."""
    )
    return (
        charts, comparisons, data, experiment, factors, frames, load, mo, modality, model, np, pl, readings,
        runs, statistics, store, tables,
    )  # fmt: skip


@app.cell
def _(charts, factors, mo, data, modality, model, runs, tables):
    _places, _share = tables.place_map(data, model, modality, max_points=3000)
    _places = _places.drop("network", "prompt", "seed").join(
        runs.select("run", "network", "prompt", "noise"), on="run", maintain_order="left"
    )
    mo.vstack(
        [
            mo.md("## The same map, coloured by what the runs are"),
            *(
                charts.embedding_map(_places, f"by {factor}", by=factor, explained=_share)
                for factor in (factors or ["step"])
            ),
        ]
    )
    return


@app.cell
def _(data, modality, model, np, pl, runs, tables):
    _last = [(run, points[-1]) for run, points in tables.trajectories(data, model, modality, least=1)]
    ends = np.array([point for _, point in _last], dtype=np.float64)
    ends = ends / np.linalg.norm(ends, axis=1, keepdims=True)
    of_ends = pl.DataFrame({"run": [run for run, _ in _last]}).join(runs, on="run", maintain_order="left")
    return ends, of_ends


@app.cell
def _(ends, factors, mo, of_ends, pl, statistics):
    _shares = statistics.decompose(ends, {f: of_ends[f].to_list() for f in factors}) if factors else None
    mo.vstack(
        [
            mo.md(
                "## Where runs end: which part explains how much?\n\nShares of the variance of the last "
                "vectors: `alone` of a model of this factor only, `unique` what is lost without it, "
                "`by_chance` what as many random groups would explain."
            ),
            mo.ui.table(_shares.with_columns(pl.col(pl.Float64).round(3)).to_dicts(), selection=None)
            if _shares is not None
            else mo.md("Nothing varies."),
        ]
    )
    return


@app.cell
def _(charts, comparisons, data, mo, modality, model, readings):
    _table, _absent = comparisons.what_matters(data, model, modality)
    mo.vstack(
        [
            mo.md("## What makes the difference?"),
            mo.md(readings.effects_reading(_table, _absent))
            if len(_table)
            else mo.md(f"Nothing to test: {_absent or 'no factor has two levels'}"),
            *([charts.group_effects(_table)] if len(_table) else []),
            mo.md(f"_{readings.EFFECTS_CAVEAT}_"),
        ]
    )
    return


@app.cell
def _(charts, data, mo, modality, model, readings, tables):
    _scores, _absent = tables.probe_table(data, model, modality)
    mo.vstack(
        [
            mo.md("## What can be read from a single output?"),
            mo.md(readings.probe_reading(_scores, _absent))
            if len(_scores)
            else mo.md(f"Nothing: {dict(_absent)}"),
            *([charts.probe_scores(_scores)] if len(_scores) else []),
            mo.md(f"_{readings.PROBE_CAVEAT}_"),
        ]
    )
    return


@app.cell
def _(charts, experiment, frames, mo, model, readings, store):
    _drift = frames.drift(store, experiment, model)
    _parts = [mo.md("## Drift, network by network")]
    if len(_drift):
        _bands = frames.drift_bands(_drift)
        _parts += [
            mo.md(readings.drift_reading(_bands)),
            charts.drift(_bands, _drift),
            charts.drift_ridgeline(_drift),
        ]
    else:
        _parts.append(mo.md("This model has not read the prompts, so there is no drift from them."))
    mo.vstack(_parts)
    return


@app.cell
def _(charts, data, mo, model, tables):
    _entropies = tables.entropies(data, model)
    mo.vstack(
        [
            mo.md("## Shapes, network by network"),
            charts.entropy_by_group(_entropies) if len(_entropies) else mo.md("There are no diagrams."),
        ]
    )
    return


@app.cell
def _(charts, comparisons, data, experiment, load, mo, modality, model, readings, store, tables):
    _found = {experiment.name: data}
    for _row in reading.experiments(store):
        if _row.name not in _found and len(tables.steps_of(_other := load(store, _row.id), model, modality)):
            _found[_row.name] = _other
    if len(_found) > 1:
        _reference = comparisons.reference_of(data, model, modality)
        _shares = comparisons.cluster_shares(_reference, _found, model, modality)
        _parts = [
            mo.md(readings.shares_reading(_shares, experiment.name)),
            charts.cluster_shares(_shares),
            mo.md(f"_{readings.SHARES_CAVEAT}_"),
        ]
    else:
        _parts = [mo.md(f"No other experiment of this store has {modality}s that `{model}` has read.")]
    mo.vstack([mo.md("## Do other experiments end up in the same places?"), *_parts])
    return


if __name__ == "__main__":
    app.run()
