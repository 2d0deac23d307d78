"""Shapes that are tried out before an experiment's first item: does the batch that a model asks for fit?

On a device with memory of its own, every model that is new to the experiment and has no batch size in the
config is called once with dummy inputs: the longest text that it reads, the largest image that was drawn.
The batch size is halved until there is room; what it comes to is pinned before anything is computed. The
call also tells how much memory such a batch takes, so that the first real call finds as much room.

    Trial(session, workers).batch_sizes({"sd-turbo": 4, "BLIP-base": 32})
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from PIL import Image

from panic.engine.calls import FATAL, Call, CallResult
from panic.engine.contents import Content, Output, RemoteImage
from panic.engine.driver import TICK_S
from panic.engine.session import Session
from panic.engine.workers import Workers
from panic.errors import Interrupted
from panic.models.protocol import Modality

log = logging.getLogger("panic.engine")

MAX_TOKENS = 512
"""Length of the dummy text: some models read tens of thousands, and no caption is longer."""
SPECIAL_TOKENS = 8
"""Room for those that a tokenizer adds to a text."""
DEFAULT_TOKENS = 77
FIRST_IMAGE = (512, 512)
"""Size of the dummy image as long as no model has drawn one."""
UNTRIED = 10
"""So often a call is handed out again that a worker gave back without having begun it."""


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    """An image of independent grey values, the same for the same seed in every process."""
    width, height = size
    values = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return Image.fromarray(values).convert("RGB")


class Caller:
    """Performs one call after another, while the workers have nothing else to do."""

    def __init__(self, session: Session, workers: Workers) -> None:
        self._session, self._workers = session, workers

    def call(self, call: Call) -> CallResult:
        """Perform a call by the first worker that serves its model: of several devices on the smallest.

        A call that no worker has begun is tried again. Raises Interrupted where it was asked to stop
        meanwhile.
        """
        result = self._perform(call)
        for _ in range(UNTRIED):
            if result.error is None or result.error.kind != "untried":
                break
            result = self._perform(call)
        return result

    def _perform(self, call: Call) -> CallResult:
        seats = self._workers.open_seats()
        self._workers.submit(call, next(seat for seat in seats if self._workers.serves(seat, call.model)))
        while True:
            self._workers.check()
            message = self._workers.next(TICK_S)
            if message is None:
                if self._session.stop_requested():
                    self._workers.drain()  # a cluster may have no room for long
                continue
            assert isinstance(message, CallResult), message
            if self._session.stop_requested():
                raise Interrupted("Stopped before anything was computed.", hint="Run it again to go on.")
            return message


class Trial:
    """Calls models with dummy inputs, one after another."""

    def __init__(self, session: Session, workers: Workers) -> None:
        self._session = session
        self._caller = Caller(session, workers)
        self._specs = session.plan.specs
        self._image: Image.Image | RemoteImage | None = None

    def batch_sizes(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """The largest batch size of each model that fits: the wanted one, or that halved again and again.

        Raises: Interrupted, ModelMissing and the like, ModelDoesNotFit if not even one item fits.
        """
        found: dict[str, int] = {}
        # Those that draw come first: their images are what the others get.
        for name in sorted(wanted, key=lambda name: Modality.IMAGE in self._specs[name].modalities_in):
            found[name] = wanted[name]
            for modality in self._specs[name].modalities_in:
                found[name] = self._largest(name, self._dummy(name, modality), found[name])
            if found[name] < wanted[name]:
                log.warning("%s: batch size %d; %d do not fit", name, found[name], wanted[name])
        return found

    def _dummy(self, name: str, modality: Modality) -> Content:
        if modality is Modality.IMAGE:
            return self._image or noise(FIRST_IMAGE, seed=0)
        tokens = min(self._specs[name].context_tokens or DEFAULT_TOKENS, MAX_TOKENS)
        return " ".join(["a"] * max(1, tokens - SPECIAL_TOKENS))

    def _largest(self, name: str, dummy: Content, size: int) -> int:
        while True:
            result = self._call(name, dummy, size)
            error = result.error
            if error is None:
                self._look_at(result)
                return size
            if error.kind == "memory" and size > 1:
                size //= 2
            elif error.kind in FATAL:
                raise error.fatal(name)
            else:  # a model may well refuse a dummy; what it does with real inputs will be seen
                log.info("%s: no trial of its batch size: %s", name, error.message)
                return size

    def _call(self, name: str, dummy: Content, size: int) -> CallResult:
        return self._caller.call(
            Call(
                model=name,
                batch_size=size,
                inputs=[dummy] * size,
                seeds=[0] * size,
                bucket=self._session.buckets.of_content(name, dummy),
            )
        )

    def _look_at(self, result: CallResult) -> None:
        """Keep the largest image that was drawn."""
        for output in result.outputs:
            if isinstance(output, Output) and isinstance(output.value, Image.Image | RemoteImage):
                drawn = [output.value, *([self._image] if self._image else [])]
                self._image = max(drawn, key=lambda image: image.width * image.height)
