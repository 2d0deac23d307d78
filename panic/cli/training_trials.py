"""Trials of `panic optimize` that are trainings: one after another, pruned at their evaluations.

A trial is a training of its own, <output>-trial-0003, with the study's tag. A kill leaves it at its last
checkpoint, and the same command goes on with it.

    go_on(shared, search, study, perform_training)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panic.cli.common import Shared, say
from panic.cli.one_training import mark_training
from panic.cli.train import follow, in_its_project
from panic.cli.trials import Former, Pruned, Search, values_of
from panic.errors import NotFound, UsageError, nearest

if TYPE_CHECKING:
    from panic.train.config import Training
    from panic.train.loop import TrainingProgress
    from panic.train.standing import Standing

METRICS = {
    "val_loss": "loss on validation items, of the last evaluation",
    "best_loss": "the least loss on validation items",
    "loss": "loss of the last steps",
    "seconds": "how long the training took",
}
MEASURES = "measures."


def check_metric(name: str) -> str:
    """Return what a training can be judged by. Raises UsageError, naming the nearest."""
    if name in METRICS or (name.startswith(MEASURES) and name != MEASURES):
        return name
    near = nearest(name, METRICS)
    there_are = f"There are {', '.join(METRICS)}, and {MEASURES}NAME for what else an evaluation tells."
    raise UsageError(
        f"No metric of trainings is called {name!r}.", hint=f"Did you mean {near[0]}?" if near else there_are
    )


def check_training(search: Search, parameters: Mapping[str, Any], trial: int) -> Training:
    """The training that a trial is. Raises ConfigError."""
    from panic.config import sources
    from panic.train.config import load

    changed = dict(change.partition("=")[::2] for change in search.changes)
    document = sources.read(search.path)
    said = changed.get("output") or (document.data["output"] if isinstance(document.data, dict) else "")
    output = f"{said}{search.name_of(trial).removeprefix(search.name)}"
    loaded: Training = load(
        search.path, [*search.changes, *values_of(search, parameters), f"output={json.dumps(output)}"]
    )
    return in_its_project(loaded)


def perform_training(shared: Shared, search: Search, trial: Any) -> float:
    """Perform a trial as a training, or go on with it; its value. Raises Pruned, PanicError."""
    from panic.train.standing import standing_of

    loaded = check_training(search, trial.params, trial.number)
    label = ", ".join(values_of(search, trial.params))[:200]
    if not shared.quiet:
        say(f"{search.name_of(trial.number)}: {label}", err=True)
    is_pruned = type(trial.study.pruner).__name__ != "NopPruner"
    is_marked = False

    def hear(progress: TrainingProgress) -> None:
        nonlocal is_marked
        if not is_marked:
            mark_training(search.store, loaded.output, tags=[search.tag], label=label)
            is_marked = True
        if progress.measures is None or progress.step >= progress.steps or not is_pruned:
            return
        value = value_of(standing_of(Path(f"{loaded.output}.training")), search.metric)
        if value is None:
            return
        trial.report(value, progress.step)
        if trial.should_prune():
            name = search.name_of(trial.number)
            raise Pruned(f"{name} is pruned: {search.metric} {value:.6g} at step {progress.step:,}.")

    follow(replace(shared, store=search.store.absolute()), search.path, loaded, hear)
    standing = standing_of(Path(f"{loaded.output}.training"))
    value = value_of(standing, search.metric)
    if value is None:
        raise _no_value(search, standing)
    return value


def _no_value(search: Search, standing: Standing) -> UsageError:
    told = [f"{MEASURES}{name}" for name in standing.measures if name != "loss"]
    near = nearest(search.metric, told)
    there_are = f"An evaluation tells {', '.join([*METRICS, *told])}." if standing.measures else ""
    return UsageError(
        f"The trainings of {search.path} have no {search.metric}.",
        hint=f"Did you mean {near[0]}?"
        if near
        else there_are or "evaluate_every says when one is evaluated.",
    )


def value_of(standing: Standing, metric: str) -> float | None:
    """What a training is judged by, None where it has none yet or it is no number."""
    found = {
        "val_loss": standing.measures.get("loss"),
        "best_loss": standing.best[1] if standing.best else None,
        "loss": standing.loss,
        "seconds": standing.seconds or None,  # of the session that goes on nobody asks
    }
    value = found[metric] if metric in found else standing.measures.get(metric.removeprefix(MEASURES))
    return value if value is not None and math.isfinite(value) else None


def former_training(search: Search, name: str) -> Former:
    """The result of a training that the store knows. Raises NotFound."""
    from panic.store import Store
    from panic.store.trainings import find_training

    with Store(search.store) as store:
        row = find_training(store, name)
    if row is None:
        raise NotFound(
            f"No training {name!r} in {search.store}.", hint="panic trainings shows what there is."
        )
    values = {"val_loss": row.val_loss, "best_loss": row.best_loss, "loss": row.loss, "seconds": row.seconds}
    value = values.get(search.metric, row.measures.get(search.metric.removeprefix(MEASURES)))
    return Former(uid=f"{row.uid} {row.folder}", name=row.name, config=row.config, value=value)
