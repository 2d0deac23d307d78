"""The course of stored runs, for those who check them: the models of their steps, and what stepped in.

for problem in intervention_problems(store, "SELECT id FROM run"): print(problem)
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from panic.arms import BASELINE, Arm, due, maker, model_at, models_of, period_of, settled_step
from panic.store.codec import text_digest
from panic.store.reading import arms
from panic.store.store import Store


class Made(NamedTuple):
    """A stored intervention: outputs by their rows; the shape epoch of its call, if a model was called."""

    step: int
    place: int
    kind: str
    input: int
    output: int
    digest: bytes
    epoch: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a run goes through: its network, what its arm means (None: nobody knows), and what was made of it.

    Of a network that cannot be read there are no names.
    """

    network: list[str]
    arm: Arm | None
    made: list[Made] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """The models that the run calls."""
        return models_of(self.network, self.arm or ())

    @property
    def period(self) -> int:
        """After how many steps the same follows."""
        return period_of(self.network, self.arm or ())

    def maker(self, step: int, place: int | None = None) -> str:
        """The model of a step, or of what stepped in before it as the `place`-th; empty for none."""
        return maker(self.network, self.arm or (), step, place)

    def settled_from(self, epochs: Sequence[int]) -> int:
        """The step from whose input on the future follows, given the epochs of the steps.

        That is after the last single intervention, and where every model stayed in one shape epoch.
        """
        arm = self.arm or ()
        calls = [(step, False, model_at(self.network, arm, step), epoch) for step, epoch in enumerate(epochs)]
        calls += [
            (one.step, True, maker(self.network, arm, one.step, one.place), one.epoch)
            for one in self.made
            if one.epoch is not None
        ]
        last: dict[str, int] = {}
        for step, is_before, model, epoch in sorted(
            calls, key=lambda call: (call[0], not call[1]), reverse=True
        ):
            if epoch != last.setdefault(model, epoch):
                return max(step if is_before else step + 1, settled_step(arm))
        return settled_step(arm)

    def input_of(self, step: int, output: int) -> int | None:
        """The row of the input of a step after which none is stored, given the last output.

        None where something has yet to step in.
        """
        there = [one for one in self.made if one.step == step]
        if len(there) < len(due(self.arm or (), step)):
            return None
        return there[-1].output if there else output


def courses(store: Store, runs: str) -> dict[int, Course]:
    """The courses of the runs that a query selects."""
    made: dict[int, list[Made]] = {}
    for run, *row in store.db.rows(
        "SELECT i.run, step, place, kind, input, output, digest, epoch FROM intervention AS i"
        " JOIN output ON output.id = output LEFT JOIN batch ON batch.id = batch"
        f" WHERE i.run IN ({runs}) ORDER BY i.run, step, place"
    ):
        made.setdefault(run, []).append(Made(*row))
    known: dict[int, dict[str, Arm]] = {}
    found = {}
    for run, experiment, network, name in store.db.rows(
        f"SELECT id, experiment, CAST(network AS BLOB), CAST(arm AS BLOB) FROM run WHERE id IN ({runs})"
    ):
        arm: Arm | None = ()
        if name != BASELINE.encode():
            if experiment not in known:
                known[experiment] = arms(store, experiment)
            arm = known[experiment].get(name.decode(errors="replace"))
        found[run] = Course(network=network_of(network), arm=arm, made=made.get(run, []))
    return found


def network_of(data: bytes) -> list[str]:
    """The names of a stored network; none if it cannot be read."""
    try:
        names = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def intervention_problems(store: Store, runs: str) -> Iterator[str]:
    """Where interventions are not those of the run's arm, or do not fit between its steps."""
    for run, course in courses(store, runs).items():
        if course.arm is None:
            yield f"run {run}: its arm is not known in its experiment"
        elif course.arm or course.made:
            outputs = [
                row[0]
                for row in store.db.rows("SELECT output FROM invocation WHERE run = ? ORDER BY step", run)
            ]
            prompt = store.db.value("SELECT prompt FROM run WHERE id = ?", run)
            yield from (f"run {run}: {text}" for text in _problems(course, course.arm, [prompt, *outputs]))


def _problems(course: Course, arm: Arm, before: Sequence[int]) -> Iterator[str]:
    """What is wrong with a run's interventions; before: by step, the prompt or the last step's output."""
    num_steps = len(before) - 1
    made = {step: list(some) for step, some in itertools.groupby(course.made, key=lambda one: one.step)}
    steps = sorted({*made, *_due_steps(arm, num_steps)})
    for step in steps:
        there, wanted = made.get(step, []), due(arm, step)
        what = f"before step {step}"
        if step > num_steps:
            yield f"interventions {what}, and it has {num_steps} steps"
        elif [one.kind for one in there] != [one.kind for one in wanted[: len(there)]]:
            yield f"interventions {what} are not those of its arm"
        elif len(there) < len(wanted) and step < num_steps:
            yield f"lacks interventions {what}"
        elif any(
            one.input != given for one, given in zip(there, [before[step], *_outputs(there)], strict=False)
        ):
            yield f"an intervention {what} did not take what was there"
        elif any(
            one.digest != text_digest(asked.value)
            for one, asked in zip(there, wanted, strict=False)
            if asked.kind == "text"
        ):
            yield f"the text {what} is not the one of its arm"


def _outputs(made: Sequence[Made]) -> list[int]:
    return [one.output for one in made]


def _due_steps(arm: Arm, num_steps: int) -> Iterator[int]:
    """The steps below a number before which something is to be made."""
    for one in arm:
        yield from (
            range(one.first, num_steps, one.every) if one.every else [one.first] * (one.first < num_steps)
        )
