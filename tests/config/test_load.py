"""Files and overrides become the same config whatever the format, and a resolved config reruns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panic.config import Distance, ExperimentConfig, contradictions, load, stored, to_yaml
from panic.errors import ConfigError

YAML = """name: demo
project: colours            # in log names
networks:
  - [PocketDiffusion, PocketCaptioner]
  - [quick, PocketCaptioner]
models:
  quick: {base: PocketDiffusion, steps: 2, guidance: 1e-1}
prompts:
  - a small red circle above a large blue square
seeds: [42, -1]
repeats: 4                  # of seed -1
max_length: 100
embeddings: [PocketText]
diagrams: {max_dimension: 2}
headroom: 1GiB
"""
TOML = """name = "demo"
project = "colours"
networks = [["PocketDiffusion", "PocketCaptioner"], ["quick", "PocketCaptioner"]]
prompts = ["a small red circle above a large blue square"]
seeds = [42, -1]
repeats = 4
max_length = 100
embeddings = ["PocketText"]
headroom = "1GiB"
[models.quick]
base = "PocketDiffusion"
steps = 2
guidance = 0.1
[diagrams]
max_dimension = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(YAML)
    return path


def test_yaml_json_and_toml_mean_the_same(file: Path) -> None:
    config = load(file)
    file.with_suffix(".toml").write_text(TOML)
    file.with_suffix(".json").write_text(json.dumps(config.model_dump(mode="json")))
    assert load(file.with_suffix(".toml")) == config
    assert load(file.with_suffix(".json")) == config
    assert config.models["quick"].parameters == {"steps": 2, "guidance": 0.1}
    assert config.headroom == 2**30


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("max_length=7", "max_length", 7),
        (" max_length = 7 ", "max_length", 7),
        ("networks.0.1=X", "networks", [["PocketDiffusion", "X"], ["quick", "PocketCaptioner"]]),
        ("networks.1=[A, B]", "networks", [["PocketDiffusion", "PocketCaptioner"], ["A", "B"]]),
        ("seeds.2=7", "seeds", [42, -1, 7]),
        ("networks.2.0=A", "networks", None),
        ("diagrams=null", "diagrams", []),
        ("batch_sizes.quick=4", "batch_sizes", {"quick": 4}),
        ("prompts.1='a: b = c'", "prompts", ["a small red circle above a large blue square", "a: b = c"]),
        ("headroom=2GiB", "headroom", 2**31),
        ("timeout_s=1e1", "timeout_s", 10.0),
    ],
)
def test_overrides(file: Path, override: str, field: str, value: Any) -> None:
    if override == "networks.2.0=A":  # indices that do not exist yet are made one level at a time
        config = load(file, ["networks.2=[]", override])
        assert config.networks[2] == ["A"]
    else:
        assert getattr(load(file, [override]), field) == value


def test_overrides_create_parts_and_later_ones_win(file: Path) -> None:
    config = load(
        file,
        [
            "diagrams=null",
            "diagrams.modality=image",
            "models.b.base=PocketDiffusion",
            "seeds=[1]",
            "seeds.0=-1",
        ],
    )
    assert [settings.modality for settings in config.diagrams] == ["image"]
    assert config.models["b"].base == "PocketDiffusion"
    assert config.seeds == [-1]


def test_an_override_below_the_end_of_a_list_appends_a_mapping(file: Path) -> None:
    config = load(file, ["distances=[wasserstein]", "distances.1.kind=bottleneck"])
    assert config.distances == [Distance(kind="wasserstein"), Distance(kind="bottleneck")]


def test_override_of_a_key_with_a_dot(file: Path) -> None:
    overrides = ["networks.0.0=FLUX.1-schnell", 'batch_sizes."FLUX.1-schnell"=4']
    assert load(file, overrides).batch_sizes == {"FLUX.1-schnell": 4}


def test_paths_refer_to_the_folder_of_the_config(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "p.txt").write_text("one\n\ntwo\n")
    monkeypatch.chdir("/")
    config = load(file, ["store=runs", "model_folder=mine", "prompts=[{file: p.txt}]"])
    assert config.base_folder == file.parent
    assert config.store == file.parent / "runs"
    assert config.model_folder == file.parent / "mine"
    assert config.prompts == ["one", "two"]
    assert load(file, ["base_folder=.."]).base_folder == file.parent / ".."


def test_paths_refer_to_the_base_folder_where_one_is_given(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    config = load(file, ["base_folder=below", "store=runs", "model_folder=mine"])
    below = file.parent / "below"
    assert (config.base_folder, config.store, config.model_folder) == (below, below / "runs", below / "mine")
    absolute = load(file, ["base_folder=/else", "store=/var/runs"])
    assert (absolute.base_folder, absolute.store) == (Path("/else"), Path("/var/runs"))


def test_a_tilde_is_the_home_of_the_user(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = file.parent / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    config = load(file, ["store=~/runs", "model_folder=~/mine"])
    assert (config.store, config.model_folder) == (home / "runs", home / "mine")
    assert config.base_folder == file.parent
    based = load(file, ["base_folder=~/lab", "store=runs"])
    assert (based.base_folder, based.store) == (home / "lab", home / "lab" / "runs")
    (home / "there.yaml").write_text(YAML)
    assert load("~/there.yaml").base_folder == home


def test_an_experiment_stays_the_same_when_its_folder_moves(file: Path) -> None:
    overrides = ["networks.0.0=local:weights/mine", "model_folder=mine"]
    moved = file.parent / "moved" / "demo.yaml"
    moved.parent.mkdir()
    moved.write_text(YAML)
    assert contradictions(load(moved, overrides), load(file, overrides)) == {}


def test_check_gets_the_overridden_mapping_with_absolute_folders(file: Path) -> None:
    seen: list[dict[str, Any]] = []

    def check(raw: dict[str, Any]) -> list[Any]:
        seen.append(raw)
        return []

    load(file, ["networks.0.1=X", "model_folder=mine"], check=check)
    assert seen[0]["networks"][0][1] == "X"
    assert seen[0]["model_folder"] == str(file.parent / "mine")
    assert seen[0]["base_folder"] == str(file.parent)


def test_resolved_config_reruns_from_anywhere(file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = load(file, ["store=runs", "threads=2", "batch_sizes.quick=4"])
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "again.yaml"
    elsewhere.write_text(to_yaml(config))
    assert load(elsewhere) == config


def test_resolved_config_is_good_to_read(file: Path) -> None:
    assert to_yaml(load(file)).startswith("""name: demo
project: colours
networks:
  - [PocketDiffusion, PocketCaptioner]
  - [quick, PocketCaptioner]
models:
  quick: {base: PocketDiffusion, steps: 2, guidance: 0.1}
prompts:
  - a small red circle above a large blue square
seeds: [42, -1]
repeats: 4
""")


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    str.strip
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(-1e9, 1e9)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
PARAMETERS = st.dictionaries(
    NAMES.filter(lambda key: key not in ("base", "revision", "dtype")), VALUES, max_size=3
)
CONFIGS = st.builds(
    lambda names, models, **fields: ExperimentConfig(
        networks=[names],
        models={name: {"base": "Base", **extra} for name, extra in models.items()},
        **fields,
    ),
    names=st.lists(NAMES, min_size=1, max_size=3),
    models=st.dictionaries(NAMES, PARAMETERS, max_size=3),
    name=NAMES,
    prompts=st.lists(TEXTS, min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 2**63 - 1), max_size=3, unique=True).map(lambda seeds: [-1, *seeds]),
    repeats=st.integers(1, 9),
    max_length=st.integers(1, 10**6),
    timeout_s=st.none() | st.floats(1e-6, 1e6),
    embeddings=st.lists(NAMES, min_size=1, max_size=2, unique=True),
    diagrams=st.none()
    | st.fixed_dictionaries({"max_dimension": st.integers(0, 2)})
    | st.lists(st.sampled_from([{}, {"max_dimension": 2}, {"metric": "cosine"}]), unique_by=str),
)


def test_settings_of_diagrams_rerun(tmp_path: Path) -> None:
    text = YAML.replace(
        "diagrams: {max_dimension: 2}",
        """\
diagrams: {threshold: 1, window: {dimension: 3}, landmarks: 9}
vectorisations: [entropy, {kind: image, range: [0, 2], bandwidth: 0.1}]
distances: [bottleneck, {kind: wasserstein, internal_p: inf}]""",
    )
    (tmp_path / "one.yaml").write_text(text)
    config = load(tmp_path / "one.yaml")
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert "- {kind: image, range: [0.0, 2.0], bandwidth: 0.1}" in to_yaml(config)
    assert load(tmp_path / "again.yaml") == config
    assert [v.kind for v in config.vectorisations] == ["entropy", "image"]
    assert config.diagrams[0].window is not None


@settings(deadline=None)
@given(CONFIGS)
def test_any_resolved_config_reruns(
    tmp_path_factory: pytest.TempPathFactory, config: ExperimentConfig
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(to_yaml(config), encoding="utf-8", newline="")
    again = load(file)
    assert again.model_copy(update={"base_folder": None}) == config
    assert ExperimentConfig.model_validate(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("panic", "torch numpy pydantic yaml polars"), ("panic.config", "torch numpy polars altair")],
)
def test_imports_are_light(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(sorted(set({heavy.split()}) & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["Store", "is_stuck", "load_config", "run"])
def test_public_names(name: str) -> None:
    import panic

    assert callable(getattr(panic, name))
    assert name in dir(panic)


def test_unknown_public_name() -> None:
    import panic

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = panic.nothing


def test_arms_and_labels_are_written_so_that_they_are_read_again(file: Path) -> None:
    labelled = "prompts:\n  - {text: 'red: a barn', tags: [barn, old], group: colour}\n  - plain"
    arms = (
        "arms:\n  baseline: []\n  swap: [{at: 20, text: a lighthouse}, {at: 21, every: 1e3, noise: 0.05}]\n"
    )
    file.write_text(
        YAML.replace("prompts:\n  - a small red circle above a large blue square", labelled) + arms
    )
    config = load(file)
    assert config.prompts == ["red: a barn", "plain"]
    assert (config.labels["red: a barn"].tags, config.labels["red: a barn"].group) == (
        ["barn", "old"],
        "colour",
    )
    assert config.arms["swap"][1].every == 1000
    text = to_yaml(config)
    assert "  - {text: 'red: a barn', tags: [barn, old], group: colour}\n  - plain\n" in text
    assert "  swap:\n    - {at: 20, text: a lighthouse}\n    - {at: 21, every: 1000, noise: 0.05}\n" in text
    file.write_text(text)
    assert load(file) == config


def test_what_is_written_says_what_was_said_and_no_more(file: Path) -> None:
    overrides = ["prompts.1={text: b, tags: [x]}", "prompts.2={text: c, group: g}", "tags=[]", "label=one"]
    more = ["distances=[bottleneck]", "batch_sizes.quick=4", "models.plain.base=PocketDiffusion"]
    text = to_yaml(load(file, overrides + more))
    assert "  - {text: b, tags: [x]}\n  - {text: c, group: g}\n" in text
    assert "\ntags:" not in text
    assert "\nlabels:" not in text
    assert "\nlabel: one\n" in text
    assert "  plain: {base: PocketDiffusion}\n" in text
    assert "\nbatch_sizes: {quick: 4}\n" in text
    assert "\ndistances:\n  - {kind: bottleneck}\n" in text
    assert (
        "\ndiagrams:\n  - {max_dimension: 2, metric: euclidean, modality: text, generators: false}\n" in text
    )
    assert "\ntags:\n  - a\n" in to_yaml(load(file, ["tags=[a]"]))
    long = "word " * 200
    assert f"  - {long.strip()}\n" in to_yaml(load(file, [f"prompts=['{long.strip()}']"]))


def test_a_key_has_fifty_parts_at_most(file: Path) -> None:
    deep = ".".join(["a"] * 49)
    with pytest.raises(ConfigError, match="a key has at most 50 parts"):
        load(file, [f"models.quick.{deep}=1"])
    with pytest.raises(ConfigError) as raised:
        load(file, [f"models.{deep}=1"])
    assert "at most 50 parts" not in raised.value.message


def test_a_path_that_is_none_is_told_by_the_schema(file: Path) -> None:
    for key in ("store", "model_folder", "base_folder"):
        with pytest.raises(ConfigError, match=f"{key} must be a path"):
            load(file, [f"{key}=3"])
    assert load(file, ["snapshot.to=copies"]).snapshot.to == file.parent / "copies"  # type: ignore[union-attr]
    assert load(file, ["snapshot={to: ~/x, every_s: 5}"]).snapshot.to == Path("~/x").expanduser()  # type: ignore[union-attr]


def test_an_experiment_cannot_begin_with_itself(file: Path) -> None:
    with pytest.raises(ConfigError, match="an experiment cannot begin with its own outputs") as raised:
        load(file, ["prompts=[a, {experiment: demo}]"])
    assert "^" in raised.value.message
    with pytest.raises(ConfigError, match="an experiment cannot begin with its own outputs"):
        load(file, ["prompts={experiment: demo}"])


def test_a_stored_config_of_another_version_is_told_with_all_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match="the stored config of old is not one of this version: ") as raised:
        stored({"name": "old", "seeds": "x"}, "old")
    assert "the key 'networks' is missing" in raised.value.message
    assert "seeds must be a list" in raised.value.message
    assert raised.value.hint == "perform it from its config file, or with the version that stored it"


def test_texts_are_written_in_their_own_letters(file: Path) -> None:
    text = to_yaml(load(file, ["prompts=['größe 名前']", "label='é'"]))
    assert "  - größe 名前\n" in text
    assert "label: é\n" in text
