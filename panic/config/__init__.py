"""Experiment configs: what they may say, how files become them, how mistakes are shown.

Try it: `python -c "from panic.config import load; print(load('configs/demo.yaml'))"`
"""

from panic.config.diagrams import DiagramSettings, Distance, Vectorisation, Window
from panic.config.extent import TAKEN_OF_RUNS, asking, asks_all, contradictions, union
from panic.config.load import load, stored, to_yaml
from panic.config.problems import Problem
from panic.config.schema import (
    FIELD_CLASSES,
    ExperimentConfig,
    FieldClass,
    NoticeSettings,
    SnapshotSettings,
    Variant,
)

__all__ = [
    "FIELD_CLASSES",
    "TAKEN_OF_RUNS",
    "DiagramSettings",
    "Distance",
    "ExperimentConfig",
    "FieldClass",
    "NoticeSettings",
    "Problem",
    "SnapshotSettings",
    "Variant",
    "Vectorisation",
    "Window",
    "asking",
    "asks_all",
    "contradictions",
    "load",
    "stored",
    "to_yaml",
    "union",
]
