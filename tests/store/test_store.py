"""What goes in comes out: experiments, runs, results, and what the engine asks."""

import shutil
import threading
import time

import apsw
import pytest

from panic.errors import NotFound, StoreError, StoreLocked, StoreMissing, StoreReadOnly
from panic.store import (
    Commit,
    NewInvocation,
    NewRun,
    Store,
    check,
    missing,
    reading,
    writing,
)
from panic.store.codec import text_digest
from tests.processes import Held
from tests.store.sample import NETWORK, batch, fill, output
from tests.store.test_migrate import build


def test_experiments_are_found_by_name_uid_and_latest(store, sample):
    alpha, beta = reading.experiments(store)
    assert [reading.experiment(store, name) for name in ("alpha", alpha.uid[:30], sample.alpha)] == [
        alpha
    ] * 3
    assert reading.experiment(store, "latest") == beta
    assert alpha.config == {"name": "alpha", "max_length": 6}
    with pytest.raises(NotFound, match="Did you mean alpha"):
        reading.experiment(store, "alhpa")
    with pytest.raises(NotFound, match=f"Several .*\n.*{alpha.uid} .alpha.*{beta.uid} .beta"):
        reading.experiment(store, alpha.uid[:6])


def test_latest_is_the_one_last_worked_on(writer, sample):
    writing.start_session(writer, sample.alpha, "panic resume alpha", {})
    assert reading.experiment(writer, "latest").name == "alpha"


def test_no_two_experiments_have_one_name(writer, sample):
    with pytest.raises(apsw.ConstraintError, match="UNIQUE"), writer.transaction() as connection:
        connection.execute("UPDATE experiment SET name = 'alpha' WHERE name = 'beta'")
    assert reading.named(writer, "alpha").id == sample.alpha
    assert reading.named(writer, "gamma") is None


def test_an_empty_store_has_no_latest(folder):
    with Store(folder, write=True, create=True) as store, pytest.raises(NotFound, match="no experiments yet"):
        reading.experiment(store, "latest")


def test_an_experiment_continues_and_grows(writer, sample):
    assert writing.start_experiment(writer, "alpha", {"max_length": 9}) == sample.alpha
    assert reading.experiment(writer, "alpha").config == {"max_length": 9}

    def asked(max_length, prompt="a"):
        return NewRun(network=NETWORK, prompt=prompt, seed=42, max_length=max_length)

    longer = writing.add_runs(writer, sample.alpha, [asked(3), asked(9, "new"), asked(9, "z")])
    assert (longer[0], longer[2]) == (sample.stuck, sample.failed)
    lengths = {run.id: run.max_length for run in reading.runs(writer, sample.alpha)}
    assert (lengths[sample.stuck], lengths[longer[1]], lengths[sample.failed]) == (6, 9, 9)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO output (digest, modality, text) VALUES (zeroblob(31), 'text', 'x')",
        "INSERT INTO output (digest, modality, text) VALUES (randomblob(32), 'text', '')",
        "INSERT INTO output (digest, modality) VALUES (randomblob(32), 'image')",
        "INSERT INTO output (digest, modality, text) VALUES (randomblob(32), 'sound', 'x')",
        "INSERT INTO output (digest, modality, text) SELECT digest, 'text', 'x' FROM output",
        "INSERT INTO invocation SELECT 99, step, input, output, seed, batch FROM invocation LIMIT 1",
        "INSERT INTO invocation SELECT run, 9, input, 99, seed, batch FROM invocation LIMIT 1",
        "INSERT INTO invocation SELECT run, 'x', input, output, seed, batch FROM invocation LIMIT 1",
        "INSERT INTO invocation SELECT run, 9, NULL, output, seed, batch FROM invocation LIMIT 1",
        "UPDATE embedding SET vector = zeroblob(5)",
        "UPDATE batch SET padded_size = 0",
        "UPDATE run SET seed = -2",
        "DELETE FROM output",
        "DELETE FROM batch",
    ],
)
def test_nonsense_is_refused_by_the_schema(writer, sql):
    with pytest.raises(apsw.ConstraintError):
        writer.db.connection.execute(sql)


def test_a_reader_does_not_write(store):
    with pytest.raises(StoreReadOnly, match="reading only"):
        writing.start_experiment(store, "x", {})


def test_reading_while_another_thread_writes(folder):
    with Store(folder, write=True, create=True) as writer, Store(folder) as reader:
        sample = fill(writer)
        session = writing.start_session(writer, sample.alpha, "x", {})
        (run,) = writing.add_runs(
            writer, sample.alpha, [NewRun(network=NETWORK, prompt="long", seed=-1, max_length=300)]
        )

        def write():
            before = text_digest("long")
            for step in range(300):
                while step - seen[-1] > 100 and not is_over.is_set():  # the reader may be slow
                    time.sleep(0.001)
                call = batch(writer, session, (sample.draw, sample.tell)[step % 2])
                made = output(f"text {step}")
                invocation = NewInvocation(run, step, before, made.digest, 0, call.id)
                writing.commit(writer, Commit(batches=[call], outputs=[made], invocations=[invocation]))
                before = made.digest

        seen, is_over = [0], threading.Event()
        thread = threading.Thread(target=write)
        thread.start()
        try:
            while thread.is_alive():
                number, digest = next(
                    (n, d) for id, n, d, *_ in missing.tails(reader, sample.alpha) if id == run
                )
                assert digest == text_digest(f"text {number - 1}" if number else "long")
                seen.append(number)
        finally:
            is_over.set()
            thread.join()
        assert seen == sorted(seen)
        assert len(set(seen)) > 2
        assert check.check(reader) == []


@pytest.mark.parametrize("name", ["store.sqlite", "images.sqlite", "lock"])
def test_files_that_are_gone_or_others_are_noticed(folder, writer, name):
    writer.require_in_place()
    file = folder / name
    file.rename(folder / "aside")
    with pytest.raises(StoreError, match=f"{name} was removed while"):
        writer.require_in_place()
    file.write_bytes((folder / "aside").read_bytes())
    with pytest.raises(StoreError, match=f"{name} was replaced by another file"):
        writer.require_in_place()
    (folder / "aside").replace(file)
    writer.require_in_place()


def test_a_store_is_closed_once_and_its_lock_given_back(folder, sample):
    first = Store(folder, write=True)
    assert first.lock_holder is not None
    first.close()
    assert first.lock_holder is None
    with Store(folder, write=True) as second:
        first.close()
        assert second.lock_holder is not None
        with pytest.raises(StoreLocked):
            Store(folder, write=True)


@pytest.mark.parametrize("options", [{}, {"write": True}, {"copy_older": True}])
def test_a_closed_store_holds_no_file(tmp_path, filled, options):
    """Neither of both, nor the lock, nor the copy that was read of an older store."""
    folder = tmp_path / "store"
    if "copy_older" in options:
        build(folder, "0004")
    else:
        shutil.copytree(filled[0], folder)
    before = Held()
    with Store(folder, **options) as store:
        assert store.images.value("SELECT count(*) FROM image")
        read = store.db.path
        assert {str(read), str(folder / "images.sqlite")} <= {name for _, name in before.new_files()}
    assert before.new_files() == set()
    assert read.exists() == (read.parent == folder)


def test_pixels_are_there_as_long_as_they_can_be_read(folder, sample):
    """Also in a file that somebody removed since it was opened."""
    with Store(folder) as first, Store(folder) as second:
        number = first.images.value("SELECT count(*) FROM image")
        (folder / "images.sqlite").unlink()
        assert (first.has_images, second.has_images) == (True, False)
        assert first.images.value("SELECT count(*) FROM image") == number


def test_a_change_that_fails_raises_no_revision(writer):
    before = writer.revision
    with pytest.raises(ValueError, match="no"), writer.transaction():
        raise ValueError("no")
    assert writer.revision == before
    with writer.transaction():
        pass
    assert writer.revision == before + 1


def test_where_a_store_may_be_created(tmp_path):
    (tmp_path / "file").write_text("x")
    for write in (False, True):
        with pytest.raises(StoreError, match="is a file; a store is a folder"):
            Store(tmp_path / "file", write=write, create=write)
    with pytest.raises(StoreMissing, match="There is no store at"):
        Store(tmp_path / "none")
    with pytest.raises(StoreMissing, match="There is no store at"):
        Store(tmp_path / "none", write=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(StoreMissing, match="holds other things, but no store"):
        Store(tmp_path)
    for name in "dcba":
        (tmp_path / name).touch()
    with pytest.raises(StoreError, match=r"holds other things \(a, b, c\), but no store"):
        Store(tmp_path, write=True, create=True)
    begun = tmp_path / "begun"
    (begun / "logs").mkdir(parents=True)
    Store(begun, write=True, create=True).close()
    with Store(begun) as store:
        assert (reading.experiments(store), store.is_copy, store.has_images) == ([], False, True)
