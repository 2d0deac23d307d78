"""Tests of semantic drift: likeness to the start by generation, of angles that are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis.chance import LEAST_UNITS
from panic.analysis.checks import AnalysisError
from panic.analysis.questions import semantic_drift
from panic.analysis.questions.semantic_drift import similarities
from tests.analysis.conftest import TEXT, angle_vector
from tests.analysis.looks import assert_shown


def fill(bench, angles, *, num_prompts: int = 8) -> None:
    """Runs of prompts at angle 0 whose outputs are at these angles (generations,), a little apart."""
    vectors = {}
    for number in range(num_prompts):
        prompt = f"start {number}"
        texts = [f"{prompt} {generation}" for generation in range(len(angles))]
        bench.add(prompt, texts, seed=-1, max_length=2 * len(angles))
        made = {text: angle_vector(angle + 0.2 * number) for text, angle in zip(texts, angles, strict=True)}
        vectors |= {prompt: angle_vector(0.0)} | made
    bench.embed(vectors)


def test_a_known_decay_is_found_and_falls(bench):
    generation = np.arange(1, 13)
    fill(bench, np.degrees(np.arccos(0.5 * np.exp(-0.3 * generation) + 0.4)))
    answer = semantic_drift.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    assert row["direction"] == "text → text"
    assert row["cumulative"] == pytest.approx((0.5 * np.exp(-0.3 * generation) + 0.4).mean(), abs=0.02)
    assert row["low"] < row["cumulative"] < row["high"]
    assert row["rate"] == pytest.approx(0.3, abs=0.03)
    assert row["level"] == pytest.approx(0.4, abs=0.03)
    assert row["p_value"] == pytest.approx(2 / 2**8)
    assert answer.means["cumulative"].to_list() == [row["cumulative"]]
    said = semantic_drift.sentence(answer)
    assert "semantic drift rate 0.3" in said
    assert "from early to late generations it falls" in said
    assert list(semantic_drift.chart(answer)) == ["text → text"]


def test_how_alike_unrelated_starts_are_stands_beside_it(bench):
    """Three starts at 0, 60 and 120 degrees: 0.5, 0.5 and -0.5. How little that is was not said."""
    vectors = {}
    for number in range(3):
        bench.add(f"start {number}", [f"{number} {step}" for step in range(4)], seed=-1, max_length=8)
        vectors |= {f"{number} {step}": angle_vector(60 * number + 10) for step in range(4)}
        vectors[f"start {number}"] = angle_vector(60 * number)
    bench.embed(vectors)
    answer = semantic_drift.table(bench.evidence, TEXT)
    assert answer.unrelated == {"text → text": pytest.approx(0.5)}
    made = assert_shown(semantic_drift, answer)["text → text"].to_dict()
    assert "different starts to each other, 0.50." in " ".join(made["title"]["subtitle"])
    assert made["layer"][-1]["mark"]["type"] == "rule"


def test_what_stays_does_not_fall(bench):
    rng = np.random.default_rng(0)
    vectors = {}
    for number in range(8):
        texts = [f"{number} {generation}" for generation in range(9)]
        bench.add(f"start {number}", texts, seed=-1, max_length=18)
        vectors |= {f"start {number}": angle_vector(0.0)} | {
            t: angle_vector(rng.uniform(0, 90)) for t in texts
        }
    bench.embed(vectors)
    said = semantic_drift.sentence(semantic_drift.table(bench.evidence, TEXT))
    assert "could not be shown to change" in said
    assert "semantic drift rate" not in said


def test_no_rate_is_told_where_no_change_was_shown(bench):
    """Of one start without any drift a rate of 0.8 a generation was told, for a curve had fitted noise."""
    generation = np.arange(1, 13)
    fill(bench, np.degrees(np.arccos(0.5 * np.exp(-0.3 * generation) + 0.4)), num_prompts=4)
    answer = semantic_drift.table(bench.evidence, TEXT)
    assert answer.scores["r2"][0] > 0.9
    assert "semantic drift rate" not in semantic_drift.sentence(answer)


def test_no_number_is_minus_nothing(bench):
    fill(bench, [90.1] * 8, num_prompts=2)
    said = semantic_drift.sentence(semantic_drift.table(bench.evidence, TEXT))
    assert "text → text 0.00 over 8 generations" in said


def test_runs_that_end_early_are_left_out(bench):
    fill(bench, [10.0] * 8, num_prompts=3)
    run = bench.add("start 0", ["one", "two"], seed=-1, repeat=1, max_length=16)
    bench.fail(run, 4)
    bench.embed({"one": angle_vector(90), "two": angle_vector(90)})
    found = similarities(bench.evidence.data, "embed", "text", "text")
    assert found["run"].n_unique() == 3
    assert found["generation"].unique().sort().to_list() == list(range(1, 9))


def test_too_little_is_said(bench):
    fill(bench, [10.0, 20.0, 30.0, 40.0], num_prompts=2)
    answer = semantic_drift.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    assert row["rate"] is None
    assert np.isnan(row["low"])
    said = semantic_drift.sentence(answer)
    assert f"With fewer than {LEAST_UNITS} independent starts no change is tested" in said
    assert "interval" not in said


def test_runs_that_met_are_one_start(bench):
    """Under a fixed seed all prompts may end in one cycle, which is one observation."""
    for number in range(8):
        run = bench.add(f"start {number}", ["one", "two"], max_length=40)
        bench.stuck(run, 0, 4)
    starts = {f"start {number}": angle_vector(5.0 * number) for number in range(8)}
    bench.embed({"one": angle_vector(20), "two": angle_vector(50)} | starts)
    answer = semantic_drift.table(bench.evidence, TEXT)
    assert answer.scores.select("num_starts", "num_runs", "num_generations").row(0) == (1, 8, 20)


def test_no_vector_of_a_start_is_said(bench):
    bench.add("a start", ["one", "two"], seed=-1)
    bench.embed({"one": angle_vector(0), "two": angle_vector(1)})
    with pytest.raises(AnalysisError, match="no run has vectors of its start and its outputs under embed"):
        semantic_drift.table(bench.evidence, TEXT)


def test_images_are_compared_with_prompts_and_with_the_first_image(bench):
    bench.add("a start", ["one", "two", "three"], seed=-1, max_length=6)
    bench.embed({"a start": angle_vector(0), **{t: angle_vector(30) for t in ("one", "two", "three")}})
    bench.embed_images({0: angle_vector(60), 1: angle_vector(90), 2: angle_vector(120)})
    answer = semantic_drift.table(bench.evidence, TEXT)
    scores = dict(answer.scores.select("direction", "cumulative").iter_rows())
    cos = {degrees: np.cos(np.radians(degrees)) for degrees in (30, 60, 90, 120)}
    assert scores["text → text"] == pytest.approx(cos[30])
    assert scores["text → image"] == pytest.approx((cos[60] + cos[90] + cos[120]) / 3, abs=1e-6)
    assert scores["image → image"] == pytest.approx((cos[30] + cos[60]) / 2)
    assert scores["image → text"] == pytest.approx(cos[30])
    mean = answer.means.row(0, named=True)
    assert mean["cumulative"] == pytest.approx(np.mean(list(scores.values())))
    assert mean["num_directions"] == 4
    generations = answer.scores.filter(pl.col("direction") == "image → image")["num_generations"]
    assert generations.to_list() == [2]


def test_three_starts_have_an_interval_and_five_generations_a_curve():
    columns = list(semantic_drift.SCORES)[2:-1]
    cells = 0.5 * np.exp(-0.4 * np.arange(1, 6)) + 0.2 + 0.01 * np.arange(3)[:, None]

    def score(starts: int, generations: int) -> dict[str, float | None]:
        return dict(zip(columns, semantic_drift._score(cells[:starts, :generations]), strict=True))

    assert np.isnan([score(2, 5)["low"], score(2, 5)["high"]]).all()
    three, half = score(3, 5), 4.302653 * 0.01 / 3**0.5
    assert three["cumulative"] == pytest.approx(cells.mean())
    assert (three["low"], three["high"]) == pytest.approx((cells.mean() - half, cells.mean() + half))
    assert score(3, 4)["rate"] is None
    assert score(3, 5)["rate"] == pytest.approx(0.4, rel=1e-3)


@pytest.mark.parametrize(
    ("r2", "p", "is_told"),
    [
        (0.5, 0.05, True),
        (0.499, 0.05, False),
        (0.5, 0.0501, False),
        (None, 0.01, False),
        (0.9, np.nan, False),
    ],
)
def test_a_rate_is_told_where_half_is_explained_and_a_change_was_shown(r2, p, is_told):
    frame = pl.DataFrame({"r2": [r2], "p_adjusted": [p]}, {"r2": pl.Float64, "p_adjusted": pl.Float64})
    assert frame.select(semantic_drift._is_told()).item() == is_told


@pytest.mark.parametrize(("length", "drawn"), [(199, 199), (200, 200), (201, 200)])
def test_200_generations_are_drawn(length, drawn):
    curve = semantic_drift._curve("a", "text → text", np.zeros((2, length)))
    assert (len(curve), curve["generation"][-1]) == (drawn, length)


def test_an_interval_is_one_of_cosines_and_one_generation_is_early_and_late():
    for sign in (1, -1):
        mean, low, high, *_, early, late, p, _, starts, generations = semantic_drift._score(
            sign * np.array([[0.9], [1.0], [1.0]])
        )
        assert (early, late, starts, generations) == (mean, mean, 3, 1)
        assert (high if sign == 1 else low) == sign
        assert np.isnan(p)


def test_networks_are_in_the_order_of_the_config_and_not_of_the_alphabet(bench):
    for network in (("tell",), ("draw", "tell")):
        bench.walk("ab", network=network, seed=-1)
    bench.embed({"start": angle_vector(0), "a": angle_vector(30), "b": angle_vector(60)})
    answer = semantic_drift.table(bench.evidence, TEXT)
    for frame in (answer.scores, answer.means, answer.curves):
        assert frame["network"].unique(maintain_order=True).to_list() == ["tell", "draw → tell"]
