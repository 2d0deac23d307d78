"""Notices while an experiment is performed: that it has ended, has failed, or gives no results any more.

Where they go stands in variables of the environment that the config names, in the words of apprise. An
address is a secret: it goes to the standard input of a process that sends one notice and ends, and nowhere
else. Such a process has a limit of time, and what becomes of it changes nothing for the experiment.

    with telling(config.notify, config.name, on_progress) as on_progress:
        perform(session)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from panic.engine.progress import Progress
from panic.errors import BudgetSpent, Interrupted, PanicError, UsageError

if TYPE_CHECKING:  # the process that sends has no need of it
    from panic.config import NoticeSettings

log = logging.getLogger("panic.engine")

LONGEST_S = 30.0
MOST_CHARACTERS = 300
SENDER = "panic.engine.notices"


@dataclass(kw_only=True, slots=True)
class _Watched:
    """How far an experiment is, and since when (by the monotonic clock) nothing has come of it.

    The driver's thread writes, the watching thread reads; each assignment is one step.
    """

    progress: Progress = field(default_factory=Progress)
    since: float = field(default_factory=time.monotonic)

    def hear(self, progress: Progress) -> None:
        """Take in how far it is now."""
        if _results(progress) != _results(self.progress):
            self.since = time.monotonic()
        self.progress = progress


def _results(progress: Progress) -> tuple[int, ...]:
    done = (stage.done for stage in progress.stages.values())
    return (progress.invocations, progress.runs_ended, *done)


@contextlib.contextmanager
def telling(
    settings: NoticeSettings, name: str, on_progress: Callable[[Progress], None]
) -> Iterator[Callable[[Progress], None]]:
    """Send notices of an experiment for as long as the block lasts, and one when it ends, however it ends.

    Yields what is to hear of progress, which passes it on. Raises UsageError at once where apprise or a
    variable is missing.
    """
    addresses = _addresses(settings)
    watched, ending = _Watched(), threading.Event()

    def hear(progress: Progress) -> None:
        watched.hear(progress)
        on_progress(progress)

    watcher = threading.Thread(
        target=_watch, args=(settings, name, addresses, watched, ending), name="notices", daemon=True
    )
    watcher.start()
    try:
        yield hear
    finally:
        ending.set()
        watcher.join(LONGEST_S + 5)
        error = sys.exception()
        is_failure = watched.progress.runs_failed > 0 if error is None else not isinstance(error, Interrupted)
        if "end" in settings.on or (is_failure and "failure" in settings.on):
            _send(addresses, f"{name} {_ending(error, watched.progress)}", _standing(watched.progress))


def _addresses(settings: NoticeSettings) -> dict[str, str]:
    """The addresses by the variables that hold them."""
    if find_spec("apprise") is None:
        raise UsageError("notify needs the extra `notify`.", hint="pip install 'panic[notify]'")
    found = {name: os.environ.get(name, "").strip() for name in settings.to}
    if missing := [name for name, address in found.items() if not address]:
        raise UsageError(
            f"notify: {', '.join(missing)} is not set in the environment.",
            hint="It holds an address, such as mailtos://..., which is secret and so not in the config.",
        )
    return found


def _watch(
    settings: NoticeSettings, name: str, addresses: dict[str, str], watched: _Watched, ending: threading.Event
) -> None:
    """Say which addresses are none; then tell of every stall, once each."""
    if strange := _send(addresses, "", ""):
        log.warning("notify: apprise knows no such address as that in %s", ", ".join(strange))
    limit_s = settings.stall_minutes * 60
    told = -1.0
    while not ending.wait(max(0.05, min(5.0, limit_s / 10))):
        since = watched.since
        if "stall" in settings.on and told != since and time.monotonic() - since > limit_s:
            told = since
            log.warning("no result for %g minutes", settings.stall_minutes)
            title = f"{name}: no result for {settings.stall_minutes:g} minutes"
            _send(addresses, title, _standing(watched.progress))


def _ending(error: BaseException | None, progress: Progress) -> str:
    """How it ended, in a few words."""
    if error is None:
        return f"has ended, {progress.runs_failed:,} runs failed" if progress.runs_failed else "is complete"
    if isinstance(error, Interrupted):
        return "was interrupted"
    if isinstance(error, BudgetSpent):
        return "has spent its budget"
    said = error.message if isinstance(error, PanicError) else type(error).__name__
    readable = "".join(one if one.isprintable() else " " for one in said)
    return f"has failed: {' '.join(readable.split())[:MOST_CHARACTERS]}"


def _standing(progress: Progress) -> str:
    return (
        f"{progress.runs_ended:,} of {progress.runs_total:,} runs have ended, {progress.runs_stuck:,} stuck,"
        f" {progress.runs_failed:,} failed; {progress.invocations:,} steps. On {socket.gethostname()}."
    )


def _send(addresses: dict[str, str], title: str, body: str) -> list[str]:
    """Send a notice to all, side by side; without a title only ask whether the addresses are known.

    Returns the variables whose addresses did not take it, which are told in the log.
    """
    hidden = {name: value for name, value in os.environ.items() if name not in addresses}
    environment = {**hidden, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    deadline = time.monotonic() + LONGEST_S
    senders: dict[str, subprocess.Popen[str]] = {}
    failed = []
    try:
        for name, address in addresses.items():
            senders[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", SENDER], env=environment, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stdin = senders[name].stdin
            assert stdin is not None
            with contextlib.suppress(OSError):
                stdin.write(json.dumps({"to": address, "title": title, "body": body}))
                stdin.close()
        for name, sender in senders.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                sender.wait(max(0.0, deadline - time.monotonic()))
            if sender.returncode != 0:
                failed.append(name)
    except (OSError, KeyboardInterrupt) as error:  # no memory for a process; nobody wants to wait
        failed = list(addresses)
        log.warning("no notice was sent: %s", type(error).__name__)
    finally:
        for sender in senders.values():
            sender.kill()
            sender.wait()
    if failed and title:
        log.warning("a notice did not reach the address in %s", ", ".join(failed))
    return failed


def main() -> None:
    """Send the notice that standard input holds; the exit code is 0 if it was taken."""
    asked = json.load(sys.stdin)
    import apprise

    logging.disable()  # apprise would log addresses
    asset = apprise.AppriseAsset(secure_logging=True, storage_mode="memory", app_id="panic")
    to = apprise.Apprise(asset=asset)
    is_good = bool(to.add(asked["to"]))
    if is_good and asked["title"]:
        text = apprise.NotifyFormat.TEXT
        is_good = bool(to.notify(title=asked["title"], body=asked["body"], body_format=text))
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
