"""Filters are read, or refused with the place that is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from panic.errors import FilterError
from panic.store.finding.syntax import MAX_CHARACTERS, MAX_LEVELS, Compound, Condition, conditions, parse


def told(tree) -> object:
    """A tree as plain values."""
    if isinstance(tree, Compound):
        return (tree.kind, *map(told, tree.parts))
    values = tuple(value.text for value in tree.values)
    return (tree.subject.text, ("not " if tree.is_negated else "") + tree.operator, *values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1", ("a", "=", "1")),
        ("a==b", ("a", "=", "b")),
        ("a <> 'x y'", ("a", "!=", "x y")),
        ("a = 'it''s'", ("a", "=", "it's")),
        ('a = "it\'s ""so"""', ("a", "=", 'it\'s "so"')),
        ("a >= -1.5e3", ("a", ">=", "-1.5e3")),
        ("a > -6h", ("a", ">", "-6h")),
        ("model = org/name-2.1:v", ("model", "=", "org/name-2.1:v")),
        ("a in (1, b, 'c',)", ("a", "in", "1", "b", "c")),
        ("a not in (1)", ("a", "not in", "1")),
        ("'x' in tags", ("tags", "has", "x")),
        ("x not in tags", ("tags", "not has", "x")),
        ("a like '%b'", ("a", "like", "%b")),
        (r"a ~ '\d+'", ("a", "matches", r"\d+")),
        ("a !~ b", ("a", "not matches", "b")),
        ("a NOT Matches b", ("a", "not matches", "b")),
        ("a is null", ("a", "null")),
        ("a IS NOT NULL", ("a", "not null")),
        ("android = 1", ("android", "=", "1")),
        ('config.models."a.b".x = 1', ('config.models."a.b".x', "=", "1")),
        (
            "not a=1 and b=2 or c=3",
            ("or", ("and", ("not", ("a", "=", "1")), ("b", "=", "2")), ("c", "=", "3")),
        ),
        ("not (a=1 or b=2)", ("not", ("or", ("a", "=", "1"), ("b", "=", "2")))),
        ("((a=1))\nand\tb=2", ("and", ("a", "=", "1"), ("b", "=", "2"))),
    ],
)  # fmt: skip
def test_a_filter_is_read(text: str, expected: object) -> None:
    assert told(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "carets", "said"),
    [
        ("a = ", (4, 1), "ends too soon"),
        ("a b", (2, 1), "'b' cannot stand here"),
        ("a = 1 and ; b", (10, 1), "in quotes"),
        ("a = 'x", (4, 2), "not closed"),
        ("a = 1 b = 2", (6, 1), "and, or, the end"),
        ("(a = 1", (6, 1), "ends too soon"),
        ("a in ()", (6, 1), "a field or value"),
        ("= 1", (0, 1), "cannot stand here"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, carets: tuple[int, int], said: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse(text)
    assert said in str(raised.value)
    _, line, below = raised.value.message.split("\n")
    assert line == f"  {text}"
    assert below == "  " + " " * carets[0] + "^" * carets[1]


def test_the_place_in_a_long_filter_is_shown_with_what_is_around_it() -> None:
    text = "a = 1 and " * 500 + "b ; c" + " and a = 1" * 500
    with pytest.raises(FilterError) as raised:
        parse(text)
    _, line, below = raised.value.message.split("\n")
    assert len(line) < 90
    assert line[below.index("^")] == ";"


def test_an_empty_filter_is_no_filter() -> None:
    with pytest.raises(FilterError, match="empty"):
        parse(" \n")


def test_a_million_characters_and_ten_thousand_levels_are_refused() -> None:
    assert len(conditions(parse("a = 1 or " * 1000 + "a = 1"))) == 1001
    assert isinstance(parse("(" * 10_000 + "a = 1" + ")" * 10_000), Condition)
    assert isinstance(parse("not " * (MAX_LEVELS - 1) + "a = 1"), Compound)
    for text, said in (
        ("x" * 1_000_000, f"{MAX_CHARACTERS:,} are the most"),
        ("not " * 10_000 + "a = 1", "50 levels"),
        ("(" * 10_000, "ends too soon"),
        ("(a = 1 and (b = 1 or " * 100 + "a = 1" + "))" * 100, "50 levels"),
    ):
        with pytest.raises(FilterError, match=said):
            parse(text)


def alternating(levels: int) -> str:
    """A filter that is nested so deeply by `and` and `or` in turn, on its right alone."""
    text = "a = 1"
    for level in range(levels - 1):
        text = f"b = 1 {('and', 'or')[level % 2]} ({text})"
    return text


@pytest.mark.parametrize("nested", [lambda levels: "not " * (levels - 1) + "a = 1", alternating])
def test_as_many_levels_as_are_said_are_read_and_one_more_is_not(nested: Callable[[int], str]) -> None:
    assert isinstance(parse(nested(MAX_LEVELS)), Compound)
    with pytest.raises(FilterError, match=f"more than {MAX_LEVELS} levels"):
        parse(nested(MAX_LEVELS + 1))


def test_a_hundred_thousand_characters_are_the_most() -> None:
    name = "a" * (MAX_CHARACTERS - 4)
    assert told(parse(f"{name} = 1")) == (name, "=", "1")
    with pytest.raises(FilterError, match="The filter has 100,001 characters; 100,000 are the most"):
        parse(f"a{name} = 1")
