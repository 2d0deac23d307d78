"""Tests of retrieving the prompt from outputs, ranks counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import mannwhitneyu

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import recoverability
from panic.analysis.questions.recoverability import ranked
from tests.analysis.conftest import TEXT, angle_vector
from tests.analysis.looks import assert_shown


def fill(bench, kept: int, *, num_prompts: int = 6, length: int = 9) -> None:
    """Outputs near the own prompt for so long, then in one place; prompts 20 degrees apart."""
    vectors = {}
    for number in range(num_prompts):
        prompt = f"start {number}"
        for repeat in range(2):
            texts = [f"{prompt} {repeat} {output}" for output in range(length)]
            bench.add(prompt, texts, seed=-1, repeat=repeat, max_length=2 * length)
            angles = [20.0 * number + 1 + repeat if i < kept else 200.0 for i in range(length)]
            vectors |= {text: angle_vector(angle) for text, angle in zip(texts, angles, strict=True)}
        vectors[prompt] = angle_vector(20.0 * number)
    bench.embed(vectors)


def test_ranks_are_those_of_likeness_and_equals_share():
    matrix = np.array([angle_vector(degrees) for degrees in (0, 10, 50, 50, 90)])
    ranks, first = ranked(matrix, np.array([1]), np.array([0, 2, 3, 4]))
    assert ranks.tolist() == [[1, 0.5, 0.5, 0]]
    assert first.tolist() == [[1, 0, 0, 0]]
    ranks, first = ranked(matrix, np.array([2]), np.array([0, 2, 3, 4]))
    assert ranks[0] == pytest.approx([0, 5 / 6, 5 / 6, 1 / 3])
    assert first.tolist() == [[0, 0.5, 0.5, 0]]
    assert ranks.mean() == 0.5


def test_the_rank_is_the_area_under_the_roc_curve():
    """U of Mann and Whitney, of the own prompt's likeness against the others', over their number."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(12, 4))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    ranks, _ = ranked(matrix, np.array([0]), np.arange(1, 12))
    alike = matrix[1:] @ matrix[0]
    right = [mannwhitneyu([alike[own]], np.delete(alike, own)).statistic / 10 for own in range(11)]
    assert ranks[0] == pytest.approx(right)


def test_a_prompt_that_is_kept_is_told_up_to_the_end(bench):
    fill(bench, 9)
    answer = recoverability.table(bench.evidence, TEXT)
    assert set(answer.curve["rank"]) == {1.0}
    assert set(answer.curve["first"]) == {1.0}
    assert answer.stretches["p_value"].to_list() == pytest.approx([1 / 720] * len(answer.stretches))
    said = recoverability.sentence(answer)
    assert "draw → tell (6 prompts, 12 runs): it can be told up to the end, at model call" in said
    assert "rank 1.00, nearest in 100%" in said


def test_a_prompt_that_is_forgotten_is_told_until_then(bench):
    fill(bench, 3)
    answer = recoverability.table(bench.evidence, TEXT)
    ranks = dict(answer.curve.select("step", "rank").iter_rows())
    assert [ranks[step] for step in (1, 3, 5)] == [1, 1, 1]
    assert [ranks[step] for step in (7, 17)] == pytest.approx([0.5, 0.5])
    assert answer.stretches["p_value"][-1] == 1.0
    assert "and could not be told any more at model call" in recoverability.sentence(answer)
    charts = assert_shown(recoverability, answer)
    assert list(charts) == ["rank", "nearest"]


def test_outputs_of_one_place_tell_nothing(bench):
    fill(bench, 0)
    said = recoverability.sentence(recoverability.table(bench.evidence, TEXT))
    assert "it could not be told at model call 1 (rank 0.50" in said


def test_three_prompts_are_refused(bench):
    fill(bench, 9, num_prompts=3)
    with pytest.raises(AnalysisError, match="no network has 4 prompts with text vectors of embed"):
        recoverability.table(bench.evidence, TEXT)


def test_a_model_without_vectors_of_prompts_is_not_asked(bench):
    bench.add("a start", ["one", "two"], seed=-1)
    bench.embed({"one": angle_vector(0), "two": angle_vector(1)})
    assert recoverability.table(bench.evidence, TEXT) is None


def test_too_few_prompts_are_said_to_be_too_few_and_not_that_nothing_could_be_told(bench):
    """Ranks of 1 at every step could not have had a p below 0.05 with 4 prompts in 2 networks."""
    fill(bench, 9, num_prompts=4)
    answer = recoverability.table(bench.evidence, TEXT)
    one = answer.stretches.with_columns(p_least=2 * pl.col("p_least"), p_adjusted=2 * pl.col("p_adjusted"))
    said = recoverability.sentence(replace(answer, stretches=one))
    assert "too few prompts to show that it can be told at model call 1 (rank 1.00" in said
    assert "could not be told" not in said


@pytest.mark.parametrize(
    ("ps", "said"),
    [
        ([0.01, 0.01], ["it can be told up to the end, at model call 2 "]),
        (
            [0.01, 0.3, 0.3],
            ["it can be told at model call 1 ", ", and could not be told any more at model call 2 "],
        ),
        ([0.3, 0.3], ["it could not be told at model call 1 "]),
    ],
)
def test_it_is_said_until_when_the_prompt_can_be_told(ps: list[float], said: list[str]) -> None:
    rows = [
        {
            **{"first_step": number, "last_step": number, "p_adjusted": p, "p_least": 0.001},
            **{"rank": 0.2, "first": 0.5, "num_prompts": 6, "num_runs": 12},
        }
        for number, p in enumerate(ps, start=1)
    ]
    text = recoverability._until("loop", rows)
    assert all(part in text for part in said)
    assert text.count("told") == len(said)


def test_a_hundred_prompts_are_told_apart_at_sixty_outputs(bench):
    fill(bench, 3, num_prompts=101, length=3)
    answer = recoverability.table(bench.evidence, TEXT)
    assert set(answer.stretches["num_prompts"]) == {100}
    assert set(answer.stretches["num_runs"]) == {200}


def test_sixty_outputs_of_long_runs_are_looked_at(bench):
    fill(bench, 3, num_prompts=4, length=61)
    assert len(recoverability.table(bench.evidence, TEXT).curve) == 60


def test_there_are_four_stretches_each_some_times_as_long_as_the_one_before():
    """Their ends are 1, 4, 15 and 60 of 60 outputs."""
    parts = [range(60)[part] for part in recoverability._stretches(60)]
    assert [(part[0], part[-1]) for part in parts] == [(0, 0), (1, 3), (4, 14), (15, 59)]


def test_likenesses_that_differ_in_the_sixth_digit_are_told_apart():
    """Those of two prompts are 2 and 4 millionths below 1, and of a third 4 and a trifle."""
    below = np.array([0.0, 2e-6, 4e-6, 4.1e-6])
    matrix = np.stack([1 - below, np.sqrt(2 * below - below**2)], axis=1).astype(np.float64)
    ranks, first = ranked(matrix, np.array([0]), np.array([1, 2, 3]))
    assert ranks.tolist() == [[1, 0.25, 0.25]]
    assert first.tolist() == [[1, 0, 0]]
