"""Any transformers image-to-text model as a model: RGB images in, texts out.

Plain captioners (BLIP, BLIP-2, GIT, VisionEncoderDecoder), Florence-2 with its task prompt, and chat models
(SmolVLM, Qwen-VL, LLaVA, Idefics) whose processor has a chat template. Decoding is greedy, or with
`do_sample` exact sampling with the item's own seed; only new tokens are decoded.

    panic run config.yaml       # with `networks: [["sd-turbo", "SmolVLM2-256M"]]`
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from panic.errors import ModelError, OutputRejected
from panic.models import kernels, library_source, weights
from panic.models.kind import Bucketer, Folder, Kind, Parameter
from panic.models.loading import FromFolder, calling, fuse_model, reading_options
from panic.models.protocol import Modality, ModelSpec

# Their processors scale every image to one size; others cut large images into more patches.
_ONE_SIZE = {"blip", "blip-2", "git", "florence2", "vision-encoder-decoder", "instructblip"}
_DEFAULT_CHAT_PROMPT = "Describe this image in one or two sentences."


class Captioner(FromFolder):
    """An image-to-text model. `invoke` raises OutOfMemory; broken rows come back as OutputRejected."""

    modality_in = "image"
    modality_out = "text"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._processor: Any = None
        self._tokenizer: Any = None

    def _read(self, folder: Path) -> Any:
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(folder, **reading_options(self.spec, folder))
        if lora := self.spec.parameters.get("lora"):
            model = fuse_model(self.spec.name, model, Path(lora))
        self._processor, self._tokenizer = _processor(folder)
        if not model.config.is_encoder_decoder:
            self._tokenizer.padding_side = "left"
        return model.eval()

    def invoke(self, inputs: Sequence[Image.Image], seeds: Sequence[int]) -> list[Any]:
        """n images -> n texts (or OutputRejected in place of one)."""
        from panic.models.seeding import FiniteScores, processors

        finite = FiniteScores()
        with calling(self.spec, len(inputs)):
            features, refused = self._seen([image.convert("RGB") for image in inputs])
            if len(refused) == len(inputs):
                return [refused[place] for place in range(len(inputs))]
            features = features.to(self._model.device, self._model.dtype)
            tokens = self._model.generate(
                **features,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self.parameters["max_new_tokens"],
                logits_processor=processors(self.parameters, seeds, finite),
                **(kernels.steps_compiled() if self.is_compiled else {}),
            )
            new_tokens = self._new_tokens(tokens.cpu(), features.get("input_ids"))
        texts = self._tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        if len(texts) != len(inputs):
            raise ModelError(f"{self.spec.name} wrote {len(texts)} texts for {len(inputs)} images")
        broken = OutputRejected(f"{self.spec.name} computed not-a-number scores")
        return [
            refused.get(place, broken if is_broken else text.strip())
            for place, (text, is_broken) in enumerate(zip(texts, finite.rows(len(texts)), strict=True))
        ]

    def _seen(self, images: list[Image.Image]) -> tuple[Any, dict[int, OutputRejected]]:
        """The features of images, and by place those that the processor refuses: others stand in for them.

        Qwen3-VL refuses images whose sides are more than 200:1, and with them all others of a batch.
        """
        try:
            return self._features(images), {}
        except ValueError:
            refused = {place: why for place, image in enumerate(images) if (why := self._refusal(image))}
            if not refused:
                raise
        kept = [image for place, image in enumerate(images) if place not in refused]
        stand_in = (
            [kept[0] if place in refused else image for place, image in enumerate(images)] if kept else []
        )
        return self._features(stand_in) if stand_in else None, refused

    def _refusal(self, image: Image.Image) -> OutputRejected | None:
        try:
            self._features([image])
        except ValueError as error:
            size = f"{image.width} x {image.height} pixels"
            return OutputRejected(f"{self.spec.name} cannot read an image of {size}: {error}")
        return None

    def _features(self, images: list[Image.Image]) -> Any:
        prompt = self.parameters["prompt"]
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt or _DEFAULT_CHAT_PROMPT}]
            text = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            nested = [[image] for image in images]
            return self._processor(
                text=[text] * len(images), images=nested, padding=True, return_tensors="pt"
            )
        if hasattr(self._processor, "tokenizer") and hasattr(self._processor, "image_seq_length"):
            prompt = f"{self._processor.image_token}{prompt or ''}"  # PaliGemma; BLIP-2 does it by itself
        if prompt is None:
            return self._processor(images=images, return_tensors="pt")
        return self._processor(images=images, text=[prompt] * len(images), padding=True, return_tensors="pt")

    def _new_tokens(self, tokens: Any, prompt: Any) -> list[Any]:
        """Rows without the prompt that decoder-only models repeat (BLIP exchanges its first token)."""
        if self._model.config.is_encoder_decoder or prompt is None:
            return list(tokens)
        return [
            row[_repeated(row.tolist(), begin) :] for row, begin in zip(tokens, prompt.tolist(), strict=True)
        ]


def _repeated(row: list[int], prompt: list[int]) -> int:
    """Count the tokens of a row that repeat the prompt; its first may differ, its last may be missing."""
    same = 1
    while same < min(len(row), len(prompt)) and row[same] == prompt[same]:
        same += 1
    return same if same >= len(prompt) - 1 else 0


def _processor(folder: Path) -> tuple[Any, Any]:
    """Return (images and text -> features, tokenizer), paired where a folder has no processor of its own."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    processor = AutoProcessor.from_pretrained(folder)
    if hasattr(processor, "tokenizer"):
        return processor, processor.tokenizer
    return AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def bucketing(spec: ModelSpec) -> Bucketer:
    """Images of different size make different shapes in models that cut them into patches."""

    @cache
    def has_one_size() -> bool:
        config = weights.read_json(weights.folder_of(spec) / "config.json", spec.name)
        return config.get("model_type") in _ONE_SIZE

    return lambda image: 0 if has_one_size() else image.width << 16 | image.height


def _detect(folder: Folder) -> bool:
    """Whether transformers lists the class among those that map images and text to text."""
    known = library_source.classes_for("IMAGE_TEXT_TO_TEXT")
    is_one = folder.architecture in known.get(folder.model_type, ())
    return is_one and not folder.is_sentence_transformer


def lacks(spec: ModelSpec) -> str:
    """Which packages the model's processor imports that are not here: those of videos, and of numbers."""
    config = weights.read_json(weights.folder_of(spec) / "config.json", spec.name)
    source = library_source.processor_source(str(config.get("model_type")))
    needed = {
        "torchvision": "video_processor=" in source or "video_processor," in source,
        "num2words": "num2words" in source,
    }
    missing = [
        name for name, is_needed in needed.items() if is_needed and importlib.util.find_spec(name) is None
    ]
    return f"{' and '.join(missing)} (the extra vlm: pip install 'panic[vlm]')" if missing else ""


def _while_greedy(values: Mapping[str, Any]) -> str:
    return "" if values.get("do_sample") else "has no effect while do_sample is false"


KIND = Kind(
    name="captioner",
    build=Captioner,
    modalities_in=(Modality.IMAGE,),
    modality_out=Modality.TEXT,
    parameters={
        "prompt": Parameter(kind=str),
        "max_new_tokens": Parameter(kind=int, default=48, low=1, high=4096),
        "do_sample": Parameter(kind=bool, default=False),
        "temperature": Parameter(kind=float, above=0, idle=_while_greedy),
        "top_p": Parameter(kind=float, above=0, high=1, idle=_while_greedy),
        "top_k": Parameter(kind=int, low=1, idle=_while_greedy),
        "lora": Parameter(kind=str, is_folder=True),
        **kernels.OF_WRITERS,
    },
    weights="files",
    reads_images=True,
    detect=_detect,
    bucketing=bucketing,
    is_invariant=weights.is_pocket,
    lacks=lacks,
    file_conflicts=kernels.writer_conflicts,
)
