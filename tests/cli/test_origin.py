"""Where results come from: the user's repository, trainings and their models, what to install again."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from panic.analysis.origin import facts, models
from panic.cli.origin import DIRECT, requirement_lines
from panic.store import Store, reading
from panic.store.provenance import without_keys
from tests.cli.conftest import ROOT, Invoke, write_config


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with a config that is committed."""
    folder = tmp_path / "mine"
    folder.mkdir()
    git(folder, "init")
    write_config(folder, max_length=2)
    git(folder, "add", "demo.yaml")
    git(folder, "commit", "-m", "first")
    return folder


def last_provenance(store: Path) -> dict[str, Any]:
    with Store(store) as opened:
        return dict(reading.sessions(opened, reading.experiment(opened, "demo").id)[-1].provenance)


def test_the_repository_is_that_of_the_config_and_its_patch_has_no_keys(
    panic: Invoke, repository: Path, tmp_path: Path
) -> None:
    config = repository / "demo.yaml"
    config.write_text(f"{config.read_text()}# api_key: hf_abcdefghij1234567890\n# token = 'x9y8z7w6v5u4t3'\n")
    assert panic("run", config, "--quiet").exit_code == 0
    found = last_provenance(tmp_path / "panic-store")
    known = found["repository"]
    assert isinstance(known, dict)
    assert Path(known["root"]) == repository
    assert known["dirty"]
    assert "api_key: (redacted)" in known["patch"]
    assert "x9y8z7w6v5u4t3" not in known["patch"]
    assert not known["patch_is_complete"]
    assert known["changes"] == [" M demo.yaml"]
    shown = panic("show", "demo").stdout
    assert f"{repository} {known['commit'][:12]} with changes" in shown
    assert "synthetic" in shown
    assert panic("report", "demo", "-o", tmp_path / "r.html", "--quiet").exit_code == 0
    assert known["commit"][:12] in (tmp_path / "r.html").read_text()


def test_enforce_clean_refuses_what_no_commit_has(panic: Invoke, repository: Path, tmp_path: Path) -> None:
    config = repository / "demo.yaml"
    inside = repository / "panic-store"  # results are no part of what a commit should have
    assert panic("run", config, "--enforce-clean", "--quiet", "--store", inside).exit_code == 0
    assert panic("run", config, "--enforce-clean", "--quiet", "--store", inside).exit_code == 0
    (repository / "new [file].txt").write_text("x")
    done = panic("run", config, "--enforce-clean", "--store", inside)
    assert done.exit_code == 2
    assert "new [file].txt" in done.stderr
    assert "git commit" in done.stderr
    (tmp_path / "panic.toml").write_text("enforce_clean = true\n")
    assert panic("run", config, "--quiet", "--store", inside).exit_code == 2
    assert panic("run", config, "--allow-dirty", "--quiet", "--store", inside).exit_code == 0
    done = panic("run", write_config(tmp_path, "loose"), "--quiet")
    assert done.exit_code == 2
    assert "in no git repository" in done.stderr


@pytest.mark.parametrize("command", ["run", "optimize", "slurm"])
def test_filters_of_a_repository_saw_the_key_of_an_endpoint_where_all_had_to_be_committed(
    panic: Invoke, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A repository's own settings have git start them, to see what is committed."""
    monkeypatch.setenv("SOME_NAME", "tahini")
    monkeypatch.setenv("OTHER_NAME", "falafel")
    (tmp_path / "panic.toml").write_text("enforce_clean = true\n")
    git(repository, "config", "filter.look.clean", f"env >> '{tmp_path}/seen'; cat")
    (repository / ".gitattributes").write_text("*.yaml filter=look\n")
    config = repository / "demo.yaml"
    said = '{base: "openai:x", base_url: "http://127.0.0.1:9", task: embedding, api_key_env: SOME_NAME}'
    changes = ["--set", f"models.chat={said}", "--set", "notify={to: [OTHER_NAME]}"]
    config.write_text(config.read_text().replace("demo", "domo"))  # of the same length: git has to look
    look = "max_length={optimize: {from: 2, to: 3, whole: true}}"
    more = {"optimize": ["--maximise", "entropy", "--set", look]}
    done = panic(command, config, *more.get(command, []), *changes)
    assert done.exit_code == 2
    assert "has what no commit has" in done.stderr
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen
    assert "tahini" not in seen
    assert "falafel" not in seen


def test_an_ignored_config_is_not_clean(panic: Invoke, repository: Path) -> None:
    (repository / ".gitignore").write_text("*.yaml\n")
    git(repository, "rm", "--cached", "demo.yaml")
    git(repository, "add", ".gitignore")
    git(repository, "commit", "-m", "second")
    done = panic("run", repository / "demo.yaml", "--enforce-clean")
    assert done.exit_code == 2
    assert "!! " in done.stderr


def test_what_git_status_did_not_tell_counted_as_clean(panic: Invoke, repository: Path) -> None:
    """Where it failed or took too long, the result was "no changes"."""
    (repository / ".git" / "index").write_bytes(b"damaged")
    done = panic("run", repository / "demo.yaml", "--enforce-clean")
    assert done.exit_code == 2
    assert "Whether all is committed is not known" in done.stderr
    assert not Path("panic-store").exists()


@pytest.mark.parametrize(
    "said",
    [
        {"hardware": [1]},
        {"hardware": {"memory_bytes": "x", "gpus": 3}},
        {"hardware": {"memory_bytes": 10**400}},
        {"packages": [1]},
        {"gpu_energy_j": [1]},
        {"gpu_energy_j": {"a": "x"}},
        {"git": [1]},
        {"git": "x"},
        {"repository": "x"},
        {"command": 5},
        {"models": {"draw": [1]}},
        {"packages": {"panic": [1]}, "git": 3, "hosts": 3, "python": []},
    ],
    ids=str,
)
def test_nonsense_of_origins_stopped_commands(said: dict[str, Any]) -> None:
    known = {"session": 1, "packages": {"numpy": "1"}} | said
    session: Any = SimpleNamespace(provenance=known, host="here")
    assert facts([session])["hosts"] == "here"
    models([session])
    if isinstance(known["packages"], dict):
        assert list(requirement_lines("demo", [session], True))


def test_a_config_of_a_strange_store_stopped_show(panic: Invoke, store: Path) -> None:
    said = {"networks": 5, "prompts": {"a": 1}, "seeds": "x", "repeats": [], "max_length": "x", "arms": 1}
    with Store(store, write=True) as opened:
        opened.db.connection.execute("UPDATE experiment SET config = ?", (json.dumps(said),))
    done = panic("show", "demo")
    assert done.exit_code == 0, done.output
    assert "asked for in all: 1 prompt, 1 repeat, at most 0 model calls" in done.stdout


def test_what_a_store_said_became_lines_of_requirements(panic: Invoke, store: Path) -> None:
    """pip obeys every line: an index of somebody's own, a package from an address."""
    evil = "https://a.example"
    packages = {"numpy": f"1\n--index-url {evil}", f"x @ {evil}/x.whl #": "1", "polars": "1.2.3"}
    said = {"packages": packages, "models": {f"m\n--index-url {evil}": {"folder": f"/m\n-r {evil}"}}}
    with Store(store, write=True) as opened:
        opened.db.connection.execute("UPDATE session SET provenance = ?", (json.dumps(said),))
    lines = panic("requirements", "demo", "--all").stdout.splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["polars==1.2.3"]


def test_a_file_of_prompts_is_known_by_its_digest_and_by_what_dvc_says(panic: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("text\nstate 0\nstate 3\nstate 4\n")
    config = write_config(tmp_path, prompts="[{file: prompts.csv, n: 2}]")
    assert panic("run", config, "--quiet").exit_code == 0
    told = hashlib.sha256(file.read_bytes()).hexdigest()
    [known] = last_provenance(tmp_path / "panic-store")["prompts"]
    asked = {"file": "prompts.csv", "n": 2}
    assert known == {"from": asked, "sha256": told, "num_prompts": 2}
    assert f"2 prompts of file prompts.csv, n 2, sha256 {told[:12]}" in panic("show", "demo").stdout
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    beside = tmp_path / "prompts.csv.dvc"
    beside.write_text(f"outs:\n- md5: {md5}\n  size: 27\n  hash: md5\n  path: prompts.csv\n")
    assert panic("run", config, "--set", "max_length=9", "--quiet").exit_code == 0
    [known] = last_provenance(tmp_path / "panic-store")["prompts"]
    assert known == {"from": asked, "sha256": told, "md5": md5, "num_prompts": 2}
    assert f"md5 {md5[:12]}" in panic("show", "demo").stdout
    for nonsense in (b"outs: 3\n", b"\xff", b"- {", b"outs: [{path: other, md5: x}]\n"):
        beside.write_bytes(nonsense)
        assert panic("run", config, "--quiet").exit_code == 0
        assert "md5" not in last_provenance(tmp_path / "panic-store")["prompts"][0]


def test_requirements_have_the_recorded_versions(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        packages = reading.sessions(opened, reading.experiment(opened, "demo").id)[-1].provenance["packages"]
    lines = panic("requirements", "demo").stdout.splitlines()
    assert f"numpy=={packages['numpy']}" in lines
    assert not any(line.startswith("pytest==") for line in lines)
    assert any(line.startswith("# Python 3.") for line in lines)
    assert any(line.startswith("# panic: ") and "digest of its source" in line for line in lines)
    everything = panic("requirements", "demo", "--all").stdout
    assert f"pytest=={packages['pytest']}" in everything
    assert panic("requirements", "none").exit_code == 2


def test_what_panic_needs_is_what_its_package_says() -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(DIRECT) == {re.split(r"[>=]", one)[0] for one in said}


def test_from_a_training_to_the_runs_that_used_it_and_back(panic: Invoke, store: Path) -> None:
    uid = "ab" * 32
    with Store(store, write=True) as opened, opened.transaction() as connection:
        models = {"models": {"draw": {"source": "local:mine", "folder": "/f/mine", "training": uid}}}
        connection.execute(
            "UPDATE session SET provenance = json_patch(provenance, ?) WHERE experiment = 1",
            (json.dumps(models),),
        )
    [row] = json.loads(panic("trainings", "--json").stdout)
    assert (row["id"], row["folders"]) == (uid, ["/f/mine"])
    assert row["used_by"] == [{"experiment": "demo", "model": "draw"}]
    assert "demo" in panic("trainings").stdout
    assert uid[:12] in panic("show", "demo").stdout


def test_a_long_line_is_read_for_keys_at_once() -> None:
    begun = time.process_time()
    for line in ("x" * 300_000, "token=" * 50_000, "a://" * 75_000, "key: " * 60_000):
        assert without_keys(line) == line
    assert time.process_time() - begun < 60, "hours where a pattern is tried from every place to the end"
    assert without_keys("https://me:word@host/x") == "https://(redacted)@host/x"
    assert without_keys("password = some_function(row)") == "password = some_function(row)"
