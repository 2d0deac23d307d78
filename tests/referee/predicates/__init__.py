"""Whether what a question's sentence claims is true of a design: one predicate per question.

A predicate reads the sentence as a reader does, and takes from the answer what a chart shows. It yields
nothing where the design does not say what is true. To add one, write it and put it into PREDICATES. A package
that adds a question brings its predicate by an entry point of the question's name in the group GROUP.
"""

from __future__ import annotations

from panic.analysis.plugins import added
from tests.referee.predicates import chance, factors, field, figures, motion, regions
from tests.referee.rulings import Predicate

GROUP = "panic.predicates"
PREDICATES: dict[str, Predicate] = {
    "time": figures.time,
    "summary": figures.summary,
    "stuck": figures.stuck,
    "grid": figures.grid,
    "image_quality": field.image_quality,
    "drift": figures.drift,
    "semantic_drift": field.semantic_drift,
    "forgetting": factors.forgetting,
    "networks": factors.networks,
    "lag": motion.lag,
    "patterns": chance.patterns,
    "period": chance.period,
    "two_periodicity": field.two_periodicity,
    "regimes": motion.regimes,
    "twins": motion.twins,
    "matched_pairs": field.matched_pairs,
    "shock": field.shock,
    "map": figures.map,
    "clusters": regions.clusters,
    "territories": regions.territories,
    "dwell": regions.dwell,
    "mean_dwells": regions.mean_dwells,
    "initial_cluster": field.initial_cluster,
    "chain": regions.chain,
    "milestones": regions.milestones,
    "reversal": regions.reversal,
    "recurrence": figures.recurrence,
    "novelty": figures.novelty,
    "vendi": field.vendi,
    "diagrams": figures.diagrams,
    "entropies": chance.entropies,
    "loops": chance.loops,
    "dimension": chance.dimension,
    "effects": factors.effects,
    "probes": factors.probes,
    "recoverability": field.recoverability,
    "shares": regions.shares,
}
"""Predicates by the names of the questions' modules; "summary" is what a report says of its stuck runs."""


def predicates() -> dict[str, Predicate]:
    """PREDICATES, then those that other packages bring. UsageError for one that cannot be loaded."""
    return {**PREDICATES, **{name: one for name, one in added(GROUP) if name not in PREDICATES}}
