"""Bytes in words, and copies that are made at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from panic.devices.transfers import BlockingTransfer, format_bytes


@dataclass
class Counted:
    """A block that counts how often it is filled."""

    num_bytes: int = 1
    times: list[int] = field(default_factory=list)

    def fill(self) -> None:
        self.times.append(1)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (-1023, "-1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (-2048, "-2.0 KiB"),
        (2**20 - 1, "1024.0 KiB"),
        (2**20, "1.0 MiB"),
        (2**30, "1.0 GiB"),
        (5000 * 2**30, "5000.0 GiB"),
    ],
)
def test_bytes_in_words(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_a_blocking_transfer_has_arrived_and_is_waited_for_once() -> None:
    blocks = [Counted(), Counted()]
    transfer = BlockingTransfer(blocks)
    assert [len(block.times) for block in blocks] == [1, 1]
    assert 0 < transfer.wait() < 60
    assert transfer.wait() == 0
    assert transfer.cancel() == 2
    assert [len(block.times) for block in blocks] == [1, 1]
