"""Experiment configs: what they may say, how files become them, how mistakes are shown.

Try it: `python -c "from panic.config import load; print(load('configs/demo.yaml'))"`
"""

from panic.config.diagrams import DiagramSettings, Distance, Vectorisation, Window
from panic.config.load import load, stored, to_yaml
from panic.config.problems import Problem
from panic.config.schema import (
    FIELD_CLASSES,
    ExperimentConfig,
    FieldClass,
    Variant,
    identity,
    identity_digest,
)

__all__ = [
    "FIELD_CLASSES",
    "DiagramSettings",
    "Distance",
    "ExperimentConfig",
    "FieldClass",
    "Problem",
    "Variant",
    "Vectorisation",
    "Window",
    "identity",
    "identity_digest",
    "load",
    "stored",
    "to_yaml",
]
