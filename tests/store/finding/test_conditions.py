"""What the words of a filter are as values, and where it says too much."""

from __future__ import annotations

import time
from typing import Any

import pytest

from panic.errors import FilterError, UsageError
from panic.store.finding.conditions import Conditions
from panic.store.finding.fields import Fields, Target
from panic.store.finding.matching import Matcher, TooSlow
from panic.store.finding.syntax import parse

NOW = 1_700_000_000.0


def values(where: str, target: Target = "experiment") -> list[Any]:
    """What is bound for a filter."""
    asked = Conditions(Fields(), target, now=NOW)
    asked.add(parse(where))
    return asked.parameters


def sql(where: str, target: Target = "experiment") -> str:
    return Conditions(Fields(), target, now=NOW).add(parse(where))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("now", 0), ("-90s", -90), ("-2min", -120), ("-2m", -120), ("+1.5h", 5400), ("-1d", -86400),
        ("-1w", -604800), ("-0.5d", -43200),
    ],
)  # fmt: skip
def test_times_count_from_now(said: str, seconds: float) -> None:
    assert values(f"created > {said}") == [NOW + seconds]


def test_a_filter_counts_from_the_time_at_which_it_is_read() -> None:
    before = time.time()
    asked = Conditions(Fields(), "run")
    assert before <= asked.now <= time.time()
    assert values("created > 1970-01-02T00:00:00+00:00") == [86400.0]


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("9007199254740993", 9007199254740993), ("-1", -1), ("+5", 5), ("1e3", 1000), ("1.5", 1.5),
        ("2.0", 2),
        ("9007199254740991.0", 9007199254740991), ("9007199254740992.0", 9007199254740992.0),
        ("1e300", 1e300), ("999999999999999999", 999999999999999999),
        ("1000000000000000000", 1000000000000000000.0), (".5", 0.5),
    ],
)  # fmt: skip
def test_numbers_are_whole_as_long_as_they_are_exact(said: str, value: float) -> None:
    [found] = values(f"run.seed = {said}")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("true", 1),
        ("YES", 1),
        ("no", 0),
        ("False", 0),
        ("'true'", "true"),
        ("4", 4),
        ("'4'", "4"),
        ("x", "x"),
    ],
)
def test_words_numbers_and_texts_of_configs_are_told_apart(said: str, value: Any) -> None:
    path, found = values(f"config.models.a = {said}")
    assert path == '$."models"."a"'
    assert (found, type(found)) == (value, type(value))
    if said in ("true", "YES", "no", "False", "'true'"):
        assert values(f"is_null = {said}") == [int(said.lower().strip("'") in ("true", "yes"))]


def test_negations_and_orders_never_give_null() -> None:
    assert sql("name != a") == "NOT coalesce(experiment.name = ?1, FALSE)"
    assert sql("not name != a") == "NOT NOT coalesce(experiment.name = ?1, FALSE)"
    assert sql("name not in (a)") == sql("name != a")
    assert sql("name in (a, b)") == "coalesce(experiment.name IN (?1, ?2), FALSE)"
    assert sql("runs > 2") == "coalesce(standing.runs > ?1, FALSE)"
    assert sql("label is not null").startswith("NOT (")
    five = "((({0} OR {0}) OR ({0} OR {0})) OR (({0})))".format("coalesce(experiment.name = ?, FALSE)")
    found = sql(" or ".join(["name = a"] * 5))
    for number in range(1, 6):
        found = found.replace(f"?{number},", "?,")
    assert found == five


@pytest.mark.parametrize(
    ("where", "target", "said", "hint"),
    [
        ("state = complte", "training", "A training is never 'complte'.",
         "Did you mean complete? It is one of running, complete, out of time, interrupted, failed."),
        ("state = done", "training", "A training is never 'done'.", "It is one of running, complete"),
        ("run.state = complte", "run", "run.state is never 'complte'.", "Did you mean complete? Of an"),
        ("run.state = complete", "run", "run.state is never 'complete'.", "Of an experiment it is one of"),
        ("x in modality", "output", "modality is one text and holds no others.", "Compare it with ="),
        ("x in runs", "output", "runs is one number and holds no others.", "Compare it with ="),
        ("x in is_null", "experiment", "is_null is one yes or no and holds no others.", "Compare it"),
        ("x in state", "experiment", "state is one state and holds no others.", "Compare it"),
        ("created like x", "run", "created is a time, and `like` is for texts.", ""),
        ("is_null matches x", "run", "is_null is a yes or no, and `matches` is for texts.", ""),
        ("config.a = 1", "output", "There is no field 'config.a'.", "`panic fields` lists"),
        ("measures.a = 1", "experiment", "There is no field 'measures.a'.", "`panic fields` lists"),
        ("configs = 1", "experiment", "There is no field 'configs'.", "`panic fields` lists"),
        ("config.a\ud800 = 1", "experiment", "The filter has bytes in it that are not UTF-8.", ""),
    ],
)  # fmt: skip
def test_what_a_field_cannot_be_is_told(where: str, target: Target, said: str, hint: str) -> None:
    with pytest.raises(FilterError) as raised:
        sql(where, target)
    assert raised.value.message.startswith(said)
    assert raised.value.hint.startswith(hint) if hint else raised.value.hint == ""


def test_measures_of_trainings_are_fields_as_configs_are() -> None:
    assert values("measures.accuracy > 0.9", "training") == ['$."accuracy"', 0.9]
    assert values("config.rate.0 > 0.9", "training") == ['$."rate"[0]', 0.9]
    assert "json_extract(training.config, ?1)" in sql("config.rate > 0.9", "training")
    assert "json_extract(experiment.config, ?1)" in sql("config.rate > 0.9", "run")
    with pytest.raises(FilterError, match=r"(?s)measures is no field by itself") as raised:
        sql("measures = 1", "training")
    assert raised.value.hint == "For example measures.accuracy > 0.9."
    with pytest.raises(FilterError) as raised:
        sql("config = 1", "training")
    assert raised.value.hint == "For example config.learning_rate < 0.001."


def test_borders_of_what_a_filter_may_say() -> None:
    assert sql(f"name like '{'%' * 1_000}'")
    assert sql(" or ".join(["'a' in tags"] * 200))
    with pytest.raises(FilterError, match="at most 200 conditions"):
        sql(" or ".join(["'a' in tags"] * 201))


# --- regular expressions


@pytest.mark.parametrize(
    ("pattern", "is_taken"),
    [
        ("a" * 1_000, True),
        ("a" * 1_001, False),
        ("(a{100}b){100}", True),
        ("(a{100}b){101}", False),
        ("a{0}b{10000}", True),
        ("(a{1000}){1000}b{0}", False),
        ("a{0,10000}", True),
        ("a{10001,}", False),
        ("a{2,10001}", False),
        (r"\(?R", True),
        ("(?&x)", False),
        ("(?P>x)", False),
        ("(?-1)", False),
        ("(?+1)", False),
        ("(?i)a", True),
    ],
)
def test_what_is_compiled_and_what_is_refused(pattern: str, is_taken: bool) -> None:
    matcher = Matcher()
    if is_taken:
        matcher.add(pattern)
    else:
        with pytest.raises(UsageError, match="regular expression"):
            matcher.add(pattern)


def test_a_pattern_is_found_anywhere_in_a_text_and_never_in_none() -> None:
    matcher = Matcher()
    matcher.add("b.d")
    assert matcher("b.d", "abcde") is True
    assert matcher("b.d", "abde") is False
    assert matcher("b.d", None) is False
    assert matcher("b.d", 7) is False


def test_time_that_is_used_up_ends_a_query() -> None:
    pattern = "b" * 61
    for left_s in (0.0, -1.0):
        matcher = Matcher(budget_s=1.0)
        matcher.add(pattern)
        assert matcher.left_s == 1.0
        matcher.left_s = left_s
        with pytest.raises(TooSlow, match=rf"{'b' * 60}' takes longer than 1 s"):
            matcher(pattern, "x")
        assert matcher(pattern, None) is False  # nothing is matched
    matcher = Matcher(budget_s=1.0)
    matcher.add(pattern)
    text = "b" * 200_000
    for _ in range(3):
        assert matcher(pattern, text[1:] + "c") is True
    many = Matcher(budget_s=0.05)
    many.add("(a|aa)+$")
    with pytest.raises(TooSlow):
        many("(a|aa)+$", "a" * 60 + "!")
    assert many.left_s < 0.01  # what was used is counted
