"""Core-set models and detailed balance of stored runs: what is counted, what is left out, what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import (
    core_counts,
    core_moves,
    mixing_time,
    relaxation,
    reversibility,
    timescales,
    transition_matrix,
)
from panic.analysis.questions import chain, clusters, milestones, reversal
from tests.analysis.conftest import TEXT, Bench, corner
from tests.analysis.looks import assert_shown
from tests.analysis.test_cores import DRIVEN, REVERSIBLE
from tests.analysis.test_markov import simulated

LETTERS = "abcd"


def fill(bench: Bench, t: np.ndarray, runs: int = 8, length: int = 30) -> list[np.ndarray]:
    """Runs of a chain of letters with fresh noise, and a stuck one of a fixed seed."""
    paths = [simulated(t, length, start=r % len(t), seed=r) for r in range(runs)]
    for repeat, path in enumerate(paths):
        bench.walk("".join(LETTERS[state] for state in path), seed=-1, repeat=repeat)
    bench.stuck(bench.walk("abc", seed=7), 4, 2)
    bench.embed({letter: corner(i) for i, letter in enumerate(LETTERS[: len(t)])})
    return paths


def test_the_model_is_that_of_the_runs_with_fresh_noise(bench):
    """Every output is in a core here, so that relaxation and mixing are those of the ordinary chain."""
    paths = fill(bench, REVERSIBLE)
    found = milestones.table(bench.evidence, TEXT)
    (chain,) = found.chains
    matrix = transition_matrix(paths, 4)
    assert (chain.num_runs, chain.num_left_out, chain.num_cores, chain.in_cores) == (8, 1, 4, 1.0)
    assert chain.num_moves == sum(len(core_moves(path)) - 1 for path in paths)
    assert chain.relaxation == pytest.approx(timescales(matrix)[0])
    assert chain.mixing == mixing_time(matrix)
    assert chain.low <= chain.relaxation <= chain.high
    assert len(found.passages) == 12
    (q,) = found.committors.filter(pl.col("name") == pl.col("target"))["committor"].unique()
    assert q == 1.0
    text = milestones.sentence(found)
    assert "(4 regions with 100% of the outputs" in text
    assert "8 runs, 1 with a fixed seed left out) forgets with" in text
    charts = assert_shown(milestones, found)
    assert set(charts) == {"draw → tell", "where regions lead"}


def test_a_cluster_has_one_number_in_all_charts(bench):
    """The timeline and the graphs numbered them, and the table of passages had letters of its own."""
    fill(bench, REVERSIBLE)
    timeline = clusters.chart(clusters.table(bench.evidence, TEXT)).to_dict()["encoding"]["color"]["legend"]
    passages = milestones.chart(milestones.table(bench.evidence, TEXT))["draw → tell"].to_dict()["layer"][0]
    rows, columns = (passages["encoding"][axis]["sort"] for axis in ("y", "x"))
    assert sorted(rows) == sorted(set(timeline["values"]) - {"outlier"})
    assert columns == [row.partition(":")[0] for row in rows]


def test_a_ring_never_forgets(bench):
    fill(bench, np.roll(np.eye(3), 1, axis=1))
    found = milestones.table(bench.evidence, TEXT)
    assert "turns in a ring" in milestones.sentence(found)


def test_moves_with_a_direction_are_told_from_such_without(make_bench, bench):
    fill(bench, DRIVEN)
    found = reversal.table(bench.evidence, TEXT)
    row = found.tests.row(0, named=True)
    assert (row["p_value"], row["num_rings"], row["num_left_out"]) == (0.005, 3, 1)
    assert row["net_share"] > row["null_high"]
    assert "moves in one direction more than detailed balance allows (p = 0.005, the least" in (
        reversal.sentence(found)
    )
    assert found.pairs["forth"].sum() + found.pairs["back"].sum() == row["num_moves"]
    charts = assert_shown(reversal, found)
    assert set(charts) == {"beside detailed balance", "forth and back"}


def test_moves_without_one_are_not(bench):
    fill(bench, REVERSIBLE)
    assert "could not be shown to move in one direction" in reversal.sentence(
        reversal.table(bench.evidence, TEXT)
    )


def test_directions_of_several_networks_are_corrected_for_their_number(bench):
    """Each of four networks had its own 5 %, where other questions correct for their number."""
    for number, network in enumerate((("draw", "tell"), ("tell",), ("tell",) * 3, ("tell",) * 4)):
        for repeat in range(6):
            path = simulated(
                DRIVEN if number < 2 else REVERSIBLE, 30, start=repeat % 4, seed=10 * number + repeat
            )
            bench.walk("".join(LETTERS[state] for state in path), seed=-1, repeat=repeat, network=network)
    bench.embed({letter: corner(i) for i, letter in enumerate(LETTERS)})
    tests = reversal.table(bench.evidence, TEXT).tests
    assert tests["p_value"].sort().to_list()[:2] == [0.005, 0.005]
    assert tests["p_adjusted"].sort()[0] == pytest.approx(0.02)
    assert (tests["p_adjusted"] >= tests["p_value"]).all()


def test_many_clusters_with_few_moves_are_not_all_tested():
    """Of independent outputs in 16 clusters 92 % of data sets had a direction."""
    rng = np.random.default_rng(0)
    assert reversal.enough_moves([rng.integers(16, size=20) for _ in range(8)])[1] == []
    known, moves = reversal.enough_moves([rng.integers(16, size=60) for _ in range(8)])
    assert 3 <= len(known) < 16
    assert sum(len(run) - 1 for run in moves) >= 4 * len(known) * (len(known) - 1)


@pytest.mark.long
def test_independent_outputs_in_many_clusters_have_a_direction_as_often_as_the_level_says():
    significant = asked = 0
    for data_set in range(1000):
        rng = np.random.default_rng(data_set)
        known, moves = reversal.enough_moves([rng.integers(16, size=40) for _ in range(8)])
        try:
            significant += reversibility(moves, len(known), num_draws=99).p_value <= 0.05
            asked += 1
        except AnalysisError:
            continue
    assert asked > 900
    assert 0.03 <= significant / asked <= 0.07


def test_few_moves_and_two_clusters_are_refused(bench):
    fill(bench, REVERSIBLE, runs=2, length=8)
    for question in (milestones, reversal):
        with pytest.raises(AnalysisError, match="20 moves"):
            question.table(bench.evidence, TEXT)


def test_between_two_clusters_there_is_no_direction(bench):
    fill(bench, np.array([[0.5, 0.5], [0.5, 0.5]]))
    with pytest.raises(AnalysisError, match="3 clusters"):
        reversal.table(bench.evidence, TEXT)
    assert len(milestones.table(bench.evidence, TEXT).chains) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_random_order_leaves_its_band_as_often_as_its_level_says():
    """Of 1,000 data sets of independent outputs in 4 clusters."""
    outside = 0
    for data_set in range(1000):
        rng = np.random.default_rng(data_set)
        runs = [rng.integers(4, size=16) for _ in range(6)]
        band = milestones.in_random_order(runs, 4)
        assert band is not None
        assert float(band.value) == relaxation(core_counts(runs, 4).sum(axis=0))
        outside += bool(band.is_outside)
    assert 30 <= outside <= 70


def test_one_output_is_no_outputs():
    assert milestones._outputs(1.0) == "1 output"
    assert milestones._outputs(1.25) == "1.25 outputs"


def test_twenty_clusters_are_cores_where_runs_are_most_often(bench):
    letters = "abcdefghijklmnopqrstu"
    bench.walk(letters[:20] * 7 + letters[20] * 6, seed=-1)
    bench.embed({letter: np.eye(21)[i] for i, letter in enumerate(letters)})
    (chain,) = milestones.table(bench.evidence, TEXT).chains
    assert (chain.num_cores, chain.in_cores) == (20, pytest.approx(140 / 146))


@pytest.mark.parametrize("num_moves", [19, 20])
def test_twenty_moves_are_enough(bench, num_moves):
    bench.walk(("ab" * 11)[: num_moves + 1], seed=-1)
    bench.embed({"a": corner(0), "b": corner(1)})
    for question in (chain, milestones):
        if num_moves < 20:
            with pytest.raises(AnalysisError, match="20 moves"):
                question.table(bench.evidence, TEXT)
        else:
            assert question.table(bench.evidence, TEXT).chains[0].num_moves == 20


@pytest.mark.parametrize(("num_runs", "is_told"), [(5, False), (6, True)])
def test_six_runs_have_an_interval_of_their_relaxation(num_runs, is_told):
    runs = [simulated(REVERSIBLE, 40, start=run % 4, seed=run) for run in range(num_runs)]
    value, low, high = milestones._relaxation(runs, 4)
    assert np.isfinite([low, high]).tolist() == [is_told] * 2
    assert not is_told or low < value < high


@pytest.mark.parametrize(("num_moves", "num_known"), [(23, 0), (24, 3)])
def test_four_moves_for_each_pair_and_direction_are_enough(num_moves, num_known):
    """Of three clusters there are three pairs, with two directions each."""
    known, moves = reversal.enough_moves([np.arange(num_moves + 1) % 3])
    assert (len(known), len(moves)) == (num_known, bool(num_known))


def test_twenty_clusters_at_most_are_tested_for_a_direction():
    assert len(reversal.enough_moves([np.arange(2000) % 21])[0]) == 20
    assert len(reversal.enough_moves([np.arange(2000) % 20])[0]) == 20


@pytest.mark.parametrize(("number", "said"), [(8, False), (9, True)])
def test_eight_cores_are_drawn(number, said):
    names = [f"core {place}" for place in range(number)]
    rows = [
        ("n", names[i], names[j], i, j, 1, 2.0 + i) for i in range(number) for j in range(number) if i != j
    ]
    frame = pl.DataFrame(rows, milestones.PASSAGES, orient="row")
    made = milestones.passage_chart(frame, [*range(number)], "n").to_dict()
    assert ("1 regions that are visited less are not drawn." in " ".join(made["title"]["subtitle"])) == said
    assert made["layer"][0]["encoding"]["x"]["sort"] == [str(place) for place in range(8)]
