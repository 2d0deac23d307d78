"""Python models that take their process with them: a batch is lost, the run ends, the driver goes on."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.errors import ConflictError, ModelError
from panic.store import Store, check, reading
from panic.store.dump import dump
from tests.engine.conftest import make_config
from tests.patience import LONGEST_S
from tests.processes import until_dead

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
        pytest.param("recursion", "failed", "RecursionError", marks=pytest.mark.slow),
        ("segfault", "failed", "SIGSEGV"),
        pytest.param("stdout", "failed", "closed file", marks=pytest.mark.slow),
        pytest.param("prints", "done", "", marks=pytest.mark.slow),
        ("fork", "done", ""),
        pytest.param("fork and exit", "failed", "exit status 3", marks=pytest.mark.slow),
        pytest.param("files", "failed", "ended", marks=pytest.mark.slow),
        pytest.param("untellable", "failed", "Bad", marks=pytest.mark.slow),
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


LEAVING_LATE = """
import sys

class Late:
    def __array__(self, *wanted, **more):
        sys.exit(5)

class Vectors:
    modality_in, modality_out, size_bytes = "text", "vector", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        return [Late() for text in inputs]
"""


def test_what_leaves_when_its_result_is_looked_at_is_no_answer_that_never_comes(tmp_path: Path) -> None:
    """The thread that looks ended without a word, and the driver waited for ever."""
    (tmp_path / "own.py").write_text(LEAVING_LATE)
    config = make_config(
        executor="auto", networks=[["upper-case"]], embeddings=[f"python:{tmp_path}/own.py:Vectors"],
        prompts=["state 0"], seeds=[-1], repeats=1, max_length=1, max_retries=0, timeout_s=LONGEST_S,
        models={}, batch_sizes={},
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"has no vector: .*SystemExit"):
        run(config, tmp_path / "s")


BESIDE = """
import numpy
from beside import MARK

class Shout:
    modality_in, modality_out, size_bytes = "text", "text", 0
    def __init__(self, **values): pass
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        return [text + MARK + str(numpy.float32(1.5)) for text in inputs]
    def bucket(self, item): return len(item) % 2
Shout.batch_size = 3
"""


def test_a_file_in_the_working_folder_stands_in_for_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes found a user's numpy.py before numpy. What lies beside a model's file is found last."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(BESIDE)
    (tmp_path / "beside.py").write_text("MARK = '?'")
    for name in ("numpy", "queue", "panic", "apsw"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is no library')")
    config = make_config(
        executor="auto", networks=[["python:own.py:Shout"]], embeddings=["synthetic/state-embedding"],
        models={}, prompts=["state 0"], seeds=[-1], repeats=1, max_length=1, batch_sizes={},
        diagrams=[{"modality": "text", "max_dimension": 0}],
    )  # fmt: skip
    assert run(config, tmp_path / "s").state == "complete"
    with Store(tmp_path / "s") as store:
        assert any(line.get("text") == "state 0?1.5" for line in dump(store))


LEAVING = """
import os, subprocess, sys

class Leave:
    modality_in, modality_out, size_bytes = "text", "text", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        started = subprocess.Popen(["sleep", "600"])
        with open({file!r}, "a") as file:
            print(started.pid, file=file)
        print("what a model prints " + "x" * 10_000)
        for _ in range(400):
            print("y" * 8_000)
        if "exit" in inputs:
            os._exit(3)
        return [text + "!" for text in inputs]
"""


def leaving(folder: Path, prompt: str) -> ExperimentConfig:
    (folder / "own.py").write_text(LEAVING.format(file=str(folder / "pids")))
    networks = [[f"python:{folder}/own.py:Leave"]]
    shape = {"models": {}, "batch_sizes": {}, "seeds": [-1], "repeats": 1, "max_length": 1, "max_retries": 0}
    return make_config(networks=networks, prompts=[prompt], executor="process", **shape)


@pytest.mark.parametrize("prompt", ["good", "exit"])
def test_what_a_model_has_started_ends_with_its_process(tmp_path: Path, prompt: str) -> None:
    run(leaving(tmp_path, prompt), tmp_path / "s")
    [pid] = (int(line) for line in (tmp_path / "pids").read_text().splitlines())
    until_dead(pid)  # in ten minutes by itself, which is longer than this test may take


def test_what_a_model_prints_is_in_the_log_as_far_as_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "panic.engine"):
        run(leaving(tmp_path, "good"), tmp_path / "s")
    told = [record.getMessage() for record in caplog.records if " prints" in record.getMessage()]
    assert "what a model prints xxx" in told[0]
    assert told[-1].endswith("is not logged")
    assert 2**20 <= sum(map(len, told)) < 1.2 * 2**20


LAST_WORDS = """
import os
class Last:
    modality_in, modality_out, size_bytes = "text", "text", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        print("the last words")
        os._exit(3)
"""


def test_what_a_model_prints_before_its_process_dies_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "last.py").write_text(LAST_WORDS)
    config = leaving(tmp_path, "good").model_copy(update={"networks": [[f"python:{tmp_path}/last.py:Last"]]})
    with caplog.at_level(logging.INFO, "panic.engine"):
        run(config, tmp_path / "s")
    assert "prints: the last words" in caplog.text


BARS = """
import sys
from tqdm import tqdm
for word in tqdm(["imported"], disable=False): pass

class Own:
    modality_in, modality_out, size_bytes = "text", "text", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        print("said", file=sys.stderr, flush=True)
        return [text + "!" for text in tqdm(inputs, disable=False)]
Own.batch_size = 2
"""


@pytest.mark.slow
def test_a_bar_of_a_users_is_drawn_where_nobody_reads_stderr_any_more(tmp_path: Path) -> None:
    """It failed every run with a broken pipe, or kept the lock of all bars; and the class was not known."""
    (tmp_path / "own.py").write_text(BARS)
    config = {
        "name": "x", "networks": [[f"python:{tmp_path}/own.py:Own"]], "prompts": ["a"], "seeds": [-1],
        "max_length": 3, "device": "cpu", "max_retries": 0,
    }  # fmt: skip
    made = f"panic.config.ExperimentConfig.model_validate({config!r})"
    code = f"import panic, panic.config; print(panic.run({made}, {str(tmp_path / 's')!r}).state)"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stderr=writer,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    os.close(writer)
    assert done.stdout == "complete\n"


CHANGING = """
import os
from pathlib import Path

IS_FIRST = True

class Changing:
    modality_in, modality_out, size_bytes = "text", "text", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        if IS_FIRST:
            file = Path(__file__)
            file.write_text(file.read_text().replace("IS_FIRST = True", "IS_FIRST = False"))
            os._exit(7)
        return [text + " by the changed file" for text in inputs]
"""


def test_a_file_that_changes_during_a_session_gives_nothing_under_the_name_of_the_former_one(
    tmp_path: Path,
) -> None:
    """A process that began later, or again, read it anew: its results were stored as the former model's."""
    file = tmp_path / "changing.py"
    file.write_text(CHANGING)
    values = {"networks": [["changes"]], "models": {"changes": {"base": f"python:{file}:Changing"}}}
    config = ExperimentConfig.model_validate(
        {"name": "x", "prompts": ["a"], "seeds": [-1], "max_length": 2, "device": "cpu", **values}
    )
    with pytest.raises(ModelError, match="changes: its files have changed since the session began"):
        run(config, tmp_path / "store")
    with Store(tmp_path / "store") as store:
        assert store.db.value("SELECT count(*) FROM invocation") == 0
    file.write_text(CHANGING.replace("IS_FIRST = True", "IS_FIRST = False").replace("changed", "new"))
    with pytest.raises(ConflictError):
        run(config, tmp_path / "store")
