"""Kinds describe themselves: those of this package, one more in a list, and one of another package."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import panic
from panic.errors import ModelError
from panic.models import kinds, registry
from panic.models.kind import Kind, Parameter
from panic.models.protocol import Model, ModelSpec
from panic.models.table import TABLE
from panic.store import reading

TOY = """
from panic.models.kind import Kind
from panic.models.kind import Parameter

class Echo:
    modality_in = modality_out = "text"
    size_bytes = 0
    def __init__(self, mark): self.mark = mark
    def load(self, device): ...
    def invoke(self, inputs, seeds): return [text + self.mark for text in inputs]

def _tiring(values):
    return "has no effect beside a mark" if values.get("mark") else ""

KIND = Kind(
    name="echo",
    build=lambda spec: Echo(spec.parameters["mark"]),
    modalities_in=("text",),
    modality_out="text",
    parameters={"mark": Parameter(kind=str, default="!"), "rest": Parameter(kind=int, low=1, idle=_tiring)},
    weights="none",
    prefix="echo/",
    models=lambda: [KIND.spec("echo/plain")],
    bucketing=lambda spec: len,
)
"""
USE = """
import sys
from panic.models import registry
from panic.store import reading
assert "toy" not in sys.modules
registry.check_config({"networks": [["synthetic/random-walk"]], "models": {"x": {"base": "BLIP-base"}}})
assert "toy" not in sys.modules, "other packages are not imported for names that are known here"
spec = registry.resolve("loud", {"loud": {"base": "echo/plain", "mark": "!!"}})
assert "toy" in sys.modules
assert registry.build(spec).invoke(["a"], [0]) == ["a!!"]
assert registry.bucketing(spec)("abc") == 3
assert len(registry.fingerprint(spec)) == 64
assert registry.fingerprint(spec) != registry.fingerprint(registry.resolve("echo/plain"))
assert "echo/plain" in [known.name for known in registry.known()]
assert not registry.has_weights(spec)
(problem,) = registry.check_config({"models": {"loud": {"base": "echo/plain", "rest": 2}}})
assert problem.message == "rest has no effect beside a mark", problem
(problem,) = registry.check_config({"networks": [["echo/plian"]]})
assert "echo/plain" in problem.allowed
"""


def add_package(folder: Path, code: str, entry: str) -> None:
    """What installing a distribution with one entry point leaves in a folder of packages."""
    (folder / "toy.py").write_text(code)
    info = folder / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{kinds.GROUP}]\necho = {entry}\n")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python that finds the packages of a folder."""
    path = os.pathsep.join([str(Path(panic.__file__).parents[1]), str(folder)])
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def test_a_kind_of_another_package_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    add_package(tmp_path, TOY, "toy:KIND")
    done = python(tmp_path, "-c", USE)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("executor", [pytest.param("local", marks=pytest.mark.slow), "process"])
def test_an_experiment_is_performed_with_it(tmp_path: Path, executor: str) -> None:
    add_package(tmp_path, TOY, "toy:KIND")
    config = tmp_path / "toy.yaml"
    config.write_text(
        "name: toy\nnetworks: [[echo/plain]]\nprompts: [a]\nseeds: [-1]\nmax_length: 3\n"
        f"executor: {executor}\n"
    )
    done = python(tmp_path, "-m", "panic", "--store", str(tmp_path / "store"), "run", str(config))
    assert done.returncode == 0, done.stderr
    with panic.Store(tmp_path / "store") as store:
        assert [run.num_steps for run in reading.runs(store, reading.experiment(store, "toy").id)] == [3]
    done = python(tmp_path, "-m", "panic", "models")
    assert "echo/plain" in done.stdout


@pytest.mark.parametrize(
    ("code", "entry", "warning"),
    [
        ("1/0\n", "toy:KIND", "toy:KIND cannot be imported: ZeroDivisionError"),
        ("KIND = 3\n", "toy:KIND", "toy:KIND should be a panic.models.kind.Kind, and is a int"),
        (
            TOY.replace('"echo"', '"synthetic"'),
            "toy:KIND",
            "there is a kind of model called synthetic already",
        ),
    ],
)
def test_a_broken_package_is_left_out_and_told(tmp_path: Path, code: str, entry: str, warning: str) -> None:
    add_package(tmp_path, code, entry)
    done = python(tmp_path, "-c", "from panic.models import registry; print(len(registry.known()))")
    assert int(done.stdout) == len(registry.known())
    assert warning in done.stderr


def test_a_line_in_the_list_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The list is a stand-in for the line that a new kind takes."""
    (tmp_path / "config.json").write_text('{"architectures": ["NoiseForDrawing"]}')
    (tmp_path / "model.safetensors").write_text("x")
    kind = Kind(
        name="noise",
        build=lambda spec: pytest.fail("nothing has to be built"),
        modalities_in=("text",),
        modality_out="image",
        parameters={"level": Parameter(kind=float, default=0.5, high=1)},
        weights="files",
        detect=lambda folder: folder.architecture == "NoiseForDrawing",
    )
    with pytest.raises(ModelError, match="no adapter for the architecture NoiseForDrawing"):
        registry.resolve(f"local:{tmp_path}")
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, kind))
    spec = registry.resolve(f"local:{tmp_path}", device_kind="cuda")
    assert (spec.adapter, spec.modality_out, spec.dtype) == ("noise", "image", "float32")
    assert dict(spec.parameters) == {"level": 0.5}
    assert len(registry.fingerprint(spec)) == 64
    models = {"loud": {"base": f"local:{tmp_path}", "level": 2}, "hub": {"base": "a/b", "adapter": "noise"}}
    (problem,) = registry.check_config({"models": models})
    assert problem.message == "level should be at most 1"


def test_a_sentence_transformer_is_a_text_embedder_whatever_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip", "architectures": ["CLIPModel"]}')
    assert kinds.detect(tmp_path, "it").name == "joint-embedder"
    (tmp_path / "modules.json").write_text("[]")
    assert kinds.detect(tmp_path, "it").name == "text-embedder"


def test_a_spec_of_a_kind_that_is_gone_is_told() -> None:
    spec = ModelSpec(
        name="it",
        base="it",
        adapter="gone",
        modalities_in=(),
        modality_out=registry.resolve("BLIP-2").modality_out,
    )
    with pytest.raises(ModelError, match="no kind of model gone here; a package is missing"):
        registry.fingerprint(spec)


def test_no_module_branches_on_the_name_of_a_kind() -> None:
    """The names of kinds stand where a kind is declared, and in the data of the table."""
    names = {kind.name for kind in kinds.KINDS} - {"class", "python"}
    found = []
    for path in Path(panic.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and "adapter" in ast.unparse(node.left):
                literals = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                found += [f"{path.name}:{node.lineno}"] if literals & names else []
    assert found == []


def test_torch_is_there_when_a_model_with_weights_is_built() -> None:
    """Workers set torch's number of threads once a model is built, which is before its weights are loaded."""
    code = (
        "import sys; from panic.models import registry\n"
        "spec = registry.resolve('PocketText'); assert 'torch' not in sys.modules\n"
        "registry.build(spec); assert 'torch' in sys.modules"
    )
    assert python(Path(), "-c", code).returncode == 0


def test_every_model_of_the_table_is_of_a_kind_that_can_build_it() -> None:
    for spec in TABLE.values():
        kind = kinds.kind_of(spec)
        assert spec.parameters.keys() <= kind.parameters_of(spec).keys()
        model = registry.build(spec)
        assert isinstance(model, Model)
