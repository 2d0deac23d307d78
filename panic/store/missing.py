"""What a store lacks: the questions by which every stage of the engine finds its work.

Each stage is a function of that, so first run, resume, extension and repair are the same code. Answers hold
row numbers and digests as bytes, because the engine asks about every step.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from typing import Any, NamedTuple

from panic.arms import first_step, maker
from panic.store.codec import decode_network
from panic.store.reading import (
    CURRENT,
    IMAGE_INTERVENTIONS,
    IMAGE_STEPS,
    NUM_STEPS,
    RUN_OUTPUTS,
    USED_OUTPUTS,
    arms,
)
from panic.store.records import RunRow
from panic.store.store import Store

END = 2**63 - 1
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
    place: int | None = None
    """Of an intervention before the step its number among those; None for the step itself."""


class Shared(NamedTuple):
    """Steps [begin, end) that a run lacks and run `of` has: nothing has stepped into either yet."""

    run: int
    of: int
    begin: int
    end: int


class Tail(NamedTuple):
    """Where a run stands: how many steps it has, and what is there for the next one.

    That is its last output, or its prompt, or what interventions before the next step have made of it:
    num_made of them are stored.
    """

    run: int
    num_steps: int
    output: bytes
    modality: str
    num_made: int = 0


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
        "SELECT run.id, coalesce(last.step + 1, 0), digest, modality, coalesce(made.place + 1, 0) FROM run"
        " LEFT JOIN invocation AS last ON last.run = run.id"
        "  AND last.step = (SELECT max(step) FROM invocation WHERE run = run.id)"
        " LEFT JOIN intervention AS made ON made.run = run.id AND made.step = coalesce(last.step + 1, 0)"
        "  AND made.place = (SELECT max(place) FROM intervention AS one"
        "   WHERE one.run = run.id AND one.step = coalesce(last.step + 1, 0))"
        " JOIN output ON output.id = coalesce(made.output, last.output, run.prompt)"
        " WHERE experiment = ? ORDER BY run.id",
        experiment,
    )
    return [Tail(*row) for row in rows]


def shared_steps(store: Store, experiment: int, rows: Iterable[RunRow]) -> list[Shared]:
    """Which of the experiment's runs lack steps that a run of another arm has; `rows` are all of its runs.

    Runs of one network, prompt, seed and repeat are the same until something steps into one of them. Not
    those with a model that is not repeatable: each of them asks for itself.
    """
    known = arms(store, experiment)
    groups: dict[Any, list[RunRow]] = {}
    for row in rows if len(known) > 1 else ():
        if row.is_repeatable:
            groups.setdefault((row.network, row.prompt, row.seed, row.repeat), []).append(row)
    found = []
    for group in groups.values():
        alike = {row.id: first_step(known.get(row.arm, ())) for row in group}
        ends = {id: END if first is None else first for id, first in alike.items()}
        for row in group:
            limit = min(ends[row.id], row.max_length)
            end, of = max((min(other.num_steps, ends[other.id], limit), -other.id) for other in group)
            if row.state in ("todo", "running") and end > row.num_steps:
                found.append(Shared(row.id, -of, row.num_steps, end))
    return found


def fixed_seed_history(store: Store, experiment: int) -> Iterator[FixedSeedStep]:
    """Steps of the runs with a fixed seed, in the order of runs and steps, each after what stepped in.

    The stuck detection and the coalescing of runs need to know them.
    """
    steps = store.db.stream(
        "SELECT i.run, i.step, a.digest, b.digest, i.seed, i.batch, batch.epoch, NULL"
        " FROM run CROSS JOIN invocation AS i ON i.run = run.id JOIN batch ON batch.id = i.batch"
        " JOIN output AS a ON a.id = i.input JOIN output AS b ON b.id = i.output"
        " WHERE experiment = ? AND run.seed <> -1 ORDER BY run.id, i.step",
        experiment,
    )
    between = store.db.rows(
        "SELECT i.run, i.step, a.digest, b.digest, i.seed, i.batch, batch.epoch, place"
        " FROM run CROSS JOIN intervention AS i ON i.run = run.id JOIN batch ON batch.id = i.batch"
        " JOIN output AS a ON a.id = i.input JOIN output AS b ON b.id = i.output"
        " WHERE experiment = ? AND run.seed <> -1 ORDER BY run.id, i.step, place",
        experiment,
    )
    found = map(FixedSeedStep._make, steps)
    if not between:
        return found
    return merge(map(FixedSeedStep._make, between), found, key=lambda one: one[:2])


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
    known = arms(store, experiment)
    found: dict[bytes, tuple[int, ImageOrigin]] = {}
    for steps, place in ((IMAGE_STEPS, "NULL"), (IMAGE_INTERVENTIONS, "place")):
        rows = store.db.stream(
            f"SELECT made.digest, min(i.batch), network, arm, step, {place}, padded_size, i.seed,"
            f" given.digest, given.modality {steps} JOIN output AS given ON given.id = i.input"
            " JOIN batch ON batch.id = i.batch WHERE experiment = ? GROUP BY made.id",
            experiment,
        )
        for digest, batch, network, arm, step, number, *call in rows:
            if digest not in digests or (digest in found and found[digest][0] <= batch):
                continue
            model = maker(decode_network(network), known.get(arm, ()), step, number)
            found[digest] = batch, _origin(digest, model, *call)
    return [origin for _, origin in sorted(found.values(), key=lambda pair: (pair[0], pair[1].digest))]


def _origin(
    digest: bytes, model: str, batch_size: int, seed: int, given: bytes, modality: str
) -> ImageOrigin:
    return ImageOrigin(
        digest=digest,
        model=model,
        batch_size=batch_size,
        seed=seed,
        input=given,
        input_modality=modality,
    )


def lost_images(store: Store, experiment: int) -> set[bytes]:
    """Digests of images that could not be computed again, as failures of the kind "lost" tell."""
    rows = store.db.rows(
        "SELECT detail FROM failure JOIN run ON run.id = run WHERE experiment = ? AND kind = 'lost'",
        experiment,
    )
    return {bytes.fromhex(line) for (detail,) in rows for line in detail.split()}
