"""What a stored config reaches outside its store is told in words, all of it; and what is harmless is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panic.config import ExperimentConfig
from panic.engine.trust import NotTrusted, described_outside, named_outside, require_trust
from panic.models import registry
from panic.models.protocol import ModelSpec


def config(**changes: Any) -> ExperimentConfig:
    values = {"name": "x", "networks": [["m"]], "prompts": ["a"], "seeds": [-1], "max_length": 2}
    return ExperimentConfig.model_validate(
        {**values, "models": {"m": {"base": "synthetic/text-to-image"}}, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"model_folder": "/home/x"}, ["the folder of Python models '/home/x'"]),
        ({"snapshot": {"to": "/mnt/x"}}, ["the folder of snapshots '/mnt/x'"]),
        ({"ray": {"address": "auto"}}, ["the Ray cluster 'auto'"]),
        ({"ray": {"workers": 2}}, []),
        ({"notify": {"to": ["A", "B"]}}, ["the addresses of notices in A, B"]),
        ({"networks": [["local:w", "m", "local:w"]]}, ["the model 'local:w'"]),
        ({"embeddings": ["PocketText", "python:a.py:A"]}, ["the model 'python:a.py:A'"]),
        ({"arms": {"on": [{"at": 1, "model": "local:a"}, {"at": 2, "noise": 0.5}]}}, ["the model 'local:a'"]),
        ({"models": {"m": {"base": "class:os:system"}}}, ["the model 'class:os:system'"]),
        ({"models": {"m": {"base": "org/name", "adapter": "a:b"}}}, ["the adapter 'a:b' of the model 'm'"]),
        (
            {"models": {"m": {"base": "SDXL", "api_key_env": "KEY"}}},
            ["the key in 'KEY' of the environment, for the model 'm'"],
        ),
        (
            {"models": {"m": {"base": "SDXL", "lora": "styles", "prompt": "styles"}}},
            ["lora of the model 'm': 'styles'"],
        ),
        (
            {"models": {"m": {"base": "SDXL", "a": [1, {"b": "~/x", "c": ["see http://y", "x/y"]}]}}},
            ["a of the model 'm': '~/x'", "a of the model 'm': 'see http://y'"],
        ),
        *[
            ({"models": {"m": {"base": "SDXL", "a": text}}}, [f"a of the model 'm': {text!r}"])
            for text in ("/x", "~", "./x", "../x", "$HOME", "s3://x")
        ],
        *[({"models": {"m": {"base": "SDXL", "a": text}}}, []) for text in ("x/y", ".x", "a: b", "5$", 7)],
    ],
)
def test_what_acting_on_a_config_reaches_is_told_in_words(changes: dict[str, Any], told: list[str]) -> None:
    assert named_outside(config(**changes)) == told
    require_trust(config(**changes), is_trusted=True)
    if told:
        with pytest.raises(NotTrusted, match="The stored config of x names ") as refused:
            require_trust(config(**changes), is_trusted=False)
        assert refused.value.message.endswith(f"names {', '.join(told)}. Nothing was done.")
        assert "--trust" in refused.value.hint
    else:
        require_trust(config(**changes), is_trusted=False)


@pytest.mark.parametrize(("number", "more"), [(5, ""), (6, " and 1 more"), (1005, " and 1,000 more")])
def test_of_many_five_are_named(number: int, more: str) -> None:
    names = [f"local:{place}" for place in range(number)]
    with pytest.raises(NotTrusted) as refused:
        require_trust(config(networks=[names]), is_trusted=False)
    shown = ", ".join(f"the model {name!r}" for name in names[:5])
    assert refused.value.message == f"The stored config of x names {shown}{more}. Nothing was done."


def test_models_of_a_folder_count_by_the_names_that_the_config_uses(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Own:\n    modality_in = modality_out = 'text'\n    size_bytes = 0\n"
        "    def load(self, device): pass\n    def invoke(self, inputs, seeds): return inputs\n"
        "class Other(Own): pass\n"
    )
    models = {"m": {"base": "synthetic/text-to-image"}, "Own": {"base": "m"}, "Other": {"base": "m"}}
    own = config(models=models, networks=[["m", "Own", "Other"]])
    assert named_outside(own, tmp_path) == [
        f"the model {name!r} of the folder {str(tmp_path)!r}" for name in ("Other", "Own")
    ]
    assert named_outside(own) == []
    with pytest.raises(NotTrusted, match="of the folder"):
        require_trust(own, is_trusted=False, laid=tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"source": ""}, []),
        ({"source": "pocket:x"}, []),
        ({"source": "org/name"}, []),
        ({"source": "local:x"}, ["the model 'a', which is 'local:x'"]),
        ({"source": "org/name/x"}, ["the model 'a', which is 'org/name/x'"]),
        ({"revision": "main"}, []),
        ({"revision": "../x"}, ["the revision '../x' of the model 'a'"]),
        ({"parameters": {"gguf": "x"}, "options": {"b": {"c": "/etc"}}}, [
            "gguf of the model 'a': 'x'", "b of the model 'a': '/etc'"
        ]),
    ],
)  # fmt: skip
def test_what_building_a_described_model_reaches(changes: dict[str, Any], told: list[str]) -> None:
    spec: ModelSpec = replace(registry.resolve("sd-turbo", {}), **changes)
    assert described_outside({"a": spec, "b": registry.resolve("sd-turbo", {})}) == told
    if told:
        with pytest.raises(NotTrusted):
            require_trust(config(), is_trusted=False, described={"a": spec})
