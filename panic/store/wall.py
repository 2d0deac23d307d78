"""What many runs put out at the same steps, for whoever looks at all of them at once.

A run that is stuck goes on in its cycle, up to its length: such a cell says which stored step it shows.

    for cell in cells(store, [1, 2, 3], 14, before=4): print(cell.run, cell.step, cell.digest)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from panic.store.reading import NUM_STEPS, USED_OUTPUTS, VISIBLE
from panic.store.store import Store

TEXT_LIMIT = 600
"""Characters of a text in a cell; the rest is asked for by its run and step, or its digest."""


class Cell(NamedTuple):
    """An output of a run at a step. stored: the step that it is stored at, another one in a known cycle.

    length: of the whole text, in characters.
    """

    run: int
    step: int
    stored: int
    digest: str
    modality: str
    text: str | None
    length: int


class Place(NamedTuple):
    """A stored step that put out an output: experiment, run, step."""

    experiment: str
    run: int
    step: int


def cells(store: Store, runs: Sequence[int], step: int | None, before: int = 0) -> list[Cell]:
    """What runs put out at a step (None: each at its last) and at so many steps before, if known."""
    asked: list[tuple[int, int, int]] = []
    for run, num_steps, max_length, entry, period in store.db.rows(
        f"SELECT run.id, {NUM_STEPS}, max_length, entry_step, period FROM run"
        " LEFT JOIN stuck ON stuck.run = run.id WHERE run.id IN (SELECT value FROM json_each(?)) ORDER BY 1",
        json.dumps(list(runs)),
    ):
        end = num_steps if period is None else max(num_steps, max_length)
        last = num_steps - 1 if step is None else step
        for one in range(max(last - before, 0), min(last + 1, end)):
            stored = one if one < num_steps else entry + (one - entry) % period
            asked.append((run, one, stored))
    pairs = sorted({(run, stored) for run, _, stored in asked})
    found = {
        (run, step): rest
        for run, step, *rest in store.db.rows(
            "SELECT run, step, lower(hex(digest)), modality, substr(text, 1, ?2), coalesce(length(text), 0)"
            " FROM json_each(?1) AS pair CROSS JOIN invocation ON run = pair.value ->> 0"
            " AND step = pair.value ->> 1 JOIN output ON output.id = output",
            *(json.dumps(pairs), TEXT_LIMIT),
        )
    }
    return [
        Cell(run, step, stored, *found[run, stored]) for run, step, stored in asked if (run, stored) in found
    ]


def places(store: Store, digest: str, most: int) -> tuple[int, list[Place]]:
    """How many stored steps put out an output, and the first of them; reads all steps of the store once."""
    id = store.db.value("SELECT id FROM output WHERE digest = unhex(?)", digest)
    if id is None:
        return 0, []
    source = (
        "FROM invocation JOIN run ON run.id = run JOIN experiment ON experiment.id = experiment"
        f" WHERE output = ? AND experiment.id {VISIBLE}"
    )
    number: int = store.db.value(f"SELECT count(*) {source}", id)
    rows = store.db.rows(f"SELECT name, run, step {source} LIMIT ?", id, most)
    return number, sorted(Place(*row) for row in rows)


def longest(store: Store, experiment: int) -> int:
    """How many steps the longest run of an experiment (row number) was asked for; 0 without runs."""
    found: int | None = store.db.value("SELECT max(max_length) FROM run WHERE experiment = ?", experiment)
    return found or 0


def recent_calls(
    store: Store, session: int, most: int = 200
) -> list[tuple[str, str, float, float, int, int]]:
    """(device, model, started_at, duration_s, size, padded_size) of the last call on each device."""
    rows = store.db.rows(
        "SELECT device, name, max(started_at), duration_s, size, padded_size FROM (SELECT * FROM batch"
        " WHERE session = ? ORDER BY id DESC LIMIT ?) AS batch JOIN model ON model.id = batch.model"
        " GROUP BY device ORDER BY device",
        *(session, most),
    )
    return [(str(row[0]), str(row[1]), *row[2:]) for row in rows]


def use_little_memory(store: Store, kib: int) -> None:
    """Let the pages that a store's connections keep in memory take at most so much each."""
    store.db.execute(f"PRAGMA cache_size=-{kib}")
    if store.has_images:
        store.images.execute(f"PRAGMA cache_size=-{kib}")


def embedded_steps(store: Store, run: int, model: int) -> list[tuple[int, str, bytes]]:
    """(step, modality, vector) of a run's outputs that have a vector of a model (by its row), in order."""
    rows: list[tuple[int, str, bytes]] = store.db.rows(
        "SELECT step, modality, vector FROM invocation JOIN output ON output.id = invocation.output"
        " JOIN embedding ON embedding.output = output.id AND model = ?2 WHERE run = ?1 ORDER BY step",
        *(run, model),
    )
    return rows


def embedded_prompt(store: Store, run: int, model: int) -> tuple[str, bytes] | None:
    """(modality, vector) of a run's prompt under a model (by its row), if it has one."""
    found: tuple[str, bytes] | None = store.db.row(
        "SELECT modality, vector FROM run JOIN output ON output.id = prompt"
        " JOIN embedding ON embedding.output = prompt AND model = ?2 WHERE run.id = ?1",
        *(run, model),
    )
    return found


def weight(store: Store, experiment: int) -> tuple[int, int, int]:
    """How many images an experiment (row number) has, the bytes of these, and the bytes of its texts."""
    of_texts: int = store.db.value(
        "SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM run JOIN invocation ON run = run.id"
        " JOIN output ON output.id = invocation.output WHERE experiment = ?",
        experiment,
    )
    digests = store.db.stream(
        f"SELECT digest FROM output WHERE modality = 'image' AND id IN ({USED_OUTPUTS})", experiment
    )
    sizes = [
        store.images.value("SELECT length(bytes) FROM image WHERE digest = ?", digest) or 0
        for (digest,) in digests
    ]
    return len(sizes), sum(sizes), of_texts
