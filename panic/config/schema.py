"""What an experiment config may say, and what each field is.

Every field carries its class beside its type (`FieldClass`): *identity* (the name), *fixed* (what the name
means: another value is refused), *extent* (may grow and shrink; what exists is kept), *pinned* (resolved at
the first start), *operational* (free to change). `FIELD_CLASSES` derives from it and a test fails while a
field has none. What an experiment has been asked for in all is `panic.config.extent`.

Try it: `ExperimentConfig(name="x", networks=[["A", "B"]], prompts=["a"], seeds=[-1], max_length=2)`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from panic.arms import BASELINE, Arm, arm_of
from panic.config.arms import InterventionSettings, arm_problems, arms_of_all, named_models
from panic.config.diagrams import (
    DistanceSettings,
    SeveralDiagramSettings,
    VectorisationSettings,
    diagram_problems,
)
from panic.config.fields import (
    MAX_COUNT,
    MAX_SEED,
    BatchSize,
    Count,
    Devices,
    ExperimentName,
    FilePath,
    Label,
    Name,
    Part,
    Revision,
    Seed,
    Size,
    Tag,
    Text,
    Variable,
    Whole,
    Workers,
    is_utf8,
)
from panic.config.labels import PromptLabels
from panic.config.problems import KeyPath, Problem, dotted, shorten

MIB = 2**20
MAX_RUNS = 10**7
RESERVED_PREFIXES = ("local:", "python:", "openai:", "synthetic/")


class FieldClass(StrEnum):
    """What changing a field means for an experiment that exists already."""

    IDENTITY = "identity"
    FIXED = "fixed"
    EXTENT = "extent"
    PINNED = "pinned"
    OPERATIONAL = "operational"


IDENTITY, FIXED, EXTENT = FieldClass.IDENTITY, FieldClass.FIXED, FieldClass.EXTENT
PINNED, OPERATIONAL = FieldClass.PINNED, FieldClass.OPERATIONAL


class Variant(Part):
    """A model with its own parameters; all keys beyond the first three are the model's parameters."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    base: Annotated[
        Text, Field(description="the model that this is a variant of", examples=["PocketDiffusion"])
    ]
    revision: Annotated[Revision | None, Field(description="commit or tag of the weights")] = None
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None, Field(description="number format of the weights")
    ] = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The model's own parameters: steps, guidance, prompt and so on."""
        return dict(self.__pydantic_extra__)


class Budget(Part):
    """What all sessions of an experiment may send to endpoints; no limit where there is none."""

    requests: Annotated[Whole | None, Field(ge=0, description="requests, answered or not")] = None
    tokens: Annotated[Whole | None, Field(ge=0, description="tokens, as the server counts them")] = None


class Price(Part):
    """What a model behind an endpoint costs, in any currency."""

    input: Annotated[float, Field(ge=0, strict=False, description="for a million tokens that are sent")] = 0.0
    output: Annotated[float, Field(ge=0, strict=False, description="for a million tokens of answers")] = 0.0
    request: Annotated[float, Field(ge=0, strict=False, description="for each request")] = 0.0

    def of(self, *, requests: int, input_tokens: float, output_tokens: float) -> float:
        """What so many requests and tokens cost."""
        return self.request * requests + (self.input * input_tokens + self.output * output_tokens) / 1e6


class SnapshotSettings(Part):
    """Where snapshots of the store go while an experiment is performed, and how often."""

    to: Annotated[FilePath, Field(description="folder of the snapshot, also on a network file system")]
    every_s: Annotated[float, Field(gt=0, strict=False, description="seconds between two snapshots")] = 600.0


class RaySettings(Part):
    """Where models are called with `executor: ray`: in processes of a cluster, one for each device."""

    address: Annotated[
        Text | None, Field(description="auto or host:port; without one a cluster is started on this machine")
    ] = None
    workers: Annotated[
        Workers | None, Field(description="processes at most; by default as many as there is room for")
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        Field(ge=0, le=1, strict=False, description="by default 1 where the cluster has GPUs, else 0"),
    ] = None
    cpus_per_worker: Annotated[float, Field(ge=0, strict=False, description="cores of each process")] = 1.0


class NoticeSettings(Part):
    """Who hears how an experiment goes, and of what."""

    to: Annotated[
        list[Variable],
        Field(min_length=1, description="environment variables that hold addresses, in the words of apprise"),
    ]
    on: Annotated[
        list[Literal["end", "failure", "stall"]], Field(min_length=1, description="what is told")
    ] = ["end", "failure", "stall"]
    stall_minutes: Annotated[
        float, Field(gt=0, strict=False, description="minutes without a result that are a stall")
    ] = 30.0


class ExperimentConfig(Part):
    """An experiment: networks x prompts x seeds x repeats, a maximum length, embeddings, diagrams."""

    name: Annotated[ExperimentName, IDENTITY, Field(description="name of the experiment", examples=["demo"])]
    project: Annotated[Name, OPERATIONAL, Field(description="stands in the names of log files")] = "panic"
    tags: Annotated[list[Tag], OPERATIONAL, Field(description="words to find the experiment by")] = []
    label: Annotated[Label | None, OPERATIONAL, Field(description="one line on the experiment")] = None
    networks: Annotated[
        list[Annotated[list[Text], Field(min_length=1)]],
        EXTENT,
        Field(
            min_length=1,
            description="cyclic lists of models",
            examples=["[[PocketDiffusion, PocketCaptioner]]"],
        ),
    ]
    models: Annotated[dict[str, Variant], FIXED, Field(description="variants of models, by name")] = {}
    prompts: Annotated[
        list[Text],
        EXTENT,
        Field(min_length=1, description="texts to start from", examples=["[a small red circle]"]),
    ]
    seeds: Annotated[
        list[Annotated[int, Field(ge=-1, le=MAX_SEED)]],
        EXTENT,
        Field(min_length=1, description="-1 is fresh noise at every step", examples=["[42, -1]"]),
    ]
    arms: Annotated[
        dict[Name, list[InterventionSettings]],
        EXTENT,
        Field(description="interventions in runs, by a name; without any there is the arm baseline alone"),
    ] = {}
    labels: Annotated[
        dict[Text, PromptLabels], EXTENT, Field(description="tags and groups of prompts, by the prompt")
    ] = {}
    repeats: Annotated[Count, EXTENT, Field(description="runs of seed -1 per network and prompt")] = 1
    root_seed: Annotated[Seed, FIXED, Field(description="all fresh noise derives from it")] = 0
    max_length: Annotated[Count, EXTENT, Field(description="model calls per run", examples=["100"])]
    embeddings: Annotated[list[Text], EXTENT, Field(description="embedding models")] = []
    diagrams: Annotated[
        SeveralDiagramSettings, EXTENT, Field(description="persistence diagrams, by one or several settings")
    ] = []
    vectorisations: Annotated[
        list[VectorisationSettings], EXTENT, Field(description="vectors of every diagram")
    ] = []
    distances: Annotated[
        list[DistanceSettings], EXTENT, Field(description="distances between the diagrams of all runs")
    ] = []
    reject_constant_images: Annotated[
        bool, FIXED, Field(description="an image of one colour ends its run")
    ] = False

    stuck_after: Annotated[
        int | None,
        FIXED,
        Field(
            ge=2, le=MAX_COUNT, description="times that a run of an endpoint goes round before it is ended"
        ),
    ] = None

    device: Annotated[
        Devices,
        PINNED,
        Field(description="auto, cpu, mps, cuda, cuda:N, cuda:all, sim:SIZE, or several: [cuda:0, cuda:1]"),
    ] = "auto"
    devices: Annotated[
        Literal["any", "same"], OPERATIONAL, Field(description="same refuses cards of several models")
    ] = "any"
    threads: Annotated[Workers | None, PINNED, Field(description="CPU threads of the models")] = None
    batch_sizes: Annotated[dict[str, BatchSize], PINNED, Field(description="batch size by model name")] = {}

    executor: Annotated[
        Literal["auto", "local", "process", "ray"], OPERATIONAL, Field(description="where models are called")
    ] = "auto"
    ray: Annotated[
        RaySettings | None,
        OPERATIONAL,
        Field(description="of executor: ray: {address: auto, workers: 8, gpus_per_worker: 1}"),
    ] = None
    timeout_s: Annotated[float | None, OPERATIONAL, Field(gt=0, description="time limit of a model call")] = (
        None
    )
    budget: Annotated[Budget | None, OPERATIONAL, Field(description="what endpoints may be sent in all")] = (
        None
    )
    prices: Annotated[dict[str, Price], OPERATIONAL, Field(description="what endpoints cost, by model")] = {}
    max_retries: Annotated[
        int, OPERATIONAL, Field(ge=0, le=MAX_COUNT, description="new attempts after a failure")
    ] = 2
    fail_fast: Annotated[bool, OPERATIONAL, Field(description="stop everything at the first failed run")] = (
        False
    )
    pixel_cache_bytes: Annotated[Size, OPERATIONAL, Field(description="memory for decoded pictures")] = (
        256 * MIB
    )
    memory_fraction: Annotated[
        float, OPERATIONAL, Field(gt=0, le=1, description="share of the device's memory that may be used")
    ] = 1.0
    headroom: Annotated[Size, OPERATIONAL, Field(description="device memory that stays free")] = 256 * MIB
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        OPERATIONAL,
        Field(description="least level that is logged"),
    ] = "info"
    workers: Annotated[
        Workers | None, OPERATIONAL, Field(description="how many call models at the same time")
    ] = None
    diagram_workers: Annotated[Workers | None, OPERATIONAL, Field(description="processes for diagrams")] = (
        None
    )
    store: Annotated[FilePath | None, OPERATIONAL, Field(description="folder of the store")] = None
    snapshot: Annotated[
        SnapshotSettings | None,
        OPERATIONAL,
        Field(description="copies of the store: {to: FOLDER, every_s: 600}"),
    ] = None
    notify: Annotated[
        NoticeSettings | None,
        OPERATIONAL,
        Field(description="notices: {to: [VARIABLE], on: [end, failure, stall], stall_minutes: 30}"),
    ] = None
    model_folder: Annotated[FilePath | None, OPERATIONAL, Field(description="folder of your own models")] = (
        None
    )
    base_folder: Annotated[
        FilePath | None,
        OPERATIONAL,
        Field(description="what relative paths refer to; by default the config's folder"),
    ] = None

    @property
    def interventions(self) -> dict[str, Arm]:
        """What the arms mean, by name; empty where none are named."""
        return {name: arm_of(one.model_dump() for one in arm) for name, arm in self.arms.items()}

    @property
    def arms_of_all(self) -> list[str]:
        """The arms that all runs have: those that are no branches of failed runs, else the baseline."""
        return arms_of_all(self.arms) if self.arms else [BASELINE]

    @property
    def secrets(self) -> list[str]:
        """The variables that hold keys of models, or addresses of notices; no model need be resolved."""
        keys = (variant.parameters.get("api_key_env") for variant in self.models.values())
        return [*(str(name) for name in keys if name), *(self.notify.to if self.notify else ())]

    @model_validator(mode="after")
    def _cross_fields(self) -> Self:
        raw = self.model_dump(mode="json")
        problems = cross_field_problems(raw) + too_many_runs(raw)
        if problems:
            raise PydanticCustomError(
                "cross_fields", "{text}", {"text": "; ".join(p.message for p in problems)}
            )
        return self


FIELD_CLASSES: dict[str, FieldClass] = {
    name: mark
    for name, info in ExperimentConfig.model_fields.items()
    for mark in info.metadata
    if isinstance(mark, FieldClass)
}


def cross_field_problems(raw: Mapping[str, Any]) -> list[Problem]:
    """Return the mistakes that no single field shows; `raw` may have other mistakes, too."""
    networks, models, seeds, repeats = (raw.get(key) for key in ("networks", "models", "seeds", "repeats"))
    embeddings = raw.get("embeddings")
    problems = [
        *_duplicates(networks, "networks", "network"),
        *_duplicates(seeds, "seeds", "seed"),
        *_duplicates(embeddings, "embeddings", "embedding model"),
        *_duplicates(raw.get("prompts"), "prompts", "prompt"),
        *(arm_problems(raw) if raw.get("arms") else ()),
    ]
    if isinstance(repeats, int) and repeats > 1 and isinstance(seeds, list) and -1 not in seeds:
        problems.append(
            Problem(
                ("repeats",),
                f"repeats is {repeats}, and no seed is -1: runs with a fixed seed would be copies",
                hint="add -1 to seeds, or remove repeats",
            )
        )
    if raw.get("diagrams") not in (None, []) and not embeddings:
        problems.append(
            Problem(
                ("diagrams",),
                "diagrams need vectors, and there are no embeddings",
                hint="add for example embeddings: [PocketText]",
                on_key=True,
            )
        )
    if isinstance(models, Mapping):
        for name, variant in models.items():
            problems += _variant_problems(name, variant)
    if any(raw.get(field) for field in ("diagrams", "vectorisations", "distances")):
        problems += diagram_problems(raw)
    problems += _batch_size_problems(raw)
    return problems


def too_many_runs(raw: Mapping[str, Any]) -> list[Problem]:
    """Return a problem at the largest factor if there are more runs than MAX_RUNS."""
    lists = {key: raw.get(key) for key in ("networks", "prompts", "seeds")}
    repeats = raw.get("repeats", 1)
    if not all(isinstance(entries, list) for entries in lists.values()) or not isinstance(repeats, int):
        return []
    factors = {key: len(entries) for key, entries in lists.items() if isinstance(entries, list)}
    fresh = isinstance(lists["seeds"], list) and -1 in lists["seeds"]
    per_prompt = factors["seeds"] + (repeats - 1 if fresh else 0)
    arms = len(arms_of_all(raw["arms"])) if isinstance(raw.get("arms"), Mapping) and raw["arms"] else 1
    num_runs = factors["networks"] * factors["prompts"] * per_prompt * arms
    if num_runs <= MAX_RUNS:
        return []
    all_factors = factors | {"repeats": repeats, "arms": arms}
    in_arms = f" x {arms} arms" if arms > 1 else ""
    return [
        Problem(
            (max(all_factors, key=lambda key: all_factors[key]),),
            f"{factors['networks']} networks x {factors['prompts']} prompts x {per_prompt} seeds and repeats"
            f"{in_arms} are {num_runs} runs, and {MAX_RUNS} is the most",
        )
    ]


def _duplicates(entries: Any, field: str, noun: str) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, Mapping | bool):
            continue
        key = repr(entry)
        if key in seen:
            message = f"the same {noun} as {field}.{seen[key]}"
            if isinstance(entry, str):
                message += f": {shorten(entry)!r}"
            problems.append(Problem((field, index), message, first=(field, seen[key])))
        seen.setdefault(key, index)
    return problems


def _variant_problems(name: str, variant: Any) -> list[Problem]:
    if not is_utf8(name):
        return [
            Problem(
                ("models", name), "a variant's name must be a text that can be written as UTF-8", on_key=True
            )
        ]
    if not name.strip() or name.startswith(RESERVED_PREFIXES):
        kinds = ", ".join(f"'{prefix}'" for prefix in RESERVED_PREFIXES)
        return [Problem(("models", name), f"a variant cannot be called {name!r}: names must not be empty or "
                        f"begin with {kinds}", on_key=True)]  # fmt: skip
    return _unsayable(("models", name), variant) if isinstance(variant, Mapping) else []


def _unsayable(path: KeyPath, value: Any) -> list[Problem]:
    """Numbers and texts, however deep in a parameter of a model, that no file and no request can hold."""
    parts: list[tuple[Any, Any]]
    if isinstance(value, Mapping):
        parts = [*((key, key) for key in value), *value.items()]
    elif isinstance(value, list):
        parts = list(enumerate(value))
    elif isinstance(value, float) and not math.isfinite(value):
        return [Problem(path, f"{dotted(path)} must be a finite number")]
    elif isinstance(value, str) and not is_utf8(value):
        return [Problem(path, f"{dotted(path)} must be a text that can be written as UTF-8")]
    else:
        return []
    return [problem for key, part in parts for problem in _unsayable((*path, key), part)]


def _batch_size_problems(raw: Mapping[str, Any]) -> list[Problem]:
    sizes, networks, embeddings = raw.get("batch_sizes"), raw.get("networks"), raw.get("embeddings")
    if not isinstance(sizes, Mapping) or not isinstance(networks, list):
        return []
    lists = [network for network in networks if isinstance(network, list)]
    lists.append(embeddings if isinstance(embeddings, list) else [])
    lists.append(named_models(raw) if raw.get("arms") else [])
    used = sorted({name for names in lists for name in names if isinstance(name, str)})
    return [
        Problem(
            ("batch_sizes", name),
            f"no network and no embedding uses '{name}'",
            found=name,
            allowed=used,
            on_key=True,
        )
        for name in sizes
        if name not in used
    ]
