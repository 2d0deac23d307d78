"""The trials of `panic optimize`: a study that one process works on, and its experiments, one after another.

Trials that are trainings are performed by `training_trials.py`.

with open_study(search, "TPESampler", "NopPruner") as study:
    go_on(shared, search, study, perform_experiment)
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from panic.cli.common import Shared, check_given, say, say_error
from panic.cli.render import console
from panic.cli.run import perform
from panic.errors import ConflictError, Interrupted, PanicError, StoreCorrupt, StoreError, UsageError

if TYPE_CHECKING:
    from panic.config.searching import Dimension
    from panic.engine.plan import CheckedConfig
    from panic.engine.progress import Progress

Direction = Literal["minimize", "maximize"]

MOST_FAILURES = 3
"""Trials of one call that may fail before the first one succeeds."""
PARTS = 10
"""A running trial's metric is reported after every tenth of its invocations."""


UNBEGUN = "unbegun"
"""An attribute of a study: the numbers of trials that a kill left without parameters."""
UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, AssertionError, RecursionError)
"""What reading a damaged study can raise."""


class Pruned(Interrupted):
    """A trial whose metric is worse than that of others so far; what it has computed is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for, and how.

    path: of the config. changes: overrides of all trials. store: its folder. is_training: the trials are.
    """

    path: Path
    name: str
    metric: str
    direction: Direction
    trials: int
    changes: Sequence[str]
    space: Sequence[Dimension]
    store: Path
    is_training: bool = False

    def name_of(self, trial: int) -> str:
        """What the trial of a number is called."""
        return f"{self.name}-trial-{trial:04d}"

    @property
    def tag(self) -> str:
        """What all trials are tagged with."""
        return f"optimize-{self.name}"[:64]

    @property
    def file(self) -> Path:
        """Where the study is kept."""
        return self.store / "studies" / f"{self.name}.journal"


@contextmanager
def open_study(search: Search, sampler: str, pruner: str) -> Iterator[Any]:
    """The study of a search, which one process works on at a time.

    Raises UsageError where Optuna is not installed, ConflictError for a study of something else.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UsageError(
            f"panic optimize needs Optuna, and it cannot be imported: {error}.",
            hint="The extra `optimize` has it: pip install 'panic[optimize]', or pip install optuna.",
        ) from None
    from panic.store import Store
    from panic.store.files import own_folder, refuse_link

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with Store(search.store, write=True, create=True):
        pass  # a folder with a study in it alone would not become a store
    own_folder(search.store, search.file.parent.name)
    refuse_link(search.file)
    with search.file.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(
                f"Another process works on the study {search.file}.", hint="panic list shows its trials."
            ) from None
        _mend(file)
        search.file.with_name(f"{search.file.name}.lock").unlink(missing_ok=True)  # of a killed process
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(search.file))),
                study_name=search.name,
                direction=search.direction,
                load_if_exists=True,
            )
            number = len(study.trials)
            _refuse_other(search, study)
            _require_space(search, study)
        except UNREADABLE:
            raise StoreCorrupt(
                f"The study {search.file} is damaged.",
                hint="Move it away; its trials are experiments, and count again with --from.",
            ) from None
        # A sampler that begins again with the seed that it had would draw again what it has drawn.
        study.sampler = getattr(optuna.samplers, sampler)(seed=number)
        study.pruner = getattr(optuna.pruners, pruner)()
        yield study


def _mend(file: Any) -> None:
    """Cut off a last line that a kill left half written."""
    file.seek(0)
    content = file.read()
    if content and not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)


def _refuse_other(search: Search, study: Any) -> None:
    """Raise ConflictError if the study was of another metric, direction or space."""
    now = {
        "metric": search.metric,
        "direction": search.direction,
        "space": {one.name: one.told() for one in search.space},
    }
    known = study.user_attrs.get("search")
    if known is None:
        study.set_user_attr("search", now)
    elif known != now:
        what = ", ".join(key for key in now if known.get(key) != now[key])
        raise ConflictError(
            f"The study {search.name} in {search.store} has another {what}.",
            hint="Give the experiment another name (--set name=NAME) for a study of its own.",
        )


def _require_space(search: Search, study: Any) -> None:
    """Raise ConflictError for a study with a trial whose parameters were drawn from another space."""
    space = _distributions(search)
    for one in study.trials:
        for name, among in one.distributions.items():
            if space.get(name, among) != among:
                whose = f"The study {search.name} in {search.store}"
                raise ConflictError(
                    f"{whose} has another space: that of {name} in trial {one.number}.",
                    hint="Give the experiment another name (--set name=NAME) for a study of its own.",
                )


def _distributions(search: Search) -> dict[str, Any]:
    from optuna import distributions

    found: dict[str, Any] = {}
    for one in search.space:
        if one.values:
            found[one.name] = distributions.CategoricalDistribution([json.dumps(v) for v in one.values])
        elif one.is_whole:
            low, high = round(one.low), round(one.high)
            found[one.name] = distributions.IntDistribution(low, high, log=one.is_log)
        else:
            found[one.name] = distributions.FloatDistribution(one.low, one.high, log=one.is_log)
    return found


def values_of(search: Search, parameters: Mapping[str, Any]) -> list[str]:
    """The parameters of a trial as overrides."""
    return [f"{one.name}={value_of(one, parameters[one.name])}" for one in search.space]


def value_of(one: Dimension, parameter: Any) -> str:
    """A parameter of a trial as an override writes it."""
    return str(parameter) if one.values else json.dumps(parameter)


def go_on(
    shared: Shared, search: Search, study: Any, perform: Callable[[Shared, Search, Any], float]
) -> None:
    """Perform trials until there are as many as wanted; one that was under way comes first."""
    from optuna.trial import Trial, TrialState

    space, failed, kept_at = _distributions(search), 0, _place(search.file)

    def tell(trial: Any, **outcome: Any) -> None:
        if _place(search.file) != kept_at:
            raise StoreError(
                f"The study {search.file} was removed or replaced while it was worked on.",
                hint="Its trials are experiments, and count again with --from.",
            )
        study.tell(trial, **outcome)

    _fail_unbegun(study, space)
    under_way = [Trial(study, one._trial_id) for one in study.trials if one.state == TrialState.RUNNING]
    while under_way or len(_own(study)) < search.trials:
        trial = under_way.pop(0) if under_way else study.ask(space)
        try:
            value = perform(shared, search, trial)
        except Pruned:
            tell(trial, state=TrialState.PRUNED)
            continue
        except Interrupted:
            raise
        except PanicError as error:
            tell(trial, state=TrialState.FAIL)
            failed += 1
            if failed >= MOST_FAILURES and not any(t.state == TrialState.COMPLETE for t in study.trials):
                raise
            say_error(f"trial {trial.number:,}: {error.message}", error.hint)
            continue
        tell(trial, values=value)
        if not shared.quiet:
            console().print(f"trial {trial.number:,}: {search.metric} {value:.6g}")


def _place(file: Path) -> tuple[int, int] | None:
    """Which file is at a path; None where there is none."""
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _fail_unbegun(study: Any, space: Mapping[str, Any]) -> None:
    """Give up trials whose parameters a kill left unwritten: they have no experiment, and none can be made.

    The journal takes a trial and each of its parameters as lines of their own. A store's maker may have
    written others than the config asks for, which would be a model of theirs: of that none is made either.
    """
    from optuna.trial import TrialState

    for one in study.trials:
        if one.state == TrialState.RUNNING and not all(
            name in one.params and _contains(among, one.params[name]) for name, among in space.items()
        ):
            study.set_user_attr(UNBEGUN, [*study.user_attrs.get(UNBEGUN, []), one.number])
            study.tell(one.number, state=TrialState.FAIL)


def _own(study: Any) -> list[Any]:
    """The trials that were performed, neither those that former results are nor those that never began."""
    unbegun = study.user_attrs.get(UNBEGUN, [])
    return [
        trial for trial in study.trials if "former" not in trial.user_attrs and trial.number not in unbegun
    ]


def check_trial(search: Search, parameters: Mapping[str, Any], *changes: str) -> CheckedConfig:
    """The config of a trial. Raises ConfigError."""
    return check_given(
        search.path,
        [*search.changes, *values_of(search, parameters), *changes],
        ask=True,
        store=lambda _: search.store,
    )


def perform_experiment(shared: Shared, search: Search, trial: Any) -> float:
    """Perform a trial as an experiment, or go on with it; its value. Raises Pruned, PanicError."""
    from panic.errors import ModelError

    name = search.name_of(trial.number)
    checked = check_trial(search, trial.params, f"name={json.dumps(name)}")
    values = values_of(search, trial.params)
    tags = list(dict.fromkeys([*checked.config.tags, search.tag]))
    label = ", ".join(values)[:200]
    config = checked.config.model_copy(update={"tags": tags, "label": checked.config.label or label})
    checked = replace(checked, config=config)
    if not shared.quiet:
        say(f"{name}: {label}", err=True)
    hear = _Watch(search, name, trial)
    try:
        perform(shared, checked, search.store, retry_failed=False, repair=False, hear=hear)
    except typer.Exit:
        raise ModelError(f"{name} has runs that failed.", hint=f"panic show {name} tells where.") from None
    value = _mean(search, name)
    if value is None:
        raise UsageError(f"No run of {name} has a {search.metric}.", hint="panic compare shows the metrics.")
    return value


def _mean(search: Search, name: str) -> float | None:
    """The mean of the metric over the runs of an experiment that have it, as far as they are."""
    from panic.analysis.data import load
    from panic.analysis.metrics import metric
    from panic.store import Store, reading

    with Store(search.store) as store:
        mean = (
            metric(load(store, reading.experiment(store, name).id), search.metric)["value"]
            .drop_nulls()
            .mean()
        )
    return mean if isinstance(mean, float) else None


class _Watch:
    """Reports a running trial's metric after every part of its invocations; stops it where that is bad."""

    def __init__(self, search: Search, name: str, trial: Any) -> None:
        self._value: Callable[[], float | None] = partial(_mean, search, name)
        self._name, self._trial = name, trial
        self._is_asked = type(trial.study.pruner).__name__ != "NopPruner"
        self._reported = 0

    def __call__(self, progress: Progress) -> None:
        """Hear how far the trial is. Raises Pruned."""
        if not self._is_asked or not progress.invocations_total:
            return
        part = PARTS * progress.invocations // progress.invocations_total
        if part <= self._reported or part >= PARTS or (value := self._value()) is None:
            return
        for step in range(self._reported + 1, part + 1):
            self._trial.report(value, step)
        self._reported = part
        if self._trial.should_prune():
            raise Pruned(f"{self._name} is pruned: {value:.6g} after {10 * part} % of its invocations.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """A result that was there before: of what, with which config, and its value, if it has one."""

    uid: str
    name: str
    config: Mapping[str, Any]
    value: float | None


def former_experiment(search: Search, name: str) -> Former:
    """The result of an experiment. Raises NotFound."""
    from panic.store import Store, reading

    with Store(search.store) as store:
        row = reading.experiment(store, name)
    return Former(uid=row.uid, name=row.name, config=row.config, value=_mean(search, row.name))


def add_former(search: Search, study: Any, former: Former) -> None:
    """Let a former result count as a trial, once; tells why where it cannot."""
    import optuna

    if any(trial.user_attrs.get("former") == former.uid for trial in study.trials):
        return
    space, parameters = _distributions(search), {}
    for one in search.space:
        value: Any = former.config
        for key in one.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        parameters[one.name] = json.dumps(value) if one.values else value
    lacking = [
        name for name, value in parameters.items() if value is None or not _contains(space[name], value)
    ]
    if lacking or former.value is None:
        why = f"it has no {', '.join(lacking)} of the space" if lacking else f"it has no {search.metric}"
        say(f"{former.name} is no trial: {why}.", err=True)
        return
    study.add_trial(
        optuna.trial.create_trial(
            params=parameters,
            distributions=space,
            value=former.value,
            user_attrs={"former": former.uid},
        )
    )


def _contains(distribution: Any, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
