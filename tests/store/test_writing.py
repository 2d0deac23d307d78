"""What the driver writes: all of it or nothing, each thing once."""

import contextlib
import os
import time

import apsw
import numpy as np
import pytest

from panic.errors import Interrupted, StoreError
from panic.store import (
    Commit,
    NewDiagram,
    NewEmbedding,
    NewFailure,
    NewInvocation,
    NewRun,
    Store,
    check,
    contents,
    delete,
    dump,
    images,
    indexing,
    missing,
    reading,
    summaries,
    writing,
)
from panic.store.codec import image_digest, text_digest
from panic.store.missing import Shared
from panic.store.records import NewEpoch, NewIntervention, NewRepeated, NewSpending
from panic.store.writing import new_uid
from tests.store.sample import NETWORK, batch, output, picture, remark, steps


def test_a_model_is_its_fingerprint(writer, sample):
    assert writing.add_model(writer, "paint", "fingerprint of draw", {}) == sample.draw
    assert reading.model(writer, "draw").spec == {"name": "draw"}


def test_epochs_are_numbered_per_name(writer, sample):
    number = writing.add_epoch(
        writer, sample.alpha, "draw", model=sample.draw, batch_size=4, device_kind="cpu"
    )
    assert number == 1
    epochs = {(row.name, row.number): row for row in reading.epochs(writer, "alpha")}
    assert set(epochs) == {("draw", 0), ("draw", 1), ("tell", 0), ("embed", 0)}
    assert (epochs["draw", 1].batch_size, epochs["draw", 0].batch_size) == (4, 8)
    assert epochs["draw", 0].fingerprint == "fingerprint of draw"


def test_a_session_that_never_ended_was_killed(writer, sample):
    assert [row.end_state for row in reading.sessions(writer)] == ["done", None]
    writing.start_session(writer, sample.beta, "again", {"git": None})
    assert [row.end_state for row in reading.sessions(writer)] == ["done", "killed", None]
    assert [row.command for row in reading.sessions(writer, "beta")] == ["panic run beta.yaml", "again"]
    assert reading.sessions(writer, "beta")[-1].provenance == {"git": None}


def test_the_first_vector_stays(writer, sample):
    call = batch(writer, 1, sample.embed)
    again = NewEmbedding(output=text_digest("b"), model=sample.embed, batch=call.id, vector=np.zeros(3))
    writing.commit(writer, Commit(batches=[call], embeddings=[again]))
    found = contents.vectors(writer, "embed")
    assert found.vectors[found.digests.index(text_digest("b").hex())].tolist() == [ord("b")] * 3


def test_outputs_that_are_known_keep_their_rows(folder, sample):
    known = store_rows(folder)
    with Store(folder, write=True) as store:  # a new driver knows no digest yet
        session = writing.start_session(store, sample.alpha, "again", {})
        contents = [picture(1), "b", picture(9), "b"]
        writing.commit(
            store, steps(store, session, (sample.draw, sample.tell), sample.untouched, "untouched", contents)
        )
        (problem,) = check.check(store)
        assert problem.startswith(f"run {sample.untouched}: stuck is recorded as not stuck")
    new = store_rows(folder)
    assert {digest: row for digest, row in new.items() if digest in known} == known
    assert set(new) - set(known) == {image_digest(picture(9))}


def store_rows(folder):
    with Store(folder) as store:
        return dict(store.db.rows("SELECT digest, id FROM output"))


def test_a_commit_is_all_or_nothing(writer, sample):
    before = list(dump.dump(writer))
    session = writing.start_session(writer, sample.alpha, "again", {})
    commit = steps(writer, session, (sample.draw, sample.tell), sample.untouched, "untouched", [picture(7)])
    commit.invocations.append(NewInvocation(sample.stuck, 0, text_digest("a"), text_digest("b"), 42, 1))
    with pytest.raises(apsw.ConstraintError):
        writing.commit(writer, commit)
    assert list(dump.dump(writer)) == before
    del commit.invocations[1:]
    writing.commit(writer, commit)  # and what it had numbered for itself was forgotten
    assert missing.tails(writer, sample.alpha)[-1][:3] == (sample.untouched, 1, image_digest(picture(7)))
    assert check.check(writer) == []


def test_every_change_raises_the_revision(writer, sample):
    changes = [
        lambda: writing.start_experiment(writer, "gamma", {}),
        lambda: writing.add_model(writer, "new", "new", {}),
        lambda: writing.add_epoch(writer, sample.beta, "new", model=1, batch_size=1, device_kind="cpu"),
        lambda: writing.add_runs(writer, sample.beta, []),
        lambda: writing.start_session(writer, sample.beta, "x", {}),
        lambda: writing.end_session(writer, 1, "done"),
        lambda: writing.commit(writer, Commit()),
        lambda: writing.forget_failures(writer, sample.alpha),
        lambda: remark(writer, "gamma", "a remark"),
        lambda: delete.delete_experiment(writer, "gamma"),
    ]
    with Store(writer.path) as reader:
        for change in changes:
            before = reader.revision
            change()
            assert reader.revision == before + 1


def test_failed_runs_can_be_tried_again(writer, sample):
    assert writing.forget_failures(writer, sample.alpha) == 1
    assert {run.id: run.state for run in reading.runs(writer)}[sample.failed] == "running"


def test_inputs_that_left_the_memory_of_the_driver_are_found(writer, sample, monkeypatch):
    monkeypatch.setattr(writing, "DIGEST_CACHE_SIZE", 2)
    session = writing.start_session(writer, sample.alpha, "x", {})
    before = text_digest("untouched")
    for step in range(6):
        call = batch(writer, session, (sample.draw, sample.tell)[step % 2])
        made = [output(f"{step}.{number}") for number in range(4)]
        invocation = NewInvocation(sample.untouched, step, before, made[0].digest, 42, call.id)
        writing.commit(writer, Commit(batches=[call], outputs=made, invocations=[invocation]))
        assert len(writer.output_ids) == 2
        assert made[0].digest not in writer.output_ids
        before = made[0].digest
    assert check.check(writer) == []


def test_the_same_output_many_times_in_one_commit(writer, sample):
    session = writing.start_session(writer, sample.alpha, "x", {})
    (run,) = writing.add_runs(
        writer, sample.alpha, [NewRun(network=NETWORK, prompt="y", seed=-1, max_length=6)]
    )
    made = [picture(7), "e", picture(7), "f", picture(7), "e"]
    writing.commit(writer, steps(writer, session, (sample.draw, sample.tell), run, "y", made, seed=3))
    assert len(contents.outputs(writer, run=run)) == 4
    assert check.check(writer) == []


def test_uids_sort_by_time():
    """As their first twelve digits are milliseconds."""
    before = time.time_ns() // 10**6
    first = new_uid()
    time.sleep(0.002)
    assert first < new_uid()
    assert before <= int(first[:12], 16) <= time.time_ns() // 10**6
    assert len(first) == 32
    assert len({uid[12:] for uid in (new_uid(), new_uid())}) == 2


def test_runs_are_known_by_what_they_are_and_only_grow(writer, sample):
    def asked(**changes):
        return NewRun(**{"network": NETWORK, "prompt": "a", "seed": 42, "max_length": 6} | changes)

    others = [
        asked(seed=43), asked(prompt="other"), asked(network=("tell", "draw")), asked(seed=-1, repeat=1),
    ]  # fmt: skip
    numbers = writing.add_runs(writer, sample.alpha, [asked(), *others, asked(max_length=2)])
    assert numbers[0] == numbers[-1] == sample.stuck
    assert len(set(numbers)) == 5
    assert writing.add_runs(writer, sample.beta, [asked()]) != [sample.stuck]
    lengths = {row.id: row.max_length for row in reading.runs(writer, "alpha")}
    assert lengths[sample.stuck] == 6
    assert writing.add_runs(writer, sample.alpha, [asked(max_length=7)]) == [sample.stuck]
    assert {row.id: row.max_length for row in reading.runs(writer, "alpha")}[sample.stuck] == 7


def test_failures_are_forgotten_by_experiment_and_kind(writer, sample):
    failures = [
        NewFailure(run=run, step=0, kind=kind, message="no")
        for run, kind in ((sample.untouched, "lost"), (sample.shared, "lost"))
    ]
    before = time.time()
    writing.commit(writer, Commit(failures=failures))
    assert writing.forget_failures(writer, sample.alpha, "lost") == 1
    left = {row.id: row.failure for row in reading.runs(writer) if row.failure}
    assert left.keys() == {sample.failed, sample.shared}
    assert before <= left[sample.shared].failed_at <= time.time()
    assert writing.forget_failures(writer, sample.alpha, "lost") == 0
    assert writing.forget_failures(writer, sample.alpha) == 1
    assert writing.forget_failures(writer, sample.beta) == 1


def test_measures_are_known_by_their_settings(writer):
    first = writing.add_measure(writer, {"kind": "image", "range": [0, 1]})
    assert writing.add_measure(writer, {"range": [0, 1], "kind": "image"}) == first
    assert writing.add_measure(writer, {"kind": "image", "range": [0, 2]}) != first


def test_numbers_go_on_where_the_store_is(folder, sample):
    with Store(folder, write=True) as store:
        last = store.db.value("SELECT max(id) FROM batch")
        assert [writing.next_batch_id(store) for _ in range(2)] == [last + 1, last + 2]
    with Store(folder, write=True) as store:
        assert writing.next_batch_id(store) == last + 1, "nothing was stored under that number"


def test_a_session_is_killed_or_ends_as_it_says(writer, sample):
    first = writing.start_session(writer, sample.alpha, "one", {"b": 1, "a": 2})
    writing.end_session(writer, first, "interrupted")
    second = writing.start_session(writer, sample.beta, "two", {})
    rows = {row.id: row for row in reading.sessions(writer)}
    assert (rows[first].end_state, rows[second].end_state) == ("interrupted", None)
    assert rows[first].started_at <= rows[first].ended_at <= rows[second].started_at
    assert rows[second].ended_at is None
    assert (rows[first].pid, rows[first].provenance) == (os.getpid(), {"a": 2, "b": 1})


def test_dropped_pixels_leave_the_others(writer, sample):
    digests = [image_digest(picture(number)) for number in (1, 3)]
    images.drop_images(writer, digests)
    left = {row.digest for row in contents.outputs(writer) if row.modality == "image"}
    assert len(left) == 4, "what is known of them stays"
    assert set(missing.images(writer, sample.alpha)) == set(digests)


def test_a_commit_may_refer_to_what_an_earlier_driver_stored(folder, sample):
    """Inputs, outputs and embedded outputs that come with nothing but their digests."""
    with Store(folder, write=True) as store:
        session = writing.start_session(store, sample.alpha, "again", {})
        call, embedded = batch(store, session, sample.draw), batch(store, session, sample.embed)
        known = image_digest(picture(3))
        z = text_digest("z")
        results = Commit(
            batches=[call, embedded],
            invocations=[NewInvocation(sample.untouched, 0, text_digest("untouched"), known, 42, call.id)],
            embeddings=[
                NewEmbedding(
                    output=text_digest("z"), model=sample.embed, batch=embedded.id, vector=np.ones(3)
                )
            ],
        )
        writing.commit(store, results)
        assert missing.tails(store, sample.alpha)[-1][:3] == (sample.untouched, 1, known)
        assert contents.run_vectors(store, sample.noisy, sample.embed, "text").shape == (2, 3)
        assert z.hex() in contents.vectors(store, "embed").digests
        assert check.check(store) == []


def test_a_digest_that_nobody_stored_is_refused(writer, sample):
    call = batch(writer, 1, sample.draw)
    unknown = NewInvocation(sample.untouched, 0, text_digest("untouched"), text_digest("never"), 42, call.id)
    with pytest.raises(AssertionError, match="no output"):
        writing.commit(writer, Commit(batches=[call], invocations=[unknown]))
    assert missing.tails(writer, sample.alpha)[-1].num_steps == 0


def test_a_diagram_is_stored_with_its_bars_and_generators(writer, sample):
    bars = {1: np.empty((0, 2)), 0: np.array([[0.0, 1.0], [0.0, np.inf]])}
    diagram = NewDiagram(
        run=sample.noisy, model=sample.embed, settings={"b": 1, "a": 2}, settings_digest="other",
        num_points=3, num_unique=2, bars=bars, generators={0: np.array([[1, 2]])}, error=0.25, duration_s=1.5,
    )  # fmt: skip
    writing.commit(writer, Commit(diagrams=[diagram]))
    row = contents.diagrams(writer, "alpha")[-1]
    assert (row.run, row.model, row.settings, row.settings_digest) == (
        sample.noisy, sample.embed, {"a": 2, "b": 1}, "other"
    )  # fmt: skip
    assert (row.num_points, row.num_unique, row.error, row.duration_s) == (3, 2, 0.25, 1.5)
    assert row.dimensions == (0, 1)
    found = contents.diagram_bars(writer, row.id)
    assert found[0].tolist() == bars[0].tolist()
    assert found[1].shape == (0, 2)
    assert contents.generators(writer, sample.noisy, "embed", 0).tolist() == [[1, 2]]
    assert contents.generators(writer, sample.noisy, "embed", 1) is None


def test_the_end_of_a_session_is_its_own(writer, sample):
    told = [{"place": "driver", "name": "zürich"}]
    first = writing.start_session(writer, sample.alpha, "one", {"gpu": {"name": "x"}}, {"name": "müller"})
    writing.end_session(writer, first, "interrupted", told, {"gpu": {"energy_j": 2.5}})
    before = {row.id: row for row in reading.sessions(writer)}
    assert before[first].provenance == {"gpu": {"name": "x", "energy_j": 2.5}}
    assert before[first].config == {"name": "müller"}
    second = writing.start_session(writer, sample.alpha, "two", {"host": "here"})
    writing.end_session(writer, second, "done", measured={"energy_j": 1})
    after = {row.id: row for row in reading.sessions(writer)}
    assert {row: after[row] for row in before} == before | {2: after[2]}, (
        "the one that never ended was killed"
    )
    assert (after[second].end_state, after[second].provenance) == ("done", {"host": "here", "energy_j": 1})
    assert reading.timelines(writer) == {first: told}


@pytest.mark.parametrize(
    ("error", "state"), [(None, "done"), (Interrupted, "interrupted"), (ValueError, "failed")]
)
def test_a_session_of_a_block_ends_as_the_block_does(writer, sample, error, state):
    block = writing.recorded_session(writer, sample.alpha, "x", {"a": 1}, {"name": "alpha"})
    with pytest.raises(error) if error else contextlib.nullcontext(), block as session:
        assert reading.sessions(writer)[-1].end_state is None
        if error:
            raise error("no")
    last = reading.sessions(writer)[-1]
    assert (last.id, last.end_state, last.config) == (session, state, {"name": "alpha"})


def test_spending_is_the_latest_of_each_session_and_model(writer, sample):
    def spent(session, model, requests, tokens):
        return NewSpending(session=session, model=model, requests=requests, tokens=tokens)

    writing.record_spending(writer, [spent(1, sample.tell, 5, 90), spent(2, sample.tell, 1, 10)])
    writing.commit(writer, Commit(spending=[spent(1, sample.tell, 6, 95), spent(1, sample.draw, 2, 3)]))
    rows = writer.db.rows("SELECT session, model, requests, tokens FROM spending ORDER BY session, model")
    assert rows == [(1, sample.draw, 2, 3), (1, sample.tell, 6, 95), (2, sample.tell, 1, 10)]


def test_failures_of_these_runs_alone_are_forgotten_and_kept_as_attempts(writer, sample):
    lost = NewFailure(run=sample.untouched, step=2, kind="lost", message="no", detail="d", attempts=4)
    writing.commit(writer, Commit(failures=[lost]))
    assert writing.forget_failures(writer, sample.beta, runs=[sample.untouched]) == 0
    assert writing.forget_failures(writer, sample.alpha, runs=[sample.untouched]) == 1
    (kept,) = reading.earlier_failures(writer, sample.untouched)
    assert (kept.step, kept.kind, kept.message, kept.detail, kept.attempts) == (2, "lost", "no", "d", 4)
    assert reading.earlier_failures(writer, sample.failed) == []
    assert [row.id for row in reading.runs(writer) if row.failure] == [sample.failed]


def test_images_that_are_prompts_come_with_their_runs(writer, sample, monkeypatch):
    """Five at two at a time, of which the store has one; a text beside them."""
    monkeypatch.setattr(writing, "IMAGES_AT_ONCE", 2)
    given = [output(picture(number)) for number in (1, 20, 21, 22, 23)]
    prompts = [*(f"image:{image.digest.hex()}" for image in given), "and a text"]
    asked = [NewRun(network=NETWORK[::-1], prompt=prompt, seed=1, max_length=2) for prompt in prompts]
    rows = writing.add_runs(writer, sample.beta, asked, given)
    assert [row.prompt for row in reading.runs(writer, only=rows)] == prompts
    for image in given:
        assert contents.image_bytes(writer, image.digest) == image.image
        assert contents.image_size(writer, image.digest) == (8, 6)
    assert writing.add_runs(writer, sample.beta, asked) == rows, (
        "without their pixels, now that they are there"
    )
    assert check.check(writer) == []


def test_nothing_is_stored_in_files_that_are_gone_before_or_go_meanwhile(folder, writer, sample, monkeypatch):
    """Before it not even a picture; what goes meanwhile is told, for the caller thinks that it is stored."""
    number = writer.images.value("SELECT count(*) FROM image")
    (folder / "lock").rename(folder / "aside")
    with pytest.raises(StoreError, match="lock was removed"):
        writing.commit(writer, Commit(outputs=[output(picture(50))]))
    assert writer.images.value("SELECT count(*) FROM image") == number
    (folder / "aside").rename(folder / "lock")
    store_images = writing._store_images

    def meanwhile(*given):
        store_images(*given)
        (folder / "lock").rename(folder / "aside")

    monkeypatch.setattr(writing, "_store_images", meanwhile)
    with pytest.raises(StoreError, match="lock was removed"):
        writing.commit(writer, Commit(outputs=[output(picture(50))]))
    (folder / "aside").rename(folder / "lock")
    assert writer.images.value("SELECT count(*) FROM image") == number + 1


def test_outputs_are_indexed_as_soon_as_there_are_enough(writer, monkeypatch):
    indexing.complete(writer)
    monkeypatch.setattr(writing, "INDEXED_AT_ONCE", 2)
    before = writer.last_indexed_id
    for text, indexed in (("one", before), ("two", before + 2), ("three", before + 2)):
        writing.commit(writer, Commit(outputs=[output(text)]))
        assert writer.last_indexed_id == indexed


def test_epochs_are_of_one_experiment_with_the_reason_that_is_said_or_told_by_their_number(writer, sample):
    """Beta's go on from its own; all of one call or none."""
    opened = {"model": sample.draw, "batch_size": 2, "device_kind": "cpu"}
    given = [
        NewEpoch(name="draw", **opened),
        NewEpoch(name="draw", reason="request", **opened),
        NewEpoch(name="new", mates="length", **opened),
    ]
    assert writing.add_epochs(writer, sample.alpha, given) == [1, 2, 0]
    assert writing.add_epoch(writer, sample.beta, "draw", **opened) == 1
    told = [(row.name, row.number, row.reason, row.mates) for row in reading.epochs(writer, "alpha")]
    assert told == [
        ("draw", 0, "start", "bucket"), ("draw", 1, "memory", "bucket"), ("draw", 2, "request", "bucket"),
        ("embed", 0, "start", "bucket"), ("new", 0, "start", "length"), ("tell", 0, "start", "bucket"),
    ]  # fmt: skip
    with pytest.raises(apsw.ConstraintError):
        writing.add_epochs(writer, sample.beta, [given[0], NewEpoch(name="x", **opened | {"model": 99})])
    assert len(reading.epochs(writer, "beta")) == 4


def test_what_is_stored_of_one_experiment_is_no_later_state_of_another(writer, sample):
    """A call of a session is of its experiment, and so is what steps in, is repeated or is shared."""

    def changed(perform):
        before = {row: stamp for row, _, stamp in summaries.stamps(writer)}
        perform()
        return [row for row, _, stamp in summaries.stamps(writer) if stamp != before[row]]

    given = text_digest("a")
    put = NewIntervention(sample.shared, 5, 0, "text", given, given, None, None)
    ended = NewRepeated(run=sample.noisy, entry_step=0, period=1, times=2)
    for commit, expected in (
        (Commit(batches=[batch(writer, 1, sample.draw)]), sample.alpha),
        (Commit(batches=[batch(writer, 2, sample.draw)]), sample.beta),
        (Commit(interventions=[put]), sample.beta),
        (Commit(repeated=[ended]), sample.alpha),
    ):
        assert changed(lambda commit=commit: writing.commit(writer, commit)) == [expected]
    one = Shared(sample.untouched, sample.noisy, 1, 3)
    assert changed(lambda: writing.share_steps(writer, [one])) == [sample.alpha]
    assert [row.step for row in contents.invocations(writer, sample.untouched)] == [1, 2]
    assert changed(lambda: writing.end_session(writer, 2, "done")) == [sample.beta]
    assert changed(lambda: writing.start_session(writer, sample.alpha, "x", {})) == [sample.alpha]
    writing.commit(writer, Commit(failures=[NewFailure(run=sample.shared, step=0, kind="x", message="no")]))
    assert changed(lambda: writing.forget_failures(writer, sample.beta)) == [sample.beta]
