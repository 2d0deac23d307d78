"""Whether results depend on batch mates is measured before the first item, and what follows from it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from panic import run
from panic.config import ExperimentConfig
from panic.devices.device import CpuDevice
from panic.engine import invariance as invariances
from panic.engine.calibration import noise
from panic.engine.calls import Call, CallError, CallResult
from panic.engine.contents import Output, Rejected
from panic.engine.invariance import Probe
from panic.engine.pinning import (
    SWITCHES,
    Shape,
    adapted,
    changes,
    is_known_to_be_steady,
    repin,
    steady_kernels,
    surroundings,
)
from panic.engine.plan import CheckedConfig, make_plan
from panic.engine.queue import Buckets
from panic.errors import ConfigError
from panic.models import kinds, registry
from panic.models.protocol import Modality
from panic.models.table import TABLE
from panic.store import Store, invariance, provenance, reading, writing
from tests.tiny_brought import build_cogview4

MODELS = '''
class Steady:
    """Depends on an item's own text and seed."""

    modality_in = modality_out = "text"
    size_bytes = 0
    batch_size = 4

    def __init__(self, file=""):
        self.file = file

    def load(self, device):
        pass

    def invoke(self, inputs, seeds):
        if self.file:
            with open(self.file, "a") as out:
                print(len(inputs), *{len(text) for text in inputs}, file=out)
        return [self.tell(place, inputs, seeds) for place in range(len(inputs))]

    def tell(self, place, inputs, seeds):
        return f"{inputs[place][:9]} {seeds[place]}"


class Leaking(Steady):
    """Depends on the mates."""

    def tell(self, place, inputs, seeds):
        return f"{inputs[place][:9]} {sum(map(len, inputs))}"


class Outshone(Steady):
    """Depends on mates that are four times longer, and on no others."""

    def tell(self, place, inputs, seeds):
        longest = max(map(len, inputs))
        return f"{inputs[place][:9]} {longest >= 4 * len(inputs[place])}"


class Placed(Steady):
    """Depends on the place in the batch."""

    def tell(self, place, inputs, seeds):
        return f"{inputs[place][:9]} {place}"


class Rare(Steady):
    """Depends on the place in the batch, and only in one text of many."""

    def tell(self, place, inputs, seeds):
        return f"{inputs[place][:9]} {place if 'dog' in inputs[place] else ''}"


class Fickle(Steady):
    """Gives something else at every call."""

    calls = 0

    def tell(self, place, inputs, seeds):
        Fickle.calls += 1
        return f"{inputs[place][:9]} {Fickle.calls}"


class Failing(Steady):
    """Takes its inputs from a list, and a dummy is not in it."""

    def tell(self, place, inputs, seeds):
        if "red" in inputs[place]:
            raise ValueError("not in the list")
        return inputs[place] + "!"
'''

ROWS = """
import torch

torch.set_num_threads(1)
torch.manual_seed(0)
unsteady = 0
for _ in range(50):
    rows, weight = torch.randn(17, 32), torch.randn(32, 32)
    batch = torch.nn.functional.linear(rows.expand(4, 17, 32).contiguous(), weight)
    unsteady += not all(torch.equal(batch[0], other) for other in batch)
print(unsteady)
"""
"""How often, of fifty, equal items of a batch of four give different products with a matrix."""


def config_of(folder: Path, model: str, **changes: Any) -> ExperimentConfig:
    """Four runs of a network of one model, which writes texts about texts."""
    (folder / "models.py").write_text(MODELS)
    parameters = changes.pop("parameters", {})
    return ExperimentConfig.model_validate(
        {
            "name": "probe",
            "networks": [["it"]],
            "models": {"it": {"base": f"python:{folder}/models.py:{model}", **parameters}},
            "prompts": ["one", "two", "three", "four"],
            "seeds": [42],
            "max_length": 2,
            "device": "cpu",
            "executor": "local",
            "threads": 1,
            **changes,
        }
    )


def pins(path: Path) -> list[tuple[int, str, str]]:
    with Store(path) as store:
        return [(row.batch_size, row.mates, row.reason) for row in reading.epochs(store, "probe")]


def measured(path: Path) -> list[str]:
    with Store(path) as store:
        return [one.verdict for one in invariance.verdicts(store, surroundings(CpuDevice()))]


@pytest.mark.parametrize(
    ("model", "batch_size", "verdict"),
    [
        ("Steady", 4, "independent"),
        ("Leaking", 1, "alone"),
        ("Outshone", 1, "alone"),
        ("Placed", 1, "alone"),
        ("Rare", 1, "alone"),
        ("Fickle", 4, "unrepeatable"),
    ],
)
def test_a_model_that_leaks_between_rows_gets_batches_of_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str, batch_size: int, verdict: str
) -> None:
    with caplog.at_level(logging.WARNING, "panic.engine"):
        run(config_of(tmp_path, model), tmp_path / "store")
    assert pins(tmp_path / "store") == [(batch_size, "bucket", "start")]
    assert measured(tmp_path / "store") == [verdict]
    assert ("it:" in caplog.text) is (verdict != "independent")


def test_three_calls_prove_it_once_for_a_store(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    parameters = {"file": str(calls)}
    run(config_of(tmp_path, "Steady", parameters=parameters, max_length=1), tmp_path / "store")
    sizes = [line.split() for line in calls.read_text().splitlines()]
    assert [len(lengths) for _, *lengths in sizes] == [2, 2, 2, 3], "short mates twice, long ones; the runs"
    assert max(int(length) for length in sizes[2][1:]) >= 4 * len("a red cat")
    again = config_of(tmp_path, "Steady", parameters=parameters, max_length=1, name="again")
    run(again, tmp_path / "store")
    assert len(calls.read_text().splitlines()) == 5


def test_what_models_are_tried_with_is_the_same_in_every_process() -> None:
    made = [noise((16, 8), seed) for seed in (3, 3, 4)]
    assert [image.size for image in made] == [(16, 8)] * 3
    assert made[0].tobytes() == made[1].tobytes() != made[2].tobytes()
    assert hashlib.sha256(made[0].tobytes()).hexdigest()[:8] == "19178f4e"


def test_nothing_is_called_for_an_experiment_that_is_complete(tmp_path: Path) -> None:
    config = config_of(tmp_path, "Steady", parameters={"file": str(tmp_path / "calls")})
    run(config, tmp_path / "store")
    with Store(tmp_path / "store", write=True) as store, store.transaction() as connection:
        connection.execute("DELETE FROM invariance")
    before = (tmp_path / "calls").read_text()
    run(config, tmp_path / "store")
    assert (tmp_path / "calls").read_text() == before


def test_batches_that_the_config_asks_for_are_refused_where_they_leak(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_sizes\.it is 4, but an item's result depends"):
        run(config_of(tmp_path, "Leaking", batch_sizes={"it": 4}), tmp_path / "store")
    run(config_of(tmp_path, "Leaking", batch_sizes={"it": 1}), tmp_path / "store")
    assert pins(tmp_path / "store") == [(1, "bucket", "start")]


def test_a_model_that_refuses_the_probe_is_called_as_ever(tmp_path: Path) -> None:
    assert run(config_of(tmp_path, "Failing"), tmp_path / "store").state == "complete"
    assert (pins(tmp_path / "store"), measured(tmp_path / "store")) == ([(4, "bucket", "start")], [])


def test_a_pinned_experiment_keeps_its_shape_until_it_is_pinned_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tmp_path, "Leaking")
    checked = CheckedConfig.of(config, ask=True)
    plan = make_plan(checked, "cpu")
    fingerprints = registry.fingerprints(plan.specs)
    path = tmp_path / "store"
    with Store(path, write=True, create=True) as store:
        experiment = writing.start_experiment(store, "probe", config.model_dump(mode="json"))
        model = writing.add_model(store, "it", fingerprints["it"], {})
        writing.add_epoch(store, experiment, "it", model=model, batch_size=4, device_kind="cpu", threads=1)
    with caplog.at_level(logging.WARNING, "panic.engine"):
        run(config, path)
    assert "--repin" in caplog.text
    assert pins(path) == [(4, "bucket", "start")]

    longer = config.model_copy(update={"max_length": 5})
    plan = make_plan(CheckedConfig.of(longer, ask=True), "cpu")
    with Store(path, write=True) as store:
        (change,) = changes(store, experiment, plan, CpuDevice())
        assert (change.before.batch_size, change.after.batch_size) == (4, 1)
        repin(store, experiment, plan, fingerprints, CpuDevice())
    caplog.clear()
    run(longer, path)
    assert pins(path) == [(4, "bucket", "start"), (1, "bucket", "request")]
    assert "it:" not in caplog.text


def test_items_of_one_length_share_batches_where_that_is_what_matters() -> None:
    shape = Shape(batch_size=4, threads=2)
    assert adapted(shape, "independent") == adapted(shape, "unrepeatable") == shape
    assert adapted(shape, "length") == Shape(batch_size=4, threads=2, mates="length")
    assert adapted(Shape(batch_size=4, threads=2, mates="length"), "alone") == Shape(batch_size=1, threads=2)


def test_kinds_vouch_for_what_tests_have_proven_and_for_nothing_else() -> None:
    vouched = Counter(registry.is_invariant(spec, True) for spec in TABLE.values() if spec.is_hub)
    assert vouched == {False: sum(spec.is_hub for spec in TABLE.values())}
    assert all(registry.is_invariant(spec, True) for spec in TABLE.values() if not spec.is_hub)
    assert all(registry.is_invariant(spec, True) for spec in kinds.named("synthetic").models())


def test_a_pipeline_that_pads_to_its_longest_prompt_draws_those_of_a_length_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """CogView4 attends to the padding: 160,000 values of an image differ beside a long prompt."""
    folder = build_cogview4(tmp_path / "cogview4")
    drawing = {"base": f"local:{folder}", "steps": 2, "guidance": 1.0, "width": 64, "height": 64}
    prompts = ["a red cat", "a blue dog", "a green boat on a long and winding river", "a red dog"]
    config = ExperimentConfig.model_validate(
        {
            "name": "probe",
            "networks": [["it", "PocketCaptioner"]],
            "models": {"it": drawing},
            "prompts": prompts,
            "seeds": [42],
            "max_length": 1,
            "device": "cpu",
            "threads": 1,
        }
    )
    with caplog.at_level(logging.WARNING, "panic.engine"):
        run(config, tmp_path / "store")
    assert "only items of equal length share a batch" in caplog.text
    with Store(tmp_path / "store") as store:
        shapes = {row.name: (row.batch_size, row.mates) for row in reading.epochs(store, "probe")}
        batches = store.db.rows("SELECT size, bucket FROM batch ORDER BY size")
    assert shapes == {"it": (4, "length"), "PocketCaptioner": (4, "bucket")}
    assert [size for size, _ in batches] == [1, 1, 2], "two prompts have as many tokens"
    assert len({bucket for _, bucket in batches}) == 3


@pytest.mark.parametrize(
    ("instructions", "wanted"),
    [
        (("avx", "avx2", "fma"), "AVX2,STRICT"),
        (("avx", "avx2", "avx512bw", "avx512f"), ""),
        (("sse4_1", "sse4_2"), ""),
        (("asimd", "sve"), ""),
        ((), ""),
    ],
)
def test_strict_kernels_are_asked_for_where_others_round_by_place(
    instructions: tuple[str, ...], wanted: str
) -> None:
    assert steady_kernels(instructions) == wanted


@pytest.mark.skipif("avx2" not in provenance.vector_instructions(), reason="the processor has no AVX2")
def test_what_is_asked_for_is_enough() -> None:
    """With AVX2 alone all fifty were unsteady without it."""
    asked = {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "MKL_CBWR": steady_kernels(["avx2"])}
    done = subprocess.run(
        [sys.executable, "-c", ROWS], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


def test_a_processor_whose_kernels_were_chosen_by_the_user_is_not_vouched_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for switch in SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    assert is_known_to_be_steady(CpuDevice()) == ("avx512f" in provenance.vector_instructions())
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    assert not is_known_to_be_steady(CpuDevice())
    told = json.loads(surroundings(CpuDevice()))
    assert told["MKL_ENABLE_INSTRUCTIONS"] == "AVX2"
    libraries = ("torch", "diffusers", "transformers")
    assert [told[name] for name in libraries] == [metadata.version(name) for name in libraries]


# What models are called with, by a caller that a test plays


def probe_of(answer: Callable[[Call], Any], **spec: Any) -> tuple[Probe, list[Call]]:
    """A probe of a model of texts and one that reads images; the calls that it makes."""
    walk = registry.resolve("synthetic/random-walk")
    specs = {
        "it": replace(walk, name="it", **spec),
        "tell": replace(registry.resolve("synthetic/image-to-text"), name="tell"),
    }
    session = SimpleNamespace(
        plan=SimpleNamespace(specs=specs, config=SimpleNamespace(batch_sizes={"tell": 4})),
        buckets=Buckets(specs, cast("Any", None)),
        fingerprints={"it": "f" * 64, "tell": "e" * 64},
    )
    calls: list[Call] = []

    def call(one: Call) -> CallResult:
        calls.append(one)
        found = answer(one)
        if isinstance(found, CallError):
            return CallResult(number=1, error=found)
        return CallResult(number=1, outputs=found)

    probe = Probe(cast("Any", session), cast("Any", None), pinned=["pinned"])
    probe._caller = cast("Any", SimpleNamespace(call=call))
    return probe, calls


def texts(call: Call, tell: Callable[[int], str]) -> list[Any]:
    return [Output(Modality.TEXT, text.encode(), text) for text in map(tell, range(len(call.inputs)))]


def test_a_model_is_called_with_short_mates_twice_and_behind_a_long_one() -> None:
    probe, calls = probe_of(
        lambda call: texts(call, lambda place: str((call.inputs[place], call.seeds[place])))
    )
    found = probe._measured("it", Shape(batch_size=3, threads=2))
    assert found is not None
    assert (found.verdict, found.batch_size, found.threads, found.fingerprint) == (
        "independent", 3, 2, "f" * 64
    )  # fmt: skip
    ahead, back, behind = calls
    assert (ahead.inputs, ahead.seeds) == (["a red cat", "a", "a red dog"], [1, 2, 3])
    assert (back.inputs, back.seeds) == (ahead.inputs[::-1], [3, 2, 1])
    long, short, item = behind.inputs
    assert (short, item, behind.seeds) == ("a red dog", "a red cat", [2, 3, 1])
    assert (len(long), long[:14], {call.batch_size for call in calls}) == (300, "red blue green", {3})


@pytest.mark.parametrize(
    ("spec", "longest"),
    [
        ({}, 300), ({"context_tokens": 77}, 57), ({"context_tokens": 4000}, 400),
        ({"context_tokens": 77, "parameters": {"max_sequence_length": 40}}, 30),
    ],
)  # fmt: skip
def test_a_long_mate_is_no_longer_than_the_model_reads(spec: dict[str, Any], longest: int) -> None:
    probe, _ = probe_of(lambda call: [], **spec)
    _, _, (long, *_) = probe._contents("it", Modality.TEXT)
    assert longest - 1 <= len(cast("str", long)) <= longest, "an end of white space is cut off"


def test_images_are_noise_and_plain_ones_of_what_was_drawn_before() -> None:
    probe, _ = probe_of(lambda call: texts(call, str))
    item, near, far = probe._contents("tell", Modality.IMAGE)
    pictures = [cast("Image.Image", one) for one in (item, *near, *far)]
    assert {one.size for one in pictures} == {(256, 256)}
    assert len({one.tobytes() for one in pictures}) == len(pictures) == 1 + 7 + 2
    assert probe._results("tell", [item] * 2, [1, 2]) is not None
    assert probe._image is None, "texts are none"
    drawn = Image.new("RGB", (5, 4))
    probe._caller = cast("Any", SimpleNamespace(
        call=lambda call: CallResult(number=1, outputs=[Rejected("x"), Output(Modality.IMAGE, b"x", drawn)])
    ))  # fmt: skip
    probe._results("it", ["x"], [1])
    item, near, far = probe._contents("tell", Modality.IMAGE)
    assert item is drawn
    assert {cast("Image.Image", one).size for one in (*near, *far)} == {(5, 4)}


NO = CallError(kind="error", message="no")


@pytest.mark.parametrize(
    ("answer", "verdict", "num_calls"),
    [
        (lambda call, number: NO, None, 1),
        (lambda call, number: NO if number == 2 else texts(call, lambda place: "x"), None, 2),
        (lambda call, number: NO if number == 3 else texts(call, lambda place: "x"), None, 3),
        (lambda call, number: [Rejected("dark")] * 3, None, 3),
        (lambda call, number: texts(call, lambda place: call.inputs[place]), "independent", 3),
        (lambda call, number: texts(call, str), "alone", 5),
        (lambda call, number: texts(call, lambda place: str(number)), "unrepeatable", 5),
        (lambda call, number: NO if number == 5 else texts(call, str), "unrepeatable", 5),
        (
            lambda call, number: [
                Rejected("x") if text == "a red cat" and place else one
                for place, (text, one) in enumerate(
                    zip(call.inputs, texts(call, lambda place: "x"), strict=True)
                )
            ],
            "alone", 5,
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_a_model_by_what_it_gives(answer: Any, verdict: str | None, num_calls: int) -> None:
    calls: list[Call] = []

    def numbered(call: Call) -> Any:
        calls.append(call)
        return answer(call, len(calls))

    probe, _ = probe_of(numbered)
    found = probe._measured("it", Shape(batch_size=3, threads=1))
    assert (found and found.verdict, len(calls)) == (verdict, num_calls)


@pytest.mark.parametrize("steady", [str, Image.Image])
def test_of_a_model_of_two_modalities_the_worse_one_is_said(steady: type) -> None:
    """What comes of the other modality depends on the place in the batch."""
    probe, calls = probe_of(
        lambda call: texts(call, (lambda place: "x") if isinstance(call.inputs[0], steady) else str),
        modalities_in=(Modality.TEXT, Modality.IMAGE),
    )
    found = probe._measured("it", Shape(batch_size=3, threads=1))
    assert found is not None
    assert (found.verdict, len(calls)) == ("alone", 3 + 5)


def test_items_of_one_length_are_tried_where_others_do_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results depend on how long the longest text is; among texts of as many words on nothing."""

    def longest(call: Call) -> list[Any]:
        most = max(len(text.split()) for text in call.inputs)
        return texts(call, lambda place: f"{call.inputs[place]} {most}")

    for lengths, verdict in ((lambda text: len(text.split()), "length"), (len, "length"), (None, "alone")):
        monkeypatch.setattr(registry, "lengths", lambda spec, lengths=lengths: lengths)
        probe, calls = probe_of(longest)
        found = probe._measured("it", Shape(batch_size=4, threads=1))
        assert found is not None
        assert found.verdict == verdict
        if lengths:
            assert {lengths(text) for call in calls[5:] for text in call.inputs} == {lengths("a red cat")}
    monkeypatch.setattr(registry, "lengths", lambda spec: lambda text: text == "a red cat")
    found = probe_of(longest)[0]._measured("it", Shape(batch_size=4, threads=1))
    assert found is not None
    assert found.verdict == "alone", "no text is as long"


@pytest.mark.parametrize(
    ("name", "verdict", "shape", "told"),
    [
        ("it", "independent", Shape(batch_size=4, threads=1), ""),
        ("it", "length", Shape(batch_size=4, threads=1, mates="length"), "only items of equal length"),
        ("it", "alone", Shape(batch_size=1, threads=1), "batches of one"),
        ("it", "unrepeatable", Shape(batch_size=4, threads=1), "can be neither repeated nor verified"),
        ("pinned", "alone", Shape(batch_size=4, threads=1), "--repin mends that"),
        ("tell", "length", Shape(batch_size=4, threads=1, mates="length"), "only items of equal length"),
    ],
)
def test_a_shape_is_another_where_it_has_to_be(
    caplog: pytest.LogCaptureFixture, name: str, verdict: Any, shape: Shape, told: str
) -> None:
    probe, _ = probe_of(lambda call: [])
    assert probe._shape(name, Shape(batch_size=4, threads=1), verdict) == shape
    assert len(caplog.messages) == bool(told)
    assert told in caplog.text
    with pytest.raises(ConfigError, match=r"batch_sizes\.tell is 4, but an item's result depends") as refused:
        probe._shape("tell", Shape(batch_size=4, threads=1), "alone")
    assert refused.value.hint == "batch_sizes.tell: 1, or leave it out"


def test_contents_come_in_turn_as_often_as_they_are_needed() -> None:
    assert invariances._repeated(["a", "b"], 5) == ["a", "b", "a", "b", "a"]
    assert invariances._repeated(["a", "b"], 0) == invariances._repeated([], 3) == []
    phrases = invariances._phrases()
    assert len(phrases) == len(set(phrases)) == 5 * 13 - 1
    assert invariances.ITEM not in phrases


def test_results_are_the_same_by_their_digest_or_their_numbers() -> None:
    def vector(*values: float) -> Output:
        return Output(Modality.VECTOR, b"", np.array(values, np.float32))

    text, other = (Output(Modality.TEXT, digest, "") for digest in (b"a", b"b"))
    same = [(text, text), (vector(1, 2), vector(1, 2)), (Rejected("a"), Rejected("b"))]
    assert all(invariances._is_same(*pair) for pair in same)
    others = [
        (text, other), (vector(1, 2), vector(1, 3)), (Rejected("a"), text), (text, Rejected("a")),
        (vector(0.0), vector(-0.0)),
    ]  # fmt: skip
    assert not any(invariances._is_same(*pair) for pair in others)
