"""Whole loops of models under a budget, against the least time that the budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.gpu.cache_parts.bench import GB, Bench
from benchmarks.gpu.cache_parts.nets import synchronise
from panic.devices.optimum import least_bytes
from panic.devices.planning import Use

LOOP_GOAL = 1.10
"""A loop takes at most this much of its computing time where transfers can hide, and of the least time."""
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


def loops(bench: Bench) -> None:
    """Two models that fit together, that fit with a slot for half of the other, that fit one at a time; and
    three with room for two, where something moves in every cycle and all of it can hide."""
    two, three = ["unet", "captioner"], ["unet", "transformer", "captioner"]
    sizes = {name: bench.net(name).size_bytes for name in three}
    largest, smaller = max(sizes[name] for name in two), min(sizes[name] for name in two)
    pairs = zip(three, [*three[1:], three[0]], strict=True)
    two_of_three = max(sizes[name] + sizes[following] for name, following in pairs)
    loop(bench, "both_fit", two, 1.02 * (largest + smaller))
    loop(bench, "with_slot", two, 1.02 * largest + 0.5 * smaller)
    loop(bench, "without_slot", two, 1.02 * largest)
    loop(bench, "rotation", three, 1.02 * two_of_three)


def loop(bench: Bench, title: str, order: Sequence[str], room_bytes: float, num_cycles: int = 6) -> None:
    """Seconds per step of models one after another, over the least that this room allows."""
    calls = enough_calls(bench, order)
    compute_s, working_bytes = computing(bench, calls)
    moved_s, read_s = 0.0, 0.0
    for name in order:
        bench.file(name)
        moved_s += bench.seconds(partial(bench.move, name)) / len(order)
        bench.clean()
        read_s += bench.seconds(partial(bench.read, name), times=1) / len(order)
        bench.clean()
    with bench.cache(room_bytes + working_bytes) as cache:
        for cycle in range(2 * num_cycles):
            if cycle == num_cycles:
                synchronise(bench.device.torch_name)
                started, loaded, stalled = bench.device.now(), cache.stats.loaded_bytes, cache.stats.stall_s
            for position, name in enumerate(order):
                upcoming = [*order[position + 1 :], *order[: position + 1]]
                with cache.lease(name, 1, upcoming) as model:
                    model.invoke([0] * calls[name], [])
        num_steps = num_cycles * len(order)
        ours = (bench.device.now() - started) / num_steps
        loaded, stalled = cache.stats.loaded_bytes - loaded, cache.stats.stall_s - stalled
    # What has to move in any case, and can hide only where the next model fits beside the active one.
    sizes = {name: bench.net(name).size_bytes for name in order}
    must_move = least_bytes([Use(name) for name in order], sizes, round(room_bytes))
    waiting_s = 0.0 if title == "rotation" else must_move / len(order) / bench.pinned_rate
    by_to = compute_s + moved_s
    bench.keep(
        f"loop.{title}.over_least", ours / (compute_s + waiting_s), unit="share",
        at_most=None if bench.rehearse else LOOP_GOAL, baseline=by_to, ratio=by_to / ours, step_s=ours,
        compute_s=compute_s, waiting_s=waiting_s, to_cpu_s=by_to, no_cache_s=compute_s + read_s, calls=calls,
        stall_s=stalled / num_steps,
    )  # fmt: skip
    bytes_per_cycle = loaded / num_cycles
    if title == "both_fit":
        bench.keep(f"loop.{title}.gb_per_cycle", bytes_per_cycle / GB, unit="GB", at_most=0.0)
    else:  # or else there was nothing to hide
        bench.keep(
            f"loop.{title}.gb_per_cycle", bytes_per_cycle / GB, unit="GB", at_least=0.9 * must_move / GB,
            baseline=must_move / GB, ratio=bytes_per_cycle / must_move,
        )  # fmt: skip


def computing(bench: Bench, calls: Mapping[str, int]) -> tuple[float, int]:
    """Seconds of computing per step, everything there; the most working memory that a call needs."""
    taken_s, working_bytes = 0.0, 0
    with bench.cache(bench.device.free_bytes()) as cache:

        def compute(name: str) -> None:
            with cache.lease(name, 1) as model:
                model.invoke([0] * calls[name], [])

        for name in calls:
            compute(name)
            taken_s += bench.device_seconds(partial(compute, name)) / len(calls)
            working_bytes = max(working_bytes, cache.working.estimate(name, 0, 1) or 0)
    return taken_s, working_bytes
