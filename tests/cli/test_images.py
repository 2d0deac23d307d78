"""`panic images`: the right pictures in the right places."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from panic.analysis.whereabouts import stored_step
from panic.cli.grid import (
    AGAIN,
    CAPTION_LINES,
    FONT_SIZE,
    LABEL_WIDTH,
    LINE_HEIGHT,
    MARGIN,
    PAPER,
    Cell,
    draw_grid,
    wrap,
)
from panic.store import Store, contents, reading
from panic.store.records import RunRow

from .conftest import Invoke, write_config

EDGE = 32  # the size of the synthetic pictures, so that thumbnails are the pictures themselves


def runs(store: Path, state: str) -> list[RunRow]:
    with Store(store) as opened:
        return [run for run in reading.runs(opened, "demo") if run.state == state]


def thumbnails(file: Path, number: int) -> list[bytes]:
    """The pixels of the first thumbnails in a row."""
    with Image.open(file) as grid:
        assert grid.format == "PNG"
        left = [MARGIN + index * (EDGE + MARGIN) for index in range(number)]
        return [grid.crop((x, MARGIN, x + EDGE, MARGIN + EDGE)).tobytes() for x in left]


def pictures(store: Path, run: int, steps: list[int]) -> list[bytes]:
    with Store(store) as opened:
        found = {step.step: step.output for step in contents.invocations(opened, run)}
        return [contents.image(opened, found[step]).tobytes() for step in steps]


def test_a_run_along_its_steps(panic: Invoke, store: Path) -> None:
    run = runs(store, "done")[0]
    done = panic("images", "demo", "--run", run.id, "--size", EDGE, "--columns", 4)
    assert (done.exit_code, done.stdout) == (0, f"4 pictures in demo-run{run.id}.png\n")
    seen = thumbnails(Path(f"demo-run{run.id}.png"), 4)
    assert seen == pictures(store, run.id, [0, 2, 4, 6])
    done = panic("images", "demo", "--run", run.id, "--size", EDGE, "--every", 2, "-o", "half.png")
    assert thumbnails(Path("half.png"), 2) == [seen[0], seen[2]]


def test_one_step_over_all_runs_goes_on_in_the_cycle_of_a_stuck_run(panic: Invoke, store: Path) -> None:
    stuck = runs(store, "stuck")[0]
    done = panic("images", "demo", "--step", 100, "--size", EDGE, "--output", "step.png")
    assert done.exit_code == 0, done.output
    [seen] = thumbnails(Path("step.png"), 1)
    assert stuck.entry_step is not None
    assert stuck.period is not None
    at = stuck.entry_step + (100 - stuck.entry_step) % stuck.period
    assert [seen] == pictures(store, stuck.id, [at])
    done = panic("images", "demo", "--step", 2, "--size", EDGE, "--output", "step2.png")
    assert "6 pictures" in done.stdout


def test_runs_by_steps(panic: Invoke, store: Path) -> None:
    done = panic("images", "demo", "--grid", "--size", EDGE, "--captions")
    assert (done.exit_code, done.stdout) == (0, "6 runs x 4 steps in demo-grid.png\n")
    done = panic("images", "demo", "--grid", "--size", EDGE, "--steps", "0,6,100", "-o", "chosen.png")
    assert done.exit_code == 0, done.output
    height = EDGE + LINE_HEIGHT + MARGIN
    with Store(store) as opened, Image.open("chosen.png") as grid:
        assert grid.size == (
            LABEL_WIDTH + 2 * MARGIN + 3 * (EDGE + MARGIN),
            LINE_HEIGHT + MARGIN + 6 * height,
        )
        for place, run in enumerate(reading.runs(opened, "demo")):
            y = LINE_HEIGHT + MARGIN + place * height
            for column, step in enumerate((0, 6, 100)):
                x = LABEL_WIDTH + 2 * MARGIN + column * (EDGE + MARGIN)
                seen = grid.crop((x, y, x + EDGE, y + EDGE))
                at = stored_step(run, step)
                if at is None:
                    assert seen.getcolors() == [(EDGE * EDGE, PAPER)]
                    continue
                assert (seen.getpixel((0, 0)) == AGAIN) == (at != step)
                inner = (2, 2, EDGE - 2, EDGE - 2)
                [there] = [s for s in contents.invocations(opened, run.id) if s.step == at]
                drawn = contents.image(opened, there.output).crop(inner)
                assert seen.crop(inner).tobytes() == drawn.tobytes()


def test_every_n_th_of_steps_that_are_named_is_said_to_have_no_effect(panic: Invoke, store: Path) -> None:
    done = panic("images", "demo", "--grid", "--steps", "0,6", "--every", 2, "-o", "chosen.png")
    assert done.exit_code == 0
    assert "--every: without effect with --steps." in done.stderr


def test_a_large_grid_shows_some_runs(panic: Invoke, store: Path) -> None:
    done = panic("images", "demo", "--grid", "--every", 2, "--most", 6)
    assert (done.exit_code, done.stdout) == (0, "3 runs x 2 steps in demo-grid.png\n")


def test_captions_are_drawn_below(panic: Invoke, store: Path) -> None:
    run = runs(store, "done")[0]
    for name, more in (("plain.png", []), ("captions.png", ["--captions"])):
        assert panic("images", "demo", "--run", run.id, "-o", name, *more).exit_code == 0
    with Image.open("plain.png") as plain, Image.open("captions.png") as captions:
        assert captions.height > plain.height
        below = np.asarray(captions)[plain.height // 2 :]
        assert (below == (20, 20, 20)).all(axis=-1).any()


def test_nothing_is_overwritten_without_force(panic: Invoke, store: Path) -> None:
    Path("mine.png").write_text("mine")
    done = panic("images", "demo", "--run", 1, "-o", "mine.png")
    assert done.exit_code == 2
    assert "mine.png is there already" in done.stderr
    assert Path("mine.png").read_text() == "mine"
    assert panic("images", "demo", "--run", 1, "-o", "mine.png", "--force").exit_code == 0
    Image.open("mine.png").verify()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "either --run or --step or --grid"),
        (["--run", "1", "--step", "1"], 2, "either --run or --step or --grid"),
        (["--run", "1", "--grid"], 2, "either --run or --step or --grid"),
        (["--grid", "--steps", "0,x"], 2, "whole numbers with commas"),
        (["--grid", "--steps", "0,7"], 2, "nearest step with pictures is 6"),
        (
            ["--grid", "--size", "2048", "--most", "40"],
            2,
            "6 rows x 4 columns of 2,054 x 2,069 pixels are 102",
        ),
        (["--run", "77"], 2, "has no run 77"),
        (["--step", "7"], 2, "nearest step with pictures is 6"),
        (["--run", "1", "-o", "grid.gif"], 2, "no name for a PNG"),
        (["--run", "1", "-o", "panic-store/lock/grid.png"], 2, "panic-store/lock"),
        (["--run", "1", "-o", "folder.png"], 2, "folder.png is a folder"),
        (["--step", "-1"], 2, "greater than or equal to 0"),
    ],
)
def test_mistakes(panic: Invoke, store: Path, arguments: list[str], code: int, says: str) -> None:
    Path("folder.png").mkdir()
    done = panic("images", "demo", *arguments)
    assert done.exit_code == code
    assert says in done.stderr
    assert "traceback" not in done.output.lower()
    assert list(Path().glob("*.png")) == [Path("folder.png")]


def test_a_run_without_pictures_is_told(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "walk.yaml").write_text(
        "name: walk\nnetworks: [[synthetic/random-walk]]\nprompts: [a]\nseeds: [-1]\nmax_length: 2\n"
        "device: cpu\n"
    )
    assert panic("run", "walk.yaml").exit_code == 0
    done = panic("images", "--run", 1)
    assert done.exit_code == 2
    assert "has no pictures" in done.stderr
    assert panic("images", "--step", 0).exit_code == 2
    assert panic("run", write_config(tmp_path)).exit_code == 0


def test_pictures_of_any_shape_fit_and_long_captions_are_cut() -> None:
    wide, tiny = Image.new("RGB", (300, 20), "red"), Image.new("RGB", (1, 1), "blue")
    caption = "a very long caption " * 20 + "x" * 200
    grid = draw_grid(
        [Cell(image=wide, label="a", caption=caption), Cell(image=tiny, label="b")], thumbnail=64, columns=2
    )
    pixels = np.asarray(grid)
    assert (pixels == (255, 0, 0)).all(axis=-1).any(axis=0).sum() == 64
    assert (pixels == (0, 0, 255)).all(axis=-1).sum() == 64 * 64
    font = ImageFont.load_default(FONT_SIZE)
    lines = wrap(caption, 64, font)
    assert len(lines) == CAPTION_LINES
    assert lines[-1].endswith("...")
    assert max(font.getlength(line) for line in lines) <= 64
    assert wrap("short", 64, font) == ["short"]
    assert "".join(wrap("y" * 12, 64, font)) == "y" * 12


@pytest.mark.parametrize("change", ["UPDATE image SET bytes = X'78'", "DELETE FROM image"])
def test_pictures_that_are_lost_are_told_with_the_remedy(panic: Invoke, store: Path, change: str) -> None:
    run = runs(store, "done")[0]
    with sqlite3.connect(store / "images.sqlite") as connection:
        connection.execute(change)
    done = panic("images", "demo", "--run", run.id)
    assert done.exit_code == 1
    assert "Image " in done.stderr
    assert "panic resume EXPERIMENT --repair computes it again" in done.stderr
    assert "Traceback" not in done.output
    assert not Path(f"demo-run{run.id}.png").exists()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_video_of_all_runs(panic: Invoke, store: Path) -> None:
    done = panic("video", "demo", "--fps", 4, "--size", 16, "--output", "mosaic.mp4")
    assert done.exit_code == 0, done.output
    assert "6 runs, 4 pictures each, 1.0 s: mosaic.mp4" in done.stdout
    assert Path("mosaic.mp4").stat().st_size > 500
    again = panic("video", "demo", "--output", "mosaic.mp4")
    assert (again.exit_code, "--force overwrites it" in again.stderr) == (2, True)


def test_without_ffmpeg_the_exit_code_is_1_and_the_message_names_the_remedy(
    panic: Invoke, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = panic("video", "demo")
    assert done.exit_code == 1
    assert "ffmpeg is not installed" in done.stderr
    assert "apt-get install ffmpeg" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path().glob("*.mp4"))
