"""What is said of the runs that are stuck."""

from __future__ import annotations

import polars as pl
import pytest

from panic.analysis.questions import stuck


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
