"""Outputs that come up again, and where runs meet, of runs whose letters are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.meetings import meetings, returning


def texts(frame: pl.DataFrame) -> dict[str, dict]:
    return {row["text"]: row for row in frame.iter_rows(named=True)}


@pytest.fixture
def letters(bench):
    """Runs of texts alone, one per step: `tell` is their only model."""

    def add(*words: str):
        runs = [bench.walk(word, network=("tell",), seed=-1, repeat=n) for n, word in enumerate(words)]
        return runs, load(bench.store, "demo")

    return add


def test_returns_are_counted_by_hand(letters):
    (one, two, _), data = letters("abcabca", "xbxy", "qrst")
    found = texts(returning(data))
    assert list(found) == ["a", "b", "c", "x"]  # by times, then by where they came up first
    a, b, x = found["a"], found["b"], found["x"]
    assert [a[key] for key in ("times", "num_runs", "num_back", "runs_back", "shortest")] == [3, 1, 2, 1, 3]
    assert [b[key] for key in ("times", "num_runs", "num_back", "runs_back", "shortest")] == [3, 2, 1, 1, 3]
    assert [x[key] for key in ("times", "num_runs", "num_back", "runs_back", "shortest")] == [2, 1, 1, 1, 2]
    assert (b["run"], b["step"], x["run"], x["step"]) == (one, 1, two, 0)


def test_an_output_of_two_runs_that_never_came_back_has_no_shortest(letters):
    _, data = letters("ab", "cb")
    (row,) = returning(data).iter_rows(named=True)
    assert (row["text"], row["num_runs"], row["num_back"], row["runs_back"], row["shortest"]) == (
        "b",
        2,
        0,
        0,
        None,
    )


def test_the_shortest_way_back_is_the_shortest_of_several(letters):
    (first, _), data = letters("axxxaxa", "abcdea")
    found = texts(returning(data))
    a, x = found["a"], found["x"]
    assert [a[key] for key in ("times", "num_runs", "num_back", "runs_back", "shortest")] == [5, 2, 3, 2, 2]
    assert [x[key] for key in ("times", "num_runs", "num_back", "runs_back", "shortest")] == [4, 1, 3, 1, 1]
    assert (a["run"], a["step"]) == (first, 0)


def test_a_prompt_that_is_made_again_is_marked(bench):
    bench.add("a", ["b", "a", "b", "a"], network=("tell",), seed=-1, max_length=4)
    found = texts(returning(load(bench.store, "demo")))
    assert {text: row["is_prompt"] for text, row in found.items()} == {"a": True, "b": False}


def test_runs_meet_where_one_first_makes_what_another_makes(letters):
    (one, two, three, four), data = letters("abcdef", "xycdeg", "fzzzzz", "qrstuv")
    found = {row["run"]: row for row in meetings(data).iter_rows(named=True)}
    keys = ("step", "other", "other_step", "together", "until_end", "text")
    assert [found[one][key] for key in keys] == [2, two, 2, 3, False, "c"]
    assert [found[two][key] for key in keys] == [2, one, 2, 3, False, "c"]
    assert [found[three][key] for key in keys] == [0, one, 5, 1, True, "f"]  # the other has no more steps
    assert four not in found


def test_runs_that_coalesce_are_alike_to_the_end(letters):
    (one, two), data = letters("abcdef", "xcdef")
    (first, second) = meetings(data).iter_rows(named=True)
    assert (first["run"], first["step"], first["other_step"], first["together"]) == (one, 2, 1, 4)
    assert (second["run"], second["together"], second["until_end"]) == (two, 4, True)


def test_of_several_the_run_that_makes_it_earliest_is_met(letters):
    (one, two, three), data = letters("xxa", "xa", "yya")
    found = {row["run"]: (row["other"], row["other_step"]) for row in meetings(data).iter_rows(named=True)}
    assert found == {one: (two, 0), two: (one, 0), three: (two, 1)}


def test_they_equal_what_a_plain_search_finds(letters):
    """On random letters, an independent search over all pairs of steps gives the same."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), size=6)) for _ in range(8)]
    runs, data = letters(*words)
    by_run = dict(zip(runs, words, strict=True))
    expected = {}
    for run, word in by_run.items():
        for step, letter in enumerate(word):
            others = [(by_run[o].index(letter), o) for o in runs if o != run and letter in by_run[o]]
            if others:
                other_step, other = min(others)
                ahead = zip(word[step:], by_run[other][other_step:], strict=False)
                together = next((n for n, (x, y) in enumerate(ahead) if x != y), None)
                longest = min(len(word) - step, len(by_run[other]) - other_step)
                expected[run] = (step, other, other_step, longest if together is None else together)
                break
    found = meetings(data).select("run", "step", "other", "other_step", "together").rows()
    assert {run: tuple(rest) for run, *rest in found} == expected
    times = {letter: "".join(words).count(letter) for letter in set("".join(words))}
    assert dict(returning(data).select("text", "times").iter_rows()) == {
        k: n for k, n in times.items() if n > 1
    }


def test_of_one_modality(full):
    data = load(full.store, "demo")
    assert set(returning(data)["modality"]) == {"text", "image"}
    assert set(returning(data, "image")["modality"]) == {"image"}
    assert returning(data, "image")["text"].is_null().all()


def test_nothing_in_common_gives_no_rows(letters):
    _, data = letters("abc", "def")
    assert returning(data).is_empty()
    assert meetings(data).is_empty()
