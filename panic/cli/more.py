"""`panic embed` and `panic diagrams`: more vectors, diagrams and measures of runs that are in the store.

panic embed demo PocketText; panic diagrams demo --metric cosine --vectorisation entropy --distance bottleneck
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panic.cli.common import ExperimentArgument, Shared, command, say
from panic.cli.run import DryRunOption, TrustOption, bring_up_to_date, perform, print_plan
from panic.cli.stored import trusted_config
from panic.errors import ConfigError, UsageError, nearest

if TYPE_CHECKING:
    from panic.config import Problem
    from panic.models.protocol import ModelSpec
    from panic.store import Store
    from panic.store.records import ExperimentRow

OnceOption = Annotated[
    bool,
    typer.Option(
        "--once",
        help="Only of what there is now: what the experiment asks for of further runs stays the same.",
    ),
]


def complete_embedding(incomplete: str) -> list[str]:
    """The names of embedding models that come with the package or are in its table, for the shell."""
    from panic.models import registry

    return [spec.name for spec in registry.known() if spec.is_embedding and spec.name.startswith(incomplete)]


@command
def embed(
    shared: Shared,
    experiment: ExperimentArgument,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Embedding models, as in a config.", autocompletion=complete_embedding
        ),
    ],
    once: OnceOption = False,
    dry_run: DryRunOption = False,
    trust: TrustOption = False,
) -> None:
    """Embed the outputs of an experiment under more models; no run goes on, no generative model is loaded.

    From now on the experiment asks for these embeddings, and for its diagrams of them.
    """
    named = [_from_here(name) for name in models]
    asked = {"embeddings": named}
    if once:
        asked |= {"diagrams": [], "vectorisations": [], "distances": []}
    _take(shared, experiment, asked, once=once, dry_run=dry_run, trust=trust)


@command
def diagrams(
    shared: Shared,
    experiment: ExperimentArgument,
    max_dimension: Annotated[
        int | None, typer.Option(min=0, max=2, metavar="N", help="Highest homology dimension (1).")
    ] = None,
    metric: Annotated[
        Literal["euclidean", "cosine", "chordal"] | None,
        typer.Option(help="Distance of two vectors (euclidean)."),
    ] = None,
    modality: Annotated[
        Literal["text", "image"] | None, typer.Option(help="Whose vectors are the points (text).")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="DISTANCE", help="Largest distance that is looked at.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="N[:DELAY]", help="Points are N vectors in a row, each DELAY later (1)."),
    ] = None,
    landmarks: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of more points take so many.")
    ] = None,
    generators: Annotated[
        bool, typer.Option("--generators", help="Also keep representative generators.")
    ] = False,
    vectorisations: Annotated[
        list[str] | None,
        typer.Option(
            "--vectorisation", metavar="KIND", help="Such as entropy, or {kind: landscape, range: [0, 2]}."
        ),
    ] = None,
    distances: Annotated[
        list[str] | None,
        typer.Option(
            "--distance", metavar="KIND", help="Such as bottleneck, or {kind: wasserstein, order: 2}."
        ),
    ] = None,
    once: OnceOption = False,
    dry_run: DryRunOption = False,
    trust: TrustOption = False,
) -> None:
    """Compute diagrams with more settings, and more of what is taken of them; no model is loaded.

    Without settings of its own it takes vectorisations and distances of the diagrams that the experiment has.
    Diagrams are of ended runs alone: how many have not ended is said on stderr.
    """
    given = {
        "max_dimension": max_dimension,
        "metric": metric,
        "modality": modality,
        "threshold": threshold,
        "window": window and _window(window),
        "landmarks": landmarks,
        "generators": generators or None,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    measures = {
        "vectorisations": [_yaml("--vectorisation", text) for text in vectorisations or []],
        "distances": [_yaml("--distance", text) for text in distances or []],
    }
    asked: dict[str, Any] = {name: of for name, of in measures.items() if of or once}
    if settings or not any(measures.values()):
        asked["diagrams"] = [settings]
    _take(shared, experiment, asked, once=once, dry_run=dry_run, trust=trust)


def _take(
    shared: Shared, experiment: str, asked: Mapping[str, Any], *, once: bool, dry_run: bool, trust: bool
) -> None:
    """Perform what is asked of the runs as far as they have come; they go on with `panic resume`."""
    from panic.cli.logs import silence_libraries
    from panic.config import asking, union
    from panic.engine.plan import CheckedConfig, begun_runs
    from panic.models import registry
    from panic.store import reading

    silence_libraries()
    if not dry_run:
        bring_up_to_date(shared.store_path())
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        stored_runs = reading.runs(store, row.id)
        runs = begun_runs(stored_runs)
        begun_with = _models_of(store, row)
    known = trusted_config(row, trust=trust)
    if not runs:
        raise UsageError(f"{row.name} has no outputs yet.", hint=f"panic resume {row.name} makes them.")
    if known.embeddings == [] and "embeddings" not in asked:
        raise UsageError(
            f"{row.name} has no embeddings, and diagrams are of vectors.",
            hint=f"First panic embed {row.name} MODEL.",
        )
    config = asking(known, {**asked, "max_length": max(run.max_length for run in runs)})
    if not once:
        config = union(known, config).model_copy(update={"max_length": config.max_length})
    raw = config.model_dump(mode="json")
    models = registry.resolver_of(raw, ask=not dry_run)
    for name, spec in begun_with.items():
        models.keep(name, spec)
    # Its networks and their variants were checked when it began, and need not be here any more.
    of_new = raw | {"networks": [], "models": {n: v for n, v in raw["models"].items() if n not in begun_with}}
    _refuse(registry.check_config(of_new, models))
    num_unfinished = sum(run.state in ("todo", "running") for run in stored_runs)
    if num_unfinished and not shared.quiet:
        of_ended = ", and diagrams are of ended runs alone" if config.diagrams else ""
        told = f"{num_unfinished:,} unfinished runs do not go on here{of_ended}"
        say(f"{row.name}: {told} (panic resume {row.name} performs all).", err=True)
    checked = CheckedConfig(config=config, models=models, is_once=once)
    if dry_run:
        return print_plan(checked, store.path, runs)
    return perform(shared, checked, store.path, retry_failed=False, repair=False, runs=runs)


def _models_of(store: Store, row: ExperimentRow) -> dict[str, ModelSpec]:
    """The models that an experiment has begun with, as its store keeps them in words of this version."""
    from panic.models.protocol import ModelSpec
    from panic.store import reading

    specs = {model.id: model.spec for model in reading.models(store)}
    found = {}
    for epoch in reading.epochs(store, row.id):
        with contextlib.suppress(TypeError, KeyError, ValueError):
            found[epoch.name] = ModelSpec.stored(specs[epoch.model])
    return found


def _refuse(found: Sequence[Problem]) -> None:
    """Raise ConfigError for models that are unknown or no embedding models, and for what does not fit."""
    told = []
    for problem in found:
        near = nearest(str(problem.found), problem.allowed) if problem.found is not None else []
        hint = f"did you mean {near[0]}?" if near else problem.hint
        told.append(f"{problem.message} ({hint})" if hint else problem.message)
    if told:
        raise ConfigError("\n".join(told), hint="Nothing was done.")


def _from_here(name: str) -> str:
    """A model's name whose path is relative to the working folder, as a config elsewhere can say it."""
    prefix, colon, path = name.partition(":")
    if not colon or prefix not in ("local", "python"):
        return name
    return f"{prefix}:{Path(path).expanduser().absolute()}"


def _window(text: str) -> dict[str, Any]:
    dimension, _, delay = text.partition(":")
    if not dimension.isdecimal() or not (delay or "1").isdecimal():
        raise UsageError(f"--window {text}: a window is N or N:DELAY, for example 5:2")
    return {"dimension": int(dimension), "delay": int(delay or 1)}


def _yaml(option: str, text: str) -> Any:
    """A kind, or a mapping of a kind and its settings, as a config writes it."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if isinstance(value, str | Mapping):
        return value
    raise UsageError(f"{option} {text}: a kind or a mapping is needed, as a config has it.")
