"""The cache in blocks, on a virtual clock: partial eviction, prefetch, working memory, faults, soak."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from panic.devices.cache import ModelCache
from panic.devices.events import EventLog, read_events
from panic.devices.residency import smooth
from panic.devices.simulated import SimulatedDevice
from panic.errors import ModelDoesNotFit, OutOfMemory
from tests.devices.paper import PaperBlock, evict, held_bytes, paper_cache

GB, MB = 10**9, 10**6


def sim(capacity: int, **options: object) -> SimulatedDevice:
    return SimulatedDevice(name="sim", capacity_bytes=capacity, **options)  # type: ignore[arg-type]


def call(cache: ModelCache, name: str, upcoming: Sequence[str] = (), batch: int = 1, bucket: int = 0) -> None:
    with cache.lease(name, batch, upcoming, bucket=bucket) as model:
        model.invoke(["x"] * batch, [0] * batch)


def cycle(cache: ModelCache, order: str, times: int) -> None:
    for _ in range(times):
        for position, name in enumerate(order):
            call(cache, name, [*order[position + 1 :], *order[: position + 1]])


def test_only_what_is_needed_is_evicted_and_only_that_is_loaded_again() -> None:
    cache, _ = paper_cache(sim(20), {"a": [5, 5, 5], "b": [5, 5, 5]})
    cycle(cache, "ab", 10)
    assert cache.stats.loaded_bytes == 15 + 15 + 18 * 10
    assert held_bytes(cache) == {"a": 5, "b": 15}
    assert cache.stats.builds == 2


def test_granularity_counts_what_blocks_really_take() -> None:
    device = sim(16, granularity_bytes=4)
    cache, _ = paper_cache(device, {"a": [5], "b": [5]})
    cycle(cache, "ab", 3)
    assert device.allocated_bytes == 16
    assert cache.stats.loads == 2
    assert cache.stats.evictions == 0
    device = sim(15, granularity_bytes=4)
    cache, _ = paper_cache(device, {"a": [5], "b": [5]})
    cycle(cache, "ab", 3)
    assert cache.stats.loads == 6


def test_prefetch_hides_copies_behind_computing() -> None:
    """Three models of 4 GB at 10 GB/s, room for two: a call of 1 s hides a copy of 0.4 s."""
    device = sim(8 * GB, rate_bytes_per_s=10e9)
    cache, _ = paper_cache(device, {name: [GB] * 4 for name in "abc"}, seconds=1.0)
    cycle(cache, "abc", 2)
    started, stalled = device.now_s, cache.stats.stall_s
    cycle(cache, "abc", 20)
    assert cache.stats.stall_s == stalled
    assert device.now_s - started == pytest.approx(60)
    assert cache.stats.prefetch_hits >= 40


@pytest.mark.parametrize("order", ["abac", "abcbd", "aabac"])
def test_prefetch_hides_copies_where_a_model_is_used_several_times_a_cycle(order: str) -> None:
    """The cycle ends where the order repeats, and not where its first model is used again."""
    device = sim(8 * GB, rate_bytes_per_s=10e9)
    cache, _ = paper_cache(device, {name: [GB] * 4 for name in order}, seconds=1.0)
    cycle(cache, order, 3)
    started, stalled = device.now_s, cache.stats.stall_s
    cycle(cache, order, 20)
    assert cache.stats.stall_s == stalled
    assert device.now_s - started == pytest.approx(20 * len(order))


def test_without_prefetch_the_same_waits() -> None:
    device = sim(8 * GB, rate_bytes_per_s=10e9)
    options = {"seconds": 1.0, "prefetching": False}
    cache, _ = paper_cache(device, {name: [GB] * 4 for name in "abc"}, **options)
    cycle(cache, "abc", 10)
    assert cache.stats.stall_s == pytest.approx(cache.stats.loaded_bytes / 10e9)
    assert cache.stats.stall_s > 3.0


def test_repeated_calls_of_a_model_leave_a_prefetch_alone() -> None:
    device = sim(100, rate_bytes_per_s=10.0)
    cache, models = paper_cache(device, {"a": [10], "b": [10, 10]}, seconds=0.5)
    call(cache, "b")
    evict(cache, "b")
    for _ in range(4):
        call(cache, "a", ["b", "a"])
    assert cache.stats.prefetches == 1
    assert {block.state for block in models["b"].blocks} == {"allocated"}
    call(cache, "b", ["a", "b"])
    assert cache.stats.prefetch_hits == 1


def test_what_is_on_its_way_is_joined_by_no_more_when_there_is_more_room() -> None:
    device = sim(100, rate_bytes_per_s=10.0)
    cache, _ = paper_cache(device, {"a": [10], "b": [10, 10, 10]}, seconds=0.5)
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a")
    for device.capacity_bytes in (30, 100):
        call(cache, "a", ["b", "a"])
        assert held_bytes(cache) == {"a": 10, "b": 20}
    assert cache.stats.prefetches == 1


def test_a_cancelled_prefetch_keeps_what_arrived_and_gives_the_rest_back() -> None:
    device = sim(100, rate_bytes_per_s=10.0)
    cache, models = paper_cache(device, {"a": [10], "b": [10, 10, 10]}, seconds=1.5)
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a", ["b", "a"])  # the first block needs one second, the second is on the bus
    loaded = cache.stats.loaded_bytes
    cache.evict_idle()
    assert device.now_s == pytest.approx(3 + 1 + 1.5 + 1.5 + 0.5)
    assert loaded - cache.stats.loaded_bytes == 10
    assert device.allocated_bytes == 0
    assert {block.state for block in models["b"].blocks} == {"gone"}


def test_a_prefetch_gives_way_to_a_model_that_was_not_foreseen() -> None:
    device = sim(30, rate_bytes_per_s=1.0)
    cache, _ = paper_cache(device, {"a": [10], "b": [10, 10], "c": [20]}, seconds=1.0)
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a", ["b", "a"])
    call(cache, "c")
    assert "c" in cache.resident
    assert device.allocated_bytes <= 30


def test_host_budget_forgets_what_is_needed_furthest_and_builds_it_again() -> None:
    cache, _ = paper_cache(sim(100), {name: [10] for name in "abc"}, host_bytes=20)
    call(cache, "a", ["b", "c", "a"])
    call(cache, "b", ["c", "a", "b"])
    call(cache, "c", ["a", "b", "c"])
    assert cache.resident == {"a", "c"}
    call(cache, "b", ["c", "a", "b"])
    assert cache.stats.builds == 4


def test_a_model_without_weights_is_loaded_and_dropped_like_any_other() -> None:
    cache, models = paper_cache(sim(10), {"a": [0]})
    call(cache, "a")
    assert models["a"].blocks[0].state == "bound"
    assert cache.resident == {"a"}
    assert cache.evict_idle() == 1
    assert models["a"].blocks[0].state == "gone"


# Working memory


def test_working_memory_is_learnt_from_calls() -> None:
    device = sim(100)
    cache, _ = paper_cache(device, {"a": [10], "b": [50]}, needs=10)
    call(cache, "a", batch=2)
    assert cache.working.estimate("a", 0, 2) == 21
    assert cache.working.estimate("a", 0, 4) == 42
    call(cache, "b", batch=2)
    call(cache, "a", batch=6)  # 63 + 10: b has to give way, before the call and not in it
    assert held_bytes(cache).get("b", 0) == 0
    assert cache.stats.out_of_memory == 0


def test_a_peak_that_lies_is_found_out_and_known_from_then_on() -> None:
    """The model announces 1 byte an item and takes 30: the first call fails, then it is known better."""
    device = sim(100)
    cache, _ = paper_cache(device, {"a": [40], "b": [40]}, needs=30, told=1)
    cache.working.observe("b", 0, 1, 0)
    cache.working.observe("a", 0, 1, 0)
    call(cache, "b")
    with pytest.raises(OutOfMemory):
        call(cache, "a")
    assert device.allocated_bytes == 80
    assert cache.evict_idle() == 2  # what the worker does before it tries again
    call(cache, "a")
    assert cache.working.estimate("a", 0, 1) == 32
    call(cache, "b", ["a"])
    call(cache, "a", ["b"])


def test_what_is_only_expected_makes_room_and_is_no_reason_to_give_up() -> None:
    """Seen at a batch of 1, so 3 should need three times as much: more than there is, but it is not so."""
    device = sim(100)
    cache, models = paper_cache(device, {"a": [40], "b": [10]}, needs=30)
    call(cache, "b")
    call(cache, "a")
    models["a"].needs = 15
    call(cache, "a", batch=3)
    assert cache.resident == {"a"}
    assert cache.working.seen("a", 0, 3) == 45
    models["a"].needs = 20
    call(cache, "a", batch=3)  # 60 are there, though 48 were reckoned with
    with pytest.raises(OutOfMemory, match="100 B more"):  # was needed for sure
        call(paper_cache(sim(90), {"a": [40]}, needs=20, working=cache.working)[0], "a", batch=3)


def test_items_of_another_shape_need_something_else() -> None:
    device = sim(100)
    cache, models = paper_cache(device, {"a": [20], "b": [40]}, needs=5)
    call(cache, "a", bucket=64)
    models["a"].needs = 60
    call(cache, "a", bucket=1024)
    models["a"].needs = 5
    call(cache, "a", bucket=64)
    call(cache, "b")
    call(cache, "a", bucket=64)
    assert cache.resident == {"a", "b"}
    call(cache, "a", bucket=1024)
    assert cache.resident == {"a"}


def test_nothing_is_brought_ahead_into_room_that_a_call_may_need() -> None:
    """How much it needs is not known before the first call, and after a call that failed."""
    device = sim(100)
    cache, models = paper_cache(device, {"a": [40], "b": [40]}, told=None)
    call(cache, "b")
    evict(cache, "b")
    models["b"].needs = 0
    cache._cached("a", ())
    models["a"].needs = 60
    call(cache, "a", ["b", "a"])
    assert cache.stats.prefetches == 0
    models["a"].needs = 30
    call(cache, "a", ["b", "a"])
    models["a"].needs = 10
    cache.working.peaks["a"][0][1] = 10
    cache.evict_idle()
    models["a"].needs = 60
    with pytest.raises(OutOfMemory):
        call(cache, "a", ["b", "a"])
    assert cache.stats.prefetches == 1
    cache.evict_idle()
    call(cache, "a", ["b", "a"])  # the worker's second try
    assert cache.stats.prefetches == 1


# Others on the device


def test_a_tenant_in_mid_step_is_noticed_at_the_next_load() -> None:
    device = sim(40 * GB, tenants_trace=[(0.0, 0), (10.0, 10 * GB)])
    cache, _ = paper_cache(device, {name: [2 * GB] * 6 for name in "abc"}, seconds=3.0)
    cycle(cache, "abc", 1)
    assert len(cache.resident) == 3
    call(cache, "a", ["b", "c", "a"])  # from second 9 to 12: the tenant comes while it computes
    assert len(cache.resident) == 3
    evict(cache, "a")
    call(cache, "a", ["b", "c", "a"])
    assert device.allocated_bytes == 30 * GB
    assert held_bytes(cache) == {"b": 12 * GB, "c": 6 * GB, "a": 12 * GB}


def test_room_that_a_tenant_has_just_given_back_is_the_last_resort() -> None:
    device = sim(30, tenants_bytes=10)
    cache, _ = paper_cache(device, {"a": [10], "b": [10], "c": [10], "d": [20]})
    call(cache, "a")
    call(cache, "b")
    device.tenants_bytes = 0
    call(cache, "c")
    assert cache.resident == {"b", "c"}
    device.advance(61)
    call(cache, "a")
    assert cache.resident == {"a", "b", "c"}
    device.tenants_bytes = 15
    call(cache, "a")
    device.tenants_bytes = 0
    call(cache, "d")  # needs it, so it is taken
    assert "d" in cache.resident


# Faults


def test_no_room_at_the_nth_allocation_is_tried_again_with_everything_else_gone() -> None:
    for nth in range(1, 7):
        device = sim(100)
        cache, _ = paper_cache(device, {"a": [10, 10], "b": [10, 10, 10]})
        call(cache, "a")
        device.num_allocations, device.fail_at = 0, nth
        call(cache, "b")
        assert cache.stats.out_of_memory == (nth <= 3)
        assert ("a" in cache.resident) == (nth > 3)
        assert device.allocated_bytes == sum(held_bytes(cache).values())


def test_an_error_in_mid_load_leaves_nothing_behind_and_passes() -> None:
    device = sim(100)
    cache, models = paper_cache(device, {"a": [10, 10, 10]})
    call(cache, "a")
    evict(cache, "a")
    models["a"].blocks[1].errors.append(OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        call(cache, "a")
    assert device.allocated_bytes == 0
    call(cache, "a")


def test_an_error_in_a_prefetch_is_told_by_the_lease_that_needs_it() -> None:
    device = sim(100, rate_bytes_per_s=10.0)
    cache, models = paper_cache(device, {"a": [10], "b": [10, 10]}, seconds=5.0)
    call(cache, "b")
    evict(cache, "b")
    models["b"].blocks[1].errors += [OSError("disk"), OSError("disk")]
    call(cache, "a", ["b", "a"])
    with pytest.raises(OSError, match="disk"):
        call(cache, "b", ["a", "b"])
    models["b"].blocks[1].errors.clear()
    call(cache, "b", ["a", "b"])
    assert device.allocated_bytes == 30


def test_no_room_for_a_prefetch_leaves_nothing_behind() -> None:
    """The second of the blocks to be brought ahead finds none: the first is given back, the call goes on."""
    device = sim(100, rate_bytes_per_s=10.0)
    cache, models = paper_cache(device, {"a": [10], "b": [10, 20]}, seconds=1.0)
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a")
    device.num_allocations, device.fail_at = 0, 2
    call(cache, "a", ["b", "a"])
    assert device.allocated_bytes == 10
    assert [block.state for block in models["b"].blocks] == ["gone", "gone"]
    assert cache.stats.prefetches == 0
    call(cache, "b", ["a", "b"])
    assert held_bytes(cache) == {"a": 10, "b": 30}


def test_another_error_at_the_second_try_of_a_load_is_told_as_it_is() -> None:
    device = sim(100)
    cache, models = paper_cache(device, {"a": [10, 10]})
    call(cache, "a")
    evict(cache, "a")
    device.num_allocations, device.fail_at = 0, 2
    models["a"].blocks[0].errors.append(OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        call(cache, "a")
    assert (cache.stats.out_of_memory, device.allocated_bytes) == (1, 0)


def test_what_comes_from_the_disk_tells_nothing_of_the_bus(tmp_path: Path) -> None:
    """The first load of a model reads it; only a later one copies it from main memory."""
    device = sim(100, rate_bytes_per_s=10.0)
    cache, _ = paper_cache(device, {"a": [10, 20]}, events=EventLog(tmp_path / "events.jsonl"))
    call(cache, "a")
    assert cache._residency.rate_bytes_per_s == 0
    device.rate_bytes_per_s = 5.0
    for rate in (5.0, 10.0):
        device.rate_bytes_per_s = rate
        evict(cache, "a")
        call(cache, "a")
    assert cache._residency.rate_bytes_per_s == pytest.approx(5 + 0.3 * 5)
    assert (cache.stats.loads, cache.stats.loaded_bytes) == (3, 90)
    assert cache.stats.load_s == cache.stats.stall_s == pytest.approx(3 + 6 + 3)
    cache.close()
    told = [event for event in read_events([tmp_path / "events.jsonl"]) if event["event"] == "load"]
    assert [(event["tier"], event["bytes"]) for event in told] == [("disk", 30), ("host", 30), ("host", 30)]
    assert [event["seconds"] for event in told] == pytest.approx([3, 6, 3])


def test_a_prefetch_brings_what_fits_and_an_order_counts_what_is_on_its_way() -> None:
    device = sim(100, rate_bytes_per_s=10.0)
    cache, models = paper_cache(device, {"a": [10], "b": [10, 10, 10]})
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a")
    residency = cache._residency
    residency.start(residency.models["b"], 25)
    assert held_bytes(cache) == {"b": 20, "a": 10}
    assert [block.state for block in models["b"].blocks] == ["allocated", "allocated", "gone"]
    assert residency.idle_bytes(residency.models["b"]) == 30
    assert cache.stats.loaded_bytes == 30 + 10 + 20
    residency.arrive(residency.models["a"])  # not the one on its way
    assert residency.arriving is not None
    residency.arrive(residency.models["b"])
    assert residency.models["b"].num_loaded == 2
    assert device.now_s == pytest.approx(3 + 1 + 2)
    residency.start(residency.models["b"], 9)
    assert residency.arriving is None
    assert cache.stats.prefetches == 1


def test_events_tell_what_was_brought_what_arrived_and_what_was_cancelled(tmp_path: Path) -> None:
    device = sim(100, rate_bytes_per_s=10.0)
    log = EventLog(tmp_path / "events.jsonl")
    cache, _ = paper_cache(device, {"a": [10], "b": [10, 10, 10]}, seconds=1.5, events=log)
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a", ["b", "a"])  # 1.5 of the three blocks have come when it ends
    cache.evict_idle()
    call(cache, "a", ["b", "a"])
    call(cache, "b", ["a", "b"])
    cache.close()
    told = [
        (event["event"], event["model"], event.get("bytes"), event.get("reason"))
        for event in read_events([tmp_path / "events.jsonl"])
        if event["event"] not in ("start", "use", "calls", "working")
    ]
    assert told == [
        ("load", "b", 30, None),
        ("evict", "b", 30, "asked"),
        ("load", "a", 10, None),
        ("prefetch", "b", 30, None),
        ("cancelled", "b", 10, None),
        ("evict", "b", 20, "memory"),
        ("evict", "a", 10, "memory"),
        ("load", "a", 10, None),
        ("prefetch", "b", 30, None),
        ("arrived", "b", None, None),
        ("evict", "a", 10, "memory"),
        ("evict", "b", 30, "memory"),
    ]
    assert cache.stats.evictions == 5
    assert cache.stats.prefetch_hits == 1


def test_seconds_of_waiting_are_told_to_the_microsecond(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    cache, _ = paper_cache(sim(100, rate_bytes_per_s=3.0), {"a": [1], "b": [1]}, events=log)
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a", ["b", "a"])
    call(cache, "b", ["a", "b"])
    cache.close()
    events = read_events([tmp_path / "events.jsonl"])
    assert [event["seconds"] for event in events if event["event"] == "arrived"] == [0.333333]


def test_what_a_call_needs_is_told_where_it_is_more_than_was_known(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    cache, models = paper_cache(sim(100), {"a": [10]}, needs=5, events=log)
    call(cache, "a", batch=2, bucket=7)
    call(cache, "a", batch=2, bucket=7)
    models["a"].needs = 6
    call(cache, "a", batch=2, bucket=7)
    cache.close()
    told = [event for event in read_events([tmp_path / "events.jsonl"]) if event["event"] == "working"]
    assert [event["bytes"] for event in told] == [10, 12]
    assert {(event["model"], event["bucket"], event["batch"]) for event in told} == {("a", 7, 2)}


def test_idle_bytes_are_all_but_those_of_models_in_use() -> None:
    cache, _ = paper_cache(sim(100), {"a": [10], "b": [20], "c": [5]})
    for name in "abc":
        call(cache, name)
    residency = cache._residency
    with cache.lease("a", 1):
        assert residency.in_use() == {"a"}
        assert residency.idle_bytes(residency.models["b"]) == 25
        assert residency.idle_bytes(residency.models["a"]) == 35
        assert residency.drop_idle("memory") == 2
        assert residency.drop_idle("memory") == 0
    assert held_bytes(cache) == {"a": 10}


def test_how_long_calls_take_is_known_from_the_first_one_on() -> None:
    """Nothing is known before, so that eager prefetch is not asked for."""
    cache, models = paper_cache(sim(100, rate_bytes_per_s=3.0), {"a": [1]}, seconds=2.0)
    cache.bring("a")
    cached = cache._residency.models["a"]
    assert (cached.compute_s, cached.leases, cached.fell_short) == (0.0, 0, False)
    call(cache, "a")
    assert cached.compute_s == 2.0
    models["a"].seconds = 4.0
    call(cache, "a")
    assert cached.compute_s == pytest.approx(2.0 + 0.3 * 2.0)


def test_measurements_are_smoothed_from_the_first_one_on() -> None:
    assert smooth(0.0, 4.0) == 4.0
    assert smooth(4.0, 8.0) == pytest.approx(5.2)


def test_what_never_fits_is_refused_with_the_arithmetic() -> None:
    device = sim(40, tenants_bytes=9)
    cache, _ = paper_cache(device, {"a": [5], "b": [10, 10, 10]}, headroom_bytes=2, memory_fraction=0.9)
    with cache.lease("a", 1), pytest.raises(ModelDoesNotFit) as refused:
        call(cache, "b")
    assert refused.value.message == (
        "b needs 30 B more on sim: 20 B are free of 40 B (5 B held by models in use, 9 B held by others, "
        "2 B kept as headroom, 4 B beyond the memory fraction)"
    )
    assert 40 - (5 + 9 + 2 + 4) == 20


def test_a_call_that_takes_nothing_goes_on_where_headroom_is_gone() -> None:
    device = sim(40)
    cache, _ = paper_cache(device, {"a": [10]})
    call(cache, "a")
    cache.room.headroom_bytes = 100
    call(cache, "a")
    assert cache.resident == {"a"}


# Models that move as a whole


@pytest.mark.parametrize("order", ["abc", "decbea", "abacdb"])
@pytest.mark.parametrize("keeps_host", [True, False])
def test_prefetching_moves_no_more_bytes_of_models_that_move_as_a_whole(order: str, keeps_host: bool) -> None:
    """A thread cannot bring them, so nothing may be given up for that."""
    moved = {}
    for prefetching in (True, False):
        device = sim(17 * MB, rate_bytes_per_s=10e6)
        sizes = {"a": [5 * MB], "b": [5 * MB], "c": [7 * MB], "d": [7 * MB], "e": [8 * MB]}
        options = {"whole": True, "keeps_host": keeps_host, "seconds": 10.0, "prefetching": prefetching}
        cache, _ = paper_cache(device, sizes, **options)
        cycle(cache, order, 8)
        assert cache.stats.prefetches == 0
        moved[prefetching] = cache.stats.loaded_bytes
    assert moved[True] == moved[False]


@pytest.mark.parametrize("keeps_host", [True, False])
def test_what_half_a_load_has_left_nowhere_is_built_again(
    keeps_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, models = paper_cache(sim(100), {"a": [10]}, whole=True, keeps_host=keeps_host)

    def fill(block: PaperBlock) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patched:
        patched.setattr(PaperBlock, "fill", fill)
        with pytest.raises(OSError, match="disk"):
            call(cache, "a")
    half = models["a"]
    call(cache, "a")
    assert (models["a"] is half) == keeps_host
    assert cache.stats.builds == (1 if keeps_host else 2)


def test_a_model_that_moves_as_a_whole_keeps_the_others_from_moving_more() -> None:
    """Bringing b and c early costs bytes, which pays only where no model has to be waited for anyway."""
    moved = {}
    for prefetching in (True, False):
        device = sim(9 * GB, rate_bytes_per_s=10e9)
        options = {"seconds": 1.0, "prefetching": prefetching}
        cache, _ = paper_cache(device, {name: [GB] * 4 for name in "abc"}, **options)
        build = cache._construction.build
        cache._construction.build = lambda name, build=build: replace(build(name), whole=name == "a")
        cycle(cache, "abc", 8)
        moved[prefetching] = cache.stats.loaded_bytes
    assert moved[True] == moved[False]


def test_a_model_brought_ahead_of_its_first_call_has_taught_nothing() -> None:
    """What it says of its working memory counts until a call has shown it."""
    device = sim(100)
    cache, _ = paper_cache(device, {"a": [40], "b": [40]}, told=30)
    cache.bring("a")
    assert cache.resident == {"a"}
    assert cache.working.peaks == {}
    call(cache, "a", ["b", "a"])
    assert device.peak_bytes == 40 + 30


def test_a_model_that_is_on_its_way_is_brought_once() -> None:
    device = sim(30, rate_bytes_per_s=10.0)
    cache, models = paper_cache(device, {"a": [5, 5], "b": [5, 5]}, seconds=0.1)
    call(cache, "b")
    evict(cache, "b")
    call(cache, "a", ["b", "a"])
    assert models["b"].blocks[0].state == "allocated"
    cache.bring("b")
    assert all(block.state == "bound" for block in models["b"].blocks)
    assert list(held_bytes(cache)) == ["a", "b"], "used last"


def test_calls_within_calls_have_their_own_working_memory() -> None:
    device = sim(100)
    cache, models = paper_cache(device, {"a": [10], "b": [10]}, told=5)
    needs = {"a": 20, "b": 30}
    with cache.lease("a", 1):
        device.use(needs["a"])
        with cache.lease("b", 1):
            device.use(needs["b"])
            assert device.allocated_bytes == 20 + 20 + 30
            device.use(-needs["b"])
        device.use(-needs["a"])
    assert device.allocated_bytes == 20
    assert {name: cache.working.seen(name, 0, 1) for name in models} == needs


# Soak


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "num_cycles",
    [
        300,
        pytest.param(3_000, marks=pytest.mark.slow),
        pytest.param(100_000, marks=pytest.mark.long),
    ],
)
def test_bytes_stay_flat_over_many_cycles(num_cycles: int) -> None:
    device = sim(30, rate_bytes_per_s=100.0)
    cache, _ = paper_cache(device, {"a": [5, 5], "b": [5, 5, 5], "c": [4, 4, 4]}, seconds=0.01, needs=1)
    cycle(cache, "abc", 100)
    seen = set()
    gc.collect()
    tracemalloc.start()
    before = 0
    for number in range(num_cycles):
        cycle(cache, "abc", 1)
        seen.add(device.allocated_bytes)
        if number == num_cycles // 10:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(seen) <= 3
    assert grown < 20_000
    cache.close()
    assert device.allocated_bytes == 0
