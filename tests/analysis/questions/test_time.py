"""Seconds of work by stage."""

from __future__ import annotations

import pytest

from panic.analysis.questions import time


def test_times_tell_stages_apart(full):
    found = {row["name"]: row for row in time.table(full.evidence).frame.iter_rows(named=True)}
    assert {name: row["stage"] for name, row in found.items()} == {
        "draw": "loops", "tell": "loops", "embed": "embeddings", "persistence diagrams": "diagrams"
    }  # fmt: skip
    assert found["draw"]["seconds"] == pytest.approx(0.75)
    assert (found["draw"]["calls"], found["draw"]["items"]) == (3, 12)
    assert found["persistence diagrams"]["seconds"] == pytest.approx(1.0)
