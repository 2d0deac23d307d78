"""A model to the rest of `panic`: a spec before it is built, five names afterwards.

A `ModelSpec` is plain data, picklable, without torch: an entry of the table (`panic.models.table`), or a
variant of one with its own parameters, or what was found in a local folder or a Python file. `adapter` names
its kind (`panic.models.kinds`). `registry.resolve` makes one from a name, `registry.build` makes the model
from it, in this or another process.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        `is_compiled: bool`: what its layers compute was compiled, so no hooks of ours may be called between.
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


BYTES_PER_ELEMENT = {"float32": 4, "float16": 2, "bfloat16": 2}
PIPELINE_KEYWORDS = {"steps": "num_inference_steps", "guidance": "guidance_scale"}
"""What the pipelines of diffusers call our parameters."""
KERNELS = ("quantize", "compile", "attention")
"""The parameters that say with what a model computes; without them it is what its files ask for."""
NOT_KNOWN = "not known without running it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A named, configured model.

    `parameters` are effective values (defaults and the variant's own) that a config may set; `options` are
    fixed by the table: how this checkpoint has to be called. Both are JSON values and part of the
    fingerprint. `source` says where weights or code are: a hub id, "local:FOLDER", "pocket:NAME",
    "python:FILE:Class", "class:module:Class", or "" for models without any.
    """

    name: str
    base: str
    adapter: str
    modalities_in: tuple[Modality, ...]
    modality_out: Modality
    parameters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    accepts: tuple[str, ...] = ()
    """Parameters of the adapter that a config may set for this model; empty: all of them."""
    source: str = ""
    revision: str | None = None
    dtype: str | None = None
    """In the table: the dtype on an accelerator. After `resolve`: the dtype it will have."""
    licence: str = ""
    num_parameters: int | None = None
    """It counts the whole model, text encoders included; None: it is counted from the weight files."""
    batch_size: int = 32
    gated: bool = False
    context_tokens: int | None = None
    """Longest input text the model reads; the rest is cut off."""
    note: str = ""
    unread: str = ""
    """Why nothing is known of a user's class without running it; empty for every model that is known."""

    @classmethod
    def blank(cls, name: str, *, source: str, revision: str | None) -> ModelSpec:
        """A spec of weights of which only the place is known."""
        return cls(
            name=name,
            base=name,
            adapter="",
            modalities_in=(),
            modality_out=Modality.TEXT,
            source=source,
            revision=revision,
        )

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> ModelSpec:
        """A spec as a store keeps it. Raises TypeError, KeyError or ValueError for one of another version."""
        named = {
            "modalities_in": tuple(map(Modality, values["modalities_in"])),
            "modality_out": Modality(values["modality_out"]),
            "accepts": tuple(values.get("accepts", ())),
        }
        return cls(**{**values, **named})

    @property
    def is_embedding(self) -> bool:
        """Return whether its outputs are vectors; false as long as nothing is known of it."""
        return self.modality_out == Modality.VECTOR

    @property
    def kernels(self) -> dict[str, Any]:
        """Those of `KERNELS` that are set."""
        return {name: self.parameters[name] for name in KERNELS if self.parameters.get(name)}

    @property
    def is_hub(self) -> bool:
        """Return whether the weights come from the Hugging Face hub."""
        return bool(self.source) and ":" not in self.source

    @property
    def mapping(self) -> str:
        """Say what it maps from and to: "text or image → vector"."""
        if self.unread:
            return NOT_KNOWN
        return f"{' or '.join(self.modalities_in)} → {self.modality_out}"
