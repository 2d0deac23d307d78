"""Whole loops of models under a budget, against the least time that the budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.gpu.cache_parts.bench import GB, Bench
from benchmarks.gpu.cache_parts.nets import synchronise
from panic.devices.planning import Use
from tests.devices.optimum import least_bytes
from tests.devices.paper import held_bytes

LOOP_GOAL = 1.10
"""A loop takes at most this much of its computing time where transfers can hide, and of the least time."""
SLACK = 0.005
"""Of all models' bytes, beyond the budget: a driver's books are not exact to the byte."""
HIDES = 1.5
"""A step computes this much longer than the largest model takes to copy."""


def enough_calls(bench: Bench, names: Sequence[str]) -> dict[str, int]:
    """Calls per step of each model, so that computing takes `HIDES` times as long as the longest copy."""
    copy_s = max(bench.net(name).size_bytes for name in names) / bench.pinned_rate
    found = {}
    for name in names:
        net = bench.net(name)
        net.load(bench.device.torch_name)
        net.invoke([0])
        found[name] = max(1, round(HIDES * copy_s / bench.seconds(partial(net.invoke, [0]))))
        net.load("cpu")
        bench.clean()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of the models beforehand: bytes on the device and of working memory, seconds of a step's
    computing, of moving them there and back with `.to()`, of reading them."""

    sizes: dict[str, int]
    compute_s: dict[str, float]
    move_s: dict[str, float]
    read_s: dict[str, float]
    working_bytes: dict[str, int]


def loops(bench: Bench) -> None:
    """Two models that fit together, that fit with a slot for half of the other, that fit one at a time; and
    three with room for two, where something moves in every cycle and all of it can hide."""
    two, three = ["unet", "captioner"], ["unet", "transformer", "captioner"]
    calls = enough_calls(bench, three)
    known = measure(bench, calls)
    sizes = known.sizes
    largest, smaller = max(sizes[name] for name in two), min(sizes[name] for name in two)
    pairs = zip(three, [*three[1:], three[0]], strict=True)
    two_of_three = max(sizes[name] + sizes[following] for name, following in pairs)
    loop(bench, "both_fit", two, largest + smaller, calls, known)
    loop(bench, "with_slot", two, largest + smaller // 2, calls, known)
    loop(bench, "without_slot", two, largest, calls, known)
    loop(bench, "rotation", three, two_of_three, calls, known, can_hide=True)


def loop(
    bench: Bench,
    title: str,
    order: Sequence[str],
    room_bytes: int,
    calls: Mapping[str, int],
    known: Measured,
    *,
    can_hide: bool = False,
    num_cycles: int = 6,
) -> None:
    """Seconds per step of models one after another, over the least that this room allows.

    can_hide: the next model fits beside the active one, so that nothing need be waited for.
    """
    sizes = {name: known.sizes[name] for name in order}
    uses = [Use(name, known.working_bytes[name]) for name in order]
    budget_bytes = room_bytes + max(use.working_bytes for use in uses) + round(SLACK * sum(sizes.values()))
    with bench.cache(budget_bytes) as cache:
        for cycle in range(2 * num_cycles):
            if cycle == num_cycles:
                synchronise(bench.device.torch_name)
                started, loaded, stalled = bench.device.now(), cache.stats.loaded_bytes, cache.stats.stall_s
            for position, name in enumerate(order):
                upcoming = [*order[position + 1 :], *order[: position + 1]]
                bench.call(cache, name, calls[name], upcoming)
        num_steps = num_cycles * len(order)
        ours = (bench.device.now() - started) / num_steps
        bytes_per_cycle = (cache.stats.loaded_bytes - loaded) / num_cycles
        stalled = cache.stats.stall_s - stalled
    must_move = least_bytes(uses, sizes, budget_bytes)
    compute_s, move_s, read_s = (
        sum(figures[name] for name in order) / len(order)
        for figures in (known.compute_s, known.move_s, known.read_s)
    )
    waiting_s = 0.0 if can_hide else must_move / len(order) / bench.pinned_rate
    by_to = compute_s + move_s
    bench.keep(
        f"loop.{title}.over_least", ours / (compute_s + waiting_s), unit="share",
        at_most=None if bench.rehearse else LOOP_GOAL, baseline=by_to, ratio=by_to / ours, step_s=ours,
        compute_s=compute_s, waiting_s=waiting_s, to_cpu_s=by_to, no_cache_s=compute_s + read_s,
        stall_s=stalled / num_steps, calls={name: calls[name] for name in order},
        note="to_cpu_s and no_cache_s are sums of their parts; files are read from the system's cache",
    )  # fmt: skip
    if must_move > 1:  # or else there was nothing to hide
        bench.keep(
            f"loop.{title}.gb_per_cycle", bytes_per_cycle / GB, unit="GB", at_least=0.9 * must_move / GB,
            baseline=must_move / GB, ratio=bytes_per_cycle / must_move,
        )  # fmt: skip
    else:
        bench.keep(f"loop.{title}.gb_per_cycle", bytes_per_cycle / GB, unit="GB", at_most=0.0)


def measure(bench: Bench, calls: Mapping[str, int]) -> Measured:
    """Everything there at once, and then one model at a time."""
    compute_s, working_bytes = {}, {}
    with bench.cache(bench.device.free_bytes()) as cache:
        for name in calls:
            bench.call(cache, name, calls[name])
            compute_s[name] = bench.device_seconds(partial(bench.call, cache, name, calls[name]))
            working_bytes[name] = cache.working.estimate(name, 0, 1) or 0
        sizes = held_bytes(cache)
    move_s, read_s = {}, {}
    for name in calls:
        bench.file(name)
        move_s[name] = bench.seconds(partial(bench.move, name))
        bench.clean()
        read_s[name] = bench.seconds(partial(bench.read, name), times=1)
        bench.clean()
    return Measured(
        sizes=sizes, compute_s=compute_s, move_s=move_s, read_s=read_s, working_bytes=working_bytes
    )
