"""What a store lacks: the questions by which the stages find their work."""

import contextlib
import dataclasses
import functools
import sqlite3

import numpy as np
import pytest

from panic.store import (
    Commit,
    NewDiagram,
    NewEmbedding,
    NewFailure,
    NewInvocation,
    NewRun,
    NewStuck,
    check,
    contents,
    missing,
    reading,
    writing,
)
from panic.store.codec import image_digest, text_digest
from panic.store.missing import FixedSeedStep
from panic.store.records import NewDistance, NewIntervention, NewRepeated, NewVectorisation
from tests.store.sample import NETWORK, SETTINGS, batch, output, picture, steps


def test_tails_are_the_last_outputs(store, sample):
    assert [tail[:3] for tail in missing.tails(store, sample.alpha)] == [
        (sample.stuck, 4, text_digest("b")),
        (sample.noisy, 4, text_digest("a")),
        (sample.failed, 1, image_digest(picture(4))),
        (sample.untouched, 0, text_digest("untouched")),
    ]


def test_outputs_of_runs_come_by_run_and_step(store, sample):
    found = list(missing.outputs(store, [sample.shared, sample.stuck]))
    one, two = (image_digest(picture(number)) for number in (1, 2))
    b, d = text_digest("b"), text_digest("d")
    assert found == [
        *((sample.stuck, digest) for digest in (one, b, two, b)), (sample.shared, one), (sample.shared, d)
    ]  # fmt: skip


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


@pytest.fixture
def second(writer, sample):
    """The row of a second text embedding, which has the vectors of "a" and "z" only."""
    model = writing.add_model(writer, "embed2", "fingerprint of embed2", {})
    call = batch(writer, 1, model)
    vectors = [
        NewEmbedding(output=text_digest(text), model=model, batch=call.id, vector=np.full(5, 7.0, np.float32))
        for text in ("a", "z")
    ]
    writing.commit(writer, Commit(batches=[call], embeddings=vectors))
    return model


def give_vectors(store, model, *texts):
    call = batch(store, 1, model)
    vectors = [
        NewEmbedding(output=text_digest(t), model=model, batch=call.id, vector=np.full(5, ord(t), np.float32))
        for t in texts
    ]
    writing.commit(store, Commit(batches=[call], embeddings=vectors))


def add_diagram(store, run, model, num_points=2, settings_digest="settings"):
    bars = {0: np.array([[0.0, 1.0]])}
    diagram = NewDiagram(
        run=run, model=model, settings=SETTINGS, settings_digest=settings_digest, num_points=num_points,
        num_unique=2, bars=bars,
    )  # fmt: skip
    writing.commit(store, Commit(diagrams=[diagram]))


def test_each_of_two_text_embeddings_has_its_own_vectors(writer, sample, second):
    def lacking(model):
        return {digest for digest, _ in missing.embeddings(writer, sample.alpha, model, ["text"])}

    assert lacking(second) == {text_digest(text) for text in ("b", "c", "untouched")}
    assert lacking(sample.embed) == {text_digest(text) for text in ("z", "untouched")}
    of_run = missing.embeddings(writer, sample.alpha, second, ["text"], run=sample.stuck)
    assert of_run == [(text_digest("b"), "text")]
    assert missing.embeddings(writer, sample.beta, second, ["text"]) == [(text_digest("d"), "text")]
    assert contents.run_vectors(writer, sample.noisy, second, "text").tolist() == [[7.0] * 5]
    assert contents.run_vectors(writer, sample.noisy, sample.embed, "text").shape == (2, 3)
    assert contents.vectors(writer, "embed2").vectors.shape == (2, 5)
    assert contents.vectors(writer, "embed").vectors.shape == (4, 3)


def test_a_diagram_needs_all_vectors_of_its_own_model(writer, sample, second):
    def due(model):
        return missing.diagrams(writer, sample.alpha, model, "settings", "text")

    assert due(second) == [], "the vectors of b and c are those of the other model"
    give_vectors(writer, second, "c")
    assert due(second) == [sample.noisy]
    give_vectors(writer, second, "b")
    assert due(second) == [sample.stuck, sample.noisy], "the diagram that there is, is of the other model"
    add_diagram(writer, sample.noisy, second)
    assert due(second) == [sample.stuck]
    assert due(sample.embed) == [sample.noisy]


def test_no_diagram_of_runs_that_are_not_finished(writer, sample):
    """An unfinished one with all its vectors, a failed one, one that a longer maximum leaves unfinished."""
    both = [sample.stuck, sample.noisy]
    due = functools.partial(missing.diagrams, writer, sample.alpha, sample.embed, "other", "text")
    assert due() == both
    session = writing.start_session(writer, sample.alpha, "x", {})
    models = (sample.draw, sample.tell)
    writing.commit(writer, steps(writer, session, models, sample.untouched, "untouched", [picture(1), "b"]))
    assert reading.counts(writer, "alpha").running == 1
    assert due() == both, "it has two of six steps, and their vector"
    longer = NewRun(network=NETWORK, prompt="a", seed=-1, max_length=9)
    assert writing.add_runs(writer, sample.alpha, [longer]) == [sample.noisy]
    assert due() == [sample.stuck]


def test_a_diagram_has_at_least_so_many_points(store, sample):
    due = functools.partial(missing.diagrams, store, sample.alpha, sample.embed, "other", "text")
    assert due(min_points=2) == [sample.stuck, sample.noisy]
    assert due(min_points=3) == []


def test_tails_and_history_are_those_of_their_experiment(store, sample):
    assert missing.tails(store, sample.beta) == [(sample.shared, 2, text_digest("d"), "text", 0)]
    assert [(row.run, row.step, row.seed) for row in missing.fixed_seed_history(store, sample.beta)] == [
        (sample.shared, 0, 7),
        (sample.shared, 1, 7),
    ]


def test_history_tells_the_shape_epoch(writer, sample):
    writing.add_epoch(writer, sample.alpha, "draw", model=sample.draw, batch_size=4, device_kind="cpu")
    session = writing.start_session(writer, sample.alpha, "x", {})
    commit = steps(writer, session, (sample.draw, sample.tell), sample.untouched, "untouched", [picture(1)])
    commit.batches[0] = dataclasses.replace(commit.batches[0], epoch=1)
    writing.commit(writer, commit)
    epochs = {(row.run, row.step): row.epoch for row in missing.fixed_seed_history(writer, sample.alpha)}
    assert epochs.pop((sample.untouched, 0)) == 1
    assert set(epochs.values()) == {0}


def test_vectorisations_and_distances_are_missing_by_model_and_settings(writer, sample, second):
    """Diagrams of the other model and of other settings have none of these, and are not asked for."""
    add_diagram(writer, sample.noisy, sample.embed)
    for run in (sample.stuck, sample.noisy):
        add_diagram(writer, run, second)
        add_diagram(writer, run, sample.embed, settings_digest="other")
    measure = writing.add_measure(writer, {"kind": "entropy"})
    key = (sample.alpha, sample.embed, "settings")
    first = [row.id for row in contents.diagrams(writer) if row.model == sample.embed][:2]
    assert [id for id, _ in missing.vectorisations(writer, *key, [measure])] == first
    assert list(missing.distances(writer, *key, measure, 1)) == [(first[0], [first[1]])]
    assert list(missing.distances(writer, sample.beta, *key[1:], measure, 1)) == []
    writing.commit(writer, Commit(distances=[NewDistance(*first, 0, measure, 0.5)]))
    assert list(missing.distances(writer, *key, measure, 1)) == []
    assert list(missing.distances(writer, *key, measure, 2)) == [(first[0], [first[1]])], (
        "one dimension of two"
    )


def test_what_one_diagram_or_measure_has_is_not_what_another_one_lacks(writer, sample):
    """The noisy run's diagram has bars of dimension 0 only, the stuck one's of two dimensions."""
    add_diagram(writer, sample.noisy, sample.embed)
    measure, other = (writing.add_measure(writer, {"kind": kind}) for kind in ("entropy", "wasserstein"))
    key = (sample.alpha, sample.embed, "settings")
    row = NewVectorisation(diagram=2, dimension=0, measure=measure, vector=np.ones(1))
    writing.commit(writer, Commit(vectorisations=[row]))
    assert list(missing.vectorisations(writer, *key, [measure])) == [(1, [measure])]
    assert list(missing.vectorisations(writer, *key, [measure, other])) == [
        (1, [measure, other]),
        (2, [other]),
    ]
    writing.commit(writer, Commit(distances=[NewDistance(1, 2, 0, other, 0.5)]))
    assert list(missing.distances(writer, *key, other, 1)) == []
    assert list(missing.distances(writer, *key, measure, 1)) == [(1, [2])]


def lose(folder, digest):
    with contextlib.closing(sqlite3.connect(folder / "images.sqlite")) as connection, connection:
        assert connection.execute("DELETE FROM image WHERE digest = ?", (digest,)).rowcount == 1


def test_missing_images_are_those_of_the_experiment(folder, store, sample):
    assert list(missing.images(store, sample.alpha)) == []
    lost = sorted(image_digest(picture(number)) for number in (1, 4))
    for digest in lost:
        lose(folder, digest)
    assert list(missing.images(store, sample.alpha)) == lost
    assert list(missing.images(store, sample.beta)) == [image_digest(picture(1))]


def test_the_last_image_in_order_can_be_missing_too(folder, store, sample):
    every = sorted(image_digest(picture(number)) for number in (1, 2, 3, 4))
    for digest in every[-1:] + every[:1]:
        lose(folder, digest)
    assert list(missing.images(store, sample.alpha)) == [every[0], every[-1]]


def test_the_origin_of_an_image_is_what_made_it_first_in_the_experiment(store, sample):
    first, third = image_digest(picture(1)), image_digest(picture(3))
    origins = {row.digest: row for row in missing.image_origins(store, sample.alpha, {first, third})}
    assert origins.keys() == {first, third}
    one = origins[first]  # the noisy run made it, too, at step 2 and with seed 5
    assert (one.model, one.batch_size, one.seed) == ("draw", 8, 42)
    assert (one.input, one.input_modality) == (text_digest("a"), "text")
    (later,) = missing.image_origins(store, sample.alpha, {image_digest(picture(2))})
    assert (later.model, later.input) == ("draw", text_digest("b")), "made at step 2"
    (other,) = missing.image_origins(store, sample.beta, {first, third})
    assert (other.digest, other.seed) == (first, 7)


def test_an_image_is_made_again_in_batches_of_the_size_that_made_it(writer, sample):
    writer.db.execute("UPDATE batch SET padded_size = 10 + id")
    (origin,) = missing.image_origins(writer, sample.alpha, {image_digest(picture(2))})
    assert origin.batch_size == 10 + contents.invocations(writer, sample.stuck)[2].batch


def test_what_is_lost_for_good_is_told_by_failures_of_that_kind(writer, sample):
    digests = [image_digest(picture(number)) for number in (1, 2)]
    detail = "\n".join(digest.hex() for digest in digests)
    failures = [
        NewFailure(run=sample.untouched, step=0, kind="lost", message="gone", detail=detail),
        NewFailure(run=sample.shared, step=0, kind="error", message="gone", detail=digests[0].hex()),
    ]
    writing.commit(writer, Commit(failures=failures))
    assert missing.lost_images(writer, sample.alpha) == set(digests)
    assert missing.lost_images(writer, sample.beta) == set()


SHOCK = [{"at": 1, "text": "x"}, {"at": 1, "model": "tell"}]


@pytest.fixture
def armed(writer, sample):
    """An experiment with a run of the baseline (2 steps) and one of "shock", into which two things stepped.

    A text was put in place before its step 1, of which "tell" then made another one.
    """
    experiment = writing.start_experiment(writer, "armed", {"arms": {"shock": SHOCK}})
    writing.add_epoch(writer, experiment, "tell", model=sample.tell, batch_size=8, device_kind="cpu")
    session = writing.start_session(writer, experiment, "x", {})
    asked = [
        NewRun(network=NETWORK, prompt="a", seed=42, max_length=4, arm=arm) for arm in ("baseline", "shock")
    ]
    plain, shocked = writing.add_runs(writer, experiment, asked)
    models = (sample.draw, sample.tell)
    writing.commit(writer, steps(writer, session, models, plain, "a", [picture(1), "b"]))
    made = steps(writer, session, models, shocked, "a", [picture(5)])
    call = batch(writer, session, sample.tell)
    made.batches.append(dataclasses.replace(call, epoch=0, padded_size=3))
    made.outputs.extend([output("x"), output("y")])
    put = NewIntervention(shocked, 1, 0, "text", image_digest(picture(5)), text_digest("x"), None, None)
    told = NewIntervention(shocked, 1, 1, "model", text_digest("x"), text_digest("y"), 9, call.id)
    made.interventions.extend([put, told])
    writing.commit(writer, made)
    return experiment, plain, shocked, call.id


def test_what_has_stepped_in_is_what_the_next_step_takes(writer, armed):
    experiment, plain, shocked, _ = armed
    assert missing.tails(writer, experiment) == [
        (plain, 2, text_digest("b"), "text", 0),
        (shocked, 1, text_digest("y"), "text", 2),
    ]


def test_history_tells_the_calls_that_stepped_in_before_their_step(writer, sample, armed):
    experiment, plain, shocked, call = armed
    history = list(missing.fixed_seed_history(writer, experiment))
    assert [row[:2] for row in history] == [(plain, 0), (plain, 1), (shocked, 0), (shocked, 1)]
    assert [row.place for row in history] == [None, None, None, 1], "the text was no call"
    assert history[-1] == (shocked, 1, text_digest("x"), text_digest("y"), 9, call, 0, 1)
    assert all(row.place is None for row in missing.fixed_seed_history(writer, sample.alpha))
    writing.commit(writer, continued(writer, sample, shocked))
    rows = [
        (row.step, row.place) for row in missing.fixed_seed_history(writer, experiment) if row.run == shocked
    ]
    assert rows == [(0, None), (1, 1), (1, None)]


def continued(store, sample, run):
    """A step 1 for a run that something stepped into."""
    call = batch(store, 1, sample.tell)
    made = output("after")
    invocation = NewInvocation(run, 1, text_digest("y"), made.digest, 42, call.id)
    return Commit(batches=[call], outputs=[made], invocations=[invocation])


def test_steps_before_what_steps_in_are_those_of_the_other_arm(writer, sample, armed):
    """The baseline has two steps; arms that step in before steps 2 and 3 share both, one at 1 the first."""
    experiment, plain, _, _ = armed
    arms = {"shock": 1, "early": 1, "late": 2, "later": 3}
    config = {"arms": {arm: [{"at": at, "text": "x"}] for arm, at in arms.items()}}
    writing.start_experiment(writer, "armed", config)

    def asked(**changes):
        return NewRun(**{"network": NETWORK, "prompt": "a", "seed": 42, "max_length": 4} | changes)

    alike = [asked(arm=arm) for arm in ("early", "late", "later")]
    others = [
        asked(arm="late", seed=43),
        asked(arm="late", prompt="z"),
        asked(arm="late", network=NETWORK[::-1]),
    ]
    runs = writing.add_runs(writer, experiment, [*alike, *others])
    expected = [missing.Shared(run, plain, 0, end) for run, end in zip(runs, (1, 2, 2), strict=False)]
    assert missing.shared_steps(writer, experiment, reading.runs(writer, "armed")) == expected
    writing.share_steps(writer, expected)
    assert missing.shared_steps(writer, experiment, reading.runs(writer, "armed")) == []
    copied = {run: [(row.step, row.output) for row in contents.invocations(writer, run)] for run in runs}
    theirs = [(row.step, row.output) for row in contents.invocations(writer, plain)]
    assert [copied[run] for run in runs] == [theirs[:1], theirs, theirs, [], [], []]
    writing.add_epoch(
        writer, experiment, "draw", batch_size=1, device_kind="cpu",
        model=writing.add_model(writer, "draw", "asked over HTTP", {}, is_repeatable=False),
    )  # fmt: skip
    writing.add_runs(writer, experiment, [asked(arm="fourth")])
    assert missing.shared_steps(writer, experiment, reading.runs(writer, "armed")) == [], (
        "each asks for itself"
    )


def test_an_image_that_stepped_in_has_what_made_it_as_its_origin(writer, sample, armed):
    """An image that a model made in between; the same image made by a later step is not its origin."""
    config = {"arms": {"shock": [{"at": 1, "model": "paint"}]}}
    experiment = writing.start_experiment(writer, "painted", config)
    session = writing.start_session(writer, experiment, "x", {})
    (run,) = writing.add_runs(
        writer, experiment, [NewRun(network=NETWORK, prompt="a", seed=42, max_length=4, arm="shock")]
    )
    made = steps(writer, session, (sample.draw, sample.tell), run, "a", [picture(6), "b", picture(7)])
    call = dataclasses.replace(batch(writer, session, sample.draw), padded_size=3)
    made.batches.append(call)
    first, second = image_digest(picture(6)), image_digest(picture(7))
    made.interventions.append(NewIntervention(run, 1, 0, "model", first, second, 9, call.id))
    writing.commit(writer, made)
    step = {row.digest: row for row in missing.image_origins(writer, experiment, {first, second})}[second]
    assert (step.model, step.batch_size, step.seed, step.input_modality) == ("draw", 8, 42, "text")
    writer.db.execute("DELETE FROM invocation WHERE step = 2 AND run = (SELECT max(id) FROM run)")
    painted = {row.digest: row for row in missing.image_origins(writer, experiment, {first, second})}[second]
    assert (painted.model, painted.batch_size, painted.seed) == ("paint", 3, 9)
    assert (painted.input, painted.input_modality) == (first, "image")


def test_origins_are_in_the_order_in_which_images_were_made_whatever_made_them(writer, sample, armed):
    """One stepped in, by the first call of all: the images of the steps may have been made of it."""
    experiment, plain, _, _ = armed
    call = batch(writer, 1, sample.draw)
    made = steps(
        writer, 1, (sample.draw, sample.tell), plain, "a", [picture(1), "b", picture(6), "c", picture(7)]
    )
    del made.invocations[:2]
    images = [image_digest(picture(number)) for number in (8, 6, 7)]
    made.batches.append(call)
    made.outputs.append(output(picture(8)))
    made.interventions.append(NewIntervention(plain, 2, 0, "model", text_digest("b"), images[0], 9, call.id))
    writing.commit(writer, made)
    found = [row.digest for row in missing.image_origins(writer, experiment, {*images})]
    assert found == images


def asked_in(arm, **changes):
    return NewRun(**{"network": NETWORK, "prompt": "a", "seed": 42, "max_length": 4, "arm": arm} | changes)


@pytest.mark.parametrize("end", ["failed", "stuck", "repeated"])
def test_no_steps_are_shared_with_a_run_that_has_ended(writer, armed, end):
    """The other arm has two steps, and this one ended before its first: nobody goes on with it."""
    experiment, plain, _, _ = armed
    config = {"arms": {"shock": SHOCK} | {arm: [{"at": 3, "text": "x"}] for arm in ("open", "ended")}}
    writing.start_experiment(writer, "armed", config)
    going, ended = writing.add_runs(writer, experiment, [asked_in("open"), asked_in("ended")])
    rows = {
        "failed": Commit(failures=[NewFailure(run=ended, step=0, kind="error", message="no")]),
        "stuck": Commit(stuck=[NewStuck(run=ended, entry_step=0, period=1)]),
        "repeated": Commit(repeated=[NewRepeated(run=ended, entry_step=0, period=1, times=2)]),
    }
    writing.commit(writer, rows[end])
    runs = reading.runs(writer, "armed")
    assert [row.state for row in runs if row.id == ended] == [end]
    assert missing.shared_steps(writer, experiment, runs) == [missing.Shared(going, plain, 0, 2)]


def test_of_runs_that_are_equally_far_the_first_is_shared_and_none_further_than_it_is_to_go(writer, armed):
    experiment, plain, _, _ = armed
    config = {"arms": {arm: [{"at": 3, "text": "x"}] for arm in ("shock", "second", "third", "short")}}
    writing.start_experiment(writer, "armed", config)
    (second,) = writing.add_runs(writer, experiment, [asked_in("second")])
    writing.share_steps(writer, missing.shared_steps(writer, experiment, reading.runs(writer, "armed")))
    assert reading.runs(writer, only=[second])[0].num_steps == 2
    third, short = writing.add_runs(writer, experiment, [asked_in("third"), asked_in("short", max_length=1)])
    assert missing.shared_steps(writer, experiment, reading.runs(writer, "armed")) == [
        missing.Shared(third, plain, 0, 2),
        missing.Shared(short, plain, 0, 1),
    ]


def test_no_steps_are_shared_with_another_repeat(writer, sample, armed):
    experiment, *_ = armed
    writing.start_experiment(writer, "armed", {"arms": {"baseline": [], "shock": SHOCK}})
    first, *others = writing.add_runs(
        writer,
        experiment,
        [asked_in(arm, seed=-1, repeat=n) for arm, n in (("baseline", 0), ("shock", 1), ("shock", 0))],
    )
    models = (sample.draw, sample.tell)
    writing.commit(writer, steps(writer, 1, models, first, "a", [picture(8)], seed=3))
    assert missing.shared_steps(writer, experiment, reading.runs(writer, "armed")) == [
        missing.Shared(others[1], first, 0, 1)
    ]


def test_calls_that_stepped_in_are_history_with_a_fixed_seed_and_in_their_experiment(writer, sample, armed):
    """Models stepped into a run with fresh noise, too, and into one of another experiment."""
    experiment, _, shocked, _ = armed
    (noisy,) = writing.add_runs(writer, experiment, [asked_in("shock", seed=-1)])
    made = Commit()
    for run in (noisy, sample.shared):
        call = batch(writer, 1, sample.tell)
        made.batches.append(call)
        given = text_digest("a")
        made.interventions.append(NewIntervention(run, 0, 0, "model", given, given, 9, call.id))
    writing.commit(writer, made)
    stepped = [row.run for row in missing.fixed_seed_history(writer, experiment) if row.place is not None]
    assert stepped == [shocked]
    stepped = [row.run for row in missing.fixed_seed_history(writer, sample.beta) if row.place is not None]
    assert stepped == [sample.shared]
    assert all(row.place is None for row in missing.fixed_seed_history(writer, sample.alpha))


def test_nothing_has_stepped_in_unless_it_is_said():
    assert missing.Tail(1, 2, b"", "text").num_made == 0
    assert FixedSeedStep(1, 0, b"", b"", 42, 1, 0).place is None


def test_a_run_that_was_ended_as_repeated_is_complete(writer, sample):
    due = functools.partial(missing.diagrams, writer, sample.alpha, sample.embed, "other", "text")
    texts = [picture(1), "b"]
    models = (sample.draw, sample.tell)
    writing.commit(writer, steps(writer, 1, models, sample.untouched, "untouched", texts))
    assert due() == [sample.stuck, sample.noisy]
    ended = NewRepeated(run=sample.untouched, entry_step=0, period=1, times=2)
    writing.commit(writer, Commit(repeated=[ended]))
    assert due() == [sample.stuck, sample.noisy, sample.untouched]


def test_a_distance_is_there_whichever_diagram_came_first(writer, sample):
    """The diagram of the later run is the older one: pairs are in the order of diagrams."""
    for run in (sample.noisy, sample.stuck):
        add_diagram(writer, run, sample.embed, settings_digest="other")
    older, newer = (row.id for row in contents.diagrams(writer) if row.settings_digest == "other")
    measure = writing.add_measure(writer, {"kind": "bottleneck"})
    key = (sample.alpha, sample.embed, "other", measure, 1)
    assert list(missing.distances(writer, *key)) == [(newer, [older])]
    writing.commit(writer, Commit(distances=[NewDistance(older, newer, 0, measure, 0.5)]))
    assert list(missing.distances(writer, *key)) == []
    found = contents.distances(writer, "alpha", "embed", dimension=0, kind="bottleneck", diagrams="other")
    assert (found.runs, found.matrix.tolist()) == ([sample.stuck, sample.noisy], [[0.0, 0.5], [0.5, 0.0]])
