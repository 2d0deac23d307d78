"""`panic run`, `panic resume`, `run-experiments`: performing, extending, failing, planning."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from panic.cli.app import run_experiments_app
from panic.cli.logs import logging_to
from panic.engine import pinning
from panic.engine.plan import check_config, make_plan
from panic.models import registry
from panic.store import Store, reading
from tests.patience import LONGEST_S

from .conftest import ROOT, Invoke, write_config


def dump(panic: Invoke, store: Path | str, *more: str) -> str:
    done = panic("dump", *more, "--store", store)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_run_performs_and_says_where_things_are(panic: Invoke, tmp_path: Path) -> None:
    done = panic("run", write_config(tmp_path))
    assert done.exit_code == 0, done.output
    assert "demo is complete: 6 runs" in done.stdout
    assert "Store: panic-store" in done.stdout
    log = Path(re.search(r"Log: +(\S+)", done.stdout)[1])
    assert re.fullmatch(r"colours_run_\d{8}-\d{6}\.log", log.name)
    line = log.read_text().splitlines()[0]
    assert f" {socket.gethostname()} {os.getpid()} " in line
    assert re.search(r" \d+ MB panic\.", line)
    assert json.loads(panic("status", "--json").stdout)["state"] == "complete"


def test_progress_begins_and_ends_with_a_line_without_terminal(panic: Invoke, tmp_path: Path) -> None:
    done = panic("run", write_config(tmp_path))
    first, line = done.stderr.splitlines()
    assert first.startswith("runs 0/6")  # run.sh waits for it
    assert "runs 6/6" in line
    assert re.search(r"embeddings (\d+)/\1\b", line)
    assert re.search(r"chain [\d.]+ s", line)


def test_a_line_of_progress_comes_every_minute(
    panic: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("panic.cli.progress.LINE_EVERY_S", 0.3)
    done = panic("run", write_config(tmp_path, delay_s=0.15))
    lines = done.stderr.splitlines()
    assert len(lines) > 2
    assert any(re.search(r"runs \d/6.*, at most [\d.]+ s left", line) for line in lines[:-1])
    assert "runs 6/6" in lines[-1]


def test_verbose_tells_the_log_on_stderr_too(panic: Invoke, tmp_path: Path) -> None:
    done = panic("run", write_config(tmp_path), "-v")
    assert "INFO: demo is complete" in done.stderr


def test_quiet_says_nothing(panic: Invoke, tmp_path: Path) -> None:
    done = panic("run", write_config(tmp_path), "-q")
    assert (done.exit_code, done.output) == (0, "")


def test_the_same_command_again_changes_nothing(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    panic("run", config)
    before = dump(panic, "panic-store")
    assert panic("run", config).exit_code == 0
    assert dump(panic, "panic-store") == before


def test_set_extends_and_equals_a_longer_first_run(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    panic("run", config, "--store", "a", "--set", "max_length=4")
    panic("run", config, "--store", "a", "--set", "max_length=12", "--set", "seeds=[7, -1, 9]")
    panic("run", config, "--store", "b", "--set", "max_length=12", "--set", "seeds=[7, -1, 9]")
    assert dump(panic, "a") == dump(panic, "b")


def test_name_makes_another_experiment(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    panic("run", config)
    assert panic("run", config, "--name", "1e3").exit_code == 0
    assert [row["name"] for row in json.loads(panic("list", "--json").stdout)] == ["demo", "1e3"]


def test_several_configs_are_performed_and_the_worst_code_counts(panic: Invoke, tmp_path: Path) -> None:
    configs = [write_config(tmp_path, name) for name in ("one", "two", "three")]
    write_config(tmp_path, "two", fail_at=1)
    done = panic("run", *configs)
    assert done.exit_code == 1
    found = {row["name"]: row["state"] for row in json.loads(panic("list", "--json").stdout)}
    assert found == {"one": "complete", "two": "failed", "three": "complete"}


def test_a_mistake_in_one_config_stops_all_before_anything_starts(panic: Invoke, tmp_path: Path) -> None:
    good, bad = write_config(tmp_path, "good"), write_config(tmp_path, "bad", max_length=0)
    done = panic("run", good, bad, "missing.yaml")
    assert done.exit_code == 2
    assert "bad.yaml:" in done.stderr
    assert "max_length" in done.stderr
    assert "missing.yaml" in done.stderr
    assert not Path("panic-store").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--name", "x", "demo.yaml"], "--name names one experiment"),
        (["--set", "networks.0.1=chian"], "chain"),
        (["--set", "max_lenght=3"], "max_length"),
        (["--set", "nonsense"], "KEY.KEY=VALUE"),
        (["--set", "device=tpu"], "device"),
        (["--sett", "a=b"], "No such option"),
    ],
)
def test_mistakes_in_the_command_exit_2(
    panic: Invoke, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = panic("run", write_config(tmp_path), *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.output
    assert not Path("panic-store").exists()


def test_brackets_in_a_message_are_not_markup(panic: Invoke, tmp_path: Path) -> None:
    done = panic("run", tmp_path / "[bold]x[/nonsense].yaml")
    assert done.exit_code == 2
    assert "[bold]x[/nonsense].yaml" in done.stderr


def test_dry_run_tells_the_plan_and_does_nothing(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = panic("run", config, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "demo is new in panic-store" in done.stdout
    assert re.search(r"runs: +6, of which 0 have ended", done.stdout)
    assert re.search(r"at most 48, of which 0 ", done.stdout)
    assert re.search(r"1 +draw +text → image", done.stdout)
    assert re.search(r"3 +circle +text or image → vector", done.stdout)
    assert "time: unknown" in done.stdout
    assert not Path("panic-store").exists()


def test_dry_run_tells_what_the_experiment_did_not_start_with(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts=["state 0"])
    panic("run", config)
    done = panic("run", config, "--dry-run", "--set", "batch_sizes.draw=7", "--set", "threads=5")
    assert done.exit_code == 2
    assert "batch_sizes.draw is 7; this experiment started with" in done.stderr
    assert "threads is 5; this experiment started with" in done.stderr


def test_dry_run_counts_what_the_store_has(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts=["state 0"])
    panic("run", config)
    with Store("panic-store") as store:
        before = reading.counts(store, "demo")
    done = panic("run", config, "--dry-run")
    assert "goes on" in done.stdout
    assert "All runs have ended" in done.stdout
    assert re.search(r"- +draw", done.stdout)  # nothing to load it for
    done = panic("run", config, "--dry-run", "--set", "max_length=20")
    total = before.invocations + 12 * before.done
    assert f"at most {total}, of which {before.invocations} are in the store" in done.stdout
    assert re.search(r"time: at most .* of model time", done.stdout)


def test_failed_runs_have_reasons_and_are_tried_again_on_request(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(
        "from pathlib import Path\n"
        "class Fragile:\n"
        "    modality_in = modality_out = 'text'\n"
        "    size_bytes = 0\n"
        "    def load(self, device): pass\n"
        "    def invoke(self, inputs, seeds):\n"
        "        if Path('broken').exists(): raise RuntimeError('it is [broken]')\n"
        "        return [text + '!' for text in inputs]\n"
    )
    config = tmp_path / "fragile.yaml"
    config.write_text(
        "name: fragile\nnetworks: [['python:fragile.py:Fragile']]\nprompts: [a]\nseeds: [-1]\n"
        "max_length: 3\ndevice: cpu\nmax_retries: 0\n"
    )
    Path("broken").touch()
    done = panic("run", config)
    assert done.exit_code == 1, done.output
    assert "fragile is failed" in done.stdout
    assert "1 run has failed: RuntimeError: it is [broken] (1 x)" in done.stderr
    assert "panic show fragile tells where" in done.stderr
    assert "it is [broken]" in panic("show").stdout
    assert panic("run", config).exit_code == 1
    Path("broken").unlink()
    assert panic("run", config).exit_code == 1  # a failure is a result
    done = panic("resume", "--retry-failed", "--trust")
    assert done.exit_code == 0, done.output
    assert json.loads(panic("status", "--json").stdout)["runs"] == {
        "total": 1, "done": 1, "stuck": 0, "repeated": 0,
        "failed": 0
    }  # fmt: skip


def test_the_most_frequent_reasons_of_failures_are_told(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(
        "class Picky:\n"
        "    modality_in = modality_out = 'text'\n"
        "    size_bytes = 0\n"
        "    batch_size = 1\n"
        "    def load(self, device): pass\n"
        "    def invoke(self, inputs, seeds):\n"
        "        if inputs[0] < 'e': raise RuntimeError(f'no {inputs[0]}\\nat all')\n"
        "        return ['']\n"
    )
    config = tmp_path / "picky.yaml"
    config.write_text(
        "name: picky\nnetworks: [['python:picky.py:Picky']]\nprompts: [a, b, c, d, x, y]\nseeds: [-1]\n"
        "max_length: 3\ndevice: cpu\nmax_retries: 0\n"
    )
    done = panic("run", config, "-q")
    assert done.exit_code == 1
    told = done.stderr.splitlines()
    assert told[:2] == ["Error: 6 runs have failed:", "  empty text (2 x)"]
    assert "RuntimeError: no a (1 x)" in told[2]
    assert told[4] == "  and 2 other reasons"


def test_all_models_without_weights_are_told_at_once(panic: Invoke, tmp_path: Path) -> None:
    done = panic("run", write_config(tmp_path), "--set", "networks=[[sd-turbo, BLIP-base]]")
    assert done.exit_code == 1
    assert "what 2 models need is missing" in done.stderr
    assert "hf download stabilityai/sd-turbo" in done.stderr
    assert "hf download Salesforce/blip-image-captioning-base" in done.stderr


def test_fail_fast_stops_at_the_first_failure(panic: Invoke, tmp_path: Path) -> None:
    done = panic("run", write_config(tmp_path, fail_at=1), "--fail-fast", "--set", "max_retries=0")
    assert done.exit_code == 1
    assert "synthetic failure at state 1" in done.stderr
    assert "Traceback" not in done.output
    assert json.loads(panic("status", "--json").stdout)["state"] == "failed"


def test_the_store_is_the_option_then_the_environment_then_the_config(
    panic: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    stored = ["--set", f"store={tmp_path / 'of-config'}"]
    panic("run", config, *stored)
    monkeypatch.setenv("PANIC_STORE", str(tmp_path / "of-environment"))
    panic("run", config, *stored)
    panic("run", config, *stored, "--store", tmp_path / "of-option")
    panic("--store", tmp_path / "of-group", "run", config, *stored)
    for name in ("of-config", "of-environment", "of-option", "of-group"):
        assert (tmp_path / name / "store.sqlite").exists()
    assert not (tmp_path / "panic-store").exists()


def test_a_folder_with_other_things_is_refused(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    done = panic("run", write_config(tmp_path), "--store", "photos")
    assert done.exit_code == 2
    assert "cat.jpg" in done.stderr
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_store_in_use_is_refused_naming_the_process(panic: Invoke, store: Path, tmp_path: Path) -> None:
    with Store(store, write=True):
        done = panic("run", write_config(tmp_path))
    assert done.exit_code == 1
    assert f"process {os.getpid()}" in done.stderr


def test_a_problem_of_the_machine_is_told_without_a_traceback(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    panic("run", config)
    (tmp_path / "panic-store" / "logs").rename(tmp_path / "old-logs")
    (tmp_path / "panic-store" / "logs").touch()
    done = panic("run", config)
    assert done.exit_code == 1
    assert "panic-store/logs: File exists" in done.stderr
    assert "traceback" not in done.output.lower()
    assert "Traceback" in panic("run", config, "-v").stderr


def test_the_traceback_of_a_mistake_of_ours_is_in_the_log(
    panic: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("panic.engine.session.provenance", lambda *_: {}["gone"])
    done = panic("run", write_config(tmp_path))
    assert done.exit_code == 1
    assert "KeyError: 'gone'" in done.stderr
    assert "Traceback" not in done.output
    [log] = Path("panic-store/logs").glob("*.log")
    assert f"The traceback is in {Path('panic-store/logs') / log.name}" in done.stderr
    assert "Traceback" in log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(Path("/dev/full"), "info", stderr_level=logging.ERROR):
        logging.getLogger("panic.cli").info("nobody can read this")
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_told_and_the_same_command_goes_on(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, max_length=200)
    command = [sys.executable, "-P", "-m", "panic", "run", str(config), "--set", "models.draw.distinct=true"]
    command += ["--set", "models.chain.distinct=true", "--set", "seeds=[-1]", "--set", "repeats=4"]

    # 3 MB, in blocks of 512 bytes; to create a store writes 2 MB.
    limited = ["sh", "-c", 'ulimit -f 5860 && exec "$@"', "sh", *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 1, done.stderr
    assert "free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert panic("check").exit_code == 0
    kept = json.loads(panic("status", "--json").stdout)["invocations"]
    assert kept > 0
    assert panic(*command[4:]).exit_code == 0
    assert panic(*command[4:], "--store", "whole").exit_code == 0
    assert dump(panic, "panic-store") == dump(panic, "whole")


def test_a_stored_config_of_another_version_is_told(panic: Invoke, store: Path) -> None:
    with sqlite3.connect(store / "store.sqlite") as connection:
        connection.execute("UPDATE experiment SET config = json_set(config, '$.later', 1, '$.repeats', 0)")
    for arguments in (["resume", "broken"], ["show", "broken", "--config"]):
        done = panic(*arguments)
        assert done.exit_code == 2
        assert "the stored config of broken is not one of this version" in done.stderr
        assert "unknown key 'later'" in done.stderr
        assert "repeats must be at least 1" in done.stderr
    assert panic("show", "broken").exit_code == 0


def test_resume_of_a_complete_experiment_does_nothing(panic: Invoke, store: Path) -> None:
    done = panic("resume", "demo")
    assert (done.exit_code, done.stdout) == (0, "demo is complete.\n")
    assert panic("resume", "nope").exit_code == 2


def test_resume_of_an_experiment_that_was_killed_before_it_had_runs_makes_them(
    panic: Invoke, tmp_path: Path
) -> None:
    checked = check_config(write_config(tmp_path), ask=True)
    plan = make_plan(checked)
    with Store("panic-store", write=True, create=True) as store:
        pinning.begin(store, plan, registry.fingerprints(plan.specs), "cpu")
    assert "runs:        6, of which 0 have ended" in panic("resume", "demo", "--dry-run").stdout
    assert "demo is complete: 6 runs " in panic("resume", "demo").stdout


def test_resume_goes_on_in_the_store_where_the_experiment_is(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, fail_at=1)
    assert panic("run", config, "--store", "a", "--set", "store=b").exit_code == 1
    assert "in a\n" in panic("resume", "--store", "a", "--dry-run").stdout
    assert "Store: a\n" in panic("resume", "--store", "a").stdout
    assert not Path("b").exists()


def test_run_experiments_is_panic_run(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    panic("run", config, "--set", "max_length=4", "--store", "a")
    arguments = [str(config), "--set", "max_length=4", "--store", "b"]
    done = CliRunner().invoke(run_experiments_app(), arguments)
    assert done.exit_code == 0, done.output
    assert dump(panic, "a") == dump(panic, "b")
    assert CliRunner().invoke(run_experiments_app(), []).exit_code == 2


def test_the_console_scripts_exit_with_the_codes() -> None:
    for arguments, call in ((["run"], "main"), ([], "run_experiments")):
        code = f"import sys; sys.argv[1:] = {arguments}; from panic.cli import {call}; {call}()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST_S)
        assert done.returncode == 2
        assert "Missing argument 'CONFIG" in done.stderr


def test_paths_and_variables_that_are_not_utf8_stop_nothing(panic: Invoke, tmp_path: Path) -> None:
    """Names in the file system and the environment are bytes; a store under such a name works, too."""
    config = write_config(tmp_path).rename(tmp_path / os.fsdecode(b"caf\xe9.yaml"))
    store = tmp_path / os.fsdecode(b"st\xff")
    environment = {**os.environ, "OWNER": os.fsdecode(b"J\xfcrgen")}
    command = [sys.executable, "-m", "panic", "run", str(config), "--store", str(store), "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    with Store(store) as opened:
        (session,) = reading.sessions(opened)
        assert "caf\\xe9.yaml" in session.command
    assert "caf\\udce9.yaml" in next((store / "logs").glob("*.log")).read_text()
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    told = panic("run", write_config(odd), "--store", tmp_path / "other")
    assert told.exit_code == 2
    assert "base_folder must be a text that can be written as UTF-8" in told.stderr


def test_resume_brings_an_older_store_up_to_date(panic: Invoke, tmp_path: Path) -> None:
    for name in ("store", "images"):
        (tmp_path / "old").mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(tmp_path / "old" / f"{name}.sqlite")) as connection:
            script = ROOT / "tests" / "store" / "fixtures" / f"0001.{name}.sql"
            connection.executescript(script.read_text(encoding="utf-8"))
    panic("resume", "--store", tmp_path / "old")  # its config is of another version; its results are not lost
    listed = panic("list", "--store", tmp_path / "old", "--json")
    assert [row["name"] for row in json.loads(listed.stdout)] == ["alpha", "beta"]
