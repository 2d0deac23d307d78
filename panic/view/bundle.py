"""One experiment as a folder that any web server shows, and that opens from a disk: pages, data, images.

Browsers load no JSON from `file://`, so that the data stand in scripts, each a call of a function of the page
(`static.js`).

    size(store, row); write(store, row, Path("demo-static"))
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from panic import __version__
from panic.cli import experiments as of_cli
from panic.errors import NotFound, StoreCorrupt, StoreError, UsageError
from panic.store import Store, contents, reading, wall
from panic.store.codec import is_image_prompt, told_json
from panic.store.provenance import short_paths
from panic.store.records import ExperimentRow, RunRow
from panic.view import records
from panic.view.script import STATIC, page_script

RUNS_IN_FILE = 100
MARK = "panic-static.json"
POLICY = "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:"
SIZE_OF_TEXT = 160
"""About what a step takes in the data beside its text, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a bundle is going to hold."""

    num_runs: int
    num_images: int
    num_bytes: int


def size(store: Store, row: ExperimentRow) -> Size:
    """How large the bundle of an experiment is going to be, roughly."""
    runs = reading.runs(store, row.id)
    num_images, image_bytes, text_bytes = wall.weight(store, row.id)
    steps = sum(run.num_steps for run in runs)
    return Size(
        num_runs=len(runs), num_images=num_images,
        num_bytes=image_bytes + 2 * text_bytes + SIZE_OF_TEXT * (steps + 4 * len(runs)) + 100_000,
    )  # fmt: skip


def write(store: Store, row: ExperimentRow, folder: Path, tell: Callable[[str, int, int], None]) -> int:
    """Write the bundle; one that was broken off is gone on with, of an image that is there already nothing.

    Returns how many images the store has lost, which are left out. `tell` is told how many runs of how many
    are written. Raises UsageError for a folder that holds other things, StoreError where nothing can be
    written.
    """
    lost: set[str] = set()
    try:
        _claim(folder, row)
        _write_pages(folder)
        runs = reading.runs(store, row.id)
        _script(folder / "data" / "experiment.js", "experiment", _about(store, row, runs))
        for number, part in enumerate(_parts(runs)):
            steps = {str(run.id): [_step(one) for one in contents.invocations(store, run.id)] for run in part}
            lost |= _write_images(store, folder, steps)
            _script(folder / "data" / f"steps-{number}.js", f"steps-{number}", steps)
            tell("runs", min((number + 1) * RUNS_IN_FILE, len(runs)), len(runs))
        for run in runs:
            if is_image_prompt(run.prompt):
                lost |= _write_image(store, folder, run.prompt[6:])
    except OSError as error:
        raise StoreError(f"{error.filename or folder} cannot be written: {error.strerror}.") from error
    return len(lost)


def _parts(runs: list[RunRow]) -> Iterator[list[RunRow]]:
    for start in range(0, len(runs), RUNS_IN_FILE):
        yield runs[start : start + RUNS_IN_FILE]


def _claim(folder: Path, row: ExperimentRow) -> None:
    """Make the folder, or know it by its mark as an earlier bundle of the same experiment."""
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a bundle is a folder.")
    if folder.exists() and any(folder.iterdir()):
        try:
            known = json.loads(mark.read_text())["experiment"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            known = None
        if known != row.uid:
            what = "another experiment's bundle" if known else "other things"
            raise UsageError(f"{folder} holds {what}.", hint="Choose an empty or a new folder.")
    for name in ("data", "images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"experiment": row.uid, "name": row.name}))


def _about(store: Store, row: ExperimentRow, runs: list[RunRow]) -> dict[str, Any]:
    """What the pages ask of the experiment, its runs in one list."""
    about = records.experiment(store, row) | {"sessions": [], "metrics": []}
    listed = of_cli.runs_as_dicts(store, row, runs)
    return {
        "version": __version__, "about": _without_paths(about), "runsInFile": RUNS_IN_FILE,
        "runs": [{**one, "prompt_length": len(one["prompt"]), "remarks": []} for one in listed],
    }  # fmt: skip


def _without_paths(value: Any) -> Any:
    """JSON values with paths cut to their last part: what is passed on tells of no disk."""
    if isinstance(value, str):
        return short_paths(value)
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items()}
    return [_without_paths(one) for one in value] if isinstance(value, list) else value


def _step(step: Any) -> dict[str, Any]:
    return of_cli.step_as_dict(step) | {"text_length": len(step.text or "")}


def _script(path: Path, name: str, value: Any) -> None:
    """Data as a classic script; nothing in a text ends it, since it is JSON in a file of its own."""
    text = told_json(value, ensure_ascii=True, separators=(",", ":"))
    _whole(path, f"panicData({json.dumps(name)},{text});\n".encode())


def _write_images(store: Store, folder: Path, steps: dict[str, list[dict[str, Any]]]) -> set[str]:
    digests = {one["output"] for some in steps.values() for one in some if one["modality"] == "image"}
    return set().union(*(_write_image(store, folder, digest) for digest in digests))


def _write_image(store: Store, folder: Path, digest: str) -> set[str]:
    """Write an image that is not there yet; its digest if the store has lost it."""
    path = folder / "images" / f"{digest}.webp"
    if not path.exists():
        try:
            data = contents.image_bytes(store, digest)
        except (NotFound, StoreCorrupt):
            return {digest}
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            _whole(path, data)
    return set()


def _whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_pages(folder: Path) -> None:
    package = files(__package__).joinpath("pages")
    pages = {one.name: one.read_text() for one in package.iterdir() if one.is_file()}
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    html = pages["index.html"].replace("<script", f'<script src="{STATIC}" defer></script>\n<script')
    html = html.replace("<meta charset", f"{policy}\n<meta charset").replace("/static/", "")
    _whole(folder / "index.html", html.encode())
    _whole(folder / "page.js", page_script().encode())
    for name in (STATIC, "view.css", "icon.svg", "LICENSES.txt"):
        _whole(folder / name, pages[name].encode())
