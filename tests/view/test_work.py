"""Which card of this machine a device of a driver is: what is told of it must not be another one's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from panic.view.work import cuda_name, environment, gpu

CARDS = """
from types import SimpleNamespace
class NVMLError(Exception): pass
NVML_TEMPERATURE_GPU = 0
CARDS = [("GPU-aaaa", NAMES[0]), ("GPU-abbb", NAMES[1]), ("GPU-cccc", NAMES[2])]
def nvmlInit(): pass
def nvmlDeviceGetCount(): return len(CARDS)
def nvmlDeviceGetHandleByIndex(place): return place
def nvmlDeviceGetName(place): return CARDS[place][1]
def nvmlDeviceGetUUID(place): return CARDS[place][0]
def nvmlDeviceGetMemoryInfo(place): return SimpleNamespace(used=place, total=100)
def nvmlDeviceGetTemperature(place, kind): raise NVMLError
def nvmlDeviceGetPowerUsage(place): return 1000 * place
"""


@pytest.fixture
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A machine with three cards: of the second 1 byte is in use, and it takes 1 W."""
    (tmp_path / "pynvml.py").write_text(f"NAMES = {request.param!r}\n{CARDS}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    yield
    sys.modules.pop("pynvml", None)


@contextmanager
def driver(**variables: str) -> Iterator[int]:
    """A process that was started with some variables, once the system tells them."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    process = subprocess.Popen(["sleep", "600"], env={**others, **variables})
    try:
        while not environment(process.pid):
            assert process.poll() is None
            time.sleep(0.001)
        yield process.pid
    finally:
        process.kill()
        process.wait()


ALIKE, DIFFERENT = ["H200"] * 3, ["T4", "H200", "T4"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")
@pytest.mark.parametrize(
    ("machine", "variables", "device", "power"),
    [
        (ALIKE, {}, "cuda:1", 1.0),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "2,0"}, "cuda:0", 2.0),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "2,0"}, "cuda:1", 0.0),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "2,0"}, "cuda:2", None),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "GPU-cc"}, "cuda:0", 2.0),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "GPU-a"}, "cuda:0", None),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "1,-1,2"}, "cuda:1", None),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": ""}, "cuda:0", None),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "7"}, "cuda:0", None),
        (DIFFERENT, {"CUDA_VISIBLE_DEVICES": "1"}, "cuda:0", None),
        (DIFFERENT, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "cuda:0", 1.0),
        (DIFFERENT, {"CUDA_VISIBLE_DEVICES": "GPU-abbb"}, "cuda:0", 1.0),
        (ALIKE, {}, "cpu", None),
        (ALIKE, {}, "cuda:²", None),
        (ALIKE, {}, f"cuda:{'9' * 5000}", None),
        (ALIKE, {"CUDA_VISIBLE_DEVICES": "²"}, "cuda:0", None),
    ],
    indirect=["machine"],
)
def test_the_card_is_the_one_that_the_driver_sees(
    machine: None, variables: dict[str, str], device: str, power: float | None
) -> None:
    """The index was taken for that of the whole machine, whatever the driver had been given of it."""
    with driver(**variables) as pid:
        found = gpu(device, pid)
    assert (found and found["power_w"]) == power
    if found:
        assert found["memory_used_bytes"] == power
        assert found["temperature_c"] is None


def test_of_a_process_that_is_gone_nothing_is_guessed() -> None:
    with driver() as pid:
        pass
    assert environment(pid) is None
    assert cuda_name(0, None) == ""


def test_an_empty_environment_is_one_that_is_not_told() -> None:
    """A process between its start and its command has none yet. That was taken for "no variables", and a
    device for the card of that number of the whole machine."""
    with subprocess.Popen(["sleep", "600"], env={}) as bare:
        try:
            assert environment(bare.pid) is None
        finally:
            bare.kill()
