"""What stays on a device: plans of evictions, loads and prefetches, as pure functions.

A model must be there as a whole while it is in use; between two uses any part of it may stay. Weights
are immutable, so an eviction costs nothing and a load costs its bytes. Bytes that may stay in part are pages
of one size, and for those giving up what is needed furthest in the future is optimal (Belady 1966; with the
set of pages known, as here, also where a request takes many pages and the room changes). Models that
cannot be split are another matter: with unequal sizes no victim rule is optimal, so for few of them
the best sequence is searched; beyond `MAX_SEARCHED` the rule above is the fallback. Where the
future is unknown, least recently used goes first.

    plan(State(capacity_bytes=20, sizes={"a": 15, "b": 15}, resident={"a": 15}), [Use("b"), Use("a")])
    -> [Evict("a", 10), Load("b", 15)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

MAX_SEARCHED = 6
"""Most models for which sequences of whole residents are searched: at most 2 ** 5 sets per use."""
SEARCHED_USES = 48
"""How far ahead that search looks; a cycle is unrolled that far."""


@dataclass(frozen=True, slots=True)
class Use:
    """A call of a model, and the memory that it needs beyond the weights."""

    model: str
    working_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is on a device.

    capacity_bytes: for our weights and working memory, together.
    sizes: bytes of every model of the schedule.
    resident: bytes that are there, by model, least recently used first.
    in_use: models that must stay.
    whole: models that cannot be evicted in part.
    """

    capacity_bytes: int
    sizes: Mapping[str, int]
    resident: Mapping[str, int] = field(default_factory=dict)
    in_use: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Evict:
    """Give up that many bytes of a model."""

    model: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """Bring what is missing of a model, now."""

    model: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Bring bytes of a model while another one computes."""

    model: str
    num_bytes: int


Action = Evict | Load | Prefetch


def plan(state: State, upcoming: Sequence[Use]) -> list[Action]:
    """What to do before the first of these uses.

    Args:
        upcoming: the use to be served, then those known to follow. One alone means an unknown future.
    The evictions are all there are if even they do not make enough room.
    """
    use = upcoming[0]
    missing = state.sizes[use.model] - state.resident.get(use.model, 0)
    held = sum(state.resident.values())
    short = held + missing + use.working_bytes - state.capacity_bytes
    actions: list[Action] = list(evictions(state, upcoming, short))
    if missing:
        actions.append(Load(use.model, missing))
    return actions


def evictions(state: State, upcoming: Sequence[Use], needed_bytes: int) -> list[Evict]:
    """Which bytes to give up before the first of these uses, so that at least `needed_bytes` come free."""
    if needed_bytes <= 0:
        return []
    keep = state.in_use | {upcoming[0].model}
    idle = [name for name in _furthest_first(state, upcoming[1:]) if name not in keep]
    if len(upcoming) > 1 and state.whole.issuperset(idle) and len(state.sizes) <= MAX_SEARCHED:
        victims = _searched_victims(state, upcoming)
        if victims is not None:
            return [Evict(name, state.resident[name]) for name in idle if name in victims]
    return _until_enough(state, idle, needed_bytes)


def prefetch(state: State, upcoming: Sequence[Use], *, eager: bool = False) -> list[Action]:
    """What to bring of the next model while the first of these uses computes.

    Only into room that costs nothing: what is free, and what would be evicted for the next use anyway.
    With `eager` also into what is needed later than that, so that the next model is there as a whole: more
    bytes on the bus, no wait for them.

    Args:
        state: after the first use's own load.
    """
    following = [position for position, use in enumerate(upcoming) if use.model != upcoming[0].model]
    if not following:
        return []
    active, after = upcoming[0], upcoming[following[0] :]
    wanted = after[0].model
    missing = state.sizes[wanted] - state.resident.get(wanted, 0)
    free = state.capacity_bytes - sum(state.resident.values()) - active.working_bytes
    if missing <= 0 or wanted in state.whole:  # what moves as a whole cannot be brought beside a call
        return []
    kept = state.in_use | {active.model}
    if eager:
        pinned = _replace(state, in_use=kept)
        victims = evictions(pinned, after, missing - free)
    else:
        short = missing + after[0].working_bytes + sum(state.resident.values()) - state.capacity_bytes
        anyway = evictions(_replace(state, in_use=state.in_use - {active.model}), after, short)
        victims = [victim for victim in anyway if victim.model not in kept]
    room = min(missing, free + sum(victim.num_bytes for victim in victims))
    if room <= 0:
        return []
    return [*_trim(victims, room - free), Prefetch(wanted, room)]


def apply(state: State, actions: Sequence[Action]) -> State:
    """The state after these actions; what was loaded counts as used last."""
    resident = dict(state.resident)
    for action in actions:
        if isinstance(action, Evict):
            resident[action.model] -= action.num_bytes
            if not resident[action.model]:
                del resident[action.model]
        else:
            resident[action.model] = resident.pop(action.model, 0) + action.num_bytes
    return _replace(state, resident=resident)


def _replace(
    state: State, *, resident: Mapping[str, int] | None = None, in_use: frozenset[str] | None = None
) -> State:
    return State(
        capacity_bytes=state.capacity_bytes,
        sizes=state.sizes,
        resident=state.resident if resident is None else resident,
        in_use=state.in_use if in_use is None else in_use,
        whole=state.whole,
    )


def _furthest_first(state: State, later: Sequence[Use]) -> list[str]:
    """Resident models by next use, furthest first; those of unknown use before, least recently used first."""
    next_use: dict[str, int] = {}
    for distance, use in enumerate(later):
        next_use.setdefault(use.model, distance)
    return sorted(state.resident, key=lambda name: -next_use.get(name, len(later)))


def _until_enough(state: State, idle: Sequence[str], needed_bytes: int) -> list[Evict]:
    """Victims in this order, the divisible ones only as far as needed; none that proves unnecessary."""
    chosen: dict[str, int] = {}
    short = needed_bytes
    for name in idle:
        if short <= 0:
            break
        there = state.resident[name]
        chosen[name] = there if name in state.whole else min(there, short)
        short -= chosen[name]
    for name in list(chosen):  # a small one that was taken before a large one may stay after all
        if short < 0 and chosen[name] <= -short:
            short += chosen.pop(name)
    return _trim([Evict(name, num) for name, num in chosen.items()], needed_bytes, state.whole)


def _trim(victims: Sequence[Evict], needed_bytes: int, whole: frozenset[str] = frozenset()) -> list[Evict]:
    """The victims without what exceeds the need, taken back from the last divisible ones."""
    excess = sum(victim.num_bytes for victim in victims) - max(0, needed_bytes)
    kept: list[Evict] = []
    for victim in reversed(victims):
        back = 0 if victim.model in whole else min(max(0, excess), victim.num_bytes)
        excess -= back
        if victim.num_bytes > back:
            kept.append(Evict(victim.model, victim.num_bytes - back))
    return kept[::-1]


# Models that cannot be split: the best sequence of sets


def _searched_victims(state: State, upcoming: Sequence[Use]) -> frozenset[str] | None:
    """Which whole models to evict now on a cheapest way through the known uses; None if nothing fits."""
    order = tuple(upcoming[:SEARCHED_USES])
    sizes = tuple(sorted(state.sizes.items()))
    resident = frozenset(state.resident)
    pinned = state.in_use & resident
    cheapest = _cheapest_way(order, sizes, state.capacity_bytes, resident, pinned)
    return None if cheapest is None else resident - cheapest


@lru_cache(maxsize=512)
def _cheapest_way(
    order: tuple[Use, ...],
    sizes: tuple[tuple[str, int], ...],
    capacity_bytes: int,
    resident: frozenset[str],
    pinned: frozenset[str],
) -> frozenset[str] | None:
    """The resident set at the first use on a way that loads the fewest bytes; ties keep more, then sooner."""
    size_of = dict(sizes)
    models = [use.model for use in order]

    def rank(kept: frozenset[str]) -> tuple[int, int]:
        later = sum(models.index(name) if name in models else len(models) for name in kept)
        return -sum(size_of[name] for name in kept), later

    ways: dict[frozenset[str], tuple[int, tuple[int, int], frozenset[str]]] = {
        resident: (0, (0, 0), resident)
    }
    for position, use in enumerate(order):
        following: dict[frozenset[str], tuple[int, tuple[int, int], frozenset[str]]] = {}
        for held, (cost, tie, first) in ways.items():
            total = cost + (0 if use.model in held else size_of[use.model])
            room = capacity_bytes - use.working_bytes - size_of[use.model]
            stays = (pinned if position == 0 else frozenset()) - {use.model}
            for kept in _largest_subsets(held - {use.model}, stays, room, sizes):
                result = kept | {use.model}
                way = (total, tie, first) if position else (total, rank(kept), kept)
                if result not in following or way[:2] < following[result][:2]:
                    following[result] = way
        ways = following
    return min(ways.values(), key=lambda way: way[:2])[2] if ways else None


@lru_cache(maxsize=4096)
def _largest_subsets(
    names: frozenset[str], stays: frozenset[str], room: int, sizes: tuple[tuple[str, int], ...]
) -> tuple[frozenset[str], ...]:
    """The subsets that fit and could not take in another name: evicting more than needed gains nothing."""
    size_of = dict(sizes)
    found: list[frozenset[str]] = []
    for count in range(len(names), -1, -1):
        for subset in combinations(sorted(names), count):
            kept = frozenset(subset)
            fits = sum(size_of[name] for name in kept) <= room
            if fits and stays <= kept and not any(kept < other for other in found):
                found.append(kept)
    return tuple(found)
