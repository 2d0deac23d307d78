"""`panic slurm`: what it prints, writes and refuses; the tasks themselves are tests/cluster's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import write_config

Panic = Callable[..., Result]


def test_a_dry_run_prints_script_and_commands_and_does_nothing(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path)
    arguments = ("--shards", "4", "--time", "4:00:00", "--gres", "gpu:1", "--setup", "module load cuda")
    done = panic("slurm", config, *arguments, "--dry-run")
    assert done.exit_code == 0, done.output
    for said in (
        "#!/usr/bin/env bash",
        "module load cuda\n",
        "--array=1-4",
        "--time=4:00:00",
        "--gres=gpu:1",
    ):
        assert said in done.stdout
    assert not Path("panic-slurm").exists()


def test_several_configs_are_one_array(tmp_path: Path, panic: Panic) -> None:
    one = write_config(tmp_path)
    two = Path(one).with_name("two.yaml")
    two.write_text(Path(one).read_text())
    done = panic("slurm", one, str(two), "--shards", "3", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "--array=1-6" in done.stdout


def test_trainings_of_a_sweep_are_an_array(tmp_path: Path, panic: Panic) -> None:
    config = Path(__file__).resolve().parents[2] / "configs" / "train" / "pocket-clip.yaml"
    done = panic("slurm", str(config), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "--array=1-1" in done.stdout
    assert 'train "${configs[0]}" "${overrides[@]}" --only "$task"' in done.stdout
    done = panic("slurm", str(config), "--shards", "2", "--dry-run")
    assert done.exit_code == 2
    assert "Trainings have no shards" in done.stderr
    done = panic("train", str(config), "--only", "9", "--dry-run")
    assert done.exit_code == 2
    assert "--only 9" in done.stderr


def test_without_slurm_it_says_so_and_what_else_there_is(
    tmp_path: Path, panic: Panic, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = panic("slurm", config)
    assert done.exit_code == 2
    assert "There is no sbatch here" in done.stderr
    assert "--local" in done.stderr
    done = panic("slurm", config, "--status", "--json")
    assert json.loads(done.stdout)[0]["state"] == "not begun"
    done = panic("slurm", config, "--status")
    assert "1 not begun" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "A config is needed."),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["--status"], "has no job"),
        (["demo.yaml", "--folder", 'a"b'], "quotes, backslashes or line breaks"),
        (["demo.yaml", "--setup", "a\nb"], "--setup is one line"),
        (["demo.yaml", "--set", "max_lenght=3"], "max_length"),
        (["demo.yaml", "--shards", "0"], "--shards"),
    ],
)
def test_what_cannot_be(tmp_path: Path, panic: Panic, arguments: list[str], said: str) -> None:
    write_config(tmp_path)
    done = panic("slurm", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert not Path("panic-slurm").exists()
