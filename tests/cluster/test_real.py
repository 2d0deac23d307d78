"""`panic slurm` on a Slurm of this machine: time limits, cards, lists of configs, trainings, --resubmit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from panic import run
from panic.cluster.job import Job, load
from panic.cluster.slurm import asked, cancel, states, submit
from panic.cluster.standing import standings
from panic.errors import PanicError
from panic.store import Store
from panic.store.check import check
from tests.cluster.conftest import Cluster
from tests.cluster.test_slurm import ROOT, SYNTHETIC, a_job, num_invocations, write_config
from tests.engine.conftest import dump
from tests.processes import ask, command_lines
from tests.train import small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # another process may have the ports for a while


def panic_slurm(folder: Path, *arguments: object, fails: bool = False) -> str:
    """What `panic slurm` says, for the job in a folder."""
    words = [sys.executable, "-m", "panic", "slurm", *map(str, arguments), "--folder", str(folder)]
    place = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, env=place, cwd=folder.parent, capture_output=True, text=True, check=False, timeout=200
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def until_ended(seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while asked(["squeue", "--noheader", "-o", "%i"]).strip():
        assert time.monotonic() < deadline, asked(["squeue"])
        time.sleep(0.5)


def standing(job: Job) -> list[str]:
    return [one.state for one in standings(job, states(job))]


def logs(job: Job) -> str:
    return "\n".join(path.read_text() for path in sorted((job.folder / "logs").rglob("*")) if path.is_file())


def wait_for(job: Job, task: int, *wanted: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = standings(job, states(job))[task - 1]
        if found.state in wanted:
            return
        time.sleep(0.5)
    pytest.fail(f"task {task} is {found}, and was to be {wanted}\n{logs(job)}")


def merged(job: Job, seconds: float = 300) -> str:
    """What the merge has said, when it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not asked(["squeue", "--noheader", "-o", "%i"]).strip():
            return (job.folder / "logs" / f"merge-{job.ids['merge'][-1]}.log").read_text()
        time.sleep(0.5)
    pytest.fail(asked(["squeue"]))


def until_at_work(folder: Path, task: int = 1, least: int = 4, seconds: float = 300) -> int:
    """Wait until a task has stored so many steps on its node; how many there are then."""
    deadline = time.monotonic() + seconds
    while (found := sum(map(num_invocations, folder.glob(f"panic-*-{task:04}")))) < least:
        assert time.monotonic() < deadline, f"{found} steps after {seconds:g} s"
        time.sleep(0.1)
    return found


def is_task(words: list[str]) -> bool:
    """Whether this is the command line of a task of Slurm; tests without Slurm start tasks, too."""
    return words[-1:] == ["task"] and any("slurm_script" in word for word in words)


def slow_models(delay_s: float) -> dict[str, dict[str, object]]:
    return {name: {**of, "delay_s": delay_s} for name, of in SYNTHETIC["models"].items()}


def test_a_list_of_configs_is_one_array_and_one_store(slurm: Cluster, tmp_path: Path) -> None:
    configs = []
    for name in ("one", "two"):
        configs.append(write_config(tmp_path, name=name, max_length=4).rename(tmp_path / f"{name}.yaml"))
    folder = tmp_path / "job"
    said = panic_slurm(folder, *configs, "--shards", 2, "--time", "5:00")
    assert re.search(r"Submitted: pin \d+, tasks \d+, merge \d+", said)
    until_ended()
    job = load(folder)
    assert standing(job) == ["complete"] * 4, logs(job)
    assert job.what(4) == "shard 2/2 of two.yaml"
    for config in configs:
        run(config, tmp_path / "whole")
    assert dump(folder / "merged") == dump(tmp_path / "whole")


def test_trainings_of_a_sweep_are_an_array_of_slurm(slurm: Cluster, tmp_path: Path) -> None:
    rates = [0.001, 0.01]
    config = tmp_path / "train.yaml"
    values = small.raw("autoencoder", tmp_path, steps=2, learning_rate={"values": rates})
    config.write_text(yaml.safe_dump(values))
    folder = tmp_path / "job"
    assert re.search(r"Submitted: tasks \d+\n", panic_slurm(folder, config, "--time", "5:00"))
    until_ended()
    job = load(folder)
    assert standing(job) == ["complete"] * 2, logs(job)
    assert len(list(tmp_path.glob("model*/config.json"))) == 2


def test_cards_are_given_as_asked_for(slurm: Cluster, tmp_path: Path) -> None:
    """Slurm counts them; which one a task sees it tells of real devices alone."""
    config = write_config(tmp_path, max_length=2)
    folder = tmp_path / "job"
    assert "gpu" in panic_slurm(tmp_path / "too many", config, "--gres", "gpu:3", fails=True)
    panic_slurm(folder, config, "--shards", 2, "--gres", "gpu:1", "--time", "5:00")
    until_ended()
    job = load(folder)
    assert standing(job) == ["complete"] * 2, logs(job)
    tasks, merge = (
        asked(["scontrol", "--oneliner", "show", "job", job.ids[name][0]]) for name in ("tasks", "merge")
    )
    assert tasks.count("TresPerNode=gres:gpu:1") == 2
    assert "gres" not in merge


def test_what_failed_is_submitted_again_and_nothing_else(slurm: Cluster, tmp_path: Path) -> None:
    """A disk that is not there for one of two tasks."""
    config = write_config(tmp_path, max_length=4)
    folder, disk = tmp_path / "job", tmp_path / "disk"
    setup = f'[ "${{SLURM_ARRAY_TASK_ID:-}}" != 2 ] || [ -e "{disk}" ] || exit 7'
    panic_slurm(folder, config, "--shards", 2, "--time", "5:00", "--setup", setup)
    until_ended()
    job = load(folder)
    assert standing(job) == ["complete", "failed"]
    said = panic_slurm(folder, "--status")
    assert "1 complete, 1 failed" in said
    assert "--resubmit" in said
    assert "These shards are not complete: 2." in logs(job)
    disk.touch()
    panic_slurm(folder, "--resubmit")
    until_ended()
    again = load(folder)
    assert len(again.ids["tasks"]) == 2
    assert standing(again) == ["complete"] * 2
    assert "All tasks are complete or at work." in panic_slurm(folder, "--resubmit")
    run(config, tmp_path / "whole")
    assert dump(folder / "merged") == dump(tmp_path / "whole")


def test_a_task_that_is_killed_outright_is_told_and_submitted_again(slurm: Cluster, tmp_path: Path) -> None:
    config = write_config(tmp_path, models=slow_models(0.1), max_length=60)
    folder = tmp_path / "job"
    panic_slurm(folder, config, "--time", "5:00")
    job = load(folder)
    until_at_work(tmp_path)
    [shell] = [one for one, words in command_lines().items() if is_task(words)]
    ask([shell, *shell.children(recursive=True)], psutil.Process.kill)  # as a control group would
    until_ended()
    assert job.state(1).startswith("running"), "it could write nothing more"
    assert (folder / "tasks" / "0001.lock").exists()
    assert standing(job) == ["failed"]
    panic_slurm(folder, "--resubmit")
    until_ended()
    assert standing(load(folder)) == ["complete"]
    run(config, tmp_path / "whole")
    assert dump(folder / "merged") == dump(tmp_path / "whole")


LASTING = """
import os
import time

from panic.models import synthetic


class Lasting(synthetic.ImageToText):
    PARAMETERS = synthetic.ImageToText.PARAMETERS

    def invoke(self, inputs, seeds):
        if "SLURM_ARRAY_TASK_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ:
            time.sleep(2)
        return super().invoke(inputs, seeds)
"""


@pytest.mark.timeout(1800)
def test_a_task_goes_on_beyond_its_time_limit(slurm: Cluster, tmp_path: Path) -> None:
    """Slurm warns two minutes before the limit, and looks every half minute: here after 60 to 90 s.

    However fast the machine, the first attempt cannot end before, and the second need not be warned.
    """
    (tmp_path / "models.py").write_text(LASTING)
    models = SYNTHETIC["models"]
    chain = {**models["chain"], "base": f"python:{tmp_path}/models.py:Lasting"}
    config = write_config(tmp_path, models={**models, "chain": chain}, max_length=200)
    folder = tmp_path / "job"
    panic_slurm(folder, config, "--time", "3:00")
    job = load(folder)
    until_ended(500)
    assert standing(job) == ["complete"], logs(job)
    assert job.state(1).endswith("restart 1")
    assert "Begins with the snapshot" in logs(job)
    assert "New: " in merged(job)
    assert not list(tmp_path.glob("panic-*-0001"))
    run(config, tmp_path / "whole")
    assert dump(folder / "merged") == dump(tmp_path / "whole")


def test_a_task_that_is_requeued_from_outside_goes_on(slurm: Cluster, tmp_path: Path) -> None:
    """As an administrator does: `scontrol requeue` in the middle of one of three; the first has no runs."""
    config = write_config(tmp_path, models=slow_models(0.05), max_length=100)
    job = submit(a_job(tmp_path, config, shards=3, sbatch=("--time=5:00",)))
    until_at_work(tmp_path, task=2)
    asked(["scontrol", "requeue", f"{job.ids['tasks'][0]}_2"])
    wait_for(job, 2, "requeued", "complete")
    assert "New: " in merged(job)
    assert standing(job) == ["complete"] * 3, logs(job)
    assert job.state(2).endswith("restart 1")
    run(config, tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")


HUNGRY = """
import os

from panic.models import synthetic


class Hungry(synthetic.ImageToText):
    PARAMETERS = synthetic.ImageToText.PARAMETERS

    def invoke(self, inputs, seeds):
        held = bytearray(b"1") * 900 * 2**20 if "SLURM_ARRAY_TASK_ID" in os.environ else None
        return super().invoke(inputs, seeds)
"""


def test_a_task_that_is_short_of_memory_is_told_and_submitted_with_more(
    slurm: Cluster, tmp_path: Path
) -> None:
    """The kernel ends what takes most; the shell takes a snapshot of what was stored before."""
    if not slurm.has_limits:
        pytest.skip("memory is not limited here: control groups of version 1 cannot be written")
    (tmp_path / "models.py").write_text(HUNGRY)
    models = SYNTHETIC["models"]
    chain = {**models["chain"], "base": f"python:{tmp_path}/models.py:Hungry"}
    config = write_config(tmp_path, models={**models, "chain": chain}, max_length=4)
    folder = tmp_path / "job"
    panic_slurm(folder, config, "--time", "5:00", "--mem", "700M")
    until_ended()
    job = load(folder)
    assert standing(job) == ["out of memory"], logs(job)
    assert "1 out of memory" in panic_slurm(folder, "--status")
    assert "These shards are not complete: 1." in logs(job)
    panic_slurm(folder, "--resubmit", "--mem", "2G")
    until_ended()
    assert standing(load(folder)) == ["complete"], logs(job)
    run(config, tmp_path / "whole")
    assert dump(folder / "merged") == dump(tmp_path / "whole")


@pytest.mark.parametrize("is_requeued", [True, False])
def test_what_a_lost_node_had_goes_on_from_its_snapshot(
    slurm: Cluster, tmp_path: Path, is_requeued: bool
) -> None:
    """Slurm begins the task again by itself; where it may not, --resubmit does."""
    config = write_config(tmp_path, models=slow_models(0.2), max_length=60)
    job = submit(a_job(tmp_path, config, shards=1, sbatch=("--time=5:00",), snapshot_every_s=1.0))
    snapshot = job.folder / "tasks" / "0001" / "store.sqlite"
    deadline = time.monotonic() + 120
    while not snapshot.exists():
        assert time.monotonic() < deadline, logs(job)
        time.sleep(0.2)
    if not is_requeued:
        asked(["scontrol", "update", f"JobId={job.ids['tasks'][0]}_1", "Requeue=0"])
    slurm.lose_node()
    for store in tmp_path.glob("panic-*-0001"):  # its disk is lost with it
        shutil.rmtree(store)
    wait_for(job, 1, "requeued" if is_requeued else "node failed")
    assert job.state(1).startswith("running"), "it could write nothing more"
    slurm.start_node()
    if not is_requeued:
        assert "These shards are not complete: 1." in merged(job)
        job = submit(job, [1])
    assert "New: " in merged(job)
    assert job.state(1).startswith("complete")
    assert "Begins with the snapshot" in logs(job)
    run(config, tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")


def test_an_array_of_slurm_is_the_whole(slurm: Cluster, tmp_path: Path) -> None:
    job = submit(a_job(tmp_path, sbatch=("--time=5:00",)))
    assert "New: " in merged(job)
    assert [one.state for one in standings(job, states(job))] == ["complete"] * 3
    run(job.configs[0], tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")
    with Store(job.folder / "merged") as store:
        assert check(store) == []


def test_a_job_of_slurm_that_is_cancelled_is_submitted_again(slurm: Cluster, tmp_path: Path) -> None:
    config = write_config(tmp_path, models=slow_models(0.05), max_length=100)
    job = submit(a_job(tmp_path, config, shards=1, sbatch=("--time=5:00",), snapshot_every_s=1.0))
    deadline = time.monotonic() + 120
    while not (job.folder / "tasks" / "0001" / "store.sqlite").exists():
        assert time.monotonic() < deadline, logs(job)
        time.sleep(0.2)
    cancel(job)
    wait_for(job, 1, "cancelled", "stopped")
    again = submit(job, [1])
    assert "New: " in merged(again)
    run(config, tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")


def test_slurm_says_what_it_does_not_take(slurm: Cluster, tmp_path: Path) -> None:
    with pytest.raises(PanicError, match=r"sbatch: error: .*partition"):
        submit(a_job(tmp_path, sbatch=("--partition=nowhere",)))


def test_a_warning_of_slurm_requeues_the_task(slurm: Cluster, tmp_path: Path) -> None:
    config = write_config(tmp_path, models=slow_models(0.1), max_length=60)
    job = submit(a_job(tmp_path, config, shards=1, sbatch=("--time=10:00",)))
    until_at_work(tmp_path)
    asked(["scancel", "--batch", "--signal=USR1", f"{job.ids['tasks'][0]}_1"])
    wait_for(job, 1, "requeued")
    assert "New: " in merged(job, seconds=300)
    assert job.state(1).startswith("complete")
    assert job.state(1).endswith("restart 1")
    run(config, tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")


@pytest.mark.timeout(1800)
def test_five_warnings_in_a_row_lose_nothing(slurm: Cluster, tmp_path: Path) -> None:
    """Once, after one requeue, the merged store lacked 180 lines: the merge may have begun before the end."""
    config = write_config(tmp_path, models=slow_models(0.05), max_length=500)
    job = submit(a_job(tmp_path, config, shards=2, sbatch=("--time=10:00",)))
    steps = 0
    for restart in range(5):
        wait_for(job, 1, "running")
        deadline = time.monotonic() + 60
        while not job.state(1).endswith(f"restart {restart}") and time.monotonic() < deadline:
            time.sleep(0.1)
        until_at_work(tmp_path, least=steps + 4)
        asked(["scancel", "--batch", "--signal=USR1", f"{job.ids['tasks'][0]}_1"])
        wait_for(job, 1, "requeued", "complete")
        steps = num_invocations(job.folder / "tasks" / "0001")  # with which the next attempt begins
    assert "New: " in merged(job, seconds=400)
    assert job.state(1).startswith("complete")
    assert job.state(1).endswith("restart 5")
    run(config, tmp_path / "whole")
    assert dump(job.folder / "merged") == dump(tmp_path / "whole")
