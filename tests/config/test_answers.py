"""Inputs that once got the name of an exception, or too much memory, for an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic.config import load, prompts
from panic.errors import ConfigError

YAML = "name: x\nnetworks: [[a, b]]\nprompts: [p]\nseeds: [1]\nmax_length: {}\n"
TOML = 'name = "x"\nnetworks = [["a", "b"]]\nprompts = ["p"]\nseeds = [1]\nmax_length = {}\n'
JSON = '{{"name": "x", "networks": [["a", "b"]], "prompts": ["p"], "seeds": [1], "max_length": {}}}'


@pytest.mark.parametrize(
    ("text", "suffix", "number"),
    [
        (YAML, "yaml", "0x" + "f" * 10**6),
        (YAML, "yaml", "0o" + "7" * 10**6),
        (YAML, "yaml", "9" * 10**6),
        (TOML, "toml", "0x" + "f" * 10**4),
        (TOML, "toml", "9" * 10**4),
        (JSON, "json", "9" * 10**4),
    ],
    ids=["yaml-hex", "yaml-octal", "yaml", "toml-hex", "toml", "json"],
)
def test_a_number_of_a_million_digits_is_told_with_its_place(
    tmp_path: Path, text: str, suffix: str, number: str
) -> None:
    file = tmp_path / f"x.{suffix}"
    file.write_text(text.format(number))
    with pytest.raises(ConfigError) as told:
        load(file)
    assert f"{file}:" in str(told.value)
    assert len(str(told.value)) < 1000
    assert "Exceeds" not in str(told.value)


@pytest.mark.parametrize("place", ["{} = 1", "[{}]\nx = 1", "y = {{{} = 1}}"])
def test_a_toml_key_of_50000_parts_is_told(tmp_path: Path, place: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(TOML.format(5) + place.format(".".join(["a"] * 50_000)) + "\n")
    with pytest.raises(ConfigError, match="a key has at most 50 parts"):
        load(file)


def test_a_prompt_with_many_dots_is_no_toml_key(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    dotted = ".".join(["a"] * 100)
    text = TOML.format(5).replace('"p"', f'"{dotted}", """\n{dotted}."""') + f"# {dotted}\n"
    file.write_text(text)
    assert load(file).prompts == [dotted, f"{dotted}."]


def expanded(tmp_path: Path, name: str, text: str, **more: str) -> list[str]:
    (tmp_path / name).write_bytes(text.encode())
    texts, mistakes, _ = prompts.expand([{"file": name, **more}], tmp_path)
    if mistakes:
        raise ConfigError(" ".join(f"{m.message} {m.hint}" for m in mistakes))
    return texts


def test_a_key_that_a_line_of_jsonl_has_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"p\.jsonl:2:1: the key 'text' is given twice"):
        expanded(tmp_path, "p.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_a_text_file_may_end_in_cr(tmp_path: Path, end: str) -> None:
    assert expanded(tmp_path, "p.txt", f"one{end}two{end}") == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        ("p.csv", "text;tag\na, b;x\n", {}),
        ("p.csv", "tag\ttext\nx\ta, b\n", {}),
        ("p.tsv", "tag\ttext\nx\ta, b\n", {}),
        ("p.csv", "tag|text\nx|a, b\n", {"delimiter": "|"}),
        ("p.csv", 'text,tag\n"a, b",x;y\n', {}),
    ],
)
def test_a_csv_may_have_semicolons_tabs_or_a_delimiter_of_its_own(
    tmp_path: Path, name: str, text: str, more: dict[str, str]
) -> None:
    assert expanded(tmp_path, name, text, **more) == ["a, b"]


def test_a_csv_with_too_many_values_is_told_what_parts_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parted by ';'"):
        expanded(tmp_path, "p.csv", "text;tag\na;b;c\n")
