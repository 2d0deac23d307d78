"""What another package adds: it lies in tests/plugins, with the metadata that an installed one has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from panic.analysis import load, nulls, plugins
from panic.analysis.answers import answers, find
from panic.analysis.checks import AnalysisError
from panic.analysis.null_bands import answers_beside, figures_beside
from panic.analysis.null_runs import write_nulls
from panic.analysis.questions import QUESTIONS, UNCOUNTED, ask, named, questions
from panic.analysis.report import render
from panic.errors import UsageError
from panic.store import reading
from panic.view import worker
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


CARELESS = """
print("imported")

import numpy as np
import polars as pl
from panic.analysis.evidence import Statistic, each_model

class Careful:
    TITLE, CAVEAT = "A careful one", {"": "None."}
    views = staticmethod(lambda evidence: [None])
    table = staticmethod(lambda evidence, view=None: evidence.data.runs.select("run"))
    sentence = staticmethod(lambda answer: f"There are {len(answer)}.")

    @staticmethod
    def chart(answer):
        import altair as alt
        return {"": alt.Chart(alt.InlineData(values=answer.to_dicts())).mark_point()}

class Raises(Careful):
    @staticmethod
    def table(evidence, view=None):
        print("on its way")
        return {}["no such key \\ud800"]

class Unspeakable(Careful):
    @staticmethod
    def table(evidence, view=None):
        class Odd(Exception):
            def __str__(self): raise ValueError
        raise Odd

class Leaves(Careful):
    @staticmethod
    def table(evidence, view=None): raise SystemExit(0)

class Number(Careful):
    table = staticmethod(lambda evidence, view=None: 7)

class Unsure(Careful):
    views = staticmethod(lambda evidence: 1 / 0)

class Nowhere(Careful):
    views = staticmethod(lambda evidence: ["no view"])

class Later(Careful):
    views = staticmethod(lambda evidence: (1 / 0 for _ in "a"))

class Aimless(Careful):
    views = staticmethod(lambda evidence: None)

class Counted(Careful):
    views = staticmethod(lambda evidence: 7)

class Arrays(Careful):
    views = staticmethod(lambda evidence: [np.zeros(2)])

class Pairs(Careful):
    views = staticmethod(lambda evidence: [tuple(evidence.views[0])])

class Blank(Careful):
    chart = staticmethod(lambda answer: None)

class Large(Careful):
    @staticmethod
    def chart(answer):
        import altair as alt
        return alt.Chart(alt.InlineData(values=["x" * 2**24])).mark_point()

class Silent(Careful):
    sentence = staticmethod(lambda answer: None)

class Endless(Careful):
    sentence = staticmethod(lambda answer: "x" * 20_000)

class Halfway:
    TITLE = "No question"
    table = staticmethod(lambda evidence, view=None: None)

class Nameless(Careful):
    TITLE = 3

class Lock(type):
    @property
    def TITLE(self): raise RuntimeError("locked")

class Locked(Careful, metaclass=Lock):
    pass

def measured(**columns):
    def of(evidence, view):
        frame = evidence.data.runs.select("run", value=1.0, network=pl.lit("?"))
        return frame.with_columns(**columns)
    return Statistic(what="a number", of=of)

class Measured(Careful):
    views = each_model
    STATISTIC = measured(run=pl.col("run").cast(pl.String), value=pl.lit(2), part=pl.lit(3))

class Unnumbered(Careful):
    views, STATISTIC = each_model, measured(run=pl.lit("the first"))

class Wordy(Careful):
    views, STATISTIC = each_model, measured(value=pl.lit("many"))

class Placeless(Careful):
    views, STATISTIC = each_model, measured(x=pl.lit("here"))

class Unasked(Unsure):
    STATISTIC = measured()

def grow(values, rng):
    values *= 0
    return values[:-1]

def infinite(values, rng): return values + float("inf")
def fail(values, rng): raise KeyError("lost")
"""
TOLD = {
    "raises": "raises, which another package adds, failed: KeyError: 'no such key \\ud800'",
    "unspeakable": "unspeakable, which another package adds, failed: careless.",
    "leaves": "leaves, which another package adds, failed: SystemExit: 0",
    "number": "what number, which another package adds, gives is no answer, but a int",
    "unsure": "unsure, which another package adds, failed: ZeroDivisionError: division by zero",
    "nowhere": "nowhere, which another package adds, is asked under what is no view",
    "later": "later, which another package adds, failed: ZeroDivisionError: division by zero",
    "aimless": "aimless, which another package adds, failed: TypeError: 'NoneType' object is not iterable",
    "counted": "counted, which another package adds, failed: TypeError: 'int' object is not iterable",
    "arrays": "arrays, which another package adds, is asked under what is no view",
    "pairs": "pairs, which another package adds, is asked under what is no view",
    "blank": "blank, which another package adds, failed: AttributeError",
    "large": "a chart of large, which another package adds, has 16,777,",
    "silent": "what silent, which another package adds, gives is no sentence, but a NoneType",
    "endless": "what endless, which another package adds, gives is no sentence, but a str",
}


@pytest.fixture
def careless(added: Callable[[str], None], tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Entry points of a careless package, a line each."""
    (tmp_path / "careless.py").write_text(CARELESS)
    plugins._tell_taken.cache_clear()
    yield lambda group, lines: added(f"[{group}]\n{lines}\n")
    sys.modules.pop("careless", None)


def test_a_question_that_fails_says_so_in_its_place_and_the_others_are_answered(full, careless, capsys):
    careless("panic.questions", "\n".join(f"{name} = careless:{name.title()}" for name in ["careful", *TOLD]))
    figures = {name: ask(one, full.evidence) for name, one in named().items() if name in ("careful", *TOLD)}
    (good,) = figures.pop("careful")
    assert (good.sentence, good.missing, len(good.specs)) == ("There are 3.", "", 1)
    for name, (figure,) in figures.items():
        assert TOLD[name].lower() in figure.missing.lower()
        assert figure.title == "A careful one"
        (answer, *_) = answers(find(name), full.evidence)
        assert (answer.missing == "") is (name in ("blank", "large", "silent", "endless"))
    html = render(full.store, reading.experiment(full.store, "demo"))
    assert html.count("<h2>A careful one</h2>") == 1 + len(TOLD)
    assert "There are 3." in html
    assert "<h2>The longest" not in html
    out, err = capsys.readouterr()
    assert out == "", "stdout is for answers"
    assert "imported" in err
    assert "on its way" in err


@pytest.mark.parametrize("name", ["halfway", "nameless", "locked"])
def test_what_is_no_question_is_named(careless, name):
    careless("panic.questions", f"{name} = careless:{name.title()}")
    with pytest.raises(UsageError, match=f"{name} is no question"):
        questions()


@pytest.mark.parametrize("name", ["../up", "two words", "\x1b[2J", "x" * 101])
def test_a_name_that_no_command_line_can_hold_is_refused(careless, name):
    careless("panic.questions", f"{name} = careless:Careful")
    with pytest.raises(UsageError, match="a name has letters"):
        questions()


def test_a_name_that_is_taken_stays_with_its_first(careless, full, caplog):
    careless("panic.questions", "time = careless:Raises\ncareful = careless:Careful")
    assert find("time") in QUESTIONS
    assert len(questions()) == len(QUESTIONS) + 1
    assert caplog.text.count("time (careless:Raises) of panic.questions is left out: the name is taken") == 1


def test_a_statistic_that_fails_says_so_beside_the_null_models(bench, careless):
    told = {
        "unnumbered": "unnumbered, which another package adds, failed: polars.",
        "wordy": "wordy, which another package adds, failed: polars.",
        "placeless": "placeless, which another package adds, failed: polars.",
        "unasked": "unasked, which another package adds, failed: ZeroDivisionError",
    }
    lines = [f"{name} = careless:{name.title()}" for name in ["careful", "measured", *told]]
    careless("panic.questions", "\n".join(lines))
    for number in range(3):
        bench.walk("abc", seed=-1, repeat=number)
    bench.embed({letter: np.eye(3)[i] for i, letter in enumerate("abc")})
    write_nulls(bench.store, "demo", "shuffled")
    with pytest.raises(AnalysisError, match=r"^careful has no statistic of single runs"):
        answers_beside(find("careful"), bench.evidence, "shuffled")
    (answer,) = answers_beside(find("measured"), bench.evidence, "shuffled")
    assert answer.value.select("network", "part", "value", "mean").rows() == [("draw → tell", "3", 2.0, 2.0)]
    for name, why in told.items():
        (answer,) = answers_beside(find(name), bench.evidence, "shuffled")
        (figure,) = figures_beside(find(name), bench.evidence, ["shuffled"])
        assert why in answer.missing
        assert why in figure.missing
        assert figure.title.startswith("A careful one · ")
        assert figure.title.endswith("beside null models")
    html = render(bench.store, reading.experiment(bench.store, "demo"))
    assert html.count("wordy, which another package adds, failed") == 1
    assert html.count("A number, beside shuffled: draw → tell · 3 (3 runs)") == 1


def test_null_models_that_fail_are_told_and_leave_the_vectors_as_they_are(bench, careless):
    careless("panic.nulls", "grow = careless:grow\ninfinite = careless:infinite\nfail = careless:fail")
    bench.walk("abc", seed=-1)
    bench.embed({letter: np.eye(3)[i] for i, letter in enumerate("abc")})
    for kind, told in (
        ("grow", "have the shape"),
        ("infinite", "hold NaN or infinity"),
        ("fail", "KeyError"),
    ):
        with pytest.raises(AnalysisError, match=f"no null model {kind} of demo can be made.*{told}"):
            write_nulls(bench.store, "demo", kind)
    data = load(bench.store, "demo")
    np.testing.assert_array_equal(data.trajectory(data.runs["run"][0], "embed", "text"), np.eye(3))


def test_a_page_works_with_nothing_that_code_of_others_has_held(full, careless):
    """The process of the view keeps what it has loaded; an added question may change it in place."""
    careless("panic.questions", "careful = careless:Careful")
    loaded, asked = worker._Loaded(), {"experiment": "demo"}
    worker._question(full.store, {**asked, "question": "time"}, loaded)
    assert loaded._evidence is not None
    found = worker._question(full.store, {**asked, "question": "careful"}, loaded)
    assert found["figures"][0]["sentence"] == "There are 3."
    assert loaded._evidence is None
