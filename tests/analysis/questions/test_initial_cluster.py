"""Tests of coming back to the first cluster, of runs through corners."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis.chance import matching
from panic.analysis.checks import AnalysisError
from panic.analysis.questions import initial_cluster
from panic.analysis.questions.initial_cluster import tables
from tests.analysis.conftest import TEXT
from tests.analysis.looks import assert_shown


def fill(bench, path, *, num_prompts: int = 6, repeats: int = 2) -> None:
    """Runs of which `path` (prompt, output) says in which of some corners they are."""
    rng = np.random.default_rng(0)
    vectors = {}
    for number in range(num_prompts):
        for repeat in range(repeats):
            texts = [f"{number} {repeat} {output}" for output in range(12)]
            bench.add(f"start {number}", texts, seed=-1, repeat=repeat, max_length=24)
            for output, text in enumerate(texts):
                vectors[text] = (np.eye(8)[path(number, output)] + rng.normal(0, 0.01, 8)).astype(np.float32)
    bench.embed(vectors)


def test_tables_pair_runs_with_those_of_other_prompts():
    first = np.array([[0, 0, 1], [1, 1, 1]])
    second = np.array([[1, 0, 1]])
    found = tables([first, second])
    assert found.shape == (2, 2, 2)
    assert found[0].tolist() == [[1.0, 0.5], [0.0, 0.0]]
    assert found[1].tolist() == [[0.5, 0.5], [1.0, 1.0]]


def test_runs_that_come_back_do_so_more_often_than_chance(bench):
    fill(bench, lambda prompt, output: 7 if output in (3, 4) else prompt)
    answer = initial_cluster.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    assert (row["late"], row["left"], row["came_back"], row["num_runs"]) == (1, 1, 1, 12)
    assert row["by_chance"] == pytest.approx(1 / 6)
    assert row["p_value"] == pytest.approx(1 / 720)
    assert answer.curve["share"].to_list() == [1, 1, 0, 0] + [1] * 7
    said = initial_cluster.sentence(answer)
    assert "draw → tell more often than chance (100% of 12 runs of 6 prompts late on, chance 17%" in said
    assert "100% ever left it, of which 100% were in it again" in said
    assert_shown(initial_cluster, answer)


def test_outputs_between_those_that_are_drawn_count(bench):
    """Runs that go away and back were looked at with every second output, and said never to leave."""
    vectors = {}
    for number in range(4):
        run = bench.add(f"start {number}", [f"home {number}", f"away {number}"], max_length=358)
        bench.stuck(run, 0, 4)
        vectors |= {f"home {number}": np.eye(8)[number], f"away {number}": np.eye(8)[7 - number]}
    bench.embed(vectors)
    answer = initial_cluster.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    assert row["late"] == pytest.approx(0.5, abs=0.01)
    assert (row["left"], row["came_back"]) == (1, 1)


def test_a_place_where_all_end_is_no_return(bench):
    """Every prompt ends where the first two began: that is the network's doing."""
    fill(bench, lambda prompt, output: prompt // 2 if output < 4 else 0)
    answer = initial_cluster.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    assert row["late"] == pytest.approx(1 / 3)
    assert row["p_value"] == 1.0
    assert "not shown to be there more often than chance" in initial_cluster.sentence(answer)


def test_without_clusters_or_with_three_prompts_it_is_refused(bench):
    fill(bench, lambda prompt, output: prompt, num_prompts=3)
    with pytest.raises(AnalysisError, match="no network has 4 prompts whose runs begin in a cluster"):
        initial_cluster.table(bench.evidence, TEXT)


def test_no_cluster_is_said(bench):
    bench.add("a start", ["one", "two"], seed=-1)
    bench.embed({"one": np.eye(8)[0], "two": np.eye(8)[1]})
    with pytest.raises(AnalysisError, match="no cluster was found, so none can be come back to"):
        initial_cluster.table(bench.evidence, TEXT)


@pytest.mark.slow
def test_the_level_is_held_without_memory():
    """Of 1,000 data sets of 10 prompts without a memory 3 to 7 % are said to come back at 5 %."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(1000):
        runs = [rng.integers(4, size=(2, 12)) for _ in range(10)]
        p_values.append(float(matching(tables(runs)[7:].mean(axis=0)).p_value))
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07


def test_sixty_prompts_are_asked(bench):
    fill(bench, lambda prompt, output: prompt % 3, num_prompts=61, repeats=1)
    row = initial_cluster.table(bench.evidence, TEXT).scores.row(0, named=True)
    assert (row["num_prompts"], row["num_runs"]) == (60, 60)


def test_90_outputs_of_long_runs_are_drawn_the_first_among_them(bench):
    for number in range(4):
        bench.add(f"start {number}", list("ab"[number % 2] * 91), network=("tell",), seed=-1, max_length=91)
    bench.embed({"a": np.eye(2)[0], "b": np.eye(2)[1]})
    assert len(initial_cluster.table(bench.evidence, TEXT).curve) == 89
