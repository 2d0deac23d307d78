"""What can be read from embeddings: linear probes, split by run, against shuffled labels.

Steps of one run resemble each other, so a probe that saw some of them knows the others: whole runs are
held out. The baseline shuffles the labels in the way the data could have: over runs where a run has one
label, by rotating each run's own sequence where it has several.

    score = probe(matrix, networks, runs)
    score.accuracy, score.baseline, score.p_value
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, codes, vectors

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScore:
    """Balanced accuracy (mean recall over classes) on held-out runs.

    `folds` are its values per fold; `baseline` is the mean and `baseline_high` the 95 % quantile with
    shuffled labels, `p_value` the share of shuffles that do as well; chance alone is 1 / num_classes.
    """

    accuracy: float
    folds: Array
    baseline: float
    baseline_high: float
    p_value: float
    num_classes: int
    num_runs: int


def probe(
    values: ArrayLike,
    targets: Sequence[Any] | ArrayLike,
    runs: Sequence[Any] | ArrayLike,
    *,
    num_folds: int = 5,
    num_shuffles: int = 20,
    strength: float = 1.0,
    seed: int = 0,
) -> ProbeScore:
    """Cross-validated logistic regression of targets (n,) on standardised vectors (n, d), by run (n,).

    `strength` is the inverse of the regularisation. AnalysisError for one class, or a class that is in
    fewer than two runs: nothing of it could be held out.
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
    runs_of_class = [len(np.unique(groups[classes == one])) for one in range(num_classes)]
    if min(runs_of_class) < 2:
        rare = str(np.unique(np.asarray(targets))[int(np.argmin(runs_of_class))])
        raise AnalysisError(
            f"{rare!r} is in one run only: it cannot be both learnt and held out",
            hint="use repeats or more prompts, or leave that class out",
        )
    folds = min(num_folds, min(runs_of_class))
    if folds < 2:
        raise AnalysisError(f"at least 2 folds are needed, found {folds}")
    seen = _scores(points, classes, groups, folds, strength, seed)
    rng = np.random.default_rng(seed)
    shuffled = np.array(
        [
            _scores(points, _shuffled(classes, groups, rng), groups, folds, strength, seed).mean()
            for _ in range(num_shuffles)
        ]
    )
    return ProbeScore(
        accuracy=float(seen.mean()),
        folds=seen,
        baseline=float(shuffled.mean()) if num_shuffles else float("nan"),
        baseline_high=float(np.quantile(shuffled, 0.95)) if num_shuffles else float("nan"),
        p_value=float((1 + (shuffled >= seen.mean()).sum()) / (1 + num_shuffles)),
        num_classes=num_classes,
        num_runs=int(groups.max()) + 1,
    )


def _scores(points: Array, classes: Codes, groups: Codes, folds: int, strength: float, seed: int) -> Array:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(points, classes, groups):
        if not len(test) or len(np.unique(classes[train])) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        guess = model.fit(points[train], classes[train]).predict(points[test])
        present = np.unique(classes[test])
        found.append(recall_score(classes[test], guess, labels=present, average="macro", zero_division=0))
    if not found:
        raise AnalysisError("no split leaves two classes to learn from", hint="use more runs per class")
    return np.array(found)


def _shuffled(classes: Codes, groups: Codes, rng: np.random.Generator) -> Codes:
    first = np.unique(groups, return_index=True)[1]
    if (classes == classes[first][groups]).all():  # one label per run
        return rng.permutation(classes[first])[groups]
    made = np.empty_like(classes)
    for group in range(len(first)):
        rows = np.flatnonzero(groups == group)
        made[rows] = np.roll(classes[rows], int(rng.integers(len(rows))))
    return made
