"""The dump is the content and nothing but the content."""

import json

import pytest

from panic.store import Store, dump
from panic.store.codec import image_digest
from tests.store.sample import fill, picture


@pytest.fixture
def lines(folder, sample):
    with Store(folder) as store:
        return list(dump.dump(store))


def test_the_same_content_gives_the_same_lines(lines, tmp_path):
    with Store(tmp_path / "other", write=True, create=True) as store:
        other = fill(store, shuffled=True)
        assert other.alpha == 2  # row numbers do differ
        assert list(dump.dump(store)) == lines


def test_lines_are_json_and_say_everything(lines):
    assert [json.loads(json.dumps(line, allow_nan=False)) for line in lines] == lines
    kinds = [line["kind"] for line in lines]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "experiment": 2,
        "run": 5,
        "invocation": 11,
        "stuck": 1,
        "failure": 1,
        "diagram": 2,
        "output": 10,
        "embedding": 4,
    }
    outputs = {line["digest"]: line for line in lines if line["kind"] == "output"}
    drawn = image_digest(picture(1)).hex()
    assert outputs[drawn] == {"kind": "output", "digest": drawn, "modality": "image", "pixels": drawn}
    (diagram, empty) = (line for line in lines if line["kind"] == "diagram")
    assert (diagram["bars"], empty["bars"]) == ([[0.0, 0.5], [0.0, None]], [])
    forbidden = {"id", "uid", "created_at", "started_at", "batch", "session", "attempts", "duration_s"}
    assert not forbidden & {key for line in lines for key in line}


def test_one_experiment_has_only_its_lines(folder, sample, lines):
    with Store(folder) as store:
        alpha, beta = list(dump.dump(store, "alpha")), list(dump.dump(store, "beta"))
    assert sum(line["kind"] == "run" for line in beta) == 1
    assert {json.dumps(line) for line in alpha + beta} == {json.dumps(line) for line in lines}
    assert [line for line in lines if line in beta] == beta


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE stuck SET period = 4",
        "UPDATE invocation SET seed = 43 WHERE step = 3",
        "UPDATE embedding SET vector = zeroblob(12) WHERE rowid = 2",
        "UPDATE diagram_bars SET bars = zeroblob(32) WHERE dimension = 0",
        "UPDATE failure SET kind = 'exception'",
        "UPDATE output SET text = 'other' WHERE text = 'd'",
        "UPDATE experiment SET name = 'other' WHERE name = 'beta'",
        "UPDATE run SET max_length = 100 WHERE seed = 7",
        "UPDATE model SET fingerprint = 'other' WHERE name = 'embed'",
    ],
)
def test_other_content_gives_other_lines(folder, sample, lines, sql):
    with Store(folder, write=True) as store:
        store.db.execute(sql)
        assert list(dump.dump(store)) != lines


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE session SET started_at = 0, pid = 1",
        "UPDATE experiment SET uid = printf('%032d', id), created_at = 0",
        "UPDATE failure SET attempts = 9, failed_at = 0, message = 'other'",
        "UPDATE batch SET device = 'cuda:1', duration_s = 9",
    ],
)
def test_circumstances_are_not_content(folder, sample, lines, sql):
    with Store(folder, write=True) as store:
        store.db.execute(sql)
        assert list(dump.dump(store)) == lines


def test_a_dump_is_of_one_moment(folder, sample, lines):
    with Store(folder, write=True) as writer, Store(folder) as store:
        then = dump.dump(store)
        first = next(then)
        writer.db.execute("UPDATE stuck SET period = 4")
        assert [first, *then] == lines
        assert list(dump.dump(store)) != lines
