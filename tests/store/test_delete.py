"""Deleting an experiment keeps what others use and leaves no orphans."""

import numpy as np
import pytest

from panic.errors import ConflictError, NotFound
from panic.store import (
    Commit,
    NewDiagram,
    NewFailure,
    NewInvocation,
    NewRun,
    Store,
    captions,
    check,
    contents,
    delete,
    dump,
    images,
    indexing,
    reading,
    summaries,
    tombstones,
    writing,
)
from panic.store.annotations import Target, add_tags, annotate, list_annotations, marks, run_target
from panic.store.codec import image_digest, text_digest
from panic.store.delete import Deletion
from panic.store.ending import end_runs
from panic.store.records import NewAnswer, NewDistance, NewIntervention, NewVectorisation
from panic.store.signing import Author
from tests.store.sample import NETWORK, batch, fill, output, picture, remark, steps

ME = Author(name="me")


@pytest.fixture
def writer(folder, sample):
    with Store(folder, write=True) as store:
        yield store


def test_what_others_use_stays(writer, sample):
    before = list(dump.dump(writer, "beta"))
    own = sum(len(contents.image_bytes(writer, image_digest(picture(number)))) for number in (2, 3, 4))
    expected = Deletion(runs=4, invocations=9, outputs=7, embeddings=2, diagrams=1, image_bytes=own)
    assert delete.preview_deletion(writer, "alpha") == expected
    assert len(reading.experiments(writer)) == 2
    assert delete.delete_experiment(writer, "alpha") == expected
    assert list(dump.dump(writer)) == list(dump.dump(writer, "beta")) == before
    assert check.check(writer) == []
    stored = {digest for (digest,) in writer.images.rows("SELECT digest FROM image")}
    assert stored == {image_digest(picture(1))}
    assert contents.image(writer, image_digest(picture(1))).tobytes() == picture(1).tobytes()


def test_the_last_experiment_leaves_nothing(writer):
    remark(writer, "alpha", "a remark")
    for name in ("alpha", "beta"):
        delete.delete_experiment(writer, name)
    for table in (
        "run",
        "invocation",
        "output",
        "embedding",
        "diagram",
        "diagram_bars",
        "batch",
        "annotation",
    ):
        assert writer.db.value(f"SELECT count(*) FROM {table}") == 0, table
    assert writer.images.value("SELECT count(*) FROM image") == 0
    assert [row.experiment for row in reading.sessions(writer)] == [
        None,
        None,
    ]  # who worked when is still known


def test_a_batch_that_embedded_for_others_stays(writer, sample):
    """The vectors of beta's texts came from a batch of beta's session; alpha's text keeps it alive."""
    delete.delete_experiment(writer, "beta")
    assert {row.digest for row in contents.outputs(writer)} >= {text_digest(text).hex() for text in "bc"}
    assert len(contents.vectors(writer, "embed").digests) == 3
    assert check.check(writer) == []


def test_what_was_said_of_others_and_taken_of_them_stays(writer, sample):
    """Each experiment has a remark, a diagram, and a measure of its own; a third measure is of both."""
    names = {"alpha": sample.noisy, "beta": sample.shared}
    measures = {kind: writing.add_measure(writer, {"kind": kind}) for kind in (*names, "both", "pairs")}
    diagrams = {}
    for name, run in names.items():
        remark(writer, name, f"of {name}")
        diagram = NewDiagram(
            run=run, model=sample.embed, settings={}, settings_digest="other", num_points=1, num_unique=1,
            bars={0: np.array([[0.0, 1.0]])},
        )  # fmt: skip
        writing.commit(writer, Commit(diagrams=[diagram]))
        diagrams[name] = writer.db.value("SELECT max(id) FROM diagram")
        taken = [
            NewVectorisation(diagram=diagrams[name], dimension=0, measure=measures[kind], vector=np.ones(1))
            for kind in (name, "both")
        ]
        writing.commit(writer, Commit(vectorisations=taken))
    pair = NewDistance(*sorted([1, diagrams["alpha"]]), 0, measures["pairs"], 1.0)
    writing.commit(writer, Commit(distances=[pair]))
    writing.commit(writer, Commit(batches=[batch(writer, 2, sample.draw)]))  # of which nothing could be used
    epochs = reading.epochs(writer, "beta")
    counts = reading.counts(writer, "beta")

    delete.delete_experiment(writer, "alpha")
    assert [row.text for row in list_annotations(writer)] == ["of beta"]
    kept = {measure for (measure,) in writer.db.rows("SELECT id FROM measure")}
    assert kept == {measures["beta"], measures["both"]}
    assert reading.epochs(writer, "beta") == epochs
    assert writer.db.value("SELECT count(*) FROM epoch") == len(epochs)
    assert [row.experiment for row in reading.sessions(writer)] == [None, sample.beta]
    assert reading.counts(writer, "beta") == counts
    assert {row.model: row.batches for row in reading.model_times(writer)} == {
        "draw": 2, "tell": 1, "embed": 1
    }  # fmt: skip


def test_only_images_that_nobody_else_has_count(writer, sample):
    """Picture 1 is of both experiments."""
    own = [len(contents.image_bytes(writer, image_digest(picture(number)))) for number in (2, 3, 4)]
    assert delete.preview_deletion(writer, sample.alpha).image_bytes == sum(own)
    assert delete.preview_deletion(writer, sample.beta).image_bytes == 0
    images.drop_images(writer, [image_digest(picture(2))])
    assert delete.preview_deletion(writer, sample.alpha).image_bytes == sum(own[1:]), "pixels may be lost"


def test_pixels_that_no_output_refers_to_are_dropped_by_compacting(writer, sample):
    stored = {digest for (digest,) in writer.images.rows("SELECT digest FROM image")}
    writer.images.execute("INSERT INTO image SELECT zeroblob(32), encoding, bytes FROM image LIMIT 1")
    delete.compact(writer)
    assert {digest for (digest,) in writer.images.rows("SELECT digest FROM image")} == stored


def test_foreign_keys_are_on_again_after_deleting(writer, sample):
    delete.delete_experiment(writer, "beta")
    assert writer.db.value("PRAGMA foreign_keys") == 1


def test_one_can_go_on_and_begin_anew(writer, sample):
    kept = list(dump.dump(writer))
    delete.delete_experiment(writer, "alpha")
    session = writing.start_session(writer, sample.beta, "x", {})
    call = batch(writer, session, sample.draw)
    assert call.id > writer.db.value("SELECT max(id) FROM batch")
    delete.delete_experiment(writer, "beta")
    for _ in range(2):  # the second time with the rows of the first in the driver's memory
        fill(writer)
        assert list(dump.dump(writer)) == kept
        for name in ("alpha", "beta"):
            delete.delete_experiment(writer, name)


def test_compacting_gives_space_back(writer, sample, folder):
    contents = [picture(n, (256, 256)) if n % 2 == 0 else f"t{n}" for n in range(6)]
    session = writing.start_session(writer, sample.alpha, "x", {})
    writing.commit(
        writer,
        steps(writer, session, (sample.draw, sample.tell), sample.untouched, "untouched", contents, seed=3),
    )
    delete.delete_experiment(writer, "alpha")
    delete.compact(writer)
    writer.close()
    assert (folder / "images.sqlite").stat().st_size < 100_000
    with Store(folder) as store:
        assert check.check(store) == []


def test_deleting_is_a_later_state_however_few_outputs_are_left(writer, sample):
    """Of what the store knows of itself only how far captions are indexed follows its outputs."""
    with writer.transaction() as connection:
        connection.execute("UPDATE meta SET value = 1000 WHERE key = 'revision'")
    before = writer.revision
    delete.delete_experiment(writer, "alpha")
    assert writer.revision >= before >= 1000


def test_an_unknown_experiment(writer):
    with pytest.raises(NotFound, match="Did you mean alpha"):
        delete.delete_experiment(writer, "alpah")


def test_what_came_back_meanwhile_is_not_purged(writer):
    """Another process may let it come back while somebody is asked; its row may be another's then."""
    tombstones.hide(writer, reading.experiment(writer, "alpha"), "me")
    listed = tombstones.deleted(writer)
    tombstones.restore(writer, listed[0])
    before = list(dump.dump(writer))
    assert tombstones.purge(writer, listed).runs == 0
    assert list(dump.dump(writer)) == before
    with pytest.raises(NotFound, match="not deleted any more"):
        tombstones.restore(writer, listed[0], "gamma")
    assert [row.name for row in reading.experiments(writer)] == ["alpha", "beta"]


def test_what_another_process_has_deleted_is_not_deleted_again(writer):
    row = reading.experiment(writer, "alpha")
    tombstones.hide(writer, row, "me")
    with pytest.raises(NotFound):
        tombstones.hide(writer, row, "me")
    with pytest.raises(NotFound):
        tombstones.hide_runs(writer, row, [1], "me")
    assert len(tombstones.deleted(writer)) == 1


def test_null_models_that_were_deleted_alone_come_back(writer, sample):
    config = reading.experiment(writer, "alpha").config
    writing.start_experiment(writer, "alpha/null-x", config)
    tombstones.hide(writer, reading.experiment(writer, "alpha/null-x"), "me")
    tombstones.restore(writer, tombstones.find(writer, "alpha/null-x"))
    assert reading.named(writer, "alpha/null-x")
    tombstones.hide(writer, reading.experiment(writer, "alpha/null-x"), "me")
    tombstones.hide(writer, reading.experiment(writer, "alpha"), "me")
    with pytest.raises(ConflictError, match="no experiment alpha"):
        tombstones.restore(writer, tombstones.find(writer, "alpha/null-x"))
    tombstones.restore(writer, tombstones.find(writer, "alpha"))
    assert not reading.named(writer, "alpha/null-x")


def test_an_experiment_ends_whose_begun_runs_have_failed_at_once(writer, sample):
    row = reading.experiment(writer, "alpha")
    with writer.transaction() as connection:
        connection.execute("DELETE FROM stuck")
        connection.execute("DELETE FROM intervention")
        connection.execute(
            "DELETE FROM invocation WHERE run IN (SELECT id FROM run WHERE experiment = ?)", [row.id]
        )
    length = row.config.get("max_length")
    shortened, dropped = end_runs(writer, row)
    assert (shortened, dropped) == (0, 3)
    assert [run.state for run in reading.runs(writer, "alpha")] == ["failed"]
    assert reading.experiment(writer, "alpha").config["max_length"] == length


def test_remarks_on_runs_follow_them_to_another_name(writer, sample):
    run = next(run for run in reading.runs(writer) if run.id == sample.stuck)
    add_tags(writer, [run_target("alpha", run)], ["odd"], Author(name="me"))
    tombstones.hide(writer, reading.experiment(writer, "alpha"), "me")
    tombstones.restore(writer, tombstones.find(writer, "alpha"), "gamma")
    assert marks(writer, "run")[run_target("gamma", run).uid].tags == ("odd",)
    assert [row.config["name"] for row in reading.experiments(writer)] == ["gamma", "beta"]


def stamps(store):
    """The stamps of experiments by their names."""
    names = {row.uid: row.name for row in reading.experiments(store)}
    return {names[uid]: stamp for _, uid, stamp in summaries.stamps(store) if uid in names}


def changed(store, run):
    """Whose stamp is another one after a result of a run."""
    before = stamps(store)
    writing.commit(store, Commit(failures=[NewFailure(run=run, step=0, kind="x", message="no")]))
    return [name for name, stamp in stamps(store).items() if stamp != before[name]]


def test_a_run_with_the_number_of_one_that_is_gone_is_of_its_own_experiment(writer, sample):
    """The driver remembers whose a run is, and numbers are given again."""
    numbers = []
    for name in ("gamma", "delta"):
        experiment = writing.start_experiment(writer, name, {})
        asked = NewRun(network=NETWORK, prompt="a", seed=99, max_length=1)
        numbers += writing.add_runs(writer, experiment, [asked])
        assert changed(writer, numbers[-1]) == [name]
        if name == "gamma":
            last = writing.start_experiment(writer, "between", {})
            delete.delete_experiment(writer, "gamma")
            assert last > experiment
    assert numbers[0] == numbers[1]


def test_an_output_that_is_gone_is_stored_anew_under_another_number(writer, sample):
    """The driver remembers the rows of outputs, and how far they are indexed."""
    indexing.complete(writer)
    before = writer.last_indexed_id
    for text in ("gone", "other"):
        writing.add_runs(
            writer,
            writing.start_experiment(writer, "gamma", {}),
            [NewRun(network=NETWORK, prompt=text, seed=1, max_length=1)],
        )
    assert indexing.complete(writer) == writer.last_indexed_id == before + 2
    delete.delete_experiment(writer, "gamma")
    assert writer.last_indexed_id == before
    assert writer.output_ids == {}
    writing.add_runs(writer, sample.beta, [NewRun(network=NETWORK, prompt="gone", seed=1, max_length=1)])
    assert check.check(writer) == []
    assert [place.text for place in captions.search(writer, captions.parse("gone or other"))] == []
    assert [place.run for place in captions.search(writer, captions.parse("gone"))] != []
    assert indexing.complete(writer) == writer.last_output_id
    assert check.check(writer) == []


def test_experiments_are_counted_and_removed_with_their_null_models(writer, sample):
    for name in ("alpha/null-x", "alpha/null-y", "beta/null-x"):
        experiment = writing.start_experiment(writer, name, {})
        writing.add_runs(writer, experiment, [NewRun(network=NETWORK, prompt="a", seed=1, max_length=1)])
    assert delete.preview_deletion(writer, "alpha").runs == 6
    assert delete.delete_experiment(writer, "alpha").runs == 6
    assert [row.name for row in reading.experiments(writer)] == ["beta", "beta/null-x"]
    runs = [run.id for run in reading.runs(writer, "beta")]
    assert delete.preview(writer, runs, are_runs=True).runs == 1


def test_what_stepped_in_goes_with_its_experiment_alone(writer, sample):
    given = text_digest("a")
    for run, text in ((sample.noisy, "alpha's"), (sample.shared, "beta's"), (sample.shared, "both"),
                      (sample.stuck, "both")):  # fmt: skip
        made = output(text)
        place = writer.db.value("SELECT count(*) FROM intervention")
        row = NewIntervention(run, 9, place, "text", given, made.digest, None, None)
        writing.commit(writer, Commit(outputs=[made], interventions=[row]))
    before = delete.preview_deletion(writer, "alpha").outputs
    assert before == 7 + 1
    assert delete.delete_experiment(writer, "alpha").outputs == before
    texts = {text for (text,) in writer.db.rows("SELECT text FROM output WHERE text NOTNULL")}
    assert texts == {"a", "d", "beta's", "both"}
    assert writer.db.value("SELECT count(*) FROM intervention") == 2


def test_what_servers_said_to_others_and_what_they_have_spent_stays(writer, sample):
    """Of each experiment one call was answered; alpha's session has a call that beta's intervention took."""
    answered = {"alpha": batch(writer, 1, sample.draw), "beta": batch(writer, 2, sample.draw)}
    taken, nobodys = batch(writer, 1, sample.tell), batch(writer, 1, sample.tell)
    given, made = text_digest("a"), output("by alpha's call")
    calls = [*answered.values(), taken, nobodys]
    numbers = [call.id for call in calls]
    assert len({*numbers}) == 4
    rows = [
        NewInvocation(sample.untouched, 0, text_digest("untouched"), given, 1, numbers[0]),
        NewInvocation(sample.shared, 2, given, given, 1, numbers[1]),
    ]
    stepped = [
        NewIntervention(sample.shared, 3, 0, "model", given, made.digest, 1, taken.id),
        NewIntervention(sample.shared, 3, 1, "text", made.digest, given, None, None),
    ]
    answers = [NewAnswer(batch=number, input_tokens=number) for number in numbers]
    writing.commit(
        writer,
        Commit(batches=calls, outputs=[made], invocations=rows, interventions=stepped, answers=answers),
    )
    with writer.transaction() as connection:
        connection.executemany(
            "INSERT INTO spending VALUES (?, ?, 3, 4)", [(1, sample.draw), (2, sample.draw)]
        )
    delete.delete_experiment(writer, "alpha")
    assert writer.db.rows("SELECT batch FROM answer ORDER BY 1") == [(numbers[1],), (taken.id,)]
    there = {number for (number,) in writer.db.rows("SELECT id FROM batch")}
    assert there & {*numbers} == {numbers[1], taken.id}
    assert writer.db.rows("SELECT session FROM spending") == [(2,)]


def test_stamps_remarks_and_deletions_of_others_stay(writer, sample):
    """Runs of both were deleted before; those of alpha that are deleted are nobody's without it."""
    for name, run in (("alpha", sample.noisy), ("beta", sample.shared)):
        tombstones.hide_runs(writer, reading.experiment(writer, name), [run], "me")
        writing.start_experiment(writer, f"{name}/null-x", {})
    outputs = {text: text_digest(text).hex() for text in ("a", "b")}
    for text, uid in outputs.items():
        annotate(writer, "comment", [(Target(kind="output", uid=uid, name=text), f"of {text}")], ME)
    annotate(writer, "comment", [(Target(kind="training", uid=outputs["b"], name="x"), "of a training")], ME)
    before = stamps(writer)
    delete.delete_experiment(writer, "alpha")
    said = [row.text for row in list_annotations(writer)]
    assert said == ["of a", "of a training"], "b was of alpha alone"
    assert {name: stamp for name, stamp in stamps(writer).items() if name in before} == {
        name: stamp for name, stamp in before.items() if name.startswith("beta")
    }
    assert [(one.name, one.is_part) for one in tombstones.deleted(writer)] == [
        ("alpha", False), ("beta", True)
    ]  # fmt: skip
    known = {row for (row,) in writer.db.rows("SELECT experiment FROM change")}
    assert known <= {row for (row,) in writer.db.rows("SELECT id FROM experiment")}
    assert check.check(writer) == []
