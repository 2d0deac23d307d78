"""Which setting holds: the command line's, the environment's, a project's file, the user's, a default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panic.config.settings import Resolved, resolve
from panic.errors import ConfigError

from .test_schema import config

DEFAULT = Path("default")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A project's file and the user's, each in a folder of its own."""
    project, user = tmp_path / "project" / "panic.toml", tmp_path / "user" / "config.toml"
    for file in (project, user):
        file.parent.mkdir()
    return project, user


def written(files: tuple[Path, Path], project: str = "", user: str = "", **variables: str) -> Resolved:
    for file, text in zip(files, (project, user), strict=True):
        file.write_text(text)
    environment = {f"PANIC_{name.upper()}": value for name, value in variables.items()}
    return resolve(files, environment, files[1])


def origins(found: Resolved) -> dict[str, Any]:
    return {name: (one.value, one.origin.partition(" ")[0]) for name, one in found.values.items()}


def test_the_nearest_one_holds(files: tuple[Path, Path]) -> None:
    user = 'store = "u"\nlog_level = "debug"\n'
    assert origins(written(files, user=user)) == {"store": ("u", "user"), "log_level": ("debug", "user")}
    both = written(files, 'store = "p"\n', user)
    assert origins(both) == {"store": ("p", "project"), "log_level": ("debug", "user")}
    all_three = written(files, 'store = "p"\n', user, store="e")
    assert origins(all_three)["store"] == ("e", "environment")
    assert origins(written(files, 'store = "p"\n', user, store="")) == origins(both), (
        "an empty one says nothing"
    )
    assert origins(written(files)) == {}


def test_a_store_is_what_is_nearest_and_a_name_where_there_is_one(files: tuple[Path, Path]) -> None:
    project, user = (file.parent for file in files)
    found = written(files, '[stores]\nlab = "there"\n', 'store = "mine"\n[stores]\nlab = "x"\nhome = "h"\n')

    def path(named: str | None = None, of_config: str | None = None) -> Path:
        return found.store_path(named, None if of_config is None else Path(of_config), DEFAULT)

    assert path("lab", "home") == project / "there"
    assert path("home") == user / "h"
    assert path("folder") == Path("folder")
    assert path(of_config="lab") == project / "there"
    assert path(of_config="sub/folder") == Path("sub/folder")
    (project / "lab").mkdir()
    assert path(of_config=str(project / "lab")) == project / "lab", "the folder is there"
    assert path() == user / "mine"
    assert written(files).store_path(None, None, DEFAULT) == DEFAULT
    assert written(files, 'store = "lab"\n[stores]\nlab = "there"\n').store_path(None, None, DEFAULT) == (
        project / "there"
    )
    absolute = written(files, f'store = "{user}"\n')
    assert absolute.store_path(None, None, DEFAULT) == user
    assert written(files, store="e").store_path(None, None, DEFAULT) == Path("e")


def test_a_project_s_path_is_one_that_its_file_says(files: tuple[Path, Path]) -> None:
    project, user = (file.parent for file in files)
    ours, theirs = 'models = "m"\n', 'models = "n"\n'
    both = written(files, ours, theirs)
    assert (both.models(), both.of_project("models")) == (project / "m", project / "m")
    alone = written(files, user=theirs)
    assert (alone.models(), alone.of_project("models")) == (user / "n", None)
    none = written(files)
    assert (none.models(), none.of_project("models")) == (None, None)
    assert written(files, ours, models="e").of_project("models") is None


def test_the_environment_holds_over_a_config_and_a_file_below_it(files: tuple[Path, Path]) -> None:
    said, silent = config(log_level="warning"), config()
    project = written(files, 'log_level = "debug"\n')
    assert project.over_configs() == []
    assert project.over(said) == said
    assert project.below(said).log_level == "warning"
    assert project.below(silent).log_level == "debug"
    environment = written(files, 'log_level = "debug"\n', log_level="error")
    assert [one.partition("=")[::2] for one in environment.over_configs()] == [
        ("log_level", json.dumps("error"))
    ]
    assert environment.over(said).log_level == "error"
    assert written(files).below(silent) == silent


def test_mistakes_are_told_with_their_places(files: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"panic\.toml:2"):
        written(files, 'store = "p"\nlog_level = 7\n')
    with pytest.raises(ConfigError, match="PANIC_LOG_LEVEL"):
        written(files, log_level="loud")


def test_stores_are_named_by_files_alone_and_what_cannot_be_read_is_told(files: tuple[Path, Path]) -> None:
    assert origins(written(files, stores="x")) == {}
    assert origins(written(files, memory_fraction="0.5")) == {"memory_fraction": (0.5, "environment")}
    with pytest.raises(ConfigError, match="PANIC_MEMORY_FRACTION") as caught:
        written(files, memory_fraction="[0.5")
    assert "number" not in caught.value.message.splitlines()[0], "it is no YAML"


def test_a_pyproject_says_it_in_a_table_of_its_own(tmp_path: Path) -> None:
    file, user = tmp_path / "pyproject.toml", tmp_path / "user.toml"

    def found(text: str) -> dict[str, Any]:
        file.write_text(text)
        return origins(resolve([file], {}, user))

    assert found('store = "no"\n[tool.panic]\nstore = "x"\n') == {"store": ("x", "project")}
    assert found('[tool.other]\nstore = "x"\n') == found("tool = 3\n") == found("") == {}
    with pytest.raises(ConfigError, match=r"pyproject\.toml:3:1: unknown key 'stor'"):
        found('[tool.panic]\nproject = "p"\nstor = "x"\n')
    with pytest.raises(ConfigError, match=r"pyproject\.toml:2:9: .* must be a mapping"):
        found("[tool]\npanic = 3\n")
    user.write_text('store = "u"\n')
    assert origins(resolve([user], {}, user)) == {"store": ("u", "user")}
    file.write_text('[tool.panic.stores]\na = "b"\n')
    both = resolve([file, user], {}, user)
    assert both.stores["a"].folder == tmp_path
    assert both.folder_of("a") == tmp_path / "b"


def test_a_tilde_is_the_home_of_the_user(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = written(files, 'store = "~/a"\nmodels = "~/b"\n[stores]\nlab = "~/c"\n')
    assert found.store_path(None, None, DEFAULT) == Path("/home/me/a")
    assert (found.models(), found.folder_of("lab")) == (Path("/home/me/b"), Path("/home/me/c"))
    assert written(files, store="~/e").store_path(None, None, DEFAULT) == Path("/home/me/e")


def test_what_a_config_says_itself_holds_below_the_environment(files: tuple[Path, Path]) -> None:
    """Of fields of configs alone, and with what variables of the environment are read as."""
    said = config(memory_fraction=0.5, diagram_workers=2)
    text = 'memory_fraction = 0.75\ndiagram_workers = 3\nheadroom = "1GiB"\nproject = "ours"\n'
    found = written(files, text, diagram_workers="4", store="e", models="m", enforce_clean="true")
    below = found.below(said)
    assert (below.memory_fraction, below.diagram_workers, below.headroom) == (0.5, 2, 2**30)
    assert (below.project, below.store) == ("ours", None)
    assert found.over(said).diagram_workers == 4
    assert found.over(said).memory_fraction == 0.5
    assert found.over_configs() == ["diagram_workers=4"]
    assert found.values["enforce_clean"].value is True
    assert found.values["enforce_clean"].origin == "environment (PANIC_ENFORCE_CLEAN)"
    assert found.values["memory_fraction"].origin == f"project ({files[0]})"


def test_borders_of_settings(files: tuple[Path, Path]) -> None:
    for text in ("memory_fraction = 1.0", "diagram_workers = 1024", "headroom = 0", 'log_level = "error"'):
        assert len(written(files, text).values) == 1
    for text in ("memory_fraction = 0", "memory_fraction = 1.01", "diagram_workers = 1025", "headroom = -1",
                 'log_level = "fatal"', 'project = "a b"', 'store = " "', "enforce_clean = 1"):  # fmt: skip
        with pytest.raises(ConfigError, match=text.split()[0]):
            written(files, text)
