"""Failed runs once more with other parameters: a branch of each, as an arm from the step that failed.

A model is never exchanged within a run. What was computed stays as it is, the failed run stays failed, and
the branch shares the steps before. What changes is a variant with a name of its own (`quick-steps=2`), with
which another network goes on from the failed step. Models that step in (of an arm) stay what they were.

    config, runs = branches(config, changed, [run for run in reading.runs(store, 1) if run.failure])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from panic.arms import BASELINE, network_at
from panic.config import ExperimentConfig
from panic.config.arms import InterventionSettings, branch_name
from panic.config.schema import FIELD_CLASSES, OPERATIONAL, Variant
from panic.config.sweeps import name_of
from panic.errors import UsageError
from panic.store.records import NewRun, RunRow


def branches(
    config: ExperimentConfig, changed: ExperimentConfig, failed: Sequence[RunRow]
) -> tuple[ExperimentConfig, list[NewRun]]:
    """Return the config with an arm for every branch, and the runs that branch off.

    Args:
        config: what the experiment was asked for.
        changed: the same with other parameters of models, which get names of their own.
        failed: runs that have failed.

    Raises: UsageError where something else was changed, or nothing that a failed run was going to call.
    """
    _refuse_others(config, changed)
    renamed, variants = _variants(config.models, changed.models)
    arms = {name: list(entries) for name, entries in config.arms.items()} or {BASELINE: []}
    runs = []
    for run in failed:
        if entries := _branch(config, run, renamed):
            name = branch_name(run.arm, entries)
            arms[name] = entries
            runs.append(
                NewRun(
                    network=run.network,
                    prompt=run.prompt,
                    seed=run.seed,
                    repeat=run.repeat,
                    max_length=run.max_length,
                    arm=name,
                )
            )
    if not runs:
        called = ", ".join(sorted({name for run in failed for name in run.network}))
        raise UsageError(
            "No failed run was going to call what --set changes.",
            hint=f"They call {called}; for example --set models.{failed[0].network[0]}.KEY=VALUE.",
        )
    operational = {name: getattr(changed, name) for name in _operational()}
    update = {**operational, "arms": arms, "models": {**config.models, **variants}}
    return config.model_copy(update=update), runs


def _operational() -> list[str]:
    return [name for name, mark in FIELD_CLASSES.items() if mark == OPERATIONAL]


def _refuse_others(config: ExperimentConfig, changed: ExperimentConfig) -> None:
    """Raise UsageError for changes of anything but models, and what is free to change anyway."""
    free = {"models", *_operational()}
    others = [
        name for name in FIELD_CLASSES if name not in free and getattr(config, name) != getattr(changed, name)
    ]
    if others:
        raise UsageError(
            f"--set changes {', '.join(others)}, and a branch has other parameters of models alone.",
            hint="panic again makes a new experiment with any change, panic extend a larger one.",
        )


def _variants(
    before: Mapping[str, Variant], after: Mapping[str, Variant]
) -> tuple[dict[str, str], dict[str, Variant]]:
    """The names that changed models have from now on, by their old ones, and what they are.

    A variant of a changed model is changed, too. One that an earlier branch has made keeps its name.
    """
    renamed: dict[str, str] = {}
    for name, variant in after.items():
        if before.get(name) != variant:
            same = (known for known, one in before.items() if known.startswith(f"{name}-") and one == variant)
            renamed[name] = next(same, f"{name}-{_told(before.get(name), variant)}")
    while more := {
        name: f"{name}-{renamed[variant.base]}"
        for name, variant in after.items()
        if variant.base in renamed and name not in renamed
    }:
        renamed |= more
    bases = {old: after[old].base for old in renamed}
    variants = {
        new: after[old].model_copy(update={"base": renamed.get(bases[old], bases[old])})
        if bases[old] != old  # one of its namesake in the table
        else after[old]
        for old, new in renamed.items()
    }
    return renamed, variants


def _told(before: Variant | None, after: Variant) -> str:
    """What a variant says that it did not say before: steps=2-guidance=1."""
    old = before.model_dump(mode="json") if before else {}
    new = after.model_dump(mode="json")
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) or (key in old) != (key in new)]
    if before is None:  # it says its base in any case, and nothing else that it leaves open
        keys = [key for key in keys if key != "base" and new[key] is not None]
    return "-".join(f"{key}={name_of(new.get(key))}" for key in keys) or "again"


def _branch(config: ExperimentConfig, run: RunRow, renamed: Mapping[str, str]) -> list[InterventionSettings]:
    """What steps into the branch of a failed run: what did before, and the changed network from the step on.

    Nothing where it was going to call no model that is changed.
    """
    step = run.failure.step if run.failure else 0
    now, begin = network_at(run.network, config.interventions.get(run.arm, ()), step)
    place = (step - begin) % len(now)
    network = [renamed.get(name, name) for name in (*now[place:], *now[:place])]
    if not set(now) & renamed.keys():
        return []
    kept = []
    for entry in config.arms.get(run.arm, []):
        if entry.network is None or (entry.at or 0) < step:
            kept.append(entry)
        elif (entry.at or 0) > step:
            later = [renamed.get(name, name) for name in entry.network]
            kept.append(entry.model_copy(update={"network": later}))
    return [*kept, InterventionSettings(at=step, network=network)]
