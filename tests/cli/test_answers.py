"""What commands answer where once an exception spoke, or nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .conftest import Invoke, write_config


def test_a_dry_run_shows_the_prompts_as_they_were_read(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts="[a circle, red, a # b\n  ]")
    done = panic("run", config, "--dry-run")
    assert done.exit_code == 0, done.output
    lines = [line.strip() for line in done.stdout.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("prompts:"))
    assert lines[start : start + 3] == ["prompts:     a circle", "red", "a"]


def test_of_many_prompts_a_dry_run_shows_the_first(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts=[f"state {number}" for number in range(25)])
    assert "and 15 more" in panic("run", config, "--dry-run").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_report_into_a_read_only_mount_names_the_file_that_was_asked_for(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mount"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    try:
        done = panic("report", "demo", "-o", place / "report.html")
    finally:
        subprocess.run(["umount", place], check=True)
    assert done.exit_code == 1
    assert f"{place / 'report.html'}: Read-only file system" in done.stderr


def test_a_variant_that_nothing_uses_is_named_once(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert "uses" not in panic("run", config, "--dry-run").stderr
    more = ["--set", "models.other={base: chain, states: 5}", "--set", "models.third={base: other}"]
    done = panic("run", config, "--dry-run", *more)
    assert done.stderr.count("no network and no embedding uses other, third of `models`.") == 1
