"""A key goes from the environment to the host that the config pairs with it, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from panic.store import Store, reading
from tests.cli.conftest import call
from tests.engine.endpoint_server import Server
from tests.patience import LONGEST_S

KEY = "sk-planted-0123456789"
VARIABLE = "PANIC_TEST_ACCESS"
"""A name that does not look secret."""
PEEK = f'''
import os


class Peek:
    """Tells what its process knows of the key."""

    modality_in = modality_out = "text"
    size_bytes = 0

    def load(self, device): ...

    def invoke(self, inputs, seeds):
        return [f"{{text}} and {{os.environ.get('{VARIABLE}', 'nothing')}}"[-200:] for text in inputs]
'''
CONFIG = """
name: demo
networks: [[chat, Peek]]
models:
  chat: {{base: "openai:tiny", base_url: "{url}", task: text-to-text, api_key_env: {variable}}}
  vector: {{base: "openai:tiny", base_url: "{url}", task: embedding, api_key_env: {variable}}}
prompts: [one, two]
seeds: [42]
max_length: 6
embeddings: [vector]
diagrams: {{max_dimension: 0, modality: text}}
device: cpu
max_retries: 8
log_level: debug
model_folder: models
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "peek.py").write_text(PEEK)
    return tmp_path / "demo.yaml"


def panic(*arguments: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({VARIABLE: key, "ALSO": f"x{key}y"} if key else {})
    command = [sys.executable, "-m", "panic", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LONGEST_S)


def holders(folder: Path) -> list[str]:
    """The files that hold the key as it is; what tables hold compressed is looked at apart."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_no_store_log_export_or_report_holds_a_planted_key(config: Path, tmp_path: Path) -> None:
    with Server(faults=lambda number: "echo" if number % 4 == 1 else "") as server:
        config.write_text(CONFIG.format(url=server.url, variable=VARIABLE))
        done = panic("run", str(config), "-v")
        assert done.returncode == 0, done.stderr
        assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {KEY}"}
        told = [done.stdout, done.stderr]
        for command in (["status"], ["show", "--json"], ["dump"], ["report", "-o", "report.html"]):
            told.append(panic(*command, key=None).stdout)
        assert panic("export", "-o", "tables", key=None).returncode == 0
    assert not [text for text in told if KEY in text]
    assert (tmp_path / "report.html").is_file()
    assert holders(tmp_path) == []
    tables = [pl.read_parquet(file) for file in (tmp_path / "tables").glob("*.parquet")]
    assert tables
    assert not [table for table in tables if KEY in str(table.to_dicts())]
    logs = "".join(file.read_text() for file in (tmp_path / "panic-store").rglob("*.log"))
    assert "bad Bearer (key)" in logs
    with Store(tmp_path / "panic-store") as store:
        texts = [text for (text,) in store.db.rows("SELECT text FROM output WHERE text LIKE '% and %'")]
        assert texts
        assert all(text.endswith("nothing") for text in texts)


@pytest.fixture
def plain(config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Server, str], Path]:
    """A config of the endpoint alone, for a process that has the key."""
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("ALSO", f"x{KEY}y")

    def write(server: Server, more: str = "") -> Path:
        text = CONFIG.format(url=server.url, variable=VARIABLE).replace("[[chat, Peek]]", "[[chat]]")
        text = text.replace("diagrams: {max_dimension: 0, modality: text}\n", "")
        config.write_text(text.replace("model_folder: models\n", "") + more)
        return config

    return write


@pytest.mark.parametrize("executor", ["local", "process"])
def test_code_of_the_user_that_can_see_a_key_is_told_of(
    config: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    with Server() as server:
        text = CONFIG.format(url=server.url, variable=VARIABLE).replace("max_length: 6", "max_length: 2")
        config.write_text(f"{text}executor: {executor}\n")
        done = call("run", config)
    assert done.exit_code == 0, done.stderr
    told = f"executor: local lets models of yours see the keys in {VARIABLE}"
    assert done.stderr.count(told) == (executor == "local")


def test_a_redirect_to_another_host_is_not_followed(plain: Callable[..., Path]) -> None:
    with Server() as other, Server(faults=lambda number: "redirect") as server:
        server.elsewhere = f"http://localhost:{other.port}/v1/chat/completions"
        done = call("run", plain(server))
        assert done.exit_code == 1
        assert "redirects are not followed" in done.stderr
        assert len(other.requests) == 0


def test_an_answer_that_repeats_the_key_is_not_stored(plain: Callable[..., Path], tmp_path: Path) -> None:
    with Server(text=lambda number, seen: f"you sent {seen.headers['authorization']}") as server:
        done = call("run", plain(server))
        assert done.exit_code == 1
        assert "repeats the key" in done.stderr
    assert holders(tmp_path) == []
    with Store(tmp_path / "panic-store") as store:
        [session] = reading.sessions(store)
    assert set(session.provenance["environment"]) >= {VARIABLE, "ALSO"}
    assert KEY not in str(session)


def test_a_missing_key_is_told_before_anything_is_asked(
    plain: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as server:
        monkeypatch.delenv(VARIABLE)
        done = call("run", plain(server))
        assert (done.exit_code, len(server.requests)) == (1, 0)
        assert f"the environment has no {VARIABLE}" in done.stderr
        assert "missing" in call("run", plain(server), "--dry-run").stdout


def test_a_stored_endpoint_and_its_key_are_used_with_trust_alone(
    plain: Callable[..., Path], tmp_path: Path
) -> None:
    with Server() as server:
        assert call("run", plain(server, "budget: {requests: 5}\n")).exit_code == 1
        refused = call("resume", "demo")
        assert refused.exit_code == 2
        assert f"the key in '{VARIABLE}' of the environment" in refused.stderr
        assert server.url in refused.stderr
        assert len(server.requests) == 5
        assert call("run", plain(server, "budget: {requests: 6}\n")).exit_code == 1
        assert call("resume", "demo", "--trust").exit_code == 1  # the budget is that of the store
        assert len(server.requests) == 6


def test_status_and_the_dry_run_tell_requests_tokens_and_costs(plain: Callable[..., Path]) -> None:
    with Server() as server:
        more = "prices: {chat: {input: 2, output: 10}}\nbudget: {requests: 1e3, tokens: 5e6}\n"
        plan = call("run", plain(server, more), "--dry-run")
        assert "chat is behind an endpoint" in plan.stdout
        assert "at most 12 requests" in plan.stdout
        assert call("run", plain(server, more)).exit_code == 0
        status = call("status")
        assert "26 of 1,000 requests" in status.stdout
        assert "0.0008" in status.stdout  # 12 x (10 x 2 + 5 x 10) / 1e6
        assert "served-1 fp-1" in status.stdout
        longer = call("run", plain(server, more), "--set", "max_length=20", "--dry-run")
        assert "at most 28 requests, about 420 tokens" in longer.stdout
        assert "26 not repeatable" in call("verify", "--trust").stdout


def test_a_spent_budget_is_a_state_and_an_exit_code(plain: Callable[..., Path]) -> None:
    with Server() as server:
        done = call("run", plain(server, "budget: {requests: 5}\n"))
        assert done.exit_code == 1
        assert "The budget is spent: 5 of 5 requests" in done.stderr
        assert "budget spent" in call("status").stdout
        assert "budget spent" in call("list").stdout
        assert call("run", plain(server, "budget: {requests: 100}\n")).exit_code == 0
        assert "complete" in call("status").stdout
