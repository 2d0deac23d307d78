"""The same contract on a real GPU: `pytest -m gpu`. Needs torch with CUDA, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from panic.devices.cache import ModelCache
from panic.devices.device import Device, open_device
from panic.errors import ModelDoesNotFit

pytestmark = pytest.mark.gpu

MIB = 2**20


class Block:
    """Weights of a given size on the GPU."""

    modality_in = modality_out = "text"

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.weights: Any = None

    def load(self, device: str) -> None:
        import torch

        self.weights = torch.zeros(self.size_bytes, dtype=torch.uint8, device=device)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> Sequence[Any]:
        return inputs


@pytest.fixture
def device() -> Iterator[Device]:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield open_device("cuda")
    torch.cuda.empty_cache()


def test_free_bytes_follow_what_is_loaded_and_evicted(device: Device) -> None:
    cache = ModelCache(device, lambda name: Block(512 * MIB))
    before = device.free_bytes()
    with cache.lease("a", 1):
        assert before - device.free_bytes() >= 512 * MIB
    cache.evict_idle()
    assert abs(device.free_bytes() - before) < 64 * MIB


def test_evicts_until_the_next_model_fits(device: Device) -> None:
    """Under a memory fraction that holds two of three models."""
    cache = ModelCache(device, lambda name: Block(1024 * MIB))
    used = device.total_bytes() - device.free_bytes()
    cache.memory_fraction = (used + 2.5 * 1024 * MIB) / device.total_bytes()
    for name in ("a", "b", "c", "a", "b", "c"):
        with cache.lease(name, 1, ["a", "b", "c"]):
            assert name in cache.resident
            assert len(cache.resident) <= 2
    assert cache.stats.evictions > 0
    cache.evict_idle()


def test_what_can_never_fit_is_refused_with_the_arithmetic(device: Device) -> None:
    cache = ModelCache(device, lambda name: Block(device.total_bytes() * 2))
    with pytest.raises(ModelDoesNotFit, match="GiB"), cache.lease("a", 1):
        pass
