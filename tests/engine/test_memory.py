"""What a worker's cache is told and what is kept of what it learnt, in files and a real store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from panic.devices.device import CpuDevice, open_device
from panic.engine.memory import MemorySettings, learn, memory_settings
from panic.store import Store, working

SIM = open_device("sim:1GiB")


def test_half_of_what_is_free_and_a_bit_more_is_for_weights_shared_by_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: 10 * 2**30)  # which others change all the time
    alone, shared = MemorySettings().host_budget(), MemorySettings(num_workers=4).host_budget()
    assert alone == pytest.approx(0.6 * 10 * 2**30)
    assert alone / shared == pytest.approx(4)


def test_a_worker_has_its_own_copy_of_what_is_known() -> None:
    settings = MemorySettings(peaks={"draw": {0: {1: 100, 2: 150}, 64: {1: 30}}, "tell": {0: {4: 7}}})
    memory = settings.working()
    assert memory.peaks == settings.peaks
    memory.observe("draw", 0, 1, 900)
    assert settings.peaks["draw"][0][1] == 100


def test_a_process_tells_of_what_moves_in_a_file_of_its_own(tmp_path: Path) -> None:
    log = MemorySettings().event_log()
    log.add("use", model="draw")
    log.close()
    assert log.path is None
    log = MemorySettings(events=tmp_path / "cache" / "uid-1").event_log()
    log.add("use", model="draw")
    log.close()
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name == f"uid-1-{os.getpid()}.jsonl"
    assert json.loads(file.read_text().splitlines()[0])["model"] == "draw"


LINES = [
    {"event": "working", "model": "draw", "bucket": 0, "batch": 4, "bytes": 300},
    {"event": "working", "model": "draw", "bucket": 0, "batch": 4, "bytes": 200},
    {"event": "working", "model": "draw", "bucket": 64, "batch": 1, "bytes": 0},
    {"event": "working", "model": "stranger", "bucket": 0, "batch": 1, "bytes": 5},
    {"event": "use", "model": "draw", "size": 1, "working": 1, "capacity": 1},
    {"event": "load", "model": "draw", "bucket": 0, "batch": 4, "bytes": 900, "seconds": 1.0},
]


def write(path: Path, lines: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_the_workers_of_a_session_learnt_is_known_to_the_next(tmp_path: Path) -> None:
    names = {"draw": "of draw", "tell": "of tell", "new": "of new"}
    with Store(tmp_path / "s", write=True, create=True) as store:
        settings = memory_settings(store, SIM, names, "uid", 3)
        assert settings == MemorySettings(events=tmp_path / "s" / "cache" / "uid-3")
        learn(store, SIM, names, settings)  # nobody has told anything
        write(tmp_path / "s" / "cache" / "uid-3-100.jsonl", LINES)
        write(tmp_path / "s" / "cache" / "uid-3-101.jsonl", [LINES[0] | {"model": "tell", "bytes": 7}])
        write(tmp_path / "s" / "cache" / "uid-30-100.jsonl", [LINES[0] | {"bytes": 10_000}])
        learn(store, SIM, names, settings)
        learn(store, SIM, names, MemorySettings())
        assert working.known(store, SIM.kind) == {"of draw": {0: {4: 300}}, "of tell": {0: {4: 7}}}
        assert working.known(store, "cpu") == {}
        again = memory_settings(store, SIM, names, "uid", 4)
        assert again.peaks == {"draw": {0: {4: 300}}, "tell": {0: {4: 7}}}
        assert memory_settings(store, SIM, {"other": "of tell"}, "uid", 4).peaks == {"other": {0: {4: 7}}}
