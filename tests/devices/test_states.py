"""Any order of leases, evictions, tenants and faults: the promises of the cache hold at every moment."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from panic.devices.simulated import SimulatedDevice
from panic.errors import ModelDoesNotFit, OutOfMemory
from tests.devices.paper import evict, held_bytes, paper_cache

NAMES = "abcde"
names = st.sampled_from(NAMES)


class CacheStates(RuleBasedStateMachine):
    """The rules are what an engine, other tenants and the hardware can do."""

    @initialize(
        sizes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=5, max_size=5),
        capacity=st.integers(10, 50),
        granularity=st.sampled_from([1, 1, 4]),
        rate=st.sampled_from([float("inf"), 1.0, 5.0]),
        whole=st.booleans(),
        keeps_host=st.booleans(),
        working=st.integers(0, 3),
        seconds=st.sampled_from([0.0, 1.0, 10.0]),
        host_budget=st.sampled_from([None, 20]),
    )
    def start(
        self,
        sizes: list[list[int]],
        capacity: int,
        granularity: int,
        rate: float,
        whole: bool,
        keeps_host: bool,
        working: int,
        seconds: float,
        host_budget: int | None,
    ) -> None:
        self.device = SimulatedDevice(
            name="sim", capacity_bytes=capacity, granularity_bytes=granularity, rate_bytes_per_s=rate
        )
        self.cache, self.models = paper_cache(
            self.device,
            dict(zip(NAMES, sizes, strict=True)),
            whole=whole,
            keeps_host=keeps_host or not whole,
            needs=working,
            seconds=seconds,
            host_bytes=host_budget,
        )
        self.leases: list[tuple[AbstractContextManager[Any], str]] = []
        self.pledged: list[int] = []

    @rule(name=names, batch=st.integers(1, 3), upcoming=st.lists(names, max_size=6), repeats=st.booleans())
    def call(self, name: str, batch: int, upcoming: list[str], repeats: bool) -> None:
        if self.leases:
            return  # the device serves one call at a time; nested leases are another rule
        try:
            with self.cache.lease(name, batch, [*upcoming, name] if repeats else upcoming) as model:
                assert name in self.cache.resident
                model.invoke(["x"] * batch)
        except (OutOfMemory, ModelDoesNotFit):
            self.cache.evict_idle()

    @precondition(lambda self: not self.leases)
    @rule(name=names, batch=st.integers(1, 3), upcoming=st.lists(names, max_size=6), has_begun=st.booleans())
    def a_call_fails(self, name: str, batch: int, upcoming: list[str], has_begun: bool) -> None:
        """A bug of the model, or out of memory in mid-call: the model stays, the error comes through."""
        raised: Exception = MemoryError("mid-call") if has_begun else ValueError("a bug")
        came: Exception | None = None
        try:
            with self.cache.lease(name, batch, upcoming):
                if has_begun:
                    self.device.use(min(batch, self.device.free_bytes()))
                raise raised
        except Exception as error:
            came = error
        if came is raised:
            assert name in self.cache.resident
        else:
            assert isinstance(came, OutOfMemory | ModelDoesNotFit)
            self.cache.evict_idle()

    @precondition(lambda self: len(self.leases) < 2)
    @rule(name=names)
    def hold(self, name: str) -> None:
        """A lease that outlives other things; without working memory, which belongs to one call at a time."""
        if any(model.needs for model in self.models.values()):
            return
        lease = self.cache.lease(name, 1)
        try:
            lease.__enter__()
        except (OutOfMemory, ModelDoesNotFit):
            return
        self.leases.append((lease, name))

    @precondition(lambda self: self.leases)
    @rule()
    def give_back(self) -> None:
        self.leases.pop()[0].__exit__(None, None, None)

    @rule()
    def evict_idle(self) -> None:
        self.cache.evict_idle()
        assert set(held_bytes(self.cache)) == {name for _, name in self.leases}

    @rule(name=names)
    def evict_one(self, name: str) -> None:
        if name not in self.cache._residency.models:
            return
        if any(held == name for _, held in self.leases):
            with pytest.raises(AssertionError, match="in use"):
                evict(self.cache, name)
            return
        evict(self.cache, name)
        assert name not in held_bytes(self.cache)

    @rule(num_bytes=st.integers(0, 20))
    def tenants_come_and_go(self, num_bytes: int) -> None:
        self.device.tenants_bytes = min(num_bytes, self.device.capacity_bytes - self.device.allocated_bytes)

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.device.advance(seconds)

    @rule(nth=st.integers(1, 4))
    def an_allocation_will_fail(self, nth: int) -> None:
        self.device.fail_at = self.device.num_allocations + nth

    @rule(name=names, block=st.integers(0, 3))
    def a_source_will_fail(self, name: str, block: int) -> None:
        """A disk error in the next copy of one block; the lease after that one finds it mended."""
        if name not in self.models or self.leases:
            return
        broken = self.models[name].blocks[block % len(self.models[name].blocks)]
        if broken.state != "gone":
            return
        broken.errors = [OSError("disk")]
        try:
            with self.cache.lease(name, 1) as model:
                model.invoke(["x"])
        except (OSError, OutOfMemory, ModelDoesNotFit):
            pass
        for model in self.models.values():
            for each in model.blocks:
                each.errors.clear()

    @invariant()
    def bytes_are_conserved(self) -> None:
        if not hasattr(self, "cache"):
            return
        held = sum(held_bytes(self.cache).values())
        assert self.device.allocated_bytes == held <= self.device.capacity_bytes
        on_device = sum(
            self.device.rounded(block.num_bytes)
            for name, model in self.models.items()
            for block in model.blocks
            if block.state != "gone"
        )
        assert on_device == held

    @invariant()
    def every_lease_is_counted_and_no_other(self) -> None:
        if not hasattr(self, "cache"):
            return
        held = Counter(name for _, name in self.leases)
        assert {
            name: entry.leases for name, entry in self.cache._residency.models.items() if entry.leases
        } == held

    @invariant()
    def what_is_in_use_is_there(self) -> None:
        for _, name in getattr(self, "leases", []):
            assert name in self.cache.resident
            assert all(block.state == "bound" for block in self.models[name].blocks)

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        while self.leases:
            self.give_back()
        self.cache.close()
        assert self.device.allocated_bytes == 0
        assert all(block.state == "gone" for model in self.models.values() for block in model.blocks)


CacheStates.TestCase.settings = settings(max_examples=8, stateful_step_count=30, deadline=None)
TestCacheStates = CacheStates.TestCase


@pytest.mark.slow
class TestManyCacheStates(CacheStates.TestCase):
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
