"""The files of a store: opening, locking, and what can be wrong with them.

A store is a folder on a local disk with `store.sqlite`, `images.sqlite` and a file `lock`: locked, with a
process number, while a driver writes results, and empty once it has closed the files. SQLite's write-ahead
log needs shared memory between the processes that use a file, which network file systems do not have; there
it corrupts, so drivers are refused. What nobody writes (a snapshot, an archive) is read there as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from panic.errors import StoreCorrupt, StoreError, StoreLocked, StoreMissing, StoreReadOnly
from panic.store import migrate

BUSY_TIMEOUT_S = 30.0
CACHE_KIB = 64 * 1024
FLAGS = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
CHECKPOINT_PAGES = 4000
NETWORK_FILE_SYSTEMS = re.compile(
    r"(nfs\d?|cifs|smb\w*|afs|ncpfs|9p|ceph|lustre|gpfs|beegfs\w*|glusterfs|orangefs|pvfs2|davfs"
    r"|fuse\.(sshfs|glusterfs|ceph\w*|s3fs|rclone|davfs2?|gcsfuse|goofys|juicefs|cifs|smbnetfs|beegfs))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """The process that writes results into a store."""

    pid: int
    host: str
    started_at: float


class Database:
    """One SQLite file: plain tuples out, transactions in, errors translated into ours.

    Used by one thread at a time, which need not be the one that opened it. Nothing in the file is trusted:
    its schema is ours or refused, and what is in it can call nothing (`trusted_schema=OFF`, defensive mode).

    is_whole: refuse a file that lacks tables, too.
    """

    def __init__(
        self, path: Path, kind: str, *, write: bool, synchronous: str = "NORMAL", is_whole: bool = True
    ) -> None:
        self.path = path
        self.write = write
        refuse_link(path)
        if path.exists() and not path.is_file():  # SQLite would wait for ever at a FIFO
            raise StoreError(f"{path} is no file.", hint="A store is a folder of files: copy it whole.")
        with translated(path):
            self.connection = _open_writer(path, synchronous) if write else _open_reader(path)
        try:
            with translated(path):
                if write:
                    migrate.migrate(self.connection, kind, path)
                else:
                    migrate.require_current(self.connection, kind, path, is_whole=is_whole)
        except BaseException:
            self.connection.close()
            raise

    def rows(self, sql: str, *parameters: object) -> list[Any]:
        """All rows of a query."""
        with translated(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def stream(self, sql: str, *parameters: object) -> Iterator[Any]:
        """The rows of a query one by one, for results that may not fit into memory."""
        with translated(self.path):
            yield from self.connection.execute(sql, parameters)

    def row(self, sql: str, *parameters: object) -> Any:
        """The first row of a query, or None."""
        with translated(self.path):
            return self.connection.execute(sql, parameters).fetchone()

    def value(self, sql: str, *parameters: object) -> Any:
        """The first column of the first row of a query, or None."""
        row = self.row(sql, *parameters)
        return row and row[0]

    def insert(self, sql: str, *parameters: object) -> int:
        """Insert one row inside a transaction and return its row number."""
        self.connection.execute(sql, parameters)
        return self.connection.last_insert_rowid()

    def raise_revision(self) -> None:
        """Count a change of the store, inside its transaction."""
        self.connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'revision'")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """One transaction: committed at the end, undone by any exception."""
        if not self.write:
            raise StoreReadOnly(
                f"{self.path.parent} is open for reading only.", hint="Open it with Store(path, write=True)."
            )
        with translated(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All queries within see one state of the file, as in a transaction they do anyway."""
        if self.connection.in_transaction:
            yield
            return
        self.execute("BEGIN")
        try:
            yield
        finally:
            self.execute("ROLLBACK")

    def execute(self, sql: str) -> None:
        """Run a statement outside transactions."""
        with translated(self.path):
            self.connection.execute(sql)

    def foreign_keys(self, *, on: bool) -> None:
        """Switch the enforcement of foreign keys, between transactions."""
        self.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")

    def close(self, *, keep_log: bool = False) -> None:
        """Close the file; a writer first moves its log into the file, unless a reader is in the way.

        keep_log: leave the log as it is; a log that a killed driver left tells `panic check` of the kill.
        """
        if keep_log:
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        elif self.write:
            with contextlib.suppress(apsw.Error):  # then the log stays, and nothing is lost
                self.connection.set_busy_timeout(100)
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()


def address(path: Path, query: str) -> str:
    """A file as SQLite's URIs name it, also where its name is no UTF-8."""
    return f"file:{quote(os.fsencode(path.absolute()))}?{query}"


def connect(path: Path, query: str = "mode=rwc") -> apsw.Connection:
    """A connection to a file that need not be trusted; the query of its URI says how it is opened."""
    connection = apsw.Connection(address(path, query), flags=FLAGS)
    connection.set_busy_timeout(int(BUSY_TIMEOUT_S * 1000))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.execute("PRAGMA cell_size_check=ON")
    return connection


def _open_writer(path: Path, synchronous: str) -> apsw.Connection:
    connection = connect(path, "mode=rwc")
    try:
        if connection.readonly("main"):  # SQLite's silent answer to missing permission
            raise apsw.ReadOnlyError("no permission")
        for pragma in (
            "page_size=16384",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "foreign_keys=ON",
            f"cache_size=-{CACHE_KIB}",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _open_reader(path: Path) -> apsw.Connection:
    """A read-only connection; in a folder where the shared memory file cannot be made, an immutable one.

    So on a network file system, where a log beside the file says that it is no snapshot: somebody writes it.
    """
    if kind := network_file_system(path.parent):
        if has_content(log_of(path)):
            raise StoreReadOnly(
                f"{path} is on a network file system ({kind}) with a log beside it: it was being written.",
                hint="Read it where it is written, or take a snapshot there: panic snapshot STORE TARGET.",
            )
        return _prepared_reader(path, "mode=ro&immutable=1")
    try:
        return _prepared_reader(path, "mode=ro")
    except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK:
            # Only the first header has a journal.
            raise StoreMissing(
                f"{path} was never finished being created: the machine stopped meanwhile.",
                hint="The command that was creating it finishes it when it is run again.",
            ) from error
        log = log_of(path)
        if has_content(log):
            raise StoreReadOnly(
                f"{path.parent} cannot be written, and {log.name} has changes that {path.name} lacks.",
                hint="Copy the folder to where it can be written, and read it there.",
            ) from error
        return _prepared_reader(path, "mode=ro&immutable=1")


def _prepared_reader(path: Path, query: str) -> apsw.Connection:
    connection = connect(path, query)
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def log_of(path: Path) -> Path:
    """SQLite's write-ahead log of a file."""
    return path.with_name(f"{path.name}-wal")


def has_content(path: Path) -> bool:
    """Whether a file is there and not empty; readers leave empty logs behind."""
    return path.exists() and path.stat().st_size > 0


def copy_file(path: Path, to: Path) -> None:
    """Copy an SQLite file as it is at one moment, whoever writes it; the log beside it included."""
    with (
        translated(path),
        contextlib.closing(_open_reader(path)) as source,
        translated(to),
        contextlib.closing(connect(to)) as target,
        target.backup("main", source, "main") as copy,
    ):
        copy.step()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what can happen to a file into a StoreError; our own mistakes stay apsw errors."""
    try:
        yield
    except apsw.Error as error:
        problem = _explain(error, path)
        if problem is None:
            raise
        raise problem from error
    except UnicodeDecodeError as error:
        raise StoreCorrupt(
            f"{path} is damaged: a text in it is no UTF-8 ({error.reason}).",
            hint=f"What is affected: panic check --store {path.parent}",
        ) from error


def _explain(error: apsw.Error, path: Path) -> StoreError | None:
    match error:
        case apsw.NotADBError():
            is_ours = "Is this the right path? A damaged store has to come from a backup."
            return StoreCorrupt(f"{path} is not a database.", hint=_new_images(path) or is_ours)
        case apsw.CorruptError():
            affected = f"It has to come from a backup. What is affected: panic check --store {path.parent}"
            return StoreCorrupt(f"{path} is damaged: {error}.", hint=_new_images(path) or affected)
        case apsw.SQLError() if "unsupported file format" in str(error):  # a flipped bit in its header
            return StoreCorrupt(
                f"{path} is damaged: {error}.", hint=_new_images(path) or "Take it from a backup."
            )
        case apsw.SQLError() if "malformed JSON" in str(error):  # of a column; what we ask with is JSON
            return StoreCorrupt(
                f"{path} is damaged: what should be JSON in it is none.",
                hint=f"What is affected: panic check --store {path.parent}",
            )
        case apsw.FullError():
            return StoreError(
                f"No space left for {path}. Nothing that was stored is lost.",
                hint="Make room on the disk and run the same command again; it continues where it stopped.",
            )
        case apsw.ReadOnlyError():
            return StoreReadOnly(
                f"{path} cannot be written: {error}.",
                hint="Check the permissions of the folder and its files.",
            )
        case apsw.BusyError() | apsw.LockedError():
            return StoreLocked(
                f"{path} was in use by another process for {BUSY_TIMEOUT_S:.0f} s: {error}.",
                hint="Wait for it, then run the same command again; what was computed is stored.",
            )
        case apsw.CantOpenError() | apsw.IOError() | apsw.PermissionsError():
            return StoreError(
                f"{path} cannot be used: {error}.",
                hint="Check the permissions of the folder, and the free space and health of the disk.",
            )
    return None


def _new_images(path: Path) -> str:
    """How to mend a damaged file, if it is the one of pixels."""
    if path.name != "images.sqlite":
        return ""
    return "Move it away: performing an experiment again (panic resume) computes its images again."


def refuse_link(path: Path) -> None:
    """Raise StoreError where a store's own file or folder is a link: it may lead anywhere."""
    if path.is_symlink():
        raise StoreError(
            f"{path} is a link, which may lead out of the store.",
            hint="Put what it leads to in its place. The folder of a store itself may be a link.",
        )


def own_folder(store: Path, name: str) -> Path:
    """A folder in a store, made if it is not there. Raises StoreError if it is a link."""
    folder = store / name
    refuse_link(folder)
    folder.mkdir(exist_ok=True)
    return folder


def take_lock(folder: Path) -> int:
    """Become the driver of a store: the descriptor of its locked file. StoreLocked names the other one.

    The kernel releases the lock when the process ends, however it ends.
    """
    refuse_link(folder / "lock")
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / "lock", flags, 0o666)
    except OSError as error:
        raise StoreReadOnly(f"{folder} cannot be written: {error.strerror}.") from error
    deadline = time.monotonic() + 0.2  # a reader that asks for the driver holds the lock for microseconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            holder = _read_holder(descriptor)
            os.close(descriptor)
            who = f"process {holder.pid} on {holder.host}" if holder else "another process"
            raise StoreLocked(
                f"{folder} is being written by {who}.",
                hint="Wait for it, stop it, or use another store. Reading is possible meanwhile.",
            ) from None
        except OSError:
            os.close(descriptor)
            raise
    try:
        there = os.stat(folder / "lock", follow_symlinks=False)
    except OSError:
        there = None
    ours = os.fstat(descriptor)
    if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
        os.close(descriptor)  # of a store that was refused and went again meanwhile
        return take_lock(folder)
    content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()})
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)
    except OSError:  # the disk is full: who is not told to have the lock does not hold it
        os.close(descriptor)
        raise
    return descriptor


def give_lock_back(descriptor: int) -> None:
    """Let another driver in. An empty lock file says that the store's files were closed in order."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def names_a_holder(folder: Path) -> bool:
    """Whether the last driver has not closed the store, or has not yet; True where there is no lock file."""
    lock = folder / "lock"
    return not lock.exists() or has_content(lock)


def lock_holder(folder: Path) -> LockHolder | None:
    """The process that writes results into the store now, if there is one."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a FIFO, too
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)


def _read_holder(descriptor: int) -> LockHolder | None:
    try:
        return LockHolder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError, RecursionError):
        return None  # it has just taken the lock and not yet written who it is


def file_system(path: Path, mounts: str) -> str:
    """Type of the file system that holds an absolute path, from the text of /proc/mounts; "" if unknown."""
    best, found = -1, ""
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point)
        if path.is_relative_to(point) and len(point) >= best:  # a later mount hides an earlier one
            best, found = len(point), kind
    return found


def network_file_system(folder: Path) -> str:
    """The kind of network file system that a folder is on, or would be created on; "" on a local disk."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # only Linux tells
    kind = file_system(Path(os.path.realpath(folder)), mounts)
    return kind if NETWORK_FILE_SYSTEMS.fullmatch(kind) else ""


def refuse_network(folder: Path) -> None:
    """Raise StoreError if a driver would write into a folder on a network file system."""
    if kind := network_file_system(folder):
        raise StoreError(
            f"{folder} is on a network file system ({kind}), where SQLite's write-ahead log corrupts.",
            hint="Put the store on a local disk (--store PATH or PANIC_STORE) and copy it there while it is"
            " written and when it is done: panic snapshot STORE TARGET.",
        )
