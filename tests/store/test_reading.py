"""What a store knows of runs and how it counts them."""

import time

from panic.store import (
    Commit,
    NewBatch,
    NewInvocation,
    NewOutput,
    NewRun,
    Store,
    reading,
    writing,
)
from panic.store.digest import text_digest
from tests.store.sample import NETWORK


def test_runs_and_where_they_stand(store, sample):
    runs = {run.id: run for run in reading.runs(store, "alpha")}
    assert [runs[id].state for id in (sample.stuck, sample.noisy, sample.failed, sample.untouched)] == [
        "stuck",
        "done",
        "failed",
        "todo",
    ]
    stuck, failed = runs[sample.stuck], runs[sample.failed]
    assert (stuck.network, stuck.prompt, stuck.seed, stuck.max_length) == (NETWORK, "a", 42, 6)
    assert (stuck.num_steps, stuck.entry_step, stuck.period, stuck.failure) == (4, 2, 2, None)
    assert (failed.failure.kind, failed.failure.step, failed.failure.attempts) == ("empty text", 1, 3)
    assert len(reading.runs(store)) == 5
    assert [run.id for run in reading.runs(store, sample.beta)] == [sample.shared]


def test_counts(store):
    alpha, everything = reading.counts(store, "alpha"), reading.counts(store)
    assert (alpha.runs, alpha.todo, alpha.running, alpha.done, alpha.stuck, alpha.failed) == (
        4,
        1,
        0,
        1,
        1,
        1,
    )
    assert (alpha.invocations, alpha.embeddings, alpha.diagrams) == (9, 3, 1)
    assert (everything.runs, everything.invocations, everything.embeddings) == (5, 11, 4)


def test_time_per_model(store):
    times = {row.model: row for row in reading.model_times(store, "alpha")}
    assert (times["draw"].batches, times["draw"].items, times["draw"].duration_s) == (5, 5, 1.25)
    assert {row.model: row.items for row in reading.model_times(store)}["embed"] == 4


def test_a_thousand_runs_are_listed_quickly(folder):
    with Store(folder, write=True, create=True) as store:
        model = writing.add_model(store, "draw", "f", {})
        experiment = writing.start_experiment(store, "big", "big", {})
        session = writing.start_session(store, experiment, "x", {})
        runs = writing.add_runs(
            store,
            experiment,
            [NewRun(network=NETWORK, prompt=f"p{i}", seed=-1, max_length=50) for i in range(1000)],
        )
        text = NewOutput(digest=text_digest("t"), modality="text", text="t")
        call = NewBatch(
            id=writing.next_batch_id(store),
            session=session,
            model=model,
            epoch=0,
            device="cpu",
            size=1,
            padded_size=1,
            started_at=0.0,
            duration_s=0.0,
        )
        invocations = [
            NewInvocation(run, step, text.digest, text.digest, 0, call.id)
            for run in runs
            for step in range(50)
        ]
        writing.commit(store, Commit(batches=[call], outputs=[text], invocations=invocations))
    start = time.perf_counter()
    with Store(folder) as store:
        assert reading.counts(store, "big").invocations == 50_000
        assert {run.state for run in reading.runs(store, "big")} == {"done"}
    assert time.perf_counter() - start < 0.5
