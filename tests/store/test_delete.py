"""Deleting an experiment keeps what others use and leaves no orphans."""

import pytest

from panic.errors import NotFound
from panic.store import Store, check, contents, delete, dump, reading, writing
from panic.store.codec import image_digest, text_digest
from panic.store.delete import Deletion
from tests.store.sample import batch, fill, picture, steps


@pytest.fixture
def writer(folder, sample):
    with Store(folder, write=True) as store:
        yield store


def test_what_others_use_stays(writer, sample):
    before = list(dump.dump(writer, "beta"))
    expected = Deletion(runs=4, invocations=9, outputs=7, embeddings=2, diagrams=1)
    assert delete.preview_deletion(writer, "alpha") == expected
    assert len(reading.experiments(writer)) == 2
    assert delete.delete_experiment(writer, "alpha") == expected
    assert list(dump.dump(writer)) == list(dump.dump(writer, "beta")) == before
    assert check.check(writer) == []
    stored = {digest for (digest,) in writer.images.rows("SELECT digest FROM image")}
    assert stored == {image_digest(picture(1))}
    assert contents.image(writer, image_digest(picture(1))).tobytes() == picture(1).tobytes()


def test_the_last_experiment_leaves_nothing(writer):
    writing.annotate(writer, "experiment", reading.experiment(writer, "alpha").uid, "a remark")
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
