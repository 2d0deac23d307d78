"""Commands on a store that came from somebody else: no code runs, nothing is written outside of it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

from panic import run
from panic.cli.app import app
from panic.cli.destinations import REPORT_MARK
from panic.config import ExperimentConfig
from panic.engine.trust import PATH_PARAMETERS, described_outside, named_outside
from panic.models import kinds, registry
from panic.store import Store, writing

Panic = Callable[..., Result]

EVIL = """
from pathlib import Path

Path(__file__).with_name("ran").write_text("code ran")
def kinds(): return ("text",)

class Evil:
    modality_in = kinds()
    modality_out, size_bytes = "text", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds): return [text + "!" for text in inputs]
"""

COMMANDS: dict[str, list[list[str]]] = {
    **{
        name: [] for name in ("run", "pin", "slurm", "train", "evaluate", "completion", "optimize")
    },  # they start from the user's own
    **{name: [[]] for name in ("models", "devices", "status", "list", "stuck", "report", "video", "fields")},
    "trainings": [[], ["--json"], ["--where", "state = complete", "--csv"]],
    **{name: [[]] for name in ("dump", "check")},
    "search": [["state"], ["state", "--json"], ["--reindex"]],
    "resume": [[], ["--dry-run"], ["--repair"], ["--retry-failed", "--fail-fast"]],
    "embed": [["x", "synthetic/state-embedding"], ["x", "PocketText", "--once", "--dry-run"]],
    "diagrams": [["x"], ["x", "--dry-run"]],
    "nulls": [["x", "all"]],
    "returns": [["x"], ["x", "--json"]],
    "import": [["given.jsonl", "--name", "x"], ["given.jsonl", "--name", "y"]],
    "verify": [[], ["--strict", "--sample", "2"]],
    "show": [[], ["--config"], ["--run", "1"], ["--json"]],
    "images": [["--run", "1"], ["--step", "1"], ["--grid"]],
    "export": [["-o", "tables"]],
    "figure": [["time", "-o", "time.svg"], ["drift", "-o", "drift.svg"]],
    "table": [["time"], ["drift", "-o", "drift.csv"]],
    "cache": [["show"], []],
    "snapshot": [["../store", "copy"], ["../store", "copy", "--force"]],
    "config": [[], ["--json"]],
    "stores": [[], ["--json"]],
    "help": [[], ["configs"]],
    "requirements": [["x"], ["x", "--all"]],
    "merge": [["../store", "--into", "merged"]],
    "tag": [["x", "good"], ["x", "good", "--run", "1"]],
    "project": [["x", "colours"], ["x"]],
    "untag": [["x", "good"]],
    "label": [["x", "a label"]],
    "comment": [["x", "a comment"], ["x"]],
    "compare": [["x", "y"], ["x", "y", "--all", "--json"], ["--of", "run", "1", "2"]],
    "again": [["x"], ["x", "--dry-run"], ["x", "--set", "max_length=1"]],
    "extend": [["x", "--max-length", "9"], ["x", "--repeats", "3", "--dry-run"]],
    "rerun": [["x", "--failed"], ["x", "--failed", "--dry-run"]],
    "best": [["--by", "seconds"], ["--by", "steps", "--of", "run"]],
    "stop": [["x"], ["x", "--wait"]],
    "end": [["x"]],
    "delete": [["x", "--run", "1", "-y"], ["x", "-y"], ["--where", "runs > 0", "-y"]],
    "undelete": [[], ["x"]],
    "purge": [["-y"]],
    "view": [["--cert", "missing.pem"]],  # otherwise it answers until it is stopped: tests/view
}
"""Every command with arguments that let it act on a store; a new command needs an entry."""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of an experiment with a model in a Python file, which has not run here."""
    (tmp_path / "maker").mkdir()
    (tmp_path / "maker" / "evil.py").write_text(EVIL)
    values = {"networks": [[f"python:{tmp_path}/maker/evil.py:Evil"]], "max_length": 2, "executor": "local"}
    run(config_with(**values, models={}, device="cpu"), tmp_path / "store")
    with Store(tmp_path / "store", write=True) as store, store.transaction() as connection:
        connection.execute("UPDATE run SET max_length = 5")
    (tmp_path / "maker" / "ran").unlink()
    os.utime(tmp_path / "maker" / "evil.py", (1, 1))  # nothing that this process knows of it holds any more
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    row = {"run": 1, "step": 0, "text": "b", "prompt": "a", "model": f"python:{tmp_path}/maker/evil.py:Evil"}
    Path("given.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "store"


def config_with(**changes: object) -> ExperimentConfig:
    base = {"name": "x", "networks": [["m"]], "prompts": ["a"], "seeds": [-1], "max_length": 2}
    base["models"] = {"m": {"base": "synthetic/text-to-image"}}
    return ExperimentConfig.model_validate({**base, **changes})


def test_no_command_runs_what_a_store_names(evil: Path, panic: Panic) -> None:
    assert set(typer.main.get_command(app).commands) == set(COMMANDS)  # type: ignore[attr-defined]
    for command, calls in COMMANDS.items():
        for arguments in calls:
            panic(command, *arguments, "--store", evil)
            assert not (evil.parent / "maker" / "ran").exists(), (command, arguments)


def test_resume_needs_trust_for_a_python_file_and_names_it(evil: Path, panic: Panic) -> None:
    for options in ([], ["--dry-run"]):
        done = panic("resume", "--store", evil, *options)
        assert done.exit_code == 2
        assert "evil.py:Evil" in done.stderr
        assert "--trust" in done.stderr
    ran = evil.parent / "maker" / "ran"
    assert panic("resume", "--store", evil, "--trust", "--dry-run").exit_code == 0
    assert not ran.exists()
    done = panic("resume", "--store", evil, "--trust")
    assert done.exit_code == 0, done.stderr
    assert ran.exists()


def test_models_of_a_folder_with_settings_need_trust_as_both_may_have_come_with_the_store(
    tmp_path: Path, panic: Panic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded folder with a store, `models = "own"` and own/evil.py ran it at `panic extend`."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "evil.py").write_text(EVIL)
    monkeypatch.delenv("PANIC_MODELS", raising=False)
    with Store(tmp_path / "store", write=True, create=True) as store:
        config = config_with(networks=[["Evil"]], models={})
        writing.start_experiment(store, "x", config.model_dump(mode="json"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "panic.toml").write_text('models = "own"\n')
    for command in (["resume"], ["extend", "x", "--max-length", "8"], ["again", "x"], ["verify", "x"]):
        done = panic(*command, "--store", tmp_path / "store")
        assert done.exit_code == 2, (command, done.stderr)
        assert "the model 'Evil' of the folder" in done.stderr
        assert "--trust" in done.stderr
        monkeypatch.delenv("PANIC_MODELS", raising=False)
    assert not (tmp_path / "own" / "ran").exists()


def test_a_model_that_only_the_store_describes_needs_trust(
    tmp_path: Path, panic: Panic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config named "lost", which means nothing here; the store said that this was a Python file."""
    monkeypatch.chdir(tmp_path)
    code = EVIL.replace('size_bytes = "text"', 'size_bytes = "vector"').replace('text + "!"', "[1.0]")
    (tmp_path / "evil.py").write_text(code)
    name = f"python:{tmp_path}/evil.py:Evil"
    run(config_with(networks=[["upper-case"]], models={}, embeddings=[name], device="cpu"), "store")
    connection = sqlite3.connect("store/store.sqlite")
    connection.execute("UPDATE experiment SET config = replace(config, ?, 'lost')", (name,))
    connection.execute("UPDATE epoch SET name = 'lost' WHERE name = ?", (name,))
    connection.execute("DELETE FROM embedding")
    connection.commit()
    connection.close()
    (tmp_path / "ran").unlink()
    os.utime("evil.py", (1, 1))
    for command in (["embed", "x", "synthetic/state-embedding"], ["diagrams", "x", "--modality", "text"]):
        done = panic(*command, "--store", "store")
        assert done.exit_code == 2
        assert "the model 'lost', which is 'python:" in done.stderr
        assert not Path("ran").exists()
    done = panic("embed", "x", "synthetic/state-embedding", "--store", "store", "--trust")
    assert Path("ran").exists()
    assert "without effect" not in done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "local:weights"},
        {"source": "class:os:system"},
        {"source": "openai:x"},
        {"source": "../x"},
        {"revision": "../../x"},
        {"parameters": {"lora": "x"}},
        {"options": {"a": ["/etc"]}},
    ],
)
def test_what_a_stored_description_reaches_outside_needs_trust(changes: dict[str, Any]) -> None:
    spec = registry.resolve("sd-turbo", {})
    assert described_outside({"a": spec, "b": registry.resolve("PocketText", {})}) == []
    assert described_outside({"a": replace(spec, **changes)})


def test_verify_needs_trust_for_a_python_file_and_runs_it_then(evil: Path, panic: Panic) -> None:
    ran = evil.parent / "maker" / "ran"
    done = panic("verify", "--store", evil)
    assert done.exit_code == 2
    assert "evil.py:Evil" in done.stderr
    assert "--trust" in done.stderr
    assert not ran.exists()
    done = panic("verify", "--store", evil, "--trust", "--json")
    assert ran.exists()
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"] == {"same": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"networks": [["local:weights"]], "models": {}},
        {"networks": [["../weights"]], "models": {}},
        {"networks": [["https://example.org/v1"]], "models": {}},
        {"networks": [["endpoint:llama"]], "models": {}},
        {"model_folder": "/home/somebody/models"},
        {"models": {"m": {"base": "python:a.py:A"}}},
        {"models": {"m": {"base": "SDXL", "lora": "styles/one"}}},
        {"models": {"m": {"base": "SDXL", "url": "http://example.org"}}},
        {"models": {"m": {"base": "SDXL", "key": "$HOME"}}},
        {"models": {"m": {"base": "org/name", "adapter": "class"}}},
        {"embeddings": ["python:a.py:A"]},
        {"notify": {"to": ["HOME"]}},
        {"arms": {"evil": [{"at": 2, "model": "python:a.py:A"}]}},
        {"arms": {"evil": [{"at": 2, "network": ["local:weights", "PocketCaptioner"]}]}},
    ],
)
def test_paths_files_addresses_and_variables_need_trust(changes: dict[str, object]) -> None:
    assert named_outside(config_with(**changes))


def test_known_models_variants_and_hub_ids_need_none() -> None:
    models = {"m": {"base": "PocketDiffusion", "steps": 2}, "n": {"base": "org/name", "adapter": "captioner"}}
    config = config_with(networks=[["m", "n"], ["PocketDiffusion", "synthetic/image-to-text"]], models=models)
    assert named_outside(config) == []
    arms = {
        "one": [{"at": 2, "model": "upper-case"}, {"at": 3, "noise": 0.1}, {"at": 4, "text": "/etc/passwd"}]
    }
    assert named_outside(config_with(arms=arms)) == []


def test_all_parameters_that_are_paths_need_trust() -> None:
    plain = [kind.parameters for kind in kinds.KINDS if not callable(kind.parameters)]
    known = {name for parameters in plain for name, one in parameters.items() if one.is_folder or one.is_file}
    assert {"lora", "gguf"} <= known <= set(PATH_PARAMETERS)


@pytest.mark.parametrize("name", ["../../x", "{outside}/x"])
def test_names_that_are_paths_write_nothing_outside(evil: Path, panic: Panic, name: str) -> None:
    outside = evil.parent
    connection = sqlite3.connect(evil / "store.sqlite")
    connection.execute("UPDATE experiment SET name = ?", (name.format(outside=outside),))
    connection.commit()
    connection.close()
    before = sorted(outside.rglob("*"))
    for command in (["report"], ["images", "--run", "1"], ["video"], ["resume", "--trust"]):
        done = panic(*command, "--store", evil)
        assert done.exit_code == 1
        assert "a name that is none" in done.stderr
    assert sorted(p for p in outside.rglob("*") if not p.name.endswith(("-wal", "-shm"))) == before


@pytest.mark.parametrize("link", ["reports", "logs", "reports/x.html"])
def test_links_in_a_store_lead_nowhere(evil: Path, panic: Panic, link: str) -> None:
    outside = evil.parent / "outside"
    outside.mkdir()
    (outside / "x.html").write_text("precious")
    (evil / link).parent.mkdir(exist_ok=True)
    (evil / link).symlink_to(outside / "x.html" if link.endswith(".html") else outside)
    command = ["resume", "--trust"] if link == "logs" else ["report"]
    assert panic(*command, "--store", evil).exit_code in (1, 2)
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("x.html", "precious")]


def test_only_panics_own_report_is_overwritten(evil: Path, panic: Panic) -> None:
    file = evil / "reports" / "x.html"
    assert panic("report", "--store", evil).exit_code == 0
    assert REPORT_MARK in file.read_bytes()
    assert panic("report", "--store", evil).exit_code == 0
    file.write_text("my notes")
    done = panic("report", "--store", evil)
    assert done.exit_code == 2
    assert "is no report of panic" in done.stderr
    assert file.read_text() == "my notes"
