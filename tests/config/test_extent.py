"""What an experiment was asked for in all, and what its name means."""

from __future__ import annotations

from typing import Any

import pytest

from panic.config import ExperimentConfig, asks_all, contradictions, union
from panic.config.extent import asking
from panic.errors import ConfigError

from .test_schema import config


def test_the_union_has_what_either_asks_for() -> None:
    one = config(prompts=["a", "b"], seeds=[1], max_length=9, vectorisations=["entropy"], log_level="debug")
    two = config(
        networks=[["A", "C"], ["A", "B"]],
        prompts=["b", "c"],
        seeds=[-1, 1],
        repeats=3,
        max_length=2,
        embeddings=["F", "E"],
        diagrams=[{"metric": "cosine"}, {"generators": False}],
        distances=["bottleneck"],
    )
    both = union(one, two)
    assert both.networks == [["A", "B"], ["A", "C"]]
    assert both.prompts == ["a", "b", "c"]
    assert (both.seeds, both.repeats, both.max_length) == ([1, -1], 3, 9)
    assert both.embeddings == ["E", "F"]
    assert [settings.metric for settings in both.diagrams] == ["euclidean", "cosine"]
    assert len(both.vectorisations) == len(both.distances) == 1
    assert both.log_level == "info"
    assert union(both, one) == both.model_copy(update={"log_level": "debug"})


def test_a_batch_size_that_is_not_said_any_more_is_dropped_unless_its_model_is() -> None:
    one = config(networks=[["A", "B"]], batch_sizes={"A": 2, "B": 3})
    assert union(one, config(networks=[["A", "C"]], batch_sizes={"C": 4})).batch_sizes == {"B": 3, "C": 4}


def test_the_union_keeps_variants_and_the_last_word_on_one() -> None:
    one = config(models={"A": {"base": "X"}, "B": {"base": "Y"}})
    both = union(one, config(models={"A": {"base": "Z"}, "C": {"base": "X"}}))
    assert {name: variant.base for name, variant in both.models.items()} == {"A": "Z", "B": "Y", "C": "X"}


def test_only_what_is_taken_of_runs_counts_for_asking_all() -> None:
    all_of = config(embeddings=["E", "F"], prompts=["a", "b"])
    assert asks_all(config(embeddings=["F", "E"]), all_of)
    assert not asks_all(config(), all_of)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"root_seed": 1}, {"root_seed": "root_seed is 1; demo started with 0"}),
        (
            {"reject_constant_images": True},
            {"reject_constant_images": "reject_constant_images is true; demo started with false"},
        ),
        (
            {"models": {"A": {"base": "X", "steps": 3}}},
            {"A": "the variant 'A' is {base: X, steps: 3}; demo started with {base: X, steps: 2}"},
        ),
        (
            {"models": {}},
            {"A": "the variant 'A' is no variant of this config; demo started with {base: X, steps: 2}"},
        ),
        ({"models": {"A": {"base": "X", "steps": 3}}, "networks": [["C", "B"]]}, {}),
        ({"models": {"A": {"steps": 2, "base": "X", "dtype": None}, "unused": {"base": "Y"}}}, {}),
        ({"max_length": 9, "networks": [["B", "A"]], "embeddings": ["F"], "diagrams": []}, {}),
    ],
    ids=str,
)
def test_contradictions_have_both_values(changes: dict[str, Any], says: dict[str, str]) -> None:
    assert contradictions(config(), config(**changes)) == says


def test_a_variant_of_another_spelling_is_the_same_where_its_results_are() -> None:
    other = config(models={"A": {"base": "X", "steps": 2, "guidance": 0}})
    assert list(contradictions(config(), other)) == ["A"]
    assert contradictions(config(), other, unchanged={"A"}) == {}


def test_the_base_of_a_variant_counts() -> None:
    def chained(steps: int) -> ExperimentConfig:
        return config(models={"A": {"base": "quick"}, "quick": {"base": "X", "steps": steps}})

    assert contradictions(chained(2), chained(3)) == {
        "A": "the variant 'quick' is {base: X, steps: 3}; demo started with {base: X, steps: 2}"
    }


def test_variants_of_each_other_end() -> None:
    """No such model is performed; comparing two configs that have some must not go on for ever."""
    known = config(models={"A": {"base": "B"}, "B": {"base": "A"}})
    assert contradictions(known, known) == {}


def test_a_union_beyond_what_an_experiment_may_have_names_the_way_out() -> None:
    one = config(prompts=[str(number) for number in range(4000)])
    with pytest.raises(ConfigError, match="12007001 runs") as raised:
        union(one, config(seeds=list(range(3000))))
    assert "--name" in raised.value.hint


SWAP = [{"at": 20, "text": "b"}]


def test_arms_are_joined_by_name_and_no_arms_mean_the_baseline() -> None:
    assert union(config(), config()).arms == {}
    assert list(union(config(), config(arms={"swap": SWAP})).arms) == ["baseline", "swap"]
    assert list(union(config(arms={"swap": SWAP}), config()).arms) == ["swap", "baseline"]


def test_what_an_arm_means_does_not_change() -> None:
    known = config(arms={"swap": SWAP, "noisy": [{"every": 3, "noise": 0.5}]})
    assert contradictions(known, config(arms={"swap": SWAP, "late": SWAP})) == {}
    assert contradictions(known, config(arms={"swap": [{"at": 20, "text": "c"}]})) == {
        "arms.swap": "the arm 'swap' is [{at: 20, text: c}]; demo started with [{at: 20, text: b}]"
    }


def test_labels_are_as_they_were_given_last() -> None:
    known = config(prompts=["a", "b"], labels={"a": {"tags": ["x"]}, "b": {"group": "g"}})
    both = union(known, config(labels={"a": {"group": "h"}}))
    assert {prompt: (of.tags, of.group) for prompt, of in both.labels.items()} == {
        "a": ([], "h"),
        "b": ([], "g"),
    }


def test_asking_for_something_else_replaces_it_or_says_what_is_wrong() -> None:
    known = config(prompts=["a"], seeds=[1, 2])
    asked = asking(known, {"prompts": ["b"], "max_length": 7})
    assert (asked.prompts, asked.max_length, asked.seeds) == (["b"], 7, [1, 2])
    with pytest.raises(ConfigError, match=r"^max_length\. ") as caught:
        asking(known, {"max_length": -1})
    assert ";" not in caught.value.message


@pytest.mark.parametrize("field", ["diagrams", "vectorisations", "distances"])
def test_of_lists_of_settings_all_have_to_be_asked_for(field: str) -> None:
    entries = {"diagrams": [{"metric": "cosine"}], "vectorisations": ["entropy"], "distances": ["bottleneck"]}
    asks, lacks = config(**{field: entries[field]}), config()
    assert asks_all(asks, asks)
    assert not asks_all(lacks, asks)
