"""Where results are written to: what is refused, or fails, leaves no folder behind."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from panic.cli.destinations import REPORT_MARK, claim_file, claim_folder, claim_report
from panic.errors import NotFound, StoreError, UsageError

from .conftest import Invoke


def fail() -> None:
    raise NotFound("nothing to write")


def test_folders_made_for_what_fails_go_again_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(NotFound), claim_file(tmp_path / "there" / "a" / "b" / "x.svg", force=False):
        fail()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with pytest.raises(NotFound), claim_folder(tmp_path / "there", force=False):
        fail()
    with pytest.raises(NotFound), claim_folder(tmp_path / "a" / "b", force=False):
        fail()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_what_a_failure_has_written_goes_and_what_others_have_stays(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b"
    for claim in (claim_folder(new, force=False), claim_file(new / "x.svg", force=False)):
        with pytest.raises(NotFound), claim as path:  # noqa: PT012
            (path if path == new else path.parent).joinpath("x.svg").touch()
            fail()
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound), claim_file(new / "x.svg", force=False) as path:  # noqa: PT012
        path.touch()
        path.with_name("others").touch()
        fail()
    assert [one.name for one in new.iterdir()] == ["others"]
    (new / "x.svg").touch()
    for claim in (claim_folder(new, force=True), claim_file(new / "x.svg", force=True)):
        with pytest.raises(NotFound), claim:
            fail()
    assert sorted(one.name for one in new.iterdir()) == ["others", "x.svg"]
    with claim_file(new / "y" / "z.svg", force=False) as path:
        path.touch()
    assert path.exists()


def test_a_folder_below_a_file_or_one_that_may_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    too_long = tmp_path / "a" / ("b" * 300) / "x.svg"
    for path in (tmp_path / "file" / "a" / "x.svg", too_long):
        with pytest.raises(OSError, match=r"Not a directory|too long"), claim_file(path, force=False):
            pytest.fail("it may not be written")
    assert list(tmp_path.rglob("*")) == [tmp_path / "file"]


def test_a_report_in_the_store_is_ours_to_overwrite_and_nothing_else_is(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    with pytest.raises(NotFound), claim_report(tmp_path, "x.html"):
        fail()
    assert not reports.exists()
    with claim_report(tmp_path, "x.html") as file:
        file.write_bytes(b"<html>" + REPORT_MARK)
    with claim_report(tmp_path, "x.html") as file:
        assert file == reports / "x.html"
        file.write_bytes(b" " * 1000 + REPORT_MARK)  # too far from the beginning
    with pytest.raises(UsageError, match="no report of panic"), claim_report(tmp_path, "x.html"):
        pass
    (reports / "link.html").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match="no report of panic"), claim_report(tmp_path, "link.html"):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "reports").symlink_to(reports)
    with pytest.raises(StoreError, match="is a link"), claim_report(tmp_path / "other", "y.html"):
        pass


@pytest.mark.parametrize(
    "arguments",
    [
        ["images", "demo", "--step", "7", "-o", "new/deep/x.png"],
        ["images", "demo", "--grid", "--size", "2048", "--most", "40", "-o", "new/deep/x.png"],
        ["figure", "lag", "demo", "--null", "shuffled", "-o", "new/deep/x.svg"],
        ["report", "nope", "-o", "new/deep/x.html"],
        ["export", "--where", "name = nope", "-o", "new/deep"],
    ],
)
def test_a_refused_command_leaves_no_folder(panic: Invoke, store: Path, arguments: list[str]) -> None:
    before = sorted(Path().rglob("*"))
    done = panic(*arguments)
    assert done.exit_code == 2, done.output
    assert [path for path in sorted(Path().rglob("*")) if path not in before] == []


def test_a_report_of_a_damaged_store_leaves_no_folder(panic: Invoke, store: Path) -> None:
    with closing(sqlite3.connect(store / "store.sqlite")) as other, other:
        other.execute("PRAGMA ignore_check_constraints=ON")
        other.execute("UPDATE embedding SET vector = zeroblob(3)")
    assert panic("report", "demo").exit_code == 1
    assert not (store / "reports").exists()
    assert panic("report", "demo", "-o", "new/x.html").exit_code == 1
    assert not Path("new").exists()


def test_an_export_of_a_damaged_store_is_no_half_of_one(panic: Invoke, store: Path) -> None:
    """Tables before the damaged one lay there like those of a whole export."""
    with closing(sqlite3.connect(store / "store.sqlite")) as other, other:
        other.execute("PRAGMA ignore_check_constraints=ON")
        other.execute("UPDATE diagram_bars SET bars = zeroblob(3)")
    assert panic("export", "-o", "new/deep").exit_code == 1
    assert not Path("new").exists()
