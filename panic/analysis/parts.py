"""The tables of an answer, by name: what a question's table says, whatever it is, as polars frames.

parts(answers(find("drift"), evidence)[0].value)      # {"frame": ..., "bands": ..., "summary": ...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import polars as pl

SUMMARY = "summary"
"""The part of an answer that holds its single values, in one row."""


def parts(answer: Any) -> dict[str, pl.DataFrame]:
    """The tables of an answer by the names of its fields, the main one first.

    A frame is the only part, named "table". A list of answers is joined part by part. Of a dataclass every
    frame is a part, and so is every list or mapping of further answers (a mapping's key becomes the column
    `key`) and every matrix, with the columns row, column, value. What is left, numbers and texts, is the
    part "summary", with one row.
    """
    if isinstance(answer, pl.DataFrame):
        return {"table": answer}
    if isinstance(answer, list):
        return joined([({}, parts(one)) for one in answer])
    frames: dict[str, pl.DataFrame] = {}
    nested: dict[str, pl.DataFrame] = {}
    single: dict[str, Any] = {}
    for field in fields(answer):
        value = getattr(answer, field.name)
        if isinstance(value, pl.DataFrame):
            frames[field.name] = value
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            nested[field.name] = _cells(value)
        elif _is_nested(value):
            of_name = joined([(key, _parts_of_entry(one)) for key, one in _entries(value)])
            nested |= {_named(field.name, part): frame for part, frame in of_name.items()}
        else:
            single |= _plain(field.name, value)
    summary = {SUMMARY: pl.DataFrame([single])} if single else {}
    return frames | nested | summary


def _is_nested(value: Any) -> bool:
    is_list = isinstance(value, list) and any(map(is_dataclass, value))
    return is_list or isinstance(value, Mapping) or is_dataclass(value)


def _entries(value: Any) -> list[tuple[dict[str, str], Any]]:
    """What a field holds, entry by entry, with what names each."""
    if isinstance(value, Mapping):
        return [({"key": str(key)}, one) for key, one in value.items()]
    return [({}, one) for one in (value if isinstance(value, list) else [value])]


def _parts_of_entry(value: Any) -> dict[str, pl.DataFrame]:
    return parts(value) if is_dataclass(value) else {SUMMARY: pl.DataFrame([_plain("value", value)])}


def _named(field: str, part: str) -> str:
    return field if part == SUMMARY else f"{field}.{part}"


def _cells(matrix: np.ndarray[Any, Any]) -> pl.DataFrame:
    row, column = np.indices(matrix.shape)
    return pl.DataFrame({"row": row.ravel(), "column": column.ravel(), "value": matrix.ravel()})


def _plain(name: str, value: Any) -> dict[str, Any]:
    """The columns of a value that is no table; a tuple has one per place."""
    if isinstance(value, tuple):
        return {f"{name}.{place}": one for place, one in enumerate(value)}
    if isinstance(value, np.ndarray):
        return {name: value.tolist()}
    return {name: value.item() if isinstance(value, np.generic) else value}


def joined(
    labelled: Sequence[tuple[Mapping[str, str], Mapping[str, pl.DataFrame]]],
) -> dict[str, pl.DataFrame]:
    """Tables part by part, one below the other; labels become the first columns, where a frame lacks them.

    The label `experiment` takes the place of a column of row numbers.
    """
    found: dict[str, list[pl.DataFrame]] = {}
    for labels, frames in labelled:
        for part, frame in frames.items():
            frame = frame.drop("experiment", strict=False)
            new = {name: text for name, text in labels.items() if name not in frame.columns}
            columns = [pl.lit(text).alias(name) for name, text in new.items()]
            found.setdefault(part, []).append(frame.select(*columns, pl.all()))
    return {part: pl.concat(frames, how="diagonal_relaxed") for part, frames in found.items()}
