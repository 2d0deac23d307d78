"""The designs of the referee: experiments of which is known what is true, drawn anew for every replicate.

design = DESIGNS["prompt"]
world = design.make(np.random.default_rng(0))
design.truth.ends                       # {"prompt"}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from tests.referee import drawing
from tests.referee.truth import Truth
from tests.referee.worlds import World


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """How worlds of a kind are drawn, what is true of them, and in a sentence what they are.

    `asks`: the questions that it is plain for, which the short round asks of it; the long one asks all.
    """

    what: str
    make: Callable[[Generator], World]
    truth: Truth
    asks: str = ""
    is_small: bool = True


NOTHING: frozenset[str] = frozenset()


def factors(*names: str) -> frozenset[str]:
    return frozenset(names)


EVEN = np.full((4, 4), 0.25)


IID = {
    "readable": NOTHING, "readable_late": NOTHING, "remembers": False, "is_near": False, "wanders": False,
    "period": 0, "drift_differs": False, "length_kept": False, "likeness_changes": False,
    "diversity_changes": False, "images_fade": False, "prompt_told": False, "prompt_told_late": False,
    "pairs_nearer": False, "stays_home": False,
}  # fmt: skip
SETTLED = {"remembers": False, "is_near": False, "wanders": False, "period": 0, "length_kept": False}

DESIGNS: dict[str, Design] = {
    "no effect": Design(
        what="2 networks x 4 prompts x 3 repeats of 16 texts, each in one of 4 regions at random",
        asks="lag effects clusters territories period dwell mean_dwells chain milestones reversal regimes"
        " twins forgetting drift map novelty probes* networks*",
        make=drawing.no_effect,
        truth=Truth(ends=NOTHING, regions=4, chain=EVEN, regime="exploring", **IID),
    ),
    "shapes": Design(
        what="the same with more noise, and diagrams",
        asks="effects* diagrams* entropies* loops* dimension*",
        make=drawing.shaped,
        truth=Truth(ends=NOTHING, chain=EVEN, **IID),
    ),
    "prompt": Design(
        what="each of 6 prompts has its region, and keeps its length",
        asks="effects forgetting clusters regimes probes*",
        make=drawing.prompt_decides,
        truth=Truth(
            regime="contracting",
            ends=factors("prompt"),
            largest="prompt",
            readable=factors("prompt"),
            readable_late=factors("prompt"),
            regions=6,
            drift_differs=False,
            **{**SETTLED, "length_kept": True},
        ),
    ),
    "network": Design(
        what="each of 2 networks has its region, one of them near the prompts",
        asks="effects territories networks*",
        make=drawing.network_decides,
        truth=Truth(
            networks_apart=True,
            ends=factors("network"),
            largest="network",
            readable=factors("network"),
            readable_late=factors("network"),
            regions=2,
            drift_differs=True,
            **SETTLED,
        ),
    ),
    "interaction": Design(
        what="each network takes each of 4 prompts to another of the same 4 regions",
        asks="effects territories",
        make=drawing.interaction,
        truth=Truth(
            ends=factors("prompt", "network"), regions=4, drift_differs=False, networks_apart=False, **SETTLED
        ),
    ),
    "slow mixing": Design(
        what="a chain of 4 regions that stays with 90 %, from anywhere, 40 texts",
        asks="lag dwell mean_dwells chain milestones reversal clusters territories",
        make=drawing.slow_mixing,
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=True,
            wanders=False,
            period=0,
            regions=4,
            chain=drawing.staying(4, 0.9),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "slow kernel": Design(
        what="the synthetic chain of 7 states that mostly stays where it is, 48 texts",
        asks="regimes",
        make=drawing.kernel("slow", 0.02),
        truth=Truth(regime="contracting"),
    ),
    "dead kernel": Design(
        what="the synthetic chain of 7 states that mostly goes to one of them, 48 texts",
        asks="regimes",
        make=drawing.kernel("dead", 0.02),
        truth=Truth(regime="contracting"),
    ),
    "dirichlet kernel": Design(
        what="the synthetic chain of 7 states that goes anywhere, 48 texts",
        asks="regimes",
        make=drawing.kernel("dirichlet", 2.0),
        truth=Truth(regime="exploring"),
    ),
    "unbalanced": Design(
        what="2 networks that differ much, 8 prompts that differ little, 1 to 3 repeats",
        asks="effects",
        make=drawing.unbalanced,
        truth=Truth(ends=factors("prompt", "network"), largest="network", **SETTLED),
    ),
    "few": Design(
        what="2 networks x 2 prompts x 2 repeats without an effect: no p below 0.05 is possible",
        asks="effects",
        make=drawing.few,
        truth=Truth(ends=NOTHING, could_show=False, regions=4, chain=EVEN, **IID),
    ),
    "confounded": Design(
        what="3 networks of which the third differs, by one of its models",
        asks="effects territories",
        make=drawing.confounded,
        truth=Truth(
            networks_apart=True,
            ends=factors("network", "model at place 2"),
            largest="network",
            readable=factors("network"),
            regions=2,
            **SETTLED,
        ),
    ),
    "copies": Design(
        what="fixed seeds under which the runs of all prompts are one path of one law",
        asks="effects",
        make=drawing.copies,
        truth=Truth(ends=NOTHING, regions=4, length_kept=False, wanders=False, period=0),
    ),
    "transient": Design(
        what="the prompt decides the first third of 30 texts, nothing the rest",
        asks="probes*",
        make=drawing.transient,
        truth=Truth(
            ends=NOTHING,
            readable=factors("prompt"),
            readable_late=NOTHING,
            regions=4,
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "one teller": Design(
        what="two models tell in turn, each of one of the same 4 regions at random",
        asks="probes",
        make=drawing.tellers(0),
        truth=Truth(ends=NOTHING, regions=4, chain=EVEN, **IID),
    ),
    "two tellers": Design(
        what="two models tell in turn, each of one of 4 regions of its own at random",
        asks="probes",
        make=drawing.tellers(4),
        truth=Truth(
            ends=NOTHING,
            readable=factors("model that made it"),
            readable_late=factors("model that made it"),
            regions=8,
            wanders=False,
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "walks": Design(
        what="random walks on the sphere, 40 steps of 0.08 to 0.22, from anywhere",
        asks="lag clusters patterns twins two_periodicity loops* entropies* dimension* regimes",
        make=drawing.walks,
        truth=Truth(
            regime="exploring",
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=True,
            wanders=True,
            period=0,
            regions=0,
            shares_regions=False,
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "memory": Design(
        what="first-order autoregression (0.8) about one centre, 40 texts",
        asks="lag twins two_periodicity",
        make=drawing.memory,
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=True,
            wanders=False,
            period=0,
            stays_plainly=True,
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "parting": Design(
        what="runs of a prompt begin 0.001 apart, and part by 40 % an output up to 0.5",
        asks="twins",
        make=drawing.parting,
        truth=Truth(
            ends=factors("prompt"), remembers=True, is_near=True, parting_factor=drawing.PARTING**0.5
        ),
    ),
    "noisy cycle": Design(
        what="7 regions in turn from anywhere, with noise, 42 texts",
        asks="lag period chain two_periodicity milestones reversal regimes",
        make=drawing.cycle(7, 0.15, 42),
        truth=Truth(
            regime="oscillating",
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=False,
            wanders=False,
            period=7,
            regions=7,
            chain=np.roll(np.eye(7), 1, axis=1),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "clean cycle": Design(
        what="7 texts in turn from anywhere, exactly, 42 of them, fresh noise that does nothing",
        asks="lag period novelty recurrence regimes",
        make=drawing.cycle(7, 0.0, 42),
        truth=Truth(
            regime="oscillating",
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=False,
            wanders=False,
            period=7,
            regions=7,
            chain=np.roll(np.eye(7), 1, axis=1),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "alternation": Design(
        what="2 regions in turn from either, with noise, 30 texts",
        asks="lag chain period two_periodicity milestones regimes",
        make=drawing.cycle(2, 0.1, 30),
        truth=Truth(
            regime="oscillating",
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=False,
            wanders=False,
            period=2,
            regions=2,
            chain=np.roll(np.eye(2), 1, axis=1),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "stuck, by prompt": Design(
        what="7 states in turn without noise, 7 prompts that name them, seeds 1 and -1, length 20",
        asks="effects stuck grid drift",
        make=drawing.stuck,
        truth=Truth(
            ends=factors("prompt"), largest="prompt", wanders=False, length_kept=None
        ),  # of 10 texts in 7 states: a random order is nearer by 7 %, which is no memory that distances show
    ),
    "stuck, in one": Design(
        what="the same with 7 prompts that all hash to one state",
        asks="effects stuck grid",
        make=lambda rng: drawing.stuck(rng, is_one_state=True),
        truth=Truth(ends=NOTHING, wanders=False, regions=7),
    ),
    "stuck, long periods": Design(
        what="12 texts in turn from anywhere; fixed seeds are stuck after the first turn, fresh ones are not",
        asks="clusters stuck summary recurrence novelty",
        make=drawing.stuck_long,
        truth=Truth(ends=NOTHING, remembers=True, wanders=False, regions=12, drift_differs=False),
    ),
    "deaf": Design(
        what="10 prompts, two and two a word and little else apart; texts are in one of 4 regions at random",
        asks="recoverability matched_pairs initial_cluster semantic_drift vendi two_periodicity"
        " image_quality",
        make=drawing.deaf,
        truth=Truth(ends=NOTHING, regions=4, chain=EVEN, **IID),
    ),
    "keeping": Design(
        what="the same prompts; half of the texts are near the prompt, the others in one place for all",
        asks="recoverability matched_pairs initial_cluster semantic_drift vendi",
        make=drawing.keeping,
        truth=Truth(
            ends=factors("prompt"),
            likeness_changes=False,
            diversity_changes=False,
            images_fade=False,
            prompt_told=True,
            prompt_told_late=True,
            pairs_nearer=True,
            stays_home=True,
            period=0,
            wanders=False,
        ),
    ),
    "fading": Design(
        what="the same prompts; texts are near the prompt ever more rarely, and never from the seventh on; "
        "images fade",
        asks="recoverability matched_pairs initial_cluster semantic_drift vendi image_quality",
        make=drawing.fading,
        truth=Truth(
            ends=NOTHING,
            likeness_changes=True,
            diversity_changes=True,
            images_fade=True,
            prompt_told=True,
            prompt_told_late=False,
            pairs_nearer=False,
            stays_home=False,
        ),
    ),
    "failing": Design(
        what="2 regions at random; one network fails in a third",
        asks="effects territories grid stuck time summary",
        make=drawing.failing,
        truth=Truth(ends=NOTHING, remembers=False, wanders=False, period=0, length_kept=False),
    ),
    "lengths": Design(
        what="4 regions at random, in runs of 4, 8, 16 or 60 texts",
        asks="drift effects lag territories",
        make=drawing.lengths,
        truth=Truth(ends=NOTHING, regions=4, chain=EVEN, **IID),
    ),
    "one text": Design(
        what="one text at 85 % of the steps, all others different and anywhere",
        asks="clusters recurrence novelty",
        make=drawing.one_text,
        truth=Truth(ends=NOTHING, regions=1, **IID),
    ),
    "two experiments": Design(
        what="4 prompts each, which differ in their share of one of 2 regions, 50 % on average",
        asks="shares",
        make=drawing.two_experiments,
        truth=Truth(regions=2, wanders=False, period=0, remembers=False, mean_share=0.5),
    ),
    "large": Design(
        what="900 runs of 6 texts, of which the 300 with fresh noise come last and end elsewhere",
        asks="effects",
        make=drawing.large,
        truth=Truth(ends=factors("seed"), largest="seed", wanders=False, regions=4),
        is_small=False,
    ),
    "a shock that passes": Design(
        what="6 prompts x 2 repeats, settled; an arm is anywhere for 4 texts, then back where it was",
        asks="shock grid drift",
        make=drawing.shock_passes,
        truth=Truth(shock_passes=True),
    ),
    "a shock that decides": Design(
        what="the same, but after the 4 texts each run of the arm stays at any of 6 regions",
        asks="shock grid drift",
        make=drawing.shock_decides,
        truth=Truth(shock_passes=False),
    ),
}
