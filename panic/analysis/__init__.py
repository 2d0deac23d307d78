"""From a store to answers: data, dynamics, statistics, questions with their charts, and the report.

from panic.analysis import load
load(store, "latest").invocations
"""

from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData, load

__all__ = ["AnalysisError", "ExperimentData", "load"]
