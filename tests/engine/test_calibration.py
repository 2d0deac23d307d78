"""Batch sizes that are tried out before an experiment's first item."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from panic import run
from panic.config import ExperimentConfig
from panic.engine.calibration import Caller, Trial, noise
from panic.engine.calls import Call, CallError, CallResult
from panic.engine.contents import Output
from panic.engine.ledger import Span
from panic.engine.preview import preview
from panic.engine.queue import Buckets
from panic.engine.workers import Workers
from panic.errors import Interrupted, ModelDoesNotFit, ModelError, ModelMissing
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import Store, reading
from tests.engine.conftest import dump, make_config

MODELS = '''
import json
from pathlib import Path

from panic.models.synthetic import ImageToText, TextToImage


class Draw(TextToImage):
    PARAMETERS = {}
    size_bytes = 40
    batch_size = 4

    def __init__(self):
        super().__init__(size=24)

    def working_bytes(self, batch_size):
        return 10 * batch_size


class Chain(ImageToText):
    """Tells in a file what it was called with."""

    PARAMETERS = {}
    size_bytes = 60
    batch_size = 16

    def __init__(self, file, item_bytes=100, is_strict=False):
        super().__init__(kernel="cycle")
        self.file, self.item_bytes, self.is_strict = Path(file), item_bytes, is_strict

    def working_bytes(self, batch_size):
        return self.item_bytes * batch_size

    def invoke(self, inputs, seeds):
        with self.file.open("a") as out:
            out.write(json.dumps([len(inputs), inputs[0].size]) + "\\n")
        if self.is_strict and len({item.tobytes() for item in inputs}) == 1:
            raise ValueError("all pictures are the same")
        return super().invoke(inputs, seeds)
'''


def config_with(folder: Path, device: str = "sim:1000", **parameters: Any) -> ExperimentConfig:
    (folder / "models.py").write_text(MODELS)
    return make_config(
        models={
            "draw": {"base": f"python:{folder}/models.py:Draw"},
            "chain": {
                "base": f"python:{folder}/models.py:Chain",
                "file": str(folder / "calls"),
                **parameters,
            },
        },
        prompts=["state 0", "state 1"],
        seeds=[-1],
        repeats=8,
        max_length=4,
        batch_sizes={},
        device=device,
        headroom=0,
    )


def batch_sizes(path: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    with Store(path) as store:
        for epoch in reading.epochs(store, "test"):
            found.setdefault(epoch.name, []).append(epoch.batch_size)
    return found


def calls(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def test_the_largest_batch_that_fits_is_pinned_before_the_first_item(tmp_path: Path) -> None:
    """16 items of 100 bytes beside 60 of weights do not fit in 1000 bytes; 8 do."""
    config = config_with(tmp_path)
    before = preview(config, tmp_path / "s")
    assert {m.name: (m.batch_size, m.shape_from) for m in before.models} == {
        "draw": (4, "trial"),
        "chain": (16, "trial"),
    }
    run(config, tmp_path / "s")
    assert batch_sizes(tmp_path / "s") == {"draw": [4], "chain": [8]}
    assert calls(tmp_path)[0] == [8, [24, 24]], "the dummy is a picture that was drawn"
    number = len(calls(tmp_path))
    after = preview(config, tmp_path / "s")
    assert {m.name: (m.batch_size, m.shape_from) for m in after.models} == {
        "draw": (4, "experiment"),
        "chain": (8, "experiment"),
    }
    longer = config.model_copy(update={"max_length": 6})
    run(longer, tmp_path / "s")
    assert len(calls(tmp_path)) == number + 2, "what is pinned is not tried out again"

    said = config.model_copy(update={"batch_sizes": {"draw": 4, "chain": 8}, "max_length": 6})
    assert {m.shape_from for m in preview(said, tmp_path / "other").models} == {"config"}
    (tmp_path / "calls").unlink()
    run(said, tmp_path / "other")
    assert len(calls(tmp_path)) == 3 + 6, "what the config says is not tried out, but proven in three calls"
    assert dump(tmp_path / "other") == dump(tmp_path / "s")


def test_a_model_that_refuses_the_dummy_keeps_its_batch_size(tmp_path: Path) -> None:
    config = config_with(tmp_path, is_strict=True, item_bytes=1)
    assert run(config, tmp_path / "s").state == "complete"
    assert batch_sizes(tmp_path / "s") == {"draw": [4], "chain": [16]}


def test_a_model_of_which_not_one_item_fits_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ModelDoesNotFit, match="chain needs"):
        run(config_with(tmp_path, item_bytes=2000), tmp_path / "s")
    assert batch_sizes(tmp_path / "s") == {}
    with Store(tmp_path / "s") as store:
        assert reading.counts(store, "test").invocations == 0


def test_in_main_memory_nothing_is_tried_out(tmp_path: Path) -> None:
    run(config_with(tmp_path, device="cpu"), tmp_path / "s")
    assert batch_sizes(tmp_path / "s") == {"draw": [4], "chain": [16]}
    assert len(calls(tmp_path)) == 3 + 2, "that results do not depend on batch mates is proven in three calls"


# What is tried, by a worker that a test plays


def session_of(**spec: Any) -> Any:
    """A session of a model that draws and of one that reads, whose context is as it is said."""
    draw = registry.resolve("synthetic/text-to-image")
    specs = {
        "tell": replace(registry.resolve("synthetic/image-to-text"), name="tell"),
        "draw": replace(draw, name="draw", **spec),
        "both": replace(draw, name="both", modalities_in=(Modality.TEXT, Modality.IMAGE)),
    }
    buckets = Buckets(specs, cast("Any", None))
    return SimpleNamespace(
        plan=SimpleNamespace(specs=specs), buckets=buckets, stop_requested=lambda: False
    )  # fmt: skip


class Played:
    """A worker that answers each call as a test says; the calls that it got."""

    is_ready = True

    def __init__(self, answer: Callable[[Call], Any], post: Any) -> None:
        self.answer, self.post = answer, post
        self.drained: CallResult | None = None
        self.calls: list[Call] = []
        self.asked: list[str] = []

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        found = self.answer(call)
        if isinstance(found, CallError):
            self.post(CallResult(number=call.number, error=found))
        elif found is not None:
            self.post(CallResult(number=call.number, outputs=found))

    def check(self) -> None:
        self.asked.append("check")

    def drain(self) -> None:
        self.asked.append("drain")
        if self.drained:
            self.post(self.drained)

    def close(self) -> list[Span]:
        return []


def played(answer: Callable[[Call], Any]) -> tuple[Workers, Played]:
    made: list[Played] = []

    def start(post: Any) -> list[Played]:
        made.append(Played(answer, post))
        return made

    return Workers(start), made[0]


def drawn(*sizes: tuple[int, int]) -> list[Any]:
    return [Output(Modality.IMAGE, b"x", Image.new("RGB", size)) for size in sizes]


def failed(kind: Any) -> CallError:
    return CallError(kind=kind, message="no")


def test_who_draws_is_tried_first_and_the_largest_image_is_what_others_get() -> None:
    def answer(call: Call) -> Any:
        if call.model == "draw":
            return drawn((8, 8), (9, 9), (80, 1))
        return [Output(Modality.TEXT, b"x", "a text")]

    workers, worker = played(answer)
    found = Trial(session_of(context_tokens=None), workers).batch_sizes({"tell": 3, "both": 2, "draw": 4})
    assert found == {"tell": 3, "both": 2, "draw": 4}
    assert [(call.model, call.batch_size, call.bucket) for call in worker.calls] == [
        ("draw", 4, 0), ("tell", 3, 0), ("both", 2, 0), ("both", 2, -1)
    ]  # fmt: skip
    first, second, third, fourth = worker.calls
    assert first.inputs == third.inputs * 2 == [" ".join(["a"] * 69)] * 4, "77 tokens, of which 8 are special"
    assert [len(call.seeds) for call in worker.calls] == [4, 3, 2, 2]
    assert second.inputs[0].size == fourth.inputs[0].size == (9, 9)


def test_a_model_of_two_modalities_gets_the_size_that_fits_both() -> None:
    def answer(call: Call) -> Any:
        room = 2 if call.bucket == 0 else 4  # texts are the larger ones
        return drawn((8, 8)) if call.batch_size <= room else failed("memory")

    workers, _ = played(answer)
    assert Trial(session_of(), workers).batch_sizes({"both": 8}) == {"both": 2}


@pytest.mark.parametrize(
    ("context", "words"), [(None, 69), (100, 92), (512, 504), (9999, 504), (8, 1), (3, 1)]
)
def test_a_dummy_is_as_long_as_the_model_reads(context: int | None, words: int) -> None:
    workers, worker = played(lambda call: [])
    Trial(session_of(context_tokens=context), workers).batch_sizes({"draw": 1})
    assert worker.calls[0].inputs == [" ".join(["a"] * words)]


def test_before_anything_is_drawn_the_image_is_noise_of_512_pixels() -> None:
    workers, worker = played(lambda call: [])
    Trial(session_of(), workers).batch_sizes({"tell": 1})
    [image] = worker.calls[0].inputs
    assert image.size == (512, 512)
    assert image.tobytes() == noise((512, 512), 0).tobytes()


@pytest.mark.parametrize(("room", "sizes"), [(9, [9]), (4, [9, 4]), (3, [9, 4, 2]), (1, [9, 4, 2, 1])])
def test_a_batch_is_halved_until_there_is_room(
    room: int, sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    workers, worker = played(lambda call: drawn((8, 8)) if call.batch_size <= room else failed("memory"))
    assert Trial(session_of(), workers).batch_sizes({"draw": 9}) == {"draw": sizes[-1]}
    assert [call.batch_size for call in worker.calls] == sizes
    assert caplog.messages == ([f"draw: batch size {sizes[-1]}; 9 do not fit"] if len(sizes) > 1 else [])


def test_what_no_smaller_batch_mends_ends_it_and_a_refusal_says_nothing() -> None:
    for kind, error in (("memory", ModelDoesNotFit), ("missing", ModelMissing), ("load", ModelError)):
        workers, worker = played(lambda call, kind=kind: failed(kind))
        with pytest.raises(error, match="draw: no"):
            Trial(session_of(), workers).batch_sizes({"draw": 2})
        assert len(worker.calls) == (2 if kind == "memory" else 1)
    for kind in ("error", "rejected", "crash"):
        workers, worker = played(lambda call, kind=kind: failed(kind))
        assert Trial(session_of(), workers).batch_sizes({"draw": 2}) == {"draw": 2}
        assert len(worker.calls) == 1


def test_a_call_that_was_not_begun_is_tried_again_ten_times() -> None:
    for number, kinds in ((3, ["untried"] * 2 + ["error"]), (11, ["untried"] * 11)):
        left = list(kinds)
        workers, worker = played(lambda call, left=left: failed(left.pop(0)))
        result = Caller(session_of(), workers).call(Call(model="draw", batch_size=1, inputs=["x"], seeds=[0]))
        assert result.error is not None
        assert (len(worker.calls), result.error.kind) == (number, kinds[-1])


def test_who_wants_to_stop_need_not_wait_for_another_try() -> None:
    session = session_of()
    session.stop_requested = lambda: True
    workers, worker = played(lambda call: drawn((1, 1)))
    one = Call(model="draw", batch_size=1, inputs=["x"], seeds=[0])
    with pytest.raises(Interrupted, match="Stopped before anything was computed"):
        Caller(session, workers).call(one)
    assert worker.asked == ["check"], "it had answered"
    workers, worker = played(lambda call: None)
    worker.drained = CallResult(number=1)
    with pytest.raises(Interrupted):
        Caller(session, workers).call(one)
    assert "drain" in worker.asked
