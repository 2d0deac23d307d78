"""Tables for charts against numbers that can be worked out by hand."""

from __future__ import annotations

import importlib.util

import numpy as np
import polars as pl
import pytest

from panic.analysis import AnalysisError, load, readings, tables
from panic.analysis.checks import OUTLIER
from panic.errors import NotFound
from panic.store import contents
from tests.analysis.conftest import angle_vector

TEXT = ("embed", "text")


def corner(number: int) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[number]


def walk(bench, letters: str, **how):
    return bench.add("start", list(letters), max_length=2 * len(letters), **how)


def test_distance_by_lag_is_the_median_over_runs_of_texts_only(bench):
    walk(bench, "ababab")
    walk(bench, "aaaaaa", seed=-1)
    bench.embed({"a": corner(0), "b": corner(1)})
    data = load(bench.store, "demo")
    found = tables.lag_curves(data, *TEXT, 9)
    assert found["lag"].to_list() == [0, 1, 2, 3]  # half of the run
    assert found["distance"].to_list() == pytest.approx([0, 0.5, 0, 0.5])  # of 1, 0, 1 and of 0
    assert found["high"].to_list() == pytest.approx([0, 0.75, 0, 0.75])
    assert found["num_runs"].to_list() == [2] * 4
    banded = tables.lag_curves(data, *TEXT, 9, num_surrogates=40)
    assert banded.drop("null_low", "null_high").equals(found)
    assert banded["null_low"][0] is None
    # Shuffled, 3 of 5 pairs differ; the median is half of that, for the other run never moves.
    assert (banded["null_low"][1:] < 0.3).all()
    assert ((banded["null_high"][1:] > 0.3) & (banded["null_high"][1:] < 0.5 + 1e-9)).all()
    assert banded["null_low"][1] > 0  # a or b must follow the other at least once


def test_an_output_that_is_visited_often_is_a_cluster_of_its_own(bench):
    run = walk(bench, "aaaaaabbbbbbbc")
    bench.embed({"a": corner(0), "b": corner(1), "c": corner(2)})
    states = tables.clusters(load(bench.store, "demo"), *TEXT)
    (labels,) = states.labels()
    assert [states.names.get(label) for label in labels] == ["a"] * 6 + ["b"] * 7 + [None]
    assert labels[-1] == OUTLIER
    assert states.frame["step"].to_list() == list(range(1, 28, 2))
    assert states.frame["run"].unique().to_list() == [run]


def test_dwells_are_censored_at_the_end_of_each_run(bench):
    walk(bench, "aaaaaabbbbbb")
    walk(bench, "bbbbbbaaaaaaa", seed=-1)
    bench.embed({"a": corner(0), "b": corner(1)})
    curve = tables.dwell_curves(tables.clusters(load(bench.store, "demo"), *TEXT))
    # Two end after 6, one is seen for 7 and outlasts 6; one is cut off in its sixth, and may end there.
    assert curve["num_at_risk"].to_list() == [4, 3]
    assert curve["survival"].to_list() == pytest.approx([1, 1 / 3])
    assert curve["group"].unique().to_list() == ["draw → tell"]


def test_a_map_keeps_the_distances_of_a_plane(bench):
    walk(bench, "abc")
    vectors = {"a": corner(0), "b": corner(1), "c": corner(2)}
    bench.embed(vectors)
    places, share = tables.place_map(load(bench.store, "demo"), *TEXT)
    assert share == pytest.approx(1.0)
    points = places.select("x", "y").to_numpy()
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(points[i] - points[j]) == pytest.approx(np.sqrt(2), rel=1e-5)
    assert places["text"].to_list() == ["a", "b", "c"]


def test_a_map_takes_whole_runs_up_to_its_limit(bench):
    for repeat in range(4):
        walk(bench, "abcd", seed=-1, repeat=repeat)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    places, _ = tables.place_map(load(bench.store, "demo"), *TEXT, max_points=9)
    assert places.group_by("run").len()["len"].to_list() == [4, 4]


@pytest.fixture
def two_heaps(bench):
    """Forty texts around two corners, twenty each."""
    rng = np.random.default_rng(0)
    letters = [f"text {i}" for i in range(40)]
    bench.add("start", letters, max_length=80)
    bench.embed({text: corner(i // 20) + 0.05 * rng.normal(size=4) for i, text in enumerate(letters)})
    return load(bench.store, "demo")


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_maps_that_cannot_be_made_say_what_to_do(two_heaps):
    with pytest.raises(AnalysisError, match="umap-learn is not installed") as caught:
        tables.place_map(two_heaps, *TEXT, method="umap")
    assert "pip install umap-learn" in str(caught.value.hint)
    with pytest.raises(AnalysisError, match="unknown method 'tsne'"):
        tables.place_map(two_heaps, *TEXT, method="tsne")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_umap_keeps_neighbours_and_its_seed(two_heaps):
    pytest.importorskip("umap")
    places, share = tables.place_map(two_heaps, *TEXT, method="umap")
    assert share is None
    points = places.sort("step").select("x", "y").to_numpy()
    one, other = points[:20], points[20:]
    radius = max(np.linalg.norm(half - half.mean(axis=0), axis=1).max() for half in (one, other))
    assert np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) > 1.5 * radius
    again, _ = tables.place_map(two_heaps, *TEXT, method="umap")
    assert again.equals(places)


def test_a_map_of_two_outputs_is_refused(bench):
    walk(bench, "abab")
    bench.embed({"a": corner(0), "b": corner(1)})
    with pytest.raises(AnalysisError, match="3 distinct outputs, found 2"):
        tables.place_map(load(bench.store, "demo"), *TEXT)


def test_twins_share_network_and_prompt_and_have_fresh_noise(bench):
    walk(bench, "aab")
    first = walk(bench, "aab", seed=-1)
    second = walk(bench, "aba", seed=-1, repeat=1)
    bench.add("another", ["b", "b", "b"], seed=-1)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    found = tables.twins(load(bench.store, "demo"), *TEXT)
    assert found["pair"].unique().to_list() == [f"runs {first} and {second}"]
    assert found["step"].to_list() == [1, 3, 5]
    assert found["distance"].to_list() == pytest.approx([0, np.sqrt(2), np.sqrt(2)])


def test_growth_is_per_step_of_the_run_although_texts_are_at_every_second():
    """Doubling with every text, which is every second step: ln 2 / 2 per step, over the steps that exist."""
    steps = np.arange(1, 61, 2)
    apart = np.minimum(1e-6 * 2.0 ** np.arange(30), 1.0)
    pairs = pl.concat([pl.DataFrame({"pair": name, "step": steps, "distance": apart}) for name in ("a", "b")])
    found = tables.growth(pairs)
    assert found.rate == pytest.approx(np.log(2) / 2)
    assert (found.first, found.last) == (1, 2 * 16 + 1)  # 1e-6 x 2^16 = 0.066 < 0.1 x the level
    assert found.is_saturated


def test_entropy_of_equal_bars_is_the_logarithm_of_their_number(full):
    found = tables.entropies(load(full.store, "demo"), "embed")
    components = found.filter(pl.col("dimension") == 0)
    assert components["num_bars"].to_list() == [4, 4]
    assert components["entropy"].to_list() == pytest.approx([np.log(4)] * 2, rel=1e-5)
    loops = found.filter(pl.col("dimension") == 1)
    assert loops["longest"][0] == pytest.approx(2 * np.sin(2 * np.pi / 5) - 2 * np.sin(np.pi / 5), rel=1e-5)


def test_a_prompt_that_every_text_names_can_be_read_from_it(bench):
    for prompt, letters in (("start", "ab"), ("another", "cd")):
        for repeat in range(4):
            bench.add(prompt, list(letters) * 3, seed=-1, repeat=repeat, max_length=12)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    scores, absent = tables.probe_table(load(bench.store, "demo"), *TEXT, num_shuffles=9)
    assert scores["target"].to_list() == ["prompt"]
    assert scores["accuracy"][0] == 1.0
    assert scores["chance"][0] == 0.5
    assert set(absent) == {"network", "seed"}


def test_final_pictures_are_those_of_the_last_drawing_step(full):
    cells = tables.final_images(load(full.store, "demo"))
    assert cells["row"].to_list()[0] == "a start"
    assert cells["column"].unique().to_list() == ["draw → tell"]
    steps = contents.invocations(full.store, cells["run"][0])
    assert cells["digest"][0] == [s.output for s in steps if s.modality == "image"][-1]
    assert cells["text"][0] == "text 3"


def test_the_modality_of_a_model_without_vectors_is_not_guessed(bench):
    walk(bench, "ab")
    with pytest.raises(NotFound, match="no vectors of embed yet"):
        tables.modality_of(load(bench.store, "demo"), "embed")


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([0.0] * 6, "stands still"),
        ([0.5, 0.9, 0.1, 0.5, 0.9, 0.1], "does not remember the output before and comes back after 3"),
        ([0.1, 0.3, 0.5, 0.7, 0.8, 0.9], "remembers the output before and wanders off"),
        ([0.1, 0.15, 0.2, 0.25, 0.3, 0.35], "noise 0.05, drift 0.05 a step"),
        ([0.1, 0.4, 0.5, 0.5, 0.5, 0.9], "remembers the output before and stays in its region"),
    ],
)
def test_motion_is_read_beside_its_null_band(distances, said):
    curves = pl.DataFrame(
        {"group": "n", "lag": range(1, 7), "distance": distances, "null_low": 0.4, "null_high": 0.6}
    )
    read = readings.lag_reading(curves, "text")
    assert said in read
    # 2 D(1) - D(2); below 0, or of a cycle, that is no noise.
    assert ("noise" in read) == ("noise" in said)
