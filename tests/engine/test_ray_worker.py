"""What the driver makes of a Ray cluster, where no cluster is needed to see it."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from panic import run
from panic.engine import pins
from panic.engine.calibration import Caller
from panic.engine.calls import Call, CallResult
from panic.engine.contents import RemoteImage
from panic.engine.pinning import is_known_to_be_steady, surroundings
from panic.engine.plan import CheckedConfig
from panic.engine.preview import preview
from panic.engine.queue import Buckets
from panic.engine.ray_connection import RayDevice
from panic.engine.ray_place import Place
from panic.engine.ray_worker import RayWorker, Work
from panic.engine.serving import ServerSettings
from panic.engine.workers import Workers
from panic.errors import ConflictError, Interrupted, StoreCorrupt
from panic.models import registry
from panic.store import Store, reading
from panic.store.codec import encode_image
from tests.engine.conftest import make_config

SETTINGS = ServerSettings(device="cpu", specs={"control": registry.resolve("synthetic/image-to-text")})


SORTING = """
from panic.models.synthetic import ImageToText


class Sorting(ImageToText):
    PARAMETERS = {}

    def __init__(self):
        super().__init__()

    def bucket(self, image):
        return image.getpixel((0, 0))[0]
"""


class Waiting:
    """A cluster that has no room yet, as a worker sees it."""

    device_name = "cpu"
    reason = ""
    is_any_ready = False
    hopeless = ""

    def tell_of_waiting(self) -> None:
        """Say nothing."""


def a_device(**changes: Any) -> RayDevice:
    there = {"kind": "cpu", "torch_name": "cpu", "has_own_memory": False, "num_bytes": (2**30, 2**30)}
    told = {"surroundings": '{"device":"cpu of a node"}', "is_steady": False}
    return RayDevice(**{"cluster": cast(Any, None), "name": "cpu", **there, **told, **changes})


def test_a_worker_that_gave_up_keeps_its_calls_until_another_one_is_ready() -> None:
    """They came back at once and were handed out again, without end, while others waited for room."""
    cluster, delivered = Waiting(), list[CallResult | BaseException]()
    worker = RayWorker(cast(Any, cluster), 1)
    worker.begin(Work(settings=SETTINGS, deliver=delivered.append))
    worker.is_given_up = True
    worker.submit(Call(number=1, model="control", batch_size=1, inputs=[""], seeds=[0]))
    worker.check()
    assert delivered == []
    cluster.is_any_ready = True
    worker.check()
    [result] = delivered
    assert isinstance(result, CallResult)
    assert result.error is not None
    assert result.error.kind == "untried"


def test_an_endpoint_stands_in_for_no_worker_that_still_starts() -> None:
    """Beside it, a cluster without room was given no calls, so that nobody heard that it has none."""
    starting, talk = (RayWorker(cast(Any, Waiting()), number) for number in (1, 2))
    talk.is_ready = True
    workers = Workers(lambda deliver: [starting])
    workers.add_endpoint(talk, "talk", places=2)
    assert [seat.worker for seat in workers.open_seats()] == [starting, talk]


def test_a_cluster_without_room_does_not_hold_up_who_wants_to_stop() -> None:
    """While shapes were tried out, Ctrl-C was heard only when a worker had given a result."""
    worker = RayWorker(cast(Any, Waiting()), 1)
    workers = Workers(lambda deliver: [worker])
    worker.begin(Work(settings=SETTINGS, deliver=workers.post))
    caller = Caller(cast(Any, SimpleNamespace(stop_requested=lambda: True)), workers)
    with pytest.raises(Interrupted):
        caller.call(Call(model="control", batch_size=1, inputs=[""], seeds=[0]))


def test_a_class_that_sorts_images_sees_their_pixels_also_before_the_first_item(tmp_path: Path) -> None:
    """What shapes are tried out with came to it as an image without pixels, which ended the experiment."""
    (tmp_path / "mine.py").write_text(SORTING)
    specs = {"mine": registry.resolve(f"python:{tmp_path / 'mine.py'}:Sorting")}
    red = Image.new("RGB", (2, 2), (201, 0, 0))
    drawn = RemoteImage(size=red.size, encoded=encode_image(red), pixels=object())
    assert Buckets(specs, cast(Any, None)).of_content("mine", drawn) == 201


def test_kernels_are_those_of_the_nodes_and_not_of_the_driver() -> None:
    """On nodes with AVX2 alone batches counted as proven where the driver's processor had AVX-512."""
    assert surroundings(a_device()) == '{"device":"cpu of a node"}'
    assert not is_known_to_be_steady(a_device())
    assert is_known_to_be_steady(a_device(is_steady=True))


def test_pins_of_a_cluster_are_compared_with_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard on a head node without GPUs was refused: the pins were for GPUs, here was a CPU."""
    checked = CheckedConfig.of(make_config(executor="ray", batch_sizes={}), ask=True)
    device = a_device(kind="cuda A", torch_name="cuda", has_own_memory=True)
    monkeypatch.setattr(pins, "open_places", lambda config, stack: device)
    found = pins.Pins(
        experiment="test",
        uid="0" * 32,
        device_kind="cuda A",
        surroundings=device.surroundings,
        seen=[],
        models={
            name: pins.ModelPins(
                fingerprint=registry.fingerprint(checked.models.resolve(name)),
                batch_size=3,
                threads=1,
                device_kind="cuda A",
                mates="bucket",
                reason="start",
            )
            for name in ("draw", "chain")
        },
    )
    with Store(tmp_path / "store", write=True, create=True) as store:
        pins.lay(found, checked, store)
        assert {epoch.device_kind for epoch in reading.epochs(store, "test")} == {"cuda A"}


def test_a_dry_run_does_not_take_this_machine_for_the_cluster(tmp_path: Path) -> None:
    """What had begun on a cluster's GPUs could not be looked at from a node without any."""
    run(make_config(max_length=2), tmp_path / "store")
    with Store(tmp_path / "store", write=True) as store:
        store.db.execute("UPDATE epoch SET device_kind = 'cuda A'")
    assert preview(make_config(executor="ray", max_length=4), tmp_path / "store").is_known
    with pytest.raises(ConflictError, match="started on a device of kind 'cuda A'"):
        preview(make_config(max_length=4), tmp_path / "store")


def test_a_damaged_image_of_the_store_is_no_failure_of_its_run() -> None:
    """It ended the run with an error that --repair does not take back; elsewhere it ends the session."""
    place = Place()
    place.begin(pickle.dumps(SETTINGS))
    damaged = RemoteImage(size=(8, 8), encoded=b"RIFF\0\0\0\0WEBPVP8L")
    call = Call(number=1, model="control", batch_size=1, inputs=[damaged], seeds=[0])
    result, is_leaving = pickle.loads(place.serve(pickle.dumps(call), 0))
    assert not is_leaving
    error = result.error.fatal("control")
    assert isinstance(error, StoreCorrupt)
    assert "an image of the store: its bytes cannot be decoded" in error.message
    assert "--repair" in error.hint
