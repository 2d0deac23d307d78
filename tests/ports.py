"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, LAST = 20_000, 32_000
"""Below those that the system hands out by itself, so that nobody is given one before its server takes it."""
_numbers = itertools.count(16 * os.getpid())


def free_ports(number: int) -> list[int]:
    """Return so many ports of this machine that nobody listens on; other processes begin with others."""
    found: list[int] = []
    while len(found) < number:
        port = FIRST + next(_numbers) % (LAST - FIRST)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
