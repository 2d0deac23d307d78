"""Experiments performed by hand: a real session, whose calls a test sees, answers or lets fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from panic.devices.device import open_device
from panic.engine.calls import Call, CallError, CallResult
from panic.engine.contents import finish
from panic.engine.driver import AnyStage, Driver
from panic.engine.forecast import Place
from panic.engine.ledger import Span
from panic.engine.perform import phases
from panic.engine.plan import make_plan
from panic.engine.progress import Progress
from panic.engine.queue import Item, Lane
from panic.engine.serving import CallServer, ServerSettings
from panic.engine.session import Session, open_session
from panic.engine.stages.loops import LoopStage
from panic.engine.workers import Deliver, Workers
from panic.models import registry
from panic.store import Store, check, reading
from tests.engine.conftest import make_config

Fate = Callable[[Call], CallError | Literal["hangs"] | None]
"""What becomes of a call: an error, no answer until the driver looks after its workers, or the model's."""


FRESH: dict[str, Any] = {"seeds": [-1], "repeats": 1}
"""Runs that share nothing: one per prompt."""


def states(count: int) -> list[str]:
    return [f"state {number}" for number in range(count)]


def first(number: int, error: CallError) -> Callable[[Call], CallError | None]:
    """The fate where the first calls have no result."""
    left = [error] * number

    def fate(call: Call) -> CallError | None:
        return left.pop() if left else None

    return fate


def batches(path: Path) -> list[tuple[Any, ...]]:
    """(model, epoch, size, padded size) of every stored batch."""
    with Store(path) as store:
        assert check.check(store) == []
        return store.db.rows(
            "SELECT name, epoch, size, padded_size FROM batch JOIN model ON model.id = model"
            " ORDER BY batch.id"
        )


def epochs(path: Path, model: str) -> list[int]:
    """Batch sizes of a model's shape epochs."""
    with Store(path) as store:
        return [row.batch_size for row in reading.epochs(store, "test") if row.name == model]


@contextmanager
def opened(
    path: Path, *, retry_failed: bool = False, repair: bool = False, **changes: Any
) -> Iterator[Session]:
    """A session of the synthetic experiment, pinned and without workers."""
    config = make_config(**changes)
    device = open_device("cpu")
    with (
        Store(path, write=True, create=True) as store,
        open_session(
            (plan := make_plan(config, device.kind)),
            registry.fingerprints(plan.specs),
            device,
            store,
            command="test",
            on_progress=lambda progress: None,
            retry_failed=retry_failed,
            repair=repair,
        ) as session,
    ):
        session.pin({}, {})
        yield session


def answers(session: Session) -> Callable[[str, bytes, int], Any]:
    """What the session's models make of an input."""
    models = {name: registry.build(spec) for name, spec in session.plan.generative.items()}
    for model in models.values():
        model.load("cpu")

    def answer(model: str, digest: bytes, seed: int) -> Any:
        spec = session.plan.generative[model]
        content = session.contents.get(digest, spec.modalities_in[0])
        return finish(models[model].invoke([content], [seed])[0], spec.modality_out, False)

    return answer


def waiting(session: Session) -> list[tuple[Lane, Item]]:
    """Everything that waits, taken out of the queue."""
    found = []
    while lane := session.ready.choose(frozenset(), only_full=False):
        found += [(lane, item) for item in session.ready.take(lane)]
    return found


@dataclass(slots=True)
class Hand:
    """A worker without a thread: performs a call while it is submitted, as its fate says.

    calls: those it was given, in their order.
    """

    server: CallServer
    deliver: Deliver
    fate: Fate
    calls: list[Call]
    hanging: list[Call] = field(default_factory=list)
    is_ready: bool = True

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        error = self.fate(call)
        if error == "hangs":
            self.hanging.append(call)
            return
        if error is not None:
            self.deliver(CallResult(number=call.number, error=error))
            return
        result, raw = self.server.serve(call)
        self.deliver(self.server.finish(call, result, raw))

    def drain(self) -> None:
        """Nothing waits here."""

    def check(self) -> None:
        while self.hanging:
            call = self.hanging.pop()
            self.deliver(CallResult(number=call.number, error=failing("crash", "no answer in time")))

    def close(self) -> list[Span]:
        self.server.close()
        return []


@dataclass(slots=True, kw_only=True)
class Performance:
    """What happened while a session was performed: its calls, progress, and shape epochs that opened."""

    calls: list[Call] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """Model and number of items of every call."""
        return [(call.model, len(call.inputs)) for call in self.calls]


def answered(call: Call) -> None:
    """The fate of a call that its model answers."""


def failing(kind: Any = "error", message: str = "no", detail: str = "") -> CallError:
    return CallError(kind=kind, message=message, detail=detail)


def perform(
    session: Session,
    fate: Fate = answered,
    *,
    num_workers: int = 1,
    more: Callable[[Workers], Sequence[AnyStage]] = lambda workers: (),
    without: str = "",
    standing: Callable[[LoopStage], Mapping[Place, int]] | None = None,
    seen: Performance | None = None,
) -> Performance:
    """Let a driver work through all stages of a session, with workers that do what `fate` says.

    Args:
        more: makes further stages that overlap with the loops.
        without: name of a stage that is left out.
        seen: filled while the driver works; useful where it raises.
    """
    seen = seen or Performance()
    session.on_progress = seen.progress.append
    settings = ServerSettings(device="cpu", specs=session.plan.specs)

    def start(deliver: Deliver) -> list[Hand]:
        return [
            Hand(CallServer(settings, registry.build), deliver, fate, seen.calls) for _ in range(num_workers)
        ]

    with ExitStack() as stack:
        workers = stack.enter_context(closing(Workers(start)))
        loops = LoopStage(session)
        first, second, third = phases(session, workers, loops, stack)
        second = [stage for stage in second if stage.name != without]

        def on_epoch(model: str) -> None:
            loops.forget(model)
            seen.opened.append(model)

        Driver(
            session,
            workers,
            [first, [*second, *more(workers)], third],
            standing=(lambda: standing(loops)) if standing else None,
            on_epoch=on_epoch,
        ).perform()
    return seen
