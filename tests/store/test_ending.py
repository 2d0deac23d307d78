"""Ending an experiment where it is."""

import apsw
import pytest

from panic.errors import UsageError
from panic.store import Commit, NewFailure, NewRun, Store, reading, writing
from panic.store.ending import end_runs
from tests.store.sample import NETWORK, steps


@pytest.fixture
def writer(folder, sample):
    with Store(folder, write=True) as store:
        yield store


def test_what_was_stopped_in_the_middle_can_be_ended_again(writer, sample):
    """The runs came first: then there was nothing left to end, and the config stayed as long as before."""
    session = writing.start_session(writer, sample.alpha, "panic run", {})
    models = (sample.draw, sample.tell)
    writing.commit(writer, steps(writer, session, models, sample.untouched, "untouched", ["x", "y", "z"]))
    row = reading.experiment(writer, "alpha")
    assert row.config["max_length"] == 6
    writer.db.execute(
        "CREATE TEMP TRIGGER stop BEFORE UPDATE ON experiment BEGIN SELECT RAISE(ABORT, 'stopped'); END"
    )
    with pytest.raises(apsw.ConstraintError, match="stopped"):
        end_runs(writer, row)
    writer.db.execute("DROP TRIGGER stop")
    assert end_runs(writer, row) == (1, 0)
    lengths = {run.id: run.max_length for run in reading.runs(writer, sample.alpha)}
    assert lengths[sample.untouched] == 3


def test_where_all_that_began_failed_at_once_there_is_nothing_to_end(writer):
    """It was a ValueError: the longest of no lengths."""
    experiment = writing.start_experiment(writer, "gamma", {"name": "gamma", "max_length": 6})
    runs = [NewRun(network=NETWORK, prompt=prompt, seed=42, max_length=6) for prompt in "ab"]
    first, _ = writing.add_runs(writer, experiment, runs)
    writing.commit(writer, Commit(failures=[NewFailure(run=first, step=0, kind="error", message="no")]))
    with pytest.raises(UsageError, match="has begun"):
        end_runs(writer, reading.experiment(writer, "gamma"))
