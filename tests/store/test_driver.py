"""Asking the process that writes a store to stop: it and no other one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from panic.errors import StoreError
from panic.store.driver import _has_lock, ask_to_stop
from panic.store.files import LockHolder
from tests.rights import folder_of_others, without_rights

HERE = os.uname().nodename


@pytest.fixture
def store() -> Iterator[Path]:
    """A folder with a lock that nobody has."""
    with folder_of_others() as folder:
        (folder / "lock").touch()
        yield folder


@pytest.fixture
def driver(store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lock open, and the file of another store."""
    other = store / "other"
    other.touch()
    script = f"exec 7<{other} 8>>{store / 'lock'}; echo ready; exec sleep 600"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.communicate()


def holder(pid: int, host: str = HERE) -> LockHolder:
    return LockHolder(pid=pid, host=host, started_at=0.0)


def test_the_process_that_has_the_lock_is_asked(store: Path, driver: subprocess.Popen[bytes]) -> None:
    ask_to_stop(store, holder(driver.pid))
    assert driver.wait(timeout=30) == -signal.SIGTERM


def test_a_process_of_another_host_or_without_the_lock_goes_on(
    store: Path, driver: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=f"process {driver.pid} on elsewhere: this is {HERE}") as raised:
        ask_to_stop(store, holder(driver.pid, "elsewhere"))
    assert raised.value.hint == f"Stop it there: panic stop, or kill {driver.pid}."
    (tmp_path / "lock").touch()
    (store / "lock").rename(store / "gone")
    (store / "lock").touch()  # of a store that lies here by now
    for folder in (tmp_path, store):
        with pytest.raises(StoreError, match="which cannot be seen from here") as raised:
            ask_to_stop(folder, holder(driver.pid))
        assert "another container" in raised.value.hint
    assert driver.poll() is None


def test_a_process_that_is_gone_cannot_be_seen(store: Path, driver: subprocess.Popen[bytes]) -> None:
    driver.kill()
    driver.wait()
    with pytest.raises(StoreError, match="which cannot be seen from here"):
        ask_to_stop(store, holder(driver.pid))


def test_a_process_that_ends_meanwhile_is_what_was_wanted(
    store: Path, driver: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = os.kill

    def too_late(pid: int, number: int) -> None:
        kill(pid, signal.SIGKILL)
        driver.wait()
        kill(pid, number)

    monkeypatch.setattr(os, "kill", too_late)
    ask_to_stop(store, holder(driver.pid))
    assert driver.returncode == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells what a process has open")
def test_a_file_that_is_closed_while_they_are_looked_at_hides_none_of_those_behind_it(store: Path) -> None:
    """As the folder of open files itself is, which is listed under the first number that is free."""
    gap, lock = os.open(store, os.O_RDONLY), os.open(store / "lock", os.O_RDONLY)
    os.close(gap)
    try:
        assert _has_lock(os.getpid(), store / "lock")
    finally:
        os.close(lock)
    assert not _has_lock(os.getpid(), store / "lock")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_process_of_another_user_is_left_to_that_user(store: Path, driver: subprocess.Popen[bytes]) -> None:
    refused = pytest.raises(StoreError, match=f"Process {driver.pid}, which writes .*, is of another user")
    with without_rights(), refused as raised:
        ask_to_stop(store, holder(driver.pid))
    assert raised.value.hint == "Ask that user to stop it."
    assert driver.poll() is None
