"""Frames of a store against what was written into it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.config.diagrams import DiagramSettings
from panic.errors import NotFound
from panic.store import Commit, Store, contents, writing
from panic.store.records import NewDistance, NewVectorisation
from tests.analysis.conftest import HOSTILE, angle_vector


def test_frames_hold_what_the_store_holds(full):
    data = load(full.store, "demo")
    assert data.experiments["name"].to_list() == ["demo"]
    assert data.runs["state"].to_list() == ["stuck", "done", "failed", "todo"]
    assert data.runs.row(0, named=True)["period"] == 10
    assert data.runs["failure"].to_list() == [None, None, "the caption was <empty>", None]
    steps = data.invocations
    assert steps.columns == ["run", "step", "model", "modality", "input", "output", "seed", "batch"]
    assert steps.filter(pl.col("run") == 1)["step"].to_list() == list(range(10))
    assert steps.select("run", "step").rows() == sorted(steps.select("run", "step").rows())
    assert steps.filter(pl.col("step") == 1)["model"].unique().to_list() == ["tell"]
    assert steps.filter(pl.col("step") == 0)["modality"].unique().to_list() == ["image"]
    texts = steps.filter(pl.col("run") == 2, pl.col("modality") == "text").join(data.outputs, on="output")
    assert texts.sort("step")["text"].to_list() == [f"text {i}" for i in (4, 3, 2, 1, 0)]
    assert set(data.outputs.filter(pl.col("modality") == "text")["text"]) >= {"a start", HOSTILE}
    first = contents.invocations(full.store, 1)[0]
    row = data.outputs.filter(pl.col("output") == steps["output"][0]).row(0, named=True)
    assert (row["digest"], row["width"]) == (first.output, 16)
    assert data.timings["duration_s"].sum() == pytest.approx(0.25 * len(data.timings))
    assert set(data.timings["model"]) == {"draw", "tell"}


@pytest.mark.parametrize(("every", "phases"), [([3, 5], 30), ([2**31 - 1, 2**31 - 19, 2**31 - 61], 2**62)])
def test_interventions_may_come_round_later_than_numbers_go(full, every, phases):
    """A table of runs ended in an error for an arm whose numbers have a common multiple beyond 64 bits."""
    arms = {"swap": [{"every": n, "text": "state 1"} for n in every]}
    with full.store.transaction() as connection:
        said = "UPDATE experiment SET config = json_set(config, '$.arms', json(?))"
        connection.execute(said, (json.dumps(arms),))
        connection.execute("UPDATE run SET arm = 'swap' WHERE id = 2")
    assert load(full.store, "demo").runs["round"].to_list() == [1, phases, 1, 1]


def test_vectors_are_one_array_and_one_column(full):
    data = load(full.store, "demo")
    matrix, frame = data.matrix("embed"), data.embeddings("embed")
    assert matrix.shape == (7, 2)
    assert frame.schema["vector"] == pl.Array(pl.Float32, 2)
    np.testing.assert_array_equal(frame["vector"].to_numpy(), matrix)
    assert np.shares_memory(frame["vector"].to_numpy(), matrix)
    want = contents.vectors(full.store, "embed", "demo")
    digests = frame.join(data.outputs, on="output", maintain_order="left")["digest"]
    assert digests.to_list() == want.digests
    np.testing.assert_array_equal(matrix, want.vectors)
    path = data.trajectory(2, "embed", "text")
    np.testing.assert_allclose(path, [angle_vector(72 * i) for i in (4, 3, 2, 1, 0)])
    with pytest.raises(NotFound, match="without a vector"):
        data.trajectory(1, "embed", "image")


def test_what_is_taken_of_diagrams_comes_with_its_settings(full):
    """Of the largest diagrams only; an entropy is a list of one, a landscape keeps its shape."""
    store = full.store
    older = store.db.value("SELECT id FROM diagram WHERE run = 1")
    full.diagram(1, np.array([angle_vector(60 * i) for i in range(6)]))
    newer, second = (store.db.value("SELECT max(id) FROM diagram WHERE run = ?", run) for run in (1, 2))
    entropy = writing.add_measure(store, {"kind": "entropy"})
    landscape = writing.add_measure(store, {"kind": "landscape", "resolution": 3})
    wasserstein = writing.add_measure(store, {"kind": "wasserstein", "order": 1.0})
    grid = np.arange(6.0).reshape(2, 3)
    writing.commit(store,
        Commit(
            vectorisations=[
                NewVectorisation(diagram=d, dimension=1, measure=m, vector=v)
                for d, m, v in (
                    (older, entropy, np.array(9.0)), (newer, entropy, np.array(0.5)),
                    (newer, landscape, grid),
                )
            ],
            distances=[
                NewDistance(*sorted((newer, second)), 0, wasserstein, np.inf),
                NewDistance(*sorted((older, second)), 0, wasserstein, 7.0),
            ],
        )
    )  # fmt: skip
    data = load(store, "demo")
    found = data.vectorisations.select("run", "model", "dimension", "kind", "shape", "values").rows()
    assert found == [
        (1, "embed", 1, "entropy", [], [0.5]),
        (1, "embed", 1, "landscape", [2, 3], grid.ravel().tolist()),
    ]
    assert data.vectorisations["settings"][1] == '{"kind":"landscape","resolution":3}'
    pairs = data.distances.select("run", "other", "model", "dimension", "kind", "distance").rows()
    assert pairs == [(1, 2, "embed", 0, "wasserstein", np.inf)]
    assert data.vectorisations.schema["values"] == pl.List(pl.Float64)
    assert load(store, runs=[1]).distances.is_empty()
    assert load(store, runs=[2]).vectorisations.columns == data.vectorisations.columns


def test_entropies_alone_are_lists_like_all_others(full):
    """Polars takes equally long arrays for another type."""
    (one, two) = (full.store.db.value("SELECT id FROM diagram WHERE run = ?", run) for run in (1, 2))
    entropy = writing.add_measure(full.store, {"kind": "entropy"})
    writing.commit(
        full.store,
        Commit(
            vectorisations=[
                NewVectorisation(diagram=d, dimension=0, measure=entropy, vector=np.array(v))
                for d, v in ((one, 0.5), (two, 0.25))
            ]
        ),
    )
    found = load(full.store, "demo").vectorisations
    assert found.schema["values"] == pl.List(pl.Float64)
    assert found["values"].list.first().to_list() == [0.5, 0.25]


def test_bars_are_those_of_the_largest_diagram(full):
    data = load(full.store, "demo")
    loops = data.bars.filter(pl.col("dimension") == 1)
    assert loops["run"].to_list() == [1, 2]
    np.testing.assert_allclose(loops["birth"], 2 * np.sin(np.pi / 5), rtol=1e-6)
    before = len(data.bars)
    full.diagram(1, np.array([angle_vector(60 * i) for i in range(6)]))
    again = load(full.store, "demo").bars
    assert len(again) == before + 1
    assert again.filter(pl.col("run") == 1)["num_points"].unique().to_list() == [6]


def test_runs_experiments_and_everything(full):
    other = writing.start_experiment(full.store, "other", {"name": "other"})
    everything, some = load(full.store), load(full.store, runs=[2, 3])
    assert everything.experiments["name"].to_list() == ["demo", "other"]
    assert load(full.store, other).experiments["name"].to_list() == ["other"]
    assert some.runs["run"].to_list() == [2, 3]
    assert set(some.invocations["run"]) == {2, 3}
    assert set(some.bars["run"]) == {2}
    assert len(everything.invocations) == 24
    assert len(everything.outputs) == 12
    assert len(load(full.store, runs=[3]).outputs) == 5  # a prompt, two texts, two pictures
    with pytest.raises(NotFound, match="No run 99"):
        _ = load(full.store, runs=[99]).runs
    with pytest.raises(NotFound):
        load(full.store, "nothing")


def test_an_empty_experiment_has_empty_frames(bench):
    data = load(bench.store, "demo")
    assert [len(f) for f in (data.runs, data.invocations, data.outputs, data.bars, data.timings)] == [0] * 5
    assert data.matrix("embed").shape == (0, 0)
    assert data.embeddings("embed").is_empty()
    assert data.annotations.is_empty()


def test_the_cache_follows_the_revision(full, tmp_path):
    def loaded(folder):
        data = load(full.store, "demo", cache=folder)
        return data.invocations, data.outputs, data.embeddings("embed"), data.matrix("embed")

    plain, first, second = loaded(False), loaded(tmp_path / "cache"), loaded(tmp_path / "cache")
    for a, b, c in zip(plain[:3], first[:3], second[:3], strict=True):
        assert a.equals(b)
        assert a.equals(c)
    np.testing.assert_array_equal(plain[3], second[3])
    files = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(files) == 3
    full.add("a start", ["new"], seed=-1, repeat=9)
    assert len(loaded(tmp_path / "cache")[0]) == len(plain[0]) + 2
    new = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(new) == 3
    assert not files & new
    for broken in new:
        (tmp_path / "cache" / broken).write_bytes(b"PAR1, and no more")
    assert len(loaded(tmp_path / "cache")[0]) == len(plain[0]) + 2
    assert len(loaded(tmp_path / "cache")[0]) == len(plain[0]) + 2
    assert {path.name for path in (tmp_path / "cache").iterdir()} == new


def test_the_cache_lives_in_the_store_and_harms_it_not(full, tmp_path):
    assert len(load(full.store, cache=True).invocations) == 24
    assert len(list((tmp_path / "store" / "frames").glob("*.parquet"))) == 1
    full.store.close()
    with Store(tmp_path / "store") as store:
        assert len(load(store, cache=True).invocations) == 24


def test_a_cache_that_cannot_be_written_is_told_and_done_without(full, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    data = load(full.store, "demo", cache=tmp_path / "file" / "frames")
    assert len(data.invocations) == 24
    assert "no frames are kept" in caplog.text


def test_the_modality_of_a_model_without_vectors_is_not_guessed(bench):
    bench.walk("ab")
    with pytest.raises(NotFound, match="no vectors of embed yet"):
        load(bench.store, "demo").modality_of("embed")


def test_a_part_reads_again_only_what_is_not_known(full):
    whole = load(full.store, "demo")
    bars = whole.bars
    part = whole.part([2])
    assert part.models is whole.models
    assert part.runs["run"].to_list() == [2]
    assert part.bars.equals(bars.filter(pl.col("run") == 2))
    assert set(part.invocations["run"]) == {2}
    assert part.matrix("embed").shape == (6, 2)  # its own texts and its prompt


def test_a_name_means_the_model_that_the_experiment_used(full):
    writing.add_model(full.store, "embed", "another-fingerprint", {"modality_out": "vector"})
    assert load(full.store, "demo").model("embed").fingerprint == "embed-fingerprint"
    assert load(full.store).model("embed").fingerprint == "another-fingerprint"
    assert load(full.store, "demo").part([1]).matrix("embed").shape == (6, 2)


def test_bars_are_those_of_the_first_settings_that_are_asked_for_and_there(make_bench):
    """Of a part they are of the settings that the whole has, so that parts compare."""
    asked = [DiagramSettings(metric="cosine"), DiagramSettings(metric="chordal"), DiagramSettings()]
    bench = make_bench(diagrams=[one.key for one in asked])
    points = np.array([angle_vector(30 * i * i) for i in range(6)])
    runs = [bench.add("a start", [f"text {i}" for i in range(6)], seed=-1, repeat=n) for n in range(2)]
    for run, settings in ((runs[0], asked[2]), (runs[0], asked[1]), (runs[1], asked[2])):
        bench.diagram(run, points, settings.metric, settings.digest)
    data = load(bench.store, "demo")
    bars = data.bars_under("embed")
    assert (set(bars["metric"]), set(bars["run"])) == ({"chordal"}, {runs[0]})
    assert data.part(runs[:1]).bars_under("embed").equals(bars)
    assert data.part(runs[1:]).bars_under("embed").is_empty()
    assert data.bars_under("draw").is_empty()
    bench.diagram(runs[1], points, "euclidean", "nobody asked")
    alone = load(bench.store, runs=runs[1:])
    assert set(alone.bars_under("embed")["settings_digest"]) == {asked[2].digest}


def test_bars_that_nobody_asked_for_are_there_too(make_bench):
    bench = make_bench(diagrams=None)
    run = bench.add("a start", ["one", "two"])
    for digest in ("first", "second"):
        bench.diagram(run, np.array([angle_vector(30 * i * i) for i in range(3)]), "chordal", digest)
    found = load(bench.store, "demo").bars_under("embed")
    assert found["settings_digest"].unique().to_list() == ["first"]


def test_labels_of_prompts_are_those_of_their_experiment_and_nonsense_is_none(make_bench):
    labels = {"a start": {"tags": ["b", "a"], "group": "g"}, HOSTILE: "x", "else": {}}
    bench = make_bench(labels=labels)
    for prompt in ("a start", HOSTILE, "else"):
        bench.add(prompt, ["one"])
    data = load(bench.store, "demo")
    assert data.runs.select("tags", "group").rows() == [("b, a", "g"), ("", None), ("", None)]
    assert data.part([1, 3]).runs.select("tags", "group").rows() == [("b, a", "g"), ("", None)]
    assert data.part([3, 1]).runs["run"].to_list() == [1, 3], "in their order"


def test_vectors_that_are_not_finite_have_no_direction(bench):
    bench.add("a start", ["one", "two"])
    bench.embed({"one": np.array([1, np.nan], np.float32), "two": angle_vector(0)})
    assert load(bench.store, "demo").matrix("embed").tolist() == [[0, 0], [1, 0]]


def test_a_frame_that_cannot_take_its_place_leaves_nothing_behind(full, tmp_path, caplog):
    plain = load(full.store, "demo", cache=tmp_path / "cache").invocations
    [file] = (tmp_path / "cache").iterdir()
    file.unlink()
    file.mkdir()
    assert load(full.store, "demo", cache=tmp_path / "cache").invocations.equals(plain)
    assert "no frames are kept" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == [file]
