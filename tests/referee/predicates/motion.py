"""How runs move: what they remember, whether they wander, come back or part."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.referee.rulings import Case, Ruling

Rulings = Iterator[Ruling]


def lag(case: Case) -> Rulings:
    """Outputs are near those before them, runs wander off, stay or come back after so many outputs."""
    truth, text = case.truth, case.sentence
    if truth.remembers is not None:
        yield Ruling(
            claim="about as far from the output before as in a random order", said="about as far from" in text,
            is_true=not truth.remembers,
        )  # fmt: skip
    if truth.is_near is not None:
        yield Ruling(
            claim="nearer to the output before than in a random order", said="is nearer to" in text,
            is_true=truth.is_near,
        )  # fmt: skip
        yield Ruling(
            claim="farther from the output before than in a random order", said="is farther from" in text,
            is_true=bool(truth.remembers) and not truth.is_near,
        )  # fmt: skip
    if truth.wanders is not None:
        yield Ruling(claim="wanders off", said="wanders off (" in text, is_true=truth.wanders)
        yield Ruling(
            claim="stays in its region", said="stays in its region" in text, is_true=not truth.wanders,
            must_find=truth.period == 0,
        )  # fmt: skip
    if truth.period is not None:
        back = [int(number) for number in re.findall(r"comes back after (\d+)", text)]
        is_right = all(number == truth.period for number in back) if back else bool(truth.period)
        yield Ruling(claim="comes back after so many outputs", said=bool(back), is_true=is_right)


def twins(case: Case) -> Rulings:
    """Twins part from each other: in no design do they begin near each other, so there is nothing to find."""
    rates = [float(number) for number in re.findall(r"grows by (-?[\d.e-]+\d)", case.sentence)]
    yield Ruling(claim="the distance of twins grows", said=bool(rates), is_true=False)
    yield Ruling(claim="it grows by less than 0", said=any(rate < 0 for rate in rates), is_true=False)
