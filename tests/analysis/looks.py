"""What figures look like and say, written down: charts without their rows, and sentences.

They were looked at, light and dark, on a page and on a phone, and read. Whoever changes one looks at it
again, and has it written down anew:

    PANIC_LOOKS=write python -m pytest tests/analysis        # the difference of looks.json tells what changed
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

FILE = Path(__file__).with_name("looks.json")
ENCODED = re.compile(r"(bytes per pixel goes from )[\d.]+( to )[\d.]+(?=[ ,.])")
"""What libwebp makes of a picture."""
ROWS = ("data", "datasets", "config", "$schema")
"""Of a specification: what it is of, and the theme, of which other tests are."""


def assert_looks(name: str, charts: Any) -> None:
    """Charts (one, or several by their headings) look as they did when they were looked at.

    A specification will do for a chart.
    """
    by_heading = charts if isinstance(charts, Mapping) else {"": charts}
    specs = {heading: one if isinstance(one, dict) else one.to_dict() for heading, one in by_heading.items()}
    _assert_known({f"{name} · {heading}": bare(spec) for heading, spec in specs.items()})


def assert_shown(question: Any, answer: Any, name: str = "") -> Any:
    """The charts of an answer look, and its sentence reads, as they did; also of four and five networks.

    Returns the charts.
    """
    name = f"{question.__name__.rpartition('.')[2]}{name and f', {name}'}"
    charts = question.chart(answer)
    assert_looks(name, charts)
    said = {f"{name} says": question.sentence(answer)}
    for number in (4, 5):
        said[f"{name} says of {number} networks"] = question.sentence(times(answer, number))
    _assert_known(said)
    return charts


def assert_said(name: str, sentence: str) -> None:
    """A sentence reads as it did."""
    _assert_known({f"said of {name}": sentence})


def times(part: Any, number: int) -> Any:
    """An answer with each of its networks so many times, under other names."""
    if isinstance(part, pl.DataFrame):
        names = [name for name in ("network", "group") if name in part.columns]
        texts = [[pl.format("{} {}", one, pl.lit(k)).alias(one) for one in names] for k in range(number)]
        return pl.concat([part.with_columns(text) for text in texts]) if names else part
    if isinstance(part, list) and part and all(hasattr(one, "network") for one in part):
        return [replace(one, network=f"{one.network} {k}") for k in range(number) for one in part]
    if isinstance(part, list):
        return [times(one, number) for one in part]
    if isinstance(part, dict) and any("→" in str(key) for key in part):
        return {f"{key} {k}": one for k in range(number) for key, one in part.items()}
    if is_dataclass(part) and not isinstance(part, type):
        made = {field.name: times(getattr(part, field.name), number) for field in fields(part)}
        return replace(part, **made)
    return part


def bare(spec: dict[str, Any]) -> Any:
    """A specification without rows, with numbers to three digits, and without names that altair makes up."""
    return _rounded(json.loads(re.sub(r"\b(param|view)_[0-9a-f]+(_\d+)?", r"\1", json.dumps(spec))))


def _assert_known(found: dict[str, Any]) -> None:
    known = json.loads(FILE.read_text(encoding="utf-8"))
    if os.environ.get("PANIC_LOOKS") == "write":
        lines = [
            f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}"
            for key, value in sorted((known | _rounded(found)).items())
        ]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")  # a figure a line
        return
    assert _rounded(found) == {key: known.get(key) for key in found}, "look, and have it written down anew"


def _rounded(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _rounded(value) for key, value in part.items() if key not in ROWS}
    if isinstance(part, list):
        return [_rounded(value) for value in part]
    if isinstance(part, str):  # also in conditions
        part = ENCODED.sub(r"\1so much\2so much", part)
        return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda one: f"{float(one[0]):.3g}", part)
    return float(f"{part:.3g}") if isinstance(part, float) else part
