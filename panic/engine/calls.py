"""Calls of models, and those who perform them: the one protocol between the driver and its workers.

A `Call` is a batch for one model, already pinned in shape. A `Worker` performs the calls of one place and
delivers exactly one `CallResult` for each, from a thread of its own, in the order in which they finish:

    LocalWorker    a thread of this process                            (serving.py)
    ProcessWorker  a child process with a device of its own            (process_worker.py)
    EndpointWorker requests to a server, several side by side          (endpoints.py)
    RayWorker      an actor of a Ray cluster                           (ray_worker.py)

Another kind of worker needs the names of `Worker` and nothing else: the driver knows neither devices nor
processes. One that loses its place fails its call as "crash" and those behind it as "untried", which the
driver hands out again.

Which thread owns what: `submit`, `check` and `close` are called by the driver's thread, `deliver` by the
worker's; everything that both touch is guarded by the worker's own lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from panic.engine.contents import Output, Rejected
from panic.engine.ledger import Span
from panic.errors import ModelDoesNotFit, ModelError, ModelMissing, PanicError, StoreCorrupt
from panic.store.codec import writable

Outcome = Literal[
    "memory",
    "unfit",
    "missing",
    "load",
    "error",
    "rejected",
    "crash",
    "untried",
    "busy",
    "unavailable",
    "damaged",
]
"""Why a call gave no outputs.

memory    there was no room for the batch: a smaller one may do
unfit     the weights alone are too large for the device
missing   the weights are not on this machine
load      building the model or loading its weights failed
error     the call raised an exception
rejected  what the call gave cannot be used
crash     the process that performed it ended, or did not answer in time
untried   it waited behind a call that ended its process, or for its turn, and has not been begun
busy      a server asks to come again later, or cannot be reached: no fault of the item, and no attempt
unavailable  a server refuses to serve, whatever it is asked
damaged   the file of an image that it was given cannot be decoded
"""

FATAL: dict[Outcome, type[PanicError]] = {
    "memory": ModelDoesNotFit,
    "unfit": ModelDoesNotFit,
    "missing": ModelMissing,
    "load": ModelError,
    "unavailable": ModelError,
    "damaged": StoreCorrupt,
}
"""Outcomes that no retry mends; "memory" only where the batch cannot be made smaller."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of a model: at most `batch_size` inputs of one bucket, padded to it.

    number: names the call; `Workers.submit` gives it. upcoming: models in the order of their next uses.
    attempt: which attempt at its items this is, those that a server put off included.
    """

    number: int = 0
    model: str
    batch_size: int
    inputs: list[Any]
    seeds: list[int]
    bucket: int = 0
    upcoming: tuple[str, ...] = ()
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """Why a call gave no outputs: its outcome, and what there is to say about it as UTF-8, "" for nothing.

    delay_s: how long to wait before the next attempt. is_final: no attempt would end otherwise. is_end: the
    process that was to perform it has ended.
    """

    kind: Outcome
    message: str
    detail: str = ""
    hint: str = ""
    delay_s: float = 0.0
    is_final: bool = False
    is_end: bool = False

    def __post_init__(self) -> None:
        for name in ("message", "detail", "hint"):  # servers and classes of users say what they like
            object.__setattr__(self, name, writable(getattr(self, name)))

    def fatal(self, model: str, hint: str = "") -> PanicError:
        """The error with which an experiment ends; it names the model once."""
        named = "" if self.message.startswith(model) else f"{model}: "
        return FATAL[self.kind](f"{named}{self.message}", hint=f"{hint} {self.hint}".strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a server said about a call, as far as it did. requests: sent for it.

    tokens: what the call has taken; reckoned where the server does not say.
    """

    requests: int = 1
    tokens: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    served_model: str | None = None
    system_fingerprint: str | None = None


@dataclass(slots=True, kw_only=True)
class CallResult:
    """What a call gave: one output per input, or an error. `duration_s` is the model call alone.

    device: where it was performed, as it is stored with the batch. resident: models that are there now.
    spans: what the worker has spent its time on since the result before. usage: of a call over the network.
    """

    number: int
    outputs: list[Output | Rejected] = field(default_factory=list)
    error: CallError | None = None
    device: str = ""
    started_at: float = 0.0
    duration_s: float = 0.0
    resident: frozenset[str] = frozenset()
    spans: list[Span] = field(default_factory=list)
    usage: Usage | None = None


class Worker(Protocol):
    """Performs calls in the order in which they are submitted; each gives exactly one `CallResult`.

    A thread of its own that ends by an exception delivers that instead: the driver would wait for ever.
    """

    @property
    def is_ready(self) -> bool:
        """Whether it has started: others that are ready should be asked first."""

    def submit(self, call: Call) -> None:
        """Queue a call."""

    def check(self) -> None:
        """End a call that has exceeded its time limit; the driver asks now and then."""

    def drain(self) -> None:
        """Begin nothing that has not begun, where waiting takes long; such calls come back as "untried"."""

    def close(self) -> list[Span]:
        """Stop. What is submitted and not delivered may be lost.

        Returns what its time went into that no result has told.
        """
