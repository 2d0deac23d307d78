"""What every device with memory of its own must do, on the simulated one and, with `-m gpu`, on a real one.

Real modules in slabs. On a GPU a model takes 512 MiB and a memory fraction makes it small; on the simulated
device a model takes 4 MiB.

    pytest -m gpu tests/devices/test_contract.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from panic.devices.cache import ModelCache
from panic.devices.device import Device, is_out_of_memory, open_device
from panic.devices.simulated import SimulatedDevice
from panic.errors import ModelDoesNotFit
from tests.devices.paper import held_bytes

MIB = 2**20


class Layers:
    """Some linear layers; a call multiplies its inputs through all of them."""

    modality_in = modality_out = "text"

    def __init__(self, name: str, size_bytes: int) -> None:
        torch.manual_seed(sum(map(ord, name)))
        width = 256
        layers = [torch.nn.Linear(width, width, bias=False) for _ in range(size_bytes // (4 * width * width))]
        self.net = torch.nn.Sequential(*layers).eval()
        self.size_bytes = size_bytes

    def weight_modules(self) -> list[Any]:
        return [self.net]

    def load(self, device: str) -> None:
        self.net.to(device)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int] = ()) -> list[Any]:
        with torch.inference_mode():
            device = next(self.net.parameters()).device
            return list(self.net(torch.stack(list(inputs)).to(device)).cpu())


@dataclass
class Bench:
    """A device, the size of a model that suits it, and a cache in which about `num_fit` models fit."""

    device: Device
    size: int

    def cache(self, num_fit: float, **options: Any) -> ModelCache:
        free = self.device.free_bytes()
        fraction = 1 - (free - num_fit * self.size) / self.device.total_bytes()
        return ModelCache(
            self.device, lambda name: Layers(name, self.size), memory_fraction=fraction, **options
        )


def gpu() -> Device:
    """The first one, with the context and the workspaces that its first kernels take."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    one = torch.ones(256, 256, device="cuda:0")
    (one @ one).sum().item()
    del one
    torch.cuda.empty_cache()
    return open_device("cuda")


@pytest.fixture(params=["sim", pytest.param("cuda", marks=pytest.mark.gpu)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "sim":
        yield Bench(SimulatedDevice(name="sim", capacity_bytes=64 * MIB, rate_bytes_per_s=1e9), 4 * MIB)
        return
    device = gpu()
    yield Bench(device, 512 * MIB)
    torch.cuda.empty_cache()


def call(cache: ModelCache, name: str, upcoming: Sequence[str] = ()) -> list[Any]:
    inputs = [torch.linspace(-1, 1, 256) * number for number in (1, 2)]
    with cache.lease(name, 2, upcoming) as model:
        return [row.tolist() for row in model.invoke(inputs)]


def test_free_bytes_follow_what_is_loaded_and_evicted(bench: Bench) -> None:
    cache = bench.cache(4)
    before = bench.device.free_bytes()
    call(cache, "a")
    taken = before - bench.device.free_bytes()
    assert bench.size <= taken <= 1.2 * bench.size
    cache.evict_idle()
    assert abs(bench.device.free_bytes() - before) <= 0.2 * bench.size


def test_results_stay_the_same_bits_through_partial_evictions(bench: Bench) -> None:
    """Room for 2.5 of three models: parts of them come and go."""
    roomy = bench.cache(4)
    expected = {name: call(roomy, name) for name in "abc"}
    roomy.close()
    cache = bench.cache(2.5)
    for _ in range(4):
        for name in "abc":
            rest = "abc"["abc".index(name) + 1 :] + "abc"[: "abc".index(name) + 1]
            assert call(cache, name, list(rest)) == expected[name]
    assert cache.stats.builds == 3
    assert cache.stats.loaded_bytes < 3 * bench.size + 9 * 0.7 * bench.size
    assert sum(held_bytes(cache).values()) <= 2.6 * bench.size
    cache.close()


def test_a_prefetched_model_gives_the_same_bits(bench: Bench) -> None:
    cache = bench.cache(2.2)
    expected = {name: call(cache, name) for name in "abc"}
    prefetches = cache.stats.prefetches
    for name, following in ("ab", "bc", "ca", "ab"):
        cache.evict_idle()
        call(cache, name, [following, name])
        assert call(cache, following, [name, following]) == expected[following]
    assert cache.stats.prefetches > prefetches
    assert cache.stats.prefetch_hits > 0
    cache.close()


def test_a_cancelled_prefetch_gives_its_memory_back(bench: Bench) -> None:
    cache = bench.cache(3)
    expected = call(cache, "b")
    cache.evict_idle()
    before = bench.device.free_bytes()
    with cache.lease("a", 2, ["b", "a"]):
        pass
    cache.evict_idle()
    assert abs(bench.device.free_bytes() - before) <= 0.2 * bench.size
    assert held_bytes(cache) == {}
    assert call(cache, "b") == expected


def test_what_can_never_fit_is_refused_with_the_arithmetic(bench: Bench) -> None:
    cache = bench.cache(0.01)
    with pytest.raises(ModelDoesNotFit, match="are free"):
        call(cache, "a")
    assert held_bytes(cache) == {}


def test_what_fits_only_in_part_gives_the_same_bits_layer_by_layer(bench: Bench) -> None:
    roomy = bench.cache(2)
    expected = call(roomy, "a")
    roomy.close()
    before = bench.device.free_bytes()
    cache = bench.cache(0.5)
    for _ in range(2):
        assert call(cache, "a") == expected
    assert held_bytes(cache) == {}
    cache.evict_idle()
    assert abs(bench.device.free_bytes() - before) <= 0.2 * bench.size
    cache.close()


@pytest.mark.gpu
def test_working_memory_is_read_from_the_allocator() -> None:
    cache = ModelCache(gpu(), lambda name: Layers(name, 64 * MIB))

    def take(num_bytes: int, batch_size: int) -> None:
        with cache.lease("a", batch_size):
            torch.empty(num_bytes, dtype=torch.uint8, device="cuda")

    take(100 * MIB, 1)
    take(400 * MIB, 4)
    estimate = cache.working.estimate("a", 0, 8)
    assert estimate is not None
    assert 800 * MIB <= estimate <= 900 * MIB
    cache.close()


@pytest.mark.gpu
def test_out_of_memory_in_a_call_leaves_the_cache_usable() -> None:
    device = gpu()
    cache = ModelCache(device, lambda name: Layers(name, 512 * MIB))
    expected = call(cache, "a")
    failed = False
    try:
        with cache.lease("a", 1, ["b", "a"]):
            torch.empty(device.total_bytes() * 2, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        failed = is_out_of_memory(error)
    assert failed
    assert cache.evict_idle() >= 1
    assert call(cache, "a") == expected
    cache.close()


@pytest.mark.gpu
def test_slabs_are_page_locked_exactly_and_unlocked_when_they_go() -> None:
    """The host copy of a prefetched model is pinned; the buffer goes with the parcel."""
    from panic.devices.parcels import slab

    device = gpu()
    parcel = slab(Layers("a", 64 * MIB).weight_modules(), device)
    host: Any = parcel.blocks[0]
    assert host.host.is_pinned()
    assert parcel.host_bytes == 64 * MIB


@pytest.mark.gpu
def test_memory_that_cannot_be_locked_does_no_harm() -> None:
    """A buffer that is locked already is refused; the next kernel must not be blamed for that."""
    from panic.devices.cuda import pin

    class Owner:
        """Something that can be referred to weakly."""

    gpu()
    buffer, owner = torch.empty(MIB, dtype=torch.uint8), Owner()
    assert pin(buffer, owner, "cuda:0")
    assert not pin(buffer, owner, "cuda:0")
    assert torch.ones(4, device="cuda:0").sum().item() == 4
