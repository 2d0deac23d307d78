"""What a worker makes of a call: padding, copies, the kinds of errors, the last resort, its threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from panic.engine.calls import Call, CallResult
from panic.engine.contents import Rejected
from panic.engine.serving import (
    CallServer,
    LocalWorker,
    ServerSettings,
    _call_error,
    _has_large_images,
    own_inputs,
)
from panic.errors import ModelDoesNotFit, ModelMissing, OutOfMemory, OutputRejected
from panic.models import registry
from panic.models.protocol import ModelSpec
from tests.patience import LONGEST_S
from tests.processes import Held

SPECS = {"a": registry.resolve("synthetic/text-to-image"), "b": registry.resolve("synthetic/image-to-text")}


class Echo:
    """Gives each input's seed behind it, and keeps what it was called with."""

    modality_in, modality_out, size_bytes = "text", "text", 0

    def __init__(
        self, invoke: Callable[[list[Any], list[int]], Any] | None = None, size_bytes: int = 0
    ) -> None:
        self.calls: list[tuple[list[Any], list[int]]] = []
        self.size_bytes = size_bytes
        self._invoke = invoke

    def load(self, device: str) -> None: ...

    def invoke(self, inputs: list[Any], seeds: list[int]) -> Any:
        self.calls.append((inputs, seeds))
        if self._invoke is not None:
            return self._invoke(inputs, seeds)
        return [f"{item} {seed}" for item, seed in zip(inputs, seeds, strict=True)]


def server_of(*models: Any, device: str = "cpu", **settings: Any) -> CallServer:
    """A server of text models by the names "a", "b" ... that are built as given."""
    given = dict(zip("abc", models, strict=False))
    specs = {name: replace(registry.resolve("synthetic/random-walk"), name=name) for name in given}
    return CallServer(ServerSettings(device=device, specs=specs, **settings), lambda spec: given[spec.name])


def call(*inputs: Any, batch_size: int = 4, model: str = "a") -> Call:
    return Call(
        number=7, model=model, batch_size=batch_size, inputs=list(inputs), seeds=list(range(len(inputs)))
    )


def serve(server: CallServer, one: Call) -> CallResult:
    result, raw = server.serve(one)
    return server.finish(one, result, raw)


def test_short_batches_are_padded_with_their_last_item_and_the_padding_is_dropped() -> None:
    model = Echo()
    before = time.time()
    result = serve(server_of(model), call("x", "y", "z"))
    assert model.calls == [(["x", "y", "z", "z"], [0, 1, 2, 2])]
    assert [output.value for output in result.outputs] == ["x 0", "y 1", "z 2"]  # type: ignore[union-attr]
    assert (result.number, result.error, result.device, result.resident) == (7, None, "cpu", {"a"})
    assert before < result.started_at < time.time()


def test_the_duration_is_that_of_the_call_alone() -> None:
    """Not also that of bringing the model, which takes much longer."""
    called: list[float] = []

    def nap(*of: Any) -> Any:
        began = time.monotonic()
        time.sleep(0.05 if called else 0.5)
        called.append(time.monotonic() - began)
        return of[0]

    model = Echo(nap)
    model.load = nap  # type: ignore[method-assign]
    began = time.monotonic()
    found_s = serve(server_of(model), call("x")).duration_s
    took_s = time.monotonic() - began
    bringing_s, calling_s = called
    assert calling_s <= found_s <= took_s - bringing_s


def test_what_is_given_and_what_comes_back_are_copies() -> None:
    image = Image.new("RGB", (8, 8), "red")
    buffer = np.zeros((8, 8, 3), np.uint8)

    def paint(inputs: list[Any], seeds: list[int]) -> Any:
        inputs[0].paste("blue", (0, 0, 4, 4))
        return [buffer for _ in inputs]

    server = CallServer(
        ServerSettings(device="cpu", specs={"a": registry.resolve("synthetic/text-to-image")}),
        lambda spec: Echo(paint),  # type: ignore[arg-type, return-value]
    )
    one = call(image, batch_size=1)
    result, raw = server.serve(one)
    buffer[:] = 255
    outputs = server.finish(one, result, raw).outputs
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert outputs[0].value.getpixel((0, 0)) == (0, 0, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("odd"), "error", "ValueError: odd"),
        (OutputRejected("blank"), "rejected", "blank"),
        (OutOfMemory("3 GiB more"), "memory", "3 GiB more"),
        (ModelMissing("no weights"), "missing", "no weights"),
        (ModelDoesNotFit("too large"), "unfit", "too large"),
        (SystemExit(3), "error", "SystemExit: 3"),
    ],
)
def test_errors_are_told_by_kind(error: BaseException, kind: str, message: str) -> None:
    def fail(inputs: list[Any], seeds: list[int]) -> Any:
        raise error

    result = serve(server_of(Echo(fail)), call("x"))
    assert result.error is not None
    assert (result.error.kind, result.error.message, result.outputs) == (kind, message, [])
    assert "in fail" in result.error.detail, "the traceback is kept"


def test_an_error_before_the_call_is_one_of_loading() -> None:
    def build(spec: ModelSpec) -> Any:
        raise ValueError("no such layer")

    settings = ServerSettings(device="cpu", specs={"a": registry.resolve("synthetic/random-walk")})
    result = serve(CallServer(settings, build), call("x"))
    assert result.error is not None
    assert (result.error.kind, result.error.message) == ("load", "ValueError: no such layer")


@pytest.mark.parametrize("given", [["x"], ["x"] * 5])
def test_a_model_gives_one_output_per_input(given: list[str]) -> None:
    result = serve(server_of(Echo(lambda inputs, seeds: given)), call("x", "y"))
    assert result.error is not None
    assert result.error.message == f"RuntimeError: a returned {len(given)} outputs for a batch of 4 inputs"


def test_one_unusable_output_is_its_own() -> None:
    result = serve(
        server_of(Echo(lambda inputs, seeds: ["x", " ", OutputRejected("dark"), "y"])), call(*"abcd")
    )
    assert result.error is None
    kinds = [type(output).__name__ for output in result.outputs]
    assert kinds == ["Output", "Rejected", "Rejected", "Output"]
    assert result.outputs[1:3] == [Rejected("empty text"), Rejected("dark")]


def test_an_output_of_another_kind_is_an_error_of_the_batch() -> None:
    result = serve(server_of(Echo(lambda inputs, seeds: [1, 2, 3, 4])), call("x"))
    assert result.error is not None
    assert (result.error.kind, result.outputs) == ("error", [])
    assert "a text model returned int" in result.error.message


def test_constant_images_are_rejected_if_so_configured() -> None:
    flat = Image.new("RGB", (4, 4), "red")
    for reject, kind in ((False, "Output"), (True, "Rejected")):
        settings = ServerSettings(device="cpu", specs=SPECS, reject_constant_images=reject)
        server = CallServer(settings, lambda spec: Echo(lambda inputs, seeds: [flat] * 4))  # type: ignore
        (output,) = serve(server, call("x")).outputs
        assert type(output).__name__ == kind


def test_where_another_model_is_in_the_way_it_leaves_and_the_call_is_made_again() -> None:
    tries: list[int] = []

    def moody(inputs: list[Any], seeds: list[int]) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise OutOfMemory("no room")
        return inputs

    server = server_of(Echo(size_bytes=10), Echo(moody, size_bytes=10), device="sim:1000")
    assert serve(server, call("x")).resident == {"a"}
    result = serve(server, call("x", model="b"))
    assert (result.error, result.resident, len(tries)) == (None, {"b"}, 2)


def test_what_does_not_fit_alone_is_told_after_one_more_try() -> None:
    def greedy(inputs: list[Any], seeds: list[int]) -> Any:
        raise OutOfMemory("no room")

    model = Echo(greedy)
    server = server_of(model)
    result = serve(server, call("x"))
    assert result.error is not None
    assert result.error.kind == "memory"
    assert server.cache.stats.out_of_memory == 2
    assert len(model.calls) == 2, "once more after everything, itself included, has left the device"


class Layer(Echo):
    """64 KiB of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.modules = [torch.nn.Linear(128, 128)]

    def weight_modules(self) -> Any:
        return self.modules


def test_a_call_tells_what_its_time_went_into() -> None:
    """Of three models one fits on the device: the third call brings what was built for the first."""
    server = server_of(Layer(), Layer(), Layer(), device="sim:100KiB")
    told = []
    for model, inputs in (("a", "x"), ("b", "xyzz"), ("a", "xyzz"), ("c", "xyzz"), ("c", "xy")):
        result, _ = server.serve(call(*inputs, model=model))
        assert result.error is None
        told.append([span.name for span in result.spans if span.model])
    disk, moved = "loading from disk", "moving to the device"
    lent = [disk, disk, moved, disk, "leasing"]
    padding: list[list[str]] = [["padding"], [], [], [], ["padding"]]
    assert [[name for name in names if name != "handing over"] for names in told] == [
        [first, "calling", *rest] for first, rest in zip(lent, padding, strict=True)
    ]
    *_, calling, padded, _ = (span for span in result.spans if span.model)
    assert padded.end - padded.start == pytest.approx(calling.end - calling.start, abs=1e-8), (
        "two of four items"
    )


def test_only_a_lack_of_memory_is_a_reason_to_bring_a_model_in_layers() -> None:
    def broken(inputs: list[Any], seeds: list[int]) -> Any:
        raise ValueError("broken")

    model = Layer()
    model._invoke = broken
    server = server_of(model, device="sim:1MiB")
    result = serve(server, call("x", batch_size=1))
    assert result.error is not None
    assert (result.error.kind, len(model.calls)) == ("error", 1)


def test_models_are_loaded_ahead_and_one_that_does_not_load_is_told_when_it_is_asked_for() -> None:
    class Broken(Echo):
        def load(self, device: str) -> None:
            raise ValueError("cut off")

    server = server_of(Echo(), Broken(), Echo())
    server.load_all()
    assert server.cache.resident == {"a", "c"}
    result = serve(server, call("x", model="b"))
    assert result.error is not None
    assert (result.error.kind, result.error.message) == ("load", "ValueError: cut off")


def test_a_worker_answers_in_order_and_ends_with_what_it_has() -> None:
    inbox: queue.SimpleQueue[CallResult] = queue.SimpleQueue()
    settings = ServerSettings(device="cpu", specs={"a": registry.resolve("synthetic/random-walk")})

    def deliver(result: CallResult) -> None:
        time.sleep(0.02)
        inbox.put(result)

    before = Held()
    worker = LocalWorker(settings, lambda spec: Echo(), deliver)  # type: ignore[arg-type, return-value]
    for number in range(3):
        worker.submit(Call(number=number, model="a", batch_size=1, inputs=[f"t{number}"], seeds=[number]))
    assert "closing" in {span.name for span in worker.close()}
    assert before.new_threads() == set()
    assert worker._server.cache.resident == set()
    results = [inbox.get_nowait() for _ in range(3)]
    assert [(result.number, result.outputs[0].value) for result in results] == [  # type: ignore[union-attr]
        (0, "t0 0"), (1, "t1 1"), (2, "t2 2"),
    ]  # fmt: skip


class Noted(Image.Image):
    """It notes by which thread it is copied."""

    names: ClassVar[list[str]] = []

    def copy(self) -> Image.Image:
        self.names.append(threading.current_thread().name)
        return super().copy()


def test_large_images_are_copied_by_another_thread_than_the_models() -> None:
    """The model waited for it: 3 ms of every 23 ms, of four images of 512 pixels on two busy cores."""
    inbox: queue.SimpleQueue[CallResult] = queue.SimpleQueue()
    small, large = (Image.new("RGB", (side, side), "red") for side in (8, 512))
    small.__class__ = large.__class__ = Noted
    seen: list[tuple[int, int, int]] = []

    def paint(inputs: list[Any], seeds: list[int]) -> Any:
        seen.append(inputs[0].getpixel((0, 0)))
        inputs[0].paste("blue", (0, 0, 4, 4))
        if len(seen) == 3:
            raise OutOfMemory("no room")
        return ["a text"]

    settings = ServerSettings(device="cpu", specs={"a": registry.resolve("synthetic/image-to-text")})
    worker = LocalWorker(settings, lambda spec: Echo(paint), inbox.put)  # type: ignore
    for number, image in enumerate((small, large, large)):
        worker.submit(Call(number=number, model="a", batch_size=1, inputs=[image], seeds=[number]))
        assert inbox.get(timeout=LONGEST_S).error is None
    worker.close()
    assert seen == [(255, 0, 0)] * 4, "also when it is tried again"
    assert [name.partition("_")[0] for name in Noted.names] == ["models", "beside", "beside", "models"]


@pytest.mark.parametrize("of", ["models", "finish"])
def test_what_ends_a_thread_of_a_worker_is_delivered(of: str) -> None:
    """Without memory for another thread the call was lost, and the driver waited for its result for ever."""
    inbox: queue.SimpleQueue[CallResult | BaseException] = queue.SimpleQueue()
    settings = ServerSettings(device="cpu", specs={"a": registry.resolve("synthetic/random-walk")})
    broken = RuntimeError("can't start new thread")

    def deliver(result: CallResult | BaseException) -> None:
        if of == "finish" and isinstance(result, CallResult):
            raise broken
        inbox.put(result)

    worker = LocalWorker(settings, lambda spec: Echo(), deliver)  # type: ignore[arg-type, return-value]
    if of == "models":
        worker._server.serve = lambda call, inputs: (_ for _ in ()).throw(broken)  # type: ignore[method-assign]
    worker.submit(Call(number=1, model="a", batch_size=1, inputs=["t"], seeds=[1]))
    assert inbox.get(timeout=LONGEST_S) is broken
    worker.close()


def test_torch_gets_its_threads_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    other = 1 if before > 1 else 2

    def look(inputs: list[Any], seeds: list[int]) -> Any:
        seen.append(torch.get_num_threads())
        return inputs

    server = server_of(Echo(look), threads=other)
    serve(server, call("x"))
    server.close()
    assert seen == [other]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("size", "batch_size", "is_large"),
    [((512, 512), 1, True), ((512, 511), 1, False), ((256, 256), 4, True), ((256, 256), 3, False)],
)
def test_a_quarter_of_a_million_pixels_is_large(
    size: tuple[int, int], batch_size: int, is_large: bool
) -> None:
    assert _has_large_images(call(Image.new("RGB", size), batch_size=batch_size)) is is_large
    assert not _has_large_images(call("x" * 10**6))


def test_what_an_error_says_is_kept_as_far_as_it_can_be_said() -> None:
    def deep(number: int) -> None:
        if number:
            deep(number - 1)
        else:
            raise ValueError("x" * 20_000)

    with pytest.raises(ValueError, match="x") as caught:
        deep(3)
    found = _call_error(caught.value, loaded=True)
    assert (found.kind, found.message) == ("error", f"ValueError: {'x' * 20_000}")
    assert len(found.detail) == 8000
    assert found.detail.endswith("xx\n"), "its end says most"
    odd = ValueError("odd")
    odd.hint = 7  # type: ignore[attr-defined]
    assert _call_error(odd, loaded=True).hint == ""
    found = _call_error(ModelMissing("gone", hint="look"), loaded=False)
    assert (found.kind, found.message, found.hint) == ("missing", "gone", "look")
    assert _call_error(OutputRejected("dark"), loaded=False).kind == "load"
    assert _call_error(OutOfMemory("no"), loaded=False).kind == "memory"


def test_an_exception_without_a_text_is_told_by_its_class() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    found = _call_error(Bad(), loaded=True)
    assert (found.message, found.detail) == ("Bad", "")


def test_only_what_a_model_may_change_is_copied() -> None:
    image, array = Image.new("RGB", (2, 2)), np.zeros(3)
    first, second, third, fourth = own_inputs(call(image, array, "text"))
    assert (first is image, second is array, third) == (False, False, "text")
    assert (first.tobytes(), second.tolist(), fourth) == (image.tobytes(), [0, 0, 0], "text")
