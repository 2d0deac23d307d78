"""What becomes of a row that two stores have, table by table, and of the numbers that rows refer by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from panic.arms import BASELINE
from panic.errors import StoreCorrupt
from panic.store import Commit, NewDiagram, NewRun, Store, contents, reading, writing
from panic.store.annotations import annotate, run_target
from panic.store.check import check
from panic.store.merging import merge as merging
from panic.store.merging.conflicts import shrunk
from panic.store.merging.merge import merge
from panic.store.records import NewDistance, NewVectorisation
from panic.store.signing import Author
from panic.store.snapshot import snapshot
from panic.store.trainings import deleted_of, keep, list_trainings, mark_deleted
from tests.engine.conftest import dump
from tests.rights import folder_of_others, without_rights
from tests.store.sample import NETWORK, SETTINGS, Sample, entry, output, picture, steps
from tests.store.test_merge_orders import OLD, read, write

MEMORY = "INSERT INTO working_memory VALUES ('f', 'cpu', {}, 1, {}, 1.0)"
SPENT = "INSERT INTO spending SELECT 1, id, {}, {} FROM model WHERE name = 'draw'"
MADE = "INSERT INTO invariance VALUES ('f', {}, 1, '{{}}', 'alone', 1.0, 1.0)"
FAILED = "UPDATE failure SET step = {}, kind = '{}', message = 'of {}'"
ENDED = "UPDATE session SET ended_at = {}, end_state = {} WHERE id = 1"


@pytest.fixture
def two(folder: Path, sample: Sample, tmp_path: Path) -> tuple[Path, Path]:
    return folder, Path(shutil.copytree(folder, tmp_path / "other"))


def change(path: Path, statement: str) -> None:
    with Store(path, write=True) as store, store.transaction() as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("one", "other", "asked", "expected"),
    [
        (MEMORY.format(0, 5), MEMORY.format(0, 9), "SELECT bucket, peak_bytes FROM working_memory", [(0, 9)]),
        (MEMORY.format(0, 5), MEMORY.format(7, 3), "SELECT bucket, peak_bytes FROM working_memory ORDER BY 1",
         [(0, 5), (7, 3)]),
        (MADE.format(2), MADE.format(3), "SELECT batch_size FROM invariance ORDER BY 1", [(2,), (3,)]),
        (MADE.format(2), MADE.format(2), "SELECT batch_size FROM invariance ORDER BY 1", [(2,)]),
        (SPENT.format(3, 90), SPENT.format(5, 40), "SELECT requests, tokens FROM spending", [(5, 90)]),
        ("UPDATE run SET max_length = 9 WHERE seed = 42", "UPDATE run SET max_length = 8 WHERE seed = -1",
         "SELECT DISTINCT seed, max_length FROM run ORDER BY 1", [(-1, 8), (7, 2), (42, 9)]),
        (FAILED.format(1, "timeout", "one"), FAILED.format(1, "crash", "other"),
         "SELECT step, kind, message FROM failure", [(1, "timeout", "of one")]),
        (FAILED.format(2, "crash", "one"), FAILED.format(1, "timeout", "other"),
         "SELECT step, kind, message FROM failure", [(2, "crash", "of one")]),
        (ENDED.format("NULL", "NULL"), ENDED.format(7.0, "'done'"),
         "SELECT ended_at, end_state FROM session WHERE command LIKE '%alpha%'", [(7.0, "done")]),
    ],
)  # fmt: skip
def test_of_a_row_that_two_stores_have_one_stays_in_any_order(
    two: tuple[Path, Path], tmp_path: Path, one: str, other: str, asked: str, expected: list[object]
) -> None:
    for path, statement in zip(two, (one, other), strict=True):
        change(path, statement)
    for number, order in enumerate((two, two[::-1])):
        assert merge(order, tmp_path / str(number)).conflicts == []
        with Store(tmp_path / str(number)) as store:
            assert store.db.rows(asked) == expected


def measured(path: Path, runs: list[int], sample: Sample, kinds: list[str]) -> None:
    """Add diagrams of runs, in this order, and for each kind their vectorisations and distance."""
    with Store(path, write=True) as store:
        measures = {kind: writing.add_measure(store, {"kind": kind}) for kind in kinds}
        for run in runs:
            diagram = NewDiagram(
                run=run, model=sample.embed, settings=SETTINGS, settings_digest="settings", num_points=2,
                num_unique=1, bars={0: np.array([[0.0, float(run)]])},
            )  # fmt: skip
            writing.commit(store, Commit(diagrams=[diagram]))
        rows = dict(store.db.rows("SELECT run, id FROM diagram"))
        of = {kind: 1.0 + place for place, kind in enumerate(sorted(kinds))}
        taken = [
            NewVectorisation(
                diagram=rows[run], dimension=0, measure=measures[kind], vector=np.array([run, of[kind]])
            )
            for run in runs
            for kind in kinds
        ]
        one, other = sorted(rows[run] for run in runs)
        distances = [NewDistance(one, other, 0, measures[kind], of[kind]) for kind in kinds]
        writing.commit(store, Commit(vectorisations=taken, distances=distances))


def test_rows_that_stores_have_numbered_otherwise_stay_what_they_are(
    two: tuple[Path, Path], sample: Sample, tmp_path: Path
) -> None:
    """Diagrams and measures; a distance is from the smaller number to the larger, wherever it is."""
    measured(two[0], [sample.noisy, sample.failed], sample, ["entropy", "other"])
    measured(two[1], [sample.failed, sample.noisy], sample, ["other", "entropy"])
    assert dump(two[0]) == dump(two[1])
    for number, order in enumerate((two, two[::-1])):
        assert merge(order, tmp_path / str(number)).conflicts == []
        assert dump(tmp_path / str(number)) == dump(two[0])
        with Store(tmp_path / str(number)) as store:
            assert check(store) == []


def test_numbers_of_one_kind_that_are_one_by_chance_are_not_taken_for_each_other(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """Two stores without anything in common, of which each has a run 1 of a prompt 1, and so on."""
    for name, runs in (("one", OLD), ("other", {"state 5": ["state 6", "state 7", "state 8"]})):
        write(tmp_path / name, runs)
        with Store(tmp_path / name, write=True) as store:
            store.db.execute(f"UPDATE experiment SET name = '{name}', uid = '{len(name):032x}'")
    merged = merge([tmp_path / "one", tmp_path / "other"], tmp_path / "into")
    assert (merged.num_runs, merged.num_invocations, merged.num_meeting) == (2, 6, 0)
    assert read(tmp_path / "into") == OLD | {"state 5": ["state 6", "state 7", "state 8"]}
    with Store(tmp_path / "into") as store:
        named = {row.name: [run.prompt for run in reading.runs(store, row.id)] for row in
                 reading.experiments(store)}  # fmt: skip
        assert named == {"one": ["state 0"], "other": ["state 5"]}
        assert len(reading.models(store)) == 1


# --- whose runs stay


@pytest.mark.parametrize(("keep", "made"), [("mine", "a"), ("theirs", "b")])
def test_what_is_not_in_conflict_comes_whosever_runs_stay(
    two: tuple[Path, Path], sample: Sample, tmp_path: Path, keep: merging.Keep, made: str
) -> None:
    """Two runs are in conflict, and the source has two more."""
    with Store(two[1], write=True) as store:
        writing.add_runs(store, sample.alpha, [NewRun(network=NETWORK, prompt="n", seed=1, max_length=1)])
        writing.add_runs(store, sample.beta, [NewRun(network=NETWORK, prompt="n", seed=1, max_length=1)])
        with store.transaction() as connection:
            for run, step in ((sample.noisy, 3), (sample.shared, 1)):
                connection.execute(
                    "UPDATE invocation SET output = (SELECT id FROM output WHERE text = 'b')"
                    " WHERE run = ? AND step = ?",
                    (run, step),
                )
    merged = merge(two, tmp_path / "into", keep=keep)
    assert (merged.num_settled, merged.num_runs, merged.conflicts) == (2, 7, [])
    with Store(tmp_path / "into") as store:
        assert [len(reading.runs(store, name)) for name in ("alpha", "beta")] == [5, 2]
        assert store.db.value("SELECT count(*) FROM invocation") == 11
        last = store.db.value(
            "SELECT text FROM invocation JOIN output ON output.id = output WHERE run = ? AND step = 3",
            sample.noisy,
        )
        assert last == made
        assert check(store) == []


def test_a_run_that_was_left_out_is_refused_in_its_own_experiment_and_arm_alone(tmp_path: Path) -> None:
    """Its like in another experiment, with another seed, of another network or arm comes."""
    for number, text in enumerate(("state 1", "state 2")):
        write(tmp_path / str(number), {"state 0": [text, "state 3", "state 4"]})
    with Store(tmp_path / "1", write=True) as store:
        alike = [
            NewRun(network=("m",), prompt="state 0", seed=-1, max_length=3),
            NewRun(network=("m", "m"), prompt="state 0", seed=42, max_length=3),
            NewRun(network=("m",), prompt="state 0", seed=42, max_length=3, arm="swap"),
            NewRun(network=("m",), prompt="state 9", seed=42, max_length=3),
            NewRun(network=("m",), prompt="state 0", seed=-1, repeat=1, max_length=3),
        ]
        writing.add_runs(store, 1, alike)
        other = writing.start_experiment(store, "other", {"name": "other"})
        writing.add_runs(store, other, [NewRun(network=("m",), prompt="state 0", seed=42, max_length=3)])
    for number, order in enumerate(((0, 1), (1, 0), (1, 0, 1))):
        into = tmp_path / f"into-{number}"
        assert len(merge([tmp_path / str(place) for place in order], into).conflicts) == 1
        with Store(into) as store:
            assert len(reading.runs(store, "test")) == 5
            assert len(reading.runs(store, "other")) == 1
            assert store.db.value("SELECT count(*) FROM invocation") == 0
            assert store.db.rows("SELECT text FROM output ORDER BY 1") == [("state 0",), ("state 9",)]


# --- sources


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE experiment SET name = '../x' WHERE name = 'alpha'", "a name that is none"),
        ("UPDATE experiment SET uid = 'x' || substr(uid, 2) WHERE name = 'alpha'", "an id that is none"),
    ],
)
def test_names_and_ids_of_a_source_are_not_trusted(
    folder: Path, sample: Sample, tmp_path: Path, statement: str, said: str
) -> None:
    change(folder, statement)
    with pytest.raises(StoreCorrupt, match=said):
        merge([folder], tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_source_that_is_replaced_meanwhile_comes_as_it_is_in_the_end(
    two: tuple[Path, Path], sample: Sample, tmp_path: Path
) -> None:
    """As a snapshot is, which somebody goes on making: its rows name images that were not there before."""
    source = tmp_path / "snapshot"
    snapshot(two[0], source)
    with Store(two[0], write=True) as store:
        session = writing.start_session(store, sample.alpha, "again", {})
        models = (sample.draw, sample.tell)
        writing.commit(store, steps(store, session, models, sample.untouched, "untouched", [picture(77)]))
    replaced: list[str] = []

    def tell(what: str, done: int, total: int) -> None:
        if what.startswith("images of") and not replaced:
            replaced.append(what)
            snapshot(two[0], source)

    merged = merge([source], tmp_path / "into", tell=tell)
    assert replaced
    assert (merged.num_images, merged.num_runs, merged.num_invocations) == (5, 5, 12)
    assert dump(tmp_path / "into") == dump(two[0])
    with Store(tmp_path / "into") as store:
        assert check(store) == []


def test_a_source_that_nobody_may_write_is_merged(filled: tuple[Path, Sample]) -> None:
    with folder_of_others() as base:
        source = Path(shutil.copytree(filled[0], base / "source"))
        for path in (*source.iterdir(), source):
            path.chmod(0o555 if path.is_dir() else 0o444)
        (base / "here").mkdir()
        (base / "here").chmod(0o777)
        with without_rights():
            assert merge([source], base / "here" / "into").num_runs == 5
        assert dump(base / "here" / "into") == dump(filled[0])
        assert sorted(path.name for path in source.iterdir()) == ["images.sqlite", "lock", "store.sqlite"]


def test_a_difference_of_pins_is_told_with_the_beginning_of_each(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    change(two[1], f"UPDATE model SET fingerprint = '{'x' * 60}' WHERE name = 'tell'")
    told = merge(two, tmp_path / "into").conflicts
    where = f"as its fingerprint in {two[1]}, and fingerprint of tell here (shape epoch 0)"
    assert told == [f"{name}: tell has {'x' * 40} {where}" for name in ("alpha", "beta")]


def test_epochs_of_one_store_alone_agree(two: tuple[Path, Path], sample: Sample, tmp_path: Path) -> None:
    for path, size in zip(two, (4, 2), strict=True):
        with Store(path, write=True) as store:
            name, model = ("draw", sample.draw) if size == 4 else ("tell", sample.tell)
            writing.add_epoch(store, sample.alpha, name, model=model, batch_size=size, device_kind="cpu")
    assert merge(two, tmp_path / "into").conflicts == []
    with Store(tmp_path / "into") as store:
        known = [(row.name, row.number, row.batch_size) for row in reading.epochs(store, "alpha")]
        assert {("draw", 1, 4), ("tell", 1, 2)} <= {*known}
        assert len(known) == 5


# --- meetings


def imported(path: Path) -> None:
    change(path, "UPDATE epoch SET device_kind = 'given'")


def unrepeatable(path: Path) -> None:
    change(path, "UPDATE model SET is_repeatable = 0")


def fresh(path: Path) -> None:
    change(path, "UPDATE run SET seed = -1")


def null_models(path: Path) -> None:
    change(path, "UPDATE experiment SET name = 'test/null-shuffle'")


def other_shape(path: Path) -> None:
    change(path, f"UPDATE batch SET padded_size = {7 if path.name == '0' else 9}")


def other_seed(path: Path) -> None:
    change(path, f"UPDATE invocation SET seed = {7 if path.name == '0' else 9}")


@pytest.mark.parametrize("what", [imported, unrepeatable, fresh, null_models, other_shape, other_seed])
def test_outputs_that_do_not_follow_from_a_state_meet_nobody(
    tmp_path: Path, what: Callable[[Path], None]
) -> None:
    """Two runs go on otherwise from "state 1", which is a conflict where both asked a model for the same."""
    ways = (OLD, {"state 4": ["state 1", "state 5", "state 6"]})
    stores = [tmp_path / str(number) for number in range(2)]
    for path, runs in zip(stores, ways, strict=True):
        write(path, runs)
    for path in stores:
        what(path)
    merged = merge(stores, tmp_path / "into")
    assert (merged.conflicts, merged.num_meeting) == ([], 0)
    with Store(tmp_path / "into") as store:
        assert store.db.value("SELECT count(*) FROM invocation") == 6


def test_runs_that_meet_are_counted_and_those_of_their_own_are_not(tmp_path: Path) -> None:
    write(tmp_path / "0", {**OLD, "state 20": ["state 21", "state 22", "state 23"]})
    write(tmp_path / "1", {"state 9": ["state 1", "state 2", "state 3"], **OLD,
                           "state 30": ["state 31", "state 32", "state 33"]})  # fmt: skip
    merged = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "into")
    assert (merged.num_meeting, merged.num_runs, merged.conflicts) == (1, 4, [])


def test_whom_a_run_meets_is_told_and_where_it_goes_on_otherwise(tmp_path: Path) -> None:
    write(tmp_path / "into", OLD)
    write(tmp_path / "1", {"state 9": ["state 1", "state 5", "state 6"]})
    [told] = merge([tmp_path / "1"], tmp_path / "into").conflicts
    assert told == (
        f"test: the run of m from 'state 9', seed 42, repeat 0 in {tmp_path / '1'}: it meets"
        " test: the run of m from 'state 0', seed 42, repeat 0, and goes on otherwise"
    )
    assert read(tmp_path / "into") == OLD


# --- what is told


def test_a_run_in_conflict_is_told_with_its_arm_and_the_beginning_of_its_prompt(tmp_path: Path) -> None:
    prompt = "a long prompt " * 9
    for number, text in enumerate(("state 1", "state 2")):
        write(tmp_path / str(number), {prompt: [text, "state 3", "state 4"]})
        change(tmp_path / str(number), "UPDATE run SET arm = 'swap', seed = -1")
    [told] = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "into").conflicts
    assert told == (
        f"test: the run of m from {prompt[:60]!r}, seed -1, repeat 0, arm swap: its step 0 differs in"
        f" {tmp_path / '1'}"
    )


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE stuck SET period = 4", "its stuck is another"),
        ("UPDATE stuck SET entry_step = 1", "its stuck is another"),
        ("DELETE FROM invocation WHERE step = 3 AND run = {noisy}", ""),
        ("DELETE FROM stuck", ""),
        ("UPDATE invocation SET seed = 43 WHERE step > 1 AND run = {stuck}", "its step 2 differs"),
        ("UPDATE invocation SET input = output WHERE step > 1 AND run = {stuck}", "its step 2 differs"),
    ],
)
def test_what_is_another_in_a_run_is_told(
    two: tuple[Path, Path], sample: Sample, tmp_path: Path, statement: str, why: str
) -> None:
    change(two[1], statement.format(stuck=sample.stuck, noisy=sample.noisy))
    conflicts = merge(two, tmp_path / "into").conflicts
    assert [told.partition("repeat 0: ")[2].partition(" in /")[0] for told in conflicts] == [why] * bool(why)


def test_a_run_that_has_ended_in_one_store_and_gone_on_in_the_other_is_in_conflict(
    two: tuple[Path, Path], sample: Sample, tmp_path: Path
) -> None:
    change(two[0], f"DELETE FROM invocation WHERE run = {sample.stuck} AND step = 3")
    change(two[1], f"DELETE FROM stuck WHERE run = {sample.stuck}")
    for number, order in enumerate((two, two[::-1])):
        [told] = merge(order, tmp_path / str(number)).conflicts
        assert "it has ended in one store and gone on in the other" in told
    change(two[1], f"INSERT INTO stuck VALUES ({sample.stuck}, 2, 2)")  # both have ended, one lacks a step
    assert len(merge(two, tmp_path / "both").conflicts) == 1


def test_of_many_runs_in_smaller_batches_the_first_are_named(folder: Path, sample: Sample) -> None:
    with Store(folder, write=True) as store:
        runs = [NewRun(network=("draw",), prompt=f"p {n}", seed=42, max_length=1) for n in range(20)]
        rows = writing.add_runs(store, sample.alpha, runs)
        with store.transaction() as connection:
            connection.execute(
                "INSERT INTO epoch"
                " (experiment, name, number, model, batch_size, device_kind, opened_at, reason)"
                " SELECT experiment, name, 1, model, 4, device_kind, opened_at, 'memory' FROM epoch"
                " WHERE experiment = ? AND name = 'draw'",
                (sample.alpha,),
            )
            connection.execute("UPDATE batch SET epoch = 1 WHERE id = 1")
            for row in rows:
                [told] = shrunk(store)
                connection.execute(
                    "INSERT INTO invocation SELECT id, 0, prompt, prompt, 42, 1 FROM run WHERE id = ?", (row,)
                )
        first = ", ".join(map(str, [sample.stuck, *rows[:19]]))
        assert told.startswith("alpha: 20 runs have")
        assert told.endswith(f"runs {first}")
        [told] = shrunk(store)
        assert told.endswith(f"runs {first}, ...")


def test_how_far_a_merge_is_is_told_to_its_end(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images come in several transactions; the tables of each source are counted anew."""
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(merging, "STEPS_AT_ONCE", 1)
    monkeypatch.setattr(merging, "IMAGES_AT_ONCE", 1)
    merge(two, tmp_path / "into", tell=lambda what, done, total: told.append((what, done, total)))
    images = [one[1:] for one in told if one[0] == f"images of {two[0]}"]
    assert images == [(number, 4) for number in range(1, 5)]
    assert not [one for one in told if one[0] == f"images of {two[1]}"]
    for path in two:
        done = [one[1:] for one in told if one[0] == f"tables of {path}"]
        assert [number for number, _ in done] == sorted(number for number, _ in done)
        assert {total for _, total in done} == {len(merging.TABLES)}
        assert done[0][0] == 0
        assert done[-1][0] == len(merging.TABLES)
    assert dump(tmp_path / "into") == dump(two[0])


def test_images_without_their_pixels_are_told_as_lost_and_come_later(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    into = tmp_path / "into"
    assert merge(two[:1], into, with_images=False).num_images == 0
    with Store(into) as store:
        assert store.images.value("SELECT count(*) FROM image") == 0
        assert any("pixels are missing" in problem for problem in check(store))
    with Store(two[1], write=True) as store:  # one that nothing names stays where it is
        writing.commit(store, Commit(outputs=[output(picture(99))]))
        store.db.execute("DELETE FROM output WHERE id = (SELECT max(id) FROM output)")
    assert merge(two[1:], into).num_images == 4
    with Store(into) as store:
        assert check(store) == []
        assert store.images.value("SELECT count(*) FROM image") == 4


def test_a_source_without_its_file_of_images_brings_all_else(two: tuple[Path, Path], tmp_path: Path) -> None:
    (two[0] / "images.sqlite").unlink()
    assert merge(two[:1], tmp_path / "into").num_images == 0
    merged = merge(two[1:], tmp_path / "into")
    assert (merged.num_images, merged.num_runs) == (4, 0)
    with Store(tmp_path / "into") as store:
        assert check(store) == []


# --- remarks


def test_remarks_on_a_deleted_training_come_as_it_does(tmp_path: Path) -> None:
    """Of one store it was deleted; in another one it has gone on since, and comes with that state."""
    me = Author(name="me")
    for name in ("gone", "there"):
        with Store(tmp_path / name, write=True, create=True) as store:
            keep(store, entry("mine", updated_at=2.0))
            if name == "gone":
                mark_deleted(store, list_trainings(store), me)
            keep(store, entry(f"of {name}"))
            assert store.db.value(f"SELECT count(*) FROM training WHERE {deleted_of()}") == (name == "gone")
    merge([tmp_path / "gone"], tmp_path / "only")
    with Store(tmp_path / "only") as store:
        assert [row.name for row in list_trainings(store)] == ["of gone"]
        assert store.db.value("SELECT count(*) FROM training") == 1
        assert store.db.value("SELECT count(*) FROM annotation") == 0
    for number, order in enumerate((("gone", "there"), ("there", "gone"))):
        merge([tmp_path / name for name in order], tmp_path / str(number))
        with Store(tmp_path / str(number)) as store:
            assert sorted(row.name for row in list_trainings(store)) == ["mine", "of gone", "of there"]


def test_a_remark_that_two_stores_have_comes_once_and_without_the_signature_of_another_uid(
    two: tuple[Path, Path], sample: Sample, tmp_path: Path
) -> None:
    with Store(two[0], write=True) as store:
        run = next(run for run in reading.runs(store, "alpha") if run.id == sample.stuck)
        assert run.arm == BASELINE
        annotate(store, "comment", [(run_target("alpha", run), "a run")], Author(name="me"))
        with store.transaction() as connection:
            connection.execute(
                "INSERT INTO annotation (target_kind, target, kind, text, author, at, signature)"
                " SELECT 'experiment', uid, 'label', 'signed', 'me', 5.0, 'sig' FROM experiment"
            )
    shutil.rmtree(two[1])
    shutil.copytree(two[0], two[1])
    merge(two, tmp_path / "same")
    with Store(tmp_path / "same") as store:
        said = store.db.rows("SELECT kind, text, signature FROM annotation ORDER BY at, id")
        assert said == [("label", "signed", "sig")] * 2 + [("comment", "a run", None)]
    change(two[1], f"UPDATE experiment SET uid = '{'f' * 32}' WHERE name = 'alpha'")  # the larger one goes
    change(two[1], f"UPDATE annotation SET target = '{'f' * 32}' WHERE target NOT IN"
           " (SELECT uid FROM experiment) AND target_kind = 'experiment'")  # fmt: skip
    merge(two[1:], tmp_path / "renamed")
    merge(two[:1], tmp_path / "renamed")
    with Store(tmp_path / "renamed") as store:
        uids = {row.name: row.uid for row in reading.experiments(store)}
        assert uids["alpha"] < "f" * 32
        signed = store.db.rows("SELECT target, signature FROM annotation WHERE kind = 'label'")
        assert {target for target, _ in signed} == {*uids.values()}
        assert {(target, "sig") for target in uids.values()} <= {*signed}
        assert all(signature is None for target, signature in signed if target not in uids.values())


@pytest.mark.parametrize(
    ("pinned", "told"),
    [
        ("threads = 9", "draw has 9 as its threads in {}, and 1 here (shape epoch 1)"),
        ("mates = 'length'", "draw has length as its mates in {}, and bucket here (shape epoch 1)"),
        ("batch_size = 3", "draw has 3 as its batch size in {}, and 4 here (shape epoch 1)"),
        ("device_kind = 'cuda'", "draw has cuda as its device kind in {}, and cpu here (shape epoch 1)"),
    ],
)
def test_each_pin_of_each_epoch_has_to_agree_in_its_own_experiment(
    two: tuple[Path, Path], sample: Sample, tmp_path: Path, pinned: str, told: str
) -> None:
    """Alpha's second epoch of draw is another one; beta comes."""
    with Store(two[0], write=True) as store:
        writing.add_epoch(
            store, sample.alpha, "draw", model=sample.draw, batch_size=4, device_kind="cpu", threads=1
        )
    shutil.rmtree(two[1])
    shutil.copytree(two[0], two[1])
    change(two[1], f"UPDATE epoch SET {pinned} WHERE number = 1")
    with Store(two[1], write=True) as store:
        new = [NewRun(network=NETWORK, prompt="n", seed=1, max_length=1)]
        for experiment in (sample.alpha, sample.beta):
            writing.add_runs(store, experiment, new)
    merged = merge(two[1:], two[0])
    assert merged.conflicts == [f"alpha: {told.format(two[1])}"]
    with Store(two[0]) as store:
        assert [len(reading.runs(store, name)) for name in ("alpha", "beta")] == [4, 2]


@pytest.mark.parametrize("of", ["experiment", "epoch", "nothing"])
def test_a_state_is_of_one_experiment_and_shape_epoch(tmp_path: Path, of: str) -> None:
    """The second store goes on otherwise from "state 1"."""
    write(tmp_path / "0", OLD)
    write(tmp_path / "1", {"state 4": ["state 1", "state 5", "state 6"]})
    if of == "experiment":
        change(tmp_path / "1", f"UPDATE experiment SET name = 'other', uid = '{'b' * 32}'")
    elif of == "epoch":
        with Store(tmp_path / "1", write=True) as store:
            writing.add_epoch(store, 1, "m", model=1, batch_size=8, device_kind="cpu", threads=1)
        change(tmp_path / "1", "UPDATE batch SET epoch = 1")
    for number, order in enumerate(((0, 1), (1, 0))):
        merged = merge([tmp_path / str(place) for place in order], tmp_path / f"into-{number}")
        assert len(merged.conflicts) == (2 if of == "nothing" else 0)
        assert merged.num_meeting == 0


def test_what_comes_is_in_the_order_of_its_store_behind_what_was_there(tmp_path: Path) -> None:
    """Runs, outputs and diagrams are listed by their numbers."""
    write(tmp_path / "into", OLD)
    runs = {f"state {n}": [f"state {n + k}" for k in (1, 2, 3)] for n in (50, 30, 40)}
    write(tmp_path / "source", {"state 60": ["state 61", "state 62", "state 63"], **OLD, **runs})
    merge([tmp_path / "source"], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        prompts = [run.prompt for run in reading.runs(store, "test")]
        outputs = [row.text for row in contents.outputs(store, "test")]
    assert prompts == ["state 0", "state 60", "state 50", "state 30", "state 40"]
    with Store(tmp_path / "source") as store:
        theirs = [row.text for row in contents.outputs(store, "test")]
    own = ["state 0", "state 1", "state 2", "state 3"]
    assert outputs == [*own, *(text for text in theirs if text not in own)]
