"""Every key and value of a parsed text has its place, and the text at the place means the value."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from panic.config.problems import Document, KeyPath, Source
from panic.config.sources import Yaml12Dumper, parse
from panic.errors import ConfigError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
ROOTS = st.dictionaries(TEXTS, TREES, min_size=1, max_size=5)


def document(text: str, kind: str) -> Document:
    return parse(Source(name="text", text=text), kind)


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if entries is None:
        yield path, value
    for key, item in entries or ():
        yield from leaves(item, (*path, key))


def written(parsed: Document, path: KeyPath) -> str:
    place = parsed.values[path]
    return place.source.text[place.start : place.end]


@settings(deadline=None)
@given(ROOTS, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_json(data: dict[str, Any], indent: Any, ascii_only: bool) -> None:
    parsed = document(json.dumps(data, indent=indent, ensure_ascii=ascii_only), "JSON")
    assert parsed.data == data
    assert parsed.problems == []
    for path, value in leaves(data):
        assert json.loads(written(parsed, path)) == value
        assert all(path[:length] in parsed.values for length in range(len(path)))
        if isinstance(path[-1], str):
            place = parsed.keys[path]
            assert json.loads(place.source.text[place.start : place.end]) == path[-1]


@settings(deadline=None)
@given(ROOTS, st.booleans())
def test_yaml(data: dict[str, Any], is_flow: bool) -> None:
    text = yaml.dump(data, Dumper=Yaml12Dumper, default_flow_style=is_flow, allow_unicode=True, width=10**6)
    parsed = document(text, "YAML")
    assert parsed.data == data
    for path, value in leaves(data):
        if value is not None and not (isinstance(value, str) and "\n" in value):
            assert document(written(parsed, path), "YAML").data == value


def test_toml() -> None:
    text = '''# a comment = [
title = "a \\" # b" # c
'lit.eral' = 'c:\\x'
"quoted \\u00e9".b . c = 0x1F
multi = """one ]
two \\""" three"""""
lines = \'\'\'
x # y\'\'\'\'
list = [ # [
  1, [2.5, "]"], {a.b = [true], "c d"={}},
]
[table]
x = 1979-05-27 07:32:00
[table.sub] # t
y = -inf
[[rows]]
z = 1
[rows.more]
u = 2
[[rows]]
z = 3
[[rows.inner]]
v = 4
[[rows.inner]]
v = 5
'''
    data = tomllib.loads(text)
    parsed = document(text, "TOML")
    assert parsed.data == data
    checked = 0
    for path, value in leaves(data):
        assert tomllib.loads(f"x = {written(parsed, path)}") == {"x": value}
        assert all(
            path[:length] in parsed.values or path[:length] in parsed.keys for length in range(1, len(path))
        )
        checked += 1
    assert checked == 16
    place = parsed.keys[("rows", 1, "inner", 1, "v")]
    assert (place.line, place.column) == (text[: text.index("v = 5")].count("\n") + 1, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1e-3", 1e-3),
        ("1.5", 1.5),
        (".5", 0.5),
        ("12:30", "12:30"),
        ("2024-01-02", "2024-01-02"),
        ("010", 10),
        ("0x10", 16),
        ("1_000", "1_000"),
        ("~", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("1e", "1e"),
        ("9" * 5000, "9" * 5000),
    ],
    ids=lambda value: str(value)[:12],
)
def test_yaml_is_read_as_yaml_1_2(text: str, value: Any) -> None:
    data = document(f"x: {text}", "YAML").data
    assert data == {"x": value}
    assert type(data["x"]) is type(value)


def test_yaml_anchors_and_merge_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\nd: {<<: [{x: 7}, *a]}"
    data = document(text, "YAML").data
    assert data == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
        "d": {"x": 7, "y": 2},
    }
    data["c"]["x"] = 5
    assert data["a"]["x"] == 1


def test_yaml_anchor_within_itself() -> None:
    with pytest.raises(ConfigError, match="contains itself"):
        document("a: &a [*a]", "YAML")


def test_line_ends_of_windows_and_byte_order_mark(tmp_path: Any) -> None:
    from panic.config.sources import read

    file = tmp_path / "x.yaml"
    file.write_bytes("\ufeffa: 1\r\nb:\r\n  c: 2\r\n".encode())
    parsed = read(file)
    assert parsed.data == {"a": 1, "b": {"c": 2}}
    assert (parsed.values[("b", "c")].line, parsed.values[("b", "c")].column) == (3, 6)


def mistakes(text: str, kind: str) -> str:
    """What is told of a text: why it cannot be parsed, or what is wrong in it."""
    try:
        return "\n".join(problem.message for problem in document(text, kind).problems)
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("TOML", "a = 1\nb =", "text:2:4: not valid TOML: invalid value"),
        ("TOML", "a = 1\nb = x\n", "text:2:5: not valid TOML: invalid value"),
        ("TOML", "a = 1\n\n  a = 2\n", "text:3:1: not valid TOML: this key is given twice"),
        ("TOML", 'a = 1\nb = "x\nc = 2', "a quote in this line is never closed"),
        ("TOML", f"a = 1\nb = {'9' * 5000}", "text:2:5: not valid TOML: a number has too many digits"),
        ("TOML", f"a.{'b.' * 48}c = 1", None),
        ("TOML", f"a.{'b.' * 49}c = 1", "text:1:1: a key has at most 50 parts"),
        ("JSON", '{"a": 1,}', "a key in double quotes is expected here"),
        ("JSON", '{"a": [1, NaN]}', "text:1:11: not valid JSON: NaN is no JSON number"),
        ("JSON", '{"a": 1}\n x', "text:2:2: not valid JSON: the config ended before this"),
        ("JSON", f'{{"a":\n {"9" * 5000}}}', "text:2:2: not valid JSON: a number has too many digits"),
        ("JSON", f"{'[' * 51}1{']' * 51}", "nested more than 50 deep"),
        ("JSON", f"{'[' * 50}1{']' * 50}", None),
        ("YAML", 'a: "x\nb: 1', "text:1:4: not valid YAML: this quote is never closed"),
        ("YAML", "a: [1, 2\nb: 1", "a ',' or a closing bracket is missing in the list begun in line 1"),
        ("YAML", "a:\n  - 1\n b: 2", "this does not continue the mapping begun in line 1"),
        ("YAML", "a: `x`", "a text cannot begin with `"),
        ("YAML", "a: *b", "undefined alias"),
        ("YAML", "a: !x!y 1", "text:1:4: not valid YAML: found undefined tag handle '!x!'"),
        ("YAML", "a: 1\n---\nb: 2", "a second document begins here"),
        ("YAML", "a: 1\nb: \x01", "text:2:4: not valid YAML: a control character"),
        ("YAML", "a: !x 1", "the tag !x means nothing here"),
        ("YAML", "? [1]\n: 2", "a key must be a text"),
        ("YAML", "? a\n: &b {c: 1, c: 2}", "the key 'c' is given twice"),
    ],
)
def test_what_is_wrong_and_where(kind: str, text: str, told: str | None) -> None:
    found = mistakes(text, kind)
    assert told in found if told else found == ""


def test_a_second_value_of_a_key_is_left_out_with_its_places() -> None:
    for kind, text in (("JSON", '{"a": 1, "a": {"b": 2}, "c": 3}'), ("YAML", "{a: 1, a: {b: 2}, c: 3}")):
        parsed = document(text, kind)
        assert parsed.data == {"a": 1, "c": 3}
        assert set(parsed.values) == {(), ("a",), ("c",)}
        assert written(parsed, ("a",)) == "1"
        (problem,) = parsed.problems
        assert (problem.message, problem.first) == ("the key 'a' is given twice", ("a",))


def test_aliases_count_as_often_as_they_stand() -> None:
    """Four lists of lists of 100 are 40,805 values; with 30 of them there are too many."""
    lines = [f"a: &a [{', '.join('x' * 100)}]", f"b: &b [{', '.join(['*a'] * 100)}]"]
    few = "\n".join([*lines, f"c: [{', '.join(['*b'] * 4)}]"])
    assert len(document(few, "YAML").data["c"][3][99]) == 100
    with pytest.raises(ConfigError, match=r"this has 3.1\de\+05 values"):
        document("\n".join([*lines, f"c: [{', '.join(['*b'] * 30)}]"]), "YAML")
