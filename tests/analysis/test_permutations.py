"""Many permutations together are those that were drawn one after the other, and give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import permutations
from panic.analysis.permutations import design_of, halves, inside, per_pair
from panic.analysis.statistics import label_test, permanova, permutation_test

UNITS = {
    "within units": np.arange(24) // 2 % 6,
    "between units": np.r_[np.repeat(np.arange(4), 4), np.repeat(np.arange(4, 8), 2)],
}


def _design(resampling: str) -> permutations.Design:
    units = UNITS[resampling]
    groups = np.arange(24) % 2 if resampling == "within units" else units % 2
    design = design_of(24, groups, units)
    assert design.resampling == resampling
    return design


@pytest.mark.parametrize("resampling", UNITS)
def test_orders_are_those_that_are_drawn_one_after_the_other(resampling: str) -> None:
    design = _design(resampling)
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    one_by_one = [design.shuffled(rng) for _ in range(50)]
    together = np.concatenate([design.all_shuffled(again, 20), design.all_shuffled(again, 30)])
    assert (together == one_by_one).all()
    assert len(np.unique(together, axis=0)) > 1


def test_sums_inside_cells_are_those_of_every_pair() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(24, 3))
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    labels, levels = rng.integers(3, size=(7, 24)), np.arange(24) // 8
    together = np.where(levels[:, None] == levels, squares, 0.0)
    found = inside(together, labels, 3, levels, halves)
    alone = inside(squares, labels, 3, np.zeros(24, np.int64), per_pair)
    for row, in_cells, in_groups in zip(labels, found, alone, strict=True):
        cells = [points[(row == k) & (levels == m)] for k in range(3) for m in range(3)]
        assert in_cells == pytest.approx(sum(((c - c.mean(0)) ** 2).sum() for c in cells if len(c)))
        groups = [squares[np.ix_(row == k, row == k)] for k in range(3)]
        means = [g.sum() / (len(g) * (len(g) - 1)) for g in groups if len(g) > 1]
        assert in_groups == pytest.approx(sum(means) / 2)


@pytest.mark.parametrize("resampling", UNITS)
def test_parts_of_the_permutations_make_no_difference(
    resampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large designs are permuted in parts, for the memory's sake."""
    design = _design(resampling)
    points = np.random.default_rng(1).normal(size=(24, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)

    def tests() -> list[tuple[float, float, float]]:
        how = {"units": design.units, "num_permutations": 199}
        found = (
            permanova(distances, design.groups, **how),
            label_test(distances, design.groups, **how),
            permutation_test(points[:, 0], design.groups, **how),
        )
        return [(test.p_value, test.effect, test.baseline) for test in found]

    whole = tests()
    monkeypatch.setattr(permutations, "AT_ONCE", 1000)
    for part, of_whole in zip(tests(), whole, strict=True):
        assert part == pytest.approx(of_whole, rel=1e-12)
