"""A job: the tasks that experiments or trainings are cut into, and the folder that has it all.

    FOLDER/job.json   what was asked for, and the numbers that Slurm has given
                      (.gitignore keeps all of it out of the repository that it may lie in)
    FOLDER/job.sh     the script of every task
    FOLDER/pins/      how models are called, by config
    FOLDER/tasks/     of each its snapshot (0003/), its state (0003.state) and who is at it (0003.lock)
    FOLDER/logs/      what the tasks print
    FOLDER/merged/    the store of all shards

Tasks are numbered from 1: the shards of the first config, those of the second, and so on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from panic.errors import UsageError

FORBIDDEN = '"\\\n\r'
"""Characters that neither a setting within quotes nor Slurm's patterns of file names can hold."""

MOST_TASKS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What was asked for.

    configs: experiments, each cut into `shards`, or one training with `num_trainings`. sbatch: options of
    every task. setup: a line of shell that comes first. scratch: where tasks have a disk of their own, if the
    environment does not say. panic: the command. digests: of the configs' texts, as they were checked. ids:
    of Slurm's jobs, by task ("pin", "tasks", "merge").
    """

    folder: Path
    configs: tuple[Path, ...]
    work: Path
    panic: tuple[str, ...]
    shards: int = 1
    num_trainings: int = 0
    overrides: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()
    setup: str = ""
    scratch: Path | None = None
    snapshot_every_s: float = 600.0
    digests: tuple[str, ...] = ()
    ids: dict[str, list[str]]

    @property
    def num_tasks(self) -> int:
        """Tasks of the array."""
        return self.num_trainings or self.shards * len(self.configs)

    @property
    def is_training(self) -> bool:
        """Whether the tasks are trainings, which need no pins and are not merged."""
        return self.num_trainings > 0

    @property
    def name(self) -> str:
        """What Slurm calls it."""
        return f"panic-{self.configs[0].stem}"

    @property
    def script(self) -> Path:
        """The script of all tasks."""
        return self.folder / "job.sh"

    def what(self, task: int) -> str:
        """A task, for people."""
        if self.is_training:
            return f"training {task} of {self.configs[0].name}"
        config, shard = divmod(task - 1, self.shards)
        return f"shard {shard + 1}/{self.shards} of {self.configs[config].name}"

    def state(self, task: int) -> str:
        """What a task has last written of itself: "" where it has not begun."""
        path = self.folder / "tasks" / f"{task:04}.state"
        try:
            return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
        except OSError:
            return ""

    def with_ids(self, name: str, id: str) -> Job:
        """The job with one more of Slurm's."""
        return replace(self, ids={**self.ids, name: [*self.ids.get(name, ()), id]})


def save(job: Job) -> None:
    """Keep a job in its folder."""
    for name in ("tasks", "logs", "pins"):
        (job.folder / name).mkdir(parents=True, exist_ok=True)
    (job.folder / ".gitignore").write_text("*\n", encoding="utf-8")  # no change of the repository it lies in
    part = job.folder / "job.json.new"
    part.write_text(json.dumps(asdict(job), indent=2, default=str) + "\n", encoding="utf-8")
    part.replace(job.folder / "job.json")


def load(folder: Path) -> Job:
    """Read the job of a folder. Raises UsageError where there is none."""
    advice = "panic slurm CONFIG --shards N makes one; --folder PATH names it."
    try:
        if (folder / "job.json").is_fifo():  # it would be waited for
            raise ValueError("it is no file")
        raw: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        paths = {
            "folder": folder,
            "work": Path(raw["work"]),
            "scratch": raw["scratch"] and Path(raw["scratch"]),
        }
        lists = {name: tuple(map(str, raw.get(name, ()))) for name in ("overrides", "sbatch", "digests")}
        lists["panic"] = tuple(map(str, raw["panic"]))
        ids = {str(name): [str(one) for one in of] for name, of in raw["ids"].items()}
        job = Job(**{**raw, **paths, **lists, "configs": tuple(map(Path, raw["configs"])), "ids": ids})
        _require_sound(job)
        return job
    except OSError as error:
        raise UsageError(f"{folder} has no job: {error.strerror}.", hint=advice) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UsageError(f"{folder}/job.json is none of panic slurm.", hint=advice) from error


def _require_sound(job: Job) -> None:
    """Raise ValueError for what `panic slurm` does not write: a number of a job may become an option."""
    numbers = (job.shards, job.num_trainings)
    if not all(type(number) is int and 0 <= number <= MOST_TASKS for number in numbers):
        raise ValueError("these are no numbers of tasks")
    if not job.configs or not 0 < job.num_tasks <= MOST_TASKS:
        raise ValueError("it has no tasks, or too many")
    if not all(id.isascii() and id.isdecimal() for of in job.ids.values() for id in of):
        raise ValueError("an id is no number")


def require_plain(path: Path) -> None:
    """Raise UsageError for a path that a script cannot hold safely."""
    if any(character in FORBIDDEN for character in str(path)):
        raise UsageError(
            f"{str(path)!r}: a path with quotes, backslashes or line breaks cannot be used here."
        )
