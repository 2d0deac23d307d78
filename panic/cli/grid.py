"""Thumbnails with labels and captions in one image: one after another, or in rows under headings.

draw_grid([Cell(image=image, label="step 0")]).save("grid.png")
draw_rows([Row(label="run 1", cells=[cell, None])], ["step 0", "step 2"], num_rows=1).save("rows.png")
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from panic.errors import UsageError

MARGIN = 6
FONT_SIZE = 12
LINE_HEIGHT = 15
CAPTION_LINES = 4
LABEL_WIDTH = 160
MAX_PIXELS = 100_000_000
"""Of an image that is drawn: three bytes each."""
PAPER, INK, FADED, AGAIN = (255, 255, 255), (20, 20, 20), (110, 110, 110), (138, 75, 116)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An image, its label and, if not empty, a caption. is_again: it is framed, for it was there before."""

    image: Image.Image
    label: str = ""
    caption: str = ""
    is_again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Cells side by side, None for an empty one, and what stands left of them."""

    label: str
    cells: Sequence[Cell | None]


def refuse_size(rows: int, columns: int, thumbnail: int, *, has_captions: bool) -> None:
    """Raise UsageError, with the arithmetic, for more thumbnails than one image may hold."""
    width, height = thumbnail + MARGIN, _height(thumbnail, has_captions)
    if (pixels := rows * columns * width * height) > MAX_PIXELS:
        raise UsageError(
            f"{rows:,} rows x {columns:,} columns of {width:,} x {height:,} pixels are {pixels / 1e6:,.0f}"
            f" million pixels; at most {MAX_PIXELS // 10**6} million can be drawn.",
            hint="Smaller thumbnails (--size), fewer of them (--most), fewer steps (--steps, --every).",
        )


def _height(thumbnail: int, has_captions: bool) -> int:
    """The height of a cell with its label and, if there are any, captions."""
    return thumbnail + (1 + (CAPTION_LINES if has_captions else 0)) * LINE_HEIGHT + MARGIN


def draw_rows(
    rows: Iterable[Row],
    headings: Sequence[str],
    *,
    num_rows: int,
    thumbnail: int = 128,
    captions: bool = False,
) -> Image.Image:
    """Draw rows of cells below headings; one after another, so that no more than one is in memory besides."""
    font = ImageFont.load_default(FONT_SIZE)
    width, height = thumbnail + MARGIN, _height(thumbnail, captions)
    left, top = LABEL_WIDTH + 2 * MARGIN, LINE_HEIGHT + MARGIN
    sheet = Image.new("RGB", (left + len(headings) * width, top + num_rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        draw.text((left + column * width, MARGIN // 2), heading, fill=FADED, font=font)
    for number, row in enumerate(rows):
        y = top + number * height
        for index, line in enumerate(wrap(row.label, LABEL_WIDTH, font)[: max(1, height // LINE_HEIGHT)]):
            draw.text((MARGIN, y + index * LINE_HEIGHT), line, fill=INK, font=font)
        for column, cell in enumerate(row.cells):
            if cell is not None:
                _draw_cell(sheet, cell, (left + column * width, y), thumbnail)
    return sheet


def _draw_cell(sheet: Image.Image, cell: Cell, at: tuple[int, int], thumbnail: int) -> None:
    """Draw an image into its square, framed if it was there before, with label and caption below."""
    (x, y), draw, font = at, ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    image = fit(cell.image, thumbnail)
    sheet.paste(image, (x + (thumbnail - image.width) // 2, y + (thumbnail - image.height) // 2))
    if cell.is_again:
        draw.rectangle((x, y, x + thumbnail - 1, y + thumbnail - 1), outline=AGAIN, width=2)
    lines = [*([cell.label] if cell.label else []), *wrap(cell.caption, thumbnail, font)]
    for index, line in enumerate(lines):
        is_label = bool(cell.label) and index == 0
        draw.text((x, y + thumbnail + index * LINE_HEIGHT), line, fill=FADED if is_label else INK, font=font)


def draw_grid(cells: Sequence[Cell], *, thumbnail: int = 128, columns: int | None = None) -> Image.Image:
    """Draw cells row by row, `thumbnail` pixels wide and high, in a grid about as wide as high."""
    columns = min(len(cells), columns or math.ceil(math.sqrt(len(cells))))
    rows = math.ceil(len(cells) / columns)
    font = ImageFont.load_default(FONT_SIZE)
    lines = max(len(wrap(cell.caption, thumbnail, font)) for cell in cells) + 1
    width, height = thumbnail + MARGIN, thumbnail + lines * LINE_HEIGHT + MARGIN
    grid = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        _draw_cell(grid, cell, (MARGIN + column * width, MARGIN + row * height), thumbnail)
    return grid


def fit(image: Image.Image, edge: int) -> Image.Image:
    """Scale to fit a square; small images by whole pixels, so that they stay sharp."""
    scale = edge / max(image.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)


def wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break a text into at most CAPTION_LINES lines of `width` pixels; the last one ends in "..." if cut."""
    lines: list[str] = []
    words = text.split()
    while words:
        line, words = _take_line(words, width, font)
        lines.append(line)
    if len(lines) > CAPTION_LINES:
        last = lines[CAPTION_LINES - 1]
        while last and font.getlength(last + "...") > width:
            last = last[:-1]
        lines = [*lines[: CAPTION_LINES - 1], last + "..."]
    return lines


def _take_line(
    words: list[str], width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> tuple[str, list[str]]:
    """The words that fit on a line, at least one character of them, and the rest."""
    line = words[0]
    if font.getlength(line) > width:
        length = next((n for n in range(len(line), 1, -1) if font.getlength(line[:n]) <= width), 1)
        return line[:length], [line[length:], *words[1:]]
    used = 1
    while used < len(words) and font.getlength(f"{line} {words[used]}") <= width:
        line, used = f"{line} {words[used]}", used + 1
    return line, words[used:]
