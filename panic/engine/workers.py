"""How many workers call the models at the same time, and the executors they are.

A call of a small model on all cores spends its time waiting between short kernels; several workers with one
thread each, serving different batches, do not. One thread also rounds alike at every place of a batch, more
of them do not (LOG.md has the figures). The first worker of a CPU is a thread
of this process and begins at once; the others are processes, which load the same models meanwhile and join
when they are ready. Results do not depend on how many there are: shapes and threads per worker are pinned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from panic.config import ExperimentConfig
from panic.devices.device import Device
from panic.engine.executor import Executor, LocalExecutor, Result, WorkerSettings
from panic.engine.memory import MemorySettings
from panic.engine.pinning import Shape, num_cores
from panic.engine.plan import Plan, small_bytes
from panic.engine.process_executor import ProcessExecutor
from panic.errors import UsageError
from panic.models import registry

log = logging.getLogger("panic.engine")

MOST = 8
"""Workers that start by themselves: beyond, the driver would have to be measured first."""
PROCESS_BYTES = 500 * 2**20
"""Of a process besides its models: the interpreter, torch, diffusers and transformers take 443 MB."""
WORTH_STARTING = 200
"""Missing invocations per worker; to start a process takes as long as some hundred calls of a tiny model."""


@dataclass(slots=True)
class Seat:
    """A worker as the driver sees it: what is on its device, how many tasks it has, which model it was given
    last and which were foreseen to follow."""

    executor: Executor
    resident: frozenset[str] = frozenset()
    num_tasks: int = 0
    model: str = ""
    upcoming: tuple[str, ...] = ()


def refuse_impossible(config: ExperimentConfig) -> None:
    """Raise UsageError for settings that contradict each other."""
    if config.executor != "local":
        return
    if config.timeout_s is not None:
        raise UsageError("timeout_s needs a process that can be ended", hint="executor: process, or auto")
    if config.workers is not None and config.workers > 1:
        raise UsageError("more than one worker needs processes", hint="executor: process, or auto")


def count_workers(
    plan: Plan, shapes: Mapping[str, Shape], device: Device, num_runs: int, num_missing: int
) -> int:
    """The config's number of workers, or as many as small models on a CPU can keep busy.

    Each has a batch to serve, its threads a core each, and room for the models of its own.

    Args:
        num_runs: runs that have not ended.
        num_missing: invocations that are missing if no run gets stuck.
    """
    config = plan.config
    if config.workers is not None:
        return config.workers
    weights_bytes = small_bytes(plan, device.kind)
    if weights_bytes is None or config.executor == "local":
        return 1
    smallest_batch = min(shapes[name].batch_size for name in plan.generative)
    room = int((device.free_bytes() - config.headroom) * config.memory_fraction)
    limits = (
        num_cores() // _threads(shapes),
        -(-num_runs // smallest_batch),
        num_missing // WORTH_STARTING,
        room // (PROCESS_BYTES + weights_bytes),
        MOST,
    )
    return max(1, min(limits))


def open_executors(
    plan: Plan,
    shapes: Mapping[str, Shape],
    device: Device,
    num_workers: int,
    deliver: Callable[[Result], None],
    memory: MemorySettings,
) -> list[Executor]:
    """One executor per worker: in this process for the CPU; in a child for a GPU, for a time limit, and
    for every worker but the first."""
    config, threads = plan.config, _threads(shapes)
    settings = WorkerSettings(
        device=device.name,
        specs=plan.specs,
        threads=threads,
        headroom_bytes=config.headroom,
        memory_fraction=config.memory_fraction,
        reject_constant_images=config.reject_constant_images,
        memory=replace(memory, num_workers=num_workers),
    )
    if num_workers > 1:
        log.info("%d workers on %s, threads of each: %d", num_workers, device.name, threads)
        if device.kind == "cpu" and num_workers * threads > num_cores():
            log.warning("%d workers with %d threads each share %d cores", num_workers, threads, num_cores())
        if device.kind == "sim":  # a budget of bytes is divided; of a real device all ask what is free
            settings = replace(settings, device=f"sim:{device.total_bytes() // num_workers}")
    in_process = config.executor == "local" or (
        config.executor == "auto" and device.kind in ("cpu", "sim") and config.timeout_s is None
    )
    first: Executor
    if in_process:
        first = LocalExecutor(settings, registry.build, deliver)
    else:
        first = ProcessExecutor(settings, deliver, timeout_s=config.timeout_s)
    others = [
        ProcessExecutor(settings, deliver, timeout_s=config.timeout_s, ahead=True)
        for _ in range(num_workers - 1)
    ]
    return [first, *others]


def _threads(shapes: Mapping[str, Shape]) -> int:
    return max(shape.threads for shape in shapes.values())
