"""The driver's side of a Ray cluster, which a test plays: starts, answers, ends, and who is refused."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from panic.engine import ray_cluster as clusters
from panic.engine import ray_connection as connections
from panic.engine import ray_place as places
from panic.engine.calls import Call, CallResult
from panic.engine.contents import Output, Rejected, RemoteImage
from panic.engine.ledger import Span
from panic.engine.memory import MemorySettings
from panic.engine.pinning import num_cores
from panic.engine.ray_cluster import LOOK_S, Node, RayCluster, short
from panic.engine.ray_place import INLINE_BYTES, Place
from panic.engine.ray_worker import LOST_PIXELS, START_RETRIES, Actor, RayWorker, Work, first_line, host_of
from panic.engine.serving import ServerSettings
from panic.errors import ModelError, UsageError
from panic.models import registry
from panic.models.protocol import Modality
from tests.engine.conftest import make_config

SPECS = {
    "draw": registry.resolve("synthetic/text-to-image"),
    "tell": registry.resolve("synthetic/image-to-text"),
}
SETTINGS = ServerSettings(device="cpu", specs=SPECS)
NODE = "0123456789abcdef"
FOUND = {"node": NODE, "host": "far"}


class LostActor(Exception):
    """An actor's process is gone."""


class LostObject(Exception):
    """Pixels are gone."""


@dataclass
class Handle:
    """An actor that answers nothing by itself; `calls` has the methods that it was asked for."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    is_killed: bool = False

    def __getattr__(self, name: str) -> Any:
        def remote(*of: Any) -> Any:
            self.calls.append((name, of, options))
            count = options.get("num_returns", 1)
            return [f"{name} {n}" for n in range(count)] if count > 1 else name

        options: dict[str, Any] = {}
        found = SimpleNamespace(remote=remote)
        found.options = lambda **how: (options.update(how), found)[1]
        return found


@dataclass
class Fake:
    """A cluster whose answers a test gives."""

    device_name: str = "cpu"
    reason: str = ""
    is_any_ready: bool = False
    hopeless: str = ""
    accepted: bool = True
    alive: bool = True
    handles: list[Handle] = field(default_factory=list)
    asked: list[tuple[Any, Callable[[Any, BaseException | None], None]]] = field(default_factory=list)
    required: list[Actor] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    told_of_waiting: int = 0
    words: list[Span] = field(default_factory=list)

    def new_actor(self) -> Handle:
        self.handles.append(Handle())
        return self.handles[-1]

    def ask(self, reference: Any, then: Any) -> None:
        self.asked.append((reference, then))

    def tell_of_waiting(self) -> None:
        self.told_of_waiting += 1

    def accepts(self, found: Any) -> bool:
        return self.accepted

    def require(self, worker: RayWorker, actor: Actor) -> None:
        self.required.append(actor)

    def refuse(self, node: str, reason: str) -> None:
        self.refused.append((node, reason))

    def num_workers_at(self, node: str) -> int:
        return 3

    def is_alive(self, node: str) -> bool:
        return self.alive

    def is_actor_lost(self, error: BaseException) -> bool:
        return isinstance(error, LostActor)

    def is_object_lost(self, error: BaseException) -> bool:
        return isinstance(error, LostObject)

    def is_nobodys_fault(self, error: BaseException, node: str) -> bool:
        return not self.alive

    def last_words(self, handle: Any, timeout_s: float) -> list[Span]:
        return self.words

    def kill(self, handle: Handle) -> None:
        handle.is_killed = True

    def answer(self, value: Any = None, error: BaseException | None = None) -> Any:
        """Answer what was asked first; what that was."""
        reference, then = self.asked.pop(0)
        then(value, error)
        return reference


@dataclass
class Scene:
    """A worker of a cluster, and what it has delivered."""

    cluster: Fake = field(default_factory=Fake)
    delivered: list[Any] = field(default_factory=list)
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        self.worker = RayWorker(cast("Any", self.cluster), 7)

    def begin(self) -> None:
        memory = MemorySettings(num_workers=9)
        settings = ServerSettings(device="cpu", specs=SPECS, memory=memory)
        self.worker.begin(Work(settings=settings, deliver=self.delivered.append, timeout_s=self.timeout_s))

    def started(self) -> Scene:
        """The worker is ready."""
        self.worker.start()
        self.begin()
        assert self.cluster.answer(FOUND) == "describe"
        self.worker.on_checked(self.cluster.required[-1], True)
        now = time.monotonic()
        assert self.cluster.answer(pickle.dumps(([Span("starting", "", now, now)], now))) == "begin"
        assert self.worker.is_ready
        return self

    def submit(self, *numbers: int, model: str = "tell", inputs: Any = ("x",)) -> None:
        for number in numbers:
            self.worker.submit(
                Call(number=number, model=model, batch_size=4, inputs=list(inputs), seeds=[0] * len(inputs))
            )

    @property
    def fates(self) -> list[tuple[int, str, str]]:
        """Number, kind and message of the results without outputs."""
        return [(one.number, one.error.kind, one.error.message) for one in self.delivered if one.error]


def answer_of(number: int, *outputs: Any, spans: Any = (), is_leaving: bool = False) -> bytes:
    result = CallResult(number=number, outputs=list(outputs), device="cpu", spans=list(spans))
    return pickle.dumps((result, is_leaving))


# Starting


def test_a_worker_is_ready_when_its_node_was_looked_at_and_its_models_are_loaded() -> None:
    scene = Scene()
    worker, cluster = scene.worker, scene.cluster
    worker.start()
    [handle] = cluster.handles
    assert handle.calls == [("describe", ("cpu",), {})]
    cluster.answer(FOUND)
    assert cluster.required == [], "nobody knows which weights"
    scene.begin()
    scene.begin()
    [actor] = cluster.required
    assert (actor.node, actor.host, actor.is_checked) == (NODE, "far", True)
    scene.submit(1, 2)
    assert len(handle.calls) == 1
    worker.on_checked(actor, True)
    name, (data,), _ = handle.calls[-1]
    told: ServerSettings = pickle.loads(data)
    assert (name, told.memory.num_workers, told.memory.events) == ("begin", 3, None)
    now = time.monotonic()
    cluster.answer(pickle.dumps(([Span("starting a process", "", now, now)], now)))
    assert worker.is_ready
    assert [(name, pickle.loads(of[0]).number) for name, of, _ in handle.calls[2:]] == [
        ("serve", 1), ("serve", 2)
    ]  # fmt: skip
    worker.on_checked(Actor(Handle()), True)
    assert len(handle.calls) == 4, "of an actor that was given up"


def test_where_a_node_is_refused_another_actor_is_asked_for() -> None:
    scene = Scene(Fake(accepted=False))
    scene.worker.start()
    first = scene.cluster.handles[0]
    scene.cluster.answer(FOUND)
    assert [one.is_killed for one in scene.cluster.handles] == [True, False]
    scene.cluster.accepted = True
    scene.begin()
    scene.cluster.answer(FOUND)
    scene.worker.on_checked(scene.cluster.required[0], False)
    assert [one.is_killed for one in scene.cluster.handles] == [True, True, False]
    assert first.calls == [("describe", ("cpu",), {})]


def test_an_actor_that_does_not_start_is_tried_again_and_then_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    scene.worker.start()
    for turn in range(START_RETRIES + 1):
        assert not scene.worker.is_given_up, turn
        scene.cluster.answer(error=LostActor("no room\nat line 3"))
    assert scene.worker.is_given_up
    assert len(scene.cluster.handles) == START_RETRIES + 1
    assert all(one.is_killed for one in scene.cluster.handles)
    assert scene.cluster.reason == "the process that runs models ended: no room"
    assert caplog.messages == ["a process that runs models did not start: no room"] * 2
    assert scene.cluster.asked == []


def test_a_start_that_fails_counts_against_the_node_or_the_worker_or_nobody() -> None:
    scene = Scene()
    scene.worker.start()
    scene.begin()
    scene.cluster.answer(FOUND)
    scene.worker.on_checked(scene.cluster.required[-1], True)
    scene.cluster.answer(error=ValueError("other weights"))
    assert scene.cluster.refused == [(NODE, "other weights")]
    scene.cluster.alive = False
    for _ in range(3):
        scene.cluster.answer(FOUND)
        scene.worker.on_checked(scene.cluster.required[-1], True)
        scene.cluster.answer(error=LostActor("the node is gone"))
    assert (scene.worker.is_given_up, len(scene.cluster.handles)) == (False, 5)
    scene.cluster.alive = True
    for _ in range(2):
        scene.cluster.answer(FOUND)
        scene.worker.on_checked(scene.cluster.required[-1], True)
        scene.cluster.answer(error=LostActor("ended"))
    assert scene.worker.is_given_up
    assert len(scene.cluster.refused) == 1


def test_a_start_that_succeeds_forgets_those_that_did_not() -> None:
    scene = Scene()
    scene.worker.start()
    scene.cluster.answer(error=LostActor("once"))
    scene.begin()
    scene.cluster.answer(FOUND)
    scene.worker.on_checked(scene.cluster.required[-1], True)
    now = time.monotonic()
    scene.cluster.answer(pickle.dumps(([Span("starting", "", now, now)], now)))
    scene.submit(1)
    scene.cluster.answer(error=LostActor("crashed"))
    scene.cluster.answer(error=LostActor("twice"))
    assert not scene.worker.is_given_up


def test_the_clock_of_another_machine_is_set_by_this_one() -> None:
    scene = Scene()
    scene.worker.start()
    scene.begin()
    scene.cluster.answer(FOUND)
    scene.worker.on_checked(scene.cluster.required[-1], True)
    here = time.monotonic()
    there = here + 5000.0
    spans = [Span("starting a process", "", there - 1e-3, there), Span("serving", "", there, there + 1e-3)]
    time.sleep(0.01)
    scene.cluster.answer(pickle.dumps((spans, there)))
    told = scene.worker._spans
    assert [span.name for span in told] == ["waiting for room", "starting a process", "serving"]
    assert all(before.end == after.start for before, after in itertools.pairwise(told))
    assert here - 1 < told[0].start < told[-1].end < here + 60


# Calls


def test_what_comes_back_says_where_it_was_made_and_keeps_its_pixels_there() -> None:
    scene = Scene().started()
    scene.submit(1, model="draw", inputs=("a", "b", "c"))
    [*_, (name, (data, num_pixels, *pixels), options)] = scene.cluster.handles[0].calls
    assert (name, num_pixels, pixels, options) == ("serve", 3, [], {"num_returns": 4})
    outputs = [
        Output(Modality.IMAGE, b"1", RemoteImage(size=(1, 1), encoded=b"x")),
        Output(Modality.IMAGE, b"2", RemoteImage(size=(1, 1), encoded=b"y", pixels=0)),
        Rejected("dark"),
    ]
    assert scene.cluster.answer(answer := answer_of(1, *outputs)) == "serve 0"
    [result] = scene.delivered
    first, second, third = result.outputs
    assert (first.value.pixels, second.value.pixels, third) == (None, "serve 1", Rejected("dark"))
    assert result.device == f"cpu on far, node {NODE[:8]}, worker 7"
    assert host_of(result.device) == "far"
    assert (scene.worker.sent_bytes, scene.worker.received_bytes) == (len(data), len(answer))
    scene.submit(2, inputs=("a",))
    assert scene.cluster.handles[0].calls[-1][1][1] == 0, "texts need no room for pixels"
    assert scene.cluster.handles[0].calls[-1][2] == {"num_returns": 1}
    assert scene.cluster.answer(answer_of(2, Rejected("x"))) == "serve"
    assert [one.number for one in scene.delivered] == [1, 2]


def test_images_are_sent_by_reference_where_the_cluster_has_them_and_else_as_their_file() -> None:
    scene = Scene().started()
    items = [
        RemoteImage(size=(2, 1), encoded=b"file"),
        RemoteImage(size=(2, 1), pixels="one", encoded=b"not sent"),
        RemoteImage(size=(2, 1), pixels="two"),
    ]
    scene.submit(1, inputs=items)
    name, (data, _, *pixels), _ = scene.cluster.handles[0].calls[-1]
    sent = pickle.loads(data).inputs
    assert (name, pixels) == ("serve", ["one", "two"])
    assert [(one.encoded, one.pixels, one.size) for one in sent] == [
        (b"file", None, (2, 1)), (None, 0, (2, 1)), (None, 1, (2, 1))
    ]  # fmt: skip
    scene.submit(2, inputs=[RemoteImage(size=(2, 1))])
    assert scene.fates == [(2, "untried", LOST_PIXELS)]
    scene.cluster.answer(answer_of(1))
    assert scene.delivered[-1].number == 1


def test_an_actor_that_is_lost_fails_the_call_it_was_at_alone() -> None:
    scene = Scene().started()
    scene.submit(1, 2, 3)
    scene.cluster.answer(error=LostActor("killed"))
    assert scene.fates == [
        (1, "crash", "the process that runs models ended: killed"),
        *[(number, "untried", "not started") for number in (2, 3)],
    ]
    assert [one.error.is_end for one in scene.delivered] == [True, False, False]
    assert not scene.worker.is_ready
    scene.cluster.answer(error=LostActor("killed"))
    assert len(scene.delivered) == 3, "what is told of it afterwards is known"
    assert [one.is_killed for one in scene.cluster.handles] == [True, False]
    assert "lost with its process" in [span.name for span in scene.worker._spans]


def test_where_the_node_is_lost_all_calls_are_untried() -> None:
    scene = Scene().started()
    scene.submit(1, 2)
    scene.cluster.alive = False
    scene.cluster.answer(error=LostActor("gone"))
    assert [kind for _, kind, _ in scene.fates] == ["untried"] * 2


def test_a_process_that_has_lost_its_gpu_is_replaced_and_its_calls_are_handed_out_again() -> None:
    scene = Scene().started()
    scene.submit(1, 2)
    scene.cluster.answer(answer_of(1, is_leaving=True))
    assert [one.number for one in scene.delivered] == [1, 2]
    assert [(number, kind) for number, kind, _ in scene.fates] == [(2, "untried")]
    assert len(scene.cluster.handles) == 2


def test_lost_pixels_are_read_from_the_store_and_other_errors_are_the_calls_own() -> None:
    scene = Scene().started()
    image = RemoteImage(size=(1, 1), pixels="gone")
    scene.submit(1, inputs=[image, "a text"])
    scene.submit(2)
    scene.cluster.answer(error=LostObject("gone"))
    assert image.pixels is None
    scene.cluster.answer(error=ValueError("no pickle\nof it"))
    assert scene.fates == [
        (1, "untried", LOST_PIXELS), (2, "error", "its output cannot be sent: no pickle")
    ]  # fmt: skip
    assert scene.worker.is_ready


def test_an_answer_that_cannot_be_read_or_is_of_another_call_is_one_that_failed() -> None:
    """It ended the thread of the cluster, and with it the session."""
    scene = Scene().started()
    scene.submit(1, 2, 3)
    scene.cluster.answer(b"no pickle")
    scene.cluster.answer(answer_of(7, Rejected("x")))
    assert [(number, kind) for number, kind, _ in scene.fates] == [(1, "error"), (2, "error")]
    assert all(told.startswith("its answer cannot be read: ") for *_, told in scene.fates)
    scene.cluster.answer(answer_of(3, Rejected("x")))
    assert scene.delivered[-1].number == 3
    assert scene.worker.is_ready


def test_a_call_that_takes_too_long_ends_its_actor() -> None:
    scene = Scene(timeout_s=9.0).started()
    handle = scene.cluster.handles[0]
    scene.worker.check()
    assert scene.cluster.asked == [], "it has nothing to do"
    scene.submit(1, 2)
    scene.worker.check()
    scene.worker.check()
    assert [name for name, *_ in handle.calls].count("invoking") == 1, "one question at a time"
    answers, (_, on_invoking) = scene.cluster.asked[:2], scene.cluster.asked[2]
    for found, error in ((None, None), ((2, 9.0), None), ((2, 99.0), KeyError()), ((3, 99.0), None)):
        on_invoking(found, error)
        assert not handle.is_killed, found
    on_invoking((2, 9.1), None)
    assert handle.is_killed
    scene.cluster.asked = answers
    scene.cluster.answer(error=LostActor("killed"))
    assert sorted(scene.fates) == [
        (1, "untried", "not started"),
        (2, "crash", "the process that runs models ended: no answer within 9 s"),
    ]


def test_without_a_limit_of_time_nobody_asks_how_long_a_call_takes() -> None:
    scene = Scene().started()
    scene.submit(1)
    scene.worker.check()
    assert len(scene.cluster.asked) == 1
    assert scene.worker._timeout_s == float("inf")


def test_calls_wait_for_an_actor_unless_another_worker_is_ready_or_none_will_be() -> None:
    scene = Scene()
    scene.worker.start()
    scene.begin()
    scene.worker.check()
    assert scene.cluster.told_of_waiting == 0, "there is nothing to do"
    scene.submit(1)
    scene.worker.check()
    assert (scene.cluster.told_of_waiting, scene.delivered) == (1, [])
    scene.cluster.hopeless = "no GPU"
    scene.worker.check()
    scene.cluster.hopeless = ""
    scene.submit(2)
    scene.cluster.is_any_ready = True
    scene.worker.check()
    assert scene.fates == [(1, "load", "no GPU"), (2, "untried", "")]
    scene.submit(3)
    scene.worker.drain()
    assert scene.fates[2:] == [(3, "untried", "")]
    ready = Scene().started()
    ready.submit(1)
    ready.worker.drain()
    ready.worker.check()
    assert (ready.delivered, ready.cluster.told_of_waiting) == ([], 0)


def test_a_worker_that_is_closed_tells_its_last_words_and_starts_no_more() -> None:
    scene = Scene().started()
    now = time.monotonic()
    scene.cluster.words = [Span("calling", "tell", now, now + 1.0)]
    spans = scene.worker.close()
    assert ("calling", "tell") in [(span.name, span.model) for span in spans]
    assert scene.cluster.handles[0].is_killed
    scene.worker.start()
    assert len(scene.cluster.handles) == 1
    waiting = Scene()
    waiting.cluster.words = scene.cluster.words
    waiting.worker.start()
    waiting.begin()
    time.sleep(0.005)
    assert [span.name for span in waiting.worker.close()] == ["waiting for room"]
    assert waiting.cluster.handles[0].is_killed
    assert Scene().worker.close() == []


def test_what_an_error_says_is_its_first_line() -> None:
    assert first_line(ValueError("\n  no room  \nat line 3")) == "no room"
    assert first_line(ValueError("")) == "ValueError"
    assert len(first_line(ValueError("x" * 400))) == 300
    wrapped = ValueError("in another process")
    wrapped.cause = KeyError("weights")  # type: ignore[attr-defined]
    assert first_line(wrapped) == "KeyError: 'weights'"
    assert host_of("cpu") is None
    assert host_of("cuda on a b, node 01234567, worker 12") == "a b"


# The cluster


class NodeDied(Exception):
    """A node is gone."""


class Unavailable(Exception):
    """There is no way to an actor."""


@dataclass
class Ray:
    """What is asked of Ray, by a cluster of these nodes: resources by id."""

    resources: dict[str, dict[str, float]] = field(default_factory=lambda: {NODE: {"CPU": 4.0}})
    options: list[dict[str, Any]] = field(default_factory=list)
    killed: list[Any] = field(default_factory=list)
    looked: int = 0
    exceptions = SimpleNamespace(
        RayActorError=LostActor, WorkerCrashedError=LostActor, NodeDiedError=NodeDied,
        ObjectLostError=LostObject, ActorUnavailableError=Unavailable,
    )  # fmt: skip

    def cluster_resources(self) -> dict[str, float]:
        return {name: one[name] for one in self.resources.values() for name in one}

    def nodes(self) -> list[dict[str, Any]]:
        self.looked += 1
        gone = {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}}
        return [gone, *({"NodeID": n, "Alive": True, "Resources": r} for n, r in self.resources.items())]

    def remote(self, of: type) -> Any:
        assert of is Place

        def options(**how: Any) -> Any:
            self.options.append(how)
            return SimpleNamespace(remote=Handle)

        return SimpleNamespace(options=options)

    def kill(self, handle: Any, *, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(handle)
        raise KeyError("it is gone already")

    def get(self, reference: Any, timeout: float) -> Any:
        if reference != "end":
            raise TimeoutError(f"{timeout}")
        return pickle.dumps(["a span"])


@pytest.fixture
def opened() -> Iterator[Callable[..., RayCluster]]:
    """What opens clusters, which are closed in the end."""
    made: list[RayCluster] = []

    def open_one(of: Ray | None = None, *, is_alone: bool = False, **changes: Any) -> RayCluster:
        config = make_config(executor="ray", **changes)
        made.append(RayCluster(of or Ray(), config, is_alone=is_alone))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


def test_as_many_workers_as_there_is_room_for(
    opened: Callable[..., RayCluster], caplog: pytest.LogCaptureFixture
) -> None:
    two = Ray({"a": {"CPU": 5.0, "GPU": 1.0}, "b": {"CPU": 2.0}})
    found = opened(two, device="cpu", ray={"cpus_per_worker": 2})
    assert (len(found.workers), found.device_name, caplog.messages) == (3, "cpu", [])
    assert [found.num_workers_at(node) for node in ("a", "b", "gone")] == [2, 1, 1]
    assert len(opened(two, device="auto", ray={"cpus_per_worker": 2}).workers) == 1, "one has a GPU"
    assert opened(two, device="auto", ray={}).device_name == "cuda"
    assert opened(device="auto", ray={}).device_name == "cpu"
    assert opened(two, device="auto", ray={"gpus_per_worker": 0}).device_name == "cpu"
    halves = opened(two, device="cuda", ray={"gpus_per_worker": 0.5, "cpus_per_worker": 0})
    assert (halves.device_name, len(halves.workers)) == ("cuda", 2)
    assert len(opened(two, device="cpu", ray={"cpus_per_worker": 0}).workers) == 2 * num_cores()
    assert caplog.messages == []


def test_who_asks_for_more_than_there_is_is_told_and_waits_unless_nobody_will_come(
    opened: Callable[..., RayCluster], caplog: pytest.LogCaptureFixture
) -> None:
    found = opened(ray={"workers": 3, "cpus_per_worker": 2}, is_alone=True)
    assert len(found.workers) == 3
    assert caplog.messages == [
        "there is room for 2 of 3 workers, each takes 2 CPUs and 0 GPUs: others wait for it"
    ]
    assert len(opened(ray={"cpus_per_worker": 5}).workers) == 1
    with pytest.raises(UsageError, match="there is room for 0 of 1 workers, each takes 5 CPUs") as refused:
        opened(ray={"cpus_per_worker": 5}, is_alone=True)
    assert "no node will join" in refused.value.message
    caplog.clear()
    opened(ray={"workers": 2, "cpus_per_worker": 2})
    assert caplog.messages == []


def test_actors_are_asked_for_anywhere_but_on_nodes_that_are_refused(
    opened: Callable[..., RayCluster], caplog: pytest.LogCaptureFixture
) -> None:
    ray = Ray({"a" * 16: {"CPU": 1.0}, "b" * 16: {"CPU": 1.0}})
    found = opened(ray)
    found.new_actor()
    assert ray.options[0] == {
        "num_cpus": 1, "num_gpus": 0.0, "max_concurrency": places.THREADS, "max_restarts": 0,
        "max_task_retries": 0, "scheduling_strategy": "SPREAD",
    }  # fmt: skip
    assert places.THREADS == 4
    found._nodes |= {"a" * 16: Node("one"), "b" * 16: Node("two")}
    assert found.hopeless == ""
    for _ in range(2):
        found.refuse("a" * 16, "other weights")
    assert caplog.messages == ["node aaaaaaaa on one is left out: other weights"]
    assert found.hopeless == "", "there is another one"
    found.new_actor()
    assert ray.options[1]["label_selector"] == {"ray.io/node-id": f"!in({'a' * 16})"}
    assert "scheduling_strategy" not in ray.options[1]
    found.refuse("b" * 16, "no torch")
    told = "node aaaaaaaa on one: other weights; node bbbbbbbb on two: no torch"
    assert found.hopeless == told
    found.workers[0].is_ready = True
    assert (found.is_any_ready, found.hopeless) == (True, "")
    found.workers[0].is_ready = False
    ray.resources = {"a" * 16: {"CPU": 0.5}}
    found._looked_at = 0.0
    assert found.hopeless == "", "a node with room may come"
    for worker in found.workers:
        worker.is_given_up = True
    found.reason = "it ended"
    assert found.hopeless == "it ended"


def test_the_first_node_says_what_all_others_have_to_be(opened: Callable[..., RayCluster]) -> None:
    found = opened(Ray({name * 16: {"CPU": 1.0} for name in "abcd"}))
    versions = dict(found._wanted)
    assert {"panic", "torch"} <= versions.keys()
    assert "device" not in versions, "of the driver's machine only versions matter"

    def accepts(name: str, **changes: Any) -> bool:
        there = {**versions, "device": "cpu X", **changes}
        return found.accepts({"node": name * 16, "host": "far", "surroundings": there})

    assert not accepts("a", torch="0.1", panic="f" * 64)
    assert found.first is None
    told = f"panic is {'f' * 12}, not {versions['panic'][:12]}; torch is 0.1, not {versions['torch']}"
    assert found._refused["a" * 16].endswith(f"on far: {told}")
    assert accepts("b")
    assert found.first is not None
    assert accepts("c")
    assert not accepts("d", device="cpu Y", extra="1")
    assert found._refused["d" * 16].endswith("device is cpu Y, not cpu X; extra is 1, not None")
    assert (short("x" * 64), short("x" * 63), short(None)) == ("x" * 12, "x" * 63, "None")


def test_one_actor_of_a_node_is_asked_for_its_weights(opened: Callable[..., RayCluster]) -> None:
    found = opened()
    found._nodes[NODE] = Node("far")
    asked: list[Any] = []
    found.ask = lambda reference, then: asked.append((reference, then))  # type: ignore[method-assign]
    checked: list[tuple[Actor, bool]] = []
    failed: list[tuple[Actor, BaseException]] = []
    worker = cast("Any", SimpleNamespace(
        on_checked=lambda actor, good: checked.append((actor, good)),
        on_failed_start=lambda actor, error: failed.append((actor, error)),
    ))  # fmt: skip
    first, second, third = (Actor(Handle(), node=NODE) for _ in range(3))
    found._fingerprints = {"draw": "a" * 64, "tell": "b" * 64}
    found.require(worker, first)
    found.require(worker, second)
    [(reference, then)] = asked
    assert reference == "fingerprints"
    error = LostActor("gone")
    then(None, error)
    assert (failed, checked) == ([(first, error)], [])
    assert len(asked) == 2, "the other one is asked then"
    asked[1][1]({"draw": "a" * 64, "tell": "b" * 64}, None)
    assert checked == [(second, True)]
    found.require(worker, third)
    until = time.monotonic() + 60
    while len(checked) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert checked[1] == (third, True), "known by now"
    assert len(asked) == 2


def test_a_node_with_other_weights_is_refused_with_which(opened: Callable[..., RayCluster]) -> None:
    found = opened()
    found._nodes[NODE] = Node("far")
    asked: list[Any] = []
    found.ask = lambda reference, then: asked.append(then)  # type: ignore[method-assign]
    checked: list[bool] = []
    worker = cast("Any", SimpleNamespace(on_checked=lambda actor, good: checked.append(good)))
    found._fingerprints = {"draw": "a" * 64, "tell": "b" * 64, "same": "c" * 64}
    found.require(worker, Actor(Handle(), node=NODE))
    asked[0]({"draw": "d" * 64, "tell": "its weights are not here", "same": "c" * 64}, None)
    assert checked == [False]
    assert found._refused[NODE].endswith(
        f": draw is another one there ({'d' * 12}, not {'a' * 12}); its weights are not here"
    )


def test_what_ray_raises_is_sorted_by_whose_fault_it_is(opened: Callable[..., RayCluster]) -> None:
    ray = Ray()
    found = opened(ray)
    assert [found.is_actor_lost(error) for error in (LostActor(), NodeDied(), LostObject(), KeyError())] == [
        True, True, False, False
    ]  # fmt: skip
    assert [found.is_object_lost(error) for error in (LostObject(), LostActor())] == [True, False]
    assert not found.is_nobodys_fault(LostActor(), NODE)
    assert found.is_nobodys_fault(LostActor(), "gone")
    assert found.is_nobodys_fault(Unavailable(), NODE)
    found.kill("an actor")
    assert ray.killed == ["an actor"]
    assert found.last_words(Handle(), 2.0) == ["a span"]
    assert found.last_words(SimpleNamespace(end=SimpleNamespace(remote=lambda: "?")), 2.0) == []


def test_the_cluster_is_looked_at_now_and_then_and_at_once_for_a_lost_node(
    opened: Callable[..., RayCluster],
) -> None:
    ray = Ray()
    found = opened(ray)
    looked = ray.looked
    found._looked_at = time.monotonic() + 1000.0
    found.num_workers_at(NODE)
    assert ray.looked == looked
    found._looked_at = time.monotonic() - LOOK_S - 0.1
    found.num_workers_at(NODE)
    assert ray.looked == looked + 1
    found._looked_at = time.monotonic() + 1000.0
    assert found.is_alive(NODE)
    assert ray.looked == looked + 2


def test_that_nobody_works_is_told_once_after_a_while(
    opened: Callable[..., RayCluster], caplog: pytest.LogCaptureFixture
) -> None:
    found = opened()
    found.tell_of_waiting()
    found.tell_of_waiting()
    assert caplog.messages == []
    assert found._waits_since is not None
    for _ in range(2):
        found._waits_since -= clusters.PATIENCE_S + 1
        found.tell_of_waiting()
    assert caplog.messages == ["no worker of the Ray cluster has been ready for 30 s: waiting for room"]
    found.workers[0].is_ready = True
    found.tell_of_waiting()
    assert found._waits_since is None


def test_what_ends_the_thread_of_the_cluster_is_told(opened: Callable[..., RayCluster]) -> None:
    found = opened()
    delivered: list[BaseException] = []
    gone = {**SPECS, "gone": registry.resolve("sd-turbo")}
    of_session = {"draw": "0" * 64, "tell": "1" * 64, "gone": "2" * 64}
    settings = ServerSettings(device="cpu", specs=gone, fingerprints=of_session)
    found.begin(settings, delivered.append, 3.0)  # type: ignore[arg-type]
    assert {worker._timeout_s for worker in found.workers} == {3.0}
    of_session.pop("gone")  # its weights are not here
    assert found._fingerprints == of_session
    assert all(worker._work.settings.fingerprints == of_session for worker in found.workers)
    assert pickle.loads(found._specs) == SPECS
    error = KeyError("no")
    reference = SimpleNamespace(
        future=lambda: SimpleNamespace(
            add_done_callback=lambda then: then(
                SimpleNamespace(exception=lambda: None, result=lambda: "a value")
            )
        )
    )

    def then(value: Any, raised: BaseException | None) -> None:
        assert (value, raised) == ("a value", None)
        raise error

    found.ask(reference, then)
    found._thread.join(60)
    assert (delivered, found._broken) == ([error], error)
    for worker in found.workers:
        worker.start = lambda: None  # type: ignore[method-assign]
    with pytest.raises(KeyError, match="no"):
        found.wait()


# Connecting


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"workers": 2}, "workers: 2 counts processes of this machine"),
        ({"device": "cuda:1"}, "device: cuda:1, and executor is ray"),
        ({"device": "mps"}, "device: mps"),
        ({"device": ["cuda:0", "cuda:1"]}, "which decides itself on GPUs"),
        ({"ray": {"address": "ray://head:10001"}}, "is that of a Ray client"),
        ({"ray": {"address": "head:6379"}}, ""),
        ({"device": "cuda", "ray": {}}, ""),
    ],
)
def test_what_contradicts_a_cluster_is_refused(changes: dict[str, Any], told: str) -> None:
    config = make_config(executor="ray", **changes)
    if not told:
        connections._refuse_impossible(config)
        return
    with pytest.raises(UsageError, match=told), connections.open_cluster(config):
        raise AssertionError("it was opened")


def test_a_cluster_of_this_machine_has_room_for_those_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cpus(**ray: Any) -> int:
        local = connections._local(make_config(executor="ray", ray=ray))
        assert (local["address"], local["include_dashboard"], local["_node_ip_address"]) == (
            "local", False, "127.0.0.1"
        )  # fmt: skip
        return int(local["num_cpus"])

    monkeypatch.setattr(connections, "num_cores", lambda: 6)
    assert cpus() == connections._local(make_config(executor="ray"))["num_cpus"] == 6
    assert cpus(workers=100, cpus_per_worker=1.5) == 150
    assert cpus(workers=101, cpus_per_worker=1.5) == 152
    assert cpus(cpus_per_worker=1000) == 1000


def test_the_address_is_that_of_the_config_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given, none = make_config(executor="ray", ray={"address": "head:1"}), make_config(executor="ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert [connections._address(one) for one in (given, none)] == ["head:1", None]
    monkeypatch.setenv("RAY_ADDRESS", "other:2")
    assert [connections._address(one) for one in (given, none)] == ["head:1", "other:2"]


def test_variables_are_set_and_hidden_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "before")
    monkeypatch.setenv("KEY", "secret")
    monkeypatch.delenv("NEW", raising=False)

    def fail() -> None:
        with connections._environment({"OLD": "now", "NEW": "1"}, ["KEY", "NOT_THERE"]):
            assert (os.environ["OLD"], os.environ["NEW"], "KEY" in os.environ) == ("now", "1", False)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (os.environ["OLD"], "NEW" in os.environ, os.environ["KEY"]) == ("before", False, "secret")
    assert "NOT_THERE" not in os.environ


def test_ray_keeps_its_hands_off_the_log() -> None:
    logger = logging.getLogger("ray")
    before = list(logger.handlers), logger.level, logger.propagate
    mine = logging.NullHandler()
    logger.addHandler(mine)
    try:
        with connections._keeping_log():
            logger.handlers = [logging.StreamHandler()]
            logger.setLevel(logging.CRITICAL)
            logger.propagate = not before[2]
        assert (logger.handlers, logger.level, logger.propagate) == ([*before[0], mine], *before[1:])
    finally:
        logger.removeHandler(mine)


def test_workers_find_modules_where_this_process_does() -> None:
    path = connections.OurPath()
    path.extend([sys.path[-1], "/the/working/folder"])
    assert path == [sys.path[-1]]


@dataclass
class Module:
    """Ray as a module that connects to nothing."""

    is_there: bool = False
    error: Exception | None = None
    told: list[Any] = field(default_factory=list)
    job_config: Any = field(default_factory=lambda: SimpleNamespace(JobConfig=SimpleNamespace))

    def is_initialized(self) -> bool:
        return self.is_there

    def init(self, **how: Any) -> None:
        self.told.append(
            how | {"key": os.environ.get("ALARM"), "stats": os.environ.get("RAY_USAGE_STATS_ENABLED")}
        )
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.error is not None:
            raise self.error

    def shutdown(self) -> None:
        self.told.append("shutdown")


@pytest.mark.parametrize("address", ["", "head:1"])
def test_a_connection_is_given_back_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Ray takes the signal; a cluster that is started here gets no secrets."""
    ray = Module()
    monkeypatch.setitem(sys.modules, "ray", cast("Any", ray))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("ALARM", "secret")
    before = signal.signal(signal.SIGTERM, lambda *of: None)
    mine = signal.getsignal(signal.SIGTERM)
    try:
        config = make_config(
            executor="ray", ray={"address": address} if address else {}, notify={"to": ["ALARM"]}
        )
        with connections._connected(config):
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    told, end = ray.told
    assert end == "shutdown"
    assert told["address"] == (address or "local")
    assert (told["key"], told["stats"]) == (("secret", None) if address else (None, "0"))
    assert (told["log_to_driver"], told["configure_logging"]) == (False, False)
    assert isinstance(told["job_config"]._py_driver_sys_path, connections.OurPath)
    assert os.environ["ALARM"] == "secret"


def test_who_is_connected_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Module(is_there=True)
    monkeypatch.setitem(sys.modules, "ray", cast("Any", ray))
    with connections._connected(make_config(executor="ray")) as found:
        assert found is ray
    assert ray.told == []


def test_a_cluster_that_does_not_answer_is_told_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Module(error=ConnectionError("refused\nat line 3"))
    monkeypatch.setitem(sys.modules, "ray", cast("Any", ray))
    config = make_config(executor="ray", ray={"address": "head:1"})
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(UsageError) as told, connections._connected(config):
            raise AssertionError("it was connected")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told.value.message == "no Ray cluster can be used at head:1: refused"


def test_a_cluster_is_closed_whatever_becomes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    first = {
        "kind": "cuda A", "torch_name": "cuda", "has_own_memory": True, "total_bytes": 9, "free_bytes": 7,
        "is_steady": True, "surroundings": {"panic": "x", "b": "1", "a": "2"},
    }  # fmt: skip

    class Opened:
        device_name, workers = "cuda", ("a worker",)

        def __init__(self, ray: Any, config: Any, *, is_alone: bool) -> None:
            told.append(is_alone)

        def wait(self) -> Any:
            return first

        def begin(self, *of: Any) -> None:
            told.append(of)

        def close(self) -> None:
            told.append("closed")

    monkeypatch.setattr(connections, "RayCluster", Opened)
    monkeypatch.setattr(connections, "_connected", lambda config: contextlib.nullcontext("ray"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def use(**ray: Any) -> None:
        with connections.open_cluster(make_config(executor="ray", device="cuda", ray=ray)) as device:
            assert (device.name, device.kind, device.torch_name) == ("cuda", "cuda A", "cuda")
            assert (device.has_own_memory, device.is_steady) == (True, True)
            assert (device.total_bytes(), device.free_bytes()) == (9, 7)
            assert device.surroundings == '{"a":"2","b":"1"}', "the source of panic is compared elsewhere"
            assert device.start(SETTINGS, told.append, 3.0) == ["a worker"]
            raise KeyError

    for ray, is_alone in (({}, True), ({"address": "head:1"}, False)):
        told.clear()
        with pytest.raises(KeyError):
            use(**ray)
        assert told == [is_alone, (SETTINGS, told.append, 3.0), "closed"]


def test_a_cluster_that_ends_ends_its_workers_and_its_thread(opened: Callable[..., RayCluster]) -> None:
    found = opened(ray={"cpus_per_worker": 2})
    closed: list[int] = []
    for number, worker in enumerate(found.workers):
        worker.close = lambda number=number: closed.append(number) or []  # type: ignore[method-assign, func-returns-value]
    found.close()
    assert closed == [0, 1]
    assert not found._thread.is_alive()


# A place on a node


def test_pixels_stay_in_the_cluster_where_they_are_many() -> None:
    side = 185  # 3 x 185 x 185 are 102,675 bytes, and 102,400 are many
    large, small = (Image.new("RGB", (side, high), "red") for high in (side, side - 1))
    assert 3 * side * side >= INLINE_BYTES > 3 * side * (side - 1)
    arrays: list[Any] = []
    outputs = [
        Output(Modality.IMAGE, b"1", small), Output(Modality.IMAGE, b"2", large), Rejected("x"),
        Output(Modality.TEXT, b"3", "a text"), Output(Modality.IMAGE, b"4", large),
    ]  # fmt: skip
    parted = [places._parted(output, arrays) for output in outputs]
    assert [getattr(getattr(one, "value", None), "pixels", None) for one in parted] == [
        None, 0, None, None, 1
    ]  # fmt: skip
    assert [array.shape for array in arrays] == [(side, side, 3)] * 2
    assert parted[2:4] == outputs[2:4]
    found = places._content(cast("Output", parted[0]).value, [])
    assert found.tobytes() == small.tobytes()
    by_place = places._content(RemoteImage(size=(1, 1), pixels=1), [None, np.full((1, 1, 3), 7, np.uint8)])
    assert by_place.getpixel((0, 0)) == (7, 7, 7)
    assert places._content("a text", []) == "a text"


def test_a_place_serves_calls_with_its_models_and_says_what_its_time_went_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY", "secret")
    place = Place()
    unused = Place()
    assert pickle.loads(unused.end()), "one that has not begun has waited"
    unused._models.shutdown()
    settings = ServerSettings(device="cpu", specs=SPECS, hidden=("KEY", "NOT_THERE"))
    spans, there = pickle.loads(place.begin(pickle.dumps(settings)))
    assert "KEY" not in os.environ
    assert {"starting a process", "loading from disk", "serving"} <= {span.name for span in spans}
    assert spans[-1].end <= there <= time.monotonic()
    call = Call(number=3, model="draw", batch_size=2, inputs=["state 1", "state 2"], seeds=[1, 2])
    answer, *arrays = place.serve(pickle.dumps(call), 2)
    result, is_leaving = pickle.loads(answer)
    assert (result.number, result.error, is_leaving) == (3, None, False)
    assert [output.value.encoded[:4] for output in result.outputs] == [b"RIFF"] * 2
    assert arrays == [None, None], "small ones are sent along"
    assert place.invoking() is None
    seen: list[Any] = []
    server = cast("Any", place._server)
    serve = server.serve

    def watching(one: Call, on_invoke: Callable[[], None]) -> Any:
        on_invoke()
        seen.append(place.invoking())
        return serve(one)

    server.serve = watching
    images = [RemoteImage(size=output.value.size, encoded=output.value.encoded) for output in result.outputs]
    call = Call(number=4, model="tell", batch_size=2, inputs=images, seeds=[1, 2])
    told, _ = pickle.loads(place.serve(pickle.dumps(call), 0))
    assert [output.value for output in told.outputs] == ["state 2", "state 3"]
    [(number, seconds)] = seen
    assert number == 4
    assert 0 <= seconds < 60
    closing = pickle.loads(place.end())
    place._models.shutdown()  # its process would end here
    assert closing[-1].end <= time.monotonic()


def test_a_place_whose_files_have_changed_since_its_node_was_looked_at_does_not_begin() -> None:
    """Its results would be stored as those of the former model."""
    settings = ServerSettings(device="cpu", specs=SPECS, fingerprints={"draw": "0" * 64})
    place = Place()
    with pytest.raises(ModelError, match="its files have changed since the session began"):
        place.begin(pickle.dumps(settings))
    place._models.shutdown()


def test_a_place_tells_the_fingerprints_that_it_finds() -> None:
    gone = registry.resolve("BLIP-base")
    found = Place().fingerprints(pickle.dumps({"draw": SPECS["draw"], "blip": gone}))
    assert found["draw"] == registry.fingerprint(SPECS["draw"])
    assert "BLIP-base" in found["blip"]
    assert len(found["blip"]) != 64
