"""What an experiment has been asked for in all: the union of the configs performed under its name.

A config's *extent* may grow and shrink; the union only grows. What is *fixed* never changes: `contradictions`
finds the values that say otherwise.

Try it: `union(stored(row.config, row.name), load("configs/demo.yaml"))`
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from panic.arms import BASELINE, models_of
from panic.config.schema import ExperimentConfig
from panic.errors import ConfigError

Join = Callable[[Any, Any], Any]


def _joined(known: Sequence[Any], asked: Sequence[Any]) -> list[Any]:
    """Return what either list holds, each entry once, what was known first."""
    return [*known, *(entry for entry in asked if entry not in known)]


def _joined_parts(known: Sequence[Any], asked: Sequence[Any]) -> list[Any]:
    """Return the parts of either list, each once by its key."""
    keys = [part.key for part in known]
    return [*known, *(part for part in asked if part.key not in keys)]


def _joined_arms(known: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arms of either mapping; one that names none means the baseline."""
    if not known and not asked:
        return {}
    return {**(known or {BASELINE: []}), **(asked or {BASELINE: []})}


def _joined_labels(known: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the labels of the prompts of either mapping, as they were given last."""
    return {**known, **asked}


EXTENT_JOINS: dict[str, Join] = {
    "networks": _joined,
    "prompts": _joined,
    "seeds": _joined,
    "embeddings": _joined,
    "repeats": max,
    "max_length": max,
    "arms": _joined_arms,
    "labels": _joined_labels,
    "diagrams": _joined_parts,
    "vectorisations": _joined_parts,
    "distances": _joined_parts,
}
"""How two values of every field of the class *extent* become one."""
TAKEN_OF_RUNS = ("embeddings", "diagrams", "vectorisations", "distances")
"""Fields that apply to all runs of an experiment."""


def union(known: ExperimentConfig, asked: ExperimentConfig) -> ExperimentConfig:
    """Return the config of everything that either config asks for; all else is as it was asked last.

    Networks, prompts, seeds and repeats are joined field by field, so their product may have runs that
    nobody asked for; which runs were asked for is what the store's table of runs says.

    Raises: ConfigError where the product is beyond what one experiment may have.
    """
    values: dict[str, Any] = {
        name: join(getattr(known, name), getattr(asked, name)) for name, join in EXTENT_JOINS.items()
    }
    values["models"] = {**known.models, **asked.models}
    of_others = {name: size for name, size in known.batch_sizes.items() if name not in _models(asked)}
    values["batch_sizes"] = of_others | asked.batch_sizes
    joined = asked.model_copy(update=values)
    try:
        return ExperimentConfig.model_validate(joined.model_dump(mode="json"))
    except ValidationError as error:
        told = "; ".join(item["msg"] for item in error.errors())
        raise ConfigError(
            f"together with what {asked.name} was asked for before, this is too much: {told}",
            hint="Give the experiment another name: --name NAME.",
        ) from None


def asking(known: ExperimentConfig, asked: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config with these values of its extent in place of its own.

    Raises: ConfigError with what is wrong with them.
    """
    try:
        return ExperimentConfig.model_validate({**known.model_dump(mode="json"), **asked})
    except ValidationError as error:
        told = [".".join(map(str, (*item["loc"], ""))) + f" {item['msg']}" for item in error.errors()]
        raise ConfigError("; ".join(text.lstrip(". ") for text in told)) from None


def asks_all(config: ExperimentConfig, of: ExperimentConfig) -> bool:
    """Whether a config asks for everything that a union takes of its runs."""
    return all(
        len(EXTENT_JOINS[name](getattr(config, name), getattr(of, name))) == len(getattr(config, name))
        for name in TAKEN_OF_RUNS
    )


def contradictions(
    known: ExperimentConfig, asked: ExperimentConfig, unchanged: Collection[str] = ()
) -> dict[str, str]:
    """Return a sentence with both values for every fixed field or model that has another value, by its name.

    Args:
        unchanged: models whose results are known to be what they were, however they are written.
    """
    found = {
        name: f"{name} is {_text(getattr(asked, name), 'not set')}; "
        f"{known.name} started with {_text(getattr(known, name), 'none')}"
        for name in ("root_seed", "reject_constant_images", "stuck_after")
        if getattr(asked, name) != getattr(known, name)
    }
    known_arms, arms = known.interventions, asked.interventions
    for name in sorted(known_arms.keys() & arms.keys()):
        if known_arms[name] != arms[name]:
            found[f"arms.{name}"] = (
                f"the arm '{name}' is {_arm_text(asked, name)}; "
                f"{known.name} started with {_arm_text(known, name)}"
            )
    for model in sorted((_models(known) & _models(asked)) - set(unchanged)):
        here, there = _definitions(asked, model), _definitions(known, model)
        for name in here | there:
            if here.get(name) != there.get(name):
                found[model] = (
                    f"the variant '{name}' is {_text(here.get(name))}; "
                    f"{known.name} started with {_text(there.get(name))}"
                )
    return found


def _models(config: ExperimentConfig) -> set[str]:
    arms = {name for arm in config.interventions.values() for name in models_of((), arm)}
    return {name for network in config.networks for name in network} | arms | set(config.embeddings)


def _arm_text(config: ExperimentConfig, name: str) -> str:
    return "[" + ", ".join(_text(one.model_dump(exclude_none=True)) for one in config.arms[name]) + "]"


def _definitions(config: ExperimentConfig, model: str) -> dict[str, dict[str, Any]]:
    """Return what the config says about a model: its variant, that variant's base, and so on."""
    found: dict[str, dict[str, Any]] = {}
    name = model
    while name in config.models and name not in found:
        found[name] = config.models[name].model_dump(mode="json", exclude_none=True)
        name = config.models[name].base
    return found


def _text(value: Any, nothing: str = "no variant of this config") -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return nothing if value is None else str(value)
