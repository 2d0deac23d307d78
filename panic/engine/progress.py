"""What the engine tells about itself while it works: immutable snapshots, and an honest estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple


class StageProgress(NamedTuple):
    """How far a stage is: results that there are, and those plus what has been found missing so far."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an experiment stands.

    invocations_total and so eta_s are upper bounds: a run that gets stuck ends early. stages: how far those
    are that follow the runs, by name, in the order in which they follow.
    """

    runs_total: int = 0
    runs_ended: int = 0
    runs_stuck: int = 0
    runs_repeated: int = 0
    runs_failed: int = 0
    invocations: int = 0
    invocations_total: int = 0
    stages: Mapping[str, StageProgress] = field(default_factory=dict)
    model_seconds: Mapping[str, float] = field(default_factory=dict)
    resident: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    eta_s: float | None = None
    message: str = ""

    def with_stage(self, name: str, done: int, total: int) -> Progress:
        """The same with how far one stage is."""
        return replace(self, stages={**self.stages, name: StageProgress(done, total)})
