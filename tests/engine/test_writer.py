"""The writer and the content cache against a real store, and a disk that is full."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panic.engine.contents import ContentCache, Output, finish, size_bytes
from panic.engine.writer import (
    COMMIT_EVERY_S,
    COMMIT_ROWS,
    MERGED_COMMITS,
    QUEUED_COMMITS,
    Writer,
    _chunks,
    _num_bytes,
)
from panic.errors import StoreError
from panic.models.protocol import Modality
from panic.store import Commit, Store, check, contents, writing
from panic.store.codec import encode_image, image_digest, text_digest
from panic.store.records import NewEmbedding, NewInvocation, NewOutput, NewStuck
from tests.patience import LONGEST_S


def noise_image(seed: int, size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def image_output(seed: int) -> Output:
    output = finish(noise_image(seed), Modality.IMAGE, False)
    assert isinstance(output, Output)
    return output


def test_commits_are_stored_in_order_and_flush_waits_for_them(tmp_path: Path) -> None:
    saved: list[bytes] = []
    outputs = [image_output(seed) for seed in range(20)]
    with Store(tmp_path / "s", write=True, create=True) as store:
        writer = Writer(partial(writing.commit, store), saved.append)
        for output in outputs:
            writer.add(Commit(outputs=[output.as_row()]))
        writer.flush()
        assert saved == [output.digest for output in outputs]
        for output in outputs:
            assert contents.image(store, output.digest).tobytes() == output.value.tobytes()
        writer.close()


def test_images_of_one_commit_are_encoded_apart_and_keep_their_places(tmp_path: Path) -> None:
    """Among them one that is encoded already, and a text."""
    outputs = [image_output(seed) for seed in range(19)]
    rows = [output.as_row() for output in outputs]
    rows[3] = replace(rows[3], image=encode_image(outputs[3].value))
    rows.insert(7, NewOutput(digest=text_digest("x"), modality="text", text="x"))
    with Store(tmp_path / "s", write=True, create=True) as store:
        writer = Writer(partial(writing.commit, store), lambda digest: None)
        writer.add(Commit(outputs=rows))
        writer.close()
        for output in outputs:
            assert contents.image(store, output.digest).tobytes() == output.value.tobytes()
        assert contents.text(store, text_digest("x")) == "x"


def add_many(writer: Writer, count: int) -> None:
    for seed in range(count):
        writer.add(Commit(outputs=[image_output(seed).as_row()]))
        writer.flush()


def test_a_full_disk_is_told_and_what_was_stored_stays(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        store.images.connection.execute("PRAGMA max_page_count = 20")
        saved: list[bytes] = []
        writer = Writer(partial(writing.commit, store), saved.append)
        with pytest.raises(StoreError, match="full"):
            add_many(writer, 200)
        with pytest.raises(StoreError, match="full"):
            writer.add(Commit())
        writer.close()
        assert 0 < len(saved) < 200
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        for digest in saved:
            assert image_digest(contents.image(store, digest)) == digest


def test_contents_waiting_for_the_writer_are_held_beyond_the_budget() -> None:
    def read(digest: bytes, modality: Modality) -> str:
        raise AssertionError("not in the store yet")

    cache = ContentCache(0, read)
    image = noise_image(1)
    cache.add_unsaved(b"a", image)
    cache.add_unsaved(b"a", image)
    cache.saved(b"a")
    assert cache.get(b"a", Modality.IMAGE) is image
    cache.saved(b"a")
    with pytest.raises(AssertionError):
        cache.get(b"a", Modality.IMAGE)


def test_the_budget_holds_and_the_least_recently_used_goes_first() -> None:
    reads: list[bytes] = []

    def read(digest: bytes, modality: Modality) -> Image.Image:
        reads.append(digest)
        return noise_image(digest[0])

    cache = ContentCache(2 * size_bytes(noise_image(0)), read)
    for key in (b"\0", b"\1", b"\0", b"\2", b"\0", b"\1"):
        cache.get(key, Modality.IMAGE)
        assert cache.saved_bytes <= 2 * size_bytes(noise_image(0))
    assert reads == [b"\0", b"\1", b"\2", b"\1"]


# What may wait


class Gate:
    """A store that stores only when it is open; what it was given, and when."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.commits: list[Commit] = []

    def __call__(self, commit: Commit) -> None:
        assert self.is_open.wait(30)
        self.commits.append(commit)


def large(number: int) -> Commit:
    """100 MiB of pixels, by what it says of itself."""
    digest = text_digest(str(number))
    row = NewOutput(digest=digest, modality="image", width=5120, height=6827, image=b"encoded")
    return Commit(outputs=[row])


def add_all(writer: Writer, commits: list[Commit]) -> threading.Thread:
    def work() -> None:
        for commit in commits:
            writer.add(commit)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def added_beyond(writer: Writer, least: int) -> int:
    """How many commits are added, a while after there were so many: whoever adds them may be slow."""
    while writer.added < least:
        time.sleep(0.01)
    time.sleep(0.2)
    return writer.added


def test_only_so_many_bytes_wait_and_they_are_given_back() -> None:
    gate = Gate()
    writer = Writer(gate, lambda digest: None)
    thread = add_all(writer, [large(number) for number in range(12)])
    # 256 MiB may wait: after three of 100 MiB there is too much.
    assert added_beyond(writer, 3) == 3
    gate.is_open.set()
    thread.join(LONGEST_S)
    assert not thread.is_alive(), "what is stored makes room"
    writer.flush()
    assert writer.committed == writer.added == 12
    writer.close()


def test_texts_count_too() -> None:
    gate = Gate()
    writer = Writer(gate, lambda digest: None)
    text = "x" * (70 * 2**20)
    row = NewOutput(digest=text_digest("x"), modality="text", text=text)
    thread = add_all(writer, [Commit(outputs=[row]) for _ in range(4)])
    assert added_beyond(writer, 2) == 2  # 140 MiB each
    gate.is_open.set()
    thread.join(LONGEST_S)
    assert not thread.is_alive()
    writer.close()


def test_only_so_many_commits_wait() -> None:
    gate = Gate()
    writer = Writer(gate, lambda digest: None)
    thread = add_all(writer, [Commit() for _ in range(3 * QUEUED_COMMITS)])
    assert added_beyond(writer, QUEUED_COMMITS) == QUEUED_COMMITS
    gate.is_open.set()
    thread.join(LONGEST_S)
    assert not thread.is_alive()
    writer.close()
    assert writer.committed == 3 * QUEUED_COMMITS


def test_several_commits_are_one_transaction_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panic.engine.writer.COMMIT_EVERY_S", 3600.0)  # a busy machine brings them late
    gate = Gate()
    writer = Writer(gate, lambda digest: None)
    runs = range(QUEUED_COMMITS)
    for run in runs:
        writer.add(Commit(stuck=[NewStuck(run=run, entry_step=0, period=1)]))
    gate.is_open.set()
    writer.close()
    assert [row.run for commit in gate.commits for row in commit.stuck] == list(runs)
    assert len(gate.commits[0].stuck) == MERGED_COMMITS
    assert 2 <= len(gate.commits) <= 4


def test_what_comes_within_a_moment_is_stored_together() -> None:
    gate = Gate()
    gate.is_open.set()
    writer, began = Writer(gate, lambda digest: None), time.monotonic()
    for _ in range(12):
        writer.add(Commit())
        time.sleep(0.002)
    moments = (time.monotonic() - began) // COMMIT_EVERY_S  # one of them, unless the machine is busy
    while writer.committed < 12:
        time.sleep(0.01)
    assert len(gate.commits) <= moments + 2
    writer.close()


def test_many_rows_are_not_gathered_further() -> None:
    gate = Gate()
    writer = Writer(gate, lambda digest: None)
    rows = [NewInvocation(1, step, b"", b"", 0, 1) for step in range(COMMIT_ROWS)]
    for _ in range(3):
        writer.add(Commit(invocations=rows))
    gate.is_open.set()
    writer.close()
    assert [len(commit.invocations) for commit in gate.commits] == [COMMIT_ROWS] * 3


def test_a_flush_does_not_wait_for_more_to_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if what gathers may do so for an hour; without one it does, and not for long."""
    gate = Gate()
    gate.is_open.set()
    monkeypatch.setattr("panic.engine.writer.COMMIT_EVERY_S", 3600.0)
    writer = Writer(gate, lambda digest: None)
    for _ in range(8):
        writer.add(Commit())
        writer.flush()
    assert len(gate.commits) == 8
    monkeypatch.undo()
    writer.add(Commit())
    while writer.committed < 9:
        time.sleep(0.01)
    assert len(gate.commits) == 9
    writer.close()


def test_numbers_of_commits_count_from_one() -> None:
    gate = Gate()
    gate.is_open.set()
    writer = Writer(gate, lambda digest: None)
    assert [writer.add(Commit()) for _ in range(3)] == [1, 2, 3]
    writer.close()
    assert writer.committed == 3


def test_what_is_urgent_is_stored_by_whoever_brings_it_where_nothing_waits() -> None:
    threads: list[str] = []
    saved: list[bytes] = []
    writer = Writer(lambda commit: threads.append(threading.current_thread().name), saved.append)
    woken: list[str] = []
    writer.on_urgent = lambda: woken.append(threading.current_thread().name)
    text = NewOutput(digest=text_digest("x"), modality="text", text="x")
    assert writer.add(Commit(outputs=[text]), is_urgent=True) == writer.committed == 1
    assert (threads, saved) == ([threading.current_thread().name], [text.digest])
    assert woken == [], "who brought it knows"
    writer.add(Commit(outputs=[image_output(1).as_row()]), is_urgent=True)  # it has to be encoded
    writer.close()
    assert threads[1:] == woken == ["writer"]


def test_what_is_urgent_is_stored_behind_what_waits() -> None:
    gate = Gate()
    writer = Writer(gate, lambda digest: None)
    rows = [NewInvocation(run, 0, b"", b"", 0, 1) for run in (1, 2)]
    writer.add(Commit(invocations=rows[:1]))
    writer.add(Commit(invocations=rows[1:]), is_urgent=True)
    assert writer.committed == 0
    gate.is_open.set()
    writer.close()
    assert [row for commit in gate.commits for row in commit.invocations] == rows


def test_what_storing_at_once_raises_is_raised_in_every_call_after_it() -> None:
    def fail(commit: Commit) -> None:
        raise StoreError("full")

    writer = Writer(fail, lambda digest: None)
    for _ in range(2):
        with pytest.raises(StoreError, match="full"):
            writer.add(Commit(), is_urgent=True)
    assert (writer.added, writer.committed) == (1, 0)
    writer.close()


def test_what_writing_raises_is_raised_in_every_call_after_it() -> None:
    def fail(commit: Commit) -> None:
        raise StoreError("full")

    writer = Writer(fail, lambda digest: None)
    writer.add(Commit())
    with pytest.raises(StoreError, match="full"):
        writer.flush()
    with pytest.raises(StoreError, match="full"):
        writer.add(Commit())
    assert (writer.added, writer.committed) == (1, 0)
    writer.close()


def test_what_a_store_refuses_is_left_out_and_known_from_then_on() -> None:
    """An output that was refused once is not tried again, and its run has ended."""
    tried: list[bytes] = []

    def refuse(commit: Commit) -> None:
        tried.extend(row.digest for row in commit.outputs)
        if any(row.digest == b"bad" for row in commit.outputs):
            raise ValueError("bad")

    saved: list[bytes] = []
    writer = Writer(refuse, saved.append)
    rows = {name: NewOutput(digest=name, modality="text", text="x") for name in (b"bad", b"good", b"more")}
    steps = [NewInvocation(1, 0, b"", b"bad", 0, 1), NewInvocation(2, 0, b"", b"good", 0, 1)]
    writer.add(Commit(outputs=[rows[b"bad"], rows[b"good"]], invocations=steps))
    writer.flush()
    assert (saved, writer.broken, writer.committed) == ([b"good"], {1}, 1)
    assert tried.count(b"bad") == 2, "with the others, and alone"
    writer.add(Commit(outputs=[rows[b"bad"], rows[b"more"]]))
    writer.close()
    assert (writer.error, saved, writer.committed) == (None, [b"good", b"more"], 2)
    assert tried.count(b"bad") == 2
    assert (writer.incomplete, writer.problems) == (set(), [])


def test_what_writing_raises_is_raised_where_an_image_waits_for_room() -> None:
    is_full = threading.Event()

    def fail(commit: Commit) -> None:
        assert is_full.wait(30)
        raise StoreError("full")

    writer = Writer(fail, lambda digest: None)
    for number in range(3):
        writer.add(large(number))
    threading.Timer(0.2, is_full.set).start()
    with pytest.raises(StoreError, match="full"):
        writer.add(large(3))
    assert writer.added == 3
    writer.close()


def test_a_commit_of_which_a_row_is_missing_is_told_by_its_number() -> None:
    def refuse(commit: Commit) -> None:
        if commit.embeddings:
            raise ValueError("no")

    writer = Writer(refuse, lambda digest: None)
    writer.add(Commit())
    writer.flush()
    row = NewEmbedding(output=b"x", model=1, batch=1, vector=np.zeros(2, dtype=np.float32))
    writer.add(Commit(embeddings=[row]))
    writer.close()
    assert (writer.incomplete, writer.problems) == ({2}, ["ValueError: no"])


@pytest.mark.parametrize(("cores", "encoders"), [(None, 1), (1, 1), (3, 3), (8, 8), (64, 8)])
def test_a_thread_for_each_core_encodes_and_no_more_than_eight(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, encoders: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    writer = Writer(lambda commit: None, lambda digest: None)
    assert (writer._num_encoders, writer._encoders._max_workers) == (encoders, encoders)
    writer.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        writer._encoders.submit(len, "")


@pytest.mark.parametrize(
    ("count", "chunks"), [(0, []), (1, [1]), (3, [1, 1, 1]), (4, [2, 2]), (7, [3, 3, 1]), (9, [3, 3, 3])]
)
def test_images_of_a_commit_are_parted_among_the_threads(count: int, chunks: list[int]) -> None:
    images = [noise_image(0)] * count
    assert [len(chunk) for chunk in _chunks(images, 3)] == chunks


def test_bytes_that_wait_are_those_of_pixels_and_texts() -> None:
    rows = [
        NewOutput(digest=b"a", modality="image", width=5, height=7, image=b"x"),
        NewOutput(digest=b"b", modality="text", text="x" * 11),
        NewOutput(digest=b"c", modality="text"),
    ]
    assert _num_bytes(Commit(outputs=rows)) == 3 * 5 * 7 + 2 * 11
    assert _num_bytes(Commit()) == 0


def test_what_is_stored_is_no_longer_counted_as_waiting() -> None:
    writer = Writer(lambda commit: None, lambda digest: None)
    writer.add(large(1))
    writer.flush()
    assert writer._num_bytes == 0
    writer.add(Commit(outputs=[NewOutput(digest=b"b", modality="text", text="x" * 11)]), is_urgent=True)
    assert writer._num_bytes == 0
    writer.close()


def test_the_images_of_what_is_refused_are_known_to_be_stored_or_not() -> None:
    """Those that wait together with it, and the numbers of their commits."""
    gate = threading.Event()

    def refuse(commit: Commit) -> None:
        assert gate.wait(LONGEST_S)
        if any(row.digest == b"bad" for row in commit.outputs) or commit.embeddings:
            raise ValueError("bad")

    saved: list[bytes] = []
    writer = Writer(refuse, saved.append)
    row = NewEmbedding(output=b"x", model=1, batch=1, vector=np.zeros(2, dtype=np.float32))
    for name in (b"one", b"bad", b"two"):
        writer.add(Commit(outputs=[NewOutput(digest=name, modality="text", text="x")]))
    writer.add(Commit(embeddings=[row]))
    gate.set()
    writer.close()
    assert (saved, writer.committed, writer.incomplete) == ([b"one", b"two"], 4, {4})


def test_what_was_refused_once_is_known_when_another_row_is_refused() -> None:
    tried: list[bytes] = []

    def refuse(commit: Commit) -> None:
        tried.extend(row.digest for row in commit.outputs)
        if any(row.digest.startswith(b"bad") for row in commit.outputs):
            raise ValueError("bad")

    saved: list[bytes] = []
    writer = Writer(refuse, saved.append)
    first, other, good = (NewOutput(digest=d, modality="text", text="x") for d in (b"bad", b"bad 2", b"good"))
    for rows in ([first], [first, other, good], [first, other]):
        writer.add(Commit(outputs=rows))
        writer.flush()
    writer.close()
    assert [tried.count(digest) for digest in (b"bad", b"bad 2")] == [2, 2], "with the others, and alone"
    assert saved == [b"good"]
