"""Seconds of work by stage."""

from __future__ import annotations

import json

import pytest

from panic.analysis.questions import time
from tests.analysis.looks import assert_shown


def test_times_tell_stages_apart(full):
    found = {row["name"]: row for row in time.table(full.evidence).frame.iter_rows(named=True)}
    assert {name: row["stage"] for name, row in found.items()} == {
        "draw": "loops", "tell": "loops", "embed": "embeddings", "persistence diagrams": "diagrams"
    }  # fmt: skip
    assert found["draw"]["seconds"] == pytest.approx(0.75)
    assert (found["draw"]["calls"], found["draw"]["items"]) == (3, 12)
    assert found["persistence diagrams"]["seconds"] == pytest.approx(1.0)


def test_sessions_that_have_told_are_summed_by_name_and_the_rest_is_said(full):
    started = full.evidence.sessions[0].started_at
    rows = [
        {"place": place, "name": name, "model": model, "start_s": 0.0, "width_s": 60.0, "seconds": lasted}
        for place, name, model, lasted in (
            ("worker 1", "calling", "draw", 6.0), ("worker 1", "waiting for a call", "", 3.0),
            ("driver", "waiting for models", "", 9.0),
        )
    ]  # fmt: skip
    with full.store.transaction() as connection:
        connection.execute(
            "UPDATE session SET started_at = ?, ended_at = ?, end_state = 'done', timeline = ?",
            (started, started + 10, json.dumps(rows)),
        )
    answer = time.table(full.evidence)
    assert (answer.wall_s, answer.told_s) == pytest.approx((10, 10))
    said = time.sentence(answer)
    assert "calling draw 6 s (60%); waiting for a call 3 s (30%); unattributed 10.0%" in said
    assert list(assert_shown(time, answer)) == ["workers", "driver", "calls"]
    two = [*rows, rows[0] | {"place": "worker 2"}]
    full.store.db.connection.execute("UPDATE session SET timeline = ?", (json.dumps(two),))
    answer = time.table(full.evidence)
    assert (answer.wall_s, answer.told_s) == pytest.approx((10, 20)), "of two workers"


SPAN = {"place": "worker", "name": "calling", "model": "draw", "start_s": 0.0, "width_s": 1.0, "seconds": 1.0}


@pytest.mark.parametrize(
    "told",
    [
        {"seconds": {"worker": {"calling": 1.0}}}, [1, 2], ["a"], [{}], [{"start_s": 1.0}], "x", 5,
        [[1], [2, 3]], [dict.fromkeys((*time.SPENT, "start_s"), "x")], [dict.fromkeys(time.SPENT), 3],
        *([SPAN | {name: None}] for name in SPAN),
        *([SPAN | {name: float("inf")}] for name in ("start_s", "width_s", "seconds")),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_timeline_is_not_told(full, told):
    """A report of a store that said otherwise ended in an error of polars."""
    with full.store.transaction() as connection:
        connection.execute(
            "UPDATE session SET timeline = ?", (json.dumps(told).replace("Infinity", "1e999"),)
        )
    answer = time.table(full.evidence)
    assert answer.told_s == 0.0
    assert answer.spent.is_empty()
    assert len(answer.frame) == 4
