"""What interventions mean, by counting: which are due, what network and model a step has, what returns."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from panic.arms import (
    Arm,
    Intervention,
    arm_of,
    arms_of,
    due,
    first_step,
    last_network,
    maker,
    model_at,
    models_of,
    network_at,
    networks,
    period_of,
    settled_step,
)

PAIR, TRIO = ("draw", "say"), ("draw", "say", "cut")
ONCE, AGAIN = Intervention("text", "x", 3), Intervention("model", "upper-case", 4, 3)
SWAP = Intervention("network", TRIO, 5)


def test_entries_of_a_config_become_interventions() -> None:
    entries: list[dict[str, Any]] = [
        {"at": 0, "text": ""}, {"every": 3, "noise": 0.5, "text": None}, {"at": 4, "every": 3, "model": "m"},
        {"at": 5, "network": ["draw", "say", "cut"]},
    ]  # fmt: skip
    made = (
        Intervention("text", "", 0), Intervention("noise", 0.5, 3, 3), Intervention("model", "m", 4, 3), SWAP
    )  # fmt: skip
    assert arm_of(entries) == made
    assert arms_of({"arms": {"on": entries, "baseline": []}}) == {"on": made, "baseline": ()}
    assert arms_of({}) == arms_of({"arms": None}) == {}


def test_a_model_is_called_by_its_name_and_noise_by_its_strength() -> None:
    assert Intervention("noise", 1, 0).model == "noise:1.0"
    assert [one.model for one in (ONCE, AGAIN, SWAP)] == ["", "upper-case", ""]


def test_what_is_due_before_a_step_in_its_order() -> None:
    arm: Arm = (AGAIN, ONCE, Intervention("text", "y", 3), SWAP)
    assert {step: due(arm, step) for step in range(11) if due(arm, step)} == {
        3: [ONCE, arm[2]], 4: [AGAIN], 5: [SWAP], 7: [AGAIN], 10: [AGAIN]
    }  # fmt: skip
    assert (first_step(arm), first_step(())) == (3, None)


@pytest.mark.parametrize("one", [ONCE, AGAIN, Intervention("model", "m", 5, 5), Intervention("text", "x", 0)])
def test_how_often_one_is_due_is_the_number_of_its_steps(one: Intervention) -> None:
    for begin, end in itertools.combinations_with_replacement(range(14), 2):
        assert one.num_due(begin, end) == sum(one.is_due(step) for step in range(begin, end)), (begin, end)


def test_the_networks_of_a_run_step_by_step() -> None:
    """Draw and say up to step 5, three models to 9, the pair again; what would begin later does not."""
    arm: Arm = (Intervention("network", PAIR, 9), SWAP, ONCE)
    assert list(networks(list(PAIR), arm, 20)) == [(PAIR, 0, 5), (TRIO, 5, 9), (PAIR, 9, 20)]
    assert list(networks(PAIR, arm, 10)) == [(PAIR, 0, 5), (TRIO, 5, 9), (PAIR, 9, 10)]
    assert list(networks(PAIR, arm, 9)) == [(PAIR, 0, 5), (TRIO, 5, 9)]
    assert list(networks(PAIR, arm, 5)) == [(PAIR, 0, 5)]
    assert list(networks(PAIR, arm, 0)) == []
    assert list(networks(PAIR, (Intervention("network", TRIO, 0),), 4)) == [(TRIO, 0, 4)]
    assert list(networks(PAIR, (SWAP, Intervention("network", ("cut",), 5)), 7)) == [
        (PAIR, 0, 5), (("cut",), 5, 7)
    ]  # fmt: skip
    models = [model_at(PAIR, arm, step) for step in range(12)]
    assert models == [*PAIR, *PAIR, "draw", *TRIO, "draw", "draw", "say", "draw"]
    assert [network_at(PAIR, arm, step) for step in (4, 5, 8, 9)] == [
        (PAIR, 0), (TRIO, 5), (TRIO, 5), (PAIR, 9)
    ]  # fmt: skip
    assert [model_at(TRIO, (), step) for step in range(4)] == [*TRIO, "draw"]


def test_who_made_an_output() -> None:
    arm: Arm = (Intervention("model", "a", 3), ONCE, Intervention("noise", 0.5, 3))
    assert [maker(PAIR, arm, 3, place) for place in (None, 0, 1, 2, 3)] == ["say", "a", "", "noise:0.5", ""]
    assert maker(PAIR, arm, 2, 0) == ""


def test_when_all_comes_round() -> None:
    """Network of two or three, every 3 steps: 6 or 3; of what is made once nothing comes round."""
    assert (period_of(PAIR, ()), period_of(PAIR, (ONCE,)), period_of(PAIR, (AGAIN,))) == (2, 2, 6)
    assert period_of(PAIR, (AGAIN, SWAP)) == 3
    assert period_of(PAIR, (AGAIN, Intervention("model", "m", 4, 4))) == 12
    assert [last_network(PAIR, arm) for arm in ((), (ONCE,), (SWAP, ONCE))] == [PAIR, PAIR, TRIO]
    assert [settled_step(arm) for arm in ((), (ONCE,), (AGAIN,), (ONCE, SWAP, AGAIN))] == [0, 3, 1, 5]
    assert settled_step((Intervention("model", "m", 2, 7),)) == 0


def test_the_models_of_a_run_each_once() -> None:
    arm: Arm = (SWAP, AGAIN, ONCE, AGAIN)
    assert models_of(PAIR, arm) == ["draw", "say", "cut", "upper-case"]
    assert models_of((), ()) == []
