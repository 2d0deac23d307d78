"""What an export holds comes into a store again as it was, all of it or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic.errors import ConflictError, StoreCorrupt
from panic.store import Commit, NewDiagram, Store, export, reading, writing
from panic.store.annotations import Target, annotate, find_target, list_annotations
from panic.store.check import check
from panic.store.codec import decode_vector, image_digest
from panic.store.delete import delete_experiment
from panic.store.dump import dump
from panic.store.records import NewDistance, NewIntervention, NewVectorisation
from panic.store.restore import ADDED, restore
from panic.store.signing import Author
from panic.store.trainings import keep, list_trainings
from tests.store.sample import SETTINGS, Sample, entry, output, picture
from tests.store.test_merge_orders import OLD, write

Tables = dict[str, list[dict[str, Any]]]


def exported(store: Store) -> Tables:
    """The tables as `panic export --images` has them in files."""
    tables: Tables = {
        name: [dict(zip(export.columns(store, name), row, strict=True)) for row in export.rows(store, name)]
        for name in export.PLAIN_TABLES
    }
    names = ("id", "digest", "modality", "text", "width", "height")
    tables["output"] = [dict(zip(names, row, strict=True)) for row in export.outputs(store)]
    for model in reading.models(store):
        tables[f"embedding-{model.name}"] = [
            {**row._asdict(), "model": model.id, "vector": decode_vector(row.vector).tolist()}
            for row in export.vectors(store, model.id)
        ]
    names = ("diagram", "dimension", "birth", "death")
    tables["bars"] = [dict(zip(names, row, strict=True)) for row in export.bars(store)]
    tables["vectorisation"] = [
        {
            "diagram": row.diagram, "dimension": row.dimension, "measure": row.measure,
            "shape": list(row.values.shape), "values": row.values.ravel().tolist(),
        }
        for row in export.vectorisations(store)
    ]  # fmt: skip
    tables["image"] = [
        dict(zip(("digest", "encoding", "bytes"), row, strict=True)) for row in export.images(store)
    ]
    return tables


@pytest.fixture(scope="module")
def source(filled: tuple[Path, Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The sample with something in every table; only to be read."""
    folder, sample = tmp_path_factory.mktemp("source") / "store", filled[1]
    shutil.copytree(filled[0], folder)
    with Store(folder, write=True) as store:
        store.db.execute("DELETE FROM diagram")
        measures = [writing.add_measure(store, {"kind": kind}) for kind in ("entropy", "other")]
        bars = {0: np.array([[0.0, 0.5], [0.25, np.inf]]), 1: np.empty((0, 2))}
        made = [
            NewDiagram(
                run=run, model=sample.embed, settings=SETTINGS, settings_digest="settings", num_points=2,
                num_unique=1, bars=bars, error=0.125,
            )
            for run in (sample.noisy, sample.stuck)
        ]  # fmt: skip
        writing.commit(store, Commit(diagrams=made))
        after = store.db.value("SELECT digest FROM output WHERE text = 'c'")
        away = [NewDistance(1, 2, 0, measure, 0.5 * measure) for measure in measures]
        values = np.arange(6.0).reshape(2, 3)
        taken = [
            NewVectorisation(diagram=number, dimension=0, measure=measure, vector=values)
            for number in (1, 2)
            for measure in measures
        ]
        commit = Commit(distances=away, vectorisations=taken)
        commit.interventions.append(NewIntervention(sample.noisy, 2, 0, "text", after, after, None, None))
        writing.commit(store, commit)
        has_arms = "config = json_set(config, '$.arms', json(?)) WHERE name = 'alpha'"
        with store.transaction() as connection:
            for sql, *values in (
                ("UPDATE run SET arm = 'swap' WHERE id = ?", sample.noisy),
                (f"UPDATE experiment SET {has_arms}", '{"swap": [{"at": 2, "text": "c"}]}'),
                ("INSERT INTO answer VALUES (2, 3, 4, 'served', NULL)",),
                ("INSERT INTO spending VALUES (1, ?, 5, 6)", sample.draw),
                ("INSERT INTO attempt VALUES (?, 0, 'timeout', 'm', 'd', 1, 1.0)", sample.stuck),
                ("INSERT INTO working_memory VALUES ('f', 'cpu', 0, 1, 5, 1.0)",),
            ):
                connection.execute(sql, values)
        me = Author(name="me")
        annotate(store, "label", [(find_target(store, "alpha"), "a label")], me)
        annotate(store, "comment", [(Target(kind="session", uid="2", name="2"), "of beta")], me)
        keep(store, entry("mine", step=3, updated_at=3.0))
        yield store


@pytest.fixture
def tables(source: Store) -> Tables:
    return exported(source)


@pytest.fixture
def into(tmp_path: Path) -> Iterator[Store]:
    """A store with an experiment of its own, so that all rows get other numbers."""
    write(tmp_path / "into", OLD)
    with Store(tmp_path / "into", write=True) as store:
        yield store


def lines(store: Store, *names: str) -> list[dict[str, Any]]:
    return [line for name in names for line in dump(store, name)]


def test_all_of_it_comes_with_other_numbers(source: Store, tables: Tables, into: Store) -> None:
    before = lines(into, "test")
    assert restore(into, tables, "panic import x") == ["alpha", "beta"]
    assert lines(into, "alpha", "beta") == lines(source, "alpha", "beta")
    assert lines(into, "test") == before
    assert check(into) == check(source)
    for name in ("intervention", "answer", "spending", "attempt", "distance", "vectorisation", "annotation",
                 "training", "epoch", "embedding"):  # fmt: skip
        number = source.db.value(f"SELECT count(*) FROM {name}")
        assert number > 0
        assert into.db.value(f"SELECT count(*) FROM {name}") == number + (name == "epoch"), name
    assert into.db.rows("SELECT served_model, name FROM answer JOIN batch ON batch.id = batch"
                        " JOIN model ON model.id = model") == [("served", "tell")]  # fmt: skip
    spent = into.db.rows(
        "SELECT command, name, requests FROM spending JOIN session ON session.id = session"
        " JOIN model ON model.id = spending.model"
    )
    assert spent == [("panic run alpha.yaml", "draw", 5)]
    label, comment = list_annotations(into)
    assert (label.text, label.target) == ("a label", reading.experiment(source, "alpha").uid)
    assert comment.text == "of beta"
    [named] = into.db.row("SELECT command FROM session WHERE id = ?", int(comment.target))
    assert named == "panic run beta.yaml"
    assert into.images.value("SELECT count(*) FROM image") == 4
    ours = into.db.rows(
        "SELECT name, command, end_state, session.config ->> '$.diagrams', session.config ->> '$.max_length'"
        " FROM session JOIN experiment ON experiment.id = experiment WHERE command = 'panic import x'"
        " ORDER BY session.id"
    )
    assert ours == [(name, "panic import x", "done", "[]", 6) for name in ("alpha", "beta")]


def test_a_second_time_nothing_is_new_but_later_trainings(tables: Tables, into: Store) -> None:
    restore(into, tables, "first")
    rows = {name: into.db.value(f"SELECT count(*) FROM {name}") for name in (*ADDED, "run", "session")}
    tables["training"][0] |= {"step": 9, "updated_at": 9.0}
    assert restore(into, tables, "second") == ["alpha", "beta"]
    assert [row.step for row in list_trainings(into)] == [9]
    tables["training"][0] |= {"step": 5, "updated_at": 5.0}
    restore(into, tables, "third")
    assert [row.step for row in list_trainings(into)] == [9]
    assert {name: into.db.value(f"SELECT count(*) FROM {name}") for name in rows} == rows


def test_an_export_of_an_earlier_version_lacks_some_tables(tables: Tables, into: Store) -> None:
    for name in ADDED:
        del tables[name]
    for row in tables["run"]:
        row["arm"] = "baseline"
    assert restore(into, tables, "x") == ["alpha", "beta"]
    assert list_trainings(into) == []


def test_another_experiment_of_a_name_is_in_the_way(tables: Tables, into: Store) -> None:
    tables["experiment"][1] |= {"name": "test"}
    with pytest.raises(ConflictError, match="has experiments of these names: test"):
        restore(into, tables, "x")
    assert [row.name for row in reading.experiments(into)] == ["test"]


def test_an_export_of_which_one_experiment_is_there_is_in_the_way_of_itself(
    tables: Tables, into: Store
) -> None:
    restore(into, tables, "first")
    delete_experiment(into, "beta")
    with pytest.raises(ConflictError, match="has experiments of these names: alpha"):
        restore(into, tables, "second")
    assert [row.name for row in reading.experiments(into)] == ["test", "alpha"]


def test_diagrams_with_generators_are_left_out_with_all_that_was_taken_of_them(
    tables: Tables, into: Store
) -> None:
    tables["diagram"][0]["settings"] = '{"max_dimension":1,"generators":true}'
    restore(into, tables, "x")
    assert into.db.value("SELECT count(*) FROM diagram") == 1
    assert into.db.value("SELECT count(*) FROM diagram_bars") == 2
    assert into.db.value("SELECT count(*) FROM vectorisation") == 2
    assert into.db.value("SELECT count(*) FROM distance") == 0


def test_vectors_of_sessions_that_are_not_there_are_left_out(tables: Tables, into: Store) -> None:
    """As of an experiment that was deleted: its batches are in no session of the export."""
    gone = tables["session"].pop()
    tables["annotation"] = [row for row in tables["annotation"] if row["target_kind"] != "session"]
    kept = {row["id"] for row in tables["batch"] if row["session"] != gone["id"]}
    for name in ("invocation", "intervention"):
        tables[name] = [row for row in tables[name] if row["batch"] in {*kept, None}]
    restore(into, tables, "x")
    assert into.db.value("SELECT count(*) FROM embedding") == 0
    assert into.db.value("SELECT count(*) FROM batch") == 3 + len(kept)


def test_a_vector_that_is_left_out_leaves_the_others(tables: Tables, into: Store) -> None:
    tables["embedding-embed"][0]["batch"] = 99
    restore(into, tables, "x")
    assert into.db.value("SELECT count(*) FROM embedding") == 3


def test_images_that_nobody_names_do_not_come(tables: Tables, into: Store, source: Store) -> None:
    """Wherever they stand among the others, of which one is there twice."""
    first, other = tables["image"][0], image_digest(picture(99)).hex()
    nobodys = {**first, "digest": other, "bytes": b"not looked at"}
    tables["image"] = [nobodys, first, {**first, "bytes": b"not looked at"}, *tables["image"][1:]]
    restore(into, tables, "x")
    assert into.images.value("SELECT count(*) FROM image") == 4


def without(name: str, place: int = 0) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        del tables[name][place]

    return change


def changed(name: str, place: int = 0, **values: Any) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[name][place] |= values

    return change


def swapped(tables: Tables) -> None:
    one, other = tables["image"][:2]
    one["bytes"], other["bytes"] = other["bytes"], one["bytes"]


def without_images(tables: Tables) -> None:
    del tables["image"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("image"), "The export lacks 1 images."),
        (without_images, "The export lacks 4 images."),
        (swapped, "is another image"),
        (changed("output", text="other"), "is another text"),
        (changed("output", digest="xx"), "cannot be imported: ValueError"),
        (changed("run", more=1, other=2), "run has no columns more, other"),
        (changed("annotation", more=1), "annotation has no columns more"),
        (changed("training", more=1), "The trainings of the export cannot be imported: ValueError"),
        (changed("training", config="x"), "The trainings of the export cannot be imported: StoreCorrupt"),
        (changed("training", steps=0), "The trainings of the export cannot be imported: Constraint"),
        (without("diagram"), "bars are of diagrams that are not there, 1 of them"),
        (changed("vectorisation", diagram=77), "vectorisation are of diagrams that are not there, 1 of them"),
        (changed("distance", a=77, b=78), "distance are of diagrams that are not there, 2 of them"),
        (changed("diagram", settings="x"), "diagram 1 has no settings"),
        (changed("diagram", settings='{"metric": 1}'), "KeyError"),
        (changed("bars", dimension=7), "not one after another, or of no dimension of it"),
        (changed("invocation", run=77), "KeyError: 77"),
        (changed("experiment", uid="x" * 32), "an id that is none"),
        (changed("stuck", period=4), "The export is not sound: run"),
        (changed("invocation", 1, seed=-1), "ConstraintError"),
        (without("experiment"), "KeyError"),
        (changed("annotation", 1, target="77"), "KeyError: 77"),
        (changed("annotation", 1, target="x"), "cannot be imported: ValueError"),
    ],
)
def test_what_is_not_sound_leaves_nothing(
    tables: Tables, into: Store, change: Callable[[Tables], None], said: str
) -> None:
    before = lines(into, "test")
    every = (*export.PLAIN_TABLES, "output", "embedding", "diagram_bars", "vectorisation")
    counts = {name: into.db.value(f"SELECT count(*) FROM {name}") for name in every}
    change(tables)
    with pytest.raises(StoreCorrupt) as raised:
        restore(into, tables, "x")
    assert said in raised.value.message
    assert raised.value.hint in ("Nothing was imported.", "Write it with panic export --images.") or (
        "an id that is none" in said
    )
    assert lines(into, "test") == before
    assert [row.name for row in reading.experiments(into)] == ["test"]
    assert check(into) == []
    assert {name: into.db.value(f"SELECT count(*) FROM {name}") for name in counts} == counts
    assert into.images.value("SELECT count(*) FROM image") == 0


def test_an_image_that_was_there_stays_when_an_import_is_refused(tables: Tables, into: Store) -> None:
    writing.commit(into, Commit(outputs=[output(picture(1))]))
    tables["stuck"][0]["period"] = 4
    with pytest.raises(StoreCorrupt, match="The export is not sound"):
        restore(into, tables, "x")
    assert into.images.rows("SELECT digest FROM image") == [(image_digest(picture(1)),)]


def test_five_problems_of_an_export_are_told(tables: Tables, into: Store) -> None:
    for row in tables["run"]:
        row["max_length"] = 1
    tables["run"] += [{**tables["run"][0], "id": 90 + n, "repeat": 1 + n} for n in range(6)]
    steps = [row for row in tables["invocation"] if row["run"] == tables["run"][0]["id"]]
    tables["invocation"] += [{**row, "run": 90 + n} for n in range(6) for row in steps]
    with pytest.raises(StoreCorrupt, match="The export is not sound: ") as raised:
        restore(into, tables, "x")
    assert len(raised.value.message.split("; ")) == 5


def test_rows_are_what_the_tables_hold(source: Store) -> None:
    """What a notebook reads of an export, by its types and orders."""
    assert export.columns(source, "stuck") == {"run": "INTEGER", "entry_step": "INTEGER", "period": "INTEGER"}
    for model in reading.models(source):
        rows = export.vectors(source, model.id)
        assert [row.output for row in rows] == sorted(row.output for row in rows)
        digests = {row.output: row.digest for row in rows}
        known = dict(source.db.rows("SELECT id, lower(hex(digest)) FROM output"))
        assert digests == {number: known[number] for number in digests}
        assert len(rows) == (4 if model.name == "embed" else 0)
    assert list(export.bars(source)) == [
        (diagram, 0, *bar) for diagram in (1, 2) for bar in ((0.0, 0.5), (0.25, np.inf))
    ]
    assert [(row.diagram, row.measure) for row in export.vectorisations(source)] == [
        (1, 1), (1, 2), (2, 1), (2, 2)
    ]  # fmt: skip
    images = list(export.images(source))
    assert [digest for digest, _, _ in images] == sorted(digest for digest, _, _ in images)
    assert {digest for digest, _, _ in images} == {image_digest(picture(n)).hex() for n in (1, 2, 3, 4)}


def test_how_many_images_there_are_and_what_they_take(source: Store, tmp_path: Path) -> None:
    sizes = [len(data) for _, _, data in export.images(source)]
    assert export.image_bytes(source) == (4, sum(sizes))
    with Store(tmp_path / "empty", write=True, create=True) as store:
        assert export.image_bytes(store) == (0, 0)
