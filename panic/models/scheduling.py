"""How a pipeline of diffusers goes from noise to an image: with another scheduler, and in tiles.

    models:
      quick: {base: "local:sd15", scheduler: DPMSolverMultistepScheduler, steps: 20}
      large: {base: "local:sdxl", width: 2048, height: 2048, tiling: true}

`scheduler` puts another class of diffusers in the place of the one that was saved, with the same noise
schedule. `tiling` has the autoencoder go over an image tile by tile, which takes less memory; where an image
is larger than one tile its pixels are others. Each makes another model, with a fingerprint of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from panic.errors import ModelError, nearest
from panic.models import library_source
from panic.models.kind import Parameter
from panic.models.protocol import ModelSpec


def _said(values: Mapping[str, Any]) -> str:
    return "of false is what there is without it: leave it out" if values["tiling"] is False else ""


OF_PIPELINES = {"scheduler": Parameter(kind=str), "tiling": Parameter(kind=bool, idle=_said)}


def conflicts(spec: ModelSpec, saved: str, asked: Collection[str]) -> dict[str, str]:
    """Return why the scheduler that is asked for cannot be: {"scheduler": reason}, or nothing.

    Args:
        saved: the class of the scheduler that the pipeline was saved with; "" where that is not known.
    """
    wanted = spec.parameters.get("scheduler")
    if "scheduler" not in asked or not isinstance(wanted, str) or not library_source.diffusers_class(saved):
        return {}
    reason = _problem(saved, wanted)
    return {"scheduler": reason} if reason else {}


def _problem(saved: str, wanted: str) -> str:
    """Say why one class cannot take the place of another; "" if it can."""
    others = library_source.compatible_schedulers(saved)
    if wanted in others:
        return ""
    if len(others) == 1:
        return f"cannot be another: nothing takes the place of a {saved}"
    near = nearest(wanted, others)
    meant = f"did you mean {near[0]}? Others are" if near else "these do:"
    return f"does not take the place of a {saved}; {meant} {', '.join(others)}"


def prepare(spec: ModelSpec, pipeline: Any) -> None:
    """Give a loaded pipeline the scheduler and the tiles that are asked for.

    Raises ModelError where it has no place for them.
    """
    if wanted := spec.parameters.get("scheduler"):
        saved = pipeline.scheduler
        if reason := _problem(type(saved).__name__, wanted):
            raise ModelError(f"{spec.name}: scheduler {reason}")
        import diffusers

        pipeline.scheduler = getattr(diffusers, wanted).from_config(saved.config)
    if spec.parameters.get("tiling"):
        try:
            pipeline.vae.enable_tiling()
        except (AttributeError, NotImplementedError):
            part = type(getattr(pipeline, "vae", pipeline)).__name__
            raise ModelError(f"{spec.name}: a {part} cannot be told to work in tiles") from None
