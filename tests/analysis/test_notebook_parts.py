"""What the notebooks share: which store and experiment, choices, figures as cells."""

from __future__ import annotations

import pytest

from panic.analysis import notebooks
from panic.analysis.questions import novelty, time, twins
from panic.errors import NotFound, StoreMissing
from panic.store import reading, writing
from tests.analysis.conftest import HOSTILE, Bench


def test_the_store_is_that_of_the_environment_or_of_the_folder(full, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PANIC_STORE", raising=False)
    with pytest.raises(StoreMissing, match="panic-store"):
        notebooks.open_store()
    monkeypatch.setenv("PANIC_STORE", str(tmp_path / "store"))
    with notebooks.open_store() as store:
        assert reading.experiment(store, "latest").name == "demo"


def test_the_choice_begins_with_the_one_that_is_named_or_the_newest(full, monkeypatch):
    other = writing.start_experiment(full.store, "other", {"name": "other"})
    writing.start_session(full.store, other, "panic run other.yaml", {})
    monkeypatch.delenv("PANIC_EXPERIMENT", raising=False)
    choice = notebooks.experiment_choice(full.store)
    assert (list(choice.options), choice.value) == (["other", "demo"], "other")
    monkeypatch.setenv("PANIC_EXPERIMENT", "demo")
    choice = notebooks.experiment_choice(full.store)
    assert choice.value == "demo"
    evidence = notebooks.chosen(full.store, choice)
    assert evidence.experiment.name == "demo"
    assert (evidence.is_over, evidence.thumbnails.remaining_bytes) == (True, 8 * 2**20)
    monkeypatch.setenv("PANIC_EXPERIMENT", "demp")
    with pytest.raises(NotFound, match="demp"):
        notebooks.experiment_choice(full.store)


def test_runs_that_were_begun_can_be_chosen(full):
    runs = reading.runs(full.store, "demo")
    choice = notebooks.choice_of_runs(runs)
    assert list(choice.options) == [
        "1 · 42 · a start", f"2 · fresh noise · {HOSTILE[:39]}…", "3 · fresh noise · a start"
    ]  # fmt: skip
    assert choice.value == runs[0]
    assert notebooks.choice_of_runs(runs[3:]).value is None


def test_a_question_is_shown_with_sentence_charts_and_caveat(full):
    shown = notebooks.show(novelty, full.evidence).text
    (figure,) = novelty_figures(full)
    assert figure.title in shown
    assert figure.sentence.split(".")[0] in shown
    assert shown.count("<em>") >= 1
    assert "vega" in shown.lower()


def novelty_figures(bench: Bench):
    from panic.analysis.questions import ask

    return ask(novelty, bench.evidence)


def test_a_question_that_nobody_asks_of_these_data_says_so(bench, monkeypatch):
    shown = notebooks.show(twins, bench.evidence).text
    title = twins.TITLE if isinstance(twins.TITLE, str) else twins.TITLE[""]
    assert f"{title} · nothing here answers it" in shown
    [missing] = [figure.missing for figure in ask_of(time, bench)]
    assert missing in notebooks.show(time, bench.evidence).text.replace("&#x27;", "'")


def ask_of(question, bench: Bench):
    from panic.analysis.questions import ask

    return ask(question, bench.evidence)


def test_charts_have_the_theme_of_the_notebook():
    import altair as alt

    chart = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_point().encode(x="x:Q")
    assert notebooks.drawn(chart).to_dict()["config"]["background"] == "#ffffff"
