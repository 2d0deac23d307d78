"""What is read of a user's class without running it, and what is asked in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import panic
from panic.config import ExperimentConfig
from panic.engine.plan import CheckedConfig
from panic.errors import ConfigError, ModelError, NotFound
from panic.models import python_models, python_running, registry
from panic.models.protocol import Modality
from panic.models.python_source import ClassFacts, NotReadable, model_names, read_class
from tests.processes import until_dead

BODY = """
    size_bytes = 0
    modality_in = modality_out = "text"
    def load(self, device): ...
    def invoke(self, inputs, seeds): return [text + "!" for text in inputs]
"""
NOTES = """
import os, pathlib
with open(pathlib.Path(__file__).with_suffix(".notes"), "a") as notes:
    print("module", os.getpid(), file=notes)
def note(what):
    with open(pathlib.Path(__file__).with_suffix(".notes"), "a") as notes:
        print(what, os.getpid(), file=notes)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(code: str) -> Path:
        (tmp_path / "own.py").write_text(code)
        return tmp_path / "own.py"

    return write


def same(file: Path, name: str) -> ClassFacts:
    """The facts that the source gives, which are those that the class itself gives."""
    read = read_class(file, name)
    assert read == python_running.class_facts(file, name)
    return read


def test_source_and_class_say_the_same(write: Callable[[str], Path]) -> None:
    file = write(
        "class Base:\n"
        "    modality_in: str = 'image'\n"
        "    modality_out = 'vector'\n"
        "    batch_size = 4\n"
        "    def __init__(self, a, b=-1, /, c=2.5, *rest, d, e='x', f=None, g=(1, 2), h=True, **more): ...\n"
        "    def load(self, device): ...\n"
        "class Child(Base):\n"
        "    modality_in = ['text', 'image']\n"
        "    batch_size: int = 8\n"
        "    async def invoke(self, inputs, seeds): ...\n"
        "    def bucket(self, item): ...\n"
        "class Bare(object):\n"
        "    modality_in = 'nonsense'\n"
    )
    child = same(file, "Child")
    assert child.required == ("d",)
    assert child.optional == ("c", "e", "f", "g", "h")
    assert child.defaults == {"b": -1, "c": 2.5, "e": "x", "h": True}
    assert child.takes_any
    assert (child.batch_size, child.modality_in, child.modality_out) == (8, ["text", "image"], "vector")
    assert child.methods == {"load", "invoke", "bucket"}
    assert same(file, "Base").methods == {"load"}
    assert same(file, "Bare").required == ()


def test_what_is_inherited_from_panic_itself_is_read(write: Callable[[str], Path]) -> None:
    file = write(
        "from panic.models.synthetic import RandomWalk as Walk, TextToImage\n"
        "class Draw(TextToImage):\n    batch_size = 4\n    def __init__(self, size=24): ...\n"
        "class Own(Walk): ...\n"
    )
    draw = same(file, "Draw")
    assert (draw.modality_in, draw.modality_out, draw.defaults) == ("text", "image", {"size": 24})
    assert same(file, "Own").takes_any


UNREADABLE = {
    "decorated": f"import dataclasses\n@dataclasses.dataclass\nclass Own:{BODY}    marks: int = 3\n",
    "a default by name": f"MARKS = 3\nclass Own:{BODY}    def __init__(self, marks=MARKS): ...\n",
    "a modality by name": f"TEXT = 'text'\nclass Own:{BODY}    modality_out = TEXT\n",
    "in a branch": f"class Own:{BODY}    if True:\n        batch_size = 3\n",
    "unpacked": f"class Own:{BODY}    batch_size, other = 3, 4\n",
    "inherited from elsewhere": f"import collections\nclass Own(collections.UserList):{BODY}",
    "bound twice": f"class Own:{BODY}\nOwn = Own\n",
    "set from outside": f"class Own:{BODY}\nOwn.batch_size = 3\n",
    "set by setattr": f"class Own:{BODY}\nsetattr(Own, 'batch_size', 3)\n",
    "a metaclass": f"import abc\nclass Own(metaclass=abc.ABCMeta):{BODY}",
    "made by a call": f"Own = type('Own', (), {{}})\nclass Other:{BODY}\nOwn = Other\n",
    "inside a condition": f"if True:\n    class Own:{BODY.replace(chr(10), chr(10) + '    ')}\n",
    "two bases": f"class A:{BODY}\nclass B: ...\nclass Own(A, B): ...\n",
    "a decorated constructor": f"class Own:{BODY}    @staticmethod\n    def __init__(self=0): ...\n",
    "of __new__": f"class Own:{BODY}    def __new__(cls, marks=1): return super().__new__(cls)\n",
}


@pytest.mark.parametrize("code", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_the_source_does_not_settle_is_not_guessed(write: Callable[[str], Path], code: str) -> None:
    with pytest.raises(NotReadable, match=r"own\.py:\d+: "):
        read_class(write(code), "Own")


@pytest.mark.parametrize(
    "name", ["decorated", "a default by name", "set from outside", "inherited from elsewhere"]
)
def test_it_is_asked_in_a_process_of_its_own(write: Callable[[str], Path], name: str) -> None:
    file = write(NOTES + UNREADABLE[name])
    source = f"python:{file}:Own"
    unknown = registry.resolve(source, ask=False)
    assert "own.py:" in unknown.unread
    assert unknown.mapping == "not known without running it"
    assert not file.with_suffix(".notes").exists()
    spec = registry.resolve(source)
    assert (spec.unread, spec.modality_out) == ("", Modality.TEXT)
    assert python_models._facts(file, "Own", ask=False) == python_running.class_facts(file, "Own")
    assert registry.resolve(source) == spec
    pids = [int(line.split()[1]) for line in file.with_suffix(".notes").read_text().splitlines()]
    assert len(pids) == 2, "asked once, and imported here by this test"
    assert pids[0] != os.getpid() == pids[1]


def test_a_default_of_an_enumeration_stays_the_classs(write: Callable[[str], Path]) -> None:
    file = write(
        "import enum\nclass Mode(enum.StrEnum):\n    LOUD = 'loud'\n    SOFT = 'soft'\n"
        f"class Own:{BODY}    def __init__(self, mode=Mode.LOUD): self.mode = mode\n"
    )
    model: Any = registry.build(registry.resolve(f"python:{file}:Own"))
    assert model.mode.name == "LOUD"
    soft = registry.resolve("it", {"it": {"base": f"python:{file}:Own", "mode": "soft"}})
    model = registry.build(soft)
    assert model.mode == "soft"


def test_a_class_that_does_not_answer_is_given_up(write: Callable[[str], Path]) -> None:
    stay = "echo $$ > own.tmp; mv own.tmp own.pid; while true; do sleep 0.1; done"
    code = f"import os, subprocess\nsubprocess.run({stay!r}, shell=True, cwd=os.path.dirname(__file__))\n"
    file = write(code + UNREADABLE["decorated"])
    started, timeout_s = file.with_suffix(".pid"), 2
    while not started.exists():  # on a busy machine it does not get so far within 2 s
        with pytest.raises(ModelError, match=rf"own\.py: Own has not answered within {timeout_s} s"):
            python_running.ask(file, "Own", timeout_s=timeout_s)
        timeout_s *= 2
    until_dead(int(started.read_text()))  # what it had started ends with it


def test_what_is_asked_does_not_get_the_keys_of_a_config(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import of the user's file could read what the config pairs with a host."""
    names = ("OWN_ACCESS", "OWN_ADDRESS", "OWN_FOLDER")
    for name in names:
        monkeypatch.setenv(name, name.lower())
    seen = f"Path(__file__).with_suffix('.seen').write_text(str([os.environ.get(name) for name in {names}]))"
    file = write(f"import os\nfrom pathlib import Path\n{seen}\n{UNREADABLE['decorated']}")
    models = {"chat": {"base": "openai:tiny", "api_key_env": "OWN_ACCESS"}}
    raw = {"name": "x", "networks": [["upper-case"]], "prompts": ["a"], "seeds": [-1], "max_length": 1}
    raw |= {"models": models, "notify": {"to": ["OWN_ADDRESS"]}}
    for make in (
        lambda: registry.resolver_of(raw, ask=True),
        lambda: CheckedConfig.of(ExperimentConfig.model_validate(raw), ask=True).models,
    ):
        python_models._asked.clear()
        python_running._hidden.clear()
        resolver = make()
        assert resolver.spec(f"python:{file}:Own").unread == ""
        assert file.with_suffix(".seen").read_text() == "[None, None, 'own_folder']"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_package\n", r"own\.py:1: ModuleNotFoundError"),
        ("import os\nos._exit(3)\n", r"own\.py: Own: .* ended without a word"),
        ("Own = 3\n", r"has no class Own"),
    ],
)
def test_what_goes_wrong_while_asking_is_told(write: Callable[[str], Path], code: str, message: str) -> None:
    file = write(code + UNREADABLE["decorated"] if "Own" not in code else code)
    with pytest.raises((ModelError, NotFound), match=message):
        registry.resolve(f"python:{file}:Own")


def test_mistakes_are_told_of_an_asked_class_as_of_a_read_one(write: Callable[[str], Path]) -> None:
    code = UNREADABLE["decorated"]
    file = write(code.replace("def load", "def lode"))
    with pytest.raises(ModelError, match=r"own\.py:2: Own has no method load"):
        registry.resolve(f"python:{file}:Own")
    file = write(code.replace('"text"', '"txt"'))
    with pytest.raises(ModelError, match="not 'txt'"):
        registry.resolve(f"python:{file}:Own")
    file = write(code)
    with pytest.raises(ConfigError, match="has no parameter 'volume'"):
        registry.resolve("it", {"it": {"base": f"python:{file}:Own", "volume": 1}})


def test_the_models_of_a_folder_are_those_that_have_the_names(write: Callable[[str], Path]) -> None:
    file = write(
        f"import abc, dataclasses\nclass Own:{BODY}class _Hidden(Own): ...\nclass Deep(Own): ...\n"
        "class Net(abc.ABC): ...\n@dataclasses.dataclass\nclass Data:\n    x: int\n"
        "class Half:\n    def load(self): ...\nclass Open(abc.ABC):\n    modality_in = 'text'\n"
    )
    assert model_names(file) == ["Own", "Deep", "Open"]
    specs = {spec.name: spec for spec in registry.known(file.parent) if spec.adapter == "python"}
    assert {name for name, spec in specs.items() if spec.unread} == {"Open"}
    with pytest.raises(ModelError, match="Open has no method load and no method invoke"):
        registry.resolve("Open", {}, file.parent)


def test_a_bucket_of_a_users_class_is_asked_elsewhere(write: Callable[[str], Path]) -> None:
    file = write(
        f"{NOTES}class Own:{BODY}    def __init__(self): note('constructed')\n"
        "    def bucket(self, item): return len(item)\n"
    )
    bucket = registry.bucketing(registry.resolve(f"python:{file}:Own"))
    assert bucket is not None
    assert [bucket("a" * count) for count in (3, 0, 7)] == [3, 0, 7]
    notes = [line.split() for line in file.with_suffix(".notes").read_text().splitlines()]
    assert [what for what, _ in notes] == ["module", "constructed"]
    assert all(int(pid) != os.getpid() for _, pid in notes)


def experiment(file: Path, **changes: Any) -> ExperimentConfig:
    values: dict[str, Any] = {
        "name": "own",
        "networks": [[f"python:{file}:Own"]],
        "prompts": ["a", "b"],
        "seeds": [-1],
        "max_length": 3,
        "executor": "process",
        "device": "cpu",
        **changes,
    }
    return ExperimentConfig.model_validate(values)


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_users_class_runs_in_its_worker_alone(
    write: Callable[[str], Path], tmp_path: Path, is_readable: bool
) -> None:
    init = "    def __init__(self, mark='!'): note('constructed')\n"
    file = write(
        f"{NOTES}MARK = '!'\nclass Own:{BODY}{init if is_readable else init.replace(repr('!'), 'MARK')}"
    )
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nnetworks: [['python:own.py:Own']]\nprompts: [a, b]\nseeds: [-1]\nmax_length: 3\n"
        "executor: process\ndevice: cpu\n"
    )
    panic.load_config(path)
    assert not file.with_suffix(".notes").exists()
    assert panic.run(path, tmp_path / "store").state == "complete"
    by_process: dict[str, list[str]] = {}
    for line in file.with_suffix(".notes").read_text().splitlines():
        what, pid = line.split()
        by_process.setdefault(pid, []).append(what)
    assert str(os.getpid()) not in by_process
    asked = [] if is_readable else [["module"]]
    assert list(by_process.values()) == [*asked, ["module", "constructed"]]


def test_a_dry_run_runs_nothing_and_says_so(write: Callable[[str], Path], tmp_path: Path) -> None:
    file = write(NOTES + UNREADABLE["decorated"])
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nnetworks: [['python:own.py:Own']]\nembeddings: [Other]\nmodel_folder: folder\n"
        "prompts: [a, b]\nseeds: [-1]\nmax_length: 3\ndiagrams: {}\n"
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/other.py").write_text(
        NOTES + UNREADABLE["decorated"].replace("Own", "Other").replace("modality_out = 'text'", "")
    )
    command = [
        sys.executable,
        "-m",
        "panic",
        "--store",
        str(tmp_path / "store"),
        "run",
        str(path),
        "--dry-run",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not known without running it") == 2
    assert " 32 " not in done.stdout, "a batch size that nobody has said is not told"
    assert not file.with_suffix(".notes").exists()
    listing = [sys.executable, "-m", "panic", "models", "--model-folder", str(tmp_path / "folder")]
    done = subprocess.run(listing, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.stdout.count("not known without running it") == 1, done.stderr
    assert not (tmp_path / "folder/other.notes").exists()
