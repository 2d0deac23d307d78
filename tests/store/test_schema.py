"""Every table of results is known to what has to know all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic.store import Store

STORE = Path(__file__).parents[2] / "panic" / "store"
NOT_RESULTS = {"meta", "working_memory", "invariance", "training"}
"""Tables that belong to no experiment."""
DERIVED = {"caption", "caption_data", "caption_idx", "caption_config", "change"}
"""Made of the others, and made anew from them."""
NOT_IN_A_DUMP = {"annotation", "answer", "attempt", "batch", "deletion", "epoch", "session", "spending"}
"""Not results, but when, where and by whom they were made, and remarks on them."""


@pytest.fixture
def tables(folder: Path) -> set[str]:
    with Store(folder, write=True, create=True) as store:
        names = store.db.rows(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    return {name for (name,) in names} - NOT_RESULTS - DERIVED


@pytest.mark.parametrize(
    ("module", "others"),
    [("delete.py", {"model"}), ("export.py", set()), ("dump.py", NOT_IN_A_DUMP)],
)
def test_every_table_is_deleted_dumped_and_exported(tables: set[str], module: str, others: set[str]) -> None:
    source = (STORE / module).read_text()
    assert {name for name in tables - others if name not in source} == set()
