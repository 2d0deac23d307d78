"""The tags and groups of prompts, as several entries say them."""

import pytest
from pydantic import ValidationError

from panic.config.labels import PromptLabels, add_labels


def told(labels):
    return {prompt: (of.tags, of.group) for prompt, of in labels.items()}


def test_a_prompt_of_several_entries_has_the_tags_of_all_and_the_group_of_one():
    labels = {}
    assert add_labels(labels, ("prompts", 0), "ab", PromptLabels(tags=["x", "y"], group="g")) == []
    assert add_labels(labels, ("prompts", 1), "bc", PromptLabels(tags=["z", "x"])) == []
    assert told(labels) == {"a": (["x", "y"], "g"), "b": (["x", "y", "z"], "g"), "c": (["z", "x"], None)}
    assert add_labels(labels, ("prompts", 2), "bcd", PromptLabels(group="g")) == []
    assert told(labels) == {
        "a": (["x", "y"], "g"), "b": (["x", "y", "z"], "g"), "c": (["z", "x"], "g"), "d": ([], "g")
    }  # fmt: skip


def test_what_says_nothing_labels_nothing():
    labels = {}
    assert add_labels(labels, ("prompts", 0), "ab", PromptLabels()) == []
    assert labels == {}


def test_a_prompt_is_not_in_two_groups_and_the_others_of_the_entry_are_labelled():
    labels = {"a": PromptLabels(group="g"), "b": PromptLabels(tags=["x"])}
    (problem,) = add_labels(labels, ("prompts", 1), "ab", PromptLabels(tags=["y"], group="h"))
    assert (problem.path, problem.found) == (("prompts", 1, "group"), "h")
    assert problem.message == "a prompt of this entry is in the group 'g' already"
    assert told(labels) == {"a": ([], "g"), "b": (["x", "y"], "h")}


def test_a_tag_has_no_comma():
    assert PromptLabels(tags=["a b"]).tags == ["a b"]
    with pytest.raises(ValidationError, match="several tags are a list"):
        PromptLabels(tags=["a,b"])
