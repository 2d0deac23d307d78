"""How much of a device may be ours now: what is free, less headroom, fraction and what others come back for.

Others on a shared GPU take and give memory over time. What they hold now is respected as a matter of
fact; the most they held within the last minute is respected as a matter of prudence: room that they have
just given back is used only if there is no other.

    Room(device, headroom_bytes=2**28, memory_fraction=0.9).usable_bytes()
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from panic.devices.device import Device, format_bytes

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
        free = device.free_bytes() - self.headroom_bytes - self._withheld_bytes()
        if device.has_own_memory:
            others = device.others_bytes()
            most = self._most(others)
            if prudent:
                free -= most - others
        return free

    def told(self, held_bytes: int) -> str:
        """The arithmetic in words. held_bytes: by our models that are in use."""
        device = self.device
        parts = {
            "held by models in use": held_bytes,
            "held by others": device.others_bytes(),
            "kept as headroom": self.headroom_bytes,
            "beyond the memory fraction": self._withheld_bytes(),
        }
        taken = ", ".join(f"{format_bytes(num)} {what}" for what, num in parts.items() if num)
        free = format_bytes(max(0, self.usable_bytes(prudent=False)))
        return f"{free} are free of {format_bytes(device.total_bytes())}{f' ({taken})' if taken else ''}"

    def _withheld_bytes(self) -> int:
        """What the memory fraction leaves alone."""
        whole = self.memory_fraction >= 1.0
        return 0 if whole else round(self.device.total_bytes() * (1.0 - self.memory_fraction))

    def _most(self, others: int) -> int:
        """Rolling maximum in constant time: the deque holds readings that no later one exceeds."""
        now = self.device.now()
        while self._held and self._held[-1][1] <= others:
            self._held.pop()
        self._held.append((now, others))
        while self._held[0][0] < now - self.window_s:
            self._held.popleft()
        return self._held[0][1]
