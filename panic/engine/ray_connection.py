"""Connecting to a Ray cluster, or starting one on this machine, for as long as an experiment is performed.

    with open_cluster(config) as device:
        workers = device.start(settings, deliver)

A cluster that is started here listens on the loopback address alone, has no dashboard and sends no
statistics; it ends with this process, whatever ends that.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from panic.config import ExperimentConfig
from panic.config.schema import RaySettings
from panic.engine.calls import CallResult, Worker
from panic.engine.pinning import num_cores
from panic.engine.ray_cluster import RayCluster
from panic.engine.ray_worker import first_line
from panic.engine.serving import ServerSettings
from panic.errors import UsageError
from panic.store.codec import canonical_json

LOOPBACK = "127.0.0.1"
LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Of a cluster that is started here: no statistics are sent; and, though it is called otherwise, only without
clusters of several machines does Ray take the loopback address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayDevice:
    """The devices of a cluster's workers, which are alike, to whoever plans one.

    surroundings, is_steady: what `panic.engine.pinning` says of them on their nodes; the driver's processor
    may be another one.
    """

    cluster: RayCluster
    name: str
    kind: str
    torch_name: str
    has_own_memory: bool
    num_bytes: tuple[int, int]
    surroundings: str
    is_steady: bool

    def total_bytes(self) -> int:
        return self.num_bytes[0]

    def free_bytes(self) -> int:
        return self.num_bytes[1]

    def trim(self) -> None:
        """Do nothing: they do it themselves."""

    def start(
        self,
        settings: ServerSettings,
        deliver: Callable[[CallResult | BaseException], None],
        timeout_s: float | None = None,
    ) -> list[Worker]:
        """Let the cluster's workers serve calls."""
        self.cluster.begin(settings, deliver, timeout_s)
        return list(self.cluster.workers)


@contextmanager
def open_cluster(config: ExperimentConfig) -> Iterator[RayDevice]:
    """Connect to the cluster of a config, or start one on this machine, and ask for its workers.

    Raises: UsageError for settings that contradict each other, where Ray is not installed or no cluster
    answers; ModelError where no worker can be used.
    """
    _refuse_impossible(config)
    with _connected(config) as ray:
        cluster = RayCluster(ray, config, is_alone=_address(config) is None)
        try:
            first = cluster.wait()
            yield RayDevice(
                cluster=cluster,
                name=cluster.device_name,
                kind=first["kind"],
                torch_name=first["torch_name"],
                has_own_memory=first["has_own_memory"],
                num_bytes=(first["total_bytes"], first["free_bytes"]),
                surroundings=canonical_json(
                    {name: said for name, said in first["surroundings"].items() if name != "panic"}
                ),
                is_steady=first["is_steady"],
            )
        finally:
            cluster.close()


def _refuse_impossible(config: ExperimentConfig) -> None:
    if importlib.util.find_spec("ray") is None:
        raise UsageError("executor: ray needs Ray, which is not installed", hint="pip install 'panic[ray]'")
    if config.workers is not None:
        raise UsageError(
            f"workers: {config.workers} counts processes of this machine, and executor is ray",
            hint=f"ray: {{workers: {config.workers}}}",
        )
    if not isinstance(config.device, str) or config.device.startswith(("cuda:", "mps")):
        raise UsageError(
            f"device: {config.device}, and executor is ray, which decides itself on GPUs",
            hint="device: auto, cuda, cpu or sim:SIZE, with ray: {gpus_per_worker: 1}.",
        )
    address = config.ray.address if config.ray else None
    if address is not None and "://" in address:
        raise UsageError(
            f"ray: address: {address} is that of a Ray client, and the driver has to be in the cluster",
            hint="host:port of the head node, or auto on a node of the cluster; or ray job submit.",
        )


@contextmanager
def _connected(config: ExperimentConfig) -> Iterator[Any]:
    """Be connected to a cluster, for a while; as somebody else has connected this process, if so."""
    address = _address(config)
    handler = signal.getsignal(signal.SIGTERM)
    values, hidden = (LOCAL, config.secrets) if not address else ({}, [])
    with _environment(values, hidden), _keeping_log():
        import ray

        is_given = ray.is_initialized()
        if not is_given:
            _init(ray, address, _local(config))
    try:
        if not is_given and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has taken it
        yield ray
    finally:
        if not is_given:
            ray.shutdown()


@contextmanager
def _keeping_log() -> Iterator[None]:
    """Let Ray's log go where it went before: importing it adds a handler, starting it takes all away."""
    logger = logging.getLogger("ray")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def _address(config: ExperimentConfig) -> str | None:
    """Where the cluster is; of a job, the one it was submitted to. None if one has to be started."""
    return (config.ray.address if config.ray else None) or os.environ.get("RAY_ADDRESS")


class OurPath(list[str]):
    """The folders in which workers look for modules first: those where this process looks, too.

    Ray would add the working folder; what lies there may bear the name of a library (`panic.processes`).
    """

    def extend(self, folders: Iterable[str], /) -> None:
        super().extend(folder for folder in folders if folder in sys.path)


def _init(ray: Any, address: str | None, local: Mapping[str, Any]) -> None:
    options = {"address": address} if address else local
    job = ray.job_config.JobConfig()
    job._py_driver_sys_path = OurPath()  # where Ray puts them; nothing else says so
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would tell of its defaults
    try:
        ray.init(**options, job_config=job, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"no Ray cluster can be used at {address or 'this machine'}: {first_line(error)}",
            hint="ray start --head starts one; without ray: {address: ...} one is started here.",
        ) from error


def _local(config: ExperimentConfig) -> dict[str, Any]:
    """How a cluster of this machine is started: with room for the workers that are asked for."""
    settings = config.ray or RaySettings()
    return {
        "address": "local",
        "num_cpus": max(num_cores(), math.ceil((settings.workers or 1) * settings.cpus_per_worker)),
        "include_dashboard": False,
        "_node_ip_address": LOOPBACK,
    }


@contextmanager
def _environment(values: Mapping[str, str], hidden: Collection[str]) -> Iterator[None]:
    """Set variables for a while, and hide others, for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in (*values, *hidden)}
    for name in hidden:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
