"""Orders of work replayed by hand: bytes, waiting, and whether eager prefetch pays."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from panic.devices import replay as replaying
from panic.devices.planning import Action, State, Use, plan
from panic.devices.replay import ASK_AGAIN, Eagerness, eager_pays, replay
from panic.errors import ModelDoesNotFit

TWO = State(capacity_bytes=20, sizes={"a": 15, "b": 15})
ORDER = [Use("a"), Use("b")]


def test_a_cycle_costs_what_its_second_half_costs() -> None:
    """Of two models of 15 in room for 20 each use brings 10 and waits for them; the first brought 15."""
    done = replay(TWO, ORDER, rate_bytes_per_s=5.0, compute_s={"a": 1.0, "b": 0.5})
    assert (done.bytes_per_cycle, done.stall_s, done.wall_s) == pytest.approx((20, 4, 4 + 1.5))
    first = replay(TWO, ORDER, num_cycles=1, rate_bytes_per_s=5.0)
    assert (first.bytes_per_cycle, first.stall_s, first.wall_s) == pytest.approx((30, 6, 6))
    odd = replay(TWO, ORDER, num_cycles=3)
    assert (odd.bytes_per_cycle, odd.stall_s, odd.wall_s) == (20, 0, 0)
    started = State(capacity_bytes=20, sizes=TWO.sizes, resident={"a": 15, "b": 5})
    assert replay(started, ORDER, num_cycles=1).bytes_per_cycle == 30, "it starts empty, whatever is there"


@pytest.mark.parametrize(
    ("ahead", "rate", "num_bytes", "wall_s"),
    [
        ("", 1.0, 4.5, 3 + 4.5), ("", 4.0, 4.5, 3 + 4.5 / 4), ("eager", 1.0, 9, 9), ("eager", 2.0, 9, 4.5),
        ("eager", 4.0, 9, 3),
    ],
)  # fmt: skip
def test_eager_prefetch_is_bound_by_the_bus_or_by_computing(ahead, rate, num_bytes, wall_s) -> None:  # type: ignore[no-untyped-def]
    """Three models of 4 bytes in room for 9, and a call of a second each: 9 bytes over the bus, or 3 s."""
    state, order = State(capacity_bytes=9, sizes=dict.fromkeys("abc", 4)), [Use(name) for name in "abc"]
    done = replay(state, order, ahead=ahead, rate_bytes_per_s=rate, compute_s=dict.fromkeys("abc", 1.0))
    assert (done.bytes_per_cycle, done.wall_s) == pytest.approx((num_bytes, wall_s))
    assert done.stall_s == pytest.approx(wall_s - 3)


@pytest.mark.parametrize(("rate", "hidden_s"), [(1.0, 1.0), (8.0, 0.125)])
def test_what_fits_beside_is_brought_ahead_for_nothing(rate: float, hidden_s: float) -> None:
    """Of 8 bytes a cycle one comes while others compute."""
    state = State(capacity_bytes=13, sizes={"a": 2, "b": 8, "c": 8})
    order, seconds = [Use(name) for name in "abc"], {"a": 1.0, "b": 2.0, "c": 0.5}
    plain, free = (
        replay(state, order, ahead=ahead, rate_bytes_per_s=rate, compute_s=seconds) for ahead in ("", "free")
    )
    assert plain.bytes_per_cycle == free.bytes_per_cycle == 8
    assert (plain.stall_s, free.stall_s) == pytest.approx((8 / rate, 8 / rate - hidden_s))
    assert (plain.wall_s, free.wall_s) == pytest.approx((8 / rate + 3.5, 8 / rate - hidden_s + 3.5))


def test_a_planner_sees_two_cycles_or_as_much_as_it_is_told() -> None:
    seen = []

    def planner(state, upcoming):  # type: ignore[no-untyped-def]
        seen.append("".join(use.model for use in upcoming))
        return replaying.planning.plan(state, upcoming)

    replay(TWO, ORDER, num_cycles=1, planner=planner)
    replay(TWO, ORDER, num_cycles=1, planner=planner, lookahead_uses=3)
    assert seen == ["abab", "baba", "aba", "bab"]


def test_a_use_beyond_the_capacity_is_refused() -> None:
    assert replay(TWO, [Use("a", 5), Use("b")]).bytes_per_cycle > 0
    with pytest.raises(ModelDoesNotFit, match="a alone exceeds the capacity"):
        replay(TWO, [Use("a", 6), Use("b")])


def test_eager_prefetch_pays_where_it_saves_time_and_is_asked_again_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    three = State(capacity_bytes=9, sizes=dict.fromkeys("abc", 4))
    order, fast = [Use(name) for name in "abc"], dict.fromkeys("abc", 1.0)
    assert eager_pays(three, order, 25.0, fast)
    assert not eager_pays(three, order, 25.0, dict.fromkeys("abc", 1e-6))
    answers = [True, False]
    asked = []
    monkeypatch.setattr(replaying, "eager_pays", lambda *how: asked.append(how) or answers.pop(0))
    eager = Eagerness()
    for nothing in ((0.0, fast), (25.0, {"a": 1.0, "b": 1.0}), (25.0, fast | {"c": 0.0})):
        assert not eager.pays(three, order, *nothing)
    assert not eager.pays(three, [], 25.0, fast)
    assert asked == []
    assert [eager.pays(three, order, 25.0, fast) for _ in range(ASK_AGAIN)] == [True] * 64
    assert len(asked) == 1
    assert [eager.pays(three, order, 25.0, fast) for _ in range(2)] == [False] * 2
    assert len(asked) == 2
    answers.append(True)
    assert eager.pays(three, order[::-1], 25.0, fast), "another order is asked for by itself"


def test_an_order_that_does_not_fit_gains_nothing() -> None:
    assert not Eagerness().pays(TWO, [Use("a", 9), Use("b")], 25.0, {"a": 1.0, "b": 1.0})


def test_eight_cycles_are_served_unless_told_otherwise() -> None:
    seen: list[str] = []

    def planner(state: State, upcoming: Sequence[Use]) -> list[Action]:
        seen.append(upcoming[0].model)
        return plan(state, upcoming)

    replay(TWO, ORDER, planner=planner)
    assert seen == ["a", "b"] * 8
