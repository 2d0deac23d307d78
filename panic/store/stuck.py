"""The stuck rule: a fixed-seed run whose state repeats is periodic from there on.

The state at step s is (s mod L, input of step s), L the network's length; the input of step 0 is the
prompt, of step s > 0 the output of step s - 1. The first repeated state settles the future. A repeated
output at another position of the network is not a repeated state; fresh noise (seed -1) has no state.
The engine asks while a run is on its way, `panic check` asks again of what is stored. Whether a stored run
ended so is told by `reading.is_stuck`.

    first_repeat(["a", "draw", "a", "draw", "a"], 2)   ->   Stuck(entry_step=0, period=2)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """Where a run's cycle begins and how long it is.

    entry_step: first step of the repeated state. period: in steps, a multiple of the network's length.
    """

    entry_step: int
    period: int


class StuckDetector:
    """Follows one run and tells the moment its state repeats. Memory: one entry per step."""

    __slots__ = ("_first_seen",)

    def __init__(self, network_length: int) -> None:
        # One dictionary per position: keys without a tuple around them save 56 bytes a step.
        self._first_seen: list[dict[Hashable, int]] = [{} for _ in range(network_length)]

    def visit(self, step: int, item: Hashable) -> Stuck | None:
        """Tell that `item` is the input of `step`; returns the cycle if this state was seen before."""
        entry = self._first_seen[step % len(self._first_seen)].setdefault(item, step)
        return Stuck(entry_step=entry, period=step - entry) if entry != step else None

    def forget_until(self, step: int) -> None:
        """Forget the states up to a step: they were left by a map that is no longer the run's."""
        self._first_seen = [
            {item: seen for item, seen in position.items() if seen > step} for position in self._first_seen
        ]


def first_repeat(inputs: Sequence[Hashable], network_length: int, start: int = 0) -> Stuck | None:
    """The first repeated state among the inputs of steps 0, 1, ...; those before `start` do not count.

    The input of step 0 is the prompt. Ask it of runs with a fixed seed only: fresh noise has no state.
    """
    detector = StuckDetector(network_length)
    for step, item in enumerate(inputs[start:], start):
        if found := detector.visit(step, item):
            return found
    return None
