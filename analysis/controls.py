"""Controls: what the statistics say where the answer is known, and what chance makes of a run's own numbers.

marimo edit analysis/controls.py        # or: marimo run, python analysis/controls.py

PANIC_STORE names the store, PANIC_EXPERIMENT the experiment that is chosen at first.
"""

import marimo

app = marimo.App(width="medium", app_title="panic · controls")

with app.setup:
    import marimo as mo

    from panic.analysis.notebooks import chosen, drawn, experiment_choice, open_store


@app.cell
def _():
    import numpy as np
    import polars as pl

    from panic import topology
    from panic.analysis import charts, dynamics, nulls
    from panic.analysis.questions import twins
    from panic.models.synthetic import transition_matrix as exact_matrix

    mo.md(
        """# Controls

        A number means something beside what it would be if nothing were going on. First data whose answer is
        known, then surrogates of a run from the store."""
    )
    return charts, dynamics, exact_matrix, np, nulls, pl, topology, twins


@app.cell
def _(charts, dynamics, np, nulls, pl):
    _angle, _lags = 0.3, np.arange(13)
    _rng = np.random.default_rng(0)
    _curves = [
        dynamics.distance_by_lag(nulls.sphere_walk(100, 64, _angle, _rng), int(_lags[-1])) for _ in range(100)
    ]
    _low, _high = np.quantile(_curves, [0.025, 0.975], axis=0)
    _table = pl.DataFrame(
        {
            "x": _lags,
            "value": 1 - np.cos(_angle) ** _lags,
            "low": _low,
            "high": _high,
            "mean": np.mean(_curves, axis=0),
        }
    )
    mo.vstack(
        [
            mo.md("## A walk on the sphere\n\nTurning by t at every step, D(k) = 1 - cosᵏ t exactly."),
            drawn(
                charts.null_band(
                    _table,
                    "Walks on the sphere, and the exact curve",
                    x_title="lag k (outputs of one kind)",
                    value_title="D(k)",
                    caption="Blue: 1 - cos^k t with t = 0.3. Grey: 100 walks of 100 steps in 64 dimensions.",
                )
            ),
        ]
    )
    return


@app.cell
def _(dynamics, np, pl, twins):
    _rng = np.random.default_rng(1)
    _a = _rng.uniform(0.1, 0.9, 40)
    _b = _a + 1e-9
    _distances = []
    for _step in range(40):
        _distances.append(np.abs(_a - _b))
        _a, _b = 4 * _a * (1 - _a), 4 * _b * (1 - _b)
    _pairs = np.array(_distances).T
    fit = dynamics.ftle(_pairs)
    _table = pl.concat(
        [
            pl.DataFrame({"pair": f"pair {i}", "step": np.arange(40), "distance": row})
            for i, row in enumerate(_pairs)
        ]
    )
    mo.vstack(
        [
            mo.md(
                f"## Sensitivity: the logistic map\n\nIts Lyapunov exponent is ln 2 = 0.693; "
                f"found {fit.rate:.3f} ± {fit.standard_error:.3f} over the steps before they saturate."
            ),
            drawn(twins.divergence(_table, "Twins of the logistic map, r = 4", fit=fit)),
        ]
    )
    return


@app.cell
def _(charts, dynamics, exact_matrix, np):
    _exact = exact_matrix(5, "cycle", 0.2, 1.0, 0)
    _rng = np.random.default_rng(2)
    _state, _labels = 0, []
    for _ in range(4000):
        _labels.append(_state)
        _state = int(_rng.choice(5, p=_exact[_state]))
    _found = dynamics.transition_matrix(np.array(_labels), 5)
    _worst = np.abs(_found - _exact).max()
    mo.vstack(
        [
            mo.md(
                f"## A Markov chain\n\nA cycle of 5 states with 20 % noise: the exact matrix, and "
                f"4,000 steps of it. No entry differs by more than {_worst:.3f}."
            ),
            mo.hstack(
                [
                    drawn(charts.transition_graph(_exact, "exact", weights=dynamics.stationary(_exact))),
                    drawn(charts.transition_graph(_found, "estimated", weights=dynamics.stationary(_found))),
                ],
                justify="start",
            ),
        ]
    )
    return


@app.cell
def _():
    store = open_store()
    choice = experiment_choice(store)
    mo.vstack([choice])
    return choice, store


@app.cell
def _(choice, store):
    evidence = chosen(store, choice)
    _paths = evidence.data.trajectories(*evidence.views[0], least=6) if evidence.views else ()
    paths = {f"run {run} ({len(path)} {evidence.views[0].modality}s)": path for run, path in _paths}
    run_choice = mo.ui.dropdown(paths, value=next(reversed(paths), None), label="run")
    mo.vstack([mo.md(f"## A run of `{evidence.experiment.name}` against its surrogates"), run_choice])
    return (run_choice,)


@app.cell
def _(charts, dynamics, np, nulls, pl, run_choice):
    mo.stop(
        run_choice.value is None,
        mo.md("_No run has 6 vectors of one kind: `panic embed EXPERIMENT MODEL` adds them._"),
    )
    path = np.asarray(run_choice.value, dtype=np.float64)
    path = path / np.linalg.norm(path, axis=1, keepdims=True)
    _lag = min(10, len(path) - 2)
    surrogates = {
        "order shuffled": nulls.shuffled,
        "walk with its steps": nulls.walk_like,
        "AR(1), its mean and memory": nulls.autoregression,
    }
    if path.shape[1] > 2:
        surrogates["walk with its steps and drift"] = nulls.matched_walk
    _charts = []
    for _name, _surrogate in surrogates.items():
        _band = nulls.null_band(
            lambda points: dynamics.distance_by_lag(points, _lag)[1:], path, _surrogate, num_surrogates=79
        )
        _table = pl.DataFrame(
            {
                "x": np.arange(1, _lag + 1),
                "value": _band.value,
                "low": _band.low,
                "high": _band.high,
                "mean": _band.mean,
            }
        )
        _outside = int(_band.is_outside.sum())
        _charts.append(
            charts.null_band(
                _table,
                f"{_name}: {_outside} of {_lag} lags outside",
                x_title="lag k (outputs of one kind)",
                value_title="D(k)",
            )
        )
    mo.vstack([drawn(chart) for chart in _charts])
    return path, surrogates


@app.cell
def _(charts, nulls, path, pl, surrogates, topology):
    def total_lifetime(points):
        bars = topology.diagram(points, max_dimension=0).bars(0)
        return float(bars[:-1, 1].sum()) if len(bars) > 1 else 0.0

    _rows = []
    for _name, _surrogate in surrogates.items():
        _band = nulls.null_band(total_lifetime, path, _surrogate, num_surrogates=79)
        _rows.append((_name, float(_band.value), float(_band.low), float(_band.high), float(_band.mean)))
    _table = pl.DataFrame(_rows, ["x", "value", "low", "high", "mean"], orient="row")
    mo.vstack(
        [
            drawn(
                charts.null_band(
                    _table,
                    "Total H0 lifetime against its surrogates",
                    value_title="sum of finite H0 bars (distance)",
                )
            ),
            mo.md(
                "Shuffling the order leaves a diagram as it is: its band has no width, and says nothing "
                "here. Which null to take depends on the question; `panic.analysis.nulls` has a table."
            ),
        ]
    )
    return


if __name__ == "__main__":
    app.run()
