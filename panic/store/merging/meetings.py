"""Runs that met across stores: what was computed in both from one state has to be equal to the bit.

A state is (experiment, model, shape, seed, input), as in the engine's memo. `temp.memo` keeps the first
output of each, also of runs that do not come because they are in conflict: so it does not matter which source
came first. A state with two outputs is disputed, and no run that has it comes, except that the target's own
states are beyond dispute, those of runs included that the caller has chosen of a source: what differs from
them does not come. Nothing is kept of models that are not repeatable, of imports and of null models, whose
outputs do not follow from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from panic.store.merging.walk import THESE, Walk

_COMPUTED = (
    " AND {of} <> -1 AND model.is_repeatable AND {experiment} NOT IN"
    " (SELECT id FROM main.experiment WHERE name GLOB '*/null-*' UNION"
    " SELECT experiment FROM main.epoch WHERE device_kind = 'given')"
)
_OWN = _COMPUTED.format(of="run.seed", experiment="run.experiment")
_KEY = ("experiment", "model", "epoch", "padded_size", "seed", "input")
_STATES = (
    "SELECT run.experiment, model.id AS model, batch.epoch, batch.padded_size, step.seed, step.input,"
    " step.output, run.id AS run, FALSE, run.id <= (SELECT run FROM temp.first)"
    " FROM main.run CROSS JOIN main.invocation AS step ON step.run = run.id"
    " CROSS JOIN main.batch ON batch.id = step.batch CROSS JOIN main.model ON model.id = batch.model"
)
_THEIRS = (
    "SELECT e.new AS experiment, m.new AS model, b.epoch, b.padded_size, s.seed, i.new AS input,"
    " o.new AS output, {run} AS run FROM {runs} CROSS JOIN theirs.run AS r ON r.id = own.old"
    " CROSS JOIN temp.map_experiment AS e ON e.old = r.experiment"
    " CROSS JOIN theirs.invocation AS s ON s.run = own.old"
    " CROSS JOIN theirs.batch AS b ON b.id = s.batch"
    " CROSS JOIN temp.map_model AS m ON m.old = b.model CROSS JOIN main.model ON model.id = m.new"
    " CROSS JOIN temp.map_output AS i ON i.old = s.input"
    " CROSS JOIN temp.map_output AS o ON o.old = s.output WHERE TRUE"
    + _COMPUTED.format(of="r.seed", experiment="e.new")
)
_COMING = _THEIRS.format(run="own.new", runs="temp.map_run AS own")
_REFUSED = _THEIRS.format(run="NULL", runs="(SELECT run AS old FROM temp.left_out WHERE is_refused) AS own")
_CHOSEN = (
    f"SELECT experiment, model, epoch, padded_size, seed, input, output, run, FALSE, TRUE FROM ({_COMING})"
)
_DIFFERS = "(memo.is_disputed OR memo.output <> s.output)"
_SAME = " AND ".join(f"memo.{column} = s.{column}" for column in _KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """A run that came in this merge, and one with a state of it; None where that one did not come.

    is_new: it comes with the source in hand. is_equal: both go on alike.
    """

    run: int
    other: int | None
    is_new: bool
    is_equal: bool


def open_memo(walk: Walk) -> None:
    """Remember the states of what the target has."""
    walk.connection.execute(
        "CREATE TEMP TABLE memo (experiment INTEGER, model INTEGER, epoch INTEGER, padded_size INTEGER,"
        " seed INTEGER, input INTEGER, output INTEGER, run INTEGER, is_disputed INTEGER, is_own INTEGER,"
        f" PRIMARY KEY ({', '.join(_KEY)})) WITHOUT ROWID"  # typed, or the key is not searched by
    )
    walk.connection.execute("CREATE TEMP TABLE chosen (run INTEGER PRIMARY KEY)")
    _remember(walk, f"{_STATES} WHERE TRUE{_OWN}")


def _remember(walk: Walk, states: str, *parameters: object) -> None:
    """Remember these states unless they are known; what is the target's own is beyond dispute from now on."""
    walk.connection.execute(
        f"INSERT INTO temp.memo {states} ON CONFLICT DO UPDATE SET (output, run, is_disputed, is_own) ="
        " (excluded.output, excluded.run, FALSE, TRUE) WHERE excluded.is_own AND NOT memo.is_own",
        parameters,
    )


def meetings(walk: Walk) -> list[Meeting]:
    """The runs of the source, new to the target, that meet runs which are there.

    Where any goes on otherwise, also those that came with sources before and have a state of it.
    """
    found = _meetings(walk)
    is_changed = walk.value(
        "SELECT EXISTS (SELECT 1 FROM temp.left_out WHERE is_refused) OR EXISTS (SELECT 1 FROM temp.chosen)"
    )
    if not is_changed and all(one.is_equal for one in found):
        return found
    _dispute(walk)
    before = walk.rows(
        f"SELECT DISTINCT s.run FROM ({_STATES} WHERE run.id > (SELECT run FROM temp.first)"
        f" AND run.id <= ?{_OWN}) AS s CROSS JOIN temp.memo ON {_SAME} WHERE {_DIFFERS}",
        walk.last["run"],
    )
    came = [Meeting(run=run, other=None, is_new=False, is_equal=False) for (run,) in before]
    return _meetings(walk) + came


def _meetings(walk: Walk) -> list[Meeting]:
    rows = walk.rows(
        f"SELECT s.run, min(CASE WHEN {_DIFFERS} THEN memo.run END), min(memo.run), max({_DIFFERS})"
        f" FROM ({_COMING}) AS s CROSS JOIN temp.memo ON {_SAME}"
        " WHERE s.run > ? AND coalesce(memo.run, 0) NOT IN (SELECT run FROM temp.chosen) GROUP BY s.run",
        walk.last["run"],
    )
    return [
        Meeting(run=run, other=differing if differs else other, is_new=True, is_equal=not differs)
        for run, differing, other, differs in rows
        if differs or other is not None
    ]


def _dispute(walk: Walk) -> None:
    """Find the states from which the source goes on otherwise than what came before."""
    key = ", ".join(f"memo.{column}" for column in _KEY)
    for states in (_COMING, _REFUSED):
        found = walk.rows(
            f"SELECT DISTINCT {key} FROM ({states}) AS s CROSS JOIN temp.memo ON {_SAME}"
            f" WHERE {_DIFFERS} AND NOT memo.is_own"
        )
        walk.connection.executemany(
            f"UPDATE temp.memo SET is_disputed = TRUE WHERE ({', '.join(_KEY)}) = (?, ?, ?, ?, ?, ?)", found
        )


def forget(walk: Walk, runs: Sequence[int]) -> None:
    """Say no more of whose a state is: the number of a run that goes may be given to another one."""
    walk.connection.execute(f"UPDATE temp.memo SET run = NULL WHERE run IN {THESE}", (json.dumps(runs),))


def remember_refused(walk: Walk) -> None:
    """Remember the states of the source's runs that were refused: they speak against others, too."""
    columns = ", ".join([*_KEY, "output", "run"])
    walk.connection.execute(
        f"INSERT OR IGNORE INTO temp.memo ({columns}, is_disputed, is_own)"
        f" SELECT {columns}, FALSE, FALSE FROM ({_REFUSED})"
    )


def give_way(walk: Walk, runs: Sequence[int]) -> list[Meeting]:
    """Let the source's content of runs count instead of the target's; whose cannot, and what it contradicts.

    A run stays where what comes goes on otherwise from a state that other runs of the target have: those say
    what is right there, and once it stays it is one of them. A state in dispute is nobody's (`forget`), so
    what earlier sources have said of it is not lost with the runs that give way.
    """
    walk.connection.execute("DELETE FROM temp.chosen")
    if not runs:
        return []
    chosen = "(SELECT run FROM temp.chosen)"
    walk.connection.execute("INSERT INTO temp.chosen SELECT value FROM json_each(?)", (json.dumps(runs),))
    walk.connection.execute(f"DELETE FROM temp.memo WHERE run IN {chosen}")
    _remember(walk, f"{_STATES} WHERE run.id NOT IN {chosen}{_OWN}")
    found = []
    while stay := walk.rows(
        f"SELECT s.run, min(memo.run) FROM ({_COMING}) AS s CROSS JOIN temp.memo ON {_SAME}"
        f" WHERE s.run IN {chosen} AND memo.is_own AND memo.output <> s.output GROUP BY s.run"
    ):
        found += [Meeting(run=run, other=other, is_new=True, is_equal=False) for run, other in stay]
        these = json.dumps([run for run, _ in stay])
        walk.connection.execute(f"DELETE FROM temp.chosen WHERE run IN {THESE}", (these,))
        _remember(walk, f"{_STATES} WHERE run.id IN {THESE}{_OWN}", these)
    _remember(walk, f"{_CHOSEN} WHERE run IN {chosen}")
    return found


def remember(walk: Walk) -> None:
    """Remember the states of what has come from a source."""
    _remember(walk, f"{_STATES} WHERE run.id IN (SELECT new FROM temp.map_run){_OWN}")
