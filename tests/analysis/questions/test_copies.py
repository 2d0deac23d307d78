"""Runs of a fixed seed that met are copies: no test of a question takes them for several cases."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError
from panic.analysis.questions import (
    clusters,
    dimension,
    dwell,
    image_quality,
    lag,
    patterns,
    period,
    semantic_drift,
    vendi,
)
from panic.analysis.states import agreement
from tests.analysis.conftest import TEXT, angle_vector, corner

PATH = "abcabdacbdcabdbc"


@pytest.fixture
def copies(bench):
    """Three runs, of three prompts, that are one path from their first text on, and one with fresh noise."""
    for prompt in ("first", "second", "third"):
        bench.add(prompt, list(PATH), seed=1, max_length=2 * len(PATH))
    bench.add("first", list(PATH[::-1]), seed=-1, max_length=2 * len(PATH))
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    return bench


def test_one_run_of_every_trajectory_is_tested(copies):
    evidence = copies.evidence
    assert len(evidence.distinct) == 2
    assert len(evidence.paths(TEXT, least=2)) == 2
    assert len(patterns.table(evidence, TEXT)) == 2
    assert period.table(evidence, TEXT).num_runs == 2
    assert len(dwell.table(evidence, TEXT).band) == 2


def test_how_runs_move_is_not_made_sure_by_copies(copies):
    """Three copies had the dips of one path agree over runs, and so it was said to come back."""
    answer = lag.table(copies.evidence, TEXT)
    assert {group: found.num_runs for group, found in answer.movements.items()} == {
        "draw → tell": 1,
        "draw → tell, fixed seed": 1,
    }
    assert answer.curves["num_runs"].max() == 3


def test_copies_share_no_cluster_and_leave_together(bench):
    """What copies visit was said to be visited by several runs, and to hold without a fifth of them."""
    texts = {f"{place}{n}": angle_vector(90 * i + n) for i, place in enumerate("ab") for n in range(8)}
    for prompt in ("first", "second", "third"):
        bench.add(prompt, list(texts), seed=1, max_length=2 * len(texts))
    bench.embed(texts)
    evidence = bench.evidence
    assert clusters.table(evidence, TEXT).shared == 0
    assert "No cluster is visited by more than one run" in clusters.sentence(clusters.table(evidence, TEXT))
    with pytest.raises(AnalysisError, match="3 runs that are no copies, found 1"):
        agreement(evidence.data, *TEXT, evidence.states)


def test_surrogates_are_of_distinct_runs(bench):
    rng = np.random.default_rng(0)
    texts = {f"text {n}": rng.normal(size=8).astype(np.float32) for n in range(24)}
    for prompt in ("first", "second", "third"):
        bench.add(prompt, list(texts), seed=1, max_length=2 * len(texts))
    bench.embed(texts)
    assert len(dimension.table(bench.evidence, TEXT)) == 1


def test_prompts_that_met_under_some_seed_are_one_start(bench):
    """Three prompts that met two by two under three seeds were six independent starts, enough for a test."""
    vectors = {}
    for seed, apart in enumerate(("first", "second", "third"), start=1):
        for prompt in ("first", "second", "third"):
            name = prompt if prompt == apart else "both"
            texts = [f"{name} {seed} {output}" for output in range(6)]
            bench.add(prompt, texts, seed=seed, max_length=12)
            vectors |= {text: angle_vector(10 * i) for i, text in enumerate(texts)}
    bench.embed({**vectors, **dict.fromkeys(("first", "second", "third"), angle_vector(0))})
    scores = semantic_drift.table(bench.evidence, TEXT).scores
    assert scores["num_starts"].to_list() == [1]
    assert np.isnan(scores["p_value"][0])
    tests = image_quality.table(bench.evidence).tests
    assert set(tests["num_units"]) == {1}


def test_captioners_that_take_turns_are_no_change_from_early_to_late(bench):
    """Three early texts were two of the one kind of captioner and one of the other, late ones the reverse."""
    vectors = {}
    for number in range(8):
        texts = [f"{number} {output}" for output in range(16)]
        bench.add(f"start {number}", texts, seed=-1, network=("tell",) * 4, max_length=16)
        towards = {0: angle_vector(20 * number), 1: angle_vector(2 * number)}
        vectors |= {f"start {number}": angle_vector(60)}
        vectors |= {text: towards[output % 2] for output, text in enumerate(texts)}
    bench.embed(vectors)
    tests = vendi.table(bench.evidence, TEXT).tests
    assert tests["early"][0] == pytest.approx(tests["late"][0])
    scores = semantic_drift.table(bench.evidence, TEXT).scores
    assert scores["early"][0] == pytest.approx(scores["late"][0])
