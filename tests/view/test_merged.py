"""Stores that are looked at together: merged once, brought up to date, and what does not agree is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic.store import Store, reading
from panic.view.merged import Merged, numbers
from tests.view.conftest import Looked


def test_stores_are_merged_once_for_what_they_have(tmp_path: Path) -> None:
    shards = [Looked(tmp_path / name, 0) for name in ("one", "two")]
    runs = [shard.add(f"prompt of shard {number}") for number, shard in enumerate(shards)]
    for shard, run in zip(shards, runs, strict=True):
        shard.step(run, "a text")
    stores = {str(number): str(shard.store.path) for number, shard in enumerate(shards)}
    folder, merged = tmp_path / "merged", Merged()
    folder.mkdir()
    path = merged.path(stores, folder)
    with Store(path) as store:
        assert sorted(run.prompt for run in reading.runs(store)) == ["prompt of shard 0", "prompt of shard 1"]
        revision = store.revision
    assert merged.path(stores, folder) == path
    with Store(path) as store:
        assert store.revision == revision
    assert sorted(numbers(stores, "wall").values()) == [("0", runs[0]), ("1", runs[1])]
    shards[1].step(runs[1], "another one")
    assert Merged().path(stores, folder) == path  # another process goes on with it
    with Store(path) as store:
        assert sorted(run.num_steps for run in reading.runs(store)) == [2, 4]
    assert merged.path({"0": stores["0"]}, folder) != path
    assert len(list(folder.iterdir())) == 1, "the one before goes"
    for shard in shards:
        shard.store.close()


def test_stores_are_merged_again_where_a_merge_of_others_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was merged before had gone for the others, and was taken to be there."""
    shards = [Looked(tmp_path / name, 1) for name in ("one", "two")]
    one, two = ({"0": str(shard.store.path)} for shard in shards)
    folder, merged = tmp_path / "merged", Merged()
    folder.mkdir()
    path = merged.path(one, folder)
    with monkeypatch.context() as patch:
        patch.setattr("panic.view.merged.merge", lambda *given, **how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merged.path(two, folder)
    assert merged.path(one, folder) == path
    with Store(path) as store:
        assert len(reading.runs(store)) == 1
    for shard in shards:
        shard.store.close()


def test_what_does_not_agree_is_left_out_and_told(tmp_path: Path) -> None:
    """Of a run with two contents neither counts."""
    shards = [Looked(tmp_path / name, 1) for name in ("one", "two")]
    for number, shard in enumerate(shards):
        shard.step(shard.runs[0], f"text {number}")
    stores = {str(number): str(shard.store.path) for number, shard in enumerate(shards)}
    folder, merged = tmp_path / "merged", Merged()
    folder.mkdir()
    path = merged.path(stores, folder)
    assert len(merged.conflicts) == 1
    with Store(path) as store:
        assert reading.runs(store) == []
    for shard in shards:
        shard.store.close()


def test_a_run_of_two_stores_is_where_it_is_longest(tmp_path: Path) -> None:
    """One of them may be a snapshot of earlier, which lacks the last steps."""
    shards = [Looked(tmp_path / name, 1) for name in ("early", "late")]
    for shard, number in zip(shards, (1, 2), strict=True):
        shard.step(shard.runs[0], *[f"text {step}" for step in range(number)])
    stores = {str(number): str(shard.store.path) for number, shard in enumerate(shards)}
    assert list(numbers(stores, "wall").values()) == [("1", shards[1].runs[0])]
    shards[0].step(shards[0].runs[0], "text 1")
    assert list(numbers(stores, "wall").values()) == [("0", shards[0].runs[0])], "the first of two alike"
    with shards[1].store.transaction() as connection:  # which is to be longer
        connection.execute("UPDATE run SET max_length = max_length + 2")
    assert list(numbers(stores, "wall").values()) == [("1", shards[1].runs[0])]
    for shard in shards:
        shard.store.close()
