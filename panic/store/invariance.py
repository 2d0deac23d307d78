"""Whether results of models depend on batch mates, as it was measured: kept for later sessions.

A verdict belongs to a model's fingerprint, its shape, and what it was measured with: device and versions of
libraries, a canonical JSON text.

    record(store, surroundings, [measured])
    verdicts(store, surroundings)[0].verdict
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from panic.store.store import Store

Verdict = Literal["independent", "length", "alone", "unrepeatable"]
"""What was seen of an item's result.

independent   it was the same beside all mates, at all places
length        it was the same beside mates with as many tokens only
alone         it depended on mates, or on its place among them
unrepeatable  it differed between two equal calls
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was seen of a model in a shape, and how many seconds that took."""

    fingerprint: str
    batch_size: int
    threads: int
    verdict: Verdict
    duration_s: float


def verdicts(store: Store, surroundings: str) -> list[Measured]:
    """All that was measured in these surroundings."""
    names = Measured.__slots__
    rows = store.db.rows(f"SELECT {', '.join(names)} FROM invariance WHERE surroundings = ?", surroundings)
    return [Measured(**dict(zip(names, row, strict=True))) for row in rows]


def record(store: Store, surroundings: str, measured: Iterable[Measured]) -> None:
    """Keep what was measured; what was known of the same shapes before is replaced."""
    with store.transaction() as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO invariance VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (one.fingerprint, one.batch_size, one.threads, surroundings, one.verdict, one.duration_s, now)
                for now in [time.time()]
                for one in measured
            ],
        )
