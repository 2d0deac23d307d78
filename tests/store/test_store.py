"""What goes in comes out: experiments, runs, results, and what the engine asks."""

import threading
import time

import apsw
import numpy as np
import pytest

from panic.errors import NotFound, StoreReadOnly
from panic.store import (
    Commit,
    NewBatch,
    NewDiagram,
    NewEmbedding,
    NewInvocation,
    NewOutput,
    NewRun,
    Store,
    check,
    contents,
    delete,
    dump,
    missing,
    reading,
    writing,
)
from panic.store.digest import image_digest, text_digest
from panic.store.records import FixedSeedStep
from panic.store.writing import new_uid
from tests.store.sample import NETWORK, SETTINGS, batch, fill, output, picture, steps


@pytest.fixture
def store(folder, sample):
    with Store(folder) as store:
        yield store


@pytest.fixture
def writer(folder, sample):
    with Store(folder, write=True) as store:
        yield store


def test_runs_and_where_they_stand(store, sample):
    runs = {run.id: run for run in reading.runs(store, "alpha")}
    assert [runs[id].state for id in (sample.stuck, sample.noisy, sample.failed, sample.untouched)] == [
        "stuck",
        "done",
        "failed",
        "todo",
    ]
    stuck, failed = runs[sample.stuck], runs[sample.failed]
    assert (stuck.network, stuck.prompt, stuck.seed, stuck.max_length) == (NETWORK, "a", 42, 6)
    assert (stuck.num_steps, stuck.entry_step, stuck.period, stuck.failure) == (4, 2, 2, None)
    assert (failed.failure.kind, failed.failure.step, failed.failure.attempts) == ("empty text", 1, 3)
    assert len(reading.runs(store)) == 5
    assert [run.id for run in reading.runs(store, sample.beta)] == [sample.shared]


def test_steps_of_a_run(store, sample):
    first, *_, last = contents.invocations(store, sample.stuck)
    assert (first.step, first.model, first.modality, first.text) == (0, "draw", "image", None)
    assert first.input == text_digest("a").hex()
    assert first.output == image_digest(picture(1)).hex()
    assert (last.step, last.model, last.text, last.seed, last.device) == (3, "tell", "b", 42, "cpu")
    assert (last.batch_size, last.duration_s) == (8, 0.25)


def test_outputs_are_kept_once_and_exactly(store, sample):
    assert [row.text or row.width for row in contents.outputs(store, run=sample.stuck)] == ["a", 8, "b", 8]
    shared = {row.digest for row in contents.outputs(store, "alpha")} & {
        row.digest for row in contents.outputs(store, "beta")
    }
    assert shared == {text_digest("a").hex(), image_digest(picture(1)).hex()}
    assert len(contents.outputs(store)) == 10
    digest = image_digest(picture(2))
    assert (
        contents.image(store, digest).tobytes()
        == contents.image(store, digest.hex()).tobytes()
        == picture(2).tobytes()
    )
    assert contents.text(store, text_digest("d")) == "d"
    with pytest.raises(NotFound, match="No image"):
        contents.image(store, text_digest("d"))
    with pytest.raises(NotFound, match="No text"):
        contents.text(store, digest)


def test_texts_of_any_kind_come_back(writer):
    experiment = writing.start_experiment(writer, "texts", "texts", {})
    texts = [
        "\0",
        "a\0b",
        "  spaces ",
        "1e5",
        "0x10",
        "naïve \U0001f642",
        "line\nline\r\n",
        "'; DROP TABLE run",
    ]
    writing.add_runs(
        writer, experiment, [NewRun(network=NETWORK, prompt=text, seed=1, max_length=1) for text in texts]
    )
    assert [run.prompt for run in reading.runs(writer, experiment)] == texts
    assert [contents.text(writer, text_digest(text)) for text in texts] == texts


def test_vectors_and_bars(store, sample):
    found = contents.vectors(store, "embed")
    assert found.vectors.shape == (4, 3)
    assert found.vectors.dtype == np.float32
    rows = dict(zip(found.digests, found.vectors[:, 0], strict=True))
    assert rows == {text_digest(text).hex(): ord(text) for text in "abcd"}
    assert len(contents.vectors(store, "embed", "beta").digests) == 2
    assert contents.vectors(store, "draw").vectors.shape == (0, 0)
    assert contents.bars(store, sample.stuck, "embed", 0).tolist() == [[0, 0.5], [0, np.inf]]
    assert contents.bars(store, sample.stuck, sample.embed, 1, "settings").shape == (0, 2)
    assert contents.generators(store, sample.stuck, "embed", 0).tolist() == [[0, 1, 2]]
    assert contents.generators(store, sample.stuck, "embed", 1) is None
    (diagram,) = contents.diagrams(store, "alpha")
    assert (diagram.run, diagram.dimensions, diagram.settings) == (sample.stuck, (0, 1), SETTINGS)
    assert (diagram.num_points, diagram.num_unique) == (2, 1)
    for wrong in (
        (sample.noisy, "embed", 0),
        (sample.stuck, "embed", 2),
        (sample.stuck, "embed", 0, "other"),
    ):
        with pytest.raises(NotFound, match="No diagram"):
            contents.bars(store, *wrong)
    with pytest.raises(NotFound, match="Did you mean embed"):
        contents.vectors(store, "embd")


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


def test_uids_sort_by_time():
    first = new_uid()
    time.sleep(0.002)
    assert first < new_uid()
    assert len(first) == 32


def test_latest_is_the_one_last_worked_on(writer, sample):
    writing.start_session(writer, sample.alpha, "panic resume alpha", {})
    assert reading.experiment(writer, "latest").name == "alpha"


def test_of_experiments_with_one_name_the_newest(writer):
    newer = writing.start_experiment(writer, "alpha", "another identity", {})
    assert reading.experiment(writer, "alpha").id == newer


def test_an_empty_store_has_no_latest(folder):
    with Store(folder, write=True, create=True) as store, pytest.raises(NotFound, match="no experiments yet"):
        reading.experiment(store, "latest")


def test_an_experiment_continues_and_grows(writer, sample):
    assert writing.start_experiment(writer, "alpha", "identity of alpha", {"max_length": 9}) == sample.alpha
    assert reading.experiment(writer, "alpha").config == {"max_length": 9}

    def asked(max_length, prompt="a"):
        return NewRun(network=NETWORK, prompt=prompt, seed=42, max_length=max_length)

    longer = writing.add_runs(writer, sample.alpha, [asked(3), asked(9, "new"), asked(9, "z")])
    assert (longer[0], longer[2]) == (sample.stuck, sample.failed)
    lengths = {run.id: run.max_length for run in reading.runs(writer, sample.alpha)}
    assert (lengths[sample.stuck], lengths[longer[1]], lengths[sample.failed]) == (6, 9, 9)


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


def test_counts(store):
    alpha, everything = reading.counts(store, "alpha"), reading.counts(store)
    assert (alpha.runs, alpha.todo, alpha.running, alpha.done, alpha.stuck, alpha.failed) == (
        4,
        1,
        0,
        1,
        1,
        1,
    )
    assert (alpha.invocations, alpha.embeddings, alpha.diagrams) == (9, 3, 1)
    assert (everything.runs, everything.invocations, everything.embeddings) == (5, 11, 4)


def test_time_per_model(store):
    times = {row.model: row for row in reading.model_times(store, "alpha")}
    assert (times["draw"].batches, times["draw"].items, times["draw"].duration_s) == (5, 5, 1.25)
    assert {row.model: row.items for row in reading.model_times(store)}["embed"] == 4


def test_tails_are_the_last_outputs(store, sample):
    assert missing.tails(store, sample.alpha) == [
        (sample.stuck, 4, text_digest("b")),
        (sample.noisy, 4, text_digest("a")),
        (sample.failed, 1, image_digest(picture(4))),
        (sample.untouched, 0, text_digest("untouched")),
    ]


def test_history_is_that_of_fixed_seeds(store, sample):
    history = list(missing.fixed_seed_history(store, sample.alpha))
    assert [(row.run, row.step) for row in history] == [
        *((sample.stuck, step) for step in range(4)),
        (sample.failed, 0),
    ]
    assert history[1] == FixedSeedStep(
        run=sample.stuck,
        step=1,
        input=image_digest(picture(1)),
        output=text_digest("b"),
        seed=42,
        batch=contents.invocations(store, sample.stuck)[1].batch,
        epoch=0,
    )


def test_missing_embeddings_are_distinct_and_include_prompts(store, sample):
    assert missing.embeddings(store, sample.alpha, sample.embed, ["text"]) == [
        (text_digest(text), "text") for text in ("z", "untouched")
    ]
    both = missing.embeddings(store, sample.alpha, sample.draw, ["text", "image"])
    assert len(both) == len(set(both)) == 9
    assert {modality for _, modality in both} == {"text", "image"}


def test_runs_that_are_ready_for_a_diagram(store, sample):
    # The stuck run has its diagram, the failed and the untouched one never get one.
    assert missing.diagrams(store, sample.alpha, sample.embed, "settings", "text") == [sample.noisy]
    both = [sample.stuck, sample.noisy]
    assert missing.diagrams(store, sample.alpha, sample.embed, "other settings", "text") == both
    assert missing.diagrams(store, sample.alpha, sample.embed, "settings", "image") == []
    assert contents.run_vectors(store, sample.noisy, sample.embed, "text")[:, 0].tolist() == [
        ord("c"),
        ord("a"),
    ]
    assert contents.run_vectors(store, sample.stuck, sample.embed, "text")[:, 0].tolist() == [
        ord("b"),
        ord("b"),
    ]


def test_a_diagram_is_due_again_when_its_run_has_grown(writer, sample):
    def due():
        return missing.diagrams(writer, sample.beta, sample.embed, "settings", "text")

    def diagram(num_points):
        return NewDiagram(
            run=sample.shared,
            model=sample.embed,
            settings=SETTINGS,
            settings_digest="settings",
            num_points=num_points,
            num_unique=1,
            bars={0: np.full((num_points, 2), num_points)},
        )

    assert due() == [sample.shared]
    writing.commit(writer, Commit(diagrams=[diagram(1)]))
    assert due() == []
    writing.add_runs(writer, sample.beta, [NewRun(network=NETWORK, prompt="a", seed=7, max_length=4)])
    assert due() == []  # not complete
    session = writing.start_session(writer, sample.beta, "x", {})
    models = (sample.draw, sample.tell)
    more = steps(writer, session, models, sample.shared, "a", [picture(1), "d", picture(5), "e"], seed=7)
    del more.invocations[:2]
    writing.commit(writer, more)
    assert due() == []  # a vector is missing
    call = batch(writer, session, sample.embed)
    vector = NewEmbedding(output=text_digest("e"), model=sample.embed, batch=call.id, vector=np.ones(3))
    writing.commit(writer, Commit(batches=[call], embeddings=[vector]))
    assert due() == [sample.shared]
    writing.commit(writer, Commit(diagrams=[diagram(2)]))
    assert due() == []
    assert contents.bars(writer, sample.shared, "embed", 0).shape == (2, 2)  # the one with most points
    assert check.check(writer) == []


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
    assert missing.tails(writer, sample.alpha)[-1] == (sample.untouched, 1, image_digest(picture(7)))
    assert check.check(writer) == []


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


def test_every_change_raises_the_revision(writer, sample):
    changes = [
        lambda: writing.start_experiment(writer, "gamma", "gamma", {}),
        lambda: writing.add_model(writer, "new", "new", {}),
        lambda: writing.add_epoch(writer, sample.beta, "new", model=1, batch_size=1, device_kind="cpu"),
        lambda: writing.add_runs(writer, sample.beta, []),
        lambda: writing.start_session(writer, sample.beta, "x", {}),
        lambda: writing.end_session(writer, 1, "done"),
        lambda: writing.commit(writer, Commit()),
        lambda: writing.forget_failures(writer, sample.alpha),
        lambda: writing.annotate(writer, "experiment", "uid", "a remark"),
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


def test_anyone_may_annotate_while_a_driver_writes(writer, sample):
    uid = reading.experiment(writer, "alpha").uid
    with Store(writer.path) as reader:
        writing.annotate(reader, "experiment", uid, "looks odd", author="someone")
        (remark,) = reading.list_annotations(reader, uid)
        assert (remark.text, remark.author, remark.kind) == ("looks odd", "someone", "comment")
        assert reading.list_annotations(reader, "other") == []
    writing.end_session(writer, 2, "done")


def test_a_reader_does_not_write(store):
    with pytest.raises(StoreReadOnly, match="reading only"):
        writing.start_experiment(store, "x", "x", {})


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
                call = batch(writer, session, sample.draw)
                made = output(f"text {step}")
                invocation = NewInvocation(run, step, before, made.digest, 0, call.id)
                writing.commit(writer, Commit(batches=[call], outputs=[made], invocations=[invocation]))
                before = made.digest

        thread = threading.Thread(target=write)
        thread.start()
        seen = [0]
        while thread.is_alive():
            number, digest = next((n, d) for id, n, d in missing.tails(reader, sample.alpha) if id == run)
            assert digest == text_digest(f"text {number - 1}" if number else "long")
            seen.append(number)
        thread.join()
        assert seen == sorted(seen)
        assert len(set(seen)) > 2
        assert check.check(reader) == []


def test_a_thousand_runs_are_listed_quickly(folder):
    with Store(folder, write=True, create=True) as store:
        model = writing.add_model(store, "draw", "f", {})
        experiment = writing.start_experiment(store, "big", "big", {})
        session = writing.start_session(store, experiment, "x", {})
        runs = writing.add_runs(
            store,
            experiment,
            [NewRun(network=NETWORK, prompt=f"p{i}", seed=-1, max_length=50) for i in range(1000)],
        )
        text = NewOutput(digest=text_digest("t"), modality="text", text="t")
        call = NewBatch(
            id=writing.next_batch_id(store),
            session=session,
            model=model,
            epoch=0,
            device="cpu",
            size=1,
            padded_size=1,
            started_at=0.0,
            duration_s=0.0,
        )
        invocations = [
            NewInvocation(run, step, text.digest, text.digest, 0, call.id)
            for run in runs
            for step in range(50)
        ]
        writing.commit(store, Commit(batches=[call], outputs=[text], invocations=invocations))
    start = time.perf_counter()
    with Store(folder) as store:
        assert reading.counts(store, "big").invocations == 50_000
        assert {run.state for run in reading.runs(store, "big")} == {"done"}
    assert time.perf_counter() - start < 0.5


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
