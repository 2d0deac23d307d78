"""From a store to answers: data, dynamics, statistics, questions with their charts, and the report.

from panic.analysis import load
load(store, "latest").invocations
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panic.analysis.checks import AnalysisError
    from panic.analysis.data import ExperimentData, load

__all__ = ["AnalysisError", "ExperimentData", "load"]


def __getattr__(name: str) -> Any:
    # Naming a metric needs no frames, which take 0.3 s to import.
    if name in __all__:
        home = "panic.analysis.checks" if name == "AnalysisError" else "panic.analysis.data"
        return getattr(import_module(home), name)
    raise AttributeError(f"module 'panic.analysis' has no attribute '{name}'")
