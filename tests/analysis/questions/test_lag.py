"""D(k) against numbers that can be worked out by hand, and what is read from curves."""

from __future__ import annotations

import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.questions import lag
from tests.analysis.conftest import TEXT, corner


def test_distance_by_lag_is_the_median_over_runs_of_texts_only(bench):
    bench.walk("ababab")
    bench.walk("aaaaaa", seed=-1)
    bench.embed({"a": corner(0), "b": corner(1)})
    data = load(bench.store, "demo")
    found = lag.lag_curves(data, *TEXT, 9)
    assert found["lag"].to_list() == [0, 1, 2, 3]  # half of the run
    assert found["distance"].to_list() == pytest.approx([0, 0.5, 0, 0.5])  # of 1, 0, 1 and of 0
    assert found["high"].to_list() == pytest.approx([0, 0.75, 0, 0.75])
    assert found["num_runs"].to_list() == [2] * 4
    banded = lag.lag_curves(data, *TEXT, 9, num_surrogates=40)
    assert banded.drop("null_low", "null_high").equals(found)
    assert banded["null_low"][0] is None
    # Shuffled, 3 of 5 pairs differ; the median is half of that, for the other run never moves.
    assert (banded["null_low"][1:] < 0.3).all()
    assert ((banded["null_high"][1:] > 0.3) & (banded["null_high"][1:] < 0.5 + 1e-9)).all()
    assert banded["null_low"][1] > 0  # a or b must follow the other at least once


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([0.0] * 6, "stands still"),
        ([0.5, 0.9, 0.1, 0.5, 0.9, 0.1], "does not remember the output before and comes back after 3"),
        ([0.1, 0.3, 0.5, 0.7, 0.8, 0.9], "remembers the output before and wanders off"),
        ([0.1, 0.15, 0.2, 0.25, 0.3, 0.35], "noise 0.05, drift 0.05 a step"),
        ([0.1, 0.4, 0.5, 0.5, 0.5, 0.9], "remembers the output before and stays in its region"),
    ],
)
def test_motion_is_read_beside_its_null_band(distances, said):
    curves = pl.DataFrame(
        {"group": "n", "lag": range(1, 7), "distance": distances, "null_low": 0.4, "null_high": 0.6}
    )
    read = lag.sentence(lag.Lags(curves=curves, modality="text"))
    assert said in read
    # 2 D(1) - D(2); below 0, or of a cycle, that is no noise.
    assert ("noise" in read) == ("noise" in said)
