"""Replay an order of work on a planner: bytes moved and time waited, without a device.

Says what a policy would cost before it is tried: `stall_s` with and without eager prefetch decides between
them, the same loop compares the planner with others in the benchmarks.

    state = State(capacity_bytes=20, sizes={"a": 15, "b": 15})
    replay(state, [Use("a"), Use("b")], num_cycles=10).bytes_per_cycle
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from panic.devices import planning
from panic.devices.planning import Action, Evict, State, Use
from panic.errors import ModelDoesNotFit

ASK_AGAIN = 64
"""Prefetches of an order of work after which it is asked again whether eager ones pay."""

Planner = Callable[[State, Sequence[Use]], list[Action]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a cycle costs once the start is over (means over the second half of the cycles).

    bytes_per_cycle: what is moved to the device. wall_s: computing and waiting. stall_s: waiting for bytes.
    """

    bytes_per_cycle: float
    wall_s: float
    stall_s: float


def replay(
    state: State,
    cycle: Sequence[Use],
    *,
    num_cycles: int = 8,
    planner: Planner = planning.plan,
    ahead: str = "",
    rate_bytes_per_s: float = float("inf"),
    compute_s: Mapping[str, float] | None = None,
    lookahead_uses: int | None = None,
) -> Replay:
    """Serve a cyclic order of work `num_cycles` times.

    Args:
        state: a device by its capacity, the models' sizes and which of them move as a whole; it starts empty.
        ahead: "" for no prefetch, "free" or "eager" (see `planning.prefetch`).
        compute_s: seconds of a use, by model.
        lookahead_uses: how much of the future the planner sees; two cycles by default.
    Raises: ModelDoesNotFit if a use alone exceeds the capacity.
    """
    seconds = compute_s or {}
    horizon = lookahead_uses or 2 * len(cycle)
    state = State(capacity_bytes=state.capacity_bytes, sizes=state.sizes, whole=state.whole)
    num_uses = num_cycles * len(cycle)
    measured_from = num_uses // 2 // len(cycle) * len(cycle)
    moved, stall, wall = 0, 0.0, 0.0
    now = bus_free_at = 0.0
    for position in range(num_uses):
        if position == measured_from:
            moved, stall, wall = 0, 0.0, now
        upcoming = [cycle[(position + ahead_by) % len(cycle)] for ahead_by in range(horizon)]
        use = upcoming[0]
        begins_at = max(now, bus_free_at) if ahead else now  # what was prefetched is the first use's own
        state, num_bytes = _do(state, planner(state, upcoming), use)
        moved += num_bytes
        ready_at = begins_at + num_bytes / rate_bytes_per_s
        stall += ready_at - now
        now = bus_free_at = ready_at
        state = _touched(state, use.model)
        if ahead:
            actions = planning.prefetch(state, upcoming, eager=ahead == "eager")
            state, num_bytes = _do(state, actions, use)
            moved += num_bytes
            bus_free_at = now + num_bytes / rate_bytes_per_s
        now += seconds.get(use.model, 0.0)
    cycles = (num_uses - measured_from) / len(cycle)
    return Replay(bytes_per_cycle=moved / cycles, wall_s=(now - wall) / cycles, stall_s=stall / cycles)


def eager_pays(
    state: State, cycle: Sequence[Use], rate_bytes_per_s: float, compute_s: Mapping[str, float]
) -> bool:
    """Whether bringing the next model early at the price of more bytes saves time."""

    def wall_s(ahead: str) -> float:
        done = replay(state, cycle, ahead=ahead, rate_bytes_per_s=rate_bytes_per_s, compute_s=compute_s)
        return done.wall_s

    return wall_s("eager") < 0.999 * wall_s("free")


@dataclass(slots=True)
class Eagerness:
    """Answers of `eager_pays` by order of work, asked again now and then: durations and rates drift."""

    _known: dict[tuple[str, ...], tuple[int, bool]] = field(default_factory=dict)

    def pays(
        self, state: State, cycle: Sequence[Use], rate_bytes_per_s: float, compute_s: Mapping[str, float]
    ) -> bool:
        """Whether eager prefetch saves time; False as long as something has not been measured."""
        if not rate_bytes_per_s or not cycle or not all(compute_s.get(use.model) for use in cycle):
            return False
        key = tuple(use.model for use in cycle)
        asked, answer = self._known.get(key, (0, False))
        if asked % ASK_AGAIN == 0:
            try:
                answer = eager_pays(state, cycle, rate_bytes_per_s, compute_s)
            except ModelDoesNotFit:
                answer = False
        self._known[key] = asked + 1, answer
        return answer


def _do(state: State, actions: Sequence[Action], use: Use) -> tuple[State, int]:
    after = planning.apply(state, actions)
    if sum(after.resident.values()) + use.working_bytes > after.capacity_bytes:
        raise ModelDoesNotFit(f"{use.model} alone exceeds the capacity")
    return after, sum(action.num_bytes for action in actions if not isinstance(action, Evict))


def _touched(state: State, model: str) -> State:
    """The state with a model as the one used last."""
    return planning.apply(state, [planning.Load(model, 0)])
