"""How results look: tables for people, JSON for programs, numbers with units.

python -c "from panic.cli.render import duration; print(duration(3725))"
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from panic.cli.common import drop, visible, visible_json

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console
    from rich.segment import Segment
    from rich.table import Table

DASH = "-"
PIPE_WIDTH = 200  # columns where stdout is no terminal: nothing is cut that a person might grep for
STATE_STYLES = {
    "complete": "green",
    "done": "green",
    "running": "cyan",
    "stuck": "yellow",
    "repeated": "yellow",
    "budget spent": "yellow",
    "interrupted": "yellow",
    "incomplete": "yellow",
    "failed": "red",
}


def console(*, err: bool = False) -> Console:
    """A rich console for the present stdout or stderr; texts that a terminal would obey are escaped."""
    from rich.console import Console

    class SafeConsole(Console):
        def on_broken_pipe(self) -> None:
            if not err:
                raise BrokenPipeError  # rich would exit with 1; a reader that has seen enough is no failure
            drop(sys.stderr)

        def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
            for segment in super().render(*arguments, **options):
                is_plain = segment.control is None
                yield segment._replace(text=visible(segment.text)) if is_plain else segment

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(visible(o) if isinstance(o, str) else o for o in objects), **options)

    stream = sys.stderr if err else sys.stdout
    return SafeConsole(
        file=stream,
        width=None if stream.isatty() else PIPE_WIDTH,
        highlight=False,
        soft_wrap=False,
        markup=False,
    )


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON on stdout, in ASCII where stdout is not UTF-8."""
    from panic.store.codec import told_json

    is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = told_json(value, ensure_ascii=not is_utf8, indent=indent)
    sys.stdout.write(visible_json(text) + "\n")


def print_csv(frame: pl.DataFrame) -> None:
    """Print a frame as CSV on stdout: exactly for other programs, on a terminal so that it obeys nothing."""
    text = frame.write_csv()
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A table of plain texts; a column whose name ends in "#" holds numbers, in "state" coloured states.

    None is shown as a dash.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in columns:
        is_number = name.endswith("#")
        table.add_column(
            name.removesuffix("#").strip(),
            justify="right" if is_number else "left",
            no_wrap=is_number or name == "state",
            overflow="fold",
        )
    for row in rows:
        cells = []
        for name, value in zip(columns, row, strict=True):
            text = DASH if value is None else f"{value:,}" if isinstance(value, int) else visible(str(value))
            cells.append(Text(text, style=STATE_STYLES.get(text, "") if name == "state" else ""))
        table.add_row(*cells)
    return table


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print a table on stdout: as lines of any length where that is no terminal."""
    if sys.stdout.isatty():
        console().print(make_table(columns, rows, title))
    else:
        encoding = sys.stdout.encoding or "utf-8"
        text = plain_table(columns, rows, title)
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> str:
    """Return what `make_table` shows as text in which nothing is cut or folded; rich takes 0.1 s for it.

    A cell is one line.
    """
    heads = [name.removesuffix("#").strip() for name in columns]
    body = [
        [DASH if v is None else f"{v:,}" if isinstance(v, int) else _on_one_line(str(v)) for v in row]
        for row in rows
    ]
    widths = [max(map(_width, cells)) for cells in zip(heads, *body, strict=True)]
    rule = "─" if (sys.stdout.encoding or "utf-8").lower().startswith("utf") else "-"
    lines = [title, ""] if title else [""]
    for row in [heads, None, *body]:
        cells = []
        for name, width, text in zip(columns, widths, row or [rule * width for width in widths], strict=True):
            space = " " * (width - _width(text))
            cells.append(space + text if name.endswith("#") else text + space)
        lines.append(f" {(rule * 2 if row is None else '  ').join(cells)}".rstrip())
    return "\n".join([*lines, "", ""])


def _on_one_line(text: str) -> str:
    return visible(text if text.isprintable() else " ".join(text.split()))


def _width(text: str) -> int:
    """How many columns a text takes: wide characters, as of Chinese, take two."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(c) in "WF") for c in text)


def size(num_bytes: float | None) -> str:
    """A number of bytes, such as "2.6 GB"."""
    if num_bytes is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def count(number: float | None) -> str:
    """A large number, such as "1.3 B" parameters."""
    if number is None:
        return DASH
    for unit in ("", " k", " M"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} B"


def duration(seconds: float | None) -> str:
    """A time span, such as "1 h 02 min"."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def moment(at: float) -> str:
    """A point in time, in local time; a store may say what is none."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return "no time"


def network(names: Sequence[str]) -> str:
    """A network as it is read."""
    return " → ".join(names)
