"""Where an experiment stands, and when it will have ended."""

import json
import os

import pytest

from panic.store import Commit, NewBatch, NewRun, Store, contents, reading, summaries, writing
from panic.store.records import NewAnswer
from panic.store.standing import (
    RUN_COUNTS,
    DeviceTime,
    LastSession,
    device_times,
    eta_s,
    last_sessions,
    standing,
    standings,
)
from tests.engine.conftest import make_config
from tests.store.effort import counted
from tests.store.sample import NETWORK


def session(**changes):
    """A session that ended well, changed."""
    fields = {"id": 2, "pid": 7, "host": "here", "started_at": 1.0, "ended_at": 2.0, "end_state": "done"}
    return LastSession(**fields | {"is_alive": False, "config": None} | changes)


def state(store, name, **changes):
    return standing(store, reading.experiment(store, name), session(**changes)).state


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, "complete"),
        ({"end_state": "complete"}, "complete"),
        ({"end_state": "failed"}, "failed"),
        ({"end_state": "interrupted"}, "interrupted"),
        ({"end_state": "killed"}, "interrupted"),
        ({"end_state": None}, "interrupted"),
        ({"end_state": None, "is_alive": True}, "running"),
    ],
)
def test_a_state_is_that_of_the_last_session(store, how, expected):
    """All runs of beta are done."""
    assert state(store, "beta", **how) == expected


def test_runs_that_failed_or_are_not_there_yet_count_where_a_session_ended_well(writer, sample):
    assert state(writer, "alpha") == "failed", "one run failed, one is to do"
    writing.forget_failures(writer, sample.alpha)
    assert state(writer, "alpha") == "incomplete"
    gamma = writing.start_experiment(writer, "gamma", {})
    writing.add_runs(writer, gamma, [NewRun(network=NETWORK, prompt="a", seed=1, max_length=2)])
    assert state(writer, "gamma") == "incomplete", "one run is to do"
    longer = [NewRun(network=NETWORK, prompt="a", seed=7, max_length=4)]
    writing.add_runs(writer, sample.beta, longer)
    assert state(writer, "beta") == "incomplete", "one run has begun"
    row = reading.experiment(writer, "gamma")
    assert standing(writer, row).state == "incomplete", "nobody has worked on it"
    assert standing(writer, row).session is None
    assert standing(writer, row).pid is None


def test_the_newest_session_is_alive_if_it_is_of_the_process_that_writes(writer, sample):
    """Beta's session in the sample never ended."""
    found = last_sessions(writer)
    assert {experiment: row.is_alive for experiment, row in found.items()} == {
        sample.alpha: False,
        sample.beta: True,
    }
    now = standing(writer, reading.experiment(writer, "beta"))
    assert (now.state, now.pid) == ("running", os.getpid())
    writing.start_session(writer, sample.alpha, "again", {}, {"name": "alpha"})
    found = last_sessions(writer)
    assert found[sample.alpha].id == 3
    assert json.loads(found[sample.alpha].config) == {"name": "alpha"}
    assert (found[sample.alpha].is_alive, found[sample.alpha].end_state) == (True, None)
    assert (found[sample.beta].is_alive, found[sample.beta].end_state) == (False, "killed")
    writer.db.execute("UPDATE session SET pid = pid + 1")
    assert not last_sessions(writer)[sample.alpha].is_alive, "the driver is another process"
    assert standing(writer, reading.experiment(writer, "alpha")).pid is None


def test_nobody_works_on_a_store_without_a_driver(store):
    row = reading.experiment(store, "beta")
    now = standing(store, row)
    assert (now.state, now.pid) == ("interrupted", None)
    assert now.session.pid == os.getpid()


def test_a_session_that_was_asked_for_less_may_have_left_something(writer, sample):
    """Beta has all vectors of its texts under `embed`, and none under a model that nobody has pinned."""
    small = make_config(name="beta", embeddings=[])
    asked = json.dumps(small.model_dump(mode="json"))

    def grow(*embeddings):
        config = small.model_copy(update={"embeddings": list(embeddings)})
        writing.start_experiment(writer, "beta", config.model_dump(mode="json"))
        return config

    grow("embed")
    assert state(writer, "beta", config=asked) == "complete", "it was asked for less, and all is there"
    all_of_it = grow("embed", "other")
    assert state(writer, "beta", config=asked) == "incomplete"
    assert state(writer, "beta", config=None) == "complete", "of a version that kept no config"
    same = all_of_it.model_dump(mode="json")
    assert state(writer, "beta", config=json.dumps(same)) == "complete", "it left what it could not have"
    more = json.dumps(same | {"log_level": "debug", "max_length": 1})
    assert state(writer, "beta", config=more) == "complete", "it asked for as much of the runs"
    assert state(writer, "beta", config='{"nonsense": 1}') == "complete", "of another version"
    assert state(writer, "beta", end_state="failed", config=asked) == "failed"


def test_no_state_is_kept_of_a_session_that_was_asked_for_less(folder, sample, monkeypatch):
    monkeypatch.setattr(summaries, "WORTH_STATES", 1)
    small = make_config(name="beta", embeddings=[])
    union = small.model_copy(update={"embeddings": ["other"]})
    with Store(folder, write=True) as store:
        writing.start_experiment(store, "beta", union.model_dump(mode="json"))
        asked = small.model_dump(mode="json")
        writing.end_session(store, writing.start_session(store, sample.beta, "", {}, asked), "done")
    with Store(folder) as store:
        for _ in range(2):
            assert [state for _, state, *_ in standings(store, [sample.beta])] == ["incomplete"]
        assert sample.beta not in summaries.settled(store)[0]


def add_batches(store, session, times, size=4):
    """Batches of four items that began and took so long."""
    commit = Commit()
    for started_at, duration_s in times:
        commit.batches.append(
            NewBatch(
                id=writing.next_batch_id(store), session=session, model=1, epoch=0, device="cpu", size=size,
                padded_size=8, started_at=started_at, duration_s=duration_s,
            )
        )  # fmt: skip
    writing.commit(store, commit)


def eta(store, name="alpha"):
    row = reading.experiment(store, name)
    return eta_s(store, row, standing(store, row))


def test_how_long_it_takes_is_told_by_the_recent_batches_and_what_is_left(writer, sample):
    """Alpha lacks 6 steps; it has 9, and 3 vectors for them: a third of a vector per step."""
    number = writing.start_session(writer, sample.alpha, "again", {})
    assert eta(writer) is None, "nothing has been computed"
    add_batches(writer, number, [(100.0, 0.0)])
    assert eta(writer) is None, "it took no time"
    add_batches(writer, number, [(110.0, 10.0)])
    assert eta(writer) == pytest.approx(6 * (1 + 3 / 9) * 20 / 8)
    writing.forget_failures(writer, sample.alpha)
    assert eta(writer) == pytest.approx((6 + 5) * (1 + 3 / 9) * 20 / 8), "one has begun and has one of six"
    writing.start_experiment(writer, "alpha", {"name": "alpha", "embeddings": ["embed"]})
    assert eta(writer) == pytest.approx((11 * (1 + 3 / 9) + 2) * 20 / 8), "two texts have no vector"
    add_batches(writer, number, [(800.0, 200.0), *((1000.0 + 2 * place, 2.0) for place in range(199))])
    seconds_per_item = (200 + 199 * 2) / (200 * 4)
    items_left = 11 * (1 + 3 / 9) + 2
    assert eta(writer) == pytest.approx(items_left * seconds_per_item), "what is long ago does not count"
    writing.end_session(writer, number, "interrupted")
    assert eta(writer) is None, "nobody works on it"


def test_vectors_that_are_missing_count_for_what_their_model_reads(writer, sample):
    """A model of texts and images lacks the vectors of all outputs of alpha."""
    both = writing.add_model(writer, "both", "of both", {"modalities_in": ["text", "image"]})
    writing.add_epoch(writer, sample.alpha, "both", model=both, batch_size=8, device_kind="cpu")
    writing.start_experiment(writer, "alpha", {"name": "alpha", "embeddings": ["both"]})
    number = writing.start_session(writer, sample.alpha, "again", {})
    add_batches(writer, number, [(0.0, 4.0)])
    assert eta(writer) == pytest.approx(6 * (1 + 3 / 9) + len(contents.outputs(writer, "alpha")))


def test_an_experiment_without_any_step_has_an_estimate_by_the_batches_it_made(writer, sample):
    """Its prompt has a vector already: that is one for each step."""
    gamma = writing.start_experiment(writer, "gamma", {})
    writing.add_runs(writer, gamma, [NewRun(network=NETWORK, prompt="a", seed=1, max_length=3)])
    number = writing.start_session(writer, gamma, "x", {})
    add_batches(writer, number, [(0.0, 8.0)])
    assert eta(writer, "gamma") == pytest.approx(3 * 2 * 8 / 4)


def test_an_experiment_is_over_where_all_runs_have_ended_and_nobody_works_on_it(writer, sample):
    def is_over(name, **changes):
        return standing(writer, reading.experiment(writer, name), session(**changes)).is_over

    assert is_over("beta")
    assert is_over("beta", end_state="failed"), "nothing more comes of it"
    assert not is_over("beta", end_state=None, is_alive=True)
    assert not is_over("alpha"), "one run is to do"
    writer.db.execute(f"DELETE FROM run WHERE id = {sample.untouched}")
    assert is_over("alpha")
    writing.forget_failures(writer, sample.alpha)
    assert not is_over("alpha"), "one has begun"


def test_a_spent_budget_is_told_before_what_has_failed(store):
    assert state(store, "alpha", end_state="budget spent") == "budget spent"
    assert state(store, "alpha", end_state="stopped") == "failed"
    assert state(store, "beta", end_state="stopped") == "failed", "though no run has"


def test_all_experiments_stand_where_each_does(writer, sample):
    writing.start_experiment(writer, "gamma", {})
    rows = {row.id: row for row in reading.experiments(writer)}
    found = {experiment: (state, *counts) for experiment, state, *counts in standings(writer)}
    assert found.keys() == rows.keys()
    for id, row in rows.items():
        alone = standing(writer, row)
        told = dict(zip(("state", *RUN_COUNTS), found[id], strict=True))
        assert (told["state"], told["runs"]) == (alone.state, alone.counts.runs)
        assert (told["todo"], told["failed"]) == (alone.counts.todo, alone.counts.failed)
    assert list(standings(writer, [sample.beta])) == [(sample.beta, *found[sample.beta])]
    assert found[sample.beta][0] == "running"
    assert list(standings(writer, [])) == []
    number = writing.start_session(writer, sample.beta, "again", {}, {"name": "beta"})
    writing.end_session(writer, number, "done")
    assert [state for _, state, *_ in standings(writer, [sample.beta, 3])] == ["complete", "incomplete"]


def test_where_some_stand_costs_as_much_beside_a_thousand_others(writer, sample):
    """`? ISNULL OR experiment IN (...)` was held against every experiment, session and run of the store."""
    for number in range(1000):
        row = writing.start_experiment(writer, f"other-{number}", {})
        writing.add_runs(writer, row, [NewRun(network=("draw",), prompt="a", seed=-1, max_length=2)])
        if number % 10 == 0:
            writing.end_session(writer, writing.start_session(writer, row, "panic run", {}, {}), "done")
    with counted(writer) as thousands:
        assert [row for row, *_ in standings(writer, [sample.beta])] == [sample.beta]
        assert reading.experiment(writer, "beta").id == sample.beta
    assert len(thousands) <= 1


def test_devices_have_what_they_computed_and_endpoints_nothing(writer, sample):
    """Alpha's session made nine batches of a quarter of a second on the CPU."""
    assert device_times(writer, sample.alpha) == [
        DeviceTime(device="cpu", batches=9, items=9, duration_s=2.25)
    ]
    commit = Commit()
    for device, size in (("cuda:0", 3), ("cuda:0", 4), ("chat", 5)):
        call = NewBatch(
            id=writing.next_batch_id(writer), session=1, model=1, epoch=0, device=device, size=size,
            padded_size=8, started_at=0.0, duration_s=2.0,
        )  # fmt: skip
        commit.batches.append(call)
    answer = NewAnswer(
        batch=call.id, input_tokens=1, output_tokens=1, served_model="m", system_fingerprint="s"
    )
    commit.answers.append(answer)
    writing.commit(writer, commit)
    assert device_times(writer, sample.alpha)[1:] == [
        DeviceTime(device="cuda:0", batches=2, items=7, duration_s=4.0)
    ]
    assert [time.batches for time in device_times(writer, sample.beta)] == [3]


@pytest.mark.parametrize(("before", "after"), [("failed", "done"), ("done", "failed")])
def test_of_two_sessions_the_later_one_tells_and_of_the_experiment_alone(writer, sample, before, after):
    """The other experiment's are in between, and end the other way."""
    for name, ends in (("alpha", "interrupted"), ("beta", before), ("alpha", "budget spent"), ("beta", after),
                       ("alpha", "interrupted")):  # fmt: skip
        row = reading.experiment(writer, name)
        number = writing.start_session(writer, row.id, name, {}, row.config)
        writing.end_session(writer, number, ends)
    expected = "complete" if after == "done" else "failed"
    beta = reading.experiment(writer, "beta")
    assert standing(writer, beta).state == expected
    assert {row: one.end_state for row, one in last_sessions(writer).items()} == {
        sample.alpha: "interrupted", sample.beta: after
    }  # fmt: skip
    told = {row: state for row, state, *_ in standings(writer)}
    assert told == {sample.alpha: "interrupted", sample.beta: expected}
    assert [state for _, state, *_ in standings(writer, [sample.beta])] == [expected]
