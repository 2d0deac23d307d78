"""Chains of clusters whose law, times and ends are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from panic.analysis import AnalysisError
from panic.analysis.questions import chain
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


def two_states(count: int, rng: np.random.Generator) -> str:
    """A path of the chain that leaves a with 0.2 and b with 0.4."""
    state, letters = 0, []
    for _ in range(count):
        letters.append("ab"[state])
        state = int(rng.random() < (0.2, 0.6)[state])
    return "".join(letters)


def test_a_chain_of_two_states_has_its_law_rate_and_times(bench):
    rng = np.random.default_rng(0)
    for repeat in range(8):
        bench.walk(two_states(400, rng), seed=-1, repeat=repeat)
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = chain.table(bench.evidence, TEXT)
    (found,) = answer.chains
    exact = -(2 / 3) * (0.2 * np.log(0.2) + 0.8 * np.log(0.8)) - (1 / 3) * (
        0.4 * np.log(0.4) + 0.6 * np.log(0.6)
    )
    assert found.num_moves == 8 * 399
    assert found.entropy_rate == pytest.approx(exact, abs=0.03)
    assert found.entropy_rate < float(found.shuffled.low)
    assert found.slowest == pytest.approx(-1 / np.log(0.4), rel=0.15)
    assert found.endings == []
    rows = {row["name"]: row for row in answer.clusters.iter_rows(named=True)}
    assert rows["a"]["long_run"] == pytest.approx(2 / 3, abs=0.04)
    assert rows["b"]["first_passage"] == pytest.approx(1 / 0.2, rel=0.15)  # all begin in a
    assert rows["a"]["first_passage"] == 0


def test_a_ring_makes_no_news_and_has_no_relaxation_time(bench):
    bench.walk("abc" * 20, seed=-1)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    answer = chain.table(bench.evidence, TEXT)
    assert answer.chains[0].entropy_rate == 0
    assert np.isinf(answer.chains[0].slowest)
    assert "no relaxation time" in chain.sentence(answer)
    assert_shown(chain, answer)


def test_one_move_into_a_cluster_does_not_make_it_the_long_run(bench):
    """The chain of the demo: seen to leave once in 60 outputs, it was told to be there all the time."""
    bench.walk("a" * 40, seed=-1)
    bench.walk("a" * 20 + "b" * 20, seed=-1, repeat=1)
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = chain.table(bench.evidence, TEXT)
    (found,) = answer.chains
    assert found.slowest == pytest.approx(-1 / np.log(58 / 59))
    assert found.entropy_rate is None
    assert answer.clusters["long_run"].is_nan().all()
    said = chain.sentence(answer)
    assert "does not relax within a run (the longest has 40 outputs)" in said
    assert "nats" not in said


def test_parts_that_are_never_left_are_counted_with_their_shares(bench):
    for repeat in range(3):
        bench.walk("aaaaab" + "b" * 20, seed=-1, repeat=repeat)
    bench.walk("aaaaac" + "c" * 20, seed=-1, repeat=3)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    answer = chain.table(bench.evidence, TEXT)
    (found,) = answer.chains
    assert sorted(found.endings) == pytest.approx([0.25, 0.75])
    assert found.entropy_rate is None
    passages = dict(answer.clusters.select("name", "first_passage").iter_rows())
    assert passages == {"a": 0.0, "b": np.inf, "c": np.inf}
    assert "2 parts that were never seen to be left, and ends in them with 75%, 25%" in chain.sentence(answer)


def test_a_cluster_that_runs_stop_in_at_once_is_no_trap(bench):
    for repeat in range(6):
        bench.walk("ab" * 10 + "c", seed=-1, repeat=repeat)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    answer = chain.table(bench.evidence, TEXT)
    assert answer.chains[0].endings == []
    shares = dict(answer.clusters.select("name", "long_run").iter_rows())
    assert 0 < shares["c"] < 0.1


def test_fixed_seeds_are_no_chain(bench):
    bench.walk("abc" * 20)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    with pytest.raises(AnalysisError, match="20 moves"):
        chain.table(bench.evidence, TEXT)


def test_without_a_long_run_the_share_seen_is_drawn(bench):
    """Two parts that are never left: bars of the long run would all be missing."""
    for repeat, letters in enumerate(("ab" * 12, "cd" * 12)):
        bench.walk(letters, seed=-1, repeat=repeat)
    bench.embed({one: corner(i) for i, one in enumerate("abcd")})
    answer = chain.table(bench.evidence, TEXT)
    assert answer.clusters["long_run"].is_nan().all()
    charts = assert_shown(chain, answer, "without a long run")
    made = charts["as far as was seen"].to_dict()
    assert made["encoding"]["x"]["field"] == "seen"


def test_what_is_said_of_the_long_run_is_true_of_networks_that_are_not_drawn():
    """Of seven networks six are drawn, and of the last alone is known where it is in the long run."""
    rows = [(f"n{i}", "a", 0, 1.0, 1.0 if i == 6 else np.nan, np.nan) for i in range(7)]
    answer = chain.Chains(chains=[], clusters=pl.DataFrame(rows, chain.LONG_RUN, orient="row"))
    said = str(chain.chart(answer)["as far as was seen"].to_dict()["title"])
    assert "1 more network is not drawn" in said.replace("', '", " ")
    assert "Of none drawn here can the long run be told" in said.replace("', '", " ")


def test_parts_that_few_runs_end_in_are_told_together():
    told = chain.Chain(
        network="a", num_moves=90, num_runs=300, num_states=9, longest=9, slowest=1.0,
        endings=[0.5, 0.496, 0.004, 0.0], entropy_rate=None, shuffled=None,
    )  # fmt: skip
    answer = chain.Chains(chains=[told], clusters=pl.DataFrame(schema=chain.LONG_RUN))
    assert "has 4 parts that were never seen to be left" in chain.sentence(answer)
    assert chain.sentence(answer).endswith("ends in them with 50%, 50%.")
    some = replace(told, endings=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    said = chain.sentence(replace(answer, chains=[some]))
    assert "ends in them with 30%, 20%, 20%, 10%, and in others." in said


@pytest.mark.parametrize(("number", "said"), [(6, False), (7, True)])
def test_six_networks_are_drawn_beside_each_other(number, said):
    rows = [(f"n{place}", "a boat", 0, 1.0, 1.0, 0.0) for place in range(number)]
    answer = chain.Chains(chains=[], clusters=pl.DataFrame(rows, chain.LONG_RUN, orient="row"))
    for made in chain.chart(answer).values():
        assert ("1 more network is not drawn." in " ".join(made.to_dict()["title"]["subtitle"])) == said
