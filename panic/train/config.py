"""What a training config may say, and reading one with the same located messages as an experiment's.

    task: diffusion            # autoencoder, diffusion, captioning, contrastive
    output: checkpoints/mine   # where the model is written, in the standard layout of its library
    data: {folder: photos}     # or {dataset: pocket-world}
    model: {base: checkpoints/other}   # or the parts' own configs
    steps: 10000

Fields are either part of the recipe (changed: another training, and the checkpoints are refused) or
`OPERATIONAL` (free to change between two calls of the same training).

Try it: `python -c "from panic.train.config import load; print(load('configs/train/pocket-diffusion.yaml'))"`
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from panic.config import problems, sources
from panic.config.fields import HUB_ID, Label, Name, Tag
from panic.config.load import apply_override
from panic.config.problems import Problem, Source, dotted
from panic.config.prompt_origins import MistakesError
from panic.config.sweeps import combinations, first_sweep
from panic.errors import ConfigError

# May differ between two calls of one training: how long, how often it saves and looks, on what it runs, and
# what is said of it.
OPERATIONAL = frozenset(
    {
        "output",
        "steps",
        "minutes",
        "checkpoint_minutes",
        "keep_last",
        "evaluate_every",
        "export",
        "log_every",
        "compile",
        "project",
        "tags",
        "label",
    }
)
_OF_FOLDERS = frozenset({"captions", "balance", "validation"})
_OF_WORLDS = frozenset({"styles", "background_shift", "tidy", "objects"})
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Data(Section):
    """What is learnt from: a folder of images, or a world that the package generates.

    In a folder, captions come from `captions` (a CSV or JSONL file with columns file_name and text;
    `metadata.csv` or `metadata.jsonl` if present), else from a text file beside each image, else the name
    of its subfolder is its caption and its class. `validation` is the share that is held back.

    In the pocket world, `styles` are all phrasings, the canonical ones (whose order the image decides),
    plain ones (the same words in any order), or terse ones (the largest object alone, in other words). With a
    `background_shift` images have a background that many places further in the world's list of colours than
    their texts say. A share `tidy` of the scenes has its objects in line near the middle: where they stand is
    then no dice but what the text says, which is sooner learnt. With `objects`, only scenes of so many are
    shown.
    """

    folder: str | None = None
    captions: str | None = None
    balance: bool = False
    validation: Share = 0.05
    dataset: Literal["pocket-world"] | None = None
    styles: Literal["all", "canonical", "plain", "terse"] = "all"
    background_shift: Annotated[int, Field(ge=0, le=7)] = 0
    tidy: Share = 0.0
    objects: Annotated[int, Field(ge=1, le=3)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.folder is None) == (self.dataset is None):
            raise PydanticCustomError("source", "needs exactly one of folder and dataset")
        stray = self.model_fields_set & (_OF_WORLDS if self.folder else _OF_FOLDERS)
        if stray:
            other = "a dataset" if self.folder else "a folder"
            raise PydanticCustomError("source", f"only {other} has {', '.join(sorted(stray))}")
        return self


class Lora(Section):
    """Low-rank adapters on top of frozen weights (peft), by default on all projections of attention."""

    rank: Count = 8
    alpha: Count | None = None  # as large as the rank if not given
    targets: list[str] | None = None  # names of linear layers


class Training(Section):
    """What every training has. `batch_size` is the whole step's, over all processes and accumulation."""

    output: str = Field(examples=["checkpoints/mine"])
    data: Data = Field(examples=["{folder: photos}"])
    image_size: Count = 64
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    steps: Count = Field(examples=[10000])
    batch_size: Count = 32
    accumulate: Count = 1
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] = 300
    decay: Share = 0.3  # the rate falls to 5 % over this last share of the steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: Literal["no", "default", "reduce-overhead", "max-autotune"] = "no"
    lora: Lora | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    keep_last: Count = 2
    evaluate_every: Count = 1000
    export: Literal["last", "best"] = "last"  # weights of the last step, or of the best evaluation
    log_every: Count = 20
    project: Name | None = None
    tags: list[Tag] = []  # words to find it by in a store
    label: Label | None = None  # one line on it

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.accumulate:
            raise PydanticCustomError(
                "accumulate", f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}"
            )
        return self


class ModelSection(Section):
    """`base` is a folder, a model that `panic models` lists, or a hub id with weights on this machine."""

    base: str | None = None

    @model_validator(mode="after")
    def _base_is_whole(self) -> Self:
        given = sorted(self.model_fields_set - {"base"})
        if self.base is not None and given:
            raise PydanticCustomError("base", f"has a base, and its parts are the base's: {', '.join(given)}")
        return self


class AutoencoderModel(ModelSection):
    """`base`, or the arguments of diffusers' AutoencoderTiny."""

    autoencoder: dict[str, JsonValue] | None = None


class DiffusionModel(ModelSection):
    """`base` (a StableDiffusionPipeline or a ConditionalPipeline to go on from), or the parts of a new one.

    `autoencoder` and `tokenizer` are folders; without an autoencoder the model works on pixels.
    `text_encoder` holds arguments of CLIPTextConfig, or the folder of a CLIP model whose text encoder is
    taken over. `unet` holds arguments of UNet2DConditionModel.
    """

    unet: dict[str, JsonValue] | None = None
    text_encoder: dict[str, JsonValue] | str | None = None
    autoencoder: str | None = None
    tokenizer: str | None = None


class CaptioningModel(ModelSection):
    """`base` (a BLIP), or the arguments of a new BlipConfig's vision_config and text_config."""

    vision: dict[str, JsonValue] | None = None
    text: dict[str, JsonValue] | None = None
    tokenizer: str | None = None


class ContrastiveModel(CaptioningModel):
    """`base` (a CLIP), or the arguments of a new CLIPConfig's vision_config and text_config."""

    projection: Count = 64


class AutoencoderTraining(Training):
    """Images through small latents and back (AutoencoderTiny), latents of mean 0 and variance 1."""

    task: Literal["autoencoder"]
    model: AutoencoderModel
    learn: Literal["both", "decoder"] = "both"  # the decoder alone, where a UNet knows the latents already
    roughen: Annotated[float, Field(ge=0)] = 0.6  # standard deviation of the noise on the latents
    focus: Annotated[float, Field(ge=0)] = 1.0  # how much more the pixels of objects count
    recolour: Share = 0.0  # share of the images whose colours are exchanged: no colour means a shape

    @model_validator(mode="after")
    def _no_adapters(self) -> Self:
        if self.lora is not None:
            raise PydanticCustomError(
                "lora", "an autoencoder is convolutions: lora has nothing to hold on to"
            )
        return self


class DiffusionTraining(Training):
    """Text-to-image or class-to-image diffusion.

    `condition: class` adds an embedding of the item's class (its subfolder) to that of the time; the text
    is then the class's name. `predict`, `betas` and `zero_terminal_snr` are of new models (v_prediction,
    squaredcos_cap_v2, true); a base has its own.
    """

    task: Literal["diffusion"]
    model: DiffusionModel
    condition: Literal["text", "class"] = "text"
    predict: Literal["epsilon", "sample", "v_prediction"] | None = None
    betas: Literal["squaredcos_cap_v2", "scaled_linear", "linear"] | None = None
    zero_terminal_snr: bool | None = None
    min_snr: Annotated[float, Field(gt=0)] | None = None
    least_time: Annotated[int, Field(ge=0, lt=1000)] = 0
    visited_times: Share = 0.0  # share of the noise levels that are those a sampler of `sample_steps` visits
    drop_caption: Share = 0.1
    focus: Annotated[float, Field(ge=0)] = 0.0
    focus_steps: Count = 5000
    train_text_encoder: bool = True  # not with lora, whose adapters are in the UNet alone
    fresh_words: list[str] = []  # of a base's text encoder that begin anew: words that it takes for one
    sample_steps: Count = 8
    guidance: Annotated[float, Field(ge=0)] = 2.5

    @model_validator(mode="after")
    def _schedule(self) -> Self:
        own = [name for name in ("predict", "betas", "zero_terminal_snr") if getattr(self, name) is not None]
        if self.model.base is not None and own:
            raise PydanticCustomError("base", f"the model has a base, which decides on {', '.join(own)}")
        if self.predict == "epsilon" and self.zero_terminal_snr is not False and self.model.base is None:
            raise PydanticCustomError(
                "epsilon",
                "with predict: epsilon, zero_terminal_snr must be false: where nothing of the picture "
                "is left, knowing the noise says nothing about it",
            )
        if self.fresh_words and (self.model.base is None or self.lora or not self.train_text_encoder):
            raise PydanticCustomError(
                "fresh_words", "fresh_words are of a base whose text encoder is trained along, without lora"
            )
        return self


class CaptioningTraining(Training):
    """Image-to-text: cross-entropy on captions."""

    task: Literal["captioning"]
    model: CaptioningModel
    forget_words: Share = 0.0  # at most this share of a caption's words is hidden from the decoder
    spoil: Share = 0.0  # share of the images that are blurred, tinted and roughened
    emphasis: dict[str, Annotated[float, Field(gt=0)]] = {}  # how much more some words count
    recolour: Share = 0.0  # share of the images whose colours are exchanged: no colour means a shape
    colour_words: list[str] = []  # what such images are not asked for
    max_tokens: Count = 48

    @model_validator(mode="after")
    def _colours_are_known(self) -> Self:
        if self.colour_words and not self.recolour:
            raise PydanticCustomError("recolour", "colour_words are for recolour, which is 0")
        if self.recolour and not self.colour_words:
            raise PydanticCustomError(
                "recolour", "recolour needs colour_words: they are wrong in other colours"
            )
        return self


class ContrastiveTraining(Training):
    """Joint text and image embeddings (CLIP)."""

    task: Literal["contrastive"]
    model: ContrastiveModel
    spoil: Share = 0.0
    max_tokens: Count = 48

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.accumulate > 1:
            raise PydanticCustomError(
                "accumulate", "a contrastive loss needs the whole batch at once: accumulate must be 1"
            )
        return self


TASKS: dict[str, type[Training]] = {
    "autoencoder": AutoencoderTraining,
    "diffusion": DiffusionTraining,
    "captioning": CaptioningTraining,
    "contrastive": ContrastiveTraining,
}
_PATHS = (("output",), ("data", "folder"), ("data", "captions"))
# Folders or hub ids: made absolute where the folder exists.
MODEL_KEYS = ("base", "autoencoder", "tokenizer", "text_encoder")
_MODELS = tuple(("model", key) for key in MODEL_KEYS)


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Any:
    """Read a training config from YAML, JSON or TOML; paths in it are relative to its folder.

    Raises ConfigError with all mistakes and their places.
    """
    found = load_all(path, overrides)
    if len(found) > 1:
        raise ConfigError(
            f"{path}: its sweeps stand for {len(found):,} trainings", hint="panic train performs all"
        )
    return found[0]


def load_all(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> list[Any]:
    """Read the trainings that a config with sweeps stands for, each with an `output` of its own.

    Raises ConfigError with all mistakes and their places.
    """
    document = sources.read(Path(path).expanduser())
    if not isinstance(document.data, dict):
        found = problems.describe(document.data)
        raise ConfigError(f"{path}: a config is a mapping (key: value), and this is {found}")
    return _expanded(document, overrides, Path(path).expanduser().resolve().parent)


def load_stored(values: Mapping[str, Any], name: str, overrides: Sequence[str] = ()) -> list[Any]:
    """Return what `load_all` does of a config as a store keeps it, changed; new paths are relative to here.

    A store keeps what a sweep became, so one that it says is refused, unread: a row may name any file.
    Raises ConfigError with all mistakes, also for a config of another version.
    """
    if (at := first_sweep(values)) is not None:
        raise ConfigError(
            f"The stored config of {name} has a sweep in {dotted(at)}, which no training stores."
        )
    kind = TASKS.get(str(values.get("task")), Training)
    said = json.dumps(_without_defaults(kind, values))
    document = sources.parse(Source(name=f"the stored config of {name}", text=said), "JSON")
    return _expanded(document, overrides, Path.cwd())


def named_paths(config: Training, overrides: Sequence[str]) -> list[str]:
    """Name the files and folders of a training, as key: path, but for those that overrides say."""
    said = {change.partition("=")[0].strip() for change in overrides}
    values, found = config.model_dump(mode="json"), []
    for path in (*_PATHS, *_MODELS):
        part: Any = values
        for key in path:
            part = part.get(key) if isinstance(part, dict) else None
        is_said = bool(said & {".".join(path), path[0]})
        if isinstance(part, str) and not is_said and (path in _PATHS or not HUB_ID.fullmatch(part)):
            found.append(f"{'.'.join(path)}: {part}")
    return found


def _without_defaults(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of a section: a stored one says all, also what excludes other things where it is said."""
    found = {}
    for key, value in values.items():
        field = kind.model_fields.get(key)
        if field is not None and value == field.default:
            continue
        inner = [one for one in _parts(field.annotation) if _is_section(one)] if field else []
        found[key] = _without_defaults(inner[0], value) if inner and isinstance(value, Mapping) else value
    return found


def _expanded(document: problems.Document, overrides: Sequence[str], folder: Path) -> list[Any]:
    """The trainings that a document stands for; `folder` is what relative paths refer to."""
    for number, text in enumerate(overrides, start=1):
        apply_override(document, Source(name="override", text=text, number=number))
    try:
        found = combinations(document.data, folder)
    except MistakesError as error:
        raise ConfigError(problems.render([*error.problems, *document.problems], document)) from None
    trainings = []
    for one in found:
        if one.suffix and isinstance(one.values.get("output"), str):
            one.values["output"] += f"-{one.suffix}"
        _resolve(one.values, folder)
        trainings.append(_checked(one.values, document))
    return trainings


def _checked(raw: dict[str, Any], document: problems.Document) -> Any:
    """A training as its task describes it. Raises ConfigError with all mistakes and their places."""
    mistakes: list[Problem] = list(document.problems)
    task = raw.get("task")
    if task not in TASKS:
        message = "task is not one of the allowed values" if "task" in raw else "the key 'task' is missing"
        mistakes.append(Problem(("task",), message, found=task, allowed=tuple(TASKS)))
    else:
        kind = TASKS[task]
        try:
            config = kind.model_validate(raw)
        except ValidationError as error:
            mistakes += problems.from_pydantic(error.errors(), lambda at: _fields(kind, at))
    if mistakes:
        raise ConfigError(problems.render(mistakes, document))
    return config


def _resolve(raw: dict[str, Any], folder: Path) -> None:
    for path in (*_PATHS, *_MODELS):
        part: Any = raw
        for key in path[:-1]:
            part = part.get(key) if isinstance(part, dict) else None
        value = part.get(path[-1]) if isinstance(part, dict) else None
        if isinstance(value, str) and "\0" not in value:
            place = folder / Path(value).expanduser()
            if path in _PATHS or place.exists():
                part[path[-1]] = str(place)


def _fields(kind: type[BaseModel], at: problems.KeyPath) -> Mapping[str, Any]:
    for part in at:
        field = kind.model_fields[str(part)]
        kind = next(one for one in _parts(field.annotation) if _is_section(one))
    return kind.model_fields


def _parts(annotation: Any) -> tuple[Any, ...]:
    """A type, and those that it is a union of."""
    return (annotation, *getattr(annotation, "__args__", ()))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def recipe(config: Training) -> dict[str, Any]:
    """What makes this training the one it is: what was said, but for `OPERATIONAL` fields and defaults."""
    return config.model_dump(mode="json", exclude=set(OPERATIONAL), exclude_defaults=True)
