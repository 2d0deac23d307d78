"""Opening, locking, and everything that can be wrong with the files."""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from panic.errors import (
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreTooNew,
)
from panic.store import Store, check, contents, dump, missing, reading, writing
from panic.store.files import (
    NETWORK_FILE_SYSTEMS,
    copy_file,
    file_system,
    give_lock_back,
    has_content,
    lock_holder,
    log_of,
    names_a_holder,
    own_folder,
    take_lock,
    translated,
)
from tests.processes import Held
from tests.rights import folder_of_others, without_rights
from tests.store.sample import fill, picture, steps

ROOT = Path(__file__).parents[2]
MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/local\\040disk xfs rw 0 0
me@host:/data /data fuse.sshfs rw 0 0
tmpfs /data tmpfs rw 0 0
"""


def in_another_process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.fixture
def locked_away(filled):
    """A copy of the filled store that nobody without special rights may write."""
    with folder_of_others() as base:
        folder = base / "store"
        shutil.copytree(filled[0], folder)

        def close():
            for file in folder.iterdir():
                file.chmod(0o444)
            folder.chmod(0o555)
            return folder

        yield folder, close


def test_a_read_only_folder_can_be_read(locked_away):
    folder, close = locked_away
    close()
    with without_rights():
        with Store(folder) as store:
            names = [row.name for row in reading.experiments(store)]
            size = contents.image(store, contents.outputs(store, "beta")[1].digest).size
        assert sorted(os.listdir(folder)) == ["images.sqlite", "lock", "store.sqlite"]
        with pytest.raises(StoreReadOnly, match="cannot be written"):
            Store(folder, write=True)
    assert (names, size) == (["alpha", "beta"], (8, 6))


def test_a_read_only_folder_with_an_unfinished_log_says_so(locked_away):
    folder, close = locked_away
    driver = in_another_process(
        f"from panic.store import Store, writing; s = Store({str(folder)!r}, write=True);"
        "writing.start_experiment(s, 'late', {}); print('ready', flush=True); input()"
    )
    assert driver.stdout.readline() == "ready\n"
    driver.kill()
    driver.wait()
    (folder / "store.sqlite-shm").unlink()  # as when copied without it
    close()
    with without_rights(), pytest.raises(StoreReadOnly, match=r"store\.sqlite-wal has changes"):
        Store(folder)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    with Store(folder) as store:
        assert reading.experiment(store, "late").name == "late"


def test_files_without_permission_to_write_are_reported(locked_away):
    folder, _ = locked_away
    folder.chmod(0o777)
    (folder / "lock").unlink()
    (folder / "store.sqlite").chmod(0o444)
    with without_rights(), pytest.raises(StoreReadOnly, match=r"\.sqlite cannot be written"):
        Store(folder, write=True)


def test_a_missing_store_is_not_created_by_looking(folder):
    for write in (False, True):
        with pytest.raises(StoreMissing, match="no store") as raised:
            Store(folder, write=write)
        assert "panic run" in raised.value.hint
    assert not folder.exists()


@pytest.mark.parametrize(
    ("content", "raised", "stays"),
    [
        ("", StoreError, []),
        ("", RuntimeError, ["images.sqlite", "lock", "store.sqlite"]),
        ("row", StoreError, ["images.sqlite", "lock", "store.sqlite"]),
        ("file", StoreError, ["images.sqlite", "lock", "notes.txt", "store.sqlite"]),
        ("folder", StoreError, None),
        ("older", StoreError, ["images.sqlite", "lock", "store.sqlite"]),
    ],
)
def test_a_store_made_for_what_was_refused_goes_unless_it_holds_something(folder, content, raised, stays):
    """What could not begin left an empty store, in which the next look found no experiment."""
    path = folder / "deep" / "store"
    if content == "folder":
        path.mkdir(parents=True)
    if content == "older":
        Store(path, write=True, create=True).close()
    with pytest.raises(raised), Store(path, write=True, create=True) as store:  # noqa: PT012
        own_folder(path, "logs").joinpath("a.log").touch()
        if content == "row":
            writing.start_experiment(store, "x", {})
        if content == "file":
            (path / "notes.txt").touch()
        raise raised("refused")
    if stays is None:
        assert os.listdir(path) == []
    elif not stays:
        assert not folder.exists()
    else:
        assert sorted(name for name in os.listdir(path) if name != "logs") == stays
        with Store(path, write=True):
            pass


def test_a_refused_store_takes_nothing_with_it_that_came_in_its_place(folder):
    """Its files are looked at by name: another store lay there by then, and went."""
    with pytest.raises(StoreError, match="refused"), Store(folder, write=True, create=True):  # noqa: PT012
        folder.rename(folder.with_name("away"))
        with Store(folder, write=True, create=True) as other:
            writing.start_experiment(other, "x", {})
        raise StoreError("refused")
    with Store(folder) as other:
        assert [row.name for row in reading.experiments(other)] == ["x"]


def test_a_lock_that_went_while_one_waited_for_it_is_none(tmp_path, monkeypatch):
    """Else the second driver would hold a file that nobody finds, and let a third one in."""
    lock, taken = fcntl.flock, []

    def meanwhile(descriptor, how):
        lock(descriptor, how)
        taken.append(descriptor)
        if len(taken) == 1:  # as the first driver does, which was refused
            (tmp_path / "lock").unlink()

    monkeypatch.setattr("panic.store.files.fcntl.flock", meanwhile)
    descriptor = take_lock(tmp_path)
    assert len(taken) == 2
    assert os.fstat(descriptor).st_ino == os.stat(tmp_path / "lock").st_ino
    give_lock_back(descriptor)


def test_a_path_that_is_a_file(folder):
    folder.write_text("hello")
    for options in ({}, {"write": True, "create": True}):
        with pytest.raises(StoreError, match="is a file"):
            Store(folder, **options)


def test_a_folder_with_other_things(folder):
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(StoreMissing, match="holds other things"):
        Store(folder)
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        Store(folder, write=True, create=True)
    assert os.listdir(folder) == ["thesis.tex"]


def test_a_folder_below_a_file_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be created"):
        Store(tmp_path / "file" / "store", write=True, create=True)


def test_an_unfinished_creation_is_finished(folder):
    folder.mkdir()
    (folder / "store.sqlite").touch()
    (folder / "images.sqlite").touch()
    with pytest.raises(StoreMissing, match="never finished"):
        Store(folder)
    with Store(folder, write=True, create=True) as store:
        assert check.check(store) == []


@pytest.mark.parametrize("name", ["store.sqlite", "images.sqlite"])
def test_a_file_that_is_no_database(folder, sample, name):
    (folder / name).write_bytes(b"This is no database, it is a text. " * 100)
    with pytest.raises(StoreCorrupt, match=f"{name} is not a database"), Store(folder) as store:
        contents.image(store, "0" * 64)
    with pytest.raises(StoreCorrupt, match=f"{name} is not a database"):
        Store(folder, write=True)


def test_somebody_elses_database(folder):
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "store.sqlite")) as other:
        other.execute("CREATE TABLE recipe (name TEXT)")
    (folder / "images.sqlite").touch()
    for options in ({}, {"write": True}):
        with pytest.raises(StoreCorrupt, match="not of a panic store"):
            Store(folder, **options)


def test_lost_pixels(folder, sample):
    (folder / "images.sqlite").unlink()
    with pytest.raises(StoreCorrupt, match=r"images\.sqlite is missing"):
        Store(folder, write=True)
    with Store(folder) as store, pytest.raises(StoreCorrupt, match=r"images\.sqlite is missing"):
        contents.image(store, "0" * 64)


@pytest.mark.parametrize("name", ["store.sqlite", "images.sqlite"])
def test_a_newer_schema_is_refused_with_advice(folder, sample, name):
    with contextlib.closing(sqlite3.connect(folder / name)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreTooNew, match="version 99") as raised:
        Store(folder, write=True)
    assert "Upgrade panic" in raised.value.hint


def test_a_second_driver_is_refused_and_told_who_is_first(folder, sample):
    driver = in_another_process(
        f"from panic.store import Store, writing; s = Store({str(folder)!r}, write=True);"
        "print('ready', flush=True); input()"
    )
    assert driver.stdout.readline() == "ready\n"
    with pytest.raises(StoreLocked, match=f"process {driver.pid} on "):
        Store(folder, write=True)
    with Store(folder) as store:  # reading goes on
        assert store.lock_holder.pid == driver.pid
        assert len(reading.runs(store)) == 5
    driver.kill()
    driver.wait()
    with Store(folder) as store:
        assert store.lock_holder is None
    with Store(folder, write=True) as store:
        assert store.lock_holder.pid == os.getpid()


def test_a_failed_opening_lets_go_of_the_lock(folder, sample):
    content = (folder / "store.sqlite").read_bytes()
    (folder / "store.sqlite").write_bytes(b"garbage " * 1000)
    with pytest.raises(StoreCorrupt):
        Store(folder, write=True)
    (folder / "store.sqlite").write_bytes(content)
    Store(folder, write=True).close()


@pytest.mark.parametrize("database", ["db", "images"])
def test_a_full_disk_loses_nothing(folder, sample, database):
    with Store(folder, write=True) as store:
        before = list(dump.dump(store))
        connection = getattr(store, database).connection
        connection.pragma("max_page_count", connection.pragma("page_count"))
        session = store.db.value("SELECT max(id) FROM session")
        long = "a very long text " * 5000
        contents = [picture(7, (200, 200)), long, picture(8, (200, 200)), long]
        commit = steps(
            store, session, (sample.draw, sample.tell), sample.untouched, "untouched", contents, seed=1
        )
        with pytest.raises(StoreError, match=r"No space left .* Nothing that was stored is lost") as raised:
            writing.commit(store, commit)
        assert "run the same command again" in raised.value.hint
        assert list(dump.dump(store)) == before
        connection.pragma("max_page_count", 1 << 30)
        writing.commit(store, commit)
        assert missing.tails(store, sample.alpha)[-1][:2] == (sample.untouched, 4)


def test_a_corrupted_page_names_file_and_remedy(folder, sample):
    corrupt_page(folder / "store.sqlite", "invocation")
    with Store(folder) as store, pytest.raises(StoreCorrupt, match=r"store\.sqlite is damaged") as raised:
        contents.invocations(store, sample.stuck)
    assert "panic check --store" in raised.value.hint


def corrupt_page(path: Path, table: str) -> None:
    """Overwrite the root page of a table."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        (page,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 16384)
        file.write(b"\xa5" * 16384)


def test_the_files_are_as_designed(folder):
    with Store(folder, write=True, create=True) as store, Store(folder) as reader:
        for database, synchronous in ((store.db, 1), (store.images, 2)):
            pragma = database.connection.pragma
            assert (pragma("page_size"), pragma("journal_mode")) == (16384, "wal")
            assert (pragma("synchronous"), pragma("foreign_keys")) == (synchronous, 1)
        assert reader.db.connection.pragma("foreign_keys") == 1
        fill(store)
        tables = store.db.rows("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'")
        assert len(tables) >= 14
        assert all(strict for name, strict in tables if not name.startswith(("sqlite_", "caption")))  # FTS5
    # Closed by the last one: nothing but the two files and the lock, which copying the folder keeps.
    assert sorted(os.listdir(folder)) == ["images.sqlite", "lock", "store.sqlite"]
    assert (folder / "lock").read_text() == ""


def test_the_log_is_moved_into_the_file_even_when_a_reader_stays(folder):
    with Store(folder, write=True, create=True) as store, Store(folder) as reader:
        fill(store)
        assert len(reading.experiments(reader)) == 2
        store.close()
        assert (folder / "store.sqlite-wal").stat().st_size == 0


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homework", "ext4"),
        ("/home/me", "nfs4"),
        ("/home/me/local disk/store", "xfs"),
        ("/data/store", "tmpfs"),  # mounted later, over the other
    ],
)
def test_the_file_system_of_a_path(path, kind):
    assert file_system(Path(path), MOUNTS) == kind


def test_network_file_systems_are_known():
    for kind in ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "9p", "ceph"):
        assert NETWORK_FILE_SYSTEMS.fullmatch(kind)
    for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "apfs", ""):
        assert not NETWORK_FILE_SYSTEMS.fullmatch(kind)


def test_a_network_file_system_is_refused(folder, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"server:/ {folder.parent} nfs4 rw 0 0\n")
    with pytest.raises(StoreError, match=r"network file system \(nfs4\)"):
        Store(folder, write=True, create=True)


HARMLESS = "Is this the right path?"
IMAGES = "computes its images again"


@pytest.mark.parametrize(
    ("error", "raised", "said", "hint", "of_images"),
    [
        (apsw.NotADBError("x"), StoreCorrupt, "is not a database", HARMLESS, IMAGES),
        (apsw.CorruptError("x"), StoreCorrupt, "is damaged: x", "panic check --store", IMAGES),
        (apsw.SQLError("unsupported file format"), StoreCorrupt, "is damaged: uns", "from a backup", IMAGES),
        (apsw.FullError("x"), StoreError, "No space left for", "Make room", ""),
        (apsw.ReadOnlyError("x"), StoreReadOnly, "cannot be written: x", "Check the permissions", ""),
        (apsw.BusyError("x"), StoreLocked, "was in use by another process for 30 s: x", "Wait for it", ""),
        (apsw.LockedError("x"), StoreLocked, "was in use by another process for 30 s: x", "Wait for it", ""),
        (apsw.CantOpenError("x"), StoreError, "cannot be used: x", "Check the permissions", ""),
        (apsw.IOError("x"), StoreError, "cannot be used: x", "health of the disk", ""),
        (apsw.PermissionsError("x"), StoreError, "cannot be used: x", "Check the permissions", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_can_happen_to_a_file_is_told_in_words(error, raised, said, hint, of_images):
    for name in ("store.sqlite", "images.sqlite"):
        with pytest.raises(StoreError) as found, translated(Path("/s") / name):
            raise error
        assert type(found.value) is raised
        assert f"/s/{name}" in found.value.message
        assert said in found.value.message
        assert (of_images if of_images and name == "images.sqlite" else hint) in found.value.hint
        assert found.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [apsw.SQLError("no such column"), apsw.ConstraintError("x"), ValueError("x")]
)
def test_mistakes_of_our_own_stay_what_they_are(error):
    with pytest.raises(type(error)) as found, translated(Path("/s/store.sqlite")):
        raise error
    assert found.value is error


def test_a_text_that_is_none_is_told_as_damage():
    damaged = pytest.raises(StoreCorrupt, match="a text in it is no UTF-8")
    with damaged as found, translated(Path("/s/store.sqlite")):
        b"\xff".decode()
    assert found.value.hint == "What is affected: panic check --store /s"


def test_how_connections_are_set(folder, sample):
    with Store(folder, write=True) as writer, Store(folder) as reader:
        for store in (writer, reader):
            for database in (store.db, store.images):
                pragma = database.connection.pragma
                assert (pragma("cache_size"), pragma("busy_timeout")) == (-65536, 30_000)
        assert writer.db.connection.pragma("wal_autocheckpoint") == 4000


def test_a_transaction_is_undone_by_any_exception(folder, sample):
    with Store(folder, write=True) as store:
        before = list(dump.dump(store))
        with pytest.raises(ZeroDivisionError), store.transaction() as connection:  # noqa: PT012
            connection.execute("DELETE FROM stuck")
            raise ZeroDivisionError
        with pytest.raises(apsw.ConstraintError), store.transaction() as connection:
            connection.execute("UPDATE run SET max_length = 0")
        with pytest.raises(ZeroDivisionError), store.transaction() as connection:  # noqa: PT012
            connection.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
            raise ZeroDivisionError
        assert list(dump.dump(store)) == before
        revision = store.revision
        with store.transaction():
            pass
        assert store.revision == revision + 1
    refused = pytest.raises(StoreReadOnly, match="open for reading only")
    with Store(folder) as reader, refused, reader.transaction():
        pass


def test_a_state_of_the_file_is_seen_for_as_long_as_it_is_wanted(folder, sample):
    with Store(folder, write=True) as writer, Store(folder) as reader:
        with reader.db.snapshot():
            assert reader.db.value("SELECT count(*) FROM stuck") == 1
            writer.db.execute("DELETE FROM stuck")
            assert reader.db.value("SELECT count(*) FROM stuck") == 1
        assert reader.db.value("SELECT count(*) FROM stuck") == 0
        with pytest.raises(ZeroDivisionError), reader.db.snapshot():
            raise ZeroDivisionError
        with writer.transaction() as connection:
            connection.execute("DELETE FROM failure")
            with writer.db.snapshot():  # within a transaction it is that of the transaction, which goes on
                assert writer.db.value("SELECT count(*) FROM failure") == 0
            connection.execute("UPDATE run SET max_length = 99")
        assert reader.db.rows("SELECT DISTINCT max_length FROM run") == [(99,)]
        assert reader.db.value("SELECT 1 FROM failure") is None
        assert list(reader.db.stream("SELECT 1 UNION SELECT 2")) == [(1,), (2,)]


def test_a_copy_has_what_is_in_the_log(folder, sample, tmp_path):
    with Store(folder, write=True) as store:
        writing.add_model(store, "late", "fingerprint of late", {})
        assert has_content(log_of(folder / "store.sqlite"))
        copy_file(folder / "store.sqlite", tmp_path / "copy.sqlite")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute("SELECT count(*) FROM model WHERE name = 'late'").fetchone() == (1,)


def test_a_log_may_be_left_for_who_looks_for_it(folder, sample):
    with Store(folder, write=True) as store:
        writing.add_model(store, "late", "fingerprint of late", {})
        store.db.close(keep_log=True)
        assert has_content(log_of(folder / "store.sqlite"))
    with Store(folder, write=True):
        pass
    assert not has_content(log_of(folder / "store.sqlite"))


def test_a_lock_says_who_holds_it_and_is_empty_afterwards(tmp_path):
    assert names_a_holder(tmp_path)  # nothing is known of a store without one
    assert lock_holder(tmp_path) is None
    before = time.time()
    descriptor = take_lock(tmp_path)
    holder = lock_holder(tmp_path)
    assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
    assert before <= holder.started_at <= time.time()
    assert names_a_holder(tmp_path)
    with pytest.raises(StoreLocked, match=f"is being written by process {os.getpid()} on "):
        take_lock(tmp_path)
    os.ftruncate(descriptor, 0)
    with pytest.raises(StoreLocked, match="is being written by another process"):
        take_lock(tmp_path)
    assert lock_holder(tmp_path) is None
    give_lock_back(descriptor)
    assert not names_a_holder(tmp_path)
    (tmp_path / "lock").write_text("what a longer holder had written" * 9)
    descriptor = take_lock(tmp_path)
    assert lock_holder(tmp_path).pid == os.getpid()
    give_lock_back(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_reader_that_asks_who_drives_keeps_no_driver_out(tmp_path, monkeypatch):
    (tmp_path / "lock").touch()
    asking = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    waits = []

    def wait(seconds):
        if not waits:
            os.close(asking)
        waits.append(seconds)

    monkeypatch.setattr("panic.store.files.time.sleep", wait)
    give_lock_back(take_lock(tmp_path))
    assert len(waits) == 1


def test_a_lock_that_is_a_pipe_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / "lock")
    assert lock_holder(tmp_path) is None


def test_a_file_that_is_none_is_refused(folder, sample):
    (folder / "store.sqlite").unlink()
    os.mkfifo(folder / "store.sqlite")
    with pytest.raises(StoreError, match="is no file"):
        Store(folder)


def test_a_refused_lock_or_file_stays_open_nowhere(folder, sample, monkeypatch):
    """A process that tries again and again, as a view does, would run out of descriptors."""
    before = Held()
    descriptor = take_lock(folder)
    for _ in range(2):
        with pytest.raises(StoreLocked):
            take_lock(folder)
        assert lock_holder(folder).pid == os.getpid()
    assert len(before.new_files()) == 1
    give_lock_back(descriptor)

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    for name in ("fcntl.flock", "os.pwrite", "os.ftruncate"):
        with monkeypatch.context() as patched:
            patched.setattr(f"panic.store.files.{name}", refuse)
            with pytest.raises(OSError, match="No locks"):
                take_lock(folder)
        give_lock_back(take_lock(folder))  # it is free
    with contextlib.closing(sqlite3.connect(folder / "store.sqlite")) as other:
        other.execute("PRAGMA user_version = 99")
    refusals = []
    for refusal in (StoreTooNew, StoreCorrupt):
        for options in ({}, {"write": True}):
            with pytest.raises(refusal) as raised:
                Store(folder, **options)
            refusals.append(raised)  # whose frames keep what they had
        (folder / "store.sqlite").write_bytes(b"garbage " * 1000)
    assert lock_holder(folder) is None
    assert before.new_files() == set()


def test_a_lock_that_is_a_link_is_not_followed(folder, sample, tmp_path):
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="lock is a link"):
        take_lock(folder)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(StoreReadOnly, match="cannot be written: No such file"):
        take_lock(tmp_path / "nowhere")


def test_a_folder_within_a_store_is_made_once_and_is_no_link(tmp_path):
    assert own_folder(tmp_path, "logs") == own_folder(tmp_path, "logs") == tmp_path / "logs"
    assert (tmp_path / "logs").is_dir()
    (tmp_path / "reports").symlink_to(tmp_path / "logs")
    with pytest.raises(StoreError, match="reports is a link"):
        own_folder(tmp_path, "reports")
