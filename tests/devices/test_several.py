"""Several devices: one main memory, and a placement that balances what was measured."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panic.devices.cache import ModelCache
from panic.devices.host import HostTier
from panic.devices.placement import MIN_GAIN, Costs, Placement, place
from panic.devices.simulated import SimulatedDevice
from panic.errors import ModelDoesNotFit
from tests.devices.paper import pack_paper, paper_cache
from tests.devices.test_contract import MIB, Layers, call

GB = 10**9
TWO = {"one": 24 * GB, "two": 24 * GB}


def test_what_fits_everywhere_is_everywhere() -> None:
    placed = place({"a": 1.0, "b": 5.0}, {"a": 8 * GB, "b": 12 * GB}, TWO)
    assert placed == {"a": ("one", "two"), "b": ("one", "two")}


def test_otherwise_the_busiest_device_is_done_as_early_as_possible() -> None:
    load = {"a": 8.0, "b": 3.0, "c": 4.0}
    placed = place(load, dict.fromkeys(load, 12 * GB), TWO)
    assert placed["b"] == placed["c"] != placed["a"]


def test_moving_weights_counts_as_work() -> None:
    """Equal computing, but b and c do not fit together: 16 GB over the bus for each would cost seconds."""
    load, sizes = {"a": 2.0, "b": 2.0, "c": 2.0}, {"a": 4 * GB, "b": 20 * GB, "c": 16 * GB}
    placed = place(load, sizes, TWO, rate_bytes_per_s=5e9)
    assert placed["b"] != placed["c"]
    with pytest.raises(ModelDoesNotFit, match="b, c"):
        place(load, sizes, dict.fromkeys(TWO, 15 * GB))


def test_a_placement_stays_unless_a_change_is_worth_it() -> None:
    sizes = dict.fromkeys("abcd", 10 * GB)
    before = place({"a": 4.0, "b": 4.0, "c": 4.0, "d": 4.0}, sizes, TWO)
    together = next(name for name in "bcd" if before[name] == before["a"])
    slightly = dict.fromkeys("abcd", 4.0) | {"a": 4.3, together: 4.3}
    assert place(slightly, sizes, TWO, before=before) == before
    greatly = dict.fromkeys("abcd", 2.0) | {"a": 8.0, together: 8.0}
    after = place(greatly, sizes, TWO, before=before)
    assert after["a"] != after[together]


def test_a_device_that_is_gone_and_a_model_that_is_new_move_nothing_else() -> None:
    sizes = dict.fromkeys("abcde", 10 * GB)
    before: Placement = {"a": ("one",), "b": ("two",), "c": ("three",), "d": ("one",)}
    placed = place(dict.fromkeys("abcde", 3.0), sizes, TWO, before=before)
    assert {name: placed[name] for name in "abd"} == {name: before[name] for name in "abd"}
    assert {placed["c"][0], placed["e"][0]} <= TWO.keys()


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, int], dict[str, int]]:
    names = "abcde"[: draw(st.integers(2, 5))]
    load = {name: float(draw(st.integers(1, 20))) for name in names}
    sizes = {name: draw(st.integers(1, 20)) for name in names}
    devices = {name: draw(st.integers(max(sizes.values()), 60)) for name in "xyz"[: draw(st.integers(2, 3))]}
    return load, sizes, devices


@settings(max_examples=40, deadline=None)
@given(problems())
def test_no_partition_is_better(problem: tuple[dict[str, float], dict[str, int], dict[str, int]]) -> None:
    load, sizes, devices = problem
    placed = place(load, sizes, devices, rate_bytes_per_s=5.0)
    if any(len(places) > 1 for places in placed.values()):
        assert sum(sizes.values()) <= min(devices.values())
        return
    costs = Costs(load, sizes, devices, 5.0)
    best = min(
        costs.of_all(dict(zip(load, places, strict=True)))[0] for places in product(devices, repeat=len(load))
    )
    assert costs.of_all({name: places[0] for name, places in placed.items()})[0] == best
    before = dict.fromkeys(load, (next(iter(devices)),))
    kept = place(load, sizes, devices, rate_bytes_per_s=5.0, before=before)
    assert (1 - MIN_GAIN) * costs.of_all({name: places[0] for name, places in kept.items()})[0] <= best


def serve(placed: Mapping[str, tuple[str, ...]], seconds: Mapping[str, float]) -> float:
    """Virtual seconds until the later of two devices has served ten cycles; measured by their caches."""
    host = HostTier(pack=pack_paper)
    finished = []
    for name in TWO:
        device = SimulatedDevice(name=name, capacity_bytes=TWO[name], rate_bytes_per_s=25e9)
        cache, models = paper_cache(device, {model: [GB] * 12 for model in seconds}, host=host)
        mine = [model for model in seconds if name in placed[model]]
        for number in range(10 * len(mine)):
            model = mine[number % len(mine)]
            later = mine[number % len(mine) + 1 :] + mine[: number % len(mine) + 1]
            with cache.lease(model, 1, later):
                models[model].seconds = seconds[model]
                models[model].invoke(["x"])
        finished.append(device.now_s)
    return max(finished)


def test_two_devices_with_a_balanced_placement_finish_earlier() -> None:
    seconds = {"a": 8.0, "b": 3.0, "c": 4.0}
    placed = place(seconds, dict.fromkeys(seconds, 12 * GB), TWO)
    assert serve(placed, seconds) == pytest.approx(80, rel=0.02)
    assert serve({"a": ("one",), "b": ("one",), "c": ("two",)}, seconds) > 109


# Main memory


def layers(host: HostTier, name: str, size: int = 4 * MIB) -> ModelCache:
    device = SimulatedDevice(name=name, capacity_bytes=64 * MIB)
    return ModelCache(device, lambda model: Layers(model, size), host=host)


def test_the_weights_of_a_model_on_two_devices_are_in_main_memory_once() -> None:
    host = HostTier()
    one, two = layers(host, "one"), layers(host, "two")
    expected = call(one, "a")
    assert host.held_bytes == 4 * MIB
    assert call(two, "a") == expected
    assert host.held_bytes == 4 * MIB
    call(two, "b")
    assert host.held_bytes == 8 * MIB
    one.close()
    assert host.held_bytes == 8 * MIB
    assert call(two, "a") == expected
    two.close()
    assert host.held_bytes == 0


def test_weights_that_differ_are_not_taken_for_the_same() -> None:
    host = HostTier()
    one, two = layers(host, "one"), layers(host, "two")
    two._construction.build = lambda model: Layers("another", 4 * MIB)
    assert call(one, "a") != call(two, "a")
    assert host.held_bytes == 8 * MIB


def test_weights_that_another_device_has_need_no_room_in_main_memory() -> None:
    host = HostTier(12 * MIB)
    one, two = layers(host, "one"), layers(host, "two")
    for cache, name in ((one, "a"), (one, "b"), (two, "c"), (two, "a")):
        call(cache, name)
    assert host.held_bytes == 12 * MIB
    assert two.resident == {"a", "c"}
    assert two.stats.builds == 2


def test_the_budget_counts_for_all_and_each_gives_up_its_own() -> None:
    host = HostTier(12 * MIB)
    one, two = layers(host, "one"), layers(host, "two")
    call(one, "a")
    call(two, "a")
    call(one, "b")
    call(two, "c")
    assert host.held_bytes == 12 * MIB
    call(two, "d")  # giving up its "a" frees nothing, the other device uses it: "c" goes
    gc.collect()
    assert host.held_bytes == 12 * MIB
    assert (one.resident, two.resident) == ({"a", "b"}, {"a", "d"})
