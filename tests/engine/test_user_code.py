"""Python models that take their process with them: a batch is lost, the run ends, the driver goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic import run
from panic.store import Store, check, reading
from tests.engine.conftest import make_config

MODEL = """
import ctypes, os, sys

class Bad(Exception):
    def __str__(self): raise RuntimeError("no text")

def endless(): return endless()

def lasting():
    if os.fork() == 0:
        import time
        time.sleep(20)
        os._exit(0)
    os._exit(3)

ACTS = {{
    "exit": lambda: os._exit(7),
    "sys.exit": lambda: sys.exit(3),
    "recursion": endless,
    "segfault": lambda: ctypes.string_at(0),
    "stdout": lambda: (sys.stdout.close(), print("x")),
    "prints": lambda: [print("x" * 2**20) for _ in range({megabytes})],
    "fork": os.fork,
    "fork and exit": lasting,
    "files": lambda: os.closerange(3, 4096),
    "untellable": lambda: (_ for _ in ()).throw(Bad()),
}}

class Act:
    modality_in, modality_out, size_bytes = "text", "text", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        for text in inputs:
            if text in ACTS:
                ACTS[text]()
        return [text + "!" for text in inputs]
"""


@pytest.mark.parametrize(
    ("act", "state", "reason"),
    [
        ("exit", "failed", "exit status 7"),
        ("sys.exit", "failed", "SystemExit"),
        ("recursion", "failed", "RecursionError"),
        ("segfault", "failed", "SIGSEGV"),
        ("stdout", "failed", "closed file"),
        ("prints", "done", ""),
        ("fork", "done", ""),
        ("fork and exit", "failed", "exit status 3"),
        ("files", "failed", "ended"),
        ("untellable", "failed", "Bad"),
    ],
)
def test_what_users_code_does_costs_its_own_run(tmp_path: Path, act: str, state: str, reason: str) -> None:
    (tmp_path / "own.py").write_text(MODEL.format(megabytes=64))
    config = make_config(
        executor="auto",
        networks=[[f"python:{tmp_path}/own.py:Act"]],
        models={},
        batch_sizes={},
        prompts=["good", act],
        seeds=[-1],
        repeats=1,
        max_length=2,
        max_retries=1,
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        good, bad = reading.runs(store)
        assert check.check(store) == []
    assert good.state == "done"
    assert bad.state == state
    assert reason in (bad.failure.message if bad.failure else "")
