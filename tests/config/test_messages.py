"""What a user reads when a config has mistakes. Each file in `mistakes/` has its message beside it.

After a change that is meant: `UPDATE_SNAPSHOTS=1 pytest tests/config/test_messages.py`, and read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from panic import load_config
from panic.config import Problem, load
from panic.config.problems import Document, Source, render
from panic.engine.plan import check_config
from panic.errors import ConfigError

FOLDER = Path(__file__).parent / "mistakes"
CASES = sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".txt")
GOOD = """name: demo
networks:
  - [PocketDiffusion, PocketCaptioner]
models: {quick: {base: PocketDiffusion, steps: 2}}
prompts: [a small red circle]
seeds: [42]
max_length: 100
"""


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD)
    return "good.yaml"


def message(path: str | Path, *overrides: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_message_of_a_wrong_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    text = message(name).replace(str(FOLDER), "FOLDER") + "\n"
    snapshot = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.write_text(text, encoding="utf-8")
    assert text == snapshot.read_text(encoding="utf-8")


def test_missing_file_names_the_nearest(good: str) -> None:
    assert message("god.yaml") == "god.yaml: no such file\ndid you mean good.yaml?"
    assert message("x.json") == "x.json: no such file\nconfigs in .: good.yaml"
    assert message("no/x.json") == "no/x.json: no such file\nthere is no folder no"
    assert message("goood") == "goood: no such file\ndid you mean good.yaml?"
    Path("configs").mkdir()
    for name in ("demo", "walk", *(f"other{number}" for number in range(10))):
        Path(f"configs/{name}.yaml").touch()
    assert message("dmeo.yaml") == "dmeo.yaml: no such file\ndid you mean configs/demo.yaml?"
    told = message("x.json")
    assert told.startswith("x.json: no such file\nconfigs in .: configs/demo.yaml, configs/other0.yaml, ")
    assert told.endswith("configs/other8.yaml and 3 more")


def test_where_there_are_no_configs_the_message_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says to save loads, checked against the known models."""
    monkeypatch.chdir(tmp_path)
    told = message("x.yaml")
    assert "there are no configs in .; to begin, save this as demo.yaml" in told
    Path("demo.yaml").write_text(told.split("\n\n", 1)[1])
    assert load_config("demo.yaml").seeds == [42, -1]


def test_folder_and_foreign_suffix(good: str) -> None:
    Path("folder.yaml").mkdir()
    Path("folder.yaml/inside.yaml").touch()
    assert message("folder.yaml") == (
        "folder.yaml: is a folder, not a config file\nconfigs in folder.yaml: inside.yaml"
    )
    Path("good.txt").touch()
    assert message("good.txt") == "good.txt: a config ends in .yaml, .yml, .json, .toml"
    assert message(".").startswith(".: is a folder, not a config file\nconfigs in .: ")


def test_unreadable_file(good: str) -> None:
    Path("loop.yaml").symlink_to("loop.yaml")
    assert message("loop.yaml") == "loop.yaml: cannot be read: Too many levels of symbolic links"
    if os.geteuid() != 0:  # root reads everything
        Path(good).chmod(0)
        assert message(good) == "good.yaml: cannot be read: Permission denied"


def test_file_that_is_no_utf8(good: str) -> None:
    Path("latin.yaml").write_bytes("name: demo\nprompts: [ein grüner Kreis]\n".encode("latin-1"))
    assert message("latin.yaml") == "latin.yaml:2:17: byte 0xfc is not UTF-8\nsave the file as UTF-8"
    Path("wide.yaml").write_bytes("name: demo".encode("utf-16"))
    assert message("wide.yaml") == "wide.yaml:1:1: this is UTF-16\nsave the file as UTF-8"


def test_empty_file(good: str) -> None:
    for name in ("empty.yaml", "empty.json", "empty.toml"):
        Path(name).write_text(" \n")
        assert message(name).startswith(f"{name}: is empty\n")


def test_override_mistakes_show_the_override(good: str) -> None:
    assert (
        message(good, "max_length=0", "networks.5.1=x", "name.x=3", "seeds.0=a b", "nam=x")
        == """good.yaml has 5 mistakes

override 'max_length=0': max_length must be at least 1
   | max_length=0
   |            ^
    found the whole number 0

override 'networks.5.1=x': '5' is no index of networks
   | networks.5.1=x
   |          ^
    0 to 0 exist, 1 appends

override 'name.x=3': name is the text 'demo' and has no part 'x'
   | name.x=3
   |      ^

override 'seeds.0=a b': seeds.0 must be a whole number
   | seeds.0=a b
   |         ^^^
    found the text 'a b'

override 'nam=x': unknown key 'nam'
   | nam=x
   | ^^^
    did you mean 'name'?"""
    )


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seeds.2=7", "'2' is no index of seeds"),
        ("seeds.-1=7", "'-1' is no index of seeds"),
        ("seeds.x=7", "'x' is no index of seeds"),
        (f"seeds.{'9' * 5000}=7", "9' is no index of seeds"),
        ("networks.0.3=X", "'3' is no index of networks.0"),
    ],
)
def test_an_index_appends_at_the_end_and_not_beyond(good: str, override: str, told: str) -> None:
    name, num = ("seeds", 1) if override.startswith("seeds") else ("networks.0", 2)
    assert told in message(good, override)
    assert f"0 to {num - 1} exist, {num} appends" in message(good, override)
    assert name in told


@pytest.mark.parametrize("override", ["=5", "", ".=5", "a..b=5", "a b=5"])
def test_an_override_without_a_key_is_none(good: str, override: str) -> None:
    assert f"override {override!r}: an override is KEY.KEY=VALUE" in message(good, override)


def test_mistakes_inside_the_value_of_an_override_are_told(good: str) -> None:
    assert (
        message(good, "models.quick={base: Quick, steps: 2, steps: 3}")
        == """override 'models.quick={base: Quick, steps: 2, steps: 3}': the key 'steps' is given twice
   | models.quick={base: Quick, steps: 2, steps: 3}
   |                                      ^^^^^"""
    )


def test_a_misspelt_key_below_an_index_is_told_with_its_own_names(good: str) -> None:
    told = message(good, "embeddings=[E]", "diagrams=[{metric: cosine}, {window: {dimension: 2, dely: 2}}]")
    assert "unknown key 'dely' in diagrams.1.window" in told
    assert "allowed: dimension, delay" in told


def test_the_caret_of_a_missing_part_is_under_the_last_part_of_the_key(good: str) -> None:
    def check(raw: dict[str, Any]) -> list[Problem]:
        return [Problem(("models", "quick", "steps"), "steps are needed", on_key=True)]

    assert message(good, "models.quick.steps=3", check=check).splitlines()[-1] == "   |              ^^^^^"


def test_override_that_is_none(good: str) -> None:
    assert (
        message(good, "max_length", "prompts=[a")
        == """good.yaml has 2 mistakes

override 'max_length': an override is KEY.KEY=VALUE
   | max_length
   |           ^
    for example max_length=10

override 'prompts=[a': not valid YAML: a ',' or a closing bracket is missing in the list
   | prompts=[a
   |           ^"""
    )


def test_problems_of_the_models_are_told_together_with_the_others(good: str) -> None:
    def check(raw: dict[str, Any]) -> list[Problem]:
        name = raw["networks"][0][1]
        return [
            Problem(("networks", 0, 1), f"there is no model {name}", name, ("PocketCaptioner", "BLIP")),
            Problem(("models", "quick", "steps"), "steps must be even", hint="say 4"),
            Problem(("models", "quick", "stops"), "unknown parameter", on_key=True),
            Problem(("max_length",), "a second problem of one value is left out"),
        ]

    assert (
        message(good, "networks.0.1=PocketCaptoner", "max_length=0", check=check)
        == """good.yaml has 4 mistakes

good.yaml:4:10: unknown parameter
  4 | models: {quick: {base: PocketDiffusion, steps: 2}}
    |          ^^^^^

good.yaml:4:48: steps must be even
  4 | models: {quick: {base: PocketDiffusion, steps: 2}}
    |                                                ^
    say 4

override 'networks.0.1=PocketCaptoner': there is no model PocketCaptoner
   | networks.0.1=PocketCaptoner
   |              ^^^^^^^^^^^^^^
    found the text 'PocketCaptoner'
    did you mean 'PocketCaptioner'?
    allowed: PocketCaptioner, BLIP

override 'max_length=0': max_length must be at least 1
   | max_length=0
   |            ^
    found the whole number 0"""
    )


def test_places_in_what_an_override_replaced_are_the_overrides(good: str) -> None:
    def check(raw: dict[str, Any]) -> list[Problem]:
        return [Problem(("models", "quick", "steps"), "steps are needed")]

    assert (
        message(good, "models.quick={base: X}", check=check)
        == """override 'models.quick={base: X}': steps are needed
   | models.quick={base: X}
   |        ^^^^^"""
    )


def test_long_lines_are_cut_around_the_caret(good: str) -> None:
    Path("long.json").write_text('{"name": "%s", "max_length": 0}' % ("x" * 500))
    line, caret = next(
        (text.splitlines()[1], text.splitlines()[2])
        for text in message("long.json").split("\n\n")
        if "max_length must" in text
    )
    assert line.endswith('", "max_length": 0}')
    assert line[caret.index("^")] == "0"
    assert len(line) < 110


def test_carets_fit_under_wide_characters(good: str) -> None:
    Path("wide.yaml").write_text("{名前: 3}\n", encoding="utf-8")
    assert "  1 | {名前: 3}\n    |  ^^^^" in message("wide.yaml")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("repeats=3000000000", "repeats must be at most 2147483647"),
        ("max_length=99999999999999999999", "max_length must be at most"),
        ("batch_sizes={draw: 2000000000}", "batch_sizes.draw must be at most 65536"),
        ("threads=1000000", "threads must be at most 1024"),
        ("workers=1000000", "workers must be at most 1024"),
        ("name=latest", "name cannot be 'latest'"),
        ('prompts=["a\\0"]', "must not contain the character NUL"),
        ('prompts=[{file: "a\\0.txt"}]', "must not contain the character NUL"),
        ('models.m={base: X, extra: {"\\uD800": 1}}', "models.m.extra.\ud800 must be a text that can be"),
        ('models.m={base: X, stop: ["a\\uD800"]}', "models.m.stop.0 must be a text that can be"),
        ('models={"\\uD800": {base: X}}', "a variant's name must be a text that can be written as UTF-8"),
        (f"prompts={'[' * 5000}", "nested more than 50 deep"),
        (f"prompts={'[' * 60}{']' * 60}", "nested more than 50 deep"),
    ],
    ids=lambda value: value[:30],
)
def test_extreme_values_are_told(good: str, override: str, told: str) -> None:
    assert told in message(good, override)


def test_too_many_runs_are_told_with_the_arithmetic(good: str) -> None:
    told = message(good, "seeds=[42, -1]", "repeats=20000000")
    assert "1 networks x 1 prompts x 20000001 seeds and repeats are 20000001 runs" in told


def test_of_many_allowed_names_the_first_are_told(good: str) -> None:
    def check(raw: dict[str, Any]) -> list[Problem]:
        names = [f"model {number}" for number in range(50)]
        return [Problem(("networks", 0, 1), "there is no such model", "zzz", names)]

    told = message(good, check=check)
    assert "model 31 and 18 more" in told
    assert "model 32" not in told


def test_anchors_that_name_billions_of_values_are_refused_at_once(good: str) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    Path("laughs.yaml").write_text("\n".join(lines))
    assert "with its anchors put in, this has 1.23e+12 values" in message("laughs.yaml")
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    Path("laughs.yaml").write_text("\n".join(lines))
    assert "values" in message("laughs.yaml")


@pytest.mark.parametrize("merged", ["a text", "[1, 2]", "[{x: 1}, y]"])
def test_a_merge_of_what_is_no_mapping_is_told(tmp_path: Path, merged: str) -> None:
    (tmp_path / "a.yaml").write_text(f"name: a\n<<: {merged}\n")
    with pytest.raises(ConfigError, match="only mappings can be merged by <<"):
        load_config(tmp_path / "a.yaml")


ADDRESS = "mailtos://me:hunter22@host"


@pytest.mark.parametrize(
    "lines",
    [
        f"notify: {{to: ['{ADDRESS}'], on: [nothing]}}",
        f"notify: '{ADDRESS}'",
        f"notify:\n  to: {ADDRESS}",
        f"notify:\n  to:\n  - {ADDRESS}",
    ],
)
def test_an_address_in_place_of_a_variable_is_not_shown(good: str, lines: str) -> None:
    """Messages go into logs; the line and what was found in it stood in them."""
    Path(good).write_text(f"{GOOD}{lines}\n")
    text = message(good)
    assert "hunter22" not in text
    assert "***" in text


def test_without_a_place_only_secrets_are_left_out() -> None:
    document = Document(source=Source(name="a config", text=""))
    shown = render([Problem(("seeds",), "seeds must be a list", found="one")], document)
    assert "found the text 'one'" in shown
    assert ADDRESS not in render([Problem(("notify",), "must be a mapping", found=ADDRESS)], document)


def test_a_key_in_place_of_a_variable_is_not_shown(good: str) -> None:
    talk = "talk: {base: 'openai:x', task: text-to-text, base_url: 'https://me:hunter22@host/v1',"
    Path(good).write_text(GOOD.replace("quick:", f"{talk} api_key_env: sk-hunter22}}, quick:"))
    with pytest.raises(ConfigError) as caught:
        check_config(good, ask=False)
    assert "api_key_env is the name of an environment variable" in str(caught.value)
    assert "base_url must not hold a name or password" in str(caught.value)
    assert "hunter22" not in str(caught.value)
    assert "hunter22" not in message(good, f"notify.to=['{ADDRESS}']")
