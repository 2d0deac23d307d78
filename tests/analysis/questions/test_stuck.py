"""What is said of the runs that are stuck."""

from __future__ import annotations

import polars as pl
import pytest

from panic.analysis.questions import stuck
from panic.store import reading


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
