"""Tests of the field's statistics on plain arrays: known values, other implementations, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.linalg import logm
from scipy.ndimage import laplace
from scipy.optimize import curve_fit

from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import (
    decay,
    image_quality,
    mean_cumulative_drift,
    two_periodicity,
    vendi,
    vendi_of_groups,
)
from panic.analysis.dynamics.alternation import excess_of_orders
from panic.analysis.nulls import sphere_walk

A, B, C = np.eye(3)


def test_two_periodicity_of_alternating_and_of_turning_states():
    found = two_periodicity([A, B] * 5)
    assert (found.lag1, found.lag2, found.excess, found.equal) == (0, 1, 1, 1)
    found = two_periodicity([A, B, C] * 5)  # comes back after three
    assert (found.lag1, found.lag2, found.excess, found.equal) == (0, 0, 0, 0)
    found = two_periodicity([A] * 5)  # stands still, which is no alternation
    assert (found.lag1, found.lag2, found.excess, found.equal) == (1, 1, 0, 0)


def test_two_periodicity_of_a_walk_is_that_of_its_angle():
    """E<x_0, x_k> = cos^k of the angle."""
    walk = sphere_walk(4000, 8, 0.5, np.random.default_rng(0))
    found = two_periodicity(walk)
    assert found.lag1 == pytest.approx(np.cos(0.5))
    assert found.lag2 == pytest.approx(np.cos(0.5) ** 2, abs=0.01)


def test_other_orders_have_the_excess_of_their_vectors():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 4))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    orders = np.array([rng.permutation(7) for _ in range(5)])
    right = [two_periodicity(points[order]).excess for order in orders]
    assert excess_of_orders(points @ points.T, orders) == pytest.approx(right)


def test_vendi_score_of_equal_and_of_orthogonal_things():
    assert vendi([A] * 7) == pytest.approx(1)
    assert vendi(np.eye(7)) == pytest.approx(7)
    assert vendi([A, A, B, B, C, C]) == pytest.approx(3)
    assert vendi([A, A, A, B]) == pytest.approx(4 / 3**0.75)  # exp of the entropy of 3/4 and 1/4
    assert vendi([A]) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_vendi_score_is_the_exponential_of_the_von_neumann_entropy(shape):
    points = np.random.default_rng(0).normal(size=shape)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rho = points.T @ points / len(points) + 1e-13 * np.eye(shape[1])  # a logarithm needs full rank
    right = np.exp(-np.trace(rho @ logm(rho)).real)
    assert vendi(points) == pytest.approx(right, rel=1e-6)
    assert vendi_of_groups(points[None]) == pytest.approx([right], rel=1e-6)


def test_mean_cumulative_drift_is_the_mean_over_generations_of_the_mean_over_starts():
    assert mean_cumulative_drift([[1.0, 0.5], [0.6, 0.1]]) == pytest.approx((0.8 + 0.3) / 2)


@pytest.mark.parametrize(("a", "b", "c"), [(0.5, 0.3, 0.4), (-0.2, 1.5, 0.6), (0.9, 0.05, 0.0)])
def test_decay_finds_the_curve_that_was_drawn(a, b, c):
    n = np.arange(1, 21)
    found = decay(a * np.exp(-b * n) + c)
    assert (found.amplitude, found.rate, found.level) == pytest.approx((a, b, c), rel=1e-3, abs=1e-3)
    assert found.r2 == pytest.approx(1)
    assert found.is_fitted


def test_decay_is_the_least_squares_of_scipy():
    """The source fits by `curve_fit` from (1, 0.1, 0)."""
    n = np.arange(1, 21, dtype=float)
    y = 0.4 * np.exp(-0.25 * n) + 0.5 + np.random.default_rng(0).normal(scale=0.01, size=20)
    right, _ = curve_fit(lambda n, a, b, c: a * np.exp(-b * n) + c, n, y, p0=(1, 0.1, 0))
    found = decay(y)
    assert (found.amplitude, found.rate, found.level) == pytest.approx(tuple(right), rel=1e-3)


def test_decay_says_where_there_is_none():
    assert not decay(np.linspace(0.9, 0.1, 20)).is_fitted  # a straight line goes on for ever
    flat = decay(np.full(20, 0.7))
    assert (flat.is_fitted, flat.r2) == (False, 0.0)
    assert not decay([0.9] + [0.5] * 19).is_fitted  # one step, however steep


@pytest.mark.parametrize("level", [-0.7, -1e-7, 0.0, 1e-7, 0.1, 3.0])
def test_a_flat_series_has_no_rate_whatever_its_level(level):
    found = decay(np.full(20, level))
    assert (found.is_fitted, found.r2) == (False, 0.0)
    assert found.level == pytest.approx(level)


@pytest.mark.parametrize(
    ("scale", "level"), [(1e-4, 0.7), (-1e-4, -0.7), (1e-7, 1e-3), (0.5, -0.6), (30.0, 9.0)]
)
def test_a_curve_has_its_rate_whatever_its_scale_and_level(scale, level):
    """What is measured against is the size of the values, whatever their sign and sum."""
    found = decay(scale * np.exp(-0.3 * np.arange(1, 21)) + level)
    assert found.rate == pytest.approx(0.3, rel=1e-2)
    assert found.r2 == pytest.approx(1)
    assert found.is_fitted


def checkerboard(side: int) -> np.ndarray:
    squares = 255 * (np.add.outer(np.arange(side), np.arange(side)) % 2)
    return np.repeat(squares[:, :, None], 3, axis=2).astype(np.uint8)


def test_image_quality_of_images_that_can_be_counted():
    board = image_quality(checkerboard(8))
    assert board.contrast == pytest.approx(0.5)
    assert board.sharpness == pytest.approx(16)  # the Laplacian is 4 or -4 everywhere
    assert board.saturation == 0
    plain = image_quality(np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8))
    assert plain.saturation == pytest.approx(0.75)
    assert (plain.contrast, plain.sharpness) == pytest.approx((0, 0), abs=1e-6)
    assert image_quality(np.zeros((4, 4, 3), dtype=np.uint8)).saturation == 0
    red = np.full((6, 9, 3), (255, 0, 0), dtype=np.uint8)
    assert image_quality(red).saturation == 1


def test_image_quality_agrees_with_scipy_and_pillow():
    pixels = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    found = image_quality(pixels)
    luma = (pixels / 255) @ [0.299, 0.587, 0.114]
    assert found.sharpness == pytest.approx(laplace(luma)[1:-1, 1:-1].var(), rel=1e-5)
    hsv = np.asarray(Image.fromarray(pixels).convert("HSV"))
    assert found.saturation == pytest.approx(hsv[:, :, 1].mean() / 255, abs=0.005)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    assert found.contrast == pytest.approx(grey.std() / 255, abs=0.002)


def test_blur_lowers_sharpness_and_contrast():
    pixels = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))
    one, other = image_quality(pixels), image_quality(blurred)
    assert other.sharpness < one.sharpness / 100
    assert other.contrast < one.contrast / 2


def test_too_little_is_refused_with_a_sentence():
    with pytest.raises(AnalysisError, match="at least 3 outputs are needed, found 2"):
        two_periodicity([A, B])
    with pytest.raises(AnalysisError, match="at least 1 vectors are needed, found 0"):
        vendi(np.empty((0, 3)))
    with pytest.raises(AnalysisError, match="at least 5 similarities are needed, found 4"):
        decay([0.9, 0.8, 0.7, 0.6])
    with pytest.raises(AnalysisError, match="an image of 2 x 9 pixels has no pixel with four neighbours"):
        image_quality(np.zeros((9, 2, 3), dtype=np.uint8))
    with pytest.raises(AnalysisError, match="an RGB image of bytes is needed"):
        image_quality(np.zeros((9, 9)))
    for statistic in (two_periodicity, vendi):
        with pytest.raises(AnalysisError, match="no direction"):
            statistic([A, B, np.zeros(3)])
    with pytest.raises(AnalysisError, match="NaN"):
        decay([0.9, 0.8, np.nan, 0.6, 0.5])


def test_three_outputs_and_three_pixels_are_enough():
    assert two_periodicity([A, B, A]).excess == pytest.approx(1)
    assert image_quality(checkerboard(3)).sharpness == 0, "one pixel has four neighbours"
    assert decay(0.5 * np.exp(-0.3 * np.arange(1, 6)) + 0.2).rate == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize(("rate", "is_fitted"), [(0.004, False), (0.006, True), (7.8, True), (8.1, False)])
def test_rates_from_a_tenth_of_the_run_to_8_a_generation_can_be_told(rate, is_fitted):
    """Of 20 generations the slowest is 0.1 / 20; what goes faster than 8 is gone after the first."""
    found = decay(1000 * np.exp(-rate * np.arange(20)))
    assert found.is_fitted == is_fitted
    assert not is_fitted or found.rate == pytest.approx(rate, rel=0.01)
