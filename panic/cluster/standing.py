"""Where the tasks of a job stand: what Slurm knows of them, and what they have written of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from panic.cluster.job import Job
from panic.cluster.slurm import AT_WORK


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Of one task. said: its last words.

    state: pending, running, requeued, timed out, out of memory, node failed, cancelled, failed, stopped, lost
    (it was running, and Slurm knows nothing of it), not begun, or complete.
    """

    task: int
    state: str
    node: str
    said: str

    @property
    def is_open(self) -> bool:
        """Whether it is neither complete nor at work."""
        return self.state != "complete" and self.state not in AT_WORK


def standings(job: Job, known: Mapping[int, tuple[str, str]]) -> list[Standing]:
    """Where all tasks stand. known: by task, Slurm's state in our words and the node."""
    found = []
    for task in range(1, job.num_tasks + 1):
        said = job.state(task)
        state, node = known.get(task, ("", ""))
        node = node or (said.partition(" on ")[2].partition(",")[0])
        found.append(Standing(task=task, state=_state(state, said), node=node, said=said))
    return found


def _state(known: str, said: str) -> str:
    if said.startswith("complete"):
        return "complete"
    if known == "pending" and said:
        return "requeued"
    if known and known != "ended":
        return known
    if said.startswith("failed") or (known == "ended" and said.startswith("running")):
        return "failed"
    if said.startswith(("ended with 130", "ended with 143")):
        return "stopped"
    if said.startswith("ended"):
        return "failed"
    if said.startswith("requeued"):
        return "requeued" if known else "lost"
    return "lost" if said else "not begun"
