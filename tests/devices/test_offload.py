"""Models that do not fit: layer by layer, with the same results and within the bytes that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from panic.devices.cache import ModelCache
from panic.devices.events import EventLog, read_events, summarise
from panic.devices.offload import arrange, streamed
from panic.devices.parcels import slab
from panic.devices.simulated import SimulatedDevice
from panic.devices.transfers import format_bytes
from panic.errors import ModelDoesNotFit, OutOfMemory
from tests.devices.paper import held_bytes
from tests.devices.test_contract import MIB, Layers, call

KIB = 2**10


def cache_of(capacity: int, **options: Any) -> tuple[ModelCache, SimulatedDevice]:
    """A model of 4 MiB in 16 layers of 256 KiB; 128 KiB a block."""
    device = SimulatedDevice(name="sim", capacity_bytes=capacity, rate_bytes_per_s=1e9)
    return ModelCache(device, lambda name: Layers(name, 4 * MIB), **options), device


def test_a_model_larger_than_the_device_gives_the_same_bits() -> None:
    roomy, _ = cache_of(64 * MIB)
    expected = call(roomy, "a")
    cache, device = cache_of(2 * MIB)
    for _ in range(3):
        assert call(cache, "a") == expected
    assert device.peak_bytes <= 2 * MIB
    assert device.allocated_bytes == 0
    assert cache.resident == frozenset()
    moved = device.copied_bytes / 3
    assert moved == pytest.approx(4 * MIB), "7 layers stay for a call, 9 come and go: each is moved once"


def test_bytes_that_come_layer_by_layer_are_told_apart(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    cache, device = cache_of(2 * MIB, events=log)
    for _ in range(3):
        call(cache, "a")
    cache.close()
    told = summarise(read_events([tmp_path / "events.jsonl"]))
    assert told.streamed_calls == {"a": 3}
    assert told.evictions_by_reason == {}
    assert told.streamed_bytes == cache.stats.streamed_bytes == device.copied_bytes == 3 * 4 * MIB
    assert (told.calls, told.moved_bytes, told.regret) == (0, 0, None)


def test_others_make_room_and_come_back() -> None:
    cache, device = cache_of(4 * MIB + 512 * KIB)
    expected = call(cache, "a")
    build = cache._construction.build
    cache._construction.build = lambda name: Layers(name, 8 * MIB) if name == "large" else build(name)
    call(cache, "large", ["a", "large"])
    assert call(cache, "a", ["large", "a"]) == expected
    assert cache.resident == {"a"}
    assert device.allocated_bytes == 4 * MIB


def test_a_model_comes_back_as_a_whole_when_there_is_room_again() -> None:
    cache, device = cache_of(64 * MIB)
    expected = call(cache, "a")
    cache.evict_idle()
    device.tenants_bytes = 62 * MIB
    assert call(cache, "a") == expected
    assert cache.resident == frozenset()
    device.tenants_bytes = 0
    assert call(cache, "a") == expected
    assert cache.resident == frozenset(), "they may come back for it"
    device.advance(61.0)
    for _ in range(3):
        assert call(cache, "a") == expected
    assert cache.resident == {"a"}
    assert cache.stats.streamed_bytes == 2 * 4 * MIB
    assert call(cache, "b") != expected
    assert cache.resident == {"a", "b"}


def test_a_model_is_not_taken_back_into_room_that_its_calls_would_lack() -> None:
    """4 MiB of weights and 1.5 of a call on 5 MiB: whole it would run out, in layers it does not."""
    cache, device = cache_of(5 * MIB)

    def needy() -> None:
        with cache.lease("a", 12):
            device.use(3 * MIB // 2)
            device.use(-3 * MIB // 2)

    device.tenants_bytes = 2 * MIB
    needy()
    device.tenants_bytes = 0
    device.advance(61.0)
    for _ in range(3):
        needy()
    assert cache.resident == frozenset()
    device.capacity_bytes = 6 * MIB
    needy()
    assert cache.resident == {"a"}


def test_a_model_that_does_not_load_twice_comes_in_layers() -> None:
    """Against all reckoning: fragmented memory, say."""
    roomy, _ = cache_of(64 * MIB)
    expected = call(roomy, "a")
    failing = [2]

    class Fragmented(SimulatedDevice):
        def reserve(self, num_bytes: int) -> None:
            if failing[0] and num_bytes:
                failing[0] -= 1
                raise OutOfMemory("fragmented")
            super().reserve(num_bytes)

    device = Fragmented(name="sim", capacity_bytes=64 * MIB)
    cache = ModelCache(device, lambda name: Layers(name, 4 * MIB))
    assert call(cache, "a") == expected
    assert (cache.resident, cache.stats.out_of_memory) == (frozenset(), 2)
    assert cache.stats.streamed_bytes == 4 * MIB


def test_models_in_use_are_no_room_for_another_one() -> None:
    cache, device = cache_of(6 * MIB)
    call(cache, "a")
    cache.evict_idle()
    device.tenants_bytes = 3 * MIB
    call(cache, "a")
    device.tenants_bytes = 0
    device.advance(61.0)
    with cache.lease("b", 1):
        call(cache, "a")
        assert cache.resident == {"b"}
    call(cache, "a")
    assert cache.resident == {"a"}


def test_a_model_whose_calls_ran_out_of_memory_is_not_tried_again_in_the_same_room() -> None:
    cache, device = cache_of(64 * MIB)
    expected = call(cache, "a")
    assert cache.offload("a")
    for _ in range(3):
        assert call(cache, "a") == expected
    assert cache.resident == frozenset()
    device.capacity_bytes = 68 * MIB
    call(cache, "a")
    assert cache.resident == {"a"}


def test_room_that_others_have_just_given_back_is_used_by_layers_that_have_no_other() -> None:
    cache, device = cache_of(2 * MIB)
    expected = call(cache, "a")
    device.tenants_bytes = 2 * MIB - 200 * KIB
    with pytest.raises(ModelDoesNotFit, match="not even one layer at a time"):
        call(cache, "a")
    device.tenants_bytes = 0
    assert call(cache, "a") == expected


def test_what_a_model_outgrew_counts_as_it_was_and_not_as_others_might_have_had_it() -> None:
    """58 of 64 MiB were another's a moment before, but not when the calls ran out of memory."""
    cache, device = cache_of(64 * MIB)
    device.tenants_bytes = 58 * MIB
    call(cache, "a")
    device.tenants_bytes = 0
    assert cache.offload("a")
    device.advance(61.0)
    call(cache, "a")
    assert cache.resident == frozenset()
    assert not cache.offload("a"), "it comes in layers already"


def test_layers_stay_where_others_were_so_that_passes_copy_less() -> None:
    """Two passes of 4 MiB in room for 3, of which another model held 1."""

    class Twice(Layers):
        def invoke(self, inputs: Any, seeds: Any = ()) -> list[Any]:
            super().invoke(inputs, seeds)
            return super().invoke(inputs, seeds)

    device = SimulatedDevice(name="sim", capacity_bytes=3 * MIB, rate_bytes_per_s=1e9)
    cache = ModelCache(device, lambda name: Layers(name, MIB) if name == "small" else Twice(name, 4 * MIB))
    call(cache, "large")  # shows how much the call itself needs
    before = cache.stats.streamed_bytes
    call(cache, "small")
    call(cache, "large")
    stays = 3 * MIB - 256 * KIB
    assert cache.stats.streamed_bytes - before == stays + 2 * (4 * MIB - stays)
    assert cache.resident == frozenset()


def test_layers_stay_as_long_as_there_is_room_beside_the_call() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=2**40)
    parcel = slab(Layers("a", 4 * MIB).weight_modules(), device)
    sizes = [block.num_bytes for block in parcel.blocks]
    assert {format_bytes(size) for size in sizes} == {"256.0 KiB"}
    arrangement = arrange(parcel, sizes, 2 * MIB)
    assert arrangement is not None
    assert (len(arrangement.stays), arrangement.window_bytes, arrangement.num_bytes) == (
        7,
        256 * KIB,
        2 * MIB,
    )
    assert [len(numbers) for _, numbers in arrangement.layers] == [0] * 7 + [1] * 9
    least = arrange(parcel, sizes, 2 * MIB, fill=False)
    assert least is not None
    assert (least.stays, least.num_bytes) == ((), 256 * KIB)
    everything = arrange(parcel, sizes, 4 * MIB)
    assert everything is not None
    assert (len(everything.stays), everything.window_bytes) == (16, 0)
    assert arrange(parcel, sizes, 200 * KIB) is None


def test_layers_are_dropped_only_for_others_that_have_no_room() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=512 * KIB)
    first, second, wide = (torch.nn.Linear(256, width, bias=False) for width in (256, 256, 512))
    parcel = slab([torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([first, second, wide])})], device)
    sizes = [block.num_bytes for block in parcel.blocks]
    arrangement = arrange(parcel, sizes, 512 * KIB, fill=False)
    assert arrangement is not None
    layers = (first, second, wide)
    places = [layer.weight.data_ptr() for layer in layers]

    def are_there() -> list[bool]:
        """Which layers compute with what was copied, and not with what main memory has."""
        return [layer.weight.data_ptr() != place for layer, place in zip(layers, places, strict=True)]

    with streamed(parcel, sizes, arrangement, device) as copied:
        for layer in (first, second, first, second):
            layer(torch.zeros(1, 256))
        assert copied() == 512 * KIB
        assert are_there() == [True, True, False]
        wide(torch.zeros(1, 256))
        assert copied() == 1024 * KIB
        assert are_there() == [False, False, True]
        first(torch.zeros(1, 256))
        assert copied() == 1280 * KIB
        assert are_there() == [True, False, False]
    assert are_there() == [False] * 3
    assert device.free_bytes() == 512 * KIB


def test_what_is_in_no_layer_stays_and_a_layer_that_is_too_large_is_taken_apart() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(256, 256, bias=False)
            *inner, last = (torch.nn.Linear(256, 256, bias=False) for _ in range(5))
            self.blocks = torch.nn.ModuleList([torch.nn.ModuleList(inner), last])

    device = SimulatedDevice(name="sim", capacity_bytes=2**40)
    parcel = slab([Net()], device)
    sizes = [block.num_bytes for block in parcel.blocks]
    arrangement = arrange(parcel, sizes, 512 * KIB, fill=False)
    assert arrangement is not None
    assert arrangement.stays == (0,)
    assert [numbers for _, numbers in arrangement.layers] == [(1,), (2,), (3,), (4,), (5,)]


class Block(torch.nn.Module):
    """A layer of 256 KiB in a list of its own, beside so many that are in none."""

    def __init__(self, beside: int) -> None:
        super().__init__()
        linear = [torch.nn.Linear(256, 256, bias=False) for _ in range(beside + 1)]
        self.inner = torch.nn.Sequential(linear.pop())
        for number, one in enumerate(linear):
            self.add_module(f"beside_{number}", one)


def arranged(net: torch.nn.Module, room_bytes: int) -> tuple[list[int], list[tuple[int, ...]]] | None:
    """What stays, and what each layer brings: blocks, numbered in the order of the layers."""
    parcel = slab([net], SimulatedDevice(name="sim", capacity_bytes=2**40))
    found = arrange(parcel, [block.num_bytes for block in parcel.blocks], room_bytes, fill=False)
    return found and (list(found.stays), [numbers for _, numbers in found.layers])


def test_layers_of_more_than_half_the_room_come_one_at_a_time() -> None:
    """Four layers of 256 KiB that have nothing in them, or three of 768 with a list within each."""
    plain = torch.nn.Sequential(*(torch.nn.Linear(256, 256, bias=False) for _ in range(4)))
    for room in (300 * KIB, 256 * KIB):
        assert arranged(plain, room) == ([], [(0,), (1,), (2,), (3,)])
    assert arranged(plain, 256 * KIB - 1) is None
    blocks = torch.nn.ModuleList([Block(beside=2) for _ in range(3)])
    assert arranged(blocks, 1000 * KIB) == ([], [(0, 1, 2), (3, 4, 5), (6, 7, 8)])
    assert arranged(blocks, 768 * KIB) == ([], [(0, 1, 2), (3, 4, 5), (6, 7, 8)])
    assert arranged(blocks, 768 * KIB - 1) is None
    assert arranged(blocks, 1536 * KIB) == ([], [(0, 1, 2), (3, 4, 5), (6, 7, 8)])


def test_no_layer_is_larger_than_it_has_to_be() -> None:
    """A list of two lists beside 256 KiB: as a whole a list has no room, its layers of 768 KiB have."""
    both = torch.nn.ModuleList([torch.nn.ModuleList([Block(beside=2)]) for _ in range(2)])
    both[0].extend([torch.nn.Linear(256, 256, bias=False)])
    net = torch.nn.ModuleDict({"first": torch.nn.Linear(256, 256, bias=False), "both": both})
    assert arranged(net, 1024 * KIB) == ([0], [(1, 2, 3), (4,), (5, 6, 7)])
    assert arranged(net, 1024 * KIB - 1) is None


def test_not_even_one_layer_is_refused_with_the_arithmetic() -> None:
    cache, device = cache_of(200 * KIB)
    with pytest.raises(ModelDoesNotFit, match=r"4\.0 MiB more on sim: 200\.0 KiB are free"):
        call(cache, "a")
    assert device.allocated_bytes == 0
    cache, device = cache_of(2 * MIB, headroom_bytes=2 * MIB - 200 * KIB)
    with pytest.raises(ModelDoesNotFit, match=r"not even one layer at a time.* 200\.0 KiB are free"):
        call(cache, "a")
    assert device.allocated_bytes == 0


def test_an_error_in_mid_call_leaves_nothing_behind() -> None:
    cache, device = cache_of(2 * MIB)
    expected = call(cache, "a")
    for nth in range(1, 17):
        device.num_allocations, device.fail_at = 0, nth
        with pytest.raises(OutOfMemory):
            call(cache, "a")
        assert device.allocated_bytes == 0
    device.fail_at = None
    assert call(cache, "a") == expected


def test_models_that_cannot_be_taken_apart_are_not_offloaded() -> None:
    class Plain:
        modality_in = modality_out = "text"
        size_bytes = 7

        def load(self, device: str) -> None:
            """Nothing to do."""

        def invoke(self, inputs: Any, seeds: Any) -> Any:
            return inputs

    cache = ModelCache(SimulatedDevice(name="sim", capacity_bytes=10), lambda name: Plain())
    with cache.lease("a", 1):
        pass
    assert not cache.offload("a")
    assert not cache.offload("unknown")


def test_a_real_pipeline_gives_the_same_bits_layer_by_layer(tmp_path: Path) -> None:
    from panic.models import registry
    from tests import tiny

    folder = tiny.build_stable_diffusion(tmp_path / "sd")
    models = {"it": {"base": f"local:{folder}", "steps": 2, "width": 64, "height": 64}}

    def draw(capacity: int) -> tuple[list[bytes], ModelCache, SimulatedDevice]:
        device = SimulatedDevice(name="sim", capacity_bytes=capacity)
        cache = ModelCache(device, lambda name: registry.build(registry.resolve(name, models)))
        with cache.lease("it", 2) as model:
            pictures = model.invoke(["a dog", "a circle"], [1, 2])
        return [picture.tobytes() for picture in pictures], cache, device

    expected, roomy, _ = draw(2**33)
    budget = round(0.9 * held_bytes(roomy)["it"])
    found, cache, device = draw(budget)
    assert found == expected
    assert cache.resident == frozenset()
    assert device.peak_bytes <= budget
    assert device.allocated_bytes == 0
