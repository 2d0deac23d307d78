"""Real modules as slabs: the same results and the same bytes after any number of drops and restores."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panic.devices.cache import ModelCache
from panic.devices.parcels import (
    CannotFlatten,
    Parcel,
    _aligned,
    _contiguous_stride,
    _slab_stride,
    cut,
    pack,
    slab,
)
from panic.devices.simulated import SimulatedDevice
from panic.models import registry
from tests import tiny


def device() -> SimulatedDevice:
    return SimulatedDevice(name="sim", capacity_bytes=2**40)


def bring(parcel: Parcel) -> None:
    for block in parcel.blocks:
        block.allocate()
        block.fill()
        block.bind()


def module(channels_last: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    made = torch.nn.Sequential(
        torch.nn.Conv2d(3, 40, 3), torch.nn.BatchNorm2d(40), torch.nn.Flatten(), torch.nn.Linear(40 * 36, 300)
    ).eval()
    return made.to(memory_format=torch.channels_last) if channels_last else made


@pytest.mark.parametrize("channels_last", [False, True])
def test_results_and_strides_stay_through_drops_and_restores(channels_last: bool) -> None:
    net, pictures = module(channels_last), torch.randn(2, 3, 8, 8)
    before = {name: (tensor.stride(), tensor.clone()) for name, tensor in net.state_dict().items()}
    expected = net(pictures)
    parcel = slab([net], device())
    assert len(parcel.blocks) > 2
    for _ in range(3):
        bring(parcel)
        assert torch.equal(net(pictures), expected)
        for block in parcel.blocks:
            block.drop()
        assert torch.equal(net(pictures), expected)
    for name, tensor in net.state_dict().items():
        assert tensor.stride() == before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_a_bound_block_is_other_memory_than_the_slab_and_a_dropped_one_is_given_back() -> None:
    net = module()
    parcel = slab([net], device())
    on_host = net[3].weight.data_ptr()
    bring(parcel)
    assert net[3].weight.data_ptr() != on_host
    buffer = weakref.ref(parcel.blocks[-1].buffer)
    for block in parcel.blocks:
        block.drop()
    assert net[3].weight.data_ptr() == on_host
    gc.collect()
    assert buffer() is None


def test_the_slab_is_exactly_sized_and_holds_everything() -> None:
    net = module()
    parcel = slab([net], device())
    assert {tensor.untyped_storage().nbytes() for tensor in net.state_dict().values()} == {parcel.host_bytes}
    exact = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    assert exact <= parcel.host_bytes < exact + 256 * len(net.state_dict())
    assert sum(block.num_bytes for block in parcel.blocks) == parcel.host_bytes


def test_shared_tensors_stay_shared() -> None:
    first, second, third = (torch.nn.Linear(64, 64) for _ in range(3))
    second.weight = first.weight
    third.weight = torch.nn.Parameter(first.weight.data)  # another object, the same memory
    parcel = slab([first, second, third], device())
    assert parcel.host_bytes == 64 * 64 * 4 + 3 * 64 * 4
    bring(parcel)
    assert second.weight is first.weight
    assert third.weight.data_ptr() == first.weight.data_ptr()


def test_a_tensor_that_is_a_view_with_gaps_becomes_a_plain_one() -> None:
    net = torch.nn.Linear(8, 8)
    net.weight.data = torch.arange(256.0).reshape(16, 16)[::2, ::2]
    expected = net.weight.data.clone()
    bring(slab([net], device()))
    assert torch.equal(net.weight, expected)
    assert net.weight.is_contiguous()


def test_empty_and_scalar_tensors() -> None:
    net = torch.nn.BatchNorm1d(3)
    net.register_buffer("nothing", torch.empty(0, 4))
    bring(slab([net], device()))
    assert net.nothing.shape == (0, 4)
    assert net.num_batches_tracked == 0


def test_special_tensors_are_refused() -> None:
    net = torch.nn.Linear(2, 2)
    net.weight = Quantised(net.weight.data)
    with pytest.raises(CannotFlatten, match="Quantised"):
        slab([net], device())
    with pytest.raises(CannotFlatten, match="meta"):
        slab([torch.nn.Linear(2, 2, device="meta")], device())


@given(st.lists(st.integers(0, 3000), max_size=30), st.integers(256, 4096))
def test_blocks_are_full_but_never_split_a_tensor(sizes: list[int], block_bytes: int) -> None:
    ranges = cut(sizes, block_bytes)
    assert [number for start, end in ranges for number in range(start, end)] == list(range(len(sizes)))
    aligned = [-(-size // 256) * 256 for size in sizes]
    for start, end in ranges:
        assert sum(aligned[start:end]) <= block_bytes or end - start == 1
        if end < len(sizes):
            assert sum(aligned[start : end + 1]) > block_bytes


def test_a_buffer_goes_with_its_parcel() -> None:
    """Page-locked memory is unlocked then."""
    told: list[str] = []
    parcel = slab([module()], device())
    weakref.finalize(parcel.buffer, told.append, "gone")
    del parcel
    gc.collect()
    assert told == ["gone"]


def test_a_second_instance_becomes_views_of_the_first_ones_buffer() -> None:
    first, second, pictures = module(), module(), torch.randn(2, 3, 8, 8)
    expected = first(pictures)
    parcel = slab([first], device())
    shared = slab([second], device(), parcel.buffer)
    assert shared.buffer is parcel.buffer
    assert second[3].weight.data_ptr() == first[3].weight.data_ptr()
    bring(shared)
    assert second[3].weight.data_ptr() != first[3].weight.data_ptr()
    assert torch.equal(second(pictures), expected)
    assert torch.equal(first(pictures), expected)
    with torch.no_grad():
        third = module()
        third[3].bias[7] += 1
    assert slab([third], device(), parcel.buffer).buffer is not parcel.buffer
    assert slab([torch.nn.Linear(3, 3)], device(), parcel.buffer).buffer is not parcel.buffer


def test_a_module_without_weights_is_an_empty_parcel() -> None:
    assert slab([torch.nn.ReLU()], device()).blocks == []


KINDS = {
    "stable-diffusion": ({"steps": 2, "width": 64, "height": 64}, ["a red circle", "a dog"]),
    "blip": ({"max_new_tokens": 6}, None),
}


def results(name: str, outputs: list[Any]) -> list[Any]:
    return [output.tobytes() if hasattr(output, "tobytes") else output for output in outputs]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_real_pipeline_gives_the_same_bits_from_a_slab(tmp_path: Path, kind: str) -> None:
    """Loaded plainly, against moved in blocks, evicted in part, evicted as a whole, and prefetched."""
    from PIL import Image

    parameters, inputs = KINDS[kind]
    inputs = inputs or [
        Image.effect_mandelbrot((48, 48), (-2, -1, 1, 1), 20 + n).convert("RGB") for n in (0, 9)
    ]
    tiny.BUILDERS[kind](tmp_path / kind)
    models = {"it": {"base": f"local:{tmp_path / kind}", **parameters}}

    def build(name: str) -> Any:
        return registry.build(registry.resolve(name, models))

    plain = build("it")
    plain.load("cpu")
    expected = results(kind, plain.invoke(inputs, [1, 2]))
    cache = ModelCache(SimulatedDevice(name="sim", capacity_bytes=2**33, rate_bytes_per_s=1e9), build)
    for drop in (0, 1, 10**12):
        with cache.lease("it", 2) as model:
            assert results(kind, model.invoke(inputs, [1, 2])) == expected
        if drop:
            cache._residency.drop("it", drop, "test")
    assert cache.stats.builds == 1
    assert cache.stats.loads == 2
    size = pack(build("it"), device()).host_bytes
    assert cache.stats.loaded_bytes < 2 * size


class Quantised(torch.nn.Parameter):
    """A special tensor, as quantisation libraries have them."""


class QuantisedModel:
    """Its weights cannot be flattened; moved back to main memory only if it is not `stubborn`."""

    modality_in = modality_out = "text"
    size_bytes = 64

    def __init__(self, stubborn: bool) -> None:
        self.net = torch.nn.Linear(4, 4, bias=False)
        self.net.weight = Quantised(self.net.weight.data)
        self.stubborn = stubborn
        self.moves: list[str] = []

    def weight_modules(self) -> list[Any]:
        return [self.net]

    def load(self, device: str) -> None:
        if self.stubborn and self.moves and device == "cpu":
            raise ValueError("`.to` is not supported for 4-bit models")
        self.moves.append(device)

    def invoke(self, inputs: Any, seeds: Any) -> Any:
        return inputs


@dataclass(slots=True)
class Gpu(SimulatedDevice):
    """A simulated device whose models believe that it is a GPU."""

    torch_name: str = "cuda:9"


@pytest.mark.parametrize("stubborn", [False, True])
def test_quantised_modules_move_as_a_whole(stubborn: bool) -> None:
    """One that cannot be moved back is let go of, with its memory, and read again when it is needed."""
    gpu = Gpu(name="sim", capacity_bytes=100)
    built: list[QuantisedModel] = []

    def build(name: str) -> QuantisedModel:
        built.append(QuantisedModel(stubborn))
        return built[-1]

    cache = ModelCache(gpu, build)
    for name in "aba":
        with cache.lease(name, 1, ["b", "a"] if name == "a" else ["a", "b"]):
            assert gpu.allocated_bytes == 64
    assert built[0].moves == (["cpu", "cuda:9"] if stubborn else ["cpu", "cuda:9", "cpu", "cuda:9"])
    assert len(built) == (3 if stubborn else 2)
    gone = weakref.ref(built.pop(0))
    cache.close()
    assert gpu.allocated_bytes == 0
    gc.collect()
    assert gone() is None


def test_models_without_modules_move_as_a_whole() -> None:
    class Plain:
        modality_in = modality_out = "text"
        size_bytes = 7
        loaded_onto = ""

        def load(self, device: str) -> None:
            self.loaded_onto = device

        def invoke(self, inputs: Any, seeds: Any) -> Any:
            return inputs

    model = Plain()
    parcel = pack(model, device())
    assert (parcel.whole, parcel.keeps_host, [block.num_bytes for block in parcel.blocks]) == (
        True,
        False,
        [7],
    )
    bring(parcel)
    assert model.loaded_onto == "cpu"


def test_of_a_model_that_moves_as_a_whole_a_gpu_leaves_the_weights_in_main_memory() -> None:
    """Where it shares main memory they are there once, and count on the device."""
    parcels = [
        pack(QuantisedModel(stubborn=False), one) for one in (Gpu(name="g", capacity_bytes=100), device())
    ]
    assert [(parcel.whole, parcel.keeps_host, parcel.host_bytes) for parcel in parcels] == [
        (True, True, 64), (True, False, 0)
    ]  # fmt: skip
    assert all((parcel.buffer, parcel.modules, parcel.blocks[0].held) == (None, (), ()) for parcel in parcels)


def test_a_buffer_is_page_locked_once_for_a_gpu_if_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's answer is kept; another instance finds the buffer as it is."""
    locked: list[tuple[int, Any, str]] = []
    answers = [False, True]

    def pin(host: Any, owner: Any, name: str) -> bool:
        locked.append((host.numel(), owner, name))
        return answers.pop(0)

    monkeypatch.setattr("panic.devices.cuda.pin", pin)
    gpu = Gpu(name="g", capacity_bytes=2**30)
    slab([module()], device())
    slab([module()], gpu, pinned=False)
    slab([torch.nn.ReLU()], gpu)
    assert locked == [], "no GPU, not wanted, nothing there"
    refused, parcel = (slab([module()], gpu) for _ in range(2))
    assert refused.buffer is not None
    assert parcel.buffer is not None
    assert locked == [(one.host_bytes, one.buffer, "cuda:9") for one in (refused, parcel)]
    assert (refused.buffer.is_pinned, parcel.buffer.is_pinned) == (False, True)
    assert slab([module()], gpu, parcel.buffer).buffer is parcel.buffer
    assert len(locked) == 2


def test_small_models_are_in_blocks_of_64_kib() -> None:
    """Eight tensors of 16 KiB: a 32nd of all is less than the least block, which holds four."""
    layers = torch.nn.Sequential(*(torch.nn.Linear(64, 64, bias=False) for _ in range(8)))
    parcel = slab([layers], SimulatedDevice(name="sim", capacity_bytes=10**6))
    assert [block.num_bytes for block in parcel.blocks] == [2**16, 2**16]


def test_ranges_of_tensors_by_hand() -> None:
    assert cut([256, 256, 512], 512) == [(0, 2), (2, 3)]
    assert cut([1, 1, 1], 512) == [(0, 2), (2, 3)]  # each takes 256
    assert cut([2000, 1, 3000], 512) == [(0, 1), (1, 2), (2, 3)]
    assert cut([0, 0], 512) == [(0, 2)]
    assert cut([], 512) == []


def test_strides_that_a_buffer_keeps() -> None:
    """In whatever order, but without gaps and overlaps."""
    plain = torch.zeros(2, 3, 4)
    assert _slab_stride(plain) == (12, 4, 1)
    assert _slab_stride(plain.permute(2, 0, 1)) == (1, 12, 4)
    assert _slab_stride(plain[:, :, :1]) == (3, 1, 1)
    assert _slab_stride(plain[:, ::2]) == (8, 4, 1)
    assert _slab_stride(torch.zeros(1, 3).expand(2, 3)) == (3, 1)
    assert _slab_stride(plain[:1]) == (12, 4, 1)
    assert _slab_stride(torch.zeros(())) == ()
    assert _contiguous_stride((0, 3)) == (3, 1)
    assert _contiguous_stride((3, 0, 2)) == (2, 2, 1)
    assert [_aligned(num) for num in (0, 1, 256, 257)] == [0, 256, 256, 512]


@pytest.mark.parametrize(
    ("num_tensors", "num_bytes", "block_bytes"),
    [
        (128, 1024, 64 * 1024),  # a 32nd of all is less than the least block
        (2048, 1024, 64 * 1024),
        (2080, 1024, 65 * 1024),
        (1024, 4096, 128 * 1024),
    ],
)
def test_models_are_in_32_blocks_of_64_kib_or_more(
    num_tensors: int, num_bytes: int, block_bytes: int
) -> None:
    layers = torch.nn.Module()
    for number in range(num_tensors):
        layers.register_buffer(f"b{number}", torch.zeros(num_bytes, dtype=torch.uint8))
    parcel = slab([layers], device())
    assert {block.num_bytes for block in parcel.blocks} == {block_bytes}
