"""Whether results depend on batch mates is measured here, before an experiment's first item, not assumed.

Pipelines that pad a batch to its longest prompt may let an item's result depend on its mates; which ones do
no list can tell. So every model whose kind does not vouch for it is called with a batch of short items, with
the same batch the other way round, and with the first of these items at the end of long ones: once per
fingerprint, shape, device and versions of the libraries; three calls where nothing is wrong. Where a result
differs, the items are ones with as many tokens: if all is the same there, only such items share batches, else
each is computed alone. In an experiment whose shapes are pinned nothing changes; it is told.

Kernels of processors may round the last rows of a batch otherwise, which shows in few items only. So all
items of a batch are compared, and they are the same ones at every start.

    Probe(session, workers, pinned=()).shapes({"Lumina-Image-2.0": Shape(batch_size=4, threads=1)})
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence

from PIL import Image

from panic.engine.calibration import Caller, noise
from panic.engine.calls import Call, CallResult
from panic.engine.contents import Content, Output, Rejected
from panic.engine.pinning import Shape, adapted, surroundings
from panic.engine.session import Session
from panic.engine.workers import Workers
from panic.errors import ConfigError
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import invariance
from panic.store.invariance import Measured, Verdict

log = logging.getLogger("panic.engine")

ITEM = "a red cat"
SHORT = "a"
WORDS = [
    "red",
    "blue",
    "green",
    "black",
    "white",
    "cat",
    "dog",
    "sun",
    "moon",
    "tree",
    "house",
    "boat",
    "fish",
    "bird",
    "hill",
    "road",
    "lamp",
    "door",
]
SEED = 1
FIRST_IMAGE = (256, 256)
"""Size of the images that models read, as long as none has been drawn."""
NUM_IMAGES = 8
"""Images of noise that share a batch, and come again in a larger one: each may be of a million pixels."""
MOST_CHARACTERS = 400
"""Length of a long mate: as many tokens at most, and far more than the item has."""

TOLD: dict[Verdict, str] = {
    "length": "an item's result depends on how long the longest text of its batch is",
    "alone": "an item's result depends on what else is in its batch",
    "unrepeatable": "two equal calls gave different results",
}


class Probe:
    """Calls models with chosen inputs while the workers have nothing else to do, and compares the results.

    Args:
        pinned: models whose shapes the experiment has pinned.
    """

    def __init__(self, session: Session, workers: Workers, pinned: Collection[str]) -> None:
        self._session, self._pinned = session, pinned
        self._specs = session.plan.specs
        self._caller = Caller(session, workers)
        self._image: Image.Image | None = None

    def shapes(self, wanted: Mapping[str, Shape]) -> dict[str, Shape]:
        """The shapes in which results do not depend on batch mates, for those that are wanted.

        Models of an experiment that is pinned keep theirs, and it is told what that means.

        Raises: Interrupted, ConfigError where the config asks for batches of a model that has none.
        """
        store, here = self._session.store, surroundings(self._session.device)
        known = {(m.fingerprint, m.batch_size, m.threads): m for m in invariance.verdicts(store, here)}
        found: dict[str, Shape] = {}
        # Those that draw come first: their images are what the others get.
        for name in sorted(wanted, key=lambda name: Modality.IMAGE in self._specs[name].modalities_in):
            shape, fingerprint = wanted[name], self._session.fingerprints[name]
            measured = known.get((fingerprint, shape.batch_size, shape.threads))
            if measured is None and (measured := self._measured(name, shape)):
                invariance.record(store, here, [measured])
            found[name] = self._shape(name, shape, measured.verdict if measured else "independent")
        return found

    def _shape(self, name: str, shape: Shape, verdict: Verdict) -> Shape:
        """The shape in which a model is called, told where it is another than was wanted."""
        fitting = adapted(shape, verdict)
        if verdict == "unrepeatable":
            log.warning("%s: %s: its runs can be neither repeated nor verified", name, TOLD[verdict])
        if fitting == shape:
            return shape
        if name in self._pinned:
            log.warning(
                "%s: %s; this experiment is pinned to it, --repin mends that for what is not computed yet",
                *(name, TOLD[verdict]),
            )
            return shape
        if fitting.batch_size < shape.batch_size and name in self._session.plan.config.batch_sizes:
            raise ConfigError(
                f"batch_sizes.{name} is {shape.batch_size}, but {TOLD[verdict]}",
                hint=f"batch_sizes.{name}: 1, or leave it out",
            )
        now = "batches of one" if fitting.batch_size == 1 else "only items of equal length share a batch"
        log.warning("%s: %s: %s", name, TOLD[verdict], now)
        return fitting

    def _measured(self, name: str, shape: Shape) -> Measured | None:
        """What a model does in a shape; None if it cannot be called, which the first real item will tell."""
        started = time.monotonic()
        verdicts = [self._verdict(name, shape.batch_size, kind) for kind in self._specs[name].modalities_in]
        order: Sequence[Verdict] = ("unrepeatable", "alone", "length", "independent")
        worst = next((one for one in order if one in verdicts), None)
        if worst is None or None in verdicts:
            log.info("%s: not known whether its results depend on batch mates", name)
            return None
        took = time.monotonic() - started
        log.info("%s: %s, seen in %.1f s with batches of %d", name, worst, took, shape.batch_size)
        return Measured(
            fingerprint=self._session.fingerprints[name],
            batch_size=shape.batch_size,
            threads=shape.threads,
            verdict=worst,
            duration_s=took,
        )

    def _verdict(self, name: str, size: int, modality: Modality) -> Verdict | None:
        item, *mates = self._contents(name, modality)
        bucket = self._session.buckets.of_content(name, item)
        near, far = (
            [mate for mate in some if self._session.buckets.of_content(name, mate) == bucket]
            for some in mates
        )
        first = self._is_steady(name, item, near, far, size)
        if first is None or first:
            return "independent" if first else None
        if not self._is_repeatable(name, item, size):
            return "unrepeatable"
        lengths = registry.lengths(self._specs[name])
        if lengths is None:
            return "alone"
        alike = [text for text in _phrases() if lengths(text) == lengths(item)]
        is_steady = bool(alike) and self._is_steady(name, item, alike[::2], alike[1::2], size)
        return "length" if is_steady else "alone"

    def _is_steady(
        self, name: str, item: Content, near: Sequence[Content], far: Sequence[Content], size: int
    ) -> bool | None:
        """Whether results are the same in a batch and the other way round, and the item's behind other mates.

        None if a call failed or nothing usable came out.
        """
        near, far = (_repeated(some, size - 1) or [item] * (size - 1) for some in (near, far))
        seeds = list(range(SEED, SEED + size))
        batch = [item, *near]
        ahead = self._results(name, batch, seeds)
        back = self._results(name, batch[::-1], seeds[::-1]) if ahead else None
        behind = self._results(name, [*far, item], [*seeds[1:], SEED]) if back else None
        if ahead is None or back is None or behind is None:
            return None
        if all(isinstance(result, Rejected) for result in (ahead[0], back[-1], behind[-1])):
            return None
        return all(
            _is_same(*pair) for pair in zip([*ahead, ahead[0]], [*back[::-1], behind[-1]], strict=True)
        )

    def _is_repeatable(self, name: str, item: Content, size: int) -> bool:
        before, after = (self._results(name, [item] * size, [SEED] * size) for _ in range(2))
        if before is None or after is None:
            return False
        return all(_is_same(*pair) for pair in zip(before, after, strict=True))

    def _results(self, name: str, inputs: list[Content], seeds: list[int]) -> list[Output | Rejected] | None:
        """What a call gives; None if it failed."""
        result: CallResult = self._caller.call(
            Call(
                model=name,
                batch_size=len(inputs),
                inputs=inputs,
                seeds=seeds,
                bucket=self._session.buckets.of_content(name, inputs[0]),
            )
        )
        if result.error is not None:
            log.info("%s: %s", name, result.error.message)
            return None
        drawn = [
            o.value for o in result.outputs if isinstance(o, Output) and isinstance(o.value, Image.Image)
        ]
        self._image = drawn[0] if drawn else self._image
        return result.outputs

    def _contents(self, name: str, modality: Modality) -> tuple[Content, list[Content], list[Content]]:
        """The item, short mates, and mates the first of which is long; for images noise, and plain ones."""
        if modality is Modality.IMAGE:
            # All of one size: a class of a user's may stack them.
            size = self._image.size if self._image else FIRST_IMAGE
            near: list[Content] = [noise(size, seed) for seed in range(1, NUM_IMAGES)]
            return (
                self._image or noise(size, 0),
                near,
                [Image.new("RGB", size), Image.new("RGB", size, "red")],
            )
        spec = self._specs[name]
        limit = spec.parameters.get("max_sequence_length") or spec.context_tokens or MOST_CHARACTERS
        most = min(int(limit) * 3 // 4, MOST_CHARACTERS)  # leaves room for templates: nothing is cut
        return ITEM, [SHORT, *_phrases()], [" ".join(WORDS * 9)[:most].strip(), *_phrases()]


def _phrases() -> list[str]:
    """Short texts that differ, and from the item, many of them as long."""
    texts = (f"a {first} {second}" for first in WORDS[:5] for second in WORDS[5:])
    return [text for text in texts if text != ITEM]


def _repeated(some: Sequence[Content], count: int) -> list[Content]:
    """So many contents, in turn."""
    return [some[place % len(some)] for place in range(count)] if some else []


def _is_same(one: Output | Rejected, other: Output | Rejected) -> bool:
    if isinstance(one, Rejected) or isinstance(other, Rejected):
        return isinstance(one, Rejected) and isinstance(other, Rejected)
    if one.digest or other.digest:
        return one.digest == other.digest
    return bool(one.value.tobytes() == other.value.tobytes())
