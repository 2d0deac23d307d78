"""Dynamics of trajectories: how far and how fast they move, whether they return, where they end.

Functions of plain arrays, so that a run, a surrogate and a textbook map are measured by the same code.
Compare like modality with like: in an alternating loop the similarity at lag 2 is high by construction.

    from panic.analysis.dynamics import dwell_times, recurrence, transition_matrix
    recurrence(texts).determinism
"""

from panic.analysis.dynamics.markov import (
    absorption,
    closed_classes,
    entropy_rate,
    mean_first_passage,
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
from panic.analysis.dynamics.spells import dwell_survival, dwell_times, mean_dwell, survival

__all__ = [
    "Attractor",
    "Ftle",
    "Periodicity",
    "Recurrence",
    "absorption",
    "attractor",
    "closed_classes",
    "distance_by_lag",
    "divergence",
    "dwell_survival",
    "dwell_times",
    "entropy_rate",
    "first_visits",
    "ftle",
    "intrinsic_dimension",
    "mean_dwell",
    "mean_first_passage",
    "noise",
    "periodicity",
    "periodicity_of_pairs",
    "permutation_entropy",
    "recurrence",
    "recurrence_matrix",
    "stationary",
    "step_sizes",
    "survival",
    "timescales",
    "transition_counts",
    "transition_matrix",
]
