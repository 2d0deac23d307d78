"""From a config to the runs that should exist, the models they need and the seeds of their steps.

A fixed seed is used at every step; -1 draws a fresh one per step, replayably: the run has a root = hash(root
seed of the experiment, network, prompt, repeat), and the seed of step s is hash(root, s). So a run's noise
depends on what the run is and on nothing else: not on the order of runs, not on a kill, not on other runs.

plan = make_plan(load_config("configs/demo.yaml"))
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panic.arms import Arm, models_of, networks
from panic.config import TAKEN_OF_RUNS, DiagramSettings, ExperimentConfig, load, stored
from panic.config.problems import Document, Problem, Source, render
from panic.errors import ConfigError, ModelError
from panic.models import registry
from panic.models.protocol import ModelSpec
from panic.store import DEFAULT_STORE
from panic.store.records import CUT_SHORT, ExperimentRow, NewRun, RunRow

if TYPE_CHECKING:
    from panic.engine.starts import Starts

log = logging.getLogger("panic.engine")

FRESH = -1
"""The seed of a run that draws a fresh one at every step."""
_MASK = (1 << 63) - 1
SMALL_BYTES = 64 * 2**20
"""All weights of an experiment, below which several calls at a time beat one call on several cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an experiment consists of.

    generative, embedding: the models by name, in the order the config mentions them. are_runs_given: the
    runs were chosen among those of the store, and are not all that the config says. keeps_shapes: running out
    of memory ends the session instead of opening a shape epoch. is_once: what the config asks for does not
    become part of what the experiment was asked for. starts: where prompts came from that are no texts of the
    config. arms: what steps into runs, by the name of their arm. origin: name and uid of the experiment that
    this one was made from, and what was changed.
    """

    config: ExperimentConfig
    generative: dict[str, ModelSpec]
    embedding: dict[str, ModelSpec]
    runs: list[NewRun]
    arms: Mapping[str, Arm] = field(default_factory=dict)
    are_runs_given: bool = False
    keeps_shapes: bool = False
    is_once: bool = False
    starts: Starts | None = None
    origin: Mapping[str, Any] | None = None

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """All models by name, generative ones first."""
        return self.generative | self.embedding

    @property
    def remote(self) -> dict[str, ModelSpec]:
        """The models behind endpoints, by name."""
        return {name: spec for name, spec in self.specs.items() if registry.is_remote(spec)}

    @property
    def local(self) -> dict[str, ModelSpec]:
        """The models that are called on this machine, by name."""
        return {name: spec for name, spec in self.specs.items() if not registry.is_remote(spec)}

    @property
    def secrets(self) -> list[str]:
        """The environment variables that hold keys of models, or addresses of notices."""
        notify = self.config.notify
        return [*registry.secrets(self.specs.values()), *(notify.to if notify else ())]

    @property
    def diagrams(self) -> list[tuple[str, DiagramSettings]]:
        """The diagrams of a run: the embedding model whose vectors are the points, and the settings."""
        return [
            (name, settings)
            for settings in self.config.diagrams
            for name, spec in self.embedding.items()
            if settings.modality in spec.modalities_in
        ]

    def models_of(self, run: NewRun | RunRow) -> Sequence[str]:
        """The models that a run calls."""
        arm = self.arms.get(run.arm)
        return models_of(run.network, arm) if arm else run.network

    def num_outputs(self, run: NewRun | RunRow, modality: str) -> int:
        """How many of a run's steps put out this modality."""
        arm = self.arms.get(run.arm)
        parts = [(run.network, 0, run.max_length)] if not arm else networks(run.network, arm, run.max_length)
        found = 0
        for network, begin, end in parts:
            writes = [str(self.specs[name].modality_out) == modality for name in network]
            rounds, rest = divmod(end - begin, len(network))
            found += rounds * sum(writes) + sum(writes[:rest])
        return found


def small_bytes(plan: Plan, device_kind: str) -> int | None:
    """Bytes of all weights where they are small and the models run on the CPU, else None.

    Synthetic models have no weights and nothing to gain; of a user's own models nothing is known.
    """
    if device_kind != "cpu":
        return None
    try:
        total = sum(registry.size_bytes(spec) for spec in plan.specs.values())
    except ModelError:
        return None
    return total if 0 < total <= SMALL_BYTES else None


def weight_bytes(plan: Plan, name: str) -> int:
    """Bytes of a model's weights; 0 where only a constructed model says it, as one of a user's class."""
    try:
        return registry.size_bytes(plan.specs[name])
    except ModelError:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedConfig:
    """A config and the specs of its models, resolved once: when it was checked, or as it is needed.

    is_once, keeps_shapes, starts, origin: as in `Plan`.
    """

    config: ExperimentConfig
    models: registry.Resolver
    is_once: bool = False
    keeps_shapes: bool = False
    starts: Starts | None = None
    origin: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, config: ExperimentConfig, *, ask: bool) -> CheckedConfig:
        """A config that was not read from a file here, but comes from a store or from Python.

        Args:
            ask: as in `check_config`.
        """
        names = registry.Names(
            variants=config.models,
            model_folder=config.model_folder,
            base_folder=config.base_folder,
            ask=ask,
            hidden=config.notify.to if config.notify else (),
            has_begun=True,
        )
        return cls(config=config, models=registry.Resolver(names))

    @classmethod
    def from_python(cls, config: ExperimentConfig) -> CheckedConfig:
        """A config that nobody has looked at. Raises ConfigError for models that do not fit."""
        raw = config.model_dump(mode="json", exclude_none=True)
        models = registry.resolver_of(raw, ask=True)
        if found := registry.check_config(raw, models):
            source = Source(name=f"the config of {config.name}", text="")
            raise ConfigError(render(found, Document(source=source)))
        return cls(config=config, models=models)


def check_config(
    given: str | PathLike[str] | ExperimentConfig,
    overrides: Sequence[str] = (),
    *,
    ask: bool = False,
    store: Callable[[Path | None], Path] = lambda named: named or DEFAULT_STORE,
) -> CheckedConfig:
    """Read a config (YAML, JSON, TOML), apply dotted overrides, check it against the known models.

    Args:
        given: the file, or a config such as a store keeps.
        ask: run users' files, in short-lived processes, where their sources do not tell what classes are.
            Otherwise such classes stay unknown, and are not checked.
        store: the folder of the store whose experiments prompts may name, given the one of the config.

    Raises: ConfigError with all mistakes and their places.
    """
    found: list[registry.Resolver] = []

    def check(raw: dict[str, Any]) -> list[Problem]:
        found.append(registry.resolver_of(raw, ask=ask))
        return registry.check_config(raw, found[0])

    starts: list[Starts] = []

    def origins() -> Starts:
        from panic.engine.starts import Starts

        if not starts:
            starts.append(Starts(store=store))
        return starts[0]

    config = load(given, overrides, check, {"pocket-world": _pocket_world}, origins)
    return CheckedConfig(config=config, models=found[0], starts=starts[0] if starts else None)


def load_config(
    path: str | PathLike[str], overrides: Sequence[str] = (), *, ask: bool = False
) -> ExperimentConfig:
    """Read and check a config as `check_config` does, and return it alone."""
    return check_config(path, overrides, ask=ask).config


def _pocket_world(split: str, n: int, seed: int) -> list[str]:
    from panic.pocket import world

    try:
        return world.prompts(split, n, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def stored_runs(rows: Iterable[RunRow]) -> list[NewRun]:
    """The runs that a store has been asked for, for a plan of exactly these."""
    names = NewRun.__slots__
    return [NewRun(**{name: getattr(row, name) for name in names}) for row in rows]


def begun_runs(rows: Iterable[RunRow]) -> list[NewRun]:
    """The runs as far as they have come, for a plan that takes more of them and goes on with none."""
    found = [row for row in rows if row.num_steps]
    lengths = [row.num_steps if row.state == "running" else row.max_length for row in found]
    return [replace(run, max_length=n) for run, n in zip(stored_runs(found), lengths, strict=True)]


def run_key(run: NewRun | RunRow) -> tuple[tuple[str, ...], str, int, int, str]:
    """What tells the runs of an experiment apart."""
    return run.network, run.prompt, run.seed, run.repeat, run.arm


def expanded_runs(config: ExperimentConfig) -> list[NewRun]:
    """Return the runs that a config asks for: networks x prompts x seeds x repeats x arms.

    Repeats count for fresh noise only: repeats of a fixed seed would be copies. Branches of failed runs are
    of these runs alone: nobody asked for them of others.
    """
    arms = config.arms_of_all
    return [
        NewRun(
            network=tuple(network),
            prompt=prompt,
            seed=seed,
            repeat=repeat,
            max_length=config.max_length,
            arm=arm,
        )
        for network in config.networks
        for prompt in config.prompts
        for seed in config.seeds
        for repeat in range(config.repeats if seed == FRESH else 1)
        for arm in arms
    ]


def joined_runs(asked: Iterable[NewRun], stored: Iterable[RunRow]) -> list[NewRun | RunRow]:
    """The runs of the store and those that are asked for, each once and as long as either wants it."""
    known = {run_key(row): row for row in stored}
    found: dict[Any, NewRun | RunRow] = {**known}
    for run in asked:
        row = known.get(run_key(run))
        if row is None or (row.max_length < run.max_length and row.state not in CUT_SHORT):
            found[run_key(run)] = run
    return list(found.values())


def open_runs(plan: Plan, stored: Iterable[RunRow]) -> list[NewRun | RunRow]:
    """Those of the joined runs that have not ended."""
    return [
        run
        for run in joined_runs(plan.runs, stored)
        if isinstance(run, NewRun) or run.state in ("todo", "running")
    ]


def make_plan(
    config: ExperimentConfig | CheckedConfig,
    device_kind: str = "cpu",
    runs: Sequence[NewRun] | None = None,
) -> Plan:
    """Resolve a config's models, and expand its runs; or take exactly these runs of its networks.

    The device's kind decides the models' dtypes where the config does not.
    Raises: NotFound for a model that is not known (load_config tells such mistakes with their places).
    """
    checked = config if isinstance(config, CheckedConfig) else CheckedConfig.of(config, ask=True)
    config = checked.config
    generative = dict.fromkeys(name for network in config.networks for name in network)
    arms = config.interventions
    for arm in arms.values():
        generative.update(dict.fromkeys(models_of((), arm)))

    def resolve(name: str) -> ModelSpec:
        return checked.models.resolve(name, device_kind.split()[0])

    return Plan(
        config=config,
        generative={name: resolve(name) for name in generative},
        embedding={name: resolve(name) for name in config.embeddings},
        runs=expanded_runs(config) if runs is None else list(runs),
        arms=arms,
        are_runs_given=runs is not None,
        is_once=checked.is_once,
        keeps_shapes=checked.keeps_shapes,
        starts=checked.starts,
        origin=checked.origin,
    )


def left_alone(plan: Plan, rows: Iterable[RunRow], known: ExperimentConfig | None = None) -> list[str]:
    """Sentences on what an experiment has been asked for before and this plan does not ask for.

    There are none where the runs were given: whoever chose them knows what they leave.

    known: the union of what it was asked for.
    """
    if plan.are_runs_given:
        return []
    config = plan.config
    of_all = set(config.arms_of_all)
    asked = {run_key(run): run for run in plan.runs}
    others: Counter[str] = Counter()
    unfinished: Counter[str] = Counter()
    num_longer = 0
    for row in rows:
        is_unfinished = row.state in ("todo", "running")
        run = asked.get(run_key(row))
        if run is not None:
            num_longer += is_unfinished and row.max_length > run.max_length
            continue
        what = "seeds or repeats" if row.prompt in config.prompts else "prompts"
        what = what if row.arm in of_all else "arms"
        what = what if list(row.network) in config.networks else "networks"
        others[what] += 1
        unfinished[what] += is_unfinished
    found = [
        f"{number:,} runs of other {what} are left alone, "
        + (f"{unfinished[what]:,} of them unfinished" if unfinished[what] else "all of them ended")
        for what, number in others.items()
    ]
    if num_longer:
        found.append(
            f"{num_longer:,} unfinished runs were to be longer and are not continued beyond"
            f" {config.max_length:,} steps"
        )
    for name in TAKEN_OF_RUNS if known is not None else ():
        if dropped := len(getattr(known, name)) - len(getattr(config, name)):
            found.append(f"{dropped:,} of the {name} asked for before are left alone")
    return found


def more_than_asked(config: ExperimentConfig, rows: Sequence[RunRow]) -> str:
    """Return a sentence on what performing a union as a config adds to the experiment's runs, or "".

    Networks and prompts that were asked for at different times are asked for together then, all of them
    with all seeds and repeats and at the greatest length.
    """
    known = {run_key(row) for row in rows}
    added = [run for run in joined_runs(expanded_runs(config), rows) if isinstance(run, NewRun)]
    num_new = sum(run_key(run) not in known for run in added)
    num_longer = len(added) - num_new
    does = [f"adds {num_new:,} runs"] if num_new else []
    does += [f"continues {num_longer:,} further"] if num_longer else []
    if not does:
        return ""
    return (
        f"this config joins what {config.name} was asked for at different times, {len(rows):,} runs in all:"
        f" performing it {' and '.join(does)}"
    )


def warn_of_what_stays(plan: Plan, row: ExperimentRow, rows: Sequence[RunRow]) -> None:
    """Say what performing a plan leaves alone of an experiment, whose union has the plan's config already.

    Args:
        rows: the runs that it had before.
    """
    if found := left_alone(plan, rows, stored(row.config, row.name)):
        is_open = any(run.state in ("todo", "running") for run in rows) or "asked for before" in found[-1]
        way = f" (panic resume {row.name} performs all)" if is_open else ""
        log.warning("%s: %s%s", row.name, "; ".join(found), way)


def warn_of_short_runs(plan: Plan) -> None:
    """Say which runs are too short: for one window of the diagrams, which they have none of then, or for what
    was to step into them."""
    most = max((run.max_length for run in plan.runs), default=0)
    for name, arm in plan.arms.items():
        if late := [str(one.first) for one in arm if one.first >= most]:
            log.warning(
                "arm %s: runs have %d steps, and nothing steps in before step %s", name, most, ", ".join(late)
            )
    for settings in plan.config.diagrams:
        _warn_of_short_runs(plan, settings)


def _warn_of_short_runs(plan: Plan, settings: DiagramSettings) -> None:
    window = settings.window
    if window is None:
        return
    longest: dict[tuple[tuple[str, ...], str], NewRun] = {}
    for run in plan.runs:
        key = run.network, run.arm
        if key not in longest or longest[key].max_length < run.max_length:
            longest[key] = run
    for run in longest.values():
        if (num_points := plan.num_outputs(run, settings.modality)) < window.span:
            log.warning(
                "%s: a run has %d %s outputs, and a window of the diagrams spans %d: no run has a diagram",
                " → ".join(run.network), num_points, settings.modality, window.span,
            )  # fmt: skip


def intervention_seed(root: bytes, step: int, place: int) -> int:
    """The seed of what steps into a seed -1 run before a step, as the `place`-th: the same in all arms."""
    given = step.to_bytes(8, "little") + place.to_bytes(8, "little")
    digest = hashlib.blake2b(given, key=root, digest_size=8, person=b"intervention").digest()
    return int.from_bytes(digest, "little") & _MASK


def run_root(root_seed: int, network: Sequence[str], prompt: str, repeat: int) -> bytes:
    """The root of a seed -1 run's noise: 16 bytes, the same in all arms, so that they can be compared."""
    key = json.dumps([root_seed, list(network), prompt, repeat], ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(key.encode(), digest_size=16, person=b"panic run root").digest()


def step_seed(root: bytes, step: int) -> int:
    """The seed of one step of a seed -1 run: 0 <= seed < 2**63 (fits SQLite and torch)."""
    digest = hashlib.blake2b(step.to_bytes(8, "little"), key=root, digest_size=8).digest()
    return int.from_bytes(digest, "little") & _MASK
