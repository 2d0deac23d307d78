"""An extraction from its request to its output: what is missing is computed, in parts, and then merged.

wanted = Extraction(items=items, specs=specs, device="cpu", output=Path("features.parquet"))
extract(wanted).num_rows
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

from panic.devices.device import members, open_devices
from panic.engine.workers import Workers
from panic.errors import ModelError, PanicError, UsageError
from panic.extraction import files
from panic.extraction.files import Features, Parts, Row
from panic.extraction.inputs import Item, readable
from panic.extraction.pipeline import Block, Pipeline
from panic.extraction.worker import start_workers
from panic.models import detectors, registry
from panic.models.protocol import ModelSpec

PACKAGES = ("panic", "torch", "transformers", "tokenizers", "numpy", "pillow")
"""Those whose versions are written down."""
PART_S = 1.0
"""A part has the blocks of so long: one for each block would be thousands of small files where batches are
small, each of which takes 2 ms to write and 5 ms to read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What is asked for.

    specs: the models by name, as resolved for the device; all of them take every item. device: one or
    several, as a config names them. batch_size: of all models, where each model's own is not wanted. how:
    what else the output should say, of how its items were chosen.
    """

    items: Sequence[Item]
    specs: Mapping[str, ModelSpec]
    device: str | Sequence[str]
    output: Path
    batch_size: int | None = None
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is there of what is asked for: files with rows of it, items without a row, what is to be told."""

    files: list[Features]
    missing: list[Item]
    told: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What has come of it: rows in the output, rows that are new, skipped items with their reasons."""

    num_rows: int
    num_new: int
    skipped: list[dict[str, str]]


Show = Callable[[int, int, int], None]
"""It is called with the numbers of items done, of all, and of skipped ones; what it raises ends the work."""


def about(wanted: Extraction) -> dict[str, Any]:
    """What a file of this extraction says of itself; `made` has how each part of its rows came about."""
    models = {
        name: {
            "fingerprint": registry.fingerprint(spec),
            "base": spec.base,
            "parameters": {key: value for key, value in spec.parameters.items() if value is not None},
            "revision": spec.revision,
            "dtype": spec.dtype,
            "regions": spec.parameters.get("regions") if spec.adapter == detectors.KIND.name else None,
        }
        for name, spec in wanted.specs.items()
    }
    made = {"batch_sizes": _batch_sizes(wanted), "versions": _versions()}
    device = open_devices(wanted.device).kind
    return {"format": files.FORMAT, "models": models, "device": device, "made": [made], **wanted.how}


def _versions() -> dict[str, str]:
    """The versions of the packages that may explain a difference, as far as they are installed."""
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def standing(wanted: Extraction, said: Mapping[str, Any], found: Sequence[Features]) -> Standing:
    """What an output and its parts have of what is asked for.

    A file made under other models or fingerprints, or on another kind of device, has nothing of it.
    """
    asked = _identities(said)
    usable = [features for features in found if _identities(features.about) == asked]
    told = []
    if others := [features for features in found if features not in usable]:
        differing = {name for one in others for name, _ in _identities(one.about).items() ^ asked.items()}
        told.append(f"{others[0].path} is of other models ({', '.join(sorted(differing))}): computed anew.")
    known = {key for features in usable for key in features.keys().iter_rows()}
    missing = [item for item in wanted.items if item.key not in known]
    ids = {key[:2] for key in known}
    if num_changed := sum(item.key[:2] in ids for item in missing):
        told.append(f"{num_changed:,} of the items have changed since they were embedded: computed anew.")
    return Standing(files=usable, missing=missing, told=told)


def look(wanted: Extraction) -> Standing:
    """What is there of what is asked for, without writing anything. Raises UsageError, ModelMissing."""
    before = files.claim_output(wanted.output)
    found = [*([before] if before else []), *files.list_parts(wanted.output).values()]
    return standing(wanted, about(wanted), [features for features in found if features])


def extract(
    wanted: Extraction, show: Show = lambda *_: None, tell: Callable[[str], None] = lambda _: None
) -> Extracted:
    """Compute what is missing and write the output, whole.

    tell: called with what a user should know of what was there before. Whatever is raised, what has been
    computed is there the next time. Raises UsageError for an output that may not be written, ModelError, and
    what `show` raises.
    """
    said = about(wanted)
    if taken := files.ITEM_COLUMNS & wanted.specs.keys():
        raise UsageError(f"A column is called {min(taken)} already: the model needs another name.")
    before = files.claim_output(wanted.output)
    parts = files.Parts(wanted.output)
    is_written = False
    try:
        now = standing(wanted, said, [*([before] if before else []), *parts.known])
        for text in now.told:
            tell(text)
        work = _Work(wanted=wanted, said=said, parts=parts, show=show)
        work.perform(now.missing)
        sources = now.files + work.written
        if not sources:
            first = work.skipped[0]
            raise ModelError(
                f"Nothing could be embedded: {first['file']} of {first['source']}: {first['reason']}."
            )
        made = {json.dumps(one, sort_keys=True): one for source in sources for one in source.about["made"]}
        said |= {"made": list(made.values()), "skipped": work.skipped}
        keys = files.keys_of(wanted.items)
        if before and sources == [before] and before.about == said and before.has_exactly(keys):
            num_rows = before.keys().height
        else:
            num_rows = files.merge(wanted.output, sources, keys, said)
        is_written = True
    finally:
        parts.close(delete=is_written)
    return Extracted(num_rows=num_rows, num_new=work.num_new, skipped=work.skipped)


@dataclass(slots=True, kw_only=True)
class _Work:
    """What is computed in one go: parts that were written, rows, skipped items.

    rows: those that are in no part yet, of blocks that were made like `made`. written_at: when the last part
    was. lengths: how many numbers each model's vectors have, as its first one says.
    """

    wanted: Extraction
    said: Mapping[str, Any]
    parts: Parts
    show: Show
    written: list[Features] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    num_new: int = 0
    num_missing: int = 0
    rows: list[Row] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
    written_at: float = field(default_factory=time.monotonic)
    lengths: dict[str, int] = field(default_factory=dict)

    def perform(self, missing: Sequence[Item]) -> None:
        """Compute these items; when that is ended by an error, what is whole is kept all the same."""
        self.num_missing = len(missing)
        self._check()
        if not missing:
            return
        devices = [device.name for device in members(open_devices(self.wanted.device))]
        start = partial(start_workers, self.wanted.specs, devices)
        several = devices if len(devices) > 1 else []
        with closing(Workers(start, devices=several)) as workers, warnings.catch_warnings():
            # Such images are skipped, and told.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            pipeline = Pipeline(workers, self.wanted.specs, _batch_sizes(self.wanted), self._check)
            try:
                for block in pipeline.blocks(missing):
                    self._keep(block, pipeline)
            except PanicError:
                for block in pipeline.open:
                    with suppress(ModelError):
                        self._keep(block, pipeline)
                raise
            finally:
                self._write()
        self._check()

    def _check(self) -> None:
        total = len(self.wanted.items)
        num_skipped = len(self.skipped)
        self.show(total - self.num_missing + self.num_new + num_skipped, total, num_skipped)

    def _keep(self, block: Block, pipeline: Pipeline) -> None:
        made = self.said["made"][0] | {"batch_sizes": dict(pipeline.batch_sizes)}
        if made != self.made:
            self._write()
        self.made = made
        rows, errors = [], []
        for row in block.rows(self.wanted.specs):
            try:
                self._measure(row)
                rows.append(row)
            except ModelError as error:
                errors.append(error)
        self.rows += rows
        self.num_new += len(rows)
        for place, reason in sorted(block.reasons.items()):
            item = block.items[place]
            where = {"source": readable(item.source), "id": item.id, "file": readable(item.place)}
            self.skipped.append({**where, "reason": reason})
        if time.monotonic() - self.written_at >= PART_S:
            self._write()
        if errors:
            raise errors[0]

    def _measure(self, row: Row) -> None:
        """Raise ModelError for a vector that is not as long as those of its model that came before."""
        for name, vector in row[2].items():
            length = self.lengths.setdefault(name, len(vector))
            if len(vector) != length:
                raise ModelError(f"{name} gave vectors of {length:,} and of {len(vector):,} numbers.")

    def _write(self) -> None:
        """Write the rows that are in no part yet as one."""
        if self.rows:
            rows, self.rows = self.rows, []
            self.written.append(self.parts.add(rows, dict(self.said) | {"made": [self.made]}))
        self.written_at = time.monotonic()


def _batch_sizes(wanted: Extraction) -> dict[str, int]:
    """How many items a call of each model has: not more than there are."""
    most = max(1, len(wanted.items))
    return {name: min(most, wanted.batch_size or spec.batch_size) for name, spec in wanted.specs.items()}


def _identities(said: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What the vectors of a file depend on, by model."""
    return {name: (model["fingerprint"], said["device"]) for name, model in said["models"].items()}
