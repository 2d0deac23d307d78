"""Shards: the runs of an experiment in parts that are performed apart, each in a store of its own.

Which shard a run is in follows from what the run is, so that it does not change when the experiment grows.
All arms of a run are in one shard, because their first steps are computed once.

    Shard.parse("3/8").runs(expanded_runs(config))
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from panic.engine.plan import Plan
from panic.errors import UsageError
from panic.store.codec import canonical_json
from panic.store.records import NewRun

MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str]) -> Shard:
        """Read 3/8, or `auto`: the place of this task in an array of Slurm. Raises UsageError."""
        if text == "auto":
            return cls._of_array(environment)
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count <= MOST:
            raise UsageError(
                f"--shard {text}: a shard is N/COUNT, from 1/COUNT to COUNT/COUNT, with at most {MOST:,}.",
                hint="The third of eight is 3/8; in an array of Slurm, auto is the one of this task.",
            )
        return cls(number=number, count=count)

    @classmethod
    def _of_array(cls, environment: Mapping[str, str]) -> Shard:
        values: dict[str, int] = {}
        for name, default in (("ID", ""), ("COUNT", ""), ("MIN", "0"), ("STEP", "1")):
            variable = f"SLURM_ARRAY_TASK_{name}"
            text = environment.get(variable, default)
            if not re.fullmatch(r"[0-9]{1,9}", text):
                raise UsageError(
                    f"--shard auto: {variable} is {text[:40]!r}."
                    if text
                    else f"--shard auto: {variable} is not set.",
                    hint="It is for tasks of an array of Slurm (sbatch --array); elsewhere say --shard 3/8.",
                )
            values[name] = int(text)
        number = (values["ID"] - values["MIN"]) // max(1, values["STEP"]) + 1
        if not 1 <= number <= values["COUNT"]:
            raise UsageError(
                f"--shard auto: task {values['ID']} is not one of {values['COUNT']} from {values['MIN']}.",
                hint="An array with gaps needs --shard N/COUNT.",
            )
        return cls(number=number, count=values["COUNT"])

    def has(self, run: NewRun) -> bool:
        """Whether a run is in this shard."""
        identity = canonical_json([list(run.network), run.prompt, run.seed, run.repeat])
        digest = hashlib.sha256(identity.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def runs(self, runs: Iterable[NewRun]) -> list[NewRun]:
        """Those of these runs that are in this shard, in their order."""
        return [run for run in runs if self.has(run)]


def require_shapes(plan: Plan, config: str) -> None:
    """Raise UsageError unless the config says the batch sizes of all models."""
    lacking = [name for name in plan.local if name not in plan.config.batch_sizes]
    if lacking:
        raise UsageError(
            f"A shard needs pins: its own runs would lead to other batch sizes of {', '.join(lacking)}.",
            hint=f"panic pin {config} -o pins.json; then --pins pins.json with every shard.",
        )
