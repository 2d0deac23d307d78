"""Which pixels are missing, what made them, who needs them."""

import pytest

from panic.errors import NotFound, StoreCorrupt
from panic.store import Commit, NewFailure, Store, contents, images, missing, reading, writing
from panic.store.codec import image_digest, text_digest
from tests.store.sample import picture

DIGESTS = {number: image_digest(picture(number)) for number in (1, 2, 3, 4)}


def drop(folder, *numbers):
    with Store(folder, write=True) as store:
        images.drop_images(store, [DIGESTS[number] for number in numbers])


def lacking(folder, experiment):
    with Store(folder) as store:
        return list(missing.images(store, experiment))


def test_what_is_missing_is_found_per_experiment(folder, sample):
    assert lacking(folder, sample.alpha) == []
    drop(folder, 2, 3)
    assert lacking(folder, sample.alpha) == sorted([DIGESTS[2], DIGESTS[3]])
    assert lacking(folder, sample.beta) == []
    drop(folder, 1, 4)
    assert lacking(folder, sample.alpha) == sorted(DIGESTS.values())
    assert lacking(folder, sample.beta) == [DIGESTS[1]]


def test_without_the_file_everything_is_missing_until_it_is_created(folder, sample):
    (folder / "images.sqlite").unlink()
    assert lacking(folder, sample.alpha) == sorted(DIGESTS.values())
    with pytest.raises(StoreCorrupt, match=r"images\.sqlite is missing"):
        Store(folder, write=True)
    with Store(folder, write=True, create=True) as store:
        assert list(missing.images(store, sample.alpha)) == sorted(DIGESTS.values())
        with pytest.raises(StoreCorrupt, match="its pixels are missing"):
            contents.image(store, DIGESTS[1])
        with pytest.raises(NotFound):
            contents.image(store, bytes(32))


def test_an_origin_is_the_first_batch_that_made_an_image(folder, sample):
    """Picture 1 was made by the first step of `stuck`, again by step 2 of `noisy`, and in beta."""
    with Store(folder) as store:
        one, two, three, four = missing.image_origins(store, sample.alpha, set(DIGESTS.values()))
        assert [one.digest, two.digest, three.digest, four.digest] == list(DIGESTS.values())
        assert (one.model, one.seed, one.batch_size) == ("draw", 42, 8)
        assert (one.input, one.input_modality) == (text_digest("a"), "text")
        assert (two.input, three.seed, four.input) == (text_digest("b"), 5, text_digest("z"))
        (other,) = missing.image_origins(store, sample.beta, {DIGESTS[1]})
        assert other.seed == 7


def test_users_are_steps(folder, sample):
    with Store(folder) as store:
        assert list(images.image_users(store, sample.alpha, {DIGESTS[1], DIGESTS[4]})) == [
            (sample.stuck, 0, DIGESTS[1]),
            (sample.noisy, 2, DIGESTS[1]),
            (sample.failed, 0, DIGESTS[4]),
        ]


def test_lost_images_are_those_that_failures_name(folder, sample):
    with Store(folder, write=True) as store:
        detail = f"{DIGESTS[2].hex()}\n{DIGESTS[1].hex()}"
        lost = NewFailure(run=sample.stuck, step=0, kind="lost", message="", detail=detail)
        writing.commit(store, Commit(failures=[lost]))
        assert missing.lost_images(store, sample.alpha) == {DIGESTS[1], DIGESTS[2]}
        assert missing.lost_images(store, sample.beta) == set()
        assert writing.forget_failures(store, sample.alpha, "lost") == 1
        assert missing.lost_images(store, sample.alpha) == set()
        assert [run.state for run in reading.runs(store, sample.alpha)].count("failed") == 1
