"""Out of memory in a call: seconds until there is a result again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.cache_parts.bench import Bench, taken
from benchmarks.gpu.cache_parts.nets import Net
from panic.devices.device import Device, is_out_of_memory
from panic.engine.calls import Call
from panic.engine.serving import CallServer, ServerSettings
from panic.models.protocol import Modality, ModelSpec


def recovery(bench: Bench, name: str, idle: str) -> None:
    """Seconds from an allocation that finds no room to the next result, everything idle evicted."""
    with bench.cache(bench.device.total_bytes()) as cache:
        for model_name in (idle, name):
            bench.call(cache, model_name, 1)
        started, failed = time.perf_counter(), False
        try:
            with cache.lease(name, 1), taken(bench.device, 2 * bench.device.total_bytes()):
                pass
        except Exception as error:
            failed = is_out_of_memory(error)
        num_evicted = cache.evict_idle()
        bench.call(cache, name, 1)
        taken_s = time.perf_counter() - started
    assert failed
    assert num_evicted == 2
    bench.keep("out_of_memory.recovery", taken_s, unit="s", num_evicted=num_evicted)


class Hungry(Net):
    """Items take so much working memory each that a whole batch has no room."""

    bytes_per_item = 0
    device: Device

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int] = ()) -> list[Any]:
        with taken(self.device, self.bytes_per_item * len(inputs)):
            return super().invoke([0]) * len(inputs)


def back_off(bench: Bench, name: str, batch_size: int = 32) -> None:
    """Seconds from a batch that finds no room to the result of one that does, halved as in an experiment."""

    def build(spec: ModelSpec) -> Hungry:
        model = Hungry(name, bench.rehearse, bench.device.torch_name)
        model.device = server.device
        room = server.device.free_bytes() - model.size_bytes
        model.bytes_per_item = room // (batch_size // 4 + 2)  # a quarter of the batch fits
        return model

    text = Modality.TEXT
    spec = ModelSpec(name=name, base=name, adapter="", modalities_in=(text,), modality_out=text)
    server = CallServer(ServerSettings(device=bench.device.name, specs={name: spec}), build)
    server.load_all()
    sizes, started = [batch_size], time.perf_counter()
    while True:
        call = Call(number=1, model=name, batch_size=sizes[-1], inputs=[0] * sizes[-1], seeds=[0] * sizes[-1])
        result, _ = server.serve(call)
        if result.error is None:
            break
        assert result.error.kind == "memory", result.error
        sizes.append(sizes[-1] // 2)
    taken_s = time.perf_counter() - started
    num_errors = server.cache.stats.out_of_memory
    server.close()
    bench.clean()
    assert sizes[-1] == batch_size // 4, sizes
    bench.keep("out_of_memory.back_off", taken_s, unit="s", batch_sizes=sizes, num_errors=num_errors)
