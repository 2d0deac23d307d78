"""Persistence entropies of runs whose bars are known, and beside their walks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.questions import diagrams, entropies
from panic.config.diagrams import DiagramSettings
from panic.topology import diagram
from tests.analysis.conftest import TEXT, angle_vector, corner
from tests.analysis.looks import assert_shown


def test_entropy_of_equal_bars_is_the_logarithm_of_their_number(full):
    found = entropies.entropies(load(full.store, "demo"), "embed")
    components = found.filter(pl.col("dimension") == 0)
    assert components["num_bars"].to_list() == [4, 4]
    assert components["entropy"].to_list() == pytest.approx([np.log(4)] * 2, rel=1e-5)
    loops = found.filter(pl.col("dimension") == 1)
    assert loops["longest"][0] == pytest.approx(2 * np.sin(2 * np.pi / 5) - 2 * np.sin(np.pi / 5), rel=1e-5)


def test_a_run_that_repeats_itself_has_less_entropy_than_walks(bench):
    bench.walk("abcd" * 5)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    found = entropies.against_walks(bench.evidence, TEXT).row(0, named=True)
    assert found["value"] == pytest.approx(np.log(3), rel=1e-6)
    assert found["value"] < found["low"]


def test_the_bars_shown_are_those_of_the_run_that_has_most_of_them_that_end(bench):
    """Two letters make one bar that ends, four make three; and the walks are as long as the runs."""
    texts = ["ab" * 10, "abcd" * 5, "abc" * 6 + "ab"]
    runs = [bench.walk(letters, seed=-1, repeat=repeat) for repeat, letters in enumerate(texts)]
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    for run, letters in zip(runs, texts, strict=True):
        bench.diagram(run, np.array([corner("abcd".index(letter)) for letter in letters]))
    answer = entropies.table(bench.evidence, TEXT)
    assert answer.run == runs[1]
    assert answer.bars["run"].unique().to_list() == [runs[1]]
    assert answer.bars.filter(dimension=0)["death"].is_finite().sum() == 3
    assert sorted(answer.entropies.filter(dimension=0)["num_bars"]) == [1, 2, 3]
    assert_shown(entropies, answer)


def test_a_run_that_is_too_short_for_walks_has_no_band(full):
    answer = entropies.table(full.evidence, TEXT)
    assert answer.band is None
    assert_shown(entropies, answer, "short runs")


def test_without_bars_that_end_there_is_no_answer(bench):
    run = bench.walk("a")
    bench.embed({"a": corner(0)})
    bench.diagram(run, corner(0)[None])
    assert entropies.table(bench.evidence, TEXT) is None


def test_bars_of_several_settings_are_not_mixed(make_bench):
    """Bars of a run by two metrics counted as those of one diagram."""
    asked = [DiagramSettings(metric="chordal"), DiagramSettings()]
    bench = make_bench(diagrams=[one.key for one in asked])
    points = np.array([angle_vector(30 * i * i) for i in range(6)])
    run = bench.add("a start", [f"text {i}" for i in range(6)])
    bench.embed({f"text {i}": point for i, point in enumerate(points)})
    for settings in reversed(asked):
        bench.diagram(run, points, settings.metric, settings.digest)
    bars = diagram(points, metric="chordal").bars(0)
    finite = bars[np.isfinite(bars[:, 1])]
    of_run = entropies.entropies(bench.evidence.data, "embed").filter(dimension=0)
    assert of_run["num_bars"].to_list() == [len(finite)]
    assert of_run["longest"].to_list() == [finite[:, 1].max()]
    drawn = diagrams.table(bench.evidence, TEXT).filter(dimension=0)
    assert len(drawn) == len(bars)


@pytest.mark.parametrize(("num_bars", "left_out"), [(80, ""), (81, "The 1 shortest are not drawn.")])
def test_80_bars_of_a_dimension_are_drawn(num_bars, left_out):
    lengths = np.linspace(0.5, 1, num_bars)
    frame = pl.DataFrame({"dimension": 0, "birth": 0.0, "death": lengths, "run": 1, "metric": "euclidean"})
    made = entropies.barcode(frame).to_dict()
    assert " ".join(made["title"]["subtitle"]).endswith(left_out or "to where it ends.")


@pytest.mark.parametrize(("num_bars", "band"), [(59, 0.72), (60, 1.0)])
def test_sixty_bars_stand_without_gaps(num_bars, band):
    lengths = np.linspace(0.5, 1, num_bars)
    frame = pl.DataFrame({"dimension": 0, "birth": 0.0, "death": lengths, "run": 1, "metric": "euclidean"})
    assert entropies.barcode(frame).to_dict()["mark"]["height"] == {"band": band}
