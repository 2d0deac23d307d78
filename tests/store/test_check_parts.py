"""A part of a store is checked alone: its outputs, vectors, prompts and steps, and nothing else."""

import pytest

from panic.store import Commit, Store, check, writing
from panic.store.codec import text_digest
from tests.store.sample import output
from tests.store.test_check import damage, only_problem


def test_outputs_that_no_run_has_are_checked_with_the_whole(folder, sample):
    with Store(folder, write=True) as store:
        writing.commit(store, Commit(outputs=[output("orphan")]))
    damage(folder / "store.sqlite", "UPDATE output SET text = 'other' WHERE text = 'orphan'")
    assert only_problem(folder) == f"text {text_digest('orphan').hex()}: its content is another text"
    with Store(folder) as store:
        assert check.check(store, sample.alpha) == []


def test_outputs_and_vectors_are_checked_with_the_runs_that_have_them(folder, sample):
    """Of "d" both are damaged, which is of beta's only run."""
    damage(
        folder / "store.sqlite",
        "UPDATE embedding SET vector = zeroblob(8) WHERE output = (SELECT id FROM output WHERE text = 'd')",
        "UPDATE output SET text = 'other' WHERE text = 'd'",
    )
    told = [
        f"text {text_digest('d').hex()}: its content is another text",
        f"vector of {text_digest('d').hex()} under embed: 8 bytes, not 3 numbers of 4 bytes",
    ]
    with Store(folder) as store:
        assert check.check(store, sample.alpha) == []
        assert check.check(store, run=sample.stuck) == []
        assert check.check(store, sample.beta) == check.check(store, run=sample.shared) == told
        assert check.check(store) == told


def test_a_prompt_is_checked_with_its_run(folder, sample):
    damage(folder / "store.sqlite", "UPDATE output SET text = 'other' WHERE text = 'untouched'")
    with Store(folder) as store:
        assert len(check.check(store, run=sample.untouched)) == 1
        assert check.check(store, run=sample.stuck) == []


@pytest.mark.parametrize("steps_of", ["noisy", "stuck"])
def test_problems_of_steps_and_measures_are_those_of_the_part(folder, sample, steps_of):
    run = getattr(sample, steps_of)
    damage(folder / "store.sqlite", f"DELETE FROM invocation WHERE run = {run} AND step = 1")
    damage(folder / "store.sqlite", f"UPDATE run SET max_length = 2 WHERE id = {run}")
    with Store(folder) as store:
        assert len(check.check(store, run=run)) >= 2
        assert check.check(store, run=sample.failed) == []
        assert check.check(store, sample.beta) == []
