"""What was deleted is found, comes back and is purged, also while somebody else does the same."""

import pytest

from panic.errors import NotFound
from panic.store import NewRun, Store, reading, tombstones, writing
from panic.store.annotations import annotate, list_annotations, run_target
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
