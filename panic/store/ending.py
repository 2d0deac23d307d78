"""Ending an experiment where it is: its runs get the length that they have.

end_runs(store, reading.experiment(store, "demo"))
"""

from __future__ import annotations

import shlex
import sys

from panic.errors import UsageError
from panic.store import reading, writing
from panic.store.reading import NUM_STEPS
from panic.store.records import ENDED, ExperimentRow
from panic.store.store import Store

TAKEN = ("diagrams", "vectorisations", "distances")


def end_runs(store: Store, row: ExperimentRow) -> tuple[int, int]:
    """Give runs that have not ended the length that they have, and drop those without a step.

    Returns how many were shortened and dropped. The union of what was asked for gets the length of its
    longest run. Raises UsageError where no run has begun.
    """
    row = reading.experiment(store, row.uid)  # as it is now that nobody else writes
    runs = reading.runs(store, row.id)
    still_open = [run for run in runs if run.state not in ENDED]
    begun = [run for run in still_open if run.num_steps]
    if still_open and len(still_open) == len(runs) and not begun:
        raise UsageError(
            f"No run of {row.name} has begun: there is nothing to be complete.",
            hint="panic delete deletes it.",
        )
    if still_open:
        lengths = (run.num_steps if run in begun else run.max_length for run in runs if run.num_steps)
        config = row.config | {"max_length": max(lengths, default=row.config["max_length"])}
        unbegun = [(run.id,) for run in still_open if not run.num_steps]
        # First what was asked for: after a kill here, the same command finds the runs as they were.
        writing.start_experiment(store, row.name, config)
        with store.transaction() as connection:
            connection.executemany(
                f"UPDATE run SET max_length = {NUM_STEPS} WHERE id = ?", [(run.id,) for run in begun]
            )
            connection.executemany("DELETE FROM run WHERE id = ?", unbegun)
            writing.mark_changed(store, [row.id])
        # A session that was asked for none of these: whether they are there is then asked of the store.
        asked = config | {key: [] for key in TAKEN}
        session = writing.start_session(store, row.id, shlex.join(sys.argv), {}, asked)
        writing.end_session(store, session, "done")
    return len(begun), len(still_open) - len(begun)
