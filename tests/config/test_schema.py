"""Fields, their classes, and what makes an experiment the one it is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from panic.config import (
    FIELD_CLASSES,
    DiagramSettings,
    Distance,
    ExperimentConfig,
    FieldClass,
    Vectorisation,
    Window,
    identity_digest,
)
from panic.config.fields import parse_size

CHANGED: dict[str, Any] = {
    "name": "other",
    "project": "other",
    "networks": [["A", "C"]],
    "models": {"A": {"base": "X", "steps": 3}},
    "prompts": ["a", "b"],
    "seeds": [-1, 1],
    "repeats": 2,
    "root_seed": 1,
    "max_length": 3,
    "embeddings": ["E", "F"],
    "diagrams": {"max_dimension": 2},
    "vectorisations": ["entropy"],
    "distances": ["bottleneck"],
    "reject_constant_images": True,
    "device": "cpu",
    "threads": 1,
    "batch_sizes": {"A": 2},
    "executor": "local",
    "timeout_s": 1.0,
    "max_retries": 0,
    "fail_fast": True,
    "pixel_cache_bytes": 1,
    "memory_fraction": 0.5,
    "headroom": "1GiB",
    "log_level": "debug",
    "workers": 1,
    "diagram_workers": 1,
    "store": "store",
    "model_folder": "models",
    "base_folder": "base",
}


def config(**changes: Any) -> ExperimentConfig:
    fields: dict[str, Any] = {
        "name": "demo",
        "networks": [["A", "B"]],
        "models": {"A": {"base": "X", "steps": 2}},
        "prompts": ["a"],
        "seeds": [-1],
        "max_length": 2,
        "embeddings": ["E"],
        "diagrams": {},
    }
    return ExperimentConfig(**fields | changes)


def test_every_field_has_exactly_one_class() -> None:
    assert set(FIELD_CLASSES) == set(ExperimentConfig.model_fields)
    for info in ExperimentConfig.model_fields.values():
        assert sum(isinstance(mark, FieldClass) for mark in info.metadata) == 1


def test_every_field_is_described() -> None:
    assert [name for name, info in ExperimentConfig.model_fields.items() if not info.description] == []


@pytest.mark.parametrize("field", sorted(ExperimentConfig.model_fields))
def test_the_digest_follows_identity_fields_and_no_others(field: str) -> None:
    is_other = identity_digest(config(**{field: CHANGED[field]})) != identity_digest(config())
    assert is_other == (FIELD_CLASSES[field] is FieldClass.IDENTITY)


def test_the_digest_stays_the_same_over_versions() -> None:
    assert identity_digest(config()) == "f9dfea93720d61d44d40023dc8e719e82361858dbb980cef4af0faf0241cc70f"


@pytest.mark.parametrize(
    "changes",
    [
        {"root_seed": 0, "diagrams": {"max_dimension": 1, "generators": False}},
        {"models": {"A": {"steps": 2.0, "base": "X", "dtype": None}}},
        {"models": {"A": {"base": "X", "steps": 2}, "unused": {"base": "Y"}}},
    ],
    ids=["defaults written out", "numbers and order of keys", "unused variant"],
)
def test_what_does_not_change_an_experiment(changes: dict[str, Any]) -> None:
    assert identity_digest(config(**changes)) == identity_digest(config())


def test_order_of_networks_and_embeddings_does_not_count_order_within_a_network_does() -> None:
    one = config(networks=[["A", "B"], ["C", "B"]], embeddings=["E", "F"])
    assert identity_digest(one) == identity_digest(
        config(networks=[["C", "B"], ["A", "B"]], embeddings=["F", "E"])
    )
    assert identity_digest(one) != identity_digest(config(networks=[["B", "A"], ["C", "B"]]))


def test_a_variant_that_is_the_base_of_a_used_one_counts() -> None:
    def digest(steps: int) -> str:
        models = {"A": {"base": "quick"}, "quick": {"base": "X", "steps": steps}}
        return identity_digest(config(models=models))

    assert digest(2) != digest(3)


def test_diagrams_with_defaults_are_not_no_diagrams() -> None:
    assert identity_digest(config(diagrams=None)) != identity_digest(config(diagrams={}))


def test_free_keys_of_a_variant_are_its_parameters() -> None:
    variant = config(models={"A": {"base": "X", "steps": 2, "fail_at": None, "dtype": "bfloat16"}}).models[
        "A"
    ]
    assert (variant.base, variant.dtype, variant.revision) == ("X", "bfloat16", None)
    assert variant.parameters == {"steps": 2, "fail_at": None}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("8GiB", 8 * 2**30), ("512MB", 512_000_000), ("1.5 kib", 1536), ("7", 7), ("7B", 7), (9, 9)],
)
def test_sizes(text: Any, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes
    assert config(headroom=text).headroom == size_bytes


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:3", "sim:8GiB", "sim:100"])
def test_devices(device: str) -> None:
    assert config(device=device).device == device


@pytest.mark.parametrize(
    "changes",
    [
        {"networks": []},
        {"networks": [[]]},
        {"networks": [["A", "B"], ["A", "B"]]},
        {"networks": [["A", " "]]},
        {"prompts": []},
        {"prompts": ["\n"]},
        {"prompts": ["a", "a"]},
        {"prompts": ["\ud800"]},
        {"seeds": []},
        {"seeds": [1, 1]},
        {"seeds": [-2]},
        {"seeds": [2**63]},
        {"seeds": [True]},
        {"seeds": [1], "repeats": 2},
        {"repeats": 0},
        {"max_length": 0},
        {"max_length": 2.0},
        {"embeddings": ["E", "E"]},
        {"embeddings": []},
        {"diagrams": {"max_dimension": 3}},
        {"models": {"local:x": {"base": "X"}}},
        {"models": {"A": {"base": "X", "guidance": float("nan")}}},
        {"models": {"A": {"steps": 2}}},
        {"batch_sizes": {"Z": 2}},
        {"batch_sizes": {"A": 0}},
        {"device": "cuda:x"},
        {"device": "sim:8GB8"},
        {"headroom": "-1"},
        {"headroom": -1},
        {"memory_fraction": 1.5},
        {"timeout_s": 0},
        {"name": "a/b"},
        {"project": ""},
        {"unknown": 1},
    ],
    ids=str,
)
def test_refused(changes: dict[str, Any]) -> None:
    config()
    with pytest.raises(ValidationError):
        config(**changes)


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().max_length = 3  # type: ignore[misc]


def test_keys_hold_what_counts_and_nothing_else() -> None:
    """They identify results in stores: a change would compute all of them again."""
    assert DiagramSettings(threshold=None).key == DiagramSettings().key
    assert set(DiagramSettings().key) == {"max_dimension", "metric", "modality", "generators"}
    window = DiagramSettings.model_validate({"window": {"dimension": 3}, "landmarks": 50, "threshold": 1})
    assert (window.key["window"], window.key["landmarks"]) == ({"dimension": 3, "delay": 1}, 50)
    assert Vectorisation(kind="entropy").key == {"kind": "entropy"}
    assert Vectorisation(kind="silhouette", range=[0, 2]).key == {
        "kind": "silhouette", "range": [0.0, 2.0], "resolution": 100, "power": 1.0
    }  # fmt: skip
    assert Distance(kind="wasserstein").key == Distance(kind="wasserstein", order=1, internal_p=2).key
    assert Distance(kind="wasserstein", internal_p="inf").key["internal_p"] == "inf"


def test_a_window_spans_its_delays() -> None:
    assert Window(dimension=4, delay=3).span == 10
    assert Window(dimension=1).span == 1
