"""Clusters and probes of data whose groups are known; null models keep what they say they keep."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.clustering import Reference, _without_rests, assign, cluster, freeze, medoids
from panic.analysis.dynamics import distance_by_lag, entropy_rate, recurrence, transition_matrix
from panic.analysis.nulls import (
    autoregression,
    gaussian_process,
    markov_labels,
    markov_path,
    matched_walk,
    null_band,
    shuffled,
    sphere_walk,
    walk_like,
)
from panic.analysis.probing import probe

RNG = np.random.default_rng


def groups(sizes: tuple[int, ...] = (40, 25, 15), d: int = 20, spread: float = 0.1, seed: int = 0):
    """Vectors around random directions, and the direction of each."""
    rng = RNG(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    centres = RNG(99).normal(size=(len(sizes), d))
    return centres[truth] + spread * rng.normal(size=(len(truth), d)), truth


@pytest.mark.parametrize("how", [{}, {"method": "kmeans", "num_clusters": 3}])
def test_clear_groups_are_found_largest_first(how):
    points, truth = groups()
    found = cluster(points, **how)
    assert found.sizes.tolist() == [40, 25, 15]
    assert (found.labels == truth).all()
    assert found.labels.min() == 0
    assert truth[found.medoids].tolist() == [0, 1, 2]


def test_noise_is_outside():
    noise = RNG(0).normal(size=(100, 20))
    points, _ = groups()
    found = cluster(np.vstack([points, noise]), min_cluster_size=10)
    assert found.labels[:80].min() >= 0
    assert np.mean(found.labels == -1) > 0.4


def test_a_medoid_has_the_least_squared_distances():
    points, truth = groups(spread=1.0)
    for number, row in enumerate(medoids(points, truth)):
        members = np.flatnonzero(truth == number)
        squares = ((points[members][:, None] - points[members][None]) ** 2).sum(axis=(1, 2))
        assert row == members[squares.argmin()]
    assert medoids(points[:3], [2, 2, -1])[:2].tolist() == [-1, -1]


def test_a_frozen_reference_labels_other_data(tmp_path):
    points, _ = groups()
    reference = freeze(points, cluster(points), names=["one", "two", "three"], fingerprint="f")
    reference.save(tmp_path / "reference.npz")
    again = Reference.load(tmp_path / "reference.npz")
    assert (again.names, again.fingerprint) == (("one", "two", "three"), "f")
    (tmp_path / "other.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(AnalysisError, match="no frozen reference"):
        Reference.load(tmp_path / "other.npz")
    others, truth = groups((10, 10, 10), seed=5)
    assert (assign(again, others, slack=1.5) == truth).all()
    assert (assign(again, 7 * points) == cluster(points).labels).mean() > 0.95  # 99 % by construction
    assert (assign(again, RNG(3).normal(size=(50, 20))) == -1).all()
    with pytest.raises(AnalysisError, match="20"):
        assign(again, np.ones((2, 3)))


@pytest.mark.parametrize(
    ("n", "labels"), [(0, []), (1, [-1]), (2, [-1, -1]), (4, [-1] * 4), (5, [0] * 5), (9, [0] * 9)]
)
def test_few_or_equal_points(n, labels):
    found = cluster(np.ones((n, 3)))
    assert found.labels.tolist() == labels
    if n == 9:
        assert cluster(np.ones((n, 3)), method="kmeans", num_clusters=1).sizes.tolist() == [9]
    if n == 2:
        with pytest.raises(AnalysisError, match="no clusters"):
            freeze(np.ones((n, 3)), found)


@pytest.mark.parametrize(
    ("values", "how", "message"),
    [
        ([[np.nan, 1]], {}, "NaN"),
        ([[0.0, 0.0]], {}, "no direction"),
        (np.ones((3, 2)), {"method": "kmeans", "num_clusters": 2}, "1 to 1"),
        (np.ones((3, 2)), {"method": "kmeans"}, "found None"),
        (np.ones((3, 2)), {"method": "dbscan"}, "hdbscan, kmeans"),
        (np.ones((3, 2)), {"min_cluster_size": 1}, "2 or more"),
    ],
)
def test_what_cannot_be_clustered_is_refused(values, how, message):
    with pytest.raises(AnalysisError, match=message):
        cluster(values, **how)


def test_a_probe_reads_what_is_there_and_not_what_is_not():
    rng = RNG(0)
    runs = np.repeat(np.arange(24), 10)
    network = runs % 2
    points = 0.7 * rng.normal(size=(2, 16))[network] + rng.normal(size=(240, 16))
    seen = probe(points, network, runs, num_shuffles=19)
    assert seen.accuracy > 0.8
    assert seen.p_value == pytest.approx(0.05)
    assert 0.3 < seen.baseline < 0.7
    nothing = probe(rng.normal(size=(240, 16)), network, runs, num_shuffles=19)
    assert nothing.accuracy < 0.65
    assert nothing.p_value > 0.05


def test_a_run_is_never_on_both_sides():
    """Every run has its own offset and a random label: splitting by step would read the run, and be right."""
    rng = RNG(0)
    runs = np.repeat(np.arange(30), 10)
    labels = rng.integers(2, size=30)[runs]
    points = 5 * rng.normal(size=(30, 8))[runs] + rng.normal(size=(300, 8))
    assert probe(points, labels, runs, num_shuffles=9).accuracy < 0.75


def test_a_label_that_changes_within_runs_is_rotated_for_the_baseline():
    rng = RNG(0)
    runs = np.repeat(np.arange(10), 40)
    state = np.tile(np.repeat([0, 1], 20), 10)
    points = state[:, None] + rng.normal(size=(400, 4))
    found = probe(points, state, runs, num_shuffles=9)
    assert found.accuracy > 0.75
    assert found.baseline < 0.7


@pytest.mark.parametrize(
    ("targets", "runs", "message"),
    [
        (["a"] * 6, [0, 1, 2, 3, 4, 5], "at least 2 classes"),
        (["a", "a", "b", "b", "b", "b"], [0, 0, 1, 2, 3, 4], "'a' is in one run only"),
        (["a", "b"], [0, 1], "pair up"),
    ],
)
def test_probes_that_cannot_hold_out_are_refused(targets, runs, message):
    with pytest.raises(AnalysisError, match=message):
        probe(np.ones((6, 2)), targets, runs)


@pytest.fixture(scope="module")
def path() -> np.ndarray:
    return sphere_walk(120, 12, 0.25, RNG(4))


def test_a_sphere_walk_turns_by_its_angle(path):
    np.testing.assert_allclose((path[:-1] * path[1:]).sum(axis=1), np.cos(0.25), rtol=1e-12)
    walks = np.array([sphere_walk(12, 8, 0.3, RNG(seed)) for seed in range(800)])
    along = np.einsum("rd,rkd->k", walks[:, 0], walks) / 800
    np.testing.assert_allclose(along, np.cos(0.3) ** np.arange(12), atol=0.04)
    like = walk_like(path, RNG(0))
    np.testing.assert_allclose((like[:-1] * like[1:]).sum(axis=1), np.cos(0.25), rtol=1e-9)


def test_a_matched_walk_keeps_steps_and_drift(path):
    made = matched_walk(path, RNG(0))
    np.testing.assert_allclose((made[:-1] * made[1:]).sum(axis=1), np.cos(0.25), atol=1e-9)
    np.testing.assert_allclose(made @ made[0], path @ path[0], atol=1e-9)
    assert np.abs(made[60] @ path[60]) < 0.999  # another way there
    again = np.repeat(path[:3], 2, axis=0)  # standing still is a step of angle 0
    np.testing.assert_allclose(matched_walk(again, RNG(0))[1], again[0], atol=1e-6)


def test_an_autoregression_keeps_its_correlation():
    rng = RNG(0)
    series = np.zeros((4000, 3))
    for step in range(1, 4000):
        series[step] = 0.8 * series[step - 1] + rng.normal(size=3) * [1, 2, 3]
    made = autoregression(series, RNG(1))
    assert np.sort(made.std(axis=0)) == pytest.approx(np.sort(series.std(axis=0)), rel=0.1)
    assert np.corrcoef(made[:-1, 2], made[1:, 2])[0, 1] == pytest.approx(0.8, abs=0.03)
    assert made[0] == pytest.approx(series[0])
    assert np.isfinite(autoregression(np.ones((5, 2)), rng)).all()


def test_a_gaussian_process_keeps_d_of_k():
    walk = np.cumsum(RNG(0).normal(size=(80, 6)), axis=0)
    want = distance_by_lag(walk, 10, metric="sqeuclidean")
    many = [distance_by_lag(gaussian_process(walk, RNG(s)), 10, metric="sqeuclidean") for s in range(60)]
    np.testing.assert_allclose(np.mean(many, axis=0), want, rtol=0.1)


def test_shuffles_keep_the_points_and_markov_surrogates_the_transitions():
    labels = np.tile([0, 0, 1, 2], 500)
    mixed = shuffled(labels, RNG(0))
    assert sorted(mixed) == sorted(labels)
    made = markov_labels(labels, RNG(0))
    assert (made[0], len(made)) == (0, 2000)
    np.testing.assert_allclose(transition_matrix(made, 3), transition_matrix(labels, 3), atol=0.05)
    assert entropy_rate(transition_matrix(made, 3)) < entropy_rate(transition_matrix(mixed, 3))
    assert markov_labels([0, -1, 0, 1], RNG(0))[0] == 0  # 1 is never left: it goes on anywhere
    assert markov_labels([3], RNG(0)).tolist() == [3]
    path = np.eye(3)[labels]
    again = markov_path(path, RNG(1))
    np.testing.assert_allclose(
        transition_matrix(again.argmax(axis=1), 3), transition_matrix(labels, 3), atol=0.05
    )
    assert not np.array_equal(again, path)
    np.testing.assert_array_equal(markov_path(np.eye(5), RNG(0)), np.eye(5))  # it never comes back


def test_objects_have_no_null_band():
    """Their bytes are those of pointers, others in every process."""
    with pytest.raises(AnalysisError, match="objects"):
        null_band(lambda made: float(len(made)), np.array(["a", None, 3], dtype=object), shuffled)


def test_a_statistic_stands_beside_its_null_band():
    labels = np.tile([0, 1, 2, 3], 60)
    statistic = lambda x: recurrence(x).determinism  # noqa: E731
    order = null_band(statistic, labels, shuffled, num_surrogates=99)
    assert order.value == 1.0
    assert order.is_outside
    assert order.p_value == pytest.approx(0.02)
    memory = null_band(statistic, labels, markov_labels, num_surrogates=99)
    assert not memory.is_outside  # one step of memory explains a cycle


def test_a_curve_has_a_band_and_a_walk_is_inside_its_own(path):
    band = null_band(lambda x: distance_by_lag(x, 8)[1:], path, walk_like, num_surrogates=99)
    assert band.value.shape == band.low.shape == band.p_value.shape == (8,)
    assert band.draws.shape == (99, 8)
    assert not band.is_outside[3:].any()
    with pytest.raises(AnalysisError, match="NaN"):
        null_band(lambda x: distance_by_lag(x, 200), path, walk_like, num_surrogates=39)


@pytest.mark.parametrize("make", [walk_like, matched_walk, gaussian_process, shuffled, markov_path])
@pytest.mark.parametrize("n", [1, 2])
def test_short_runs_have_surrogates(make, n):
    assert make(np.eye(4)[:n], RNG(0)).shape == (n, 4)


def test_nulls_that_cannot_be_made_are_refused():
    with pytest.raises(AnalysisError, match="3 coordinates"):
        matched_walk(np.eye(2), RNG(0))
    with pytest.raises(AnalysisError, match="at least 4"):
        autoregression(np.eye(3), RNG(0))
    with pytest.raises(AnalysisError, match="NaN"):
        gaussian_process([[np.nan]], RNG(0))


def test_clusters_have_five_points_and_radii_that_hold_99_percent():
    points = np.repeat(np.eye(6), [9, 5, 4, 1, 1, 1], axis=0)
    assert cluster(points).sizes.tolist() == [9, 5]
    assert cluster(points[:4]).num_clusters == 0
    assert cluster(points[:5]).sizes.tolist() == [5]
    assert cluster(points, min_cluster_size=2).sizes.tolist() == [9, 5, 4]
    many = np.eye(8)[0] + 0.1 * RNG(0).normal(size=(300, 8))
    reference = freeze(many, cluster(many, method="kmeans", num_clusters=1))
    assert (assign(reference, many) == -1).sum() == 3


def test_a_point_belongs_to_a_cluster_up_to_its_radius():
    """Radii of chords: to float32's last digits, and by the slack of those who ask for one."""
    reference = Reference(centres=np.eye(2)[:1], radii=np.array([0.5]))
    chord = np.array([0.5, 0.50001, 1.0, 1.00001])
    half = np.arcsin(chord / 2)
    points = np.stack([np.cos(2 * half), np.sin(2 * half)], axis=1)
    assert assign(reference, points).tolist() == [0, -1, -1, -1]
    assert assign(reference, points, slack=2.0).tolist() == [0, 0, 0, -1]


def test_probes_have_five_folds_and_199_shuffles_by_the_seed_0():
    runs = np.repeat(np.arange(24), 2)
    points = 9.0 * (runs % 2)[:, None] + RNG(0).normal(size=(48, 2))
    found = probe(points, runs % 2, runs)
    assert (len(found.folds), found.p_value) == (5, 1 / 200)
    mixed = RNG(1).normal(size=(48, 2))
    plain, same, other = (probe(mixed, runs % 2, runs, **how) for how in ({}, {"seed": 0}, {"seed": 1}))
    assert plain.baseline == same.baseline != other.baseline


@pytest.mark.parametrize(("place", "is_kept"), [(0.65, True), (0.66, False)])
def test_a_cluster_nearly_as_wide_as_all_points_is_none(place, is_kept):
    """Of points at -1, -m, m and 1 those at m are 3 m² / (m² + 1) as wide as all: 0.891 and 0.910."""
    points = np.array([[-1.0], [-place], [place], [1.0]])
    found = _without_rests(points, np.array([-1, 0, 0, -1]), 5)
    assert found.tolist() == ([-1, 0, 0, -1] if is_kept else [-1] * 4)
