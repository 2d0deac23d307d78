"""Frames as files that other programs read: CSV, Parquet and JSON exactly, LaTeX and Markdown to be read.

write(frame, Path("table.tex"))
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panic.cli.common import visible, visible_json
from panic.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\rightarrow$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
"""Texts are of models and of other people: none of them may be a command."""
MARKDOWN = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "\\\\", "|": r"\|", "`": r"\`", "*": r"\*", "_": r"\_",
    "[": r"\[", "]": r"\]",
}  # fmt: skip


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as the ending of the path says. Raises UsageError for another ending."""
    check_ending(path, tuple(WRITERS))
    WRITERS[path.suffix.lower()](frame, path)


def check_ending(path: Path, endings: tuple[str, ...]) -> None:
    """Raise UsageError for a name whose ending is none of these."""
    if path.suffix.lower() not in endings:
        raise UsageError(
            f"{path}: the ending says the format, and this one is unknown.",
            hint=f"Known endings: {', '.join(endings)}.",
        )


def rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON may hold them: NaN is null, what is infinite the text "inf" or "-inf"."""
    return [{name: _finite(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float) and value - value != 0:
        return None if value != value else str(value)
    return value


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with lists and structs as JSON texts, for formats that have none."""
    import polars as pl

    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    texts = {
        name: [None if value is None else json.dumps(_finite(value)) for value in frame[name].to_list()]
        for name in nested
    }
    return frame.with_columns(pl.Series(name, of_one, pl.String) for name, of_one in texts.items())


def cell(value: Any) -> str:
    """A value as people read it: six significant digits, nothing for what is missing, on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return visible(" ".join(str(value).split()))


def as_latex(frame: pl.DataFrame) -> str:
    """A tabular with rules of booktabs, numbers at the right."""
    alignment = "".join("r" if kind.is_numeric() else "l" for kind in frame.schema.values())
    head, *body = _texts(frame, LATEX)
    lines = [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule", f"{' & '.join(head)} \\\\", "\\midrule"]
    lines += [f"{' & '.join(row)} \\\\" for row in body]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def as_markdown(frame: pl.DataFrame) -> str:
    """A table between pipes, numbers at the right."""
    head, *body = _texts(frame, MARKDOWN)
    rule = ["--:" if kind.is_numeric() else "---" for kind in frame.schema.values()]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *body])


def _texts(frame: pl.DataFrame, escapes: dict[str, str]) -> list[list[str]]:
    """The names of the columns and the cells of each row, escaped."""
    table = str.maketrans(escapes)
    found = [list(frame.columns), *([cell(value) for value in row] for row in flat(frame).iter_rows())]
    return [[text.translate(table) for text in row] for row in found]


def _write_json(frame: pl.DataFrame, path: Path) -> None:
    text = json.dumps(rows(frame), ensure_ascii=False, indent=1, allow_nan=False)
    path.write_text(visible_json(text) + "\n", encoding="utf-8")


def _write_csv(frame: pl.DataFrame, path: Path) -> None:
    with path.open("wb") as file:  # polars itself knows names of UTF-8 alone
        flat(frame).write_csv(file)


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    with path.open("wb") as file:
        frame.write_parquet(file)


WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".md": lambda frame, path: path.write_text(as_markdown(frame), encoding="utf-8"),
    ".tex": lambda frame, path: path.write_text(as_latex(frame), encoding="utf-8"),
}
