"""What runs are grouped by, in words."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest

from panic.analysis.grouping import course_name, grouped_by, network_name, untold
from panic.analysis.questions import ask, questions
from panic.arms import BASELINE
from tests.referee.designs import DESIGNS
from tests.referee.worlds import evidence_of


@pytest.mark.parametrize(
    ("names", "one", "several"),
    [
        (["a → b"], "network", "networks"),
        (["a → b", "a → c"], "network", "networks"),
        (["a → b", "a → b · shock"], "arm", "arms"),
        (["a → b · shock", "a → c · shock"], "network", "networks"),
        (["a → b", "a → c · shock"], "network and arm", "networks and arms"),
    ],
)
def test_names_tell_networks_or_arms_apart(names, one, several):
    assert (grouped_by(names), grouped_by(names, 2)) == (one, several)


def test_names_with_dots_are_not_taken_for_arms(bench):
    """A last model "tell · 1" was read as the arm "1", and of an arm "x · y" a part as a model."""
    bench.walk("ab")
    row = bench.evidence.whole.rows[0]
    of = [
        course_name(replace(row, network=("draw", last), arm=arm))
        for last, arm in (("tell · 1", BASELINE), ("tell", "1"), ("tell", "x · y"), ("tell ·", "· y"))
    ]
    assert [one.replace("\u00a0", " ") for one in of] == [
        "draw → tell · 1", "draw → tell · 1", "draw → tell · x · y", "draw → tell · · · y"
    ]  # fmt: skip
    assert len(set(of)) == 4
    assert grouped_by([of[0], network_name(("draw", "tell"))]) == "network"
    assert grouped_by(of[1:3]) == "arm"
    assert grouped_by([of[2], "draw → tell"]) == "arm"
    assert grouped_by(of[2:]) == "network and arm"


def test_what_is_not_told_is_counted():
    names = ["a", "b", "a", "c"]
    assert untold(names, 3) == ""
    assert untold(names, 2) == " 1 more network is not told."
    assert untold([*names, "a · shock"], 2) == " 2 more networks and arms are not told."


@pytest.mark.slow
def test_of_one_network_in_two_arms_no_figure_speaks_of_networks():
    """Late distances of two arms were compared "between networks"."""
    world = DESIGNS["a shock that decides"].make(np.random.default_rng(0))
    with evidence_of(world) as evidence:
        figures = [figure for question in questions() for figure in ask(question, evidence)]
    assert len([figure for figure in figures if figure.specs]) > 15
    for figure in figures:
        captions = [spec.get("description", "") for spec in figure.specs]
        for said in (figure.sentence, figure.missing, *captions):
            assert not re.search(r"\bnetworks\b", said), f"{figure.title}: {said}"


def test_a_name_of_500_characters_is_whole_and_a_longer_one_ends_with_a_digest():
    assert network_name(("x" * 500,)) == "x" * 500
    longer = network_name(("x" * 501,))
    assert longer == "x" * 500 + "… " + hashlib.sha256(b"x" * 501).hexdigest()[:12]
