"""Experiments side by side: what differs, what each says to the same questions, one at a time in memory."""

from __future__ import annotations

import copy
import gc
import json
import re
from dataclasses import dataclass

import polars as pl
import pytest

from panic.analysis import comparison
from panic.analysis.evidence import Evidence
from panic.analysis.questions import Figure
from panic.store import Store, reading, writing
from tests.analysis.conftest import HOSTILE, Bench


@dataclass(frozen=True)
class Tables:
    """An answer of a number and two tables, of which the first has nothing that people read."""

    number: int
    hidden: pl.DataFrame
    shown: pl.DataFrame


def other(bench: Bench, name: str = "other", **config: object) -> None:
    """Another experiment in the bench's store, of one run and the same models, without vectors of its own."""
    added = copy.copy(bench)
    added.experiment = writing.start_experiment(bench.store, name, {**bench.config, "name": name, **config})
    added.session = writing.start_session(bench.store, added.experiment, "panic run other.yaml", {})
    for model in ("draw", "tell"):
        writing.add_epoch(
            bench.store, added.experiment, model, model=bench.models[model], batch_size=4, device_kind="cpu",
            threads=1,
        )  # fmt: skip
    added.add("a start", ["text 0", "one"])


def page(store: Store, *names: str) -> str:
    return comparison.render(store, [reading.experiment(store, name) for name in names])


def titles(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)[2:]


def test_each_experiment_answers_the_same_questions_in_the_order_of_the_report(full):
    other(full)
    html = page(full.store, "demo", "other")
    known = titles(html)
    assert known[:2] == ["What took how long", "When runs get stuck, and how"]
    assert titles(page(full.store, "other", "demo")) == known
    assert len(known) == len(set(known))
    parts = re.split(r"<h2>", html[: html.index("<footer>")])[3:]
    for part in parts:
        assert re.findall(r'class="whose">(.*?)<', part)[:2] == ["demo", "other"]
    novelty = next(part for part in parts if part.startswith("Has it been here before?"))
    assert len(re.findall(r'class="reading"', novelty)) == 2
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', html, re.DOTALL)[1])
    assert html.count("data-chart=") == len(specs) > 0
    assert "Nothing to ask it of." in html


def test_what_differs_stands_at_the_top(full):
    other(full, max_length=7, prompts=["a start", HOSTILE, *map(str, range(9))], threads=2)
    html = page(full.store, "demo", "other")
    top = html[html.index('id="differences"') : html.index('id="q1"')]
    rows = {
        re.sub(r"<.*?>", "", cells[0]): [re.sub(r"<.*?>", "", cell) for cell in cells[1:]]
        for row in re.findall(r"<tr>(.*?)</tr>", top, re.DOTALL)
        if (cells := re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL))
    }
    assert rows["max_length"] == ["10", "7"]
    assert rows["prompts"] == ["2, none of them only here", "11, only here: 0; 1; 2; 3; 4; and 4 more"]
    assert rows["threads"] == ["-", "2"]
    assert rows["state"] == ["interrupted", "running"]
    assert rows["runs ended"] == ["3 of 4", "0 of 1"]
    assert "name" not in rows
    assert "seeds" not in rows


def test_texts_are_escaped_and_nothing_is_loaded(full):
    other(full, prompts=[HOSTILE, "</script>"])
    html = page(full.store, "demo", "other")
    assert "&lt;/script&gt;" in html
    assert HOSTILE not in html
    assert html.count("</script>") == 4
    assert "default-src 'none'" in html


@pytest.mark.slow
def test_one_experiment_at_a_time_is_in_memory(full, monkeypatch):
    other(full)
    held = []

    def of(*arguments, **options):
        gc.collect()
        held.append(sum(type(one) is Evidence for one in gc.get_objects()))
        return made(*arguments, **options)

    made = Evidence.of
    monkeypatch.setattr(Evidence, "of", staticmethod(of))
    page(full.store, "demo", "other")
    assert held[1] == held[0]


@pytest.mark.parametrize("config", [{}, {"embeddings": []}])
def test_an_experiment_that_has_not_begun_has_a_column(full, config):
    known = reading.experiment(full.store, "demo").config
    writing.start_experiment(full.store, "empty", {**known, "name": "empty", **config})
    html = page(full.store, "demo", "empty")
    assert "No model has been called yet." in html


def test_a_table_has_what_can_be_read():
    """Its first rows; no vectors, no pictures; none where nothing is left."""
    frame = pl.DataFrame(
        {
            "text": ["x" * 70, "no data:"],
            "share": [1 / 3, None],
            "vector": [[1.0], [2.0]],
            "picture": [None, "data:image/webp;base64,AAAA"],
        }
    )
    table = comparison._table(frame)
    assert table is not None
    assert table.columns == ["text", "share"]
    assert table.rows == [["x" * 59 + "…", "0.3333"], ["no data:", ""]]
    long = comparison._table(pl.DataFrame({"n": range(comparison.MAX_ROWS + 1)}))
    assert long is not None
    assert (len(long.rows), long.height) == (comparison.MAX_ROWS, comparison.MAX_ROWS + 1)
    assert comparison._table(frame.select("vector", "picture")) is None
    assert comparison._table(frame.clear()) is None


@pytest.mark.parametrize(
    ("name", "question", "words"),
    [
        ("period", "stuck", "period (model calls)"),
        ("period", "period", "period (outputs)"),
        ("period", "lag", "period"),
        ("share", "stuck", "share"),
        ("num_runs", "stuck", "number of runs"),
        ("is_stuck", "", "stuck"),
        ("busy_s", "", "busy (s)"),
        ("most.0", "", "visited most"),
        ("found.0", "", "found 1"),
        ("found.first", "", "found, first"),
        ("7", "", "7"),
    ],
)
def test_columns_in_words(name, question, words):
    assert comparison.in_words(name, question) == words


def test_questions_are_in_their_order_and_within_one_what_is_answered_comes_first(full):
    """Charts and single values of one name stand side by side, with a gap where there is none."""
    row = reading.experiment(full.store, "demo")
    chart = {"mark": "line"}
    one = {
        (1, "nobody"): comparison.Entry(missing="No."),
        (1, "left"): comparison.Entry(
            sentence="Yes.", caveat="But.", specs={"line": chart}, values={"n": "1"}
        ),
        (0, "both"): comparison.Entry(sentence="A."),
    }
    other = {
        (1, "nobody"): comparison.Entry(missing="Neither."),
        (1, "right"): comparison.Entry(caveat="But.", values={"m": "2", "n": "3"}),
        (0, "both"): comparison.Entry(sentence="B.", caveat="But."),
    }
    sides = [comparison.Side(experiment=row, state="done", numbers=[], entries=e) for e in (one, other)]
    both, left, right, nobody = comparison._sections(sides)
    assert [section.title for section in (both, left, right, nobody)] == ["both", "left", "right", "nobody"]
    assert [entry.sentence for entry in both.entries] == ["A.", "B."]
    assert [entry.missing for entry in left.entries] == ["", "Nothing to ask it of."]
    assert [entry.missing for entry in nobody.entries] == ["No.", "Neither."]
    assert (left.charts, left.values, left.caveats) == ([[chart, None]], [("n", ["1", ""])], ["But."])
    assert (right.charts, right.values) == ([], [("m", ["", "2"]), ("n", ["", "3"])])
    assert both.caveats == ["But."]


def test_the_bytes_of_pictures_are_shared_by_the_experiments(full, monkeypatch):
    """4 MiB for the page, whatever is compared."""
    other(full)
    told = []

    def of(*arguments, **options):
        told.append((options["image_budget_bytes"], options["is_over"]))
        return made(*arguments, **options)

    made = Evidence.of
    monkeypatch.setattr(Evidence, "of", staticmethod(of))
    page(full.store, "demo", "other")
    assert told == [(2 * 2**20, False)] * 2


def test_single_values_are_those_of_a_summary_of_one_row():
    """More tables than one: the first that can be read is shown; an answer that is none has no values."""
    tables = Tables(number=3, hidden=pl.DataFrame({"v": [[1.0]]}), shown=pl.DataFrame({"num_runs": [4]}))
    entry = comparison._entry(Figure(title="t", answer=tables, sentence="s", caveat="c"), "stuck")
    assert entry.values == {"number": "3"}
    assert entry.table == comparison.Table(columns=["number of runs"], rows=[["4"]], height=1)
    assert (entry.sentence, entry.caveat, entry.missing) == ("s", "c", "")
    none = comparison._entry(Figure(title="t", missing="Nothing."), "stuck")
    assert (none.values, none.table, none.missing) == ({}, None, "Nothing.")
