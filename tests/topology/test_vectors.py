"""Diagrams as vectors, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from panic.config import Vectorisation
from panic.topology import (
    TopologyError,
    betti_curve,
    entropy,
    landscape,
    persistence_image,
    silhouette,
    vectorise,
)

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
    assert image.max() == pytest.approx(3 / (2 * np.pi * 0.3**2), rel=0.2)


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
