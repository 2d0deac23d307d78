"""How trainings went: loss and its logarithm, validation figures, where the time went, samples.

marimo edit analysis/training_curves.py        # or: marimo run, python analysis/training_curves.py

PANIC_TRAINING names what `panic train` has written: a model, the folder of its training (NAME.training), or a
folder with several of these (./checkpoints).
"""

import marimo

app = marimo.App(width="medium", app_title="panic · training curves")

with app.setup:
    import os
    from pathlib import Path

    import altair as alt
    import marimo as mo
    import polars as pl

    from panic.analysis import charts
    from panic.analysis.notebooks import drawn


@app.cell
def _():
    root = Path(os.environ.get("PANIC_TRAINING", "checkpoints"))
    beside = root.parent.glob(f"{root.name}.training/loss.csv")  # of a model, the folder of its training
    logs = sorted(
        [*root.glob("loss.csv"), *root.glob("*/loss.csv"), *beside], key=lambda log: -log.stat().st_mtime
    )
    folders = {log.parent.resolve().name.removesuffix(".training"): log.parent for log in logs}
    choice = mo.ui.multiselect(list(folders), value=list(folders)[:4], label="trainings")
    about = "" if folders else f"\n\n_There is no `loss.csv` in {root} yet: `panic train CONFIG` writes one._"
    mo.vstack(
        [
            mo.md(
                "# Training curves\n\nWhat `panic train` writes beside its weights. The averaged weights are "
                f"the ones that are evaluated and sampled from.{about}"
            ),
            choice,
        ]
    )
    return choice, folders


@app.cell
def _(choice, folders):
    def table(name):
        """The rows of a log of all chosen trainings; None where there is none."""
        files = {training: folders[training] / f"{name}.csv" for training in choice.value}
        frames = [
            pl.read_csv(file, infer_schema_length=None).select(pl.lit(training).alias("training"), pl.all())
            for training, file in files.items()
            if file.is_file() and file.stat().st_size
        ]
        return pl.concat(frames, how="diagonal_relaxed") if frames else None

    def curves(frame, column, title, caption, axis, share=1 / 40):
        """A quantity by step: single values faint, strong their running median over a share of a training."""
        known = frame.select("training", "step", pl.col(column).cast(pl.Float64, strict=False)).drop_nulls()
        known = known.filter(pl.col(column).is_finite())
        window = max(1, round(share * len(known) / max(1, known["training"].n_unique())))
        middle = pl.col(column).rolling_median(window, min_samples=1, center=True).over("training")
        known = known.with_columns(median=middle)
        every = max(1, len(known) // 4000)
        base = alt.Chart(charts.data(known.gather_every(every))).encode(
            x=alt.X("step:Q", title="training step"),
            color=charts.colour("training", list(choice.value)),
        )
        chart = base.mark_line(opacity=0.25, strokeWidth=1).encode(
            y=alt.Y(f"{column}:Q", title=axis, scale=alt.Scale(zero=False), axis=alt.Axis(format=".4~g"))
        ) + base.mark_line(strokeWidth=2).encode(y="median:Q")
        return drawn(charts.finish(chart, title, caption, height=240))

    return curves, table


@app.cell
def _(curves, table):
    losses = table("loss")
    faint = "Faint: single steps. Strong: their running median over a fortieth of the training."
    mo.vstack(
        [mo.md("_No losses to show._")]
        if losses is None
        else [
            mo.md("## Loss"),
            curves(losses, "loss", "Loss", faint, "loss"),
            curves(losses, "log_loss", "The logarithm of the loss", faint, "log10 of the loss"),
            curves(losses, "learning_rate", "Learning rate", "As the schedule has it.", "learning rate", 0),
        ]
    )
    return


@app.cell
def _(curves, table):
    evaluations = table("evaluation")
    _named = [] if evaluations is None else [c for c in evaluations.columns if c not in ("training", "step")]
    mo.vstack(
        [mo.md("## On validation items" if _named else "_Nothing has been evaluated yet._")]
        + [
            curves(evaluations, column, column, "Of the averaged weights, on validation items.", column, 0)
            for column in _named
        ]
    )
    return


@app.cell
def _(choice, table):
    profile = table("profile")
    if profile is None:
        _shown = mo.md("")
    else:
        _parts = [name for name in profile.columns if name.endswith("_s") and name != "wall_s"]
        _long = (
            profile.unpivot(_parts, index=["training", "step"], variable_name="part", value_name="seconds")
            .group_by("training", "part", maintain_order=True)
            .agg(pl.col("seconds").mean())
            .with_columns(pl.col("part").str.strip_suffix("_s"))
        )
        _order = [name.removesuffix("_s") for name in _parts]
        _shown = drawn(
            charts.finish(
                alt.Chart(charts.data(_long))
                .mark_bar()
                .encode(
                    x=alt.X("seconds:Q", title="seconds per step, mean", axis=alt.Axis(tickCount=6)),
                    y=alt.Y("training:N", title=None, sort=list(choice.value)),
                    color=charts.colour("part", _order),
                    tooltip=["training:N", "part:N", "seconds:Q"],
                ),
                "Where the time of a step goes",
                "Means over the whole training.",
                height=40 * _long["training"].n_unique() + 20,
            )
        )
    mo.vstack([_shown])
    return


@app.cell
def _(choice, folders):
    _steps = sorted(
        {
            int(file.stem)
            for name in choice.value
            for file in (folders[name] / "samples").glob("*.*")
            if file.stem.isdigit()
        }
    )
    sample_step = mo.ui.slider(
        steps=_steps or [0], value=(_steps or [0])[-1], label="samples at training step"
    )
    mo.vstack([mo.md("## Samples"), sample_step if _steps else mo.md("_There are none yet._")])
    return (sample_step,)


@app.cell
def _(choice, folders, sample_step):
    _parts = []
    for _name in choice.value:
        _image = folders[_name] / "samples" / f"{sample_step.value:08d}.png"
        _text = _image.with_suffix(".txt")
        if _image.is_file():
            _parts += [mo.md(f"**{_name}**"), mo.image(_image, width=512)]
        elif _text.is_file():
            _parts += [mo.md(f"**{_name}**"), mo.plain_text(_text.read_text(encoding="utf-8"))]
    mo.vstack(_parts)
    return


if __name__ == "__main__":
    app.run()
