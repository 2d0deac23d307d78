"""Any diffusers text-to-image pipeline as a model: texts in, RGB images out.

Loads what `AutoPipelineForText2Image` or, failing that, `DiffusionPipeline` can load from a folder. Every
item has its own generator on the CPU, steps and guidance are always said, prompt rewriting is off unless a
variant asks for it, and images that are not finite are answered with `OutputRejected`. A pipeline may have
several text encoders: those of CLIP read 77 tokens, others as many as `max_sequence_length` says; a prompt is
cut where none of them reads all of it.

    panic run config.yaml       # with `networks: [["local:/models/my-pipeline", "BLIP-base"]]`
"""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from panic.errors import ModelError, OutputRejected
from panic.models import drawing, gguf_files, kernels, pipeline_files, prompt_reading, weights
from panic.models.kind import Bucketer, Kind, Parameter
from panic.models.loading import FromFolder, calling, fuse_pipeline, generators, torch_dtype
from panic.models.pipeline_files import NOT_CALLED
from panic.models.prompt_reading import MAX_TOKENS, as_asked, lengths
from panic.models.protocol import PIPELINE_KEYWORDS, Modality, ModelSpec

# Keywords that switch prompt rewriting off, passed to pipelines that have them.
_QUIET: dict[str, Any] = {"complex_human_instruction": None, "system_prompt": ""}
_STOCHASTIC = ("Ancestral", "DDPM", "LCM", "TCD", "SDE", "SCM", "SASolver", "UnCLIP", "CosineDPM")
# Draw their noise from torch's global generator, whatever they are given.
_GLOBAL_NOISE = ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler")

log = logging.getLogger("panic.models")


class PipelineModel(FromFolder):
    """A pipeline of diffusers: its parts with weights, the keywords of its calls."""

    _readers = ("transformers", "diffusers")

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._keywords: dict[str, Any] = {}

    def weight_modules(self) -> list[Any]:
        return [part for part in self._model.components.values() if hasattr(part, "parameters")]

    def _read(self, folder: Path) -> Any:
        pipeline = self._read_pipeline(folder)
        if any(self.spec.parameters.get(name) for name in drawing.PARAMETERS):
            drawing.prepare(self.spec, pipeline)
        if lora := self.spec.parameters.get("lora"):
            fuse_pipeline(self.spec.name, pipeline, Path(lora))
        pipeline.set_progress_bar_config(disable=True)
        self._keywords = self._keywords_for(pipeline)
        refuse_unseeded_noise(self.spec.name, pipeline)
        return pipeline

    @abstractmethod
    def _read_pipeline(self, folder: Path) -> Any:
        """Read the pipeline itself."""

    @abstractmethod
    def _keywords_for(self, pipeline: Any) -> dict[str, Any]:
        """The keywords of every call. Raises ModelError for a parameter that the pipeline does not take."""


class DiffusersModel(PipelineModel):
    """A text-to-image pipeline. `invoke` raises OutOfMemory; broken images come back as OutputRejected."""

    modality_in = "text"
    modality_out = "image"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._reads: dict[str, Any] = {}
        self._told_cut = False

    def _read_pipeline(self, folder: Path) -> Any:
        if weights.pipeline_class(self.spec, folder) == "ConditionalPipeline":  # our own, of `panic train`
            from panic.models.conditional import ConditionalPipeline

            return ConditionalPipeline.from_pretrained(folder, **loading_options(self.spec, folder))
        return open_pipeline(self.spec, folder, "AutoPipelineForText2Image")

    def _keywords_for(self, pipeline: Any) -> dict[str, Any]:
        keywords = call_keywords(self.spec, pipeline)
        self._reads = read_keywords(pipeline, keywords)
        return keywords

    def invoke(self, inputs: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        """n texts -> n RGB images (or OutputRejected in place of one)."""
        count = len(inputs)
        self._tell_cut(inputs)
        keywords = dict(self._keywords)
        if "negative_prompt" in keywords:
            keywords["negative_prompt"] = [keywords["negative_prompt"]] * count
        with calling(self.spec, count):
            result = self._model(
                prompt=list(inputs), generator=generators(seeds), output_type="np", **keywords
            )
        images = np.asarray(result.images if hasattr(result, "images") else result.image)
        if len(images) != count:
            raise ModelError(f"{self.spec.name} drew {len(images)} images for {count} prompts")
        return [to_image(image, self.spec.name) for image in images]

    def _tell_cut(self, inputs: Sequence[str]) -> None:
        """Say once that prompts are longer than what the model reads: the pipeline cuts them silently."""
        if self._told_cut or (cut := longest_cut(self._model, self._reads, inputs)) is None:
            return
        self._told_cut = True
        log.warning(
            "%s reads %d tokens (%s); a prompt of %d was cut",
            *(self.spec.name, cut.limit, cut.said_by, cut.tokens),
        )


def open_pipeline(spec: ModelSpec, folder: Path, automatic: str) -> Any:
    """A pipeline as one of diffusers' `AutoPipeline` classes opens it, else as the class that was saved."""
    import diffusers

    name, options = weights.pipeline_class(spec, folder), loading_options(spec, folder)
    if not hasattr(diffusers, name):
        raise ModelError(f"{spec.name}: this version of diffusers has no pipeline {name!r}")
    try:
        pipeline = getattr(diffusers, automatic).from_pretrained(folder, **options)
    except ValueError as error:
        if "can't find a pipeline linked to" not in str(error):
            raise
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **options)
    _refuse_other_images(spec.name, name, pipeline)
    return pipeline


def _refuse_other_images(name: str, saved: str, pipeline: Any) -> None:
    """Raises ModelError for a pipeline that draws into a mask, or along another image: a loop has neither.

    saved: its class in the folder. As another class, weights of one with a mask have channels for it.
    """
    takes = inspect.signature(type(pipeline).__call__).parameters
    needed = next((image for image in ("mask_image", "control_image") if image in takes), "")
    if getattr(pipeline, "controlnet", None) is not None:
        needed = needed or "control_image"
    unet, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if type(pipeline).__name__ != saved and unet is not None and vae is not None:
        drawn, latent = unet.config.get("in_channels"), vae.config.get("latent_channels")
        needed = needed or ("mask_image" if drawn != latent else "")
    if needed:
        told = f"a {saved} with these weights needs a {needed.replace('_', ' ')}, which a loop does not have"
        raise ModelError(f"{name}: {told}")


def loading_options(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """How the files of a pipeline's folder are read, whatever class it becomes."""
    options: dict[str, Any] = {"dtype": torch_dtype(spec), "variant": weights.variant(folder)}
    parts = weights.pipeline_index(spec, folder)
    # A part that was saved as none (SD3 without T5) is asked for nevertheless.
    options |= {part: None for part, saved_from in parts.items() if saved_from == [None, None]}
    if "safety_checker" in parts:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    if spec.parameters.get("gguf"):
        options[gguf_files.PART] = gguf_files.transformer(spec, folder, parts)
    return options


def call_keywords(spec: ModelSpec, pipeline: Any) -> dict[str, Any]:
    """The keywords of every call. Raises ModelError for a parameter the pipeline does not take."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    keywords = {name: value for name, value in _QUIET.items() if name in takes}
    for name, value in spec.parameters.items():
        if value is None or name in NOT_CALLED:
            continue
        keyword = PIPELINE_KEYWORDS.get(name, name)
        if keyword not in takes and not takes_any:
            raise ModelError(f"{spec.name}: {type(pipeline).__name__} does not take {name}")
        keywords[keyword] = value
    if "num_inference_steps" not in keywords:
        keywords["num_inference_steps"] = takes["num_inference_steps"].default
    if keywords["num_inference_steps"] != 2 and "intermediate_timesteps" in takes:
        keywords["intermediate_timesteps"] = None  # SANA-Sprint's belongs to two steps
    return keywords | guided_by_nothing(takes, keywords)


def guided_by_nothing(takes: Collection[str], keywords: Mapping[str, Any]) -> dict[str, float]:
    """What turns true guidance off where no negative prompt is: pipelines do so with a warning each time.

    takes: what a call takes. keywords: those that it is given.
    """
    is_off = "true_cfg_scale" in takes and keywords.get("negative_prompt") is None
    return {"true_cfg_scale": 1.0} if is_off else {}


def read_keywords(pipeline: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that decide how a prompt is read, with the defaults of the pipeline's signature."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    limit = takes.get("max_sequence_length")
    return {"max_sequence_length": limit.default, **keywords} if limit is not None else dict(keywords)


def refuse_unseeded_noise(name: str, pipeline: Any) -> None:
    """Raises ModelError where steps would draw noise from torch's global generator.

    Flux, Z-Image, Lumina2, SD3 and others do not hand the items' generators to `scheduler.step`: harmless
    with their own schedulers, wrong with a stochastic one.
    """
    scheduler = pipeline.scheduler
    kind = type(scheduler).__name__
    seeded = kind not in _GLOBAL_NOISE and _passes_generator(type(pipeline))
    if is_stochastic(scheduler) and not seeded:
        raise ModelError(
            f"{name}: {kind} draws noise at every step, and {type(pipeline).__name__} gives it no generator "
            "per item: results would depend on batch mates",
            hint="save the pipeline with a deterministic scheduler",
        )


def is_stochastic(scheduler: Any) -> bool:
    """Return whether a scheduler's steps draw noise."""
    config = scheduler.config
    return (
        any(part in type(scheduler).__name__ for part in _STOCHASTIC)
        or str(config.get("algorithm_type", "")).startswith("sde")
        or bool(config.get("stochastic_sampling", False))
    )


def _passes_generator(pipeline_class: type[Any]) -> bool:
    source = inspect.getsource(pipeline_class.__call__)
    calls = source.split("scheduler.step(")[1:]
    return all("generator" in call[:400] or "extra_step_kwargs" in call[:400] for call in calls)


def to_image(image: np.ndarray[Any, Any], name: str) -> Image.Image | OutputRejected:
    """(h, w, 3) floats in [0, 1] -> RGB image, rounded as diffusers does; OutputRejected if not finite."""
    if not np.isfinite(image).all():
        return OutputRejected(f"{name} drew a picture with not-a-number pixels")
    return Image.fromarray((image * 255).round().astype(np.uint8)).convert("RGB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A prompt that is longer than what a model reads: its tokens, and how many are read, by which limit."""

    tokens: int
    limit: int
    said_by: str


def longest_cut(pipeline: Any, keywords: Mapping[str, Any], texts: Sequence[str]) -> Cut | None:
    """The longest prompt of which no text encoder reads all; None if all are read.

    Args:
        pipeline: a loaded diffusers pipeline.
        keywords: those that it is called with, defaults of its signature included.
    """
    found: list[Cut] = []
    for name, tokenizer in pipeline.components.items():
        if not name.startswith("tokenizer") or tokenizer is None:
            continue
        encoder = pipeline.components.get(name.replace("tokenizer", "text_encoder"))
        if encoder is None:
            continue
        found.append(_longest(pipeline, tokenizer, encoder, keywords, texts))
    least = min(found, key=lambda cut: cut.tokens - cut.limit, default=None)
    return least if least is not None and least.tokens > least.limit else None


def _longest(
    pipeline: Any, tokenizer: Any, encoder: Any, keywords: Mapping[str, Any], texts: Sequence[str]
) -> Cut:
    """The longest prompt as one encoder reads it."""
    words = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    asked = keywords.get("max_sequence_length")
    own = int(words.model_max_length)
    if asked is None or type(encoder).__name__.startswith("CLIP"):
        return Cut(tokens=_most(words, texts), limit=own, said_by="its tokenizer")
    begin = getattr(pipeline, "prompt_template_encode_start_idx", 0)
    template = getattr(pipeline, "prompt_template_encode", None) or getattr(pipeline, "prompt_template", None)
    read = (
        [str(template).format(text) for text in texts] if begin else [as_asked(words, text) for text in texts]
    )
    return Cut(tokens=_most(words, read) - begin, limit=int(asked), said_by="max_sequence_length")


def _most(tokenizer: Any, texts: Sequence[str]) -> int:
    return max(len(tokens) for tokens in tokenizer(list(texts), truncation=False).input_ids)


def bucketing(spec: ModelSpec) -> Bucketer | None:
    """Count the tokens that a prompt is padded to, if the pipeline pads to the longest of its batch."""
    return None if weights.is_pocket(spec) else prompt_reading.bucketing(spec)


def _without_guidance(values: Mapping[str, Any]) -> str:
    guidance = values.get("guidance")
    is_off = isinstance(guidance, int | float) and guidance <= 1
    return "has no effect at a guidance of 1 or less" if is_off else ""


_PARAMETERS = {
    "steps": Parameter(kind=int, low=1, high=1000),
    "guidance": Parameter(kind=float, low=0),
    "eta": Parameter(kind=float, low=0, high=1),
    "width": Parameter(kind=int, low=8, high=4096, multiple=8),
    "height": Parameter(kind=int, low=8, high=4096, multiple=8),
    "negative_prompt": Parameter(kind=str, idle=_without_guidance),
    "system_prompt": Parameter(kind=str),
    "max_sequence_length": Parameter(kind=int, low=1, high=MAX_TOKENS),
    "lora": Parameter(kind=str, is_folder=True),
    **drawing.OF_PIPELINES,
    **gguf_files.OF_PIPELINES,
    **kernels.OF_PIPELINES,
}

KIND = Kind(
    name="diffusers",
    build=DiffusersModel,
    modalities_in=(Modality.TEXT,),
    modality_out=Modality.IMAGE,
    parameters=_PARAMETERS,
    weights="files",
    detect=lambda folder: folder.is_pipeline,
    bucketing=bucketing,
    lengths=lengths,
    is_invariant=weights.is_pocket,
    file_conflicts=pipeline_files.conflicts,
)
