"""Mean dwells of clusters against the exact ones of their labels."""

from __future__ import annotations

import pytest

from panic.analysis import AnalysisError
from panic.analysis.questions import mean_dwells
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


def test_mean_dwells_are_chances_over_exits_of_runs_with_fresh_noise(bench):
    bench.walk("aaaabbbbbbaabbbb", seed=-1)
    bench.walk("bbbbbbbbaaaaaaaa")  # a fixed seed: not counted
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = mean_dwells.table(bench.evidence, TEXT)
    found = {row["name"]: row for row in answer.iter_rows(named=True)}
    assert found["a"]["mean"] == pytest.approx(6 / 2)  # two stays of 4 and 2
    assert found["b"]["mean"] == pytest.approx(9 / 1)  # one of 6, and 3 chances in one that is cut off
    assert found["a"]["chance"] == pytest.approx(16 / 10)  # 1 / (1 - 6/16)
    assert found["b"]["num_runs"] == 1
    assert "in “b”, 9 outputs" in mean_dwells.sentence(answer)
    assert_shown(mean_dwells, answer)


def test_what_is_never_left_has_no_mean(bench):
    bench.walk("aaaaaaaa", seed=-1)
    bench.embed({"a": corner(0)})
    with pytest.raises(AnalysisError, match="was seen to leave"):
        mean_dwells.table(bench.evidence, TEXT)


def test_one_output_is_no_outputs(bench):
    bench.walk("abababababab", seed=-1)
    bench.embed({"a": corner(0), "b": corner(1)})
    assert ", 1 output (95 % interval" in mean_dwells.sentence(mean_dwells.table(bench.evidence, TEXT))
