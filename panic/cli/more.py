"""`panic embed` and `panic diagrams`: more vectors, diagrams and measures of runs that are in the store.

panic embed demo PocketText; panic diagrams demo --metric cosine --vectorisation entropy --distance bottleneck
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panic.cli.common import (
    DryRunOption,
    ExperimentArgument,
    JsonOption,
    Shared,
    command,
    complete_experiment,
    given_options,
    say,
    tell_options,
)
from panic.cli.features import Asked, compare_features, extract_features
from panic.cli.plan import print_plan
from panic.cli.run import TrustOption, bring_up_to_date, perform
from panic.cli.stored import tell_trust, trusted_config
from panic.errors import ConfigError, ModelError, PanicError, StoreCorrupt, UsageError, nearest

if TYPE_CHECKING:
    from panic.config import Problem
    from panic.models.protocol import ModelSpec
    from panic.models.registry import Resolver
    from panic.store import Store
    from panic.store.records import ExperimentRow, RunRow

NUM_TRIED = 8
"""Texts, and images, of an experiment that the states of a layer are tried out with."""
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


def complete_names(context: typer.Context, incomplete: str) -> list[str]:
    """The names of experiments, where one is to come first, and of embedding models, for the shell."""
    first = context.params.get("names") or context.params.get("folders") or context.params.get("texts")
    return ([] if first else complete_experiment(context, incomplete)) + complete_embedding(incomplete)


@command
def embed(
    shared: Shared,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[EXPERIMENT] MODEL...",
            help="An experiment, unless files are embedded, and embedding models, as in a config.",
            autocompletion=complete_names,
        ),
    ],
    folders: Annotated[
        list[str] | None,
        typer.Option("--folder", metavar="FOLDER", help="Embed the images of a folder; may be repeated."),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--texts", metavar="FILE", help="Embed the texts of a .txt, .csv, .jsonl; may be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.parquet", help="Where the vectors of files go."),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--id", metavar="PATTERN", help="Ids are what its group matches in names: _(\\d+)$."),
    ] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME", help="The column of texts (text).")] = None,
    device: Annotated[str | None, typer.Option(help="Where files are embedded (auto).")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=65_536, metavar="N", help="Files of a call (each model's own).")
    ] = None,
    regions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Regions of an image that a detector finds (36).")
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of an experiment: the states of this layer of generative models."),
    ] = None,
    pool: Annotated[
        Literal["mean", "last", "first", "cls"] | None,
        typer.Option(help="Over the tokens of a layer (mean)."),
    ] = None,
    token: Annotated[
        int | None,
        typer.Option(metavar="K", help="Instead the token at a place, from 0, or -1 from the end."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if files were skipped.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Tell how far two files of vectors differ.")
    ] = False,
    as_json: JsonOption = False,
    once: OnceOption = False,
    dry_run: DryRunOption = False,
    trust: TrustOption = False,
) -> None:
    """Embed the outputs of an experiment, or files, under more models; no generative model is loaded.

    \b
    panic embed EXPERIMENT MODEL...                         it asks for these embeddings from now on
    panic embed EXPERIMENT MODEL... --layer NAME            hidden states of its models, or of others
    panic embed --folder FOLDER MODEL... -o FILE.parquet    the images of folders
    panic embed --texts FILE MODEL... -o FILE.parquet       the texts of files
    panic embed --compare FILE.parquet FILE.parquet         how far two of them differ

    Of files the same command goes on where it was stopped, and embeds what is new or has changed.
    """
    of_files: dict[str, object] = {"-o": output, "--id": pattern, "--column": column, "--device": device}
    of_files |= {"--batch-size": batch_size, "--regions": regions, "--strict": strict}
    if compare:
        return compare_features(names, as_json=as_json)
    tell_options({"--json": as_json}, "without --compare")
    if folders or texts:
        of_experiments = {"--once": once, "--trust": trust, "--layer": layer, "--pool": pool}
        tell_options({**of_experiments, "--token": token is not None}, "for files")
        asked = Asked(
            models=names,
            output=output,
            folders=folders or [],
            texts=texts or [],
            pattern=pattern,
            column=column,
            device=device,
            batch_size=batch_size,
            regions=regions,
            strict=strict,
        )
        return extract_features(shared, asked, dry_run=dry_run)
    if given := given_options(of_files):
        raise UsageError(f"{given[0]} is for files.", hint="--folder FOLDER or --texts FILE names them.")
    experiment, *models = names
    if not models:
        raise UsageError(
            "A model is needed.", hint=f"panic embed {experiment} MODEL; panic models lists them."
        )
    variants = _hidden(models, layer, pool, token)
    named: dict[str, Any] = {"embeddings": list(variants) or [_from_here(name) for name in models]}
    if variants:
        named["models"] = variants
    if once:
        named |= {"diagrams": [], "vectorisations": [], "distances": []}
    return _take(shared, experiment, named, once=once, dry_run=dry_run, trust=trust)


def _hidden(
    models: list[str], layer: str | None, pool: str | None, token: int | None
) -> dict[str, dict[str, Any]]:
    """The variants of models that stand for the states of a layer, by names that tell which."""
    if layer is None:
        tell_options({"--pool": pool, "--token": token is not None}, "without --layer")
        return {}
    if pool is not None and token is not None:
        raise UsageError("--token is one position, and --pool several.", hint="Leave one of them out.")
    given = {"layer": layer, "pool": pool, "token": token}
    settings = {name: value for name, value in given.items() if value is not None}
    where = "@".join([layer, *(str(value) for value in (pool, token) if value is not None)])
    return {
        f"{Path(name.rpartition(':')[2]).name}@{where}": {"base": _from_here(name), **settings}
        for name in models
    }


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
    from panic.engine.trust import require_trust
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
    known = trusted_config(row, trust=trust, is_all=False)
    if not runs:
        raise UsageError(f"{row.name} has no outputs yet.", hint=f"panic resume {row.name} makes them.")
    if known.embeddings == [] and "embeddings" not in asked:
        raise UsageError(
            f"{row.name} has no embeddings, and diagrams are of vectors.",
            hint=f"First panic embed {row.name} MODEL.",
        )
    added = asked.get("models", {})
    if added:
        asked = {**asked, "models": known.model_dump(mode="json")["models"] | added}
    config = asking(known, {**asked, "max_length": max(run.max_length for run in runs)})
    if not once:
        config = union(known, config).model_copy(update={"max_length": config.max_length})
    raw = config.model_dump(mode="json")
    models = registry.resolver_of(raw, ask=not dry_run, has_begun=True)
    lost = {name: spec for name, spec in begun_with.items() if isinstance(models.get(name), PanicError)}
    require_trust(known, is_trusted=trust, described=lost)
    tell_trust(known, trust=trust, described=lost)
    for name, spec in lost.items():
        models.keep(name, spec)
    # Its networks and their variants were checked when it began, and need not be here any more.
    own = {name: variant for name, variant in raw["models"].items() if name not in begun_with}
    of_new = raw | {"networks": [], "arms": {}, "models": own}
    _refuse(registry.check_config(of_new, models))
    num_unfinished = sum(run.state in ("todo", "running") for run in stored_runs)
    if num_unfinished and not shared.quiet:
        of_ended = ", and diagrams are of ended runs alone" if config.diagrams else ""
        told = f"{num_unfinished:,} unfinished runs do not go on here{of_ended}"
        say(f"{row.name}: {told} (panic resume {row.name} performs all).", err=True)
    _tell_blind(row.name, models, asked.get("embeddings", ()), begun_with.values(), stored_runs)
    checked = CheckedConfig(config=config, models=models, is_once=once)
    if added and not dry_run:
        with shared.open_store() as store:
            inputs = _some_of(store, row)
        _try_out(models, list(added), config.device, inputs)
    if dry_run:
        return print_plan(checked, store.path, runs)
    return perform(shared, checked, store.path, retry_failed=False, repair=False, runs=runs)


def _tell_blind(
    experiment: str,
    models: Resolver,
    embeddings: Iterable[str],
    begun_with: Iterable[ModelSpec],
    runs: Iterable[RunRow],
) -> None:
    """Name embedding models that take nothing of what an experiment has."""
    from panic.store.codec import prompt_modality

    has = {str(spec.modality_out) for spec in begun_with} | {prompt_modality(run.prompt) for run in runs}
    for name in embeddings:
        spec = models.get(name)
        if not isinstance(spec, PanicError) and has.isdisjoint(map(str, spec.modalities_in)):
            takes = " and ".join(f"{modality}s" for modality in spec.modalities_in)
            say(f"{name} is of {takes}, and {experiment} has none: it has nothing to embed there.", err=True)


def _some_of(store: Store, row: ExperimentRow) -> dict[str, list[Any]]:
    """Texts and images of an experiment, by modality: small and large ones, those without pixels left out."""
    from panic.store import contents

    texts = [one.text for one in contents.by_size(store, row.id, "text", NUM_TRIED)]
    images: list[Any] = []
    for one in contents.by_size(store, row.id, "image", NUM_TRIED):
        with contextlib.suppress(StoreCorrupt):
            images.append(contents.image(store, one.digest))
    return {"text": texts, "image": images}


def _try_out(
    models: Resolver,
    names: Sequence[str],
    asked: str | Sequence[str],
    inputs: Mapping[str, Sequence[Any]],
) -> None:
    """Call models before an experiment asks for them: which layers and tokens there are only they know."""
    from panic.devices.device import members, open_devices
    from panic.extraction.worker import try_out

    device = open_devices(asked)
    first = members(device)[0].name
    try:
        try_out({name: models.resolve(name, device.kind.split()[0]) for name in names}, first, inputs)
    except ModelError as error:
        raise ModelError(error.message, hint=f"{error.hint}\nNothing was done.".strip()) from error


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
    if len(text) > 40 or not dimension.isdecimal() or not (delay or "1").isdecimal():
        raise UsageError(f"--window {text[:40]}: a window is N or N:DELAY, for example 5:2.")
    return {"dimension": int(dimension), "delay": int(delay or 1)}


def _yaml(option: str, text: str) -> Any:
    """A kind, or a mapping of a kind and its settings, as a config writes it."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # also no date, and thousands of digits or brackets
        value = None
    if isinstance(value, str | Mapping):
        return value
    raise UsageError(f"{option} {text[:200]}: a kind or a mapping is needed, as a config has it.")
