"""What counts steps says what it counts: a cycle of 26 model calls is one of 13 texts and 13 pictures.

Fresh runs go round exactly, those with a fixed seed are stuck, in all from their first call on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from panic.analysis.comparison import write_comparison
from panic.analysis.questions import Figure, ask, questions
from panic.analysis.report import write_report
from panic.cli.app import app
from panic.store import Store
from tests.analysis.test_words import encodings
from tests.referee import drawing
from tests.referee.worlds import World, evidence_of, write

PERIOD = 13  # texts
CALLS = 2 * PERIOD
LENGTH = 4 * PERIOD + 3
CALL_FIELDS = {"step", "until", "entry_step", "i", "j", "since"}
OUTPUT_FIELDS = {"lag", "length", "generation", "first_passage"}
OF_OUTPUTS = re.compile("outputs?|texts?|images?|pictures?")
SAID = {
    "When runs get stuck, and how": "period (model calls)",
    "Does it wander or come back? · embed": f"comes back after {PERIOD} texts",
    "Does it come round? · embed": f"most often of {PERIOD} texts",
    "Has it been here before?": "model call",
    "From region to region · embed": "outputs",
}
"""What a figure says somewhere of the cycle, by its title."""
COMMANDS = {
    ("stuck",): ["entered at model call", "period (model calls)"],
    ("show", "world"): [f"since model call 0, with a period of {CALLS} model calls"],
    ("show", "world", "--run", "1"): [f"since model call 0, with a period of {CALLS} model calls"],
    ("list", "--runs", "--columns", "run,period,entry_step", "--csv"): ["period", "entry_step"],
    ("returns",): ["soonest after (model calls)", "alike for (outputs)", "at model call"],
    ("returns", "--modality", "text"): ["soonest after (model calls)", "alike for (texts)"],
    ("compare", "--of", "run", "1", "3"): ["parts at model call"],
}
"""What commands say, which have no other word for a step."""


def world() -> World:
    """Two networks from two prompts, and from each a run with a fixed seed and two with fresh noise."""
    rng = np.random.default_rng(0)
    known = drawing.prompts(2)
    runs = []
    for network in drawing.NETWORKS:
        for number, prompt in enumerate(known):
            for repeat, seed in enumerate((7, -1, -1)):
                length = PERIOD if seed == 7 else LENGTH
                path = (3 * number + 5 * repeat + np.arange(length)) % PERIOD
                how: dict[str, Any] = {"entry": 0, "period": PERIOD} if seed == 7 else {"repeat": repeat}
                how |= {"network": network, "prompt": prompt, "seed": seed, "num_outputs": LENGTH}
                runs.append(drawing.run(path, rng, noise=0, **how))
    return World(runs=runs, prompts=known, name="world", has_diagrams=True)


@cache
def figures() -> list[Figure]:
    with evidence_of(world()) as evidence:
        return [figure for question in questions() for figure in ask(question, evidence)]


def told(figure: Figure) -> Iterator[str]:
    """All texts of a figure that are sentences."""
    yield from (figure.sentence, figure.caveat, figure.missing)
    yield from (spec.get("description", "") for spec in figure.specs)


def titles(figure: Figure) -> Iterator[tuple[str, str]]:
    """Fields of the axes and tips of a figure's charts, and what they are called there."""
    for encoding in encodings(figure.specs):
        for channel in ("x", "y", "tooltip"):
            found = encoding.get(channel, [])
            for one in found if isinstance(found, list) else [found]:
                if "field" in one and one.get("axis", {}) is not None:
                    yield one["field"], one.get("title") or one["field"]


def test_a_step_in_words_is_a_model_call():
    for figure in figures():
        for text in told(figure):
            for found in re.finditer(r"\bsteps?\b", text):
                near = text[max(0, found.start() - 40) : found.end() + 20]
                assert re.search(r"model call|--step N|step of|stepped in|steps? in", near), (
                    f"{figure.title}: {near}"
                )


def test_axes_and_tips_say_what_they_count():
    for figure in figures():
        for field, title in titles(figure):
            if figure.title.startswith("Persist"):
                continue  # lengths of bars
            where = f"{figure.title}: {field} is called {title!r}"
            assert field not in CALL_FIELDS or "model call" in title, where
            assert field not in OUTPUT_FIELDS or OF_OUTPUTS.search(title), where


def test_the_cycle_is_told_in_its_unit_wherever_it_is_told():
    """13 of texts, pictures, outputs or laps; 26 of model calls. There are 13 clusters, one for each text."""
    number = re.compile(rf"(?<![\d.,(])({PERIOD}|{CALLS})(?![.,]?\d| %|%|\)) ?([\w ]*)")
    for figure in figures():
        for text in told(figure):
            for found in number.finditer(text):
                unit = (
                    r"(?:model )?calls" if found[1] == str(CALLS) else r"texts|images|pictures|outputs|laps"
                )
                others = r"clusters|regions|points|parts|distinct|different|of 1?[2-9] "
                assert re.match(f"(?:{unit}|{others})", found[2]), f"{figure.title}: {found[0]!r} in {text}"


@pytest.mark.parametrize("title", SAID)
def test_a_figure_says_the_cycle(title):
    [figure] = [one for one in figures() if one.title == title]
    names = [name for _, name in titles(figure)]
    assert any(SAID[title] in text for text in [*told(figure), *names]), (figure.sentence, names)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units") / "store"
    with Store(folder, write=True, create=True) as made:
        write(made, world())
        other = world()
        write(made, World(runs=other.runs, prompts=other.prompts, name="other"))
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_says_the_unit(command, store):
    wide = {"COLUMNS": "400", "TERM": "dumb"}
    done = CliRunner().invoke(app, [*command, "--store", str(store)], env=wide)
    assert done.exit_code == 0, done.output
    for words in COMMANDS[command]:
        assert words in done.output, done.output


def test_pages_say_the_unit(store, tmp_path):
    """The report's strips and table of stuck runs; the tables of experiments side by side."""
    with Store(store) as opened:
        report = write_report(opened, "world", tmp_path / "report.html").read_text(encoding="utf-8")
        beside = write_comparison(opened, ["world", "other"], tmp_path / "b.html").read_text(encoding="utf-8")
    words = re.sub(r"<[^>]*>", "", report)
    assert "Entered at model call" in words
    assert "Period (model calls)" in words
    assert f"stuck from model call 0, period {CALLS} calls" in words
    asked = beside[beside.index('id="q1"') :]  # above are the fields of configs
    heads = {unescape(head) for head in re.findall(r"<th>([^<]*)</th>", asked)}
    names = {unescape(name) for name in re.findall(r'<td class="field">([^<]*)</td>', asked)}
    assert {"model call", "period (model calls)"} <= heads
    for name in heads | names:
        assert not re.search(r"_|\bnum\b|\bis |\.\d|\bsteps?\b", name), name
