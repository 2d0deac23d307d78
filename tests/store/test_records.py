"""What one commit holds, and what counts add up to."""

from dataclasses import fields

from panic.store import Commit, NewBatch, NewDiagram, NewFailure, NewRun
from panic.store.records import COMMIT_LISTS, Counts, NewEpoch

SIZED = ("invocations", "interventions", "embeddings", "diagrams", "vectorisations", "distances")


def counts(**changes: int) -> Counts:
    return Counts(**{one.name: 0 for one in fields(Counts)} | changes)


def test_a_commit_is_as_large_as_its_results_and_one() -> None:
    assert Commit().num_rows == 1
    for place, name in enumerate(SIZED, 1):
        assert Commit(**{name: [None] * place}).num_rows == 1 + place, name
    assert Commit(**{name: [None] * 2**place for place, name in enumerate(SIZED)}).num_rows == 64
    assert Commit(outputs=[None], batches=[None], failures=[None]).num_rows == 1  # type: ignore[list-item]


def test_a_commit_takes_in_every_list_of_another() -> None:
    first = Commit(**{name: [1] for name in COMMIT_LISTS})
    first.extend(Commit(**{name: [place, 0] for place, name in enumerate(COMMIT_LISTS)}))
    assert {name: getattr(first, name) for name in COMMIT_LISTS} == {
        name: [1, place, 0] for place, name in enumerate(COMMIT_LISTS)
    }
    assert set(COMMIT_LISTS) == {one.name for one in fields(Commit)}


def test_runs_have_ended_whatever_ended_them() -> None:
    assert counts(todo=100, running=200, done=1, stuck=2, repeated=4, failed=8).ended == 15


def test_counts_are_said_without_stages_that_have_no_results() -> None:
    some = counts(runs=6, stuck=1, invocations=1800)
    assert str(some) == "6 runs (1 stuck, 0 failed), 1,800 invocations"
    more = counts(
        runs=6000, stuck=1, repeated=2, failed=3, embeddings=4, diagrams=5, vectorisations=6, distances=7
    )
    assert str(more) == (
        "6,000 runs (1 stuck, 2 repeated, 3 failed), 4 embeddings, 5 diagrams, 6 vectorisations, 7 distances"
    )
    assert list(more.results.items()) == [
        ("invocations", 0), ("embeddings", 4), ("diagrams", 5), ("vectorisations", 6), ("distances", 7)
    ]  # fmt: skip


def test_what_is_not_said_of_a_result() -> None:
    run = NewRun(network=("A",), prompt="a", seed=1, max_length=2)
    assert (run.repeat, run.arm) == (0, "baseline")
    failure = NewFailure(run=1, step=2, kind="error", message="no")
    assert (failure.detail, failure.attempts) == ("", 1)
    epoch = NewEpoch(name="A", model=1, batch_size=2, device_kind="cpu")
    assert (epoch.threads, epoch.reason, epoch.mates) == (None, None, "bucket")
    call = NewBatch(
        id=1, session=1, model=1, epoch=0, device="cpu", size=1, padded_size=1, started_at=0, duration_s=0
    )
    assert call.bucket == 0
    diagram = NewDiagram(run=1, model=1, settings={}, settings_digest="", num_points=1, num_unique=1, bars={})
    assert (diagram.error, diagram.duration_s, diagram.generators) == (0.0, 0.0, {})
