"""Slurm on this machine, for real, with daemons and files of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from panic.cluster.slurm import asked
from tests.processes import ask

STEP = "slurmstepd"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
CONF = """\
ClusterName=test
SlurmctldHost={host}
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin={tasks}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode={share}
ReturnToService=2
MpiDefault=none
KillWait=20
GresTypes=gpu
NodeName={host} CPUs=2 RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

CGROUP = """\
CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
"""
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
"""Of control groups of version 1; with those of version 2 slurmd needs a systemd."""


class Cluster:
    """A controller and one node on this machine. has_limits: tasks are held to their memory."""

    def __init__(self, *, has_limits: bool) -> None:
        self.has_limits = has_limits
        _forget_groups()
        self._controller = _daemon("slurmctld")
        self._node = _daemon("slurmd")
        self.until_idle()

    def until_idle(self) -> None:
        """Wait until the node takes tasks."""
        _until(["sinfo", "--noheader", "-o", "%T"], "idle")

    def lose_node(self) -> None:
        """Let the node end as machines do: its daemon and all of its tasks at once, none of which is told."""
        self._node.kill()
        self._node.wait()
        steps = [one for one, name in ask(psutil.process_iter(), psutil.Process.name).items() if name == STEP]
        started = ask(psutil.process_iter(), psutil.Process.environ)  # by Slurm, and not by a test as if
        tasks = [one for one, given in started.items() if "SLURMD_NODENAME" in given]
        ask([*steps, *tasks], psutil.Process.kill)
        _forget_groups()
        asked(["scontrol", "update", f"NodeName={socket.gethostname()}", "State=DOWN", "Reason=lost"])

    def start_node(self) -> None:
        """Start its daemon again."""
        self._node = _daemon("slurmd")
        self.until_idle()

    def close(self) -> None:
        """End both daemons."""
        for daemon in (self._node, self._controller):
            daemon.terminate()
            daemon.wait(120)


def _forget_groups() -> None:
    """Remove the control groups of a node that was lost, as its next start would: they keep jobs from it."""
    groups = MEMORY_GROUPS / f"slurm_{socket.gethostname()}"
    deadline = time.monotonic() + 60
    for folder, _, _ in os.walk(groups, topdown=False):
        while os.path.isdir(folder):
            try:
                os.rmdir(folder)
            except OSError:  # its processes are just ending
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _daemon(name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([name, "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _munge() -> None:
    """Start munge, unless it runs."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    run = Path("/run/munge")
    run.mkdir(exist_ok=True)
    shutil.chown(run, "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)


def _until(words: list[str], text: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if text in subprocess.run(words, capture_output=True, text=True, check=False).stdout:
            return
        time.sleep(0.2)
    pytest.fail(f"{words} never said {text!r}")


@pytest.fixture(scope="module")
def one_at_a_time() -> Iterator[None]:
    """What is of the whole machine, as ports are, is one process's: others wait until it is given back."""
    with open(Path(tempfile.gettempdir()) / "panic-tests-slurm.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def slurm(one_at_a_time: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this machine, with SLURM_CONF set."""
    if lacking := [name for name in DAEMONS if shutil.which(name) is None]:
        pytest.skip(f"Slurm is not installed: no {', '.join(lacking)}")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons need root")
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for name in ("card0", "card1"):  # slurmd counts no cards without files, and takes any files
        (folder / name).touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/card[0-1]\n")
    (folder / "cgroup.conf").write_text(CGROUP)
    tasks = "task/cgroup" if os.access(MEMORY_GROUPS / "memory.limit_in_bytes", os.W_OK) else "task/none"
    memory = int(0.9 * psutil.virtual_memory().total / 2**20)
    settings = CONF.format(host=host, folder=folder, tasks=tasks, memory=memory, share=memory // 3)
    (folder / "slurm.conf").write_text(settings)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    _munge()
    cluster = Cluster(has_limits=tasks == "task/cgroup")
    try:
        yield cluster
    finally:
        cluster.close()
        del os.environ["SLURM_CONF"]
