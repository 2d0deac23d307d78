"""What is said of the runs that are stuck."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from panic.analysis.questions import stuck
from panic.store import reading
from tests.analysis.looks import assert_shown


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([0, 0], "All entered their cycle at model call 0."),
        ([4], "It entered its cycle at model call 4."),
        ([2, 8], "The longest way there was that of run 2: it entered its cycle at model call 8."),
    ],
)
def test_the_longest_way_is_told_where_ways_differ(entries, said):
    rows = [{"run": n, "entry_step": at, "period": 4, "num_models": 2} for n, at in enumerate(entries, 1)]
    assert stuck.sentence(pl.DataFrame(rows)).endswith(said)


@pytest.mark.parametrize(("entries", "step"), [([0, 2], 0), ([0, 2, 4], 2), ([0, 1, 4, 8], 1)])
def test_half_of_the_runs_have_entered_by_a_step_at_which_one_did(bench, entries, step):
    """It was "half of them from step 0.5 on"."""
    for number, entry in enumerate(entries):
        bench.stuck(bench.add(f"start {number}", list("abcdef"), max_length=40), entry, 2)
    said = stuck.summary(reading.runs(bench.store, "demo"))
    assert f"Half of them have entered their cycle by model call {step};" in said


def test_what_is_drawn_and_said(full):
    assert_shown(stuck, stuck.table(full.evidence))


def test_without_a_stuck_run_there_is_no_answer(bench):
    bench.add("a start", list("abc"))
    assert stuck.table(bench.evidence) is None


def add(bench, *entries, period=2, seed=42):
    """Runs that are stuck from some step on, or not at all (None)."""
    for entry in entries:
        number = len(reading.runs(bench.store, "demo"))
        run = bench.add(f"start {number}", list("abcdef"), max_length=40, seed=seed)
        if entry is not None:
            bench.stuck(run, entry, period)


@pytest.mark.parametrize(
    ("fixed", "fresh", "said"),
    [
        ([], [None], "All runs draw fresh noise at every model call, so none can be stuck."),
        ([None], [None], "The one run with a fixed seed is not stuck so far."),
        ([None, None], [], "None of the 2 runs with a fixed seed is stuck so far."),
        (
            [3], [None],
            "1 of 1 run with a fixed seed repeats itself forever. It has entered its cycle at model call 3; "
            "the period is 2 model calls.",
        ),
        (
            [3, None, 5], [],
            "2 of 3 runs with a fixed seed repeat themselves forever. Half of them have entered their cycle "
            "by model call 3; the most common period is 2 model calls (2 runs).",
        ),
    ],
)  # fmt: skip
def test_a_summary_counts_runs_with_a_fixed_seed(bench, fixed, fresh, said):
    add(bench, *fixed)
    add(bench, *fresh, seed=-1)
    assert stuck.summary(reading.runs(bench.store, "demo")) == said


def test_the_most_common_period_is_told_with_its_runs(bench):
    add(bench, 0, period=4)
    add(bench, 1, 2, period=6)
    said = stuck.summary(reading.runs(bench.store, "demo"))
    assert said.endswith("by model call 1; the most common period is 6 model calls (2 runs).")


def test_runs_that_models_behind_an_endpoint_made_need_not_repeat(bench):
    add(bench, None)
    runs = [replace(row, is_repeatable=False) for row in reading.runs(bench.store, "demo")]
    assert stuck.summary(runs) == (
        "Models behind an endpoint need not give the same again, so none of their runs can be stuck."
    )
    add(bench, None, seed=-1)
    fresh = [row for row in reading.runs(bench.store, "demo") if row.seed == -1]
    assert stuck.summary([*runs, *fresh]).startswith("Models behind an endpoint")
    add(bench, 7)
    last = reading.runs(bench.store, "demo")[-1:]
    assert stuck.summary([*runs, *last]).startswith("1 of 1 run with a fixed seed repeats")
