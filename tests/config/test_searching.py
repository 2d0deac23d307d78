"""The search space of a config: what its places say, for programs and for people, and where mistakes are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from panic.config.problems import Source
from panic.config.searching import Dimension, search_space
from panic.config.sources import parse
from panic.errors import ConfigError


def space(text: str) -> list[Dimension]:
    return search_space(parse(Source(name="x.yaml", text=text), "YAML"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("{values: [a, b, 3]}", Dimension(path=("a",), values=["a", "b", 3])),
        ("{from: 1, to: 8}", Dimension(path=("a",), low=1.0, high=8.0)),
        ("{from: -1, to: 0}", Dimension(path=("a",), low=-1.0, high=0.0)),
        ("{from: 1, to: 3, n: 3}", Dimension(path=("a",), values=[1, 2, 3])),
        ("{from: 0.1, to: 7, scale: log}", Dimension(path=("a",), low=0.1, high=7.0, is_log=True)),
        ("{from: 0.4, to: 8.9, whole: true}", Dimension(path=("a",), low=1.0, high=8.0, is_whole=True)),
        ("{from: 1.5, to: 2.5, whole: true}", Dimension(path=("a",), low=2.0, high=2.0, is_whole=True)),
        ("{random: uniform, low: 0, high: 2}", Dimension(path=("a",), low=0.0, high=2.0)),
        ("{random: log, low: 1, high: 2, n: 5, seed: 3}",
         Dimension(path=("a",), low=1.0, high=2.0, is_log=True)),
        ("{random: log, low: 1, high: 2, scale: linear}", Dimension(path=("a",), low=1.0, high=2.0)),
        ("{random: uniform, low: 1, high: 2, scale: log}",
         Dimension(path=("a",), low=1.0, high=2.0, is_log=True)),
    ],
)  # fmt: skip
def test_what_a_place_says(said: str, expected: Dimension) -> None:
    assert space(f"a: {{optimize: {said}}}\n") == [expected]


def test_what_may_stand_there_is_told() -> None:
    of: dict[str, Any] = {"path": ("models", "a.b", 0)}
    assert Dimension(**of).name == 'models."a.b".0'
    assert Dimension(**of, values=(1, "b")).told() == "one of 1, b"
    assert Dimension(**of, low=0.5, high=1e6).told() == "a number from 0.5 to 1e+06"
    whole = Dimension(**of, low=1.0, high=8.0, is_log=True, is_whole=True)
    assert whole.told() == "a whole number from 1 to 8, on a logarithmic scale"
    assert (repr(whole.least), repr(Dimension(**of, low=1.0).least)) == ("1", "1.0")


def test_places_lie_at_any_depth_and_sweeps_count_where_nothing_else_is_said() -> None:
    swept = "a: {values: [1, 2]}\nb: {c: {from: 0, to: 1}, d: [{values: [5]}], e: {values: [3], more: 1}}\n"
    assert [(one.path, list(one.values)) for one in space(swept)] == [(("a",), [1, 2]), (("b", "c"), [])]
    assert [one.path for one in space(f"{swept}f: {{g: {{optimize: {{values: [1]}}}}}}\n")] == [("f", "g")]
    beside = "a: {optimize: {values: [1]}, other: 2}\nb: {c: {optimize: {values: [1]}}}\n"
    assert [one.path for one in space(beside)] == [("b", "c")]


@pytest.mark.parametrize(
    ("said", "place", "message"),
    [
        ("3", "1:15", "a says no values and no range"),
        ("{form: 1, too: 2}", "1:15", "a says no values and no range"),
        ("{values: []}", "1:24", "values must be a list of values to try"),
        ("{from: 1, to: 1}", "1:29", "to must be more than from"),
        ("{random: log, low: 2, high: 1}", "1:43", "high must be more than low"),
        ("{from: 0, to: 1, scale: log}", "1:22", "a logarithmic scale begins above 0"),
        ("{random: log, low: 0, high: 1}", "1:34", "a logarithmic scale begins above 0"),
        ("{from: a, to: 1}", "1:22", "a range has numbers as from and to"),
        ("{from: true, to: 2}", "1:22", "a range has numbers as from and to"),
        ("{random: uniform, low: 1, high: x}", "1:47", "a range has numbers as low and high"),
        ("{from: 1, to: 2, low: 3}", "1:32", "a range has no 'low'"),
        ("{from: 1, to: 2, scale: lag}", "1:39", "no such scale"),
        ("{from: 1, to: 2, whole: 1}", "1:39", "must be true or false"),
        ("{from: 1.2, to: 1.8, whole: true}", "1:22", "no whole number lies in this range"),
    ],
)
def test_mistakes_have_their_places(said: str, place: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        space(f"a: {{optimize: {said}}}\n")
    assert raised.value.message.startswith(f"x.yaml:{place}: {message}")


def test_all_mistakes_are_told_at_once_and_an_empty_space_is_one() -> None:
    with pytest.raises(ConfigError, match="has 2 mistakes"):
        space("a: {optimize: 3}\nb: {optimize: {values: [1]}}\nc: {optimize: {from: 2, to: 1}}\n")
    for nothing in ("a: 1\n", "values: [1, 2]\n"):
        with pytest.raises(ConfigError, match=r"x\.yaml: nothing in it is to be optimized"):
            space(nothing)


def test_a_range_ends_at_numbers_that_a_float_can_be() -> None:
    most = int(1.7976931348623157e308)
    [found] = search_space(
        parse(Source(name="x", text=f'{{"a": {{"optimize": {{"from": 1, "to": {most}}}}}}}'), "JSON")
    )
    assert math.isfinite(found.high)
    with pytest.raises(ConfigError, match="a range ends somewhere"):
        search_space(
            parse(Source(name="x", text=f'{{"a": {{"optimize": {{"from": -{most}0, "to": 1}}}}}}'), "JSON")
        )
