"""Problems with the models of a config, with their places, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from panic.models.registry import check_config

PAIR = ["synthetic/text-to-image", "synthetic/image-to-text"]
WALK = ["synthetic/random-walk"]


def problems(raw: dict[str, Any]) -> dict[tuple[Any, ...], str]:
    return {problem.path: problem.message for problem in check_config(raw)}


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {
            "networks": [PAIR, WALK, ["sd-turbo", "BLIP-2"]],
            "embeddings": ["all-mpnet-base-v2", "dinov2-base"],
        },
        {"networks": [["it"]], "models": {"it": {"base": "synthetic/random-walk", "angle": 0.5}}},
        {"networks": [PAIR], "embeddings": ["dinov2-base"], "diagrams": {"modality": "image"}},
        {"models": {"it": {"base": "BLIP-base", "do_sample": True, "temperature": 0.5, "dtype": "float16"}}},
    ],
)
def test_right_configs_have_no_problems(raw: dict[str, Any]) -> None:
    assert check_config(raw) == []


@pytest.mark.parametrize(
    "raw",
    [
        {"networks": "no", "models": 3, "embeddings": {"a": 1}, "diagrams": []},
        {"networks": [[1, None], "x", []], "models": {"a": 4, 5: {"base": "b"}, "c": {}, "d": {"base": 1}}},
        {"embeddings": [3], "diagrams": {"modality": 7}, "model_folder": 5},
    ],
)
def test_wrong_forms_are_left_to_the_schema(raw: dict[str, Any]) -> None:
    assert check_config(raw) == []


def test_all_problems_are_found_at_once() -> None:
    raw = {
        "networks": [["sd-turbo", "BLIPbase"], ["nope"], ["synthetic/text-to-image", "mine"]],
        "models": {
            "mine": {"base": "synthetic/image-to-text", "kernel": "spin"},
            "fast": {"base": "sd-turbo", "step": 2, "guidance": -1, "width": "wide"},
            "lost": {"base": "sdturbo"},
            "odd": {"base": "x/y", "adapter": "magic"},
        },
        "embeddings": ["minilm", "sd-turbo"],
    }
    found = problems(raw)
    assert found.pop(("models", "mine", "kernel")) == "kernel is not one of the allowed values"
    assert found == {
        ("networks", 0, 1): "there is no model BLIPbase",
        ("networks", 1, 0): "there is no model nope",
        ("models", "fast", "step"): "sd-turbo has no parameter 'step'",
        ("models", "fast", "guidance"): "guidance should be at least 0",
        ("models", "fast", "width"): "width should be a whole number",
        ("models", "lost", "base"): "there is no model sdturbo",
        ("models", "odd", "adapter"): "there is no such adapter",
        ("embeddings", 0): "there is no model minilm",
        ("embeddings", 1): "sd-turbo gives image; an embedding model gives a vector",
    }


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ({"base": "blur", "radius": 10**400}, "radius should be a number"),
        ({"base": "noise", "deviation": -(10**400)}, "deviation should be a number"),
        ({"base": "jpeg", "quality": 10**400}, "quality should be at most 100"),
        ({"base": "sd-turbo-variation", "strength": 10**400, "steps": 3}, "strength should be a number"),
        ({"base": "sd-turbo-variation", "strength": 0.5, "steps": 10**400}, "steps should be at most 1000"),
        ({"base": "sd-turbo-variation", "strength": float("nan")}, "strength should be a number"),
    ],
    ids=str,
)
def test_numbers_beyond_all_floats_are_told(variant: dict[str, Any], told: str) -> None:
    assert list(problems({"models": {"it": variant}}).values()) == [told]


@pytest.mark.parametrize("name", ["local:\ud800", "python:\ud800.py:Own"])
def test_a_path_that_no_file_can_have_is_told(name: str) -> None:
    told = "a path must be a text that can be written as UTF-8"
    assert problems({"networks": [[name]]}) == {("networks", 0, 0): told}
    variant = {"base": "sd-turbo", "lora": name}
    assert told in problems({"models": {"it": variant}}).values()


def test_problems_carry_what_is_allowed() -> None:
    raw = {"networks": [["sdturbo"]], "models": {"it": {"base": "BLIP-base", "temprature": 1}}}
    unknown_parameter, unknown_model = check_config(raw)
    assert unknown_parameter.on_key
    assert "temperature" in unknown_parameter.allowed
    assert {"sd-turbo", "synthetic/random-walk"} <= set(unknown_model.allowed)


def fitting(network: list[str], **more: Any) -> set[str]:
    """The models that are offered for the one unknown name of a network."""
    (problem,) = check_config({"networks": [network], **more})
    return set(problem.allowed)


def test_only_models_that_fit_the_place_are_offered() -> None:
    drawing, captioning = {"sd-turbo", "synthetic/text-to-image"}, {"BLIP-2", "synthetic/image-to-text"}
    embedding = {"dinov2-base", "PocketText"}
    first = fitting(["zzz", "BLIP-2"])
    assert drawing <= first
    assert not (captioning | embedding | {"synthetic/random-walk"}) & first
    assert captioning <= fitting(["sd-turbo", "zzz"])
    assert not (drawing | embedding) & fitting(["sd-turbo", "zzz"])
    mine = {"mine": {"base": "BLIP-base", "max_new_tokens": 9}, "lost": {"base": "sd-turbo", "revision": 3}}
    assert "mine" in fitting(["sd-turbo", "zzz"], models=mine)
    (problem,) = check_config({"embeddings": ["zzz"]})
    assert embedding <= set(problem.allowed)
    assert not (drawing | captioning) & set(problem.allowed)
    assert "`panic models` lists all" in problem.hint


def test_a_near_name_that_does_not_fit_is_told_as_such() -> None:
    (problem,) = check_config({"networks": [["sd-turbo", "dinov2-bse"]]})
    assert problem.hint == "dinov2-base is spelt like it, but does not fit here"
    (problem,) = check_config({"networks": [["sd-turbo", "BLIP2"]]})
    assert (problem.hint, "BLIP-2" in problem.allowed) == ("", True)


@pytest.mark.parametrize(
    ("network", "place", "message"),
    [
        (["sd-turbo", "sdxl-turbo"], 1, "sd-turbo gives image, but sdxl-turbo takes text"),
        (
            ["sd-turbo"],
            0,
            "the last model is followed by the first: sd-turbo gives image, but sd-turbo takes text",
        ),
        (
            ["sd-turbo", "BLIP-2", "sd-turbo"],
            2,
            "the last model is followed by the first: sd-turbo gives image, but sd-turbo takes text",
        ),
        (["BLIP-2", "sd-turbo"], 0, "BLIP-2 takes image, but a network begins with a prompt, which is text"),
        (["dinov2-base"], 0, "dinov2-base is an embedding model; a network takes generative ones"),
    ],
)
def test_modalities_that_do_not_fit_name_both_models(network: list[str], place: int, message: str) -> None:
    raw = {"networks": [network], "prompts": ["a red circle"]}
    found = [(problem.path, problem.message) for problem in check_config(raw)]
    assert found[0] == (("networks", 0, place), message)


def test_the_cause_is_told_once_where_it_is() -> None:
    raw = {
        "networks": [["c", "BLIP-2"]],
        "models": {"a": {"base": "nope"}, "b": {"base": "a"}, "c": {"base": "b", "steps": 0}},
        "embeddings": ["b"],
    }
    assert set(problems(raw)) == {("models", "a", "base")}


def test_settings_without_effect_are_told() -> None:
    raw = {
        "models": {
            "calm": {"base": "BLIP-base", "top_p": 0.9},
            "plain": {"base": "sd-turbo", "negative_prompt": "blue"},
            "strong": {"base": "sd-turbo", "negative_prompt": "blue", "guidance": 3},
        }
    }
    assert problems(raw) == {
        ("models", "calm", "top_p"): "top_p has no effect while do_sample is false",
        ("models", "plain", "negative_prompt"): "negative_prompt has no effect at a guidance of 1 or less",
    }


def test_a_variant_must_not_hide_a_known_model() -> None:
    raw = {"models": {"BLIP-2": {"base": "BLIP-base"}, "sd-turbo": {"base": "sd-turbo", "steps": 2}}}
    assert problems(raw) == {("models", "BLIP-2"): "the name BLIP-2 is taken by a known model"}


@pytest.mark.parametrize(
    ("diagrams", "embeddings", "path"),
    [
        ({"modality": "image"}, ["all-mpnet-base-v2"], ("diagrams", "modality")),
        ({}, ["dinov2-base"], ("diagrams",)),
        ({"modality": "text"}, [], ("diagrams", "modality")),
    ],
)
def test_diagrams_need_vectors_of_their_modality(
    diagrams: dict[str, str], embeddings: list[str], path: tuple[str, ...]
) -> None:
    assert set(problems({"networks": [PAIR], "embeddings": embeddings, "diagrams": diagrams})) == {path}


def test_folders_and_files_that_are_not_there_are_told() -> None:
    raw = {
        "networks": [["local:/no/such/folder", "python:/no/such.py:Thing"]],
        "embeddings": ["local:/neither"],
    }
    found = problems(raw)
    assert found["networks", 0, 0] == "local:/no/such/folder: there is no folder /no/such/folder"
    assert found["networks", 0, 1] == "there is no Python file /no/such.py"
    assert ("embeddings", 0) in found


def test_a_missing_model_folder_is_told_once() -> None:
    found = problems({"networks": [["Mine"], ["Other"]], "model_folder": "/no/such/folder"})
    assert found == {("model_folder",): "the model folder /no/such/folder does not exist"}


def test_models_of_the_users_folder_are_checked_like_others(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Shout:\n"
        "    modality_in = modality_out = 'text'\n"
        "    size_bytes = 0\n"
        "    def __init__(self, marks=1): ...\n"
        "    def load(self, device): ...\n"
        "    def invoke(self, inputs, seeds): return inputs\n"
    )
    raw = {
        "model_folder": str(tmp_path),
        "networks": [["Shout", "Shout"], ["Shuot"]],
        "models": {"loud": {"base": "Shout", "mark": 3}},
    }
    first, second = check_config(raw)
    assert (first.path, second.path) == (("models", "loud", "mark"), ("networks", 1, 0))
    assert "Shout" in second.allowed
    assert list(first.allowed) == ["marks"]


def test_lists_where_names_belong_are_told_once() -> None:
    for wrong in ({"base": ["x"]}, {"base": "sd-turbo", "revision": ["x"]}):  # the schema's to tell
        assert (
            check_config({"networks": [["mine"]], "models": {"mine": wrong, "more": {"base": "mine"}}}) == []
        )
    raw = {"models": {"mine": {"base": "sd-turbo", "adapter": ["x"]}}}
    assert list(problems(raw)) == [("models", "mine", "adapter")]


def test_unknown_and_wrong_parameters_of_synthetic_models_are_told_together() -> None:
    mine = {"base": "synthetic/text-to-image", "states": 0, "size": 1, "delay_s": -1, "nosuch": 3}
    found = problems({"models": {"mine": mine}})
    assert {path[-1] for path in found} == {"states", "size", "delay_s", "nosuch"}


def test_a_former_word_for_a_parameter_is_taken_and_told_where_it_stands() -> None:
    old = {"base": "flan-t5-base", "instruction": "Rephrase:"}
    assert problems({"networks": [["it"]], "models": {"it": old}}) == {}
    wrong = problems({"networks": [["it"]], "models": {"it": {**old, "instruction": 3}}})
    assert wrong == {("models", "it", "instruction"): "prompt should be text"}
    [message] = problems({"networks": [["it"]], "models": {"it": {**old, "prompt": "Say:"}}}).values()
    assert "instruction is the former word for prompt" in message


def test_a_budget_without_a_limit_is_told() -> None:
    server = {"base": "openai:x", "base_url": "http://localhost:1/v1", "task": "text-to-text"}
    raw = {"networks": [["chat"]], "models": {"chat": server}, "prompts": ["a"], "budget": {}}
    assert problems(raw) == {("budget",): "budget has no effect: it limits neither requests nor tokens"}
    assert problems(raw | {"budget": {"tokens": 0}}) == {}
