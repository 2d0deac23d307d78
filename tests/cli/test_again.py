"""`panic again`, `extend`, `rerun`, `stop`, `end`: once more, larger, and not any more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from panic.store import Store, check, reading, writing
from tests.patience import LONGEST_S, until

from .conftest import Invoke, write_config


def shown(panic: Invoke, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(panic("show", *arguments, "--json").stdout)
    return found


def states(panic: Invoke, name: str) -> list[tuple[int, str]]:
    return [(run["max_length"], run["state"]) for run in shown(panic, name)["runs"]]


@pytest.fixture
def plain(panic: Invoke, tmp_path: Path) -> Path:
    """A store with the experiments `demo`, without diagrams, and `broken`, where runs have failed."""
    assert panic("run", write_config(tmp_path)).exit_code == 0
    assert panic("run", write_config(tmp_path, "broken", fail_at=1)).exit_code == 1
    return tmp_path / "panic-store"


def test_again_makes_a_new_experiment_and_keeps_where_it_comes_from(panic: Invoke, plain: Path) -> None:
    before = panic("dump", "demo").stdout
    done = panic("again", "demo", "--dry-run", "--set", "max_length=4")
    assert done.exit_code == 0, done.output
    assert "demo-2 is new in" in done.stdout
    done = panic("again", "demo", "--set", "max_length=4", "--tag", "short")
    assert done.exit_code == 0, done.output
    assert "demo-2 is complete" in done.stdout
    assert panic("dump", "demo").stdout == before
    assert {length for length, _ in states(panic, "demo-2")} == {4}
    assert shown(panic, "demo-2")["tags"] == ["short"]
    uid = shown(panic, "demo")["id"]
    assert f"made from:        demo ({uid[:12]}), with max_length=4\n" in panic("show", "demo-2").stdout
    assert "again as:         demo-2" in panic("show", "demo").stdout
    assert panic("again", "demo-2", "--name", "third").exit_code == 0
    assert "made from:        demo-2" in panic("show", "third").stdout
    assert panic("check").exit_code == 0


def test_again_says_the_tags_and_the_label_that_are_set(panic: Invoke, plain: Path) -> None:
    assert panic("tag", "demo", "not-this").exit_code == 0
    done = panic("again", "demo", "--set", "tags=[x, y]", "--set", "label=new")
    assert done.exit_code == 0, done.output
    found = shown(panic, "demo-2")
    assert (found["tags"], found["label"]) == (["x", "y"], "new")


def test_an_experiment_made_again_has_its_origin_from_its_first_moment(panic: Invoke, plain: Path) -> None:
    """A kill between the two would have lost it: both are one transaction."""
    assert panic("again", "demo").exit_code == 0
    with Store(plain) as opened:
        uid = reading.experiment(opened, "demo-2").uid
        [(kind, target)] = opened.db.rows("SELECT kind, target FROM annotation")
    assert (kind, target) == ("origin", uid)
    row = ("experiment", "u" * 32, "origin", "{}", "", None, None)  # without a time: refused
    with Store(plain, write=True) as opened, pytest.raises(apsw.ConstraintError):
        writing.start_experiment(opened, "third", {"name": "third"}, "u" * 32, row)
    with Store(plain) as opened:
        assert reading.named(opened, "third") is None


def test_the_same_again_gives_the_same(panic: Invoke, plain: Path) -> None:
    assert panic("again", "demo").exit_code == 0
    runs = [shown(panic, name, "--run", number)["steps"] for name, number in (("demo", 1), ("demo-2", 13))]
    assert [step["output"] for step in runs[0]] == [step["output"] for step in runs[1]]
    for name in ("demo", "broken"):
        done = panic("again", "demo", "--name", name)
        assert done.exit_code == 2
        assert "--name NAME" in done.stderr
    done = panic("again", "demo", "--set", "max_lenght=3")
    assert done.exit_code == 2
    assert "did you mean 'max_length'?" in done.stderr
    assert "override 'max_lenght=3'" in done.stderr


def test_an_extension_computes_what_is_new_and_keeps_the_rest(
    panic: Invoke, plain: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more prompts.csv"
    more.write_text("text\nstate 4\nstate 1\n")
    done = panic("extend", "demo", "--prompts", more, "--repeats", 3, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "runs:        16, of which 6 have ended" in done.stdout
    done = panic("extend", "demo", "--prompts", more, "--repeats", 3, "--max-length", 10)
    assert done.exit_code == 0, done.output
    other = tmp_path / "other"
    config = write_config(tmp_path, max_length=10, prompts=["state 0", "state 3", "state 4", "state 1"])
    assert panic("run", config, "--set", "repeats=3", "--store", other).exit_code == 0
    lines = [
        {
            line
            for line in panic("dump", "demo", "--store", path).stdout.splitlines()
            if '"diagram"' not in line
        }
        for path in (plain, other)
    ]
    assert lines[0] == lines[1]
    assert panic("resume", "demo").stdout == "demo is complete.\n"
    done = panic("extend", "demo", "--network", "draw, chain")
    assert done.exit_code == 2
    assert "the same network as networks.0" in done.stderr
    done = panic("extend", "demo", "--network", "draw,chian")
    assert done.exit_code == 2
    assert "did you mean 'chain'?" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--max-length, --prompts, --repeats or --network"),
        (("--max-length", 8), "have a length of 8 already"),
        (("--repeats", 2), "2 repeats already"),
        (("--prompts", "none.txt"), "none.txt"),
        (("--max-length", 0), "--max-length"),
    ],
)
def test_an_extension_that_extends_nothing_is_refused(
    panic: Invoke, store: Path, options: tuple[object, ...], said: str
) -> None:
    done = panic("extend", "demo", *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_failed_runs_are_computed_again_and_how_they_failed_is_kept(panic: Invoke, plain: Path) -> None:
    failed = [run["run"] for run in shown(panic, "broken")["runs"] if run["state"] == "failed"]
    told = panic("rerun", "broken", "--failed", "--dry-run").stdout
    assert told == f"{len(failed)} runs of broken would be tried again.\n"
    assert panic("rerun", "broken").exit_code == 2
    assert panic("rerun", "demo", "--failed").stdout == "No run of demo has failed.\n"
    number = failed[0]
    step = shown(panic, "broken", "--run", number)["failure"]["step"]
    for attempt in (1, 2):
        assert panic("rerun", "broken", "--failed").exit_code == 1
        found = shown(panic, "broken", "--run", number)
        assert found["state"] == "failed"
        assert [one["step"] for one in found["earlier_failures"]] == [step] * attempt
    assert "failed before:" in panic("show", "broken", "--run", number).stdout
    with Store(plain) as opened:
        assert check.check(opened) == []
    assert panic("delete", "broken", "-y").exit_code == 0
    assert panic("purge", "-y").exit_code == 0
    with Store(plain) as opened:
        assert opened.db.value("SELECT count(*) FROM attempt") == 0


def test_failures_of_runs_that_nobody_asked_for_were_forgotten(panic: Invoke, plain: Path) -> None:
    """They counted as begun from then on, and nothing went on with them."""
    failed = [run["run"] for run in shown(panic, "broken")["runs"] if run["state"] == "failed"]
    assert len(failed) > 1
    assert panic("rerun", "broken", "--failed", "--where", f"run = {failed[0]}").exit_code == 1
    assert [run["run"] for run in shown(panic, "broken")["runs"] if run["state"] == "failed"] == failed
    tried = [len(shown(panic, "broken", "--run", run)["earlier_failures"]) for run in failed]
    assert tried == [1] + [0] * (len(failed) - 1)


def test_branches_of_failed_runs_were_added_to_all_others(panic: Invoke, plain: Path, tmp_path: Path) -> None:
    """Their arms became arms of the config, so that an extension or a repetition performed their product."""
    failed = [run for run in shown(panic, "broken")["runs"] if run["state"] == "failed"]
    mended = ("rerun", "broken", "--failed", "--set", "models.chain.fail_at=null", "--quiet")
    assert panic(*mended).exit_code == 0
    branches = [run for run in shown(panic, "broken")["runs"] if run["arm"] != "baseline"]
    assert len(branches) == len(failed)
    num_before = len(shown(panic, "broken")["runs"])
    (tmp_path / "more.txt").write_text("state 4\n")
    planned = panic("again", "broken", "--dry-run").stdout
    assert "runs:        6," in planned
    assert "arms:" not in planned
    assert panic("again", "broken", "--set", "max_length=1", "--quiet").exit_code == 0
    assert {run["arm"] for run in shown(panic, "broken-2")["runs"]} == {"baseline"}
    assert panic("extend", "broken", "--prompts", "more.txt", "--max-length", 9, "--quiet").exit_code == 1
    runs = shown(panic, "broken")["runs"]
    assert len(runs) == num_before + 3
    assert {run["arm"] for run in runs if run["prompt"] == "state 4"} == {"baseline"}
    of_branches = {run["max_length"] for run in runs if run["arm"] != "baseline" and run["state"] == "done"}
    assert of_branches <= {9}
    (tmp_path / "same.yaml").write_text(panic("show", "broken", "--config").stdout)
    planned = panic("run", "same.yaml", "--dry-run").stdout
    assert f"{len(branches)} runs of other arms are left alone" in planned
    assert panic("check").exit_code == 0


COMMAND = [sys.executable, "-m", "panic"]


def started(tmp_path: Path, panic: Invoke, **changes: Any) -> subprocess.Popen[bytes]:
    config = write_config(tmp_path, **({"delay_s": 0.05, "max_length": 2000} | changes))
    process = subprocess.Popen(
        [*COMMAND, "run", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def has_begun() -> bool:
        done = panic("status", "demo", "--json")
        return done.exit_code == 0 and json.loads(done.stdout)["invocations"] > 0

    until(has_begun, process)
    return process


def test_an_experiment_is_stopped_ended_and_reopened(panic: Invoke, tmp_path: Path) -> None:
    process = started(tmp_path, panic)
    try:
        done = panic("end", "demo")
        assert (done.exit_code, f"process {process.pid}" in done.stderr) == (1, True)
        done = panic("stop", "demo", "--wait")
        assert done.exit_code == 0, done.output
        assert f"Process {process.pid} was asked to stop" in done.stdout
        assert "demo has stopped." in done.stdout
        assert process.wait(timeout=LONGEST_S) == 130
    finally:
        process.kill()
    assert json.loads(panic("status", "--json").stdout)["state"] == "interrupted"
    assert panic("stop", "demo").stdout == "Nobody performs demo.\n"
    before = [run["num_steps"] for run in shown(panic, "demo")["runs"]]
    done = panic("end", "demo")
    assert done.exit_code == 0, done.output
    assert "A longer config reopens it." in done.stdout
    found = shown(panic, "demo")
    assert [run["num_steps"] for run in found["runs"]] == [number for number in before if number]
    assert {run["state"] for run in found["runs"]} <= {"done", "stuck"}
    assert panic("resume", "demo").exit_code == 0
    assert shown(panic, "demo")["state"] == "complete"
    assert panic("check").exit_code == 0
    assert panic("end", "demo").stdout == "All runs of demo have ended.\n"
    longest = max(run["num_steps"] for run in found["runs"])
    assert panic("run", write_config(tmp_path, max_length=longest + 2, delay_s=0.05)).exit_code == 0
    assert max(run["num_steps"] for run in shown(panic, "demo")["runs"]) == longest + 2
    assert panic("check").exit_code == 0


def test_a_driver_elsewhere_or_of_another_number_is_not_stopped(
    panic: Invoke, tmp_path: Path, store: Path
) -> None:
    """A lock that names a process of another host, or in another container, which is somebody else here."""
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        for host, said in (("elsewhere", "on elsewhere"), (os.uname().nodename, "cannot be seen from here")):
            with Store(store, write=True) as opened:
                row = reading.experiment(opened, "demo")
                with opened.transaction() as connection:
                    connection.execute(
                        "UPDATE session SET end_state = NULL, ended_at = NULL, pid = ? WHERE experiment = ?",
                        (sleeper.pid, row.id),
                    )
                lock = {"pid": sleeper.pid, "host": host, "started_at": 0.0}
                (store / "lock").write_text(json.dumps(lock))
                done = panic("stop", "demo")
                assert done.exit_code == 1
                assert said in done.stderr
        assert sleeper.poll() is None
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()


def test_a_failed_run_branches_off_with_other_parameters(panic: Invoke, plain: Path) -> None:
    before = shown(panic, "broken")
    failed = {run["run"]: run for run in before["runs"] if run["state"] == "failed"}
    steps = {number: shown(panic, "broken", "--run", number)["steps"] for number in failed}
    change = ("--set", "models.chain.fail_at=null")
    told = panic("rerun", "broken", "--failed", *change, "--dry-run").stdout
    assert told == f"{len(failed)} runs of broken would branch off.\n"
    for _ in range(2):  # the second one has nothing to do
        done = panic("rerun", "broken", "--failed", *change)
        assert done.exit_code == 0, done.output
    after = shown(panic, "broken")
    assert [run for run in after["runs"] if run["run"] in failed] == list(failed.values())
    branches = [run for run in after["runs"] if run["arm"] != "baseline"]
    assert len(branches) == len(failed)
    assert {run["state"] for run in branches} <= {"done", "stuck"}
    for branch in branches:
        [number] = [
            number
            for number, run in failed.items()
            if all(run[key] == branch[key] for key in ("network", "prompt", "seed", "repeat"))
        ]
        found = shown(panic, "broken", "--run", branch["run"])["steps"]
        step = failed[number]["failure"]["step"]
        assert [one["output"] for one in found[:step]] == [one["output"] for one in steps[number]]
        assert found[step]["model"] == "chain-fail_at=none"
        assert {one["model"] for one in found[step:]} <= {"draw", "chain-fail_at=none"}
    with Store(plain) as opened:
        assert check.check(opened) == []


def test_a_branch_changes_nothing_but_models(panic: Invoke, plain: Path) -> None:
    done = panic("rerun", "broken", "--failed", "--set", "max_length=99")
    assert done.exit_code == 2
    assert "--set changes max_length" in done.stderr
    done = panic("rerun", "broken", "--failed", "--set", "models.circle.states=6")
    assert done.exit_code == 2
    assert "No failed run was going to call" in done.stderr
    done = panic("rerun", "broken", "--failed", "--set", "models.chain.fail_att=3")
    assert done.exit_code == 2
    assert "fail_at" in done.stderr
    assert panic("rerun", "broken", "--failed", "--where", "seed = 12345").exit_code == 2
