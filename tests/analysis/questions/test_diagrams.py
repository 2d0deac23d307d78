"""Bars of the largest diagrams, with their networks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis.questions import diagrams
from tests.analysis.conftest import TEXT
from tests.analysis.looks import assert_shown


def test_bars_are_those_of_the_largest_diagram(full):
    found = diagrams.table(full.evidence, TEXT)
    runs = found.group_by("run", "dimension").len().sort("run", "dimension")
    assert runs["len"].to_list() == [5, 1, 5, 1]
    side = 2 * np.sin(np.pi / 5)
    loop = found.filter(pl.col("dimension") == 1).row(0, named=True)
    assert loop["birth"] == pytest.approx(side, rel=1e-5)
    assert loop["model"] == "embed"


def test_of_many_networks_some_are_drawn_and_that_is_said():
    """Of 45 networks there were 45 charts below each other."""
    networks = [f"draw → tell{i}" for i in range(45)]
    bars = pl.DataFrame(
        {"model": "embed", "network": networks, "run": range(45), "dimension": 0, "birth": 0.0, "death": 0.5}
    )
    assert len(diagrams.chart(bars)) == diagrams.MAX_CHARTS == 12
    assert "No more than 12 networks are drawn." in diagrams.sentence(bars)
    few = bars.head(12)
    assert len(diagrams.chart(few)) == 12
    assert "No more than" not in diagrams.sentence(few)


def test_a_loop_lives_between_two_distances():
    """ "A bar lives from the radius": the numbers are distances."""
    bars = pl.DataFrame({"dimension": [0, 1], "birth": [0.0, 0.31], "death": [0.5, 1.8]}).with_columns(
        model=pl.lit("embed"), network=pl.lit("a"), run=7
    )
    assert_shown(diagrams, bars)
    said = diagrams.sentence(bars)
    assert "the longest lives from a distance of 0.31 to one of 1.8 (run 7, a)" in said
