"""`panic snapshot`, `panic merge` and `panic run --from`: what they say, and with which code they end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import write_config
from tests.engine.conftest import dump

Panic = Callable[..., Result]


def test_a_snapshot_is_taken_and_gone_on_from(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path, max_length=4)
    assert panic("run", config, "--store", "one").exit_code == 0
    done = panic("snapshot", "one", "shared/copy")
    assert done.exit_code == 0, done.output
    assert "Snapshot: shared/copy (" in done.stdout
    assert panic("check", "--store", "shared/copy").exit_code == 0
    longer = ("run", config, "--set", "max_length=8")
    done = panic(*longer, "--store", "two", "--from", "shared/copy")
    assert done.exit_code == 0, done.output
    assert "two: Begins with the snapshot shared/copy." in done.stderr
    assert panic(*longer, "--store", "one").exit_code == 0
    assert dump(Path("two")) == dump(Path("one"))
    done = panic(*longer, "--store", "two", "--from", "shared/copy")
    assert "two: Has all of the snapshot shared/copy." in done.stderr


def test_the_config_says_where_snapshots_go(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path)
    done = panic("run", config, "--store", "one", "--set", "snapshot={to: ../copy, every_s: 5}")
    assert done.exit_code == 0, done.output
    assert dump(tmp_path.parent / "copy") == dump(Path("one"))
    done = panic("run", config, "--store", "one", "--set", "snapshot={too: copy}")
    assert done.exit_code == 2
    assert "did you mean 'to'?" in done.stderr
    assert panic("resume", "--store", "one", "--set", "x").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere", "copy"], 2, "There is no store at nowhere."),
        (["one", "one"], 2, "one is the store itself."),
        (["one", "one/inside"], 2, "one/inside lies in the store itself."),
        (["one", "demo.yaml"], 2, "demo.yaml is a file; a store is a folder."),
        (["one", "."], 2, "holds other things"),
        (["one"], 2, "TARGET"),
    ],
)
def test_what_is_no_snapshot(
    tmp_path: Path, panic: Panic, arguments: list[str], code: int, said: str
) -> None:
    config = write_config(tmp_path, max_length=1)
    panic("run", config, "--store", "one")
    done = panic("snapshot", *arguments)
    assert (done.exit_code, "Traceback" in done.output) == (code, False)
    assert said in done.output
    assert not Path("copy").exists()


@pytest.mark.parametrize("command", [["list"], ["view"], ["snapshot"], ["merge"]])
def test_a_link_that_leads_to_itself_is_no_store(tmp_path: Path, panic: Panic, command: list[str]) -> None:
    config = write_config(tmp_path, max_length=1)
    panic("run", config, "--store", "one")
    Path("loop").symlink_to("loop")
    given = {"list": ["--store", "loop"], "view": ["loop"], "snapshot": ["one", "loop"]}
    done = panic(*command, *given.get(command[0], ["one", "--into", "loop"]))
    assert done.exit_code == 2, done.output
    assert "loop" in done.stderr
    assert "Traceback" not in done.output


def test_going_on_from_what_is_not_there(tmp_path: Path, panic: Panic) -> None:
    done = panic("run", write_config(tmp_path), "--store", "one", "--from", "nowhere")
    assert done.exit_code == 2
    assert "There is no store at nowhere." in done.stderr
    assert not Path("one").exists()


def test_stores_are_merged(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path, max_length=4)
    for name in ("one", "two"):
        assert panic("run", config, "--store", name).exit_code == 0
    done = panic("merge", "one", "two", "--into", "both")
    assert done.exit_code == 0, done.output
    assert "New: " in done.stdout
    assert dump(Path("both")) == dump(Path("one"))
    assert panic("check", "--store", "both").exit_code == 0
    again = panic("merge", "two", "--into", "both")
    assert "New: 0 runs, 0 invocations, 0 images" in again.stdout


def test_a_conflict_of_a_merge_is_listed(tmp_path: Path, panic: Panic) -> None:
    config = write_config(tmp_path, max_length=4)
    assert panic("run", config, "--store", "one").exit_code == 0
    assert panic("run", config, "--store", "two", "--set", "root_seed=5").exit_code == 0
    done = panic("merge", "one", "two", "--into", "both")
    assert done.exit_code == 1
    assert "root_seed is 5; " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--into", "x"], "There is no store at nowhere."),
        (["one"], "--into"),
        (["one", "--into", "one"], "all others come into"),
        (["one", "--into", "x", "--keep", "both"], "'mine', 'theirs'"),
    ],
)
def test_a_merge_that_cannot_be(tmp_path: Path, panic: Panic, arguments: list[str], said: str) -> None:
    assert panic("run", write_config(tmp_path, max_length=2), "--store", "one").exit_code == 0
    done = panic("merge", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not Path("x").exists()
