"""A training while it is performed: its lock, its sessions beside the model, its entry in the store.

with performing(loaded, session, store) as course:
    course.hear(progress)
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panic.errors import ConflictError, Interrupted, PanicError, StoreError, StoreLocked

if TYPE_CHECKING:
    from panic.store.trainings import TrainingRow
    from panic.train.config import Training
    from panic.train.loop import TrainingProgress
    from panic.train.standing import Standing

log = logging.getLogger("panic.cli")
KEEP_EVERY_S = 5.0
"""At most so often a training enters the store, but for its beginning and its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSession:
    """What is known of a session of a training before its first step."""

    began_at: float
    log: Path
    provenance: dict[str, Any]
    energy: Mapping[str, float] = field(default_factory=dict)  # that GPUs had used when it began


class Course:
    """Follows a training, and enters it into a store, from a thread of its own: nobody waits for the store.

    Nothing that happens to the store ends the training; `trouble` is the last thing that did. A store may be
    made after the training has begun.
    """

    def __init__(self, loaded: Training, session: TrainingSession, store: Path) -> None:
        self.loaded, self.session, self.store = loaded, session, store
        self.beside = Path(f"{loaded.output}.training")
        self.trouble: StoreError | None = None
        self.standing: Standing | None = None
        self._thread = ThreadPoolExecutor(1, "training-entry")
        self._kept: Future[None] | None = None
        self._kept_at = 0.0

    def hear(self, progress: TrainingProgress) -> None:
        """Take in how far the training is."""
        from panic.train import standing

        is_first = self.standing is None
        if self.standing is None:
            self.standing = standing.standing_of(self.beside)
            standing.begin_session(self.beside, self._described())
            self.standing = standing.standing_of(self.beside)  # with one that was killed
        self.standing = self.standing.after(progress.step, loss=progress.loss, measures=progress.measures)
        is_over = self._kept is None or self._kept.done()
        if is_first or (is_over and time.monotonic() - self._kept_at > KEEP_EVERY_S):
            standing.hear_of_session(self.beside)
            self._keep(None, None)

    def end(self, state: str, message: str | None) -> None:
        """Keep how the session ended, here and in the store."""
        from panic.store.provenance import energy_used, gpu_energy_j
        from panic.train import standing

        if self.standing is None:  # it was refused before it began
            return
        used = energy_used(self.session.energy, gpu_energy_j() if self.session.energy else {})
        self.session = replace(self.session, provenance=self.session.provenance | used)
        ended = {"ended_at": time.time(), "step": self.standing.step, "state": state}
        standing.end_session(self.beside, self._described() | ended)
        self._keep(state, message)
        self._thread.shutdown()

    def _described(self) -> dict[str, Any]:
        return {
            "began_at": self.session.began_at,
            "log": str(self.session.log),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "config": self.loaded.model_dump(mode="json"),
            "provenance": self.session.provenance,
        }

    def _keep(self, state: str | None, message: str | None) -> None:
        if self.standing is None or not (self.store / "store.sqlite").exists():
            return
        entry = entry_of(self.loaded, self.session, self.standing)
        if state is not None:
            entry = replace(entry, ended_at=entry.updated_at, end_state=state, message=message)
        self._kept_at = time.monotonic()
        self._kept = self._thread.submit(self._write, self.store, entry)

    def _write(self, path: Path, entry: TrainingRow) -> None:
        from panic.store import Store
        from panic.store.trainings import keep, mark_as_configured

        try:
            with Store(path) as store:
                mark_as_configured(store, entry)
                keep(store, entry)
            self.trouble = None
        except Exception as error:  # whatever it is, the training goes on, and says so at its end
            if self.trouble is None:
                log.info("not in the store %s: %s", path, error)
            self.trouble = error if isinstance(error, StoreError) else StoreError(f"{path}: {error}")


def entry_of(loaded: Training, session: TrainingSession, standing: Standing) -> TrainingRow:
    """Return what the store is told of a training that is performed."""
    from panic.store.codec import readable
    from panic.store.provenance import training_uid
    from panic.store.trainings import TrainingRow

    folder, now = Path(loaded.output).absolute(), time.time()
    recipe = json.loads(Path(f"{loaded.output}.training", "recipe.json").read_bytes())
    learnt = {"from": loaded.data.folder or loaded.data.dataset, "digest": recipe.get("data_digest")}
    best_step, best_loss = standing.best or (None, None)
    described = loaded.model_dump(mode="json")
    return TrainingRow(
        uid=training_uid(recipe),
        folder=readable(str(folder)),
        name=readable(folder.name),
        task=described["task"],
        config=described,
        provenance=session.provenance | {"data": learnt},
        host=socket.gethostname(),
        pid=os.getpid(),
        log=readable(str(session.log)),
        step=standing.step,
        steps=loaded.steps,
        loss=_finite(standing.loss),
        val_loss=_finite(standing.measures.get("loss")),
        best_loss=_finite(best_loss),
        best_step=best_step,
        measures={
            name: value
            for name, value in standing.measures.items()
            if name != "loss" and math.isfinite(value)
        },
        seconds=standing.seconds + max(0.0, now - session.began_at),
        created_at=min([session.began_at, *(one["began_at"] for one in standing.sessions)]),
        started_at=session.began_at,
        updated_at=now,
    )


def models_of(loaded: Training) -> dict[str, Mapping[str, Any]]:
    """Return where the models come from that a training goes on from, or takes parts of, by their keys."""
    from panic.errors import PanicError
    from panic.models import kinds, registry, weights
    from panic.store.provenance import training_of
    from panic.train.config import MODEL_KEYS

    found: dict[str, Mapping[str, Any]] = {}
    said = loaded.model_dump(mode="json")["model"]
    for key in MODEL_KEYS:
        if isinstance(name := said.get(key), str):
            origin: dict[str, Any] = {"source": name}
            with suppress(PanicError, OSError):  # what cannot be found the training itself will tell of
                if (folder := Path(name)).is_dir():
                    origin |= {"folder": str(folder.absolute()), "digest": weights.folder_digest(folder)}
                    origin |= {"training": uid} if (uid := training_of(folder)) else {}
                else:
                    origin = kinds.origin(registry.resolve(key, {key: {"base": name}}))
            found[key] = origin
    return found


def _finite(value: float | None) -> float | None:
    """A number that JSON can say, else None."""
    return value if value is not None and math.isfinite(value) else None


@contextmanager
def performing(loaded: Training, session: TrainingSession, store: Path) -> Iterator[Course]:
    """Follow a training for as long as it is performed; one folder has one at a time.

    Raises ConflictError where another process trains into the same folder.
    """
    from panic.store.files import give_lock_back, take_lock

    beside = Path(f"{loaded.output}.training")
    beside.mkdir(parents=True, exist_ok=True)
    try:
        lock = take_lock(beside)
    except StoreLocked as error:
        who = error.message.rpartition(" by ")[2].rstrip(".")
        raise ConflictError(
            f"{loaded.output} is being trained by {who}.", hint="Wait for it, or choose another output."
        ) from None
    course = Course(loaded, session, store)
    state, message = "complete", None
    try:
        try:
            yield course
            if course.standing is not None and course.standing.step < loaded.steps:
                state = "out of time"
        except (Interrupted, KeyboardInterrupt) as error:
            state, message = "interrupted", str(error) or None
            raise
        except BaseException as error:
            state = "failed"
            message = error.message if isinstance(error, PanicError) else f"{type(error).__name__}: {error}"
            message = message.encode(errors="backslashreplace").decode()  # names of files are bytes
            raise
        finally:
            course.end(state, message)
    finally:
        give_lock_back(lock)
