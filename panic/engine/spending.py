"""What is sent to endpoints, within a budget, and what of it the store knows before it happens.

A request is paid for even if its answer never comes. So it is reckoned with what it takes at most from when
it is sent, and with what the server says once that is known. The store is told with each answer how much was
sent, and how much may be under way before it is told again: as many requests as a model has places. A session
that is killed has then counted a few too many, and never one too few.

All of it belongs to the driver's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from panic.config.schema import Budget
from panic.engine.calls import Usage
from panic.errors import BudgetSpent
from panic.store.records import NewSpending
from panic.store.served import Spent


@dataclass(slots=True)
class _Account:
    """What one model's server was sent. places: requests that it may have at the same time.

    most: how many tokens a request for an item takes at most.
    """

    model: int
    places: int
    most: Callable[[Any], int]
    requests: int = 0
    tokens: int = 0
    most_tokens: int = 0


class Spending:
    """The requests and tokens of a session, and those of all sessions before it.

    Args:
        before: what the experiment's earlier sessions have sent.
        budget: None where there is no limit.
    """

    def __init__(self, session: int, before: Spent, budget: Budget | None) -> None:
        self._session, self._before, self._budget = session, before, budget
        self._accounts: dict[str, _Account] = {}
        self._under_way: dict[int, tuple[str, int]] = {}

    def open(self, name: str, model: int, places: int, most_tokens: Callable[[Any], int]) -> None:
        """Keep account of a model, which is a row of the store."""
        self._accounts[name] = _Account(model, places, most_tokens)

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget."""
        return self._budget is not None

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._under_way

    @property
    def total(self) -> Spent:
        """What was sent in all, with what is under way as what it takes at most."""
        accounts = self._accounts.values()
        return Spent(
            requests=self._before.requests + sum(one.requests for one in accounts) + len(self._under_way),
            tokens=self._before.tokens
            + sum(one.tokens for one in accounts)
            + sum(tokens for _, tokens in self._under_way.values()),
        )

    def allows(self, name: str, item: Any) -> bool:
        """Whether a request for an item stays within the budget."""
        budget = self._budget
        if budget is None:
            return True
        total = self.total
        tokens = self._accounts[name].most(item)
        return (budget.requests is None or total.requests + 1 <= budget.requests) and (
            budget.tokens is None or total.tokens + tokens <= budget.tokens
        )

    def spent(self) -> BudgetSpent:
        """The error that tells that the budget does not allow the next request."""
        budget, total = self._budget, self.total
        assert budget is not None
        limits = {"requests": (total.requests, budget.requests), "tokens": (total.tokens, budget.tokens)}
        told = ", ".join(
            f"{now:,} of {most:,} {what}" for what, (now, most) in limits.items() if most is not None
        )
        return BudgetSpent(
            f"The budget is spent: {told} were sent, and the next request might pass it.",
            hint="Everything that was answered is stored. A larger budget goes on.",
        )

    def send(self, number: int, name: str, item: Any) -> None:
        """Reckon with a call that is sent now."""
        account = self._accounts[name]
        tokens = account.most(item)
        self._under_way[number] = (name, tokens)
        account.most_tokens = max(account.most_tokens, tokens)

    def settle(self, number: int, usage: Usage | None) -> None:
        """Take what a call has come to; None if nothing is known of it, so that all of it counts."""
        name, tokens = self._under_way.pop(number)
        usage = usage or Usage(tokens=tokens)
        account = self._accounts[name]
        account.requests += usage.requests
        account.tokens += usage.tokens
        account.most_tokens = max(account.most_tokens, usage.tokens)

    def rows(self, *, is_open: bool = True) -> list[NewSpending]:
        """What the store is to know.

        is_open: more will be sent; what may be under way before the store is told again is counted, too.
        """
        rows = []
        for name, one in self._accounts.items():
            under_way = [tokens for model, tokens in self._under_way.values() if model == name]
            free = max(0, one.places - len(under_way)) if is_open else 0
            if self._budget is not None and self._budget.requests is not None:
                free = min(free, max(0, self._budget.requests - self.total.requests))
            requests = one.requests + len(under_way) + free
            tokens = one.tokens + sum(under_way) + free * one.most_tokens
            rows.append(NewSpending(session=self._session, model=one.model, requests=requests, tokens=tokens))
        return rows
