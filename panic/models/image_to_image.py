"""Pipelines of diffusers that vary or edit an image, as models: images in, RGB images out.

Two sorts: variations start from the image with noise (`strength`: the share of steps that is drawn again),
as `AutoPipelineForImage2Image` makes them of text-to-image weights; editors (instruct-pix2pix, FLUX.1
Kontext, FLUX.2-klein, Qwen-Image-Edit) look at the image while they draw a new one. All are asked the same
fixed `prompt` at each step, or nothing. Every item has its own generator on the CPU. Editors that take
several images as references of one are called image by image.

    networks: [[vary], [edit]]
    models:
      vary: {base: sd-turbo-variation, strength: 0.4, steps: 5}
      edit: {base: instruct-pix2pix, prompt: make it older}
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from panic.errors import ModelError, OutputRejected
from panic.models import drawing, gguf_files, kernels, pipeline_files, weights
from panic.models.diffusers_adapter import PipelineModel, guided_by_nothing, open_pipeline, to_image
from panic.models.kind import Bucketer, Folder, Kind, Parameter
from panic.models.loading import calling, generators
from panic.models.pipeline_files import NOT_CALLED
from panic.models.protocol import Modality, ModelSpec

_EDITORS = ("InstructPix2Pix", "Kontext", "ImageEdit", "Img2Img")
"""Parts of the names of classes that take an image and are made for nothing else."""
_BATCHED = ("InstructPix2Pix", "Img2Img")
"""In the others a list of images may mean references of one image, or is not taken."""
MAX_STEPS = 1000
_KEYWORDS = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "image_guidance": "image_guidance_scale",
    "true_guidance": "true_cfg_scale",
}


class ImageEditor(PipelineModel):
    """An image-to-image pipeline. `invoke` raises OutOfMemory; broken images come back as OutputRejected."""

    modality_in = modality_out = "image"

    def _read_pipeline(self, folder: Path) -> Any:
        pipeline = open_pipeline(self.spec, folder, "AutoPipelineForImage2Image")
        if "image" not in inspect.signature(type(pipeline).__call__).parameters:
            raise ModelError(
                f"{self.spec.name}: {weights.pipeline_class(self.spec, folder)} takes no image",
                hint="without adapter: image-to-image it draws from texts",
            )
        return pipeline

    def _keywords_for(self, pipeline: Any) -> dict[str, Any]:
        return _call_keywords(self.spec, pipeline)

    def invoke(self, inputs: Sequence[Image.Image], seeds: Sequence[int]) -> list[Any]:
        """n images of one size -> n RGB images (or OutputRejected in place of one)."""
        images, noise = [self._fitted(image) for image in inputs], generators(seeds)
        with calling(self.spec, len(inputs)):
            if any(part in type(self._model).__name__ for part in _BATCHED):
                drawn = self._drawn(images, noise)
            else:
                drawn = [self._alone(image, own) for image, own in zip(images, noise, strict=True)]
        if len(drawn) != len(inputs):
            raise ModelError(f"{self.spec.name} drew {len(drawn)} images for {len(inputs)}")
        return [
            image if isinstance(image, OutputRejected) else to_image(image, self.spec.name) for image in drawn
        ]

    def _alone(self, image: Image.Image, noise: Any) -> Any:
        """An array (h, w, 3), or OutputRejected for an image that the pipeline does not take."""
        try:
            return self._drawn([image], [noise])[0]
        except ValueError as error:  # too small, too narrow
            return OutputRejected(f"{self.spec.name}: {str(error).strip()}")

    def _drawn(self, images: list[Image.Image], noise: list[Any]) -> list[Any]:
        """n images -> n arrays (h, w, 3), by one call of the pipeline."""
        texts = {"prompt": self.parameters.get("prompt") or ""}
        if (unwanted := self.parameters.get("negative_prompt")) is not None:
            texts["negative_prompt"] = unwanted
        many, sides = len(images) > 1, self._sides(images[0])
        result = self._model(
            image=images if many else images[0],
            generator=noise if many else noise[0],
            output_type="np",
            **{name: [text] * len(images) if many else text for name, text in texts.items()},
            **{**self._keywords, **sides},
        )
        return list(np.asarray(result.images))

    def _sides(self, image: Image.Image) -> dict[str, int]:
        """The size of an image, for variations that are told one: else those draw at a size of their own."""
        pipeline = type(self._model)
        takes = inspect.signature(pipeline.__call__).parameters
        is_told = "Img2Img" in pipeline.__name__ and {"width", "height"} <= takes.keys()
        return {"width": image.width, "height": image.height} if is_told else {}

    def _fitted(self, image: Image.Image) -> Image.Image:
        """Return an image at the size that is asked for, else with sides that the pipeline can draw."""
        processor = getattr(self._model, "image_processor", None)
        multiple = int(processor.config.vae_scale_factor) if processor is not None else 8
        given = (self.parameters.get("width"), self.parameters.get("height"))
        size = [
            wanted or max(multiple, side // multiple * multiple)
            for wanted, side in zip(given, image.size, strict=True)
        ]
        image = image.convert("RGB")
        return (
            image if list(image.size) == size else image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        )


def _call_keywords(spec: ModelSpec, pipeline: Any) -> dict[str, Any]:
    """The keywords of every call. Raises ModelError for a parameter the pipeline does not take."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    keywords: dict[str, Any] = {}
    for name, value in spec.parameters.items():
        if value is None or name in ("prompt", *NOT_CALLED):
            continue
        keyword = _KEYWORDS.get(name, name)
        if keyword in takes:
            keywords[keyword] = value
        elif name not in ("width", "height"):  # the images have that size
            raise ModelError(f"{spec.name}: {type(pipeline).__name__} does not take {name}")
    keywords |= guided_by_nothing(takes, keywords)
    keywords.pop("negative_prompt", None)  # one for each image, with each call
    if "strength" in takes:
        steps, strength = (keywords.get(n, takes[n].default) for n in ("num_inference_steps", "strength"))
        if reason := _without_steps({"steps": steps, "strength": strength}):
            raise ModelError(f"{spec.name}: a strength {reason}")
    if "max_area" in takes and {"width", "height"} <= keywords.keys():  # Kontext takes them as a ratio
        keywords |= {"max_area": keywords["width"] * keywords["height"], "_auto_resize": False}
    return keywords


def _class_name(index: Mapping[str, Any]) -> str:
    """The class that a folder was saved from, by its model_index.json; of a remote module [module, class]."""
    named = index.get("_class_name", "")
    return str(named[-1] if isinstance(named, list) and named else named)


def _detect(folder: Folder) -> bool:
    return folder.is_pipeline and any(part in _class_name(folder.config) for part in _EDITORS)


def _bucketing(spec: ModelSpec) -> Bucketer | None:
    """Only images of one size share a batch, unless all are brought to one."""
    if spec.parameters.get("width") and spec.parameters.get("height"):
        return None
    return lambda image: image.width << 16 | image.height


def _without_steps(values: Mapping[str, Any]) -> str:
    steps, strength = values.get("steps"), values["strength"]
    if not isinstance(steps, int) or not isinstance(strength, int | float):
        return ""
    if steps <= MAX_STEPS and 0 < strength <= 1 and int(steps * strength) < 1:
        return f"of {strength:g} leaves none of {steps} steps: at least one of them has to be drawn"
    return ""


def _without_guidance(values: Mapping[str, Any]) -> str:
    scales = [values.get(name) for name in ("guidance", "true_guidance")]
    is_off = all(isinstance(scale, int | float) and scale <= 1 for scale in scales if scale is not None)
    return "has no effect at a guidance of 1 or less" if is_off and any(s is not None for s in scales) else ""


def _without_negative_prompt(values: Mapping[str, Any]) -> str:
    scale = values.get("true_guidance")
    is_on = isinstance(scale, int | float) and scale > 1
    return (
        "has no effect without a negative_prompt" if is_on and values.get("negative_prompt") is None else ""
    )


KIND = Kind(
    name="image-to-image",
    build=ImageEditor,
    modalities_in=(Modality.IMAGE,),
    modality_out=Modality.IMAGE,
    parameters={
        "prompt": Parameter(kind=str),
        "negative_prompt": Parameter(kind=str, idle=_without_guidance),
        "strength": Parameter(kind=float, above=0, high=1, idle=_without_steps),
        "steps": Parameter(kind=int, low=1, high=MAX_STEPS),
        "guidance": Parameter(kind=float, low=0),
        "image_guidance": Parameter(kind=float, low=1),
        "true_guidance": Parameter(kind=float, low=1, idle=_without_negative_prompt),
        "eta": Parameter(kind=float, low=0, high=1),
        "width": Parameter(kind=int, low=8, high=4096, multiple=8),
        "height": Parameter(kind=int, low=8, high=4096, multiple=8),
        "max_sequence_length": Parameter(kind=int, low=1, high=1024),
        "lora": Parameter(kind=str, is_folder=True),
        **drawing.OF_PIPELINES,
        **gguf_files.OF_PIPELINES,
        **kernels.OF_PIPELINES,
    },
    former={"instruction": "prompt"},
    weights="files",
    reads_images=True,  # Qwen-Image-Edit's text encoder does, by a processor of transformers
    detect=_detect,
    bucketing=_bucketing,
    file_conflicts=pipeline_files.image_conflicts,
)
