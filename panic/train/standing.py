"""How far a training has come, as its folder tells it, and the sessions that it was performed in.

<output>.training/session.json     of the session that goes on, or was killed: its config, when it began
<output>.training/sessions.jsonl   a line for each session that is over, with its end

    standing_of(Path("checkpoints/mine.training")).val_loss
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SESSION, SESSIONS = "session.json", "sessions.jsonl"
KILLED = "killed"
UNREADABLE = (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError)
"""What reading a damaged file of a training can raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a training has come.

    loss: of the last steps; measures: of the last evaluation, its loss among them; best: step and loss of the
    best evaluation. sessions: all that are over, as `sessions.jsonl` has them.
    """

    step: int = 0
    loss: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    best: tuple[int, float] | None = None
    sessions: tuple[Mapping[str, Any], ...] = ()

    @property
    def seconds(self) -> float:
        """How long all sessions that are over took."""
        return math.fsum(max(0.0, one["ended_at"] - one["began_at"]) for one in self.sessions)

    def after(self, step: int, *, loss: float | None, measures: Mapping[str, float] | None) -> Standing:
        """Return the standing at a later step, with what was told there."""
        best = self.best
        if measures and measures["loss"] < (best[1] if best else math.inf):  # as checkpoints have it
            best = (step, measures["loss"])
        return Standing(
            step=step,
            loss=self.loss if loss is None else loss,
            measures=measures or self.measures,
            best=best,
            sessions=self.sessions,
        )


def standing_of(folder: Path) -> Standing:
    """Return how far the training in a folder has come; what cannot be read is not there."""
    loss, evaluation = _last_row(folder / "loss.csv"), _last_row(folder / "evaluation.csv")
    best = None
    with contextlib.suppress(*UNREADABLE):
        found = json.loads(_content(folder / "best.json"))
        best = (int(found["step"]), float(found["loss"]))
    return Standing(
        step=int(max(filter(math.isfinite, (one.get("step", 0.0) for one in (loss, evaluation))), default=0)),
        loss=loss.get("loss"),
        measures={name: value for name, value in evaluation.items() if name != "step"},
        best=best,
        sessions=tuple(_sessions(folder / SESSIONS)),
    )


def saved_step(folder: Path) -> int | None:
    """Return the step of the newest checkpoint in a folder; None where there is none."""
    found = [path.stem.removeprefix("step-") for path in folder.glob("step-*.pt")]
    return max((int(step) for step in found if step.isdecimal()), default=None)


def _content(path: Path) -> bytes:
    """What a file holds. Raises OSError for what is none: of a pipe there is no end."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path.read_bytes()


def _last_row(path: Path) -> dict[str, float]:
    """The numbers of the last whole row of a journal's file."""
    if not path.is_file():  # of a pipe there is no end
        return {}
    try:
        with path.open(newline="") as file:
            rows = deque(csv.DictReader(file), maxlen=1)
    except (OSError, csv.Error, UnicodeDecodeError):
        return {}
    found = {}
    for name, text in rows[0].items() if rows else ():
        with contextlib.suppress(ValueError, TypeError):
            found[name] = float(text)
    return found


def _sessions(path: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in _content(path).splitlines():
            with contextlib.suppress(*UNREADABLE):  # a kill may have cut the last one
                session = json.loads(line)
                found.append(session | {name: float(session[name]) for name in ("began_at", "ended_at")})
    return found


def begin_session(folder: Path, session: Mapping[str, Any]) -> None:
    """Keep that a session began; one that was killed before it is over now, when it was last heard of."""
    path = folder / SESSION
    with contextlib.suppress(*UNREADABLE):
        killed, heard_at = dict(json.loads(_content(path))), path.stat().st_mtime
        ended = [_key(one) for one in _sessions(folder / SESSIONS)]
        if _key(killed) not in ended:  # a kill may have come between its end there and its removal here
            _append(folder / SESSIONS, {**killed, "ended_at": heard_at, "step": None, "state": KILLED})
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(session) + "\n")
    partial.replace(path)


def _key(session: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a session from others of its folder."""
    return session.get("began_at"), session.get("host"), session.get("pid")


def hear_of_session(folder: Path) -> None:
    """Keep that the session still goes on."""
    with contextlib.suppress(OSError):
        os.utime(folder / SESSION)


def end_session(folder: Path, session: Mapping[str, Any]) -> None:
    """Keep how a session ended."""
    _append(folder / SESSIONS, session)
    (folder / SESSION).unlink(missing_ok=True)


def _append(path: Path, session: Mapping[str, Any]) -> None:
    """Add a line; a last one that a kill has cut is ended first."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(session).encode() + b"\n")
