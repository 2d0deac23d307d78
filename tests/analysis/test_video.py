"""The mosaic: which picture is where and when, and a video that a real ffmpeg made and reads again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from panic.analysis.video import GAP, Tiles, VideoError, frames, reels_of, write_video
from panic.errors import NotFound, UsageError
from tests.analysis.conftest import Bench, picture

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@pytest.fixture
def two(bench: Bench) -> Bench:
    """A run that is stuck from its second picture on (period 4 steps), and one that ends after three."""
    stuck = bench.add("one", ["a", "b", "c"])
    bench.stuck(stuck, 2, 4)
    bench.add("two", ["a", "b", "c", "d", "e"], seed=-1)
    return bench


def mosaic(bench: Bench, size: int = 16) -> list[np.ndarray]:
    reels = list(reels_of(bench.store, bench.experiment))
    return [np.asarray(f) for f in frames(reels, Tiles(store=bench.store, size=size), 2, 5)]


def tile(frame: np.ndarray, column: int, size: int = 16) -> np.ndarray:
    left = GAP + column * (size + GAP)
    return frame[GAP : GAP + size, left : left + size]


def test_a_stuck_run_goes_on_in_its_cycle(two):
    seen = [tile(frame, 0)[0, 0].tolist() for frame in mosaic(two)]
    colours = [list(picture(i).getpixel((0, 0))) for i in (0, 1, 2, 1, 2)]
    assert seen == colours


def test_a_run_that_ended_keeps_its_last_picture_darkened(bench):
    bench.add("one", ["a"], seed=-1)
    bench.add("two", ["a", "b"], seed=-1)
    found = mosaic(bench)
    assert (tile(found[1], 0) < tile(found[0], 0).clip(1)).all()
    assert tile(found[1], 1)[0, 0].tolist() == list(picture(1).getpixel((0, 0)))


def test_sides_are_even_whatever_the_tiles(bench):
    bench.add("one", ["a"])
    assert all(side % 2 == 0 for side in mosaic(bench, size=15)[0].shape[:2])


def test_a_lost_picture_is_a_gap(two):
    two.store.images.connection.execute("DELETE FROM image")
    assert tile(mosaic(two)[0], 0).max() < 30


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_real_video_has_the_frames_of_the_runs(two, tmp_path, suffix):
    path = tmp_path / f"demo{suffix}"
    assert write_video(two.store, "demo", path, fps=5, size=32) == (2, 5)
    decoded = subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    width, height = 2 * (32 + GAP) + GAP, 32 + 2 * GAP
    seen = np.frombuffer(decoded, np.uint8).reshape(-1, height, width, 3).astype(int)
    assert len(seen) == 5
    for turn, number in enumerate((0, 1, 2, 1, 2)):
        middle = tile(seen[turn], 0, 32)[8:24, 8:24].mean(axis=(0, 1))
        assert np.abs(middle - picture(number).getpixel((0, 0))).max() < 12
    assert [p.name for p in tmp_path.glob("*demo*")] == [path.name]


def fake(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ffmpeg").chmod(0o755)


def test_a_failing_ffmpeg_is_told_and_leaves_nothing_behind(two, tmp_path, monkeypatch):
    fake(tmp_path / "bin", "echo no such codec >&2; exit 8")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(VideoError, match=r"exit 8.*no such codec"):
        write_video(two.store, "demo", tmp_path / "demo.mp4")
    assert list(tmp_path.glob("*demo*")) == []


def test_without_ffmpeg_it_says_what_to_install(two, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VideoError, match="ffmpeg is not installed") as error:
        write_video(two.store, "demo", tmp_path / "demo.mp4")
    assert "apt-get install ffmpeg" in error.value.hint


def test_other_endings_and_no_pictures_are_refused(bench, tmp_path):
    with pytest.raises(UsageError, match="no name for a video"):
        write_video(bench.store, "demo", tmp_path / "demo.avi")
    if shutil.which("ffmpeg"):
        with pytest.raises(NotFound, match="no pictures yet"):
            write_video(bench.store, "demo", tmp_path / "demo.mp4")
