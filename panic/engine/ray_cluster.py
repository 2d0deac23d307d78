"""A Ray cluster as a place for models: its nodes, its workers, and who is left out.

Ray decides where actors run, moves pixels, and notices who is gone. Here it is decided which nodes may take
part: one with other versions of what matters, another kind of device or other weights would give other
results, and is refused by name.

Which thread owns what: what Ray answers is taken by the thread "ray" alone, which calls the workers'
methods; the driver's thread opens, starts and closes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import pickle
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from panic.config import ExperimentConfig
from panic.config.schema import RaySettings
from panic.devices.device import CpuDevice
from panic.engine.calls import CallResult
from panic.engine.pinning import num_cores, surroundings
from panic.engine.ray_place import THREADS, Place
from panic.engine.ray_worker import Actor, RayWorker, Work, first_line
from panic.engine.serving import ServerSettings
from panic.errors import ModelError, UsageError
from panic.models import registry
from panic.store.provenance import packages, source_digest

log = logging.getLogger("panic.engine")

PATIENCE_S = 30.0
"""After that it is told that nobody works."""
LOOK_S = 1.0
"""How often the cluster is asked which nodes it has."""


@dataclass(slots=True)
class Node:
    """A node that takes part. is_good: whether its weights are the driver's, None until that is known;
    waiting: who wants to know."""

    host: str
    is_good: bool | None = None
    waiting: list[tuple[RayWorker, Actor]] = field(default_factory=list)


class RayCluster:
    """The workers of a session in a cluster that is connected.

    Args:
        is_alone: no other node can join it.

    reason: why the last of its workers that gave up did so.
    """

    def __init__(self, ray: Any, config: ExperimentConfig, *, is_alone: bool) -> None:
        settings = config.ray or RaySettings()
        self._ray = ray
        self._cpus = settings.cpus_per_worker
        has_gpus = config.device in ("auto", "cuda") and ray.cluster_resources().get("GPU", 0) > 0
        self._gpus = float(has_gpus) if settings.gpus_per_worker is None else settings.gpus_per_worker
        named = "cuda" if self._gpus else "cpu"
        self.device_name = named if config.device == "auto" else str(config.device)
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._nodes: dict[str, Node] = {}
        self._refused: dict[str, str] = {}
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._alive: dict[str, Any] = {}
        here = json.loads(surroundings(CpuDevice()))  # of the driver's machine only versions matter
        self._wanted = {name: here[name] for name in here.keys() & packages().keys()}
        self._wanted["panic"] = source_digest()
        self._fingerprints: dict[str, str] = {}
        self._specs = b""
        self._deliver: Callable[[BaseException], None] | None = None
        self._broken: BaseException | None = None
        self.first: Mapping[str, Any] | None = None
        self._waits_since: float | None = None
        self.reason = ""
        room = sum(self._room(node) for node in self._look().values())
        number = settings.workers or room or 1
        told = f"there is room for {room} of {number} workers, each takes {self._cpus:g} CPUs"
        told += f" and {self._gpus:g} GPUs"
        if not room and is_alone:
            raise UsageError(f"{told}, and no node will join", hint="ray: {gpus_per_worker: 0}.")
        if room < number:
            log.warning("%s: others wait for it", told)
        self.workers = [RayWorker(self, place) for place in range(1, number + 1)]
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def wait(self) -> Mapping[str, Any]:
        """Ask for actors, and wait for what the first one says of itself. Raises ModelError if none will."""
        for worker in self.workers:
            worker.start()
        while self.first is None:
            if self._broken is not None:
                raise self._broken
            if reason := self.hopeless:
                raise ModelError(f"no worker of the Ray cluster can be used: {reason}")
            self.tell_of_waiting()
            time.sleep(0.02)
        return self.first

    def begin(
        self,
        settings: ServerSettings,
        deliver: Callable[[CallResult | BaseException], None],
        timeout_s: float | None,
    ) -> None:
        """Let all workers serve calls with these settings; of models that are not here nodes say nothing."""
        here = registry.fingerprints_here(settings.specs)
        self._fingerprints.update({name: settings.fingerprints[name] for name in here})
        settings = replace(settings, fingerprints=self._fingerprints)
        self._specs = pickle.dumps({name: settings.specs[name] for name in self._fingerprints})
        self._deliver = deliver
        for worker in self.workers:
            worker.begin(Work(settings=settings, deliver=deliver, timeout_s=timeout_s))

    def close(self) -> None:
        """End all actors, and the thread; tell how much went through the driver."""
        for worker in self.workers:
            worker.close()
        self._events.put(None)
        self._thread.join()
        sent = sum(worker.sent_bytes for worker in self.workers)
        received = sum(worker.received_bytes for worker in self.workers)
        log.info("Ray: the driver sent %d bytes of calls and received %d bytes of results", sent, received)

    # What workers ask of it

    def new_actor(self) -> Any:
        """Ask for an actor on a node that has not been refused."""
        options: dict[str, Any] = {
            "num_cpus": self._cpus,
            "num_gpus": self._gpus,
            "max_concurrency": THREADS,
            "max_restarts": 0,  # the driver asks for another one, and hands out again what this one had
            "max_task_retries": 0,
        }
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._refused)})"}
        else:
            options["scheduling_strategy"] = "SPREAD"
        return self._ray.remote(Place).options(**options).remote()

    def ask(self, reference: Any, then: Callable[[Any, BaseException | None], None]) -> None:
        """Call `then` in the thread "ray" with the value of a reference, or with what was raised."""

        def on_done(future: Any) -> None:
            error = future.exception()
            self._events.put(partial(then, None if error else future.result(), error))

        reference.future().add_done_callback(on_done)

    def kill(self, handle: Any) -> None:
        """End an actor's process at once: only that gives a GPU's memory back."""
        with contextlib.suppress(Exception):
            self._ray.kill(handle, no_restart=True)

    def last_words(self, handle: Any, timeout_s: float) -> Any:
        """What an actor's time went into since its last result, if it still says so."""
        try:
            return pickle.loads(self._ray.get(handle.end.remote(), timeout=timeout_s))
        except Exception as error:
            log.debug("an actor does not answer: %s", first_line(error))
            return []

    def accepts(self, found: Mapping[str, Any]) -> bool:
        """Whether results of a node are those of all others, by what its actor says; else it is refused."""
        there, node = found["surroundings"], found["node"]
        names = self._wanted.keys() if self.first is None else self._wanted.keys() | there.keys()
        unlike = [
            f"{name} is {short(there.get(name))}, not {short(self._wanted.get(name))}"
            for name in sorted(names)
            if there.get(name) != self._wanted.get(name)
        ]
        with self._lock:
            self._nodes.setdefault(node, Node(found["host"]))
        if unlike:
            self.refuse(node, "; ".join(unlike))
            return False
        if self.first is None:
            self._wanted = there
            self.first = found
        return True

    def require(self, worker: RayWorker, actor: Actor) -> None:
        """Let a worker know whether its node has the driver's weights; one actor of a node is asked."""
        with self._lock:
            node = self._nodes[actor.node]
            if node.is_good is not None:
                self._events.put(partial(worker.on_checked, actor, node.is_good))
                return
            node.waiting.append((worker, actor))
            if len(node.waiting) > 1:
                return
        asked = actor.handle.fingerprints.remote(self._specs)
        self.ask(asked, partial(self._on_fingerprints, actor.node))

    def _on_fingerprints(self, name: str, found: Any, error: BaseException | None) -> None:
        with self._lock:
            node = self._nodes[name]
            waiting, node.waiting = node.waiting, []
        if error is not None:
            worker, actor = waiting.pop(0)
            worker.on_failed_start(actor, error)
            for worker, actor in waiting:
                self.require(worker, actor)
            return
        other = [
            f"{model} is another one there ({short(found[model])}, not {short(ours)})"
            if len(found[model]) == len(ours)
            else found[model]
            for model, ours in self._fingerprints.items()
            if found[model] != ours
        ]
        node.is_good = not other
        if other:
            self.refuse(name, "; ".join(other))
        for worker, actor in waiting:
            worker.on_checked(actor, node.is_good)

    def refuse(self, node: str, reason: str) -> None:
        """Leave a node out from here on."""
        if node not in self._refused:
            host = self._nodes[node].host
            self._refused[node] = f"node {node[:8]} on {host}: {reason}"
            log.warning("node %s on %s is left out: %s", node[:8], host, reason)

    def tell_of_waiting(self) -> None:
        """Say it when no worker has been ready for a while, and there is something to do."""
        if self.is_any_ready:
            self._waits_since = None
            return
        now = time.monotonic()
        if self._waits_since is None:
            self._waits_since = now
        elif self._waits_since + PATIENCE_S < now:
            self._waits_since = math.inf
            log.warning("no worker of the Ray cluster has been ready for %g s: waiting for room", PATIENCE_S)

    @property
    def is_any_ready(self) -> bool:
        return any(worker.is_ready for worker in self.workers)

    @property
    def hopeless(self) -> str:
        """Why no worker will be ready; "" as long as one may."""
        if self.is_any_ready:
            return ""
        if all(worker.is_given_up for worker in self.workers):
            return self.reason
        able = [name for name, node in self._look().items() if self._room(node)]
        if able and all(name in self._refused for name in able):
            return "; ".join(self._refused.values())
        return ""

    def num_workers_at(self, node: str) -> int:
        """How many workers a node has room for, at most as many as there are."""
        found = self._look().get(node)
        return max(1, min(len(self.workers), self._room(found) if found else 1))

    def is_alive(self, node: str) -> bool:
        """Whether the cluster still has a node, as far as it knows."""
        self._looked_at = 0.0
        return node in self._look()

    def is_actor_lost(self, error: BaseException) -> bool:
        """Whether an error says that an actor's process or node is gone."""
        of = self._ray.exceptions
        return isinstance(error, of.RayActorError | of.WorkerCrashedError | of.NodeDiedError)

    def is_object_lost(self, error: BaseException) -> bool:
        """Whether an error says that pixels are gone."""
        return isinstance(error, self._ray.exceptions.ObjectLostError)

    def is_nobodys_fault(self, error: BaseException, node: str) -> bool:
        """Whether an actor was lost with its node, or with the way to it."""
        return isinstance(error, self._ray.exceptions.ActorUnavailableError) or not self.is_alive(node)

    # Its own

    def _run(self) -> None:
        try:
            while (event := self._events.get()) is not None:
                event()
                del event  # it holds results
        except BaseException as error:
            self._broken = error
            if self._deliver is not None:
                self._deliver(error)

    def _look(self) -> dict[str, Any]:
        """The nodes that are alive, by id."""
        if time.monotonic() - self._looked_at > LOOK_S:
            self._alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
            self._looked_at = time.monotonic()
        return self._alive

    def _room(self, node: Mapping[str, Any]) -> int:
        """How many workers a node has room for while it has nothing else to do."""
        has = node["Resources"]
        wanted = {"CPU": self._cpus, "GPU": self._gpus}
        rooms = [has.get(name, 0.0) / number for name, number in wanted.items() if number]
        return math.floor(min(rooms, default=float(num_cores())))


def short(text: Any) -> str:
    """A digest's beginning; a version or a name as a whole."""
    return str(text)[:12] if len(str(text)) == 64 else str(text)
