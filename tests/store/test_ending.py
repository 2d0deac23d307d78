"""Ending an experiment where it is."""

import apsw
import pytest

from panic.store import Store, reading, writing
from panic.store.ending import end_runs
from tests.store.sample import steps


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
