"""The processes that work out questions: one per store, started by its first, kept while pages look.

A process answers one question at a time, a line of JSON for a line. When whoever asked has gone it is asked
to give the question up, and killed if it does not; it is killed, too, when its time is over. It limits its
memory itself (`worker.py`).

    process = Process()
    await process.ask({"kind": "list", ...}, deadline, is_gone)
    process.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from panic.errors import NotFound, PanicError, UsageError

LOOK_EVERY_S = 0.5
GIVE_UP_S = 2.0
LONGEST_ANSWER = 2**30
WORKER = "panic.view.worker"
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "NUMBA_NUM_THREADS",
)

Gone = Callable[[], Awaitable[bool]]


class TooLong(PanicError):
    """A question has used up its time, or whoever asked has gone."""


class Process:
    """A process that answers, one question after another; whoever asks holds `lock`."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._exit_code = 0

    async def ask(self, asked: Mapping[str, Any], longest_s: float, is_gone: Gone) -> Mapping[str, Any]:
        """Return what is answered. Raises UsageError and NotFound as the process says, and TooLong.

        A process that was kept may have been killed since, perhaps unnoticed: then a new one is asked.
        """
        was_kept = self._child is not None
        line = await self._line(asked, longest_s, is_gone)
        if not line and was_kept:
            line = await self._line(asked, longest_s, is_gone)
        if not line:
            raise PanicError(f"The question could not be answered: its process ended with {self._exit_code}.")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise {"missing": NotFound, "usage": UsageError}.get(found["kind"], PanicError)(
                found["error"], hint=found["hint"]
            )
        return found

    async def _line(self, asked: Mapping[str, Any], longest_s: float, is_gone: Gone) -> bytes:
        """Return the line that the process answers, or nothing where it has ended without a whole one."""
        child = await self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(asked).encode() + b"\n")
        answer = asyncio.ensure_future(child.stdout.readline())
        try:
            await self._wait(answer, longest_s, is_gone)
            line = answer.result()
        except TooLong:
            raise
        except BaseException:  # the server ends, or the pipe has broken
            self.close()
            raise
        finally:
            answer.cancel()
        if not line.endswith(b"\n"):
            self.close()
            self._exit_code = await child.wait()
            return b""
        return line

    async def _wait(self, answer: asyncio.Future[bytes], longest_s: float, is_gone: Gone) -> None:
        deadline = asyncio.get_running_loop().time() + longest_s
        while not answer.done():
            await asyncio.wait([answer], timeout=LOOK_EVERY_S)
            if answer.done():
                return
            if asyncio.get_running_loop().time() > deadline:
                self.close()
                hint = "The command line has no such limit: panic figure, panic table, panic report."
                raise TooLong(f"This takes longer than {longest_s:.0f} s.", hint=hint)
            if await is_gone():
                await self._give_up(answer)
                raise TooLong("Nobody waits for it any more.")

    async def _give_up(self, answer: asyncio.Future[bytes]) -> None:
        """Let the process give its question up, of which it says so; kill it where it does not."""
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGINT)
        await asyncio.wait([answer], timeout=GIVE_UP_S)
        if not answer.done() or not answer.result():
            self.close()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._child is None or self._child.returncode is not None:
            threads = dict.fromkeys(THREADS, "2")
            paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # and not the working folder
            pipe = asyncio.subprocess.PIPE
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", WORKER, stdin=pipe, stdout=pipe,
                stderr=asyncio.subprocess.DEVNULL, env={**os.environ, **threads, **paths},
                start_new_session=True, limit=LONGEST_ANSWER,
            )  # fmt: skip
        return self._child

    async def end(self) -> None:
        """End it, and wait until it has ended: its pipes cannot be closed without the event loop."""
        child = self._child
        self.close()
        if child is not None:
            await child.wait()

    def close(self) -> None:
        """End it at once; the next question starts another one."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
        self._child = None
