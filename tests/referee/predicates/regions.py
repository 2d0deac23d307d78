"""Regions that runs visit: how many, how long they stay, where their moves lead, what others do there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import ceil, log

import numpy as np
import polars as pl

from panic.analysis.dynamics import mean_first_passage, mixing_time
from tests.referee.predicates.chance import SIDE, outside
from tests.referee.rulings import Case, Ruling

Rulings = Iterator[Ruling]
HOLDS = 0.7  # of an agreement
WHOLE = 90  # percent of the outputs: cores that are the regions of a design
FACTOR = 2.0  # within which an estimate of a time is called right


def clusters(case: Case) -> Rulings:
    """There are so many clusters, and they hold; where most are visited by one run only, that is said."""
    truth, text = case.truth, case.sentence
    if truth.regions is None:
        return
    found = re.search(r"in (one|\d+) clusters?", text)
    number = 0 if not found else 1 if found[1] == "one" else int(found[1])
    is_none = text.startswith("No cluster was found") and "visited most" not in text
    is_right = truth.regions == 0
    claim = "no cluster was found, and nothing is visited most"
    yield Ruling(claim=claim, said=is_none, is_true=is_right, must_find=False)
    if truth.shares_regions and found:
        yield Ruling(claim="there are so many clusters", said=1, is_true=number == truth.regions)
    agreement = re.search(r"agree with these by (\d\.\d+)", text)
    shared = re.search(r"(\d+) of (\d+) (?:is|are) visited by more than one run", text)
    holds = bool(agreement and float(agreement[1]) >= HOLDS)
    is_shared = bool(shared and 2 * int(shared[1]) > int(shared[2]))
    yield Ruling(
        claim="clusters hold, and runs share them", said=holds and is_shared, is_true=truth.shares_regions,
        must_find=truth.regions > 1,
    )  # fmt: skip


def territories(case: Case) -> Rulings:
    """Networks differ in the clusters they are in, those are whose it says, and intervals hold the shares."""
    truth = case.truth
    is_apart = truth.networks_apart
    if is_apart is None and truth.ends is not None and "network" not in truth.ends:
        is_apart = False
    if is_apart is None:
        return
    yield Ruling(
        claim="networks differ in the clusters they are in",
        said=case.sentence.startswith("Networks differ"),
        is_true=is_apart,
    )
    told = re.findall(r"(\S+(?: → \S+)+) is in “(?:place|state) (\d+)", case.sentence)
    wrong = sum(not (is_apart and _is_more(network, int(place), case)) for network, place in told)
    yield Ruling(claim="a cluster is a network's that is not in it more", said=bool(wrong), is_true=False)
    if is_apart:
        yield Ruling(claim="a cluster is a network's", said=len(told) > wrong, is_true=True)
    inside = case.answer.shares.filter(pl.col("label") >= 0, pl.col("low").is_finite())
    is_whole = inside.group_by("network").agg(pl.col("share").sum())["share"] > WHOLE / 100
    if truth.chain is not None and inside["label"].n_unique() == len(truth.chain) and is_whole.all():
        right = 1 / len(truth.chain)  # all designs are uniform in the long run
        missed = inside.filter((pl.col("low") > right) | (pl.col("high") < right))
        yield Ruling(
            claim="an interval does not hold the share", said=len(missed), of=len(inside), is_true=False
        )


def _is_more(network: str, place: int, case: Case) -> bool:
    """Whether runs of a network, as they were drawn, are at a place more than those of other networks."""
    shares = {True: [], False: []}
    for run in case.world.runs:
        shares[" → ".join(run.network) == network].append(float((run.places == place).mean()))
    return bool(np.mean(shares[True]) > np.mean(shares[False]))


def dwell(case: Case) -> Rulings:
    """Half of the stays last so long, and longer than in a random order where runs stay near."""
    truth = case.truth
    if truth.chain is None:
        return
    share = float(truth.chain[0, 0])
    right = 1 if share < 0.5 else ceil(log(0.5) / log(share))
    stays = case.sentence.partition("Median stay")[2].partition(". The ")[0]
    for told in re.findall(r", (\d[\d.]*) outputs?\b", stays):
        is_right = 1 / FACTOR < float(told) / right < FACTOR
        yield Ruling(claim="so long in the median", said=1, is_true=is_right)
    near = truth.is_near
    yield from outside(
        case.answer.band, "mean dwell", above=bool(near), below=None if truth.remembers else False
    )


def mean_dwells(case: Case) -> Rulings:
    """The intervals hold the mean dwell of the design, which is the same in all of its regions."""
    if case.truth.chain is None:
        return
    right = 1 / (1 - float(case.truth.chain[0, 0]))
    inside = (case.answer["low"] <= right * 1.0001) & (right <= case.answer["high"] * 1.0001)
    yield Ruling(
        claim="an interval does not hold a mean dwell",
        said=int((~inside).sum()),
        of=len(inside),
        is_true=False,
    )
    told = re.findall(r"95 % interval ([\d.,]+) to ([\d.,]+|inf);", case.sentence)
    longest = [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in told]
    missed = sum(not low * 0.995 <= right <= high * 1.005 for low, high in longest)
    yield Ruling(
        claim="an interval does not hold the longest mean dwell", said=missed, of=len(longest), is_true=False
    )


def chain(case: Case) -> Rulings:
    """A chain has parts never seen to be left, turns in a ring, relaxes in so long, and has an order."""
    matrix, text = case.truth.chain, case.sentence
    if matrix is None:
        return
    is_ring = bool(np.isin(matrix, (0, 1)).all())
    yield Ruling(
        claim="there are parts that were never seen to be left", said="seen to be left" in text, is_true=False
    )
    yield Ruling(claim="it turns in a ring", said="ring" in text, is_true=is_ring)
    second = float(np.sort(np.abs(np.linalg.eigvals(matrix)))[-2])
    if 0.1 < second < 0.99:
        right = -1 / log(second)
        for told in re.findall(r"relaxes with ([\d.]+) outputs", text):
            yield Ruling(claim="relaxes with so many outputs", said=1, is_true=0.5 < float(told) / right < 2)
    for rate, low in re.findall(r"makes ([\d.]+) nats [^.]*?\(shuffled: ([\d.]+) to", text):
        yield Ruling(
            claim="less news than in random order", said=float(rate) < float(low), level=SIDE,
            is_true=not np.allclose(matrix, matrix[0]),
        )  # fmt: skip


def milestones(case: Case) -> Rulings:
    """A chain forgets within so many outputs, is mixed after so many, and takes so many to another region."""
    matrix = case.truth.chain
    if matrix is None:
        return
    modulus = float(np.sort(np.abs(np.linalg.eigvals(matrix)))[-2])
    is_ring = modulus > 1 - 1e-9
    words = r"\((\d+) regions with (\d+)%(.*?)(?=\(\d+ regions|$)"
    for number, share, text in re.findall(words, case.sentence):
        if int(number) != len(matrix) or int(share) < WHOLE:  # of other cores the design says nothing
            continue
        yield Ruling(claim="it turns in a ring", said="turns in a ring" in text, is_true=is_ring)
        yield Ruling(
            claim="there are parts that were never seen to be left",
            said="seen to be left" in text,
            is_true=False,
        )
        if 0.1 < modulus < 0.99:
            yield from _times(text, -1 / log(modulus), mixing_time(matrix))
        if not is_ring:
            right = float(mean_first_passage(matrix, 0)[1:].mean())
            yield from _is_near(
                "so many outputs to another region", r"it takes ([\d.]+) outputs?", text, right
            )


def _times(text: str, relaxation: float, mixing: float) -> Rulings:
    """What is said of one chain's times."""
    yield from _is_near("forgets with so many outputs", r"forgets with ([\d.]+) outputs?", text, relaxation)
    yield from _is_near("mixed after so many", r"is mixed after (\d+)", text, mixing)
    intervals = re.findall(r"95 % interval ([\d.]+) to ([\d.]+)", text)
    missed = sum(not float(low) * 0.99 <= relaxation <= float(high) * 1.01 for low, high in intervals)
    yield Ruling(claim="an interval does not hold it", said=missed, of=len(intervals), is_true=False)


def _is_near(claim: str, words: str, text: str, right: float) -> Rulings:
    """Whether numbers are told within a factor."""
    for told in re.findall(words, text):
        yield Ruling(claim=claim, said=1, is_true=1 / FACTOR < float(told) / right < FACTOR)


def reversal(case: Case) -> Rulings:
    """Moves have a direction where the chain of the design has one."""
    matrix = case.truth.chain
    if matrix is None:
        return
    flows = np.full((len(matrix), 1), 1 / len(matrix)) * matrix  # all designs are uniform in the long run
    yield Ruling(
        claim="moves have a direction (networks)",
        said=case.sentence.count("moves in one direction more"),
        of=len(case.answer.tests),
        is_true=not np.allclose(flows, flows.T),
    )


def shares(case: Case) -> Rulings:
    """The 95 % interval of an experiment's share of a cluster holds that of all prompts that could be."""
    right = case.truth.mean_share
    if right is not None:
        known = case.answer.shares.filter(pl.col("label") == 0, pl.col("low").is_finite())
        outside = known.filter((pl.col("low") > right) | (pl.col("high") < right))
        yield Ruling(
            claim="an interval does not hold the share", said=len(outside), of=len(known), is_true=False
        )
