"""The field's statistics: what is lost of the prompt, what becomes alike, what images lose."""

from __future__ import annotations

import re
from collections.abc import Iterator

from panic.arms import BASELINE
from tests.referee.rulings import Case, Ruling

Rulings = Iterator[Ruling]
TOLD = 4  # networks at most


def _ruled(claim: str, said: int, case: Case, is_true: bool | None) -> Rulings:
    """A claim that may be made of each network; nothing where the design does not say whether it is true."""
    if is_true is not None:
        num_networks = min(len({run.network for run in case.world.runs}), TOLD)
        yield Ruling(claim=claim, said=said, of=num_networks, is_true=is_true)


def two_periodicity(case: Case) -> Rulings:
    """A network alternates: an output is more like the one before the last than like the last."""
    period = case.truth.period
    said = len(re.findall(r" alternates \(", case.sentence))
    yield from _ruled("it alternates", said, case, None if period is None else period == 2)


def semantic_drift(case: Case) -> Rulings:
    """Likeness to the prompt falls or rises from early to late generations."""
    truth = case.truth.likeness_changes
    changes = re.findall(r"generations it (falls|rises) \(", case.sentence)
    yield from _ruled("likeness to the start changes", len(changes), case, truth)
    if truth:
        yield Ruling(claim="it rises where it falls", said=changes.count("rises"), of=2, is_true=False)
    told = re.findall(r"text → text (-?\d\.\d+) over", case.sentence)
    yield from (
        Ruling(claim="mean cumulative drift is this", said=1, is_true=ok) for ok in _are_right(told, case)
    )


def _are_right(told: list[str], case: Case) -> Iterator[bool]:
    """Whether each told mean is that of the runs as they were drawn, where these are all equally long."""
    runs = case.world.runs
    if any(run.period is not None or run.is_failed or len(run.texts) != len(runs[0].texts) for run in runs):
        return
    if any(run.seed != -1 for run in runs):  # copies count once
        return
    kinds = sorted({(run.network, run.arm != BASELINE) for run in runs})  # what steps in is named behind
    for number, kind in zip(told, kinds, strict=False):
        by_prompt = [
            [
                float((run.vectors @ vector).mean())
                for run in runs
                if (run.network, run.arm != BASELINE, run.prompt) == (*kind, prompt)
            ]
            for prompt, vector in case.world.prompts.items()
        ]
        means = [sum(values) / len(values) for values in by_prompt if values]
        yield abs(sum(means) / len(means) - float(number)) < 0.0051


def vendi(case: Case) -> Rulings:
    """Runs become more or less alike from early to late."""
    changes = re.findall(r"\((falls|rises), p", case.sentence)
    yield from _ruled("diversity changes", len(changes), case, case.truth.diversity_changes)
    scores = [float(number) for number in re.findall(r"([\d.]+\d|\d+) (?:early|late)", case.sentence)]
    most = len(case.world.runs)
    wrong = sum(not 1 <= score <= most for score in scores)
    yield Ruling(claim="a score outside 1 to n", said=wrong, of=len(scores), is_true=False)


def recoverability(case: Case) -> Rulings:
    """The prompt can be told from the output, and still is at the end."""
    told = len(re.findall(r": it can be told", case.sentence))
    late = len(re.findall(r": it can be told up to the end", case.sentence))
    yield from _ruled("the prompt can be told", told, case, case.truth.prompt_told)
    yield from _ruled("the prompt can be told up to the end", late, case, case.truth.prompt_told_late)


def matched_pairs(case: Case) -> Rulings:
    """Prompts that differ in one word end nearer to each other than others."""
    said = len(re.findall(r"late they are nearer", case.sentence))
    yield from _ruled("pairs end nearer than unrelated prompts", said, case, case.truth.pairs_nearer)


def shock(case: Case) -> Rulings:
    """Runs end nearer to the baseline of the same start than to those of others."""
    said = len(re.findall(r"late they are nearer", case.sentence))
    if case.truth.shock_passes is not None:
        claim = "runs end nearer to their own baseline"
        yield Ruling(claim=claim, said=said, is_true=case.truth.shock_passes)


def initial_cluster(case: Case) -> Rulings:
    """Runs are late in the cluster of their first output, more often than runs of other prompts are."""
    said = len(re.findall(r"(?<!there )more often than chance \(", case.sentence))
    yield from _ruled("runs are where they began", said, case, case.truth.stays_home)


def image_quality(case: Case) -> Rulings:
    """Saturation, or another measure of the images, falls or rises from early to late."""
    fades = case.truth.images_fade
    if fades is None:
        return
    changes = re.findall(r"(saturation|variance of the Laplacian|RMS contrast) (falls|rises)", case.sentence)
    right = [change for change in changes if change == ("saturation", "falls")]
    yield from _ruled("saturation falls", len(right), case, fades)
    others = len(changes) - len(right)
    yield Ruling(claim="something else of the images changes", said=others, of=4, is_true=False)
