"""The shape of trajectories: diagrams, bars, entropies, distances between diagrams, and what chance makes.

marimo edit analysis/topology.py        # or: marimo run, python analysis/topology.py
"""

import marimo

app = marimo.App(width="medium", app_title="panic · topology")

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
    import numpy as np
    import polars as pl

    from panic import topology
    from panic.analysis.questions import diagrams, dimension, effects, entropies, loops

    store = Store(os.environ.get("PANIC_STORE", "panic-store"))
    experiment = reading.experiment(store)
    evidence = Evidence.of(store, experiment)
    mo.md(
        f"""# Topology

        Each run of `{experiment.name}` is a cloud of points under an embedding model. Points that are nearer
        than a growing distance are joined, into components (H0) that close loops (H1); a bar lives from the
        distance at which its feature appears to that at which it ends. Plain diagrams ignore the order of the
        steps; sliding windows do not."""
    )
    return diagrams, dimension, effects, entropies, evidence, loops, np, pl, topology


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
            entropies.barcode(_bars, "20 points on a circle"),
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
            diagrams.persistence(_bars, "Sliding windows of a sine"),
        ]
    )
    return


if __name__ == "__main__":
    app.run()
