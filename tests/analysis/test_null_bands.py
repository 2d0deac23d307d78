"""Bands of null models beside statistics of questions: known values, their level, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from panic.analysis import ExperimentData, dynamics, load
from panic.analysis.answers import find
from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import distance_by_lag
from panic.analysis.evidence import Statistic, View
from panic.analysis.null_bands import (
    BAND,
    answers_beside,
    band_charts,
    band_sentence,
    beside,
    figures_beside,
    nulls_of,
    statistic_of,
)
from panic.analysis.null_runs import write_nulls
from panic.analysis.nulls import sphere_walk
from panic.analysis.questions import named
from panic.analysis.report import render
from panic.errors import NotFound
from panic.store import Store, reading, writing
from panic.topology import diagram, entropy
from tests.analysis.conftest import TEXT, Bench
from tests.analysis.looks import assert_looks
from tests.analysis.test_null_runs import add_model

WITH_STATISTIC = {
    *("drift", "lag", "patterns", "period", "regimes", "clusters", "dwell", "diagrams", "entropies", "loops"),
    *("dimension", "two_periodicity", "vendi"),
}


def values(matrix: np.ndarray) -> pl.DataFrame:
    """Values (runs, places) as rows."""
    run, place = np.indices(matrix.shape)
    return pl.DataFrame(
        {"network": "a → b", "part": "", "run": run.ravel(), "x": place.ravel().astype(float)}
    ).with_columns(value=pl.Series(matrix.ravel()))


@pytest.fixture
def walked(bench: Bench) -> Store:
    """Six runs that go on in steps of 0.4, so that their order matters, from one prompt."""
    for number in range(6):
        texts = [f"text {number} {i}" for i in range(20)]
        bench.add("start", texts, seed=-1, repeat=number, max_length=40)
        points = sphere_walk(20, 5, 0.4, np.random.default_rng(number))
        bench.embed(dict(zip(texts, points, strict=True)))
    bench.embed({"start": np.ones(5)})
    return bench.store


def test_the_band_by_hand():
    """Surrogates 11, 12, 13 have the mean 12 and the deviation 1; t(0.975, 2) = 4.3027."""
    own, null = values(np.array([[11.0], [13.0], [15.0], [17.0]])), values(np.array([[11.0], [12.0], [13.0]]))
    (row,) = beside(own, null).to_dicts()
    half = 4.302653 * (1 / 4 + 1 / 3) ** 0.5
    assert (row["value"], row["mean"], row["num_runs"], row["num_null"]) == (14.0, 12.0, 4, 3)
    assert (row["low"], row["high"]) == pytest.approx((12 - half, 12 + half))
    (row,) = beside(values(np.ones((3, 1))), values(np.array([[0.0], [0.0], [1.0]]))).to_dicts()
    assert row["low"] == 0.0 < row["high"], "what is never below 0 has no band there"


def test_too_few_runs_are_refused_and_places_that_few_reach_are_left_out():
    two, three = np.zeros((2, 1)), np.zeros((3, 1))
    for own, null in ((two, three), (three, two)):
        with pytest.raises(AnalysisError, match="3 runs"):
            beside(values(own), values(null))
    short = values(np.array([[1.0, 2.0]] * 3)).with_columns(
        value=pl.when((pl.col("x") == 1) & (pl.col("run") == 0)).then(None).otherwise("value")
    )
    assert beside(short, values(np.zeros((3, 2))))["x"].to_list() == [0.0]


@pytest.mark.parametrize(("num_own", "num_null"), [(3, 3), (8, 8), (12, 5)])
def test_one_place_in_twenty_is_outside_by_chance(num_own, num_null):
    """Of 1,000 places: a band of the surrogates' own scatter alone would leave out 17 %."""
    rng = np.random.default_rng(num_own)
    own, null = rng.normal(size=(num_own, 1000)), rng.normal(size=(num_null, 1000))
    found = beside(values(own), values(null))
    outside = ((found["value"] < found["low"]) | (found["value"] > found["high"])).sum()
    assert 30 <= outside <= 70


def test_shares_have_a_band_even_where_all_surrogates_agree():
    rng = np.random.default_rng(0)
    own, null = (rng.random((12, 1000)) < 0.3 for _ in range(2))
    found = beside(values(own.astype(float)), values(null.astype(float)), is_share=True)
    outside = ((found["value"] < found["low"]) | (found["value"] > found["high"])).sum()
    assert outside <= 70
    (row,) = beside(values(np.ones((12, 1))), values(np.ones((12, 1))), is_share=True).to_dicts()
    assert row["low"] < 1.0 == row["high"] == row["value"]


def test_questions_say_what_their_statistic_is_or_that_they_have_none():
    assert {name for name, one in named().items() if hasattr(one, "STATISTIC")} == WITH_STATISTIC
    for name, one in named().items():
        if name in WITH_STATISTIC:
            assert isinstance(statistic_of(one), Statistic)
        else:
            with pytest.raises(AnalysisError, match=f"{name} has no statistic of single runs") as error:
                statistic_of(one)
            assert "drift, lag, patterns" in str(error.value.hint)


def test_the_statistic_of_an_experiment_stands_beside_that_of_its_null_models(walked, bench):
    """D(1) is 1 - cos 0.4 by the steps of the runs, and more in a random order."""
    (name,) = write_nulls(walked, "demo", "shuffled")
    (answer,) = answers_beside(find("lag"), bench.evidence, "shuffled")
    first = answer.value.row(0, named=True)
    data = bench.evidence.data
    own = [distance_by_lag(data.trajectory(run, "embed", "text"), 1)[1] for run in data.runs["run"]]
    null = bench.evidence.nulls["shuffled", "text"].data
    drawn = [distance_by_lag(null.trajectory(run, "embed", "text"), 1)[1] for run in null.runs["run"]]
    assert first["value"] == pytest.approx(np.mean(own), rel=1e-6)
    assert first["value"] == pytest.approx(1 - np.cos(0.4), rel=1e-5)
    assert first["mean"] == pytest.approx(np.mean(drawn), rel=1e-6)
    assert first["network"] == "draw → tell"
    assert first["value"] < first["low"]
    (figure,) = figures_beside(find("lag"), bench.evidence, ["shuffled"])
    assert "leaves its band at" in figure.sentence
    assert "first at 1)" in figure.sentence
    assert figure.sentence == band_sentence(statistic_of(find("lag")), answer.value, "shuffled")
    assert list(figure.charts) == ["draw → tell beside shuffled"]
    assert reading.is_null(name)


def test_runs_that_alternate_are_above_shuffles_of_their_order_and_as_diverse(bench):
    """ABAB...: 1 at lag 2 and 0 at lag 1; the Vendi score of a run does not ask for the order."""
    for number in range(6):
        bench.walk("ab" * 12, seed=-1, repeat=number)
    bench.walk("ab" * 12, seed=-1, network=("tell", "draw", "tell"))  # by construction: not asked
    bench.embed({"a": np.eye(3)[0], "b": np.eye(3)[1]})
    write_nulls(bench.store, "demo", "shuffled")
    (alternates,) = answers_beside(find("two_periodicity"), bench.evidence, "shuffled")
    (row,) = alternates.value.to_dicts()
    assert (row["value"], row["num_runs"], row["num_null"]) == (1.0, 6, 6)
    assert row["high"] < 1
    (diverse,) = answers_beside(find("vendi"), bench.evidence, "shuffled")
    (row,) = diverse.value.to_dicts()
    assert (row["value"], row["mean"]) == pytest.approx((2, 2))


def test_images_stand_beside_surrogates_made_of_images(bench):
    """Surrogates are kept as texts, whatever they were made of."""
    for number in range(6):
        bench.add("start", [f"text {number} {i}" for i in range(20)], seed=-1, repeat=number, max_length=40)
    bench.models["embed"] = add_model(bench.store, bench, "both", ["text", "image"])
    writing.start_experiment(bench.store, "demo", bench.config | {"embeddings": ["both"]})
    points = sphere_walk(20, 5, 0.4, np.random.default_rng(0))
    bench.embed_images(dict(enumerate(points)))
    write_nulls(bench.store, "demo", "shuffled")
    (answer,) = answers_beside(find("lag"), bench.evidence, "shuffled")
    first = answer.value.row(0, named=True)
    assert answer.view.modality == "image"
    assert first["value"] == pytest.approx(1 - np.cos(0.4), rel=1e-5)
    assert first["value"] < first["low"]


def bands(*value: float, network: str = "a → b") -> pl.DataFrame:
    """Values of places 0, 1, ... beside the band from 1 to 3 with the mean 2."""
    rows = {"x": [float(x) for x in range(len(value))], "value": value}
    return pl.DataFrame(rows).with_columns(
        network=pl.lit(network), part=pl.lit(""), low=1.0, high=3.0, mean=2.0, num_runs=7, num_null=9
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((2.0, 2.0), "cannot be told from its null models, which keep this statistic as it is"),
        ((2.0, 2.5), "is within its band at all 2 places"),
        ((1.0, 3.0), "is within its band at all 2 places"),
        ((2.0, 0.9, 3.1, 0.8), "leaves its band at 3 of 4 places (above at 1, below at 2; first at 1)"),
    ],
)
def test_where_a_statistic_leaves_its_band(value, said):
    lag = statistic_of(find("lag"))
    what = f"{lag.what[0].upper()}{lag.what[1:]}, beside shuffled: "
    assert band_sentence(lag, bands(*value), "shuffled") == f"{what}a → b (7 runs) {said}."


@pytest.mark.parametrize(("number", "more"), [(4, ""), (5, "; and 1 more"), (6, "; and 2 more")])
def test_of_many_networks_the_bands_of_four_are_told(number, more):
    frame = pl.concat([bands(2.5, network=f"n{place}") for place in range(number)])
    said = band_sentence(statistic_of(find("lag")), frame, "shuffled").partition("shuffled: ")[2]
    known = "; ".join(f"n{place} (7 runs) is within its band at all 1 places" for place in range(4))
    assert said == f"{known}{more}."


def test_each_network_has_a_chart_of_its_own_values():
    rows = beside(values(np.ones((12, 3))), values(np.zeros((12, 3)) + np.arange(12)[:, None]))
    other = rows.with_columns(network=pl.lit("c → d"), value=pl.col("value") + 6)
    charts = band_charts(statistic_of(find("lag")), pl.concat([rows, other]), "shuffled")
    assert list(charts) == ["a → b beside shuffled", "c → d beside shuffled"]
    assert_looks("null bands", charts)
    for chart, value in zip(charts.values(), (1.0, 7.0), strict=True):
        (data,) = chart.to_dict()["datasets"].values()
        head, *lines = data.split()
        assert head == "x,value,low,high,mean"
        assert [float(line.split(",")[1]) for line in lines] == [value] * 3


@pytest.mark.parametrize("name", sorted(WITH_STATISTIC))
def test_every_statistic_can_be_taken_of_null_models(walked, bench, name):
    write_nulls(walked, "demo", "matched_walk")
    figures = figures_beside(find(name), bench.evidence, ["matched_walk"])
    for figure in figures:
        assert figure.missing or all(chart.to_dict() for chart in figure.charts.values())
    without_diagrams = {"diagrams", "entropies", "loops"}
    assert bool(figures and not figures[0].missing) == (name not in without_diagrams)


@pytest.mark.parametrize("name", ["diagrams", "entropies", "loops"])
def test_bars_of_runs_stand_beside_those_of_their_null_models(walked, bench, name):
    """Null experiments never got diagrams, so nothing stood beside a statistic of bars."""
    for run, points in bench.evidence.data.trajectories("embed", "text", least=2):
        bench.diagram(run, points)
    (null,) = write_nulls(walked, "demo", "matched_walk")
    of_nulls = load(walked, null)
    assert of_nulls.bars["run"].unique().sort().to_list() == of_nulls.runs["run"].to_list()
    (answer,) = answers_beside(find(name), bench.evidence, "matched_walk")
    rows = answer.value.filter(pl.col("part") == answer.value["part"][0]).to_dicts()
    assert [(row["num_runs"], row["num_null"]) for row in rows] == [(6, 6)]
    expected = [BARS_OF[name](data) for data in (bench.evidence.data, of_nulls)]
    assert [rows[0]["value"], rows[0]["mean"]] == pytest.approx(expected, rel=1e-5)
    (figure,) = figures_beside(find(name), bench.evidence, ["matched_walk"])
    assert figure.charts


def of_runs(data: ExperimentData, dimension: int, of: Callable[[np.ndarray], float]) -> float:
    """The mean over runs of what is taken of their bars (m, 2)."""
    shapes = [diagram(points, max_dimension=1) for _, points in data.trajectories("embed", "text", least=2)]
    finite = [shape.bars(dimension)[np.isfinite(shape.bars(dimension)[:, 1])] for shape in shapes]
    return float(np.mean([of(bars) for bars in finite]))


BARS_OF = {
    "diagrams": lambda data: of_runs(data, 0, lambda bars: float(np.median(bars[:, 1]))),
    "entropies": lambda data: of_runs(data, 0, entropy),
    "loops": lambda data: of_runs(data, 1, lambda bars: float((bars[:, 1] - bars[:, 0]).max(initial=0.0))),
}


def test_what_is_not_there_is_told_with_the_command_that_makes_it(walked, bench):
    lag = find("lag")
    with pytest.raises(NotFound, match="demo has no null models shuffled") as error:
        answers_beside(lag, bench.evidence, "shuffled")
    assert error.value.hint == "panic nulls demo shuffled makes them"
    with pytest.raises(NotFound, match="no null model 'shufled'") as error:
        answers_beside(lag, bench.evidence, "shufled")
    assert "Did you mean shuffled?" in str(error.value.hint)


@pytest.mark.slow
def test_a_report_shows_bands_where_there_are_null_models(walked, bench):
    before = render(walked, reading.experiment(walked, "demo"))
    assert "beside null models" not in before
    write_nulls(walked, "demo", "shuffled")
    after = render(walked, reading.experiment(walked, "demo"))
    assert "beside shuffled: draw → tell" in after


def test_of_many_networks_six_have_a_chart_of_their_curve():
    lag = statistic_of(find("lag"))
    frame = pl.concat([bands(2.0, 2.5, network=f"n{place}") for place in range(7)])
    assert list(band_charts(lag, frame, "shuffled")) == [f"n{place} beside shuffled" for place in range(6)]


@pytest.mark.parametrize(
    ("value", "where"), [(0.9, "below"), (1.0, "within"), (2.1, "within"), (3.0, "within"), (3.1, "above")]
)
def test_a_single_value_lies_above_within_or_below_its_band(value, where):
    vendi = statistic_of(find("vendi"))
    parts = bands(value).drop("x").with_columns(part=pl.lit("one"))
    said = band_sentence(vendi, parts, "shuffled").partition("shuffled: ")[2]
    assert said == f"a → b · one {value:.3g} of 7 runs, {where} the band 1 to 3."
    charts = band_charts(vendi, parts, "shuffled")
    assert list(charts) == ["beside shuffled"]
    assert_looks(f"null band of one place, {where}", charts)


def test_shares_of_surrogates_by_hand():
    """Of 4 surrogates 1: a share of 2 / 6; the band is that of a coin."""
    own = values(np.array([[1.0], [1.0], [0.0]]))
    null = values(np.array([[1.0], [0.0], [0.0], [0.0]]))
    (row,) = beside(own, null, is_share=True).to_dicts()
    half = 3.182446 * (2 / 9 * (1 / 3 + 1 / 4)) ** 0.5
    assert (row["value"], row["mean"]) == pytest.approx((2 / 3, 1 / 3))
    assert (row["low"], row["high"]) == pytest.approx((0, min(1.0, 1 / 3 + half)))
    below = beside(values(np.array([[-1.0], [0], [0]])), values(np.arange(3.0)[:, None]))
    assert below["low"][0] < 0, "values may be below 0 there"


def test_places_are_in_their_order_and_networks_as_they_come():
    own = pl.concat([values(np.ones((3, 3))).reverse().with_columns(network=pl.lit(name)) for name in "ba"])
    null = pl.concat([values(np.ones((3, 3)) * 2).with_columns(network=pl.lit(name)) for name in "ab"])
    found = beside(own, null)
    assert found.select("network", "x").rows() == [(name, x) for name in "ba" for x in (0.0, 1.0, 2.0)]
    assert found.columns == list(BAND)


def test_null_models_have_none_of_their_own_and_a_reason_is_told_by_view(walked, bench):
    """Pictures have no surrogates where texts have: that is told in their place."""
    write_nulls(walked, "demo", "shuffled")
    null = bench.evidence.nulls["shuffled", "text"]
    assert null.thumbnails.remaining_bytes == 0, "nobody looks at their pictures"
    with pytest.raises(NotFound, match="holds null models, and has none of its own"):
        nulls_of(null, "matched_walk", "text")
    with pytest.raises(NotFound, match="demo has no null models shuffled of its images"):
        nulls_of(bench.evidence, "shuffled", "image")
    bench.embed_images({number: np.eye(5)[number % 5] for number in range(20)})
    pictures = View("embed", "image")
    asked = replace_views(find("lag"), [None, pictures, bench.evidence.views[0]])
    of_pictures, of_texts = answers_beside(asked, bench.evidence, "shuffled")
    assert (of_pictures.view, of_texts.missing) == (pictures, "")
    assert of_pictures.missing.startswith("demo has no null models shuffled of its images")
    of_pictures, of_texts = figures_beside(asked, bench.evidence, ["shuffled"])
    assert of_pictures.missing == "shuffled: demo has no null models shuffled of its images."
    assert of_texts.charts


def replace_views(question, views):
    """A question as it is, asked under these views."""
    return SimpleNamespace(
        STATISTIC=question.STATISTIC, TITLE=question.TITLE, CAVEAT=question.CAVEAT, views=lambda _: views
    )


@pytest.mark.parametrize(("off", "is_told"), [(0.9e-6, False), (1.1e-6, True)])
def test_what_differs_by_a_millionth_can_be_told_from_null_models(off, is_told):
    frame = bands(2.0, 2.0).with_columns(value=pl.lit(2 * (1 + off)))
    said = band_sentence(statistic_of(find("lag")), frame, "shuffled")
    assert ("cannot be told from its null models" in said) == (not is_told)


MEASURES = {
    "patterns": lambda points: dynamics.permutation_entropy(dynamics.step_sizes(points), normalised=True),
    "vendi": dynamics.vendi,
    "dimension": dynamics.intrinsic_dimension,
    "two_periodicity": lambda points: dynamics.two_periodicity(points).excess,
    "period": lambda points: np.nan_to_num(dynamics.periodicity(points).score),
    "lag": lambda points: distance_by_lag(points, 10)[1:],
    "drift": lambda points: 1 - points[1:] @ points[0],
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_statistic_of_a_run_is_what_the_library_measures(walked, bench, name):
    found = find(name).STATISTIC.of(bench.evidence, TEXT)
    for run in (1, 6):
        points = bench.evidence.data.trajectory(run, "embed", "text")
        values = found.filter(pl.col("run") == run)["value"].to_list()
        assert values == pytest.approx(np.atleast_1d(MEASURES[name](points)), abs=1e-6)


def test_statistics_of_clusters_are_of_what_was_stored(bench):
    """Of a run that stays twice in one place and is nowhere once, and of a stuck one without its future."""
    bench.walk("aaabbbbaaaac", seed=-1)
    bench.stuck(bench.add("start", list("ab"), max_length=40), 0, 4)
    bench.embed({letter: np.eye(4)[place] for place, letter in enumerate("abc")})
    outside = find("clusters").STATISTIC.of(bench.evidence, TEXT)
    assert outside.rows() == [(1, pytest.approx(1 / 12)), (2, 0.0)]
    stays = find("dwell").STATISTIC.of(bench.evidence, TEXT)
    assert stays.rows() == [(1, pytest.approx((3 + 4 + 4) / 3)), (2, 1.0)]
