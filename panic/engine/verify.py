"""Verify an experiment: are its results still reproducible here? A sample of them is computed again.

Invocations and embeddings are called with the shape, seed and threads that made them, diagrams are computed
from the stored vectors; what comes out is compared with what the store gives. Nothing is written and no lock
is taken.

    report = verify(checked, store, row.id, sample=50, seed=0)
    print(report.counts, report.num_compared)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from panic.config import DiagramSettings
from panic.config.fields import MAX_BATCH
from panic.devices.device import Device, members, open_devices
from panic.engine.calls import Call
from panic.engine.contents import Output, Rejected
from panic.engine.pinning import as_started, refuse_more
from panic.engine.plan import CheckedConfig, make_plan
from panic.engine.pool import Bench
from panic.engine.serving import CallServer, ServerSettings
from panic.engine.stages.diagrams import DiagramJob
from panic.errors import ModelError, PanicError, StoreCorrupt
from panic.models import registry
from panic.models.imported import GIVEN
from panic.models.protocol import Modality, ModelSpec
from panic.store import Store, contents, origins, provenance, reading
from panic.store.codec import decode_vector, image_digest
from panic.store.origins import Origin
from panic.store.records import DiagramRow

Verdict = Literal["same", "different", "damaged", "changed", "not comparable", "not repeatable", "given"]
"""What became of a result.

same            it comes out as it is stored, to the bit
different       it does not
damaged         the store does not give back what it was made from
changed         the model's weights, code or parameters are others than those that made it
not comparable  another kind of device made it, the model is not here, or it gives nothing
not repeatable  its model need not give the same again, and is not asked
given           it was imported: nothing here made it
"""
COMPARED = ("same", "different")
MEMORY_BYTES = 4 * 2**30  # for one diagram


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A result that was computed again. difference: the largest of a pixel's value, of a vector or a bar."""

    kind: Literal["invocation", "embedding", "diagram"]
    what: str
    verdict: Verdict
    detail: str = ""
    difference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found, and what differs here from where the results were made: {name: (there, here)}."""

    findings: list[Finding]
    surroundings: dict[str, tuple[Any, Any]]

    @property
    def counts(self) -> dict[str, int]:
        """How many results there are of each verdict."""
        return dict(Counter(finding.verdict for finding in self.findings))

    @property
    def num_compared(self) -> int:
        """How many results could be compared."""
        return sum(finding.verdict in COMPARED for finding in self.findings)


def verify(
    checked: CheckedConfig,
    store: Store,
    experiment: int,
    *,
    sample: int = 50,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Compute up to `sample` invocations, embeddings and diagrams each again, chosen by `seed`."""
    chance = random.Random(seed)

    def some(rows: list[Any]) -> list[Any]:
        return chance.sample(rows, min(sample, len(rows)))

    calls = [origins.of_step(store, *key) for key in some(origins.steps(store, experiment))]
    calls += [origins.of_vector(store, *key) for key in some(origins.vectors(store, experiment))]
    diagrams = some(contents.diagrams(store, experiment))
    findings: list[Finding] = []
    for finding in chain(_again(checked, store, calls), _diagrams_again(store, diagrams)):
        findings.append(finding)
        on_progress(len(findings), len(calls) + len(diagrams))
    return Verification(findings=findings, surroundings=_surroundings(store, experiment))


def _again(checked: CheckedConfig, store: Store, calls: list[Origin]) -> Iterator[Finding]:
    """The findings of calls, one model server per number of threads."""
    device = open_devices(checked.config.device)
    specs = as_started(store, make_plan(checked, device.kind), {})[0].specs
    now = {name: _fingerprint(spec) for name, spec in specs.items()}
    names = {fingerprint: name for name, fingerprint in now.items()}  # a vector's model may have another name
    wanted: list[tuple[str, Origin]] = []
    for origin in calls:
        name = names.get(origin.fingerprint, origin.name)
        is_repeatable = name not in specs or registry.is_repeatable(specs[name])
        reason = _obstacle(origin, now.get(name, ""), device, is_repeatable=is_repeatable)
        if reason is None:
            wanted.append((name, origin))
        else:
            yield _finding(origin, *reason)
    wanted.sort(key=lambda pair: (pair[1].threads or 0, pair[0]))
    for threads, group in groupby(wanted, key=lambda pair: pair[1].threads):
        server = CallServer(_settings(checked, device, specs, threads), registry.build)
        try:
            yield from (_compare(store, server, name, origin) for name, origin in group)
        finally:
            server.close()


def _settings(
    checked: CheckedConfig, device: Device, specs: Mapping[str, ModelSpec], threads: int | None
) -> ServerSettings:
    config = checked.config
    return ServerSettings(
        device=members(device)[0].name,
        specs=dict(specs),
        threads=threads,
        headroom_bytes=config.headroom,
        memory_fraction=config.memory_fraction,
    )


def _fingerprint(spec: ModelSpec) -> str:
    """The fingerprint of a model as it is here; "" where it is not here."""
    try:
        return registry.fingerprint(spec)
    except ModelError:
        return ""


def _obstacle(
    origin: Origin, fingerprint: str, device: Device, *, is_repeatable: bool
) -> tuple[Verdict, str] | None:
    """Why a result cannot be compared, if so."""
    if origin.device_kind == GIVEN:
        return "given", f"{origin.name} was imported"
    if not is_repeatable:
        return "not repeatable", f"{origin.name} is behind an endpoint"
    if not fingerprint:
        return "not comparable", f"{origin.name} is not here"
    if fingerprint != origin.fingerprint:
        return (
            "changed",
            f"{origin.name} had the fingerprint {origin.fingerprint[:12]}, now {fingerprint[:12]}",
        )
    if origin.device_kind and origin.device_kind != device.kind:
        return "not comparable", f"made on {origin.device_kind}, this is {device.kind}"
    return None


def _finding(origin: Origin, verdict: Verdict, detail: str = "", difference: float | None = None) -> Finding:
    kind: Literal["invocation", "embedding"] = "embedding" if origin.modality == "vector" else "invocation"
    return Finding(kind=kind, what=origin.what, verdict=verdict, detail=detail, difference=difference)


def _compare(store: Store, server: CallServer, name: str, origin: Origin) -> Finding:
    """Call the model as it was called, and compare what it gives with what the store gives."""
    try:
        refuse_more(MAX_BATCH, origin.batch_size, "items in its batch")
        given = _content(store, origin.input, origin.input_modality)
    except PanicError as error:
        return _finding(origin, "damaged", f"its input: {error.message}")
    call = Call(
        model=name, batch_size=origin.batch_size, inputs=[given], seeds=[origin.seed], bucket=origin.bucket
    )
    result = server.finish(call, *server.serve(call))
    if result.error is not None:
        return _finding(origin, "not comparable", result.error.message)
    [made] = result.outputs
    if isinstance(made, Rejected):
        return _finding(origin, "different", f"it gives nothing now: {made.reason}")
    try:
        if origin.modality == "vector":
            stored = decode_vector(origins.vector(store, origin.output, origin.fingerprint))
            return _finding(origin, *_numbers(stored, made.value))
        return _finding(origin, *_output(store, origin, made))
    except StoreCorrupt as error:
        return _finding(origin, "damaged", error.message)


def _content(store: Store, digest: bytes, modality: str) -> Any:
    """A stored text or image that is what its digest says. Raises StoreCorrupt for another image."""
    if modality == "text":
        return contents.text(store, digest)
    image = contents.image(store, digest)
    if image_digest(image) != digest:
        raise StoreCorrupt(f"the pixels of image {digest.hex()[:12]} are not those of its digest")
    return image


def _output(store: Store, origin: Origin, made: Output) -> tuple[Verdict, str, float | None]:
    if made.modality is Modality.TEXT:
        stored = contents.text(store, origin.output)
        return ("same", "", None) if stored == made.value else ("different", "another text", None)
    image = contents.image(store, origin.output)
    if image.size != made.value.size:
        return "different", f"{image.size} pixels are stored, {made.value.size} come out", None
    verdict = _numbers(np.asarray(image, dtype=np.int16), np.asarray(made.value, dtype=np.int16))
    if verdict[0] == "same" and made.digest != origin.output:
        return "different", "the digest is that of another image", None
    return verdict


def _numbers(stored: Any, made: Any) -> tuple[Verdict, str, float | None]:
    """Compare two arrays to the bit; the largest difference where they differ in numbers alone."""
    if stored.shape != made.shape:
        return "different", f"shape {stored.shape} is stored, {made.shape} comes out", None
    if np.array_equal(stored, made):
        return "same", "", None
    there = np.isfinite(stored) & np.isfinite(made)
    gap = np.abs(stored[there].astype(np.float64) - made[there].astype(np.float64))
    share = np.mean(stored != made)
    return "different", f"{share:.2%} of its numbers differ", float(gap.max(initial=0.0))


def _diagrams_again(store: Store, rows: list[DiagramRow]) -> Iterator[Finding]:
    models = {model.id: model.name for model in reading.models(store)}
    for row in rows:
        what = f"diagram of run {row.run} by {models.get(row.model, f'model {row.model}')}"
        gap = None
        try:
            verdict, detail, gap = _diagram_again(store, row)
        except (StoreCorrupt, ValidationError) as error:
            verdict, detail = "damaged", str(error).split("\n", 1)[0]
        except PanicError as error:
            verdict, detail = "not comparable", error.message
        yield Finding(kind="diagram", what=what, verdict=verdict, detail=detail, difference=gap)


def _diagram_again(store: Store, row: DiagramRow) -> tuple[Verdict, str, float | None]:
    """Compute a diagram and compare its bars with those that are stored.

    Raises: StoreCorrupt, ValidationError for settings that are none, TopologyError.
    """
    settings = DiagramSettings.model_validate(row.settings)
    bench = Bench(store=store, settings=(settings,), memory_bytes=MEMORY_BYTES)
    [made] = DiagramJob(row.run, row.model, 0).compute(bench).diagrams
    if made.num_points != row.num_points:
        detail = f"it is of {row.num_points:,} points, and the run has {made.num_points:,} now"
        return "not comparable", detail, None
    stored = contents.diagram_bars(store, row.id)
    if lacking := made.bars.keys() - stored.keys():
        return "damaged", f"the bars of dimension {min(lacking)} are missing", None
    compared = [_numbers(stored[dimension], bars) for dimension, bars in made.bars.items()]
    # The dimension that differs most speaks for the diagram.
    return max(compared, key=lambda one: (one[0] == "different", one[2] or 0.0))


def _surroundings(store: Store, experiment: int) -> dict[str, tuple[Any, Any]]:
    """Versions and hardware of the last session that told them, where they are others here."""
    there = next((s.provenance for s in reversed(reading.sessions(store, experiment)) if s.provenance), {})
    here = provenance.surroundings()
    pairs = {
        "python": (there.get("python"), here["python"]),
        "source of panic": (there.get("source_digest"), here["source_digest"]),
    }
    for part in ("packages", "hardware"):
        old, new = there.get(part) or {}, here[part]
        pairs |= {name: (old.get(name), new.get(name)) for name in sorted({*old, *new})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
