"""Weights that the processes of a host share: one copy, the same results, nothing left."""

from __future__ import annotations

import gc
import logging
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from panic.devices.cache import ModelCache
from panic.devices.device import CpuDevice
from panic.devices.host import HostTier
from panic.devices.main_memory import MainMemoryCache
from panic.devices.shared import MARK, SharedWeights, are_mapped_from_files, share_weights
from panic.devices.simulated import SimulatedDevice
from panic.engine.calls import Call
from panic.engine.process_worker import ProcessWorker
from panic.engine.serving import ServerSettings
from panic.models import registry
from tests import tiny
from tests.devices.test_contract import MIB, Layers, call
from tests.patience import LONGEST_S
from tests.processes import Held, until_dead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files without a name")
SIZE = 4 * MIB
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def weights() -> SharedWeights:
    shared = share_weights(["a", "b", "c"], 2)
    assert shared is not None
    return shared


def cache_of(
    weights: SharedWeights, budget: int | None = None, size: int = SIZE, seed: str = ""
) -> ModelCache:
    """The cache of one of two processes, whose simulated device has room for 16 models."""
    device = SimulatedDevice(name="sim", capacity_bytes=64 * MIB)
    host = HostTier(budget, weights=weights)
    return ModelCache(device, lambda name: Layers(seed + name, size), host=host)


def test_two_processes_have_one_copy_which_is_free_when_both_have_ended(weights: SharedWeights) -> None:
    one, two = cache_of(weights), cache_of(weights)
    expected = call(one, "a")
    assert weights.held_bytes == SIZE + MARK
    assert call(two, "a") == expected
    assert weights.held_bytes == SIZE + MARK
    assert one.host.buffer("a").data.data_ptr() != two.host.buffer("a").data.data_ptr()  # type: ignore[union-attr]
    one.close()
    gc.collect()
    weights.give_back()
    assert weights.held_bytes == SIZE + MARK, "the other still uses it"
    two.close()
    gc.collect()
    weights.give_back()
    assert weights.held_bytes == 0


def test_weights_of_another_training_are_not_taken_for_these(weights: SharedWeights) -> None:
    one, two = cache_of(weights), cache_of(weights, seed="retrained ")
    assert call(one, "a") != call(two, "a")
    assert call(two, "a") == call(cache_of(weights, seed="retrained "), "a")
    assert not two.host.buffer("a").is_shared  # type: ignore[union-attr]


def test_what_a_killed_process_has_half_copied_is_copied_anew(weights: SharedWeights) -> None:
    with weights.turn():
        weights.allocate("a", 2 * SIZE).data.fill_(255)
    gc.collect()
    assert not weights.has("a")
    expected = call(cache_of(weights), "a")
    assert weights.held_bytes == SIZE + MARK
    assert call(cache_of(weights), "a") == expected


def test_what_a_killed_process_has_half_copied_takes_no_room(weights: SharedWeights) -> None:
    """Where there was no room for its copy beside it, it stayed, and counted as complete."""
    with weights.turn():
        weights.allocate("a", SIZE).data.fill_(255)
    gc.collect()
    weights.room = lambda: 3 * SIZE // 2 - weights.held_bytes
    cache = cache_of(weights)
    call(cache, "a")
    assert cache.host.buffer("a").is_shared  # type: ignore[union-attr]
    with weights.turn():
        weights.allocate("b", SIZE // 2).data.fill_(255)
        weights.room = lambda: 0
        weights.allocate("b", SIZE // 2)
        weights.filled("b")
    assert not weights.has("b")


def test_without_room_each_has_a_copy_of_its_own_and_says_so(
    weights: SharedWeights, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container whose memory group is almost full."""
    weights.room = lambda: SIZE - 1
    caplog.set_level(logging.WARNING, "panic.devices")
    one, two = cache_of(weights), cache_of(weights)
    assert call(one, "a") == call(two, "a")
    assert weights.held_bytes == 0
    assert caplog.messages == 2 * [
        "a: 4.0 MiB of main memory are free, too little for weights of 4.0 MiB that all share:"
        " each of 2 processes has its own"
    ]


def test_the_budget_is_that_of_all_processes(weights: SharedWeights) -> None:
    """Two processes with a budget of two models each: what both share counts half for each."""
    budget = 2 * SIZE + 8  # and the marks
    one, two = cache_of(weights, budget), cache_of(weights, budget)
    for name in ("a", "b", "c"):
        call(one, name)
        call(two, name)
    assert one.host.held_bytes == two.host.held_bytes == pytest.approx(1.5 * SIZE, abs=8)
    assert weights.held_bytes == pytest.approx(3 * SIZE, abs=8)
    small = cache_of(weights, SIZE)
    for cache in (one, two):
        cache.close()
    gc.collect()
    weights.give_back()
    for name in ("a", "b", "c", "a"):
        call(small, name)
        assert weights.held_bytes <= 2 * SIZE + 8
    assert small.stats.builds == 4, "c was given room by a, which was read again"


class Writing(Layers):
    """A model that writes into its own weights when it is called."""

    def invoke(self, inputs, seeds=()):  # type: ignore[no-untyped-def]
        with torch.inference_mode():
            self.net[0].weight.fill_(7.0)
        return list(inputs)


def test_what_a_model_on_a_cpu_writes_to_its_weights_is_its_own(weights: SharedWeights) -> None:
    def build(name: str) -> Layers:
        return Writing(name, SIZE) if name == "a" else Layers(name, SIZE)

    one, two = (MainMemoryCache(CpuDevice(), build, weights=weights) for _ in range(2))
    with one.lease("a", 1) as first, two.lease("a", 1) as second:
        assert weights.held_bytes == SIZE + MARK
        before = second.net[0].weight.detach().clone()  # type: ignore[attr-defined]
        first.invoke(["x"], [0])
        assert first.net[0].weight.eq(7.0).all()  # type: ignore[attr-defined]
        assert second.net[0].weight.equal(before)  # type: ignore[attr-defined]
    del first, second
    for cache in (one, two):
        cache.close()
    gc.collect()
    weights.give_back()
    assert weights.held_bytes == 0


def test_a_system_without_such_files_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert share_weights(["a"], 2) is None
    assert "each of 2 processes has its own: only Linux" in caplog.text
    assert share_weights(["a"], 1) is None
    assert share_weights([], 2) is None


# Processes


def large_model(folder: Path, *, is_half: bool = True) -> Path:
    """A sentence model with 52 MB of weights; in files of half of that, they have to be converted."""
    from transformers import BertConfig, BertModel

    tiny.build_sentence_bert(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=2048,
        max_position_embeddings=128,
    )
    model = BertModel(config)
    (model.half() if is_half else model).save_pretrained(folder)
    return folder


def memory_of(pid: int) -> dict[str, int]:
    """Bytes of a process by kind, shared pages in proportion: Pss, Pss_Anon, Pss_Shmem."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}


DRIVER = """
import queue, sys, time
from tests.devices.test_shared import start
results = queue.SimpleQueue()
workers = start(sys.argv[1], 2, results.put)
for _ in workers:
    assert results.get(timeout=200).error is None
print(*[worker.pid for worker in workers], flush=True)
time.sleep(1000)
"""


def start(folder: str, number: int, deliver, device: str = "cpu") -> list[ProcessWorker]:  # type: ignore[no-untyped-def]
    """So many processes with one model, each with a call."""
    spec = registry.resolve(f"local:{folder}", device_kind="cpu")
    weights = share_weights(["m"], number)
    settings = ServerSettings(device=device, specs={"m": spec}, threads=1, weights=weights)
    workers = [ProcessWorker(settings, deliver) for _ in range(number)]
    for place, worker in enumerate(workers):
        worker.submit(Call(number=place, model="m", batch_size=1, inputs=["hello"], seeds=[0]))
    return workers


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("device", ["cpu", "sim:1GiB"])
def test_four_workers_hold_one_copy(tmp_path: Path, device: str) -> None:
    folder = large_model(tmp_path / "model")
    size = registry.size_bytes(registry.resolve(f"local:{folder}", device_kind="cpu"))
    assert size > 45 * MIB
    results: queue.SimpleQueue = queue.SimpleQueue()  # type: ignore[type-arg]
    workers = start(str(folder), 4, results.put, device)
    found = [results.get(timeout=LONGEST_S) for _ in workers]
    assert [one.error for one in found] == [None] * 4
    vectors = {one.outputs[0].value.tobytes() for one in found}
    assert len(vectors) == 1
    memory = [memory_of(worker.pid) for worker in workers]  # type: ignore[arg-type]
    assert sum(one["Pss_Shmem"] for one in memory) == pytest.approx(size, rel=0.05)
    if device == "cpu":
        alone = start(str(folder), 1, results.put)
        assert results.get(timeout=LONGEST_S).outputs[0].value.tobytes() in vectors
        own = memory_of(alone[0].pid)["Pss_Anon"]  # type: ignore[arg-type]
        assert all(own - one["Pss_Anon"] > 0.8 * size for one in memory)
        alone[0].close()
    os.kill(workers[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
    while workers[0].pid is not None:
        time.sleep(0.05)
    workers[0].submit(Call(number=9, model="m", batch_size=1, inputs=["hello"], seeds=[0]))
    assert results.get(timeout=LONGEST_S).outputs[0].value.tobytes() in vectors
    shared = sum(memory_of(worker.pid)["Pss_Shmem"] for worker in workers)  # type: ignore[arg-type]
    assert shared == pytest.approx(size, rel=0.05)
    for worker in workers:
        worker.close()


def test_weights_that_are_mapped_from_their_files_are_left_there(
    tmp_path: Path, weights: SharedWeights
) -> None:
    spec = registry.resolve(f"local:{large_model(tmp_path / 'model', is_half=False)}", device_kind="cpu")
    cache = MainMemoryCache(CpuDevice(), lambda name: registry.build(spec), weights=weights)
    with cache.lease("a", 1) as model:
        assert are_mapped_from_files(model.weight_modules())  # type: ignore[attr-defined]
        assert weights.held_bytes == 0
        vector = model.invoke(["hello"], [0])[0]
    half = registry.resolve(f"local:{large_model(tmp_path / 'half')}", device_kind="cpu")
    cache = MainMemoryCache(CpuDevice(), lambda name: registry.build(half), weights=weights)
    with cache.lease("b", 1) as model:
        assert not are_mapped_from_files(model.weight_modules())  # type: ignore[attr-defined]
        assert weights.held_bytes > 45 * MIB
        assert model.invoke(["hello"], [0])[0] == pytest.approx(vector, abs=1e-2)


def mapping_processes() -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if "panic-weights" in Path(f"/proc/{process.pid}/maps").read_text():
                found.append(process.pid)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_driver_leaves_nothing_in_memory(tmp_path: Path) -> None:
    folder = large_model(tmp_path / "model")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    pids = {int(word) for word in driver.stdout.readline().split()}
    assert len(pids) == 2
    assert pids <= set(mapping_processes())
    driver.kill()
    driver.wait()
    for pid in pids:
        until_dead(pid)
    assert not pids & set(mapping_processes())
    assert not list(Path("/dev/shm").glob("panic*"))


@pytest.mark.skipif(sys.platform != "linux", reason="there are no such files")
def test_there_is_a_file_for_each_model_and_one_more_until_nobody_holds_them() -> None:
    before = Held()
    shared = share_weights(["a", "b"], 2)
    assert ["panic-weights" in target for _, target in before.new_files()] == [True] * 3
    del shared
    gc.collect()
    assert before.new_files() == set()
    assert share_weights([], 2) is share_weights(["a"], 1) is None


def test_shared_bytes_are_divided_among_processes_and_rounded_up(weights: SharedWeights) -> None:
    assert [weights.part(num_bytes) for num_bytes in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert sorted(weights.fds) == sorted({*weights.numbers.values(), weights.turn_number})
    assert len(weights.fds) == 4
    assert not weights.has("unknown")
    assert weights.mapped("a") is None


def test_there_is_room_for_what_the_memory_has_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: 12_345)
    shared = share_weights(["a"], 2)
    assert shared is not None
    assert shared.room() == 12_345


def test_files_that_were_made_are_closed_where_not_all_can_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []
    create = os.memfd_create

    def memfd_create(*how: object) -> int:
        if len(made) == 2:
            raise OSError(24, "Too many open files")
        made.append(create(*how))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    assert share_weights(["a", "b"], 3) is None
    assert "each of 3 processes has its own: [Errno 24] Too many open files" in caplog.text
    for number in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_what_is_written_to_a_private_mapping_is_no_other_process_s(weights: SharedWeights) -> None:
    with weights.turn():
        weights.allocate("a", 256).data.fill_(1)
        weights.filled("a")
        weights.filled("a")  # once more changes nothing
        mine, ours = weights.mapped("a", is_private=True), weights.mapped("a")
        assert mine is not None
        assert ours is not None
        assert (mine.data.numel(), ours.data.numel()) == (256, 256)
        mine.data.fill_(2)
        assert ours.data.eq(1).all()
        ours.data.fill_(3)
        assert weights.mapped("a").data.eq(3).all()  # type: ignore[union-attr]
        own = weights.allocate("a", 256)  # it is there already, so this is this one's own
        assert not own.is_shared
        assert weights.has("a")
