"""Maps against places that are known."""

from __future__ import annotations

import importlib.util

import numpy as np
import polars as pl
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


def test_a_map_of_a_long_run_has_4000_points_and_that_of_the_page_2500(bench):
    bench.add("start", list("abcd" * 1000 + "a"), network=("tell",), seed=-1, max_length=4001)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    assert len(place_map(load(bench.store, "demo"), *TEXT)[0]) == 4000
    assert len(map.table(bench.evidence, TEXT).places) == 2500


def test_which_runs_a_map_takes_is_by_the_seed_0(bench):
    """Seeds choose other pairs of twelve runs."""
    for repeat in range(12):
        bench.walk("abcd", seed=-1, repeat=repeat)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    data = load(bench.store, "demo")
    chosen = [
        set(place_map(data, *TEXT, max_points=9, **how)[0]["run"])
        for how in ({}, {"seed": 0}, {"seed": 1}, {"seed": 2})
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] not in chosen[2:]


@pytest.mark.parametrize(("num_images", "num_shown"), [(300, 300), (301, 151)])
def test_hovering_shows_300_images_and_every_second_of_more(bench, num_images, num_shown):
    bench.add("start", [f"text {i}" for i in range(num_images)], seed=-1, max_length=2 * num_images)
    bench.embed({f"text {i}": corner(i % 4) for i in range(num_images)})
    assert map.table(bench.evidence, TEXT).places["image"].count() == num_shown


@pytest.mark.parametrize(
    ("num_networks", "num_prompts", "headings"),
    [(1, 1, [""]), (2, 1, [""]), (7, 2, ["by network", "by prompt"]), (8, 7, [""]), (8, 8, [""])],
)
def test_a_map_is_coloured_by_what_has_seven_levels_at_most(num_networks, num_prompts, headings):
    rows = np.arange(56)
    columns = {"network": rows % num_networks, "prompt": rows % num_prompts}
    places = pl.DataFrame({name: [f"{name} {level}" for level in of] for name, of in columns.items()})
    places = places.with_columns(run=1, step=pl.Series(rows), x=0.5, y=0.5)
    charts = map.chart(map.Map(places=places, share=0.5, modality="text"))
    assert list(charts) == headings
    if len(headings) == 1:
        field = charts[""].to_dict()["layer"][1]["encoding"]["color"]["field"]
        by = {(1, 1): "step", (2, 1): "network", (8, 7): "prompt", (8, 8): "step"}
        assert field == by[num_networks, num_prompts]
