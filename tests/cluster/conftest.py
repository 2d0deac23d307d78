"""Slurm on this machine, for real, with daemons and files of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=20
GresTypes=gpu
NodeName={host} CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _munge() -> None:
    """Start munge, unless it runs."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    run = Path("/run/munge")
    run.mkdir(exist_ok=True)
    shutil.chown(run, "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)


def _until(words: list[str], text: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if text in subprocess.run(words, capture_output=True, text=True, check=False).stdout:
            return
        time.sleep(0.2)
    pytest.fail(f"{words} never said {text!r}")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of this machine: the folder of its files, with SLURM_CONF set."""
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
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    _munge()
    daemons = [
        subprocess.Popen([name, "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("slurmctld", "slurmd")
    ]
    try:
        _until(["sinfo", "--noheader", "-o", "%T"], "idle")
        yield folder
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        del os.environ["SLURM_CONF"]
