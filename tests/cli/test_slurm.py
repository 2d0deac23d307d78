"""`panic slurm`: what it prints, writes and refuses; the tasks themselves are tests/cluster's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from panic.cluster.job import Job, save
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


def test_a_time_limit_within_which_tasks_are_warned_at_once_is_told(tmp_path: Path, panic: Panic) -> None:
    """Where loading the models takes longer, each attempt ends before its first batch, for ever."""
    config = write_config(tmp_path)
    assert "warned 120 s before" in panic("slurm", config, "--time", "2:00", "--dry-run").stderr
    assert panic("slurm", config, "--time", "2:01", "--dry-run").stderr == ""


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
    assert 'train "${configs[0]}" ${overrides[@]+"${overrides[@]}"} --only "$task"' in done.stdout
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
        (["demo.yaml", "--time", "soon"], "'soon': that is no time limit"),
        (["--resubmit", "--time", "soon"], "'soon': that is no time limit"),
    ],
)
def test_what_cannot_be(tmp_path: Path, panic: Panic, arguments: list[str], said: str) -> None:
    write_config(tmp_path)
    done = panic("slurm", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert not Path("panic-slurm").exists()


def refusing_sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that takes nothing until it is told to (`accept` exists), and keeps what it was asked."""
    tools = folder / "tools"
    tools.mkdir()
    script = f"""#!/bin/sh
echo "$@" >> {folder}/asked
[ -e {folder}/accept ] || {{ echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1; }}
echo $(wc -l < {folder}/asked)
"""
    (tools / "sbatch").write_text(script)
    (tools / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return folder / "asked"


def test_a_job_that_slurm_refused_is_submitted_with_better_options(
    tmp_path: Path, panic: Panic, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    asked = refusing_sbatch(tmp_path, monkeypatch)
    done = panic("slurm", config, "--partition", "nowhere")
    assert done.exit_code == 1
    assert "invalid partition" in done.stderr
    (tmp_path / "accept").touch()
    done = panic("slurm", config, "--partition", "here", "--time", "1:00:00", "--mem", "1G")
    assert done.exit_code == 0, done.output
    asked.unlink()
    done = panic("slurm", config, "--resubmit", "--time", "8:00:00", "--shards", "7")
    assert done.exit_code == 0, done.output
    assert "--shards: without effect for a job that is there" in done.stderr
    said = asked.read_text()
    assert "--partition=here" in said
    assert "--mem=1G" in said
    assert "--time=8:00:00" in said
    assert "--time=1:00:00" not in said
    assert "a job already" in panic("slurm", config).stderr
    done = panic("slurm", config, "--status", "--time", "1:00")
    assert "--time: without effect" in done.stderr


def test_a_local_job_that_has_begun_takes_no_other_settings(tmp_path: Path, panic: Panic) -> None:
    """They were left out without a word, and the pins were written anew under the shards' feet."""
    config = write_config(tmp_path)
    folder = tmp_path / "job"
    job = Job(
        folder=folder,
        configs=(Path(config),),
        work=tmp_path,
        panic=("true",),
        ids={},
        digests=(sha256(Path(config).read_bytes()).hexdigest(),),
    )
    save(job)
    (folder / "tasks" / "0001.state").write_text("complete on here, job local-1, restart 0\n")
    done = panic("slurm", config, "--local", "--folder", str(folder), "--set", "max_length=20")
    assert done.exit_code == 2
    assert "began with other settings: overrides." in done.stderr
    Path(config).write_text(Path(config).read_text() + "\n# edited\n")
    done = panic("slurm", config, "--local", "--folder", str(folder))
    assert "began with other settings: text of the configs." in done.stderr
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_config_on_one_line_is_an_experiment(tmp_path: Path, panic: Panic) -> None:
    config = Path(write_config(tmp_path))
    one = config.with_name("one.json")
    one.write_text(json.dumps(yaml.safe_load(config.read_text())))
    done = panic("slurm", str(one), "--shards", "2", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "--array=1-2" in done.stdout


def test_arrays_that_may_be_empty_are_guarded_for_bash_before_4_4(tmp_path: Path, panic: Panic) -> None:
    """There an empty array counts as unset, which ends a script under `set -u`."""
    done = panic("slurm", write_config(tmp_path), "--shards", "2", "--dry-run")
    assert "set -u" in done.stdout or "set -euo" in done.stdout
    bare = re.sub(r'\$\{(\w+)\[@\]\+"\$\{\1\[@\]\}"\}', "", done.stdout)
    is_never_empty = {"panic", "configs"} | set(re.findall(r"if \[ \$\{#(\w+)\[@\]\} -gt 0 \]", bare))
    used = set(re.findall(r"\$\{!?(\w+)\[[@*]\]\}", bare))
    assert used <= is_never_empty
    assert {"overrides", "from"} <= set(re.findall(r"\$\{(\w+)\[@\]\+", done.stdout))
