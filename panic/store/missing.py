"""What a store lacks: the questions by which every stage of the engine finds its work.

Each stage is a function of that, so first run, resume, extension and repair are the same code. Answers hold
row numbers and digests as bytes, because the engine asks about every step.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from panic.store.codec import decode_network
from panic.store.reading import CURRENT, IMAGE_STEPS, NUM_STEPS, RUN_OUTPUTS, USED_OUTPUTS
from panic.store.store import Store

GIVEN = "(SELECT value FROM json_each(?4))"


class FixedSeedStep(NamedTuple):
    """A stored step of a run with a fixed seed, with the shape epoch in which its model made it."""

    run: int
    step: int
    input: bytes
    output: bytes
    seed: int
    batch: int
    epoch: int


class Tail(NamedTuple):
    """Where a run stands: how many steps it has, and the digest of its last output, or of its prompt."""

    run: int
    num_steps: int
    output: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrigin:
    """What made an image: the model as named in the network, called with `batch_size` items."""

    digest: bytes
    model: str
    batch_size: int
    seed: int
    input: bytes
    input_modality: str


def tails(store: Store, experiment: int) -> list[Tail]:
    """Where every run of an experiment stands."""
    rows = store.db.rows(
        "SELECT run.id, coalesce(step + 1, 0), digest FROM run LEFT JOIN invocation AS last"
        " ON last.run = run.id AND last.step = (SELECT max(step) FROM invocation WHERE run = run.id)"
        " JOIN output ON output.id = coalesce(last.output, run.prompt) WHERE experiment = ? ORDER BY run.id",
        experiment,
    )
    return [Tail(*row) for row in rows]


def fixed_seed_history(store: Store, experiment: int) -> Iterator[FixedSeedStep]:
    """Steps of the runs with a fixed seed, in the order of runs and steps.

    The stuck detection and the coalescing of runs need to know them.
    """
    rows = store.db.stream(
        "SELECT i.run, i.step, a.digest, b.digest, i.seed, i.batch, batch.epoch"
        " FROM run CROSS JOIN invocation AS i ON i.run = run.id JOIN batch ON batch.id = i.batch"
        " JOIN output AS a ON a.id = i.input JOIN output AS b ON b.id = i.output"
        " WHERE experiment = ? AND run.seed <> -1 ORDER BY run.id, i.step",
        experiment,
    )
    return map(FixedSeedStep._make, rows)


def outputs(store: Store, runs: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """(run, digest) of the outputs of runs, in the order of runs and steps."""
    return store.db.stream(
        "SELECT run, digest FROM invocation JOIN output ON output.id = output"
        " WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, step",
        json.dumps(list(runs)),
    )


def embeddings(
    store: Store, experiment: int, model: int, modalities: Sequence[str], *, run: int | None = None
) -> list[tuple[bytes, str]]:
    """(digest, modality) of the experiment's outputs that have no vector under a model.

    Prompts included; of one run only, if asked.
    """
    wanted = [str(modality) for modality in modalities]
    used = USED_OUTPUTS if run is None else RUN_OUTPUTS
    return store.db.rows(
        f"SELECT digest, modality FROM output WHERE id IN ({used}) AND modality IN (?3, ?4)"
        " AND NOT EXISTS (SELECT 1 FROM embedding WHERE embedding.output = output.id AND model = ?2)"
        " ORDER BY id",
        *(experiment if run is None else run, model, wanted[0], wanted[-1]),
    )


def diagrams(
    store: Store,
    experiment: int,
    model: int,
    settings_digest: str,
    modality: str,
    *,
    min_points: int = 1,
) -> list[int]:
    """Complete runs (a failed one never is) with all vectors and without a diagram of as many points.

    None of less than `min_points`: they have no diagram.
    """
    rows = store.db.rows(
        "WITH complete AS (SELECT run.id FROM run LEFT JOIN stuck ON stuck.run = run.id"
        " LEFT JOIN repeated ON repeated.run = run.id"
        "  WHERE experiment = ?1 AND"
        f" (coalesce(stuck.run, repeated.run) NOTNULL OR {NUM_STEPS} >= max_length)),"
        " cloud AS (SELECT complete.id, count(*) AS num_points"
        "   FROM complete CROSS JOIN invocation ON invocation.run = complete.id"
        "   JOIN output ON output.id = invocation.output AND modality = ?4"
        "   LEFT JOIN embedding ON embedding.output = output.id AND model = ?2"
        "   GROUP BY complete.id HAVING count(*) = count(model) AND count(*) >= ?5)"
        " SELECT id FROM cloud WHERE NOT EXISTS (SELECT 1 FROM diagram WHERE run = cloud.id"
        "   AND model = ?2 AND settings_digest = ?3 AND diagram.num_points = cloud.num_points) ORDER BY id",
        *(experiment, model, settings_digest, str(modality), min_points),
    )
    return [run for (run,) in rows]


def vectorisations(
    store: Store, experiment: int, model: int, settings_digest: str, measures: Sequence[int]
) -> Iterator[tuple[int, list[int]]]:
    """(diagram, measures that it lacks in some dimension) of the current diagrams of an experiment."""
    rows = store.db.rows(
        f"SELECT current.id, measure.id FROM ({CURRENT}) AS current JOIN measure ON measure.id IN {GIVEN}"
        " WHERE EXISTS (SELECT 1 FROM diagram_bars WHERE diagram = current.id AND NOT EXISTS"
        "   (SELECT 1 FROM vectorisation AS v WHERE v.diagram = current.id"
        "    AND v.dimension = diagram_bars.dimension AND v.measure = measure.id)) ORDER BY run, measure.id",
        *(experiment, model, settings_digest, json.dumps(list(measures))),
    )
    for diagram, group in groupby(rows, key=lambda row: row[0]):
        yield diagram, [measure for _, measure in group]


def distances(
    store: Store, experiment: int, model: int, settings_digest: str, measure: int, dimensions: int
) -> Iterator[tuple[int, list[int]]]:
    """(diagram, diagrams of later runs to which it lacks distances) of the current diagrams.

    A pair is complete with a distance by the measure in each of so many `dimensions`.
    """
    key = (experiment, model, settings_digest)
    current = [id for (id,) in store.db.rows(f"SELECT id FROM ({CURRENT}) ORDER BY run", *key)]
    known = {
        (a, b)
        for a, b in store.db.stream(
            f"SELECT a, b FROM ({CURRENT}) AS current JOIN distance ON a = current.id"
            " WHERE measure = ?4 GROUP BY a, b HAVING count(*) = ?5",
            *(*key, measure, dimensions),
        )
    }
    for place, one in enumerate(current):
        others = [b for b in current[place + 1 :] if (min(one, b), max(one, b)) not in known]
        if others:
            yield one, others


def images(store: Store, experiment: int) -> Iterator[bytes]:
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
            model=(names := decode_network(network))[step % len(names)],
            batch_size=batch_size,
            seed=seed,
            input=given,
            input_modality=modality,
        )
        for digest, network, step, batch_size, seed, given, modality, _ in rows
        if digest in digests
    ]


def lost_images(store: Store, experiment: int) -> set[bytes]:
    """Digests of images that could not be computed again, as failures of the kind "lost" tell."""
    rows = store.db.rows(
        "SELECT detail FROM failure JOIN run ON run.id = run WHERE experiment = ? AND kind = 'lost'",
        experiment,
    )
    return {bytes.fromhex(line) for (detail,) in rows for line in detail.split()}
