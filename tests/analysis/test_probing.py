"""Probes by hand: what is held out, what is right, what is shuffled."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import probing
from panic.analysis.checks import AnalysisError
from panic.analysis.probing import _all_scores, _folds, _shuffling, probe

RNG = np.random.default_rng


def scores(points: np.ndarray, labels: np.ndarray, folds: np.ndarray, num_classes: int) -> np.ndarray:
    """The accuracies of the folds that leave two classes to learn from."""
    (found,) = _all_scores(points, [(labels, folds)], num_classes)
    return found[~np.isnan(found)]


def test_what_is_apart_is_read_with_certainty():
    """8 runs of 3 points in two far places: all is right; 70 ways to share out the labels, 2 as good."""
    runs = np.repeat(np.arange(8), 3)
    labels = np.repeat(["here", "there"] * 4, 3)
    points = 9.0 * (labels == "there")[:, None] + RNG(0).normal(size=(24, 2))
    found = probe(points, labels, runs, num_shuffles=99)
    assert (found.accuracy, found.num_classes, found.num_runs) == (1.0, 2, 8)
    assert found.folds.tolist() == [1.0] * 4  # as many as the rarer class has runs
    assert found.p_least == pytest.approx(2 / 70)
    assert found.p_least <= found.p_value <= 0.1
    assert 0.3 < found.baseline < 0.7 <= found.baseline_high <= 1
    assert len(probe(points, labels, runs, num_folds=2, num_shuffles=1).folds) == 2
    unshuffled = probe(points, labels, runs, num_shuffles=0)
    assert unshuffled.p_value == 1.0
    assert np.isnan([unshuffled.baseline, unshuffled.baseline_high]).all()


def test_a_difference_across_the_common_noise_is_read():
    """Both coordinates carry one large noise; their difference alone tells the class."""
    runs = np.repeat(np.arange(20), 4)
    labels = runs % 2
    rng = RNG(1)
    common = 5 * rng.normal(size=80)
    points = np.stack([common + labels, common - labels], axis=1) + 0.1 * rng.normal(size=(80, 2))
    assert probe(points, labels, runs, num_shuffles=1).accuracy > 0.9


def test_a_constant_coordinate_does_no_harm():
    labels = np.arange(8) % 2
    points = np.stack([9.0 * labels + 0.1 * np.arange(8), np.full(8, 3.0)], axis=1)
    assert probe(points, labels, np.arange(8), num_shuffles=1).accuracy == 1.0


def test_refusals_say_what_is_missing():
    points = RNG(0).normal(size=(6, 2))
    with pytest.raises(AnalysisError, match="6 vectors, 5 targets, 6 runs"):
        probe(points, [0] * 5, range(6))
    with pytest.raises(AnalysisError, match="6 vectors, 6 targets, 4 runs"):
        probe(points, [0, 1] * 3, range(4))
    with pytest.raises(AnalysisError, match="at least 2 classes are needed, found 1"):
        probe(points, [1] * 6, range(6))
    with pytest.raises(AnalysisError, match="'rare' is in one run only"):
        probe(points, ["a", "a", "rare", "rare", "b", "b"], [0, 1, 2, 2, 4, 5])
    with pytest.raises(AnalysisError, match="'b' is in one run only"):
        probe(points, ["a", "a", "a", "b", "b", "b"], range(6), held_out=[0, 0, 1, 2, 2, 2])
    assert probe(points, ["a", "a", "b", "b", "b", "b"], range(6), num_shuffles=1).num_classes == 2


def test_folds_take_the_sets_of_a_class_in_turn():
    """Three sets of class 0 have the first numbers, two of class 1 the next; points of a set have one."""
    sets = np.array([0, 0, 1, 2, 2, 3, 4])
    classes = np.array([0, 0, 1, 0, 0, 1, 0])
    orders = set()
    for seed in range(100):
        found = _folds(sets, classes, RNG(seed))
        assert found[0] == found[1]
        assert found[3] == found[4]
        assert sorted(found[[0, 3, 6]]) == [0, 1, 2]
        assert sorted(found[[2, 5]]) == [3, 4]
        orders.add(tuple(found))
    assert len(orders) == 12


def test_the_mean_recall_over_classes_by_hand():
    """Learnt at 0 and 10, asked at 1, 2, 9 (class 0) and 8 (class 1): 2 of 3 and 1 of 1 are right."""
    points = np.array([[0.0], [10.0], [1.0], [2.0], [9.0], [8.0]])
    labels = np.array([0, 1, 0, 0, 0, 1])
    folds = np.array([0, 0, 1, 1, 1, 1])
    # The other way round the classes have the means 4 and 8: 0 is nearer to 4, 10 to 8.
    assert scores(points, labels, folds, 2).tolist() == pytest.approx([1.0, (2 / 3 + 1) / 2])


def test_a_class_that_was_not_learnt_is_never_named():
    """Fold 1 lacks class 1 in training: what is asked for at its place is wrong; 2.4 is nearer to 0."""
    points = np.array([[0.0], [0.0], [5.0], [5.0], [9.0], [2.4]])
    labels = np.array([0, 0, 2, 2, 1, 0])
    folds = np.array([0, 0, 0, 0, 1, 1])
    assert scores(points, labels, folds, 3)[-1] == pytest.approx((0 + 1) / 2)
    with pytest.raises(AnalysisError, match="no split leaves two classes"):
        scores(points[:2], labels[:2], np.array([0, 1]), 3)


def test_a_split_that_leaves_one_class_is_skipped():
    points = np.array([[0.0], [1.0], [9.0], [8.0]])
    assert len(scores(points, np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), 2)) == 1


def test_runs_of_several_labels_are_rotated_each_by_itself():
    classes = np.array([0, 1, 2, 3, 0, 0, 1])
    groups = np.array([0, 0, 0, 0, 1, 1, 1])
    shuffle, p_least = _shuffling(classes, groups, None, None)
    assert p_least == pytest.approx(4 / 12)  # 4 x 3 rotations, of which up to 4 are the classes renamed
    seen = {tuple(shuffle(RNG(seed))[0]) for seed in range(80)}
    rotations = {tuple(np.roll([0, 1, 2, 3], k)) for k in range(4)}
    assert {one[:4] for one in seen} == rotations
    assert {one[4:] for one in seen} == {(0, 0, 1), (0, 1, 0), (1, 0, 0)}
    assert len(seen) == 12


def test_runs_of_one_label_exchange_it_within_their_unit():
    groups = np.repeat(np.arange(4), 2)
    classes = np.repeat([0, 1, 0, 1], 2)
    units = np.repeat(["p", "p", "q", "q"], 2)
    shuffle, p_least = _shuffling(classes, groups, None, units)
    assert p_least == pytest.approx(2 / 4)
    seen = {tuple(shuffle(RNG(seed))[0][::2]) for seed in range(40)}
    assert seen == {(a, 1 - a, b, 1 - b) for a in (0, 1) for b in (0, 1)}
    assert (shuffle(RNG(0))[0][::2] == shuffle(RNG(0))[0][1::2]).all()


def test_sets_that_are_held_out_follow_the_labels():
    """Two sets that have each of two labels once: so they do when the labels are shuffled."""
    classes, sets = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    shuffle, p_least = _shuffling(classes, np.arange(4), sets, np.array(["p"] * 4))
    assert p_least == pytest.approx(2 / 6)
    seen = {tuple(map(tuple, shuffle(RNG(seed)))) for seed in range(400)}
    assert len(seen) == 24
    assert all(sorted(zip(*one, strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)] for one in seen)


def test_p_is_spread_evenly_where_sets_have_every_label_once():
    """Noise, 4 labels x 2 runs x 3 points: where only labels were shuffled the mean of p was 0.39."""
    runs = np.repeat(np.arange(8), 3)
    draw = RNG(3)
    p_values = []
    for _ in range(120):
        points = draw.normal(size=(24, 3)) + draw.normal(size=(8, 3))[runs]
        score = probe(points, runs % 4, runs, units=["u"] * 24, held_out=runs // 4, num_shuffles=49)
        p_values.append(score.p_value)
    assert np.mean(p_values) > 0.47  # ties count as shuffles that do as well
    assert np.mean(np.array(p_values) <= 0.05) < 0.11


def test_parts_of_the_draws_make_no_difference(monkeypatch):
    """Many shuffles of large data are scored in parts, for the memory's sake."""
    rng = RNG(0)
    runs = np.repeat(np.arange(12), 3)
    points, labels = rng.normal(size=(36, 4)), runs % 3

    def found():
        score = probe(points, labels, runs, num_shuffles=29)
        return score.accuracy, score.baseline, score.baseline_high, score.p_value, score.folds.tolist()

    whole = found()
    for at_once in (1, 36 * 4, 7 * 36 * 4):
        monkeypatch.setattr(probing, "AT_ONCE", at_once)
        assert found() == whole
