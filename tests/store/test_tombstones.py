"""What was deleted is found, comes back and is purged, also while somebody else does the same."""

import time

import numpy as np
import pytest

from panic.errors import ConflictError, NotFound
from panic.store import (
    Commit,
    NewDiagram,
    NewFailure,
    NewRun,
    Store,
    check,
    dump,
    reading,
    summaries,
    tombstones,
    writing,
)
from panic.store.annotations import annotate, list_annotations, marks, run_target
from panic.store.records import NewDistance
from panic.store.signing import Author
from tests.store.sample import NETWORK


@pytest.fixture
def writer(folder, sample):
    with Store(folder, write=True) as store:
        yield store


def hide(store, name):
    """Delete an experiment; the deletion."""
    tombstones.hide(store, reading.experiment(store, name), "me")
    return tombstones.find(store, name)


def test_what_came_back_while_somebody_was_asked_is_not_purged(writer):
    hidden = hide(writer, "alpha")
    tombstones.restore(writer, hidden)
    assert tombstones.purge(writer, [hidden]).runs == 0
    assert [row.name for row in reading.experiments(writer)] == ["alpha", "beta"]


def test_what_was_deleted_or_purged_meanwhile_is_not_deleted_or_brought_back_again(writer):
    row = reading.experiment(writer, "alpha")
    hidden = hide(writer, "alpha")
    with pytest.raises(NotFound, match="No experiment"):
        tombstones.hide(writer, row, "me")
    with pytest.raises(NotFound, match="No experiment"):
        tombstones.hide_runs(writer, row, [1], "me")
    tombstones.purge(writer, [hidden])
    with pytest.raises(NotFound, match="not deleted any more"):
        tombstones.restore(writer, hidden)


def test_a_beginning_of_several_ids_brings_nothing_back(writer):
    """Ids begin with the time: the first four digits are the same for weeks."""
    uids = [hide(writer, name).uid for name in ("alpha", "beta")]
    assert uids[0][:4] == uids[1][:4]
    with pytest.raises(NotFound, match="Several deletions"):
        tombstones.find(writer, uids[0][:4])
    assert tombstones.find(writer, uids[0]).name == "alpha"


def test_remarks_on_runs_that_can_still_come_back_are_kept(writer):
    """Two experiments of one name had the same run and were deleted; the first is purged."""
    run = NewRun(network=NETWORK, prompt="again", seed=42, repeat=0, max_length=2)
    for _ in range(2):
        experiment = writing.start_experiment(writer, "gamma", {"name": "gamma"})
        writing.add_runs(writer, experiment, [run])
        (row,) = reading.runs(writer, experiment)
        if not list_annotations(writer, "run"):
            annotate(writer, "tag", [(run_target("gamma", row), "good")], Author(name="me"))
        hide(writer, "gamma")
    first, second = tombstones.deleted(writer)
    tombstones.purge(writer, [first])
    assert [remark.text for remark in list_annotations(writer, "run")] == ["good"]
    tombstones.purge(writer, [second])
    assert list_annotations(writer, "run") == []


def runs_of(store, name="alpha"):
    return [row.id for row in reading.runs(store, name)]


def test_runs_that_are_deleted_leave_the_others_and_come_back_as_they_were(writer, sample):
    row, before = reading.experiment(writer, "alpha"), list(dump.dump(writer))
    began = time.time()
    tombstones.hide_runs(writer, row, [sample.stuck, sample.failed, sample.shared], "me")
    assert runs_of(writer) == [sample.noisy, sample.untouched]
    assert runs_of(writer, "beta") == [sample.shared], "it is no run of alpha"
    (hidden,) = tombstones.deleted(writer)
    assert (hidden.name, hidden.origin, hidden.num_runs, hidden.author) == ("alpha", sample.alpha, 2, "me")
    assert hidden.is_part
    assert began <= hidden.at <= time.time()
    assert tombstones.find(writer, hidden.uid) == hidden
    assert check.check(writer) == []
    counts = tombstones.preview_purge(writer, [hidden])
    assert (counts.runs, counts.invocations, counts.diagrams) == (2, 5, 1)
    assert tombstones.restore(writer, hidden) == 0
    assert tombstones.deleted(writer) == []
    assert list(dump.dump(writer)) == before
    assert writer.db.value("SELECT count(*) FROM experiment") == 2
    assert writer.db.value("SELECT count(*) FROM epoch") == 6


def test_runs_that_were_computed_anew_stay_deleted(writer, sample):
    row = reading.experiment(writer, "alpha")
    tombstones.hide_runs(writer, row, [sample.stuck, sample.failed], "me")
    again = NewRun(network=NETWORK, prompt="z", seed=42, max_length=6)
    (anew,) = writing.add_runs(writer, sample.alpha, [again])
    assert anew != sample.failed
    (hidden,) = tombstones.deleted(writer)
    assert tombstones.restore(writer, hidden) == 1
    assert runs_of(writer) == [sample.stuck, sample.noisy, sample.untouched, anew]
    (left,) = tombstones.deleted(writer)
    assert (left.num_runs, left.uid) == (1, hidden.uid)
    assert tombstones.purge(writer, [left]).runs == 1
    assert runs_of(writer) == [sample.stuck, sample.noisy, sample.untouched, anew]
    assert check.check(writer) == []


def test_distances_between_what_goes_and_what_stays_go(writer, sample):
    """Two of four diagrams go: two of six distances stay, that of those two and that of the others."""
    runs = (sample.stuck, sample.noisy, sample.failed, sample.untouched)
    for run in runs[1:]:
        diagram = NewDiagram(
            run=run, model=sample.embed, settings={}, settings_digest="settings", num_points=1, num_unique=1,
            bars={0: np.array([[0.0, 1.0]])},
        )  # fmt: skip
        writing.commit(writer, Commit(diagrams=[diagram]))
    measure = writing.add_measure(writer, {"kind": "bottleneck"})
    pairs = [(a, b) for a in range(1, 5) for b in range(a + 1, 5)]
    writing.commit(writer, Commit(distances=[NewDistance(a, b, 0, measure, 1.0) for a, b in pairs]))
    tombstones.hide_runs(writer, reading.experiment(writer, "alpha"), runs[:2], "me")
    assert writer.db.rows("SELECT a, b FROM distance ORDER BY a") == [(1, 2), (3, 4)]


def test_runs_of_what_is_deleted_itself_come_back_after_it(writer, sample):
    tombstones.hide_runs(writer, reading.experiment(writer, "alpha"), [sample.stuck], "me")
    (part,) = tombstones.deleted(writer)
    whole = hide(writer, "alpha")
    assert tombstones.find(writer, "alpha") == whole, "the newest"
    with pytest.raises(ConflictError, match="runs of alpha, which is deleted itself"):
        tombstones.restore(writer, part)
    tombstones.restore(writer, whole)
    assert tombstones.deleted(writer) == [part]
    tombstones.restore(writer, part)
    assert runs_of(writer)[0] == sample.stuck


def test_what_was_deleted_together_comes_back_together_also_under_another_name(writer, sample):
    for name in ("alpha/null-order", "beta/null-order"):
        writing.start_experiment(writer, name, {"name": name})
    hide(writer, "beta")
    hidden = hide(writer, "alpha")
    listed = [one.name for one in tombstones.deleted(writer)]
    assert listed == ["beta", "beta/null-order", "alpha", "alpha/null-order"]
    with pytest.raises(NotFound, match="Nothing called 'alpha/null-order' was deleted") as caught:
        tombstones.find(writer, "alpha/null-order")
    assert caught.value.hint == "Deleted are: beta, alpha."
    writing.start_experiment(writer, "gamma/null-order", {})
    with pytest.raises(ConflictError, match="There is an experiment called gamma/null-order"):
        tombstones.restore(writer, hidden, "gamma")
    assert tombstones.restore(writer, hidden, "delta") == 0
    names = {row.name for row in reading.experiments(writer)}
    assert names == {"delta", "delta/null-order", "gamma/null-order"}
    assert reading.experiment(writer, "delta").config["name"] == "delta"
    assert [row.name for row in reading.nulls(writer, "delta")] == ["delta/null-order"]
    assert {one.name for one in tombstones.deleted(writer)} == {"beta", "beta/null-order"}


def test_runs_whose_experiment_was_purged_are_purged_too(writer, sample):
    tombstones.hide_runs(writer, reading.experiment(writer, "alpha"), [sample.stuck, sample.noisy], "me")
    hide(writer, "alpha")
    part, whole = tombstones.deleted(writer)
    assert tombstones.purge(writer, [whole]).runs == 2
    (left,) = tombstones.deleted(writer)
    assert (left.uid, left.num_runs) == (part.uid, 2)
    assert tombstones.purge(writer, [left]).runs == 2
    assert tombstones.deleted(writer) == []
    assert [row.name for row in reading.experiments(writer)] == ["beta"]
    assert check.check(writer) == []


def test_a_result_of_a_run_that_was_deleted_is_of_what_has_it_now(writer, sample):
    """The driver remembers whose a run is."""

    def changed():
        before = {row: stamp for row, _, stamp in summaries.stamps(writer)}
        with writer.transaction() as connection:
            connection.execute("DELETE FROM failure WHERE run = ?", (sample.noisy,))
        failure = NewFailure(run=sample.noisy, step=0, kind="x", message="no")
        writing.commit(writer, Commit(failures=[failure]))
        return [row for row, _, stamp in summaries.stamps(writer) if stamp != before[row]]

    assert changed() == [sample.alpha]
    tombstones.hide_runs(writer, reading.experiment(writer, "alpha"), [sample.noisy], "me")
    (hidden,) = tombstones.deleted(writer)
    assert changed() == [hidden.experiment]
    tombstones.restore(writer, hidden)
    assert changed() == [sample.alpha]


def test_of_deletions_of_a_name_the_last_one_is_meant_whatever_its_row(writer, sample):
    """The experiment that was there first was deleted last."""
    first = hide(writer, "alpha")
    writing.start_experiment(writer, "alpha", {"name": "alpha"})
    second = hide(writer, "alpha")
    assert first.experiment < second.experiment
    writer.db.execute(f"UPDATE deletion SET at = at + 100 WHERE experiment = {first.experiment}")
    assert [one.uid for one in tombstones.deleted(writer)] == [second.uid, first.uid]
    assert tombstones.find(writer, "alpha").uid == first.uid
    writer.db.execute("UPDATE deletion SET at = 7.0")
    assert [one.uid for one in tombstones.deleted(writer)] == [first.uid, second.uid], "of one time by row"


def test_remarks_on_runs_of_what_comes_back_are_copied_unsigned_and_of_it_alone(writer, sample):
    """Another experiment has the like of a run, and a run has two remarks."""
    like = NewRun(network=NETWORK, prompt="a", seed=42, max_length=6)
    writing.add_runs(writer, sample.beta, [like])
    targets = {
        name: run_target(name, run)
        for name in ("alpha", "beta")
        for run in reading.runs(writer, name)
        if (run.prompt, run.seed) == ("a", 42)
    }
    said = [("alpha", "label", "z", "sig"), ("alpha", "label", "a", None), ("beta", "label", "b", "sig")]
    with writer.transaction() as connection:
        connection.executemany(
            "INSERT INTO annotation (target_kind, target, kind, text, author, at, signature)"
            " VALUES ('run', ?, ?, ?, 'me', 5.0, ?)",
            [(targets[name].uid, kind, text, signature) for name, kind, text, signature in said],
        )
    tombstones.restore(writer, hide(writer, "alpha"), "gamma")
    [run] = [one for one in reading.runs(writer, "gamma") if one.id == sample.stuck]
    new = run_target("gamma", run).uid
    found = [(row.target, row.text, row.at, row.signature) for row in list_annotations(writer, "run")]
    assert found == [
        *((targets[name].uid, text, 5.0, signature) for name, _, text, signature in said),
        (new, "z", 5.0, None),
        (new, "a", 5.0, None),
    ]
    assert marks(writer, "run")[new].label == "a"
