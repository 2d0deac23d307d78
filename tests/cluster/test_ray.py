"""Ray for real: a cluster of two nodes on this machine, whatever comes, goes, or differs."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest
import yaml

from panic import run
from panic.config import ExperimentConfig
from panic.devices.device import CpuDevice
from panic.engine.pinning import is_known_to_be_steady, surroundings
from panic.engine.pins import calibrate, lay
from panic.engine.plan import CheckedConfig, expanded_runs
from panic.engine.progress import Progress
from panic.engine.ray_connection import OurPath, open_cluster
from panic.engine.shards import Shard
from panic.engine.trust import named_outside
from panic.errors import UsageError
from panic.store import Store, check
from panic.store.merging.merge import merge
from tests.engine.conftest import SYNTHETIC, dump, make_config
from tests.engine.test_workers import MODELS as MEETING
from tests.ports import free_ports
from tests.processes import ask, command_lines, running, until_dead

SIZE = 192
"""Of images whose pixels are more than Ray sends along with an answer: 108 KiB."""
TELLING = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}
"""That a node is gone is noticed sooner."""
MODELS = '''
from panic.models.synthetic import ImageToText


class Chain(ImageToText):
    """The synthetic one, in a file."""

    PARAMETERS = {}

    def __init__(self):
        super().__init__(states=7, kernel="cycle", delay_s=0.02)
'''
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
ray_test = [needs_ray, pytest.mark.slow, pytest.mark.timeout(600)]


class Nodes:
    """A cluster on this machine; this process is connected to its first node."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args=self._arguments(_system_config=QUICK))
        self.address: str = self._cluster.address
        self.add()

    def _arguments(self, **more: Any) -> dict[str, Any]:
        return {
            "num_cpus": 2,
            "object_store_memory": 100 * 2**20,
            "include_dashboard": False,
            "node_ip_address": "127.0.0.1",
            **more,
        }

    def add(self, **environment: str) -> Any:
        arguments = self._arguments()
        del arguments["include_dashboard"]
        return self._cluster.add_node(**arguments, env_vars=environment or None)

    def lose(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    before = dict(os.environ)
    os.environ.update(TELLING)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    import ray

    cluster = Nodes()
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.stop()
        os.environ.clear()
        os.environ.update(before)


def used_bytes() -> float:
    """What the object stores of the cluster hold."""
    import ray

    has, free = ray.cluster_resources(), ray.available_resources()
    return float(has["object_store_memory"] - free.get("object_store_memory", 0.0))


def loops(**changes: Any) -> ExperimentConfig:
    """The synthetic experiment with larger images and enough runs for all workers."""
    usual: dict[str, Any] = {
        "draw": {"size": SIZE, "delay_s": 0.02, "distinct": True},
        "chain": {"delay_s": 0.02, "distinct": True},
        "prompts": [f"prompt {number}" for number in range(8)],
        "seeds": [42, -1],
        "executor": "ray",
        "ray": {"address": "auto", "workers": 4},
    }
    return make_config(**usual | changes)


def with_embeddings() -> dict[str, Any]:
    models = loops().model_dump()["models"] | {"circle": {"base": "synthetic/state-embedding", "states": 7}}
    return {"models": models, "embeddings": ["circle"]}


def devices(store: Path) -> set[str]:
    with sqlite3.connect(store / "store.sqlite") as connection:
        return {device for (device,) in connection.execute("SELECT DISTINCT device FROM batch")}


def used_nodes(store: Path) -> set[str]:
    return {device.split(", ")[1].removeprefix("node ") for device in devices(store)}


def used_workers(store: Path) -> set[str]:
    return {device.split(", ")[2] for device in devices(store)}


def at(*steps: tuple[int, Callable[[], object]]) -> Callable[[Progress], None]:
    """An `on_progress` that does something once so many invocations are there, one after another.

    What gives False is tried again.
    """
    left = list(steps)

    def on_progress(progress: Progress) -> None:
        if left and progress.invocations >= left[0][0] and left[0][1]() is not False:
            del left[0]

    return on_progress


def places() -> list[psutil.Process]:
    """The processes that Ray runs our actors in, of the nodes that this process has started."""
    return running("ray::Place", below=os.getpid())


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The dump of one worker in this process."""
    folder = tmp_path_factory.mktemp("one")
    run(loops(executor="local", ray=None, **with_embeddings()), folder / "store")
    return dump(folder / "store")


class TestCluster:
    pytestmark = ray_test

    def test_four_workers_of_two_nodes_give_what_one_gives(
        self, tmp_path: Path, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All begin before the first goes on."""
        (tmp_path / "meeting.py").write_text(MEETING)
        changes, held = with_embeddings(), list[float]()
        changes["models"]["chain"] = {
            "base": f"python:{tmp_path}/meeting.py:Meeting",
            "folder": str(tmp_path),
        }
        (tmp_path / "expected").write_text("4")
        with caplog.at_level(logging.INFO):
            run(loops(**changes), tmp_path / "ray", on_progress=lambda _: held.append(used_bytes()))
        (tmp_path / "expected").write_text("1")
        run(loops(executor="local", ray=None, **changes), tmp_path / "one")
        assert dump(tmp_path / "ray") == dump(tmp_path / "one")
        assert len(used_nodes(tmp_path / "ray")) == 2
        assert len(used_workers(tmp_path / "ray")) == 4
        with Store(tmp_path / "ray") as store:
            assert check.check(store) == []
            files = store.images.rows("SELECT length(bytes) FROM image")
        [told] = [record.args for record in caplog.records if "the driver sent" in record.msg]
        assert isinstance(told, tuple)
        pixels = len(files) * SIZE * SIZE * 3
        assert len(files) > 100
        assert sum(told) < 0.2 * pixels, "pixels went through the driver"
        assert max(held) > SIZE * SIZE * 3, "no pixels were in the object store"
        deadline = time.monotonic() + 200
        while used_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert used_bytes() == 0

    def test_nodes_tell_their_kernels_to_whoever_plans(self, nodes: Nodes) -> None:
        """They are this machine here; elsewhere the driver's processor may be another one."""
        with open_cluster(loops()) as device:
            assert surroundings(device) == device.surroundings == surroundings(CpuDevice())
            assert is_known_to_be_steady(device) == is_known_to_be_steady(CpuDevice())

    def test_shards_begin_with_the_pins_of_the_cluster(self, tmp_path: Path, nodes: Nodes) -> None:
        settings = {"address": "auto", "workers": 2}
        part = CheckedConfig.of(loops(batch_sizes={}, max_length=8, ray=settings), ask=True)
        found = calibrate(part)
        for number in (1, 2):
            with Store(tmp_path / str(number), write=True, create=True) as store:
                lay(found, part, store)
            runs = Shard(number=number, count=2).runs(expanded_runs(part.config))
            run(part, tmp_path / str(number), runs=runs)
        assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged").conflicts == []
        run(loops(executor="local", ray=None, batch_sizes={}, max_length=8), tmp_path / "whole")
        assert dump(tmp_path / "merged") == dump(tmp_path / "whole")

    def test_three_child_processes_give_the_same(self, tmp_path: Path, expected: list[str]) -> None:
        run(loops(executor="process", ray=None, workers=3, **with_embeddings()), tmp_path / "three")
        assert dump(tmp_path / "three") == expected

    def test_a_process_and_a_node_are_lost_and_another_node_joins(
        self, tmp_path: Path, nodes: Nodes, expected: list[str]
    ) -> None:
        """A third node has a worker, too; it is killed as a whole, after one process."""
        lost, joined = nodes.add(), []

        def join() -> None:
            """Work goes on when the node has begun its worker, however busy the machine is."""
            before, deadline = {one.pid for one in places()}, time.monotonic() + 200
            joined.append(nodes.add())
            while {one.pid for one in places()} <= before and time.monotonic() < deadline:
                time.sleep(0.1)

        def lose() -> bool:
            """The node has done something before, however late it began."""
            if is_used := lost.node_id[:8] in used_nodes(tmp_path / "store"):
                nodes.lose(lost)
            return is_used

        steps = ((40, lambda: places()[0].kill()), (80, lose), (120, join))
        slow = {"size": SIZE, "delay_s": 0.8}  # there is work left when the last node has started its worker
        config = loops(ray={"address": "auto", "workers": 5}, **with_embeddings())
        config.models["draw"].__pydantic_extra__.update(slow)
        run(config, tmp_path / "store", on_progress=at(*steps))
        assert len(joined) == 1
        nodes.lose(joined[0])
        assert without_models(dump(tmp_path / "store")) == without_models(expected)
        assert lost.node_id[:8] in used_nodes(tmp_path / "store")
        assert joined[0].node_id[:8] in used_nodes(tmp_path / "store")

    def test_nodes_that_differ_are_refused_by_name(
        self, tmp_path: Path, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One has another version of what matters; on another one a model's file is another one."""
        other = tmp_path / "site" / "transformers-0.0.1.dist-info"
        other.mkdir(parents=True)
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 0.0.1\n")
        (tmp_path / "site" / "sitecustomize.py").write_text(
            f"import sys\nsys.path.append({str(other.parent)!r})\n"
        )
        file = tmp_path / "models.py"
        file.write_text(MODELS)
        added = [nodes.add(PYTHONPATH=f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}")]

        def change() -> None:
            file.write_text(MODELS + "\n# another one\n")
            added.append(nodes.add())

        models = loops().model_dump()["models"] | {"chain": {"base": f"python:{file}:Chain"}}
        config = loops(models=models, chain={}, max_length=60, ray={"address": "auto", "workers": 6})
        with caplog.at_level(logging.WARNING):
            outcome = run(config, tmp_path / "store", on_progress=at((50, change)))
        assert outcome.state == "complete"
        left_out = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
        # What begins late on a node that was good finds the other file, too.
        told = [one for one in left_out if "its files have changed" not in one]
        assert len(told) == 2
        assert told[0].startswith(f"node {added[0].node_id[:8]} on ")
        assert "transformers is 0.0.1, not" in told[0]
        assert told[1].startswith(f"node {added[1].node_id[:8]} on ")
        assert "chain is another one there" in told[1]
        assert not {node.node_id[:8] for node in added} & used_nodes(tmp_path / "store")
        for node in added:
            nodes.lose(node)

    def test_a_submitted_job_uses_the_cluster_it_is_in(self, tmp_path: Path, nodes: Nodes) -> None:
        """The entry point of a job is a process of a node that has this variable."""
        command = command_of(tmp_path, ray={"workers": 2})
        environment = os.environ | {"RAY_ADDRESS": nodes.address}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        import ray

        there = {node["NodeID"][:8] for node in ray.nodes() if node["Alive"]}
        assert used_nodes(tmp_path / "store") <= there


JOB_SERVER = ("aiohttp_cors", "opencensus", "prometheus_client", "opentelemetry.sdk")
"""Of what `ray[default]` brings, what the server of jobs needs."""


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5e" * 32}
"""Who has it may submit jobs, which are programs. Ray takes one of ~/.ray/auth_token where there is one."""


def lacks_job_server() -> bool:
    try:
        return any(importlib.util.find_spec(name) is None for name in JOB_SERVER)
    except ModuleNotFoundError:
        return True


@contextmanager
def head_node() -> Iterator[str]:
    """A cluster as `ray start` makes one, with the server that takes jobs: its address."""
    port, server, client, agent = free_ports(4)
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=4"]
    words += ["--node-ip-address=127.0.0.1", f"--port={port}", "--object-store-memory=100000000"]
    words += ["--include-dashboard=true", f"--dashboard-port={server}", "--disable-usage-stats"]
    words += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
    path = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment = os.environ | TELLING | TOKEN | path
    process = subprocess.Popen(
        words, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            try:
                urlopen(f"http://127.0.0.1:{server}/api/version", timeout=5).close()
                break
            except HTTPError:  # it answers, to those who have its token
                break
            except OSError:
                pass
            time.sleep(0.5)
        else:
            pytest.fail("the server of jobs never answered")
        yield f"http://127.0.0.1:{server}"
    finally:
        family = list(command_lines(below=process.pid))
        process.terminate()  # it ends its own processes
        _, left = psutil.wait_procs(family, timeout=20)
        ask(left, psutil.Process.kill)
        process.communicate()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(lacks_job_server(), reason="ray[default] is not installed, which takes jobs")
def test_a_job_is_submitted(tmp_path: Path) -> None:
    """`ray job submit`, for real: the job finds the cluster that it is in, and its exit code comes back."""
    with head_node() as address:
        submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", f"--address={address}", "--"]
        command = command_of(tmp_path, ray={"workers": 2}, max_length=20)
        asked = {"env": os.environ | TOKEN, "capture_output": True, "text": True, "check": False}
        done = subprocess.run([*submit, *command], **asked)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(used_workers(tmp_path / "store")) == 2
        assert num_steps(tmp_path / "store") == 320
        for file in (tmp_path / "store").rglob("*"):
            assert file.is_dir() or TOKEN["RAY_AUTH_TOKEN"].encode() not in file.read_bytes(), file
        failing = [*submit, *command[:-1], str(tmp_path / "demo.yaml")]  # a store that is a file
        done = subprocess.run(failing, **asked)
        assert done.returncode != 0
        assert "demo.yaml" in done.stdout + done.stderr


def without_models(lines: list[str]) -> list[str]:
    """A dump without the fingerprints of models, which depend on how long they sleep."""
    return [line for line in lines if "fingerprint" not in line]


def command_of(folder: Path, **changes: Any) -> list[str]:
    """A run of the command line in a process of its own."""
    config = {**SYNTHETIC, "seeds": [-1], "repeats": 8, "max_length": 200, "executor": "ray", **changes}
    models = {name: dict(variant, delay_s=0.02) for name, variant in SYNTHETIC["models"].items()}
    models["talk"] = {
        **{"base": "openai:talk", "task": "text-to-text", "base_url": "https://talk.example/v1"},
        "api_key_env": "TALK_KEY",
    }
    (folder / "demo.yaml").write_text(yaml.safe_dump({**config, "models": models}))
    words = ["run", str(folder / "demo.yaml"), "--store", str(folder / "store")]
    return [sys.executable, "-m", "panic", *words]


def start_and_wait(folder: Path) -> subprocess.Popen[str]:
    """Start a run with a cluster of its own, and wait until it works."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["TALK_KEY"] = "the key of talk"
    process = subprocess.Popen(
        command_of(folder, ray={"workers": 2}), env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (folder / "store" / "store.sqlite").exists() and num_steps(folder / "store") > 100:
            return process
        time.sleep(0.2)
    pytest.fail("it never worked")


def num_steps(store: Path) -> int:
    with sqlite3.connect(store / "store.sqlite") as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM invocation").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_end_of_the_driver_leaves_nothing_behind(tmp_path: Path) -> None:
    """After Ctrl-C in order, with nothing of Ray's in the answer; after SIGKILL all the same."""
    process = start_and_wait(tmp_path)
    family = psutil.Process(process.pid).children(recursive=True)
    listening = {
        connection.laddr.ip
        for connections in ask(family, lambda one: one.net_connections("tcp")).values()
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
    }
    # As the processes were started: what they forget later, the system still tells.
    told = [one.pid for one, given in ask(family, psutil.Process.environ).items() if "TALK_KEY" in given]
    assert told == [], "processes of Ray were given a key"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    said = [line for line in (out + err).splitlines() if "ray" in line.lower().replace(str(tmp_path), "")]
    assert said == []
    assert len(family) > 3
    for one in family:
        until_dead(one.pid)
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "it listens to other machines"
    before = num_steps(tmp_path / "store")
    process = start_and_wait(tmp_path)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    for one in family:
        until_dead(one.pid)
    assert num_steps(tmp_path / "store") >= before > 100


# Without Ray


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed") as raised:
        run(make_config(executor="ray"), tmp_path / "store")
    assert "panic[ray]" in raised.value.hint
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"workers": 2}, r"workers: 2 counts processes"),
        ({"device": "cuda:1"}, "decides itself on GPUs"),
        ({"device": ["sim:1GiB", "sim:1GiB"]}, "decides itself on GPUs"),
        ({"ray": {"address": "ray://head:10001"}}, "Ray client"),
    ],
)
def test_what_contradicts_ray_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UsageError, match=told):
        run(make_config(executor="ray", **changes), tmp_path / "store")


def test_workers_look_for_modules_where_the_driver_does_and_not_in_its_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", ["", "/scripts"])
    path = OurPath()
    path.extend(["/scripts", str(tmp_path)])
    assert path == ["/scripts"]


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_lies_in_the_working_folder_is_no_library_to_a_worker(tmp_path: Path) -> None:
    """Ray puts the driver's working folder before all others: a numpy.py there was taken for numpy."""
    for name in ("numpy", "PIL", "pydantic", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the working folder came first')\n")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    executable, *words = command_of(tmp_path, ray={"workers": 1}, max_length=4)
    done = subprocess.run(
        [executable, "-P", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert num_steps(tmp_path / "store") == 64


def test_settings_of_ray_without_it_have_no_effect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(make_config(ray={"workers": 2}, max_length=2), tmp_path / "store")
    assert "ray: has no effect with executor: local" in caplog.text


def test_a_stored_config_that_names_a_cluster_needs_trust() -> None:
    assert named_outside(make_config(ray={"address": "10.0.0.1:6379"})) == ["the Ray cluster '10.0.0.1:6379'"]
    assert named_outside(make_config(ray={"workers": 2})) == []
