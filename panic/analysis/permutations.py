"""What may be permuted in a design of groups and units, and a statistic of many permutations together.

design = design_of(len(values), groups, units)
seen, p, draws = permute(statistic, design, 999, seed=0)    # statistic: labels (k, n) to numbers (k,)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panic.analysis.checks import AnalysisError, codes

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Statistic = Callable[[Codes], Array]  # of labels (k, n), one row per permutation: (k,)
AT_ONCE = 1 << 21  # numbers of one array, while many permutations are worked out together


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The group, the unit and the level (n,) of each value as numbers, and what may be permuted."""

    groups: Codes
    units: Codes
    levels: Codes
    resampling: str

    @property
    def num_groups(self) -> int:
        return int(self.groups.max()) + 1

    def shuffled(self, rng: np.random.Generator) -> Codes:
        """Groups (n,) in an order that is as likely as theirs if groups make no difference."""
        labels: Codes = self.all_shuffled(rng, 1)[0]
        return labels

    def all_shuffled(self, rng: np.random.Generator, count: int) -> Codes:
        """As many orders (count, n) as `shuffled` would draw one after the other."""
        if self.resampling == "within units":
            return self._mixed(rng.random((count, len(self.units))))
        first = np.unique(self.units, return_index=True)[1]
        drawn = [rng.permutation(self.groups[first]) for _ in range(count)]
        return np.array(drawn, np.int64).reshape(count, len(first))[:, self.units]

    def _mixed(self, keys: Array) -> Codes:
        """Groups in the order of keys (k, n) within each unit."""
        order = np.argsort(self.units, kind="stable")
        mixed = np.lexsort((keys, np.broadcast_to(self.units[order], keys.shape)), axis=-1)
        labels = np.empty(keys.shape, np.int64)
        labels[:, order] = self.groups[order[mixed]]
        return labels

    @property
    def p_least(self) -> float:
        """The smallest p of all permutations: how many of them are the data with groups renamed, over all.

        Groups of one level can be renamed into each other where they are equally many in every unit.
        """
        from scipy.special import gammaln

        moved, strata = self.groups, self.units
        levels = self.levels
        if self.resampling == "between units":
            first = np.unique(self.units, return_index=True)[1]
            moved, strata, levels = self.groups[first], np.zeros(len(first), np.int64), self.levels[first]
        counts = np.zeros((int(strata.max()) + 1, self.num_groups))
        np.add.at(counts, (strata, moved), 1)
        level_of = np.zeros(len(counts), np.int64)
        level_of[strata] = levels
        ways = gammaln(counts.sum(axis=1) + 1).sum() - gammaln(counts + 1).sum()
        renamed = 0.0
        for level in np.unique(level_of):
            columns = counts[level_of == level]
            alike = np.unique(columns[:, columns.any(axis=0)], axis=1, return_counts=True)[1]
            renamed += float(gammaln(alike + 1).sum())
        return float(min(1.0, np.exp(renamed - ways)))


def design_of(size: int, groups: Any, units: Any = None, within: Any = None) -> Design:
    """Groups and units as numbers, and what may be permuted. AnalysisError where nothing could be told."""
    of_group = codes(np.asarray(groups))
    of_unit = np.arange(size) if units is None else codes(np.asarray(units))
    if len(of_group) != size or len(of_unit) != size:
        raise AnalysisError(f"{size} values, {len(of_group)} groups and {len(of_unit)} units do not pair up")
    num_groups = int(of_group.max(initial=-1)) + 1
    if num_groups < 2:
        raise AnalysisError(f"at least 2 groups are needed, found {num_groups}")
    pairs = len(np.unique(of_unit * num_groups + of_group))
    num_units = int(of_unit.max()) + 1
    resampling = "between units" if pairs == num_units else "within units"
    if resampling == "between units" and num_units <= num_groups:
        raise AnalysisError(
            f"{num_units} units in {num_groups} groups: with one unit per group nothing can be told apart",
            hint="use more prompts per group",
        )
    of_level = np.zeros(size, np.int64) if within is None else codes(np.asarray(within))
    return Design(groups=of_group, units=of_unit, levels=of_level, resampling=resampling)


def permute(statistic: Statistic, design: Design, count: int, seed: int) -> tuple[float, float, Array]:
    """The statistic, the share of permutations that reach it (it among them), and what these gave."""
    rng = np.random.default_rng(seed)
    seen = float(statistic(design.groups[None])[0])
    bar = seen - 1e-12 * abs(seen) if np.isfinite(seen) else seen  # sums differ in their last bits
    at_once = max(1, AT_ONCE // (len(design.groups) * design.num_groups))
    parts = [min(at_once, count - done) for done in range(0, count, at_once)]
    draws = np.concatenate([np.empty(0), *(statistic(design.all_shuffled(rng, part)) for part in parts)])
    p = float((1 + (draws >= bar).sum()) / (count + 1))
    return seen, max(p, design.p_least), draws  # so few ways that draws alone would be below by luck


def inside(
    distances: Array, labels: Codes, num_groups: int, levels: Codes, weight: Callable[[Array], Array]
) -> Array:
    """Sums (k,) of distances (n, n) inside cells, each sum times the `weight` of its cell's size.

    A cell holds the values of one label, of labels (k, n), and one level (n,). Distances between levels
    must be 0.
    """
    count, size = labels.shape
    members = (labels.T[:, :, None] == np.arange(num_groups)).astype(np.float64)
    near = distances @ members.reshape(size, -1)  # of every value to every label
    own = np.take_along_axis(near.reshape(size, count, num_groups), labels.T[:, :, None], axis=2)[:, :, 0].T
    num_levels = int(levels.max()) + 1
    cells = (np.arange(count)[:, None] * num_levels + levels) * num_groups + labels
    sizes = np.bincount(cells.ravel(), minlength=count * num_levels * num_groups)
    return np.asarray((own * weight(sizes.astype(np.float64))[cells]).sum(axis=1))


def halves(sizes: Array) -> Array:
    """What makes the sum of squared distances in a cell its sum of squares."""
    return 0.5 / np.maximum(sizes, 1)


def per_pair(sizes: Array) -> Array:
    """What makes the sum of distances in a cell half of their mean; a single value has none."""
    return np.where(sizes > 1, 0.5 / np.maximum(sizes * (sizes - 1), 1), 0.0)
