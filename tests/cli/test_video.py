"""`panic video`: a file where it was asked for, and a clear message without ffmpeg."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import Invoke


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
