"""Pixels that a store has lost: which are missing or damaged, what made them, what mends it.

Foreign keys cannot reach into `images.sqlite`, so an image may be known while its pixels are gone (the
file was deleted, rows were lost) or are not what the digest says (a bad disk). The engine computes
missing ones again whenever an experiment is performed; damaged ones are looked for on request, because that
reads every picture.

    panic check; panic resume demo --repair
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from panic.store.codec import decode_image
from panic.store.digest import image_digest
from panic.store.reading import USED_OUTPUTS, experiments
from panic.store.records import ImageOrigin

if TYPE_CHECKING:
    from panic.store.store import Store

IMAGE_STEPS = (
    "FROM run CROSS JOIN invocation AS i ON i.run = run.id"
    " JOIN output AS made ON made.id = i.output AND made.modality = 'image'"
)


def image_problem(store: Store, digest: bytes, width: int, height: int) -> str:
    """What is wrong with the pixels of an image; empty if they are what the digest says."""
    data = store.images.value("SELECT bytes FROM image WHERE digest = ?", digest)
    if data is None:
        return "its pixels are missing"
    try:
        image = decode_image(data)
    except ValueError as error:
        return str(error)
    if image.size != (width, height):
        return f"{image.width} x {image.height} pixels, not {width} x {height}"
    return "" if image_digest(image) == digest else "its pixels are those of another image"


def missing_images(store: Store, experiment: int) -> Iterator[bytes]:
    """Digests of the experiment's images whose pixels are not there, in their order."""
    wanted = store.db.stream(
        f"SELECT digest FROM output WHERE modality = 'image' AND id IN ({USED_OUTPUTS}) ORDER BY digest",
        experiment,
    )
    if not store.has_images:
        yield from (digest for (digest,) in wanted)
        return
    stored = store.images.stream("SELECT digest FROM image ORDER BY digest")
    at: bytes | None = next(stored, (None,))[0]
    for (digest,) in wanted:  # both in one order, so that neither has to fit into memory
        while at is not None and at < digest:
            at = next(stored, (None,))[0]
        if at != digest:
            yield digest


def damaged_images(store: Store, experiment: int) -> list[bytes]:
    """Digests of the experiment's images whose pixels are there and wrong; reads all of them."""
    missing = set(missing_images(store, experiment))
    images = store.db.stream(
        f"SELECT digest, width, height FROM output WHERE modality = 'image' AND id IN ({USED_OUTPUTS})",
        experiment,
    )
    return [row[0] for row in images if row[0] not in missing and image_problem(store, *row)]


def drop_images(store: Store, digests: Iterable[bytes]) -> None:
    """Remove pixels, so that the right ones can take their place."""
    with store.images.transaction() as connection:
        connection.executemany("DELETE FROM image WHERE digest = ?", [(digest,) for digest in digests])


def image_origins(store: Store, experiment: int, digests: Collection[bytes]) -> list[ImageOrigin]:
    """What made these images first in the experiment, in the order in which they were made.

    So the origin of an image's input, if that is an image, comes before its own.
    """
    rows = store.db.stream(
        "SELECT made.digest, network, step, padded_size, i.seed, given.digest, given.modality, min(i.batch)"
        f" {IMAGE_STEPS} JOIN output AS given ON given.id = i.input JOIN batch ON batch.id = i.batch"
        " WHERE experiment = ? GROUP BY made.id ORDER BY 8, made.id",
        experiment,
    )
    return [
        ImageOrigin(
            digest=digest,
            model=(names := json.loads(network))[step % len(names)],
            batch_size=batch_size,
            seed=seed,
            input=given,
            input_modality=modality,
        )
        for digest, network, step, batch_size, seed, given, modality, _ in rows
        if digest in digests
    ]


def image_users(
    store: Store, experiment: int, digests: Collection[bytes]
) -> Iterator[tuple[int, int, bytes]]:
    """(run, step, digest) wherever the experiment's runs put out one of these images, in that order."""
    rows = store.db.stream(
        f"SELECT run.id, step, made.digest {IMAGE_STEPS} WHERE experiment = ? ORDER BY run.id, step",
        experiment,
    )
    return (row for row in rows if row[2] in digests)


def lost_images(store: Store, experiment: int) -> set[bytes]:
    """Digests of images that could not be computed again, as failures of the kind "lost" tell."""
    rows = store.db.rows(
        "SELECT detail FROM failure JOIN run ON run.id = run WHERE experiment = ? AND kind = 'lost'",
        experiment,
    )
    return {bytes.fromhex(line) for (detail,) in rows for line in detail.split()}


def remedies(store: Store, digests: Collection[bytes]) -> list[str]:
    """Per experiment that has one of these images: how many, and the command that computes them again."""
    rows = store.db.stream(f"SELECT DISTINCT experiment, made.digest {IMAGE_STEPS}")
    counts = Counter(experiment for experiment, digest in rows if digest in digests)
    known = experiments(store)
    newest = {row.name: row.id for row in known}
    found = []
    for row in known:
        if number := counts[row.id]:
            lacks = f"{number:,} images are" if number > 1 else "an image is"
            selector = row.name if newest[row.name] == row.id else row.uid[:12]
            command = f"panic resume {selector} --repair --store {shlex.quote(str(store.path))}"
            found.append(
                f"experiment {row.name}: {lacks} missing or damaged; `{command}` computes what is lost"
            )
    return found
