"""Maps against places that are known."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.questions import map
from panic.analysis.questions.map import place_map
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


def test_a_map_keeps_the_distances_of_a_plane(bench):
    bench.walk("abc")
    vectors = {"a": corner(0), "b": corner(1), "c": corner(2)}
    bench.embed(vectors)
    places, share = place_map(load(bench.store, "demo"), *TEXT)
    assert share == pytest.approx(1.0)
    points = places.select("x", "y").to_numpy()
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(points[i] - points[j]) == pytest.approx(np.sqrt(2), rel=1e-5)
    assert places["text"].to_list() == ["a", "b", "c"]


def test_a_map_takes_whole_runs_up_to_its_limit(bench):
    for repeat in range(4):
        bench.walk("abcd", seed=-1, repeat=repeat)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    places, _ = place_map(load(bench.store, "demo"), *TEXT, max_points=9)
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
        place_map(two_heaps, *TEXT, method="umap")
    assert "pip install umap-learn" in str(caught.value.hint)
    with pytest.raises(AnalysisError, match="unknown method 'tsne'"):
        place_map(two_heaps, *TEXT, method="tsne")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_umap_keeps_neighbours_and_its_seed(two_heaps):
    pytest.importorskip("umap")
    places, share = place_map(two_heaps, *TEXT, method="umap")
    assert share is None
    points = places.sort("step").select("x", "y").to_numpy()
    one, other = points[:20], points[20:]
    radius = max(np.linalg.norm(half - half.mean(axis=0), axis=1).max() for half in (one, other))
    assert np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) > 1.5 * radius
    again, _ = place_map(two_heaps, *TEXT, method="umap")
    assert again.equals(places)


def test_a_map_of_two_outputs_is_refused(bench):
    bench.walk("abab")
    bench.embed({"a": corner(0), "b": corner(1)})
    with pytest.raises(AnalysisError, match="3 distinct outputs, found 2"):
        place_map(load(bench.store, "demo"), *TEXT)


def test_a_map_says_how_many_points_it_has_where_outputs_are_equal(bench):
    bench.walk("abcabcabc", seed=-1)
    bench.embed({one: corner(i) for i, one in enumerate("abc")})
    answer = map.table(bench.evidence, TEXT)
    assert_shown(map, answer)
    said = map.sentence(answer)
    assert said.startswith(
        "9 texts that were computed, of 1 run, at 3 points, where equal ones hide each other,"
    )
