"""Null models in the store: read like any other runs, written once."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.dynamics import step_sizes
from panic.analysis.null_runs import write_nulls
from panic.analysis.nulls import kinds
from panic.store import check, reading, writing
from panic.topology import diagram


@pytest.fixture
def walked(bench):
    """Two runs of six texts each with vectors in five dimensions."""
    rng = np.random.default_rng(0)
    for number in range(2):
        texts = [f"text {number} {i}" for i in range(6)]
        bench.add("a start", texts, seed=-1, repeat=number, max_length=12)
        bench.embed({text: rng.normal(size=5) for text in texts})
    return bench.store


def test_surrogates_are_runs_from_the_same_prompts(walked):
    name = write_nulls(walked, "demo", "embed", "matched_walk")
    assert name == "demo-null-matched_walk-embed"
    data, source = load(walked, name), load(walked, "demo")
    assert data.runs["state"].to_list() == ["done", "done"]
    assert data.runs["prompt"].to_list() == ["a start"] * 2
    for made, run in zip(data.runs["run"], source.runs["run"], strict=True):
        null, own = data.trajectory(made, "embed", "text"), source.trajectory(run, "embed", "text")
        np.testing.assert_allclose(step_sizes(null), step_sizes(own), atol=1e-5)
        assert not np.allclose(null[3], own[3] / np.linalg.norm(own[3]), atol=1e-3)
    assert check.check(walked) == []


def test_the_same_call_writes_nothing_twice_and_new_runs_are_added(walked, bench):
    name = write_nulls(walked, "demo", "embed", "shuffled")
    before = [load(walked, name).trajectory(run, "embed", "text") for run in load(walked, name).runs["run"]]
    bench.add("a start", ["text 0 1", "text 0 2"], seed=-1, repeat=7)
    assert write_nulls(walked, "demo", "embed", "shuffled") == name
    data = load(walked, name)
    assert data.runs["num_steps"].to_list() == [6, 6, 2]
    for run, vectors in zip(data.runs["run"], before, strict=False):
        np.testing.assert_array_equal(data.trajectory(run, "embed", "text"), vectors)
    assert len(reading.experiments(walked)) == 2


def test_seeds_have_experiments_of_their_own(walked):
    names = [write_nulls(walked, "demo", "embed", "shuffled", seed=seed) for seed in (0, 1, 0)]
    assert names == ["demo-null-shuffled-embed", "demo-null-shuffled-embed-seed1", names[0]]
    first, second = (load(walked, name) for name in names[:2])
    assert set(first.runs["run"]).isdisjoint(second.runs["run"])
    assert len(reading.experiments(walked)) == 3


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_keeps_length_and_start(walked, kind):
    data = load(walked, write_nulls(walked, "demo", "embed", kind, seed=3))
    own = load(walked, "demo").trajectory(1, "embed", "text")
    null = data.trajectory(data.runs["run"][0], "embed", "text")
    assert null.shape == own.shape
    first = null[0] / np.linalg.norm(null[0])
    assert first == pytest.approx(own[0] / np.linalg.norm(own[0]), abs=1e-5)


def test_nothing_to_make_nulls_of_is_refused(walked):
    with pytest.raises(AnalysisError, match="matched_walk"):
        write_nulls(walked, "demo", "embed", "brownian")
    writing.start_experiment(walked, "other", {"name": "other"})
    with pytest.raises(AnalysisError, match="no run of other"):
        write_nulls(walked, "other", "embed", "shuffled")


def test_null_experiments_have_the_diagrams_that_their_source_asks_for(walked):
    """They never got any: nothing beside a run's bars said what chance gives."""
    data = load(walked, write_nulls(walked, "demo", "embed", "matched_walk"))
    assert data.bars["run"].unique().sort().to_list() == data.runs["run"].to_list()
    run = data.runs["run"][0]
    expected = diagram(data.trajectory(run, "embed", "text"), max_dimension=1)
    found = data.bars.filter(pl.col("run") == run, pl.col("dimension") == 0, pl.col("death").is_finite())
    bars = expected.bars(0)
    assert sorted(found["death"]) == pytest.approx(sorted(bars[np.isfinite(bars[:, 1]), 1]), rel=1e-5)
    before = len(data.bars)
    assert len(load(walked, write_nulls(walked, "demo", "embed", "matched_walk")).bars) == before
