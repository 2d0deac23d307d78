"""Which models will be needed next: the ready queue played ahead, with runs as crowds.

Runs of a network move in step: all that stand where a model is next go on together when it is served. Then,
as in the queue, what is resident comes first, then what has most work. The model cache plans by this.

    forecast({(("draw", "say"), 0): 100}, {}, "draw") -> ("say", "draw")
"""

from __future__ import annotations

from collections.abc import Mapping

Place = tuple[tuple[str, ...], int]
"""A network and a position in it."""
MAX_USES = 48
"""How far ahead."""


def forecast(
    standing: Mapping[Place, int],
    waiting: Mapping[str, int],
    model: str,
    resident: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Models in the order of their next uses while `model` is being served; one that ends with it repeats.

    Args:
        standing: runs by the place of their next step.
        waiting: items by model; those of models in no network (embeddings) come once.
        resident: models on the device.
    """
    crowds = {place: num for place, num in standing.items() if num > 0}
    walking = {name for network, _ in crowds for name in network}
    once = {name: num for name, num in waiting.items() if name not in walking and name != model}
    seen = [(crowds, dict(once))]
    order: list[str] = []
    now = model
    while len(order) < MAX_USES:
        crowds = _served(crowds, now)
        once.pop(now, None)
        work = dict(once)
        for (network, position), num in crowds.items():
            work[network[position]] = work.get(network[position], 0) + num
        if not work:
            break
        now = max(work, key=lambda name: (name in resident, work[name]))
        order.append(now)
        if now == model:
            situation = (crowds, dict(once))
            if situation in seen:
                return tuple(order)
            seen.append(situation)
    while order and order[-1] == model:  # no cycle was found, so it should not look like one
        order.pop()
    return tuple(order)


def _served(crowds: Mapping[Place, int], model: str) -> dict[Place, int]:
    """Where runs stand after a model has served all that wait for it."""
    after: dict[Place, int] = {}
    for (network, position), num in crowds.items():
        goes_on = network[position] == model
        place = (network, (position + goes_on) % len(network))
        after[place] = after.get(place, 0) + num
    return after
