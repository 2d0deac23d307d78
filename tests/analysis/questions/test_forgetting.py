"""Whether the length of the prompt is forgotten, where the answer is known."""

from __future__ import annotations

import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.questions import forgetting
from tests.analysis.looks import assert_shown


def words(count: int) -> str:
    return " ".join(["word"] * count)


def test_texts_of_one_length_have_forgotten_all_prompts(bench):
    for count in (1, 2, 5, 9):
        bench.add(words(count), [words(8), "some text of four"], max_length=4)
    answer = forgetting.table(bench.evidence)
    assert answer["strength"].unique().to_list() == [1.0]
    assert answer["position"][0] == pytest.approx(4)
    assert answer["p_value"][0] == 1.0
    assert "1.00, towards 4 words (4 prompts, 4 runs" in forgetting.sentence(answer)


def test_lengths_that_differ_by_rounding_alone_depend_on_nothing(bench):
    """20 / 3 words after every prompt, which is no fraction of two: p was 0.001."""
    for count in (4, 5, 6, 7):
        for repeat, length in enumerate((6, 7, 7)):
            bench.add(words(count), [words(length)], max_length=2, repeat=repeat, seed=-1)
    assert forgetting.table(bench.evidence)["p_value"].unique().to_list() == [1.0]


def test_a_part_of_the_length_is_kept(bench):
    """final = 3 + initial / 2: strength 1/2, and 6 words go to themselves; no shuffle of 7 is as steep."""
    for count in (2, 4, 6, 8, 10, 12, 14):
        bench.add(words(count), [words(3 + count // 2)], max_length=2)
    answer = forgetting.table(bench.evidence)
    assert answer["strength"][0] == pytest.approx(0.5)
    assert answer["position"][0] == pytest.approx(6)
    assert_shown(forgetting, answer)
    assert answer["p_value"][0] < 0.01


def test_a_stuck_run_is_where_its_cycle_is_at_the_end_and_others_must_have_ended(bench):
    run = bench.add("start", [words(1), words(2), words(3)], max_length=14)
    bench.stuck(run, 2, 4)  # 2, 3, 2, 3, 2, 3: the text at step 13 has 3 words, at step 11 two
    other = bench.add("start", [words(1), words(2), words(3)], max_length=12, seed=7)
    bench.stuck(other, 2, 4)
    bench.add("start", [words(30)], max_length=9, seed=-1)  # not over
    found = forgetting.end_lengths(load(bench.store, "demo"))
    assert found["num_runs"].to_list() == [2]
    assert found["final"].to_list() == [2.5]


@pytest.mark.parametrize(
    ("prompts", "why"),
    [
        (["a", "b c"], "at least 3 initial values are needed, found 2"),
        (["a", "b"], "at least 3 initial values are needed, found 2"),
        (["a b", "b c", "c d"], "the prompts of draw → tell have all as many words: nothing to regress on"),
    ],
)
def test_two_prompts_are_too_few_and_so_are_prompts_of_one_length(bench, prompts, why):
    for prompt in prompts:
        bench.add(prompt, ["a"], max_length=2)
    with pytest.raises(AnalysisError, match=why):
        forgetting.table(bench.evidence)


def test_three_prompts_have_a_strength_and_no_p_and_four_have_both(bench):
    for count in (2, 4, 9):
        bench.add(words(count), [words(3 + count)], max_length=2)
    answer = forgetting.table(bench.evidence)
    assert answer["strength"][0] == pytest.approx(0, abs=1e-12)
    assert answer["p_value"].is_nan().all()
    assert "(3 prompts, 3 runs, fewer than 4 are not tested)" in forgetting.sentence(answer)
    bench.add(words(20), [words(23)], max_length=2)
    answer = forgetting.table(bench.evidence)
    assert (answer["p_value"][0], answer["p_least"][0]) == pytest.approx((1 / 24, 1 / 24))


def test_of_lengths_that_are_few_it_is_said_that_p_could_not_have_been_small(bench):
    """Of four prompts of two lengths six orders differ, two of which are as steep."""
    for number, count in enumerate((3, 3, 6, 6)):
        bench.add(" ".join(["word"] * (count - 1) + [f"{number}"]), [words(count)], max_length=2)
    answer = forgetting.table(bench.evidence)
    assert answer["p_value"][0] == pytest.approx(2 / 6)
    assert "p = 0.33 for lengths shuffled among prompts; p could not have been below 0.33" in (
        forgetting.sentence(answer)
    )
