"""Which pixels are missing, what made them, who needs them."""

import pytest

from panic.errors import NotFound, StoreCorrupt
from panic.store import Commit, NewFailure, Store
from panic.store.digest import image_digest, text_digest
from tests.store.sample import picture

DIGESTS = {number: image_digest(picture(number)) for number in (1, 2, 3, 4)}


def drop(folder, *numbers):
    with Store(folder, write=True) as store:
        store.drop_images(DIGESTS[number] for number in numbers)


def missing(folder, experiment):
    with Store(folder) as store:
        return list(store.missing_images(experiment))


def test_what_is_missing_is_found_per_experiment(folder, sample):
    assert missing(folder, sample.alpha) == []
    drop(folder, 2, 3)
    assert missing(folder, sample.alpha) == sorted([DIGESTS[2], DIGESTS[3]])
    assert missing(folder, sample.beta) == []
    drop(folder, 1, 4)
    assert missing(folder, sample.alpha) == sorted(DIGESTS.values())
    assert missing(folder, sample.beta) == [DIGESTS[1]]


def test_without_the_file_everything_is_missing_until_it_is_created(folder, sample):
    (folder / "images.sqlite").unlink()
    assert missing(folder, sample.alpha) == sorted(DIGESTS.values())
    with pytest.raises(StoreCorrupt, match=r"images\.sqlite is missing"):
        Store(folder, write=True)
    with Store(folder, write=True, create=True) as store:
        assert list(store.missing_images(sample.alpha)) == sorted(DIGESTS.values())
        with pytest.raises(StoreCorrupt, match="its pixels are missing"):
            store.image(DIGESTS[1])
        with pytest.raises(NotFound):
            store.image(bytes(32))


def test_an_origin_is_the_first_batch_that_made_an_image(folder, sample):
    """Picture 1 was made by the first step of `stuck`, again by step 2 of `noisy`, and in beta."""
    with Store(folder) as store:
        one, two, three, four = store.image_origins(sample.alpha, set(DIGESTS.values()))
        assert [one.digest, two.digest, three.digest, four.digest] == list(DIGESTS.values())
        assert (one.model, one.seed, one.batch_size) == ("draw", 42, 8)
        assert (one.input, one.input_modality) == (text_digest("a"), "text")
        assert (two.input, three.seed, four.input) == (text_digest("b"), 5, text_digest("z"))
        (other,) = store.image_origins(sample.beta, {DIGESTS[1]})
        assert other.seed == 7


def test_users_are_steps(folder, sample):
    with Store(folder) as store:
        assert list(store.image_users(sample.alpha, {DIGESTS[1], DIGESTS[4]})) == [
            (sample.stuck, 0, DIGESTS[1]),
            (sample.noisy, 2, DIGESTS[1]),
            (sample.failed, 0, DIGESTS[4]),
        ]


def test_lost_images_are_those_that_failures_name(folder, sample):
    with Store(folder, write=True) as store:
        detail = f"{DIGESTS[2].hex()}\n{DIGESTS[1].hex()}"
        lost = NewFailure(run=sample.stuck, step=0, kind="lost", message="", detail=detail)
        store.commit(Commit(failures=[lost]))
        assert store.lost_images(sample.alpha) == {DIGESTS[1], DIGESTS[2]}
        assert store.lost_images(sample.beta) == set()
        assert store.forget_failures(sample.alpha, "lost") == 1
        assert store.lost_images(sample.alpha) == set()
        assert [run.state for run in store.runs(sample.alpha)].count("failed") == 1
