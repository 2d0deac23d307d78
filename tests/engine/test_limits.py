"""Numbers that the documentation promises or the log measured, and what is meant where nothing is said."""

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
    # docs/design.md: what a process of a device prints is logged, up to 1 MiB.
    "child": {"LOGGED_BYTES": 2**20},
    # LOG.md, mutants of outputs: texts over 500 MB.
    "contents": {"MAX_TEXT_BYTES": 500_000_000},
    # LOG.md, "Endpoints in small bunches": four at a time, 2 ms apart.
    "endpoints": {"BUNCH": 4, "GAP_S": 0.002},
    # docs/view.md: an address that is dead costs at most 30 s at the end.
    "notices": {"LONGEST_S": 30.0},
    # LOG.md, memory of the stage of diagrams: SQLite's cache is 256 KiB in each process.
    "pool": {"CACHE_KIB": 256},
    # docs/clusters.md: pixels of less than 100 KiB (182 x 182) are not kept in Ray's store.
    "ray_place": {"INLINE_BYTES": 100 * 1024},
    # docs/design.md, docs/clusters.md: a device whose process ends three times in a row is left out.
    "workers": {"MOST_ENDS": 3},
    # LOG.md: 4,096 rows, and only 48 entries may queue; mutants of the writer: 0.25 s.
    "writer": {"COMMIT_ROWS": 4096, "QUEUED_COMMITS": 48, "COMMIT_EVERY_S": 0.25},
}


@pytest.mark.parametrize("module", NUMBERS)
def test_a_number_is_what_it_is_said_to_be(module: str) -> None:
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
