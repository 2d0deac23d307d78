"""The page of trainings, from rows and journals by hand."""

from __future__ import annotations

import json
import re
from typing import Any

import polars as pl
import pytest

from panic.analysis.training_report import CURVES, MOST_POINTS, chart, curve, render, write_training_report
from panic.store.trainings import TrainingRow
from tests.analysis.looks import assert_looks
from tests.analysis.test_contrasts import training

STEPS = {"step": [1.0, 2.0, 3.0], "loss": [4.0, None, 1.0]}


def rows(*names: str) -> list[TrainingRow]:
    return [
        training(name=name, folder=f"/f/{name}", uid=name * 9, config={"rate": 0.1 * place, "same": 1})
        for place, name in enumerate(names, start=1)
    ]


def specs(html: str) -> list[dict[str, Any]]:
    return json.loads(re.search(r'id="specs">(.*?)</script>', html, re.DOTALL)[1])


def test_of_several_trainings_what_differs_is_told_and_of_one_all():
    both, one = render(rows("a", "b"), {}), render(rows("a"), {})
    assert "<title>a · b" in both
    for field, is_told in (("config: rate", True), ("config: same", False)):
        assert (field in both) == is_told
        assert field in one


def test_whose_curves_are_not_here_is_told_and_each_journal_has_its_chart():
    journals = {"loss": [STEPS, {}], "evaluation": [{}, {"step": [5.0], "loss": [0.0]}, STEPS]}
    html = render(rows("a", "b", "c"), journals)
    told = [(spec["description"], spec["encoding"]["color"]["scale"]["domain"]) for spec in specs(html)]
    captions = [caption for _, caption in CURVES.values()]
    assert told == list(zip(captions, (["a"], ["b", "c"]), strict=True))
    for heading, caption in CURVES.values():
        assert heading in html
        assert f"<figcaption>{caption}</figcaption>" in html
    assert "No curves are here" not in html
    alone = render(rows("a", "b", "c"), {"loss": [STEPS, {"step": [1.0]}]})
    assert "No curves are here of b, c" in alone
    assert len(specs(alone)) == 1
    assert "Loss on validation items" not in alone


def test_a_curve_has_the_points_that_have_both_numbers():
    found = curve(["a", "b", "c"], [STEPS, {"loss": [1.0]}])
    assert found.rows() == [("a", 1.0, 4.0), ("a", 3.0, 1.0)]
    assert found.schema == {"training": pl.String, "step": pl.Float64, "loss": pl.Float64}
    assert MOST_POINTS == 1000


@pytest.mark.parametrize(("least", "scale"), [(0.5, {"type": "log"}), (0.0, {"zero": False})])
def test_losses_are_on_a_logarithmic_axis_where_all_are_positive(least, scale):
    frame = pl.DataFrame({"training": ["b", "a"], "step": [1.0, 2.0], "loss": [3.0, least]})
    for journal in CURVES:
        made = chart(frame, journal)
        assert made.to_dict()["encoding"]["y"]["scale"] == scale
        assert made.to_dict()["encoding"]["color"]["scale"]["domain"] == ["b", "a"]
        assert_looks(f"training, {journal}, {'log' if least else 'linear'}", made)


def test_the_page_is_written_where_it_is_wanted(tmp_path):
    path = write_training_report(rows("a"), {}, tmp_path / "t.html")
    assert path == tmp_path / "t.html"
    assert "<title>a" in path.read_text(encoding="utf-8")
    assert "<title>a&lt;i&gt;" in render(rows("a<i>"), {})
