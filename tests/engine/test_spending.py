"""What was sent to endpoints, and what of it the store is told before it happens."""

from __future__ import annotations

import pytest

from panic.config.schema import Budget
from panic.engine.calls import Usage
from panic.engine.spending import Spending
from panic.errors import BudgetSpent
from panic.store.records import NewSpending
from panic.store.served import Spent

BEFORE = Spent(requests=10, tokens=1000)


def spending(places: int = 3, **limits: int) -> Spending:
    """Of two models: what a text takes at most of the first is its length, of the other twice as much."""
    found = Spending(7, BEFORE, Budget(**limits) if limits else None)
    found.open("one", 1, places, len)
    found.open("two", 2, places, lambda item: 2 * len(item))
    return found


def told(one: Spending, *, is_open: bool = True) -> list[tuple[int, int, int]]:
    rows = one.rows(is_open=is_open)
    assert {row.session for row in rows} == {7}
    assert all(type(row) is NewSpending for row in rows)
    return [(row.model, row.requests, row.tokens) for row in rows]


def test_what_is_under_way_counts_with_what_it_takes_at_most_until_it_is_known() -> None:
    one = spending()
    assert (one.is_limited, one.is_idle, one.total) == (False, True, BEFORE)
    one.send(1, "one", "x" * 30)
    one.send(2, "two", "x" * 5)
    assert (one.is_idle, one.total) == (False, Spent(requests=12, tokens=1040))
    one.settle(1, Usage(requests=2, tokens=7))
    assert one.total == Spent(requests=13, tokens=1017)
    one.settle(2, None)  # nothing is known of it, so that all of it counts
    assert (one.is_idle, one.total) == (True, Spent(requests=13, tokens=1017))


def test_the_store_is_told_of_as_much_as_may_be_sent_before_it_is_told_again() -> None:
    one = spending(places=3)
    assert told(one) == [(1, 3, 0), (2, 3, 0)]
    one.send(1, "one", "x" * 30)
    assert told(one) == [(1, 3, 30 + 2 * 30), (2, 3, 0)]
    assert told(one, is_open=False) == [(1, 1, 30), (2, 0, 0)]
    one.settle(1, Usage(requests=1, tokens=40))  # more than it should have taken: so may others
    assert told(one) == [(1, 1 + 3, 40 + 3 * 40), (2, 3, 0)]
    assert told(one, is_open=False) == [(1, 1, 40), (2, 0, 0)]
    for number in range(4):
        one.send(number, "one", "x")
    assert told(one)[0] == (1, 5, 44), "more than there are places is no less than none"


def test_no_more_is_told_than_the_budget_allows() -> None:
    one = spending(requests=12)
    one.send(1, "one", "x" * 30)
    assert told(one) == [(1, 2, 60), (2, 1, 0)]
    one.send(2, "two", "x")
    assert told(one) == [(1, 1, 30), (2, 1, 2)]
    one.send(3, "two", "x")
    assert told(one) == [(1, 1, 30), (2, 2, 4)]
    assert told(spending(tokens=2000)) == [(1, 3, 0), (2, 3, 0)]


@pytest.mark.parametrize(
    ("limits", "allows"),
    [
        ({}, True),
        ({"requests": 12}, True), ({"requests": 11}, False),
        ({"tokens": 1040}, True), ({"tokens": 1039}, False),
        ({"requests": 12, "tokens": 1040}, True), ({"requests": 11, "tokens": 1040}, False),
    ],
)  # fmt: skip
def test_a_request_is_allowed_up_to_the_budget(limits: dict[str, int], allows: bool) -> None:
    one = spending(**limits)
    one.send(1, "one", "x" * 30)
    assert one.is_limited is bool(limits)
    assert one.allows("two", "x" * 5) is allows


def test_what_is_spent_is_told_with_its_limits() -> None:
    one = spending(requests=1_200, tokens=1_000_000)
    one.send(1, "one", "x" * 500)
    error = one.spent()
    assert isinstance(error, BudgetSpent)
    assert error.message == (
        "The budget is spent: 11 of 1,200 requests, 1,500 of 1,000,000 tokens were sent, and the next request"
        " might pass it."
    )
    assert "10 of 12 requests were sent" in spending(requests=12).spent().message
