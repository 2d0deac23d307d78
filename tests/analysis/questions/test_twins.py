"""Twins that part, and how fast."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.questions import twins
from tests.analysis.conftest import TEXT, angle_vector


def test_twins_share_network_and_prompt_and_have_fresh_noise(bench):
    bench.walk("aab")
    first = bench.walk("aab", seed=-1)
    second = bench.walk("aba", seed=-1, repeat=1)
    bench.add("another", ["b", "b", "b"], seed=-1)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    found = twins.twins(load(bench.store, "demo"), *TEXT)
    assert found["pair"].unique().to_list() == [f"runs {first} and {second}"]
    assert found["step"].to_list() == [1, 3, 5]
    assert found["distance"].to_list() == pytest.approx([0, np.sqrt(2), np.sqrt(2)])


def test_growth_is_per_step_of_the_run_although_texts_are_at_every_second():
    """Doubling with every text, which is every second step: ln 2 / 2 per step, over the steps that exist."""
    steps = np.arange(1, 61, 2)
    apart = np.minimum(1e-6 * 2.0 ** np.arange(30), 1.0)
    pairs = pl.concat([pl.DataFrame({"pair": name, "step": steps, "distance": apart}) for name in ("a", "b")])
    found = twins.growth(pairs)
    assert found.rate == pytest.approx(np.log(2) / 2)
    assert (found.first, found.last) == (1, 2 * 16 + 1)  # 1e-6 x 2^16 = 0.066 < 0.1 x the level
    assert found.is_saturated
