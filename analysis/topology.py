"""The shape of trajectories: diagrams, bars, entropies, distances between diagrams, and what chance makes.

marimo edit analysis/topology.py        # or: marimo run, python analysis/topology.py

PANIC_STORE names the store, PANIC_EXPERIMENT the experiment that is chosen at first.
"""

import marimo

app = marimo.App(width="medium", app_title="panic · topology")

with app.setup:
    import marimo as mo

    from panic.analysis.notebooks import chosen, drawn, experiment_choice, open_store, show


@app.cell
def _():
    import numpy as np
    import polars as pl

    from panic import topology
    from panic.analysis.questions import diagrams, dimension, effects, entropies, loops

    store = open_store()
    choice = experiment_choice(store)
    mo.vstack([choice])
    return choice, diagrams, dimension, effects, entropies, loops, np, pl, store, topology


@app.cell
def _(choice, store):
    evidence = chosen(store, choice)
    mo.md(
        f"""# Topology

        Each run of `{evidence.experiment.name}` is a cloud of points under an embedding model. Points that
        are nearer than a growing distance are joined, into components (H0) that close loops (H1); a bar lives
        from the distance at which its feature appears to that at which it ends. Plain diagrams ignore the
        order of the steps; sliding windows do not."""
    )
    return (evidence,)


@app.cell
def _(entropies, np, pl, topology):
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
            drawn(entropies.barcode(_bars, "20 points on a circle")),
        ]
    )
    return


@app.cell
def _(evidence, diagrams):
    show(diagrams, evidence)
    return


@app.cell
def _(evidence, entropies):
    show(entropies, evidence)
    return


@app.cell
def _(effects, evidence):
    # Total H0 lifetime is nearly determined by plain distances, so its tests are rarely news of their own.
    show(effects, evidence)
    return


@app.cell
def _(evidence, loops):
    show(loops, evidence)
    return


@app.cell
def _(evidence, dimension):
    show(dimension, evidence)
    return


@app.cell
def _(diagrams, np, pl, topology):
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
            drawn(diagrams.persistence(_bars, "Sliding windows of a sine")),
        ]
    )
    return


if __name__ == "__main__":
    app.run()
