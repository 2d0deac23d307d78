"""Numbers that were measured or are promised, and what is meant where nothing is said.

Nothing else would show a change of most of them: memory, seconds and requests would, of somebody else's.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from panic.engine.calls import Call, CallError, CallResult, Usage
from panic.engine.contents import RemoteImage
from panic.engine.memory import MemorySettings
from panic.engine.pinning import Shape
from panic.engine.plan import CheckedConfig, make_plan
from panic.engine.pool import JobResult
from panic.engine.progress import Progress
from panic.engine.queue import Item
from panic.engine.ray_worker import Actor, Work
from panic.engine.serving import ServerSettings
from panic.engine.stages import distances
from panic.engine.stages.stage import Failed
from panic.engine.workers import Seat
from tests.engine.conftest import make_config

NUMBERS: dict[str, dict[str, Any]] = {
    "calibration": {"MAX_TOKENS": 512, "SPECIAL_TOKENS": 8, "DEFAULT_TOKENS": 77, "UNTRIED": 10},
    "channel": {"STRETCHES_AT_ONCE": 512},
    "child": {"POLL_S": 0.5, "LOGGED_BYTES": 2**20, "LOGGED_S": 5.0, "LINE_BYTES": 4096},
    "contents": {"TEXT_OVERHEAD": 200, "MAX_TEXT_BYTES": 500_000_000},
    "driver": {"TICK_S": 0.2},
    "endpoints": {
        "FIRST_DELAY_S": 0.5, "LONGEST_DELAY_S": 30.0, "FIRST_PATIENCE_S": 15.0, "CONNECT_S": 10.0,
        "BUNCH": 4, "GAP_S": 0.002, "IDLE_S": 4.0, "SECRET_LENGTH": 8, "LARGE_BYTES": 65_536,
    },
    "forecast": {"MAX_USES": 48},
    "importing.rows": {"MAX_LINE": 67_108_864, "PARQUET_ROWS": 65_536},
    "importing.trajectories": {"DIGEST_BYTES": 32, "UNSAID": -1},
    "importing.write": {
        "COMMIT_STEPS": 64, "COMMIT_ROWS": 4096, "COMMIT_BYTES": 16_777_216, "SHOWN_PROBLEMS": 20,
        "SHOWN_ROWS": 10_000,
    },
    "invariance": {"SEED": 1, "FIRST_IMAGE": (256, 256), "NUM_IMAGES": 8, "MOST_CHARACTERS": 400},
    "ledger": {"WIDTH_S": 0.25, "MOST": 160},
    "memory": {"HOST_SHARE": 0.6},
    "notices": {"LONGEST_S": 30.0, "MOST_CHARACTERS": 300},
    "pins": {"VERSION": 1, "MAX_BYTES": 16_777_216},
    "placing": {"WORTH_ASKING": 0.25, "RATE_BYTES_PER_S": 10e9, "GUESSED_S_PER_BYTE": 1e-9},
    "plan": {"FRESH": -1, "_MASK": 2**63 - 1, "SMALL_BYTES": 67_108_864},
    "pool": {"CACHE_KIB": 256, "NICE": 5, "AHEAD": 16, "SHORT_S": 0.05, "MAX_RETRIES": 2},
    "preview": {"ASSUMED_COORDINATES": 768, "TOLERATED_PADDING": 0.1},
    "process_worker": {"START_RETRIES": 1},
    "queue": {"JOINT_IMAGES": -1},
    "ray_cluster": {"PATIENCE_S": 30.0, "LOOK_S": 1.0},
    "ray_place": {"INLINE_BYTES": 102_400, "THREADS": 4},
    "ray_worker": {"START_RETRIES": 1, "END_S": 2.0},
    "serving": {"LARGE_PIXELS": 262_144},
    "shards": {"MOST": 100_000},
    "stages.diagrams": {"LOOKUP_EVERY_S": 0.5, "LOOKUP_SHARE": 0.05},
    "stages.distances": {"PAIRS_OF_A_JOB": 256, "KEPT_DIAGRAMS": 4096},
    "starts": {"MANY": 1000},
    "verify": {"MEMORY_BYTES": 4_294_967_296},
    "workers": {
        "DEPTH": 2, "MOST": 8, "PROCESS_BYTES": 524_288_000, "MOST_ENDS": 3, "WORTH_STARTING": 200,
    },
    "writer": {
        "QUEUED_COMMITS": 48, "QUEUED_BYTES": 268_435_456, "COMMIT_ROWS": 4096, "MERGED_COMMITS": 24,
        "COMMIT_EVERY_S": 0.25,
    },
}  # fmt: skip


@pytest.mark.parametrize("module", NUMBERS)
def test_a_number_is_what_it_was_measured_to_be(module: str) -> None:
    there = importlib.import_module(f"panic.engine.{module}")
    assert {name: getattr(there, name) for name in NUMBERS[module]} == NUMBERS[module]


def test_as_many_diagrams_are_kept_as_is_said() -> None:
    assert distances._bars.cache_parameters()["maxsize"] == distances.KEPT_DIAGRAMS


def test_what_is_meant_where_nothing_is_said() -> None:
    call = Call(model="a", batch_size=1, inputs=[], seeds=[])
    assert (call.number, call.bucket, call.upcoming, call.attempt) == (0, 0, (), 1)
    error = CallError(kind="error", message="")
    assert (error.detail, error.hint, error.delay_s, error.is_final, error.is_end) == (
        "",
        "",
        0.0,
        False,
        False,
    )
    result = CallResult(number=1)
    assert (result.outputs, result.error, result.device, result.usage) == ([], None, "", None)
    assert (result.started_at, result.duration_s, result.resident, result.spans) == (
        0.0,
        0.0,
        frozenset(),
        [],
    )
    usage = Usage()
    assert (usage.requests, usage.tokens, usage.input_tokens, usage.output_tokens) == (1, 0, None, None)
    assert (usage.served_model, usage.system_fingerprint) == (None, None)
    item = Item("run", b"", 7)
    assert (item.attempts, item.put_off, item.held) == (0, 0, None)
    job = JobResult(job=None)  # type: ignore[arg-type]
    assert (job.rows, job.problem, job.duration_s, job.stage, job.spans) == (None, "", 0.0, None, ())
    assert Failed("error", "no") == ("error", "no", "", "")
    seat = Seat(None, "worker 1")  # type: ignore[arg-type]
    assert (seat.remote, seat.depth, seat.resident, seat.num_calls, seat.model) == ("", 2, frozenset(), 0, "")
    assert (seat.upcoming, seat.device, seat.ended_at, seat.is_left_out) == ((), "", "", False)
    settings = ServerSettings(device="cpu", specs={})
    assert (settings.threads, settings.headroom_bytes, settings.memory_fraction) == (None, 0, 1.0)
    assert (settings.reject_constant_images, settings.memory) == (False, MemorySettings())
    assert (settings.hidden, settings.weights) == ((), None)
    assert (settings.memory.peaks, settings.memory.events, settings.memory.num_workers) == ({}, None, 1)
    assert Shape(batch_size=1, threads=1).mates == "bucket"
    image = RemoteImage(size=(1, 1))
    assert (image.encoded, image.pixels) == (None, None)
    actor, work = Actor(None), Work(settings=settings, deliver=print)
    assert (actor.node, actor.host, actor.offset_s, work.timeout_s) == ("", "", 0.0, None)
    assert (actor.is_checked, actor.asked, actor.timed_out) == (False, False, False)
    assert {value for value in vars_of(Progress()) if value} == set()
    assert Progress().eta_s is None
    checked = CheckedConfig.of(make_config(), ask=False)
    plan = make_plan(checked)
    for one in (checked, plan):
        assert (one.is_once, one.keeps_shapes, one.starts, one.origin) == (False, False, None, None)
    assert not plan.are_runs_given


def vars_of(one: Any) -> list[Any]:
    return [getattr(one, name) or None for name in one.__slots__]
