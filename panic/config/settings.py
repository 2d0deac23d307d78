"""Settings: what holds for all experiments of a project or of a user, and what an environment says.

A project has the nearest `panic.toml`, or table `[tool.panic]` of a `pyproject.toml`, of the working folder
and those above it; a user has a file of their own. What the command line says comes first, then the
environment (PANIC_DEVICE), then a config, then the project, then the user. Relative paths of a file are
relative to its folder.

    store = "lab"                 # a name of [stores], or a folder
    device = "cuda:1"
    [stores]
    lab = "/data/lab"
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from panic.config import problems, sources
from panic.config.fields import Devices, FilePath, Name, Part, Size, Text, Workers
from panic.config.problems import Document, KeyPath, NotParsedError, Source
from panic.config.schema import ExperimentConfig
from panic.errors import ConfigError

PREFIX = "PANIC_"
DEFAULT = "default"
PYPROJECT = "pyproject.toml"
AS_TEXT = ("store", "models", "project", "device", "headroom", "log_level")
"""What a variable of the environment says as it stands; of other settings it is YAML."""


class Settings(Part):
    """What a file of settings can say; all of it but the stores can be a variable of the environment, too."""

    store: Annotated[Text | None, Field(description="the store: a folder, or a name of stores")] = None
    models: Annotated[FilePath | None, Field(description="folder of your own models")] = None
    project: Annotated[Name | None, Field(description="project of configs that name none")] = None
    device: Annotated[Devices | None, Field(description="device of configs that name none")] = None
    memory_fraction: Annotated[
        float | None, Field(gt=0, le=1, description="share of the device's memory that may be used")
    ] = None
    headroom: Annotated[Size | None, Field(description="device memory that stays free")] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, Field(description="least level that is logged")
    ] = None
    diagram_workers: Annotated[Workers | None, Field(description="processes for diagrams")] = None
    enforce_clean: Annotated[
        bool | None, Field(description="refuse to perform what no commit has, as --enforce-clean does")
    ] = None
    stores: Annotated[
        dict[Name, FilePath], Field(default_factory=dict, description="folders of stores, by a name")
    ]


NAMES = tuple(name for name in Settings.model_fields if name != "stores")
OF_CONFIGS = tuple(
    name for name in NAMES if name in ExperimentConfig.model_fields and name not in ("store", "models")
)
"""Settings that are fields of configs: the environment's hold over a config, those of files below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value, where it was said (such as "project (../panic.toml)"), and of a path its folder."""

    value: Any
    origin: str
    folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What holds: the value of every setting that anything but a default gives, and the named stores."""

    values: Mapping[str, Setting]
    stores: Mapping[str, Setting]

    def store_path(self, named: str | Path | None, of_config: Path | None, default: Path) -> Path:
        """The folder of the store.

        Args:
            named: what the command line or the environment says: a folder or a name.
            of_config: the folder that a config says, which is a name where there is no such folder.
        """
        setting = self.values.get("store")
        if named is not None:
            return self.folder_of(named)
        if of_config is not None:
            is_name = of_config.name in self.stores and not of_config.exists()
            return self.folder_of(of_config.name) if is_name else of_config
        if setting is None:
            return default
        is_name = setting.value in self.stores
        return self.folder_of(setting.value) if is_name else _absolute(setting)

    def folder_of(self, store: str | Path) -> Path:
        """The folder that a name or a folder means; a name of a store comes before a folder here."""
        known = self.stores.get(str(store))
        return Path(store) if known is None else _absolute(known)

    def models(self) -> Path | None:
        """The folder of the user's models, where a file of settings names it."""
        found = self.values.get("models")
        return None if found is None else _absolute(found)

    def of_project(self, name: str) -> Path | None:
        """The path that a project's file gives to a setting; None where another one holds, or none."""
        found = self.values.get(name)
        return _absolute(found) if found is not None and found.origin.startswith("project") else None

    def over_configs(self) -> list[str]:
        """What the environment says of fields of configs, as overrides."""
        return [f"{name}={json.dumps(value)}" for name, value in self._of_environment().items()]

    def over(self, config: ExperimentConfig) -> ExperimentConfig:
        """A stored config with what the environment says of its fields; it says all of them itself."""
        found = self._of_environment()
        return config.model_copy(update=found) if found else config

    def _of_environment(self) -> dict[str, Any]:
        return {
            name: self.values[name].value
            for name in OF_CONFIGS
            if name in self.values and self.values[name].origin.startswith("environment")
        }

    def below(self, config: ExperimentConfig) -> ExperimentConfig:
        """A config with what files of settings say of the fields that it does not name."""
        found = {
            name: self.values[name].value
            for name in OF_CONFIGS
            if name in self.values and name not in config.model_fields_set
        }
        return config.model_copy(update=found) if found else config


def resolve(files: Sequence[Path], environment: Mapping[str, str], user: Path) -> Resolved:
    """Read settings; of several files the first one that says something holds.

    user: which of the files is the user's. Raises ConfigError with the places of all mistakes of a file.
    """
    values: dict[str, Setting] = {}
    stores: dict[str, Setting] = {}
    for file in reversed(files):
        origin = f"{'user' if file == user else 'project'} ({file})"
        for name, value in _said(file):
            if name == "stores":
                stores |= {
                    key: Setting(value=one, origin=origin, folder=file.parent) for key, one in value.items()
                }
            else:
                values[name] = Setting(value=value, origin=origin, folder=file.parent)
    for name in NAMES:
        if text := environment.get(f"{PREFIX}{name.upper()}"):
            values[name] = _of_variable(name, text)
    return Resolved(values=values, stores=stores)


def _said(file: Path) -> Iterator[tuple[str, Any]]:
    """Names and values of a file."""
    document = sources.read(file, may_be_empty=True)
    prefix: KeyPath = ("tool", "panic") if file.name == PYPROJECT else ()
    table = document.data or {}
    for key in prefix:
        table = table.get(key, {}) if isinstance(table, Mapping) else {}
    yield from _checked(table, document, prefix)


def _of_variable(name: str, text: str) -> Setting:
    variable = f"{PREFIX}{name.upper()}"
    document = Document(source=Source(name=variable, text=text))
    value: Any = text
    if name not in AS_TEXT:
        try:
            value = sources.parse_value(document.source, 0).data
        except NotParsedError as error:
            raise ConfigError(problems.render([error.problem], document)) from None
    [(_, checked)] = _checked({name: value}, document, ())
    return Setting(value=checked, origin=f"environment ({variable})")


def _checked(table: Any, document: Document, prefix: KeyPath) -> Iterator[tuple[str, Any]]:
    """The settings of a table that are given. Raises ConfigError with all mistakes."""
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        found = problems.from_pydantic(error.errors(), lambda _: Settings.model_fields, prefix)
        raise ConfigError(problems.render(found + document.problems, document)) from None
    if document.problems:
        raise ConfigError(problems.render(document.problems, document))
    for name in Settings.model_fields:
        if name in settings.model_fields_set and (value := getattr(settings, name)) is not None:
            yield name, value


def _absolute(setting: Setting) -> Path:
    """The folder that a setting names, from the folder of its file where it is relative."""
    path = Path(os.path.expanduser(setting.value))
    return path if setting.folder is None else setting.folder / path
