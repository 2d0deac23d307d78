"""Models in users' own files: found, built, and their mistakes told with file and line."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from panic.errors import ConfigError, ModelError, NotFound
from panic.models import registry
from panic.models.protocol import Modality, Model

SHOUT = """
import dataclasses

class Shout:
    modality_in = modality_out = "text"
    size_bytes = 0

    def __init__(self, marks: int = 1, word=None):
        self.marks = marks

    def load(self, device):
        self.device = device

    def invoke(self, inputs, seeds):
        return [text.upper() + "!" * self.marks for text in inputs]

class _Hidden(Shout): ...

class NoModel:
    pass

@dataclasses.dataclass
class Data:
    x: int = 0
"""


@pytest.fixture
def shout(tmp_path: Path) -> Path:
    file = tmp_path / "shout.py"
    file.write_text(SHOUT)
    return file


def test_a_class_in_a_file_is_a_model(shout: Path) -> None:
    name = f"python:{shout}:Shout"
    spec = registry.resolve(name)
    assert (spec.modalities_in, spec.modality_out) == ((Modality.TEXT,), Modality.TEXT)
    model = registry.build(pickle.loads(pickle.dumps(spec)))
    assert isinstance(model, Model)
    model.load("cpu")
    assert model.invoke(["hey"], [0]) == ["HEY!"]
    loud = registry.build(registry.resolve("loud", {"loud": {"base": name, "marks": 3}}))
    assert loud.invoke(["hey"], [0]) == ["HEY!!!"]


def test_a_folder_of_files_is_known_by_class_names(shout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shout.parent / "other.py").write_text("import json\nfrom pathlib import Path\n")
    names = [spec.name for spec in registry.known(shout.parent) if spec.adapter == "python"]
    assert names == ["Shout"]
    assert registry.resolve("Shout", {}, shout.parent).modality_out == Modality.TEXT
    monkeypatch.setenv("PANIC_MODELS", str(shout.parent))
    assert registry.build(registry.resolve("Shout")).invoke(["a"], [0]) == ["A!"]


def test_two_files_may_define_the_same_class(tmp_path: Path) -> None:
    for folder, mark in (("a", "!"), ("b", "?")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "shout.py").write_text(SHOUT.replace('"!"', f'"{mark}"'))
    said = [
        registry.build(registry.resolve(f"python:{tmp_path}/{folder}/shout.py:Shout")).invoke(["a"], [0])
        for folder in "ab"
    ]
    assert said == [["A!"], ["A?"]]
    assert "shout" not in sys.modules


NEIGHBOURS = {
    "own.py": """
import json, helpers.inner
import helpers.inner as inner
from utils import MARK
from helpers import *
from helpers import late

class Own:
    modality_in = modality_out = "text"
    size_bytes = 0
    def load(self, device): ...
    def invoke(self, inputs, seeds):
        import utils
        return ["".join([MARK, helpers.inner.MARK, inner.MARK, late.MARK, utils.MARK, STAR])]
    def bucket(self, item):
        import importlib
        return len(importlib.import_module("only" + item).__name__)
""",
    "json.py": "raise SystemExit('this is no library')",
    "helpers/__init__.py": "from utils import MARK as STAR\n__all__ = ['STAR']",
    "helpers/inner.py": "from utils import MARK",
    "helpers/late.py": "from .inner import MARK",
}


def test_what_lies_beside_a_file_is_its_own(tmp_path: Path) -> None:
    """The first of two users' utils.py was everybody's."""
    said = []
    for folder in "ab":
        for name, content in {**NEIGHBOURS, "utils.py": f"MARK = {folder!r}", f"only{folder}.py": ""}.items():
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        model = registry.build(registry.resolve(f"python:{tmp_path}/{folder}/own.py:Own"))
        assert model.bucket(folder) == len("only.")
        said.append(model)
    assert [model.invoke([""], [0]) for model in said] == [["a" * 6], ["b" * 6]]
    assert not {"utils", "helpers"} & set(sys.modules)


def test_a_changed_file_is_read_again(shout: Path) -> None:
    name = f"python:{shout}:Shout"
    assert registry.build(registry.resolve(name)).invoke(["a"], [0]) == ["A!"]
    shout.write_text(SHOUT.replace('"!"', '"..."'))
    assert registry.build(registry.resolve(name)).invoke(["a"], [0]) == ["A..."]


def test_names_used_twice_are_told(shout: Path) -> None:
    (shout.parent / "again.py").write_text(SHOUT)
    with pytest.raises(ModelError, match=r"two models are called Shout: in again\.py and in shout\.py"):
        registry.known(shout.parent)
    for file in (shout, shout.parent / "again.py"):
        file.write_text(SHOUT.replace("class Shout", "class BLIP2").replace("(Shout)", ""))
    (shout.parent / "again.py").unlink()
    shout.write_text(SHOUT.replace("Shout", "PocketText"))
    with pytest.raises(ModelError, match="the name PocketText is taken"):
        registry.known(shout.parent)


def test_wrong_parameters_are_told(shout: Path) -> None:
    with pytest.raises(ConfigError, match="has no parameter 'volume'"):
        registry.resolve("it", {"it": {"base": f"python:{shout}:Shout", "volume": 1}})
    shout.write_text(SHOUT.replace("marks: int = 1", "marks"))
    with pytest.raises(ConfigError, match="needs the parameter 'marks'"):
        registry.resolve(f"python:{shout}:Shout")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (("class NoModel:", "class NoModel"), ModelError, r"shout\.py:19: SyntaxError"),
        (("return [text", "return = [text"), ModelError, r"shout\.py:15: SyntaxError"),
        (("class NoModel:", "return 1\nclass NoModel:"), ModelError, r"shout\.py:19: SyntaxError: 'return'"),
        (
            ('modality_in = modality_out = "text"', ""),
            ModelError,
            r"shout\.py:4: Shout: modality_in .*class itself",
        ),
        (
            ('modality_in = modality_out = "text"', 'modality_in = modality_out = "txt"'),
            ModelError,
            "not 'txt'",
        ),
        (("def load", "def lode"), ModelError, r"shout\.py:4: Shout has no method load"),
        (("class Shout:", "class Shut:"), NotFound, "has no class Shout"),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_place(
    shout: Path, change: tuple[str, str], error: type[Exception], message: str
) -> None:
    shout.write_text(SHOUT.replace(*change).replace("class _Hidden(Shout): ...", ""))
    with pytest.raises(error, match=message):
        registry.resolve(f"python:{shout}:Shout")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("import dataclasses", "import dataclasses\n1/0"), r"shout\.py:3: ZeroDivisionError"),
        (("import dataclasses", "import no_such_package"), r"shout\.py:2: ModuleNotFoundError"),
        (("import dataclasses", "raise SystemExit(3)"), r"shout\.py:2: SystemExit"),
        (
            ("self.marks = marks", "raise ValueError('too loud')"),
            r"shout\.py:9: Shout .* ValueError: too loud",
        ),
        (("size_bytes = 0", ""), "has no size_bytes"),
    ],
)
def test_mistakes_that_only_running_shows_are_told_where_the_model_is_built(
    shout: Path, change: tuple[str, str], message: str
) -> None:
    shout.write_text(SHOUT.replace(*change).replace("@dataclasses.dataclass", ""))
    spec = registry.resolve(f"python:{shout}:Shout")
    with pytest.raises(ModelError, match=message):
        registry.build(spec)


@pytest.mark.parametrize("name", ["python:", "python:file.py", "python::Class"])
def test_names_without_file_or_class_are_told(name: str) -> None:
    with pytest.raises(NotFound, match=r"should read python:FILE\.py:Class"):
        registry.resolve(name)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no Python file"):
        registry.resolve(f"python:{tmp_path}/no.py:Shout")


def test_any_keyword_is_passed_where_the_class_takes_any(shout: Path) -> None:
    shout.write_text(SHOUT.replace("word=None", "**rest"))
    spec: Any = registry.resolve("it", {"it": {"base": f"python:{shout}:Shout", "whatever": 1, "marks": 2}})
    assert registry.build(spec).invoke(["a"], [0]) == ["A!!"]


def test_a_python_model_in_a_file_that_is_no_python_is_told(shout: Path) -> None:
    other = shout.with_suffix(".txt")
    other.write_text(shout.read_text())
    with pytest.raises(ModelError, match="is no Python file"):
        registry.resolve(f"python:{other}:Shout")
