"""What questions call significant where nothing is there, of 1,000 data sets each, and from how few they do.

Runs are written once; what is drawn anew, 1,000 times, is the vectors of all outputs (or the measures of
images, the lengths of texts), and each time the question's whole table is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from panic.analysis.evidence import Evidence
from panic.analysis.questions import (
    forgetting,
    image_quality,
    matched_pairs,
    recoverability,
    semantic_drift,
)
from tests.analysis.conftest import TEXT, Bench
from tests.analysis.questions.test_image_quality import add_run

NUM_DATA_SETS = 1000
REPEATS, GENERATIONS, DIMENSIONS = 2, 9, 5
PAIRED = ["a red house", "a blue house", "two old ships sail", "two new ships sail", "some music",
          "some music plays", "nothing of all that", "nothing of all this"]  # fmt: skip


def share(p_values: list[float]) -> float:
    assert len(p_values) == NUM_DATA_SETS
    return float(np.mean(np.array(p_values) <= 0.05))


def write(bench: Bench, prompts: list[str]) -> None:
    """Runs of these prompts, each of texts of its own, and vectors of all of them."""
    texts = [*prompts]
    for prompt in prompts:
        for repeat in range(REPEATS):
            made = [f"{prompt} {repeat} {generation}" for generation in range(GENERATIONS)]
            bench.add(prompt, made, seed=-1, repeat=repeat, max_length=2 * GENERATIONS)
            texts += made
    bench.embed({text: np.ones(DIMENSIONS, np.float32) for text in texts})


def moving(rng: np.random.Generator, count: int) -> np.ndarray:
    """Paths (count, GENERATIONS, DIMENSIONS) of moving averages of three: the same law backwards."""
    noise = rng.normal(size=(count, GENERATIONS + 2, DIMENSIONS))
    return (noise[:, 2:] + noise[:, 1:-1] + noise[:, :-2]) / 3**0.5


def drawn(bench: Bench) -> Iterator[Evidence]:
    """The evidence with vectors drawn anew: prompts anywhere, texts about a place of their prompt's own.

    That place has nothing to do with the prompt. It moves about without a direction, for all runs of it
    alike, and so does each run on its own: texts that come one after the other are alike.
    """
    rng = np.random.default_rng(0)
    evidence = bench.evidence
    outputs, matrix = evidence.data._vectors("embed")
    data = evidence.data
    fingerprint = data.model("embed").fingerprint
    steps = data.steps("embed", "text").join(data.runs.select("run"), on="run").sort("run", "step")
    rows = steps["row"].to_numpy().reshape(-1, GENERATIONS)
    of_prompt = steps["prompt"].rank("dense").to_numpy().reshape(-1, GENERATIONS)[:, 0] - 1
    for _ in range(NUM_DATA_SETS):
        vectors = rng.normal(size=matrix.shape)
        places = rng.normal(size=(of_prompt.max() + 1, DIMENSIONS))
        places = places[:, None] + moving(rng, len(places))
        vectors[rows] = places[of_prompt] + moving(rng, len(rows))
        data._matrices[fingerprint] = outputs, vectors.astype(np.float32)
        yield evidence


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_likeness_that_stays_is_called_changing_in_one_of_twenty(bench):
    """And the interval of mean cumulative drift, which is 0 here, leaves it out as often."""
    write(bench, [f"start {number}" for number in range(8)])
    rows = [semantic_drift.table(found, TEXT).scores.row(0, named=True) for found in drawn(bench)]
    assert 0.03 <= share([row["p_value"] for row in rows]) <= 0.07
    assert 0.03 <= np.mean([not row["low"] <= 0 <= row["high"] for row in rows]) <= 0.07


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_outputs_that_do_not_know_their_prompt_tell_it_in_one_of_twenty(bench):
    write(bench, [f"start {number}" for number in range(8)])
    found = [recoverability.table(evidence, TEXT).stretches["p_value"].to_list() for evidence in drawn(bench)]
    for p_values in zip(*found, strict=True):
        assert 0.03 <= share(list(p_values)) <= 0.07


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pairs_that_are_as_far_apart_as_others_are_called_nearer_in_one_of_twenty(bench):
    write(bench, PAIRED)
    p_values = [matched_pairs.table(found, TEXT).scores["p_value"][0] for found in drawn(bench)]
    assert 0.03 <= share(p_values) <= 0.07


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_images_that_stay_are_called_changing_in_one_of_twenty(bench):
    """Measures of a run scatter about one of its own, and those of one image go together."""
    for number in range(8):
        add_run(bench, number, [0.5] * 9)
    evidence = bench.evidence
    known = image_quality.table(evidence).values.with_columns(place=pl.lit(0))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(NUM_DATA_SETS):
        of_run = np.repeat(rng.normal(size=8), 9)
        shared = of_run + rng.normal(size=len(known))
        measures = {name: shared + rng.normal(size=len(known)) for name in image_quality.MEASURES}
        values = known.with_columns(**{name: pl.Series(column) for name, column in measures.items()})
        found.append(image_quality.changes(values, evidence.data)["p_value"].to_list())
    for p_values in zip(*found, strict=True):
        assert 0.03 <= share(list(p_values)) <= 0.07


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("num_prompts", [5, 12])
def test_lengths_that_forget_their_prompt_are_called_kept_in_one_of_twenty(num_prompts):
    """Of all 120 orders of five, and of 999 that are drawn of twelve."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(NUM_DATA_SETS):
        initial, final = rng.exponential(20, (2, num_prompts))
        lengths = pl.DataFrame(
            {
                "network": "a",
                "prompt": [f"{i}" for i in range(num_prompts)],
                "initial": initial,
                "final": final,
            }
        ).with_columns(num_runs=pl.lit(1, pl.Int64))
        p_values.append(forgetting.with_lines(lengths)["p_value"][0])
    assert 0.03 <= share(p_values) <= 0.07


@pytest.mark.parametrize("num_prompts", [5, 6])
def test_a_change_of_likeness_is_tested_from_six_starts_on(bench, num_prompts):
    write(bench, [f"start {number}" for number in range(num_prompts)])
    row = semantic_drift.table(bench.evidence, TEXT).scores.row(0, named=True)
    assert np.isnan(row["p_value"]) == (num_prompts < 6)
    assert (row["num_starts"], row["num_runs"]) == (num_prompts, 2 * num_prompts)


@pytest.mark.parametrize("num_runs", [5, 6])
def test_a_change_of_images_is_tested_from_six_starts_on(bench, num_runs):
    for number in range(num_runs):
        add_run(bench, number, [1.0, 0.5, 0.1])
    tests = image_quality.table(bench.evidence).tests
    assert tests["p_value"].is_nan().all() == (num_runs < 6)
    assert tests["num_units"].unique().to_list() == [num_runs]
    if num_runs == 6:
        assert tests.filter(measure="contrast")["p_value"].to_list() == [2 / 2**6]


def test_pairs_are_tested_from_four_prompts_on(bench):
    """Three are refused in the question's own tests; of four the smallest p is one of three pairings."""
    write(bench, PAIRED[:4])
    row = matched_pairs.table(bench.evidence, TEXT).scores.row(0, named=True)
    assert (row["num_prompts"], row["p_value"]) == (4, 1.0)
    assert row["p_least"] == pytest.approx(1 / 3)


def test_ranks_are_tested_from_four_prompts_on(bench):
    write(bench, [f"start {number}" for number in range(4)])
    stretches = recoverability.table(bench.evidence, TEXT).stretches
    assert set(stretches["p_value"]) == {1.0}
    assert stretches["p_least"].unique().to_list() == [pytest.approx(1 / 24)]
