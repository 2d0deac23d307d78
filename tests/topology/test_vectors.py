"""Diagrams as vectors, against values worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from panic.config import Vectorisation
from panic.topology import (
    TopologyError,
    betti_curve,
    entropy,
    landscape,
    persistence_image,
    silhouette,
    sliding_window,
    vectorise,
)
from panic.topology.distances import checked, checked_bars
from panic.topology.vectors import grid

BARS = [[0.0, 4.0], [1.0, 3.0], [2.0, np.inf]]
AT = {"sample_range": (0.0, 4.0), "resolution": 5}  # 0, 1, 2, 3, 4


def test_a_landscape_is_the_kth_highest_tent():
    found = landscape(BARS, num_landscapes=3, **AT)
    np.testing.assert_allclose(found, [[0, 1, 2, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], atol=1e-12)


def test_a_silhouette_is_the_weighted_mean_tent():
    np.testing.assert_allclose(silhouette(BARS, **AT), np.array([0, 4, 10, 4, 0]) / 6, atol=1e-12)
    np.testing.assert_allclose(silhouette(BARS, power=0, **AT), np.array([0, 1, 3, 1, 0]) / 2, atol=1e-12)


def test_a_betti_curve_counts_what_is_alive_with_the_infinite():
    assert betti_curve(BARS, **AT).tolist() == [1, 2, 3, 2, 1]


def test_an_image_has_its_weight_at_birth_and_length():
    image = persistence_image(
        [[1.0, 4.0], [2.0, np.inf]], bandwidth=0.3, resolution=(5, 5), sample_range=(0, 4, 0, 4)
    )
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert (row, column) == (3, 1)  # length 3, birth 1
    inside = norm.cdf(0.6 / 0.3) - norm.cdf(-0.2 / 0.3)  # of a pixel from 0.8 to 1.6, or 2.4 to 3.2
    assert image.max() == pytest.approx(3 * inside**2, rel=1e-12)
    assert persistence_image([[1.0, 4.0]], bandwidth=0.01, sample_range=(0, 4, 0, 4)).sum() == pytest.approx(
        3
    )


@pytest.mark.parametrize("bandwidth", [0.01, 0.05, 0.2])
def test_an_image_holds_integrals_over_its_pixels(bandwidth):
    """As Adams et al. (2017) and persim have it; values at nodes were up to 24 % off at bandwidth 0.05."""
    bars = np.array([[0.1, 0.5], [0.25, 0.31], [0.4, 1.3], [0.4, 1.3]])
    found = persistence_image(bars, bandwidth=bandwidth, resolution=(4, 3), sample_range=(0, 0.5, 0, 1))

    def integral(row: int, column: int) -> float:
        """By Gauss-Legendre quadrature on 40 x 40 parts of the pixel."""
        nodes, weights = np.polynomial.legendre.leggauss(8)
        part = lambda low, high: (low + high) / 2 + (high - low) / 2 * nodes  # noqa: E731
        edges = lambda low, size: low + size * np.arange(41) / 40  # noqa: E731
        x, y = edges(0.125 * column, 0.125), edges(row / 3, 1 / 3)
        births = np.concatenate([part(*pair) for pair in pairwise(x)])
        lengths = np.concatenate([part(*pair) for pair in pairwise(y)])
        total = 0.0
        for birth, death in bars:
            density = norm.pdf(births, birth, bandwidth)[:, None] * norm.pdf(
                lengths, death - birth, bandwidth
            )
            area = np.tile(weights, 40)[:, None] * np.tile(weights, 40) * (0.125 / 80) * (1 / 240)
            total += (death - birth) * float((density * area).sum())
        return total

    want = [[integral(row, column) for column in range(4)] for row in range(3)]
    np.testing.assert_allclose(found, want, rtol=1e-7, atol=1e-12)


def test_an_image_of_bars_born_together_is_not_empty():
    assert persistence_image([[0.0, 1.0], [0.0, 2.0]], bandwidth=0.1).sum() > 1.9
    with pytest.raises(TopologyError, match="rising"):
        persistence_image([[0.0, 1.0]], bandwidth=0.1, sample_range=(0, 0, 0, 1))


def test_landscapes_and_silhouettes_are_gudhis():
    from gudhi.representations import Landscape, Silhouette

    bars = np.cumsum(np.random.default_rng(0).exponential(size=(30, 2)), axis=1)
    at = {"resolution": 40, "sample_range": (0.0, 6.0)}
    theirs = Landscape(4, 40, [0.0, 6.0], keep_endpoints=True).fit_transform([bars])[0]
    np.testing.assert_allclose(
        landscape(bars, num_landscapes=4, **at).ravel(), theirs / np.sqrt(2), atol=1e-12
    )
    weighted = Silhouette(lambda bar: (bar[1] - bar[0]) ** 2, 40, [0.0, 6.0], keep_endpoints=True)
    want = weighted.fit_transform([bars])[0] / np.sqrt(2)
    np.testing.assert_allclose(silhouette(bars, power=2, **at), want, atol=1e-12)


@pytest.mark.parametrize("bars", [[], [[0.0, np.inf]], [[1.0, 1.0]]])
def test_nothing_gives_zeros(bars):
    assert not landscape(bars).any()
    assert not silhouette(bars).any()
    assert not persistence_image(bars, bandwidth=1.0).any()
    assert betti_curve(bars).shape == (100,)


def test_settings_of_a_config_make_vectors_of_one_shape():
    settings = [
        Vectorisation(kind="entropy"),
        Vectorisation(kind="landscape", range=[0, 4], num_landscapes=2, resolution=5),
        Vectorisation(kind="silhouette", range=[0, 4], resolution=5),
        Vectorisation(kind="betti_curve", range=[0, 4], resolution=5),
        Vectorisation(kind="image", range=[0, 4], resolution=6, bandwidth=0.5),
    ]
    for bars in (BARS, [], [[0.0, np.inf]]):
        shapes = [vectorise(bars, **one.key).shape for one in settings]
        assert shapes == [(), (2, 5), (5,), (5,), (6, 6)]
    found = [vectorise(BARS, **one.key) for one in settings]
    assert found[0] == pytest.approx(entropy(BARS))
    np.testing.assert_allclose(found[1], [[0, 1, 2, 1, 0], [0, 0, 1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(found[2], np.array([0, 4, 10, 4, 0]) / 6, atol=1e-12)
    assert found[3].tolist() == [1, 2, 3, 2, 1]
    want = persistence_image(BARS, bandwidth=0.5, resolution=(6, 6), sample_range=(0, 4, 0, 4))
    np.testing.assert_array_equal(found[4], want)
    with pytest.raises(TopologyError, match="entropy, image, landscape"):
        vectorise(BARS, "fourier")


def test_wrong_calls_are_refused():
    for bars in ([[0, np.nan], [0, 1]], [[np.nan, 1]], [[-np.inf, 1]], [[0, -np.inf]]):
        for made in (landscape, silhouette, betti_curve):
            with pytest.raises(TopologyError, match="NaN"):
                made(bars, sample_range=(0, 1))
        with pytest.raises(TopologyError, match="NaN"):
            entropy(bars)
        with pytest.raises(TopologyError, match="NaN"):
            persistence_image(bars, bandwidth=0.1)
    with pytest.raises(TopologyError, match="rising"):
        betti_curve(BARS, sample_range=(1, 1))
    with pytest.raises(TopologyError, match="bandwidth"):
        persistence_image(BARS, bandwidth=0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"resolution": 3}, "resolution must be 2 numbers, found 3"),
        ({"resolution": (0, 3)}, "resolution must be 1 or more"),
        ({"sample_range": (0, 8)}, r"sample_range must be 4 numbers, found \(0, 8\)"),
    ],
)
def test_an_image_of_the_wrong_settings_is_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(TopologyError, match=told):
        persistence_image([[0, 1]], bandwidth=0.1, **settings)
    with pytest.raises(TopologyError, match="sample_range must be 2 numbers, found 8"):
        landscape([[0, 1]], sample_range=8)  # type: ignore[arg-type]


def test_a_mask_is_not_ignored() -> None:
    masked = np.ma.masked_array([[0.0, 1.0], [0.0, 99.0]], mask=[[False, False], [True, True]])
    for function in (checked_bars, checked, entropy, betti_curve, sliding_of_two):
        with pytest.raises(TopologyError, match="masked"):
            function(masked)
    assert len(checked_bars(np.ma.masked_array([[0.0, 1.0]]))) == 1  # nothing is hidden


def sliding_of_two(values: Any) -> Any:
    return sliding_window(values, 2)


def test_without_a_range_curves_span_the_bars():
    """Births and finite deaths from 1 to 5; the open bar's death is no end."""
    bars = [[1.0, 3.0], [2.0, 5.0], [4.0, np.inf]]
    assert grid(bars, 5).tolist() == [1, 2, 3, 4, 5]
    assert grid(bars, 2).tolist() == [1, 5]
    assert grid([], 3).tolist() == grid([[2.0, 2.0]], 3).tolist() == [0, 0.5, 1]
    assert len(grid(bars)) == 100
    assert landscape(bars).shape == (5, 100)
    assert landscape(bars, num_landscapes=1, resolution=5).tolist() == [[0, 1, 1, 1, 0]]
    assert silhouette(bars).shape == betti_curve(bars).shape == (100,)
    with pytest.raises(TopologyError, match="resolution must be 2 or more, found 1"):
        grid(bars, 1)
    for wrong in ((0.0, np.inf), (-np.inf, 1.0), (np.nan, 1.0), (1, 1), (2, 1)):
        with pytest.raises(TopologyError, match="finite and rising"):
            grid(bars, 5, wrong)


def test_without_a_range_an_image_spans_the_bars():
    """From the first to the last birth and from length 0 to the longest: half of each Gaussian is inside."""
    assert persistence_image([[0.0, 1.0], [2.0, 5.0]], bandwidth=0.01).sum() == pytest.approx(1 / 2 + 3 / 4)
    assert persistence_image([[0.0, 1.0], [2.0, 5.0]], bandwidth=0.01).shape == (20, 20)
    # Born together: three bandwidths to either side, and half of the lengths.
    alone = persistence_image([[1.0, 2.0]], bandwidth=0.1, resolution=(1, 1))
    assert alone.tolist() == [[pytest.approx((1 - 2 * norm.sf(3)) / 2)]]


@pytest.mark.parametrize(
    "wrong", [(0, 1, 0, np.inf), (0, 1, 1, 1), (1, 0, 0, 1), (np.nan, 1, 0, 1), (0, 0, 0, 1)]
)
def test_an_image_of_no_range_is_refused(wrong):
    with pytest.raises(TopologyError, match="finite and rising"):
        persistence_image([[0.0, 1.0]], bandwidth=0.1, sample_range=wrong)


@pytest.mark.parametrize("wrong", [(1,), (1, 2, 3), ("a", "b"), None, 3])
def test_what_are_no_two_numbers_is_told(wrong):
    with pytest.raises(TopologyError, match="resolution must be 2 numbers"):
        persistence_image([[0.0, 1.0]], bandwidth=0.1, resolution=wrong)
    with pytest.raises(TopologyError, match="1 or more each way"):
        persistence_image([[0.0, 1.0]], bandwidth=0.1, resolution=(1, 0))
