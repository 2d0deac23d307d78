"""Synthetic models check their parameters themselves, by the limits that a config is checked by."""

from __future__ import annotations

from typing import Any

import pytest

from panic.errors import ModelError
from panic.models.registry import check_config
from panic.models.synthetic import MODELS, ImageToText, TextToImage, transition_matrix

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("synthetic/text-to-image", {"states": 0}, "states should be at least 1"),
    ("synthetic/text-to-image", {"size": 64.0}, "size should be a whole number"),
    ("synthetic/text-to-image", {"states": None}, "states should be a whole number"),
    ("synthetic/text-to-image", {"kernel": "cycle"}, "no parameter 'kernel'"),
    ("synthetic/image-to-text", {"kernel": "spin"}, "kernel is not one of the allowed values"),
    ("synthetic/image-to-text", {"epsilon": 1.5}, "epsilon should be at most 1"),
    ("synthetic/image-to-text", {"alpha": 0}, "alpha should be more than 0"),
    ("synthetic/random-walk", {"dimension": 1}, "dimension should be at least 2"),
    ("synthetic/walk-embedding", {"angle": 1}, "no parameter 'angle'"),
    ("synthetic/state-embedding", {"delay_s": -1}, "delay_s should be at least 0"),
]


@pytest.mark.parametrize(("name", "given", "told"), WRONG, ids=lambda value: str(value)[:40])
def test_a_constructor_refuses_what_a_config_check_refuses(
    name: str, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        MODELS[name](**given)
    (problem,) = check_config({"models": {"it": {"base": name, **given}}})
    assert told.removeprefix("no ") in problem.message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ModelError) as caught:
        ImageToText(states=0, kernel="spin", nosuch=1)
    assert caught.value.message == (
        "synthetic/image-to-text: it has no parameter 'nosuch'; states should be at least 1: 0; "
        "kernel is not one of the allowed values (identity, column, cycle, dirichlet, slow, dead): 'spin'"
    )


def test_defaults_are_those_of_the_table() -> None:
    assert TextToImage().invoke(["state 3"], [1])[0].size == (64, 64)
    assert ImageToText().matrix.tolist() == transition_matrix(8, "cycle").tolist()


def test_the_matrix_is_checked_too() -> None:
    with pytest.raises(ModelError, match="the transition matrix: epsilon should be at most 1"):
        transition_matrix(3, "cycle", 2.0)
