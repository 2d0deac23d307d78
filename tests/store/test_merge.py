"""Merging stores: all of it once, in any order, however often; what does not agree is told and stays out."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.engine.plan import expanded_runs
from panic.errors import Interrupted, StoreCorrupt, StoreLocked, StoreMissing, UsageError
from panic.store import NewInvocation, Store, reading, writing
from panic.store.annotations import annotate, find_target, run_target
from panic.store.check import check
from panic.store.codec import text_digest
from panic.store.files import has_content, log_of
from panic.store.merging.merge import merge
from panic.store.merging.tables import DERIVED, TABLES, WALKED_APART
from panic.store.migrate import expected_schema, migrations
from panic.store.signing import Author
from panic.store.snapshot import is_snapshot
from panic.store.tombstones import deleted, hide, hide_runs
from tests.engine.conftest import dump, make_config
from tests.store.sample import Sample, batch, output, remark, steps
from tests.store.test_migrate import build


def everything(**changes: object) -> ExperimentConfig:
    return make_config(
        embeddings=["synthetic/state-embedding"],
        arms={"baseline": [], "swap": [{"at": 4, "text": "state 3"}]},
        max_length=8,
        **changes,
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """An experiment in one store, and its runs in three, in a round."""
    folder, config = tmp_path_factory.mktemp("parts"), everything()
    run(config, folder / "whole")
    runs = expanded_runs(config)
    for number in range(3):
        run(config, folder / str(number), runs=runs[number::3])
    return folder / "whole", [folder / str(number) for number in range(3)]


def test_every_table_is_walked() -> None:
    """A new table has to be listed, or to be declared derived."""
    names = {name for kind, name in expected_schema("store", len(migrations("store"))) if kind == "table"}
    names = {name for name in names if not name.startswith((*DERIVED, "sqlite_"))}
    assert names == {table.name for table in TABLES} | set(WALKED_APART)


def test_parts_in_any_order_are_the_whole(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    whole, shards = parts
    for number, order in enumerate(itertools.permutations(shards)):
        into = tmp_path / str(number)
        merged = merge(order, into)
        assert merged.conflicts == []
        assert dump(into) == dump(whole)
        with Store(into) as store:
            assert check(store) == []
            assert len(reading.sessions(store)) == 3


@pytest.mark.slow
def test_distances_between_parts_are_completed_by_performing_the_config(tmp_path: Path) -> None:
    config = everything(diagrams={"max_dimension": 1}, vectorisations=["entropy"], distances=["bottleneck"])
    run(config, tmp_path / "whole")
    runs = expanded_runs(config)
    for number in range(2):
        run(config, tmp_path / str(number), runs=runs[number::2])
    into = tmp_path / "into"
    merge([tmp_path / "0", tmp_path / "1"], into)
    assert set(dump(into)) < set(dump(tmp_path / "whole"))
    run(config, into)
    assert dump(into) == dump(tmp_path / "whole")


def test_merging_again_changes_nothing(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    first, into = tmp_path / "first", tmp_path / "into"
    merge(parts[1], into)
    before = rows(into)
    merged = merge([*parts[1], *parts[1]], into)
    assert rows(into) == before
    assert (merged.num_runs, merged.num_invocations, merged.num_images) == (0, 0, 0)
    merge([into], first)
    assert dump(first) == dump(into)
    assert not (into / "merging").exists()


def rows(store: Path) -> dict[str, int]:
    with Store(store) as opened:
        return {table.name: opened.db.value(f"SELECT count(*) FROM {table.name}") for table in TABLES}


def test_runs_that_met_are_counted(tmp_path: Path) -> None:
    """ "state 0" and "state 1" are on one cycle: each shard computes all of it."""
    config = make_config(prompts=["state 0", "state 1"], seeds=[42], repeats=1)
    for number, one in enumerate(expanded_runs(config)):
        run(config, tmp_path / str(number), runs=[one])
    merged = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "into")
    assert (merged.num_meeting, merged.conflicts) == (1, [])
    run(config, tmp_path / "whole")
    assert dump(tmp_path / "into") == dump(tmp_path / "whole")


@pytest.fixture
def other(folder: Path, sample: Sample, tmp_path: Path) -> Path:
    """The sample with another output of a step of the run with fresh noise."""
    path = Path(shutil.copytree(folder, tmp_path / "other"))
    with Store(path, write=True) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE invocation SET output = (SELECT id FROM output WHERE text = 'b') "
            " WHERE run = ? AND step = 3",
            (sample.noisy,),
        )
    return path


def last_text(store: Path, prompt: str = "a", seed: int = -1) -> list[str]:
    with Store(store) as opened:
        return [
            text
            for (text,) in opened.db.rows(
                "SELECT made.text FROM invocation JOIN run ON run.id = run JOIN output AS made"
                " ON made.id = invocation.output JOIN output AS given ON given.id = prompt"
                " WHERE given.text = ? AND run.seed = ? AND step = 3",
                *(prompt, seed),
            )
        ]


def test_other_content_under_one_key_is_a_conflict(folder: Path, other: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    for order in ([folder, other], [other, folder]):
        shutil.rmtree(into, ignore_errors=True)
        merged = merge(order, into)
        assert len(merged.conflicts) == 1
        assert (
            "alpha: the run of draw → tell from 'a', seed -1, repeat 0: its step 3 differs"
            in (merged.conflicts[0])
        )
        assert last_text(into) == []
        with Store(into) as store:
            assert len(reading.runs(store, "alpha")) == 3
            assert check(store) == []
    mine = tmp_path / "mine"
    merge([folder], mine)
    assert len(merge([other], mine).conflicts) == 1
    assert last_text(mine) == ["a"]


@pytest.mark.parametrize(("keep", "text"), [("mine", "a"), ("theirs", "b")])
def test_the_caller_says_whose_runs_stay(
    folder: Path, other: Path, tmp_path: Path, keep: str, text: str
) -> None:
    into = tmp_path / "into"
    merged = merge([folder, other], into, keep=keep)
    assert (merged.conflicts, merged.num_settled) == ([], 1)
    assert last_text(into) == [text]
    with Store(into) as store:
        assert check(store) == []


def test_what_goes_on_in_one_store_goes_on(folder: Path, sample: Sample, tmp_path: Path) -> None:
    """A failure that was overcome elsewhere becomes an attempt."""
    longer = Path(shutil.copytree(folder, tmp_path / "longer"))
    with Store(longer, write=True) as store:
        writing.forget_failures(store, sample.alpha)
        session = writing.start_session(store, sample.alpha, "again", {})
        made = steps(store, session, (sample.draw, sample.tell), sample.failed, "z", [], seed=42)
        (digest,) = store.db.row(
            "SELECT digest FROM output JOIN invocation ON output = output.id WHERE run = ?", sample.failed
        )
        call = batch(store, session, sample.tell)
        made.batches.append(call)
        made.outputs.append(output("on"))
        made.invocations.append(NewInvocation(sample.failed, 1, digest, text_digest("on"), 42, call.id))
        writing.commit(store, made)
    for number, order in enumerate(([folder, longer], [longer, folder])):
        into = tmp_path / str(number)
        merged = merge(order, into)
        assert merged.conflicts == []
        assert dump(into) == dump(longer)
        with Store(into) as store:
            assert store.db.rows("SELECT step, kind FROM attempt") == [(1, "empty text")]
            assert check(store) == []


def test_of_two_vectors_the_smaller_digest_stays(folder: Path, sample: Sample, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    with Store(other, write=True) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE embedding SET vector = ? WHERE output = (SELECT id FROM output WHERE text = 'b')",
            (np.full(3, 7, np.float32).tobytes(),),
        )
    found = []
    for number, order in enumerate(([folder, other], [other, folder])):
        merged = merge(order, tmp_path / str(number))
        assert (merged.num_vectors, merged.num_diagrams, merged.conflicts) == (1, 1, [])
        found.append(dump(tmp_path / str(number)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE epoch SET batch_size = 4 WHERE name = 'draw'", "draw has 4 as its batch size"),
        ("UPDATE model SET fingerprint = 'x' WHERE name = 'tell'", "tell has x as its fingerprint"),
        ("UPDATE epoch SET device_kind = 'cuda'", "has cuda as its device kind"),
    ],
)
def test_pins_have_to_agree(folder: Path, sample: Sample, tmp_path: Path, change: str, why: str) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    with Store(other, write=True) as store, store.transaction() as connection:
        connection.execute(change)
        connection.execute("UPDATE run SET max_length = 9")
    merged = merge([folder, other], tmp_path / "into")
    assert any(why in line for line in merged.conflicts), merged.conflicts
    assert dump(tmp_path / "into") == dump(folder)


def test_meanings_have_to_agree(tmp_path: Path) -> None:
    run(make_config(root_seed=1), tmp_path / "one")
    run(make_config(root_seed=2), tmp_path / "two")
    merged = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "into")
    assert merged.conflicts == ["test: root_seed is 2; test started with 1"]
    assert dump(tmp_path / "into") == dump(tmp_path / "one")


def test_remarks_and_deletions_come_once(tmp_path: Path) -> None:
    """Two stores of one experiment have two uids; remarks are on the one that stays."""
    me = Author(name="me")
    for number in range(2):
        run(make_config(max_length=2), tmp_path / str(number))
    with Store(tmp_path / "1", write=True) as store:
        remark(store, "test", "of the second")
        first, second = reading.runs(store, "test")[:2]
        annotate(store, "comment", [(run_target("test", first), "a run")], me)
        hide_runs(store, reading.experiment(store, "test"), [second.id], me.name)
        run(make_config(name="gone", max_length=2), store)
        hide(store, reading.experiment(store, "gone"), me.name)
    stores = [tmp_path / "0", tmp_path / "1"]
    for number, order in enumerate(([*stores, *stores], [*stores[::-1], stores[1]])):
        merge(order, tmp_path / f"into-{number}")
        with Store(tmp_path / f"into-{number}") as store:
            uid = reading.experiment(store, "test").uid
            said = store.db.rows("SELECT target_kind, target = ?, text FROM annotation ORDER BY text", uid)
            assert said == [("run", 0, "a run"), ("experiment", 1, "of the second")]
            assert find_target(store, "test").uid == uid
            assert len(deleted(store)) == 2
            assert len(reading.experiments(store)) == 1
            assert check(store) == []


def test_a_store_that_is_written_is_merged_from_a_copy(folder: Path, sample: Sample, tmp_path: Path) -> None:
    with Store(folder, write=True) as store:
        remark(store, "alpha", "in the log")
        assert has_content(log_of(folder / "store.sqlite"))
        merge([folder], tmp_path / "into")
        with pytest.raises(StoreLocked):
            merge([tmp_path / "into"], folder)
    assert dump(tmp_path / "into") == dump(folder)
    with Store(tmp_path / "into") as merged:
        assert merged.db.value("SELECT text FROM annotation") == "in the log"


def test_a_kill_leaves_whole_sources_and_the_same_command_goes_on(
    parts: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    into = tmp_path / "into"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom panic.store.merging import merge\n"
        "real = merge.remember\n"
        "def kill(walk):\n"
        "    if walk.value('SELECT count(*) FROM main.session') == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(walk)\n"
        "merge.remember = kill\n"
        "merge.merge([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, into, *parts[1]], check=False)
    assert done.returncode == -signal.SIGKILL
    with Store(into) as store:
        assert check(store) == []
        assert len(reading.sessions(store)) == 1
    merge(parts[1], into)
    assert dump(into) == dump(parts[0])


def test_what_interrupts_a_merge_leaves_what_was_there(
    parts: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    into = tmp_path / "into"
    merge(parts[1][:1], into)
    before = dump(into)

    interrupt(parts[1], into, at=1)
    assert dump(into) == before
    assert not (into / "merging").exists()


def interrupt(sources: list[Path], into: Path, *, at: int) -> None:
    """Merge, and be interrupted while a source is copied, which it is because somebody writes it."""

    def tell(what: str, done: int, total: int) -> None:
        if what.startswith("pages"):
            raise Interrupted("enough")

    with Store(sources[at], write=True), pytest.raises(Interrupted):
        merge(sources, into, tell=tell)


def test_older_stores_are_merged_from_a_copy(tmp_path: Path) -> None:
    old = build(tmp_path / "old", "0004")
    bytes_before = (old / "store.sqlite").read_bytes()
    merge([old], tmp_path / "into")
    assert (old / "store.sqlite").read_bytes() == bytes_before
    with Store(old, write=True):
        pass
    assert dump(tmp_path / "into") == dump(old)
    assert merge([old], tmp_path / "into").num_runs == 0


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("UPDATE output SET text = 'lie' WHERE text = 'b'", "texts that are not what their digests say"),
        ("UPDATE invocation SET output = 9999 WHERE step = 1", "not sound"),
    ],
)
def test_sources_are_not_trusted(folder: Path, sample: Sample, tmp_path: Path, damage: str, why: str) -> None:
    with Store(folder, write=True) as store:
        store.db.foreign_keys(on=False)
        store.db.execute(damage)
    run(make_config(), tmp_path / "into")
    before = dump(tmp_path / "into")
    for into in ("into", "new"):
        with pytest.raises(StoreCorrupt, match=why):
            merge([folder], tmp_path / into)
    assert dump(tmp_path / "into") == before
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_merged(folder: Path, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        merge([tmp_path / "nowhere"], tmp_path / "into")
    assert not (tmp_path / "into").exists()
    assert not (tmp_path / "nowhere").exists(), "looking makes no folder"
    with pytest.raises(UsageError, match="all others come into"):
        merge([folder], folder)


def test_a_merged_store_on_a_network_file_system_is_a_snapshot(
    parts: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    for module in ("panic.store.files", "panic.store.merging.merge"):
        monkeypatch.setattr(
            f"{module}.network_file_system", lambda folder: "nfs4" if shared in folder.parents else ""
        )
    merge(parts[1][:2], shared / "merged")
    merge(parts[1][2:], shared / "merged")
    assert is_snapshot(shared / "merged")
    assert dump(shared / "merged") == dump(parts[0])
    merge([shared / "merged"], tmp_path / "here")
    assert dump(tmp_path / "here") == dump(parts[0])
