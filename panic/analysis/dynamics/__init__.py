"""Dynamics of trajectories: how far and how fast they move, whether they return, where they end.

Functions of plain arrays, so that a run, a surrogate and a textbook map are measured by the same code.
Compare like modality with like: in an alternating loop the similarity at lag 2 is high by construction.

    from panic.analysis.dynamics import dwell_times, recurrence, transition_matrix
    recurrence(texts).determinism
"""

from panic.analysis.dynamics.alternation import TwoPeriodicity, two_periodicity
from panic.analysis.dynamics.cores import core_counts, core_moves, last_core, next_core, relaxation
from panic.analysis.dynamics.diversity import vendi, vendi_of_groups
from panic.analysis.dynamics.image_quality import ImageQuality, image_quality
from panic.analysis.dynamics.markov import (
    absorption,
    closed_classes,
    committor,
    entropy_rate,
    mean_first_passage,
    mixing_time,
    stationary,
    timescales,
    transition_counts,
    transition_matrix,
)
from panic.analysis.dynamics.motion import (
    Attractor,
    Ftle,
    attractor,
    distance_by_lag,
    divergence,
    ftle,
    noise,
    step_sizes,
)
from panic.analysis.dynamics.regime import Regime, regime
from panic.analysis.dynamics.returns import (
    Periodicity,
    Recurrence,
    first_visits,
    intrinsic_dimension,
    periodicity,
    periodicity_of_pairs,
    permutation_entropy,
    recurrence,
    recurrence_matrix,
)
from panic.analysis.dynamics.reversibility import Reversibility, reversibility
from panic.analysis.dynamics.semantic import Decay, decay, mean_cumulative_drift
from panic.analysis.dynamics.spells import dwell_survival, dwell_times, mean_dwell, mean_length, survival

__all__ = [
    "Attractor",
    "Decay",
    "Ftle",
    "ImageQuality",
    "Periodicity",
    "Recurrence",
    "Regime",
    "Reversibility",
    "TwoPeriodicity",
    "absorption",
    "attractor",
    "closed_classes",
    "committor",
    "core_counts",
    "core_moves",
    "decay",
    "distance_by_lag",
    "divergence",
    "dwell_survival",
    "dwell_times",
    "entropy_rate",
    "first_visits",
    "ftle",
    "image_quality",
    "intrinsic_dimension",
    "last_core",
    "mean_cumulative_drift",
    "mean_dwell",
    "mean_first_passage",
    "mean_length",
    "mixing_time",
    "next_core",
    "noise",
    "periodicity",
    "periodicity_of_pairs",
    "permutation_entropy",
    "recurrence",
    "recurrence_matrix",
    "regime",
    "relaxation",
    "reversibility",
    "stationary",
    "step_sizes",
    "survival",
    "timescales",
    "transition_counts",
    "transition_matrix",
    "two_periodicity",
    "vendi",
    "vendi_of_groups",
]
