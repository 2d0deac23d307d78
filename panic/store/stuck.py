"""The stuck rule: a fixed-seed run whose state repeats is periodic from there on.

The state at step s is (s mod L, input of step s), L the network's length; the input of step 0 is the
prompt, of step s > 0 the output of step s - 1. The first repeated state settles the future. A repeated
output at another position of the network is not a repeated state; fresh noise (seed -1) has no state.
Where interventions come round, too, L is the least common multiple of the network's length and of theirs, the
input is what they have made of it, and no step before the last single intervention counts (`panic.arms`).
The engine asks while a run is on its way, `panic check` asks again of what is stored. Whether a stored run
ended so is told by `reading.is_stuck`.

    first_repeat(["a", "draw", "a", "draw", "a"], 2)   ->   Stuck(entry_step=0, period=2)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """Where a run's cycle begins and how long it is.

    entry_step: first step of the repeated state. period: in steps, a multiple of the network's length.
    """

    entry_step: int
    period: int


class StuckDetector:
    """Follows one run and tells the moment its state repeats. Memory: one entry per step.

    Args:
        length: after so many steps the same model follows, and the same interventions.
        start: the first step from whose input the future follows; earlier ones say nothing.
    """

    __slots__ = ("_first_seen", "_length", "_start")

    def __init__(self, length: int, start: int = 0) -> None:
        # One dictionary per position: keys without a tuple around them save 56 bytes a step.
        self._first_seen: defaultdict[int, dict[Hashable, int]] = defaultdict(dict)
        self._length, self._start = length, start

    def visit(self, step: int, item: Hashable) -> Stuck | None:
        """Tell that `item` is the input of `step`; returns the cycle if this state was seen before."""
        if step < self._start:
            return None
        entry = self._first_seen[step % self._length].setdefault(item, step)
        return Stuck(entry_step=entry, period=step - entry) if entry != step else None

    def forget_until(self, step: int) -> None:
        """Forget the states up to a step: they were left by a map that is no longer the run's."""
        for place, position in self._first_seen.items():
            self._first_seen[place] = {item: seen for item, seen in position.items() if seen > step}


class RepeatDetector:
    """Follows the outputs of a run whose models are not repeatable, and tells when it has gone round often.

    That is when the last outputs are `times` equal copies of a cycle, position by position; a cycle may hold
    one output several times. Such a run is not stuck: it may leave its cycle at any step.

    Args:
        max_length: steps of the run; longer cycles than fit in cannot come round so often.
        start: the first step whose output counts.
    """

    __slots__ = ("_length", "_longest", "_matches", "_places", "_start", "_step", "_times")

    def __init__(self, length: int, times: int, max_length: int, start: int = 0) -> None:
        self._length, self._times = length, times
        self._longest = max_length // times
        self._step, self._start = 0, start
        self._places: dict[tuple[int, Hashable], list[int]] = {}
        self._matches: dict[int, int] = {}

    def visit(self, output: Hashable) -> tuple[int, int] | None:
        """Tell the next output; (first step, period) of the shortest cycle that has come round so often."""
        step, self._step = self._step, self._step + 1
        if step < self._start:
            return None
        places = self._places.setdefault((step % self._length, output), [])
        # By period: how many outputs up to here equal those one period before, without a break.
        periods = takewhile(lambda one: one <= self._longest, (step - place for place in reversed(places)))
        self._matches = {period: self._matches.get(period, 0) + 1 for period in periods}
        places.append(step)
        for period, matches in self._matches.items():
            if matches >= (self._times - 1) * period:
                return step + 1 - self._times * period, period
        return None


def first_repeat(inputs: Sequence[Hashable], length: int, start: int = 0) -> Stuck | None:
    """The first repeated state among the inputs of steps 0, 1, ...; those before `start` do not count.

    The input of step 0 is the prompt, unless something steps in before it. Ask it of runs with a fixed seed
    only: fresh noise has no state. `length` is that of the network, or of what comes round with it.
    """
    detector = StuckDetector(length)
    for step, item in enumerate(inputs[start:], start):
        if found := detector.visit(step, item):
            return found
    return None
