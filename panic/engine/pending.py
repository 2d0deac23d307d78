"""Work under way: between being found missing in the store and being found there."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Pending(Generic[Key]):
    """Keys that a stage must not ask for again, although the store still lacks them."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()
        self._written: deque[tuple[int, list[Key]]] = deque()

    def claim(self, key: Key) -> bool:
        """Take a key; False if it is under way already."""
        if key in self._keys:
            return False
        self._keys.add(key)
        return True

    def written(self, keys: Iterable[Key], entry_number: int) -> None:
        """The keys' results were handed to the writer with this entry."""
        self._written.append((entry_number, list(keys)))

    def settle(self, committed: int) -> None:
        """All entries up to this number are in the store: their keys are no longer under way."""
        while self._written and self._written[0][0] <= committed:
            self._keys.difference_update(self._written.popleft()[1])
