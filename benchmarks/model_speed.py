"""Load time, speed per batch size and peak memory of one model, in a process of its own, as JSON.

    python -m benchmarks.model_speed PocketDiffusion
    python -m benchmarks.model_speed local:FOLDER '{"steps": 4}'

Texts and pictures are made up; every batch size is called until two seconds have passed. Memory on the CPU
is what the process grew by at its peak, imports included; on a GPU what torch allocated there.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np
from PIL import Image

from panic.devices.device import open_device
from panic.models import registry
from panic.models.protocol import Modality

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
MEASURE_S, SLOWEST_CALL_S = 2.0, 30.0
COLOURS = ("red", "green", "blue", "yellow", "purple")


def measure(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """{device, batch_size, load_s, invocations_per_s, peak_mb}, the last two by batch size."""
    device = open_device("auto")
    kind = device.kind.split()[0]
    before = _peak_mb(kind)
    variants = {"it": {"base": name, **parameters}}
    spec = registry.resolve("it" if parameters else name, variants if parameters else {}, device_kind=kind)
    start = time.perf_counter()
    model = registry.build(spec)
    model.load(device.torch_name)
    load_s = time.perf_counter() - start
    takes_text = Modality.TEXT in spec.modalities_in
    speed, peak = {}, {}
    for size in BATCH_SIZES:
        inputs: list[Any] = texts(size) if takes_text else pictures(size)
        first = _call_s(model, inputs)
        times = [_call_s(model, inputs)]
        while sum(times) < MEASURE_S:
            times.append(_call_s(model, inputs))
        speed[size] = size / float(np.median(times))
        peak[size] = _peak_mb(kind) - before
        if first > SLOWEST_CALL_S / 2:  # the next one takes twice as long
            break
    return {
        "device": device.kind,
        "batch_size": spec.batch_size,
        "dtype": spec.dtype,
        "load_s": load_s,
        "invocations_per_s": speed,
        "peak_mb": peak,
    }


def texts(count: int) -> list[str]:
    return [f"a {COLOURS[n % 5]} circle above {n} {COLOURS[n % 3]} squares" for n in range(count)]


def pictures(count: int) -> list[Image.Image]:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((64, 64)) for pixels in coarse]


def _call_s(model: Any, inputs: list[Any]) -> float:
    start = time.perf_counter()
    model.invoke(inputs, list(range(len(inputs))))  # returns texts, pictures or arrays: the device is done
    return time.perf_counter() - start


def _peak_mb(kind: str) -> float:
    if kind == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e3 if sys.platform == "linux" else peak / 1e6


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})))
