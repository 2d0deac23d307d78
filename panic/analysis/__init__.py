"""From a store to answers: frames, dynamics, statistics, charts and the report.

from panic.analysis import load
load(store, "latest").invocations
"""

from panic.analysis.checks import AnalysisError
from panic.analysis.loading import Frames, load

__all__ = ["AnalysisError", "Frames", "load"]
