"""What had no effect in a call is named once on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Invoke

CONFIG: dict[str, Any] = {
    "name": "demo",
    "networks": [["draw", "synthetic/image-to-text"]],
    "models": {"draw": {"base": "synthetic/text-to-image"}, "other": {"base": "synthetic/text-to-image"}},
    "prompts": ["a"],
    "seeds": [-1],
    "max_length": 1,
    "device": "cpu",
}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["resume", "--dry-run", "--repair", "--fail-fast"],
            "--repair, --fail-fast: without effect in a",
        ),
        (["verify", "--trust", "--sample", "1"], "--trust: without effect for a config that names nothing"),
        (
            ["embed", "demo", "synthetic/state-embedding", "--trust", "--dry-run"],
            "--trust: without effect for a config that names nothing",
        ),
        (["diagrams", "demo", "--trust", "--dry-run"], "--trust: without effect for a config that names"),
        (["status", "--interval", "3"], "--interval: without effect without --watch"),
        (["show", "--from", "3"], "--from: without effect without --run"),
        (["show", "--config", "--all"], "--all: without effect here: it is shown whole"),
        (["models", "--store", "elsewhere"], "--store: without effect for this command"),
        (["devices", "--store", "elsewhere"], "--store: without effect without --plan"),
    ],
)
def test_options_without_effect_are_named_once(
    panic: Invoke, store: Path, arguments: list[str], told: str
) -> None:
    done = panic(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stderr.count(told) == 1
    assert done.stderr.count("without effect") == 1


ONE = {"models": {"draw": CONFIG["models"]["draw"]}}
TOLD = {"models": {}, "networks": [["upper-case"]]}


@pytest.mark.parametrize(
    ("changes", "arguments", "told"),
    [
        ({}, [], ["uses other of `models`"]),
        (ONE | {"seeds": [1], "root_seed": 3}, [], ["`root_seed` is"]),
        (ONE | {"diagram_workers": 1}, [], ["`diagram_workers` is"]),
        (
            ONE | {"notify": {"to": ["A"], "on": ["end"], "stall_minutes": 3}},
            [],
            ["`stall_minutes` of `notify`"],
        ),
        (TOLD | {"reject_constant_images": True}, [], ["`reject_constant_images` is"]),
        (ONE | {"ray": {"workers": 2}}, [], ["`ray` is without effect, for it has executor: auto"]),
        (ONE, ["-y"], ["--yes: without effect without --repin"]),
        (ONE, [], []),
    ],
)
def test_fields_without_effect_are_named_once(
    panic: Invoke, tmp_path: Path, changes: dict[str, object], arguments: list[str], told: list[str]
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    done = panic("run", "config.yaml", "--dry-run", *arguments)
    assert done.exit_code == 0, done.output
    assert len(done.stderr.splitlines()) == len(told), done.stderr
    for sentence, line in zip(told, done.stderr.splitlines(), strict=True):
        assert sentence in line


def test_a_misspelt_variable_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "PANIC_STOER": "x", "PANIC_STORE": "y", "PANIC_HOUSE": "z"}
    done = subprocess.run(
        [sys.executable, "-m", "panic", "list"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert "PANIC_STOER: without effect; did you mean PANIC_STORE?" in done.stderr
    assert "PANIC_HOUSE" not in done.stderr
