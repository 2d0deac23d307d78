"""The seed of every item: a fixed seed is used at every step; -1 draws a fresh one per step, replayably.

A run with seed -1 has a root = hash(experiment's root seed, network, prompt, repeat); the seed of step s is
hash(root, s). So a run's noise depends on what the run is and on nothing else: not on the order of runs,
not on a kill, not on other runs in the experiment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

FRESH = -1
_MASK = (1 << 63) - 1


def run_root(root_seed: int, network: Sequence[str], prompt: str, repeat: int) -> bytes:
    """The root of a seed -1 run's noise: 16 bytes."""
    key = json.dumps([root_seed, list(network), prompt, repeat], ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(key.encode(), digest_size=16, person=b"panic run root").digest()


def step_seed(root: bytes, step: int) -> int:
    """The seed of one step of a seed -1 run: 0 <= seed < 2**63 (fits SQLite and torch)."""
    digest = hashlib.blake2b(step.to_bytes(8, "little"), key=root, digest_size=8).digest()
    return int.from_bytes(digest, "little") & _MASK
