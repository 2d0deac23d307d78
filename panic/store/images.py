"""Pixels that a store has lost: which are missing or damaged, what made them, what mends it.

Foreign keys cannot reach into `images.sqlite`, so an image may be known while its pixels are gone (the
file was deleted, rows were lost) or are not what the digest says (a bad disk). The engine computes
missing ones again whenever an experiment is performed; damaged ones are looked for on request, because that
reads every picture.

    panic check; panic resume demo --repair
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from panic.store.codec import decode_image, image_digest
from panic.store.missing import images as missing_images
from panic.store.reading import IMAGE_INTERVENTIONS, IMAGE_STEPS, USED_OUTPUTS, experiments
from panic.store.store import Store


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


def damaged_images(store: Store, experiment: int) -> list[bytes]:
    """Digests of the experiment's images whose pixels are there and wrong; reads all of them."""
    missing = set(missing_images(store, experiment))
    images = store.db.stream(
        f"SELECT digest, width, height FROM output WHERE modality = 'image' AND id IN ({USED_OUTPUTS})",
        experiment,
    )
    return [row[0] for row in images if row[0] not in missing and image_problem(store, *row)]


def has_image(store: Store, digest: bytes) -> bool:
    """Return whether the store has the pixels of an image."""
    if not store.has_images:
        return False
    return store.images.value("SELECT 1 FROM image WHERE digest = ?", digest) is not None


def has_output(store: Store, digest: bytes) -> bool:
    """Return whether the store knows an output, with its pixels or without."""
    return store.db.value("SELECT 1 FROM output WHERE digest = ?", digest) is not None


def image_users(
    store: Store, experiment: int, digests: Collection[bytes]
) -> Iterator[tuple[int, int, bytes]]:
    """(run, step, digest) wherever the experiment's runs put out one of these images, or begin with it."""
    rows = store.db.stream(
        f"SELECT run.id, step, made.digest {IMAGE_STEPS} WHERE experiment = ?1 UNION"
        f" SELECT run.id, step, made.digest {IMAGE_INTERVENTIONS} WHERE experiment = ?1 UNION"
        " SELECT run.id, 0, digest FROM run JOIN output ON output.id = prompt WHERE experiment = ?1"
        " ORDER BY 1, 2",
        experiment,
    )
    return (row for row in rows if row[2] in digests)


def remedies(store: Store, digests: Collection[bytes]) -> list[str]:
    """Per experiment that has one of these images: how many, and the command that computes them again."""
    made = (f"SELECT experiment, made.digest {steps}" for steps in (IMAGE_STEPS, IMAGE_INTERVENTIONS))
    rows = store.db.stream(" UNION ".join(made))
    counts = Counter(experiment for experiment, digest in rows if digest in digests)
    found = []
    for row in experiments(store):
        if number := counts[row.id]:
            lacks = f"{number:,} images are" if number > 1 else "an image is"
            command = f"panic resume {row.name} --repair --store {shlex.quote(str(store.path))}"
            found.append(
                f"experiment {row.name}: {lacks} missing or damaged; `{command}` computes what is lost"
            )
    return found


def drop_images(store: Store, digests: Iterable[bytes]) -> None:
    """Remove pixels, so that the right ones can take their place."""
    with store.images.transaction() as connection:
        connection.executemany("DELETE FROM image WHERE digest = ?", [(digest,) for digest in digests])
