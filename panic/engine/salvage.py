"""What the writer does when a batch of commits cannot be written: it writes item by item.

Only what cannot be written fails. An output that the store refuses ends the runs that go through it, as a
failure at that step; what those runs compute meanwhile is dropped. Any other row is told of. A full disk, a
lost file or too little memory are no item's fault: they are raised.

All of this belongs to the writer's thread; the driver only reads what the writer tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

from panic.errors import StoreError
from panic.store.records import Commit, NewFailure

Write = Callable[[Commit], None]


def is_nobodys_fault(error: BaseException) -> bool:
    """Whether writing failed for a reason that no item has given: the disk, the memory, a mistake of ours."""
    if isinstance(error, OSError):
        return error.errno is not None  # Pillow's complaints about an image have no number
    return not isinstance(error, Exception) or isinstance(error, StoreError | MemoryError | AssertionError)


class Salvage:
    """Writes commits in pieces and remembers what could not be written; begun when writing fails first.

    broken, incomplete, problems: the writer's, to be added to.
    """

    def __init__(self, write: Write, broken: set[int], incomplete: set[int], problems: list[str]) -> None:
        self._write = write
        self._unwritable: dict[bytes, str] = {}
        self._broken, self._incomplete, self._problems = broken, incomplete, problems

    def is_stored(self, digest: bytes) -> bool:
        """Whether an output that was to be written is in the store."""
        return digest not in self._unwritable

    def without_broken(self, commit: Commit) -> Commit:
        """A commit without what belongs to runs that have ended here, and with the failures of new ones."""
        if not self._unwritable:
            return commit
        kept = Commit(
            batches=commit.batches,
            answers=commit.answers,
            spending=commit.spending,
            outputs=[output for output in commit.outputs if output.digest not in self._unwritable],
            embeddings=commit.embeddings,
            diagrams=commit.diagrams,
            vectorisations=commit.vectorisations,
            distances=commit.distances,
        )
        known = set(self._broken)
        ends = self._ends(commit)
        failed = [
            NewFailure(run=run, step=step, kind="rejected", message=self._unwritable[output])
            for run, (step, _, output) in ends.items()
        ]
        self._broken.update(ends)
        for is_step, name in ((False, "interventions"), (True, "invocations")):
            getattr(kept, name).extend(
                row
                for row in getattr(commit, name)
                if row.run not in known and (row.run not in ends or (row.step, is_step) < ends[row.run][:2])
            )
        kept.stuck.extend(row for row in commit.stuck if row.run not in self._broken)
        kept.repeated.extend(row for row in commit.repeated if row.run not in self._broken)
        kept.failures.extend([*failed, *(row for row in commit.failures if row.run not in self._broken)])
        return kept

    def _ends(self, commit: Commit) -> dict[int, tuple[int, bool, bytes]]:
        """By run what of it cannot be written first: (step, False for what steps in before it, output)."""
        ends: dict[int, tuple[int, bool, bytes]] = {}
        for is_step, rows in ((False, commit.interventions), (True, commit.invocations)):
            for row in rows:
                if row.output in self._unwritable and row.run not in self._broken:
                    end = (row.step, is_step, row.output)
                    ends[row.run] = min(ends.get(row.run, end), end)
        return ends

    def store(self, commit: Commit, number: int) -> None:
        """Write what can be written of a commit. Raises what is no item's fault."""
        self._attempt(Commit(batches=commit.batches), number)
        for output in commit.outputs:
            if self.is_stored(output.digest) and (reason := self._problem(Commit(outputs=[output]))):
                self._unwritable[output.digest] = f"its {output.modality} cannot be stored: {reason}"
        for piece in _pieces(self.without_broken(commit)):
            self._attempt(piece, number)

    def _attempt(self, piece: Commit, number: int) -> None:
        if reason := self._problem(piece):
            self._incomplete.add(number)
            self._problems.append(reason)

    def _problem(self, piece: Commit) -> str:
        """Write a piece; why that cannot be done, or nothing."""
        try:
            self._write(piece)
        except BaseException as error:
            if is_nobodys_fault(error):
                raise
            return f"{type(error).__name__}: {error}"
        return ""


def _pieces(commit: Commit) -> Iterator[Commit]:
    """Commits of one row each, in the order in which rows may refer to each other."""
    for field in fields(Commit):
        if field.name not in ("batches", "outputs"):
            for row in getattr(commit, field.name):
                yield Commit(**{field.name: [row]})
