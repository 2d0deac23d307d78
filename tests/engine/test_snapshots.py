"""Snapshots while an experiment is performed, and going on from one on another machine."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from panic import run
from panic.config import SnapshotSettings
from panic.engine.progress import Progress
from panic.engine.snapshots import _keep, keeping_snapshots
from panic.errors import Interrupted, StoreError
from panic.store import Store, reading
from panic.store.check import check
from panic.store.snapshot import go_on_from
from tests.engine.conftest import dump, interrupt_when, make_config


def test_snapshots_are_taken_while_it_runs_and_at_the_end(tmp_path: Path) -> None:
    """The driver waits for a snapshot, goes on a little, and waits for one with what it has done since."""
    target, seen = tmp_path / "copy", [0]

    def on_progress(progress: Progress) -> None:
        while progress.invocations > seen[-1] and len(seen) < 3:
            if (target / "store.sqlite").exists():
                with Store(target) as store:
                    assert check(store) == []
                    if (found := reading.counts(store).invocations) > seen[-1]:
                        seen.append(found)
                        break
            time.sleep(0.01)

    config = make_config(draw={"delay_s": 0.02}, max_length=60, snapshot={"to": str(target), "every_s": 0.2})
    run(config, tmp_path / "store", on_progress=on_progress)
    assert len(seen) == 3
    assert dump(target) == dump(tmp_path / "store")
    with Store(target) as store:
        assert reading.sessions(store)[-1].end_state == "done"


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_snapshots_may_be_as_rare_as_anyone_likes(tmp_path: Path) -> None:
    """No thread waits for more than 292 years: the one that takes them ended with a traceback."""
    config = make_config(max_length=2, snapshot={"to": str(tmp_path / "copy"), "every_s": 1e12})
    run(config, tmp_path / "store")
    assert dump(tmp_path / "copy") == dump(tmp_path / "store")


def test_a_session_that_is_stopped_leaves_a_snapshot_to_go_on_from(
    tmp_path: Path,
) -> None:
    target = tmp_path / "copy"
    slow = {"delay_s": 0.02}
    config = make_config(draw=slow, max_length=60, snapshot={"to": str(target)})
    with pytest.raises(Interrupted):
        run(config, tmp_path / "first", on_progress=interrupt_when(lambda p: p.invocations > 10))
    assert dump(target) == dump(tmp_path / "first")
    assert go_on_from(target, tmp_path / "second")
    run(config, tmp_path / "second")
    run(make_config(draw=slow, max_length=60), tmp_path / "whole")
    assert dump(target) == dump(tmp_path / "second") == dump(tmp_path / "whole")


def test_a_folder_of_something_else_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    run(make_config(), tmp_path / "other")
    with pytest.raises(StoreError, match="somebody has worked in"):
        run(make_config(snapshot={"to": str(tmp_path / "other")}), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_snapshot_that_fails_is_told_and_the_work_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands where the folder was for a while, until that is told."""
    target = tmp_path / "copy"

    def on_progress(progress: Progress) -> None:
        while "no snapshot in" not in caplog.text:
            if target.is_dir():
                target.rename(tmp_path / f"gone {time.monotonic_ns()}")
                target.touch()
            time.sleep(0.01)
        if target.is_file():
            target.unlink()

    config = make_config(draw={"delay_s": 0.02}, max_length=60, snapshot={"to": str(target), "every_s": 0.1})
    run(config, tmp_path / "store", on_progress=on_progress)
    assert "no snapshot in" in caplog.text
    assert dump(target) == dump(tmp_path / "store")


@pytest.mark.parametrize(
    ("error", "raised"),
    [(None, StoreError), (Interrupted("enough"), StoreError), (ValueError("mine"), ValueError)],
)
def test_a_last_snapshot_that_fails_is_an_error_unless_there_is_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception | None, raised: type[Exception]
) -> None:
    """Whoever asked to stop would think that the work is there, too."""
    target = tmp_path / "copy"

    def perform() -> None:
        with (
            Store(tmp_path / "store", write=True, create=True) as store,
            keeping_snapshots(SnapshotSettings(to=target), store),
        ):
            target.rename(tmp_path / "gone")
            target.write_text("a file of somebody's")
            if error is not None:
                raise error

    with pytest.raises(raised):
        perform()
    assert ("the last snapshot was not taken" in caplog.text) is (raised is ValueError)
    assert target.read_text() == "a file of somebody's"
    assert "snapshots" not in [thread.name for thread in threading.enumerate()]


class Turns(threading.Event):
    """An event that somebody waits for so many times, set or not."""

    def __init__(self, turns: int, *, is_set: bool) -> None:
        super().__init__()
        self.turns, self.waits = turns, list[float | None]()
        if is_set:
            self.set()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        self.turns -= 1
        return self.turns < 0


@pytest.mark.parametrize("is_ending", [False, True])
def test_a_snapshot_that_is_under_way_at_the_end_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_ending: bool
) -> None:
    run(make_config(max_length=2), tmp_path / "store")
    ending = Turns(2, is_set=is_ending)
    _keep(SnapshotSettings(to=tmp_path / "copy", every_s=7.0), tmp_path / "store", ending)
    assert ending.waits == [7.0] * 3
    assert (tmp_path / "copy" / "store.sqlite").exists() is not is_ending
    assert caplog.messages == []
