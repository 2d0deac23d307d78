"""Where a run is: stored, in its cycle, or nowhere."""

from __future__ import annotations

import polars as pl

from panic.analysis import load
from panic.analysis.whereabouts import continued, stored_step
from panic.store import reading
from tests.analysis.conftest import TEXT, corner


def test_only_stuck_runs_go_on_and_not_beyond_their_length():
    steps = pl.DataFrame({"run": [1, 1, 1, 2, 2], "step": [0, 1, 2, 0, 1], "label": [5, 6, 7, 8, 9]})
    runs = pl.DataFrame(
        {
            "run": [1, 2], "num_steps": [3, 2], "max_length": [8, 8], "entry_step": [1, None],
            "period": [2, None],
        }
    )  # fmt: skip
    found = continued(steps, runs)
    assert found.filter(pl.col("run") == 1)["label"].to_list() == [5, 6, 7, 6, 7, 6, 7, 6]
    assert found.filter(pl.col("run") == 2)["label"].to_list() == [8, 9]
    assert continued(steps, runs, limit=5)["step"].to_list() == [0, 1, 2, 3, 4, 0, 1]
    assert continued(steps.clear(), runs).is_empty()


def test_a_run_is_where_it_was_stored_or_in_its_cycle_or_nowhere(full):
    stuck, _, failed, waiting = reading.runs(full.store, "demo")
    assert [stored_step(stuck, step) for step in (0, 9, 10, 23, 1000)] == [0, 9, 0, 3, 0]
    assert [stored_step(failed, step) for step in (0, 3, 4, 9)] == [0, 3, None, None]
    assert stored_step(waiting, 0) is None


def test_the_transient_of_a_stuck_run_is_not_repeated(bench):
    run = bench.add("start", ["a", "b", "c"], max_length=14)
    bench.stuck(run, 2, 4)
    (row,) = reading.runs(bench.store, "demo")
    assert [stored_step(row, step) for step in range(1, 14, 2)] == [1, 3, 5, 3, 5, 3, 5]


def test_runs_end_where_they_are_at_their_full_length(bench):
    """A stuck run ends in its cycle and not at its last stored step; failed and unfinished ones nowhere."""
    stuck = bench.add("start", ["a", "b", "c"], max_length=12)
    bench.stuck(stuck, 2, 4)
    done = bench.add("start", ["c", "a"], seed=-1, max_length=4)
    failed = bench.add("start", ["b"], seed=-1, repeat=1, max_length=4)
    bench.fail(failed, 2)
    bench.add("start", ["b"], seed=-1, repeat=2, max_length=4)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    data = load(bench.store, "demo")
    ends = data.ends(*TEXT).join(data.outputs.select("output", "text"), on="output")
    assert ends.sort("run").select("run", "step", "text").rows() == [(stuck, 11, "b"), (done, 3, "a")]
    visits = data.visits(*TEXT).filter(pl.col("run") == stuck)
    assert visits["step"].to_list() == [1, 3, 5, 7, 9, 11]
    assert visits["is_known"].to_list() == [False] * 3 + [True] * 3
    assert visits["row"][5] == visits["row"][1] == ends.filter(pl.col("run") == stuck)["row"][0]


def test_an_end_without_a_vector_is_not_taken_from_an_earlier_step(bench):
    bench.add("start", ["a", "b"], max_length=4)
    bench.embed({"a": corner(0)})
    assert load(bench.store, "demo").ends(*TEXT).is_empty()


def test_the_seed_of_a_step_is_that_of_its_run(bench):
    bench.add("start", ["a"], seed=-1)
    bench.add("start", ["a"], seed=42)
    bench.embed({"a": corner(0)})
    assert load(bench.store, "demo").steps(*TEXT)["seed"].to_list() == [-1, 42]


def test_a_stuck_run_goes_on_for_20_000_steps_at_most():
    steps = pl.DataFrame({"run": [1], "step": [0]})
    for length, last in ((20_000, 19_999), (20_001, 19_999), (19_999, 19_998)):
        runs = pl.DataFrame(
            {"run": [1], "num_steps": [1], "max_length": [length], "entry_step": [0], "period": [1]}
        )
        assert continued(steps, runs)["step"].to_list() == list(range(last + 1))
