"""From rows to the runs of an experiment, with everything checked before anything is written.

A run begins with a prompt: what its rows say under `prompt`, else the text of its step 0; its outputs are the
steps after that, each made from the one before. Its network is what its rows say under `network`, else the
shortest list of models that repeats, else `imported-text`, `imported-image` or both in turn.

With noise in it (by default) a process may go on elsewhere from a text that came back, so its runs have fresh
seeds and are never stuck. Of a deterministic process the same model, seed and input always give the same
output; that is checked, and such runs end where their state comes back.

Of a run that is read its digests stay in memory; its rows are read again when they are asked for.

    trajectories = check_rows(spool, Path("folder"), deterministic=False, problems=problems)
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from panic.config.schema import RESERVED_PREFIXES
from panic.engine.contents import Rejected, finish
from panic.engine.importing.images import read_image
from panic.engine.importing.rows import Row
from panic.engine.importing.spool import Spool
from panic.engine.plan import FRESH
from panic.models.imported import PREFIX
from panic.models.protocol import Modality
from panic.models.table import TABLE
from panic.store.codec import is_image_prompt, prompt_digest
from panic.store.records import NewRun, NewStuck
from panic.store.stuck import Stuck, first_repeat

DIGEST_BYTES = 32
UNSAID = -1
"""The repeat of a run whose rows say none."""
Show = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how many in all; 0 where nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One given output and its digest."""

    row: Row
    modality: Modality
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One run that is to be imported: its name in the file, and where its outputs are, in their order.

    where: the place of its first output. modalities: of the outputs of its first turn through its network.
    digests: one bytes object, 32 bytes per output. places: of its outputs' rows in the spool.
    """

    name: str
    where: str
    run: NewRun
    modalities: tuple[Modality, ...]
    digests: bytes = field(repr=False)
    places: array[int] = field(repr=False)
    spool: Spool = field(repr=False)
    stuck: Stuck | None = None

    def __len__(self) -> int:
        return len(self.places)

    def digest(self, step: int) -> bytes:
        """The digest of the output of a step."""
        return self.digests[step * DIGEST_BYTES : (step + 1) * DIGEST_BYTES]

    @property
    def outputs(self) -> list[Given]:
        """What each step has put out, read once more."""
        return [
            Given(row=row, modality=_modality(row), digest=self.digest(step))
            for step, row in enumerate(self.spool.rows(self.places))
        ]

    @property
    def inputs(self) -> list[bytes]:
        """The digests of what each step was made from."""
        return [prompt_digest(self.run.prompt), *map(self.digest, range(len(self) - 1))]

    def model(self, step: int) -> str:
        """The model of a step."""
        return self.run.network[step % len(self.run.network)]

    def stuck_row(self, run: int) -> list[NewStuck]:
        """The record of where it got stuck, if so."""
        cycle = self.stuck
        return [NewStuck(run=run, entry_step=cycle.entry_step, period=cycle.period)] if cycle else []


def check_rows(
    spool: Spool,
    folder: Path,
    *,
    deterministic: bool,
    problems: list[str],
    show: Show = lambda what, done, total: None,
) -> list[Trajectory]:
    """The trajectories in rows; whatever is wrong with them becomes a line among the problems.

    Args:
        folder: what the paths of images refer to, and what they must not leave.
    """
    found: list[Trajectory] = []
    turn: Counter[tuple[tuple[str, ...], str]] = Counter()
    modalities = _Modalities()
    num_done = 0
    for name, places in spool.runs.items():
        show("steps checked", num_done, spool.num_rows)
        num_done += len(places)
        before = len(problems)
        made = _trajectory(name, spool, folder, problems)
        if made is None or len(problems) > before:
            continue
        one, outputs = made
        modalities.look(one, outputs)
        key = one.run.network, one.run.prompt
        found.append(_told_apart(one, turn[key], deterministic=deterministic))
        turn[key] += 1
    problems += modalities.problems(found)
    _find_copies(found, problems)
    if deterministic:
        _find_noise(found, problems)
        found = [_until_stuck(one) for one in found]
    return found


def _trajectory(
    name: str, spool: Spool, folder: Path, problems: list[str]
) -> tuple[Trajectory, list[Given]] | None:
    """One run with the seed and repeat that its rows say, and its outputs."""
    places = spool.runs[name]
    rows = list(spool.rows(places))
    place_of = {row.step: place for row, place in zip(rows, places, strict=True)}
    prompts = _only("prompt", rows, problems)
    steps = _in_order(name, rows, problems)
    seeds, repeats = _only("seed", rows, problems), _only("repeat", rows, problems)
    if prompts:
        prompt = prompts[0]
    else:
        first, steps = steps[0], steps[1:]
        if first.text is None:
            problems.append(f"{first.where}: run {name} begins with an image: it needs a prompt")
            return None
        prompt = first.text
    if reason := _text_problem(prompt):
        problems.append(f"{rows[0].where}: the prompt of run {name} {reason}")
        return None
    if not steps:
        problems.append(f"{rows[0].where}: run {name} has no outputs after its prompt")
    outputs = [made for row in steps if (made := _given(row, folder, problems))]
    network = _network(name, steps, problems) if len(outputs) == len(steps) and steps else ()
    if not network:
        return None
    run = NewRun(
        network=network,
        prompt=prompt,
        seed=seeds[0] if seeds else 0,
        repeat=repeats[0] if repeats else UNSAID,
        max_length=len(outputs),
    )
    one = Trajectory(
        name=name,
        where=outputs[0].row.where,
        run=run,
        modalities=tuple(given.modality for given in outputs[: len(network)]),
        digests=b"".join(given.digest for given in outputs),
        places=array("q", [place_of[row.step] for row in steps]),
        spool=spool,
    )
    return one, outputs


def _only(field: str, rows: list[Row], problems: list[str]) -> list[Any]:
    """The one value that rows of a run have of a field, as a list; empty if no row says any."""
    said = {getattr(row, field): row for row in reversed(rows) if getattr(row, field) is not None}
    values = list(reversed(said))
    for other in values[1:]:
        problems.append(
            f"{said[other].where}: run {rows[0].run} has another {field} at {said[values[0]].where}"
        )
    return values[:1]


def _in_order(name: str, rows: list[Row], problems: list[str]) -> list[Row]:
    """The rows of a run by their steps, of which none may be missing or doubled."""
    known: dict[int, Row] = {}
    for row in rows:
        if row.step in known:
            problems.append(f"{row.where}: run {name} has step {row.step} at {known[row.step].where} already")
        known.setdefault(row.step, row)
    ordered = [known[step] for step in sorted(known)]
    expected = 0
    for row in ordered:
        if row.step != expected:
            lack = (
                f"step {expected} is"
                if row.step == expected + 1
                else f"steps {expected} to {row.step - 1} are"
            )
            problems.append(f"{row.where}: {lack} missing in run {name} before its step {row.step}")
        expected = row.step + 1
    return ordered


def _text_problem(text: str) -> str:
    """Why a text cannot be a prompt or a name; empty if it can."""
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "has the character NUL"
    if is_image_prompt(text):
        return "stands for an image of a store"
    return "is not valid Unicode" if any("\ud800" <= char <= "\udfff" for char in text) else ""


def _modality(row: Row) -> Modality:
    return Modality.TEXT if row.image is None else Modality.IMAGE


def _given(row: Row, folder: Path, problems: list[str]) -> Given | None:
    """The output of a row, if it can be stored."""
    modality = _modality(row)
    try:
        content = row.text if row.image is None else read_image(folder, row.image)
    except ValueError as error:
        problems.append(f"{row.where}: image {row.image!r}: {error}")
        return None
    made = finish(content, modality, False)
    if isinstance(made, Rejected):
        problems.append(f"{row.where}: {made.reason}")
        return None
    return Given(row=row, modality=modality, digest=made.digest)


def _network(name: str, steps: list[Row], problems: list[str]) -> tuple[str, ...]:
    """The network of a run; empty, with a problem, if its rows do not say one."""
    said = _only("network", steps, problems)
    models = [row.model for row in steps]
    named = [model for model in models if model is not None]
    network: tuple[str, ...]
    if said:
        network = said[0]
        for step, row in enumerate(steps):
            if row.model not in (None, network[step % len(network)]):
                problems.append(
                    f"{row.where}: the network of run {name} has another model at its step {row.step}"
                )
    elif named:
        network = tuple(named[: _period(named)])
        if len(named) < len(models):
            row = steps[models.index(None)]
            problems.append(f"{row.where}: model is missing, and other steps of run {name} have one")
    else:
        network = _unnamed(name, steps, problems)
    for model in dict.fromkeys(network):
        reason = _text_problem(model)
        if model.startswith((*RESERVED_PREFIXES, PREFIX)) or model in TABLE:
            reason = "is a name that panic knows as another's: give it a name of its own"
        if reason:
            problems.append(f"{steps[0].where}: the model {model!r} {reason}")
    return network


def _period(values: Sequence[str]) -> int:
    """The length of the shortest list that, repeated, begins like these values (Knuth, Morris and Pratt)."""
    border = [0] * len(values)
    for place in range(1, len(values)):
        known = border[place - 1]
        while known and values[place] != values[known]:
            known = border[known - 1]
        border[place] = known + (values[place] == values[known])
    return len(values) - border[-1]


def _unnamed(name: str, steps: list[Row], problems: list[str]) -> tuple[str, ...]:
    """The network of a run that names no models: texts, images, or both in turn."""
    kinds = ["imported-text" if row.image is None else "imported-image" for row in steps]
    for step in range(2, len(kinds)):
        if kinds[step] != kinds[step - 2]:
            problems.append(
                f"{steps[step].where}: run {name} mixes texts and images in no order: say by which model"
            )
            return ()
    return tuple(dict.fromkeys(kinds[:2]))


def _told_apart(one: Trajectory, turn: int, *, deterministic: bool) -> Trajectory:
    """A run as its experiment knows it: by its seed; with noise by its repeat, counted where unsaid."""
    if deterministic:
        return replace(one, run=replace(one.run, repeat=0))
    repeat = turn if one.run.repeat == UNSAID else one.run.repeat
    return replace(one, run=replace(one.run, seed=FRESH, repeat=repeat))


class _Modalities:
    """What each model puts out, as its first output says, and where another says otherwise."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Modality, str]] = {}
        self._mixed: list[str] = []

    def look(self, one: Trajectory, outputs: Sequence[Given]) -> None:
        """Compare the outputs of a run with what is known."""
        for step, given in enumerate(outputs):
            model, where = one.model(step), given.row.where
            known, at = self._first.setdefault(model, (given.modality, where))
            if known is not given.modality:
                self._mixed.append(
                    f"{where}: {model} gives the modality {given.modality} here, and {known} at {at}"
                )

    def problems(self, found: Sequence[Trajectory]) -> list[str]:
        """All that is wrong, also the models of networks that put out nothing."""
        silent: dict[str, str] = {}
        for one in found:
            for model in one.run.network:
                if model not in self._first:
                    silent.setdefault(model, one.where)
        return self._mixed + [
            f"{where}: {model} gives no output in any run: leave it out" for model, where in silent.items()
        ]


def _find_copies(found: list[Trajectory], problems: list[str]) -> None:
    known: dict[tuple[object, ...], Trajectory] = {}
    for one in found:
        run = one.run
        other = known.setdefault((run.network, run.prompt, run.seed, run.repeat), one)
        if other is not one:
            what = "repeat" if run.seed == FRESH else "seed"
            problems.append(
                f"{one.where}: run {one.name} is of the same network, prompt and {what} as run {other.name}"
            )


def _find_noise(found: list[Trajectory], problems: list[str]) -> None:
    """Find what contradicts that the same model, seed and input give the same output.

    16 bytes stand for each of the three together, so that a million steps take 50 MB.
    """
    keys, outputs = bytearray(), bytearray()
    for one in found:
        turns = [f"{model}\0{one.run.seed}\0".encode() for model in one.run.network]
        for step, before in enumerate(one.inputs):
            asked = turns[step % len(turns)] + before
            keys += hashlib.blake2b(asked, digest_size=16).digest()
            outputs += one.digest(step)[:16]
    _, first, group = np.unique(np.frombuffer(keys, "S16"), return_index=True, return_inverse=True)
    given = np.frombuffer(outputs, "S16")
    others = np.flatnonzero(given != given[first[group]])
    ends = np.cumsum([len(one) for one in found])
    places = [(_place(ends, int(step)), _place(ends, int(first[group[step]]))) for step in others]
    for turn, pairs in groupby(places, key=lambda pair: pair[0][0]):
        here = found[turn].outputs
        for (_, step), (other, known) in pairs:
            problems.append(
                f"{here[step].row.where}: from the same input another output came at"
                f" {found[other].outputs[known].row.where}: the process is not deterministic"
            )


def _place(ends: np.ndarray[Any, Any], number: int) -> tuple[int, int]:
    """Which run the output of this number is of, and its step."""
    run = int(np.searchsorted(ends, number, side="right"))
    return run, number - (int(ends[run - 1]) if run else 0)


def _until_stuck(one: Trajectory) -> Trajectory:
    """A run of a deterministic process, which ends where its state comes back."""
    inputs = [*one.inputs, one.digest(len(one) - 1)]
    cycle = first_repeat(inputs, len(one.run.network))
    if cycle is None:
        return one
    end = cycle.entry_step + cycle.period
    return replace(one, digests=one.digests[: end * DIGEST_BYTES], places=one.places[:end], stuck=cycle)
