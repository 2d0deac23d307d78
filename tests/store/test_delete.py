"""Deleting an experiment keeps what others use and leaves no orphans."""

import pytest

from panic.errors import NotFound
from panic.store import Store
from panic.store.delete import Deletion
from panic.store.digest import image_digest, text_digest
from tests.store.sample import batch, fill, picture, steps


@pytest.fixture
def writer(folder, sample):
    with Store(folder, write=True) as store:
        yield store


def test_what_others_use_stays(writer, sample):
    before = list(writer.dump("beta"))
    expected = Deletion(runs=4, invocations=9, outputs=7, embeddings=2, diagrams=1)
    assert writer.preview_deletion("alpha") == expected
    assert len(writer.experiments()) == 2
    assert writer.delete_experiment("alpha") == expected
    assert list(writer.dump()) == list(writer.dump("beta")) == before
    assert writer.check() == []
    stored = {digest for (digest,) in writer.images.rows("SELECT digest FROM image")}
    assert stored == {image_digest(picture(1))}
    assert writer.image(image_digest(picture(1))).tobytes() == picture(1).tobytes()


def test_the_last_experiment_leaves_nothing(writer):
    writer.annotate("experiment", writer.experiment("alpha").uid, "a remark")
    for name in ("alpha", "beta"):
        writer.delete_experiment(name)
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
    assert [row.experiment for row in writer.sessions()] == [None, None]  # who worked when is still known


def test_a_batch_that_embedded_for_others_stays(writer, sample):
    """The vectors of beta's texts came from a batch of beta's session; alpha's text keeps it alive."""
    writer.delete_experiment("beta")
    assert {row.digest for row in writer.outputs()} >= {text_digest(text).hex() for text in "bc"}
    assert len(writer.vectors("embed").digests) == 3
    assert writer.check() == []


def test_one_can_go_on_and_begin_anew(writer, sample):
    kept = list(writer.dump())
    writer.delete_experiment("alpha")
    session = writer.start_session(sample.beta, "x", {})
    call = batch(writer, session, sample.draw)
    assert call.id > writer.db.value("SELECT max(id) FROM batch")
    writer.delete_experiment("beta")
    for _ in range(2):  # the second time with the rows of the first in the driver's memory
        fill(writer)
        assert list(writer.dump()) == kept
        for name in ("alpha", "beta"):
            writer.delete_experiment(name)


def test_compacting_gives_space_back(writer, sample, folder):
    contents = [picture(n, (256, 256)) if n % 2 == 0 else f"t{n}" for n in range(6)]
    session = writer.start_session(sample.alpha, "x", {})
    writer.commit(
        steps(writer, session, (sample.draw, sample.tell), sample.untouched, "untouched", contents, seed=3)
    )
    writer.delete_experiment("alpha")
    writer.compact()
    writer.close()
    assert (folder / "images.sqlite").stat().st_size < 100_000
    with Store(folder) as store:
        assert store.check() == []


def test_an_unknown_experiment(writer):
    with pytest.raises(NotFound, match="Did you mean alpha"):
        writer.delete_experiment("alpah")
