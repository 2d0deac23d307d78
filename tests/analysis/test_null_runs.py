"""Null models in the store: read like any other runs, written once, the same whenever they are made."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.dynamics import step_sizes
from panic.analysis.null_runs import write_nulls
from panic.analysis.nulls import kinds
from panic.analysis.questions import shares
from panic.errors import Interrupted, NotFound
from panic.store import NewRun, Store, check, contents, delete, reading, writing
from panic.store.delete import Deletion
from panic.store.dump import dump
from panic.topology import diagram, distances_to, vectorise
from tests.analysis.conftest import NETWORK, Bench

NULL = "demo/null-shuffled"


def fill(bench: Bench, *, first: int = 0) -> Store:
    """Two runs of six texts each with vectors in five dimensions."""
    for number in range(first, first + 2):
        rng = np.random.default_rng(number)
        texts = [f"text {number} {i}" for i in range(6)]
        bench.add("a start", texts, seed=-1, repeat=number, max_length=12)
        bench.embed({text: rng.normal(size=5) for text in texts})
    return bench.store


@pytest.fixture
def walked(bench):
    return fill(bench)


def vectors(store: Store, name: str) -> list[np.ndarray]:
    data = load(store, name)
    return [data.trajectory(run, "embed", "text") for run in data.runs["run"]]


def test_surrogates_are_runs_from_the_same_prompts(walked):
    assert write_nulls(walked, "demo", "matched_walk") == ["demo/null-matched_walk"]
    data = load(walked, "demo/null-matched_walk")
    assert data.runs["state"].to_list() == ["done", "done"]
    assert data.runs["prompt"].to_list() == ["a start"] * 2
    assert data.runs["network"].unique().to_list() == ["matched_walk of draw → tell"]
    assert data.timings.select("size", "padded_size", "duration_s").unique().rows() == [(6, 6, 0.0)]
    assert {(epoch.batch_size, epoch.device_kind, epoch.number) for epoch in data.epochs} == {(1, "cpu", 0)}
    for null, own in zip(vectors(walked, "demo/null-matched_walk"), vectors(walked, "demo"), strict=True):
        np.testing.assert_allclose(step_sizes(null), step_sizes(own), atol=1e-5)
        assert not np.allclose(null[3], own[3] / np.linalg.norm(own[3]), atol=1e-3)
    assert check.check(walked) == []


def test_a_shuffled_run_is_its_own_states_in_another_order(walked):
    write_nulls(walked, "demo", "shuffled")
    for null, own in zip(vectors(walked, NULL), vectors(walked, "demo"), strict=True):
        np.testing.assert_array_equal(null[0], own[0])
        assert sorted(null.tolist()) == sorted(own.tolist())
        assert null.tolist() != own.tolist()


def test_the_same_call_writes_nothing_twice_and_new_runs_are_added(walked, bench):
    write_nulls(walked, "demo", "shuffled")
    before, lines, first = vectors(walked, NULL), list(dump(walked)), reading.experiment(walked, NULL).uid
    write_nulls(walked, "demo", "shuffled")
    assert list(dump(walked)) == lines
    assert reading.experiment(walked, NULL).uid == first
    fill(bench, first=2)
    write_nulls(walked, "demo", "shuffled")
    after = vectors(walked, NULL)
    assert len(after) == 4
    np.testing.assert_array_equal(after[:2], before)
    assert len(reading.experiments(walked)) == 2


def test_nulls_depend_on_root_seed_and_kind_and_not_on_when_they_are_made(tmp_path):
    """Neither on row numbers: another experiment that came first changed every surrogate."""
    found = {}
    for folder, root_seed in (("a", 0), ("b", 0), ("c", 1)):
        with Store(tmp_path / folder, write=True, create=True) as store:
            if folder == "b":
                other = writing.start_experiment(store, "other", {"name": "other"})
                new = NewRun(network=NETWORK, prompt="else", seed=-1, repeat=0, max_length=4)
                writing.add_runs(store, other, [new])
            fill(Bench(store, root_seed=root_seed))
            for kind in ("shuffled", "sphere_walk"):
                write_nulls(store, "demo", kind)
            found[folder] = [list(dump(store, f"demo/null-{kind}")) for kind in ("shuffled", "sphere_walk")]
    assert found["a"] == found["b"]
    assert found["a"][0] != found["c"][0]
    assert found["a"][1] != found["c"][1]


def test_after_a_stop_the_same_call_goes_on_to_the_same_end(walked):
    def stop(what, done, total):
        if done == 1:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        write_nulls(walked, "demo", "shuffled", show=stop)
    assert reading.sessions(walked, NULL)[-1].end_state == "interrupted"
    assert [run.num_steps for run in reading.runs(walked, NULL)] == [6]
    write_nulls(walked, "demo", "shuffled")
    stopped = list(dump(walked, NULL))
    delete.delete_experiment(walked, NULL)
    write_nulls(walked, "demo", "shuffled")
    assert list(dump(walked, NULL)) == stopped


def test_a_run_that_has_grown_has_its_null_made_anew(walked, bench):
    write_nulls(walked, "demo", "shuffled")
    walked.db.execute("UPDATE run SET max_length = 8 WHERE experiment = 1 AND repeat = 0")
    walked.db.execute("DELETE FROM invocation WHERE run = 1 AND step >= 8")
    write_nulls(walked, "demo", "shuffled")
    assert [run.num_steps for run in reading.runs(walked, NULL)] == [4, 6]
    assert sorted(vectors(walked, NULL)[0].tolist()) == sorted(vectors(walked, "demo")[0].tolist())
    assert check.check(walked) == []


def test_of_runs_that_have_not_ended_there_are_none(walked, bench):
    bench.add("a start", ["text 0 1"], seed=-1, repeat=7, max_length=12)
    fill(bench, first=8)
    write_nulls(walked, "demo", "shuffled")
    assert [run.repeat for run in reading.runs(walked, NULL)] == [0, 1, 3, 4]
    assert reading.named(walked, NULL).config["seeds"] == [-1]


def test_the_same_states_in_another_arm_have_surrogates_of_their_own(walked, bench):
    bench.add("a start", [f"text 0 {i}" for i in range(6)], seed=-1, repeat=5, max_length=12)
    walked.db.execute("UPDATE run SET arm = 'shock', repeat = 0 WHERE repeat = 5")
    write_nulls(walked, "demo", "shuffled")
    first, _, shocked = vectors(walked, NULL)
    assert sorted(first.tolist()) == sorted(shocked.tolist())
    assert first.tolist() != shocked.tolist()


def test_what_cannot_be_made_is_left_out_and_told(walked, bench, caplog):
    """A run too short for the kind, or vectors of too few numbers, ended the whole command half way."""
    bench.add("a start", ["text 0 1", "text 0 2"], seed=-1, repeat=7, max_length=4)
    write_nulls(walked, "demo", "autoregression")
    assert [run.num_steps for run in reading.runs(walked, "demo/null-autoregression")] == [6, 6]
    assert "autoregression: 1 surrogates are left out" in caplog.text
    walked.db.execute("DELETE FROM invocation WHERE step >= 4")
    walked.db.execute("UPDATE run SET max_length = 4")
    before = [row.name for row in reading.experiments(walked)]
    delete.delete_experiment(walked, "demo/null-autoregression")
    with pytest.raises(AnalysisError, match="no null model autoregression of demo can be made"):
        write_nulls(walked, "demo", "autoregression")
    assert [row.name for row in reading.experiments(walked)] == before[:1]


def test_a_model_that_is_added_later_gets_the_vectors_it_lacks_and_the_others_stay(walked, bench):
    """One that was asked for and has not begun is left alone."""
    writing.start_experiment(walked, "demo", bench.config | {"embeddings": ["embed", "later"]})
    write_nulls(walked, "demo", "shuffled")
    before = vectors(walked, NULL)
    bench.models["embed"] = add_model(walked, bench, "later", ["text"])
    bench.embed({f"text {run} {i}": np.full(3, 10.0 * run + i) for run in range(2) for i in range(6)})
    write_nulls(walked, "demo", "shuffled")
    np.testing.assert_array_equal(vectors(walked, NULL), before)
    data = load(walked, NULL)
    for number, run in enumerate(data.runs["run"]):
        found = data.trajectory(run, "later", "text")[:, 0]
        assert sorted(found) == [10.0 * number + i for i in range(6)]
    assert len(data.epochs) == len({row.name for row in data.epochs}) == 3, "the source's model, and two more"


def add_model(store: Store, bench: Bench, name: str, modalities: list[str]) -> int:
    """The row of an embedding model that the experiment has begun with."""
    spec = {"modalities_in": modalities, "modality_out": "vector", "parameters": {}, "base": name}
    row = writing.add_model(store, name, f"{name}-fingerprint", spec)
    writing.add_epoch(store, bench.experiment, name, model=row, batch_size=1, device_kind="cpu")
    return row


def test_a_null_experiment_is_as_long_as_its_longest_run_and_one_point_has_a_diagram(walked, bench):
    bench.add("a start", ["text 0 1"], seed=-1, repeat=7, max_length=2)
    bench.add("a start", ["text 0 1", "text 0 2", "text 0 1"], seed=-1, repeat=8, max_length=6)
    write_nulls(walked, "demo", "shuffled")
    assert sorted(run.max_length for run in reading.runs(walked, NULL)) == [1, 3, 6, 6]
    diagrams = contents.diagrams(walked, NULL)
    assert sorted((row.num_points, row.num_unique) for row in diagrams) == [(1, 1), (3, 2), (6, 6), (6, 6)]
    assert {tuple(row.dimensions) for row in diagrams} == {(0, 1)}
    assert reading.experiment(walked, NULL).config["max_length"] == 6


def test_images_have_an_experiment_of_their_own(walked, bench):
    row = bench.models["embed"] = add_model(walked, bench, "both", ["text", "image"])  # what `embed` writes
    images = [
        line["digest"] for line in dump(walked) if line["kind"] == "output" and line["modality"] == "image"
    ]
    assert images
    from panic.store import Commit, NewEmbedding

    batch = bench._batch("embed", len(images))
    rng = np.random.default_rng(1)
    made = [
        NewEmbedding(output=bytes.fromhex(d), model=row, batch=batch.id, vector=rng.normal(size=3))
        for d in images
    ]
    writing.commit(walked, Commit(batches=[batch], embeddings=made))
    config = bench.config | {"embeddings": ["embed", "both"]}
    writing.start_experiment(walked, "demo", config)
    assert write_nulls(walked, "demo", "shuffled") == [NULL, f"{NULL}-images"]
    own, null = load(walked, "demo"), load(walked, f"{NULL}-images")
    for run, other in zip(own.runs["run"], null.runs["run"], strict=True):
        left, right = own.trajectory(run, "both", "image"), null.trajectory(other, "both", "text")
        assert sorted(left.tolist()) == sorted(right.tolist())


def test_they_are_neither_counted_nor_latest_and_go_with_their_experiment(walked):
    before = reading.counts(walked, "demo")
    alone = delete.preview_deletion(walked, "demo")
    for kind in ("shuffled", "matched_walk"):
        write_nulls(walked, "demo", kind)
    assert reading.counts(walked, "demo") == before
    assert reading.experiment(walked, "latest").name == "demo"
    assert [row.name for row in reading.nulls(walked, "demo")] == [NULL, "demo/null-matched_walk"]
    whole = delete.preview_deletion(walked, "demo")
    assert (whole.runs, whole.diagrams) == (3 * alone.runs, 2 * alone.runs)
    assert delete.delete_experiment(walked, "demo") == whole
    assert reading.experiments(walked) == []
    assert walked.db.value("SELECT count(*) FROM embedding") == 0
    assert check.check(walked) == []


def test_what_an_experiment_and_its_null_models_share_is_counted_when_they_are_deleted(walked):
    """The prompt is of them all, and no other experiment's."""
    write_nulls(walked, "demo", "shuffled")

    def numbers():
        tables = Deletion.__slots__[:-1]
        return [walked.db.value(f"SELECT count(*) FROM {table[:-1]}") for table in tables]

    before, told = numbers(), delete.preview_deletion(walked, "demo")
    assert delete.delete_experiment(walked, "demo") == told
    removed = [old - new for old, new in zip(before, numbers(), strict=True)]
    assert removed == [getattr(told, name) for name in Deletion.__slots__[:-1]]


def test_no_other_experiment_is_compared_with_null_models(walked, bench):
    for kind in ("shuffled", "matched_walk"):
        write_nulls(walked, "demo", kind)
    assert shares.table(bench.evidence, bench.evidence.views[0]) is None


def test_a_null_goes_alone(walked):
    before = list(dump(walked))
    write_nulls(walked, "demo", "shuffled")
    delete.delete_experiment(walked, NULL)
    assert list(dump(walked)) == before


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_keeps_length_and_start(walked, kind):
    (name,) = write_nulls(walked, "demo", kind)
    null, own = vectors(walked, name)[0], vectors(walked, "demo")[0]
    assert null.shape == own.shape
    first = null[0] / np.linalg.norm(null[0])
    assert first == pytest.approx(own[0] / np.linalg.norm(own[0]), abs=1e-5)


def test_nothing_to_make_nulls_of_is_refused(walked):
    with pytest.raises(NotFound, match="matched_walk"):
        write_nulls(walked, "demo", "brownian")
    with pytest.raises(NotFound, match="Did you mean shuffled"):
        write_nulls(walked, "demo", "shufled")
    writing.start_experiment(walked, "other", {"name": "other"})
    with pytest.raises(AnalysisError, match="no run of other"):
        write_nulls(walked, "other", "shuffled")
    write_nulls(walked, "demo", "shuffled")
    with pytest.raises(AnalysisError, match="none of their own"):
        write_nulls(walked, NULL, "shuffled")


def test_null_experiments_have_the_diagrams_that_their_source_asks_for(walked):
    """They never got any: nothing beside a run's bars said what chance gives."""
    seen = []
    data = load(walked, *write_nulls(walked, "demo", "matched_walk", show=lambda *told: seen.append(told)))
    assert seen == [(what, number, 2) for what in ("surrogates", "diagrams") for number in (0, 1)]
    assert data.bars["run"].unique().sort().to_list() == data.runs["run"].to_list()
    run = data.runs["run"][0]
    expected = diagram(data.trajectory(run, "embed", "text"), max_dimension=1)
    found = data.bars.filter(pl.col("run") == run, pl.col("dimension") == 0, pl.col("death").is_finite())
    bars = expected.bars(0)
    assert sorted(found["death"]) == pytest.approx(sorted(bars[np.isfinite(bars[:, 1]), 1]), rel=1e-5)
    before = len(data.bars)
    assert len(load(walked, *write_nulls(walked, "demo", "matched_walk")).bars) == before


MEASURES = {
    "diagrams": {"max_dimension": 1},
    "vectorisations": ["entropy", {"kind": "betti_curve", "range": [0.0, 3.0], "resolution": 7}],
    "distances": [{"kind": "wasserstein", "order": 2.0}],
}


def test_null_models_have_vectorisations_and_distances_by_the_settings_of_their_source(make_bench):
    """They had none: nothing beside an experiment's own measures said what chance gives."""
    walked = fill(make_bench(**MEASURES))
    (name,) = write_nulls(walked, "demo", "matched_walk")
    data = load(walked, name)
    run, other = data.runs["run"].to_list()
    shapes = {run: diagram(data.trajectory(run, "embed", "text"), max_dimension=1) for run in (run, other)}
    rows = data.vectorisations.filter(pl.col("run") == run).sort("kind", "dimension")
    assert rows["kind"].to_list() == ["betti_curve"] * 2 + ["entropy"] * 2
    for row in rows.iter_rows(named=True):
        settings = json.loads(row["settings"])
        expected = vectorise(shapes[run].bars(row["dimension"]), **settings)
        assert row["values"] == pytest.approx(np.ravel(expected), rel=1e-5)
    assert json.loads(rows["settings"][0]) == {"kind": "betti_curve", "range": [0.0, 3.0], "resolution": 7}
    pairs = data.distances.sort("dimension")
    assert pairs.select("run", "other", "dimension").rows() == [(run, other, 0), (run, other, 1)]
    [expected] = distances_to(shapes[run].bars(0), [shapes[other].bars(0)], kind="wasserstein", order=2.0)
    assert pairs["distance"][0] == pytest.approx(expected, rel=1e-5)
    lines = list(dump(walked))
    write_nulls(walked, "demo", "matched_walk")
    assert list(dump(walked)) == lines
    assert check.check(walked) == []


def test_measures_that_are_asked_for_later_are_added_to_null_models(make_bench):
    bench = make_bench()
    walked = fill(bench)
    (name,) = write_nulls(walked, "demo", "shuffled")
    assert load(walked, name).vectorisations.is_empty()
    writing.start_experiment(walked, "demo", bench.config | MEASURES)
    write_nulls(walked, "demo", "shuffled")
    assert len(load(walked, name).vectorisations) == 2 * 2 * 2
    assert len(load(walked, name).distances) == 2


def test_after_a_stop_among_distances_the_same_call_goes_on(make_bench):
    bench = make_bench(**MEASURES)
    walked = fill(bench)
    fill(bench, first=2)

    def stop(what, done, total):
        if what == "distances of diagrams" and done == 1:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        write_nulls(walked, "demo", "shuffled", show=stop)
    assert len(load(walked, NULL).distances) == 3 * 2
    write_nulls(walked, "demo", "shuffled")
    stopped = list(dump(walked, NULL))
    assert len(load(walked, NULL).distances) == 6 * 2
    delete.delete_experiment(walked, NULL)
    write_nulls(walked, "demo", "shuffled")
    assert list(dump(walked, NULL)) == stopped


def test_generators_that_are_asked_for_are_kept_and_all_steps_are_told(make_bench):
    """As many as there are bars, of the dimensions that are asked for and no others."""
    asked = {"diagrams": {"max_dimension": 2, "generators": True}, "distances": MEASURES["distances"]}
    walked = fill(make_bench(**asked))
    seen = []
    (name,) = write_nulls(walked, "demo", "shuffled", show=lambda *told: seen.append(told))
    data = load(walked, name)
    whats = ["surrogates"] * 2 + ["diagrams"] * 2 + ["distances of diagrams"]
    assert [what for what, *_ in seen] == whats
    for run in data.runs["run"]:
        [row] = [one for one in contents.diagrams(walked, name) if one.run == run]
        expected = diagram(data.trajectory(run, "embed", "text"), max_dimension=2, generators=True)
        for dimension, cycles in enumerate(expected.generators):
            stored = contents.generators(walked, run, "embed", dimension)
            assert stored.tolist() == cycles.tolist()
        assert row.dimensions == (0, 1, 2)
        assert (row.num_points, row.num_unique) == (6, 6)
    assert data.distances["dimension"].to_list() == [0, 1, 2]
    assert check.check(walked) == []
