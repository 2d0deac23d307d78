"""Serving calls: what every worker does with a call, and the worker that does it in this process.

Lease the model from the device's cache, pad the batch to its pinned size, invoke, drop the padding.
Copying large inputs (`own_inputs`) and checking and hashing the outputs (`finish`) may happen in a second
thread, while the device is busy with another batch. A model gets copies of images, and copies of what it
gives are kept: it may shrink its inputs in place or draw every image into one buffer, while others still need
what they were given.

    worker = LocalWorker(ServerSettings(device="cpu", specs={...}), build, inbox.put)
    worker.submit(Call(model="blip", batch_size=8, inputs=images, seeds=seeds))
    inbox.get().outputs
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from panic.devices.cache import ModelCache
from panic.devices.device import MainMemory, is_out_of_memory, open_device
from panic.devices.host import HostTier
from panic.devices.main_memory import MainMemoryCache
from panic.devices.shared import SharedWeights
from panic.engine import pinning
from panic.engine.calls import Call, CallError, CallResult, Outcome
from panic.engine.contents import finish
from panic.engine.ledger import Clock, Span
from panic.engine.memory import MemorySettings
from panic.errors import ModelDoesNotFit, ModelMissing, OutputRejected, PanicError
from panic.models import registry
from panic.models.protocol import Model, ModelSpec

log = logging.getLogger("panic.engine")

LARGE_PIXELS = 2**18
"""Of a batch; they are copied in 0.2 ms, or while the model is still at the batch before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What a worker must know to serve calls; picklable.

    hidden: variables of the environment that its process does not get. weights: what workers share.
    fingerprints: what models were when the session began; one that is not any more is not served. digests:
    of files, as far as the driver knows them.
    """

    device: str
    specs: dict[str, ModelSpec]
    threads: int | None = None
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    reject_constant_images: bool = False
    memory: MemorySettings = field(default_factory=MemorySettings)
    hidden: tuple[str, ...] = ()
    weights: SharedWeights | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[tuple[str, int, int], str] = field(default_factory=dict)


class CallServer:
    """Serves calls on one device with the device's model cache. One thread calls `serve`."""

    def __init__(
        self, settings: ServerSettings, build: Callable[[ModelSpec], Model], clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock or Clock("starting")
        pinning.ask_for_steady_kernels()
        registry.learn_digests(settings.digests)
        self.device = open_device(settings.device)
        self._build_spec = build
        self._threads_before: int | None = None
        self.cache = self._open_cache()

    def _open_cache(self) -> ModelCache | MainMemoryCache:
        settings, device = self.settings, self.device
        if isinstance(device, MainMemory):
            weights = settings.weights if device.kind == "cpu" else None
            return MainMemoryCache(
                *(device, self._build, settings.headroom_bytes, settings.memory_fraction, weights)
            )
        return ModelCache(
            device,
            self._build,
            settings.headroom_bytes,
            settings.memory_fraction,
            files=lambda name: registry.files(settings.specs[name]),
            host=HostTier(settings.memory.host_budget(), weights=settings.weights),
            working=settings.memory.working(),
            events=settings.memory.event_log(),
        )

    def _build(self, name: str) -> Model:
        spec = self.settings.specs[name]
        model = self._build_spec(spec)
        if name in self.settings.fingerprints:  # hours may lie between the plan and the first call
            registry.require_unchanged(spec, self.settings.fingerprints[name])
        if self.settings.threads and (torch := sys.modules.get("torch")):
            if self._threads_before is None:
                self._threads_before = torch.get_num_threads()
            torch.set_num_threads(self.settings.threads)
        return model

    def close(self) -> None:
        """Drop all models and give torch its threads back."""
        self.cache.close()
        if self._threads_before is not None:
            sys.modules["torch"].set_num_threads(self._threads_before)

    def load_all(self) -> None:
        """Load the models ahead of their first use; what does not load is told when it is asked for."""
        for name in self.settings.specs:
            with self.clock.of("loading from disk", name):
                try:
                    self.cache.bring(name)
                except Exception:
                    log.debug("%s could not be loaded ahead", name, exc_info=True)

    def serve(
        self,
        call: Call,
        on_invoke: Callable[[], None] = lambda: None,
        inputs: Callable[[], list[Any]] | None = None,
    ) -> tuple[CallResult, list[Any]]:
        """Perform a call; returns the result without outputs, and the raw outputs.

        inputs: waits for the call's `own_inputs`, where they are made meanwhile.
        """
        result = CallResult(number=call.number, device=self.settings.device)
        with self.clock.of("handing over", call.model):
            raw = self._serve(call, result, on_invoke, inputs or partial(own_inputs, call))
        result.spans = self.clock.take()
        return result, raw

    def _serve(
        self,
        call: Call,
        result: CallResult,
        on_invoke: Callable[[], None],
        inputs: Callable[[], list[Any]],
    ) -> list[Any]:
        """Perform a call, with less on the device where it does not fit; returns the raw outputs."""
        raw = self._try(call, result, on_invoke, inputs)
        inputs = partial(own_inputs, call)  # those of the first attempt may have been changed
        # Outside the handler of the first attempt: its traceback would keep the tensors alive.
        if result.error and result.error.kind in ("memory", "unfit") and self.cache.evict_idle():
            result.error = None
            raw = self._try(call, result, on_invoke, inputs)
        is_last_resort = result.error and result.error.kind == "memory" and call.batch_size == 1
        if is_last_resort and self.cache.offload(call.model):
            result.error = None
            raw = self._try(call, result, on_invoke, inputs)
        result.resident = self.cache.resident
        return raw

    def _try(
        self,
        call: Call,
        result: CallResult,
        on_invoke: Callable[[], None],
        inputs: Callable[[], list[Any]],
    ) -> list[Any]:
        try:
            return self._invoke(call, result, on_invoke, inputs())
        except BaseException as error:  # a model that calls sys.exit must not end this thread unheard
            result.error = _call_error(error, loaded=result.started_at > 0)
            if result.error.kind == "memory":
                self.cache.ran_out(call.model)
            return []

    def _invoke(
        self, call: Call, result: CallResult, on_invoke: Callable[[], None], inputs: list[Any]
    ) -> list[Any]:
        count = len(call.inputs)
        missing = call.batch_size - count
        seeds = call.seeds + call.seeds[-1:] * missing
        stats = self.cache.stats
        before = stats.builds, stats.loads
        with ExitStack() as stack:
            with self.clock.of("leasing", call.model):
                lease = self.cache.lease(call.model, call.batch_size, call.upcoming, bucket=call.bucket)
                try:
                    model = stack.enter_context(lease)
                finally:
                    if stats.builds > before[0]:
                        self.clock.rename("loading from disk")
                    elif stats.loads > before[1]:
                        self.clock.rename("moving to the device")
            result.started_at = time.time()
            on_invoke()
            with self.clock.of("calling", call.model):
                start = time.perf_counter()
                outputs = list(model.invoke(inputs, seeds))
                result.duration_s = time.perf_counter() - start
            if missing:
                self.clock.split("padding", missing / call.batch_size)
        if len(outputs) != call.batch_size:
            raise RuntimeError(
                f"{call.model} returned {len(outputs)} outputs for a batch of {call.batch_size} inputs"
            )
        return [_own(item) for item in outputs[:count]]

    def finish(self, call: Call, result: CallResult, raw: Sequence[Any]) -> CallResult:
        """Check and hash raw outputs; may run in another thread than `serve`."""
        if result.error is None:
            modality = self.settings.specs[call.model].modality_out
            reject_constant = self.settings.reject_constant_images
            try:
                result.outputs = [finish(item, modality, reject_constant) for item in raw]
            except Exception as error:
                result.error = _call_error(error, loaded=True)
        return result


def own_inputs(call: Call) -> list[Any]:
    """The inputs of a call, as many as its batch has places, of which the model may change the images."""
    missing = call.batch_size - len(call.inputs)
    return [_own(item) for item in call.inputs + call.inputs[-1:] * missing]


def _own(item: Any) -> Any:
    """An image or array that nobody else will change; 2 us at 64 px, 0.4 ms at 1024 px."""
    return item.copy() if isinstance(item, Image.Image | np.ndarray) else item


def _has_large_images(call: Call) -> bool:
    """Whether it takes longer to copy the images of a call than to let another thread do it."""
    first = call.inputs[0]
    return isinstance(first, Image.Image) and first.width * first.height * call.batch_size >= LARGE_PIXELS


def _call_error(error: BaseException, *, loaded: bool) -> CallError:
    kind: Outcome
    if is_out_of_memory(error):
        kind = "memory"
    elif isinstance(error, ModelDoesNotFit):
        kind = "unfit"
    elif isinstance(error, ModelMissing):
        kind = "missing"
    elif not loaded:
        kind = "load"
    else:
        kind = "rejected" if isinstance(error, OutputRejected) else "error"
    try:
        message = str(error.message) if isinstance(error, PanicError) else f"{type(error).__name__}: {error}"
        detail = "".join(traceback.format_exception(error))[-8000:]
    except Exception:  # the text of a user's exception is code, too
        message, detail = type(error).__name__, ""
    hint = getattr(error, "hint", "")
    return CallError(kind=kind, message=message, detail=detail, hint=hint if isinstance(hint, str) else "")


class LocalWorker:
    """Runs models in a thread of this process: for the CPU and the simulated device.

    The thread "models" owns the server and its cache; the thread "beside" only copies large images that go
    in, and checks and hashes what came out. What ends one of them, such as a lack of memory, is delivered in
    place of a result.
    """

    is_ready = True

    def __init__(
        self,
        settings: ServerSettings,
        build: Callable[[ModelSpec], Model],
        deliver: Callable[[CallResult | BaseException], None],
    ) -> None:
        self._deliver = deliver
        self._calls: queue.SimpleQueue[tuple[Call, Callable[[], list[Any]] | None] | None]
        self._calls = queue.SimpleQueue()
        self._server = CallServer(settings, build)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="beside")
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> None:
        inputs = self._beside.submit(own_inputs, call).result if _has_large_images(call) else None
        self._calls.put((call, inputs))

    def check(self) -> None:
        """Do nothing: a thread cannot be killed, time limits need a process."""

    def drain(self) -> None:
        """Do nothing: what waits here begins soon."""

    def close(self) -> list[Span]:
        self._calls.put(None)
        self._thread.join()
        self._beside.shutdown()
        return self._server.clock.take()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._deliver(error)

    def _serve(self) -> None:
        clock = self._server.clock
        clock.switch("serving")
        while True:
            with clock.of("waiting for a call"):
                waiting = self._calls.get()
            if waiting is None:
                break
            call, inputs = waiting
            result, raw = self._server.serve(call, inputs=inputs)
            self._beside.submit(self._finish, call, result, raw)
        clock.switch("closing")
        self._server.close()

    def _finish(self, call: Call, result: CallResult, raw: list[Any]) -> None:
        try:
            self._deliver(self._server.finish(call, result, raw))
        except BaseException as error:
            self._deliver(error)
