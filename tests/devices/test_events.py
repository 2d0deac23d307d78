"""What a cache writes down, and what is read from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from panic.devices.cache import ModelCache
from panic.devices.events import EventLog, fewest_bytes, read_events, summarise
from panic.devices.planning import Use
from panic.devices.simulated import SimulatedDevice
from tests.devices.paper import paper_cache
from tests.devices.test_contract import MIB, Layers
from tests.devices.test_contract import call as compute
from tests.devices.test_residency import call, cycle, sim


def test_events_tell_the_whole_story_and_the_regret(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    device = sim(20, rate_bytes_per_s=10.0)
    options = {"seconds": 0.1, "prefetching": False, "events": EventLog(path)}
    cache, _ = paper_cache(device, {"a": [5, 5, 5], "b": [5, 5, 5]}, **options)
    for name in "aabbaabb":
        call(cache, name, ["b", "a"] if name == "a" else ["a", "b"])
    cache.close()
    total = summarise(read_events([path]))
    assert (total.calls, total.hits) == (8, 4)
    assert total.moved_bytes == cache.stats.loaded_bytes == 50
    assert total.least_bytes == 50
    assert total.regret == 0
    assert total.bytes_by_tier == {"disk": 30, "host": 20}
    assert total.bytes_per_s == pytest.approx(10)
    assert total.stall_s == pytest.approx(5)
    assert total.evictions_by_reason == {"room": 3, "memory": 2}


def test_regret_of_a_cache_that_is_not_told_the_future(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    cache, _ = paper_cache(sim(20), {name: [5, 5] for name in "abc"}, events=EventLog(path))
    for name in "abc" * 6:
        call(cache, name)
    cache.close()
    regret = summarise(read_events([path])).regret
    assert regret is not None
    assert regret > 0.5


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"t": 1, "event": "out_of_memory", "model": "a"}\n{"t": 2, "eve')
    assert summarise(read_events([path])).out_of_memory == 1


def test_a_run_that_is_killed_has_told_its_calls_and_its_order(tmp_path: Path) -> None:
    """Nothing is closed; what is in the file is what a kill leaves."""
    path = tmp_path / "events.jsonl"
    cache, _ = paper_cache(sim(20), {"a": [5, 5, 5], "b": [5, 5, 5]}, events=EventLog(path))
    for _ in range(50):
        call(cache, "a")
    call(cache, "b", ["a", "b"])
    total = summarise(read_events([path]))
    assert total.calls >= 50
    assert (total.moved_bytes, total.regret) == (30, 0)
    call(cache, "a", ["b", "a"])
    assert summarise(read_events([path])).regret == 0


def test_processes_begin_with_an_empty_device_and_so_does_their_optimum(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for path in paths:
        cache, _ = paper_cache(sim(40), {"a": [5, 5, 5], "b": [5, 5, 5]}, events=EventLog(path))
        cycle(cache, "ab", 4)
        cache.close()
    total = summarise(read_events(paths))
    assert (total.moved_bytes, total.least_bytes, total.regret) == (90, 90, 0)


def test_what_a_model_in_layers_pushed_out_is_no_regret(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    device = SimulatedDevice(name="sim", capacity_bytes=2 * MIB, rate_bytes_per_s=1e9)
    sizes = {"small": MIB, "large": 4 * MIB}
    cache = ModelCache(device, lambda name: Layers(name, sizes[name]), events=EventLog(path))
    for _ in range(5):
        compute(cache, "small", ["large", "small"])
        compute(cache, "large", ["small", "large"])
    cache.close()
    total = summarise(read_events([path]))
    assert (total.moved_bytes, total.least_bytes) == (5 * MIB, 5 * MIB)
    assert total.streamed_calls == {"large": 5}
    assert total.evictions_by_reason == {"room": 1, "offload": 4}, "that it does not fit shows when it comes"


def test_calls_are_told_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "events.jsonl", [100.0]
    monkeypatch.setattr("panic.devices.events.time.monotonic", lambda: now[0])
    log = EventLog(path)
    told = []
    for _ in range(25):
        log.add_call("a", 10, 0, 20, "device")
        told.append(summarise(read_events([path])).calls)
        now[0] += 0.125
    assert told[0] == 0, "the stretch has begun, no second has passed"
    assert sorted(set(told)) == [0, 10, 19], told


def test_calls_are_told_by_where_they_found_their_model(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    device = sim(30, rate_bytes_per_s=100.0)
    cache, _ = paper_cache(device, {name: [5, 5] for name in "abcd"}, seconds=1.0, events=EventLog(path))
    cycle(cache, "abcd", 3)
    call(cache, "d", ["a", "d"])
    cache.close()
    total = summarise(read_events([path]))
    assert total.calls == 13
    assert total.calls_by_tier["disk"] == 4
    assert total.calls_by_tier["device"] >= 1
    assert total.calls_by_tier["prefetch"] > 0
    assert total.calls_by_tier["prefetch"] <= total.prefetch_hits
    assert total.hits == cache.stats.hits == total.calls_by_tier["device"] + total.calls_by_tier["prefetch"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[1, 2]",
        b'{"event": 3}',
        b'{"event": "use", "model": "a"}',
        b'{"event": "use", "model": ["a"], "size": 1, "working": 0, "capacity": 1}',
        b'{"event": "load", "bytes": null, "seconds": 1}',
        b'{"event": "load", "bytes": "many", "seconds": 1}',
        b'{"event": "load", "bytes": Infinity, "seconds": 1}',
        b'{"event": "load", "bytes": 5, "seconds": NaN}',
        b'{"event": "calls", "host": true}',
        b'{"event": "stre\xff',
        b"[" * 100_000,
    ],
)
def test_lines_that_make_no_sense_are_left_out(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    sound = {"event": "load", "model": "a", "bytes": 5, "tier": "disk", "seconds": 1.0}
    path.write_bytes(line + b"\n" + json.dumps(sound).encode() + b"\n")
    total = summarise(read_events([path]))
    assert (total.moved_bytes, total.calls, total.least_bytes) == (5, 0, 0)


def test_a_file_of_events_ends_with_the_line_that_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the calls that were counted by then are in it or nowhere; what follows is not written."""
    path = tmp_path / "deep" / "events.jsonl"
    log = EventLog(path)
    log.add("evict", model="a", reason="room")
    size = path.stat().st_size  # but for the digits of a time, of which zeros at the end are left out
    monkeypatch.setattr("panic.devices.events.MAX_BYTES", 7 * size // 2)
    for _ in range(9):
        log.add("evict", model="a", reason="room")
    log.add_call("a", 1, 0, 2, "device")
    log.close()
    assert path.read_text().count("\n") == 4
    assert summarise(read_events([path])).evictions_by_reason == {"room": 4}
    EventLog(path).close()
    assert summarise(read_events([path])).evictions_by_reason == {"room": 4}, "a file is gone on with"


def test_events_are_added_up_by_hand() -> None:
    """What came from the disk is not timed, cancelled bytes count as not moved, layers are apart."""
    total = summarise(
        [
            {"event": "start"},
            {"event": "use", "model": "a", "size": 10, "working": 0, "capacity": 12},
            {"event": "load", "bytes": 10, "seconds": 4.0, "tier": "disk"},
            {"event": "load", "bytes": 6, "seconds": 2.0},
            {"event": "prefetch", "bytes": 5},
            {"event": "cancelled", "bytes": 3},
            {"event": "arrived", "seconds": 0.5},
            {"event": "calls", "device": 3, "prefetch": 2, "disk": 1, "nowhere": 7},
            {"event": "evict", "model": "a"},
            {"event": "out_of_memory"},
            {"event": "streamed", "model": "b", "bytes": 100},
        ]
    )
    assert (total.calls, total.hits) == (6, 5)
    assert total.loads_by_tier == {"disk": 1, "host": 1}
    assert total.bytes_by_tier == {"disk": 10, "host": 6 + 5 - 3}
    assert (total.moved_bytes, total.bytes_per_s, total.load_s, total.stall_s) == (18, 3.0, 2.0, 6.5)
    assert (total.prefetches, total.prefetch_hits, total.out_of_memory) == (1, 1, 1)
    assert (total.evictions_by_reason, total.streamed_calls, total.streamed_bytes) == ({"": 1}, {"b": 1}, 100)
    assert (total.least_bytes, total.regret) == (10, 0.8)
    assert (summarise([]).bytes_per_s, summarise([]).regret) == (0.0, None)


def test_a_stretch_is_of_one_model_and_need_and_ends_where_layers_come(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for model, working in (("a", 0), ("a", 0), ("a", 1), ("b", 1)):
        log.add_call(model, 10, working, 20, "device")
    log.add("streamed", model="c", bytes=1)
    log.add_call("b", 10, 1, 20, "host")
    log.close()
    told = [
        (event["event"], event.get("model"), event.get("device"), event.get("host"))
        for event in read_events([path])
    ]
    assert told == [
        ("use", "a", None, None), ("calls", None, 2, None), ("use", "a", None, None),
        ("calls", None, 1, None), ("use", "b", None, None), ("calls", None, 1, None),
        ("streamed", "c", None, None), ("use", "b", None, None), ("calls", None, None, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("num_between", "num_bytes"), [(63, 3), (64, 4)])
def test_the_optimum_sees_64_uses_of_which_this_is_one(num_between: int, num_bytes: int) -> None:
    """Room for two of three: b, used last, is needed again; what is not seen goes by its last use."""
    order = [(Use(name), 2) for name in "ba" + "c" * num_between + "b"]
    assert fewest_bytes(order, dict.fromkeys("abc", 1)) == num_bytes
