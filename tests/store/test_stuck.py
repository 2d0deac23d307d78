"""Known answers of the stuck rule, and agreement with a brute-force search."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panic import is_stuck
from panic.errors import NotFound
from panic.store import Store, reading
from panic.store.stuck import RepeatDetector, Stuck, StuckDetector, first_repeat
from tests.store.sample import Sample


def test_a_cycle_of_k_states_in_a_two_model_network_has_period_2k() -> None:
    outputs = [
        f"picture {step // 2 % 3}" if step % 2 == 0 else f"state {(step // 2 + 1) % 3}" for step in range(12)
    ]
    assert first_repeat(["state 0", *outputs], 2) == Stuck(entry_step=0, period=6)


def test_the_entry_is_the_first_step_of_the_repeated_state() -> None:
    outputs = ["A", "b", "C", "d", "C", "d"]
    assert first_repeat(["a", *outputs], 2) == Stuck(entry_step=3, period=2)


def test_a_repeated_output_at_another_position_is_not_a_repeated_state() -> None:
    assert first_repeat(["p", "x", "x"], 3) is None
    assert first_repeat(["p", "x", "x", "y"], 2) is None


def test_a_fixed_point_of_a_single_model() -> None:
    assert first_repeat(["b", "a", "a"], 1) == Stuck(entry_step=1, period=1)
    assert first_repeat(["b", "b"], 1) == Stuck(entry_step=0, period=1)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_equals_the_definition(outputs: list[str], length: int) -> None:
    states = [(step % length, item) for step, item in enumerate(["a", *outputs])]
    expected = None
    for step, state in enumerate(states):
        if state in states[:step]:
            entry = states.index(state)
            expected = Stuck(entry_step=entry, period=step - entry)
            break
    assert first_repeat(["a", *outputs], length) == expected


def test_the_detector_tells_at_the_first_repeat() -> None:
    detector = StuckDetector(2)
    visits = [detector.visit(step, item) for step, item in enumerate(["a", "A", "b", "B", "a"])]
    assert visits[:4] == [None] * 4
    assert visits[4] == Stuck(entry_step=0, period=4)


def test_states_of_an_earlier_map_are_forgotten() -> None:
    detector = StuckDetector(1)
    for step, item in enumerate("abc"):
        assert detector.visit(step, item) is None
    detector.forget_until(1)
    assert detector.visit(3, "a") is None
    assert detector.visit(4, "c") == Stuck(entry_step=2, period=2)


def test_was_that_why_a_run_ended(folder: Path, sample: Sample) -> None:
    """Of a run that is stuck, and of the others: with fresh noise, failed, untouched, not there."""
    with Store(folder) as store:
        found = is_stuck(store, sample.stuck)
        (row,) = [run for run in reading.runs(store) if run.id == sample.stuck]
        assert found == Stuck(entry_step=row.entry_step, period=row.period)
        for run in (sample.noisy, sample.failed, sample.untouched):
            assert not is_stuck(store, run)
        with pytest.raises(NotFound, match="No run 999"):
            is_stuck(store, 999)


def first_round(outputs: str, length: int, times: int) -> tuple[int, tuple[int, int]] | None:
    detector = RepeatDetector(length, times, len(outputs))
    for step, output in enumerate(outputs):
        if found := detector.visit(output):
            return step, found
    return None


def test_a_cycle_may_hold_one_output_several_times_and_a_break_starts_anew() -> None:
    assert first_round("caabaabaabaab", 1, 4) == (12, (1, 3))
    assert first_round("caabaabaaxaabaabaabaab", 1, 4) == (21, (10, 3))
    assert first_round("aaaaaa", 2, 3) == (5, (0, 2))
    assert first_round("abcabca", 1, 3) is None


def test_rounds_are_those_that_comparing_everything_finds() -> None:
    chance = random.Random(3)
    for _ in range(400):
        length, times = chance.choice([1, 2, 3]), chance.choice([2, 3])
        outputs = "".join(chance.choice("ab") for _ in range(24))
        expected = next(
            (
                (step, (step + 1 - times * period, period))
                for step in range(len(outputs))
                for period in range(length, step + 2, length)
                if times * period <= step + 1
                and outputs[step + 1 - times * period : step + 1]
                == outputs[step + 1 - period : step + 1] * times
            ),
            None,
        )
        assert first_round(outputs, length, times) == expected
