"""What another package adds: it lies in tests/plugins, with the metadata that an installed one has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from panic.analysis import load, nulls
from panic.analysis.null_runs import write_nulls
from panic.analysis.questions import QUESTIONS, UNCOUNTED, ask, questions
from panic.analysis.report import render
from panic.errors import UsageError
from panic.store import reading

PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def installed() -> Iterator[None]:
    """The package is where Python looks for packages."""
    sys.path.insert(0, str(PLUGINS))
    yield
    sys.path.remove(str(PLUGINS))
    for name in [name for name in sys.modules if name.partition(".")[0] == "panic_plugin"]:
        del sys.modules[name]


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


def test_without_it_there_is_neither():
    assert questions() == list(QUESTIONS)
    assert "backwards" not in nulls.kinds()


def test_one_that_cannot_be_loaded_is_named(tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[panic.questions]\nodd = nowhere_at_all\n")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(UsageError, match=r"odd \(nowhere_at_all\) of panic.questions cannot be loaded"):
            questions()
    finally:
        sys.path.remove(str(tmp_path))
