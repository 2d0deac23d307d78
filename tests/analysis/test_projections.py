"""Points in a plane, by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.projections import PROJECTIONS, principal_plane, umap


def test_a_plane_holds_its_two_main_directions_and_says_how_much_that_is():
    """Spread by 6, 4 and 2 along three axes: 52 of 56 of the variance, wherever the points lie."""
    points = np.array([[3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, -1.0]])
    places, share = principal_plane(points[:, [2, 0, 1]] + 50)
    assert share == pytest.approx((18 + 8) / (18 + 8 + 2))
    assert np.abs(places) == pytest.approx(np.abs(points[:, :2]), abs=1e-9)


@pytest.mark.parametrize(
    ("points", "places", "share"),
    [
        ([[5.0, 5.0, 5.0]], [[0, 0]], 0.0),
        ([[1.0], [3.0]], [[1, 0], [1, 0]], 1.0),
        ([[2.0, 1.0]] * 3, [[0, 0]] * 3, 0.0),
    ],
)
def test_few_equal_or_flat_points_have_places_too(points, places, share):
    found, told = principal_plane(np.array(points))
    assert np.abs(found) == pytest.approx(np.array(places, dtype=float))
    assert told == share


def test_ten_points_are_enough_for_umap_which_has_to_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    points = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(AnalysisError, match="needs 10 distinct outputs, found 9") as caught:
        umap(points[:9])
    assert caught.value.hint == "use pca"
    with pytest.raises(AnalysisError, match="umap-learn is not installed"):
        umap(points)
    assert {"pca": principal_plane, "umap": umap} == PROJECTIONS
