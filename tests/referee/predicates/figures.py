"""Numbers that can be counted from the runs as they were drawn, without a statistic."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from statistics import median_low

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from panic.analysis.grouping import network_name
from panic.analysis.sampling import MAX_RUNS
from panic.arms import BASELINE
from tests.referee.rulings import Case, Ruling
from tests.referee.worlds import CALL_S, EMBED, SimulatedRun, image_of

Rulings = Iterator[Ruling]


def _is(claim: str, told: object, right: object) -> Ruling:
    return Ruling(claim=claim, said=1, is_true=told == right)


def _is_large(case: Case) -> bool:
    """Whether some runs are summed up only, which the caveat says, so that the numbers are other ones."""
    return len(case.world.runs) > MAX_RUNS


def _numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


def time(case: Case) -> Rulings:
    """All calls together took so long: every model is called once, for as long."""
    told = re.search(r"took ([\d.]+) (ms|s) in all", case.sentence)
    if told and not case.world.has_diagrams:
        models = {EMBED, *(name for run in case.world.runs for name in run.network)}
        seconds = float(told[1]) * (0.001 if told[2] == "ms" else 1)
        yield _is("so many seconds of calls", seconds, CALL_S * len(models))


def summary(case: Case) -> Rulings:
    """So many runs with a fixed seed are stuck, half of them from this step on."""
    fixed = [run for run in case.world.runs if run.seed != -1]
    entries = [2 * (run.entry or 0) for run in fixed if run.period is not None]
    if not entries:
        told = ("none can be stuck", "is not stuck")  # of runs without, and of the one with a fixed seed
        is_told = case.sentence.startswith("None of") or any(words in case.sentence for words in told)
        yield _is("no run is stuck", is_told, True)
        return
    yield _is("so many runs are stuck", _numbers(case.sentence)[:2], [len(entries), len(fixed)])
    half = re.search(r"(?:from|by|at) (?:step|model call) ([\d.]+\d|\d+)", case.sentence)
    if half:
        yield _is("half of them from this step on", float(half[1]), median_low(entries))


def stuck(case: Case) -> Rulings:
    """So many runs are stuck, so many stand still, and the last one entered its cycle at this step."""
    caught = [run for run in case.world.runs if run.period is not None]
    yield _is("so many runs are stuck", _numbers(case.sentence)[0], len(caught))
    entry = re.search(r"at (?:step|model call) (\d+)", case.sentence)
    if entry:
        yield _is("entered at this step", int(entry[1]), 2 * max(run.entry or 0 for run in caught))


def grid(case: Case) -> Rulings:
    """There are so many prompts and networks, and each picture is where a run was at its full length."""
    runs = case.world.runs
    ended = [run for run in runs if run.index_at(run.num_outputs - 1) is not None]
    numbers = [int(n) for n in re.findall(r"(?:rows|columns): (\d+)", case.sentence)]
    right = [len({run.prompt for run in ended}), len({_group(run) for run in ended})]
    yield _is("so many prompts and networks", numbers, right)
    ends = {(run.prompt, _group(run), _digest_at_end(run)) for run in ended}
    cells = case.answer.cells.select("row", "column", "digest").rows()
    yield Ruling(
        claim="a picture is not where a run was at its end", said=sum(cell not in ends for cell in cells),
        of=len(cells), is_true=False,
    )  # fmt: skip


def _group(run: SimulatedRun) -> str:
    """What a run is grouped by: its network, and its arm if anything steps in."""
    return network_name(run.network) + (f" · {run.arm}" if run.arm != BASELINE else "")


def _digest_at_end(run: SimulatedRun) -> str:
    at = run.index_at(run.num_outputs - 1)
    assert at is not None
    return image_of(run.texts[at]).digest.hex()


def drift(case: Case) -> Rulings:
    """Runs are at this distance at a step that half of them reach."""
    if case.view is None or case.view.modality != "text":
        return
    if _is_large(case):
        return
    told = re.findall(r"(\S+(?: → \S+)+(?: · \S+)?) ([\d.]+) at model call (\d+)", case.sentence)
    for network, distance, step in told:
        of_network = [run for run in case.world.runs if _group(run) == network]
        there = [(run, run.index_at((int(step) - 1) // 2)) for run in of_network]
        found = [
            1 - float(run.vectors[at] @ case.world.prompts[run.prompt]) for run, at in there if at is not None
        ]
        is_rare = 2 * len(found) < len(there)
        yield Ruling(claim="so far at a step that few runs reach", said=is_rare, is_true=False)
        is_right = bool(found) and abs(float(np.median(found)) - float(distance)) < 0.0051
        yield Ruling(claim="the median distance is this", said=1, is_true=is_right)


def map(case: Case) -> Rulings:
    """So many outputs of so many runs are drawn."""
    if _is_large(case):
        return
    num_texts, num_runs = _numbers(case.sentence)[:2]
    if case.view is not None and case.view.modality == "text":
        right = sum(len(run.texts) for run in case.world.runs), len(case.world.runs)
        yield _is("so many texts of so many runs", (num_texts, num_runs), right)


def recurrence(case: Case) -> Rulings:
    """So many of the runs that are not stuck repeat themselves, in the median at so many of their steps."""
    if _is_large(case):
        return
    free = [run for run in case.world.runs if run.period is None and len(run.texts) > 1]
    repeats = [1 - len(set(run.texts)) / len(run.texts) for run in free]
    told = re.findall(
        r"(\d[\d,]*) of (\d[\d,]*) runs [^.]*? again[^.]*?that is ([\d.]+) ?% of its (?:text|picture|image)s",
        case.sentence,
    )
    words = r"The one run that is not stuck \w+ (?:nothing twice|again what [^:]*: ([\d.]+) ?% of its)"
    told += [(str(int(bool(share))), "1", share or "0") for share in re.findall(words, case.sentence)]
    for again, of, share in told:
        right = sum(share > 0 for share in repeats), len(free)
        yield _is("so many runs repeat themselves", (*_numbers(again), *_numbers(of)), right)
        is_near = abs(float(share) - 100 * float(np.median(repeats))) < 1.01
        yield Ruling(claim="at so many of their steps", said=1, is_true=is_near)


def novelty(case: Case) -> Rulings:
    """So many different texts, and as many images, were made, so many of them by several runs."""
    if _is_large(case):
        return
    runs = case.world.runs
    made = {
        "texts": [set(run.texts) for run in runs],
        "images": [{image_of(text).digest for text in run.texts} for run in runs],  # grey ones coincide
    }
    for shared, total, kind in re.findall(
        r"([\d,]+) of ([\d,]+) distinct (\w+?)s? (?:is|are) ", case.sentence
    ):
        makers = Counter(one for of_run in made[f"{kind}s"] for one in of_run)
        right = [len(makers), sum(count > 1 for count in makers.values())]
        yield _is("so many, so many of them shared", _numbers(f"{total} {shared}"), right)


def diagrams(case: Case) -> Rulings:
    """Half of the outputs join their nearest group within this distance: the edges of a spanning tree."""
    found = re.search(r"within a distance of ([\d.e-]+\d)", case.sentence)
    if found:
        edges = [
            minimum_spanning_tree(squareform(pdist(np.unique(run.vectors, axis=0)))).data
            for run in case.world.runs
        ]
        right = float(np.median(np.concatenate(edges)))
        yield Ruling(claim="within this distance", said=1, is_true=abs(float(found[1]) / right - 1) < 0.06)
