"""Whole columns of a store: of all runs, of an experiment, of some runs."""

import numpy as np
import pytest

from panic.store import Commit, NewDiagram, NewEmbedding, bulk, contents, writing
from panic.store.bulk import Scope
from panic.store.codec import text_digest
from panic.store.records import NewDistance, NewIntervention, NewVectorisation
from tests.store.sample import batch, output


def runs(rows):
    return [row[0] for row in rows]


@pytest.fixture
def scopes(sample):
    """Everything, alpha, and two runs of both experiments."""
    return (
        Scope(),
        Scope.of_experiment(sample.alpha),
        Scope.of_runs([sample.shared, sample.stuck, sample.stuck]),
    )


def test_steps_are_those_of_the_runs_in_their_order(store, sample, scopes):
    every, alpha, some = (bulk.steps(store, scope) for scope in scopes)
    assert every.shape == (11, 6)
    keys = [
        (run, step)
        for run, length in zip(range(1, 6), (4, 4, 1, 0, 2), strict=True)
        for step in range(length)
    ]
    assert [tuple(row) for row in every[:, :2]] == keys
    assert np.array_equal(alpha, every[every[:, 0] != sample.shared])
    assert np.array_equal(some, every[np.isin(every[:, 0], [sample.shared, sample.stuck])])
    rows = dict(store.db.rows("SELECT id, digest FROM output"))
    for run, step, input, made, seed, call in every:
        (there,) = [one for one in contents.invocations(store, int(run)) if one.step == step]
        assert (rows[input].hex(), rows[made].hex()) == (there.input, there.output)
        assert (seed, call) == (there.seed, there.batch)
    assert bulk.steps(store, Scope.of_runs([])).shape == (0, 6)


def test_outputs_are_those_that_the_runs_have_used_prompts_included(store, sample, scopes):
    every, alpha, some = ([row[3] or row[2] for row in bulk.outputs(store, scope)] for scope in scopes)
    assert sorted(every) == ["a", "b", "c", "d", *["image"] * 4, "untouched", "z"]
    assert sorted(alpha) == ["a", "b", "c", *["image"] * 4, "untouched", "z"]
    assert sorted(some) == ["a", "b", "d", "image", "image"]
    image = next(row for row in bulk.outputs(store, scopes[0]) if row[2] == "image")
    assert image[3:] == (None, 8, 6)


def test_vectors_are_those_of_a_model_and_of_outputs_of_the_runs(store, sample, scopes):
    every, alpha, some = (bulk.vectors(store, scope, sample.embed) for scope in scopes)
    assert [found.tolist() for _, found in (every, alpha, some)] == [
        [[ord(text)] * 3 for text in texts] for texts in ("abcd", "abc", "abd")
    ]
    assert every[1].dtype == np.float32
    digests = dict(store.db.rows("SELECT id, digest FROM output"))
    assert [digests[row] for row in every[0]] == [text_digest(text) for text in "abcd"]
    rows, none = bulk.vectors(store, scopes[0], sample.draw)
    assert (rows.shape, none.shape) == ((0,), (0, 1))


def test_many_vectors_come_in_their_order(store, sample, monkeypatch):
    expected = bulk.vectors(store, Scope(), sample.embed)
    for chunk in (1, 2, 3, 4):
        monkeypatch.setattr(bulk, "CHUNK", chunk)
        for one, other in zip(bulk.vectors(store, Scope(), sample.embed), expected, strict=True):
            assert np.array_equal(one, other)


def test_batches_are_those_of_steps_and_of_what_stepped_in(writer, sample, scopes):
    every, alpha, some = (bulk.batches(writer, scope) for scope in scopes)
    assert [len(rows) for rows in (every, alpha, some)] == [12, 9, 6], "one embedded"
    for scope, rows in zip(scopes, (every, alpha, some), strict=True):
        found = sorted(map(tuple, bulk.batch_models(writer, scope).tolist()))
        assert found == [(row[0], row[2]) for row in sorted(rows)]
    embedded = max(row[0] for row in every)
    a, x = text_digest("a"), output("x")
    stepped = NewIntervention(sample.noisy, 4, 0, "model", a, x.digest, 1, embedded)
    writing.commit(writer, Commit(outputs=[x], interventions=[stepped]))
    assert len(bulk.batches(writer, scopes[1])) == 10
    (row,) = bulk.interventions(writer, scopes[1])
    assert row[:4] == (sample.noisy, 4, 0, "model")
    assert bulk.interventions(writer, scopes[2]) == []
    assert "x" in [row[3] for row in bulk.outputs(writer, scopes[1])]


def test_what_is_taken_of_diagrams_is_that_of_the_current_ones(writer, sample, scopes):
    """The shared run's first diagram has fewer points than its second one."""
    for run, num_points in ((sample.noisy, 2), (sample.shared, 1), (sample.shared, 3)):
        diagram = NewDiagram(
            run=run, model=sample.embed, settings={}, settings_digest="settings", num_points=num_points,
            num_unique=1, bars={0: np.array([[0.0, num_points]])},
        )  # fmt: skip
        writing.commit(writer, Commit(diagrams=[diagram]))
    measure, length = (writing.add_measure(writer, {"kind": kind}) for kind in ("entropy", "bottleneck"))
    pairs = [(1, 2, 0.5), (1, 3, 1.0), (1, 4, 2.0), (2, 4, 4.0)]
    writing.commit(
        writer,
        Commit(
            vectorisations=[
                NewVectorisation(
                    diagram=number, dimension=0, measure=measure, vector=np.array([float(number)])
                )
                for number in (1, 2, 3, 4)
            ],
            distances=[NewDistance(a, b, 0, length, found) for a, b, found in pairs],
        ),
    )
    stuck, noisy, shared = sample.stuck, sample.noisy, sample.shared
    found = [[(row[0], row[3], row[5]) for row in bulk.bars(writer, scope)] for scope in scopes]
    assert found == [
        [(stuck, 2, 0), (stuck, 2, 1), (noisy, 2, 0), (shared, 3, 0)],
        [(stuck, 2, 0), (stuck, 2, 1), (noisy, 2, 0)],
        [(stuck, 2, 0), (stuck, 2, 1), (shared, 3, 0)],
    ]
    assert [runs(bulk.vectorisations(writer, scope)) for scope in scopes] == [
        [stuck, noisy, shared], [stuck, noisy], [stuck, shared]
    ]  # fmt: skip
    (row, *_) = bulk.vectorisations(writer, scopes[0])
    assert row[1:6] == (sample.embed, "settings", 0, "entropy", '{"kind":"entropy"}')
    assert [[(row[0], row[1], row[-1]) for row in bulk.distances(writer, scope)] for scope in scopes] == [
        [(stuck, noisy, 0.5), (stuck, shared, 2.0), (noisy, shared, 4.0)],
        [(stuck, noisy, 0.5)],
        [(stuck, shared, 2.0)],
    ]
    assert {row[2:7] for row in bulk.distances(writer, scopes[0])} == {
        (sample.embed, "settings", 0, "bottleneck", '{"kind":"bottleneck"}')
    }


def test_vectors_of_one_model_have_its_dimension_beside_longer_ones(writer, sample, scopes):
    """Another model has longer vectors, of other outputs of the same runs."""
    other = writing.add_model(writer, "embed2", "fingerprint of embed2", {})
    call = batch(writer, 1, other)
    found = [
        NewEmbedding(output=text_digest(text), model=other, batch=call.id, vector=np.full(5, 7.0, np.float32))
        for text in ("z", "a", "untouched", "d")
    ]
    writing.commit(writer, Commit(batches=[call], embeddings=found))
    for scope, texts in zip(scopes, (4, 3, 3), strict=True):
        assert bulk.vectors(writer, scope, sample.embed)[1].shape == (texts, 3)
    assert [bulk.vectors(writer, scope, other)[1].shape for scope in scopes] == [(4, 5), (3, 5), (2, 5)]
    rows, _ = bulk.vectors(writer, scopes[0], other)
    assert rows.tolist() == sorted(rows.tolist())


def test_a_pair_is_told_by_its_runs_whichever_diagram_came_first(writer, sample):
    for run in (sample.shared, sample.noisy):
        diagram = NewDiagram(
            run=run, model=sample.embed, settings={}, settings_digest="settings", num_points=2, num_unique=1,
            bars={0: np.array([[0.0, 1.0]])},
        )  # fmt: skip
        writing.commit(writer, Commit(diagrams=[diagram]))
    measure = writing.add_measure(writer, {"kind": "bottleneck"})
    pairs = [NewDistance(2, 3, 0, measure, 1.0), NewDistance(1, 2, 0, measure, 2.0)]
    writing.commit(writer, Commit(distances=pairs))
    found = [(row[0], row[1], row[-1]) for row in bulk.distances(writer, Scope())]
    assert found == [(sample.stuck, sample.shared, 2.0), (sample.noisy, sample.shared, 1.0)]


def test_what_stepped_in_comes_in_the_order_of_runs_steps_and_places(writer, sample):
    given = text_digest("a")
    places = [
        *((sample.shared, 0, 0), (sample.noisy, 2, 0), (sample.noisy, 1, 1), (sample.noisy, 1, 0)),
        (sample.stuck, 3, 0),
    ]
    rows = [NewIntervention(*place, "text", given, given, None, None) for place in places]
    writing.commit(writer, Commit(interventions=rows))
    assert [row[:3] for row in bulk.interventions(writer, Scope())] == sorted(places)


def test_a_run_has_a_current_diagram_under_each_model_and_settings(writer, sample, scopes):
    """Of the first settings a larger one came before a smaller one."""
    other = writing.add_model(writer, "embed2", "of embed2", {})
    for model, digest, num_points in (
        (sample.embed, "settings", 7), (sample.embed, "settings", 3), (sample.embed, "other", 9),
        (other, "settings", 8),
    ):  # fmt: skip
        diagram = NewDiagram(
            run=sample.noisy, model=model, settings={"metric": digest}, settings_digest=digest,
            num_points=num_points, num_unique=num_points, bars={0: np.array([[0.0, 1.0]])},
        )  # fmt: skip
        writing.commit(writer, Commit(diagrams=[diagram]))
    found = [row[1:5] + row[6:7] for row in bulk.bars(writer, scopes[1]) if row[0] == sample.noisy]
    assert found == [
        (sample.embed, "other", 9, 9, "other"), (sample.embed, "settings", 7, 7, "settings"),
        (other, "settings", 8, 8, "settings"),
    ]  # fmt: skip
