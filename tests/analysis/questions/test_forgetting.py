"""Whether the length of the prompt is forgotten, where the answer is known."""

from __future__ import annotations

import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.questions import forgetting


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


def test_two_prompts_are_too_few(bench):
    for count in (1, 2):
        bench.add(words(count), ["a"], max_length=2)
    with pytest.raises(AnalysisError, match="at least 3"):
        forgetting.table(bench.evidence)
