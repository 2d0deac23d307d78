"""Snapshots: one state of both files, of a store in use, whole or as it was before."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from panic.errors import (
    ConflictError,
    Interrupted,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreTooOld,
)
from panic.store import Store, reading, writing
from panic.store import snapshot as snapshot_module
from panic.store.check import check
from panic.store.delete import delete_experiment
from panic.store.dump import dump
from panic.store.snapshot import go_on_from, is_snapshot, snapshot
from tests.processes import Held
from tests.store.sample import Sample, fill, picture, remark, steps
from tests.store.test_files import corrupt_page
from tests.store.test_migrate import build


def content(folder: Path) -> list[dict[str, object]]:
    with Store(folder) as store:
        assert check(store) == []
        return list(dump(store))


def test_a_snapshot_is_the_store(folder: Path, sample: Sample, tmp_path: Path) -> None:
    target = tmp_path / "shared" / "it's %20 here"
    taken = snapshot(folder, target)
    assert content(target) == content(folder)
    assert sorted(os.listdir(target)) == ["images.sqlite", "lock", "store.sqlite"]
    assert taken.num_bytes == sum(
        (target / name).stat().st_size for name in ("store.sqlite", "images.sqlite")
    )
    assert taken.num_lost == 0
    assert is_snapshot(target)
    assert not is_snapshot(folder)
    assert snapshot(folder, target) == taken


def test_a_snapshot_of_a_store_that_is_being_written(folder: Path, sample: Sample, tmp_path: Path) -> None:
    """A thread adds a run of pictures all the time; whatever a snapshot names has its pixels."""
    done = threading.Event()

    def write() -> None:
        with Store(folder, write=True) as store:
            session = writing.start_session(store, sample.beta, "panic run", {})
            for number in itertools.count(100):
                if done.is_set():
                    return
                made = steps(
                    store,
                    session,
                    (sample.draw, sample.tell),
                    sample.untouched,
                    "untouched",
                    [picture(number)],
                )
                made.invocations.clear()
                writing.commit(store, made)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        numbers = []
        while len(numbers) < 8 or numbers[-1] == numbers[0]:  # the writer may be slow
            assert writer.is_alive()
            assert snapshot(folder, tmp_path / "copy").num_lost == 0
            with Store(tmp_path / "copy") as store:
                assert check(store) == []
                numbers.append(store.images.value("SELECT count(*) FROM image"))
    finally:
        done.set()
        writer.join()
    assert numbers[-1] > numbers[0]


def test_what_interrupts_a_snapshot_leaves_the_one_before(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "copy"
    snapshot(folder, target)
    before = content(target)
    with Store(folder, write=True) as store:
        remark(store, "alpha", "more")

    def stop(what: str, done: int, total: int) -> None:
        if "store.sqlite" in what:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        snapshot(folder, target, tell=stop)
    assert content(target) == before
    assert sorted(os.listdir(target)) == ["images.sqlite", "lock", "store.sqlite"]


def test_a_kill_amid_a_snapshot_leaves_the_one_before(folder: Path, sample: Sample, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    snapshot(folder, target)
    before = content(target)
    code = (
        "import os, signal, sys; from pathlib import Path; from panic.store.snapshot import snapshot\n"
        "def tell(what, done, total):\n"
        "    if what.startswith('pages of store'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "snapshot(Path(sys.argv[1]), Path(sys.argv[2]), tell=tell)"
    )
    killed = subprocess.run([sys.executable, "-c", code, folder, target], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (target / "images.sqlite.new").exists()
    assert content(target) == before
    snapshot(folder, target)
    assert sorted(os.listdir(target)) == ["images.sqlite", "lock", "store.sqlite"]


def test_only_older_snapshots_of_the_store_are_replaced(folder: Path, sample: Sample, tmp_path: Path) -> None:
    other, target = tmp_path / "other", tmp_path / "copy"
    with Store(other, write=True, create=True) as store:
        fill(store)
    snapshot(other, target)
    with pytest.raises(StoreError, match="a snapshot of another store: of the experiments alpha, beta"):
        snapshot(folder, target)
    with pytest.raises(StoreError, match="somebody has worked in"):
        snapshot(folder, other)
    with pytest.raises(StoreError, match="the store itself"):
        snapshot(folder, folder / ".." / folder.name)
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "file").touch()
    with pytest.raises(StoreError, match="holds other things"):
        snapshot(folder, tmp_path / "things")
    snapshot(folder, other, force=True)
    assert content(other) == content(folder)


def test_a_forced_snapshot_leaves_no_log_of_the_store_before(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    with Store(other, write=True, create=True) as store:
        fill(store, shuffled=True)
        writing.add_model(store, "late", "fingerprint of late", {})
        store.db.close(keep_log=True)
    assert (other / "store.sqlite-wal").stat().st_size
    (other / "store.sqlite-shm").touch()
    snapshot(folder, other, force=True)
    assert sorted(os.listdir(other)) == ["images.sqlite", "lock", "store.sqlite"]
    assert content(other) == content(folder)


def test_a_store_that_is_written_is_no_target(folder: Path, sample: Sample, tmp_path: Path) -> None:
    with Store(tmp_path / "other", write=True, create=True), pytest.raises(StoreLocked):
        snapshot(folder, tmp_path / "other", force=True)


def test_an_annotated_snapshot_is_not_replaced(folder: Path, sample: Sample, tmp_path: Path) -> None:
    snapshot(folder, tmp_path / "copy")
    with Store(tmp_path / "copy") as store:
        remark(store, "alpha", "a remark that is nowhere else")
    with pytest.raises(StoreError, match="somebody has worked in"):
        snapshot(folder, tmp_path / "copy")


def test_a_copy_that_went_on_apart_has_not_all_of_a_snapshot(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """Each copy counts its own transactions: a larger revision hid that the other's work was not there."""
    one, two, taken = tmp_path / "one", tmp_path / "two", tmp_path / "taken"
    for copy in (one, two):
        snapshot(folder, copy)
    with Store(two, write=True) as store:
        writing.start_session(store, sample.alpha, "panic run", {})
    snapshot(two, taken)
    with Store(one, write=True) as store:
        for number in range(9):
            remark(store, "alpha", f"remark {number}")
    with Store(one) as behind, Store(taken) as ahead:
        assert behind.revision > ahead.revision
    with pytest.raises(ConflictError, match="lacks what is in the snapshot"):
        go_on_from(taken, one)
    with pytest.raises(StoreError, match="has gone on by itself"):
        snapshot(one, taken)
    assert not go_on_from(taken, two)


def test_going_on_from_a_snapshot(folder: Path, sample: Sample, tmp_path: Path) -> None:
    taken, store = tmp_path / "copy", tmp_path / "node" / "store"
    with pytest.raises(StoreMissing):
        go_on_from(taken, store)
    snapshot(folder, taken)
    assert go_on_from(taken, store)
    with Store(store, write=True) as opened:
        remark(opened, "alpha", "more")
    assert not go_on_from(taken, store)
    snapshot(store, taken)
    with pytest.raises(ConflictError, match="lacks what is in the snapshot"):
        go_on_from(taken, folder)
    with Store(tmp_path / "other", write=True, create=True) as opened:
        fill(opened)
    with pytest.raises(ConflictError, match="is another store"):
        go_on_from(taken, tmp_path / "other")


def test_a_store_that_went_another_way_is_not_taken_for_a_later_state(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """A higher revision proves nothing: both went on from one state, and the other one further."""
    taken, store = tmp_path / "taken", tmp_path / "another"
    snapshot(folder, store)
    with Store(folder, write=True) as opened:
        writing.start_session(opened, sample.beta, "panic run", {})
    snapshot(folder, taken)
    with Store(store, write=True) as opened:
        for number in range(5):
            remark(opened, "alpha", f"more {number}")
    with pytest.raises(ConflictError, match="lacks what is in the snapshot"):
        go_on_from(taken, store)


def test_a_snapshot_counts_images_that_the_store_has_lost(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    with Store(folder, write=True) as store, store.images.transaction() as connection:
        connection.execute("DELETE FROM image WHERE rowid IN (SELECT rowid FROM image LIMIT 2)")
    assert snapshot(folder, tmp_path / "copy").num_lost == 2


def test_a_snapshot_on_a_network_file_system_is_read_there(
    folder: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    snapshot(folder, shared)
    on_network(shared, monkeypatch)
    assert content(shared) == content(folder)
    snapshot(folder, shared)
    assert snapshot(shared, tmp_path / "back").num_lost == 0
    assert sorted(os.listdir(shared)) == ["images.sqlite", "lock", "store.sqlite"]
    with pytest.raises(StoreError, match=r"network file system \(nfs4\)"):
        Store(shared, write=True)
    with Store(shared) as store, pytest.raises(StoreError, match=r"network file system \(nfs4\)"):
        remark(store, "alpha", "that would need a log")


def test_a_store_with_a_log_is_not_read_on_a_network_file_system(
    folder: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(folder, write=True) as store:
        writing.add_model(store, "late", "fingerprint of late", {})
        store.db.close(keep_log=True)
    on_network(folder, monkeypatch)
    with pytest.raises(StoreReadOnly, match="with a log beside it"):
        Store(folder)


def on_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine say that a folder is on a network file system; such a mount needs a server."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"server:/ {folder} nfs4 rw 0 0\n")


def test_how_far_a_snapshot_is_is_told_page_by_page(
    folder: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("panic.store.snapshot.PAGES_AT_ONCE", 1)
    monkeypatch.setattr("panic.store.snapshot.STEPS_AT_ONCE", 1)
    told: list[tuple[str, int, int]] = []
    snapshot(folder, tmp_path / "copy", tell=lambda *what: told.append(what))
    for kind in ("images", "store"):
        with Store(folder) as store:
            database = store.db if kind == "store" else store.images
            pages = database.value("PRAGMA page_count")
        copied = [one[1:] for one in told if one[0] == f"pages of {kind}.sqlite copied"]
        assert copied == [(number, pages) for number in range(1, pages + 1)]
        assert (f"copy of {kind}.sqlite checked", 0, 0) in told
    names = list(dict.fromkeys(what for what, _, _ in told))
    assert [name.split()[2].partition(".")[0] for name in names] == ["images", "images", "store", "store"]


@pytest.mark.parametrize("lost", ["first", "last", "middle", "all"])
def test_lost_images_are_counted_wherever_their_digests_are(
    folder: Path, sample: Sample, tmp_path: Path, lost: str
) -> None:
    with Store(folder, write=True) as store:
        known = sorted(digest for (digest,) in store.images.rows("SELECT digest FROM image"))
        gone = {"first": known[:1], "last": known[-1:], "middle": known[1:3], "all": known}[lost]
        with store.images.transaction() as connection:
            connection.executemany("DELETE FROM image WHERE digest = ?", [(digest,) for digest in gone])
            for digest in (bytes(32), b"\xff" * 32):  # and two that nobody names
                connection.execute("INSERT INTO image VALUES (?, 'webp', x'00')", (digest,))
    assert snapshot(folder, tmp_path / "copy").num_lost == len(gone)


def test_a_snapshot_is_written_where_no_locks_are_to_be_had(
    folder: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network file systems, which a test has none of."""

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr("panic.store.files.fcntl.flock", refuse)
        snapshot(folder, tmp_path / "copy")
        assert sorted(os.listdir(tmp_path / "copy")) == ["images.sqlite", "lock", "store.sqlite"]
    assert content(tmp_path / "copy") == content(folder)


@pytest.mark.parametrize("name", ["store.sqlite", "images.sqlite"])
def test_what_lies_where_a_copy_is_written_goes_whatever_it_is(
    folder: Path, sample: Sample, tmp_path: Path, name: str
) -> None:
    """Of a snapshot that was killed, half a file; a link, through which somebody else's would be written."""
    target, outside = tmp_path / "copy", tmp_path / "outside"
    snapshot(folder, target)
    outside.write_bytes(b"somebody else's")
    for leave in (lambda part: part.write_bytes(b"torn" * 9999), lambda part: part.symlink_to(outside)):
        leave(target / f"{name}.new")
        snapshot(folder, target)
        assert sorted(os.listdir(target)) == ["images.sqlite", "lock", "store.sqlite"]
    assert outside.read_bytes() == b"somebody else's"
    assert content(target) == content(folder)


@pytest.mark.parametrize("name", ["store.sqlite", "images.sqlite"])
def test_a_link_in_a_target_is_refused(folder: Path, sample: Sample, tmp_path: Path, name: str) -> None:
    target = tmp_path / "copy"
    snapshot(folder, target)
    (target / name).rename(tmp_path / "outside")
    (target / name).symlink_to(tmp_path / "outside")
    before = (tmp_path / "outside").read_bytes()
    with pytest.raises(StoreError, match="is a link"):
        snapshot(folder, target, force=True)
    assert (tmp_path / "outside").read_bytes() == before


def test_a_copy_that_is_not_sound_replaces_nothing(folder: Path, sample: Sample, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    snapshot(folder, target)
    before = content(target)
    corrupt_page(folder / "store.sqlite", "failure")
    with pytest.raises(StoreCorrupt) as raised:
        snapshot(folder, target)
    assert "store.sqlite" in raised.value.message
    assert content(target) == before
    assert sorted(os.listdir(target)) == ["images.sqlite", "lock", "store.sqlite"]
    with Store(target, write=True):  # and its lock is free
        pass


def test_what_is_no_snapshot(folder: Path, sample: Sample, tmp_path: Path) -> None:
    assert not is_snapshot(tmp_path)
    assert not is_snapshot(folder)
    for change in ("log", "images", "worked in"):
        target = tmp_path / change
        snapshot(folder, target)
        assert is_snapshot(target)
        if change == "log":
            (target / "images.sqlite-wal").write_bytes(b"x")
        elif change == "images":
            (target / "images.sqlite").unlink()
        else:
            with Store(target, write=True):
                pass
        assert not is_snapshot(target)


def test_what_can_replace_a_snapshot_has_all_of_its_sessions(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """The snapshot of a copy that has gone on is not replaced by what has not; force does."""
    apart, target = tmp_path / "apart", tmp_path / "copy"
    snapshot(folder, apart)
    with Store(apart, write=True) as store:
        writing.start_session(store, sample.alpha, "panic run", {})
    snapshot(apart, target)
    with pytest.raises(StoreError, match=r"of a copy of .* that has gone on by itself") as raised:
        snapshot(folder, target)
    assert raised.value.hint.startswith("panic merge brings both into one. Choose another folder")
    assert len(content(target)) == len(content(folder))
    assert snapshot(folder, target, force=True).num_lost == 0
    snapshot(folder, target)


def test_of_many_experiments_of_another_store_five_are_named(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    with Store(tmp_path / "other", write=True, create=True) as store:
        for number in range(6):
            writing.start_experiment(store, f"x{number}", {})
    snapshot(tmp_path / "other", tmp_path / "copy")
    with pytest.raises(StoreError, match="of the experiments x0, x1, x2, x3, x4") as raised:
        snapshot(folder, tmp_path / "copy")
    assert raised.value.message.endswith("x4.")


def test_what_is_renamed_is_on_the_disk_before_and_the_folder_after(
    folder: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a new name for pages that were never written; the images come first."""
    target, done = tmp_path / "copy", []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        done.append(("on the disk", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def noted_replace(source: Path, to: Path) -> None:
        done.append(("renamed", Path(to).name))
        replace(source, to)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    before = Held()
    snapshot(folder, target)
    assert done == [
        ("on the disk", "images.sqlite.new"),
        ("on the disk", "store.sqlite.new"),
        ("renamed", "images.sqlite"),
        ("renamed", "store.sqlite"),
        ("on the disk", "copy"),
    ]
    assert before.new_files() == set()


def test_what_is_removed_between_two_looks_is_no_lost_image(
    folder: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are seen as they were, the pixels are gone: the third look at most tells."""
    looks, look = [], snapshot_module._num_lost

    def after_a_deletion(store: Store) -> int:
        if not looks:
            with Store(folder, write=True) as writer:
                delete_experiment(writer, "alpha")
        looks.append(look(store))
        return looks[-1]

    monkeypatch.setattr(snapshot_module, "_num_lost", after_a_deletion)
    assert snapshot(folder, tmp_path / "copy").num_lost == 0
    assert looks == [3, 0]
    with Store(tmp_path / "copy") as store:
        assert check(store) == []
        assert [row.name for row in reading.experiments(store)] == ["beta"]
    with Store(folder, write=True) as store, store.images.transaction() as connection:
        connection.execute("DELETE FROM image")
    looks.clear()
    looks.append(0)
    assert snapshot(folder, tmp_path / "copy").num_lost == 1
    assert looks == [0, 1, 1, 1]


def test_a_copy_has_all_of_a_store_without_anything_in_it(tmp_path: Path) -> None:
    Store(tmp_path / "store", write=True, create=True).close()
    assert snapshot(tmp_path / "store", tmp_path / "copy").num_lost == 0
    assert is_snapshot(tmp_path / "copy")
    assert not go_on_from(tmp_path / "copy", tmp_path / "store")


def test_a_snapshot_lies_outside_the_store_and_is_of_this_schema(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    with pytest.raises(StoreTooOld):
        snapshot(build(tmp_path / "old", "0004"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(StoreError, match="lies in the store itself"):
        snapshot(folder, folder / "below" / "deep")
    assert not (folder / "below").exists()


def test_an_older_snapshot_that_cannot_be_read_is_not_replaced(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "copy"
    snapshot(folder, target)
    corrupt_page(target / "store.sqlite", "experiment")
    before = (target / "store.sqlite").read_bytes()
    with pytest.raises(StoreError, match=r"copy cannot be replaced: .*store\.sqlite is damaged") as raised:
        snapshot(folder, target)
    assert raised.value.hint == "Choose another folder; --force writes over what is there."
    assert (target / "store.sqlite").read_bytes() == before
    snapshot(folder, target, force=True)
    assert content(target) == content(folder)


def test_a_store_without_an_experiment_of_a_snapshot_is_another_one(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """Of an experiment that was not begun there is no session, and the copy has as many revisions."""
    store, taken = tmp_path / "before", tmp_path / "copy"
    snapshot(folder, store)
    with Store(folder, write=True) as opened:
        writing.start_experiment(opened, "gamma", {})
    snapshot(folder, taken)
    with Store(store, write=True) as opened:
        for number in range(9):
            remark(opened, "alpha", f"more {number}")
    with pytest.raises(ConflictError, match="is another store"):
        go_on_from(taken, store)


def test_a_store_with_fewer_revisions_lacks_something(folder: Path, sample: Sample, tmp_path: Path) -> None:
    """Remarks are in no session: only the number of transactions tells of them."""
    taken = tmp_path / "copy"
    shutil.copytree(folder, tmp_path / "before")
    with Store(folder) as store:
        remark(store, "alpha", "more")
    snapshot(folder, taken)
    with pytest.raises(ConflictError, match="lacks what is in"):
        go_on_from(taken, tmp_path / "before")
    assert not go_on_from(taken, folder)
