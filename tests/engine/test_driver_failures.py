"""What the driver makes of calls without results: retries, smaller shapes, images that were lost."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from panic.engine.calls import Call, CallError
from panic.errors import ModelDoesNotFit
from panic.store import Store, check, reading
from tests.engine.by_hand import FRESH, Performance, batches, epochs, failing, first, opened, perform, states
from tests.engine.conftest import dump

# Retries


@pytest.mark.parametrize("max_retries", [0, 1, 2, 3])
def test_a_failing_item_is_tried_so_many_times_and_its_mates_are_not_at_fault(
    tmp_path: Path, max_retries: int
) -> None:
    """With its batch until one try is left, then everyone alone: that failure is its own."""

    def fate(call: Call) -> CallError | None:
        return failing("crash", "ouch", "at line 3") if "state 2" in call.inputs else None

    changes: dict[str, Any] = {"prompts": states(4), "max_length": 1, "max_retries": max_retries, **FRESH}
    with opened(tmp_path / "s", **changes) as session:
        seen = perform(session, fate)
    together = max(1, max_retries)
    assert [size for _, size in seen.sizes] == [4] * together + [1] * 4
    assert [call.inputs for call in seen.calls[together:]] == [[text] for text in states(4)]
    assert {call.batch_size for call in seen.calls} == {4}, "shapes are pinned, alone or not"
    with Store(tmp_path / "s") as store:
        rows = {row.prompt: row for row in reading.runs(store)}
        failures = {prompt: row.failure for prompt, row in rows.items() if row.failure}
        assert [rows[text].state for text in states(4)] == ["done", "done", "failed", "done"]
        failure = failures["state 2"]
        assert (failure.kind, failure.message, failure.detail) == ("crash", "ouch", "at line 3")
        assert (failure.step, failure.attempts) == (0, together + 1)


def test_one_item_alone_is_tried_as_often_as_it_may_be(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(1), max_length=1, max_retries=2, **FRESH) as session:
        seen = perform(session, first(2, failing()))
    assert (seen.sizes, [call.attempt for call in seen.calls]) == ([("draw", 1)] * 3, [1, 2, 3])
    with opened(tmp_path / "t", prompts=states(1), max_length=1, max_retries=2, **FRESH) as session:
        assert perform(session, first(3, failing())).sizes == [("draw", 1)] * 3
    for name, state in (("s", "done"), ("t", "failed")):
        with Store(tmp_path / name) as store:
            assert [row.state for row in reading.runs(store)] == [state]


def test_a_call_that_was_not_begun_costs_no_try(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(2), max_length=1, max_retries=0, **FRESH) as session:
        seen = perform(session, first(5, failing("untried")))
    assert seen.sizes == [("draw", 2)] * 6
    assert {call.attempt for call in seen.calls} == {1}
    with Store(tmp_path / "s") as store:
        assert {row.state for row in reading.runs(store)} == {"done"}


def test_a_call_that_hangs_is_ended_by_its_worker_and_tried_again(tmp_path: Path) -> None:
    fates: list[Any] = ["hangs"]
    with opened(tmp_path / "s", prompts=states(2), max_length=1, **FRESH) as session:
        seen = perform(session, lambda call: fates.pop() if fates else None)
    assert seen.sizes == [("draw", 2)] * 2
    with Store(tmp_path / "s") as store:
        assert {row.state for row in reading.runs(store)} == {"done"}


def test_an_unusable_output_is_tried_again_and_its_mates_are_not(tmp_path: Path) -> None:
    (tmp_path / "mute.py").write_text(
        "from panic.models.synthetic import ImageToText\n"
        "class Mute(ImageToText):\n"
        "    PARAMETERS = {}\n"
        "    def __init__(self): super().__init__(states=7, kernel='identity')\n"
        "    def invoke(self, inputs, seeds):\n"
        "        return [text.replace('state 2', '') for text in super().invoke(inputs, seeds)]\n"
    )
    models = {
        "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16},
        "chain": {"base": f"python:{tmp_path}/mute.py:Mute"},
    }
    changes: dict[str, Any] = {"models": models, "prompts": states(4), "max_length": 2, "max_retries": 2}
    with opened(tmp_path / "s", **changes, **FRESH) as session:
        seen = perform(session)
    assert seen.sizes == [("draw", 4), ("chain", 4), ("chain", 1), ("chain", 1)]
    with Store(tmp_path / "s") as store:
        rows = {row.prompt: row for row in reading.runs(store)}
        assert [rows[text].state for text in states(4)] == ["done", "done", "failed", "done"]
        failure = rows["state 2"].failure
        assert failure is not None
        assert (failure.kind, failure.message, failure.attempts) == ("rejected", "empty text", 3)
        assert [row.items for row in reading.model_times(store)] == [4, 6]


def test_what_fails_is_warned_of_once_per_model_and_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fate(call: Call) -> CallError | None:
        if call.model == "chain":
            return failing("error", "no", "the traceback of chain")
        return failing("error", "no") if "state 0" in call.inputs else None

    caplog.set_level(logging.DEBUG, "panic.engine")
    with opened(tmp_path / "s", prompts=states(2), max_length=2, max_retries=0, **FRESH) as session:
        perform(session, fate)
    told = [
        (row.levelname, row.getMessage()) for row in caplog.records if "gave no result" in row.getMessage()
    ]
    assert told == [
        ("WARNING", "draw: a batch of 2 gave no result: no"),
        ("INFO", "draw: a batch of 1 gave no result: no"),
        ("WARNING", "chain: a batch of 1 gave no result: no"),
    ]
    assert "the traceback of chain" in [row.getMessage() for row in caplog.records]


# Memory


@pytest.mark.parametrize(("size", "smaller"), [(4, [4, 2]), (3, [3, 1]), (2, [2, 1])])
def test_out_of_memory_halves_the_batch_and_nothing_of_the_old_shape_is_stored(
    tmp_path: Path, size: int, smaller: list[int]
) -> None:
    """Two full batches are on their way: the first does not fit, the second's results come too late."""
    changes: dict[str, Any] = {"prompts": states(2 * size), "max_length": 1}
    changes["batch_sizes"] = {"draw": size, "chain": 4}
    with opened(tmp_path / "s", **changes, **FRESH) as session:
        seen = perform(session, first(1, failing("memory")))
        assert session.pins["draw"].epoch == 1
    assert seen.opened == ["draw"]
    assert epochs(tmp_path / "s", "draw") == smaller
    assert epochs(tmp_path / "s", "chain") == [4]
    new = smaller[-1]
    assert [call.batch_size for call in seen.calls[:2]] == [size, size]
    assert {call.batch_size for call in seen.calls[2:]} == {new}
    stored = batches(tmp_path / "s")
    assert {(epoch, padded) for _, epoch, _, padded in stored} == {(1, new)}
    assert sum(row[2] for row in stored) == 2 * size
    order = [text for call in seen.calls[2:] for text in call.inputs]
    assert order[:size] == states(2 * size)[size:] or order[:size] == states(size)


def test_two_batches_that_ran_out_of_memory_together_halve_once(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(7), max_length=1, **FRESH) as session:
        perform(session, first(1, failing("memory")))
    with opened(tmp_path / "t", prompts=["hello", *states(7)], max_length=1, **FRESH) as session:
        seen = perform(session, first(2, failing("memory")))
    assert epochs(tmp_path / "t", "draw") == [4, 2]
    assert seen.opened == ["draw"]


def test_where_not_one_item_fits_it_ends_and_says_so(tmp_path: Path) -> None:
    seen = Performance()

    def fate(call: Call) -> CallError | None:
        return failing("memory", "3 GiB more") if call.model == "chain" else None

    changes: dict[str, Any] = {"prompts": states(2), "max_length": 2, **FRESH}
    with (
        pytest.raises(ModelDoesNotFit, match=r"^chain: 3 GiB more$"),
        opened(tmp_path / "s", **changes) as session,
    ):
        perform(session, fate, seen=seen)
    assert [call.batch_size for call in seen.calls if call.model == "chain"] == [4, 2, 1, 1]
    assert epochs(tmp_path / "s", "chain") == [4, 2, 1]
    with Store(tmp_path / "s") as store:
        assert reading.counts(store).invocations == 2
        assert not any(row.failure for row in reading.runs(store))
        assert reading.sessions(store)[-1].end_state == "failed"


def test_items_that_wait_to_be_tried_alone_wait_for_the_smaller_shape(tmp_path: Path) -> None:
    fates = [failing(), failing(), failing("memory")]
    with opened(tmp_path / "s", prompts=states(4), max_length=1, max_retries=2, **FRESH) as session:
        seen = perform(session, lambda call: fates.pop(0) if fates else None)
    # Together twice; two alone at a time, of which the first does not fit; the others have the new shape.
    assert [(len(call.inputs), call.batch_size) for call in seen.calls[:4]] == [
        (4, 4),
        (4, 4),
        (1, 4),
        (1, 4),
    ]
    assert {call.batch_size for call in seen.calls[4:]} == {2}
    assert {(epoch, padded) for _, epoch, _, padded in batches(tmp_path / "s")} == {(1, 2)}
    with Store(tmp_path / "s") as store:
        assert {row.state for row in reading.runs(store)} == {"done"}


def test_the_memory_of_fixed_seeds_ends_with_the_epoch(tmp_path: Path) -> None:
    """A cycle of seven states: after six steps its model gets another shape, and it goes round once more."""
    with opened(tmp_path / "s", prompts=states(1), seeds=[42], repeats=1, max_length=60) as session:

        def fate(call: Call) -> CallError | None:
            wants = call.model == "draw" and call.inputs == ["state 3"] and call.batch_size == 4
            return failing("memory") if wants else None

        perform(session, fate)
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        (row,) = reading.runs(store)
        # Drawings 0, 2, 4 are of the old shape; the first state that says something is the caption of step 5.
        assert (row.state, row.entry_step, row.period) == ("stuck", 5, 14)


# Lost images


def lose_images(path: Path) -> None:
    with sqlite3.connect(path / "images.sqlite") as connection:
        connection.execute("DELETE FROM image")


def test_lost_images_are_computed_in_the_shape_that_made_them_and_are_no_batches(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"prompts": states(3), "max_length": 1, **FRESH}
    with opened(tmp_path / "s", **changes) as session:
        perform(session)
    whole, known = dump(tmp_path / "s"), batches(tmp_path / "s")
    lose_images(tmp_path / "s")
    with opened(tmp_path / "s", **changes) as session:
        session.halve("draw")
        seen = perform(session)
    assert [(call.batch_size, len(call.inputs)) for call in seen.calls] == [(4, 3)]
    assert dump(tmp_path / "s") == whole
    assert batches(tmp_path / "s") == known


def test_lost_images_that_do_not_fit_in_their_shape_end_it_with_advice(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"prompts": states(3), "max_length": 1, **FRESH}
    with opened(tmp_path / "s", **changes) as session:
        perform(session)
    lose_images(tmp_path / "s")
    with opened(tmp_path / "s", **changes) as session, pytest.raises(ModelDoesNotFit) as caught:
        perform(session, lambda call: failing("memory", "draw needs 1 GiB more"))
    assert caught.value.message == "draw needs 1 GiB more"
    assert caught.value.hint == "Images are computed again in the shape that made them, batches of 4."
    assert epochs(tmp_path / "s", "draw") == [4]
