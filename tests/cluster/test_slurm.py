"""Jobs of a cluster: their script, what is submitted, where tasks stand, and the same tasks without Slurm."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from panic import run
from panic.cluster.job import Job, load, require_plain, save
from panic.cluster.local import perform_here
from panic.cluster.script import script, write_script
from panic.cluster.slurm import asked, commands, parsed, seconds_of
from panic.cluster.standing import standings
from panic.errors import PanicError, UsageError
from panic.store import Store, reading
from tests.engine.conftest import SYNTHETIC, dump
from tests.patience import LONGEST_S
from tests.processes import ask, command_lines

ROOT = Path(__file__).resolve().parents[2]


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "it's a demo.yaml"
    path.write_text(yaml.safe_dump({**SYNTHETIC, "batch_sizes": {}, "max_length": 8, **changes}))
    return path


def a_job(folder: Path, *configs: Path, **changes: Any) -> Job:
    job = Job(
        folder=folder / "the job's folder",
        configs=configs or (write_config(folder),),
        work=ROOT,
        ids={},
        **{"panic": (sys.executable, "-m", "panic"), "shards": 3, "scratch": folder, **changes},
    )
    save(job)
    write_script(job)
    return job


@pytest.mark.parametrize(
    "changed",
    [
        {"ids": {"tasks": ["--user=root"]}},
        {"ids": {"tasks": [""]}},
        {"shards": 10**9},
        {"shards": "3"},
        {"shards": 0},
        {"num_trainings": -1},
        {"configs": []},
    ],
    ids=str,
)
def test_a_job_of_others_is_none_that_says_what_panic_does_not(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    """A number in it was an option of scancel, and a thousand million tasks were looked for."""
    job = a_job(tmp_path)
    file = job.folder / "job.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UsageError, match="is none of panic slurm"):
        load(job.folder)


def test_a_job_is_read_as_it_was_saved(tmp_path: Path) -> None:
    job = a_job(tmp_path, sbatch=("--time=1:00",), setup="true").with_ids("pin", "7")
    save(job)
    assert load(job.folder) == job
    with pytest.raises(UsageError, match="has no job"):
        load(tmp_path / "nowhere")
    (job.folder / "tasks" / "0001.state").write_bytes(b"running on \xff")
    os.mkfifo(job.folder / "tasks" / "0002.state")
    assert (job.state(1), job.state(2)) == ("running on \ufffd", "")
    (job.folder / "job.json").unlink()
    os.mkfifo(job.folder / "job.json")
    with pytest.raises(UsageError, match="is none of panic slurm"):
        load(job.folder)
    (job.folder / "job.json").unlink()
    (job.folder / "job.json").write_text("[]")
    with pytest.raises(UsageError, match="is none of panic slurm"):
        load(job.folder)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize(
    "changes", [{}, {"num_trainings": 2, "overrides": ("a=1 2", "b='x'")}, {"scratch": None}]
)
def test_the_script_is_clean(tmp_path: Path, changes: dict[str, Any]) -> None:
    job = a_job(tmp_path, **changes)
    done = subprocess.run(["shellcheck", job.script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_of_a_path_or_setting_is_run_by_the_shell(tmp_path: Path) -> None:
    evil = f"x=$(touch {tmp_path}/ran)`touch {tmp_path}/ran`; touch {tmp_path}/ran '"
    job = a_job(tmp_path, write_config(tmp_path).rename(tmp_path / "$(touch ran);'.yaml"), overrides=(evil,))
    perform_here(job, [1])
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="quotes, backslashes or line breaks"):
        require_plain(Path('a"b'))


def test_a_shell_at_work_reads_its_script_to_the_end(tmp_path: Path) -> None:
    """A shell reads a script bit by bit, and another `panic slurm --local` wrote over it."""
    job = a_job(tmp_path)
    with job.script.open() as at_work:
        write_script(replace(job, setup="module load cuda"))
        assert at_work.read() == script(job)
    assert "module load cuda" in job.script.read_text()


def test_what_is_submitted(tmp_path: Path) -> None:
    job = a_job(tmp_path, sbatch=("--time=1:00", "--gres=gpu:1"))
    found = commands(job)
    assert list(found) == ["pin", "tasks", "merge"]
    assert "--array=1-3" in found["tasks"]
    assert "--signal=B:USR1@120" in found["tasks"]
    assert "--dependency=afterok:{pin}" in found["tasks"]
    assert "--dependency=afterany:{tasks}" in found["merge"]
    assert found["merge"][-3:] == [found["tasks"][-2], "merge", "{tasks}"]
    assert "--gres=gpu:1" in found["tasks"]
    assert "--gres=gpu:1" not in found["merge"]
    again = commands(job, [1, 3])
    assert list(again) == ["tasks", "merge"]
    assert "--array=1,3" in again["tasks"]
    training = commands(a_job(tmp_path, num_trainings=4))
    assert list(training) == ["tasks"]


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("90", 5_400),
        ("2:30", 150),
        ("4:00:00", 14_400),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("0-0:0:7", 7),
        ("UNLIMITED", math.inf),
        ("0", math.inf),
        ("0:00:00", math.inf),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(limit: str, seconds: float) -> None:
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize("limit", ["", "soon", "-1", "4h", "1:2:3:4", "1-", "4:00:00\n", "\uff11"])
def test_what_is_no_time_limit(limit: str) -> None:
    with pytest.raises(UsageError, match="no time limit of Slurm"):
        seconds_of(limit)


def test_states_are_told_apart(tmp_path: Path) -> None:
    text = """
17_1|COMPLETED|node-1
17_2|TIMEOUT|node-1
17_3|OUT_OF_MEMORY|node-2
17_4|NODE_FAIL|node-2
17_5|RUNNING|node-3
17_[7-8,10%2]|PENDING|
17_9|CANCELLED by 0|None assigned
17_batch|FAILED|node
17_6|FAILED|node-4
17_11|PENDING|
"""
    known = parsed(text)
    assert known[4] == ("node failed", "node-2")
    job = a_job(tmp_path, shards=13)
    told = {1: "complete", 5: "running", 11: "requeued", 12: "running", 13: "ended with 143"}
    for task, said in told.items():
        (job.folder / "tasks" / f"{task:04}.state").write_text(f"{said} on host, job 17_{task}, restart 0\n")
    found = {one.task: one.state for one in standings(job, known)}
    assert found == {
        1: "complete",
        2: "timed out",
        3: "out of memory",
        4: "node failed",
        5: "running",
        6: "failed",
        7: "pending",
        8: "pending",
        9: "cancelled",
        10: "pending",
        11: "requeued",
        12: "lost",
        13: "stopped",
    }


def test_without_slurm_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no sbatch-of-nobody here"):
        asked(["sbatch-of-nobody"])


@pytest.mark.slow
def test_the_same_tasks_without_slurm_are_the_whole(tmp_path: Path) -> None:
    job = a_job(tmp_path, shards=2)
    assert perform_here(job, [1, 2]) == 0
    assert [one.state for one in standings(job, {})] == ["complete"] * 2
    run(job.configs[0], tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")
    assert sorted(path.name for path in (job.folder / "tasks").glob("*.lock")) == []
    assert list(tmp_path.glob("panic-local*")) == []


def test_a_task_that_fails_keeps_none_from_running(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without Slurm those behind it were left out."""
    stand_in = f'echo "$@" >>"{tmp_path}/asked"; case "$*" in *" 1/3 "*) exit 1 ;; esac'
    job = a_job(tmp_path, panic=("sh", "-c", stand_in, "panic"))
    assert perform_here(job, [1, 2, 3]) == 1
    asked = (tmp_path / "asked").read_text()
    assert all(f"--shard {number}/3 " in asked for number in (1, 2, 3))
    assert "These shards are not complete: 1." in capfd.readouterr().err


@pytest.mark.slow
def test_a_merge_names_the_shards_that_are_not_complete(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = a_job(tmp_path, shards=2)
    assert perform_here(job, [2]) == 1
    assert "These shards are not complete: 1." in capfd.readouterr().err
    with Store(job.folder / "merged") as store:
        assert len(reading.runs(store, "test")) > 0


@pytest.mark.slow
def test_two_tasks_of_one_number_refuse_each_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = a_job(tmp_path, shards=1)
    lock = job.folder / "tasks" / "0001.lock"
    lock.write_text(f"local-{os.getppid()}\n")
    assert perform_here(job, [1]) == 1
    assert f"performed by job local-{os.getppid()} already" in capfd.readouterr().err
    gone = subprocess.Popen(["true"])
    gone.wait()
    lock.write_text(f"local-{gone.pid}\n")
    assert perform_here(job, [1]) == 0


@pytest.mark.slow
def test_a_warning_ends_the_task_after_its_batch_and_it_goes_on_from_its_snapshot(tmp_path: Path) -> None:
    """scontrol is a script that says what it was asked."""
    models = {name: {**of, "delay_s": 0.15} for name, of in SYNTHETIC["models"].items()}
    job = a_job(tmp_path, write_config(tmp_path, models=models, max_length=60), shards=1)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/requeued"\n')
    (tools / "scontrol").chmod(0o755)
    given = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "local-1"}
    given["SLURM_ARRAY_TASK_ID"] = "1"
    subprocess.run(["bash", job.script, "pin"], env=given, check=True)
    task = subprocess.Popen(["bash", job.script, "task"], env=given, start_new_session=True)
    while num_invocations(tmp_path / "panic-local-1-0001") < 8:
        assert task.poll() is None
        time.sleep(0.1)
    task.send_signal(signal.SIGUSR1)
    assert task.wait(LONGEST_S) == 0
    assert (tmp_path / "requeued").read_text() == "requeue local-1\n"
    assert job.state(1).startswith("requeued")
    before = dump(job.folder / "tasks" / "0001")
    assert len(before) > 10
    assert perform_here(job, [1]) == 0
    run(job.configs[0], tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")


def stand_in(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment in which a command is this script, and the job is 17_1."""
    (folder / "tools").mkdir(exist_ok=True)
    (folder / "tools" / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / "tools" / name).chmod(0o755)
    ids = {"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "1"}
    return {**os.environ, **ids, "PATH": f"{folder / 'tools'}:{os.environ['PATH']}"}


@pytest.mark.slow
def test_the_merge_comes_after_a_task_that_is_in_the_queue_again(tmp_path: Path) -> None:
    """`afterany` may hold while a task only waits to begin again: a merge lacked what it did later."""
    job = a_job(tmp_path, shards=2)
    assert perform_here(job, [1, 2]) == 0
    shutil.rmtree(job.folder / "merged")
    (job.folder / "tasks" / "0002.state").write_text("requeued on node-1, job 17_2, restart 0\n")
    stand_in(tmp_path, "scontrol", f'echo "$@" >> "{tmp_path}/asked"')
    given = stand_in(tmp_path, "squeue", '[ "$3" = 17_2 ] && echo 17_2')
    merge = ["bash", str(job.script), "merge"]
    done = subprocess.run(merge, env=given, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "asked").read_text()) == (0, "requeue 18\n")
    assert "Task 2 is in the queue again" in done.stderr
    assert not (job.folder / "merged").exists()
    (job.folder / "tasks" / "0002.state").unlink()  # its node failed before it wrote anything
    done = subprocess.run([*merge, "17"], env=given, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "asked").read_text()) == (0, "requeue 18\n" * 2)
    given = stand_in(tmp_path, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    done = subprocess.run([*merge, "17"], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "These shards are not complete: 2." in done.stderr
    assert (tmp_path / "asked").read_text() == "requeue 18\n" * 2


@pytest.mark.slow
def test_a_slurm_that_does_not_answer_frees_no_lock(tmp_path: Path) -> None:
    """squeue that failed, as on a busy controller, counted as a job that had ended: two wrote one shard."""
    job = a_job(tmp_path, shards=1, panic=("true",))
    lock = job.folder / "tasks" / "0001.lock"
    lock.write_text("16_1\n")
    task = ["bash", str(job.script), "task"]
    busy = stand_in(tmp_path, "squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    done = subprocess.run(task, env=busy, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Slurm does not say whether job 16_1 has ended" in done.stderr
    assert lock.read_text() == "16_1\n"
    ended = stand_in(tmp_path, "squeue", "echo 'slurm_load_jobs error: Invalid job id' >&2; exit 1")
    done = subprocess.run(task, env=ended, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not lock.exists()


@pytest.mark.slow
def test_a_store_whose_last_snapshot_fails_stays_on_its_node(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was deleted however the task had ended, and all since the snapshot before was lost."""
    job = a_job(tmp_path, shards=1)
    place = job.folder / "tasks" / "0001"
    run(write_config(tmp_path, name="another"), place)  # a store that is no snapshot of this one
    assert perform_here(job, [1]) == 1
    said = capfd.readouterr().err
    assert "No snapshot could be taken: what was computed stays on" in said
    [kept] = tmp_path.glob("panic-local-*-0001")
    shutil.rmtree(place)
    given = {**os.environ, "SLURM_JOB_ID": kept.name.split("-0001")[0].removeprefix("panic-")}
    done = subprocess.run(
        ["bash", job.script, "task"],
        env={**given, "SLURM_ARRAY_TASK_ID": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not kept.exists()
    assert job.state(1).startswith("complete")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before it begins", "as it begins", "while it performs"])
def test_a_task_that_ends_at_once_when_it_is_warned_is_requeued(tmp_path: Path, when: str) -> None:
    """The shell took the signal that it had itself for how its child had ended, if that was quick.

    And a child that was this shell still, not yet its command, lost the request and went on to the end.
    """
    given = stand_in(tmp_path, "scontrol", f'echo "$@" >> "{tmp_path}/asked"')
    begun = f'touch "{tmp_path}/begun"; '
    setup = {"before it begins": f"{begun} sleep 0.3", "as it begins": begun, "while it performs": ""}[when]
    performed = ("sh", "-c", f"{'' if setup else begun}exec sleep 600")
    job = a_job(tmp_path, shards=1, panic=performed, setup=setup)
    for number in range(1, 21):
        (tmp_path / "begun").unlink(missing_ok=True)
        task = subprocess.Popen(["bash", job.script, "task"], env=given, stderr=subprocess.PIPE, text=True)
        while not (tmp_path / "begun").exists():
            assert task.poll() is None
            time.sleep(0.001)
        time.sleep(number / 1000 if when == "as it begins" else 0.05)
        task.send_signal(signal.SIGUSR1)
        _, said = task.communicate(timeout=LONGEST_S)
        assert (task.returncode, said) == (0, "")
        assert job.state(1).startswith("requeued")
        assert (tmp_path / "asked").read_text() == "requeue 17_1\n" * number


@pytest.mark.slow
def test_a_task_that_is_told_twice_to_stop_keeps_what_it_has_computed(tmp_path: Path) -> None:
    """A second signal ends a run at once, as one that was interrupted: its store was deleted unsaved."""
    given = stand_in(tmp_path, "scontrol", "true")
    models = {name: {**of, "delay_s": 1.0} for name, of in SYNTHETIC["models"].items()}
    job = a_job(tmp_path, write_config(tmp_path, models=models, prompts=["a"], max_length=200), shards=1)
    subprocess.run(["bash", job.script, "pin"], env=given, check=True)
    task = subprocess.Popen(["bash", job.script, "task"], env=given)
    store = tmp_path / "panic-17_1-0001"
    while num_invocations(store) < 2:
        assert task.poll() is None
        time.sleep(0.1)
    [child] = [one for one, words in command_lines(below=task.pid).items() if "run" in words]
    task.send_signal(signal.SIGUSR1)
    task.send_signal(signal.SIGUSR1)  # as where somebody requeues it shortly before its time is over
    time.sleep(0.2)
    ask([child], psutil.Process.terminate)  # and then it is over, if it was not already
    assert task.wait(LONGEST_S) == 0
    assert num_invocations(job.folder / "tasks" / "0001") >= 2
    assert not store.exists()


def num_invocations(store: Path) -> int:
    try:
        with Store(store) as opened:
            return int(opened.db.value("SELECT count(*) FROM invocation"))
    except PanicError:
        return 0
