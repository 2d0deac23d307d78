"""The diagrams stage's processes: every task answered once, whatever ends; what settings ask for is kept."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panic import run
from panic.config import DiagramSettings
from panic.engine.diagrams import DiagramFailure, DiagramPool, DiagramTask, settings_digest
from panic.store import Store
from panic.store.records import NewDiagram
from tests.engine.conftest import make_config
from tests.engine.test_process_executor import children_of


@pytest.fixture
def embedded(tmp_path: Path) -> tuple[Path, int]:
    """A store of 4 runs with vectors, and the embedding model's row."""
    run(make_config(max_length=6, embeddings=["synthetic/state-embedding"]), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        return tmp_path / "s", store.model("synthetic/state-embedding").id


def test_keys_of_settings_in_existing_stores_stay() -> None:
    """The key of diagrams in every store so far; a change would compute all of them again."""
    known = "764890bb50649f30fa7f4ad57f2df4cf"
    assert settings_digest(DiagramSettings())[:32] == known


def test_every_task_is_answered_once_with_work_handed_out_ahead(embedded: tuple[Path, int]) -> None:
    path, model = embedded
    inbox: queue.SimpleQueue[NewDiagram | DiagramFailure] = queue.SimpleQueue()
    pool = DiagramPool(path, DiagramSettings(), inbox.put, num_workers=2)
    asked = [1, 2, 3, 4] * 15
    try:
        for number in asked:
            pool.submit(DiagramTask(number, model))
        answers = [inbox.get(timeout=60) for _ in asked]
        assert sorted(a.run for a in answers if isinstance(a, NewDiagram)) == sorted(asked)
        assert inbox.empty()
        assert len(children_of(os.getpid())) <= 2
    finally:
        pool.close()


def test_a_process_that_dies_costs_one_attempt_and_its_other_tasks_go_on(embedded: tuple[Path, int]) -> None:
    path, model = embedded
    inbox: queue.SimpleQueue[NewDiagram | DiagramFailure] = queue.SimpleQueue()
    pool = DiagramPool(path, DiagramSettings(), inbox.put, num_workers=1)
    try:
        pool.submit(DiagramTask(1, model))
        assert isinstance(inbox.get(timeout=60), NewDiagram)
        (child,) = children_of(os.getpid())
        os.kill(child, signal.SIGSTOP)  # so that it certainly holds several
        for number in (1, 2, 3):
            pool.submit(DiagramTask(number, model))
        os.kill(child, signal.SIGKILL)
        answers = [inbox.get(timeout=60) for _ in range(3)]
        (failure,) = [a for a in answers if isinstance(a, DiagramFailure)]
        assert failure.crashed
        assert failure.task.run == 1
        assert [a.run for a in answers if isinstance(a, NewDiagram)] == [2, 3]
    finally:
        pool.close()


def test_generators_are_stored_where_the_config_asks_for_them(tmp_path: Path) -> None:
    config = make_config(
        prompts=["state 0"],
        seeds=[42],
        repeats=1,
        embeddings=["synthetic/state-embedding"],
        diagrams={"max_dimension": 1, "generators": True},
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        (row,) = store.runs()
        found = store.generators(row.id, "synthetic/state-embedding", 0)
        assert found is not None
        assert found.shape == (len(store.bars(row.id, "synthetic/state-embedding", 0)), 3)


def test_beyond_its_share_an_allocation_fails_and_nobody_is_killed() -> None:
    code = (
        "import numpy as np\n"
        "from panic.engine.diagrams import limit_memory\n"
        "limit_memory(50 * 2**20)\n"
        "np.ones(2 * 2**20)\n"
        "try:\n    np.ones(20 * 2**20)\nexcept MemoryError:\n    print('refused')\n"
    )
    if sys.platform != "linux":
        pytest.skip("the limit is Linux's")
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.stdout.strip(), done.returncode) == ("refused", 0), (done.stderr, time.monotonic() - began)
