"""`panic optimize`: parameters for which a metric is largest or least, looked for by Optuna.

panic optimize configs/demo.yaml --maximise entropy --trials 50

Every trial is an experiment, NAME-trial-0003, with the tag `optimize-NAME`; they are performed one after
another. Of a training's config every trial is a training, OUTPUT-trial-0003. What is known of them is in
studies/NAME.journal of the store: the same command goes on, also after a kill, and then finishes the trial
that was under way first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.best import complete_metric
from panic.cli.common import DryRunOption, Shared, command, complete_experiment
from panic.cli.origin import enforce_clean
from panic.cli.render import console, print_table
from panic.cli.trials import (
    Direction,
    Search,
    add_former,
    check_trial,
    former_experiment,
    go_on,
    open_study,
    perform_experiment,
    value_of,
)
from panic.errors import PanicError, UsageError, nearest

if TYPE_CHECKING:
    from panic.config.problems import Document

SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "qmc": "QMCSampler", "gp": "GPSampler"}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}


@command
def optimize(
    shared: Shared,
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="An experiment's or a training's config with a space.")
    ],
    maximise: Annotated[
        str | None,
        typer.Option("--maximise", metavar="METRIC", help="Most of it.", autocompletion=complete_metric),
    ] = None,
    minimise: Annotated[
        str | None,
        typer.Option("--minimise", metavar="METRIC", help="Least of it.", autocompletion=complete_metric),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, metavar="N", help="How many in all.")] = 50,
    sampler: Annotated[
        str, typer.Option("--sampler", metavar="NAME", help=f"One of {', '.join(SAMPLERS)}.")
    ] = "tpe",
    pruner: Annotated[
        str, typer.Option("--pruner", metavar="NAME", help=f"One of {', '.join(PRUNERS)}.")
    ] = "none",
    former: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="EXPERIMENT",
            help="Its result (or a training's) counts as a trial; may be repeated.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting; may be given several times."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Look for parameters of a config for which a metric is largest or least.

    Of an experiment's config it is the mean of a metric over runs, of a training's val_loss, best_loss, loss,
    seconds or measures.NAME. The config says where: {optimize: {from: 1, to: 8, whole: true}} or
    {optimize: {values: [a, b]}} in the place of a value. The same command goes on where it stopped.
    """
    from panic.cli.logs import silence_libraries

    silence_libraries()
    if (maximise is None) == (minimise is None):
        raise UsageError("Give either --maximise METRIC or --minimise METRIC.")
    direction: Direction = "maximize" if maximise else "minimize"
    search = _search(shared, config, overrides or [], (maximise or minimise or "", direction, trials))
    chosen = (_known("sampler", sampler, SAMPLERS), _known("pruner", pruner, PRUNERS))
    least = {one.name: json.dumps(one.values[0]) if one.values else one.least for one in search.space}
    if search.is_training:
        from panic.cli.training_trials import check_training, former_training, perform_training

        check_training(search, least, 0)
        hidden: list[str] = []
        perform, former_of = perform_training, former_training
    else:
        hidden = check_trial(search, least).config.secrets
        perform, former_of = perform_experiment, former_experiment
    print_table(["parameter", "among"], [(one.name, one.told()) for one in search.space])
    if dry_run:
        what = "trainings" if search.is_training else "experiments"
        console().print(f"{trials:,} {what} {search.name_of(0)} and so on in {search.store}")
        return None
    enforce_clean(None, [config], [search.store], hidden)
    with open_study(search, *chosen) as study:
        for name in former or ():
            add_former(search, study, former_of(search, name))
        go_on(shared, search, study, perform)
        return _print_best(search, study)


def _known(what: str, name: str, among: Mapping[str, str]) -> str:
    if name in among:
        return among[name]
    near = nearest(name, among)
    raise UsageError(
        f"There is no {what} {name!r}.",
        hint=f"Did you mean {near[0]}?" if near else f"There are {', '.join(among)}.",
    )


def _search(
    shared: Shared, path: Path, overrides: Sequence[str], wanted: tuple[str, Direction, int]
) -> Search:
    """What is looked for. Raises ConfigError, UsageError."""
    from panic.config import problems, sources
    from panic.config.fields import check_name
    from panic.config.load import apply_override
    from panic.config.problems import Source
    from panic.config.searching import search_space
    from panic.errors import ConfigError

    metric, direction, trials = wanted
    document: Document = sources.read(path)
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}: a config is a mapping (key: value)")
    for number, text in enumerate(overrides, start=1):
        apply_override(document, Source(name="override", text=text, number=number))
    is_training = "task" in document.data and "networks" not in document.data
    _require_metric(metric, is_training=is_training)
    if document.problems:
        raise ConfigError(problems.render(document.problems, document))
    space = search_space(document)
    key = "output" if is_training else "name"
    said = document.data.get(key, "")
    try:
        name = check_name(Path(said).name if is_training else said)
    except (TypeError, ValueError):
        what = f"the last part of '{key}'" if is_training else f"the value of '{key}'"
        raise ConfigError(
            f"{path}: {what} is missing, or is no name", hint="A name has letters, digits, . _ -"
        ) from None
    said = document.data.get("store")
    of_config = path.absolute().parent / Path(said).expanduser() if isinstance(said, str) else None
    return Search(
        path=path,
        name=name,
        metric=metric,
        direction=direction,
        trials=trials,
        changes=tuple(overrides),
        space=tuple(space),
        store=shared.store_path(of_config),
        is_training=is_training,
    )


def _require_metric(name: str, *, is_training: bool) -> None:
    """Raise UsageError for what is no metric of experiments, or of trainings, naming the nearest."""
    from panic.analysis.metrics import METRICS

    if is_training:
        from panic.cli.training_trials import check_metric

        check_metric(name)
    elif name not in METRICS:
        near = nearest(name, METRICS)
        there_are = f"There are {', '.join(METRICS)}."
        raise UsageError(
            f"No metric is called {name!r}.", hint=f"Did you mean {near[0]}?" if near else there_are
        )


def _print_best(search: Search, study: Any) -> None:
    from optuna.trial import TrialState

    counts = {
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    numbers = {what: sum(t.state == state for t in study.trials) for what, state in counts.items()}
    console().print(", ".join(f"{number:,} {what}" for what, number in numbers.items() if number))
    if not numbers["complete"]:
        raise PanicError("No trial has a value.", hint="The messages above tell why.")
    found = study.best_trial
    former = "former" in found.user_attrs
    name = "a former result" if former else search.name_of(found.number)
    console().print(f"The {'most' if search.direction == 'maximize' else 'least'} {search.metric}"
                    f" is {found.value:.6g}, of {name}:")  # fmt: skip
    by_name = {one.name: one for one in search.space}
    rows = [(key, value_of(by_name[key], value)) for key, value in found.params.items() if key in by_name]
    print_table(["parameter", "value"], rows)
    lister = "trainings" if search.is_training else "list"
    console().print(f"All of them: panic {lister} --where \"'{search.tag}' in tags\"")
