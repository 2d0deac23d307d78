"""Controls: models without weights that change a text or an image in a known way.

Put in the place of a generative model, one tells how much of a loop's behaviour is that of any small change.
Texts: `shuffle-words`, `drop-words`, `upper-case`, `truncate`. Images: `jpeg`, `resize` (and back), `blur`,
`noise` (also `noise:0.05`, by its deviation). They need neither torch nor files; what is random in them
follows the item's seed alone.

    networks: [[drop-words], [PocketDiffusion, jpeg, PocketCaptioner]]
    models: {jpeg: {base: jpeg, quality: 20}}
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from panic.arms import NOISE
from panic.errors import NotFound
from panic.models.kind import Kind, Parameter
from panic.models.protocol import Modality, ModelSpec

Change = Callable[..., Any]
"""It maps (input, generator of the item's seed, **parameters) to the output."""


def shuffle_words(text: str, rng: np.random.Generator) -> str:
    """Return the words of a text in another order."""
    words = text.split()
    return " ".join(words[place] for place in rng.permutation(len(words)))


def drop_words(text: str, rng: np.random.Generator, *, share: float) -> str:
    """Leave out each word with the probability `share`; one of them always stays."""
    words = text.split()
    lots = rng.random(len(words))
    kept = [word for word, lot in zip(words, lots, strict=True) if lot >= min(share, lots.max())]
    return " ".join(kept)


def upper_case(text: str, rng: np.random.Generator) -> str:
    """Return a text in capitals."""
    return text.upper()


def truncate(text: str, rng: np.random.Generator, *, words: int) -> str:
    """Return the first words of a text."""
    return " ".join(text.split()[:words])


def jpeg(image: Image.Image, rng: np.random.Generator, *, quality: int) -> Image.Image:
    """Return what is left of an image after JPEG compression at a quality of 1 to 100."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resize(image: Image.Image, rng: np.random.Generator, *, scale: float) -> Image.Image:
    """Scale both sides of an image, to at least one pixel, and bring it back to its size (bicubic)."""
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def blur(image: Image.Image, rng: np.random.Generator, *, radius: float) -> Image.Image:
    """Blur an image; `radius` is the standard deviation in pixels (Pillow approximates it by boxes)."""
    return image.filter(ImageFilter.GaussianBlur(radius))


def noise(image: Image.Image, rng: np.random.Generator, *, deviation: float) -> Image.Image:
    """Add Gaussian noise to every value of an image, clipped; `deviation` is a share of 255."""
    values = np.asarray(image, dtype=np.float64)
    noisy = values + rng.standard_normal(values.shape) * (255 * deviation)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A change, what it takes and gives, and what a config may set of it."""

    change: Change
    modality: Modality
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


_of_text, _of_images = partial(Control, modality=Modality.TEXT), partial(Control, modality=Modality.IMAGE)
CONTROLS: dict[str, Control] = {
    "shuffle-words": _of_text(change=shuffle_words),
    "drop-words": _of_text(
        change=drop_words, parameters={"share": Parameter(kind=float, default=0.1, low=0, high=1)}
    ),
    "upper-case": _of_text(change=upper_case),
    "truncate": _of_text(change=truncate, parameters={"words": Parameter(kind=int, default=16, low=1)}),
    "jpeg": _of_images(change=jpeg, parameters={"quality": Parameter(kind=int, default=50, low=1, high=100)}),
    "resize": _of_images(
        change=resize, parameters={"scale": Parameter(kind=float, default=0.5, above=0, high=1)}
    ),
    "blur": _of_images(
        change=blur, parameters={"radius": Parameter(kind=float, default=1.0, low=0, high=1000)}
    ),
    "noise": _of_images(
        change=noise, parameters={"deviation": Parameter(kind=float, default=0.05, low=0, high=1)}
    ),
}


class ControlModel:
    """A control as a model: items are changed one by one, each with a generator of its own seed."""

    size_bytes = 0

    def __init__(self, spec: ModelSpec) -> None:
        control = CONTROLS[spec.base]
        self.modality_in = self.modality_out = str(control.modality)
        self._change = partial(control.change, **spec.parameters)

    def load(self, device: str) -> None:
        """There are no weights."""

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """n texts or images -> as many of the same modality."""
        return [
            self._change(item, np.random.default_rng(seed)) for item, seed in zip(inputs, seeds, strict=True)
        ]


def _models() -> Iterable[ModelSpec]:
    for name, control in CONTROLS.items():
        yield KIND.spec(
            name,
            modalities_in=(control.modality,),
            modality_out=control.modality,
            parameters={key: parameter.default for key, parameter in control.parameters.items()},
            num_parameters=0,
            licence="MIT",
        )


def _read_noise(name: str, path: Callable[[str], Path], *, ask: bool) -> ModelSpec:
    """The control that "noise:DEVIATION" names, as interventions do. Raises NotFound for no such number."""
    try:
        deviation = float(name.removeprefix(NOISE))
    except ValueError:
        deviation = math.nan
    parameter = CONTROLS["noise"].parameters["deviation"]
    if problem := parameter.problem(deviation):
        raise NotFound(f"there is no model {name}: the deviation {problem}", hint=f"for example {NOISE}0.05")
    plain = next(spec for spec in _models() if spec.name == "noise")
    return replace(plain, name=name, parameters={"deviation": deviation})


KIND = Kind(
    name="control",
    build=ControlModel,
    prefix=NOISE,
    read_name=_read_noise,
    parameters=lambda spec: CONTROLS[spec.base].parameters,
    weights="none",
    models=_models,
)
