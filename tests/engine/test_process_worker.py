"""Models in a child process: crashes and hangs cost a batch, the driver goes on."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.devices.events import read_events
from panic.errors import ModelError
from panic.store import Store, check, contents, reading
from tests.engine.conftest import dump, make_config
from tests.patience import LONGEST_S
from tests.processes import running, until_dead

MODELS = '''
import os
import time
from pathlib import Path

from panic.models.synthetic import ImageToText


class Evil(ImageToText):
    """Does something terrible when it reads state 3; once only if `once` names a file to remember it."""

    PARAMETERS = {}

    def __init__(self, deed="exit", once=""):
        super().__init__(kernel="identity")
        self.deed, self.once = deed, once

    def invoke(self, inputs, seeds):
        texts = super().invoke(inputs, seeds)
        if "state 3" in texts and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            if self.deed == "exit":
                os._exit(7)
            if self.deed == "hang":
                time.sleep(600)
            if self.deed == "exit later":
                return [Deadly() if text == "state 3" else text for text in texts]
        return texts


class Named(type):
    __name__ = property(lambda cls: os._exit(7))


class Deadly(metaclass=Named):
    """No text; whoever asks for the name of its class, to tell so, ends the process."""
'''


def evil_config(folder: Path, *, size: int = 8, **parameters: Any) -> ExperimentConfig:
    (folder / "evil.py").write_text(MODELS)
    return make_config(
        models={
            "draw": {"base": "synthetic/text-to-image", "size": size},
            "chain": {"base": f"python:{folder}/evil.py:Evil", **parameters},
        },
        prompts=[f"state {number}" for number in range(6)],
        seeds=[-1],
        repeats=1,
        max_length=8,
        executor="process",
    )


def test_same_results_as_in_this_process(tmp_path: Path) -> None:
    config = make_config()
    run(config, tmp_path / "local")
    run(config.model_copy(update={"executor": "process"}), tmp_path / "child")
    assert dump(tmp_path / "local") == dump(tmp_path / "child")


@pytest.mark.parametrize("deed", ["exit", pytest.param("exit later", marks=pytest.mark.slow)])
def test_a_crash_ends_the_guilty_run_only(tmp_path: Path, deed: str) -> None:
    """Also one that comes while the output is looked at: such a process was started again for ever."""
    outcome = run(evil_config(tmp_path, deed=deed), tmp_path / "s")
    assert outcome.state == "failed"
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        states = {row.prompt: row.state for row in reading.runs(store)}
        assert states.pop("state 3") == "failed"
        assert set(states.values()) == {"done"}
        (failed,) = (row for row in reading.runs(store) if row.state == "failed")
        assert failed.failure is not None
        assert failed.failure.kind == "crash"
        assert "exit status 7" in failed.failure.message


def test_a_crash_that_does_not_come_again_costs_nothing(tmp_path: Path) -> None:
    outcome = run(evil_config(tmp_path, once=str(tmp_path / "done")), tmp_path / "s")
    assert outcome.state == "complete"
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("size", [8, pytest.param(400, marks=pytest.mark.slow)])
def test_a_hang_is_ended_by_the_time_limit(tmp_path: Path, size: int) -> None:
    """Also when the next batch's pixels fill the pipe to the process that hangs.

    On a busy machine a good call may take longer than a short limit, twice in a row: then a long one says.
    """
    for limit_s in (2.0, 20.0):
        path = tmp_path / f"{limit_s:g}"
        config = evil_config(tmp_path, size=size, deed="hang").model_copy(
            update={
                "timeout_s": limit_s,
                "max_retries": 1,
                "prompts": ["state 3", "state 1", "state 2"],
                "batch_sizes": {"draw": 1, "chain": 1},
            }
        )
        run(config, path)
        with Store(path) as store:
            failed = {row.prompt: row.failure for row in reading.runs(store) if row.state == "failed"}
            (rows,) = reading.timelines(store).values()
        if len(failed) == 1:
            break
    assert list(failed) == ["state 3"]
    assert failed["state 3"] is not None
    assert f"no answer within {limit_s:g} s" in failed["state 3"].message
    lost_s = sum(row["seconds"] for row in rows if row["name"] == "lost with its process")
    assert 2 * limit_s <= lost_s < 600


def test_children_do_not_outlive_their_driver(tmp_path: Path) -> None:
    """A killed driver must not leave a process with models behind."""
    hanging = tmp_path / "hanging"
    config = evil_config(tmp_path, deed="hang", once=str(hanging)).model_copy(update={"timeout_s": 500.0})
    code = (
        "import sys\nfrom panic import run\nfrom panic.config import ExperimentConfig\n"
        "run(ExperimentConfig.model_validate_json(sys.argv[1]), sys.argv[2])"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, config.model_dump_json(), str(tmp_path / "s")])
    while not hanging.exists():
        assert driver.poll() is None, "it ended before its model was called"
        time.sleep(0.05)
    children = children_of(driver.pid)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert children
    for pid in children:
        until_dead(pid)


def children_of(pid: int) -> list[int]:
    return [child.pid for child in running("panic.engine.child", below=pid)]


@pytest.mark.parametrize("executor", ["local", "process"])
def test_out_of_memory_halves_the_batch_in_a_new_epoch(tmp_path: Path, executor: str) -> None:
    (tmp_path / "wide.py").write_text(
        "from panic.models.synthetic import ImageToText\n"
        "class Wide(ImageToText):\n"
        "    PARAMETERS = {}\n"
        "    size_bytes = 50\n"
        "    def __init__(self): super().__init__(kernel='cycle')\n"
        "    def working_bytes(self, batch_size): return 20 * batch_size\n"
    )
    config = make_config(
        models={
            "draw": {"base": "synthetic/text-to-image"},
            "chain": {"base": f"python:{tmp_path}/wide.py:Wide"},
        },
        batch_sizes={"draw": 4, "chain": 16},
        device="sim:100",
        headroom=0,
        executor=executor,
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        sizes = [row.batch_size for row in reading.epochs(store, "latest") if row.name == "chain"]
        assert sizes == [16, 8, 4, 2]
        used = {step.batch_size for step in contents.invocations(store, 2) if step.model == "chain"}
        assert used <= {1, 2}
        uid = reading.experiment(store, "latest").uid
    events = read_events((tmp_path / "s" / "cache").glob(f"{uid}*.jsonl"))
    told = [event["model"] for event in events if event["event"] == "out_of_memory"]
    assert len(told) >= 3, "each halving is told"
    assert set(told) == {"chain"}
    before = dump(tmp_path / "s")
    run(config, tmp_path / "s")
    assert dump(tmp_path / "s") == before


def test_a_run_is_stuck_only_by_states_of_one_shape_epoch(tmp_path: Path) -> None:
    """A model that runs out of memory in the middle: live detection, resume and `check` agree."""
    (tmp_path / "greedy.py").write_text(
        "from pathlib import Path\n"
        "from panic.errors import OutOfMemory\n"
        "from panic.models.synthetic import ImageToText\n"
        "class Greedy(ImageToText):\n"
        "    PARAMETERS = {}\n"
        "    calls = 0\n"
        "    def __init__(self): super().__init__(kernel='cycle')\n"
        "    def invoke(self, inputs, seeds):\n"
        "        Greedy.calls += 1\n"
        "        if Greedy.calls > 6 and len(inputs) > 2: raise OutOfMemory('no room')  # 3 calls prove it\n"
        "        return super().invoke(inputs, seeds)\n"
    )
    config = make_config(
        models={
            "draw": {"base": "synthetic/text-to-image"},
            "chain": {"base": f"python:{tmp_path}/greedy.py:Greedy"},
        },
        prompts=["state 0", "state 4"],
        seeds=[1],
        repeats=1,
        max_length=60,
        batch_sizes={"draw": 4, "chain": 4},
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        assert [row.batch_size for row in reading.epochs(store, "latest") if row.name == "chain"] == [4, 2]
        assert all(row.state == "stuck" and row.entry_step for row in reading.runs(store))


def test_a_batch_behind_one_that_ran_out_of_memory_is_of_the_old_epoch(tmp_path: Path) -> None:
    """Two full batches in flight: the first halves the shape, the second's results are not of the new one."""
    (tmp_path / "moody.py").write_text(
        "from panic.errors import OutOfMemory\n"
        "from panic.models.synthetic import TextToImage\n"
        "class Moody(TextToImage):\n"
        "    PARAMETERS = {}\n"
        "    calls = 0\n"
        "    def __init__(self): super().__init__(size=8)\n"
        "    def invoke(self, inputs, seeds):\n"
        "        Moody.calls += 1\n"
        "        if Moody.calls in (4, 5): raise OutOfMemory('no room')  # 3 calls before them prove it\n"
        "        return super().invoke(inputs, seeds)\n"
    )
    config = make_config(
        models={
            "draw": {"base": f"python:{tmp_path}/moody.py:Moody"},
            "chain": {"base": "synthetic/image-to-text"},
        },
        prompts=[f"prompt {number}" for number in range(40)],
        seeds=[-1],
        repeats=1,
        max_length=4,
        batch_sizes={"draw": 16, "chain": 16},
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        assert [row.batch_size for row in reading.epochs(store, "latest") if row.name == "draw"] == [16, 8]
        steps = [step for row in reading.runs(store) for step in contents.invocations(store, row.id)]
        assert {(step.model, step.batch_size) for step in steps} == {("draw", 8), ("chain", 16)}
        assert len(steps) == 40 * 4


@pytest.mark.parametrize("executor", ["local", "process"])
def test_a_model_that_exits_while_loading_is_told(tmp_path: Path, executor: str) -> None:
    (tmp_path / "quitter.py").write_text(
        "import os, sys\n"
        "from panic.models.synthetic import ImageToText\n"
        "class Quitter(ImageToText):\n"
        "    PARAMETERS = {}\n"
        "    def __init__(self): super().__init__()\n"
        f"    def load(self, device): {'sys.exit(3)' if executor == 'local' else 'os._exit(3)'}\n"
    )
    config = make_config(
        models={
            "draw": {"base": "synthetic/text-to-image"},
            "chain": {"base": f"python:{tmp_path}/quitter.py:Quitter"},
        },
        executor=executor,
    )
    with pytest.raises(ModelError, match="3"):
        run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert not any(row.failure for row in reading.runs(store))
        assert reading.counts(store).invocations == 6


@pytest.mark.slow
def test_an_idle_diagram_process_may_die(tmp_path: Path) -> None:
    from panic.config import DiagramSettings
    from panic.engine.pool import JobResult, Pool
    from panic.engine.stages.diagrams import DiagramJob

    config = make_config(max_length=4, embeddings=["synthetic/state-embedding"])
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        model = reading.model(store, "synthetic/state-embedding").id
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    pool = Pool(tmp_path / "s", [DiagramSettings()], inbox.put, num_workers=1)
    try:
        pool.submit(DiagramJob(1, model, 0), None)
        assert inbox.get(timeout=LONGEST_S).rows is not None
        (idle,) = children_of(os.getpid())
        os.kill(idle, signal.SIGKILL)
        until_dead(idle)
        time.sleep(0.2)
        pool.submit(DiagramJob(2, model, 0), None)
        assert inbox.get(timeout=LONGEST_S).rows is not None
    finally:
        pool.close()


def test_what_ends_a_thread_beside_a_child_is_delivered() -> None:
    """A message that could not be written was lost, and its answer awaited for ever."""
    from panic.engine.child import Child

    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    child = Child("panic.engine.child:_end_with_parent", (), messages.put, messages.put)
    try:
        child.send(lambda: None)  # cannot be pickled
        assert "pickle" in str(messages.get(timeout=LONGEST_S))
    finally:
        child.kill()
        child.close()


def test_a_thread_that_hands_messages_over_tells_its_end() -> None:
    from panic.engine.child import Child

    def refuse(message: Any) -> None:
        raise RuntimeError("can't start new thread")

    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    child = Child("panic.engine.child:main", ("no such", "function"), refuse, errors.put)
    assert str(errors.get(timeout=LONGEST_S)) == "can't start new thread"
    child.close()


def test_a_time_limit_of_all_sockets_is_none_of_a_child() -> None:
    """A notebook may have set one: reading from the pipe then failed wherever nothing was there yet."""
    from panic.engine.child import Child

    socket.setdefaulttimeout(5)
    try:
        child = Child("panic.engine.child:_end_with_parent", (), lambda message: None, lambda error: None)
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(child._connection.fileno())
    child.kill()
    child.close()
