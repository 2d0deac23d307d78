"""The texts and pixels that the loop may need again: a cache with a byte budget over what the store holds.

Contents that are not yet in the store are held whatever the budget says (the writer's queue bounds them);
others are dropped least recently used first and read from the store when they are needed again. An image
comes back from the store with exactly the pixels it was stored with.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from panic.models.protocol import Modality

Content = str | Image.Image
TEXT_OVERHEAD = 200


def size_bytes(content: Content) -> int:
    """Memory of an RGB image's pixels, or about that of a text and its places in dictionaries."""
    return (
        TEXT_OVERHEAD + 2 * len(content) if isinstance(content, str) else 3 * content.width * content.height
    )


class ContentCache:
    """Digest -> text or RGB image. Thread safe.

    Args:
        budget_bytes: for contents that are in the store.
        read: reads a content from the store.
    """

    def __init__(self, budget_bytes: int, read: Callable[[bytes, Modality], Content]) -> None:
        self._budget = budget_bytes
        self._read = read
        self._lock = threading.Lock()
        self._saved: OrderedDict[bytes, Content] = OrderedDict()
        self._saved_bytes = 0
        self._unsaved: dict[bytes, tuple[Content, int]] = {}

    @property
    def saved_bytes(self) -> int:
        """Bytes held within the budget."""
        return self._saved_bytes

    def add_unsaved(self, digest: bytes, content: Content) -> None:
        """Hold a content until `saved` was called as often as this."""
        with self._lock:
            holders = self._unsaved.get(digest, (content, 0))[1]
            self._unsaved[digest] = (content, holders + 1)

    def saved(self, digest: bytes) -> None:
        """The store has it now: keep it within the budget only."""
        with self._lock:
            content, holders = self._unsaved.pop(digest)
            if holders > 1:
                self._unsaved[digest] = (content, holders - 1)
            self._keep(digest, content)

    def keep(self, digest: bytes, content: Content) -> None:
        """Hold a content that the store has, within the budget."""
        with self._lock:
            self._keep(digest, content)

    def get(self, digest: bytes, modality: Modality) -> Content:
        """The content, from memory or from the store."""
        with self._lock:
            if unsaved := self._unsaved.get(digest):
                return unsaved[0]
            if saved := self._saved.get(digest):
                self._saved.move_to_end(digest)
                return saved
        content = self._read(digest, modality)
        with self._lock:
            self._keep(digest, content)
        return content

    def _keep(self, digest: bytes, content: Content) -> None:
        if digest in self._saved:
            return
        self._saved[digest] = content
        self._saved_bytes += size_bytes(content)
        while self._saved_bytes > self._budget and self._saved:
            _, dropped = self._saved.popitem(last=False)
            self._saved_bytes -= size_bytes(dropped)
