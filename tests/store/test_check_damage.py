"""What `panic check` and `dump` are for must not end them: each damage is a line, and the rest is checked."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from panic.errors import StoreCorrupt
from panic.store import Commit, Store, check, contents, reading, writing
from panic.store.dump import dump
from panic.store.records import NewVectorisation
from panic.store.rows import bad_values
from panic.store.trainings import keep
from tests.store.sample import entry, fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path / "store", write=True, create=True) as store:
        fill(store)
    return tmp_path / "store"


def damage(folder: Path, statement: str) -> None:
    """Change rows behind panic's back, against all constraints; and one more: a step too many."""
    connection = sqlite3.connect(folder / "store.sqlite")
    connection.execute("PRAGMA ignore_check_constraints=ON")
    connection.execute(statement)
    connection.execute("UPDATE embedding SET vector = zeroblob(length(vector) - 4) WHERE rowid = 1")
    connection.commit()
    connection.close()


STRETCH = '{"place": "driver", "name": "idle", "model": "", "start_s": 0, "width_s": 0.25, "seconds": 0.2}'
REMARK = (
    "INSERT INTO annotation (target_kind, target, kind, text, author, at)"
    " VALUES ('experiment', 'x', 'tag', 'x', 'x'"
)
DAMAGES = [
    ("UPDATE output SET text = CAST(x'61ff62' AS TEXT) WHERE id = 1", "is no UTF-8"),
    ("UPDATE diagram_bars SET bars = x'0102' WHERE rowid = 1", "2 bytes are no bars"),
    ("UPDATE diagram_bars SET generators = x''", "the bytes of its generators are no array"),
    ("UPDATE diagram_bars SET generators = x'ff'", "the bytes of its generators are no array"),
    ("UPDATE run SET network = '[]' WHERE id = 1", "run, row 1: network is no list of names"),
    ("UPDATE run SET network = '{\"a' WHERE id = 1", "run, row 1: network is no JSON"),
    ("UPDATE run SET network = CAST(x'ff' AS TEXT) WHERE id = 1", "run, row 1: network is no UTF-8"),
    *(
        (f"UPDATE experiment SET config = '{config}' WHERE id = 1", f"row 1: config has {problem}")
        for config, problem in (
            ('{"networks": 5}', "networks that are no lists of names"),
            ('{"networks": ["draw"]}', "networks that are no lists of names"),
            ('{"networks": [["draw", 1]]}', "networks that are no lists of names"),
            ('{"diagrams": [["x"]]}', "diagrams that are no settings"),
            ('{"diagrams": "x"}', "diagrams that are no settings"),
            ('{"embeddings": "PocketText"}', "embeddings that are no list of texts"),
            ('{"tags": [1]}', "tags that are no list of texts"),
            ('{"models": [1]}', "models that are no mapping"),
            ('{"labels": "x"}', "labels that are no mapping"),
        )
    ),
    ("DROP TABLE stuck", "store.sqlite: the table stuck is missing"),
    ("DROP INDEX annotation_target", "store.sqlite: the index annotation_target is missing"),
    (f"{REMARK}, 1e300)", "annotation, row 1: at is no time: 1e+300"),
    ("UPDATE session SET started_at = 1e300", "session, row 1: started_at is no time: 1e+300"),
    ("UPDATE batch SET started_at = -1", "batch, row 1: started_at is no time"),
    ("UPDATE stuck SET period = 0", "period 0"),
    ("UPDATE stuck SET period = 1 << 40", "stuck, row 1: period is more than 2,147,483,647: 1,099"),
    ("UPDATE run SET max_length = 1 << 40 WHERE id = 1", "run, row 1: max_length is more than 2,147,483,647"),
    ("UPDATE run SET repeat = 1 << 60 WHERE id = 1", "run, row 1: repeat is more than 2,147,483,647"),
    ("UPDATE batch SET duration_s = 9e999", "batch, row 1: duration_s is no duration: inf"),
    ("UPDATE diagram SET duration_s = -1", "diagram, row 1: duration_s is no duration: -1"),
    ("UPDATE experiment SET config = '{' WHERE id = 1", "experiment, row 1: config is no JSON"),
    ("UPDATE experiment SET config = '[1]' WHERE id = 1", "experiment, row 1: config is a JSON list"),
    ("UPDATE experiment SET name = '../x' WHERE id = 1", "experiment, row 1: name"),
    ("UPDATE model SET name = CAST(x'ff' AS TEXT) WHERE id = 1", "model, row 1: name is no UTF-8"),
    ("UPDATE diagram SET settings = 'x'", "diagram, row 1: settings is no JSON"),
    ("UPDATE session SET timeline = '['", "session, row 1: timeline is no JSON"),
    ("UPDATE session SET timeline = CAST(x'5b005d00' AS TEXT)", "session, row 1: timeline is no JSON"),
    ("UPDATE session SET timeline = '{}'", "session, row 1: timeline is a JSON dict"),
    ("UPDATE session SET timeline = CAST(x'ff' AS TEXT)", "session, row 1: timeline is no UTF-8"),
    *(
        (f"UPDATE session SET timeline = '[{STRETCH}, {row}]'", "row 1: timeline has as entry 2 what is no")
        for row in ("1", STRETCH.replace("0.2", "9e999"), STRETCH.replace("place", "plaice"))
    ),
]


@pytest.mark.parametrize(("statement", "told"), DAMAGES)
def test_each_damage_is_one_line_and_the_rest_is_checked(folder: Path, statement: str, told: str) -> None:
    damage(folder, statement)
    with Store(folder, is_whole=False) as store:
        problems = check.check(store)
    assert any(told in problem for problem in problems), problems
    assert any("bytes, not" in problem or "embedding, row 1" in problem for problem in problems), problems


@pytest.mark.parametrize(("statement", "told"), [one for one in DAMAGES if "DROP" not in one[0]])
def test_a_dump_goes_on_after_what_is_damaged(folder: Path, statement: str, told: str) -> None:
    damage(folder, statement)
    with Store(folder) as store:
        lines = list(dump(store))
    assert [json.loads(json.dumps(line)) for line in lines] == lines != []
    assert {"experiment", "output", "embedding"} <= {line["kind"] for line in lines}


@pytest.mark.parametrize("vector", ["x''", "x'ff'", "CAST(replace(vector, x'27', x'28') AS BLOB)"])
def test_vectorisations_that_are_no_arrays_end_neither_check_nor_dump(folder: Path, vector: str) -> None:
    """A blob without bytes was written as bytes into JSON; numpy's EOFError and TokenError were unknown."""
    with Store(folder, write=True) as store:
        measure = writing.add_measure(store, {"kind": "entropy"})
        row = NewVectorisation(diagram=1, dimension=0, measure=measure, vector=np.ones(1))
        writing.commit(store, Commit(vectorisations=[row]))
    damage(folder, f"UPDATE vectorisation SET vector = {vector}")
    with Store(folder) as store:
        problems = check.check(store)
        lines = [json.dumps(line) for line in dump(store)]
    assert any("vectorisation of run 1, dimension 0" in problem for problem in problems), problems
    assert sum('"damaged"' in line for line in lines) == 1


def test_a_damaged_caption_is_a_line_of_its_own(folder: Path) -> None:
    damage(folder, DAMAGES[0][0])
    with Store(folder) as store:
        damaged = [
            line for line in dump(store) if line["kind"] == "damaged" and line["what"].startswith("text")
        ]
        whole = [line for line in dump(store) if line["kind"] == "output"]
        outputs = store.db.value("SELECT count(*) FROM output")
    assert len(damaged) == 1
    assert len(whole) == outputs - 1


def test_a_part_is_checked_alone(folder: Path) -> None:
    damage(folder, "DELETE FROM invocation WHERE run = 1 AND step = 0")
    with Store(folder) as store:
        alpha = reading.experiment(store, "alpha").id
        beta = reading.experiment(store, "beta").id
        assert any(problem.startswith("run 1:") for problem in check.check(store, alpha))
        assert any(problem.startswith("run 1:") for problem in check.check(store, alpha, run=1))
        assert not any(problem.startswith("run 1:") for problem in check.check(store, beta))
        assert not any(problem.startswith("run 1:") for problem in check.check(store, alpha, run=2))


def test_what_cannot_be_read_further_is_told_with_what_was_checked(folder: Path) -> None:
    """Vectors are told with their model's name, which is no text here."""
    damage(folder, "UPDATE model SET name = CAST(x'ff' AS TEXT) WHERE name = 'embed'")
    with Store(folder) as store:
        problems = check.check(store)
    row, rest = problems
    assert row.startswith("model, row 3: name is no UTF-8")
    assert "store.sqlite is damaged: a text in it is no UTF-8" in rest
    with Store(folder) as store:
        assert check.check(store, reading.experiment(store, "alpha").id) == [rest], "of a part, too"


@pytest.mark.parametrize("network", ['"ab"', '{"a": 1, "b": 2}', '["a", 1]', "[]", "1"])
def test_a_network_that_is_none_is_told_once(folder: Path, network: str) -> None:
    """The first run is stuck; that cannot be judged then."""
    damage(folder, f"UPDATE run SET network = '{network}' WHERE id = 1")
    with Store(folder) as store:
        row, vector = check.check(store)
    assert row.startswith("run, row 1: network is ")
    assert "bytes, not" in vector


@pytest.mark.parametrize(
    "statement", [one for one, told in DAMAGES if re.search("JSON|UTF-8", told) and "timeline" not in told]
)
def test_reading_a_damaged_text_is_told_as_damage_and_nothing_else(folder: Path, statement: str) -> None:
    damage(folder, statement)
    with Store(folder) as store, pytest.raises(StoreCorrupt, match="is damaged"):
        read_all(store)


def read_all(store: Store) -> None:
    for row in reading.experiments(store):
        reading.models(store)
        contents.outputs(store, row.id)
        reading.runs(store, row.id)
        contents.diagrams(store, row.id)


def test_a_bit_in_the_format_number_of_a_file_is_told_as_damage(folder: Path) -> None:
    data = bytearray((folder / "store.sqlite").read_bytes())
    data[47] = 9  # of the four bytes from 44 on
    (folder / "store.sqlite").write_bytes(data)
    with pytest.raises(StoreCorrupt, match="unsupported file format"):
        Store(folder)


def test_a_number_that_is_neither_a_time_nor_a_duration_may_be_anything(folder: Path) -> None:
    """Losses are below 0 and above all durations; times and durations are not."""
    with Store(folder) as store:
        keep(store, entry("mine", loss=-1.0, val_loss=1e30, best_loss=-1e30))
        keep(store, entry("ended", ended_at=0.0, end_state="complete"))
        assert check.check(store) == []
    for column, value, told in (
        ("seconds", 1e12, ""),
        ("updated_at", -0.5, "updated_at is no time: -0.5"),
        ("updated_at", 253_402_300_799.5, ""),
        ("updated_at", 253_402_300_800.0, "updated_at is no time: 2.53402e+11"),
    ):
        connection = sqlite3.connect(folder / "store.sqlite")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute(f"UPDATE training SET {column} = ? WHERE name = 'mine'", (value,))
        connection.commit()
        connection.close()
        with Store(folder) as store:
            assert check.check(store) == ([f"training, row 1: {told}"] if told else [])


def test_what_a_stretch_of_a_timeline_may_be(folder: Path) -> None:
    with Store(folder, write=True) as store:
        for change, is_one in (
            ('"start_s": -1', True),
            ('"start_s": -1e10', False),
            ('"start_s": 9999999999', True),
            ('"start_s": 1e10', False),
            ('"start_s": true', False),
            ('"start_s": "0"', False),
            ('"width_s": -1', False),
            ('"width_s": 1e10', False),
            ('"seconds": -0.001', False),
            ('"seconds": 0', True),
            ('"model": null', False),
            ('"name": 1', False),
            ('"more": 1', True),
        ):
            row = json.dumps(json.loads(STRETCH) | json.loads(f"{{{change}}}"))
            store.db.execute(f"UPDATE session SET timeline = '[{STRETCH}, {row}]' WHERE id = 2")
            told = "session, row 2: timeline has as entry 2 what is no stretch of a place's time"
            assert list(bad_values(store.db)) == ([] if is_one else [told]), change
