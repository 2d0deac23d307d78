"""Answers of questions as frames and charts: nothing of an answer is lost, and each row says whose it is."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass

import altair as alt
import numpy as np
import polars as pl
import pytest
import vl_convert

from panic.analysis.answers import Answer, answers, find, parts, side_by_side, tables
from panic.analysis.charts import colour, finish
from panic.analysis.evidence import View
from panic.analysis.questions import QUESTIONS, Figure, ask, named
from panic.errors import NotFound


@dataclass(frozen=True)
class Inner:
    rate: float
    frame: pl.DataFrame


@dataclass(frozen=True)
class Outer:
    number: int
    main: pl.DataFrame
    several: list[Inner]
    by_name: dict[str, Inner | str]
    matrix: np.ndarray
    most: tuple[str, float]
    nobody: float | None


def test_every_field_of_an_answer_is_in_a_part_of_it():
    frame = pl.DataFrame({"x": [1, 2]})
    inner = Inner(rate=0.5, frame=frame)
    answer = Outer(
        number=3,
        main=frame,
        several=[inner, inner],
        by_name={"a": inner, "b": "no reason"},
        matrix=np.array([[1.0, 2.0], [3.0, 4.0]]),
        most=("many", 0.25),
        nobody=None,
    )
    found = parts(answer)
    assert next(iter(found)) == "main"
    assert found["summary"].to_dicts() == [{"number": 3, "most.0": "many", "most.1": 0.25, "nobody": None}]
    assert found["several"]["rate"].to_list() == [0.5, 0.5]
    assert found["several.frame"]["x"].to_list() == [1, 2, 1, 2]
    assert found["by_name"].rows() == [("a", 0.5, None), ("b", None, "no reason")]
    assert found["by_name.frame"]["key"].to_list() == ["a", "a"]
    assert found["matrix"].rows() == [(0, 0, 1.0), (0, 1, 2.0), (1, 0, 3.0), (1, 1, 4.0)]


def test_rows_of_several_experiments_and_models_say_whose_they_are():
    one, two = (Answer(view=View(name, "text"), value=pl.DataFrame({"x": [1]})) for name in "ab")
    missing = Answer(view=View("c", "text"), missing="no vectors")
    own = Answer(view=View("b", "text"), value=pl.DataFrame({"x": [2], "model": ["z"]}))
    frame = tables({"first": [one, two, missing], "second": [own]})["table"]
    assert frame.select("experiment", "model", "modality", "x").rows() == [
        ("first", "a", "text", 1),
        ("first", "b", "text", 1),
        ("second", "z", "text", 2),
    ]


def test_a_misspelt_question_names_the_nearest():
    assert list(named().values())[: len(QUESTIONS)] == list(QUESTIONS)
    assert find("mean_dwells") is named()["mean_dwells"]
    with pytest.raises(NotFound, match="Did you mean drift"):
        find("dirft")
    with pytest.raises(NotFound, match="There are: time, stuck"):
        find("zzzzzz")


@pytest.mark.parametrize("name", named())
def test_every_question_gives_tables_and_figures_that_agree(full, name):
    """Where a figure can be drawn there is a table, and the other way round."""
    found, figures = answers(find(name), full.evidence), ask(find(name), full.evidence)
    assert [bool(one.missing) for one in found] == [bool(figure.missing) for figure in figures]
    frames = tables({"demo": found})
    for frame in frames.values():
        assert frame.columns[0] == "experiment"
        assert set(frame["experiment"]) <= {"demo"}
    assert bool(frames) == any(not one.missing for one in found)


def figure(title: str) -> Figure:
    """A chart with a legend that can be clicked, as many questions have it."""
    picked = alt.selection_point(fields=["kind"], bind="legend")
    chart = alt.Chart(alt.InlineData(values=[{"x": 1, "kind": "a"}])).mark_point()
    made = chart.encode(x="x:Q", color=colour("kind", ["a"])).add_params(picked)
    return Figure(title=title, charts={"": finish(made, title, width=100, height=50)})


@pytest.mark.parametrize("experiments", [("demo",), ("demo", "other")])
def test_where_no_experiment_has_a_chart_it_says_so(experiments):
    """An empty picture was written without a word."""
    shown = {name: [Figure(title="Has it been here before?", charts={})] for name in experiments}
    drawn = vl_convert.vegalite_to_svg(side_by_side(shown).to_dict())
    assert drawn.count(">nothing to show<") == len(experiments)


def test_equal_figures_of_experiments_stand_side_by_side():
    """Lists of lists of equal charts gave their scales equal names, which Vega refused to draw."""
    shown = {"one": [figure("above"), figure("below")], "two": [figure("above")], "three": [figure("below")]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = side_by_side(shown, mode="dark").to_dict()
    assert made["columns"] == 3
    titles = [chart["title"]["text"] for chart in made["concat"]]
    assert titles == ["one: above", "two: above", "three", "one: below", "two", "three: below"]
    assert made["resolve"]["scale"]["color"] == "independent"
    assert made["config"]["background"] == "#1b2025"
    svg = vl_convert.vegalite_to_svg(made)
    assert [svg.count(f">{text}<") for text in ("one: above", "two", "nothing to show")] == [1, 1, 2]


def test_a_single_chart_stays_as_it_is():
    chart = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_point().encode(x="x:Q").properties(width=77)
    assert side_by_side({"one": [Figure(title="t", charts={"": chart})]}).to_dict()["width"] == 77


def test_an_offset_of_one_chart_does_not_halve_the_rows_of_another():
    """Scales of offsets are shared by charts of one page, unless they are told not to be."""
    rows = alt.InlineData(values=[{"x": 1, "row": row, "kind": kind} for row in "ab" for kind in "cd"])
    bars = alt.Chart(rows).mark_rect().encode(y="row:N", color="x:Q")
    dots = alt.Chart(rows).mark_point().encode(y="row:N", x="x:Q", yOffset="kind:N")
    charts = {"bars": finish(bars, "bars", height=80), "dots": finish(dots, "dots", height=80)}
    made = side_by_side({"one": [Figure(title="t", charts=charts)]}).to_dict()
    first, second = (json.dumps(group["marks"]) for group in vl_convert.vegalite_to_vega(made)["marks"])
    assert "bandwidth('concat_0_y')" in first
    assert "ffset" not in first
    assert "ffset" in second


@dataclass(frozen=True)
class Numbers:
    one: np.float64
    row: np.ndarray
    mixed: list[object]
    words: list[str]


def test_numbers_of_numpy_and_lists_are_plain_values():
    """A list is a table where any of its entries has fields of its own."""
    inner = Inner(rate=0.5, frame=pl.DataFrame({"x": [1]}))
    found = parts(Numbers(one=np.float64(0.25), row=np.arange(2), mixed=["why", inner], words=["a"]))
    summary = found["summary"].row(0, named=True)
    assert summary == {"one": 0.25, "row": [0, 1], "words": ["a"]}
    assert type(summary["one"]) is float
    assert found["mixed"].to_dicts() == [{"value": "why", "rate": None}, {"value": None, "rate": 0.5}]
    assert found["mixed.frame"].to_dicts() == [{"x": 1}]


def test_a_list_of_answers_is_joined_and_rows_lose_their_number_of_experiment():
    frames = [pl.DataFrame({"experiment": [7], "x": [1]}), pl.DataFrame({"x": [2.5], "y": ["b"]})]
    assert parts(frames)["table"].to_dicts() == [{"x": 1.0, "y": None}, {"x": 2.5, "y": "b"}]
    assert tables({"demo": [Answer(view=None, value=frames[0])]})["table"].to_dicts() == [
        {"experiment": "demo", "x": 1}
    ]
