"""The worker of an extraction, and models called with a little to see whether they can be.

try_out({"it": spec}, "cpu")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from PIL import Image

from panic.devices.device import open_device
from panic.devices.shared import WORTH_SHARING, share_weights
from panic.engine.calls import FATAL, Call, CallResult, Worker
from panic.engine.contents import Rejected
from panic.engine.memory import MemorySettings
from panic.engine.process_worker import ProcessWorker
from panic.engine.serving import LocalWorker, ServerSettings
from panic.engine.workers import Deliver, Workers
from panic.errors import ModelError
from panic.models import registry
from panic.models.protocol import Modality, ModelSpec

WAIT_S = 0.2
NEVER = FATAL.keys() - {"memory"}
"""What ends the trial at once: another input would not help, as it may where memory was short."""


def start_workers(specs: Mapping[str, ModelSpec], devices: Sequence[str], deliver: Deliver) -> list[Worker]:
    """A worker on each device; several share main memory, and the weights there that are large."""
    number = len(devices)
    large = [name for name, spec in specs.items() if number > 1 and _weight_bytes(spec) >= WORTH_SHARING]
    settings = ServerSettings(
        device=devices[0],
        specs=dict(specs),
        memory=MemorySettings(num_workers=number),
        weights=share_weights(large, number),
    )
    return [start_worker(replace(settings, device=device), deliver) for device in devices]


def _weight_bytes(spec: ModelSpec) -> int:
    try:
        return registry.size_bytes(spec)
    except ModelError:  # a class of a user's says it only when it is constructed
        return 0


def start_worker(settings: ServerSettings, deliver: Deliver) -> Worker:
    """A thread of this process for the CPU; a process for a GPU, and for users' files, which may end it."""
    specs, device = settings.specs, settings.device
    runs_users_code = any(spec.source.startswith("python:") for spec in specs.values())
    if open_device(device).kind in ("cpu", "sim") and not runs_users_code:
        return LocalWorker(settings, registry.build, deliver)
    return ProcessWorker(settings, deliver)


def try_out(
    specs: Mapping[str, ModelSpec], device: str, inputs: Mapping[str, Sequence[Any]] | None = None
) -> None:
    """Load each model and call it with some inputs, one at a time.

    inputs: by modality; without any of a model's own it is called with one small text or image.

    Raises ModelError for one that cannot be called, or that has nothing for any of the inputs.
    """
    with closing(Workers(lambda deliver: start_workers(specs, [device], deliver))) as workers:
        for name, spec in specs.items():
            given = [one for modality in spec.modalities_in for one in (inputs or {}).get(modality, ())]
            small = "a" if Modality.TEXT in spec.modalities_in else Image.new("RGB", (64, 64), "grey")
            results = [_called(workers, name, spec, one) for one in given or [small]]
            errors = [result.error for result in results if result.error is not None]
            if len(errors) == len(results):
                raise ModelError(errors[0].message, hint=errors[0].hint)
            outputs = [output for result in results for output in result.outputs]
            rejected = [output.reason for output in outputs if isinstance(output, Rejected)]
            if given and rejected and len(errors) + len(rejected) == len(given):
                raise ModelError(rejected[0], hint=f"So it is with all of {len(given)} that were tried.")


def _called(workers: Workers, name: str, spec: ModelSpec, item: Any) -> CallResult:
    """What comes of one call. Raises the error of a model that cannot be called at all."""
    bucketing = registry.bucketing(spec)
    bucket = bucketing(item) if bucketing else 0
    call = Call(model=name, batch_size=1, inputs=[item], seeds=[0], bucket=bucket)
    workers.submit(call, workers.seats[0])
    result = None
    while not isinstance(result, CallResult):
        workers.check()
        result = workers.next(WAIT_S)
    if result.error is not None and result.error.kind in NEVER:
        raise ModelError(result.error.message, hint=result.error.hint)
    return result
