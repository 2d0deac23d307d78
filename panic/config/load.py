"""Files into experiment configs: read, override, expand, check; all mistakes told at once.

`load` returns a config whose relative paths are resolved against the config's folder, or raises one
ConfigError that lists every mistake with its place. `to_yaml` writes a resolved config as a file that
reruns it.

Try it: `python -c "from panic.config import load; print(load('configs/demo.yaml', ['max_length=5']))"`
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeGuard

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from panic.config import problems, prompts, sources
from panic.config.arms import InterventionSettings
from panic.config.diagrams import DiagramSettings, Distance, Vectorisation, Window
from panic.config.labels import PromptLabels
from panic.config.problems import Document, KeyPath, Place, Problem, Source, dotted
from panic.config.prompt_origins import OriginsSource
from panic.config.schema import (
    ExperimentConfig,
    NoticeSettings,
    RaySettings,
    SnapshotSettings,
    Variant,
    cross_field_problems,
    too_many_runs,
)
from panic.errors import ConfigError

Check = Callable[[dict[str, Any]], list[Problem]]
SEGMENT = re.compile(r'\s*("[^"]*"|[^.="\s]+)\s*')
PATH_FIELDS = ("store", "model_folder")
PARTS: dict[KeyPath, type[BaseModel]] = {
    ("models",): Variant,
    ("arms",): InterventionSettings,
    ("labels",): PromptLabels,
    ("diagrams",): DiagramSettings,
    ("diagrams", "window"): Window,
    ("vectorisations",): Vectorisation,
    ("distances",): Distance,
    ("snapshot",): SnapshotSettings,
    ("ray",): RaySettings,
    ("notify",): NoticeSettings,
}
"""What stands below these keys."""


def load(
    given: str | os.PathLike[str] | ExperimentConfig,
    overrides: Sequence[str] = (),
    check: Check | None = None,
    datasets: prompts.Datasets | None = None,
    origins: OriginsSource | None = None,
) -> ExperimentConfig:
    """Read a config from a YAML, JSON or TOML file, or change one that is there.

    Args:
        given: the file, or a config such as a store keeps.
        overrides: texts such as "networks.0.1=PocketCaptioner"; the value is YAML, the path may create keys
            and append to lists, a key with a dot stands in double quotes.
        check: finds further mistakes in the plain, overridden mapping (unknown models and the like); gets it
            with absolute `base_folder` and `model_folder`, and with the texts of the `prompts`.
        datasets: functions (split, n, seed) -> texts that `prompts` may name.
        origins: gives what reads images and other experiments that `prompts` may name.

    Raises:
        ConfigError: with all mistakes and their places.
    """
    if isinstance(given, ExperimentConfig):
        file = FilePath(f"the stored config of {given.name}")
        document = sources.parse(Source(name=str(file), text=to_yaml(given)), "YAML")
    else:
        file = FilePath(given).expanduser()
        document = sources.read(file)
    if not isinstance(document.data, dict):
        found = problems.describe(document.data)
        raise ConfigError(f"{file}: a config is a mapping (key: value), and this is {found}")
    for number, text in enumerate(overrides, start=1):
        apply_override(document, Source(name="override", text=text, number=number))
    raw = document.data
    folder = _resolve_folders(raw, file)
    swept = _swept(document, folder)
    texts, mistakes, labels = _texts(raw, folder, datasets, origins)
    labelled: dict[str, Any] = {"prompts": texts} if "prompts" in raw else {}
    if labels and isinstance(raw.get("labels", {}), Mapping):
        labelled["labels"] = {**raw.get("labels", {}), **labels}
    config, schema_mistakes = _validate({**raw, **labelled})
    mistakes = mistakes + swept + schema_mistakes
    between = cross_field_problems(raw) + too_many_runs({**raw, "prompts": texts})
    mistakes += _unless_known(between, mistakes)
    with_texts = {**raw, "prompts": texts} if texts else raw
    mistakes += _unless_known(check(with_texts) if check else [], mistakes)
    mistakes += document.problems
    if mistakes or config is None:
        raise ConfigError(problems.render(mistakes, document))
    return config


def _swept(document: Document, folder: FilePath) -> list[Problem]:
    """Put variants in the place of models with sweeps, where there are any; the mistakes in them."""
    models = document.data.get("models")
    variants = models.values() if isinstance(models, Mapping) else ()
    parts = [part for variant in variants if isinstance(variant, Mapping) for part in variant.items()]
    if not any(key == "rows" or isinstance(value, Mapping) for key, value in parts):
        return []
    from panic.config.sweeps import expand_models

    return expand_models(document, folder)


def _texts(
    raw: Mapping[str, Any],
    folder: FilePath,
    datasets: prompts.Datasets | None,
    origins: OriginsSource | None,
) -> prompts.Expansion:
    """What `prompts` stands for, and the mistakes in it; texts that stand in the config the schema checks."""
    given = raw.get("prompts")
    if given and isinstance(given, list) and all(isinstance(entry, str) for entry in given):
        return prompts.Expansion(given)
    if "prompts" not in raw:
        return prompts.Expansion([])
    store = FilePath(raw["store"]) if _is_path(raw.get("store")) else None
    entries: list[tuple[KeyPath, Any]] = [(("prompts",), given)]
    if isinstance(given, list):
        entries = [(("prompts", index), entry) for index, entry in enumerate(given)]
    own = [
        Problem((*path, "experiment"), "an experiment cannot begin with its own outputs")
        for path, entry in entries
        if isinstance(entry, Mapping) and "name" in raw and entry.get("experiment") == raw["name"]
    ]
    return prompts.Expansion([], own) if own else prompts.expand(given, folder, datasets, origins, store)


def stored(values: Mapping[str, Any], name: str) -> ExperimentConfig:
    """The config of the experiment called `name`, as a store keeps it.

    Raises:
        ConfigError: if it was stored by a version of panic whose configs were other ones.
    """
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        found = problems.from_pydantic(error.errors(), _fields_at)
        raise ConfigError(
            f"the stored config of {name} is not one of this version: {'; '.join(p.message for p in found)}",
            hint="perform it from its config file, or with the version that stored it",
        ) from None


def _resolve_folders(raw: dict[str, Any], file: FilePath) -> FilePath:
    """Make the paths in `raw` absolute and return the folder that relative ones refer to."""
    given = raw.get("base_folder")
    folder = file.resolve().parent
    if _is_path(given):
        folder = folder / os.path.expanduser(given)
    if given is None or _is_path(given):
        raw["base_folder"] = str(folder)
    for key in PATH_FIELDS:
        if _is_path(raw.get(key)):
            raw[key] = str(folder / os.path.expanduser(raw[key]))
    snapshot = raw.get("snapshot")
    if isinstance(snapshot, dict) and _is_path(snapshot.get("to")):
        snapshot["to"] = str(folder / os.path.expanduser(snapshot["to"]))
    return folder


def _is_path(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and "\0" not in value


def _validate(raw: Mapping[str, Any]) -> tuple[ExperimentConfig | None, list[Problem]]:
    """Return the config if the schema accepts it, and the mistakes within single fields.

    Mistakes in prompts were found when they were expanded; those between fields are found apart, so that
    they are told together with the others.
    """
    try:
        return ExperimentConfig.model_validate(raw), []
    except ValidationError as error:
        errors = [
            item
            for item in error.errors()
            if item["type"] != "cross_fields" and (item["loc"] != ("prompts",) or item["type"] == "missing")
        ]
        if not isinstance(raw.get("diagrams"), list):  # one mapping stands for a list of it
            errors = [{**item, "loc": _without_index(item["loc"])} for item in errors]
        return None, problems.from_pydantic(errors, _fields_at)


def _without_index(path: KeyPath) -> KeyPath:
    """Where a mistake in diagram settings is that are no list in the file."""
    return (path[0], *path[2:]) if path[:2] == ("diagrams", 0) else path


def _fields_at(path: KeyPath) -> Mapping[str, FieldInfo]:
    keys = tuple(part for part in path if isinstance(part, str))
    part = PARTS.get(keys[:2]) or PARTS.get(keys[:1]) or ExperimentConfig
    return part.model_fields


def _unless_known(found: Sequence[Problem], known: Sequence[Problem]) -> list[Problem]:
    """Leave out problems of values that already have one."""
    wrong = {problem.path for problem in known if problem.path}
    return [
        problem
        for problem in found
        if not any(problem.path[:length] in wrong for length in range(1, len(problem.path) + 1))
    ]


# --- overrides


def apply_override(document: Document, source: Source) -> None:
    """Set one value in the document's data; a mistake in the override becomes a problem of the document."""
    text = source.text

    def wrong(message: str, start: int, end: int, hint: str = "") -> None:
        place = Place(source=source, start=start, end=end)
        document.problems.append(Problem((), message, hint=hint, place=place))

    segments, index = [], 0
    while match := SEGMENT.match(text, index):
        segments.append(match)
        index = match.end()
        if not text.startswith(".", index):
            break
        index += 1
    if not segments or not text.startswith("=", index):
        return wrong(
            "an override is KEY.KEY=VALUE", min(index, len(text)), len(text), "for example max_length=10"
        )
    try:
        value = sources.parse_value(source, index + 1)
    except problems.NotParsedError as error:
        document.problems.append(error.problem)
        return None
    if len(segments) > problems.MAX_DEPTH:
        return wrong(f"a key has at most {problems.MAX_DEPTH} parts", 0, index)
    path: KeyPath = ()
    container = document.data
    for position, match in enumerate(segments):
        is_last = position == len(segments) - 1
        step = _step(container, match[1].strip('"'), path)
        if isinstance(step, Problem):
            return wrong(step.message, *match.span(1), step.hint)
        path = (*path, step)
        if is_last:
            break
        if isinstance(container, list) and step == len(container):
            container.append({})
        elif isinstance(container, dict) and container.get(step) is None:
            container[step] = {}
        container = container[step]
    if isinstance(container, list) and step == len(container):
        container.append(None)
    container[step] = value.data
    _graft(document, path, value, Place(source=source, start=segments[-1].start(1), end=segments[-1].end(1)))
    return None


def _step(container: Any, word: str, path: KeyPath) -> str | int | Problem:
    """Return the key or index that `word` means in a container, or what is wrong with it."""
    name = dotted(path)
    if isinstance(container, dict):
        return word
    if not isinstance(container, list):
        return Problem(path, f"{name} is {problems.describe(container)} and has no part '{word}'")
    if not re.fullmatch(r"[0-9]{1,9}", word) or int(word) > len(container):
        hint = f"0 to {len(container) - 1} exist, {len(container)} appends" if container else "0 appends"
        return Problem(path, f"'{word}' is no index of {name}", hint=hint)
    return int(word)


def _graft(document: Document, path: KeyPath, value: Document, key: Place) -> None:
    """Replace the places at and below `path` by those of an override."""
    for places, new in ((document.keys, value.keys), (document.values, value.values)):
        for old in [old for old in places if old[: len(path)] == path]:
            del places[old]
        places.update({path + below: place for below, place in new.items()})
    document.keys[path] = key
    for length in range(1, len(path)):
        document.keys.setdefault(path[:length], key)
    document.problems += value.problems


# --- writing


class _Flow(list[Any]):
    """A list that is written in one line."""


class _FlowMapping(dict[str, Any]):
    """A mapping that is written in one line."""


class _Dumper(sources.Yaml12Dumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    _Flow, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(
    _FlowMapping,
    lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True),
)


def to_yaml(config: ExperimentConfig) -> str:
    """Return the resolved config as YAML: every setting that has a value, defaults included.

    Loading it gives an equal config, wherever the file lies.
    """
    values = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if value is not None and value != {} and (key, value) != ("tags", [])
    }
    values["networks"] = [_Flow(network) for network in config.networks]
    values.pop("labels", None)
    values["prompts"] = [
        _FlowMapping({"text": prompt, **config.labels[prompt].model_dump(exclude_defaults=True)})
        if prompt in config.labels
        else prompt
        for prompt in config.prompts
    ]
    if config.arms:
        values["arms"] = {
            name: [_FlowMapping(one.model_dump(exclude_none=True)) for one in arm]
            for name, arm in config.arms.items()
        }
    for key in ("seeds", "embeddings"):
        values[key] = _Flow(values[key])
    if "models" in values:
        values["models"] = {
            name: _FlowMapping(variant.model_dump(mode="json", exclude_defaults=True))
            for name, variant in config.models.items()
        }
    values["diagrams"] = [_FlowMapping(settings.key) for settings in config.diagrams]
    if "batch_sizes" in values:
        values["batch_sizes"] = _FlowMapping(values["batch_sizes"])
    for key in ("vectorisations", "distances"):
        values[key] = [
            _FlowMapping(part.model_dump(mode="json", exclude_none=True)) for part in getattr(config, key)
        ]
    return as_yaml(values)


def as_yaml(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML that a config is read from."""
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10**6
    )
    return text
