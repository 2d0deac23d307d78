"""A session: one experiment while it is being performed. Opened once, closed once.

It holds what belongs to the whole of the work: the plan, the store (for writing, and once more for
reading), what is pinned, what waits to be called, and whether to stop. Stages, the driver and the
calibration take it.

Which thread owns what: the driver's thread owns everything here. `store` is used by it to open epochs and
number batches, and by the writer's thread inside `writing.commit`; the driver flushes the writer before it
opens an epoch. `contents` is guarded by a lock of its own.

    with open_session(plan, fingerprints, device, store, command="panic run demo.yaml", ...) as session:
        perform(session)
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from panic.devices.device import Device
from panic.engine.contents import Content, ContentCache, RemoteImage
from panic.engine.ledger import Clock, Ledger
from panic.engine.memory import MemorySettings, learn, memory_settings
from panic.engine.pinning import Pin, Shape, begin, pin
from panic.engine.plan import Plan, warn_of_what_stays
from panic.engine.progress import Progress
from panic.engine.queue import Buckets, Item, Lane, ReadyQueue
from panic.engine.writer import Writer
from panic.errors import BudgetSpent, Interrupted
from panic.interrupts import stop_on_signals
from panic.models.kinds import origin as model_origin
from panic.models.protocol import Modality, ModelSpec
from panic.store import Store, contents, images, reading, standing, writing
from panic.store.codec import canonical_json, is_image_prompt, prompt_digest
from panic.store.provenance import (
    energy_used,
    gpu_energy_j,
    provenance,
    training_of,
    without,
    without_tokens,
)
from panic.store.records import NewEpoch, NewOutput

if TYPE_CHECKING:
    from panic.engine.spending import Spending

log = logging.getLogger("panic.engine")

LOST = "lost"
"""Kind of the failure of a run whose images cannot be computed again."""


@dataclass(slots=True, kw_only=True)
class Session:
    """What is being performed.

    run_ids: rows of the plan's runs, in their order. pins: how every model is called now, by name. lost:
    digests of images whose pixels are gone for good. clock: that of the driver's thread. remote: the models
    behind endpoints. spending: of what is sent to them, where there are any.
    """

    plan: Plan
    device: Device
    store: Store
    reader: Store
    experiment: int
    number: int
    run_ids: list[int]
    fingerprints: Mapping[str, str]
    memory: MemorySettings
    contents: ContentCache
    buckets: Buckets
    writer: Writer
    ready: ReadyQueue
    stop_requested: Callable[[], bool]
    on_progress: Callable[[Progress], None]
    pins: dict[str, Pin] = field(default_factory=dict)
    lost: set[bytes] = field(default_factory=set)
    remote: frozenset[str] = frozenset()
    spending: Spending | None = None
    ledger: Ledger = field(default_factory=Ledger)
    clock: Clock = field(default_factory=partial(Clock, "starting"))

    def pin(self, tried: Mapping[str, int], proven: Mapping[str, Shape]) -> None:
        """Pin the shapes of all models; `tried` and `proven` are those of `panic.engine.pinning.pin`."""
        pins = pin(self.store, self.experiment, self.plan, self.fingerprints, self.device.kind, tried, proven)
        self.pins |= pins
        self.buckets.by_length(name for name, one in pins.items() if one.mates == "length")

    def open_spending(self) -> None:
        """Keep account of what is sent to the models behind endpoints, which are pinned now."""
        if not (remote := self.plan.remote):
            return
        from panic.engine.spending import Spending
        from panic.models.openai import most_tokens
        from panic.store.served import spent

        self.remote = frozenset(remote)
        before = spent(self.store, self.experiment)
        self.spending = Spending(self.number, before, self.plan.config.budget)
        for name, spec in remote.items():
            places = spec.parameters["concurrency"]
            self.spending.open(name, self.pins[name].model, places, partial(most_tokens, spec))
        writing.record_spending(self.store, self.spending.rows())

    def halve(self, model: str) -> Pin:
        """Open a shape epoch of a model with half the batch size, recorded before its first result."""
        self.writer.flush()
        old = self.pins[model]
        smaller = old.batch_size // 2
        opened = NewEpoch(
            name=model,
            model=old.model,
            batch_size=smaller,
            device_kind=self.device.kind,
            threads=old.threads,
            mates=old.mates,
        )
        [number] = writing.add_epochs(self.store, self.experiment, [opened])
        self.pins[model] = replace(old, epoch=number, batch_size=smaller)
        self.ready.resize(model, smaller)
        return self.pins[model]

    def enqueue(
        self, stage: Any, model: str, modality: Modality, item: Item, batch_size: int | None = None
    ) -> None:
        """Let an item of a stage wait for a model, by default for a batch of the pinned size."""
        bucket = self.buckets.of(model, item.input, modality)
        item.held = self.contents.remote(item.input)
        self.ready.put(Lane(stage, model, bucket, batch_size or self.pins[model].batch_size), item)

    def inputs(self, lane: Lane, items: list[Item]) -> list[Content]:
        """The contents that the items of a lane are about."""
        modality = self.buckets.modality(lane.model, lane.bucket)
        get = self.contents.decoded if lane.model in self.remote else self.contents.get
        return [get(item.input, modality) for item in items]


@contextmanager
def open_session(
    plan: Plan,
    fingerprints: Mapping[str, str],
    device: Device,
    store: Store,
    *,
    command: str,
    on_progress: Callable[[Progress], None],
    retry_failed: bool = False,
    repair: bool = False,
) -> Iterator[Session]:
    """Begin to perform a plan in a store that is open for writing; how it ended is recorded at the end.

    While it is open, SIGINT and SIGTERM ask it to stop. Raises ConflictError where the experiment has begun
    with other settings, before anything is changed.
    """
    config, specs = plan.config, plan.specs
    given_images = _given_images(store, plan)
    origin = _origin_remark(plan) if plan.origin else None
    experiment = begin(store, plan, fingerprints, device.kind, origin)
    row = reading.experiment(store, experiment)
    known_runs = reading.runs(store, experiment)
    if known_runs and not plan.is_once:
        warn_of_what_stays(plan, row, known_runs)
    if config.tags or config.label:
        _mark(store, experiment, plan)
    if repair:
        images.drop_images(store, images.damaged_images(store, experiment))
    run_ids = writing.add_runs(store, experiment, plan.runs, given_images)
    if repair or retry_failed:  # of others nobody goes on with
        writing.forget_failures(store, experiment, None if retry_failed else LOST, runs=run_ids)
    asked = config.model_dump(mode="json")
    told, known = _described(command, plan)
    number = writing.start_session(store, experiment, told, known, asked)
    ledger, clock = Ledger(), Clock("starting")
    has_gpus_here = device.kind.startswith("cuda") and config.executor != "ray"
    energy = gpu_energy_j() if has_gpus_here else {}
    memory = MemorySettings()
    if device.has_own_memory:
        memory = memory_settings(store, device, fingerprints, row.uid, number)
    state, session = "failed", None
    try:
        with stop_on_signals() as stop_requested, Store(store.path) as reader:
            read = _read_encoded if config.executor == "ray" else _read
            cache = ContentCache(config.pixel_cache_bytes, partial(read, reader))
            for prompt in dict.fromkeys(run.prompt for run in plan.runs):
                if not is_image_prompt(prompt):
                    cache.keep(prompt_digest(prompt), prompt)
            eager = [name for name in plan.generative if Modality.IMAGE in specs[name].modalities_in]
            writer = Writer(partial(writing.commit, store), cache.saved, ledger)
            try:
                session = Session(
                    plan=plan,
                    device=device,
                    store=store,
                    reader=reader,
                    experiment=experiment,
                    number=number,
                    run_ids=run_ids,
                    fingerprints=fingerprints,
                    memory=memory,
                    contents=cache,
                    buckets=Buckets(specs, cache),
                    writer=writer,
                    ready=ReadyQueue({name: place for place, name in enumerate(specs)}, eager),
                    stop_requested=stop_requested,
                    on_progress=on_progress,
                    ledger=ledger,
                    clock=clock,
                )
                yield session
            finally:
                clock.switch("closing")
                writer.close()
        state = "done"
    except Interrupted:
        state = "interrupted"
        raise
    except BudgetSpent:
        state = "budget spent"
        raise
    finally:
        if session is not None and session.spending is not None:
            writing.record_spending(store, session.spending.rows(is_open=False))
        if device.has_own_memory:
            learn(store, device, fingerprints, memory)
        ledger.add("driver", clock.take())
        hosts = _hosts(store, number, known["hosts"]) if config.executor == "ray" else {}
        writing.end_session(store, number, state, ledger.rows(), _used(energy) | hosts)


def _mark(store: Store, experiment: int, plan: Plan) -> None:
    """Say of an experiment what its config says; unsigned if it has to be."""
    from panic.store.annotations import mark_as_configured
    from panic.store.signing import Author, present_author, signed_if_possible

    config = plan.config.model_dump(mode="json")

    def mark(author: Author) -> None:
        mark_as_configured(store, experiment, config, author)

    signed_if_possible(mark, present_author(), "what its config says of it (tags and label)")


def _origin_remark(plan: Plan) -> tuple[str, tuple[Any, ...]]:
    """A uid for an experiment that is made from another one, and the remark that says so."""
    from panic.store.annotations import Target, row_of
    from panic.store.signing import Author, present_author, signed_if_possible

    uid, at = writing.new_uid(), time.time()
    target, text = Target(kind="experiment", uid=uid, name=plan.config.name), canonical_json(plan.origin)

    def remark(author: Author) -> tuple[Any, ...]:
        return row_of(target, "origin", text, author, at)

    return uid, signed_if_possible(remark, present_author(), "the origin")


def _described(command: str, plan: Plan) -> tuple[str, dict[str, Any]]:
    """The command and the provenance of a session, without the keys of the plan's models."""
    variables = plan.secrets
    keys = [value for name in variables if (value := os.environ.get(name, "").strip())]
    found = provenance(variables, plan.config.base_folder) | _lineage(plan)
    found["models"] = {name: _origin(spec) for name, spec in plan.specs.items()}
    servers = (urlsplit(str(spec.parameters.get("base_url", ""))).hostname for spec in plan.remote.values())
    found["hosts"] = list(dict.fromkeys([found["host"], *filter(None, servers)]))
    return without(without_tokens(command), keys), without(found, keys)


def _origin(spec: ModelSpec) -> dict[str, Any]:
    """Where a model comes from, and which training it came out of."""
    found = model_origin(spec)
    training = training_of(Path(found["folder"])) if "folder" in found else None
    return found | ({"training": training} if training else {})


def _used(before: Mapping[str, float]) -> dict[str, Any]:
    """What GPUs have used meanwhile, in joules by UUID, where they tell."""
    return energy_used(before, gpu_energy_j()) if before else {}


def _hosts(store: Store, number: int, known: list[str]) -> dict[str, Any]:
    """The hosts of a session, where workers of a cluster have computed on others than those known before."""
    from panic.engine.ray_worker import host_of

    found = [host for device in standing.devices_of(store, number) if (host := host_of(device))]
    return {"hosts": hosts} if (hosts := list(dict.fromkeys([*known, *found]))) != known else {}


def _given_images(store: Store, plan: Plan) -> Iterable[NewOutput]:
    """The images that runs begin with and the store lacks, read as they are taken.

    Texts alone need nothing of what reads images. Raises ConfigError for an image that is nowhere.
    """
    if not any(is_image_prompt(run.prompt) for run in plan.runs):
        return ()
    from panic.engine.starts import given_images, missing_images

    files = plan.starts.files if plan.starts else {}
    return given_images(missing_images(store, plan.runs, files), files)


def _lineage(plan: Plan) -> dict[str, Any]:
    """What is kept with the session of where its prompts came from."""
    return {"prompts": plan.starts.lineage} if plan.starts else {}


def _read_encoded(store: Store, digest: bytes, modality: Modality) -> Content:
    """Read a content for workers that decode images themselves."""
    if modality is Modality.IMAGE:
        return RemoteImage(
            size=contents.image_size(store, digest), encoded=contents.image_bytes(store, digest)
        )
    return contents.text(store, digest)


def _read(store: Store, digest: bytes, modality: Modality) -> Content:
    if modality is Modality.IMAGE:
        return contents.image(store, digest)
    return contents.text(store, digest)
