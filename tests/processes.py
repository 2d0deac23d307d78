"""The processes of this machine, looked at while they come and go, and what this one holds."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

T = TypeVar("T")


def ask(
    processes: Iterable[psutil.Process], question: Callable[[psutil.Process], T]
) -> dict[psutil.Process, T]:
    """Return the answer of each process; one that has ended, or ends while it is asked, is left out."""
    answers = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            answers[process] = question(process)
    return answers


def command_lines(below: int | None = None) -> dict[psutil.Process, list[str]]:
    """Return the command lines of the living processes, of the machine or of all that `below` started."""
    if below is None:
        return ask(psutil.process_iter(), psutil.Process.cmdline)
    started = ask([psutil.Process(below)], lambda process: process.children(recursive=True))
    return ask((child for children in started.values() for child in children), psutil.Process.cmdline)


def running(text: str, below: int | None = None) -> list[psutil.Process]:
    """Return those of them with `text` in their command line."""
    return [process for process, words in command_lines(below).items() if text in " ".join(words)]


def until_dead(pid: int) -> None:
    """Wait until a process has ended, whoever waits for it, and whether or not somebody has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)


def open_files() -> set[tuple[int, str]]:
    """Return the open files of this process as Linux tells them: the number of each, and what it is of.

    None are known where there is no /proc.
    """
    found: set[tuple[int, str]] = set()
    if not os.path.isdir("/proc/self/fd"):
        return found
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the folder that is listed here, closed by now
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))
    return found


class Held:
    """What this process holds at a moment, and what of that which it holds later is new.

    What earlier tests have left is collected first, and what is given back since counts for nothing: how many
    files are open, and how many threads run, depends on when Python collects. Nothing is collected later, so
    what is new is held, or waits for a collection.
    """

    def __init__(self) -> None:
        gc.collect()
        self._files = open_files()
        self._threads = set(threading.enumerate())

    def new_files(self) -> set[tuple[int, str]]:
        return open_files() - self._files

    def new_threads(self) -> set[threading.Thread]:
        return set(threading.enumerate()) - self._threads
