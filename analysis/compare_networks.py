"""What dominates: the prompt, the network, the seed? Variance, permutation tests, probes.

marimo edit analysis/compare_networks.py        # or: marimo run, python analysis/compare_networks.py

PANIC_STORE names the store, PANIC_EXPERIMENT the experiment that is chosen at first.
"""

import marimo

app = marimo.App(width="medium", app_title="panic · compare networks")

with app.setup:
    import marimo as mo

    from panic.analysis.notebooks import chosen, experiment_choice, open_store, show


@app.cell
def _():
    import numpy as np
    import polars as pl

    from panic.analysis import statistics
    from panic.analysis.questions import drift, effects, entropies, forgetting, networks, probes, shares
    from panic.analysis.questions import map as places

    store = open_store()
    choice = experiment_choice(store)
    mo.vstack([choice])
    return (
        choice, drift, effects, entropies, forgetting, networks, np, pl, places, probes, shares, statistics,
        store,
    )  # fmt: skip


@app.cell
def _(choice, pl, store):
    evidence = chosen(store, choice)
    runs = evidence.data.runs.with_columns(
        noise=pl.when(pl.col("seed") == -1).then(pl.lit("fresh noise")).otherwise(pl.lit("fixed seed"))
    )
    factors = [name for name in ("network", "prompt", "noise") if runs[name].n_unique() > 1]
    mo.md(
        f"""# What dominates?

        `{evidence.experiment.name}` has networks: {runs["network"].n_unique()}, prompts:
        {runs["prompt"].n_unique()}, seeds: {runs["seed"].n_unique()}. Runs of one prompt are not independent,
        so tests resample prompts, or labels within them."""
    )
    return evidence, factors, runs


@app.cell
def _(evidence, places):
    show(places, evidence)
    return


@app.cell
def _(evidence, factors, np, pl, runs, statistics):
    _ends = [evidence.data.ends(*view) for view in evidence.views[:1]]
    if _ends and len(_ends[0]) > 2 and factors:
        _points = evidence.data.matrix(evidence.views[0].model)[_ends[0]["row"].to_numpy()].astype(np.float64)
        _of = _ends[0].select("run").join(runs, on="run", maintain_order="left")
        _shares = statistics.decompose(
            _points / np.linalg.norm(_points, axis=1, keepdims=True), {f: _of[f].to_list() for f in factors}
        ).with_columns(beyond_chance=pl.col("alone") - pl.col("by_chance"))
        _table = mo.ui.table(_shares.with_columns(pl.col(pl.Float64).round(3)).to_dicts(), selection=None)
    else:
        _table = mo.md("Nothing varies.")
    mo.vstack(
        [
            mo.md(
                "## Where runs end: which part explains how much?\n\nShares of the variance of the last "
                "vectors at the full length: `alone` of a model of this factor only, `unique` what is lost "
                "without it, `by_chance` what as many random groups would explain; the test is below."
            ),
            _table,
        ]
    )
    return


@app.cell
def _(evidence, effects):
    show(effects, evidence)
    return


@app.cell
def _(evidence, probes):
    show(probes, evidence)
    return


@app.cell
def _(evidence, forgetting):
    show(forgetting, evidence)
    return


@app.cell
def _(evidence, networks):
    show(networks, evidence)
    return


@app.cell
def _(evidence, drift):
    show(drift, evidence)
    return


@app.cell
def _(evidence, entropies):
    show(entropies, evidence)
    return


@app.cell
def _(evidence, shares):
    show(shares, evidence)
    return


if __name__ == "__main__":
    app.run()
