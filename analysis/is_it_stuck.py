"""Is it stuck? Did it ever come back? Periods, recurrences, distances by lag, dwells.

marimo edit analysis/is_it_stuck.py        # or: marimo run, python analysis/is_it_stuck.py

PANIC_STORE names the store, PANIC_EXPERIMENT the experiment that is chosen at first.
"""

import marimo

app = marimo.App(width="medium", app_title="panic · is it stuck?")

with app.setup:
    import marimo as mo

    from panic.analysis.notebooks import choice_of_runs, chosen, drawn, experiment_choice, open_store, show


@app.cell
def _():
    from panic.analysis.questions import (
        chain,
        clusters,
        dwell,
        lag,
        mean_dwells,
        novelty,
        period,
        recurrence,
        stuck,
    )

    store = open_store()
    choice = experiment_choice(store)
    mo.vstack([choice])
    return chain, choice, clusters, dwell, lag, mean_dwells, novelty, period, recurrence, store, stuck


@app.cell
def _(choice, store, stuck):
    evidence = chosen(store, choice)
    mo.md(
        f"""# Is it stuck?

        A run with a fixed seed is a map: the first repeated state makes the rest of it periodic. With fresh
        noise a run is never stuck by definition, yet it may linger. This notebook asks both of
        `{evidence.experiment.name}`.

        {stuck.summary(evidence.whole.rows)}"""
    )
    return (evidence,)


@app.cell
def _(evidence, stuck):
    show(stuck, evidence)
    return


@app.cell
def _(evidence):
    by_length = sorted(evidence.whole.rows, key=lambda row: -row.num_steps)
    run_choice = choice_of_runs([row for row in by_length if row.num_steps > 3])
    mo.vstack(
        [
            mo.md(
                "## Has it been here before?\n\nExactly the same text (of too few texts: picture) again, "
                "at which model calls? A fair die with K sides has a rate of 1/K."
            ),
            run_choice,
        ]
    )
    return (run_choice,)


@app.cell
def _(evidence, recurrence, run_choice):
    mo.stop(run_choice.value is None, mo.md("_No run has more than 3 model calls._"))
    _plots = (
        recurrence.plot(evidence.whole, run_choice.value, 120, modality=kind) for kind in ("text", "image")
    )
    _plot = next((plot for plot in _plots if plot is not None), None)
    mo.stop(_plot is None, mo.md("_This run has fewer than two outputs of a kind._"))
    _found = _plot.counts
    mo.hstack(
        [
            drawn(
                recurrence.recurrence_plot(_plot.matrix, _plot.label, stride=_plot.stride, first=_plot.first)
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
def _(evidence, novelty):
    show(novelty, evidence)
    return


@app.cell
def _(evidence, lag):
    show(lag, evidence)
    return


@app.cell
def _(evidence, period):
    show(period, evidence)
    return


@app.cell
def _(evidence, clusters):
    show(clusters, evidence)
    return


@app.cell
def _(evidence, dwell):
    show(dwell, evidence)
    return


@app.cell
def _(evidence, mean_dwells):
    show(mean_dwells, evidence)
    return


@app.cell
def _(evidence, chain):
    show(chain, evidence)
    return


if __name__ == "__main__":
    app.run()
