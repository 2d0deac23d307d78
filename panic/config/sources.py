"""Texts of configs into plain data, with the place of every key and value.

YAML is read as YAML 1.2 reads it: only `true` and `false` are booleans (`no`, `on` are texts), `1e-3` is a
number, `12:30` and dates are texts. Anchors and merge keys work, as far as they do not name billions of
values. JSON and TOML are read by `json_toml`. Keys that are given twice are problems of the document; what
cannot be parsed at all raises ConfigError with its place.

Try it: `python -c "from panic.config.sources import read; print(read('configs/demo.yaml').keys)"`
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from panic.config import problems
from panic.config.json_toml import parse_json, parse_toml
from panic.config.problems import MAX_DEPTH, Document, KeyPath, NotParsedError, Place, Problem, Source, fail
from panic.errors import ConfigError, nearest

MAX_SHOWN_FILES = 10
FORMATS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML"}

EXAMPLE = """\
    name: demo
    networks: [[PocketDiffusion, PocketCaptioner]]
    prompts: [a small red circle above a large blue square]
    seeds: [42, -1]
    max_length: 20
"""
"""A config that runs everywhere, for those who have none yet."""


def read(path: Path, *, may_be_empty: bool = False) -> Document:
    """Read and parse a config file; its suffix says what it is. An empty one has no data, where it may."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, not a config file", hint=_configs_in(path))
    if path.suffix.lower() not in FORMATS and path.exists():
        raise ConfigError(f"{path}: a config ends in {', '.join(FORMATS)}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint=_configs_in(path.parent, like=path)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    source = Source(name=str(path), text=decode(data, str(path)))
    return parse(source, FORMATS[path.suffix.lower()], may_be_empty=may_be_empty)


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8, also with a byte order mark; ConfigError names the place of the first wrong byte."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        what = "this is UTF-16" if is_utf16 else f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise ConfigError(f"{name}:{line}:{column}: {what}", hint="save the file as UTF-8") from None


def parse(source: Source, kind: str, *, may_be_empty: bool = False) -> Document:
    """Parse a source as "YAML", "JSON" or "TOML"."""
    document = Document(source=source)
    try:
        _parse({"YAML": parse_yaml, "JSON": parse_json, "TOML": parse_toml}[kind], document)
    except NotParsedError as error:
        raise ConfigError(problems.render([error.problem], document)) from None
    if document.data is None and not may_be_empty:
        hint = "a config has at least name, networks, prompts, seeds and max_length"
        raise ConfigError(f"{source.name}: is empty", hint=hint)
    return document


def parse_value(source: Source, begin: int) -> Document:
    """Parse the YAML value of an override, which starts at `begin`; its places are within the whole text.

    Raises:
        NotParsedError: when it is not YAML.
    """
    document = Document(source=source)
    if source.text[begin:].strip():
        _parse(partial(parse_yaml, begin=begin), document)
    return document


def _parse(parser: Callable[[Document], None], document: Document) -> None:
    """Parse a document; one that is nested too deep is answered with the place where it gets so."""
    text = document.source.text
    try:
        parser(document)
        starts = [place.start for path, place in document.values.items() if len(path) > MAX_DEPTH]
    except RecursionError:
        depths = accumulate((character in "[{") - (character in "]}") for character in text)
        starts = [next((index for index, depth in enumerate(depths) if depth > MAX_DEPTH), 0)]
    if starts:
        fail(document.source, min(starts), f"this is nested more than {MAX_DEPTH} deep")


def _configs_in(folder: Path, like: Path | None = None) -> str:
    """Say which configs there are in a folder and its `configs`, or how to begin without any."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    places = [place for place in (folder, folder / "configs") if os.access(place, os.R_OK | os.X_OK)]
    files = sorted(
        file
        for place in places
        for file in place.iterdir()
        if file.suffix.lower() in FORMATS and file.exists()
    )
    if like is not None:
        by_name = {file.name if like.suffix else file.stem: file for file in reversed(files)}
        if near := nearest(like.name, by_name):
            return f"did you mean {by_name[near[0]]}?"
    if not files:
        return f"there are no configs in {folder}; to begin, save this as demo.yaml:\n\n{EXAMPLE}"
    names = [str(file.relative_to(folder)) for file in files[:MAX_SHOWN_FILES]]
    more = f" and {len(files) - len(names)} more" if len(files) > len(names) else ""
    return f"configs in {folder}: {', '.join(names)}{more}"


# --- YAML

MAX_VALUES = 250_000
RESOLVERS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]{1,99}|0o[0-7]{1,99}|0x[0-9a-fA-F]{1,80}", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
)


class Yaml12Loader(yaml.SafeLoader):
    """Composes nodes whose plain scalars are resolved as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class Yaml12Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that `Yaml12Loader` would read as something else."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in RESOLVERS:
    for _class in (Yaml12Loader, Yaml12Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
        )


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write line breaks and other invisible characters as escapes: PyYAML loses U+0085 in other styles."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Yaml12Dumper.add_representer(str, _represent_text)

YAML_WORDS = {
    "found character '\\t' that cannot start any token": ("a tab indents this line", "indent with spaces"),
    "mapping values are not allowed here": (
        "a ':' that does not belong here",
        "put a text that contains ': ' in quotes; check the indentation and the line above",
    ),
    "could not find expected ':'": ("a ':' is missing after the key", "write key: value"),
    "found unexpected end of stream": ("this quote is never closed", ""),
    "but found another document": ("a second document begins here, and a config is one", ""),
    "special characters are not allowed": ("a control character that cannot be in YAML", "remove it"),
}


def parse_yaml(document: Document, begin: int = 0) -> None:
    """Fill a document from its source, from the character `begin` on. NotParsedError if it is no YAML."""
    source = document.source
    try:
        node = yaml.compose(" " * begin + source.text[begin:], Loader=Yaml12Loader)
    except yaml.MarkedYAMLError as error:
        is_open_quote = error.problem == "found unexpected end of stream" and error.context_mark
        mark = error.context_mark if is_open_quote else error.problem_mark
        message, hint = _yaml_words(error, source)
        fail(source, mark.index if mark else 0, f"not valid YAML: {message}", hint)
    except yaml.reader.ReaderError as error:
        message, hint = YAML_WORDS.get(error.reason, (error.reason, ""))
        fail(source, error.position, f"not valid YAML: {message}", hint)
    if node is None:
        return
    if (number := _num_values(node, {})) > MAX_VALUES:
        hint = f"{MAX_VALUES:,} is the most; prompts can be in a file of their own"
        fail(source, 0, f"with its anchors put in, this has {number:.3g} values", hint)
    document.data = _from_node(node, (), document, set())


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node has once its aliases are put in: a few lines can name billions."""
    if id(node) not in known:
        known[id(node)] = 1  # an anchor that contains itself, which is found elsewhere
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        known[id(node)] = 1 + sum(_num_values(child, known) for child in flat)
    return known[id(node)]


def _yaml_words(error: yaml.MarkedYAMLError, source: Source) -> tuple[str, str]:
    """Return message and hint for a syntax error in plain words."""
    problem, context = error.problem or "", error.context or ""
    if problem in YAML_WORDS:
        return YAML_WORDS[problem]
    if match := re.fullmatch(r"found character '(.)' that cannot start any token", problem):
        return f"a text cannot begin with {match[1]}", "put it in quotes"
    if problem.startswith("found undefined alias"):
        return f"{problem.removeprefix('found ')}", "put a text that begins with * in quotes"
    if not (problem.startswith("expected") and context.startswith("while parsing a")):
        return problem, ""
    begun = "the list" if "sequence" in context or "collection" in context else "the mapping"
    if error.context_mark and not source.number:
        begun += f" begun in line {error.context_mark.line + 1}"
    if "block" in context:
        return f"this does not continue {begun}", "check the indentation and the quotes"
    return f"a ',' or a closing bracket is missing in {begun}", ""


def _from_node(node: yaml.Node, path: KeyPath, document: Document, active: set[int]) -> Any:
    place = Place(source=document.source, start=node.start_mark.index, end=node.end_mark.index)
    document.values[path] = place
    if id(node) in active:
        fail(document.source, place.start, "not valid YAML: this anchor contains itself")
    active = active | {id(node)}
    if isinstance(node, yaml.MappingNode):
        return _from_mapping(node, path, document, active)
    if isinstance(node, yaml.SequenceNode):
        return [_from_node(item, (*path, index), document, active) for index, item in enumerate(node.value)]
    return _from_scalar(node, place, document)


def _from_mapping(
    node: yaml.MappingNode, path: KeyPath, document: Document, active: set[int]
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = Place(source=document.source, start=key_node.start_mark.index, end=key_node.end_mark.index)
        if key_node.tag.endswith(":merge"):
            for mapping in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                if isinstance(mapping, yaml.MappingNode):
                    merged = _from_node(mapping, path, document, active) | merged
                else:
                    document.problems.append(Problem((), "only mappings can be merged by <<", place=place))
        elif not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(Problem((), "a key must be a text", place=place))
        else:
            key = key_node.value
            if document.add_key(key, path, place, result):
                result[key] = _from_node(value_node, (*path, key), document, active)
    return merged | result


def _from_scalar(node: yaml.Node, place: Place, document: Document) -> Any:
    text = node.value
    match node.tag.rpartition(":")[2]:
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text, 0 if text[:2] in ("0x", "0o") else 10)
        case "float":
            return float(text)
        case _:
            document.problems.append(Problem((), f"the tag {node.tag} means nothing here", place=place))
            return text
