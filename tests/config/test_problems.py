"""How mistakes are shown: values in words, places, carets, and what would have been right."""

from __future__ import annotations

from typing import Any

import pytest

from panic.config.problems import Document, Place, Problem, Source, describe, dotted, excerpt, render, shorten


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        (False, "false"),
        (0, "the whole number 0"),
        (10**99 - 1, f"the whole number {10**99 - 1}"),
        (-(10**99), "a whole number of too many digits"),
        (1.5, "the number 1.5"),
        ("a", "the text 'a'"),
        ("x" * 61, f"the text '{'x' * 57}...'"),
        ({}, "an empty mapping"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "a mapping with a, b, c"),
        ([], "an empty list"),
        ((1, 2), "a list of 2"),
        (b"x", "b'x' (a bytes)"),
    ],
    ids=str,
)
def test_values_in_words(value: Any, words: str) -> None:
    assert describe(value) == words


def test_texts_and_paths() -> None:
    assert shorten("x" * 60) == "x" * 60
    assert shorten("abcdefgh", 7) == "abcd..."
    assert dotted(("a.b", 0, "c")) == '"a.b".0.c'


def at(text: str, start: int, end: int) -> Place:
    return Place(source=Source(name="x.yaml", text=text), start=start, end=end)


def test_lines_and_columns_are_counted_from_1() -> None:
    text = "ab\ncd\n"
    found = [(at(text, k, k).line, at(text, k, k).column) for k in range(6)]
    assert found == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]


@pytest.mark.parametrize(
    ("text", "start", "end", "line", "carets"),
    [
        ("ab: cd\nef", 4, 6, "ab: cd", "    ^^"),
        ("ab: cd\r\nef", 4, 20, "ab: cd", "    ^^"),  # not beyond the line
        ("ab: cd\nef", 4, 4, "ab: cd", "    ^"),
        ("x\nab  \ny", 2, 6, "ab", "^^"),
        ("ab", 5, 6, "ab", "  ^"),
        ("a\tb", 2, 3, "a b", "  ^"),
        ("名前: x", 4, 5, "名前: x", "      ^"),
        ("e\u0301: x", 4, 5, "e\u0301: x", "   ^"),  # a combining accent takes no column
        ("x" * 100, 99, 100, "x" * 100, " " * 99 + "^"),
        ("x" * 101, 99, 101, "x" * 52, " " * 50 + "^^"),
        ("x" * 300, 10, 290, "x" * 100, " " * 10 + "^" * 90),
    ],
)  # fmt: skip
def test_a_line_with_carets_under_it(text: str, start: int, end: int, line: str, carets: str) -> None:
    assert excerpt(at(text, start, end), "12") == [f"  12 | {line}", f"     | {carets}"]


def document(text: str = "a: 1\nb: 2\n") -> Document:
    """A document of two keys whose values are single characters."""
    found = Document(source=Source(name="x.yaml", text=text), data={"a": 1, "b": 2})
    for key, start in (("a", 0), ("b", 5)):
        found.keys[(key,)] = Place(source=found.source, start=start, end=start + 1)
        found.values[(key,)] = Place(source=found.source, start=start + 3, end=start + 4)
    return found


def told(*found: Problem) -> str:
    return render(found, document())


def test_mistakes_are_told_in_the_order_of_their_places() -> None:
    assert told(Problem(("b",), "second"), Problem(("a",), "first", on_key=True), Problem((), "nowhere")) == (
        "x.yaml has 3 mistakes\n\n"
        "x.yaml: nowhere\n\n"
        "x.yaml:1:1: first\n  1 | a: 1\n    | ^\n\n"
        "x.yaml:2:4: second\n  2 | b: 2\n    |    ^"
    )
    assert told(Problem(("b",), "alone")).startswith("x.yaml:2:4: alone\n")


def test_a_place_that_is_missing_is_that_of_what_encloses_it() -> None:
    assert told(Problem(("a", "x", 0), "inside")).startswith("x.yaml:1:1: inside")
    assert told(Problem(("c",), "absent")) == "x.yaml: absent"


def test_remarks_stand_below() -> None:
    assert told(Problem(("a",), "wrong", found=1, hint="do this", first=("b",))).splitlines()[3:] == [
        "    found the whole number 1", "    the first one is in line 2", "    do this"
    ]  # fmt: skip
    assert "found" not in told(Problem(("a",), "wrong", found="a", on_key=True))


def names(num: int) -> list[str]:
    return [f"name{number:02d}" for number in range(num)]


def test_few_names_are_all_told_and_of_many_the_nearest() -> None:
    few = told(Problem(("a",), "wrong", found="name1x", allowed=names(12)))
    assert "did you mean 'name1" in few
    assert "allowed: name00, " in few
    assert "allowed" not in told(Problem(("a",), "wrong", found="name1x", allowed=names(13)))
    far = told(Problem(("a",), "wrong", found="zzz", allowed=names(32)))
    assert "name31" in far
    assert "more" not in far
    assert "name31 and 1 more" in told(Problem(("a",), "wrong", found="zzz", allowed=names(33)))
    assert "did you mean" not in told(Problem(("a",), "wrong", found=5, allowed=names(3)))


SECRET = "swordfish"


def rendered(path: tuple[str | int, ...], text: str, *, on_key: bool = False, found: Any = SECRET) -> str:
    """A mistake at a path of a document in which it is written as this text, between two other keys."""
    source = Source(name="x.yaml", text=f"a: {SECRET}\n{text}\nz: 1\n")
    start = len(f"a: {SECRET}\n")
    document = Document(source=source, data={})
    document.values[path] = Place(source=source, start=start, end=start + len(text))
    document.keys[path] = Place(source=source, start=start, end=start + 1)
    document.values[("a",)] = Place(source=source, start=3, end=3 + len(SECRET))
    return render([Problem(path, "wrong", found=found, on_key=on_key), Problem(("z",), "unknown")], document)


@pytest.mark.parametrize(
    ("path", "text", "is_hidden"),
    [
        (("notify", "to"), SECRET, True),
        (("notify", "to", 0), SECRET, True),
        (("notify",), SECRET, True),
        (("notify", "on"), SECRET, False),
        (("other", "to"), SECRET, False),
        (("models", "m", "api_key_env"), SECRET, True),
        (("api_key_env", "x"), SECRET, False),
        (("models", "m", "base_url"), f"https://me:{SECRET}@a.example", True),
        (("models", "m", "base_url"), f"https://{SECRET}.example", False),
        (("models", "m", "url"), f"https://me:{SECRET}@a.example", False),
    ],
)
def test_what_may_be_a_secret_is_hidden_and_nothing_else(
    path: tuple[str | int, ...], text: str, is_hidden: bool
) -> None:
    told = rendered(path, text)
    assert (SECRET in told) == (not is_hidden)
    if is_hidden:
        assert f"  2 | {'*' * len(text)}" in told
        assert "found" not in told
        lines = rendered(path, f"{SECRET}@\n  {SECRET}@")
        assert SECRET not in lines
        assert f"  2 | {'*' * (len(SECRET) + 1)}\n" in lines
    assert SECRET in rendered(path, text, on_key=True)  # a key is no value
    assert "x.yaml: unknown" in told


def test_a_secret_without_a_place_is_not_found_out_by_its_value() -> None:
    document = Document(source=Source(name="x.yaml", text=""), data={})
    told = render([Problem(("models", "m", "api_key_env"), "wrong", found=SECRET)], document)
    assert told == "x.yaml: wrong"
    url = Problem(("models", "m", "base_url"), "wrong", found=f"https://me:{SECRET}@a.example")
    assert render([url], document) == "x.yaml: wrong"
    plain = Problem(("models", "m", "base_url"), "wrong", found="https://a.example")
    assert "found the text 'https://a.example'" in render([plain], document)


def test_a_source_without_the_secret_is_shown_as_it_is() -> None:
    file = document("a: 1\nb: 2\n")
    over = Source(name="override", text=f"api_key_env={SECRET}", number=1)
    hidden = Place(source=over, start=12, end=12 + len(SECRET))
    told = render(
        [
            Problem(("api_key_env",), "wrong", place=hidden),
            Problem(("b",), "second"),
            Problem(("b",), "third"),
        ],
        file,
    )
    assert SECRET not in told
    assert f"override 'api_key_env={'*' * len(SECRET)}': wrong" in told
    assert told.count("  2 | b: 2") == 2
    assert told.index("second") < told.index("third") < told.index("wrong")  # overrides come behind the file
