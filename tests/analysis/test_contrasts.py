"""What configs, sessions and trainings say differently, each by hand."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from panic.analysis.contrasts import (
    _Course,
    _course,
    _parted,
    commit_range,
    contrasts,
    differences,
    run_contrasts,
    said,
    shortened,
    training_contrasts,
    training_names,
)
from panic.store import contents, reading, writing
from panic.store.trainings import TrainingRow
from tests.store.sample import entry


def test_one_config_is_said_as_it_is():
    config = {"n": None, "empty": [], "text": "ä", "map": {"x": {"k": "ä", "none": None}}, "name": "a"}
    assert list(said([config])) == [
        ("n", ["-"]),
        ("empty", ["none"]),
        ("text", ["ä"]),
        ("map: x", ['{"k": "ä"}']),
    ]


def test_a_field_that_only_some_have_differs():
    assert differences([{"seeds": [1, 2]}, {}, {"seeds": []}]) == [
        ("seeds", ["2, only here: 1; 2", "-", "none"])
    ]
    assert differences([{"a": 1}, {"a": 2}, {"a": 2}]) == [("a", ["1", "2", "2"])]
    assert differences([{"a": 2}, {"a": 2}]) == []


def test_a_list_of_models_is_an_arrow_and_one_of_numbers_is_not():
    [(_, values)] = differences([{"networks": [["draw", "tell"]]}, {"networks": [[1, 2]]}])
    assert values == ["1, only here: draw → tell", "1, only here: [1, 2]"]


def test_five_entries_are_shown_and_the_sixth_counted():
    [(_, five)] = differences([{"seeds": [1, 2, 3, 4, 5]}, {"seeds": [9]}])
    assert five == ["5, only here: 1; 2; 3; 4; 5", "1, only here: 9"]
    [(_, six)] = differences([{"seeds": [1, 2, 3, 4, 5, 6]}, {"seeds": [9]}])
    assert six[0] == "6, only here: 1; 2; 3; 4; 5; and 1 more"


def test_a_cell_has_sixty_characters_of_a_text_and_four_digits_of_a_number():
    assert shortened(None) == ""
    assert shortened(1.23456) == "1.235"
    assert shortened("x  y\n z") == "x y z"
    assert shortened("x" * 60) == "x" * 60
    assert shortened("x" * 61) == "x" * 59 + "…"


def test_values_that_differ_are_said_differently():
    """By their order, or by a digest where what is shown of them is the same."""
    [(_, values)] = differences([{"prompts": list("ab")}, {"prompts": list("ba")}, {"prompts": list("ab")}])
    assert values == ["2, none of them only here" + more for more in ("", ", in another order", "")]
    long = ["x" * 70 + end for end in "12"]
    [(_, values)] = differences([{"prompts": [text]} for text in long])
    assert values == [f"1, only here: {'x' * 59}… ({sha256(text.encode()).hexdigest()[:8]})" for text in long]


def test_trainings_are_called_by_their_names_if_these_tell_them_apart():
    one, other, again = entry("a"), entry("b"), entry("a", folder="/elsewhere/a", uid="f" * 64)
    assert training_names([one, other]) == ["a", "b"]
    assert training_names([one, again]) == ["/somewhere/a", "/elsewhere/a"]
    anew = entry("a", uid="e" * 64)
    assert training_names([one, anew]) == [f"/somewhere/a ({row.uid[:12]})" for row in (one, anew)]


def test_a_stuck_run_is_compared_to_its_full_length(bench):
    stuck = bench.add("a", ["t0", "t1"], network=("tell",), max_length=5)
    bench.stuck(stuck, 0, 2)
    parting = bench.add("b", ["t0", "t1", "t0", "t2"], network=("tell",), max_length=5)
    alike = bench.add("c", ["t0", "t1", "t0", "t1", "t0"], network=("tell",), max_length=5)
    found = run_contrasts(bench.store, [stuck, parting, alike])
    [parts] = [one for one in found if one.field == "parts at model call"]
    assert (parts.section, parts.values) == ("results", ["-", "3", "not within 5 model calls"])
    [prompt] = [one for one in found if one.field == "prompt"]
    assert (prompt.section, prompt.values, prompt.is_same) == ("run", ["a", "b", "c"], False)
    [around] = [
        one for one in run_contrasts(bench.store, [stuck, parting, stuck]) if one.field == prompt.field
    ]
    assert (around.values, around.is_same) == (["a", "b", "a"], False)


def test_courses_part_as_far_as_both_go():
    assert _parted(course("ab"), course("ac")) == "1"
    assert _parted(course("ab"), course("a")) == "not within 1 model call"
    assert _parted(course(""), course("a")) == _parted(course("a"), course("")) == "-"  # nothing is known


def course(made: str, period: int = 0, length: int | None = None) -> _Course:
    return _Course([*made], period, len(made) if length is None else length)


@pytest.mark.parametrize("length", [40, 2**31 - 1])
def test_a_run_that_is_stuck_for_billions_of_steps_is_compared_at_once(length):
    """Its outputs were laid out one by one, to its full length."""
    abc = course("xabc", 3, length)
    assert _parted(abc, course("xabcabcabc", 3, length)) == f"not within {length:,} model calls"
    assert _parted(abc, course("xabcab", 2, length)) == "6"
    assert _parted(abc, course("xabcabcab")) == "not within 9 model calls"
    assert _parted(course("xabcabcabd"), abc) == "9"
    assert _parted(course("aab", 3, length), course("aabaa", 5, length)) == "5"
    assert _parted(course("abab" * 3, 2, length), course("ab", 2, 17)) == "not within 17 model calls"
    one, other = course("aaaab", 5, length), course("aaaa", 4, length)
    assert _parted(one, other) == _parted(other, one) == "4"
    # Periods of 3 and 4 may be alike for 5 steps and no more.
    assert _parted(course("aab", 3, length), course("aaba", 4, length)) == "5"


def test_the_cycle_of_a_stuck_run_is_drawn_on_and_a_record_that_is_none_is_not(full):
    stuck = next(run for run in reading.runs(full.store, "demo") if run.period is not None)
    made = [step.output for step in contents.invocations(full.store, stuck.id)]
    assert _course(full.store, replace(stuck, max_length=99)) == (made, stuck.period, 99)
    beyond = replace(stuck, period=2**31, max_length=2**31)
    assert _course(full.store, beyond) == (made, 0, len(made))
    assert _course(full.store, replace(stuck, period=0, max_length=99)) == (made, 0, len(made))
    assert _course(full.store, replace(stuck, period=len(made))).period == len(made)


def test_the_range_of_commits_is_from_the_first_to_the_last_known():
    assert commit_range(["-", "a", "b", "a", "c"]) == "a..c"
    assert commit_range(["a"]) == commit_range(["-"]) == ""


def test_the_last_session_that_has_worked_speaks_for_an_experiment(full):
    def session(commit: str, **more: object) -> None:
        git = {"commit": commit * 40, "dirty": commit == "b", "patch_sha256": "c" * 64}
        writing.start_session(full.store, full.experiment, "panic run", {"git": git, **more})

    hardware = {"processor": "p", "num_cpus": 2, "memory_bytes": 8 * 2**30, "platform": "Linux"}
    session("a", hardware=hardware, host="old")
    session("b", hardware=hardware, host="here", python="3.11.7 (main)", source_digest="0123456789abcdef")
    session("d")  # one that has called no model
    found = contrasts(full.store, [reading.experiment(full.store, "demo")])
    told = {(one.section, one.field): one.values for one in found if one.section != "config"}
    assert told == {
        ("models", "draw"): ["draw-fingerp"],
        ("models", "tell"): ["tell-fingerp"],
        ("models", "embed"): ["embed-finger"],
        ("code", "panic commit"): ["bbbbbbbbbbbb and a patch (cccccccc)"],
        ("code", "panic source"): ["0123456789ab"],
        ("versions", "python"): ["3.11.7"],
        ("hardware", "host"): ["here"],
        ("hardware", "processor"): ["p, 2 cores"],
        ("hardware", "memory"): ["8 GiB"],
        ("hardware", "GPUs"): ["none"],
        ("hardware", "system"): ["Linux"],
    }
    assert all(one.is_same for one in found)


def test_a_commit_without_changes_has_no_patch(full):
    provenance = {"git": {"commit": "a" * 40, "dirty": False}, "hardware": {"processor": "p"}}
    writing.start_session(full.store, full.experiment, "panic run", provenance)
    found = contrasts(full.store, [reading.experiment(full.store, "demo")])
    told = {(one.section, one.field): one.values for one in found}
    assert told["code", "panic commit"] == ["a" * 12]
    assert told["hardware", "memory"] == ["-"]


def training(**said_of_it: object) -> TrainingRow:
    row: dict[str, object] = {
        "uid": "1", "folder": "/f", "name": "t", "task": "text", "config": {}, "provenance": {}, "host": "h",
        "pid": 1, "steps": 10, "measures": {}, "seconds": 2.5, "created_at": 0.0, "started_at": 0.0,
        "updated_at": 0.0,
    }  # fmt: skip
    return TrainingRow(**{**row, **said_of_it})  # type: ignore[arg-type]


def test_trainings_differ_in_config_metrics_and_measures():
    first = training(config={"rate": 0.1, "output": "a"}, val_loss=0.5, measures={"bleu": 0.123456})
    other = training(config={"rate": 0.2, "output": "b"}, loss=0.25, steps=20)
    found = {(one.section, one.field): one.values for one in training_contrasts([first, other])}
    assert found == {
        ("config", "rate"): ["0.1", "0.2"],
        ("metrics", "step"): ["0", "0"],
        ("metrics", "steps"): ["10", "20"],
        ("metrics", "val_loss"): ["0.5", "-"],
        ("metrics", "seconds"): ["2.5", "2.5"],
        ("metrics", "measures.bleu"): ["0.1235", "-"],
        ("metrics", "loss"): ["-", "0.25"],
    }
