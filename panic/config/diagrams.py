"""What a config says about diagrams, and about what is taken of them: vectorisations and distances.

Each of them has a `key`, the settings that make its results what they are. It identifies them in the store,
so it holds what counts and nothing else: no setting of another kind, defaults written out.

Try it: `python -c "from panic.config import Vectorisation as V; print(V(kind='entropy').key)"`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from panic.config.fields import Count, Part
from panic.config.problems import KeyPath, Problem, dotted, is_number

REQUIRED = None
VECTORISATIONS: dict[str, dict[str, Any]] = {
    "entropy": {},
    "landscape": {"range": REQUIRED, "resolution": 100, "num_landscapes": 5},
    "silhouette": {"range": REQUIRED, "resolution": 100, "power": 1.0},
    "betti_curve": {"range": REQUIRED, "resolution": 100},
    "image": {"range": REQUIRED, "resolution": 20, "bandwidth": REQUIRED},
}
"""Settings of each kind and their defaults."""
DISTANCES: dict[str, dict[str, Any]] = {
    "wasserstein": {"order": 1.0, "internal_p": 2.0},
    "bottleneck": {},
}
EXAMPLES = {
    "range": "range: [0, 2], in units of the metric; the same for all runs, so that they can be compared",
    "bandwidth": "bandwidth: 0.05, in units of the metric",
}


class Window(Part):
    """Sliding windows (Perea and Harer 2015): a point is `dimension` vectors in a row, each `delay` later."""

    dimension: Annotated[int, Field(ge=1, le=10_000, description="vectors of a window", examples=["5"])]
    delay: Annotated[Count, Field(description="from one vector of a window to the next, in vectors")] = 1

    @property
    def span(self) -> int:
        """Vectors that a run must have for one window."""
        return (self.dimension - 1) * self.delay + 1


class DiagramSettings(Part):
    """How persistence diagrams are computed."""

    max_dimension: Annotated[int, Field(ge=0, le=2, description="highest homology dimension")] = 1
    metric: Annotated[
        Literal["euclidean", "cosine", "chordal"], Field(description="distance between two vectors")
    ] = "euclidean"
    modality: Annotated[Literal["text", "image"], Field(description="whose vectors are the points")] = "text"
    generators: Annotated[bool, Field(description="also keep representative generators")] = False
    threshold: Annotated[
        float | None, Field(gt=0, description="largest distance that is looked at, in units of the metric")
    ] = None
    window: Annotated[Window | None, Field(description="points are sliding windows of the run")] = None
    landmarks: Annotated[
        Count | None, Field(description="of more points take so many, and state the error")
    ] = None

    @property
    def key(self) -> dict[str, Any]:
        """What identifies the diagrams; a setting that came later and is not used is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of the canonical JSON of the key: what names the settings in a store."""
        text = json.dumps(self.key, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def one_or_several(value: Any) -> Any:
    """Take one mapping of diagram settings for a list of it, and null for none."""
    if value is None:
        return []
    return [value] if isinstance(value, Mapping | DiagramSettings) else value


def from_kind(value: Any) -> Any:
    """Take "entropy" for {kind: entropy}."""
    return {"kind": value} if isinstance(value, str) else value


def check_internal_p(value: Any) -> Any:
    """Accept a number from 1 on and inf."""
    if value is None or value == "inf" or (is_number(value) and 1 <= value < float("inf")):
        return float(value) if is_number(value) else value
    raise PydanticCustomError("internal_p", "must be a number from 1 on, or inf as a text")


def check_range(value: list[float] | None) -> list[float] | None:
    """Accept two rising numbers."""
    if value is None or (len(value) == 2 and value[0] < value[1]):
        return value
    raise PydanticCustomError("range", "must be two rising numbers, for example [0, 2]")


class _OfDiagrams(Part):
    """A kind with settings of which each kind has its own."""

    @property
    def key(self) -> dict[str, Any]:
        """What identifies the results: the kind and all of its settings."""
        given = self.model_dump(mode="json", exclude_none=True)
        return {"kind": given["kind"]} | known_settings(given["kind"]) | given


class Vectorisation(_OfDiagrams):
    """A vector of every diagram and dimension; which settings a kind has is in `VECTORISATIONS`."""

    kind: Annotated[
        Literal["entropy", "landscape", "silhouette", "betti_curve", "image"],
        Field(description="what is computed", examples=["entropy"]),
    ]
    range: Annotated[
        list[float] | None,
        AfterValidator(check_range),
        Field(description="from where to where it is sampled: the same for all runs", examples=["[0, 2]"]),
    ] = None
    resolution: Annotated[
        int | None, Field(ge=2, le=1000, description="number of samples (per axis of an image)")
    ] = None
    num_landscapes: Annotated[int | None, Field(ge=1, le=1000, description="highest tents kept")] = None
    power: Annotated[float | None, Field(ge=0, description="weights are lengths to this power")] = None
    bandwidth: Annotated[float | None, Field(gt=0, description="of an image's Gaussians")] = None


class Distance(_OfDiagrams):
    """A distance between the diagrams of all runs; which settings a kind has is in `DISTANCES`."""

    kind: Annotated[
        Literal["wasserstein", "bottleneck"], Field(description="what is computed", examples=["wasserstein"])
    ]
    order: Annotated[float | None, Field(ge=1, description="of the Wasserstein distance")] = None
    internal_p: Annotated[
        Any,
        AfterValidator(check_internal_p),
        Field(description="norm of the plane, a number from 1 on or inf"),
    ] = None


SeveralDiagramSettings = Annotated[list[DiagramSettings], BeforeValidator(one_or_several)]
VectorisationSettings = Annotated[Vectorisation, BeforeValidator(from_kind)]
DistanceSettings = Annotated[Distance, BeforeValidator(from_kind)]


def known_settings(kind: Any) -> dict[str, Any]:
    """The settings of a kind with their defaults; none of an unknown kind."""
    kinds = VECTORISATIONS | DISTANCES
    return kinds[kind] if isinstance(kind, str) and kind in kinds else {}


def diagram_problems(raw: Mapping[str, Any]) -> list[Problem]:
    """Return the mistakes in diagram settings that no single field shows; `raw` may have others, too."""
    diagrams = raw.get("diagrams")
    problems = _settings_problems(diagrams)
    for field, noun in (("vectorisations", "vectorisation"), ("distances", "distance")):
        entries = raw.get(field)
        if not entries or not isinstance(entries, list):
            continue
        if diagrams is None or diagrams == []:
            message = f"{field} are taken of diagrams, and there are none"
            hint = "add for example diagrams: {max_dimension: 1}"
            problems.append(Problem((field,), message, hint=hint, on_key=True))
        seen: dict[str, int] = {}
        for index, entry in enumerate(map(from_kind, entries)):
            if not isinstance(entry, Mapping):
                continue
            given = {str(name): value for name, value in entry.items() if value is not None}
            problems += _entry_problems((field, index), given)
            settings = (known_settings(given.get("kind")) | given).items()
            key = repr(sorted((name, float(v) if is_number(v) else v) for name, v in settings))
            if key in seen:
                message = f"the same {noun} as {field}.{seen[key]}"
                problems.append(Problem((field, index), message, first=(field, seen[key])))
            seen.setdefault(key, index)
    return problems


def _settings_problems(diagrams: Any) -> list[Problem]:
    """Landmarks whose errors nobody can state, and settings that are given twice."""
    several = isinstance(diagrams, list)
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for index, entry in enumerate(diagrams if several else [diagrams]):
        if not isinstance(entry, Mapping):
            continue
        path: KeyPath = ("diagrams", index) if several else ("diagrams",)
        if entry.get("landmarks") and entry.get("metric") == "cosine":
            problems.append(
                Problem(
                    (*path, "landmarks"),
                    "landmarks need a metric that keeps the triangle inequality, and cosine does not",
                    hint="chordal orders all pairs alike: cosine = chordal^2 / 2",
                    on_key=True,
                )
            )
        try:
            key = repr(sorted(DiagramSettings.model_validate(entry).key.items()))
        except ValidationError:
            continue
        if key in seen:
            first: KeyPath = ("diagrams", seen[key])
            problems.append(Problem(path, f"the same settings as {dotted(first)}", first=first))
        seen.setdefault(key, index)
    return problems


def _entry_problems(path: KeyPath, given: Mapping[str, Any]) -> list[Problem]:
    """Settings that a kind lacks, or that are another kind's."""
    part, kinds = (Vectorisation, VECTORISATIONS) if path[0] == "vectorisations" else (Distance, DISTANCES)
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        return []
    known = kinds[kind]
    problems = [
        Problem((*path, name), f"{kind} has no setting '{name}'", allowed=tuple(known), on_key=True)
        for name in given
        if name in part.model_fields and name not in ("kind", *known)
    ]
    problems += [
        Problem(path, f"the key '{name}' is missing in {dotted(path)}", hint=f"for example {EXAMPLES[name]}")
        for name, default in known.items()
        if default is REQUIRED and name not in given
    ]
    return problems
