"""What many runs put out at the same steps: also beyond the last stored step of a stuck run."""

import numpy as np
import pytest

from panic.store import (
    Commit,
    NewEmbedding,
    NewRun,
    NewStuck,
    contents,
    reading,
    tombstones,
    wall,
    writing,
)
from panic.store.codec import decode_vectors, image_digest, image_prompt, text_digest
from panic.store.images import drop_images
from panic.store.wall import Cell, Place
from tests.store.sample import NETWORK, batch, picture, steps

ALL = ("stuck", "noisy", "failed", "untouched")


def rows(sample, *names):
    return [getattr(sample, name) for name in names]


def shown(store, sample, step, before=0, names=ALL):
    return [(c.run, c.step, c.stored) for c in wall.cells(store, rows(sample, *names), step, before)]


def test_the_last_step_of_each_run(store, sample):
    found = wall.cells(store, rows(sample, *ALL), None)
    b, four = text_digest("b").hex(), image_digest(picture(4)).hex()
    assert found == [
        Cell(sample.stuck, 3, 3, b, "text", "b", 1),
        Cell(sample.noisy, 3, 3, text_digest("a").hex(), "text", "a", 1),
        Cell(sample.failed, 0, 0, four, "image", None, 0),
    ]
    assert shown(store, sample, None, 1, ["noisy"]) == [(sample.noisy, 2, 2), (sample.noisy, 3, 3)]


def test_a_stuck_run_goes_on_in_its_cycle_up_to_its_length(store, sample):
    """It has four of six steps, and its cycle is steps 2 and 3."""
    assert shown(store, sample, 5, 3, ["stuck"]) == [
        (sample.stuck, step, stored) for step, stored in ((2, 2), (3, 3), (4, 2), (5, 3))
    ]
    assert shown(store, sample, 6) == []
    assert shown(store, sample, 7, 3, ["stuck"]) == [(sample.stuck, 4, 2), (sample.stuck, 5, 3)]


def test_what_a_run_that_is_not_stuck_has_not_done_is_not_known(store, sample):
    assert shown(store, sample, 3, 9, ["noisy", "failed", "untouched"]) == [
        *((sample.noisy, step, step) for step in range(4)),
        (sample.failed, 0, 0),
    ]
    assert shown(store, sample, 0, names=["shared", "noisy"]) == [(sample.noisy, 0, 0), (sample.shared, 0, 0)]


def test_a_long_text_is_cut_and_says_how_long_it_is(writer, sample):
    session = writing.start_session(writer, sample.alpha, "x", {})
    long = "é" * (wall.TEXT_LIMIT + 5)
    models = (sample.draw, sample.tell)
    writing.commit(writer, steps(writer, session, models, sample.untouched, "untouched", [picture(1), long]))
    (cell,) = wall.cells(writer, [sample.untouched], 1)
    assert (cell.text, cell.length) == (long[: wall.TEXT_LIMIT], wall.TEXT_LIMIT + 5)
    sizes = [len(contents.image_bytes(writer, image_digest(picture(number)))) for number in range(1, 5)]
    assert wall.weight(writer, sample.alpha) == (4, sum(sizes), 4 + 2 * len(long)), (
        "texts: a, b, b, c, this one"
    )
    assert wall.weight(writer, sample.beta) == (1, sizes[0], 1)


def test_an_experiment_without_texts_weighs_nothing_nor_do_pixels_that_are_lost(writer, sample):
    empty = writing.start_experiment(writer, "empty", {})
    assert wall.weight(writer, empty) == (0, 0, 0)
    images, of_images, of_texts = wall.weight(writer, sample.alpha)
    lost = image_digest(picture(3))
    size = len(contents.image_bytes(writer, lost))
    drop_images(writer, [lost])
    assert wall.weight(writer, sample.alpha) == (images, of_images - size, of_texts)


def test_where_an_output_was_put_out(writer, sample):
    """The first picture was made by two runs of alpha and one of beta."""
    digest = image_digest(picture(1)).hex()
    there = [
        Place("alpha", sample.stuck, 0),
        Place("alpha", sample.noisy, 2),
        Place("beta", sample.shared, 0),
    ]
    assert wall.places(writer, digest, 9) == (3, there)
    number, some = wall.places(writer, digest, 2)
    assert (number, len(some)) == (3, 2)
    assert set(some) < set(there)
    assert wall.places(writer, "00" * 32, 9) == (0, [])
    tombstones.hide(writer, reading.experiment(writer, "beta"), "me")
    assert wall.places(writer, digest, 9) == (2, there[:2])


def test_how_long_the_longest_run_is(writer, sample):
    empty = writing.start_experiment(writer, "empty", {})
    assert [wall.longest(writer, row) for row in (sample.alpha, sample.beta, empty)] == [6, 2, 0]


def test_the_last_call_on_each_device(writer, sample):
    session = writing.start_session(writer, sample.alpha, "x", {})

    def call(device, model, started_at, size):
        made = batch(writer, session, model, size)
        values = (made.id, session, model, 0, device, size, 8, 0, started_at, 0.5)
        with writer.transaction() as connection:
            connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    call("cuda:1", sample.draw, 3.0, 4)
    call("cuda:0", sample.draw, 1.0, 5)
    call("cuda:0", sample.tell, 2.0, 6)
    assert wall.recent_calls(writer, session) == [
        ("cuda:0", "tell", 2.0, 0.5, 6, 8),
        ("cuda:1", "draw", 3.0, 0.5, 4, 8),
    ]
    assert wall.recent_calls(writer, session, most=2) == [("cuda:0", "tell", 2.0, 0.5, 6, 8)]
    assert [row[:2] for row in wall.recent_calls(writer, 1)] == [("cpu", "draw")], "its last step drew"


def test_steps_and_prompts_that_have_a_vector(store, sample):
    found = wall.embedded_steps(store, sample.noisy, sample.embed)
    assert [(step, modality, decode_vectors([data], 3)[0][0]) for step, modality, data in found] == [
        (1, "text", ord("c")),
        (3, "text", ord("a")),
    ]
    assert wall.embedded_steps(store, sample.noisy, sample.draw) == []
    modality, data = wall.embedded_prompt(store, sample.stuck, sample.embed)
    assert (modality, decode_vectors([data], 3).tolist()) == ("text", [[ord("a")] * 3])
    assert wall.embedded_prompt(store, sample.stuck, sample.draw) is None
    assert wall.embedded_prompt(store, sample.failed, sample.embed) is None


@pytest.mark.parametrize("kib", [100, 2000])
def test_pages_that_are_kept_can_be_few(store, kib):
    wall.use_little_memory(store, kib)
    assert [one.value("PRAGMA cache_size") for one in (store.db, store.images)] == [-kib, -kib]


def test_a_cycle_begins_at_its_entry(writer, sample):
    """Five of ten steps, of which the last four come again."""
    session = writing.start_session(writer, sample.alpha, "x", {})
    (run,) = writing.add_runs(
        writer, sample.alpha, [NewRun(network=NETWORK, prompt="y", seed=42, max_length=10)]
    )
    made = [picture(1), "p", picture(2), "q", picture(3)]
    commit = steps(writer, session, (sample.draw, sample.tell), run, "y", made)
    commit.stuck.append(NewStuck(run=run, entry_step=1, period=4))
    writing.commit(writer, commit)
    stored = [cell.stored for cell in wall.cells(writer, [run], 9, 5)]
    assert stored == [4, 1, 2, 3, 4, 1]


def test_a_prompt_that_is_an_image_has_a_vector_of_its_own(writer, sample):
    """It is not the first output, which is a text."""
    digest = image_digest(picture(4))
    call = batch(writer, writing.start_session(writer, sample.alpha, "x", {}), sample.embed)
    vector = NewEmbedding(output=digest, model=sample.embed, batch=call.id, vector=np.full(3, 7, np.float32))
    writing.commit(writer, Commit(batches=[call], embeddings=[vector]))
    asked = NewRun(network=NETWORK[::-1], prompt=image_prompt(digest), seed=42, max_length=2)
    (run,) = writing.add_runs(writer, sample.alpha, [asked])
    assert wall.embedded_prompt(writer, run, sample.embed) == ("image", vector.vector.tobytes())
    assert wall.embedded_steps(writer, sample.failed, sample.embed) == [(0, "image", vector.vector.tobytes())]


def test_the_last_two_hundred_calls_are_looked_at(writer, sample):
    session = writing.start_session(writer, sample.alpha, "x", {})
    with writer.transaction() as connection:
        for place, device in enumerate(["old", "first", *["cpu"] * 199]):
            values = (writing.next_batch_id(writer), session, sample.draw, 0, device, 1, 1, 0, place, 0.5)
            connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    assert [row[:3] for row in wall.recent_calls(writer, session)] == [
        ("cpu", "draw", 200.0), ("first", "draw", 1.0)
    ]  # fmt: skip
