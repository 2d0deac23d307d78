"""Fields and their classes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from panic.config import (
    FIELD_CLASSES,
    DiagramSettings,
    Distance,
    ExperimentConfig,
    FieldClass,
    Vectorisation,
    Window,
)
from panic.config.arms import InterventionSettings, arms_of_all, branch_name
from panic.config.extent import EXTENT_JOINS
from panic.config.fields import parse_size, parse_whole
from panic.config.schema import Price, cross_field_problems, too_many_runs


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


def test_an_experiment_is_its_name() -> None:
    of = {mark: {name for name, found in FIELD_CLASSES.items() if found is mark} for mark in FieldClass}
    assert of[FieldClass.IDENTITY] == {"name"}
    assert of[FieldClass.FIXED] == {"root_seed", "reject_constant_images", "stuck_after", "models"}
    assert of[FieldClass.PINNED] == {"device", "threads", "batch_sizes"}
    assert of[FieldClass.EXTENT] == set(EXTENT_JOINS)


def test_one_mapping_of_diagram_settings_is_a_list_of_one() -> None:
    assert config(diagrams={"max_dimension": 2}) == config(diagrams=[{"max_dimension": 2}])
    assert config(diagrams=None) == config(diagrams=[])
    assert config(diagrams=None).diagrams == []
    assert [one.metric for one in config(diagrams=[{}, {"metric": "cosine"}]).diagrams] == [
        "euclidean",
        "cosine",
    ]


def test_free_keys_of_a_variant_are_its_parameters() -> None:
    variant = config(models={"A": {"base": "X", "steps": 2, "fail_at": None, "dtype": "bfloat16"}}).models[
        "A"
    ]
    assert (variant.base, variant.dtype, variant.revision) == ("X", "bfloat16", None)
    assert variant.parameters == {"steps": 2, "fail_at": None}


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "0" * 40, "fp16", "feature/a_b-c+1"])
def test_revisions_are_names_of_git(revision: str) -> None:
    assert config(models={"A": {"base": "X", "revision": revision}}).models["A"].revision == revision


@pytest.mark.parametrize(
    "revision",
    ["/tmp/weights", "../../weights", "a/../../b", "main; ls", "", "a/", "//a", "-r", "a\n", "$A", ".."],
)
def test_a_revision_is_no_path(revision: str) -> None:
    """The hub's client joins it to its folder: a stored config named a folder elsewhere without --trust."""
    with pytest.raises(ValidationError, match="must be a commit, a branch or a tag"):
        config(models={"A": {"base": "X", "revision": revision}})


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
    ("device", "read"),
    [
        ("cuda:all", "cuda:all"),
        (["cpu"], "cpu"),
        ("cuda:0, cuda:1", ["cuda:0", "cuda:1"]),
        (["cuda", "cuda:1"], ["cuda:0", "cuda:1"]),
        (["sim:8GiB", "sim:8GiB"], ["sim:8GiB", "sim:8GiB"]),
    ],
)
def test_several_devices(device: Any, read: Any) -> None:
    assert config(device=device).device == read


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (["cpu", "cuda:0"], "mixes cpu and cuda"),
        (["cuda:0", "sim:8GiB"], "mixes cuda and sim"),
        (["cuda", "cuda:0"], "names cuda:0 twice"),
        (["cpu", "cpu"], "names cpu twice"),
        (["cuda:0", "auto"], "'auto' in a list"),
        (["cuda:0", "cuda:all"], "'cuda:all' in a list"),
        (["cuda:0", "gpu1"], "'gpu1', which is not a known device"),
        ([], "must name a device"),
        ([1], "must name a device"),
        ({"a": 1}, "must name a device"),
    ],
)
def test_lists_of_devices_that_cannot_be_have_an_answer(device: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        config(device=device)


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
        {"diagrams": [{"max_dimension": 1}, {}]},
        {"diagrams": [{}, {"metric": "cosine", "landmarks": 2}]},
        {"vectorisations": [{"kind": "betti_curve", "range": [1, 1]}]},
        {"vectorisations": [{"kind": "betti_curve", "range": [0, 1, 2]}]},
        {"distances": [{"kind": "wasserstein", "internal_p": 0.9}]},
        {"distances": [{"kind": "wasserstein", "internal_p": float("inf")}]},
        {"distances": [{"kind": "wasserstein", "order": 0.9}]},
        {"models": {"local:x": {"base": "X"}}},
        {"models": {"A": {"base": "X", "guidance": float("nan")}}},
        {"models": {"A": {"base": "X", "prompt": "a \ud800"}}},
        {"models": {"A": {"base": "X", "stop": ["a", "\ud800"]}}},
        {"models": {"A": {"base": "X", "extra": {"top": [1, float("inf")]}}}},
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


def test_defaults() -> None:
    """They decide what is computed, and what a process may take."""
    plain = ExperimentConfig(name="x", networks=[["A"]], prompts=["a"], seeds=[1], max_length=1)
    assert (plain.repeats, plain.root_seed, plain.max_retries) == (1, 0, 2)
    assert not plain.reject_constant_images
    assert not plain.fail_fast
    assert plain.pixel_cache_bytes == plain.headroom == 2**28
    assert plain.memory_fraction == 1.0
    for empty in (plain.models, plain.embeddings, plain.diagrams, plain.vectorisations, plain.distances):
        assert not empty


@pytest.mark.parametrize(
    ("networks", "prompts", "seeds", "repeats", "where"),
    [
        (1, 10, [-1], 10**6, None),
        (1, 10, [-1], 10**6 + 1, "repeats"),
        (2, 5, [-1, 3], 10**6 - 1, None),
        (2, 5, [-1, 3], 10**6, "repeats"),
        (1, 10_000, list(range(1000)), 1, None),
        (1, 10_000, list(range(1001)), 1, "prompts"),
        (1, 10_001, list(range(1000)), 7, "prompts"),
        (11, 1000, list(range(1000)), 1, "prompts"),
    ],
)
def test_ten_million_runs_are_the_most(
    networks: int, prompts: int, seeds: list[int], repeats: int, where: str | None
) -> None:
    """Networks x prompts x (fixed seeds + repeats of -1); repeats count for nothing where no seed is -1."""
    raw = {"networks": [["A"]] * networks, "prompts": ["p"] * prompts, "seeds": seeds, "repeats": repeats}
    assert [problem.path for problem in too_many_runs(raw)] == ([] if where is None else [(where,)])


def test_runs_are_counted_without_repeats_and_with_arms() -> None:
    raw = {"networks": [["A"]] * 1001, "prompts": ["p"] * 1000, "seeds": list(range(-1, 9))}
    [problem] = too_many_runs(raw)
    assert problem.path == ("networks",)
    assert problem.message.startswith("1001 networks x 1000 prompts x 10 seeds and repeats are 10010000 runs")
    assert too_many_runs(raw | {"networks": [["A"]] * 1000}) == []
    at = {"at": 1, "text": "a"}
    half = raw | {"networks": [["A"]] * 501, "arms": {"baseline": [], "swap": [at]}}
    [problem] = too_many_runs(half)
    assert "x 10 seeds and repeats x 2 arms are 10020000 runs" in problem.message
    for arms in ({}, None, [at], {"baseline": []}):
        assert too_many_runs(half | {"arms": arms}) == []


@pytest.mark.parametrize(
    "changes",
    [{"networks": None}, {"prompts": "a"}, {"seeds": 5}, {"repeats": "many"}, {"repeats": None}],
    ids=str,
)
def test_what_cannot_be_counted_is_no_second_mistake(changes: dict[str, Any]) -> None:
    raw: dict[str, Any] = {"networks": [["A"]] * 20, "prompts": ["p"] * 1000, "seeds": list(range(1000))}
    assert len(too_many_runs(raw)) == 1
    assert too_many_runs(raw | changes) == []
    assert cross_field_problems({"networks": [["A"]], "seeds": [1]} | changes) == []


def test_between_fields_each_mistake_is_told_at_its_place() -> None:
    def paths(**raw: Any) -> list[Any]:
        return [problem.path for problem in cross_field_problems(raw)]

    assert paths(repeats=2, seeds=[1, 0]) == [("repeats",)]
    assert paths(repeats=2, seeds=[1, -1]) == paths(repeats=1, seeds=[1]) == []
    assert paths(repeats="2", seeds=[1]) == paths(repeats=2, seeds=1) == paths(repeats=2) == []
    assert paths(diagrams={}) == [("diagrams",)]
    assert paths(diagrams={}, embeddings=["E"]) == paths(diagrams=[]) == paths(diagrams=None) == []
    assert paths(models={" ": {}}) == [("models", " ")]
    assert paths(models={"python:x": {}}) == [("models", "python:x")]
    assert paths(models={"A": {"a": float("inf"), "b": 1.5, "c": float("nan"), "d": "x"}}) == [
        ("models", "A", "a"),
        ("models", "A", "c"),
    ]
    assert paths(models={"A": 3}) == paths(models=[1]) == []
    assert paths(seeds=[1, True, 1, 2, 1]) == [("seeds", 2), ("seeds", 4)]
    assert paths(prompts=[{"file": "x"}, {"file": "x"}, "a"]) == []
    assert paths(batch_sizes={"A": 1, "E": 2, "Z": 3}, networks=[["A"], 5, [1]], embeddings=["E"]) == [
        ("batch_sizes", "Z")
    ]
    assert paths(batch_sizes={"Z": 1}) == paths(batch_sizes=[1], networks=[["A"]]) == []
    assert paths(batch_sizes={"A": 1}, networks=[["A"]], embeddings="E") == []


def test_a_second_entry_points_at_the_first() -> None:
    (text, number) = cross_field_problems({"prompts": ["b", "a", "a"], "seeds": [5, 5]})[::-1]
    assert (text.message, text.first) == ("the same prompt as prompts.1: 'a'", ("prompts", 1))
    assert (number.message, number.first) == ("the same seed as seeds.0", ("seeds", 0))


def test_settings_that_a_kind_has_by_default() -> None:
    """They are part of the keys of results."""
    image = Vectorisation(kind="image", range=[0, 1], bandwidth=0.1)
    assert image.key == {"kind": "image", "range": [0.0, 1.0], "resolution": 20, "bandwidth": 0.1}
    assert Vectorisation(kind="landscape", range=[0, 1]).key["num_landscapes"] == 5
    assert Vectorisation(kind="betti_curve", range=[0, 1]).key["resolution"] == 100
    assert Distance(kind="wasserstein").key == {"kind": "wasserstein", "order": 1.0, "internal_p": 2.0}
    assert Vectorisation(kind="entropy", range=None).key == {"kind": "entropy"}


@pytest.mark.parametrize("kind", [[1], {"a": 1}, 3, None])
def test_a_kind_that_is_no_text_is_no_mistake_of_its_settings(kind: Any) -> None:
    """The field's own check tells it."""
    entries = [{"kind": kind}]
    raw = {"diagrams": {}, "embeddings": ["E"], "vectorisations": entries, "distances": entries}
    assert cross_field_problems(raw) == []


@pytest.mark.parametrize(
    ("written", "meant"), [(5e6, 5_000_000), ("5e6", 5_000_000), ("1.5e3", 1500), ("1e2", 100), (7, 7)]
)
def test_a_large_number_may_be_written_with_an_exponent(written: Any, meant: int) -> None:
    found = config(budget={"tokens": written}, max_length=written)
    assert found.budget is not None
    assert (found.budget.tokens, found.max_length) == (meant, meant)


def test_an_arm_that_is_only_called_like_a_branch_is_one_of_all() -> None:
    """Its runs were taken for branches of failed runs, and none were made."""
    at = InterventionSettings(at=4, network=["draw", "chain-again"])
    other = InterventionSettings(at=1, text="a lighthouse")
    assert branch_name("swap", [other, at]) == "swap-rerun-4-55692b0e"  # stores hold such names
    assert branch_name("baseline", [at]) == "rerun-4-38c87925"
    arms = {
        "baseline": [],
        "swap-rerun-4-55692b0e": [other, at],
        "swap-rerun-4-01234567": [other, at],
        "rerun-4-38c87925": [at.model_dump()],
        "rerun-4-89abcdef": [{"at": 4, "every": "x"}],
    }
    assert arms_of_all(arms) == ["baseline", "swap-rerun-4-01234567", "rerun-4-89abcdef"]
    assert arms_of_all({"rerun-4-38c87925": [at]}) == ["baseline"]


def test_a_price_is_of_requests_and_of_millions_of_tokens() -> None:
    price = Price(input=2.0, output=10.0, request=0.5)
    assert price.of(requests=3, input_tokens=1e6, output_tokens=2e5) == 0.5 * 3 + 2.0 + 2.0
    assert Price().of(requests=3, input_tokens=5, output_tokens=7) == 0.0


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("repeats", 1, 2**31 - 1),
        ("max_length", 1, 2**31 - 1),
        ("root_seed", 0, 2**63 - 1),
        ("threads", 1, 1024),
        ("workers", 1, 1024),
        ("diagram_workers", 1, 1024),
        ("max_retries", 0, 2**31 - 1),
        ("stuck_after", 2, 2**31 - 1),
        ("headroom", 0, 2**63 - 1),
        ("pixel_cache_bytes", 0, 2**63 - 1),
        ("memory_fraction", 1e-9, 1.0),
        ("timeout_s", 1e-9, 1e9),
    ],
)
def test_borders_of_numbers(field: str, least: float, most: float) -> None:
    other = {"prompts": ["a"], "seeds": [1, -1]} | ({"max_length": 2} if field != "max_length" else {})
    step = 1 if isinstance(most, int) else 1e-9
    for value in (least, most):
        if field != "repeats" or value == least:  # as many runs would be too many
            assert getattr(config(**other, **{field: value}), field) == value
    for value in (least - step, *([most + step] if field != "timeout_s" else [])):
        with pytest.raises(ValidationError, match=field):
            config(**other, **{field: value})


@pytest.mark.parametrize(
    ("field", "values", "others"),
    [
        ("budget", [{"requests": 0}, {"tokens": 0}, {}], [{"requests": -1}, {"tokens": -1}]),
        ("prices", [{"m": {"input": 0, "output": 1}}, {"m": {"request": 0}}],
         [{"m": {name: -1e-9}} for name in ("input", "output", "request")]),
        ("snapshot", [{"to": "x", "every_s": 1e-9}], [{"to": "x", "every_s": 0}, {"every_s": 1}]),
        ("ray", [{"gpus_per_worker": 0, "cpus_per_worker": 0}, {"gpus_per_worker": 1}],
         [{"gpus_per_worker": -0.1}, {"gpus_per_worker": 1.1}, {"cpus_per_worker": -1}, {"address": " "}]),
        ("notify", [{"to": ["CHAT"], "stall_minutes": 0.1, "on": ["end"]}],
         [{"to": []}, {"to": ["CHAT"], "on": []}, {"to": ["CHAT"], "stall_minutes": 0}, {"to": ["a b"]},
          {"to": ["1A"]}, {"to": ["A" * 129]}, {"to": ["É"]}]),
        ("tags", [["a"], ["x" * 64]], [["a b"], ["-a"], ["x" * 65], ["a,b"]]),
        ("label", ["x" * 200, "a b"], ["x" * 201, "a\nb", " "]),
        ("arms", [{"swap": [{"at": 0, "text": "a"}]}, {"swap": [{"every": 1, "noise": 1.0}]},
                  {"swap": [{"at": 2**31 - 1, "text": "a"}]}],
         [{"swap": [{"at": -1, "text": "a"}]}, {"swap": [{"every": 0, "noise": 0.1}]},
          {"swap": [{"at": 1, "noise": 0}]}, {"swap": [{"at": 1, "noise": 1.1}]},
          {"swap": [{"at": 2**31, "text": "a"}]}, {"a b": [{"at": 1, "text": "a"}]},
          {"swap": [{"at": 1, "network": []}]}]),
        ("batch_sizes", [{"A": 1}, {"A": 65536}], [{"A": 65537}]),
        ("seeds", [[2**63 - 1, 0, -1]], []),
        ("diagrams", [{"max_dimension": 0}, {"max_dimension": 2}, {"landmarks": 1},
                      {"window": {"dimension": 1}}, {"window": {"dimension": 10_000}},
                      {"window": {"dimension": 2, "delay": 1}}, {"threshold": 1e-9}],
         [{"max_dimension": -1}, {"landmarks": 0}, {"window": {"dimension": 0}}, {"threshold": 0},
          {"window": {"dimension": 10_001}}, {"window": {"dimension": 2, "delay": 0}}]),
        ("vectorisations",
         [[{"kind": "landscape", "range": [0, 1], "resolution": number, "num_landscapes": most}]
          for number, most in ((2, 1), (1000, 1000))],
         [[{"kind": "landscape", "range": [0, 1], name: number}]
          for name, number in (("resolution", 1), ("resolution", 1001), ("num_landscapes", 0),
                               ("num_landscapes", 1001))]
         + [[{"kind": "silhouette", "range": [0, 1], "power": -0.1}],
            [{"kind": "image", "range": [0, 1], "bandwidth": 0}]]),
    ],
)  # fmt: skip
def test_borders_of_parts(field: str, values: list[Any], others: list[Any]) -> None:
    for value in values:
        config(**{field: value})
    for value in others:
        with pytest.raises(ValidationError, match=field):
            config(**{field: value})


def test_mistakes_of_names_are_shown_at_the_key_and_those_of_values_at_the_value() -> None:
    def on_key(**raw: Any) -> list[bool]:
        return [problem.on_key for problem in cross_field_problems(raw)]

    assert on_key(models={" ": {}, "\ud800": {}, "local:x": {}}) == [True, True, True]
    assert on_key(models={"A": {"a": float("inf"), "b": "\ud800", "c": [{"\ud800": 1}]}}) == [False] * 3
    assert on_key(diagrams={}) == on_key(batch_sizes={"Z": 1}, networks=[["A"]]) == [True]
    assert on_key(repeats=2, seeds=[1]) == on_key(seeds=[1, 1]) == [False]
    [problem] = cross_field_problems({"batch_sizes": {"Z": 1}, "networks": [["B"], ["A"]]})
    assert (problem.found, problem.allowed) == ("Z", ["A", "B"])
    in_arms = {"batch_sizes": {"Z": 1, "Y": 1}, "networks": [["A"]], "embeddings": []}
    arms = {"arms": {"swap": [{"at": 1, "model": "Z"}]}}
    assert [one.path for one in cross_field_problems(in_arms | arms)] == [("batch_sizes", "Y")]


@pytest.mark.parametrize(
    ("written", "is_whole"),
    [
        ("5e6", True), ("+5E+6", True), ("1.e3", True), ("9.007199254740992e15", True), ("1e16", False),
        ("1.5e0", False), ("1e-3", False), ("1000", False), (1000.0, True), (999.0, False), (1000.5, False),
        (float(2**53), True), (float(2**53) + 2, False), ("1e100", False), (-1000.0, False),
    ],
)  # fmt: skip
def test_what_is_a_whole_number_with_an_exponent(written: Any, is_whole: bool) -> None:
    found = parse_whole(written)
    assert isinstance(found, int) == is_whole
    assert found == (float(written) if is_whole else written)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0), ("1kb", 1000), ("1KiB", 1024), ("1 MB", 10**6), ("1MiB", 2**20), ("1gb", 10**9),
        ("1TB", 10**12), ("1TiB", 2**40), ("  1.5GiB ", 3 * 2**29), ("0.5B", 0), (1.5, 1.5), (None, None),
    ],
)  # fmt: skip
def test_units_of_sizes(text: Any, size_bytes: Any) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "B", "1PB", "1 M iB", "-1", "1e3", "1" * 19, "1,5GB", "1.GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(PydanticCustomError, match="must be a size such as 8GiB"):
        parse_size(text)


@pytest.mark.parametrize("device", ["cuda:9999", "cuda:all", ["sim:1", "sim:2"], "cuda:3,cuda:1"])
def test_devices_that_can_be_named(device: Any) -> None:
    named = device.split(",") if isinstance(device, str) and "," in device else device
    assert config(device=device).device == named


@pytest.mark.parametrize(
    ("device", "hint"),
    [
        (["cpu", "cpu", "cpu"], "device: cpu with workers: 3 has as many processes"),
        (["cuda", "cuda:0"], "every device has one process; name it once"),
        (["cpu", "cuda:0"], "several devices are all cuda:N, or all sim:SIZE"),
    ],
)
def test_what_to_do_about_devices_is_told(device: Any, hint: str) -> None:
    with pytest.raises(ValidationError) as raised:
        config(device=device)
    [error] = raised.value.errors()
    assert error["ctx"]["hint"] == hint
    for unknown in ("cuda:00000", "cuda:", "gpu", "sim:", "CPU"):
        with pytest.raises(ValidationError):
            config(device=unknown)


def test_variables_that_hold_secrets_are_named_without_resolving_a_model() -> None:
    models = {"A": {"base": "X", "api_key_env": "KEY"}, "B": {"base": "X", "api_key_env": None}}
    found = config(models=models, notify={"to": ["CHAT", "MAIL"]})
    assert found.secrets == ["KEY", "CHAT", "MAIL"]
    assert config().secrets == []


def test_arms_mean_what_they_say_and_branches_are_of_no_other_run() -> None:
    at = InterventionSettings(at=4, network=["draw"])
    arms = {"swap": [{"at": 1, "text": "a"}], branch_name("baseline", [at]): [at.model_dump()]}
    found = config(arms=arms)
    assert found.arms_of_all == ["swap"]
    assert config().arms_of_all == ["baseline"]
    assert found.interventions["swap"] == (InterventionSettings(at=1, text="a").intervention,)
    assert config().interventions == {}


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_no_number_is_without_an_end(number: float) -> None:
    for changes in ({"timeout_s": number}, {"prices": {"m": {"input": number}}}, {"memory_fraction": number},
                    {"snapshot": {"to": "x", "every_s": number}}):  # fmt: skip
        with pytest.raises(ValidationError, match="finite"):
            config(**changes)
