"""What a run looked and read like, as tiles: small pictures as data URIs, captions under them.

A tile is a picture with the text that was made from it, or a text alone. Long runs show their first and
last pictures; every picture costs bytes of the page, and beyond the budget the tiles say so.

    thumbnails = Thumbnails(store, budget_bytes=12 * 2**20)
    strip(store, run, thumbnails, max_tiles=24)
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace

from PIL import Image

from panic.errors import NotFound, StoreCorrupt
from panic.store import Store, contents
from panic.store.codec import is_image_prompt, prompt_digest
from panic.store.records import RunRow

SIDE = 128
"""Longest side of a thumbnail in pixels."""
TEXT_LIMIT = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One place in a strip. `step` is None for the prompt; `gap` counts tiles left out before this one."""

    step: int | None
    model: str = ""
    digest: str = ""
    text: str = ""
    image: str = ""
    is_small: bool = False
    gap: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A run and its tiles, the prompt first."""

    run: RunRow
    tiles: list[Tile]
    num_left_out: int


class Thumbnails:
    """Makes data URIs of pictures, each once, until `budget_bytes` are spent; counts what is left out."""

    def __init__(self, store: Store, budget_bytes: int, side: int = SIDE) -> None:
        self.store = store
        self.remaining_bytes = budget_bytes
        self.side = side
        self.num_left_out = 0
        self.num_missing = 0
        self._made: dict[str, tuple[str, bool]] = {}

    def get(self, digest: str) -> tuple[str, bool]:
        """Data URI, and whether the picture is so small that its pixels should show; "" beyond the budget."""
        if digest not in self._made:
            try:
                self._made[digest] = thumbnail(contents.image(self.store, digest), self.side)
            except (NotFound, StoreCorrupt, OSError, EOFError):  # lost, or its bytes are no picture
                self.num_missing += 1
                self._made[digest] = "", False
        uri, is_small = self._made[digest]
        if len(uri) > self.remaining_bytes:
            self.num_left_out += 1
            return "", False
        self.remaining_bytes -= len(uri)
        return uri, is_small


def thumbnail(image: Image.Image, side: int = SIDE) -> tuple[str, bool]:
    """Data URI of a WebP picture of at most `side` pixels; pictures up to half of that stay exact."""
    is_small = max(image.size) <= side // 2
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    small.save(file, "WEBP", lossless=is_small, quality=75, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii"), is_small


def strip(store: Store, run: RunRow, thumbnails: Thumbnails, max_tiles: int = 24) -> Strip:
    """The run's prompt and its first and last tiles."""
    tiles = _tiles(store, run)
    gap = len(tiles) - max_tiles
    if gap > 0:
        head, tail = tiles[: max_tiles - max_tiles // 2], tiles[-(max_tiles // 2) :]
        tiles = [*head, replace(tail[0], gap=gap), *tail[1:]]
    shown = [_with_picture(tile, thumbnails) for tile in tiles]
    prompt = Tile(step=None, text=run.prompt[:TEXT_LIMIT])
    if is_image_prompt(run.prompt):
        prompt = _with_picture(Tile(step=None, digest=prompt_digest(run.prompt).hex()), thumbnails)
    return Strip(run=run, tiles=[prompt, *shown], num_left_out=max(gap, 0))


def _tiles(store: Store, run: RunRow) -> list[Tile]:
    """All steps of a run; a text goes under the picture that it was made from."""
    tiles: list[Tile] = []
    for row in contents.invocations(store, run.id):
        if row.modality == "image":
            tiles.append(Tile(step=row.step, model=row.model, digest=row.output))
            continue
        text = (row.text or "")[:TEXT_LIMIT]
        if tiles and tiles[-1].digest and not tiles[-1].text:
            tiles[-1] = replace(tiles[-1], text=text)
        else:
            tiles.append(Tile(step=row.step, model=row.model, text=text))
    return tiles


def _with_picture(tile: Tile, thumbnails: Thumbnails) -> Tile:
    if not tile.digest:
        return tile
    uri, is_small = thumbnails.get(tile.digest)
    return replace(tile, image=uri, is_small=is_small)
