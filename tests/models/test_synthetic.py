"""Synthetic models check their parameters themselves, by the limits that a config is checked by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from panic.errors import ModelError
from panic.models import registry
from panic.models.registry import check_config
from panic.models.synthetic import (
    MODELS,
    ImageToText,
    TextToImage,
    named_state,
    transition_matrix,
    walk_point,
)

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


def test_a_text_that_only_looks_like_a_state_or_a_walk_is_any_text() -> None:
    """Their numbers ended the run with what Python says of them."""
    assert named_state("state 12", 7) == 5
    assert named_state("state " + "1" * 4000, 7) == int("1" * 4000) % 7
    assert 0 <= named_state("state " + "1" * 4400, 7) < 7
    assert walk_point("walk 0 3 4", 3).tolist() == [0, 0.6, 0.8]
    points = [walk_point(f"walk {rest}", 3) for rest in ("in the park", "0 0 0", "nan 0 0", "1e308 1e308 0")]
    assert [np.linalg.norm(point) for point in points] == pytest.approx([1.0] * 4)
    assert len({tuple(point) for point in points}) == 4


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


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 0.7, 1.0])
def test_slow_and_dead_kernels_keep_their_promise_under_noise(epsilon: float) -> None:
    """With epsilon above 0, the largest entry of a row of `slow` was often beside the diagonal."""
    for seed in range(20):
        slow = transition_matrix(5, "slow", epsilon, kernel_seed=seed)
        dead = transition_matrix(5, "dead", epsilon, kernel_seed=seed)
        assert slow.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
        assert dead.argmax(axis=1).tolist() == [0] * 5
        assert slow.sum(axis=1) == pytest.approx(1)


def test_version_one_is_what_stored_experiments_have() -> None:
    """Digits of the kernels as they were made before there were versions."""
    old = transition_matrix(3, "slow", 0.5, kernel_seed=1, kernel_version=1)
    assert old[1].tolist() == pytest.approx([0.119337, 0.339121, 0.541542], abs=1e-6)
    same = transition_matrix(3, "slow", kernel_seed=1, kernel_version=1)
    assert same.tolist() == transition_matrix(3, "slow", kernel_seed=1).tolist()


def test_only_kernels_that_have_changed_have_another_fingerprint() -> None:
    variants: dict[str, dict[str, Any]] = {
        name: {"base": "synthetic/image-to-text", **settings}
        for name, settings in {
            "quiet": {"kernel": "slow"},
            "quiet-1": {"kernel": "slow", "kernel_version": 1},
            "noisy": {"kernel": "slow", "epsilon": 0.3},
            "noisy-1": {"kernel": "slow", "epsilon": 0.3, "kernel_version": 1},
        }.items()
    }
    found = {name: registry.fingerprint(registry.resolve(name, variants)) for name in variants}
    assert found["quiet"] == found["quiet-1"]
    assert found["noisy"] != found["noisy-1"]
    # As stores of before have it: `kernel_version: 1` goes on with such an experiment.
    assert found["noisy-1"] == "4e93fd0d5516b8bfcd69c53e5df14aef0ea02b4290e92c9618cf0b2b24088f9f"
