"""How runs move: what they remember, whether they wander, come back or part."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.referee.rulings import Case, Ruling

Rulings = Iterator[Ruling]
IN_ORDER = "the output before than in a random order"
TOLD = 4  # groups at most


def lag(case: Case) -> Rulings:
    """Outputs are near those before them, runs wander off, stay or come back after so many outputs."""
    truth, text = case.truth, case.sentence
    num_groups = min(len(case.answer.movements), TOLD)

    def ruled(claim: str, words: str, is_true: bool, must_find: bool = True) -> Ruling:
        said = len(re.findall(words, text))
        return Ruling(claim=claim, said=said, of=num_groups, is_true=is_true, must_find=must_find)

    if truth.remembers is not None:
        yield ruled("as far from the output before as by chance", "about as far from", not truth.remembers)
    if truth.is_near is not None:
        is_far = bool(truth.remembers) and not truth.is_near
        yield ruled(f"nearer to {IN_ORDER}", "is nearer to", truth.is_near)
        yield ruled(f"farther from {IN_ORDER}", "is farther from", is_far)
    if truth.wanders is not None:
        # Of runs with a memory, D(k) may truly grow a little up to the longest lag.
        is_little_told = truth.wanders or not truth.is_near
        words = r"wanders off \(|goes on to move away" if is_little_told else r"wanders off \("
        yield ruled("wanders off", words, truth.wanders)
        yield ruled("noise and drift of a walk", "noise .*? and drift", truth.wanders, must_find=False)
        yield ruled("stays in its region", "stays in its region", not truth.wanders, truth.stays_plainly)
    if truth.period is not None:
        back = [int(number) for number in re.findall(r"comes back after (\d+)", text)]
        wrong = sum(number != truth.period for number in back)
        yield Ruling(claim="comes back after a wrong number", said=wrong, of=num_groups, is_true=False)
        if truth.period:
            right = len(back) - wrong
            yield Ruling(claim="comes back after so many outputs", said=right, of=num_groups, is_true=True)


def twins(case: Case) -> Rulings:
    """Twins part where they begin near each other, by about such a factor a step, which is above 1."""
    factors = [float(number) for number in re.findall(r"grows by a factor of ([\d.]+\d)", case.sentence)]
    of = min(case.answer.pairs["network"].n_unique(), TOLD)
    right = case.truth.parting_factor
    yield Ruling(claim="the distance of twins grows", said=len(factors), of=of, is_true=right is not None)
    shrinks = sum(factor <= 1 for factor in factors)
    yield Ruling(claim="it grows by a factor below 1", said=shrinks, of=of, is_true=False)
    if right is not None:
        for factor in factors:
            yield Ruling(claim="it grows by such a factor", said=1, is_true=abs(factor - right) < 0.05)


def regimes(case: Case) -> Rulings:
    """So many runs contract, oscillate or explore, and those are what the design does."""
    right = case.truth.regime
    if right is None:
        return
    runs = case.answer.runs
    for name in ("contracting", "oscillating", "exploring"):
        said = int((runs["regime"] == name).sum())
        yield Ruling(claim=f"a run is {name} (runs)", said=said, of=len(runs), is_true=name == right)
    told = re.findall(r"(\d+)% (?:contracting|oscillating|exploring)", case.sentence)
    is_whole = all(abs(sum(map(int, told[i : i + 3])) - 100) <= 2 for i in range(0, len(told), 3))
    yield Ruling(claim="shares are a whole", said=1, is_true=bool(told) and is_whole)
