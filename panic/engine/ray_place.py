"""What runs on the nodes of a Ray cluster: a process that models are called in, as an actor.

It serves calls with the same `CallServer` as all workers. Images are encoded where they are made; their
pixels are separate results of the actor's method, so that they stay in Ray's object store, and whoever needs
them gets them from there. Pixels that Ray would send along with the answer are not given at all: their file
is smaller.

Which thread owns what: Ray calls the methods from several threads; the thread "models" alone serves calls,
and checking, encoding and decoding happen in Ray's threads meanwhile.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from panic.devices.device import is_poisoned, open_device
from panic.engine.calls import Call, CallError, CallResult
from panic.engine.contents import Output, Rejected, RemoteImage
from panic.engine.ledger import Clock
from panic.engine.serving import CallServer, ServerSettings
from panic.errors import PanicError
from panic.store.codec import decode_image, encode_image
from panic.store.contents import REPAIR

INLINE_BYTES = 100 * 1024
"""Ray sends smaller results along with the answer, through the driver."""
THREADS = 4
"""Methods at the same time: two calls, one that is asked how long a call takes, and one to spare."""


class Place:
    """An actor. What it is given and what it gives is pickled here, so that bytes can be counted."""

    def __init__(self) -> None:
        self._clock = Clock("starting a process")
        self._models = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._server: CallServer | None = None
        self._invoking: tuple[int, float] | None = None

    def describe(self, device_name: str) -> dict[str, Any]:
        """Where this is, and what results depend on here; in plain values, for whatever version of panic."""
        import ray

        from panic.engine.pinning import is_known_to_be_steady, surroundings
        from panic.store.provenance import source_digest

        device = open_device(device_name)
        return {
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "kind": device.kind,
            "torch_name": device.torch_name,
            "has_own_memory": device.has_own_memory,
            "total_bytes": device.total_bytes(),
            "free_bytes": device.free_bytes(),
            "is_steady": is_known_to_be_steady(device),
            "surroundings": {"panic": source_digest()} | json.loads(surroundings(device)),
        }

    def fingerprints(self, data: bytes) -> dict[str, str]:
        """The fingerprints of models as they are on this node, by name; where there is none, why."""
        from panic.models import registry

        found = {}
        for name, spec in pickle.loads(data).items():
            try:
                found[name] = registry.fingerprint(spec)
            except PanicError as error:
                found[name] = error.message
        return found

    def begin(self, data: bytes) -> bytes:
        """Open the device and load its models; returns what the time went into, and this node's clock."""
        self._models.submit(self._begin, pickle.loads(data)).result()
        return pickle.dumps((self._models.submit(self._clock.take).result(), time.monotonic()))

    def _begin(self, settings: ServerSettings) -> None:
        from panic.models import registry

        for name in settings.hidden:
            os.environ.pop(name, None)
        self._server = CallServer(settings, registry.build, self._clock)
        for name, before in settings.fingerprints.items():  # since its node was looked at; others go on
            registry.require_unchanged(settings.specs[name], before)
        self._clock.switch("serving")
        if not self._server.device.has_own_memory:
            self._server.load_all()
        self._clock.switch("waiting for a call")

    def serve(self, data: bytes, num_pixels: int, *pixels: Any) -> Any:
        """Perform a call.

        Args:
            data: the call; its remote images say where among `pixels` theirs are, or have a file.
            num_pixels: how many arrays the answer has beside the result, None where there is nothing to say.

        Returns the result and whether this process has to end, pickled, and the arrays (h, w, 3).
        """
        call: Call = pickle.loads(data)
        assert self._server is not None
        try:
            call = replace(call, inputs=[_content(one, pixels) for one in call.inputs])
        except ValueError as error:
            damaged = CallError(kind="damaged", message=f"an image of the store: {error}", hint=REPAIR)
            result = CallResult(number=call.number, error=damaged)
            is_leaving = False
        else:
            result, raw, is_leaving = self._models.submit(self._serve, call).result()
            result = self._server.finish(call, result, raw)
        arrays: list[Any] = []
        result.outputs = [_parted(output, arrays) for output in result.outputs]
        answer = pickle.dumps((result, is_leaving))
        return (answer, *arrays, *[None] * (num_pixels - len(arrays))) if num_pixels else answer

    def _serve(self, call: Call) -> tuple[CallResult, list[Any], bool]:
        server = self._server
        assert server is not None
        self._clock.switch("serving")
        result, raw = server.serve(call, lambda: self._note(call.number))
        self._invoking = None
        is_leaving = result.error is not None and is_poisoned(server.device)
        self._clock.switch("waiting for a call")
        return result, raw, is_leaving

    def _note(self, number: int) -> None:
        self._invoking = number, time.monotonic()

    def invoking(self) -> tuple[int, float] | None:
        """The number of the call whose model is being called, and for how many seconds by now."""
        invoking = self._invoking
        return None if invoking is None else (invoking[0], time.monotonic() - invoking[1])

    def end(self) -> bytes:
        """Drop the models; returns what the time went into since the last result."""
        if self._server is not None:
            self._models.submit(self._server.close).result()
        return pickle.dumps(self._models.submit(self._clock.take).result())


def _content(item: Any, pixels: Sequence[Any]) -> Any:
    """An input as models take it. Raises ValueError for an image whose file is damaged."""
    if not isinstance(item, RemoteImage):
        return item
    if item.pixels is not None:
        return Image.fromarray(pixels[item.pixels])
    assert item.encoded is not None
    return decode_image(item.encoded)


def _parted(output: Output | Rejected, arrays: list[Any]) -> Output | Rejected:
    """The output with an image's file; if its pixels are many, they are added to the arrays."""
    if isinstance(output, Rejected) or not isinstance(output.value, Image.Image):
        return output
    image = output.value
    parted = RemoteImage(size=image.size, encoded=encode_image(image))
    if 3 * image.width * image.height >= INLINE_BYTES:
        parted.pixels = len(arrays)
        arrays.append(np.asarray(image))
    return replace(output, value=parted)
