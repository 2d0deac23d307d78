"""A child process with a pipe: what it is given, what it says, and how it ends."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from panic.engine.calls import Call, CallError, CallResult
from panic.engine.child import Child
from panic.engine.ledger import Span
from panic.engine.process_worker import START_RETRIES, ProcessWorker
from panic.engine.serving import ServerSettings
from panic.errors import ModelDoesNotFit, ModelError, ModelMissing, StoreCorrupt
from panic.models import registry
from tests.patience import LONGEST_S
from tests.processes import Held, until_dead

ENTRIES = """
import os, signal, subprocess, sys, time


def tell(connection, *names):
    connection.send({name: os.environ.get(name) for name in names})
    ignored = signal.SIG_IGN
    connection.send([signal.getsignal(one) == ignored for one in (signal.SIGINT, signal.SIGTERM)])
    connection.send((os.getpgid(0) == os.getpid(), sys.stdin.read()))


def read(connection, number):
    connection.send(os.pread(number, 100, 0))


def echo(connection):
    while (message := connection.recv()) is not None:
        connection.send(message)


def leave(connection, code):
    print("the last words")
    sys.exit(code)


def stay(connection):
    started = subprocess.Popen(["sleep", "600"])
    connection.send(started.pid)
    time.sleep(600)


def close(connection):
    connection.close()
    time.sleep(600)


def leave_another(connection):
    if (pid := os.fork()) == 0:
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        time.sleep(600)
    connection.send(pid)
    os._exit(3)


def nonsense(connection):
    os.write(connection.fileno(), (4).to_bytes(4, "big") + b"nope")
    time.sleep(600)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """What starts children of these entries; they are ended in the end."""
    (tmp_path / "entries_of_a_test.py").write_text(ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)
    children: list[Child] = []

    def started(entry: str, *arguments: Any, **how: Any) -> tuple[Child, queue.SimpleQueue[Any]]:
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        child = Child(f"entries_of_a_test:{entry}", arguments, inbox.put, inbox.put, **how)
        children.append(child)
        return child, inbox

    yield started
    for child in children:
        child.kill()
        child.close()


def test_a_child_is_a_group_of_its_own_that_knows_no_secrets_and_hears_no_signals(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEPT", "CHANGED", "KEY"):
        monkeypatch.setenv(name, "here")
    names = ("KEPT", "CHANGED", "NEW", "KEY")
    _, inbox = start("tell", *names, environment={"CHANGED": "there", "NEW": "1"}, hidden=["KEY"])
    told = inbox.get(timeout=LONGEST_S)
    assert told == {"KEPT": "here", "CHANGED": "there", "NEW": "1", "KEY": None}
    assert inbox.get(timeout=LONGEST_S) == [True, True]
    assert inbox.get(timeout=LONGEST_S) == (True, "")
    assert inbox.get(timeout=LONGEST_S) is None
    assert inbox.empty()


def test_a_child_gets_the_files_that_are_named(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("weights")
    number = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        _, inbox = start("read", number, files=[number])
        assert inbox.get(timeout=LONGEST_S) == b"weights"
    finally:
        os.close(number)


def test_messages_come_back_in_their_order_until_it_is_asked_to_end(start: Callable[..., Any]) -> None:
    child, inbox = start("echo")
    for message in ("a", [1, 2], {"b": None}):
        child.send(message)
    assert [inbox.get(timeout=LONGEST_S) for _ in range(3)] == ["a", [1, 2], {"b": None}]
    child.send(None)
    assert inbox.get(timeout=LONGEST_S) is None
    assert child.exit_reason() == "exit status 0"


@pytest.mark.parametrize("code", [0, 7])
def test_an_end_is_told_with_its_code_when_what_was_printed_is_logged(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture, code: int
) -> None:
    caplog.set_level("INFO", "panic.engine")
    child, inbox = start("leave", code)
    assert inbox.get(timeout=LONGEST_S) is None
    assert child.exit_reason() == f"exit status {code}"
    assert caplog.messages == [f"process {child.pid} prints: the last words"]


def test_what_a_child_has_started_ends_with_it(start: Callable[..., Any]) -> None:
    child, inbox = start("stay")
    grandchild = inbox.get(timeout=LONGEST_S)
    child.kill()
    assert inbox.get(timeout=LONGEST_S) is None
    assert child.exit_reason() == "killed by SIGKILL"
    until_dead(grandchild)
    child, inbox = start("stay")
    grandchild = inbox.get(timeout=LONGEST_S)
    os.kill(child.pid, signal.SIGKILL)
    assert inbox.get(timeout=LONGEST_S) is None
    child.close(wait_s=0.0)
    until_dead(grandchild)


def test_a_child_that_does_not_end_when_it_is_asked_to_is_ended(start: Callable[..., Any]) -> None:
    child, inbox = start("stay")
    inbox.get(timeout=LONGEST_S)
    child.close(wait_s=0.01)
    assert child._process.returncode == -signal.SIGKILL
    assert child._connection.closed


def test_a_process_that_went_its_own_way_does_not_hold_up_the_end_of_its_parent(
    start: Callable[..., Any],
) -> None:
    """It has the pipe open, too."""
    child, inbox = start("leave_another")
    other = inbox.get(timeout=LONGEST_S)
    try:
        assert inbox.get(timeout=LONGEST_S) is None
        assert child.exit_reason() == "exit status 3"
        os.kill(other, 0)
    finally:
        os.kill(other, signal.SIGKILL)


@pytest.mark.parametrize("entry", ["close", "nonsense"])
def test_a_pipe_that_breaks_is_the_end_of_its_child(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, entry: str, caplog: pytest.LogCaptureFixture
) -> None:
    child, inbox = start(entry)
    assert inbox.get(timeout=LONGEST_S) is None
    if entry == "nonsense":
        assert child._process.wait(LONGEST_S) == -signal.SIGKILL
        assert caplog.messages[0] == f"a message of process {child.pid} cannot be read"
        return
    wait = child._process.wait
    monkeypatch.setattr(child._process, "wait", lambda timeout=None: wait(timeout and 0.05))
    assert child.exit_reason() == "its pipe broke"
    assert child._process.returncode == -signal.SIGKILL
    assert caplog.messages == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are told by /proc")
def test_a_child_that_has_ended_leaves_no_file_and_no_thread(start: Callable[..., Any]) -> None:
    before = Held()
    child, inbox = start("echo")
    child.send("a")
    assert inbox.get(timeout=LONGEST_S) == "a"
    # Its end of the pipe, and what it prints; the socket that is the child's is closed here.
    assert len(before.new_files()) == 2
    child.close()
    assert inbox.get(timeout=LONGEST_S) is None
    until = time.monotonic() + LONGEST_S
    while before.new_threads() and time.monotonic() < until:
        time.sleep(0.005)
    assert (before.new_files(), before.new_threads()) == (set(), set())


# A worker whose child a test plays


class Played:
    """A child that does nothing; what it was sent."""

    pid = 4711

    def __init__(self, entry: str, arguments: Any, on_message: Any, on_error: Any, **how: Any) -> None:
        self.entry, self.arguments, self.on_message, self.how = entry, arguments, on_message, how
        self.sent: list[Any] = []
        self.ends: list[str] = []

    def send(self, message: Any) -> None:
        self.sent.append(message.number)

    def kill(self) -> None:
        self.ends.append("kill")

    def close(self) -> None:
        self.ends.append("close")

    def exit_reason(self) -> str:
        return "exit status 7"


SETTINGS = ServerSettings(device="cpu", specs={"a": registry.resolve("synthetic/random-walk")}, hidden=("K",))


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    found: list[Played] = []

    def started(*of: Any, **how: Any) -> Played:
        found.append(Played(*of, **how))
        return found[-1]

    monkeypatch.setattr("panic.engine.process_worker.Child", started)
    return found


def worker_of(**how: Any) -> tuple[ProcessWorker, list[Any]]:
    delivered: list[Any] = []
    return ProcessWorker(SETTINGS, delivered.append, **how), delivered


def submit(worker: ProcessWorker, *numbers: int) -> None:
    for number in numbers:
        worker.submit(Call(number=number, model="a", batch_size=1, inputs=["x"], seeds=[0]))


def fates(delivered: list[Any]) -> list[tuple[int, str, bool]]:
    return [(one.number, one.error.kind, one.error.is_end) for one in delivered if one.error]


def test_a_process_starts_with_the_first_call_or_ahead_of_it(children: list[Played]) -> None:
    worker, delivered = worker_of()
    assert (children, worker.is_ready, worker.pid) == ([], True, None)
    submit(worker, 1, 2)
    [child] = children
    settings, is_ahead, spawned_at = child.arguments
    assert (settings, is_ahead, child.sent, worker.pid) == (SETTINGS, False, [1, 2], 4711)
    assert child.how == {"hidden": ("K",), "files": ()}
    assert spawned_at <= time.monotonic()
    child.on_message(("invoking", 1))
    child.on_message(CallResult(number=1))
    assert [one.number for one in delivered] == [1]
    ahead, _ = worker_of(ahead=True)
    assert (ahead.is_ready, children[1].arguments[1], children[1].sent) == (False, True, [])
    children[1].on_message(("ready", 0))
    assert ahead.is_ready


def test_of_calls_that_a_process_had_the_one_it_was_at_has_crashed(children: list[Played]) -> None:
    worker, delivered = worker_of()
    submit(worker, 1, 2, 3)
    children[0].on_message(("invoking", 1))
    children[0].on_message(("invoked", 1))
    children[0].on_message(("invoking", 2))
    children[0].on_message(None)
    assert fates(delivered) == [(1, "untried", False), (2, "crash", True), (3, "untried", False)]
    assert [one.error.message for one in delivered] == [
        "not started", "the process that runs models ended: exit status 7", "not started"
    ]  # fmt: skip
    submit(worker, 4)
    assert (len(children), children[1].sent) == (2, [4])
    assert "lost with its process" in [span.name for span in worker._spans]


def test_an_end_while_an_output_is_looked_at_is_that_calls(children: list[Played]) -> None:
    worker, delivered = worker_of()
    submit(worker, 1, 2)
    children[0].on_message(("invoking", 1))
    children[0].on_message(("invoked", 1))
    children[0].on_message(None)
    assert fates(delivered) == [(1, "crash", True), (2, "untried", False)]


def test_a_process_that_leaves_by_itself_has_failed_no_call(children: list[Played]) -> None:
    worker, delivered = worker_of()
    submit(worker, 1, 2)
    children[0].on_message(("invoking", 1))
    children[0].on_message(CallResult(number=1))
    children[0].on_message(("leaving", 1))
    children[0].on_message(None)
    assert fates(delivered) == [(2, "untried", True)]
    submit(worker, 3)
    children[1].on_message(("invoking", 3))
    children[1].on_message(None)
    assert fates(delivered)[1:] == [(3, "crash", True)]


def test_a_process_that_ends_before_its_first_call_may_do_so_once(children: list[Played]) -> None:
    worker, delivered = worker_of()
    for turn in range(START_RETRIES + 1):
        submit(worker, turn)
        children[-1].on_message(None)
    assert fates(delivered) == [*[(n, "untried", True) for n in range(START_RETRIES)], (1, "load", True)]
    submit(worker, 5)
    children[-1].on_message(("invoking", 5))
    children[-1].on_message(CallResult(number=5))
    children[-1].on_message(None)
    submit(worker, 6)
    children[-1].on_message(None)
    assert fates(delivered)[-1] == (6, "untried", True), "it has worked meanwhile"


def test_a_process_that_does_not_start_ahead_is_told(
    children: list[Played], caplog: pytest.LogCaptureFixture
) -> None:
    worker, delivered = worker_of(ahead=True)
    children[0].on_message(None)
    assert caplog.messages == ["a process that runs models did not start: exit status 7"]
    assert (delivered, worker.is_ready, worker.pid) == ([], False, None)
    worker, _ = worker_of()
    submit(worker, 1)
    children[-1].on_message(None)
    assert len(caplog.messages) == 1


def test_only_a_call_that_takes_too_long_is_ended(children: list[Played]) -> None:
    worker, delivered = worker_of(timeout_s=100.0)
    worker.check()
    submit(worker, 1)
    worker.check()
    children[0].on_message(("invoking", 1))
    worker.check()
    assert worker._invoking is not None
    worker._invoking = 1, time.monotonic() - 101
    worker.check()
    assert children[0].ends == ["kill"]
    children[0].on_message(None)
    assert delivered[0].error.message == "the process that runs models ended: no answer within 100 s"
    submit(worker, 2)
    children[1].on_message(("invoking", 2))
    children[1].on_message(None)
    assert delivered[1].error.message.endswith("exit status 7"), "of another process"
    patient, _ = worker_of()
    submit(patient, 1)
    patient._invoking = 1, -1e9
    patient.check()
    assert children[-1].ends == []


def test_a_worker_that_is_closed_hears_no_more(children: list[Played]) -> None:
    worker, delivered = worker_of()
    assert [span.name for span in worker.close()] == ["waiting for a call"]
    worker, delivered = worker_of()
    submit(worker, 1)
    children[0].on_message([Span("closing", "", 0.0, 1.0)])
    names = [span.name for span in worker.close()]
    assert names == ["waiting for a call", "closing", "ending a process"]
    children[0].on_message(None)
    assert (delivered, children[0].ends) == ([], ["close"])
    starting, _ = worker_of(ahead=True)
    assert "starting a process" in [span.name for span in starting.close()]
    assert children[1].ends == ["kill", "close"]


# Why a call gave nothing


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("memory", ModelDoesNotFit), ("unfit", ModelDoesNotFit), ("missing", ModelMissing),
        ("load", ModelError), ("unavailable", ModelError), ("damaged", StoreCorrupt),
    ],
)  # fmt: skip
def test_what_no_retry_mends_is_an_error_that_names_its_model_once(kind: Any, error: type[Exception]) -> None:
    found = CallError(kind=kind, message="no room", hint="b").fatal("draw", "a")
    assert (type(found), found.message, found.hint) == (error, "draw: no room", "a b")
    assert CallError(kind=kind, message="draw needs room").fatal("draw").message == "draw needs room"
    assert CallError(kind=kind, message="x").fatal("draw").hint == ""


def test_what_servers_and_classes_say_can_be_written() -> None:
    found = CallError(kind="error", message="a\ud800", detail="b\0", hint="c\udfff")
    for text in (found.message, found.detail, found.hint):
        text.encode()
    assert found.message.startswith("a")
