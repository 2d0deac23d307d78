"""Thumbnails with labels and captions in one image.

draw_grid([Cell(image=image, label="step 0")]).save("grid.png")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

MARGIN = 6
FONT_SIZE = 12
LINE_HEIGHT = 15
CAPTION_LINES = 4
PAPER, INK, FADED = (255, 255, 255), (20, 20, 20), (110, 110, 110)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A image, its label and, if not empty, a caption."""

    image: Image.Image
    label: str
    caption: str = ""


def draw_grid(cells: Sequence[Cell], *, thumbnail: int = 128, columns: int | None = None) -> Image.Image:
    """Draw cells row by row, `thumbnail` pixels wide and high, in a grid about as wide as high."""
    columns = min(len(cells), columns or math.ceil(math.sqrt(len(cells))))
    rows = math.ceil(len(cells) / columns)
    font = ImageFont.load_default(FONT_SIZE)
    texts = [[cell.label, *wrap(cell.caption, thumbnail, font)] for cell in cells]
    width, height = thumbnail + MARGIN, thumbnail + max(map(len, texts)) * LINE_HEIGHT + MARGIN
    grid = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    draw = ImageDraw.Draw(grid)
    for number, (cell, lines) in enumerate(zip(cells, texts, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * width, MARGIN + row * height
        image = fit(cell.image, thumbnail)
        grid.paste(image, (x + (thumbnail - image.width) // 2, y + (thumbnail - image.height) // 2))
        for index, line in enumerate(lines):
            at = (x, y + thumbnail + index * LINE_HEIGHT)
            draw.text(at, line, fill=FADED if index == 0 else INK, font=font)
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
