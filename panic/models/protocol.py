"""A model is five names to the rest of `panic`.

A model takes a batch of inputs of one modality with one seed per item, and returns a batch of outputs.
Texts are `str`, images are RGB `PIL.Image.Image` (an (h, w, 3) uint8 array is accepted as an output),
vectors are float32 arrays (d,). An output may depend on the fingerprint, the batch shape, the device
kind, the item's own input and the item's own seed, and on nothing else: not on batch mates, not on
earlier calls. A user's own model is any class with these five names:

    class Shout:
        modality_in = modality_out = "text"
        size_bytes = 0
        def load(self, device): ...
        def invoke(self, inputs, seeds): return [text.upper() + "!" for text in inputs]
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Modality(StrEnum):
    """Models take and give values of these modalities."""

    TEXT = "text"
    IMAGE = "image"
    VECTOR = "vector"


def modalities(value: Any) -> tuple[Modality, ...]:
    """`modality_in` or `modality_out` of a class as a tuple. Raises TypeError or ValueError if it is none."""
    return tuple(Modality(item) for item in ((value,) if isinstance(value, str) else value))


@runtime_checkable
class Model(Protocol):
    """A generative or embedding model that has been constructed and can be loaded and called.

    Joint embedding models have `modality_in = ("text", "image")`; a batch is always of one modality.

    An item whose output is unusable gets a `panic.errors.OutputRejected` in its place; an exception means
    that the whole batch gave nothing.

    Optional names, looked up with `getattr`:
        `working_bytes(batch_size) -> int`: device memory needed beyond the weights during a call.
        `bucket(item) -> int`: padded length class of an input (0 or more); only items of one bucket share a
            batch. Needed where the model's padding follows the longest item of its batch. Only a user's own
            class has it, and is asked in a process of its own; other kinds say it in `Kind.bucketing`.
        `weight_modules() -> Sequence[torch.nn.Module]`: after `load("cpu")`, all that has weights; then only
            their bytes move between main memory and a GPU, and `load` is not called again.
        `parameters: dict`: what went into the fingerprint, for display.
    """

    modality_in: Any
    modality_out: Any

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights on the device."""

    def load(self, device: str) -> None:
        """Bring the weights onto a torch device ("cpu", "cuda:0", "mps")."""

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> Sequence[Any]:
        """Map n inputs with n seeds to n outputs."""
