"""A diffusers folder as it lies there: its class, its parts, and which settings its files refuse or ignore.

Read without torch: JSON files, and the source of the pipeline's class.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from panic.errors import ModelError
from panic.models import drawing, gguf_files, kernels, library_source, weights
from panic.models.protocol import KERNELS, PIPELINE_KEYWORDS, ModelSpec

NOT_CALLED = ("lora", "gguf", *KERNELS, *drawing.PARAMETERS)
"""Parameters that are no keywords of a pipeline's calls."""
_DIVIDES = re.compile(r"height % (?:(\d+)|\(self\.vae_scale_factor \* (2|self\.patch_size)\)|(vae_scale)\b)")
_FIXED_SCALE = re.compile(r"self\.vae_scale_factor = (\d+)$", re.MULTILINE)


def tokenizers(spec: ModelSpec, folder: Path) -> list[str]:
    """The names of a pipeline's tokenizers, which are those of their folders."""
    parts = weights.pipeline_index(spec, folder).items()
    return [
        name for name, part in parts if name.startswith("tokenizer") and isinstance(part, list) and part[-1]
    ]


def conflicts(spec: ModelSpec, asked: Collection[str]) -> dict[str, str]:
    """Which of the parameters that were asked for do nothing in this pipeline, or cannot be: name -> reason.

    Empty where the weights are not here, or nothing is known of the class.
    """
    try:
        folder = weights.folder_of(spec)
        name = weights.pipeline_class(spec, folder)
    except ModelError:
        return {}
    takes = library_source.parameters(name, "__call__")
    if takes is None:
        return {}
    refused = {
        key: f"does nothing here: a {name} does not take it"
        for key in asked
        if key not in NOT_CALLED and PIPELINE_KEYWORDS.get(key, key) not in takes
    }
    reasons = {
        "eta": _without_eta(spec, folder),
        "guidance": _without_guidance(spec, folder, name),
        **_sides(spec, folder, name, asked),
    }
    found = {key: reason for key, reason in reasons.items() if reason and key in asked}
    return found | refused | part_conflicts(spec, asked)


def image_conflicts(spec: ModelSpec, asked: Collection[str]) -> dict[str, str]:
    """Which of the parameters that were asked for cannot be where images are drawn from images.

    Of what the class that was saved takes only this is asked: it may be another one of the same family.
    """
    try:
        folder = weights.folder_of(spec)
        name = weights.pipeline_class(spec, folder)
    except ModelError:
        return {}
    reasons = _sides(spec, folder, name, asked)
    if reasons and "max_area" in (library_source.parameters(name, "__call__") or ()):
        alone = f"needs the other side, too: a {name} takes the two for a ratio"
        if len(reasons) == 1:
            reasons = {side: "; it ".join(filter(None, [of, alone])) for side, of in reasons.items()}
    return {key: reason for key, reason in reasons.items() if reason} | part_conflicts(spec, asked)


def part_conflicts(spec: ModelSpec, asked: Collection[str]) -> dict[str, str]:
    """Which of the parameters that were asked for the pipeline's parts cannot follow: name -> reason."""
    try:
        folder = weights.folder_of(spec)
        index, scheduler = weights.pipeline_index(spec, folder), saved_scheduler(spec, folder)
    except ModelError:
        return {}
    found = drawing.conflicts(spec, index, scheduler, asked)

    def misfit(header: gguf_files.Header) -> str:
        own = weights.count_of_part(folder, gguf_files.PART)
        return gguf_files.misfit_of_pipeline(header, index, own)

    return found | kernels.pipeline_conflicts(index, asked) | gguf_files.conflicts(spec, asked, misfit)


def _without_eta(spec: ModelSpec, folder: Path) -> str:
    scheduler = str(spec.parameters.get("scheduler") or saved_scheduler(spec, folder))
    takes = library_source.parameters(scheduler, "step")
    return "" if takes is None or "eta" in takes else f"has no effect: the steps of a {scheduler} have none"


def saved_scheduler(spec: ModelSpec, folder: Path) -> str:
    """The class of the scheduler that lies in a pipeline's folder; "" if there is none."""
    return str(_part(folder / "scheduler/scheduler_config.json", spec).get("_class_name", ""))


def _without_guidance(spec: ModelSpec, folder: Path, name: str) -> str:
    value = spec.parameters.get("guidance")
    if not isinstance(value, int | float) or value <= 1:
        return ""  # it asks for none
    if weights.pipeline_index(spec, folder).get("is_distilled"):
        return "has no effect: the model is distilled, it is not guided"
    if library_source.compares_guidance(name) or "guidance_embeds" not in library_source.diffusers_class(
        name
    ):
        return ""
    takes_it = _part(folder / "transformer/config.json", spec).get("guidance_embeds", True)
    return "" if takes_it else "has no effect: the model's transformer takes no guidance"


def _sides(spec: ModelSpec, folder: Path, name: str, asked: Collection[str]) -> dict[str, str]:
    """Why a pipeline does not draw the sides that were asked for: side -> reason, "" where it does."""
    sides = (side for side in ("width", "height") if side in asked)
    return {side: _indivisible(spec, folder, name, spec.parameters[side]) for side in sides}


def _indivisible(spec: ModelSpec, folder: Path, name: str, pixels: Any) -> str:
    multiple = side_multiple(spec, folder, name)
    fits = multiple is None or not isinstance(pixels, int) or pixels % multiple == 0
    return "" if fits else f"should be a multiple of {multiple}, as a {name} draws"


def side_multiple(spec: ModelSpec, folder: Path, name: str) -> int | None:
    """What the sides of a pipeline's images are multiples of; None where its class does not say."""
    source = library_source.diffusers_class(name)
    found = _DIVIDES.search(source)
    if found is None:
        return None
    number, factor, _ = found.groups()
    if number:
        return int(number)
    scale = _scale(spec, folder, source)
    if factor != "self.patch_size":
        return scale and scale * 2
    patch = _part(folder / "transformer/config.json", spec).get("patch_size")
    return scale * patch if scale and isinstance(patch, int) else None


def _scale(spec: ModelSpec, folder: Path, source: str) -> int | None:
    """How many pixels of a side are one of the latent image, as the pipelines compute it."""
    if fixed := _FIXED_SCALE.search(source):
        return int(fixed[1])
    config = _part(folder / "vae/config.json", spec)
    blocks = config.get("encoder_block_out_channels") or config.get("block_out_channels")
    if isinstance(blocks, list):
        return int(2 ** (len(blocks) - 1))
    halves = config.get("temperal_downsample")
    return int(2 ** len(halves)) if isinstance(halves, list) else None


def _part(path: Path, spec: ModelSpec) -> Mapping[str, Any]:
    return weights.read_json(path, spec.name) if path.is_file() else {}
