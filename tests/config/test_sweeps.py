"""Sweeps: known values, names that stay, mistakes with their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from panic.config import load
from panic.config.prompt_origins import MistakesError
from panic.config.sweeps import combinations, first_sweep, form_of, name_of, values_of
from panic.errors import ConfigError

CONFIG = """\
name: demo
networks: [[quick, tell], [slow, tell]]
models:
  quick: {base: PocketDiffusion, steps: {values: [1, 2, 4]}}
  slow: {base: PocketDiffusion, steps: 9}
  tell: {base: PocketCaptioner}
prompts: [a]
seeds: [-1]
max_length: 2
batch_sizes: {quick: 3, tell: 2}
"""


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ({"values": [1, "a", None, [2]]}, [1, "a", None, [2]]),
        ({"from": 0, "to": 7, "n": 4, "scale": "log"}, [0, 1, 3, 7]),
        ({"from": 1, "to": 1000, "n": 4, "scale": "log"}, [1, 10, 100, 1000]),
        ({"from": 0, "to": 1, "n": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 1, "to": 10, "n": 4}, [1, 4, 7, 10]),
        ({"from": 1, "to": 100, "n": 5, "scale": "log", "whole": True}, [1, 3, 10, 32, 100]),
        ({"from": 1, "to": 2, "n": 9, "whole": True}, [1, 2]),
        ({"from": 3, "to": 5, "n": 1}, [3]),
        ({"from": 2, "to": 2, "n": 3}, [2]),
        ({"from": 1e-100, "to": 1e100, "n": 3, "scale": "log"}, [1e-100, 1, 1e100]),
    ],
)
def test_known_values(sweep: dict[str, Any], expected: list[Any]) -> None:
    found = values_of(sweep)
    assert found == expected
    assert [type(value) for value in found] == [type(int(v) if v in (0, 1) else v) for v in expected]


def test_drawn_values_are_within_and_the_first_ones_stay() -> None:
    few, many = (values_of({"random": "uniform", "low": -1, "high": 2, "n": n, "seed": 3}) for n in (5, 50))
    assert many[:5] == few
    assert len(set(many)) == 50
    assert all(-1 <= value <= 2 for value in many)
    assert sum(many) / 50 == pytest.approx(0.5, abs=0.4)
    assert values_of({"random": "uniform", "low": -1, "high": 2, "n": 5, "seed": 4}) != few
    logs = values_of({"random": "log", "low": 1e-6, "high": 1, "n": 200})
    assert 0.35 < sum(value < 1e-3 for value in logs) / 200 < 0.65


def test_what_is_no_sweep() -> None:
    for value in (
        [1, 2],
        {"a": 1},
        {"values": [1], "more": 2},
        {"from": "a text"},
        {"random": True},
        3,
        None,
        {},
    ):
        assert form_of(value) is None


def test_names_say_values_or_have_a_digest() -> None:
    assert [name_of(v) for v in (2, 0.5, 1e-7, True, None, "abc")] == [
        "2",
        "0.5",
        "1e-07",
        "true",
        "none",
        "abc",
    ]
    long = name_of("a cat, with a very long tail")
    assert long.startswith("a-cat-with-a-ver-")
    assert long != name_of("a cat, with a very long tale")
    assert "/" not in name_of("../../x")
    assert name_of(0.1234567) != name_of(0.12345678)


def test_a_variant_with_a_sweep_becomes_variants_wherever_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(CONFIG)
    config = load(path)
    names = ["quick-steps=1", "quick-steps=2", "quick-steps=4"]
    assert list(config.models) == [*names, "slow", "tell"]
    assert config.networks == [*([name, "tell"] for name in names), ["slow", "tell"]]
    assert config.batch_sizes == {**dict.fromkeys(names, 3), "tell": 2}
    assert [config.models[name].parameters["steps"] for name in names] == [1, 2, 4]
    more = load(path, ["models.quick.steps.values.3=8", "models.slow.steps={values: [8, 9]}"])
    assert set(config.models) - {"slow"} < set(more.models)
    assert more.networks[:3] == config.networks[:3]
    assert [network[0] for network in more.networks[3:]] == ["quick-steps=8", "slow-steps=8", "slow-steps=9"]


def test_an_embedding_model_with_a_sweep_becomes_several(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    look = "models:\n  look: {base: synthetic/state-embedding, states: {values: [2, 3]}}"
    path.write_text(CONFIG.replace("models:", look) + "embeddings: [PocketText, look]\n")
    assert load(path).embeddings == ["PocketText", "look-states=2", "look-states=3"]


def test_sweeps_of_one_network_are_combined(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    text = CONFIG.replace("tell: {base: PocketCaptioner}", "tell: {base: PocketCaptioner, rows: grid.csv}")
    path.write_text(text.replace("batch_sizes", "embeddings: [PocketText]\nbatch_sizes"))
    (tmp_path / "grid.csv").write_text("temperature, beams\n0.5,1\n1,2\n\n")
    config = load(path)
    rows = ["tell-temperature=0.5-beams=1", "tell-temperature=1-beams=2"]
    assert config.networks[:2] == [["quick-steps=1", row] for row in rows]
    assert len(config.networks) == 8
    assert config.models[rows[1]].parameters == {"temperature": 1, "beams": 2}
    assert config.embeddings == ["PocketText"]


def test_sweeps_lie_at_any_depth_and_are_named_apart() -> None:
    raw = {"a": {"x": {"values": [1, 2]}}, "b": {"x": {"values": ["p"]}}, "c": [{"values": [3]}]}
    found = combinations(raw, Path())
    assert [one.suffix for one in found] == ["a.x=1-b.x=p", "a.x=2-b.x=p"]
    assert found[1].values == {"a": {"x": 2}, "b": {"x": "p"}, "c": [{"values": [3]}]}
    assert [one.suffix for one in combinations({"a": 1}, Path())] == [""]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("{values: []}", "demo.yaml:4:50: values must be a list of values to try"),
        ("{values: 5}", "values must be a list of values to try"),
        ("{values: [1, 2, 1]}", "the same value as values.0"),
        ("{from: 1, to: 3}", "this sweep has no 'n'"),
        ("{from: 1, to: 3, n: 2, step: 1}", "this sweep has no use for 'step'"),
        ("{from: 3, to: 1, n: 2}", "to must be at least from"),
        ("{from: a, to: 1, n: 2}", "from must be a number from -1e+100 to 1e+100"),
        ("{from: -1.0e+308, to: 1.0e+308, n: 3, whole: true}", "from must be a number"),
        ("{from: 1" + "0" * 400 + ", to: 1.5, n: 3}", "from must be a number"),
        ("{from: -1, to: 1, n: 2, scale: log}", "a logarithmic scale begins at 0 or above"),
        ("{from: 1, to: 3, n: 2, scale: lag}", "did you mean 'log'?"),
        ("{from: 1, to: 3, n: 0}", "n must be a whole number from 1 to 1,000"),
        ("{random: uniform, low: 0, high: 1, n: 2000000000}", "n must be a whole number from 1 to 1,000"),
        ("{random: norm, low: 0, high: 1, n: 2}", "random is not one of the allowed values"),
        ("{random: uniform, low: 0, high: 1, n: 2, seed: x}", "seed must be a whole number"),
        ("{values: [1, 2]}, rows: none.csv", "none.csv cannot be read"),
        ("1, rows: empty.csv", "needs a first line"),
        ("{random: uniform, low: 0, high: 1, n: 2, seed: -1}", "not below 0"),
        ("{values: [1, 2]}, rows: steps.csv", "two sweeps say what 'steps' is"),
        ("1, rows: within.csv", "two sweeps say what 'a' is"),
        ("1, rows: twice.csv", "needs a first line of different names"),
        ("1, rows: odd.csv", "row 3 has not as many values"),
    ],
)
def test_mistakes_have_their_places(tmp_path: Path, change: str, said: str) -> None:
    (tmp_path / "empty.csv").write_text("\n")
    (tmp_path / "steps.csv").write_text("steps\n1\n")
    (tmp_path / "within.csv").write_text("a,a.b\n1,2\n")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    (tmp_path / "odd.csv").write_text("steps\n1\n2,3\n")
    path = tmp_path / "demo.yaml"
    path.write_text(CONFIG.replace("{values: [1, 2, 4]}", change))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert said in raised.value.message
    assert "demo.yaml:4:" in raised.value.message


def test_a_mistake_elsewhere_keeps_its_place(tmp_path: Path) -> None:
    """Networks behind those that a sweep multiplies have other numbers than in the file."""
    path = tmp_path / "demo.yaml"
    path.write_text(CONFIG.replace("[slow, tell]", "[slow, 3]"))
    with pytest.raises(ConfigError, match=r"demo\.yaml:2:34: networks\.3\.1 must be a text"):
        load(path)


def test_a_mistake_in_a_variant_of_a_sweep_is_shown_where_the_sweep_stands(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    text = CONFIG.replace("PocketDiffusion, steps: {values", "PocketDiffusion, revision: [1], steps: {values")
    path.write_text(text.replace("quick: 3", "quick: 0"))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert "demo.yaml:4:44: models.quick-steps=1.revision must be " in raised.value.message
    assert "demo.yaml:10:22: batch_sizes.quick-steps=4 must be at least 1" in raised.value.message


def test_a_cell_that_is_no_yaml_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text("prompt,steps\n@home,1\n*x,2\n")
    found = combinations({"rows": "grid.csv"}, tmp_path)
    assert [one.values for one in found] == [{"prompt": "@home", "steps": 1}, {"prompt": "*x", "steps": 2}]


def test_no_variant_varies_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(CONFIG.replace("base: PocketCaptioner", "base: quick"))
    with pytest.raises(ConfigError, match="'quick' is a sweep, and no model to vary"):
        load(path)


def test_too_many_combinations_are_refused() -> None:
    raw = {name: {"from": 0, "to": 1, "n": 100} for name in "abc"}
    with pytest.raises(MistakesError) as raised:
        combinations(raw, Path())
    assert "1,000,000 combinations" in raised.value.problems[0].message


def test_rows_set_parameters_of_parts_that_the_config_does_not_have(tmp_path: Path) -> None:
    """They were dropped without a word, so that all rows were the same."""
    (tmp_path / "grid.csv").write_text("optimizer.lr,steps\n0.1,2\n0.2,3\n")
    found = combinations({"rows": "grid.csv", "name": "x"}, tmp_path)
    assert [one.suffix for one in found] == ["optimizer.lr=0.1-steps=2", "optimizer.lr=0.2-steps=3"]
    assert found[1].values == {"name": "x", "optimizer": {"lr": 0.2}, "steps": 3}


def test_a_variant_of_a_sweep_takes_no_others_name(tmp_path: Path) -> None:
    """One of the two went without a word."""
    path = tmp_path / "c.yaml"
    path.write_text(
        CONFIG.replace("  slow:", '  "quick-steps=2": {base: PocketDiffusion, steps: 7}\n  slow:')
    )
    with pytest.raises(ConfigError, match="so is another model called"):
        load(path)


def test_drawn_values_stay_the_same_over_versions() -> None:
    """Variants and trials are called by them."""
    drawn = {"random": "uniform", "low": 0, "high": 1, "n": 3}
    assert values_of(drawn) == values_of(drawn | {"seed": 0}) == [0.844422, 0.757954, 0.420572]
    assert values_of(drawn | {"random": "log", "low": 1, "high": 1e3}) == [341.402, 187.872, 18.269]
    assert values_of(drawn | {"high": 100, "whole": True}) == [84, 76, 42]


def test_a_sweep_has_a_thousand_values_at_most() -> None:
    numbers = list(range(1_000))
    assert values_of({"values": numbers}) == numbers
    assert len(values_of({"from": 0, "to": 1, "n": 1_000})) == 1_000
    for sweep in ({"values": [*numbers, -1]}, {"from": 0, "to": 1, "n": 1_001}):
        with pytest.raises(MistakesError) as raised:
            values_of(sweep, ("a",))
        [problem] = raised.value.problems
        assert "1,000" in problem.message
        assert problem.path == ("a", "values" if "values" in sweep else "n")


@pytest.mark.parametrize(
    ("key", "value"),
    [("n", True), ("n", 2.0), ("n", "2"), ("whole", 1), ("whole", None), ("scale", None), ("to", True)],
)
def test_a_setting_of_another_type_is_told_at_its_place(key: str, value: Any) -> None:
    with pytest.raises(MistakesError) as raised:
        values_of({"from": 0, "to": 1, "n": 2, key: value}, ("a",))
    [problem] = raised.value.problems
    assert problem.path == ("a", key)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("x" * 24, "x" * 24),
        ("x" * 25, "xxxxxxxxxxxxxxxx-e5e261"),
        ("a/b", "a-b-c256b7"),
        (" ", "-730d16"),
        (False, "false"),
        (1e20, "1e+20"),
        (123456789, "123456789"),
        (1234567.0, "1234567.0"),
        ([1, "a"], "1-a-99258d"),
    ],
)
def test_names_of_values_stay_the_same_over_versions(value: Any, name: str) -> None:
    """Stores and other sweeps know variants by them."""
    assert name_of(value) == name


def test_ten_thousand_combinations_are_the_most() -> None:
    hundred = {"from": 0, "to": 1, "n": 100}
    assert len(combinations({"a": hundred, "b": hundred}, Path())) == 10_000
    with pytest.raises(MistakesError) as raised:
        combinations({"a": hundred, "b": hundred | {"n": 101}}, Path(), ("m",))
    [problem] = raised.value.problems
    assert problem.message.startswith("these sweeps have 10,100 combinations, and 10,000 is the most")
    assert problem.path == ("m",)


def test_a_network_of_too_many_combinations_stays_as_it_is(tmp_path: Path) -> None:
    """Its names are unknown then, which is told with the models."""
    path = tmp_path / "demo.yaml"
    rest = "prompts: [a]\nseeds: [-1]\nmax_length: 2\n"
    swept = "\n".join(f"  m{place}: {{base: X, size: {{from: 1, to: 22, n: 22}}}}" for place in range(3))
    path.write_text(f"name: a\nnetworks: [[m0, m1, m2], [m0]]\nmodels:\n{swept}\n{rest}")
    assert load(path).networks[:2] == [["m0", "m1", "m2"], ["m0-size=1"]]
    assert len(load(path).networks) == 1 + 22


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ({"a": 1}, None),
        ({"values": [1]}, None),
        ({"a": {"b": {"values": [1]}}, "c": {"values": [1]}}, ("a", "b")),
        ({"a": {"values": [1]}, "rows": "x.csv"}, ("rows",)),
    ],
)
def test_where_a_mapping_has_a_sweep_first(raw: dict[str, Any], place: Any) -> None:
    assert first_sweep(raw) == place


def test_cells_are_read_as_yaml_reads_single_values(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text('a,b,c,d\n\n true , ,"[1, 2]",1e-3\n')
    for rows in ("grid.csv", {"file": "grid.csv"}, str(tmp_path / "grid.csv")):
        [found] = combinations({"rows": rows}, tmp_path)
        assert found.values == {"a": True, "b": None, "c": "[1, 2]", "d": 0.001}
        assert found.suffix == "a=true-b=none-c=1-2-ba9d3c-d=0.001"


@pytest.mark.parametrize(
    "rows", [3, None, "a\0b", {"file": 3}, {"file": "grid.csv", "more": 1}, ["grid.csv"]]
)
def test_what_is_no_file_of_rows_is_told(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(MistakesError) as raised:
        combinations({"rows": rows}, tmp_path)
    [problem] = raised.value.problems
    assert (problem.path, problem.message) == (("rows",), "rows must be the name of a CSV file")


@pytest.mark.parametrize("head", ["a,b.", ".a,b", "a..b,c", "a,", ","])
def test_a_column_of_rows_without_a_name_is_told(tmp_path: Path, head: str) -> None:
    (tmp_path / "grid.csv").write_text(f"{head}\n1,2\n")
    with pytest.raises(MistakesError) as raised:
        combinations({"rows": "grid.csv"}, tmp_path)
    assert "needs a first line of different names" in raised.value.problems[0].message


def test_equal_rows_are_one(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text("a,b\n1,2\n1,2\n2,1\n")
    assert [one.suffix for one in combinations({"rows": "grid.csv"}, tmp_path)] == ["a=1-b=2", "a=2-b=1"]


def test_numbers_of_six_digits_stand_for_what_is_drawn_and_large_whole_ones_are_floats() -> None:
    found = values_of({"from": 0, "to": 1, "n": 4})
    assert found == [0, 0.333333, 0.666667, 1]
    for number, kind in ((999999e9, int), (1e15, float), (-999999e9, int), (-1e15, float), (0.5, float)):
        [value] = values_of({"from": number, "to": number, "n": 1})
        assert (value, type(value)) == (number, kind)
    assert values_of({"from": 0.5, "to": 2.5, "n": 3, "whole": True}) == [0, 2], "halves go to even numbers"


@pytest.mark.parametrize(
    ("bounds", "key"),
    [
        ({"from": 1e100, "to": 1.1e100}, "to"),
        ({"from": -1.1e100, "to": 1}, "from"),
        ({"from": 2, "to": 1}, "to"),
        ({"from": -1e-9, "to": 1, "scale": "log"}, "from"),
        ({"from": None, "to": 1}, "from"),
    ],
)
def test_a_bound_that_is_none_is_told_at_its_key(bounds: dict[str, Any], key: str) -> None:
    assert len(values_of({"from": -1e100, "to": 1e100, "n": 2})) == 2
    assert values_of({"from": 0, "to": 0, "n": 2, "scale": "log"}) == [0]
    with pytest.raises(MistakesError) as raised:
        values_of(bounds | {"n": 2}, ("a", 0))
    [problem] = raised.value.problems
    assert problem.path == ("a", 0, key)
    other = {"low" if name == "from" else "high" if name == "to" else name: v for name, v in bounds.items()}
    kind = "log" if other.pop("scale", "") else "uniform"
    with pytest.raises(MistakesError) as raised:
        values_of({"random": kind, "n": 2, **other}, ("a",))
    assert raised.value.problems[0].path == ("a", {"from": "low", "to": "high"}[key])


def test_a_key_that_a_sweep_lacks_is_told_before_one_that_it_has_no_use_for() -> None:
    for sweep, path, said in (
        ({"from": 1, "n": 2}, ("a",), "has no 'to'"),
        ({"from": 1, "n": 2, "step": 1}, ("a", "step"), "has no 'to'"),
        (
            {"random": "log", "low": 1, "high": 2, "n": 1, "scale": "log"},
            ("a", "scale"),
            "no use for 'scale'",
        ),
    ):
        with pytest.raises(MistakesError) as raised:
            values_of(sweep, ("a",))
        [problem] = raised.value.problems
        assert problem.path == path
        assert problem.message == f"this sweep {said}" or problem.message.endswith(said)
        assert problem.hint.startswith("for example {values: [1, 2]}")


def test_five_variants_of_a_sweep_are_named_where_another_model_varies_it(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    text = CONFIG.replace("values: [1, 2, 4]", "values: [1, 2, 3, 4, 5, 6]")
    path.write_text(text.replace("base: PocketCaptioner", "base: quick"))
    with pytest.raises(ConfigError) as raised:
        load(path)
    names = ", ".join(f"quick-steps={number}" for number in range(1, 6))
    assert raised.value.message.endswith(f"its variants are {names}")


def test_sweeps_of_embeddings_and_batch_sizes_keep_the_places_of_all_others(tmp_path: Path) -> None:
    """What follows the entries that became several is shown where it stands in the file."""
    path = tmp_path / "demo.yaml"
    look = "models:\n  look: {base: synthetic/state-embedding, states: {values: [2, 3]}}"
    text = CONFIG.replace("models:", look).replace("tell: 2}", "tell: 0}")
    path.write_text(f"{text}embeddings: [look, PocketText, 7]\n")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert "demo.yaml:12:32: embeddings.3 must be a text" in raised.value.message
    assert "demo.yaml:11:31: batch_sizes.tell must be at least 1" in raised.value.message
    assert raised.value.message.startswith(f"{path} has 2 mistakes")
