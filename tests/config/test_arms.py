"""What a config says about arms: which mistakes are told where, and what is read of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from panic.arms import Intervention
from panic.config.arms import (
    InterventionSettings,
    arm_problems,
    arms_of_all,
    branch_name,
    named_models,
    raw_arms,
)

ONE_OF = "an intervention has one of the keys model, noise, text, network"


def told(arms: Any) -> list[tuple[Any, str, bool]]:
    return [(one.path[1:], one.message, one.on_key) for one in arm_problems({"arms": arms})]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"at": 1}, ONE_OF),
        ({"at": 1, "text": None}, ONE_OF),
        ({"at": 1, "text": "a", "noise": 0.1}, f"{ONE_OF}, and has noise and text"),
        ({"text": "a"}, "an intervention says when it is made: at: STEP, or every: N"),
        ({"at": 1, "every": 2, "network": ["a"]}, "another network takes over once: at: STEP"),
        ({"every": 2, "network": ["a"]}, "another network takes over once: at: STEP"),
        ({"at": 1, "network": ["a"]}, ""),
        ({"at": 0, "text": "a"}, ""),
        ({"every": 2, "model": "m"}, ""),
        ({"at": 1, "every": 2, "noise": 0.1}, ""),
        ({"ta": 1, "text": "a"}, ""),  # an unknown key is told elsewhere
        ("at: 1", ""),
    ],
    ids=str,
)
def test_an_intervention_with_the_wrong_keys_is_told_at_its_place(entry: Any, message: str) -> None:
    good = {"at": 1, "text": "a"}
    assert told({"swap": [good, entry]}) == ([(("swap", 1), message, False)] if message else [])
    assert [place for place, _ in raw_arms({"arms": {"swap": [entry, good]}})["swap"]] == (
        [0, 1] if entry in GOOD else [1]
    )


GOOD = [
    {"at": 1, "network": ["a"]},
    {"at": 0, "text": "a"},
    {"every": 2, "model": "m"},
    {"at": 1, "every": 2, "noise": 0.1},
]


def test_the_baseline_has_no_interventions_and_every_other_arm_has_some() -> None:
    good = {"at": 1, "text": "a"}
    assert told({"a": 5, "baseline": [good], "b": [], "c": [good], "d": [{"at": 1}]}) == [
        (("baseline",), "baseline is the arm without interventions", True),
        (("b",), "the arm b has no interventions: its runs would be copies of the baseline", True),
        (("d", 0), ONE_OF, False),
    ]
    [first] = arm_problems({"arms": {"baseline": [good]}})
    assert first.hint == "give the interventions another name"
    assert told({"baseline": [], "c": [good]}) == told([good]) == told(None) == arm_problems({}) == []


def test_what_has_the_right_form_is_read_and_the_rest_is_left_out() -> None:
    raw = {"arms": {
        "swap": [{"at": 1, "text": "a"}, "x", {"at": -1, "text": "a"}, {"at": 1}, {"every": 3, "model": "m"}],
        "no": 5, 7: [{"at": 2, "network": ["n", "m"]}],
    }}  # fmt: skip
    arms = raw_arms(raw)
    assert list(arms) == ["swap", "7"]
    assert [place for place, _ in arms["swap"]] == [0, 4]
    assert all(isinstance(one, Intervention) for arm in arms.values() for _, one in arm)
    assert arms["swap"][1][1] == InterventionSettings(every=3, model="m").intervention
    assert named_models(raw) == ["m", "n"]
    assert raw_arms({"arms": [1]}) == raw_arms({}) == {}
    assert raw_arms({"arms": {"a": [5, None, "x", []]}}) == {"a": ()}


def test_mistakes_of_an_arm_are_shown_at_its_name() -> None:
    """An arm of the baseline is never one of which something is missing, too."""
    [first] = arm_problems({"arms": {"baseline": [{"at": 1}]}})[:1]
    assert (first.path, first.on_key) == (("arms", "baseline"), True)
    [empty] = arm_problems({"arms": {"b": []}})
    assert (empty.path, empty.on_key, empty.hint) == (("arms", "b"), True, "")


def test_an_arm_whose_name_only_looks_like_a_branch_is_of_all_runs() -> None:
    """Whatever it holds that is none, or where the name goes on."""
    at = InterventionSettings(at=4, text="a")
    name = branch_name("baseline", [at])
    for arms in ({name: []}, {name: 5}, {name: [{"at": "x"}]}, {f"{name}-": [at]}, {f"{name}0": [at]},
                 {f"x{name.removeprefix('r')}": [at]}):  # fmt: skip
        assert arms_of_all(arms) == list(arms)
    assert arms_of_all({name: [at], "swap": [at]}) == ["swap"]
    assert arms_of_all({}) == ["baseline"]
