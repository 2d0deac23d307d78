"""The diagram that settings of a config ask for is the one that is made by hand with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from panic.config import DiagramSettings
from panic.topology import Budget, TopologyError, diagram, sliding_window
from panic.topology.settings import asked

POINTS = np.random.default_rng(0).normal(size=(14, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_dimension": 0}, {"max_dimension": 2}, {"metric": "cosine"}, {"metric": "euclidean"},
        {"threshold": 1.5}, {"landmarks": 6, "metric": "euclidean"}, {"generators": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_reaches_the_diagram(settings: dict[str, Any]) -> None:
    one = DiagramSettings.model_validate(settings)
    found = asked(POINTS, one)
    by_default = {"max_dimension": one.max_dimension, "metric": one.metric}
    want = diagram(POINTS, **{**by_default, **settings})
    assert found.max_dimension == one.max_dimension
    for dimension in range(one.max_dimension + 1):
        np.testing.assert_array_equal(found.bars(dimension), want.bars(dimension))
    assert (found.num_unique, found.error) == (want.num_unique, want.error)
    assert (found.generators is None) == (not one.generators)


def test_windows_are_those_of_the_series() -> None:
    one = DiagramSettings.model_validate({"metric": "euclidean", "window": {"dimension": 3, "delay": 2}})
    found, want = asked(POINTS, one), diagram(sliding_window(POINTS, 3, 2))
    assert (found.num_points, want.num_points) == (10, 10)
    np.testing.assert_array_equal(found.bars(0), want.bars(0))
    with pytest.raises(TopologyError, match="3 values 2 apart spans 5 steps, the series has 4"):
        asked(POINTS[:4], one)


def test_the_budget_is_the_diagrams() -> None:
    with pytest.raises(TopologyError, match="the limit is"):
        asked(POINTS, DiagramSettings(), Budget(memory_bytes=1000))
