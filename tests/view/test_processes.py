"""The processes that answer questions, and what becomes of a question whose process was killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from panic.view.processes import Process
from tests.patience import LONGEST_S
from tests.processes import running, until_dead


def workers() -> set[int]:
    """The processes that this one has started and that work out a question."""
    return {one.pid for one in running("panic.view.worker", below=os.getpid())}


@pytest.mark.slow
def test_a_process_killed_while_nobody_asked_is_replaced_by_the_next_question(
    known: tuple[Path, object],
) -> None:
    """The server need not have noticed yet, and called the question unanswerable."""

    async def stays() -> bool:
        return False

    async def ask_kill_ask() -> tuple[object, object]:
        process = Process()
        before = workers()
        asked = {"kind": "list", "path": str(known[0])}
        first = await process.ask(asked, LONGEST_S, stays)
        (child,) = workers() - before
        os.kill(child, signal.SIGKILL)
        until_dead(child)  # and the loop had no turn to see it
        second = await process.ask(asked, LONGEST_S, stays)
        await process.end()
        assert workers() == before
        return first, second

    first, second = asyncio.run(ask_kill_ask())
    assert first == second
