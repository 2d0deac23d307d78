"""Files of a store that are removed, replaced or lost: a clear end instead of "complete"."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from panic import run
from panic.engine.progress import Progress
from panic.errors import StoreCorrupt, StoreError, StoreMissing
from panic.store import Store, check
from tests.engine.conftest import make_config
from tests.store.sample import fill


def when_begun(action: Callable[[], object]) -> Callable[[Progress], None]:
    """An `on_progress` that acts once, when there are results."""
    done: list[int] = []

    def on_progress(progress: Progress) -> None:
        if not done and progress.invocations > 0:
            done.append(1)
            action()

    return on_progress


def replace(file: Path) -> None:
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "action", "told"),
    [
        ("", shutil.rmtree, "was removed"),
        ("lock", Path.unlink, "lock was removed"),
        ("lock", replace, "lock was replaced"),
        ("store.sqlite", replace, "store.sqlite was replaced"),
        ("images.sqlite", Path.unlink, "images.sqlite was removed"),
        ("", lambda path: path.rename(path.with_name("moved")), "was removed"),
    ],
)
def test_files_that_go_during_a_run_end_it(
    tmp_path: Path, name: str, action: Callable[[Path], object], told: str
) -> None:
    store = tmp_path / "s"
    config = make_config(draw={"delay_s": 0.05}, seeds=[-1], max_length=30)
    with pytest.raises(StoreError, match=told):
        run(config, store, on_progress=when_begun(lambda: action(store / name)))


def test_an_empty_file_beside_images_was_not_just_never_finished(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        fill(store)
    (tmp_path / "s" / "store.sqlite").write_bytes(b"")
    for write in (False, True):
        with pytest.raises(StoreCorrupt, match="was emptied, or copied"):
            Store(tmp_path / "s", write=write, create=write)
    assert (tmp_path / "s" / "store.sqlite").stat().st_size == 0


def test_a_store_whose_creation_was_killed_is_still_finished_by_the_same_command(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True):
        pass
    (tmp_path / "s" / "store.sqlite").write_bytes(b"")
    with pytest.raises(StoreMissing, match="never finished"):
        Store(tmp_path / "s")
    with Store(tmp_path / "s", write=True, create=True) as store:
        assert check.check(store) == []


def test_check_tells_of_a_store_that_was_copied_without_its_log(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True):
        pass
    with Store(tmp_path / "s", write=True) as store:
        fill(store)
        store.images.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (tmp_path / "copy").mkdir()
        for name in ("store.sqlite", "images.sqlite"):
            shutil.copy(tmp_path / "s" / name, tmp_path / "copy" / name)
    with Store(tmp_path / "copy") as store:
        problems = check.check(store)
    assert any("store.sqlite-wal" in problem for problem in problems), problems
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
