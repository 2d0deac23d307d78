"""Clusters as states."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError, load
from panic.analysis import states as module
from panic.analysis.checks import OUTLIER
from panic.analysis.states import agreement, distinct, states
from tests.analysis.conftest import TEXT, angle_vector, corner


def test_an_output_that_is_visited_often_is_a_cluster_of_its_own(bench):
    run = bench.walk("aaaaaabbbbbbbc")
    bench.embed({"a": corner(0), "b": corner(1), "c": corner(2)})
    found = states(load(bench.store, "demo"), *TEXT)
    (labels,) = found.labels()
    assert [found.names.get(label) for label in labels] == ["a"] * 6 + ["b"] * 7 + [None]
    assert labels[-1] == OUTLIER
    assert found.frame["step"].to_list() == list(range(1, 28, 2))
    assert found.frame["run"].unique().to_list() == [run]


def walks(bench, letters: list[str], seed: int = -1) -> None:
    for repeat, text in enumerate(letters):
        bench.walk(text, seed=seed, repeat=repeat)


def test_agreement_is_that_of_the_clusters_that_are_drawn_when_runs_are_left_out(bench):
    walks(bench, ["aaaabbbb", "bbbbaaaa", "aabbaabb", "abababab", "aaabbbab"])
    bench.embed({"a": corner(0), "b": corner(1)})
    data = load(bench.store, "demo")
    assert agreement(data, *TEXT, states(data, *TEXT)).tolist() == [1.0] * 8


def test_agreement_falls_where_there_are_no_regions(bench):
    """Directions all around a circle: what is dense there is luck, and another with other runs."""
    rng = np.random.default_rng(0)
    texts = [[f"{run} {step}" for step in range(12)] for run in range(8)]
    for repeat, run in enumerate(texts):
        bench.add("start", run, seed=-1, repeat=repeat, max_length=24)
    bench.embed({text: angle_vector(rng.uniform(0, 360)) for run in texts for text in run})
    data = load(bench.store, "demo")
    assert np.median(agreement(data, *TEXT, states(data, *TEXT))) < 0.8


@pytest.mark.parametrize("num_runs", [1, 2])
def test_one_or_two_runs_have_no_agreement(bench, num_runs):
    """Leaving out a fifth of them left out nothing, and 1.00 was said."""
    walks(bench, ["aaaaaabbbbbb"] * num_runs)
    bench.embed({"a": corner(0), "b": corner(1)})
    data = load(bench.store, "demo")
    with pytest.raises(AnalysisError, match="needs 3 runs"):
        agreement(data, *TEXT, states(data, *TEXT))


def test_a_text_that_a_run_is_stuck_at_is_visited_to_the_end(bench):
    stuck = bench.add("start", list("bcdefgaa"), max_length=200)
    bench.stuck(stuck, 12, 2)
    bench.walk("hijkhijkhijkhijkhijk", seed=-1)
    bench.embed({name: np.eye(12)[i] for i, name in enumerate("abcdefghijk")})
    found = states(load(bench.store, "demo"), *TEXT)
    assert "a" in found.names.values()


def test_clusters_whose_names_begin_alike_have_their_number_behind():
    """Charts have one row per name: two clusters of one name were drawn as one."""
    assert distinct({0: "a red…", 1: "a blue…", 7: "a red…"}) == {
        0: "a red… (0)",
        1: "a blue…",
        7: "a red… (7)",
    }


def three_heaps(bench) -> None:
    """Sixty texts about three corners, twenty each, in six runs."""
    rng = np.random.default_rng(0)
    vectors = {}
    for run in range(6):
        texts = [f"{run} {step}" for step in range(10)]
        bench.add("start", texts, seed=-1, repeat=run, max_length=20)
        vectors |= {text: corner(run // 2) + 0.01 * rng.normal(size=4) for text in texts}
    bench.embed(vectors)


def test_of_many_outputs_some_are_clustered_and_the_others_assigned(bench, monkeypatch):
    three_heaps(bench)
    data = load(bench.store, "demo")
    whole = states(data, *TEXT)
    monkeypatch.setattr(module, "MAX_CLUSTERED", 60)
    assert len(states(data, *TEXT).rows) == 60, "so many are no sample"
    for most, num_clustered in ((59, 30), (30, 30), (20, 20)):
        monkeypatch.setattr(module, "MAX_CLUSTERED", most)
        some = states(data, *TEXT)
        assert len(some.rows) == num_clustered
        assert some.clustering.num_clusters == 3
        found = [label for labels in some.labels() for label in labels]
        expected = [label for labels in whole.labels() for label in labels]
        pairs = {pair for pair in zip(found, expected, strict=True) if OUTLIER not in pair}
        assert len(pairs) == 3, "the same clusters, by whatever numbers"
        assert found.count(OUTLIER) < 20
    ids = whole.frame["run"].unique().sort().to_list()
    among = whole.labels(among=[ids[2], ids[5]])
    assert [labels.tolist() for labels in among] == [whole.labels()[place].tolist() for place in (2, 5)]
    assert among[0].tolist() != among[1].tolist(), "of two heaps"
    assert whole.labels("nobody") == []


def test_agreement_is_asked_as_often_as_there_is_time_for(bench, monkeypatch):
    three_heaps(bench)
    data = load(bench.store, "demo")
    found = states(data, *TEXT)
    for most, number in ((9000, 8), (60 * 3, 3), (60 * 3 - 1, 2), (1, 2)):
        monkeypatch.setattr(module, "MAX_CLUSTERED_AGAIN", most)
        assert agreement(data, *TEXT, found).tolist() == [1.0] * number
    assert len(agreement(data, *TEXT, found, repeats=5)) == 2


def test_an_image_is_named_by_the_first_text_that_it_was_drawn_from(bench):
    """And one of a text that nobody has by its number."""
    for repeat, texts in enumerate((["one", "two"] * 4, ["other", "two"] * 4)):
        bench.add("start", texts, seed=-1, repeat=repeat, max_length=16)
    bench.embed_images({number: corner(0) for number in range(8)})
    found = states(load(bench.store, "demo"), "embed", "image")
    first = found.frame.filter(run=1).sort("step")
    assert first["text"].to_list() == ["start", *(["one", "two"] * 4)[:7]]
    second = found.frame.filter(run=2).sort("step")
    assert second["text"].to_list() == first["text"].to_list(), "the same pictures, drawn from others"
    assert found.clustering.num_clusters == 1
    assert set(found.names.values()) <= {"start", "one", "two"}


@pytest.mark.parametrize(("visits", "name"), [(5, "a"), (4, None)])
def test_what_was_visited_five_times_is_a_cluster(bench, visits, name):
    bench.walk("a" * visits + "bbbbbbbbbcd")
    bench.embed({letter: corner(number) for number, letter in enumerate("abcd")})
    found = states(load(bench.store, "demo"), *TEXT)
    assert found.names.get(int(found.labels()[0][0])) == name


@pytest.mark.parametrize(("length", "name"), [(52, "x" * 52), (53, "x" * 51 + "…")])
def test_a_cluster_is_named_by_52_characters_of_its_text(bench, length, name):
    bench.add("start", ["x" * length] * 6 + ["b"] * 6, seed=-1, max_length=24)
    bench.embed({"x" * length: corner(0), "b": corner(1)})
    assert set(states(load(bench.store, "demo"), *TEXT).names.values()) == {name, "b"}
