"""How much of a device may be ours now: what is free, less headroom, fraction and what others come back for.

Others on a shared GPU take and give memory over time. What they hold now is respected as a matter of
fact; the most they held within the last minute is respected as a matter of prudence: room that they have
just given back is used only if there is no other.

    Room(device, headroom_bytes=2**28, memory_fraction=0.9).usable_bytes()
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from panic.devices.device import Device

WINDOW_S = 60.0


@dataclass(slots=True)
class Room:
    """Reads a device's memory and remembers what others held."""

    device: Device
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    window_s: float = WINDOW_S
    _held: deque[tuple[float, int]] = field(default_factory=deque)

    def usable_bytes(self, *, prudent: bool = True) -> int:
        """Bytes that we may take now; below zero if we have too much already.

        prudent: as if others held the most that they held within the window.
        """
        device = self.device
        free = device.free_bytes() - self.headroom_bytes
        if self.memory_fraction < 1.0:
            free -= int(device.total_bytes() * (1.0 - self.memory_fraction))
        if device.has_own_memory:
            others = device.others_bytes()
            most = self._most(others)
            if prudent:
                free -= most - others
        return free

    def _most(self, others: int) -> int:
        """Rolling maximum in constant time: the deque holds readings that no later one exceeds."""
        now = self.device.now()
        while self._held and self._held[-1][1] <= others:
            self._held.pop()
        self._held.append((now, others))
        while self._held[0][0] < now - self.window_s:
            self._held.popleft()
        return self._held[0][1]
