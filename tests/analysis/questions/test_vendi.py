"""Tests of the Vendi score across runs and within them, of vectors at right angles."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import vendi
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


def fill(bench, places: list[list[int]], **how) -> None:
    """A run of a prompt of its own through the corners of these numbers, with texts of its own."""
    vectors = {}
    for number, path in enumerate(places):
        texts = [f"{number} {output}" for output in range(len(path))]
        bench.add(f"start {number}", texts, seed=-1, max_length=2 * len(path), **how)
        vectors |= {text: corner(place) for text, place in zip(texts, path, strict=True)}
    bench.embed(vectors)


def test_runs_that_become_alike(bench):
    fill(bench, [[number % 4] * 3 + [0] * 3 for number in range(12)])
    answer = vendi.table(bench.evidence, TEXT)
    assert answer.steps["score"].to_list() == pytest.approx([4, 4, 4, 1, 1, 1])
    assert answer.steps["step"].to_list() == [1, 3, 5, 7, 9, 11]
    row = answer.tests.row(0, named=True)
    assert (row["early"], row["late"]) == pytest.approx((4, 1))
    assert row["p_value"] <= 0.02  # 16 of 4096 swaps: three runs begin where all end
    assert answer.runs["score"].to_list() == pytest.approx([1, 2, 2, 2] * 3)
    said = vendi.sentence(answer)
    assert "draw → tell 4 early and 1 late of 12 runs (falls, p = " in said
    assert "2 in the median run of 6 texts" in said
    charts = assert_shown(vendi, answer)
    assert list(charts) == ["across runs", "within runs"]


def test_runs_that_coalesced_count_as_one_in_the_test(bench):
    for number in range(7):
        run = bench.add(f"start {number}", ["a", "b"], max_length=20)
        bench.stuck(run, 0, 4)
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = vendi.table(bench.evidence, TEXT)
    assert set(answer.steps["score"].round(6)) == {1.0}
    assert answer.tests["num_units"].to_list() == [1]
    assert "1 independent start, too few to test a change" in vendi.sentence(answer)


def test_repeats_of_one_prompt_are_one_start(bench):
    """Twelve runs of two prompts were said to be twelve independent ones."""
    vectors = {}
    for number in range(12):
        texts = [f"{number} {output}" for output in range(4)]
        bench.add(f"start {number % 2}", texts, seed=-1, repeat=number // 2, max_length=8)
        vectors |= {text: corner(number % 4 if place < 2 else 0) for place, text in enumerate(texts)}
    bench.embed(vectors)
    answer = vendi.table(bench.evidence, TEXT)
    assert answer.tests["num_units"].to_list() == [2]
    assert "2 independent starts, too few to test a change" in vendi.sentence(answer)


def test_two_runs_are_refused(bench):
    fill(bench, [[0, 1], [2, 3]])
    with pytest.raises(AnalysisError, match="no network has 3 runs with text vectors of embed"):
        vendi.table(bench.evidence, TEXT)


def test_vectors_without_direction_are_left_out(bench):
    fill(bench, [[0, 1], [1, 2], [2, 3]])
    bench.add("a start", ["nothing", "more"], seed=-1, max_length=4)
    bench.embed({"nothing": np.zeros(4, np.float32), "more": corner(0)})
    assert vendi.table(bench.evidence, TEXT).tests["num_runs"].to_list() == [3]


@pytest.mark.slow
def test_the_level_is_held_where_diversity_stays():
    """Of 1,000 data sets of 8 runs of independent outputs 3 to 7 % are called changed at 5 %."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(1000):
        sides = rng.normal(size=(2, 2, 8, 5))
        sides /= np.linalg.norm(sides, axis=-1, keepdims=True)
        p_values.append(float(vendi.changed(sides[0], sides[1], np.arange(8)).p_value))
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07


def test_of_a_network_40_runs_are_scored(bench):
    fill(bench, [[number % 4] * 7 for number in range(41)])
    answer = vendi.table(bench.evidence, TEXT)
    row = answer.tests.row(0, named=True)
    assert (row["num_runs"], len(answer.runs), row["num_units"]) == (40, 40, 40)
    assert row["p_least"] == 1 / 200, "199 swaps are drawn of so many"


def test_of_a_long_run_100_outputs_are_scored_and_60_places_drawn(bench):
    """Three outputs of 101 are at corners of their own; those of the statistic are the first 100."""
    path = [0] * 98 + [1, 2, 3]
    fill(bench, [path] * 3)
    answer = vendi.table(bench.evidence, TEXT)
    assert len(answer.steps) == 60
    assert answer.runs["num_outputs"].to_list() == [100] * 3
    shares = np.array([98, 1, 1]) / 100
    score = np.exp(-(shares * np.log(shares)).sum())
    found = vendi.STATISTIC.of(bench.evidence, TEXT)["value"].to_list()
    assert found == pytest.approx([score] * 3)


def test_three_steps_early_are_beside_three_late(bench):
    """Runs are apart in their first three outputs, at two corners then, and together in the last three."""
    fill(bench, [[number % 4] * 3 + [number % 2] * 2 + [0] * 3 for number in range(8)])
    row = vendi.table(bench.evidence, TEXT).tests.row(0, named=True)
    assert (row["early"], row["late"]) == pytest.approx((4, 1))
