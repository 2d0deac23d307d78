"""Experiments, runs, outputs and trainings that a filter finds, as dictionaries.

with Store("panic-store") as store:
    find(store, "state = stuck and period > 2", of="run", columns=["name", "run", "period"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from panic.store.finding.fields import Fields, Target
from panic.store.finding.queries import Query, table
from panic.store.finding.queries import find as find_ids
from panic.store.store import Store

COLUMNS: dict[Target, tuple[str, ...]] = {
    "experiment": ("name", "id", "state", "runs", "stuck", "failed", "invocations", "created"),
    "run": ("name", "run", "uid", "network", "prompt", "seed", "repeat", "state", "steps", "period"),
    "output": ("digest", "modality", "text", "runs", "invocations", "tags", "label"),
    "training": (
        *("name", "id", "state", "step", "steps", "loss", "val_loss", "best_loss", "seconds", "started"),
    ),
}
"""What is told of each where nobody says what."""


def find(
    store: Store,
    where: str | None = None,
    *,
    of: Target = "experiment",
    columns: Sequence[str] | None = None,
    sort: str = "",
    fields: Fields | None = None,
) -> list[dict[str, Any]]:
    """Return the experiments, runs, outputs or trainings that a filter finds, by the names of columns.

    fields: what can be named, by default all but metrics, which `panic.analysis.measured.find` knows, too.
    """
    names, fields = columns or COLUMNS[of], fields or Fields()
    ids = find_ids(store, Query(target=of, where=where, sort=sort), fields)
    return [dict(zip(names, row, strict=True)) for row in table(store, of, ids, names, fields)]
