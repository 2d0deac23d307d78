"""The check of a config's models finds what is wrong with them before any of them is loaded.

`check_config` takes the raw mapping as it was parsed, which may be wrong in other ways, too (those are
the schema's to report): it looks at what has the right form and reports all problems at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from panic.config.arms import named_models, raw_arms
from panic.config.problems import Problem
from panic.config.prompt_origins import IMAGE
from panic.errors import ConfigError, PanicError, nearest
from panic.models import kinds
from panic.models.arm_fit import misfits
from panic.models.protocol import Modality, ModelSpec
from panic.models.resolve import Names, Resolver, UnknownModel, parameter_problems
from panic.models.table import TABLE

Path = tuple[str | int, ...]


class _Models:
    """The models that a raw config names, less the variants that the schema has to refuse."""

    def __init__(self, raw: Mapping[str, Any], resolver: Resolver) -> None:
        models = raw.get("models")
        self.named = list(models) if isinstance(models, Mapping) else []
        self.variants = resolver.names.variants
        self._resolver = resolver

    def get(self, name: str) -> ModelSpec | PanicError:
        if name in self.named and name not in self.variants:
            return ConfigError(f"{name} is no variant")  # the schema tells why
        return self._resolver.get(name)


def resolver_of(raw: Mapping[str, Any], *, ask: bool, has_begun: bool = False) -> Resolver:
    """A resolver for the models of a raw config, without the variants that have a wrong form.

    Args:
        ask: whether users' files may be run, in processes of their own, where their sources do not tell all.
        has_begun: as in `Names`.
    """
    models = raw.get("models")
    variants = {
        name: value
        for name, value in (models.items() if isinstance(models, Mapping) else ())
        if isinstance(name, str)
        and isinstance(value, Mapping)
        and isinstance(value.get("base"), str)
        and isinstance(value.get("revision"), str | None)
    }
    folder, base_folder = (
        value if isinstance(value, str) else None
        for value in (raw.get("model_folder"), raw.get("base_folder"))
    )
    notify = raw.get("notify")
    to = notify.get("to") if isinstance(notify, Mapping) else None
    hidden = [name for name in (to if isinstance(to, list) else [to]) if isinstance(name, str)]
    return Resolver(
        Names(
            variants=variants,
            model_folder=folder,
            base_folder=base_folder,
            ask=ask,
            hidden=hidden,
            has_begun=has_begun,
        )
    )


def check_config(raw: Mapping[str, Any], resolver: Resolver | None = None) -> list[Problem]:
    """All problems with the models of a raw config: unknown names and parameters, modalities that do not
    fit, embedding models that are none, diagrams of a modality that nothing embeds.

    Args:
        resolver: one from `resolver_of` that keeps the specs for whoever performs the config; without one
            nothing is asked of users' files. What is not known of a class without running it is not checked.
    """
    if resolver is None:
        resolver = resolver_of(raw, ask=False)
    specs = _Models(raw, resolver)
    try:
        resolver.user_models()
    except PanicError as error:  # every name would fail for the same reason
        return [Problem(("model_folder",), error.message, hint=error.hint)]
    problems = [problem for name in specs.variants for problem in _variant_problems(specs, name)]
    begins = _prompt_modalities(raw.get("prompts"))
    networks = raw.get("networks")
    for index, network in enumerate(networks if isinstance(networks, list) else []):
        if _is_network(network):
            problems += _network_problems(specs, network, ("networks", index), begins)
    problems += _arm_problems(specs, raw, begins) if raw.get("arms") else []
    return problems + _embedding_problems(specs, raw) + _endpoint_problems(specs, raw)


def _endpoint_problems(specs: _Models, raw: Mapping[str, Any]) -> list[Problem]:
    """Settings that only models behind endpoints have an effect on, or never do."""
    lists = [raw.get("embeddings"), *(n if isinstance(n := raw.get("networks"), list) else [])]
    names = {name for one in lists if isinstance(one, list) for name in one if isinstance(name, str)}
    names.update(named_models(raw) if raw.get("arms") else ())
    found = {name: specs.get(name) for name in sorted(names)}
    if any(isinstance(spec, PanicError) for spec in found.values()):
        return []
    known = {name: spec for name, spec in found.items() if isinstance(spec, ModelSpec) and not spec.unread}
    remote = {name for name, spec in known.items() if kinds.is_remote(spec)}
    problems = [
        Problem((field,), f"{field} has no effect: no model here is behind an endpoint", on_key=True)
        for field in ("budget", "stuck_after", "prices")
        if raw.get(field) and not remote
    ]
    if raw.get("budget") == {}:
        problems.append(Problem(("budget",), "budget has no effect: it limits neither requests nor tokens"))
    sizes, prices = raw.get("batch_sizes"), raw.get("prices")
    for name in sizes if isinstance(sizes, Mapping) else ():
        if name in remote:
            message = f"{name} is behind an endpoint: its requests are sent side by side, without batches"
            hint = "concurrency: N, beside its base_url, says how many"
            problems.append(Problem(("batch_sizes", name), message, hint=hint, on_key=True))
    for name in prices if remote and isinstance(prices, Mapping) else ():
        if name not in remote:
            message = f"no model behind an endpoint is called {name}"
            problems.append(
                Problem(("prices", name), message, found=name, allowed=sorted(remote), on_key=True)
            )
    return problems


def _unresolved(
    specs: _Models, error: PanicError, path: Path, fits: Callable[[ModelSpec], bool] = lambda spec: True
) -> Problem:
    """The problem with a name; of the known models those are told that fit its place."""
    if not isinstance(error, UnknownModel):
        return Problem(path, error.message, hint=error.hint)
    known = [(name, specs.get(name)) for name in error.candidates]
    allowed = [name for name, spec in known if isinstance(spec, ModelSpec) and fits(spec)]
    hint = error.hint
    if hint.startswith("did you mean"):  # told from `allowed`, unless it does not fit
        near = nearest(error.name, error.candidates)[0]
        hint = "" if nearest(error.name, allowed) else f"{near} is spelt like it, but does not fit here"
    return Problem(path, error.message, found=error.name, allowed=allowed, hint=hint)


def _variant_problems(specs: _Models, name: str) -> list[Problem]:
    variant = specs.variants[name]
    base, adapter = variant["base"], variant.get("adapter")
    if name in TABLE and base != name:
        return [Problem(("models", name), f"the name {name} is taken by a known model", on_key=True)]
    if adapter is not None and not _is_adapter(adapter):
        path = ("models", name, "adapter")
        return [Problem(path, "there is no such adapter", found=adapter, allowed=kinds.adapters())]
    spec = specs.get(name)
    if isinstance(spec, PanicError):
        if base in specs.named and base not in specs.variants:
            return []  # told by the schema, where the base is defined
        at_base = specs.get(base) if base in specs.variants and base != name else None
        if isinstance(at_base, PanicError) and at_base.message == spec.message:
            return []  # told once, where the base is defined
        return [_unresolved(specs, spec, ("models", name, "base"))]
    said = {new: old for old, new in kinds.kind_of(spec).former.items() if old in variant}
    found = [
        replace(problem, path=tuple(said.get(str(part), part) for part in problem.path))
        for problem in parameter_problems(spec)
    ]
    return [
        replace(problem, path=("models", name, *problem.path))
        for problem in found
        if not problem.path or problem.path[0] in variant
    ]


def _is_adapter(name: Any) -> bool:
    kind = kinds.named(name) if isinstance(name, str) else None
    return kind is not None and kind.weights == "files"


def _network_problems(specs: _Models, network: list[str], path: Path, begins: set[Modality]) -> list[Problem]:
    found: list[ModelSpec | None] = []
    problems = []
    for index, name in enumerate(network):
        spec = specs.get(name)
        place = (*path, index)
        if isinstance(spec, PanicError):
            if name not in specs.named:  # a variant's problem is told where it is defined
                problems.append(_unresolved(specs, spec, place, _fits_between(specs, network, index, begins)))
            found.append(None)
        elif spec.is_embedding:
            problems.append(
                Problem(
                    place,
                    f"{name} is an embedding model; a network takes generative ones",
                    hint="embeddings: lists those",
                )
            )
            found.append(None)
        else:
            if name not in specs.variants:
                problems += [replace(problem, path=place) for problem in parameter_problems(spec)]
            found.append(None if spec.unread else spec)
    return problems + _fit_problems(found, path, begins)


def _prompt_modalities(prompts: Any) -> set[Modality]:
    """What the prompts of a config are; not known of such as are not there, nor of entries with mistakes."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)] if isinstance(prompts, list) else []
    return {Modality.IMAGE if IMAGE.fullmatch(prompt) else Modality.TEXT for prompt in texts}


def _fits_between(
    specs: _Models, network: list[str], index: int, begins: set[Modality]
) -> Callable[[ModelSpec], bool]:
    """Return a test whether a model could stand at a place, as far as its neighbours there are known."""
    near = (specs.get(network[place % len(network)]) for place in (index - 1, index + 1))
    before, after = (spec if isinstance(spec, ModelSpec) and not spec.unread else None for spec in near)
    given = set(begins) if index == 0 else set()
    if before:
        given.add(before.modality_out)

    def fits(spec: ModelSpec) -> bool:
        return (
            not spec.is_embedding
            and given <= set(spec.modalities_in)
            and not (after and spec.modality_out not in after.modalities_in)
        )

    return fits


def _fit_problems(network: list[ModelSpec | None], path: Path, begins: set[Modality]) -> list[Problem]:
    problems = []
    first = network[0] if network else None
    for modality in sorted(begins - set(first.modalities_in)) if first else []:
        assert first is not None
        prompts = f"a prompt, which is {modality}" if len(begins) == 1 else f"each prompt, one is {modality}"
        message = f"{first.name} takes {_listed(first)}, but a network begins with {prompts}"
        hint = "prompts that are images: {images: FOLDER}" if modality is Modality.TEXT else ""
        problems.append(Problem((*path, 0), message, hint=hint))
    for index, (before, after) in enumerate(zip(network, [*network[1:], *network[:1]], strict=True)):
        if not before or not after or before.modality_out in after.modalities_in:
            continue
        misfit = f"{before.name} gives {before.modality_out}, but {after.name} takes {_listed(after)}"
        if index + 1 < len(network):
            problems.append(Problem((*path, index + 1), misfit))
        else:
            problems.append(Problem((*path, index), f"the last model is followed by the first: {misfit}"))
    return problems


def _is_network(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _arm_problems(specs: _Models, raw: Mapping[str, Any], begins: set[Modality]) -> list[Problem]:
    """Interventions of models that are none, or that do not fit where they are made."""
    problems: list[Problem] = []
    raws = raw.get("networks")
    networks = [network for network in (raws if isinstance(raws, list) else []) if _is_network(network)]
    for name, numbered in raw_arms(raw).items():
        found: list[Problem] = []
        for place, one in numbered:
            at: Path = ("arms", name, place, one.kind)
            if one.kind == "network":
                found += _network_problems(specs, list(one.value), at, set())
            elif one.kind == "model":
                found += _caller_problems(specs, one.model, at)
        for network in networks if not found else ():
            found += misfits(specs.get, network, numbered, begins, ("arms", name))
        problems += {problem.path: problem for problem in reversed(found)}.values()  # one for each place
    return problems


def _caller_problems(specs: _Models, name: str, place: Path) -> list[Problem]:
    """What is wrong with a model that steps in, wherever it does."""
    spec = specs.get(name)
    if isinstance(spec, PanicError):
        return [] if name in specs.named else [_unresolved(specs, spec, place, lambda s: not s.is_embedding)]
    if spec.is_embedding:
        return [Problem(place, f"{name} is an embedding model; a generative one can step in")]
    return (
        [replace(one, path=place) for one in parameter_problems(spec)] if name not in specs.variants else []
    )


def _listed(spec: ModelSpec) -> str:
    return " or ".join(spec.modalities_in)


def _embedding_problems(specs: _Models, raw: Mapping[str, Any]) -> list[Problem]:
    names = raw.get("embeddings", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    problems = []
    embedded: set[Modality] = set()
    failed = False
    for index, name in enumerate(names):
        spec = specs.get(name)
        place = ("embeddings", index)
        if isinstance(spec, PanicError):
            failed = True
            if name not in specs.named:
                problems.append(_unresolved(specs, spec, place, lambda spec: spec.is_embedding))
        elif spec.unread:
            failed = True
        elif not spec.is_embedding:
            problems.append(
                Problem(place, f"{name} gives {spec.modality_out}; an embedding model gives a vector")
            )
        else:
            embedded.update(spec.modalities_in)
    return problems if failed else problems + _diagram_problems(raw, embedded)


def _diagram_problems(raw: Mapping[str, Any], embedded: set[Modality]) -> list[Problem]:
    diagrams = raw.get("diagrams")
    if not isinstance(diagrams, Mapping):
        return []
    modality = diagrams.get("modality", "text")
    if modality not in ("text", "image") or modality in embedded:
        return []
    path: Path = ("diagrams", "modality") if "modality" in diagrams else ("diagrams",)
    hint = "embeddings: needs a model that does" if embedded else "embeddings: is empty"
    return [
        Problem(
            path, f"diagrams of {modality} need vectors, but no embedding model takes {modality}", hint=hint
        )
    ]
