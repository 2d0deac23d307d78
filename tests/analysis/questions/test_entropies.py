"""Persistence entropies of runs whose bars are known, and beside their walks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.questions import entropies
from tests.analysis.conftest import TEXT, corner


def test_entropy_of_equal_bars_is_the_logarithm_of_their_number(full):
    found = entropies.entropies(load(full.store, "demo"), "embed")
    components = found.filter(pl.col("dimension") == 0)
    assert components["num_bars"].to_list() == [4, 4]
    assert components["entropy"].to_list() == pytest.approx([np.log(4)] * 2, rel=1e-5)
    loops = found.filter(pl.col("dimension") == 1)
    assert loops["longest"][0] == pytest.approx(2 * np.sin(2 * np.pi / 5) - 2 * np.sin(np.pi / 5), rel=1e-5)


def test_a_run_that_repeats_itself_has_less_entropy_than_walks(bench):
    bench.walk("abcd" * 5)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    found = entropies.against_walks(bench.evidence, TEXT).row(0, named=True)
    assert found["value"] == pytest.approx(np.log(3), rel=1e-6)
    assert found["value"] < found["low"]
