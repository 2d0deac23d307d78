"""Where results are written to: what is refused, or fails, leaves no folder behind."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from panic.cli.destinations import REPORT_MARK, WORKING, _take_back, claim_file, claim_folder, claim_report
from panic.errors import NotFound, StoreError, UsageError
from tests.rights import folder_of_others, without_rights

from .conftest import Invoke

Claim = Callable[..., AbstractContextManager[Path]]


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


@pytest.mark.parametrize("claim", [claim_file, claim_folder])
@pytest.mark.parametrize("force", [False, True])
def test_what_a_failure_has_written_goes_and_what_others_have_stays(
    tmp_path: Path, claim: Claim, force: bool
) -> None:
    new = tmp_path / "a" / "b"
    with pytest.raises(NotFound), claim(new, force=force) as path:  # noqa: PT012
        (path if path.is_dir() else path.parent).joinpath("x.svg").touch()
        fail()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound), claim(new, force=force):  # noqa: PT012
        new.with_name("others").touch()
        fail()
    assert [one.name for one in new.parent.iterdir()] == ["others"]


def written(claim: Claim, path: Path, own: str, theirs: str | None, *, force: bool, fails: bool) -> str:
    """What a file says after one was written while another process wrote it, too."""
    with claim(path, force=force) as place:
        (place / "x.svg" if place.is_dir() else place).write_text(own)
        if theirs is not None:
            final = path / "x.svg" if claim is claim_folder else path
            final.parent.mkdir(exist_ok=True)
            final.write_text(theirs)
        if fails:
            fail()
    return (path / "x.svg" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("claim", [claim_file, claim_folder])
def test_a_failure_leaves_what_another_process_has_written_meanwhile(tmp_path: Path, claim: Claim) -> None:
    """A failed export removed the export of another process at the same new path."""
    for force, fails in ((False, True), (True, True), (False, False)):
        path = tmp_path / f"{force}{fails}"
        error, says = (NotFound, "nothing to write") if fails else (UsageError, "is there already")
        with pytest.raises(error, match=says):
            written(claim, path, "ours", "theirs", force=force, fails=fails)
        assert [one.read_text() for one in tmp_path.rglob("*") if one.is_file()] == ["theirs"]
        (path / "x.svg" if path.is_dir() else path).unlink()
    assert written(claim, tmp_path / "z", "ours", "theirs", force=True, fails=False) == "ours"
    assert written(claim, tmp_path / "z", "again", None, force=True, fails=False) == "again"
    assert not list(tmp_path.rglob(".*"))


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "y" / "z.svg"
    assert written(claim_file, path, "first", None, force=False, fails=False) == "first"
    with pytest.raises(NotFound):
        written(claim_file, path, "half", None, force=True, fails=True)
    assert path.read_text() == "first"
    (tmp_path / "link.svg").symlink_to(path)
    assert written(claim_file, tmp_path / "link.svg", "through", None, force=True, fails=False) == "through"
    assert path.read_text() == "through"
    assert (tmp_path / "link.svg").is_symlink()
    with claim_file(Path(os.devnull), force=True) as device:
        assert device == Path(os.devnull)  # nothing takes its place


def test_of_several_files_all_are_put_there_or_none(tmp_path: Path) -> None:
    """Those before the one that somebody else had put there stayed."""
    with pytest.raises(UsageError, match="b is there already"), claim_folder(tmp_path, force=False) as place:  # noqa: PT012
        for name in ("a", "b", "c"):
            (place / name).write_text("ours")
        (tmp_path / "b").write_text("theirs")
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"b": "theirs"}


def test_what_is_taken_back_is_ours(tmp_path: Path) -> None:
    (tmp_path / "ours").touch()
    (tmp_path / "theirs").touch()
    _take_back(tmp_path / "theirs", (tmp_path / "ours").stat())
    assert (tmp_path / "theirs").exists()
    _take_back(tmp_path / "ours", (tmp_path / "ours").stat())
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("claim", [claim_file, claim_folder])
def test_what_is_overwritten_keeps_its_mode_and_links_lead_where_they_led(
    tmp_path: Path, claim: Claim
) -> None:
    """A private file was one that all may read; links in folders became files."""
    path = tmp_path / "x.svg"
    path.write_text("private")
    path.chmod(0o600)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "x.svg").symlink_to(path)
    for own, folder in (("once", tmp_path), ("again", tmp_path / "links")):
        named = folder if claim is claim_folder else folder / "x.svg"
        assert written(claim, named, own, None, force=True, fails=False) == own
        assert (path.read_text(), path.stat().st_mode & 0o777) == (own, 0o600)
    assert (tmp_path / "links" / "x.svg").is_symlink()


def test_a_link_to_another_file_system_or_a_device_is_written_through(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        there = Path(folder, "there")
        there.touch(0o600)
        (tmp_path / "x.svg").symlink_to(there)
        (tmp_path / "y.svg").symlink_to(os.devnull)
        with claim_folder(tmp_path, force=True) as place:
            (place / "x.svg").write_text("through")
            (place / "y.svg").write_text("nowhere")
        assert (there.read_text(), there.stat().st_mode & 0o777) == ("through", 0o600)
    assert (tmp_path / "x.svg").is_symlink()
    assert Path(os.devnull).is_char_device()


def test_a_file_that_may_be_written_is_overwritten_also_where_its_folder_may_not() -> None:
    with folder_of_others() as folder:
        (folder / "x.svg").write_text("before")
        (folder / "x.svg").chmod(0o666)
        (folder / "closed.svg").touch(0o444)
        folder.chmod(0o555)
        with without_rights():
            assert written(claim_file, folder / "x.svg", "ours", None, force=True, fails=False) == "ours"
            with pytest.raises(NotFound):
                written(claim_file, folder / "x.svg", "half", None, force=True, fails=True)
            for name in ("closed.svg", "new.svg"):
                with pytest.raises(PermissionError) as caught:
                    written(claim_file, folder / name, "ours", None, force=True, fails=False)
                assert caught.value.filename == str(folder / name)
        assert (folder / "x.svg").read_text() == "ours"
        assert (folder / "x.svg").stat().st_mode & 0o777 == 0o666
        assert {one.name for one in folder.iterdir()} == {"x.svg", "closed.svg"}


def test_errors_speak_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    with pytest.raises(OSError, match="No such file") as caught, claim_file(path, force=False) as place:
        (place / "deeper").write_text("")
    assert caught.value.filename in (str(path / "deeper"), str(path))
    with pytest.raises(UsageError) as told, claim_file(path, force=False) as place:
        raise UsageError(f"{place} is no name for a chart.")
    assert str(told.value) == f"{path} is no name for a chart."


def test_what_a_killed_export_has_left_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / f"{WORKING}abc").mkdir()
    assert written(claim_folder, tmp_path, "ours", None, force=False, fails=False) == "ours"
    with pytest.raises(UsageError, match="is not empty"):
        written(claim_folder, tmp_path, "ours", None, force=False, fails=False)


def test_a_folder_below_a_file_or_one_that_may_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    too_long = tmp_path / "a" / ("b" * 300) / "x.svg"
    with pytest.raises(OSError, match="too long"), claim_file(too_long, force=False):
        pytest.fail("it may not be written")
    for path in (tmp_path / "file" / "a" / "x.svg", tmp_path / "file" / "x.svg"):
        with pytest.raises(UsageError, match="file is a file"), claim_file(path, force=False):
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
