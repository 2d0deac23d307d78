"""Ending an experiment where it is."""

import apsw
import pytest

from panic.errors import UsageError
from panic.store import NewRun, Store, reading, summaries, writing
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


def test_runs_get_the_length_that_they_have_and_those_without_a_step_go(writer, sample):
    """One has begun, one has not; three that have ended stay as they are, in alpha and in beta."""
    writing.forget_failures(writer, sample.alpha)
    before = {run.id: run for run in reading.runs(writer)}
    row = reading.experiment(writer, "alpha")
    assert end_runs(writer, row) == (1, 1)
    after = {run.id: run for run in reading.runs(writer)}
    assert before.keys() - after.keys() == {sample.untouched}
    assert (after[sample.failed].state, after[sample.failed].max_length) == ("done", 1)
    assert all(after[run] == before[run] for run in (sample.stuck, sample.noisy, sample.shared))
    assert reading.experiment(writer, "alpha").config == {"name": "alpha", "max_length": 6}
    last = reading.sessions(writer)[-1]
    assert (last.experiment, last.end_state) == (sample.alpha, "done")
    asked = {"diagrams": [], "vectorisations": [], "distances": []}
    assert last.config == {"name": "alpha", "max_length": 6} | asked


def test_an_experiment_that_has_ended_stays_as_it_is(writer, sample):
    before = writer.revision
    assert end_runs(writer, reading.experiment(writer, "beta")) == (0, 0)
    assert writer.revision == before


def test_an_experiment_that_has_not_begun_has_nothing_to_end(writer, sample):
    gamma = writing.start_experiment(writer, "gamma", {"max_length": 4})
    writing.add_runs(writer, gamma, [NewRun(network=NETWORK, prompt="a", seed=1, max_length=4)])
    with pytest.raises(UsageError, match="No run of gamma has begun"):
        end_runs(writer, reading.experiment(writer, "gamma"))
    assert len(reading.runs(writer, "gamma")) == 1


def test_an_experiment_without_runs_has_none_to_end(writer):
    """Not even some that have not begun."""
    writing.start_experiment(writer, "gamma", {"max_length": 4})
    assert end_runs(writer, reading.experiment(writer, "gamma")) == (0, 0)


def test_what_was_asked_for_is_as_long_as_the_longest_run(writer, sample):
    """Two have begun, the longer of them has two steps of six; what has ended keeps its length."""
    gamma = writing.start_experiment(writer, "gamma", {"max_length": 6, "label": "kept"})
    asked = [NewRun(network=NETWORK, prompt=p, seed=1, max_length=6) for p in ("a", "b", "c")]
    rows = writing.add_runs(writer, gamma, asked)
    session = writing.start_session(writer, gamma, "panic run", {})
    for run, prompt, made in zip(rows[:2], "ab", (["x"], ["y", "z"]), strict=True):
        writing.commit(writer, steps(writer, session, (sample.draw, sample.tell), run, prompt, made))
    row = reading.experiment(writer, "gamma")
    before = {uid: stamp for _, uid, stamp in summaries.stamps(writer)}
    assert end_runs(writer, row) == (2, 1)
    assert {run.id: (run.state, run.max_length) for run in reading.runs(writer, gamma)} == {
        rows[0]: ("done", 1), rows[1]: ("done", 2)
    }  # fmt: skip
    assert reading.experiment(writer, "gamma").config == {"max_length": 2, "label": "kept"}
    after = {uid: stamp for _, uid, stamp in summaries.stamps(writer)}
    assert [uid for uid in after if after[uid] != before[uid]] == [row.uid]


def test_runs_are_shortened_with_another_stamp_in_the_same_transaction(writer, sample):
    """Else what was counted between two transactions would hold after a kill behind the second."""
    writing.forget_failures(writer, sample.alpha)
    writer.db.execute("CREATE TEMP TABLE stamps (stamp)")
    writer.db.execute(
        "CREATE TEMP TRIGGER note AFTER UPDATE ON change BEGIN INSERT INTO stamps VALUES (new.stamp); END"
    )
    writer.db.execute(
        "CREATE TEMP TRIGGER stop BEFORE INSERT ON session BEGIN SELECT RAISE(ABORT, 'stopped'); END"
    )
    with pytest.raises(apsw.ConstraintError, match="stopped"):
        end_runs(writer, reading.experiment(writer, "alpha"))
    assert {run.id: run.max_length for run in reading.runs(writer)}[sample.failed] == 1
    assert writer.db.value("SELECT count(*) FROM stamps") == 2
