"""What goes into the store (`New...`, `Commit`) and what comes out of it (`...Row`).

What one module alone answers with stands there (`missing`, `coverage`).

Records to write carry digests as 32 bytes, records that were read as 64 hexadecimal digits. Row numbers
(`run`, `batch`, `model`, `experiment`) are the store's small integers. Times are Unix seconds, durations
seconds. Integers must fit into 63 bits, seeds too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from panic.arms import BASELINE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that should exist: the network's model names, the prompt, its arm, and how far it should go."""

    network: tuple[str, ...]
    prompt: str
    seed: int
    repeat: int = 0
    max_length: int
    arm: str = BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEpoch:
    """How the model called `name` in an experiment is called from now on; row `model` is its fingerprint's.

    reason: by default "start" for the first of a name and "memory" for later ones.
    mates: "bucket", or "length" where only items of as many tokens may share a batch.
    """

    name: str
    model: int
    batch_size: int
    device_kind: str
    threads: int | None = None
    reason: str | None = None
    mates: str = "bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """One call of a model: `size` items, padded to `padded_size`, all of one token-length `bucket`."""

    id: int
    session: int
    model: int
    epoch: int
    device: str
    size: int
    padded_size: int
    bucket: int = 0
    started_at: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOutput:
    """A text, or an image of `width` x `height` pixels: its encoded bytes, or the image to be encoded."""

    digest: bytes
    modality: str
    text: str | None = None
    width: int | None = None
    height: int | None = None
    image: bytes | Image | None = None


class NewInvocation(NamedTuple):
    """Step `step` of a run: digests of its input and output, the item's seed, the batch that made it."""

    run: int
    step: int
    input: bytes
    output: bytes
    seed: int
    batch: int


class NewIntervention(NamedTuple):
    """What stepped in before step `step` of a run, as the `place`-th there: digests of input and output.

    seed and batch are those of the call, where a model was called.
    """

    run: int
    step: int
    place: int
    kind: str
    input: bytes
    output: bytes
    seed: int | None
    batch: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStuck:
    """A run that is periodic from `entry_step` on, with `period` steps."""

    run: int
    entry_step: int
    period: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRepeated:
    """A run that was ended after it went `times` times through the `period` outputs from `entry_step` on."""

    run: int
    entry_step: int
    period: int
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnswer:
    """What a server said of the call that is a batch; None where it did not."""

    batch: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    served_model: str | None = None
    system_fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSpending:
    """What a session has sent to a model's server so far, or may have, in place of what was known."""

    session: int
    model: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFailure:
    """The reason why a run ended at `step` after `attempts` attempts."""

    run: int
    step: int
    kind: str
    message: str
    detail: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEmbedding:
    """A vector (d,) of an output under a model."""

    output: bytes
    model: int
    batch: int
    vector: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDiagram:
    """Persistence bars (m, 2) of a run per dimension, with generators if they were computed.

    `num_points` vectors went in, `num_unique` points were left. No birth or death is further than `error`
    from that of all points (see `panic.topology.landmarks`).
    """

    run: int
    model: int
    settings: dict[str, Any]
    settings_digest: str
    num_points: int
    num_unique: int
    bars: dict[int, NDArray[Any]]
    generators: dict[int, NDArray[Any]] = field(default_factory=dict)
    error: float = 0.0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVectorisation:
    """A diagram's bars of one dimension as an array of any shape, by a measure."""

    diagram: int
    dimension: int
    measure: int
    vector: NDArray[Any]


class NewDistance(NamedTuple):
    """The distance of two diagrams in one dimension by a measure; `a` is the smaller row number."""

    a: int
    b: int
    dimension: int
    measure: int
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What one transaction stores: all of it or nothing. A new kind of result is one more list."""

    batches: list[NewBatch] = field(default_factory=list)
    answers: list[NewAnswer] = field(default_factory=list)
    spending: list[NewSpending] = field(default_factory=list)
    outputs: list[NewOutput] = field(default_factory=list)
    invocations: list[NewInvocation] = field(default_factory=list)
    interventions: list[NewIntervention] = field(default_factory=list)
    stuck: list[NewStuck] = field(default_factory=list)
    repeated: list[NewRepeated] = field(default_factory=list)
    failures: list[NewFailure] = field(default_factory=list)
    embeddings: list[NewEmbedding] = field(default_factory=list)
    diagrams: list[NewDiagram] = field(default_factory=list)
    vectorisations: list[NewVectorisation] = field(default_factory=list)
    distances: list[NewDistance] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """How much it is: rows of results, and one for itself."""
        of_diagrams = len(self.diagrams) + len(self.vectorisations) + len(self.distances)
        of_runs = len(self.invocations) + len(self.interventions)
        return of_runs + len(self.embeddings) + of_diagrams + 1

    def extend(self, other: Commit) -> None:
        """Take in all that another one holds."""
        for name in COMMIT_LISTS:
            if theirs := getattr(other, name):
                getattr(self, name).extend(theirs)


COMMIT_LISTS = tuple(one.name for one in fields(Commit))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRow:
    """An experiment; `config` is the union of the configs that were performed under its name."""

    id: int
    uid: str
    name: str
    config: dict[str, Any]
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    id: int
    name: str
    fingerprint: str
    spec: dict[str, Any]
    is_repeatable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """Shape epoch `number` of the model called `name` in an experiment.

    reason: "start", "memory" (what came before needed too much), or "request". mates: as in `NewEpoch`.
    """

    experiment: int
    name: str
    number: int
    model: int
    fingerprint: str
    batch_size: int
    device_kind: str
    threads: int | None
    opened_at: float
    reason: str
    mates: str = "bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    step: int
    kind: str
    message: str
    detail: str
    attempts: int
    failed_at: float


class Repeated(NamedTuple):
    """The outputs from `entry_step` on that a run went through, `period` steps, `times` times."""

    entry_step: int
    period: int
    times: int


ENDED = ("done", "stuck", "repeated", "failed")
"""States of runs that do not go on at the length that they were asked for."""
CUT_SHORT = ("stuck", "repeated", "failed")
"""States of runs that do not go on at any length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run and where it stands: `state` is todo, running (begun), done, stuck, repeated or failed.

    entry_step and period are those of a stuck run, whose future is known; repeated: of one that was ended on
    request. is_repeatable: whether all of its models are.
    """

    id: int
    experiment: int
    network: tuple[str, ...]
    prompt: str
    seed: int
    repeat: int
    max_length: int
    num_steps: int
    state: str
    entry_step: int | None
    period: int | None
    failure: FailureRow | None
    repeated: Repeated | None = None
    is_repeatable: bool = True
    arm: str = BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    digest: str
    modality: str
    text: str | None
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationRow:
    """One step of a run: `model` as named in the network; the time is its whole batch's."""

    run: int
    step: int
    model: str
    input: str
    output: str
    modality: str
    text: str | None
    seed: int
    batch: int
    batch_size: int
    device: str
    started_at: float
    duration_s: float


class InterventionRow(NamedTuple):
    """What stepped in before a step of a run; `model` is the name of the one that was called, if any.

    text: the output, if it is one.
    """

    step: int
    place: int
    kind: str
    model: str
    input: str
    output: str
    text: str | None
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagramRow:
    id: int
    run: int
    model: int
    settings: dict[str, Any]
    settings_digest: str
    num_points: int
    num_unique: int
    dimensions: tuple[int, ...]
    error: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRow:
    """A vectorisation or distance with its settings, its kind among them."""

    id: int
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectorisations:
    """Arrays (n, ...) of the diagrams of `runs` (n), and the settings that made them."""

    runs: list[int]
    values: NDArray[np.float64]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceMatrix:
    """Distances (n, n) between the diagrams of `runs` (n), NaN where one is missing; their settings."""

    runs: list[int]
    matrix: NDArray[np.float64]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One process's work; `end_state` is None while it works, "killed" if it never said goodbye.

    config: what it was asked for; None where no config was performed.
    """

    id: int
    experiment: int | None
    command: str
    pid: int
    host: str
    started_at: float
    ended_at: float | None
    end_state: str | None
    provenance: dict[str, Any]
    config: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationRow:
    id: int
    target_kind: str
    target: str
    kind: str
    text: str
    author: str
    at: float
    signature: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much there is: runs by state, then the rows that belong to them."""

    runs: int
    todo: int
    running: int
    done: int
    stuck: int
    repeated: int
    failed: int
    invocations: int
    embeddings: int
    diagrams: int
    vectorisations: int
    distances: int

    @property
    def ended(self) -> int:
        """How many runs have ended, whatever ended them."""
        return self.done + self.stuck + self.repeated + self.failed

    @property
    def results(self) -> dict[str, int]:
        """How many results there are, by stage in the order of the work."""
        return {
            "invocations": self.invocations,
            "embeddings": self.embeddings,
            "diagrams": self.diagrams,
            "vectorisations": self.vectorisations,
            "distances": self.distances,
        }

    def __str__(self) -> str:
        """As in "6 runs (1 stuck, 0 failed), 18 invocations"; stages without results are left out."""
        found = [f"{number:,} {what}" for what, number in self.results.items() if number]
        repeated = f"{self.repeated:,} repeated, " if self.repeated else ""
        runs = f"{self.runs:,} runs ({self.stuck:,} stuck, {repeated}{self.failed:,} failed)"
        return ", ".join([runs, *found])


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Vectors (n, d) and the digests (n) of what they stand for."""

    digests: list[str]
    vectors: NDArray[np.float32]
