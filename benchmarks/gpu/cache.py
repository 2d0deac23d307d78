"""Is the cache as fast as the bus? Copy rates, swaps, overlap, out of memory, and a loop of two models.

Random weights in real sizes, built from configs: an SDXL-size UNet (2.6 B parameters), a transformer of 4 B,
a vision-language model of 2 B. Needs torch with CUDA, diffusers and transformers, 24 GB on the GPU and
40 GB of main memory; downloads nothing. Weights are written to and read from --folder.

    python -m benchmarks.gpu.cache                # some minutes; figures to results/gpu_cache.json
    python -m benchmarks.gpu.cache --rehearse     # in miniature, without a GPU; keeps no figures
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_model

from benchmarks.gpu.nets import BUILDERS, Net, synchronise
from benchmarks.record import record
from panic.devices.cache import ModelCache
from panic.devices.device import Device, is_out_of_memory, open_device
from panic.devices.parcels import slab
from panic.devices.simulated import SimulatedDevice

GB = 10**9
RATE_GOAL = 0.8
"""A swap reaches this share of the measured pinned rate."""
LOOP_GOAL = 1.10
"""A loop takes at most this much of its computing time where transfers can hide."""


def seconds(action: Callable[[], Any], device: Device, times: int = 3) -> float:
    """The shortest of some runs, everything on the device included."""
    taken = []
    for _ in range(times):
        synchronise(device.torch_name)
        started = time.perf_counter()
        action()
        synchronise(device.torch_name)
        taken.append(time.perf_counter() - started)
    return min(taken)


def clean(device: Device) -> None:
    gc.collect()
    if device.torch_name.startswith("cuda"):
        torch.cuda.empty_cache()


class Bench:
    """Models, a device, a folder, and where the figures go."""

    def __init__(self, device: Device, rehearse: bool, folder: Path) -> None:
        self.device, self.rehearse, self.folder = device, rehearse, folder
        self.nets: dict[str, Net] = {}
        self.pinned_rate = 0.0

    def net(self, name: str) -> Net:
        if name not in self.nets:
            self.nets[name] = Net(name, self.rehearse, self.device.torch_name)
            clean(self.device)
        return self.nets[name]

    def keep(self, name: str, value: float, **fields: Any) -> None:
        print(f"{name:<45} {value:10.4g} {fields}")
        if not self.rehearse:
            record(f"gpu_cache.{name}", value, file="gpu_cache", **fields)

    # 1. The bus

    def rates(self) -> None:
        """Host to device, one large buffer: page-locked by torch (the limit), by a slab, pageable."""
        num_bytes = 2**24 if self.rehearse else 2**31
        on_gpu = not self.rehearse
        target = torch.empty(num_bytes, dtype=torch.uint8, device=self.device.torch_name)
        source = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=on_gpu)
        limit = num_bytes / seconds(lambda: target.copy_(source, non_blocking=True), self.device)
        pageable = torch.empty(num_bytes, dtype=torch.uint8).fill_(1)
        slow = num_bytes / seconds(lambda: target.copy_(pageable, non_blocking=True), self.device)
        self.pinned_rate = limit
        self.keep("rate.pinned", limit / GB, unit="GB/s")
        self.keep("rate.pageable", slow / GB, unit="GB/s", baseline=limit / GB, ratio=slow / limit)

    # 2. Swaps

    def swaps(self, name: str) -> None:
        """Bring one model onto the empty device: from its slab, by `.to()`, from a file."""
        net = self.net(name)
        file = self.folder / f"{name}.safetensors"
        save_model(net.net, str(file))

        def by_to() -> None:
            net.net.to(self.device.torch_name)
            net.net.to("cpu")

        def from_disk() -> None:
            for key, tensor in load_file(str(file)).items():
                on_device[key] = tensor.to(self.device.torch_name)

        on_device: dict[str, Any] = {}
        moved = seconds(by_to, self.device)
        read = seconds(from_disk, self.device)
        on_device.clear()
        clean(self.device)
        started = time.perf_counter()
        parcel = slab(net.weight_modules(), self.device)
        self.keep(f"pin.{name}", time.perf_counter() - started, unit="s")

        def from_slab() -> None:
            for block in parcel.blocks:
                block.allocate()
            for block in parcel.blocks:
                block.fill()
            synchronise(self.device.torch_name)
            for block in parcel.blocks:
                block.bind()
            for block in parcel.blocks:
                block.drop()

        ours = seconds(from_slab, self.device)
        rate = parcel.host_bytes / ours
        self.keep(
            f"swap.{name}", ours, unit="s", baseline=moved, ratio=moved / ours, limit=None,
            by_to_s=moved, from_disk_s=read, rate_gb_s=rate / GB, share_of_pinned=rate / self.pinned_rate,
            goal_share=RATE_GOAL,
        )  # fmt: skip
        del self.nets[name]
        clean(self.device)

    # 3. Copying while computing

    def cache(self, num_bytes: float, **options: Any) -> ModelCache:
        """A cache that may use that many bytes of what is free."""
        fraction = 1 - (self.device.free_bytes() - num_bytes) / self.device.total_bytes()
        return ModelCache(self.device, self.net, memory_fraction=min(1.0, fraction), **options)

    def overlap(self, first: str, second: str) -> None:
        """(computing + copying - both at once) over the shorter of the two: 1 is perfect."""
        one, other = self.net(first), self.net(second)
        cache = self.cache(1.5 * (one.size_bytes + other.size_bytes) + 4 * GB)
        for name in (first, second):
            with cache.lease(name, 1) as model:
                model.invoke([0])
        calls = 1
        with cache.lease(first, 1) as model:
            compute = seconds(lambda: model.invoke([0] * calls), self.device)
            copy = other.size_bytes / self.pinned_rate
            if not self.rehearse:
                calls = max(1, round(1.5 * copy / compute))
            compute = seconds(lambda: model.invoke([0] * calls), self.device)
        cache.evict(second)

        def both() -> None:
            cache.evict(second)
            with cache.lease(first, 1, [second, first]) as model:
                model.invoke([0] * calls)
            with cache.lease(second, 1):
                pass

        def alone() -> None:
            cache.evict(second)
            with cache.lease(second, 1):
                pass

        copy = seconds(alone, self.device)
        together = seconds(both, self.device)
        efficiency = (compute + copy - together) / min(compute, copy)
        self.keep(
            "overlap.efficiency", efficiency, unit="share", compute_s=compute, copy_s=copy, both_s=together,
            prefetch_hits=cache.stats.prefetch_hits,
        )  # fmt: skip
        cache.close()
        clean(self.device)

    # 4. Out of memory

    def out_of_memory(self, name: str, idle: str) -> None:
        """Seconds from an allocation that finds no room to the next result, everything idle evicted."""
        if self.rehearse:
            return
        cache = self.cache(1e15)
        for model_name in (idle, name):
            with cache.lease(model_name, 1) as model:
                model.invoke([0])
        started, failed = time.perf_counter(), False
        try:
            with cache.lease(name, 1):
                torch.empty(self.device.total_bytes(), dtype=torch.uint8, device=self.device.torch_name)
        except torch.OutOfMemoryError as error:
            failed = is_out_of_memory(error)
        num_evicted = cache.evict_idle()
        with cache.lease(name, 1) as model:
            model.invoke([0])
        taken = time.perf_counter() - started
        assert failed
        self.keep("out_of_memory.recovery", taken, unit="s", num_evicted=num_evicted)
        cache.close()
        clean(self.device)

    # 5. A loop of two models

    def loop(self, first: str, second: str, calls: int, num_steps: int = 12) -> None:
        """Seconds per step with room for one model and a prefetch slot, and for one model only."""
        nets = [self.net(first), self.net(second)]
        order = [first, second]
        working = 2 * GB if not self.rehearse else 0
        largest, total = max(n.size_bytes for n in nets), sum(n.size_bytes for n in nets)
        compute = by_to = 0.0
        for net in nets:  # moved by hand, as without a cache: the computing alone, and with `.to()`
            by_to += seconds(lambda net=net: (net.load(self.device.torch_name), net.load("cpu")), self.device)
            net.load(self.device.torch_name)
            net.invoke([0])
            compute += seconds(lambda net=net: net.invoke([0] * calls), self.device)
            net.load("cpu")
            clean(self.device)
        compute, by_to = compute / 2, compute / 2 + by_to / 2
        by_disk = compute + sum(
            seconds(lambda name=name: self.read(name), self.device, times=1) for name in order
        ) / 2  # fmt: skip
        clean(self.device)
        for room, num_bytes in {"with_slot": 1.02 * total, "without_slot": 1.02 * largest}.items():
            cache = self.cache(num_bytes + working)
            for position in range(2 * num_steps):
                if position == num_steps:
                    synchronise(self.device.torch_name)
                    started = time.perf_counter()
                name, other = order[position % 2], order[1 - position % 2]
                with cache.lease(name, 1, [other, name]) as model:
                    model.invoke([0] * calls)
            ours = (time.perf_counter() - started) / num_steps
            self.keep(
                f"loop.{room}", ours, unit="s/step", baseline=by_to, ratio=by_to / ours, compute_s=compute,
                over_compute=ours / compute, goal_over_compute=LOOP_GOAL if room == "with_slot" else None,
                no_cache_s=by_disk, to_cpu_s=by_to, calls_per_step=calls, stall_s=cache.stats.stall_s,
                loaded_gb=cache.stats.loaded_bytes / GB,
            )  # fmt: skip
            cache.close()
            clean(self.device)

    def read(self, name: str) -> None:
        """What a program without a cache does before a step: weights from the disk to the device."""
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            save_model(self.net(name).net, str(file))
        tensors = {key: tensor.to(self.device.torch_name) for key, tensor in load_file(str(file)).items()}
        tensors.clear()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rehearse", action="store_true", help="in miniature, without a GPU")
    parser.add_argument("--folder", type=Path, help="for weights, 15 GB; by default a temporary one")
    parser.add_argument("--calls", type=int, default=8, help="calls of a model per step of the loop")
    arguments = parser.parse_args()
    if arguments.rehearse:
        device: Device = SimulatedDevice(name="sim", capacity_bytes=2**30, follows_real_time=True)
    elif torch.cuda.is_available():
        device = open_device("cuda")
    else:
        print("no CUDA device: nothing was measured", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        bench = Bench(device, arguments.rehearse, Path(folder))
        bench.rates()
        clean(device)
        for name in BUILDERS:
            bench.swaps(name)
            clean(device)
        bench.overlap("unet", "captioner")
        bench.out_of_memory("captioner", "unet")
        bench.nets.clear()
        bench.loop("unet", "captioner", 1 if arguments.rehearse else arguments.calls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
