"""The bus, models brought over it, and copying while computing."""

from __future__ import annotations

import subprocess
import time

import torch

from benchmarks.gpu.cache_parts.bench import GB, Bench
from benchmarks.gpu.cache_parts.loops import enough_calls
from benchmarks.gpu.cache_parts.nets import synchronise
from panic.devices.cuda import pin
from panic.devices.parcels import slab
from panic.devices.simulated import SimulatedDevice
from tests.devices.paper import evict

RATE_GOAL = 0.8
"""A swap reaches this share of the measured pinned rate."""
LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""GB/s of one PCIe lane in one direction, by generation."""


def rates(bench: Bench) -> None:
    """Host to device, one large buffer: page-locked by torch, by us to the byte, and pageable."""
    num_bytes = 2**24 if bench.rehearse else 2**31
    target = torch.empty(num_bytes, dtype=torch.uint8, device=bench.device.torch_name)
    pageable = torch.empty(num_bytes, dtype=torch.uint8).fill_(1)
    by_torch = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=not bench.rehearse).fill_(1)
    exact = torch.empty(num_bytes, dtype=torch.uint8).fill_(1)
    owner = Owner()
    if not bench.rehearse and not pin(exact, owner, bench.device.torch_name):
        bench.missed.append("rate.slab: main memory cannot be page-locked here")

    def rate(source: torch.Tensor) -> float:
        return num_bytes / bench.seconds(lambda: target.copy_(source, non_blocking=True))

    bench.pinned_rate = rate(by_torch)
    bus = bus_rate() if not bench.rehearse else None
    bench.keep(
        "rate.pinned", bench.pinned_rate / GB, unit="GB/s", bus_gb_s=bus and bus / GB,
        share_of_bus=bus and bench.pinned_rate / bus,
    )  # fmt: skip
    for name, source in {"slab": exact, "pageable": pageable}.items():
        ours = rate(source)
        bench.keep(
            f"rate.{name}", ours / GB, unit="GB/s", baseline=bench.pinned_rate / GB,
            ratio=ours / bench.pinned_rate,
        )  # fmt: skip
    if bench.rehearse:
        assert isinstance(bench.device, SimulatedDevice)
        bench.pinned_rate = bench.device.rate_bytes_per_s


class Owner:
    """What a page-locked buffer belongs to."""


def bus_rate() -> float | None:
    """Bytes/s of the PCIe link at its best, as the driver tells it; None if it does not."""
    asked = "pcie.link.gen.max,pcie.link.width.max"
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"  # its own numbers are not torch's
    query = ["nvidia-smi", "-i", uuid, f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        generation, width = (int(word) for word in told.split(","))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return LANE_GB_S[generation] * width * GB if generation in LANE_GB_S else None


def swap(bench: Bench, name: str) -> None:
    """Bring one model onto the empty device: from its slab, by `.to()`, from a file."""
    net, _ = bench.net(name), bench.file(name)
    moved = bench.seconds(lambda: bench.move(name))
    read_s = bench.seconds(lambda: bench.read(name))
    bench.clean()
    started = time.perf_counter()
    parcel = slab(net.weight_modules(), bench.device)
    bench.keep(f"pin.{name}", time.perf_counter() - started, unit="s")

    def from_slab() -> None:
        for block in parcel.blocks:
            block.allocate()
        for block in parcel.blocks:
            block.fill()
        synchronise(bench.device.torch_name)
        for block in parcel.blocks:
            block.bind()
        for block in parcel.blocks:
            block.drop()

    ours = bench.seconds(from_slab)
    rate = parcel.host_bytes / ours
    bench.keep(
        f"swap.{name}", rate / bench.pinned_rate, unit="share of pinned rate",
        at_least=None if bench.rehearse else RATE_GOAL, baseline=moved, ratio=moved / ours, swap_s=ours,
        by_to_s=moved, from_disk_s=read_s, rate_gb_s=rate / GB,
    )  # fmt: skip
    del bench.nets[name]
    bench.clean()


def overlap(bench: Bench, first: str, second: str) -> None:
    """(computing + copying - both at once) over the shorter of the two: 1 is perfect."""
    calls = enough_calls(bench, [first, second])[first]
    with bench.cache(1.1 * sum(bench.net(name).size_bytes for name in (first, second)) + 4 * GB) as cache:

        def copy() -> None:
            evict(cache, second)
            with cache.lease(second, 1):
                pass

        def both() -> None:
            evict(cache, second)
            bench.call(cache, first, calls, [second, first])
            with cache.lease(second, 1):
                pass

        bench.call(cache, first, calls)
        bench.call(cache, second, 1)
        compute_s = bench.device_seconds(lambda: bench.call(cache, first, calls))
        copy_s = bench.device_seconds(copy)
        both_s = bench.device_seconds(both)
        bench.keep(
            "overlap.efficiency", (compute_s + copy_s - both_s) / min(compute_s, copy_s), unit="share",
            compute_s=compute_s, copy_s=copy_s, both_s=both_s, prefetch_hits=cache.stats.prefetch_hits,
        )  # fmt: skip
