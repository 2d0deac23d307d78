"""Models on paper for the simulated device: blocks of given sizes that notice every misuse.

A block goes from gone to allocated to filled to bound and back to gone; anything else is an error, and so is
a call of a model of which a block is not bound: that would be reading what has not arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from panic.devices.cache import ModelCache
from panic.devices.device import Device
from panic.devices.host import HostTier
from panic.devices.parcels import HostBuffer, Parcel
from panic.devices.simulated import SimulatedDevice


@dataclass
class PaperBlock:
    num_bytes: int
    state: str = "gone"
    errors: list[BaseException] = field(default_factory=list)
    held: Sequence[Any] = ()

    def allocate(self) -> None:
        assert self.state == "gone", self.state
        self.state = "allocated"

    def fill(self) -> None:
        assert self.state == "allocated", self.state
        if self.errors:
            raise self.errors.pop()
        self.state = "filled"

    def bind(self) -> None:
        assert self.state == "filled", self.state
        self.state = "bound"

    def drop(self) -> None:
        assert self.state != "gone"
        self.state = "gone"


@dataclass
class PaperModel:
    """`needs` bytes of each item are used by a call, `told` bytes are announced (None: nothing is)."""

    blocks: list[PaperBlock]
    device: SimulatedDevice
    whole: bool = False
    keeps_host: bool = True
    needs: int = 0
    told: int | None = 0
    seconds: float = 0.0
    modality_in: str = "text"
    modality_out: str = "text"

    @property
    def size_bytes(self) -> int:
        return sum(block.num_bytes for block in self.blocks)

    def load(self, device: str) -> None:
        raise AssertionError("its blocks are moved")

    @property
    def working_bytes(self) -> Callable[[int], int]:
        if self.told is None:
            raise AttributeError("it says nothing")
        told = self.told
        return lambda batch_size: told * batch_size

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int] = ()) -> Sequence[Any]:
        assert all(block.state == "bound" for block in self.blocks)
        need = self.needs * len(inputs)
        self.device.use(need)
        self.device.advance(self.seconds)
        self.device.use(-need)
        assert all(block.state == "bound" for block in self.blocks)
        return inputs


def pack_paper(
    model: Any, device: Device, shared: HostBuffer | None = None, *, pinned: bool = True
) -> Parcel:
    host_bytes = model.size_bytes if model.keeps_host else 0
    return Parcel(blocks=model.blocks, whole=model.whole, keeps_host=model.keeps_host, host_bytes=host_bytes)


def paper_cache(
    device: SimulatedDevice, sizes: Mapping[str, Sequence[int]], **options: Any
) -> tuple[ModelCache, dict[str, PaperModel]]:
    """A cache of models by name and block sizes; options are the models', the cache's, or `host_bytes`."""
    host = HostTier(options.pop("host_bytes", None), pack_paper)
    of_cache = {name: options.pop(name) for name in list(options) if name in ModelCache.__dataclass_fields__}
    models: dict[str, PaperModel] = {}

    def build(name: str) -> PaperModel:
        models[name] = PaperModel([PaperBlock(size) for size in sizes[name]], device, **options)
        return models[name]

    return ModelCache(device, build, **{"host": host} | of_cache), models


def evict(cache: ModelCache, name: str) -> None:
    """Drop a model that is not in use from the device, as planning may do."""
    assert cache._residency.models[name].leases == 0, f"{name} is in use"
    cache._residency.cancel()
    cache._residency.drop(name, None, "asked")


def held_bytes(cache: ModelCache) -> dict[str, int]:
    """Bytes on the device or on their way there, by model, least recently used first."""
    return cache._residency.held()
