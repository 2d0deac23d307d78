"""Working memory of models, as observed: kept for the next experiment, apart from results.

learn(store, "cuda NVIDIA H200", [(fingerprint, 0, 8, 3_200_000_000)])
known(store, "cuda NVIDIA H200")[fingerprint][0][8]
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from panic.store.store import Store


def known(store: Store, device_kind: str) -> dict[str, dict[int, dict[int, int]]]:
    """Most bytes seen beyond the weights on a kind of device, by fingerprint, bucket and batch size."""
    found: dict[str, dict[int, dict[int, int]]] = {}
    sql = "SELECT fingerprint, bucket, batch_size, peak_bytes FROM working_memory WHERE device_kind = ?"
    for fingerprint, bucket, batch_size, peak_bytes in store.db.rows(sql, device_kind):
        found.setdefault(fingerprint, {}).setdefault(bucket, {})[batch_size] = peak_bytes
    return found


def learn(store: Store, device_kind: str, peaks: Iterable[tuple[str, int, int, int]]) -> None:
    """Take in (fingerprint, bucket, batch size, bytes); less than what is known changes nothing."""
    rows = [(fingerprint, device_kind, *peak, time.time()) for fingerprint, *peak in peaks]
    if rows:
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO working_memory VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET peak_bytes = excluded.peak_bytes,"
                " observed_at = excluded.observed_at"
                " WHERE excluded.peak_bytes > peak_bytes",
                rows,
            )


def forget(store: Store) -> int:
    """Forget everything that was learnt; how many rows that were."""
    with store.transaction() as connection:
        count = int(store.db.value("SELECT count(*) FROM working_memory"))
        connection.execute("DELETE FROM working_memory")
    return count
