"""Is the cache as fast as the bus? Copy rates, swaps, overlap, out of memory, loops of two and three models.

Random weights in real sizes, built from configs: an SDXL-size UNet (2.6 B parameters), a transformer of 4 B,
a vision-language model of 2 B. Needs torch with CUDA, diffusers and transformers, 24 GB on the GPU and
40 GB of main memory; downloads nothing. Weights are written to and read from --folder.

    python -m benchmarks.gpu.cache                # some minutes; figures to results/gpu_cache.json
    python -m benchmarks.gpu.cache --rehearse     # in miniature, on a simulated device; keeps no figures

Ends with 1 if a goal is missed. A rehearsal has goals for bytes only: a CPU's seconds say nothing of a GPU's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu.cache_parts.bench import GB, Bench
from benchmarks.gpu.cache_parts.copies import overlap, rates, swap
from benchmarks.gpu.cache_parts.loops import loops
from benchmarks.gpu.cache_parts.nets import BUILDERS
from benchmarks.gpu.cache_parts.pressure import back_off, recovery
from panic.devices.device import open_device
from panic.devices.simulated import SimulatedDevice


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rehearse", action="store_true", help="in miniature, without a GPU")
    parser.add_argument("--folder", type=Path, help="for weights, 18 GB; by default a temporary one")
    arguments = parser.parse_args()
    if arguments.rehearse:
        torch.set_num_threads(1)  # else small nets on a busy machine wait for each other's threads
        device = open_device("sim:64MiB")
        assert isinstance(device, SimulatedDevice)
        device.rate_bytes_per_s = 0.5 * GB
    elif torch.cuda.is_available():
        device = open_device("cuda")
    else:
        print("no CUDA device: nothing was measured", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        bench = Bench(device=device, rehearse=arguments.rehearse, folder=Path(folder))
        rates(bench)
        bench.clean()
        for name in BUILDERS:
            swap(bench, name)
        overlap(bench, "unet", "captioner")
        recovery(bench, "captioner", "unet")
        bench.nets.clear()
        back_off(bench, "captioner")
        loops(bench)
    for goal in bench.missed:
        print(f"missed: {goal}", file=sys.stderr)
    return 1 if bench.missed else 0


if __name__ == "__main__":
    sys.exit(main())
