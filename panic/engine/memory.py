"""What the engine knows about device memory: learnt working memory in and out of the store, event files.

Workers write the events of their caches to files of their own in the store's folder `cache/`; what they
learnt is read from there when the experiment ends, because only the driver writes the store. A kill loses
what was learnt since, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from panic.devices.device import CpuDevice, Device
from panic.devices.events import EventLog, read_events
from panic.devices.room import WorkingMemory
from panic.store import Store, working
from panic.store.files import refuse_link

FOLDER = "cache"
HOST_SHARE = 0.6
"""Of the main memory that is available when a worker starts, for weights beside those on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """What the cache of a worker with a device's own memory is told; picklable.

    peaks: largest need seen beyond the weights, by model name, bucket and batch size. events: beginning of
    the path of the file of events. num_workers: that share the main memory.
    """

    peaks: Mapping[str, Mapping[int, Mapping[int, int]]] = field(default_factory=dict)
    events: Path | None = None
    num_workers: int = 1

    def working(self) -> WorkingMemory:
        """A worker's own copy of what is known."""
        return WorkingMemory(
            {
                name: {bucket: dict(peaks) for bucket, peaks in buckets.items()}
                for name, buckets in self.peaks.items()
            }
        )

    def host_budget(self) -> int:
        """Main memory for weights, the container's limit considered."""
        return round(HOST_SHARE * CpuDevice().free_bytes() / self.num_workers)

    def event_log(self) -> EventLog:
        """This process's file of events."""
        if self.events is None:
            return EventLog()
        return EventLog(self.events.with_name(f"{self.events.name}-{os.getpid()}.jsonl"))


def memory_settings(
    store: Store, device: Device, fingerprints: Mapping[str, str], experiment: str, session: int
) -> MemorySettings:
    """What is known about the models of an experiment on this kind of device.

    Args:
        fingerprints: by model name.
        experiment: its uid; names the files of events together with the session.
    """
    refuse_link(store.path / FOLDER)
    learnt = working.known(store, device.kind)
    return MemorySettings(
        peaks={name: learnt[key] for name, key in fingerprints.items() if key in learnt},
        events=store.path / FOLDER / f"{experiment}-{session}",
    )


def learn(store: Store, device: Device, fingerprints: Mapping[str, str], settings: MemorySettings) -> None:
    """Keep what the workers of a session have learnt."""
    if settings.events is None:
        return
    files = settings.events.parent.glob(f"{settings.events.name}-*.jsonl")
    observed = [
        (fingerprints[event["model"]], event["bucket"], event["batch"], event["bytes"])
        for event in read_events(files)
        if event["event"] == "working" and event.get("model") in fingerprints and event["bytes"]
    ]
    working.learn(store, device.kind, observed)
