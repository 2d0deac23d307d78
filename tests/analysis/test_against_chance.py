"""Runs beside their null models, where it is known on which side of the band they must be."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError, against_chance, load, readings, tables
from tests.analysis.test_tables import TEXT, corner, walk

LETTERS = "abcdefghijklmnopqrst"


def test_a_circle_has_a_longer_loop_than_walks_with_its_steps(bench):
    walk(bench, LETTERS)
    turns = 2 * np.pi * np.arange(20) / 20
    circle = np.stack([np.cos(turns), np.sin(turns), np.zeros(20), np.zeros(20)], axis=1).astype(np.float32)
    bench.embed(dict(zip(LETTERS, circle, strict=True)))
    data = load(bench.store, "demo")
    found = against_chance.loops_against_walks(data, *TEXT, num_surrogates=20)
    row = found.row(0, named=True)
    assert row["value"] == pytest.approx(1.7820 - 0.3129, abs=1e-3)
    assert row["low"] <= row["mean"] <= row["high"]
    even = against_chance.entropies_against_walks(data, *TEXT, num_surrogates=20).row(0, named=True)
    assert even["value"] == pytest.approx(np.log(19), rel=1e-6)  # equal bars: the largest there can be
    assert even["low"] < even["value"]


def test_a_run_that_repeats_itself_has_less_entropy_than_walks(bench):
    walk(bench, "abcd" * 5)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    found = against_chance.entropies_against_walks(load(bench.store, "demo"), *TEXT).row(0, named=True)
    assert found["value"] == pytest.approx(np.log(3), rel=1e-6)
    assert found["value"] < found["low"]


def test_long_dwells_are_above_and_alternation_is_below_random_order(bench):
    stays = walk(bench, "aaaaaaaabbbbbbbb", seed=-1)
    turns = walk(bench, "abababababababab", seed=-1, repeat=1)
    walk(bench, "aaaaaaaaaaaaaaaa")  # never leaves: no order to look at
    bench.embed({"a": corner(0), "b": corner(1)})
    states = tables.clusters(load(bench.store, "demo"), *TEXT)
    found = against_chance.dwells_against_shuffles(states)
    rows = {row["run"]: row for row in found.iter_rows(named=True)}
    assert set(rows) == {stays, turns}
    assert (rows[stays]["value"], rows[turns]["value"]) == (8, 1)
    assert rows[stays]["value"] > rows[stays]["high"]
    assert rows[turns]["value"] < rows[turns]["low"]
    # Shuffled, 15 places between outputs are changes with probability 8/15 each: 2 / (1 + 8) of 16 a dwell.
    assert rows[turns]["mean"] == pytest.approx(16 / 9, rel=0.15)
    told = readings.band_reading(found, readings.DWELL)
    assert f"in 1 of 2 runs (run {stays}) and below" in told
    assert f"in 1 of 2 runs (run {turns}); chance alone would give 0.05" in told


def test_what_has_no_band_is_refused(bench):
    walk(bench, "aaaa")
    bench.embed({"a": corner(0)})
    data = load(bench.store, "demo")
    with pytest.raises(AnalysisError, match="no run has 6 text vectors"):
        against_chance.loops_against_walks(data, *TEXT)
    with pytest.raises(AnalysisError, match="two clusters"):
        against_chance.dwells_against_shuffles(tables.clusters(data, *TEXT))
