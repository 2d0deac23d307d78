"""D(k) against numbers that can be worked out by hand, and what is said of it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import AnalysisError
from panic.analysis.movement import Movement
from panic.analysis.questions import lag
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


def test_distance_by_lag_is_the_median_over_runs_of_texts_only(bench):
    bench.walk("ababab", seed=-1)
    bench.walk("aaaaaa", seed=-1, repeat=1)
    bench.embed({"a": corner(0), "b": corner(1)})
    found = lag.table(bench.evidence, TEXT).curves
    assert found["lag"].to_list() == [0, 1, 2, 3]  # half of the run
    assert found["distance"].to_list() == pytest.approx([0, 0.5, 0, 0.5])  # of 1, 0, 1 and of 0
    assert found["high"].to_list() == pytest.approx([0, 0.75, 0, 0.75])
    assert found["num_runs"].to_list() == [2] * 4
    assert found["null_low"][0] is None
    # Shuffled, 3 of 5 pairs differ; the median is half of that, for the other run never moves.
    assert (found["null_low"][1:] < 0.3).all()
    assert ((found["null_high"][1:] > 0.3) & (found["null_high"][1:] < 0.5 + 1e-9)).all()
    assert found["null_low"][1] > 0  # a or b must follow the other at least once


def test_stuck_runs_are_apart_and_no_return_is_claimed_of_them(bench):
    """Pooled with stuck ones, runs that wander were said to come back after the others' period."""
    for repeat in range(3):
        bench.walk("abcdabcdacbd", seed=-1, repeat=repeat)
    stuck = bench.walk("ababab")
    bench.stuck(stuck, 0, 4)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    answer = lag.table(bench.evidence, TEXT)
    assert answer.curves["group"].unique(maintain_order=True).to_list() == [
        "draw → tell", "draw → tell, stuck"
    ]  # fmt: skip
    assert list(answer.movements) == ["draw → tell"]
    assert_shown(lag, answer)
    assert answer.movements["draw → tell"].num_runs == 3
    assert "1 run is stuck and drawn apart." in lag.sentence(answer)
    curve = lag.chart(answer).to_dict()["layer"][-1]["layer"][-1]["encoding"]
    assert curve["color"]["scale"]["domain"] == ["draw → tell"], "a network has one colour"
    assert curve["strokeDash"]["scale"]["domain"] == ["fresh noise", "stuck"]


def test_a_run_that_ended_early_does_not_shorten_the_lags_of_the_others(bench):
    bench.walk("abcdabcdabcdabcd", seed=-1)
    bench.walk("abc", seed=-1, repeat=1)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    answer = lag.table(bench.evidence, TEXT)
    assert answer.movements["draw → tell"].returns_after == 4
    assert "(1 run) is farther from the text before than in a random order" in lag.sentence(answer)
    assert "comes back after 4 texts (D(4) = 0" in lag.sentence(answer)


def test_a_run_of_two_texts_has_no_distances(bench):
    bench.walk("ab")
    bench.embed({"a": corner(0), "b": corner(1)})
    with pytest.raises(AnalysisError, match="no run has 3 text vectors"):
        lag.table(bench.evidence, TEXT)


@pytest.mark.parametrize(
    ("course", "said"),
    [
        ("still", "n (4 runs) stands still"),
        ("short", "fewer than 5 lags"),
        ("grows", "wanders off (from lag 4 to 6 D grows by 27%, 95 % interval 20% to 34%)"),
        ("stays", "stays in its region ("),
        ("creeps", "goes on to move away, by little ("),
        ("unknown", "whether it wanders off or stays could not be told ("),
    ],
)
def test_every_course_is_said_with_its_numbers(course, said):
    curves = pl.DataFrame({"group": "n", "lag": range(1, 7), "distance": [0.1, 0.15, 0.2, 0.25, 0.3, 0.35]})
    found = Movement(
        memory="nearer", course=course, returns_after=None, growth=0.27, growth_low=0.2, growth_high=0.34,
        num_runs=4,
    )  # fmt: skip
    read = lag.sentence(lag.Lags(curves=curves, movements={"n": found}, num_stuck=0, modality="text"))
    assert said in read
    # 2 D(1) - D(2) and the rest of D(1).
    assert ("noise 0.05 and drift 0.05" in read) == (course == "grows")


def test_the_band_holds_95_percent_of_shuffled_orders():
    """Of other shuffles of the same runs than those it was made of."""
    rng = np.random.default_rng(0)
    points = [rng.normal(size=(30, 6)).astype(np.float32) for _ in range(5)]
    paths = [lag._Path(network="g", kind=lag.FRESH, points=one, is_copy=False) for one in points]
    _, band = lag._movement("g", paths, np.random.default_rng(1))
    draws = np.nanmedian(lag._shuffled(points, len(band), np.random.default_rng(2)), axis=0)
    inside = (draws >= band["null_low"].to_numpy()) & (draws <= band["null_high"].to_numpy())
    assert inside.mean() == pytest.approx(0.95, abs=0.03)
    assert band["lag"].to_list() == list(range(1, 16))


def test_networks_whose_long_names_begin_alike_are_told_apart(bench):
    """Charts cut names, and the runs of a cut name were looked for in vain."""
    names = [("draw", "tell") * 100, ("draw", "tell") * 101]
    for network in names:
        bench.walk("abcdab", seed=-1, network=network)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    groups = lag.table(bench.evidence, TEXT).curves["group"].unique(maintain_order=True).to_list()
    assert len(groups) == 2
    assert all(len(group) < 600 and group.startswith("draw → tell → draw") for group in groups)
    assert list(lag.table(bench.evidence, TEXT).movements) == groups


@pytest.mark.parametrize(("length", "last"), [(79, 39), (80, 40), (82, 40)])
def test_lags_go_up_to_40_and_to_half_of_a_run(bench, length, last):
    bench.add("start", list("ab" * 41)[:length], network=("tell",), seed=-1, max_length=82)
    bench.embed({"a": corner(0), "b": corner(1)})
    assert lag.table(bench.evidence, TEXT).curves["lag"].to_list() == list(range(last + 1))


def test_sixty_runs_of_three_outputs_are_tested(bench):
    for repeat in range(61):
        bench.walk("aba", seed=-1, repeat=repeat)
    bench.walk("ab", seed=-1, repeat=61)
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = lag.table(bench.evidence, TEXT)
    assert answer.movements["draw → tell"].num_runs == 60
    assert answer.curves["num_runs"].max() == 61
    assert lag.STATISTIC.of(bench.evidence, TEXT)["run"].n_unique() == 61


def test_of_a_run_400_outputs_are_shuffled_79_times():
    """Of 400 the last one alone is another: it is next to one or two of them, of 399 pairs."""
    points = np.repeat(np.eye(3)[:, :3], [399, 1, 50], axis=0).astype(np.float32)
    draws = lag._shuffled([points], 210, np.random.default_rng(0))
    assert draws.shape == (1, 79, 210)
    assert set((draws[0, :, 0] * 399).round(9)) <= {1.0, 2.0}
    assert np.isnan(draws[0, 0]).tolist() == [False] * 200 + [True] * 10


def test_a_stuck_run_is_drawn_on_for_as_long_again_as_it_was_computed(bench):
    bench.stuck(bench.add("start", list("abcdef"), network=("tell",), max_length=100), 0, 6)
    bench.embed({letter: corner(place % 4) for place, letter in enumerate("abcdef")})
    [path] = lag._paths(bench.evidence, TEXT)
    assert len(path.points) == 12
