"""Runs of the synthetic network, through engine and store, against the exact answers of its matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from panic import run
from panic.analysis import ExperimentData, load
from panic.analysis.dynamics import (
    committor,
    core_counts,
    dwell_times,
    mean_dwell,
    mean_first_passage,
    mixing_time,
    relaxation,
    stationary,
    timescales,
    transition_counts,
    transition_matrix,
)
from panic.analysis.states import states
from panic.models.synthetic import transition_matrix as exact_matrix
from panic.store import Store
from tests.engine.conftest import make_config

CHAIN = {"states": 4, "kernel": "identity", "epsilon": 0.3, "alpha": 1.0, "kernel_seed": 1}
NUM_RUNS, LENGTH = 60, 240


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExperimentData]:
    """60 runs of fresh noise that start in state 0 and make 120 moves each."""
    path: Path = tmp_path_factory.mktemp("truth") / "s"
    config = make_config(
        models={
            "draw": {"base": "synthetic/text-to-image", "states": 4, "size": 8},
            "chain": {"base": "synthetic/image-to-text", **CHAIN},
            "circle": {"base": "synthetic/state-embedding", "states": 4},
        },
        embeddings=["circle"],
        prompts=["state 0"],
        seeds=[-1],
        repeats=NUM_RUNS,
        max_length=LENGTH,
        batch_sizes={"draw": NUM_RUNS, "chain": NUM_RUNS},
    )
    run(config, path)
    with Store(path) as store:
        yield load(store, "latest")


@pytest.fixture(scope="module")
def labels(noisy: ExperimentData) -> list[np.ndarray]:
    """States (121,) of every run, the prompt's first."""
    steps = noisy.invocations.filter(pl.col("modality") == "text").join(noisy.outputs, on="output")
    states = steps.sort("run", "step").with_columns(
        state=pl.col("text").str.extract(r"state (\d+)").cast(pl.Int64)
    )
    return [
        np.append(0, group["state"].to_numpy()) for _, group in states.group_by("run", maintain_order=True)
    ]


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    return exact_matrix(4, "identity", 0.3, 1.0, 1)


def test_clusters_of_the_embeddings_are_the_states(noisy, labels):
    """Everything below holds for them, too: one cluster per state, no outlier, at every step."""
    found = states(noisy, "circle", "text").labels()
    pairs = {pair for a, b in zip(found, labels, strict=True) for pair in zip(a, b[1:], strict=True)}
    assert len(pairs) == 4
    assert {cluster for cluster, _ in pairs} == {0, 1, 2, 3}
    assert {state for _, state in pairs} == {0, 1, 2, 3}


def test_transitions_are_those_of_the_matrix(labels, exact):
    counts = transition_counts(labels, 4)
    assert counts.sum() == NUM_RUNS * LENGTH // 2
    error = np.sqrt(exact * (1 - exact) / counts.sum(axis=1, keepdims=True))
    assert (np.abs(transition_matrix(labels, 4) - exact) < 4 * error + 1e-12).all()


def test_the_stationary_law_is_within_its_interval(labels, exact):
    """Bootstrap over runs: the exact law lies within four standard errors."""
    found = stationary(transition_matrix(labels, 4))
    rng = np.random.default_rng(0)
    again = []
    for _ in range(200):
        some = rng.integers(NUM_RUNS, size=NUM_RUNS)
        again.append(stationary(transition_matrix([labels[i] for i in some], 4)))
    assert (np.abs(found - stationary(exact)) < 4 * np.std(again, axis=0)).all()
    assert timescales(transition_matrix(labels, 4))[0] == pytest.approx(timescales(exact)[0], rel=0.25)


def test_hitting_times_from_the_start_are_exact_within_their_interval(labels, exact):
    for target in (1, 2, 3):
        assert all((run == target).any() for run in labels), "else their mean would be too short"
        hits = np.array([np.flatnonzero(run == target)[0] for run in labels])
        want = mean_first_passage(exact, target)[0]
        assert abs(hits.mean() - want) < 4 * hits.std(ddof=1) / np.sqrt(len(hits))


def test_a_core_set_model_has_the_times_and_committors_of_the_matrix(labels, exact):
    """All steps are in cores here, and 7,200 moves tell them well."""
    found = transition_matrix(labels, 4)
    times = relaxation(core_counts(labels, 4).sum(axis=0))
    assert times == pytest.approx(timescales(exact)[0], rel=0.25)
    assert mixing_time(found) == pytest.approx(mixing_time(exact), rel=0.25, abs=1)
    for source, target in ((0, 1), (0, 3), (2, 3)):
        assert committor(found, source, target) == pytest.approx(committor(exact, source, target), abs=0.1)


def test_dwells_last_one_over_one_minus_the_diagonal(labels, exact):
    found = mean_dwell(dwell_times(labels))
    want = 1 / (1 - np.diag(exact))
    for row in found.iter_rows(named=True):
        spread = (row["high"] - row["low"]) / 4  # a bit over one standard error
        assert abs(row["mean"] - want[row["label"]]) < 4 * spread


@pytest.mark.parametrize(
    ("kernel", "entry_step", "period"), [("identity", 0, 2), ("column", 2, 2), ("cycle", 0, 10)]
)
def test_stuck_periods_in_the_frames_are_exact(tmp_path, kernel, entry_step, period):
    """Without noise: fixed points at once, one column by the second visit, k states in 2 k steps."""
    config = make_config(
        chain={"kernel": kernel, "states": 5},
        draw={"states": 5, "size": 8},
        prompts=["state 3"],
        seeds=[1],
        repeats=1,
        max_length=100,
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        row = load(store).runs.row(0, named=True)
    assert (row["state"], row["entry_step"], row["period"]) == ("stuck", entry_step, period)
