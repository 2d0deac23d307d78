"""`panic pin` and `panic run --shard`: what they say, and with which code they end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import write_config
from tests.engine.conftest import dump

Panic = Callable[..., Result]


def test_shards_with_pins_are_the_whole(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path, max_length=4, batch_sizes={})
    done = panic("pin", config, "-o", "pins.json")
    assert done.exit_code == 0, done.output
    assert "Pins: pins.json" in done.stdout
    for number in (1, 2):
        arguments = ("--shard", f"{number}/2", "--pins", "pins.json", "--store", f"part-{number}")
        done = panic("run", config, *arguments)
        assert done.exit_code == 0, done.output
        assert f"shard {number}/2 has " in done.stderr
    assert panic("merge", "part-1", "part-2", "--into", "merged").exit_code == 0
    assert panic("run", config, "--store", "whole").exit_code == 0
    assert dump(Path("merged")) == dump(Path("whole"))


def test_a_shard_without_pins_is_refused_with_the_command_that_helps(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path, batch_sizes={})
    done = panic("run", config, "--shard", "1/2", "--store", "part")
    assert done.exit_code == 2
    assert f"panic pin {config} -o pins.json" in done.stderr
    assert not Path("part").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard", "3/2"], "a shard is N/COUNT"),
        (["--shard", "auto"], "SLURM_ARRAY_TASK_ID is not set"),
        (["--pins", "nowhere.json"], "nowhere.json cannot be read"),
        (["--pins", "broken.json"], "broken.json is no file of pins"),
        (["--shard", "1/2", "--repin"], "without --repin"),
    ],
)
def test_what_cannot_be(tmp_path: Path, panic: Panic, arguments: list[str], said: str) -> None:
    config = write_config(tmp_path)
    Path("broken.json").write_text(json.dumps({"models": "\x1b[2J"}))
    done = panic("run", config, *arguments, "--store", "part")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "\x1b" not in done.stderr
    assert not Path("part").exists()


def test_refused_pins_leave_no_store(tmp_path: Path, panic: Panic) -> None:
    """They left an empty one, with a lock and a log."""
    config = write_config(tmp_path)
    assert panic("pin", config, "-o", "pins.json").exit_code == 0
    done = panic("run", config, "--name", "other", "--pins", "pins.json", "--store", "new/part")
    assert done.exit_code != 0
    assert "the experiment is other" in done.stderr
    assert not Path("new").exists()
    assert panic("run", config, "--pins", "pins.json", "--store", "new/part").exit_code == 0
    before = dump(Path("new/part"))
    assert (
        panic("run", config, "--name", "other", "--pins", "pins.json", "--store", "new/part").exit_code != 0
    )
    assert dump(Path("new/part")) == before


def test_pins_take_the_place_of_pins_alone(tmp_path: Path, panic: Panic) -> None:
    """`panic pin demo.yaml -o demo.yaml` wrote over the config; as root, `-o /dev/full` over the device."""
    config = write_config(tmp_path)
    before = Path(config).read_text()
    os.mkfifo("pipe")
    for output in (config, "pipe"):
        done = panic("pin", config, "-o", output)
        assert done.exit_code == 2
        assert "is there already, and is no file of pins." in done.stderr
    assert Path(config).read_text() == before
    assert Path("pipe").is_fifo()
    for _ in range(2):
        assert panic("pin", config, "-o", "pins.json").exit_code == 0


def test_what_has_no_end_is_no_file_of_pins(tmp_path: Path, panic: Panic) -> None:
    """/dev/zero says that it has no bytes, and was read until memory was full; a pipe was waited for."""
    config = write_config(tmp_path)
    os.mkfifo("pipe")
    done = panic("run", config, "--pins", "pipe", "--store", "part")
    assert done.exit_code == 2
    assert "pipe is no file of pins: it is no file at all." in done.stderr
    assert not Path("part").exists()


def test_pins_go_into_a_folder_that_is_there(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path)
    for output in (".", "no/where.json"):
        done = panic("pin", config, "-o", output)
        assert done.exit_code == 2
        assert "-o pins.json" in done.stderr
