"""Frames against numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import frames
from panic.store import Commit, NewEmbedding, NewRun, contents, reading, writing
from tests.analysis.conftest import angle_vector


def test_drift_is_one_minus_the_cosine_at_the_steps_of_texts(bench):
    run = bench.add("start", ["near", "far", "away"])
    bench.embed(
        {
            "start": 3 * angle_vector(10),
            "near": angle_vector(70),
            "far": 2 * angle_vector(100),
            "away": angle_vector(190),
        }
    )
    found = frames.drift(bench.store, reading.experiment(bench.store, "demo"), "embed")
    assert found["step"].to_list() == [1, 3, 5]
    assert found["distance"].to_list() == pytest.approx([0.5, 1.0, 2.0], abs=1e-6)
    assert (found["run"] == run).all()
    assert not found["is_known"].any()
    assert found["network"].unique().to_list() == ["draw → tell"]


def test_a_stuck_run_goes_on_by_its_cycle(bench):
    run = bench.add("start", ["a", "b", "c"], max_length=14)
    bench.stuck(run, 2, 4)  # b, c, b, c, ...
    bench.embed(
        {"start": angle_vector(0), "a": angle_vector(90), "b": angle_vector(60), "c": angle_vector(180)}
    )
    found = frames.drift(bench.store, reading.experiment(bench.store, "demo"), "embed").sort("step")
    assert found["step"].to_list() == [1, 3, 5, 7, 9, 11, 13]
    assert found["distance"].to_list() == pytest.approx([1, 0.5, 2, 0.5, 2, 0.5, 2], abs=1e-6)
    assert found["is_known"].to_list() == [False] * 3 + [True] * 4


def test_pictures_drift_from_the_first_picture_and_step_sizes_are_within_a_modality(bench):
    """A model that reads pictures has no vector of the prompt; one step is from a picture to the next."""
    run = bench.add("start", ["a", "b", "c"], max_length=10)
    bench.stuck(run, 2, 4)
    digests = [step.output for step in contents.invocations(bench.store, run) if step.modality == "image"]
    batch = bench._batch("embed", 3)
    vectors = [angle_vector(degrees) for degrees in (10, 70, 190)]
    writing.commit(
        bench.store,
        Commit(
            batches=[batch],
            embeddings=[
                NewEmbedding(
                    output=bytes.fromhex(digest), model=bench.models["embed"], batch=batch.id, vector=vector
                )
                for digest, vector in zip(digests, vectors, strict=True)
            ],
        ),
    )
    experiment = reading.experiment(bench.store, "demo")
    found = frames.drift(bench.store, experiment, "embed", modality="image")
    assert found["step"].to_list() == [0, 2, 4, 6, 8]
    assert found["distance"].to_list() == pytest.approx([0, 0.5, 2, 0.5, 2], abs=1e-6)
    assert found["step_size"].to_list()[1:] == pytest.approx([0.5, 1.5, 1.5, 1.5], abs=1e-6)
    assert found["step_size"][0] is None
    assert found["is_known"].to_list() == [False] * 3 + [True] * 2
    assert frames.drift_bands(found, "step_size")["step"].to_list() == [2, 4, 6, 8]
    assert frames.drift(bench.store, experiment, "embed").is_empty()


def test_only_stuck_runs_go_on_and_not_beyond_their_length():
    steps = pl.DataFrame({"run": [1, 1, 1, 2, 2], "step": [0, 1, 2, 0, 1], "label": [5, 6, 7, 8, 9]})
    runs = pl.DataFrame(
        {
            "run": [1, 2], "num_steps": [3, 2], "max_length": [8, 8], "entry_step": [1, None],
            "period": [2, None],
        }
    )  # fmt: skip
    found = frames.continued(steps, runs)
    assert found.filter(pl.col("run") == 1)["label"].to_list() == [5, 6, 7, 6, 7, 6, 7, 6]
    assert found.filter(pl.col("run") == 2)["label"].to_list() == [8, 9]
    assert frames.continued(steps, runs, limit=5)["step"].to_list() == [0, 1, 2, 3, 4, 0, 1]
    assert frames.continued(steps.clear(), runs).is_empty()


def test_drift_without_the_vector_of_the_prompt_is_empty(bench):
    bench.add("start", ["a"])
    bench.embed({"a": angle_vector(0)})
    assert frames.drift(bench.store, reading.experiment(bench.store, "demo"), "embed").is_empty()


def test_bands_are_quartiles_over_runs():
    frame = pl.DataFrame(
        {
            "network": "n",
            "run": [0, 1, 2, 3, 4],
            "step": 1,
            "distance": [0.0, 1.0, 2.0, 3.0, 4.0],
            "is_known": False,
        }
    )
    assert frames.drift_bands(frame).row(0) == ("n", 1, 1.0, 2.0, 3.0, 5)


def test_thinning_keeps_the_ends():
    frame = pl.DataFrame({"step": list(range(1, 1000, 2)) * 2})
    steps = frames.thinned(frame, 10)["step"].unique().sort()
    assert (len(steps), steps[0], steps[-1]) == (10, 1, 999)
    assert frames.thinned(frame, 500).height == 1000


def test_runs_are_chosen_evenly_over_prompts(bench):
    new = [
        NewRun(network=("draw", "tell"), prompt=prompt, seed=-1, repeat=repeat, max_length=2)
        for prompt, repeats in (("one", 20), ("two", 2), ("three", 3))
        for repeat in range(repeats)
    ]
    writing.add_runs(bench.store, bench.experiment, new)
    chosen = frames.spread(reading.runs(bench.store, "demo"), 7)
    counts = [sum(run.prompt == prompt for run in chosen) for prompt in ("one", "two", "three")]
    assert counts == [3, 2, 2]
    assert len(frames.spread(reading.runs(bench.store, "demo"), 100)) == 25


def test_bars_are_those_of_the_largest_diagram(full):
    found = frames.bars(full.store, reading.experiment(full.store, "demo"))
    runs = found.group_by("run", "dimension").len().sort("run", "dimension")
    assert runs["len"].to_list() == [5, 1, 5, 1]
    side = 2 * np.sin(np.pi / 5)
    loop = found.filter(pl.col("dimension") == 1).row(0, named=True)
    assert loop["birth"] == pytest.approx(side, rel=1e-5)
    assert loop["model"] == "embed"


def test_times_tell_stages_apart(full):
    found = {
        row["name"]: row
        for row in frames.times(full.store, reading.experiment(full.store, "demo")).iter_rows(named=True)
    }
    assert {name: row["stage"] for name, row in found.items()} == {
        "draw": "loops", "tell": "loops", "embed": "embeddings", "persistence diagrams": "diagrams"
    }  # fmt: skip
    assert found["draw"]["seconds"] == pytest.approx(0.75)
    assert (found["draw"]["calls"], found["draw"]["items"]) == (3, 12)
    assert found["persistence diagrams"]["seconds"] == pytest.approx(1.0)
