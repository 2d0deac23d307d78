"""The runs themselves: where each one stands, what it does next, which share their future.

A run advances from output to input: stuck check, end check, then the next item. With a fixed seed the same
(model, seed, input) gives the same output, so it is computed once in an experiment: runs that meet go on
together (`_memo` for what is known, `_waiting` for what is being computed).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from panic.engine.forecast import Place
from panic.engine.outputs import Output
from panic.engine.queue import Item
from panic.engine.seeds import FRESH, run_root, step_seed
from panic.engine.writer import Entry
from panic.store.records import FixedSeedStep, NewFailure, NewInvocation, NewRun, NewStuck
from panic.store.stuck import StuckDetector

Key = tuple[str, int, bytes]
"""(model name, seed, input digest): what an output of a fixed seed depends on within a shape epoch."""


class Loop:
    """One run on its way. `root` is empty for a fixed seed, `detector` is None for fresh noise."""

    __slots__ = ("detector", "id", "max_length", "network", "root", "seed", "step")

    def __init__(self, id: int, run: NewRun, root_seed: int, max_length: int) -> None:
        self.id = id
        self.network = run.network
        self.seed = run.seed
        self.max_length = max_length
        self.step = 0
        fresh = run.seed == FRESH
        self.root = run_root(root_seed, run.network, run.prompt, run.repeat) if fresh else b""
        self.detector = None if fresh else StuckDetector(len(run.network))

    @property
    def model(self) -> str:
        """The model of the next step."""
        return self.model_at(self.step)

    @property
    def place(self) -> Place:
        """Where the next step is."""
        return self.network, self.step % len(self.network)

    def model_at(self, step: int) -> str:
        """The model of a step."""
        return self.network[step % len(self.network)]


class Loops:
    """All unfinished runs of an experiment.

    Args:
        enqueue: called with (model, item) when a call of a model is needed.

    `standing` counts the runs by the place of their next step.
    """

    def __init__(self, enqueue: Callable[[str, Item], None]) -> None:
        self._enqueue = enqueue
        self._loops: dict[int, Loop] = {}
        # (model, seed) -> input -> (output, batch): a key of its own per step would cost 64 bytes more.
        self._memo: dict[tuple[str, int], dict[bytes, tuple[bytes, int]]] = {}
        self._waiting: dict[Key, list[Loop]] = {}
        self._ended: list[int] = []
        self.standing: Counter[Place] = Counter()
        self.num_stuck = 0
        self.num_failed = 0

    def __len__(self) -> int:
        return len(self._loops)

    @property
    def remaining_steps(self) -> int:
        """Invocations that are missing if no run gets stuck."""
        return sum(loop.max_length - loop.step for loop in self._loops.values())

    def add(self, loop: Loop) -> None:
        """Know an unfinished run; `start` sets it going."""
        self._loops[loop.id] = loop

    def recall(self, model: str, known: FixedSeedStep, *, is_current: bool) -> None:
        """Know a stored step of a fixed-seed run.

        is_current: it was computed in its model's current shape epoch; earlier ones say nothing about
        what comes.
        """
        loop = self._loops.get(known.run)
        if is_current:
            self._remember(model, known.seed, known.input, known.output, known.batch)
            if loop is not None and loop.detector is not None:
                loop.detector.visit(known.step, known.input)
        elif loop is not None and loop.detector is not None:
            loop.detector.forget_until(known.step)

    def forget(self, model: str) -> None:
        """A shape epoch of a model begins: its earlier results say nothing about the future."""
        self._memo = {key: known for key, known in self._memo.items() if key[0] != model}
        for loop in self._loops.values():
            if loop.detector is not None:
                made = (step for step in range(loop.step - 1, -1, -1) if loop.model_at(step) == model)
                loop.detector.forget_until(next(made, -1))

    def start(self, run: int, step: int, input: bytes, entry: Entry) -> None:
        """Set a run going at a step."""
        loop = self._loops[run]
        loop.step = step
        self.standing[loop.place] += 1
        self._advance(loop, input, entry)

    def absorb(self, item: Item, model: str, output: Output, batch: int, entry: Entry) -> None:
        """Take an item's output: every run that waited for it makes a step."""
        digest = output.digest
        entry.outputs.append(output)
        for loop in self._waiters(item, model):
            if loop.seed != FRESH:
                self._remember(model, item.seed, item.input, digest, batch)
            self._step(loop, item.input, digest, item.seed, batch, entry)
            self._advance(loop, digest, entry)

    def fail(self, item: Item, model: str, kind: str, message: str, detail: str, entry: Entry) -> None:
        """End the runs that waited for an item."""
        for loop in self._waiters(item, model):
            entry.failures.append(
                NewFailure(
                    run=loop.id,
                    step=loop.step,
                    kind=kind,
                    message=message,
                    detail=detail,
                    attempts=max(1, item.attempts),
                )
            )
            self.num_failed += 1
            self._end(loop)

    def take_ended(self) -> list[int]:
        """Runs that have ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    def _remember(self, model: str, seed: int, input: bytes, output: bytes, batch: int) -> None:
        self._memo.setdefault((model, seed), {})[input] = (output, batch)

    def _waiters(self, item: Item, model: str) -> Sequence[Loop]:
        loop = self._loops[item.run]
        return self._waiting.pop((model, item.seed, item.input)) if loop.seed != FRESH else [loop]

    def _step(self, loop: Loop, input: bytes, output: bytes, seed: int, batch: int, entry: Entry) -> None:
        entry.invocations.append(NewInvocation(loop.id, loop.step, input, output, seed, batch))
        self.standing[loop.place] -= 1
        loop.step += 1
        self.standing[loop.place] += 1

    def _advance(self, loop: Loop, input: bytes, entry: Entry) -> None:
        """Go on from an input as far as results are known; then ask for the next one."""
        while True:
            if loop.detector is not None and (cycle := loop.detector.visit(loop.step, input)):
                entry.stuck.append(NewStuck(run=loop.id, entry_step=cycle.entry_step, period=cycle.period))
                self.num_stuck += 1
                self._end(loop)
                return
            if loop.step >= loop.max_length:
                self._end(loop)
                return
            if loop.seed == FRESH:
                self._enqueue(loop.model, Item(loop.id, loop.step, input, step_seed(loop.root, loop.step)))
                return
            key = (loop.model, loop.seed, input)
            known = self._memo.get(key[:2], {}).get(input)
            if known is None:
                waiting = self._waiting.get(key)
                if waiting is not None:
                    waiting.append(loop)
                    return
                self._waiting[key] = [loop]
                self._enqueue(loop.model, Item(loop.id, loop.step, input, loop.seed))
                return
            output, batch = known
            self._step(loop, input, output, loop.seed, batch, entry)
            input = output

    def _end(self, loop: Loop) -> None:
        del self._loops[loop.id]
        self.standing[loop.place] -= 1
        self._ended.append(loop.id)
