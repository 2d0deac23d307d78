"""What one commit holds, and what counts add up to."""

from dataclasses import fields

from panic.store import Commit
from panic.store.records import COMMIT_LISTS, Counts

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
