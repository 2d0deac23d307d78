"""Vectorisations and distances in the store: what is missing, what is read, what goes with its experiment."""

from __future__ import annotations

import apsw
import numpy as np
import pytest

from panic.errors import NotFound
from panic.store import Commit, NewDiagram, Store, check, contents, delete, dump, missing, reading, writing
from panic.store.records import NewDistance, NewVectorisation
from tests.store.sample import SETTINGS, fill

LANDSCAPE = {"kind": "landscape", "range": [0, 2], "resolution": 3, "num_landscapes": 2}
ENTROPY = {"kind": "entropy"}
WASSERSTEIN = {"kind": "wasserstein", "order": 1.0, "internal_p": 2.0}


def add_diagram(store: Store, run: int, model: int, num_points: int) -> None:
    bars = {0: np.array([[0.0, 1.0], [0.0, np.inf]]), 1: np.empty((0, 2))}
    diagram = NewDiagram(
        run=run, model=model, settings=SETTINGS, settings_digest="settings", num_points=num_points,
        num_unique=2, bars=bars,
    )  # fmt: skip
    writing.commit(store, Commit(diagrams=[diagram]))


@pytest.fixture
def writer(folder, sample):
    """The sample, where alpha's second run has a diagram, too: rows 1 (first run) and 2."""
    with Store(folder, write=True) as store:
        add_diagram(store, sample.noisy, sample.embed, 2)
        yield store


def put_all(store: Store) -> dict[str, int]:
    """Entropies and landscapes of both diagrams, the distances of the pair."""
    measures = {s["kind"]: writing.add_measure(store, s) for s in (ENTROPY, LANDSCAPE, WASSERSTEIN)}
    commit = Commit()
    for diagram in (1, 2):
        for dimension in (0, 1):
            for kind, values in (
                ("entropy", np.array(0.5 * diagram)),
                ("landscape", np.full((2, 3), diagram)),
            ):
                commit.vectorisations.append(
                    NewVectorisation(
                        diagram=diagram,
                        dimension=dimension,
                        measure=measures[kind],
                        vector=values.astype(float),
                    )
                )
    for dimension, distance in enumerate((0.25, np.inf)):
        commit.distances.append(NewDistance(1, 2, dimension, measures["wasserstein"], distance))
    writing.commit(store, commit)
    return measures


def test_a_measure_has_one_row_whatever_the_order_of_its_settings(writer):
    assert writing.add_measure(writer, WASSERSTEIN) == writing.add_measure(
        writer, dict(reversed(WASSERSTEIN.items()))
    )
    assert writing.add_measure(writer, WASSERSTEIN | {"order": 2.0}) != writing.add_measure(
        writer, WASSERSTEIN
    )


def test_what_is_missing_is_what_is_not_there(writer, sample):
    key = (sample.alpha, sample.embed, "settings")
    one, two = writing.add_measure(writer, ENTROPY), writing.add_measure(writer, LANDSCAPE)
    assert list(missing.vectorisations(writer, *key, [one, two])) == [(1, [one, two]), (2, [one, two])]
    put_all(writer)
    assert list(missing.vectorisations(writer, *key, [one, two])) == []
    assert list(missing.vectorisations(writer, sample.alpha, sample.embed, "other", [one, two])) == []
    writer.db.execute(f"DELETE FROM vectorisation WHERE diagram = 2 AND dimension = 1 AND measure = {two}")
    assert list(missing.vectorisations(writer, *key, [one, two])) == [(2, [two])]
    assert list(missing.vectorisations(writer, *key, [])) == []


def test_a_pair_is_missing_until_all_of_its_distances_are_there(writer, sample):
    key = (sample.alpha, sample.embed, "settings")
    measure = writing.add_measure(writer, WASSERSTEIN)
    assert list(missing.distances(writer, *key, measure, 2)) == [(1, [2])]
    put_all(writer)
    assert list(missing.distances(writer, *key, measure, 2)) == []
    writer.db.execute("DELETE FROM distance WHERE dimension = 1")
    assert list(missing.distances(writer, *key, measure, 2)) == [(1, [2])]
    assert list(missing.distances(writer, *key, measure, 1)) == []


def test_of_a_run_that_has_grown_the_larger_diagram_counts(writer, sample):
    put_all(writer)
    add_diagram(writer, sample.stuck, sample.embed, 3)
    key = (sample.alpha, sample.embed, "settings")
    measure = writing.add_measure(writer, WASSERSTEIN)
    assert list(missing.distances(writer, *key, measure, 2)) == [(3, [2])]  # the stuck run comes first
    assert contents.vectorisations(writer, "alpha", "embed", dimension=0, kind="entropy").runs == [
        sample.noisy
    ]
    add_diagram(writer, sample.untouched, sample.embed, 2)
    writing.commit(writer, Commit(distances=[NewDistance(2, 3, 0, measure, 0.5)]))
    found = contents.distances(writer, "alpha", "embed", dimension=0, kind="wasserstein")
    assert found.runs == [sample.stuck, sample.noisy, sample.untouched]
    assert found.matrix[0].tolist()[:2] == [0.0, 0.5]  # not the distance of the older diagram
    assert np.isnan(found.matrix[2]).tolist() == [True, True, False]


def test_what_is_stored_is_read(writer, sample):
    put_all(writer)
    found = contents.vectorisations(writer, "alpha", "embed", dimension=1, kind="landscape", resolution=3)
    assert found.values.tolist() == [np.full((2, 3), 1.0).tolist(), np.full((2, 3), 2.0).tolist()]
    assert (found.runs, found.settings) == ([sample.stuck, sample.noisy], LANDSCAPE)
    assert contents.vectorisations(writer, "alpha", "embed", dimension=0, kind="entropy").values.tolist() == [
        0.5,
        1.0,
    ]
    matrix = contents.distances(writer, "alpha", "embed", dimension=0, kind="wasserstein")
    assert matrix.matrix.tolist() == [[0.0, 0.25], [0.25, 0.0]]
    assert (matrix.runs, matrix.settings) == ([sample.stuck, sample.noisy], WASSERSTEIN)
    assert (
        contents.distances(writer, "alpha", "embed", dimension=1, kind="wasserstein").matrix[0, 1] == np.inf
    )
    counts = reading.counts(writer, "alpha")
    assert (counts.vectorisations, counts.distances) == (8, 2)
    assert reading.counts(writer, "beta").distances == 0


def test_one_measure_is_asked_for_and_the_others_named(writer):
    put_all(writer)
    with pytest.raises(NotFound, match="Nothing was computed") as raised:
        contents.vectorisations(writer, "alpha", "embed", dimension=0, kind="silhouette")
    assert '"kind":"landscape"' in raised.value.hint
    other = writing.add_measure(writer, WASSERSTEIN | {"order": 2.0})
    writing.commit(writer, Commit(distances=[NewDistance(1, 2, 0, other, 0.1)]))
    with pytest.raises(NotFound, match="Several"):
        contents.distances(writer, "alpha", "embed", dimension=0, kind="wasserstein")
    assert (
        contents.distances(writer, "alpha", "embed", dimension=0, kind="wasserstein", order=2.0).matrix[1, 0]
        == 0.1
    )


def test_the_dump_names_pairs_by_their_runs(writer, tmp_path):
    put_all(writer)
    lines = list(dump.dump(writer, "alpha"))
    keys = {line["prompt"] + str(line["seed"]): line["run"] for line in lines if line["kind"] == "run"}
    first, second = sorted([keys["a42"], keys["a-1"]])
    pairs = [line for line in lines if line["kind"] == "distance"]
    assert [(p["run"], p["other"], p["dimension"], p["distance"]) for p in pairs] == [
        (first, second, 0, 0.25),
        (first, second, 1, None),
    ]
    assert sum(line["kind"] == "vectorisation" for line in lines) == 8
    with Store(tmp_path / "other", write=True, create=True) as store:
        other = fill(store, shuffled=True)
        add_diagram(store, other.noisy, other.embed, 2)
        put_all(store)
        assert [line for line in dump.dump(store) if line["kind"] == "distance"] == pairs


def test_a_sound_store_and_what_a_check_finds(writer, sample):
    put_all(writer)
    assert check.check(writer) == []
    writer.db.execute("UPDATE vectorisation SET vector = x'00' WHERE diagram = 1 AND dimension = 0")
    writer.db.execute("UPDATE diagram SET settings_digest = 'other' WHERE id = 2")
    minus_one = "x'0000000000000000000000000000F0BF'"  # a death before its birth at 0
    writer.db.execute(f"UPDATE diagram_bars SET bars = {minus_one} WHERE dimension = 1")
    problems = "\n".join(check.check(writer))
    assert problems.count("its bytes are no array") == 2
    assert f"distance of runs {sample.stuck} and {sample.noisy}: their diagrams are of other" in problems
    assert "dimension 1: not all bars are births and later deaths" in problems


def test_nonsense_cannot_be_stored(writer):
    measure = writing.add_measure(writer, WASSERSTEIN)
    pairs = [(2, 1, 0, 1.0), (1, 1, 0, 0.0), (1, 2, 0, -1.0), (1, 2, 0, np.nan), (1, 2, 2, 1.0)]
    for a, b, dimension, value in pairs:
        with pytest.raises(apsw.ConstraintError):
            writing.commit(writer, Commit(distances=[NewDistance(a, b, dimension, measure, value)]))


def test_they_go_with_their_experiment(writer):
    put_all(writer)
    delete.delete_experiment(writer, "alpha")
    for table in ("distance", "vectorisation", "measure"):
        assert writer.db.value(f"SELECT count(*) FROM {table}") == 0, table
    assert check.check(writer) == []
