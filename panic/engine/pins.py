"""Pins: how the models of an experiment are called, decided once for all of its runs and kept in a file.

Shards of an experiment are performed apart, and a shard alone would pin other batch sizes, because it has
less work. So its store begins with the pins of the whole; whatever performs it then finds them there.

    pins = calibrate(check_config("demo.yaml"))
    write(pins, Path("pins.json"))
    lay(read(Path("pins.json")), plan, fingerprints, store)
"""

from __future__ import annotations

import stat
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from panic.devices.device import open_devices
from panic.engine import pinning
from panic.engine.perform import pinned_workers
from panic.engine.plan import CheckedConfig, make_plan
from panic.engine.session import open_session
from panic.engine.workers import open_places
from panic.errors import ConflictError, UsageError, nearest
from panic.models import registry
from panic.store import Store, invariance, reading, writing
from panic.store.invariance import Verdict
from panic.store.merging.experiments import PINNED
from panic.store.records import EpochRow, NewEpoch

VERSION = 1
MAX_BYTES = 2**24
Uid = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Whole = Annotated[int, Field(ge=1, le=2**20)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelPins(_Part):
    """How a model is called. reason: as of a shape epoch."""

    fingerprint: str
    batch_size: Whole
    threads: Whole | None
    device_kind: str
    mates: Annotated[str, Field(pattern="^(bucket|length)$")]
    reason: Annotated[str, Field(pattern="^(start|memory)$")]


class Seen(_Part):
    """What was measured of whether a model's results depend on batch mates, so that no shard measures it."""

    fingerprint: str
    batch_size: Whole
    threads: Whole
    verdict: Verdict
    duration_s: float


class Pins(_Part):
    """The pins of an experiment. uid: what all its shards are called, so that remarks fit when they merge."""

    version: Annotated[int, Field(ge=VERSION, le=VERSION)] = VERSION
    experiment: str
    uid: Uid
    device_kind: str
    models: dict[str, ModelPins]
    surroundings: str
    seen: list[Seen]


def calibrate(checked: CheckedConfig) -> Pins:
    """Pin the shapes of all runs of a config, as performing it would: tried out and proven where needed.

    Nothing is computed and no store is kept. Raises what performing it would raise.
    """
    with (
        ExitStack() as outer,
        tempfile.TemporaryDirectory(prefix="panic-pins-") as folder,
        Store(Path(folder) / "store", write=True, create=True) as store,
    ):
        device = open_places(checked.config, outer)
        plan = make_plan(checked, device.kind)
        fingerprints = registry.fingerprints(plan.specs)
        opened = open_session(
            plan, fingerprints, device, store, command="panic pin", on_progress=lambda progress: None
        )
        with opened as session, ExitStack() as stack:
            pinned_workers(session, stack)
        row = reading.experiment(store, session.experiment)
        here = pinning.surroundings(device)
        return Pins(
            experiment=row.name,
            uid=row.uid,
            device_kind=device.kind,
            surroundings=here,
            models={
                epoch.name: ModelPins(**{name: getattr(epoch, name) for name in ModelPins.model_fields})
                for epoch in reading.epochs(store, row.id)
            },
            seen=[
                Seen(**{name: getattr(one, name) for name in Seen.model_fields})
                for one in invariance.verdicts(store, here)
            ],
        )


def write(pins: Pins, path: Path) -> None:
    """Write pins as JSON, as a whole or not at all, in the place of others if there are any.

    Raises UsageError where something else is there.
    """
    require_place(path)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # which nobody else has
    try:
        part.write_text(pins.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def require_place(path: Path) -> None:
    """Raise UsageError unless pins can be written there: a config, or a device, was replaced by them."""
    advice = "-o pins.json"
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise UsageError(f"{path} {what}.", hint=advice)
    if path.exists():
        try:
            read(path)
        except UsageError as error:
            raise UsageError(f"{path} is there already, and is no file of pins.", hint=advice) from error


def read(path: Path) -> Pins:
    """Read pins. Raises UsageError for a file that has none."""
    advice = "panic pin CONFIG -o FILE writes one."
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # what a device or a pipe gives may have no end
            raise UsageError(f"{path} is no file of pins: it is no file at all.", hint=advice)
        if about.st_size > MAX_BYTES:
            raise UsageError(f"{path} is too large for a file of pins.", hint=advice)
        return Pins.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", hint=advice) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{path} is no file of pins: {where}: {first['msg']}.", hint=advice) from error


def lay(pins: Pins, checked: CheckedConfig, store: Store) -> None:
    """Begin the experiment of a config with these pins, in a store where it may have begun with them already.

    Raises ConflictError, before anything is changed, for pins of another experiment, of other models or
    another kind of device, and where the experiment has begun otherwise. Which devices a Ray cluster has only
    the session knows, which compares their kind when it begins.
    """
    config = checked.config
    device = None if config.executor == "ray" else open_devices(config.device)
    kind = pins.device_kind if device is None else device.kind
    plan = make_plan(checked, kind, [])
    fingerprints = pinning.known_fingerprints(store, plan)
    row = reading.named(store, config.name)
    epochs = reading.epochs(store, row.id) if row else []
    begun = {epoch.name: epoch for epoch in epochs if epoch.number == 0}
    if problems := [*_misfits(pins, config.name, kind, fingerprints), *_begun_otherwise(pins, begun)]:
        raise ConflictError(
            "\n".join(problems), hint="panic pin CONFIG -o FILE writes pins that fit the config."
        )
    if row is None:
        number = writing.start_experiment(store, config.name, config.model_dump(mode="json"), uid=pins.uid)
    else:
        number = row.id
    opened = []
    for name, spec in plan.specs.items():
        if name in begun or name not in pins.models:
            continue
        model = writing.add_model(
            store,
            name,
            fingerprints[name],
            pinning.plain(spec),
            is_repeatable=registry.is_repeatable(spec),
        )
        shape = pins.models[name].model_dump(exclude={"fingerprint"})
        opened.append(NewEpoch(name=name, model=model, **shape))
    writing.add_epochs(store, number, opened)
    if device is None or pinning.surroundings(device) == pins.surroundings:
        seen = [invariance.Measured(**one.model_dump()) for one in pins.seen]
        invariance.record(store, pins.surroundings, seen)


def _begun_otherwise(pins: Pins, begun: Mapping[str, EpochRow]) -> list[str]:
    """Sentences on what models have begun with here and what is pinned: merging compares the same."""
    words = {"batch_size": "batches of {}", "threads": "{} threads", "mates": "mates by {}"}
    return [
        f"{name} has begun with {word.format(getattr(epoch, what))},"
        f" and is pinned to {word.format(getattr(pinned, what))}"
        for name, epoch in begun.items()
        if (pinned := pins.models.get(name)) is not None
        for what in PINNED
        if getattr(epoch, what) != getattr(pinned, what)
        for word in (words.get(what, f"{what.replace('_', ' ')} {{:.40}}"),)
    ]


def _misfits(pins: Pins, name: str, device_kind: str, fingerprints: dict[str, str]) -> list[str]:
    """Sentences on what the pins say and what is here."""
    found = []
    if pins.experiment != name:
        found.append(f"the pins are of {pins.experiment}, and the experiment is {name}")
    if pins.device_kind != device_kind:
        found.append(f"the pins are for a device of kind {pins.device_kind!r}; here it is {device_kind!r}")
    for model, fingerprint in fingerprints.items():
        pinned = pins.models.get(model)
        if pinned is None:
            near = nearest(model, pins.models)
            found.append(f"{model} has no pins" + (f" (did you mean {near[0]}?)" if near else ""))
        elif pinned.fingerprint != fingerprint:
            found.append(f"{model} is not the model that was pinned: its weights, code or variant changed")
    return found
