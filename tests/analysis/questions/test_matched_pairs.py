"""Tests of prompts that differ in one word, at angles that are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import matched_pairs
from panic.analysis.questions.matched_pairs import PAIRS, REPEATS, UNRELATED, one_word_apart
from tests.analysis.conftest import TEXT, angle_vector, corner
from tests.analysis.looks import assert_shown

PROMPTS = {
    "a red house here": 0.0, "a blue house here": 10.0, "two old ships sail": 90.0,
    "two new ships sail": 100.0, "some music": 180.0, "some music plays": 190.0, "nothing of all that": 270.0,
}  # fmt: skip


def test_one_word_apart():
    assert one_word_apart(list(PROMPTS)) == [(0, 1), (2, 3), (4, 5)]
    assert one_word_apart(["a b c", "A b  c"]) == []  # the same words
    assert one_word_apart(["a b c", "a c", "a x c", "a"]) == [(0, 1), (0, 2), (1, 2), (1, 3)]
    assert one_word_apart(["a b", "b c"]) == []  # one left out and another one added
    assert one_word_apart(["a b c", "a b d", "a b e"]) == [(0, 1), (0, 2), (1, 2)]
    assert one_word_apart(["", "word", "two words"]) == [(0, 1)]


def distance_by_definition(a: str, b: str) -> int:
    """Levenshtein's distance in words."""
    one, other = a.casefold().split(), b.casefold().split()
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, start=1):
        last, row = row, [i]
        for j, its in enumerate(other, start=1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (word != its)))
    return row[-1]


def test_one_word_apart_is_levenshteins_distance_of_one():
    rng = np.random.default_rng(0)
    prompts = list(dict.fromkeys(" ".join(rng.choice(list("abc"), rng.integers(1, 5))) for _ in range(60)))
    right = [
        (i, j)
        for i in range(len(prompts))
        for j in range(i + 1, len(prompts))
        if distance_by_definition(prompts[i], prompts[j]) == 1
    ]
    assert one_word_apart(prompts) == right


def fill(bench, end, *, repeats: int = 2, seed: int = -1, prompts=PROMPTS) -> None:
    """Runs of prompts at their angles whose last four of six outputs are at the angles that `end` gives."""
    vectors = {}
    for prompt, angle in prompts.items():
        for repeat in range(repeats):
            texts = [f"{prompt} {repeat} {output}" for output in range(6)]
            bench.add(prompt, texts, seed=seed, repeat=repeat, max_length=12)
            for output, text in enumerate(texts):
                at = angle if output < 2 else end(angle)
                vectors[text] = angle_vector(at + repeat)
    bench.embed(vectors)


def test_pairs_that_stay_together(bench):
    fill(bench, lambda angle: angle)
    answer = matched_pairs.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    cos = {degrees: np.cos(np.radians(degrees)) for degrees in (1, 9, 10, 11)}
    assert row["repeats"] == pytest.approx(1 - cos[1], rel=1e-3)
    assert row["pairs"] == pytest.approx(1 - (2 * cos[10] + cos[9] + cos[11]) / 4, rel=1e-3)
    assert row["unrelated"] > 0.9
    assert (row["num_pairs"], row["num_prompts"]) == (3, 7)
    # Of 105 ways to pair six of seven this is the best.
    assert row["p_value"] == pytest.approx(1 / 105, abs=0.01)
    assert row["p_value"] < 0.03
    curve = answer.curve.filter(step=1)
    assert curve["relation"].to_list() == [REPEATS, PAIRS, UNRELATED]
    said = matched_pairs.sentence(answer)
    assert "late they are nearer than unrelated prompts" in said
    assert "at model call 1 and" in said
    charts = assert_shown(matched_pairs, answer)
    assert list(charts) == ["draw → tell"]


def test_pairs_whose_word_is_forgotten_with_everything_else(bench):
    fill(bench, lambda angle: 45.0)
    answer = matched_pairs.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    assert row["pairs"] == pytest.approx(row["unrelated"], abs=1e-6)
    assert row["p_value"] > 0.05
    assert "not shown to be nearer than unrelated prompts" in matched_pairs.sentence(answer)


def test_a_fixed_seed_is_compared_with_itself(bench):
    fill(bench, lambda angle: angle, repeats=1, seed=42)
    fill(bench, lambda angle: angle + 90, repeats=1, seed=43)
    answer = matched_pairs.table(bench.evidence, TEXT)
    late = answer.curve.filter(pl.col("relation") == PAIRS, pl.col("step") > 4)["distance"]
    assert late.to_numpy() == pytest.approx(1 - np.cos(np.radians(10)), rel=1e-3)


def test_prompts_without_a_pair_are_not_asked(bench):
    fill(bench, lambda angle: angle, prompts={"one": 0.0, "two three": 10.0, "four five six": 50.0})
    assert matched_pairs.table(bench.evidence, TEXT) is None


def test_three_prompts_are_refused(bench):
    fill(bench, lambda angle: angle, prompts=dict(list(PROMPTS.items())[:3]))
    with pytest.raises(AnalysisError, match="4 prompts are needed, two of them a word apart, found 3"):
        matched_pairs.table(bench.evidence, TEXT)


def test_prompts_that_are_all_a_word_apart_leave_nothing_to_compare(bench):
    fill(bench, lambda angle: angle, prompts={f"a {word} thing": 10.0 * i for i, word in enumerate("wxyz")})
    with pytest.raises(AnalysisError, match="all 6 pairs are such, of 4 prompts"):
        matched_pairs.table(bench.evidence, TEXT)


def test_a_hundred_prompts_those_with_a_partner_first_are_compared(bench):
    """The first is alone and left out; of the others 50 pairs differ in their colour."""
    prompts = {"alone": 0.0} | {f"{hue} number {n}": 3.6 * n for n in range(50) for hue in ("red", "blue")}
    fill(bench, lambda angle: angle, repeats=1, prompts=prompts)
    row = matched_pairs.table(bench.evidence, TEXT).scores.row(0, named=True)
    assert row["num_prompts"] == 100


@pytest.mark.parametrize(("length", "num_steps"), [(40, 40), (41, 40), (39, 39)])
def test_forty_outputs_of_six_runs_of_a_prompt_are_compared(bench, length, num_steps):
    """The seventh run of each is far from all others."""
    prompts = ["a red house", "a blue house", "some ships", "much music"]
    for number, prompt in enumerate(prompts):
        for repeat in range(7):
            text = f"{number} far" if repeat == 6 else f"{number}"
            bench.add(prompt, [text] * length, network=("tell",), seed=-1, repeat=repeat, max_length=41)
    bench.embed(
        {f"{number}": corner(number) for number in range(4)}
        | {"0 far": -corner(0), "1 far": -corner(1)}
        | {"2 far": -corner(2), "3 far": -corner(3)}
    )
    answer = matched_pairs.table(bench.evidence, TEXT)
    assert answer.curve["step"].n_unique() == num_steps
    assert answer.scores["repeats"][0] == pytest.approx(0.0, abs=1e-6)
