"""Slurm's commands: submitting the tasks of a job, asking where they stand, cancelling them."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from panic.cluster.job import Job, save
from panic.errors import PanicError, UsageError

WARNING_S = 120
"""Seconds before the time limit at which a task is warned."""
STATES = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "REQUEUED": "requeued",
    "REQUEUE_HOLD": "requeued",
    "REQUEUE_FED": "requeued",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SUSPENDED": "suspended",
    "TIMEOUT": "timed out",
    "DEADLINE": "timed out",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failed",
    "BOOT_FAIL": "node failed",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    "COMPLETED": "ended",
}
"""Slurm's words for the states of a job, and ours."""
AT_WORK = ("pending", "running", "requeued", "suspended")
ENDLESS = ("infinite", "unlimited")
_LIMIT = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?")
_TASK = re.compile(r"^(?P<job>\d+)_(?P<task>\d+|\[[\d,%-]+\])\|(?P<state>[A-Z_]+)[^|]*\|(?P<node>[^|]*)$")


def seconds_of(limit: str) -> float:
    """A time limit in seconds, as sbatch reads it: minutes[:seconds], hours:minutes:seconds, or
    days-hours[:minutes[:seconds]]. Raises UsageError for what is none.
    """
    if limit.lower() in ENDLESS:
        return math.inf
    found = _LIMIT.fullmatch(limit)
    if found is None:
        raise UsageError(
            f"--time {limit!r}: that is no time limit of Slurm.",
            hint="4:00:00 is four hours, 90 are minutes, 1-12 is a day and twelve hours.",
        )
    days, *parts = (None if one is None else int(one) for one in found.groups())
    given = [one for one in parts if one is not None]
    if days is None and len(given) < 3:
        given = [0, *given]
    hours, minutes, seconds = [*given, 0, 0][:3]
    return (days or 0) * 86_400 + hours * 3_600 + minutes * 60 + seconds or math.inf  # 0 is no limit to Slurm


def commands(job: Job, tasks: Sequence[int] | None = None) -> dict[str, list[str]]:
    """What is submitted, in order, by name; `{pin}` and `{tasks}` stand for the numbers that those get.

    The merge hears the array's, to ask where a task stands that has written nothing of itself yet.

    tasks: only these of the array, whose pins are there.
    """
    script = str(job.script)
    logs = str(job.folder / "logs").replace("%", "%%")
    common = ["sbatch", "--parsable", *job.sbatch]
    found: dict[str, list[str]] = {}
    if tasks is None and not job.is_training:
        found["pin"] = [*common, f"--job-name={job.name}-pin", f"--output={logs}/pin-%j.log", script, "pin"]
    array = f"1-{job.num_tasks}" if tasks is None else ",".join(map(str, tasks))
    wait = ["--dependency=afterok:{pin}", "--kill-on-invalid-dep=yes"] if "pin" in found else []
    found["tasks"] = [
        *(*common, f"--job-name={job.name}", f"--array={array}", f"--output={logs}/task-%A_%a.log"),
        *("--open-mode=append", "--requeue", f"--signal=B:USR1@{WARNING_S}", *wait, script, "task"),
    ]
    if not job.is_training:
        found["merge"] = [
            *(*[one for one in common if not one.startswith("--gres")], f"--job-name={job.name}-merge"),
            *(f"--output={logs}/merge-%j.log", "--open-mode=append", "--requeue"),
            *("--dependency=afterany:{tasks}", script, "merge", "{tasks}"),
        ]
    return found


def submit(job: Job, tasks: Sequence[int] | None = None) -> Job:
    """Submit the tasks of a job, or some again; the job with the numbers they have got, which is saved."""
    numbers: dict[str, str] = {}
    for name, command in commands(job, tasks).items():
        words = [
            word.format(**numbers) if word.startswith("--dependency") or word == "{tasks}" else word
            for word in command
        ]
        try:
            numbers[name] = _number_of(asked(words))
        except PanicError:
            if numbers:
                asked(["scancel", *numbers.values()])
            raise
        job = job.with_ids(name, numbers[name])
        save(job)
    return job


def _number_of(told: str) -> str:
    """The number in what `sbatch --parsable` says of a job: its last line is NUMBER or NUMBER;CLUSTER."""
    number = told.strip().rpartition("\n")[2].partition(";")[0].strip()
    if not (number.isascii() and number.isdecimal()):
        raise PanicError(f"sbatch told no number of a job: {told.strip()[:200]}")
    return number


def states(job: Job) -> dict[int, tuple[str, str]]:
    """By task: where it stands in Slurm, in our words, and on which node; those alone that Slurm knows of."""
    found: dict[int, tuple[str, str]] = {}
    for id in job.ids.get("tasks", ()):
        found |= parsed(_asked_of(id))
    return found


def parsed(text: str) -> dict[int, tuple[str, str]]:
    """The states in lines such as 17_3|TIMEOUT|node-1, as sacct and squeue write them."""
    found = {}
    for line in text.splitlines():
        if not (match := _TASK.match(line.strip())):
            continue
        for task in _numbers(match["task"]):
            found[task] = STATES.get(match["state"], match["state"].lower()), match["node"]
    return found


def _numbers(text: str) -> list[int]:
    """The tasks that 3, or [1-4,7%2], stands for."""
    found: list[int] = []
    for part in text.strip("[]").split("%")[0].split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _asked_of(id: str) -> str:
    """What Slurm knows of an array: by its accounting if there is one, else of what it remembers."""
    try:
        ended = asked(["sacct", "-n", "-P", "-X", "-j", id, "-o", "JobID,State,NodeList"])
    except PanicError:
        ended = _remembered(id)
    try:
        return ended + "\n" + asked(["squeue", "--noheader", "--array", "--jobs", id, "-o", "%i|%T|%N"])
    except PanicError:  # squeue does not know of jobs that have ended long ago
        return ended


def _remembered(id: str) -> str:
    """The same of `scontrol show job`."""
    try:
        text = asked(["scontrol", "--oneliner", "show", "job", id])
    except PanicError:
        return ""
    lines = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "ArrayTaskId" in fields:
            lines.append(
                f"{id}_{fields['ArrayTaskId']}|{fields.get('JobState', '')}|{fields.get('NodeList', '')}"
            )
    return "\n".join(lines)


def cancel(job: Job) -> None:
    """Cancel all that a job has submitted."""
    ids = [id for of in job.ids.values() for id in of]
    if ids:
        asked(["scancel", *ids])


def asked(words: Sequence[str]) -> str:
    """What a command of Slurm prints. Raises UsageError where there is none, PanicError with what it says."""
    if shutil.which(words[0]) is None:
        raise UsageError(
            f"There is no {words[0]} here: Slurm is not installed, or its module is not loaded.",
            hint="On a login node of the cluster it is. --local runs the same tasks on this machine.",
        )
    done = subprocess.run(words, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        raise PanicError(
            f"{words[0]}: {done.stderr.strip() or done.returncode}",
            hint=f"The command was: {shlex.join(words)}",
        )
    return done.stdout
