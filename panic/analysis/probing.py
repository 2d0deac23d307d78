"""What can be read from embeddings: linear probes, split by run, against shuffled labels.

Steps of one run resemble each other, so a probe that saw some of them knows the others: whole runs are
held out, or whole sets of runs that have every label once, so that what is left has them equally often. The
baseline shuffles the labels in the way the data could have: over runs where a run has one label, among those
that agree in all else, and what is held out follows the labels (else the data's labels would be equally often
in what is learnt from, and shuffled ones not); by rotating each run's own sequence where it has several.

    score = probe(matrix, networks, runs)
    score.accuracy, score.baseline, score.p_value
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, codes, vectors
from panic.analysis.permutations import AT_ONCE, design_of

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
CONSTANT = 1e-12  # variance of a coordinate in what is learnt from, of that of all, that is but rounding
SHRINKAGE = 0.1  # of correlations towards none: 24 coordinates of 30 runs are nearly enough to fit anything


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScore:
    """Balanced accuracy (mean recall over classes) on held-out runs.

    `folds` are its values per fold; `baseline` is the mean and `baseline_high` the 95 % quantile with
    shuffled labels, `p_value` the share of shuffles that do as well, `p_least` the smallest that the design
    could have given; chance alone is 1 / num_classes.
    """

    accuracy: float
    folds: Array
    baseline: float
    baseline_high: float
    p_value: float
    p_least: float
    num_classes: int
    num_runs: int


def probe(
    values: ArrayLike,
    targets: Sequence[Any] | ArrayLike,
    runs: Sequence[Any] | ArrayLike,
    *,
    units: Sequence[Any] | ArrayLike | None = None,
    held_out: Sequence[Any] | ArrayLike | None = None,
    num_folds: int = 5,
    num_shuffles: int = 199,
    seed: int = 0,
) -> ProbeScore:
    """Cross-validated discriminant of targets (n,) on standardised vectors (n, d), by run (n,).

    A point is given the class with the nearest mean, in coordinates in which the training points are
    uncorrelated (Fisher's linear discriminant with equal priors, correlations shrunk). `units` (n,): labels
    of runs are shuffled among runs of one unit. `held_out` (n,): what is held out as a whole; else runs.
    AnalysisError for one class, or a class that is in fewer than two of what is held out.
    """
    points = vectors(values)
    classes, groups = codes(np.asarray(targets)), codes(np.asarray(runs))
    if not len(points) == len(classes) == len(groups):
        raise AnalysisError(
            f"{len(points)} vectors, {len(classes)} targets, {len(groups)} runs do not pair up"
        )
    num_classes = int(classes.max(initial=-1)) + 1
    if num_classes < 2:
        raise AnalysisError(f"at least 2 classes are needed, found {num_classes}")
    sets = groups if held_out is None else codes(np.asarray(held_out))
    sets_of_class = [len(np.unique(sets[classes == one])) for one in range(num_classes)]
    if min(sets_of_class) < 2:
        rare = str(np.unique(np.asarray(targets))[int(np.argmin(sets_of_class))])
        raise AnalysisError(
            f"{rare!r} is in one run only: it cannot be both learnt and held out",
            hint="use repeats or more prompts, or leave that class out",
        )
    rng = np.random.default_rng(seed)
    num_folds = min(num_folds, min(sets_of_class))

    def split(labels: Codes, apart: Codes) -> tuple[Codes, Codes]:
        folds = _folds(apart, labels if held_out is None else np.zeros_like(labels), rng)
        return labels, folds % num_folds

    shuffle, p_least = _shuffling(classes, groups, None if held_out is None else sets, units)
    draws = [split(classes, sets), *(split(*shuffle(rng)) for _ in range(num_shuffles))]
    of_folds = _all_scores(points, draws, num_classes)
    seen, drawn = of_folds[0][~np.isnan(of_folds[0])], np.nanmean(of_folds[1:], axis=1)
    p = (1 + (drawn >= seen.mean() - 1e-12).sum()) / (1 + num_shuffles)
    return ProbeScore(
        accuracy=float(seen.mean()),
        folds=seen,
        baseline=float(drawn.mean()) if num_shuffles else float("nan"),
        baseline_high=float(np.quantile(drawn, 0.95)) if num_shuffles else float("nan"),
        p_value=max(float(p), p_least),
        p_least=p_least,
        num_classes=num_classes,
        num_runs=int(groups.max()) + 1,
    )


def _folds(sets: Codes, classes: Codes, rng: np.random.Generator) -> Codes:
    """A number (n,) for every set, those of one class one after the other, in random order within a class."""
    first = np.unique(sets, return_index=True)[1]
    order = np.lexsort((rng.random(len(first)), classes[first]))
    number = np.empty(len(first), np.int64)
    number[order] = np.arange(len(first))
    return number[sets]


def _all_scores(points: Array, draws: Sequence[tuple[Codes, Codes]], num_classes: int) -> Array:
    """Balanced accuracies (k, folds), as of `_scores`, of k draws of labels and folds (n,).

    AnalysisError for a draw without any split that leaves two classes.
    """
    spread = points.std(axis=0)
    standard = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1)
    at_once = max(1, AT_ONCE // (len(points) * max(num_classes, points.shape[1])))
    parts = [draws[first : first + at_once] for first in range(0, len(draws), at_once)]
    num_folds = 1 + max(int(folds.max()) for _, folds in draws)
    found = []
    for part in parts:
        labels, folds = (np.array(column) for column in zip(*part, strict=True))
        of = [_scores(standard, labels, folds == fold, num_classes) for fold in range(num_folds)]
        found.append(np.stack(of, axis=1))
    of_folds = np.concatenate(found)
    if np.isnan(of_folds).all(axis=1).any():
        raise AnalysisError("no split leaves two classes to learn from", hint="use more runs per class")
    return of_folds


def _scores(points: Array, labels: Codes, is_asked: NDArray[np.bool_], num_classes: int) -> Array:
    """Balanced accuracies (k,) of labels (k, n), on points (n, d) that are asked; all others are learnt from.

    NaN where there are not two classes to learn from. Discriminants are linear, so coordinates are made
    uncorrelated by weighting the class means, not the points.
    """
    learnt = (~is_asked).astype(np.float64)
    size = np.maximum(learnt.sum(axis=1), 1)
    mean = learnt @ points / size[:, None]
    second = (points.T * learnt[:, None, :]) @ points / size[:, None, None]
    covariance = second - mean[:, :, None] * mean[:, None, :]
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    scale = np.sqrt(np.where(variance > CONSTANT, variance, 1))
    shrunk = (1 - SHRINKAGE) * covariance / (scale[:, :, None] * scale[:, None, :])
    shrunk += SHRINKAGE * np.eye(points.shape[1])
    is_of = labels[:, None, :] == np.arange(num_classes)[:, None]
    counts = (is_of & ~is_asked[:, None, :]).sum(axis=2)
    means = (is_of * learnt[:, None, :]) @ points / np.maximum(counts, 1)[:, :, None]
    means = (means - mean[:, None, :]) / scale[:, None, :]
    weights = np.linalg.solve(shrunk, means.transpose(0, 2, 1))
    bias = (means.transpose(0, 2, 1) * weights).sum(axis=1) / 2
    weights /= scale[:, :, None]
    bias += (mean[:, None, :] @ weights)[:, 0]
    near = np.where(counts[:, None, :] > 0, points @ weights - bias[:, None, :], -np.inf)
    asked = is_of & is_asked[:, None, :]
    there = asked.sum(axis=2)
    right = (asked & (near.argmax(axis=2) == labels)[:, None, :]).sum(axis=2)
    recalls = np.where(there > 0, right / np.maximum(there, 1), 0.0).sum(axis=1)
    is_told = ((counts > 0).sum(axis=1) > 1) & (there > 0).any(axis=1)
    return np.where(is_told, recalls / np.maximum((there > 0).sum(axis=1), 1), np.nan)


def _shuffling(
    classes: Codes, groups: Codes, held_out: Codes | None, units: Sequence[Any] | ArrayLike | None
) -> tuple[Callable[[np.random.Generator], tuple[Codes, Codes]], float]:
    """A function that draws labels, and what is held out then, and the smallest p that this can give."""
    first = np.unique(groups, return_index=True)[1]
    if (classes == classes[first][groups]).all():  # one label per run
        units_of_runs = None if units is None else np.asarray(units)[first]
        design = design_of(len(first), classes[first], units_of_runs)
        if held_out is None:
            return lambda rng: (design.shuffled(rng)[groups], groups), design.p_least
        num_sets = int(held_out.max()) + 1
        both = replace(design, groups=(classes * num_sets + held_out)[first])
        return lambda rng: np.divmod(both.shuffled(rng)[groups], num_sets), design.p_least

    of_runs = [np.flatnonzero(groups == group) for group in range(len(first))]

    def rotated(rng: np.random.Generator) -> tuple[Codes, Codes]:
        made = np.empty_like(classes)
        for rows in of_runs:
            made[rows] = np.roll(classes[rows], int(rng.integers(len(rows))))
        return made, groups if held_out is None else held_out

    ways = [len({tuple(np.roll(classes[rows], turn)) for turn in range(len(rows))}) for rows in of_runs]
    # All runs turned alike may be the data with classes renamed, so one of them counts for nothing.
    return rotated, float(max(ways) / np.prod(ways, dtype=float))
