"""Of 45 networks charts keep to a height, and say what they leave out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from panic.analysis.answers import parts
from panic.analysis.charts import first_names, null_band
from panic.analysis.evidence import Evidence
from panic.analysis.questions import (
    QUESTIONS,
    Question,
    chain,
    diagrams,
    drift,
    dwell,
    entropies,
    grid,
    lag,
    mean_dwells,
    milestones,
    networks,
    novelty,
    regimes,
    territories,
    time,
    twins,
    two_periodicity,
    vendi,
)
from tests.referee import drawing
from tests.referee.worlds import DRAW, World, evidence_of

TALLEST = 1000  # pixels
MANY = tuple((DRAW, f"tell {17 * place % 45:02d}") for place in range(45))
"""In an order of their own, which is not that of the alphabet."""


def test_the_first_names_are_kept_and_the_others_counted():
    frame = pl.DataFrame({"network": ["b", "a", "b", "c"], "value": [1, 2, 3, 4]})
    kept, others = first_names(frame, "network", most=1)
    assert (kept["value"].to_list(), others) == ([1, 3], " 2 more networks are not drawn.")
    assert first_names(frame, "network", most=2)[1] == " 1 more network is not drawn."
    assert first_names(frame, "network", most=3) == (frame, "")


def test_bands_of_many_rows_say_how_many_are_not_drawn():
    frame = pl.DataFrame(
        {"x": [f"run {n}" for n in range(30)], "value": 1.0, "low": 0.0, "high": 2.0, "mean": 1.0}
    )
    made = null_band(frame).to_dict()
    assert " ".join(made["title"]["subtitle"]).endswith("6 more rows are not drawn.")
    assert made["height"] == 24 * 30


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """Runs of 45 networks, of which each moves among 4 regions, with diagrams."""
    rng, matrix = np.random.default_rng(0), drawing.staying(4, 0.7)
    world = drawing.crossed(
        lambda n, p, r: drawing.chain_path(matrix, 16, r), rng, num_prompts=2, repeats=2, networks=MANY
    )
    with evidence_of(World(runs=world.runs, prompts=world.prompts, has_diagrams=True)) as found:
        yield found


@pytest.fixture(scope="module")
def answered(evidence: Evidence) -> Callable[[Question], Any]:
    """The answer of a question under its first view, found once."""

    @cache
    def table(question: Question) -> Any:
        return question.table(evidence, next(iter(question.views(evidence))))

    return table


CUT = {
    chain: [328, 328], entropies: [624, 207, 360], mean_dwells: [328], networks: [816], regimes: [816, 300],
    time: [720], two_periodicity: [720, 300], vendi: [300, 816],
}  # fmt: skip
"""Heights of charts, in pixels."""


@pytest.mark.parametrize("question", CUT, ids=lambda question: question.__name__.rpartition(".")[2])
def test_charts_keep_to_a_height_and_say_what_they_leave_out(answered, question):
    assert question in QUESTIONS
    made = question.chart(answered(question))
    specs = [one.to_dict(validate=False) for one in (made.values() if isinstance(made, dict) else [made])]
    assert [spec["height"] for spec in specs] == CUT[question]
    assert max(CUT[question]) <= TALLEST
    captions = [" ".join(spec["title"]["subtitle"]) for spec in specs]
    assert any(re.search(r"\d+ more (networks|models|rows) are not drawn\.", caption) for caption in captions)


ORDERED = (
    *(grid, drift, networks, lag, two_periodicity, regimes, twins, territories, dwell),
    *(mean_dwells, chain, milestones, novelty, vendi, diagrams, entropies),
)


@pytest.mark.parametrize("question", ORDERED, ids=lambda question: question.__name__.rpartition(".")[2])
def test_networks_come_in_the_order_of_the_config(answered, question):
    """Of a thousand rows polars gives groups in any order, and of few ones in theirs, asked to or not."""
    order = [" → ".join(network) for network in MANY]
    found = [
        [name for name in frame[column].unique(maintain_order=True) if name in order]
        for frame in parts(answered(question)).values()
        for column in {"network", "group", "key", "column"} & set(frame.columns)
    ]
    assert any(len(names) > 5 for names in found)
    for names in found:
        assert names == [name for name in order if name in names]


def test_chances_of_many_networks_keep_to_a_height():
    rows = [(f"tell {n:02d}", f"region {k}", "a", "b", 0.5, 0.1) for n in range(45) for k in range(8)]
    columns = ("network", "name", "target", "source", "committor", "share")
    made = milestones._committor_chart(pl.DataFrame(rows, columns, orient="row")).to_dict()
    assert made["height"] <= TALLEST
    assert " ".join(made["title"]["subtitle"]).endswith("39 more networks are not drawn.")
