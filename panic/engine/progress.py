"""What the engine tells about itself while it works: immutable snapshots, and an honest estimate."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an experiment stands.

    invocations_total and so eta_s are upper bounds: a run that gets stuck ends early.
    embeddings_total, diagrams_total and so on: what has been found missing so far plus what there was.
    """

    runs_total: int = 0
    runs_ended: int = 0
    runs_stuck: int = 0
    runs_failed: int = 0
    invocations: int = 0
    invocations_total: int = 0
    embeddings: int = 0
    embeddings_total: int = 0
    diagrams: int = 0
    diagrams_total: int = 0
    vectorisations: int = 0
    vectorisations_total: int = 0
    distances: int = 0
    distances_total: int = 0
    model_seconds: dict[str, float] = field(default_factory=dict)
    resident: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    eta_s: float | None = None
    message: str = ""


def estimate_s(done: int, remaining: int, elapsed_s: float) -> float | None:
    """Seconds left at the mean speed so far; None while nothing is known."""
    if remaining == 0:
        return 0.0
    return elapsed_s / done * remaining if done else None
