"""Faults of processes: killed, stopped, starved, rivalled. Afterwards nothing is lost and nothing twice."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from panic.errors import StoreMissing, StoreTooOld
from panic.store import Store, reading, standing
from tests.faults import experiment as tried
from tests.patience import LONGEST_S

Whole = Path
"""Where the unhindered run is, or will be made."""


def kill(folder: Path, chance: random.Random, whole: Whole) -> str:
    """SIGKILL of the driver, of a child, or of all of them, at random moments; three times in a row."""
    store, told = folder / "store", []
    wanted = tried.config(executor="process") if chance.random() < 0.3 else tried.config()
    for _ in range(3):
        driver = tried.start(wanted, store)
        tried.wait_for_work(store, driver)
        time.sleep(chance.uniform(0, 1.0))
        whom = chance.choice(["driver", "child", "all"])
        told.append(f"{whom}{'' if driver.poll() is None else ' (too late)'}")
        if whom == "all":
            tried.send_all(driver, signal.SIGKILL)
        elif whom == "child" and (found := tried.children(driver)):
            chance.choice(found).kill()
        elif driver.poll() is None:
            driver.kill()
        if whom == "child":
            tried.end(driver)
        driver.communicate()
        tried.require_sound(store)
    tried.require_same_as_whole(wanted, store, whole)
    return f"killed {', '.join(told)}"


def kill_worker(folder: Path, chance: random.Random, whole: Whole) -> str:
    """SIGKILL of the process that calls the models; tells after how many seconds the next one calls them."""
    store = folder / "store"
    without: dict[str, list[str]] = {"diagrams": [], "vectorisations": [], "distances": []}
    wanted = tried.config(executor="process", workers=1, max_length=2000, seeds=[-1], **without)
    driver = tried.start(wanted, store)
    tried.wait_for_work(store, driver)
    _wait_for_call(store, driver, after=0.0)
    time.sleep(chance.uniform(0, 0.5))
    [worker] = tried.children(driver)
    worker.kill()
    killed_at = time.time()
    called_at = _wait_for_call(store, driver, after=killed_at)
    driver.terminate()
    tried.end(driver)
    tried.require_sound(store)
    with Store(store) as opened:
        assert reading.counts(opened).failed == 0
    return f"the next call began {called_at - killed_at:.2f} s after a worker was killed"


def _wait_for_call(store: Path, driver: subprocess.Popen[str], *, after: float) -> float:
    """When a stored call began that did so after a time. Raises AssertionError if none does for long."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end and driver.poll() is None:
        with contextlib.suppress(StoreMissing, StoreTooOld), Store(store) as opened:
            found = opened.db.value("SELECT min(started_at) FROM batch WHERE started_at > ?", after)
            if found is not None:
                return float(found)
        time.sleep(0.05)
    raise AssertionError(f"no model was called within {LONGEST_S:.0f} s")


def stop_and_go_on(folder: Path, chance: random.Random, whole: Whole) -> str:
    """SIGSTOP of the driver, of a child, or of all of them for a while, then SIGCONT."""
    store = folder / "store"
    wanted = tried.config(executor=chance.choice(["process", "auto"]))
    driver = tried.start(wanted, store)
    tried.wait_for_work(store, driver)
    whom = chance.choice(["driver", "child", "all"])
    for _ in range(3):
        time.sleep(chance.uniform(0, 0.5))
        if whom == "all":
            tried.send_all(driver, signal.SIGSTOP)
        elif whom == "child" and (found := tried.children(driver)):
            chance.choice(found).suspend()
        elif driver.poll() is None:
            driver.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.1, 0.7))
        tried.send_all(driver, signal.SIGCONT)
    code, errors = tried.end(driver)
    assert code == 0, errors
    tried.require_same_as_whole(tried.config(), store, whole)
    return f"stopped {whom} and went on"


def terminate(folder: Path, chance: random.Random, whole: Whole) -> str:
    """SIGTERM: the driver finishes what is in flight and says that it was interrupted."""
    store = folder / "store"
    driver = tried.start(tried.config(), store)
    tried.wait_for_work(store, driver)
    time.sleep(chance.uniform(0.2, 0.8))
    driver.send_signal(signal.SIGTERM)
    code, errors = tried.end(driver)
    assert code in (0, 130, -signal.SIGTERM), (code, errors)
    tried.require_same_as_whole(tried.config(), store, whole)
    return f"terminated, exit code {code}"


def second_driver(folder: Path, chance: random.Random, whole: Whole) -> str:
    """A second driver is refused while the first is at work, and changes nothing.

    The first stands still while the second tries, or it could be done before: whoever comes then may work.
    """
    store = folder / "store"
    first = tried.start(tried.config(), store)
    tried.wait_for_work(store, first)
    time.sleep(chance.uniform(0, 0.5))
    first.send_signal(signal.SIGSTOP)
    with contextlib.suppress(ChildProcessError):  # it has ended, and sending looked at that
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    was_at_work = _is_locked(store)
    try:
        code, errors = tried.end(tried.start(tried.config(), store))
    finally:
        first.send_signal(signal.SIGCONT)
    if was_at_work:
        assert code != 0, "two drivers wrote"
        assert f"is being written by process {first.pid}" in errors, errors
    assert tried.end(first)[0] == 0
    tried.require_same_as_whole(tried.config(), store, whole)
    return f"second driver: exit code {code}{'' if was_at_work else ' (too late)'}"


def _is_locked(store: Path) -> bool:
    """Whether a process holds the lock of a driver."""
    with (store / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def reader_with_snapshot(folder: Path, chance: random.Random, whole: Whole) -> str:
    """A reader that holds one state of the store all the time sees no change and hinders nobody."""
    store = folder / "store"
    driver = tried.start(tried.config(), store)
    tried.wait_for_work(store, driver)
    _wait_for_call(store, driver, after=0.0)
    with Store(store) as reader, reader.db.snapshot():
        before = reading.counts(reader)
        code, errors = tried.end(driver)
        assert code == 0, errors
        assert reading.counts(reader) == before
    tried.require_same_as_whole(tried.config(), store, whole)
    return f"a reader stayed at {before.invocations} invocations"


def little_memory(folder: Path, chance: random.Random, whole: Whole) -> str:
    """A limit of address space at random: it works, or ends with a message; what is stored is sound."""
    store, limit = folder / "store", chance.randint(150, chance.choice([400, 1500])) * 2**20
    wanted = tried.config(executor=chance.choice(["process", "auto"]))  # children inherit the limit
    driver = tried.start(wanted, store, ("prlimit", f"--as={limit}"))
    try:
        driver.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        tried.send_all(driver, signal.SIGKILL)
        raise AssertionError(f"it hangs with {limit >> 20} MiB") from None
    tried.require_sound(store)
    tried.require_same_as_whole(tried.config(), store, whole)
    return f"{limit >> 20} MiB: exit code {driver.returncode}"


def full_disk(folder: Path, chance: random.Random, whole: Whole) -> str:
    """A tmpfs that is too small for a part of the work; then room is made, and it goes on. Needs root."""
    place = folder / "disk"
    place.mkdir()
    size = chance.randint(300, 1500)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        raise Unavailable("mounting needs root")
    try:
        code, errors = tried.end(tried.start(tried.config(), place / "store"))
        assert code == 0 or "full" in errors or "No space" in errors, errors
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        tried.require_sound(place / "store")
        tried.require_same_as_whole(tried.config(), place / "store", whole)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    return f"{size} kB: exit code {code}"


def clock_jumps(folder: Path, chance: random.Random, whole: Whole) -> str:
    """The wall clock of all processes is set back and forth while they work. Needs a C compiler."""
    store, seconds, jumps = folder / "store", folder / "seconds", [0]
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("there is no C compiler for a clock that can be set")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    driver = tried.start(tried.config(), store, ("env", f"LD_PRELOAD={library}", f"CLOCK_FILE={seconds}"))
    tried.wait_for_work(store, driver)
    while driver.poll() is None:
        jumps.append(chance.choice([-(10**8), 10**8, -86_400, 86_400, -2, 2]))
        seconds.write_text(str(jumps[-1]))
        time.sleep(chance.uniform(0.05, 0.4))
        with contextlib.suppress(StoreMissing, StoreTooOld), Store(store) as opened:
            require_no_negative_times(opened)
    code, errors = tried.end(driver)
    assert code == 0, errors
    with Store(store) as opened:
        require_no_negative_times(opened)
    tried.require_same_as_whole(tried.config(), store, whole)
    return f"the clock was set {len(jumps):,} times"


def require_no_negative_times(store: Store) -> None:
    """Raise AssertionError for a duration below 0, a stretch before the beginning or an estimate below 0.

    The clock jumps by a day and more, too: nothing took an hour.
    """
    assert not store.db.rows("SELECT duration_s FROM batch WHERE duration_s NOT BETWEEN 0 AND 3600")
    assert not store.db.rows("SELECT duration_s FROM diagram WHERE duration_s NOT BETWEEN 0 AND 3600")
    for row in reading.experiments(store):
        for stretch in (one for told in reading.timelines(store, row.id).values() for one in told):
            assert stretch["start_s"] >= 0, stretch
            assert 0 <= stretch["seconds"] <= stretch["width_s"] < 3600, stretch
        assert (standing.eta_s(store, row, standing.standing(store, row)) or 0) >= 0


class Unavailable(Exception):
    """This machine cannot inject the fault; the message says why."""
