"""Which pixels are missing, what made them, who needs them."""

import pytest

from panic.errors import NotFound, StoreCorrupt
from panic.store import (
    Commit,
    NewFailure,
    NewRun,
    Store,
    contents,
    images,
    missing,
    reading,
    tombstones,
    writing,
)
from panic.store.codec import encode_image, image_digest, image_prompt, text_digest
from panic.store.records import NewIntervention
from tests.store.sample import NETWORK, picture

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


def test_users_are_runs_that_begin_with_an_image_or_into_which_it_stepped(writer, sample):
    """Picture 4 is a prompt of alpha, and steps into runs of both; each experiment has its own."""
    asked = NewRun(network=NETWORK[::-1], prompt=image_prompt(DIGESTS[4]), seed=1, max_length=2)
    (begun,) = writing.add_runs(writer, sample.alpha, [asked])
    rows = [
        NewIntervention(run, step, 0, "model", text_digest("a"), DIGESTS[4], 1, 1)
        for run, step in ((sample.untouched, 3), (sample.shared, 2))
    ]
    writing.commit(writer, Commit(interventions=rows))
    assert list(images.image_users(writer, sample.alpha, {DIGESTS[4]})) == [
        (sample.failed, 0, DIGESTS[4]),
        (sample.untouched, 3, DIGESTS[4]),
        (begun, 0, DIGESTS[4]),
    ]
    assert list(images.image_users(writer, sample.beta, {DIGESTS[4]})) == [(sample.shared, 2, DIGESTS[4])]
    place = f"--store {writer.path}"
    assert images.remedies(writer, [DIGESTS[4], DIGESTS[2]]) == [
        "experiment alpha: 2 images are missing or damaged;"
        f" `panic resume alpha --repair {place}` computes what is lost",
        "experiment beta: an image is missing or damaged;"
        f" `panic resume beta --repair {place}` computes what is lost",
    ]
    tombstones.hide(writer, reading.experiment(writer, "alpha"), "me")
    assert [told.split(":")[0] for told in images.remedies(writer, [DIGESTS[4]])] == ["experiment beta"]


def test_damaged_images_are_those_of_the_experiment_and_no_missing_ones(writer, sample):
    """Picture 1 is of both experiments, 2 and 3 of alpha; the pixels of 3 are gone."""
    assert images.damaged_images(writer, sample.alpha) == []
    with writer.images.transaction() as connection:
        for number, data in ((1, b"no image"), (2, encode_image(picture(9)))):
            connection.execute("UPDATE image SET bytes = ? WHERE digest = ?", (data, DIGESTS[number]))
    images.drop_images(writer, [DIGESTS[3]])
    assert {*images.damaged_images(writer, sample.alpha)} == {DIGESTS[1], DIGESTS[2]}
    assert images.damaged_images(writer, sample.beta) == [DIGESTS[1]]
    told = [images.image_problem(writer, DIGESTS[number], 8, 6) for number in (2, 3, 4)]
    assert told == ["its pixels are those of another image", "its pixels are missing", ""]
    assert images.image_problem(writer, DIGESTS[4], 8, 7) == "8 x 6 pixels, not 8 x 7"
    assert [images.has_image(writer, DIGESTS[number]) for number in (3, 4)] == [False, True]
    assert images.has_output(writer, DIGESTS[3])
    assert not images.has_output(writer, bytes(32))
