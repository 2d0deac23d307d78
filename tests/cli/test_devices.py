"""`panic devices` and `panic cache`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from panic.cli.devices import PROCESS
from panic.devices.events import EventLog
from panic.devices.simulated import SimulatedDevice
from panic.store import Store, dump, reading, working
from tests.cli.conftest import write_config
from tests.devices.paper import paper_cache


def test_devices_lists_the_cpu_with_its_memory(panic) -> None:
    done = panic("devices", "--json")
    assert done.exit_code == 0, done.output
    cpu = json.loads(done.stdout)[-1]
    assert (cpu["name"], cpu["users"]) == ("cpu", [])
    assert 0 < cpu["free_bytes"] <= cpu["total_bytes"]
    table = panic("devices").stdout
    assert "cpu" in table


def test_processes_are_read_from_what_torch_prints() -> None:
    """Its format in torch 2.13: f"process {pid:>10d} uses {mem:>12.3f} MB GPU memory"."""
    printed = "GPU:0\nprocess       4242 uses     1024.500 MB GPU memory\nprocess 7 uses 2.0 MB GPU memory"
    assert PROCESS.findall(printed) == [("4242", "1024.500"), ("7", "2.0")]
    assert PROCESS.findall("pynvml module not found, please install nvidia-ml-py") == []


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of this machine that is not this one."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_gpu_is_listed_with_who_uses_it(panic, sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver on paper knows of two processes: one of this machine and one that is not seen from here."""
    mine, other = sleeper, 2**30
    printed = (
        f"GPU:1\nprocess {mine:>10d} uses     1024.000 MB GPU memory\nprocess {other} uses 2.0 MB GPU memory"
    )
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda index: "Paper 24",
        "mem_get_info": lambda index: (16 * 2**30, 24 * 2**30),
        "memory_reserved": lambda index: 0,
        "memory_allocated": lambda index: 0,
        "list_gpu_processes": lambda index: printed,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    done = panic("devices", "--json")
    assert done.exit_code == 0, done.output
    gpu, _ = json.loads(done.stdout)
    assert (gpu["name"], gpu["kind"]) == ("cuda:0", "cuda Paper 24")
    assert (gpu["total_bytes"], gpu["free_bytes"]) == (24 * 2**30, 16 * 2**30)
    known, elsewhere = gpu["users"]
    assert (known["pid"], known["bytes"]) == (mine, 2**30)
    assert known["name"] == "sleep"
    assert elsewhere == {"pid": other, "name": "elsewhere", "bytes": 2 * 2**20}
    assert f"1.07 GB by {mine}" in " ".join(panic("devices").stdout.split())

    def refuse(index: int) -> str:
        raise RuntimeError("not permitted")

    monkeypatch.setattr(torch.cuda, "list_gpu_processes", refuse)
    assert json.loads(panic("devices", "--json").stdout)[0]["users"] == []


def write_events(store: Path, name: str) -> None:
    """Two models of 15 bytes take turns on a device of 20."""
    with Store(store) as opened:
        uid = reading.experiment(opened, name).uid
    device = SimulatedDevice(name="sim", capacity_bytes=20, rate_bytes_per_s=10.0)
    log = EventLog(store / "cache" / f"{uid}-1-1.jsonl")
    cache, _ = paper_cache(device, {name: [5, 5, 5] for name in "ab"}, events=log)
    for name in "ababb":
        with cache.lease(name, 1, ["b", "a"] if name == "a" else ["a", "b"]) as model:
            model.invoke(["x"])
    log.add("streamed", model="huge", bytes=2**20)
    cache.close()


def test_stats_of_an_experiment(panic, store: Path) -> None:
    write_events(store, "demo")
    done = panic("cache", "stats", "demo", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["calls"], told["hits"], told["regret"]) == (5, 1, 0)
    assert told["moved_bytes"] == told["least_bytes"] == 15 + 15 + 10 + 10
    assert told["bytes_by_tier"] == {"disk": 30, "host": 20}
    table = panic("cache", "stats", "demo").stdout
    assert told["loads_by_tier"] == {"disk": 2, "host": 2}
    assert "5; the model was on the device 1, brought ahead 0, in main memory 2, on disk 2" in " ".join(
        table.split()
    )
    assert "0.0 %" in table
    assert (told["streamed_calls"], told["streamed_bytes"]) == ({"huge": 1}, 2**20)
    assert "huge 1 times: 1.05 MB" in table
    other = panic("cache", "stats", "broken")
    assert (other.exit_code, "no events" in other.stdout) == (0, True)


def test_stats_of_an_experiment_that_is_not_there(panic, store: Path) -> None:
    done = panic("cache", "stats", "nothing")
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_clear_forgets_events_and_what_was_learnt_and_no_result(panic, store: Path) -> None:
    write_events(store, "demo")
    with Store(store, write=True) as opened:
        working.learn(opened, "sim", [("f", 0, 1, 100)])
        before = list(dump.dump(opened))
    done = panic("cache", "clear")
    assert done.exit_code == 0, done.output
    assert "1 observations" in done.stdout
    assert list((store / "cache").iterdir()) == []
    with Store(store) as opened:
        assert working.known(opened, "sim") == {}
        assert list(dump.dump(opened)) == before


def test_memory_options_are_settings_of_the_experiment(panic, tmp_path: Path) -> None:
    """And the plan shows the shapes."""
    config = write_config(tmp_path)
    planned = panic("run", config, "--plan", "--memory-fraction", "0.5", "--headroom", "2GiB")
    assert planned.exit_code == 0, planned.output
    assert "batch size" in planned.stdout
    done = panic("run", config, "--memory-fraction", "0.5", "--headroom", "1MiB")
    assert done.exit_code == 0, done.output
    assert " experiment " not in planned.stdout
    assert " experiment " in panic("run", config, "--plan").stdout, "now it says who decides the shapes"
    with Store(tmp_path / "panic-store") as store:
        kept = reading.experiment(store, "demo").config
    assert (kept["memory_fraction"], kept["headroom"]) == (0.5, 2**20)
    wrong = panic("run", config, "--memory-fraction", "1.5")
    assert wrong.exit_code == 2
    assert "memory_fraction" in wrong.output


def test_devices_of_a_config_are_planned(panic, tmp_path: Path) -> None:
    """Two budgets that do not hold both tiny models: each device has one."""
    config = tmp_path / "tight.yaml"
    config.write_text(
        "name: tight\nnetworks: [[PocketDiffusion, PocketCaptioner]]\nprompts: [a]\nseeds: [-1]\n"
        "max_length: 4\n"
        "device: [sim:18MB, sim:18MB]\nheadroom: 0\n"
    )
    planned = panic("devices", "--plan", config, "--json")
    assert planned.exit_code == 0, planned.output
    told = json.loads(planned.stdout)
    assert told["devices"] == {"sim:18MB#1": 18 * 10**6, "sim:18MB#2": 18 * 10**6}
    assert [len(model["devices"]) for model in told["models"].values()] == [1, 1], told
    assert "not measured" in panic("devices", "--plan", config).stdout
    roomy = config.read_text().replace("18MB", "1GiB")
    config.write_text(roomy)
    assert "every device serves all models." in panic("devices", "--plan", config).stdout
    missing = panic("devices", "--plan", tmp_path / "none.yaml")
    assert missing.exit_code == 2
    assert "Traceback" not in missing.output


def test_several_devices_are_told(panic, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    planned = panic("run", config, "--dry-run", "--device", "sim:1GiB,sim:2GiB", "--set", "executor=auto")
    assert planned.exit_code == 0, planned.output
    assert "devices:     every device serves all models" in planned.stdout
    wrong = panic("run", config, "--dry-run", "--device", "cpu,sim:1GiB")
    assert wrong.exit_code == 2
    assert "mixes cpu and sim" in wrong.output
    done = panic("run", config, "--device", "sim:1GiB,sim:2GiB", "--set", "executor=auto")
    assert done.exit_code == 0, done.output
    used = json.loads(panic("status", "--json").stdout)["devices"]
    assert {one["device"] for one in used} == {"sim:1GiB#1", "sim:2GiB#1"}
    assert "sim:1GiB#1" in panic("status").stdout
    assert "sim:1GiB sim:2GiB" in " ".join(panic("show").stdout.split())
