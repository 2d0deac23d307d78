"""Arms: what steps into a run, and before which steps. One meaning for configs, engine, store and analysis.

An arm is a tuple of interventions, in the order in which they are made where several fall on one step. An
intervention takes what is about to be the input of its step and gives what becomes it; only where another
network takes over is that the same. The positions of such a network count from its first step. The arm
`baseline` has no interventions.

    shock = arm_of([{"at": 20, "model": "shuffle-words"}])
    due(shock, 20)                                # the intervention
    model_at(("draw", "say"), shock, 21)          # "say"
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

BASELINE = "baseline"
"""The name of the arm without interventions, which every run has where a config names no arms."""
NOISE = "noise:"
"""What the name of a model that adds noise begins with; its standard deviation follows."""
KINDS = ("model", "noise", "text", "network")
"""What an intervention is: a call of a model, noise on an image, a text, another network from there on."""

Kind = Literal["model", "noise", "text", "network"]
Network = tuple[str, ...]


class Intervention(NamedTuple):
    """What steps in (`value`: a model's name, a standard deviation, a text, names of a network), and when.

    first: the first step before which it does. every: again after so many steps; None: once.
    """

    kind: Kind
    value: Any
    first: int
    every: int | None = None

    @property
    def model(self) -> str:
        """The name of the model that is called; empty where none is."""
        if self.kind == "noise":
            return f"{NOISE}{float(self.value)!r}"
        return str(self.value) if self.kind == "model" else ""

    def is_due(self, step: int) -> bool:
        """Whether it is made before a step."""
        if self.every is None:
            return step == self.first
        return step >= self.first and (step - self.first) % self.every == 0

    def num_due(self, begin: int, end: int) -> int:
        """Before how many of the steps [begin, end) it is made."""
        if self.every is None:
            return int(begin <= self.first < end)
        skipped = max(0, -(-(begin - self.first) // self.every))
        return len(range(self.first + skipped * self.every, end, self.every))


Arm = tuple[Intervention, ...]


def arm_of(entries: Iterable[Mapping[str, Any]]) -> Arm:
    """The arm that the entries of a config are, as they are validated or stored."""
    found = []
    for entry in entries:
        kind = next(kind for kind in KINDS if entry.get(kind) is not None)
        value = tuple(entry[kind]) if kind == "network" else entry[kind]
        at, every = entry.get("at"), entry.get("every")
        found.append(Intervention(kind, value, every if at is None else at, every))  # type: ignore[arg-type]
    return tuple(found)


def arms_of(config: Mapping[str, Any]) -> dict[str, Arm]:
    """The arms of a config as a store keeps it, by name; empty where it names none."""
    return {name: arm_of(entries) for name, entries in (config.get("arms") or {}).items()}


def due(arm: Arm, step: int) -> list[Intervention]:
    """What is made before a step, in its order."""
    return [one for one in arm if one.is_due(step)]


def first_step(arm: Arm) -> int | None:
    """The first step before which anything is made; None for the baseline."""
    return min((one.first for one in arm), default=None)


def settled_step(arm: Arm) -> int:
    """The step from whose input on the future depends on that input and on the phase alone.

    That is where the last single intervention is made; one that comes again does so from the start, as far
    as inputs are concerned that follow the place where it would have been made before its first time.
    """
    return max([0, *(one.first - (one.every or 0) for one in arm)])


def networks(network: Sequence[str], arm: Arm, num_steps: int) -> Iterator[tuple[Network, int, int]]:
    """(network, first step, end) of the networks that a run's steps [0, num_steps) go through."""
    now, begin = tuple(network), 0
    for one in sorted((one for one in arm if one.kind == "network"), key=lambda one: one.first):
        if one.first >= num_steps:
            break
        if one.first > begin:
            yield now, begin, one.first
        now, begin = one.value, one.first
    if begin < num_steps:
        yield now, begin, num_steps


def network_at(network: Sequence[str], arm: Arm, step: int) -> tuple[Network, int]:
    """The network that a step belongs to, and the first step that did."""
    *_, (now, begin, _) = networks(network, arm, step + 1)
    return now, begin


def model_at(network: Sequence[str], arm: Arm, step: int) -> str:
    """The model of a step."""
    if not arm:
        return network[step % len(network)]
    now, begin = network_at(network, arm, step)
    return now[(step - begin) % len(now)]


def maker(network: Sequence[str], arm: Arm, step: int, place: int | None = None) -> str:
    """The model of a step, or the one that stepped in before it as the `place`-th; empty where none does."""
    if place is None:
        return model_at(network, arm, step)
    return next((one.model for one in due(arm, step)[place:]), "")


def last_network(network: Sequence[str], arm: Arm) -> Network:
    """The network that a run ends in, if it is long enough."""
    return network_at(network, arm, max((one.first for one in arm), default=0))[0]


def period_of(network: Sequence[str], arm: Arm) -> int:
    """After how many steps network and interventions come round: a state is this phase and an input."""
    every = (one.every for one in arm if one.every is not None)
    return math.lcm(len(last_network(network, arm)), *every)


def models_of(network: Sequence[str], arm: Arm) -> list[str]:
    """The models that a run calls, each once: those of its networks, then those that step in."""
    names = [*network]
    for one in arm:
        names += one.value if one.kind == "network" else [one.model] if one.model else []
    return list(dict.fromkeys(names))
