"""Runs that met across stores: what was computed in both from one state has to be equal to the bit.

A state is (experiment, model, shape, seed, input), as in the engine's memo. `temp.memo` keeps the first
output of each that came into the target; nothing is kept of models that are not repeatable, of imports and of
null models, whose outputs do not follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from panic.store.merging.walk import Walk

_COMPUTED = (
    " AND run.seed <> -1 AND model.is_repeatable AND run.experiment NOT IN"
    " (SELECT id FROM main.experiment WHERE name GLOB '*/null-*' UNION"
    " SELECT experiment FROM main.epoch WHERE device_kind = 'given')"
)
_STATES = (
    "SELECT run.experiment, model.id, batch.epoch, batch.padded_size, step.seed, step.input, step.output,"
    " run.id FROM main.run CROSS JOIN main.invocation AS step ON step.run = run.id"
    " CROSS JOIN main.batch ON batch.id = step.batch CROSS JOIN main.model ON model.id = batch.model"
)
_THEIRS = (
    "FROM temp.map_run AS own CROSS JOIN main.run ON run.id = own.new"
    " CROSS JOIN theirs.invocation AS s ON s.run = own.old"
    " CROSS JOIN theirs.batch AS b ON b.id = s.batch"
    " CROSS JOIN temp.map_model AS m ON m.old = b.model CROSS JOIN main.model ON model.id = m.new"
    " CROSS JOIN temp.map_output AS i ON i.old = s.input"
    " CROSS JOIN temp.map_output AS o ON o.old = s.output"
    " CROSS JOIN temp.memo ON memo.experiment = run.experiment AND memo.model = m.new"
    " AND memo.epoch = b.epoch AND memo.padded_size = b.padded_size AND memo.seed = s.seed"
    " AND memo.input = i.new"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """A run that comes, one that is there and has a state of it, and whether they go on alike."""

    run: int
    other: int
    is_equal: bool


def open_memo(walk: Walk) -> None:
    """Remember the states of what the target has."""
    walk.connection.execute(
        "CREATE TEMP TABLE memo (experiment INTEGER, model INTEGER, epoch INTEGER, padded_size INTEGER,"
        " seed INTEGER, input INTEGER, output INTEGER, run INTEGER,"  # typed, or the key is not searched by
        " PRIMARY KEY (experiment, model, epoch, padded_size, seed, input)) WITHOUT ROWID"
    )
    walk.connection.execute(f"INSERT OR IGNORE INTO temp.memo {_STATES} WHERE TRUE{_COMPUTED}")


def meetings(walk: Walk) -> list[Meeting]:
    """The runs of the source, new to the target, that meet runs which are there."""
    rows = walk.connection.execute(
        f"SELECT own.new, min(CASE WHEN o.new <> memo.output THEN memo.run END), min(memo.run) {_THEIRS}"
        f" WHERE own.new > ? AND memo.run <> own.new{_COMPUTED} GROUP BY own.new",
        (walk.last["run"],),
    )
    return [
        Meeting(run=run, other=other if differs is None else differs, is_equal=differs is None)
        for run, differs, other in rows
    ]


def remember(walk: Walk) -> None:
    """Remember the states of what has come from a source."""
    walk.connection.execute(
        f"INSERT OR IGNORE INTO temp.memo {_STATES} WHERE run.id IN (SELECT new FROM temp.map_run){_COMPUTED}"
    )
