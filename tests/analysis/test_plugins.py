"""What another package adds: it lies in tests/plugins, with the metadata that an installed one has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from panic.analysis import load, nulls
from panic.analysis.null_runs import write_nulls
from panic.analysis.questions import QUESTIONS, UNCOUNTED, ask, questions
from panic.analysis.report import render
from panic.errors import UsageError
from panic.store import reading
from tests.referee.__main__ import main as referee
from tests.referee.counting import Round, judged, rulings
from tests.referee.designs import DESIGNS
from tests.referee.page import page
from tests.referee.predicates import predicates
from tests.referee.rulings import Case, Count, Ruling

PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def installed() -> Iterator[None]:
    """The package is where Python looks for packages."""
    sys.path.insert(0, str(PLUGINS))
    yield
    sys.path.remove(str(PLUGINS))
    for name in [name for name in sys.modules if name.partition(".")[0] == "panic_plugin"]:
        del sys.modules[name]


@pytest.fixture
def added(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Another package, told by what it says of its entry points, is where Python looks for packages."""

    def install(entry_points: str) -> None:
        info = tmp_path / "other-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        sys.path.insert(0, str(tmp_path))

    yield install
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


def test_the_report_shows_an_added_question_last(full, installed):
    added = questions()[-1]
    assert added not in QUESTIONS
    (figure,) = ask(added, full.evidence)
    assert figure.sentence == "The longest of 7 texts has 82 letters."
    html = render(full.store, reading.experiment(full.store, "demo"))
    assert html.index("<h2>The longest text</h2>") > html.index("<h2>What is left of the start? · embed</h2>")
    assert "The longest of 7 texts has 82 letters." in html
    assert f"Letters, not words. {UNCOUNTED}" in html
    assert all(UNCOUNTED not in figure.caveat for figure in ask(QUESTIONS[0], full.evidence))


def test_an_added_null_model_makes_runs(bench, installed):
    bench.walk("abc", seed=-1)
    bench.embed({letter: np.eye(3)[i] for i, letter in enumerate("abc")})
    assert "backwards" in nulls.kinds()
    data = load(bench.store, *write_nulls(bench.store, "demo", "backwards"))
    np.testing.assert_array_equal(data.trajectory(data.runs["run"][0], "embed", "text"), np.eye(3)[::-1])


def test_its_predicate_judges_its_question(installed):
    """The referee counts the sentence of an added question by the predicate that came with it."""
    assert judged()[-1] == "longest_text"
    world = DESIGNS["few"].make(np.random.default_rng(0))
    right = Ruling(claim="the longest has so many letters", said=1, is_true=True)
    assert list(rulings("few", world, ["longest_text"])) == [("longest_text", right)]
    said = "The longest of 2 texts has 9 letters."
    case = Case(answer=None, sentence=said, view=None, world=world, truth=DESIGNS["few"].truth)
    assert [ruling.is_true for ruling in predicates()["longest_text"](case)] == [False]
    counted = Count(level=right.level, must_find=right.must_find)
    counted.add(right)
    found = Round(counts={("longest_text", right.claim, "few"): counted}, num_replicates=1)
    text = page(found).partition("## longest_text")[2]
    assert "The longest of so many texts, prompts among them, has so many letters." in text
    assert "| the longest has so many letters | 0.05 |  | 1 of 1 (few) |" in text


def test_an_added_question_without_a_predicate_is_told(added, capsys):
    """Whoever counts the sentences of a package hears which of them nobody could judge."""
    added("[panic.questions]\nnobody_judges = panic.analysis.questions.time\n")
    with pytest.raises(SystemExit):
        referee(["--replicates", "1"])
    assert "no predicate says whether the sentence is true: nobody_judges" in capsys.readouterr().err


def test_without_it_there_is_neither():
    assert questions() == list(QUESTIONS)
    assert "backwards" not in nulls.kinds()


def test_one_that_cannot_be_loaded_is_named(added):
    added("[panic.questions]\nodd = nowhere_at_all\n")
    with pytest.raises(UsageError, match=r"odd \(nowhere_at_all\) of panic.questions cannot be loaded"):
        questions()
