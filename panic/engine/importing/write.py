"""What was imported becomes an experiment, or goes on in the one of its name, in one idempotent operation.

Everything is checked first: the rows among themselves, and against what the store has of these runs, which
are known by network, prompt, seed and repeat. Then each run is written in commits of a few steps, so that a
killed import goes on where it stopped when it is repeated.

    found = read_import(ImportOptions(name="chains", path=Path("chains.jsonl")))
    write_import(store, found)
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from panic.config import ExperimentConfig
from panic.config.extent import EXTENT_JOINS
from panic.engine.contents import Output, finish
from panic.engine.importing.images import read_image
from panic.engine.importing.rows import Row, read_rows
from panic.engine.importing.spool import Spool
from panic.engine.importing.trajectories import Given, Show, Trajectory, check_rows
from panic.engine.pinning import Pin, begin, known_config, pin
from panic.engine.plan import FRESH, CheckedConfig, make_plan, run_key
from panic.engine.session import LOST
from panic.errors import ConfigError, ConflictError, Interrupted
from panic.models import registry
from panic.models.imported import GIVEN, PREFIX
from panic.store import Commit, Store, contents, missing, reading, writing
from panic.store.codec import readable
from panic.store.provenance import provenance
from panic.store.records import ExperimentRow, NewBatch, NewInvocation, RunRow

COMMIT_STEPS = 64
"""Steps of a run that are read at a time: their images are in memory until they are stored."""
COMMIT_ROWS = 4096
COMMIT_BYTES = 2**24
"""Texts of many runs are stored together, up to so many rows and bytes: a transaction takes as long as some
hundred rows."""
SHOWN_PROBLEMS = 20
SHOWN_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What an import says of its file and of the process that made the trajectories.

    name: that of the experiment. path: a file, or a folder of folders of images. columns: as in `read_rows`.
    about: what else is known of the models, for people. deterministic: the same model, seed and input always
    gave the same output.
    """

    name: str
    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    about: str | None = None
    deterministic: bool = False

    @property
    def folder(self) -> Path:
        """What paths of images refer to."""
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What is to be written: trajectories without mistakes, and the config of their experiment."""

    options: ImportOptions
    config: ExperimentConfig
    trajectories: list[Trajectory]


def nothing(what: str, done: int, total: int) -> None:
    """Show nothing."""


def read_import(
    options: ImportOptions,
    show: Show = nothing,
    remark: Callable[[str], None] = lambda text: None,
) -> Import:
    """What a file or folder has to import. Raises ConfigError with all that is wrong, by its place.

    Args:
        show, remark: told how far it is, and what of the file is left out.
    """
    problems: list[str] = []
    rows = read_rows(options.path, options.columns, problems, remark)
    with ExitStack() as refused:
        spool = refused.enter_context(closing(Spool()))
        spool.add(_shown(rows, show))
        found = check_rows(
            spool,
            options.folder,
            deterministic=options.deterministic,
            problems=problems,
            show=show,
        )
        _refuse(problems, "Nothing was imported.")
        config = _config(found, options)
        refused.pop_all()  # the trajectories hold it from now on
    return Import(options=options, config=config, trajectories=found)


def _shown(rows: Iterable[Row], show: Show) -> Iterator[Row]:
    """The rows, while it is shown how many have been read."""
    for number, row in enumerate(rows, 1):
        if number % SHOWN_ROWS == 0:
            show("rows read", number, 0)
        yield row


def write_import(store: Store, found: Import, show: Show = nothing) -> int:
    """Write what an experiment lacks of an import, in a store that is open for writing; its row.

    Raises ConflictError, before anything is written, for an experiment that was computed, was imported with
    something else said of it, or has other outputs in these runs. `show` may raise Interrupted.
    """
    options, trajectories = found.options, found.trajectories
    runs = [one.run for one in trajectories]
    row = reading.named(store, options.name)
    config = found.config if row is None else _going_on(store, row, found)
    plan = make_plan(CheckedConfig.of(config, ask=False), GIVEN, runs)
    fingerprints = registry.fingerprints(plan.specs)
    experiment = begin(store, plan, fingerprints, GIVEN)
    pins = pin(store, experiment, plan, fingerprints, GIVEN)
    ids = writing.add_runs(store, experiment, runs)
    said = {
        "path": readable(str(options.path)),
        "columns": dict(options.columns),
        "about": options.about,
        "deterministic": options.deterministic,
    }
    with writing.recorded_session(
        store,
        experiment,
        shlex.join(sys.argv),
        provenance() | {"import": said},
        config.model_dump(mode="json"),
    ) as session:
        writer = _Writer(store=store, session=session, folder=options.folder, pins=pins)
        rows = {known.id: known for known in reading.runs(store, experiment)}

        def commits() -> Iterator[Commit]:
            total, done = sum(map(len, trajectories)), 0
            for id, one in zip(ids, trajectories, strict=True):
                for commit in writer.commits(rows[id], one):
                    show("steps written", done + commit.invocations[0].step, total)
                    yield commit
                done += len(one)

        for commit in _joined(commits()):
            writing.commit(store, commit)
        writer.bring_back(experiment, trajectories)
    return experiment


def _joined(commits: Iterable[Commit]) -> Iterator[Commit]:
    """Join commits of texts; one with images is not joined with what comes after it.

    What is there when an interruption comes is still given.
    """
    joined, num_bytes = Commit(), 0
    try:
        for commit in commits:
            joined.extend(commit)
            sizes = (COMMIT_BYTES if output.text is None else len(output.text) for output in commit.outputs)
            num_bytes += sum(sizes)
            if joined.num_rows > COMMIT_ROWS or num_bytes >= COMMIT_BYTES:
                yield joined
                joined, num_bytes = Commit(), 0
    except Interrupted:
        if joined.invocations:
            yield joined
        raise
    if joined.invocations:
        yield joined


def _refuse(problems: Sequence[str], hint: str) -> None:
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        shown = [*problems[:SHOWN_PROBLEMS], *([f"and {more:,} more"] if more > 0 else [])]
        raise ConfigError("\n".join(shown), hint=hint)


def _config(trajectories: Sequence[Trajectory], options: ImportOptions) -> ExperimentConfig:
    """The config of an imported experiment: its models are variants that say what the import says."""
    runs = [one.run for one in trajectories]
    said: dict[str, Any] = {"deterministic": options.deterministic}
    if options.about is not None:
        said["about"] = options.about
    outputs = {
        one.model(step): str(modality) for one in trajectories for step, modality in enumerate(one.modalities)
    }
    try:
        return ExperimentConfig.model_validate(
            {
                "name": options.name,
                "networks": [list(network) for network in dict.fromkeys(run.network for run in runs)],
                "models": {
                    model: {"base": f"{PREFIX}{modality}", "called": model, **said}
                    for model, modality in outputs.items()
                },
                "prompts": list(dict.fromkeys(run.prompt for run in runs)),
                "seeds": sorted({run.seed for run in runs}),
                "repeats": max((run.repeat + 1 for run in runs if run.seed == FRESH), default=1),
                "max_length": max(run.max_length for run in runs),
            }
        )
    except ValidationError as error:
        told = [f"{'.'.join(map(str, item['loc']))} {item['msg']}".strip() for item in error.errors()]
        raise ConfigError("; ".join(told), hint="Nothing was imported.") from None


def _going_on(store: Store, row: ExperimentRow, found: Import) -> ExperimentConfig:
    """The config of an import into an experiment that is there: what no import says stays as it is.

    Raises ConflictError for an experiment that was computed, or has other outputs.
    """
    known = known_config(row)
    if known is not None and not all(map(partial(_is_imported, known), chain(*known.networks))):
        raise ConflictError(
            f"{row.name} was not imported: its outputs are computed.", hint="Give another --name."
        )
    _refuse_other_outputs(store, row.id, found.trajectories)
    said = {name: getattr(found.config, name) for name in (*EXTENT_JOINS, "models")}
    return found.config if known is None else known.model_copy(update=said)


def _is_imported(config: ExperimentConfig, name: str) -> bool:
    return name in config.models and config.models[name].base.startswith(PREFIX)


def _refuse_other_outputs(store: Store, experiment: int, trajectories: Sequence[Trajectory]) -> None:
    """Raise ConflictError where a run is in the store with another output than is given now."""
    known = {run_key(row): row for row in reading.runs(store, experiment)}
    problems = []
    for one in trajectories:
        row = known.get(run_key(one.run))
        stored = [] if row is None else [step.output for step in contents.invocations(store, row.id)]
        given = (one.digest(step).hex() for step in range(len(one)))
        other = (step for step, pair in enumerate(zip(given, stored, strict=False)) if pair[0] != pair[1])
        if (step := next(other, None)) is not None:
            where = one.outputs[step].row.where
            problems.append(f"{where}: the store has another output at this step of run {one.name}")
    if problems:
        shown = problems[:SHOWN_PROBLEMS]
        raise ConflictError("\n".join(shown), hint="Nothing was imported. Give another --name.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """What writes the steps of runs: its session, and where images are read a second time."""

    store: Store
    session: int
    folder: Path
    pins: Mapping[str, Pin]

    def commits(self, row: RunRow, one: Trajectory) -> Iterator[Commit]:
        """The steps that a stored run lacks, a few at a time; with the last of them where it got stuck."""
        if row.num_steps >= len(one):
            return
        steps = [*enumerate(zip(one.inputs, one.outputs, strict=True))][row.num_steps :]
        for start in range(0, len(steps), COMMIT_STEPS):
            chunk = steps[start : start + COMMIT_STEPS]
            sizes = Counter(one.model(step) for step, _ in chunk)
            batches = {model: self._batch(model, size) for model, size in sizes.items()}
            yield Commit(
                batches=list(batches.values()),
                outputs=[self._output(given).as_row() for _, (_, given) in chunk],
                invocations=[
                    NewInvocation(
                        *(row.id, step, before, given.digest),
                        one.run.seed if one.run.seed != FRESH else given.row.seed or 0,
                        batches[one.model(step)].id,
                    )
                    for step, (before, given) in chunk
                ],
                stuck=one.stuck_row(row.id) if start + len(chunk) == len(steps) else [],
            )

    def bring_back(self, experiment: int, trajectories: Sequence[Trajectory]) -> None:
        """Write images again that the store has lost."""
        lost = set(missing.images(self.store, experiment))
        for given in (given for one in trajectories if lost for given in one.outputs):
            if given.digest in lost:
                lost.remove(given.digest)
                writing.commit(self.store, Commit(outputs=[self._output(given).as_row()]))
                writing.forget_failures(self.store, experiment, LOST)

    def _batch(self, model: str, size: int) -> NewBatch:
        return NewBatch(
            id=writing.next_batch_id(self.store),
            session=self.session,
            model=self.pins[model].model,
            epoch=self.pins[model].epoch,
            device=GIVEN,
            size=size,
            padded_size=size,
            started_at=time.time(),
            duration_s=0.0,
        )

    def _output(self, given: Given) -> Output:
        """The content of an output; of an image the file is read again, and must not have changed."""
        row = given.row
        content = row.text if row.image is None else read_image(self.folder, row.image)
        made = finish(content, given.modality, False)
        if not isinstance(made, Output) or made.digest != given.digest:
            raise ConfigError(f"{row.where}: {row.image} was changed while it was imported")
        return made
