"""Data that cannot answer are refused, with the reason; nonsense that a store says is taken for nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import panic.analysis
from panic.analysis import AnalysisError, checks, load, null_bands, origin, page
from panic.analysis.clustering import Clustering, Reference, assign, freeze, medoids
from panic.analysis.dynamics.semantic import mean_cumulative_drift
from panic.analysis.questions import networks, recoverability, recurrence, territories, twins
from panic.errors import NotFound
from panic.store import reading
from tests.analysis.conftest import TEXT, angle_vector


def test_the_package_has_two_names_that_come_late():
    assert panic.analysis.AnalysisError is checks.AnalysisError
    with pytest.raises(AttributeError, match=r"module 'panic\.analysis' has no attribute 'nothing'"):
        _ = panic.analysis.nothing


@pytest.mark.parametrize("check", [checks.labels, checks.codes])
def test_masked_values_and_tables_are_no_symbols(check):
    with pytest.raises(AnalysisError, match="masked") as refused:
        check(np.ma.masked_array([1, 2], mask=[0, 1]))
    assert refused.value.hint == "leave those steps out"
    assert check(np.ma.masked_array([1, 2], mask=[0, 0])).tolist() in ([1, 2], [0, 1])
    with pytest.raises(AnalysisError, match=r"one (label )?per step, found the shape \(2, 2\)"):
        check(np.zeros((2, 2)))


def some_clusters(labels, num_clusters):
    zeros = np.zeros(num_clusters, dtype=np.int64)
    return Clustering(labels=np.array(labels), medoids=zeros, sizes=zeros, method="hdbscan")


def test_labels_pair_up_with_vectors():
    points = np.array([angle_vector(angle) for angle in (0, 90)])
    with pytest.raises(AnalysisError, match="2 vectors and 3 labels do not pair up"):
        freeze(points, some_clusters([0, 0, 0], 1))
    with pytest.raises(AnalysisError, match="2 vectors and 1 labels do not pair up"):
        medoids(points, [0])
    with pytest.raises(AnalysisError, match="no clusters to freeze") as refused:
        freeze(points, some_clusters([-1, -1], 0))
    assert refused.value.hint == "take more points, or kmeans"


def test_nothing_is_in_no_cluster_and_vectors_have_the_references_coordinates():
    reference = Reference(centres=np.array([angle_vector(0)]), radii=np.array([0.1]))
    none = assign(reference, np.empty((0, 2)))
    assert (none.shape, none.dtype) == ((0,), np.int64)
    with pytest.raises(AnalysisError, match="vectors have 3 coordinates, the reference 2") as refused:
        assign(reference, np.ones((1, 3)))
    assert refused.value.hint == "a reference belongs to one embedding model"


def test_drift_over_no_generation():
    with pytest.raises(AnalysisError, match="no generation was given"):
        mean_cumulative_drift(np.empty((2, 0)))
    assert mean_cumulative_drift([[1.0, 0.5], [0.5, 0.0]]) == 0.5


def test_numbers_and_tables_that_a_store_says():
    assert [origin.positive(said) for said in (2, 0.5, 10**400, -1, 0, "2", None, float("inf"))] == [
        2.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert [origin.listed(said) for said in ([1], "ab", None)] == [[1], [], []]
    assert page._moment(1e300) == "no time"
    assert page._moment(None) == ""
    assert page._moment(86400 * 365).startswith("197")


def test_models_are_those_of_the_last_session_that_had_each():
    class Said:
        def __init__(self, **provenance):
            self.provenance = provenance

    sessions = [
        Said(models={"a": {"n": 1}, "b": {"n": 1}, "c": "no table"}), Said(models="nothing"),
        Said(models={"b": {"n": 2}, 3: {}}), Said(),
    ]  # fmt: skip
    assert origin.models(sessions) == {"a": {"n": 1}, "b": {"n": 2}, "3": {}}
    assert origin.last_provenance(sessions) == {"models": {"b": {"n": 2}, 3: {}}}
    assert origin.last_provenance([Said()]) == {}


def test_null_models_have_none_of_their_own(bench, monkeypatch):
    bench.walk("ab")
    evidence = bench.evidence
    assert evidence.nulls == {}
    monkeypatch.setattr(reading, "is_null", lambda name: name == "demo")
    with pytest.raises(NotFound, match="demo holds null models, and has none of its own"):
        null_bands.nulls_of(evidence, "sphere_walk", "text")


def test_without_vectors_there_are_no_clusters(bench):
    bench.walk("ab")
    with pytest.raises(AnalysisError, match="There are no vectors"):
        _ = bench.evidence.states


def test_networks_of_which_one_has_failed_are_not_compared(bench):
    bench.add("start", list("aab"), seed=-1)
    bench.fail(bench.add("start", list("ab"), network=("tell",), seed=-1), 2)
    bench.embed({"start": angle_vector(10), "a": angle_vector(0), "b": angle_vector(90)})
    with pytest.raises(AnalysisError, match="fewer than two networks have runs that did not fail"):
        networks.table(bench.evidence, TEXT)


def test_networks_without_a_vector_of_the_start_are_not_compared(bench):
    bench.add("start", list("aab"), seed=-1)
    bench.add("start", list("ab"), network=("tell",), seed=-1)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    with pytest.raises(AnalysisError, match="no run has a vector of its start under embed"):
        networks.table(bench.evidence, TEXT)


def test_territories_of_one_network_that_did_not_fail(bench):
    bench.add("start", list("aaaaaabbbbbb"), seed=-1, max_length=24)
    bench.fail(bench.add("start", list("ab"), network=("tell",), seed=-1), 2)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    with pytest.raises(AnalysisError, match="only one network has runs that did not fail"):
        territories.table(bench.evidence, TEXT)


def test_one_output_comes_not_again(bench):
    bench.add("start", ["a"], seed=-1)
    (row,) = reading.runs(bench.store, "demo")
    assert recurrence.plot(load(bench.store, "demo"), row) is None


def test_ticks_are_powers_of_ten_and_more_while_there_are_few():
    assert twins._decades(pl.Series([], dtype=pl.Float64)) == [1.0]
    assert twins._decades(pl.Series([0.001, 1000.0])) == [0.001, 0.01, 0.1, 1, 10, 100, 1000]
    assert twins._decades(pl.Series([0.9, 30.0])) == [1, 3, 10, 30]
    assert twins._decades(pl.Series([0.9, 6.0])) == [1, 2, 5]
    assert twins._decades(pl.Series([1.1, 3.2])) == [1.5, 2, 3]
    assert twins._decades(pl.Series([3.1, 3.25])) == [3.1, 3.2]
    assert twins._decades(pl.Series([3.11, 3.19])) == [3.11]


def test_a_store_without_interventions_has_an_empty_table_of_them(bench):
    run = bench.add("start", ["a", "b"], seed=-1)
    assert load(bench.store).runs["run"].to_list() == [run]
    assert load(bench.store).interventions.schema == {
        "run": pl.Int64, "step": pl.Int64, "place": pl.Int64, "kind": pl.String, "input": pl.Int64,
        "output": pl.Int64,
    }  # fmt: skip


def test_one_prompt_has_no_rank():
    with pytest.raises(AnalysisError, match="one prompt cannot be told from others"):
        recoverability.ranked(np.eye(2, dtype=np.float32), np.array([0]), np.array([1]))
    ranks, firsts = recoverability.ranked(np.eye(2, dtype=np.float32), np.array([0]), np.array([0, 1]))
    assert (ranks.tolist(), firsts.tolist()) == ([[1.0, 0.0]], [[1.0, 0.0]])
    ranks, firsts = recoverability.ranked(np.eye(3, dtype=np.float32), np.array([0]), np.array([1, 2]))
    assert (ranks.tolist(), firsts.tolist()) == ([[0.5, 0.5]], [[0.5, 0.5]])
