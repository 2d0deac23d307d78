"""Dimensions of a plane and of chance."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError
from panic.analysis.questions import dimension
from tests.analysis.conftest import TEXT
from tests.analysis.looks import assert_shown


def test_points_of_a_great_circle_fill_one_dimension_and_walks_more(bench):
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 80)
    circle = np.zeros((80, 6), dtype=np.float32)
    circle[:, 0], circle[:, 1] = np.cos(angles), np.sin(angles)
    texts = [f"text {i}" for i in range(80)]
    bench.add("start", texts, seed=-1, max_length=160)
    bench.embed(dict(zip(texts, circle, strict=True)))
    band = dimension.table(bench.evidence, TEXT)
    row = band.row(0, named=True)
    assert row["value"] == pytest.approx(1, abs=0.25)
    assert row["value"] < row["low"]
    assert_shown(dimension, band)


def test_few_outputs_are_refused(bench):
    vectors = {letter: np.eye(4, dtype=np.float32)[i] for i, letter in enumerate("abcd")}
    bench.walk("abcd" * 6, seed=-1)
    bench.embed(vectors)
    with pytest.raises(AnalysisError, match="20 distinct texts"):
        dimension.table(bench.evidence, TEXT)


@pytest.mark.parametrize(("num_distinct", "is_asked"), [(19, False), (20, True)])
def test_twenty_distinct_outputs_are_enough(bench, num_distinct, is_asked):
    rng = np.random.default_rng(0)
    texts = [f"text {i}" for i in range(30)]
    bench.add("start", texts, seed=-1, max_length=60)
    bench.add("start", [*texts[:num_distinct], *texts[:10]], seed=-1, repeat=1, max_length=60)
    bench.embed({text: rng.normal(size=4).astype(np.float32) for text in texts})
    assert len(dimension.table(bench.evidence, TEXT)) == 1 + is_asked
    assert dimension.STATISTIC.of(bench.evidence, TEXT)["value"].count() == 1 + is_asked
