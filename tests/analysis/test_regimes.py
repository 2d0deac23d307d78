"""Regimes of runs of which is known what they do, alone and in a store."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from panic.analysis import nulls
from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import periodicity, periodicity_of_pairs, regime
from panic.analysis.dynamics.regime import _moves_on, share_as_high
from panic.analysis.questions import regimes
from tests.analysis.conftest import TEXT, Bench, corner
from tests.analysis.looks import assert_shown

RNG = np.random.default_rng(0)


def about(places: np.ndarray, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Unit vectors about corners of a space of 16 dimensions."""
    rng = np.random.default_rng(seed)
    points = np.eye(16)[places] + noise * rng.normal(size=(len(places), 16))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_what_goes_round_oscillates():
    found = regime(about(np.arange(42) % 7, 0.15), 1.0)
    assert (found.name, found.period, found.p_value) == ("oscillating", 7, 0.025)
    assert found.likeness == pytest.approx(periodicity(about(np.arange(42) % 7, 0.15)).score, abs=1e-9)
    assert regime(about(np.arange(30) % 2, 0.0), 1.0).period == 2


def test_what_stays_near_a_place_contracts():
    found = regime(about(np.r_[[1, 2], np.zeros(30, dtype=int)]), 1.0)
    assert (found.name, found.period) == ("contracting", None)
    assert found.spread < 0.3
    still = regime(about(np.zeros(20, dtype=int), 0.0), 1.0)
    assert (still.name, still.spread, still.moves_on) == ("contracting", 0.0, 1.0)
    assert regime(about(np.zeros(20, dtype=int), 0.0), 0.0).name == "contracting"


def test_what_roams_explores_and_so_does_what_moves_on():
    roams = regime(about(RNG.integers(4, size=40)), 1.0)
    assert (roams.name, roams.spread > 0.5, roams.moves_on < 1.3) == ("exploring", True, True)
    walk = nulls.sphere_walk(60, 16, 0.12, np.random.default_rng(1))
    found = regime(walk, 1.0)
    assert (found.name, found.spread < 0.5, found.moves_on > 1.6) == ("exploring", True, True)


def test_a_single_jump_is_no_moving_on():
    """The mean over pairs of quarters would call a run that stays here and then there a walk."""
    assert regime(about(np.repeat([0, 1], 20)), 1.0).moves_on < 1.3
    assert regime(about(np.repeat([0, 1], [10, 30])), 1.0).name == "contracting"


@pytest.mark.parametrize("corners", [[0, 1, 2, 2], [0, 0, 1, 2], [0, 1, 1, 2]])
def test_every_pair_of_neighbouring_quarters_has_to_be_apart(corners):
    """Two of three do not do: neighbours in one place have the ratio 1, in two an infinite one."""
    assert regime(about(np.repeat(corners, 5), 0.0), 10.0).moves_on == 1.0
    assert regime(about(np.repeat([0, 1, 2, 3], 5), 0.0), 10.0).moves_on == np.inf


def test_the_ratio_of_quarters_is_that_of_their_means():
    """Within them all are 1 apart; neighbours are 3, 2 and 5 apart, and others 9, which do not count."""
    between = np.array([[1, 3, 9, 9], [3, 1, 2, 9], [9, 2, 1, 5], [9, 9, 5, 1]], dtype=float)
    apart = np.kron(between, np.ones((4, 4)))
    np.fill_diagonal(apart, 0.0)
    assert _moves_on(apart) == 2.0
    apart[4:8, 4:8] *= 3  # within the second: a mean of 2 with either neighbour
    assert _moves_on(apart) == 1.0


def test_outputs_half_the_scale_apart_do_not_roam_yet():
    """Corners are 1 apart, which is the median: 0.5 of a scale of 2, and more of any smaller one."""
    points = about(np.random.default_rng(3).integers(4, size=40), 0.0)
    (at, above) = (regime(points, scale) for scale in (2.0, 1.99))
    assert (at.spread, at.name) == (0.5, "contracting")
    assert (above.spread, above.name) == (pytest.approx(1 / 1.99), "exploring")
    assert at.moves_on < 1.6


def test_pairs_of_two_outputs_count_and_an_output_with_itself_does_not():
    """Of eight late outputs in two places 16 pairs of 28 are apart; with each beside itself, 16 of 36."""
    points = about(np.r_[[2, 3] * 4, [0, 0, 0, 0, 1, 1, 1, 1]], 0.0)
    assert regime(points, 1.0).spread == 1.0


def test_equal_outputs_are_equal_but_for_the_last_bits():
    """Vectors of one direction are no exact copies once they have the length 1."""
    points = np.outer(np.linspace(0.1, 3, 20), [0.3, -0.7, 0.1, 0.9])
    found = regime(points, 0.0)
    assert (found.name, found.spread, found.moves_on) == ("contracting", 0.0, 1.0)


def test_of_a_long_run_its_last_400_outputs_count():
    """Each quarter of them stays in its own place; with one more or one less, a quarter has two places."""
    points = about(np.repeat([4, 0, 1, 2, 3], [1, 100, 100, 100, 100]), 0.0)
    assert regime(points, 1.0).moves_on == np.inf
    assert regime(points[2:], 1.0).moves_on < np.inf


def test_too_short_runs_are_refused():
    with pytest.raises(AnalysisError, match="at least 16 vectors"):
        regime(about(np.zeros(15, dtype=int)), 1.0)


def test_the_share_of_shuffles_counts_the_run_itself():
    """No order of equal outputs has another peak than theirs, and none reaches one of more than 1."""
    points = about(np.random.default_rng(0).integers(4, size=24))
    alike = points @ points.T
    for score, share in ((-9.0, 1.0), (9.0, 1 / 40)):
        assert share_as_high(alike, score, np.random.default_rng(0)) == share
    same = np.ones((24, 24))
    score = periodicity_of_pairs(same).score
    assert share_as_high(same, score, np.random.default_rng(0)) == 1.0
    assert share_as_high(same, score + 1e-9, np.random.default_rng(0)) == 1 / 40


@pytest.mark.slow
def test_independent_outputs_have_a_peak_of_likeness_as_often_as_the_level_says():
    """Of 1,000 runs; a label needs a high likeness besides, which is why none of them has it."""
    reached = 0
    for i in range(1000):
        points = about(np.random.default_rng(i).integers(4, size=24), seed=i)
        alike = points @ points.T
        score = periodicity_of_pairs(alike).score
        reached += share_as_high(alike, score, np.random.default_rng(i)) <= 0.05
        assert i >= 100 or regime(points, 1.0).name != "oscillating"
    assert 30 <= reached <= 70


@pytest.fixture
def mixed(bench: Bench) -> Bench:
    """Stuck in two laps, stuck in one, going round, staying, and too short."""
    two = bench.walk("xyab", seed=1)
    bench.stuck(two, 4, 4)
    one = bench.walk("yxc", seed=2)
    bench.stuck(one, 4, 2)
    bench.walk("abcd" * 6, seed=-1)
    bench.walk("x" + "a" * 19, seed=-1, repeat=1)
    bench.walk("abc", seed=-1, repeat=2)
    letters = {letter: corner(i) for i, letter in enumerate("abcd")}
    bench.embed(letters | {"x": corner(3), "y": corner(2), "start": corner(1)})
    return bench


def test_stuck_runs_and_others_by_what_they_do(mixed):
    found = regimes.table(mixed.evidence, TEXT)
    rows = {row["run"]: row for row in found.runs.iter_rows(named=True)}
    assert [row["regime"] for row in rows.values()] == [
        *("oscillating", "contracting", "oscillating", "contracting")
    ]
    assert [row["period"] for row in rows.values()] == [2, 1, 4, None]
    assert [row["rests_on"] for row in rows.values()] == [
        "stuck: a cycle of 2 laps", "stuck: the same every lap", "likeness 1 after 4 laps (p = 0.025)",
        "late outputs 0 of the scale apart, moves on by 1",
    ]  # fmt: skip
    assert found.num_short == 1
    text = regimes.sentence(found)
    assert (
        "draw → tell (4 runs) 50% contracting (7% to 93%), 50% oscillating (7% to 93%), 0% exploring" in text
    )
    assert "1 run is too short to tell (16 outputs are needed)" in text
    charts = assert_shown(regimes, found)
    assert set(charts) == {"", "what it rests on"}


def test_intervals_of_shares_are_exact(mixed):
    shares = regimes.table(mixed.evidence, TEXT).shares
    assert shares["share"].to_list() == [0.5, 0.5, 0.0]
    assert shares["high"][2] == pytest.approx(1 - 0.025**0.25)  # none of 4


def test_captioners_that_take_turns_are_no_oscillation(bench):
    """One output per lap counts: captioners with words of their own made every run come round."""
    network = ("tell", "tell", "tell", "tell")
    bench.add("start", list("ab" * 40), network=network, seed=-1, max_length=80)
    bench.embed({"a": corner(0), "b": corner(1), "start": corner(2)})
    found = regimes.table(bench.evidence, TEXT).runs
    assert found.select("regime", "num_outputs").rows() == [("contracting", 20)]


@pytest.mark.parametrize(
    ("num_runs", "num_late", "kept"),
    [(1, 300, 200), (2, 300, 100), (66, 9, 3), (67, 9, 2), (300, 9, 2), (2, 4, 4)],
)
def test_200_late_outputs_of_all_runs_and_two_of_each_are_compared(num_runs, num_late, kept):
    late = np.arange(num_late)[:, None]
    paths = [SimpleNamespace(late=late, about={"run": run}) for run in range(num_runs)]
    points, whose = regimes._late_outputs(paths)
    assert np.bincount(whose).tolist() == [kept] * num_runs
    assert (points[0, 0], points[-1, 0]) == (0, num_late - 1)


@pytest.mark.parametrize(("noise", "name"), [(0.316, "exploring"), (0.318, "contracting")])
def test_what_moves_on_by_a_ratio_of_1_6_explores(noise, name):
    """Quarters about four corners, in whose noise neighbours are 1.608 and 1.5998 times as far apart."""
    found = regime(about(np.repeat(np.arange(4), 10), noise), 10.0)
    assert found.moves_on == pytest.approx(1.6, abs=0.01)
    assert (found.name, found.moves_on >= 1.6) == (name, name == "exploring")


@pytest.mark.parametrize(("noise", "is_asked"), [(0.192, True), (0.193, False)])
def test_a_peak_of_half_the_likeness_is_asked_for_chance(noise, is_asked):
    """Peaks of 0.5003 and 0.498, of runs that alternate in noise."""
    found = regime(about(np.arange(40) % 2, noise), 1.0)
    assert (found.likeness >= 0.5, np.isfinite(found.p_value)) == (is_asked, is_asked)
    assert found.likeness == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize(("seed", "p", "name"), [(15, 0.05, "oscillating"), (10, 0.075, "exploring")])
def test_what_two_of_40_orders_reach_oscillates_and_what_three_do_not(seed, p, name):
    """Runs of three corners in turn of which a fifth is anywhere, shuffled by the seed 0."""
    rng = np.random.default_rng(seed)
    places = np.where(rng.random(18) < 0.8, np.arange(18) % 3, rng.integers(3, size=18))
    found = regime(about(places, 0.05, seed), 1.0)
    assert (found.p_value, found.name, found.period is not None) == (p, name, name == "oscillating")
    assert found == regime(about(places, 0.05, seed), 1.0, seed=0)
    assert found.p_value != regime(about(places, 0.05, seed), 1.0, seed=3).p_value


def test_far_is_as_far_as_the_start_or_as_other_runs():
    """Late outputs at right angles: half of them where it began, and others on the other side."""
    path = SimpleNamespace(late=np.eye(2), start=np.array([1.0, 0]), about={"run": 1})
    others = np.array([[-1.0, 0], [0, -1]])
    assert regimes._scale(path, (others, np.array([1, 1]))) == 0.5, "of its own outputs nothing is far"
    assert regimes._scale(path, (others, np.array([2, 1]))) == 1.5
    assert regimes._scale(path, (-others, np.array([2, 1]))) == 0.5
