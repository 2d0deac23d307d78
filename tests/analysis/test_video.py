"""The mosaic: which picture is where and when, and a video that a real ffmpeg made and reads again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panic.analysis import video
from panic.analysis.video import GAP, Reel, Tiles, VideoError, frames, reels_of, write_video
from panic.errors import NotFound, UsageError
from panic.store import contents
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


def reel(digests: str, loop_from: int | None = None) -> Reel:
    return Reel(run=None, digests=[*digests], loop_from=loop_from)  # type: ignore[arg-type]


def test_a_cycle_without_pictures_does_not_move():
    """A run that got stuck after its last picture keeps it, as one that has ended otherwise."""
    assert [reel("ab", 2).at(turn) for turn in range(4)] == [
        ("a", True), ("b", True), ("b", False), ("b", False)
    ]  # fmt: skip
    assert [reel("abc", 1).at(turn)[0] for turn in range(7)] == [*"abcbcbc"]
    assert reel("abc", 1).at(6) == ("c", True)
    assert [reel("abc", 0).at(turn)[0] for turn in range(3, 7)] == [*"abca"]


def test_pictures_lie_in_the_middle_of_their_tiles(bench, monkeypatch):
    wide = Image.new("RGB", (8, 4), (250, 0, 0))
    monkeypatch.setattr(contents, "image", lambda store, digest: wide.transpose(int(digest)))
    for turn, lies in ((0, False), (2, True)):  # flipped; turned by 90 degrees
        found = np.asarray(Tiles(store=bench.store, size=16).get(str(turn), True))
        found = found.swapaxes(0, 1) if lies else found
        rows = (found[:, :, 0] > 200).all(axis=1)
        assert rows.tolist() == [False] * 4 + [True] * 8 + [False] * 4
    assert np.asarray(Tiles(store=bench.store, size=16).get("0", False))[:, :, 0].max() == pytest.approx(
        87, abs=1
    )


@pytest.mark.parametrize(("size", "colours"), [(6, 2), (4, 3)])
def test_small_pictures_are_enlarged_in_squares_and_others_smoothly(bench, monkeypatch, size, colours):
    """More than twice as large a pixel stays a square of one colour."""
    two = Image.fromarray(np.array([[[0] * 3, [200] * 3]] * 2, np.uint8))
    monkeypatch.setattr(contents, "image", lambda store, digest: two)
    found = np.asarray(Tiles(store=bench.store, size=size).get("x", True))
    assert (len(np.unique(found)) == 2) == (colours == 2)


def test_the_tiles_that_were_asked_for_last_are_kept(bench, monkeypatch):
    made = []
    monkeypatch.setattr(video, "MAX_TILES_KEPT", 2)
    tiles = Tiles(store=bench.store, size=4)
    monkeypatch.setattr(Tiles, "_made", lambda self, digest, is_live: made.append(digest) or digest)
    for digest in "abacacb":
        assert tiles.get(digest, True) == digest
    assert made == [*"abcb"]
    assert [key for key, _ in tiles.kept] == [*"cb"]


RECORDS = """for last; do :; done
echo "$@" > "$(dirname "$0")/asked"
cat > "$last"
"""


@pytest.mark.parametrize(("suffix", "format"), [(".webm", True), (".GIF", False)])
def test_ffmpeg_is_given_the_frames_in_order(two, tmp_path, monkeypatch, suffix, format):
    """A program in its place that keeps what it is told: two tiles of 6 pixels, five frames."""
    fake(tmp_path / "bin", RECORDS)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    path = tmp_path / f"demo{suffix}"
    assert write_video(two.store, "demo", path, fps=12.5, size=6) == (2, 5)
    width, height = 2 * (6 + GAP) + GAP, 6 + 2 * GAP
    asked = (tmp_path / "bin" / "asked").read_text()
    assert f"-pix_fmt rgb24 -s {width}x{height} -r 12.5 -i -" in asked
    assert ("-pix_fmt yuv420p" in asked) == format
    seen = np.frombuffer(path.read_bytes(), np.uint8).reshape(5, height, width, 3)
    assert [tile(frame, 0, 6)[0, 0].tolist() for frame in seen] == [
        list(picture(i).getpixel((0, 0))) for i in (0, 1, 2, 1, 2)
    ]
    assert write_video(two.store, "demo", path, max_runs=1, size=1) == (1, 3)
    assert path.stat().st_size == 3 * 3 * (2 + 2 * GAP) ** 2  # no tile is less than 2 pixels
    monkeypatch.setattr(video, "MAX_SIDE", 40)
    for size in (17, 18, 19):  # two of them and what is between come to no more
        write_video(two.store, "demo", path, size=size)
        side = min(size, 18)
        columns, row = (n * (side + GAP) + GAP for n in (2, 1))
        assert path.stat().st_size == 5 * 3 * (columns + columns % 2) * (row + row % 2)


def test_a_failing_ffmpeg_that_says_nothing_is_told_too(two, tmp_path, monkeypatch):
    fake(tmp_path / "bin", "exit 3")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(VideoError, match=r"exit 3.: it did not say why"):
        write_video(two.store, "demo", tmp_path / "demo.mp4")


def test_pictures_of_a_network_without_any_are_none(bench):
    bench.add("one", ["a"], network=("tell",))
    bench.add("two", ["a"])
    assert [reel.run.prompt for reel in reels_of(bench.store, bench.experiment)] == ["two"]


def test_2048_tiles_are_kept_and_the_ground_is_nearly_black(bench, monkeypatch):
    tiles = Tiles(store=bench.store, size=4)
    lost = tiles.get("00", True)
    assert lost.getcolors() == [(16, (16, 18, 20))]
    bench.add("one", ["a"])
    assert mosaic(bench)[0][0, 0].tolist() == [16, 18, 20]
    monkeypatch.setattr(Tiles, "_made", lambda self, digest, is_live: digest)
    for number in range(2048):
        tiles.get(f"{number}", True)
        assert len(tiles.kept) == min(number + 2, 2048)
    assert [key for key, _ in tiles.kept][:2] == ["0", "1"], "what was asked for longest ago went"


def test_a_video_has_8_frames_a_second_of_400_runs_at_most_in_tiles_of_128_pixels(
    bench, tmp_path, monkeypatch
):
    fake(tmp_path / "bin", RECORDS)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    bench.add("one", ["a"])
    assert write_video(bench.store, "demo", tmp_path / "one.webm") == (1, 1)
    side = 128 + 2 * GAP
    assert f"-s {side}x{side} -r 8 -i -" in (tmp_path / "bin" / "asked").read_text()
    for number in range(400):
        bench.add(f"start {number}", ["a"])
    assert write_video(bench.store, "demo", tmp_path / "all.webm", size=2) == (400, 1)
