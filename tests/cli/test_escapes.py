"""Escape sequences in prompts, captions, names and messages reach no terminal and no log file."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import polars as pl
import pytest
import yaml

from panic.cli.common import visible, visible_json

from .conftest import Invoke, call, read_terminal

NASTY = "state 1 \x1b]0;owned\x07\x1b[2J\r\x7f\x9b31m \u202egnp.exe\u2066 \u2028 end 👩\u200d👩 \U000e0041"
MODEL = '''
class Nasty:
    """Draws nothing and says what a terminal would obey."""
    modality_in = "text"
    modality_out = "text"
    size_bytes = 0

    def load(self, device): pass

    def invoke(self, inputs, seeds):
        if any("fail" in text for text in inputs):
            raise ValueError("\\x1b[31mraised \\x9b2J \\u202e\\nERROR   forged line")
        return [text[:60] + "\\x1b[5m \\x9b \\u202e caption" for text in inputs]
'''


def obeyed(text: str) -> set[str]:
    """What a terminal might obey in a text, apart from lines."""
    return {
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\u200d"
    }


@pytest.fixture(scope="module")
def performed_nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and the store that it has filled."""
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "nasty.py").write_text(MODEL)
    config = {
        "name": "nasty",
        "networks": [["bad\x1b[7m\u202emodel"]],
        "models": {"bad\x1b[7m\u202emodel": {"base": "python:nasty.py:Nasty"}},
        "prompts": [NASTY, f"fail {NASTY}"],
        "seeds": [-1],
        "max_length": 3,
        "batch_sizes": {"bad\x1b[7m\u202emodel": 1},
        "device": "cpu",
        "executor": "local",
    }
    (folder / "nasty.json").write_text(json.dumps(config))
    done = call("run", folder / "nasty.json", "--store", folder / "panic-store")
    assert done.exit_code == 1
    assert "raised" in done.stderr
    assert not obeyed(done.output)
    return folder


@pytest.fixture
def nasty(performed_nasty: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(performed_nasty)
    return performed_nasty


@pytest.mark.parametrize("text", [NASTY, "\x00", "\x85", "\ud800", "a\tb\n"])
def test_a_text_that_is_made_visible_keeps_what_it_says(text: str) -> None:
    assert not obeyed(visible(text).replace("\t", ""))
    assert visible(visible(text)) == visible(text)
    assert json.loads(visible_json(json.dumps(text, ensure_ascii=False))) == text
    assert not obeyed(visible_json(json.dumps(text, ensure_ascii=False)))


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["status"],
        ["show"],
        ["show", "--run", 1],
        ["show", "--run", 2],
        ["show", "--config"],
        ["stuck"],
        ["run", "nasty.json", "--dry-run"],
        ["figure", "time", "-o", "time.svg", "--force"],
        ["show", "--json"],
        ["show", "--json", "--run", 1],
        ["dump"],
        ["show", "\x1b[31mno such \u202e"],
        ["check", "--store", "\x1b[31mno such \u202e"],
        ["run", "\x1b[31mno such \u202e.yaml"],
        ["run", "nasty.json", "--set", "\x1b[31mno such \u202e=1"],
        ["-v", "run", "nasty.json", "--retry-failed"],
    ],
    ids=lambda command: "-".join(map(str, command)).replace("\x1b", "").replace("\u202e", ""),
)
def test_escape_sequences_reach_no_terminal(panic: Invoke, nasty: Path, command: list[object]) -> None:
    done = panic(*command)
    assert done.output
    assert not obeyed(done.output)


def test_csv_is_exact_for_programs_and_obeyed_by_no_terminal(panic: Invoke, nasty: Path) -> None:
    exact = panic("returns", "--csv").stdout
    assert "\x1b[5m" in exact
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "panic", "returns", "--csv"]
    with subprocess.Popen(command, stdout=theirs) as process:
        os.close(theirs)
        shown = read_terminal(ours).decode()
        assert process.wait() == 0
    assert shown.replace("\r\n", "\n") == visible(exact)


def test_escape_sequences_reach_no_log(panic: Invoke, nasty: Path) -> None:
    log = min(Path("panic-store/logs").glob("*.log"))
    text = log.read_text(encoding="utf-8")
    assert "raised" in text
    assert not obeyed(text)
    assert not any(line.startswith("ERROR   forged") for line in text.splitlines())


def test_json_yaml_and_parquet_keep_every_character(panic: Invoke, nasty: Path) -> None:
    assert json.loads(panic("show", "--json").stdout)["config"]["prompts"][0] == NASTY
    assert yaml.safe_load(panic("show", "--config").stdout)["prompts"][0] == NASTY
    assert panic("export", "-o", "tables", "--force").exit_code == 0
    assert NASTY in pl.read_parquet("tables/output.parquet")["text"].to_list()
