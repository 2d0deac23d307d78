"""Settings of projects, users and environments: which one holds, what a mistake is answered with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from panic.cli.common import VARIABLES, settings_files
from panic.config.settings import NAMES
from panic.store import Store, reading
from tests.cli.conftest import write_config

Panic = Callable[..., Result]


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The user's file of settings, not written yet."""
    file = Path(os.environ["XDG_CONFIG_HOME"]) / "panic" / "panic.toml"
    file.parent.mkdir(parents=True)
    return file


def settings(panic: Panic, *arguments: str) -> dict[str, tuple[object, str]]:
    done = panic("config", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return {row["setting"]: (row["value"], row["origin"].split(" ")[0]) for row in json.loads(done.stdout)}


def test_every_setting_has_its_variable() -> None:
    assert {name.lower() for name in VARIABLES} == set(NAMES)


def test_precedence(panic: Panic, user: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    user.write_text('store = "u"\ndevice = "mps"\nlog_level = "debug"\n')
    (tmp_path / "panic.toml").write_text('store = "p"\ndevice = "cuda:1"\n')
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    found = settings(panic)
    assert found["store"] == (str(tmp_path / "p"), "project")
    assert found["device"] == ("cuda:1", "project")
    assert found["log_level"] == ("debug", "user")
    assert found["memory_fraction"] == (1.0, "default")
    monkeypatch.setenv("PANIC_STORE", "e")
    monkeypatch.setenv("PANIC_DEVICE", "cpu")
    monkeypatch.setenv("PANIC_MEMORY_FRACTION", "0.5")
    found = settings(panic)
    assert found["store"] == ("e", "environment")
    assert found["device"] == ("cpu", "environment")
    assert found["memory_fraction"] == (0.5, "environment")
    assert settings(panic, "--store", "c")["store"] == ("c", "command")


def test_the_nearest_file_holds_and_pyproject_counts_only_with_its_table(
    panic: Panic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "panic.toml").write_text('device = "cuda:1"\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    (inner / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert settings(panic)["device"] == ("cuda:1", "project")
    (inner / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.panic]\ndevice = "cpu"\n')
    assert settings(panic)["device"] == ("cpu", "project")
    (inner / "panic.toml").write_text("# nothing yet\n")
    assert settings(panic)["device"] == ("auto", "default")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('devise = "cpu"\n', "did you mean 'device'?"),
        ('device = "gpu"\n', "panic.toml:1:10"),
        ("memory_fraction = 2\n", "at most 1"),
        ('[stores]\nlab = 3\n', "panic.toml:2:"),
        ("a b\n", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(panic: Panic, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "panic.toml").write_text(text)
    for command in (["config"], ["list"], ["run", "x.yaml"]):
        done = panic(*command)
        assert done.exit_code == 2, done.output
        assert told in done.stderr
        assert "Traceback" not in done.output


def test_a_mistake_in_the_environment_names_the_variable(
    panic: Panic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANIC_DEVICE", "cdua")
    done = panic("config")
    assert done.exit_code == 2
    assert "PANIC_DEVICE: device is not a known device" in done.stderr
    assert "did you mean 'cuda'?" in done.stderr


def test_a_name_works_wherever_a_store_is_given(
    panic: Panic, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "panic.toml").write_text('store = "lab"\n[stores]\nlab = "panic-store"\nnone = "~/nowhere"\n')
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    for options in ([], ["--store", "lab"]):
        done = panic("list", "--json", *options)
        assert [row["name"] for row in json.loads(done.stdout)] == ["demo", "broken"], done.output
    monkeypatch.setenv("PANIC_STORE", "lab")
    assert panic("show", "demo").exit_code == 0
    assert panic("snapshot", "lab", "copy").exit_code == 0
    assert Path("copy/store.sqlite").is_file()
    assert panic("merge", "lab", "--into", "copy").exit_code == 0
    assert panic("merge", "copy", "--into", "lab").exit_code == 0
    config = write_config(tmp_path, max_length=2)
    done = panic("run", config, "--store", "new", "--from", "lab", "--quiet")
    assert (done.exit_code, Path("lab").exists()) == (0, False), done.output
    rows = {row["name"]: row for row in json.loads(panic("stores", "--json").stdout)}
    assert rows["lab"]["is_there"]
    assert rows["lab"]["path"] == str(tmp_path / "panic-store")
    assert not rows["none"]["is_there"]
    assert "nowhere" in panic("stores").stdout


def test_a_config_names_a_store(panic: Panic, tmp_path: Path) -> None:
    (tmp_path / "panic.toml").write_text('[stores]\nlab = "elsewhere"\n')
    file = write_config(tmp_path, max_length=2)
    file.write_text(f"{file.read_text()}store: lab\n")
    assert panic("run", file, "--quiet").exit_code == 0
    assert (tmp_path / "elsewhere" / "store.sqlite").is_file()


def test_the_environment_holds_over_a_config_and_a_file_below_it(
    panic: Panic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_config(tmp_path, max_length=2)  # its device is cpu, its project colours
    (tmp_path / "panic.toml").write_text('device = "cuda:7"\nproject = "mine"\nlog_level = "debug"\n')
    monkeypatch.setenv("PANIC_PROJECT", "ours")
    assert panic("run", file, "--quiet").exit_code == 0
    with Store(tmp_path / "panic-store") as opened:
        config = reading.experiment(opened, "demo").config
    assert config["device"] == "cpu"
    assert config["project"] == "ours"
    assert config["log_level"] == "debug"


def unsaid(folder: Path, name: str = "demo", **changes: object) -> Path:
    """A config that says neither its project nor its device."""
    file = write_config(folder, name, **changes)
    file.write_text(file.read_text().replace("project: colours\n", "").replace("device: cpu\n", ""))
    return file


def test_pins_and_plans_were_of_another_device_than_the_settings_say(panic: Panic, tmp_path: Path) -> None:
    (tmp_path / "panic.toml").write_text('device = "sim:1GiB"\n')
    file = unsaid(tmp_path, max_length=2)
    assert panic("pin", file, "-o", "pins.json").exit_code == 0
    kinds = {one["device_kind"] for one in json.loads(Path("pins.json").read_text())["models"].values()}
    assert kinds == {"sim"}
    assert panic("run", file, "--shard", "1/1", "--pins", "pins.json", "--quiet").exit_code == 0
    planned = panic("devices", "--plan", file, "--json")
    assert list(json.loads(planned.stdout)["devices"]) == ["sim:1GiB"]


def test_trials_were_performed_without_the_settings(panic: Panic, tmp_path: Path) -> None:
    (tmp_path / "panic.toml").write_text('project = "mine"\ndevice = "cpu"\n')
    file = unsaid(tmp_path, "look", max_length="{optimize: {from: 2, to: 3, whole: true}}")
    looked = ["optimize", file, "--maximise", "entropy", "--trials", "1", "--quiet"]
    assert panic(*looked).exit_code == 0
    with Store(tmp_path / "panic-store") as opened:
        assert reading.experiment(opened, "look-trial-0000").config["project"] == "mine"
    (tmp_path / "panic.toml").write_text("enforce_clean = true\n")
    refused = panic(*looked)
    assert refused.exit_code == 2
    assert "is in no git repository" in refused.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("resume", "broken"),
        ("resume", "demo", "--repair"),
        ("extend", "demo", "--max-length", "9"),
        ("again", "demo", "--name", "other"),
        ("rerun", "broken", "--failed"),
        ("rerun", "broken", "--failed", "--set", "models.chain.fail_at=null"),
        ("verify", "demo"),
        ("pin", "demo.yaml", "-o", "pins.json"),
        ("devices", "--plan", "demo.yaml"),
        ("run", "demo.yaml"),
        ("optimize", "look.yaml", "--maximise", "entropy", "--trials", "1"),
        ("slurm", "demo.yaml", "--folder", "job", "--dry-run"),
    ],
    ids=" ".join,
)
def test_the_environment_held_for_run_alone(
    panic: Panic,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    write_config(tmp_path)
    write_config(tmp_path, "look", max_length="{optimize: {from: 2, to: 3, whole: true}}")
    monkeypatch.setenv("PANIC_DEVICE", "cdua" if command[0] == "slurm" else "cuda:77")
    done = panic(*command)
    assert done.exit_code in (1, 2), done.output
    assert "cuda" in done.stderr  # no such device, or did you mean 'cuda'
    assert "Traceback" not in done.output


def test_what_the_environment_says_is_kept_with_what_it_performed(
    panic: Panic, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANIC_PROJECT", "ours")
    assert panic("extend", "demo", "--max-length", "9", "--quiet").exit_code == 0
    assert panic("again", "demo", "--set", "max_length=1", "--quiet").exit_code == 0
    assert panic("again", "demo", "--set", "max_length=1", "--set", "project=mine", "--quiet").exit_code == 0
    with Store(store) as opened:
        projects = {row.name: row.config["project"] for row in reading.experiments(opened)}
    assert projects == {"demo": "ours", "broken": "colours", "demo-2": "ours", "demo-3": "mine"}


def test_a_folder_of_models_in_a_file_is_what_workers_see(panic: Panic, tmp_path: Path) -> None:
    (tmp_path / "brought").mkdir()
    (tmp_path / "brought" / "shout.py").write_text(
        "class Shout:\n    modality_in = modality_out = 'text'\n    size_bytes = 0\n"
        "    def load(self, device): ...\n    def invoke(self, inputs, seeds): return inputs\n"
    )
    (tmp_path / "panic.toml").write_text('models = "brought"\n')
    assert "Shout" in panic("models", "--json").stdout
    assert settings(panic)["models"] == ("brought", "project")
    (tmp_path / "x.yaml").write_text(
        "{name: x, networks: [[Shout]], prompts: [a], seeds: [1], max_length: 2, device: cpu}\n"
    )
    assert panic("run", "x.yaml", "--quiet").exit_code == 0  # `models` of a config is something else


def test_folders_of_models_are_no_variants(
    panic: Panic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANIC_MODELS", str(tmp_path))
    (tmp_path / "panic.toml").write_text('log_level = "debug"\n')
    assert panic("run", write_config(tmp_path, max_length=1), "--quiet").exit_code == 0


def test_what_is_no_file_is_no_settings(panic: Panic, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyproject.toml")
    (tmp_path / "panic.toml").symlink_to("panic.toml")
    assert settings_files() == []
    assert settings(panic)["models"] == (None, "default")


def test_a_file_that_somebody_else_laid_into_a_folder_for_all_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    (tmp_path / "panic.toml").write_text("")
    os.chown(tmp_path / "panic.toml", 12345, 12345)
    assert settings_files() == [tmp_path / "panic.toml"]
    tmp_path.chmod(0o777)
    assert settings_files() == []
    assert "not asked" in capfd.readouterr().err


def test_a_working_directory_that_is_gone_has_no_project(
    panic: Panic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert settings_files() == []
    monkeypatch.chdir(tmp_path)
