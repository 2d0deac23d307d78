"""A child process with a pipe: started by command, so it needs nothing of the parent's main module.

The parent sends pickled messages and gets the child's messages through a callback in a reader thread; the
callback gets None once, when the child has ended for whatever reason. The child runs
`function(connection, *arguments)` until it returns. Children ignore signals: the driver ends them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import queue
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from panic.engine.channel import Channel
from panic.processes import lose_unread, python

log = logging.getLogger("panic.engine")

POLL_S = 0.5
LOGGED_BYTES = 2**20
"""Of what a child prints, the most that is logged: models may print without end."""
LOGGED_S = 5.0
"""How long the end of a child waits for what it printed, at most."""
LINE_BYTES = 4096


class Child:
    """A running child process.

    Args:
        entry: "package.module:function" to run in the child with its connection.
        arguments: pickled and passed on.
        on_message: called in a reader thread with every message, and with None when the child has ended.
        on_error: called with what has ended a thread of this side, after which nobody hears the child.
        environment: variables that differ from this process's.
        hidden: variables that it does not get, such as those of keys.
        files: numbers of open files that it gets, under the same numbers.
    """

    def __init__(
        self,
        entry: str,
        arguments: tuple[Any, ...],
        on_message: Callable[[Any], None],
        on_error: Callable[[BaseException], None],
        environment: Mapping[str, str] | None = None,
        hidden: Collection[str] = (),
        files: Collection[int] = (),
    ) -> None:
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(True)  # whatever `socket.setdefaulttimeout` says
        self._connection, theirs = (Channel(end.detach()) for end in ends)
        handle = theirs.fileno()
        self._process = subprocess.Popen(
            python("panic.engine.child:main", entry, str(handle)),
            pass_fds=[handle, *files],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # logged; what models say on stderr is seen
            env={name: value for name, value in os.environ.items() if name not in hidden}
            | dict(environment or {}),
            start_new_session=True,  # a group, so that what a model has started ends with it
        )
        theirs.close()
        self._on_message = on_message
        self._on_error = on_error
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.send(arguments)
        self._room = LOGGED_BYTES  # in the log, for what it prints
        self._listener = threading.Thread(target=self._log_prints, name="child listener", daemon=True)
        self._listener.start()
        self._reader = threading.Thread(target=self._read, name="child reader", daemon=True)
        self._reader.start()
        threading.Thread(target=self._write, name="child writer", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any) -> None:
        """Send a message without waiting; None asks the child to end.

        Lost without an error if the child has ended: its end is reported by itself.
        """
        self._outbox.put(message)

    def kill(self) -> None:
        """End it and all that it has started at once; `on_message(None)` follows."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of ended processes
            os.killpg(self.pid, signal.SIGKILL)

    def close(self, wait_s: float = 5.0) -> None:
        """Ask it to end, then insist."""
        self.send(None)
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.kill()  # what it has started
        self._reader.join()
        self._until_logged()
        self._connection.close()

    def exit_reason(self) -> str:
        """Why it ended, in words; what it said last is in the log before."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
            return "its pipe broke"
        finally:
            self.kill()  # what it has started
            self._until_logged()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def _read(self) -> None:
        try:
            self._pass_on()
        except BaseException as error:
            self._on_error(error)

    def _pass_on(self) -> None:
        """Hand every message over until the child has ended, and then None."""
        arrivals = select.poll()  # `Connection.poll` would make one for each message
        arrivals.register(self._connection, select.POLLIN)
        while True:
            try:
                if not arrivals.poll(1e3 * POLL_S):
                    # A process that the child has forked may hold the pipe open after the child's end.
                    if self._process.poll() is not None and not arrivals.poll(0):
                        break
                    continue
                message = self._connection.recv()
            except (EOFError, OSError):
                break
            except Exception:  # a message that cannot be understood: nothing after it can be trusted
                log.exception("a message of process %d cannot be read", self.pid)
                self.kill()
                break
            self._on_message(message)
        self._outbox.put(None)  # ends the writing thread, too
        self._on_message(None)

    def _until_logged(self) -> None:
        """Wait until what it has printed is logged, a few seconds where the log grows, else one.

        A process that left the group may hold its end open, and go on printing.
        """
        before, deadline = self._room + 1, time.monotonic() + LOGGED_S
        while self._listener.is_alive() and self._room < before and time.monotonic() < deadline:
            before = self._room
            self._listener.join(1.0)

    def _log_prints(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            while line := stdout.readline(LINE_BYTES):
                if self._room > 0:
                    log.info("process %d prints: %s", self.pid, line.decode(errors="replace").rstrip("\n"))
                    self._room -= len(line)
                    if self._room <= 0:
                        log.info("what else process %d prints is not logged", self.pid)

    def _write(self) -> None:
        message: Any = ()
        while message is not None:
            message = self._outbox.get()
            try:
                self._connection.send(message)
            except OSError:
                return
            except BaseException as error:
                self._on_error(error)
                return


def main(entry: str, handle: str) -> None:
    """Run in the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lose_unread()
    connection = Channel(int(handle))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    module, function = entry.split(":")
    arguments = connection.recv()
    getattr(importlib.import_module(module), function)(connection, *arguments)


def _end_with_parent(parent: int) -> None:
    """A killed driver must not leave models on the GPU, nor what they have started."""
    event = threading.Event()
    while os.getppid() == parent:
        event.wait(1.0)
    os.killpg(0, signal.SIGKILL)
