"""Bars of the largest diagrams, with their networks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis.questions import diagrams
from tests.analysis.conftest import TEXT


def test_bars_are_those_of_the_largest_diagram(full):
    found = diagrams.table(full.evidence, TEXT)
    runs = found.group_by("run", "dimension").len().sort("run", "dimension")
    assert runs["len"].to_list() == [5, 1, 5, 1]
    side = 2 * np.sin(np.pi / 5)
    loop = found.filter(pl.col("dimension") == 1).row(0, named=True)
    assert loop["birth"] == pytest.approx(side, rel=1e-5)
    assert loop["model"] == "embed"
