"""The order of work that the model cache is told."""

from __future__ import annotations

import pytest

from panic.engine import forecast as forecasts
from panic.engine.forecast import MAX_USES, forecast

PAIR, TWICE = ("draw", "say"), ("draw", "say", "draw", "tell")


def test_two_models_take_turns() -> None:
    assert forecast({(PAIR, 0): 100}, {"draw": 100}, "draw") == ("say", "draw")
    assert forecast({(PAIR, 1): 100}, {"say": 100}, "say") == ("draw", "say")


def test_a_model_that_is_used_twice_a_cycle_is_named_twice() -> None:
    """Serving the first "draw": it is needed again right after "say", long before "tell" is."""
    assert forecast({(TWICE, 0): 9}, {}, "draw") == ("say", "draw", "tell", "draw")
    assert forecast({(TWICE, 2): 9}, {}, "draw") == ("tell", "draw", "say", "draw")


def test_runs_that_are_behind_catch_up_and_then_it_repeats() -> None:
    order = forecast({(PAIR, 0): 10, (PAIR, 1): 3}, {}, "draw")
    assert order == ("say", "draw", "say", "draw")


def test_networks_share_their_models() -> None:
    other = ("draw", "tell")
    order = forecast({(PAIR, 0): 5, (other, 0): 9}, {}, "draw")
    assert order[0] == "tell", "it has most work"
    assert set(order) >= {"tell", "draw"}
    first = forecast({(PAIR, 0): 5, (other, 0): 9}, {}, "draw", frozenset({"draw", "say"}))[0]
    assert first == "say", "it is there already"


def test_embeddings_come_once_and_nothing_follows_the_last_of_them() -> None:
    assert forecast({}, {"clip": 50, "text": 70}, "clip") == ("text",)
    assert forecast({(PAIR, 0): 5}, {"clip": 8}, "draw") == ("clip", "say", "draw", "say", "draw")
    assert forecast({(PAIR, 0): 5}, {"clip": 3}, "draw") == ("say", "draw"), "it waits for the loops"


def test_lengths_that_never_meet_end_somewhere() -> None:
    crowds = {(tuple("abcde"), 0): 7, (tuple("afghijk"), 2): 5, (tuple("lmb"), 1): 4}
    order = forecast(crowds, {}, "a")
    assert 0 < len(order) <= MAX_USES


def test_what_looks_like_a_cycle_and_is_none_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking ahead ends where the model comes again, in another situation than the one at hand."""
    trio = ("a", "b", "c")
    for most, crowds, order in (
        (2, {(("a", "b"), 1): 1}, "b"),
        (3, {(trio, 1): 1}, "bc"),
        (5, {(trio, 1): 1, (trio, 2): 2}, "cabc"),
        (4, {(trio, 1): 1, (trio, 2): 2}, "cabc"),
        (1, {(trio, 1): 1, (trio, 2): 2}, "c"),
    ):
        monkeypatch.setattr(forecasts, "MAX_USES", most)
        assert forecast(crowds, {}, "a") == tuple(order)
