"""What is kept beside the store is what would be worked out, after whatever happens to the store."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import apsw
import pytest

from panic.store import Commit, NewRun, Store, delete, ending, reading, summaries, tombstones, writing
from panic.store.codec import prompt_digest
from panic.store.missing import Shared
from panic.store.records import NewBatch, NewFailure, NewInvocation, NewOutput, NewStuck
from panic.store.snapshot import snapshot
from panic.store.standing import standing, standings
from tests.rights import folder_of_others, without_rights
from tests.store.sample import Sample

LENGTH = 4


@pytest.fixture(autouse=True)
def _all_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "WORTH_S", -1.0)
    monkeypatch.setattr(summaries, "WORTH_STATES", 1)


class Play:
    """Does at random what can be done to a store, as its only driver."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.rng = store, random.Random(seed)
        self.model = writing.add_model(store, "tell", "tell-fingerprint", {})

    def experiment(self) -> int:
        return self.rng.choice(reading.experiments(self.store)).id

    def begin(self) -> None:
        name = f"e{self.rng.randrange(10**9)}"
        row = writing.start_experiment(self.store, name, {"name": name, "max_length": LENGTH})
        self.grow(row)

    def grow(self, row: int | None = None) -> None:
        prompts = [f"prompt {self.rng.randrange(6)}" for _ in range(2)]
        runs = [
            NewRun(network=("tell",), prompt=p, seed=-1, max_length=LENGTH) for p in dict.fromkeys(prompts)
        ]
        writing.add_runs(self.store, row or self.experiment(), runs)

    def steps(self) -> None:
        row = self.experiment()
        asked = reading.experiment(self.store, row).config if self.rng.random() < 0.8 else None
        session = writing.start_session(self.store, row, "test", {}, asked)
        commit, batch = Commit(), writing.next_batch_id(self.store)
        shape = {"size": 1, "padded_size": 1, "started_at": 1.0, "duration_s": 1.0}
        commit.batches.append(
            NewBatch(id=batch, session=session, model=self.model, epoch=0, device="cpu", **shape)
        )
        for run in reading.runs(self.store, row):
            if run.state not in ("todo", "running") or self.rng.random() < 0.3:
                continue
            text = f"text {self.rng.randrange(50)}"
            digest = prompt_digest(text)
            commit.outputs.append(NewOutput(digest=digest, modality="text", text=text))
            first = prompt_digest(run.prompt)
            commit.invocations.append(NewInvocation(run.id, run.num_steps, first, digest, 1, batch))
            if self.rng.random() < 0.2:
                commit.stuck.append(NewStuck(run=run.id, entry_step=0, period=1))
            elif self.rng.random() < 0.2:
                failure = NewFailure(run=run.id, step=0, kind="x", message="", detail="", attempts=1)
                commit.failures.append(failure)
        writing.commit(self.store, commit)
        if self.rng.random() < 0.5:  # else as if it had been killed
            writing.end_session(self.store, session, "done")

    def share(self) -> None:
        row = self.experiment()
        runs = reading.runs(self.store, row)
        longest, empty = max(runs, key=lambda r: r.num_steps), [run for run in runs if run.state == "todo"]
        if empty and longest.num_steps:
            writing.share_steps(self.store, [Shared(run=empty[0].id, of=longest.id, begin=0, end=1)])

    def forget(self) -> None:
        writing.forget_failures(self.store, self.experiment())

    def end(self) -> None:
        row = reading.experiment(self.store, self.experiment())
        if any(run.num_steps for run in reading.runs(self.store, row.id)):
            ending.end_runs(self.store, row)

    def hide(self) -> None:
        row = reading.experiment(self.store, self.experiment())
        runs = [run.id for run in reading.runs(self.store, row.id)]
        if self.rng.random() < 0.5 and runs:
            tombstones.hide_runs(self.store, row, runs[:1], "me")
        elif len(reading.experiments(self.store)) > 1:
            tombstones.hide(self.store, row, "me")

    def bring_back(self) -> None:
        for one in tombstones.deleted(self.store):
            hidden = {other.experiment for other in tombstones.deleted(self.store)}
            if one.origin not in hidden:
                tombstones.restore(self.store, one)
                return

    def delete(self) -> None:
        if len(reading.experiments(self.store)) > 1:
            delete.delete_experiment(self.store, self.experiment())


DOES = ["begin", "grow", "grow", "steps", "steps", "steps", "share", "forget", "end", "hide", "bring_back",
        "delete"]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_counts_that_are_kept_are_those_that_are_counted(tmp_path: Path, seed: int) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store, Store(tmp_path / "s") as reader:
        play = Play(store, seed)
        play.begin()
        monkey = pytest.MonkeyPatch()
        monkey.setattr(summaries, "FRESH_S", -1e9)
        for _ in range(40):
            what = play.rng.choice(DOES)
            getattr(play, what)()
            assert sorted(summaries.run_counts(reader)) == sorted(reading.run_counts(reader)), what
        some = [play.experiment()]
        assert summaries.run_counts(reader, some) == reading.run_counts(reader, some)
        monkey.undo()
    assert (tmp_path / "s" / "summaries.sqlite").exists()


@pytest.mark.parametrize("seed", range(6))
def test_states_that_are_kept_are_those_that_are_worked_out(tmp_path: Path, seed: int) -> None:
    kept = []
    with Store(tmp_path / "s", write=True, create=True) as store:
        play = Play(store, seed)
        for _ in range(4):
            play.begin()
    for turn in range(30):
        with Store(tmp_path / "s", write=True) as store:
            play.store = store
            what = play.rng.choice(DOES) if turn % 3 else "steps"
            getattr(play, what)()
        with Store(tmp_path / "s") as reader:
            expected = {row.id: standing(reader, row).state for row in reading.experiments(reader)}
            for _ in range(2):
                assert {row: state for row, state, *_ in standings(reader)} == expected, what
            kept.append(len(summaries.settled(reader)[0]))
    assert any(kept)


def test_a_kept_state_is_one_that_there_is(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        Play(store, 3).begin()
        (row,) = reading.experiments(store)
        writing.end_session(store, writing.start_session(store, row.id, "", {}, row.config), "done")
    with Store(tmp_path / "s") as reader:
        expected = list(standings(reader))
        with summaries.opened(reader) as file:
            assert file is not None
            file.execute("UPDATE settled SET state = char(27) || '[31m'")
        assert list(standings(reader)) == expected


def test_a_state_is_not_kept_where_its_driver_is_gone_only_afterwards(tmp_path: Path) -> None:
    """As if it were killed between the reading of its session and the keeping."""
    with Store(tmp_path / "s", write=True, create=True) as store, Store(tmp_path / "s") as reader:
        play = Play(store, 3)
        play.begin()
        (row,) = reading.experiments(store)
        writing.start_session(store, row.id, "", {}, row.config)
        told = standings(reader)
        assert next(told)[1] == "running"
        store.close()
        assert list(told) == []
    with Store(tmp_path / "s") as reader:
        assert summaries.settled(reader)[0] == {}
        assert [state for _, state, *_ in standings(reader)] == ["interrupted"]


def test_an_experiment_that_comes_while_standings_are_read_is_no_error(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        Play(store, 3).begin()
    with Store(tmp_path / "s") as reader, pytest.MonkeyPatch.context() as monkey:
        read = summaries.settled

        def settled(reader: Store, experiments: object = None) -> object:
            found = read(reader)
            with Store(tmp_path / "s", write=True) as store:
                new = writing.start_experiment(store, "new", {"name": "new"})
                session = writing.start_session(store, new, "", {}, {"name": "new"})
                writing.end_session(store, session, "done")
            return found

        monkey.setattr(summaries, "settled", settled)
        assert len(list(standings(reader))) == 2


def test_no_state_is_kept_while_a_driver_writes(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store, Store(tmp_path / "s") as reader:
        play = Play(store, 3)
        play.begin()
        (row,) = reading.experiments(store)
        writing.end_session(store, writing.start_session(store, row.id, "", {}, row.config), "done")
        assert [state for _, state, *_ in standings(reader)] == ["incomplete"]
        assert summaries.settled(reader)[0] == {}
    with Store(tmp_path / "s") as reader:
        assert [state for _, state, *_ in standings(reader)] == ["incomplete"]
        assert summaries.settled(reader) == ({row.id: "incomplete"}, [])
    with Store(tmp_path / "s", write=True) as store:
        writing.start_experiment(store, row.name, row.config | {"max_length": LENGTH + 1})
        assert summaries.settled(store)[0] == {}, "it was asked for more"


def test_while_a_driver_writes_counts_may_be_half_a_minute_old(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store, Store(tmp_path / "s") as reader:
        play = Play(store, 1)
        play.begin()
        before = summaries.run_counts(reader)
        play.steps()
        assert summaries.run_counts(reader) == before != reading.run_counts(reader)
        now = summaries.time.time
        with pytest.MonkeyPatch.context() as monkey:
            monkey.setattr(summaries.time, "time", lambda: now() + 31)
            assert summaries.run_counts(reader) == reading.run_counts(reader)
        play.steps()
    with Store(tmp_path / "s") as reader:  # nobody writes any more
        assert summaries.run_counts(reader) == reading.run_counts(reader)


def test_a_file_that_is_none_of_ours_is_made_anew_and_a_link_left_alone(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        Play(store, 2).begin()
    file = tmp_path / "s" / "summaries.sqlite"
    with Store(tmp_path / "s") as reader:
        expected = reading.run_counts(reader)
        for content in (b"no database", b"SQLite format 3\0" + b"\0" * 5000, b""):
            file.write_bytes(content)
            assert summaries.run_counts(reader) == expected
            assert summaries.run_counts(reader) == expected
            assert file.read_bytes()[:15] == b"SQLite format 3"
        file.unlink()
        other = tmp_path / "other"
        other.write_bytes(b"")
        file.symlink_to(other)
        assert summaries.run_counts(reader) == expected
        assert other.read_bytes() == b""


@pytest.mark.parametrize("damaged", [b"measured", b"DAMAGED"])
def test_a_file_with_a_text_that_is_none_is_made_anew(store: Store, damaged: bytes) -> None:
    """A flipped bit in a name ended whatever lists experiments."""
    expected = reading.run_counts(store)
    file = store.path / summaries.FILE
    with summaries.opened(store) as connection:
        assert connection is not None
        connection.execute("INSERT INTO counts VALUES ('DAMAGED', 1, 0.0, 0, 0, 0, 0, 0, 0, 0, 0)")
        connection.execute("INSERT INTO measured VALUES ('DAMAGED', 'x', 1, 1, 0.0, 0.5)")
    file.write_bytes(file.read_bytes().replace(damaged, b"\xff" + damaged[1:]))
    assert summaries.run_counts(store) == expected
    assert summaries.using(store, lambda connection: summaries.means(connection, "x")) == {}


def test_on_a_network_file_system_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite's locks may be none."""
    with Store(tmp_path / "s", write=True, create=True) as store:
        Play(store, 3).begin()
    shared = tmp_path / "shared"
    snapshot(tmp_path / "s", shared)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"server:/ {shared} nfs4 rw 0 0\n")
    with Store(shared) as reader:
        assert summaries.run_counts(reader) == reading.run_counts(reader)
        with summaries.opened(reader) as file:
            assert file is None
        assert summaries.using(reader, lambda file: summaries.means(file, "x")) == {}
    assert not (shared / summaries.FILE).exists()


def test_where_nothing_can_be_kept_counts_are_counted(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        Play(store, 3).begin()
    with Store(tmp_path / "s") as reader:
        (tmp_path / "s" / "summaries.sqlite").mkdir()
        assert summaries.run_counts(reader) == reading.run_counts(reader)


def kept(file: apsw.Connection, name: str) -> list[tuple[str, int, float]]:
    return sorted(summaries.run_values(file, name))


def test_a_metric_is_kept_by_experiment_and_replaced_as_a_whole(store: Store) -> None:
    rows = [(1, "a", 10), (2, "b", 20), (3, "c", 30)]
    began = time.time()

    def take(file: apsw.Connection) -> None:
        summaries.keep_metric(file, "speed", 1, rows, {1: [(5, 1.0), (6, 4.0)], 2: [(7, 3.0)]})
        summaries.keep_metric(file, "length", 2, rows[:1], {1: [(5, 9.0)]})

    summaries.using(store, take)

    def read(file: apsw.Connection) -> None:
        assert kept(file, "speed") == [("a", 5, 1.0), ("a", 6, 4.0), ("b", 7, 3.0)]
        assert summaries.means(file, "speed") == {"a": 2.5, "b": 3.0}
        assert summaries.num_measured(file, "speed") == {"a": 2, "b": 1}
        assert summaries.num_measured(file, "length") == {"a": 1}
        known = summaries.measured(file, 1)
        assert {key: stamp for key, (stamp, _) in known.items()} == {
            ("a", "speed"): 10, ("b", "speed"): 20, ("c", "speed"): 30
        }  # fmt: skip
        assert all(began <= at <= time.time() for _, at in known.values())
        assert summaries.measured(file, 2).keys() == {("a", "length")}
        summaries.keep_metric(file, "speed", 1, [(1, "a", 11)], {1: [(6, 8.0)]})
        assert kept(file, "speed") == [("a", 6, 8.0), ("b", 7, 3.0)]
        assert kept(file, "length") == [("a", 5, 9.0)]
        assert summaries.measured(file, 1)["a", "speed"][0] == 11
        assert summaries.means(file, "speed") == {"a": 8.0, "b": 3.0}

    summaries.using(store, read)


def test_what_is_taken_of_a_file_that_cannot_be_kept_is_taken_of_one_in_memory(store: Store) -> None:
    def take(file: apsw.Connection) -> list[tuple[str, int, float]]:
        summaries.keep_metric(file, "speed", 1, [(1, "a", 10)], {1: [(5, 1.0)]})
        return kept(file, "speed")

    (store.path / summaries.FILE).symlink_to(store.path / "elsewhere")
    for _ in range(2):
        assert summaries.using(store, take) == [("a", 5, 1.0)]
    assert not (store.path / "elsewhere").exists()


def test_numbers_are_fresh_that_are_of_this_state_or_young_enough(writer: Store) -> None:
    assert summaries.is_fresh(3, 0.0, 3, 5.0)
    assert summaries.is_fresh(2, 6.0, 3, 5.0)
    assert not summaries.is_fresh(2, 5.0, 3, 5.0)
    before = time.time()
    since = summaries.oldest(writer)
    assert before <= since + summaries.FRESH_S <= time.time() + 1e-3
    writer.close()
    with Store(writer.path) as reader:
        assert summaries.oldest(reader) == float("inf"), (
            "nobody writes: what is known is of this state, or stale"
        )


def test_stamps_are_those_of_each_experiment(writer: Store, sample: Sample) -> None:
    before = {row: (uid, stamp) for row, uid, stamp in summaries.stamps(writer)}
    assert before.keys() == {sample.alpha, sample.beta}
    assert {uid for uid, _ in before.values()} == {row.uid for row in reading.experiments(writer)}
    writing.forget_failures(writer, sample.alpha)
    after = {row: (uid, stamp) for row, uid, stamp in summaries.stamps(writer)}
    assert after[sample.beta] == before[sample.beta]
    assert after[sample.alpha] != before[sample.alpha]
    assert summaries.stamps(writer, [sample.beta]) == [(sample.beta, *before[sample.beta])]


def test_metrics_are_shown_in_a_table_of_this_connection(store: Store, sample: Sample) -> None:
    for rows in ({1: {"speed": 0.5}, 2: {"length": 3.0, "speed": 1.5}}, {4: {"length": 1.0}}):
        summaries.show(store, "run", ["speed", "length"], rows)
        found = store.db.rows("SELECT run, speed, length FROM temp.run_metric ORDER BY run")
        assert found == [(row, known.get("speed"), known.get("length")) for row, known in rows.items()]
    assert summaries.runs_of(store, [sample.beta]) == [sample.shared]
    assert len(summaries.runs_of(store, [sample.alpha, sample.beta])) == 5


def test_a_file_that_is_none_is_made_anew_by_whoever_opens_it(store: Store) -> None:
    (store.path / summaries.FILE).write_bytes(b"no database" * 100)
    with summaries.opened(store) as file:
        assert file is not None
        assert summaries.measured(file, 1) == {}
    (store.path / summaries.FILE).unlink()
    (store.path / summaries.FILE).mkdir()
    with summaries.opened(store) as file:
        assert file is None, "nothing can be kept there"
    with summaries.opened(store, anyway=True) as file:
        assert file is not None


def test_nothing_in_the_file_is_trusted(store: Store) -> None:
    with summaries.opened(store) as file:
        assert file is not None
        assert file.pragma("trusted_schema") == 0
        file.pragma("writable_schema", True)
        assert not file.pragma("writable_schema")


def test_a_file_whose_damage_shows_late_is_made_anew_and_one_that_is_in_use_left_alone(store: Store) -> None:
    for error, is_kept in ((apsw.CorruptError("x"), True), (apsw.BusyError("x"), False)):
        errors: list[apsw.Error] = [error]
        name = type(error).__name__

        def take(file: apsw.Connection, errors: list[apsw.Error] = errors, name: str = name) -> int:
            if errors:
                raise errors.pop()
            summaries.keep_metric(file, name, 1, [(1, "a", 10)], {1: [(5, 1.0)]})
            return 7

        assert summaries.using(store, take) == 7
        assert summaries.using(store, lambda file, name=name: kept(file, name)) == (
            [("a", 5, 1.0)] if is_kept else []
        )
    assert summaries.using(store, lambda file: kept(file, "CorruptError")) == [("a", 5, 1.0)]


def test_of_a_file_that_may_only_be_read_a_copy_is_changed(filled: tuple[Path, Sample]) -> None:
    with folder_of_others() as base:
        folder = base / "store"
        shutil.copytree(filled[0], folder)

        def keep(file: apsw.Connection, name: str, value: float) -> None:
            summaries.keep_metric(file, name, 1, [(1, "a", 10)], {1: [(5, value)]})

        with Store(folder) as store:
            summaries.using(store, lambda file: keep(file, "old", 1.0))
        before = (folder / summaries.FILE).read_bytes()
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)

        def both(file: apsw.Connection) -> list[list[tuple[str, int, float]]]:
            keep(file, "new", 2.0)
            return [kept(file, "old"), kept(file, "new")]

        with without_rights(), Store(folder) as store:
            assert summaries.using(store, both) == [[("a", 5, 1.0)], [("a", 5, 2.0)]]
        assert (folder / summaries.FILE).read_bytes() == before


def test_counts_that_take_no_time_are_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "WORTH_S", 1e9)
    assert summaries.run_counts(store) == reading.run_counts(store)
    assert not summaries.has_file(store)


def test_borders_of_how_old_counts_may_be_and_of_how_many_states_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "WORTH_STATES", 2)
    with Store(tmp_path / "s", write=True, create=True) as store, Store(tmp_path / "s") as reader:
        play = Play(store, 1)
        play.begin()
        before = summaries.run_counts(reader)
        play.steps()
        now = summaries.time.time
        with pytest.MonkeyPatch.context() as monkey:
            monkey.setattr(summaries.time, "time", lambda: now() + 20)
            assert summaries.run_counts(reader) == before
            assert summaries.run_counts(reader, exact=True) == reading.run_counts(reader) != before
        for row in reading.experiments(store):
            writing.end_session(store, writing.start_session(store, row.id, "", {}, row.config), "done")
    with Store(tmp_path / "s") as reader:
        list(standings(reader))
        assert summaries.settled(reader)[0] == {}, "one is too few"
    with Store(tmp_path / "s", write=True) as store:
        new = writing.start_experiment(store, "new", {"name": "new"})
        session = writing.start_session(store, new, "", {}, {"name": "new"})
        writing.end_session(store, session, "done")
    with Store(tmp_path / "s") as reader:
        expected = {row: state for row, state, *_ in standings(reader)}
        assert summaries.settled(reader) == (expected, [])


def test_what_was_kept_of_another_experiment_or_an_earlier_state_is_not_told(
    store: Store, sample: Sample
) -> None:
    """What was kept of alpha is of its present state, and of beta of the one before."""
    stamps = {row: (uid, stamp) for row, uid, stamp in summaries.stamps(store)}
    (alpha, of_alpha), (beta, of_beta) = stamps[sample.alpha], stamps[sample.beta]
    counted = {row: rest for row, *rest in reading.run_counts(store)}
    with summaries.opened(store) as file:
        assert file is not None
        for uid, stamp in ((alpha, of_alpha), (beta, of_beta - 1)):
            file.execute("INSERT INTO settled VALUES (?, ?, 'failed')", (uid, stamp))
            file.execute(f"INSERT INTO counts VALUES (?, ?, 0.0, {', '.join('9' * 8)})", (uid, stamp))
    assert summaries.settled(store) == ({sample.alpha: "failed"}, [(sample.beta, beta, of_beta)])
    assert sorted(summaries.run_counts(store)) == [
        (sample.alpha, *[9] * 8), (sample.beta, *counted[sample.beta])
    ]  # fmt: skip
    assert summaries.run_counts(store, [sample.beta]) == [(sample.beta, *counted[sample.beta])]


def test_damaged_states_are_worked_out_and_metrics_of_another_version_are_not_taken(store: Store) -> None:
    expected = list(standings(store))
    with summaries.opened(store) as file:
        assert file is not None
        file.execute("INSERT INTO settled VALUES ('DAMAGED', 1, 'failed')")
        summaries.keep_metric(file, "x", 1, [(1, "a", 10)], {1: [(5, 1.0)]})
        summaries.keep_metric(file, "x", 2, [(2, "b", 20)], {2: [(6, 2.0)]})
        assert [summaries.measured(file, version).keys() for version in (1, 2, 3)] == [
            {("a", "x")}, {("b", "x")}, set()
        ]  # fmt: skip
    path = store.path / summaries.FILE
    path.write_bytes(path.read_bytes().replace(b"DAMAGED", b"\xffAMAGED"))
    assert list(standings(store)) == expected
