"""A spec is what is known about a model before it is built: plain data, picklable, no torch.

A `ModelSpec` is a table entry (`panic.models.table`), or a variant of one with its own parameters, or what
was found in a local folder or a Python file. `adapter` names its kind (`panic.models.kinds`).
`registry.resolve` makes one from a name, `registry.build` makes the model from it, in this or another
process.

    panic models --json
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from panic.models.protocol import Modality

BYTES_PER_ELEMENT = {"float32": 4, "float16": 2, "bfloat16": 2}
DTYPES = tuple(BYTES_PER_ELEMENT)
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

    @property
    def is_embedding(self) -> bool:
        """Return whether its outputs are vectors; false as long as nothing is known of it."""
        return self.modality_out == Modality.VECTOR

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
