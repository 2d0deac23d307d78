"""How a pipeline of diffusers draws, beside what its weights say: another scheduler, and tiles.

Two parameters of the kinds that are such pipelines. Each makes another model of the same files:

    models:
      quick: {base: sd-1.5, scheduler: DPMSolverMultistepScheduler, steps: 12}
      large: {base: sdxl-turbo, width: 2048, height: 2048, tiling: true}

`scheduler` is a class of diffusers, made from the settings of the scheduler that was saved: of those for
models that predict noise, or of those for flow matching, as the weights were trained. `tiling` has the
autoencoder decode in tiles that overlap, which takes less memory and changes a picture that is larger than
one tile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from panic.errors import ModelError
from panic.models import library_source
from panic.models.kind import Parameter
from panic.models.protocol import ModelSpec

PARAMETERS = ("scheduler", "tiling")
_OF_NOISE = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler",
    "LMSDiscreteScheduler", "PNDMScheduler", "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
_OF_FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


def _said(values: Mapping[str, Any]) -> str:
    return "of false is what there is without it: leave it out" if values["tiling"] is False else ""


OF_PIPELINES = {
    "scheduler": Parameter(kind=str, choices=(*_OF_NOISE, *_OF_FLOWS)),
    "tiling": Parameter(kind=bool, idle=_said),
}


def conflicts(
    spec: ModelSpec, index: Mapping[str, Any], scheduler: str, asked: Collection[str]
) -> dict[str, str]:
    """Which of the two were asked for and cannot be in a pipeline: name -> reason.

    Args:
        index: the content of its model_index.json: each part's library and class.
        scheduler: the class of the scheduler that was saved with it; "" where there is none.
    """
    reasons = {}
    if "scheduler" in asked:
        reasons["scheduler"] = _unfit(scheduler, str(spec.parameters.get("scheduler")))
    if "tiling" in asked:
        reasons["tiling"] = _untiled(index)
    return {name: reason for name, reason in reasons.items() if reason}


def _unfit(saved: str, wanted: str) -> str:
    if not saved:
        return "cannot be: the pipeline has none"
    if saved == wanted:
        return "has no effect: it is the one that the pipeline has"
    if saved not in _OF_FLOWS + _OF_NOISE:
        return f"cannot be: a {saved} has no other in its place"
    if (saved in _OF_FLOWS) != (wanted in _OF_FLOWS):
        kind = "flow matching" if saved in _OF_FLOWS else "models that predict noise"
        others = ", ".join(one for one in (_OF_FLOWS if saved in _OF_FLOWS else _OF_NOISE) if one != saved)
        return f"cannot be: the pipeline's are for {kind} ({others})"
    lacking = [name for name in _given(saved) if name not in _given(wanted)]
    return f"cannot be: a {wanted} does not take the {lacking[0]} that the pipeline gives" if lacking else ""


def _given(scheduler: str) -> list[str]:
    """What pipelines for flow matching tell such a scheduler, and this one takes."""
    takes = library_source.parameters(scheduler, "set_timesteps") or {}
    return [name for name in ("sigmas", "mu") if name in takes and scheduler in _OF_FLOWS]


def _untiled(index: Mapping[str, Any]) -> str:
    part = index.get("vae")
    name = str(part[-1]) if isinstance(part, list) and part and part[-1] else ""
    if not name:
        return "cannot be: the pipeline has no autoencoder of that kind"
    source = library_source.diffusers_class(name)
    return "" if not source or "use_tiling" in source else f"cannot be: a {name} has none"


def prepare(spec: ModelSpec, pipeline: Any) -> None:
    """Give a pipeline that was read the scheduler and the tiles that were asked for.

    Raises ModelError where it cannot have them, as far as its files did not tell.
    """
    if wanted := spec.parameters.get("scheduler"):
        import diffusers

        if not hasattr(pipeline, "scheduler"):
            raise ModelError(f"{spec.name}: a {type(pipeline).__name__} has no scheduler to exchange")
        pipeline.scheduler = getattr(diffusers, wanted).from_config(pipeline.scheduler.config)
    if spec.parameters.get("tiling"):
        try:
            pipeline.vae.enable_tiling()
        except (AttributeError, NotImplementedError):
            raise ModelError(
                f"{spec.name}: the autoencoder of a {type(pipeline).__name__} has no tiles"
            ) from None
