"""Deleting an experiment keeps what others use and leaves no orphans."""

import numpy as np
import pytest

from panic.errors import NotFound
from panic.store import Commit, NewDiagram, Store, check, contents, delete, dump, images, reading, writing
from panic.store.annotations import list_annotations
from panic.store.codec import image_digest, text_digest
from panic.store.delete import Deletion
from panic.store.records import NewDistance, NewVectorisation
from tests.store.sample import batch, fill, picture, remark, steps


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


def test_an_unknown_experiment(writer):
    with pytest.raises(NotFound, match="Did you mean alpha"):
        delete.delete_experiment(writer, "alpah")
