"""Faults are injected with fixed seeds: a few in every run of the tests, more in the slow one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cases import attempt
from tests.faults.interruptions import Unavailable


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the unhindered run is kept."""
    return tmp_path_factory.mktemp("faults")


def hold(kind: str, seed: int, scratch: Path) -> None:
    try:
        attempt(kind, seed, scratch)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    ("kind", "seed"),
    [("kill", 1), ("disk", 1), ("clock", 1), ("configs", 1), ("configs", 2)],
)
@pytest.mark.timeout(180)
def test_promises_hold(kind: str, seed: int, scratch: Path) -> None:
    hold(kind, seed, scratch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize(
    "kind", ["kill", "stop", "terminate", "driver", "reader", "memory", "disk", "configs"]
)
@pytest.mark.timeout(300)
def test_promises_hold_for_longer(kind: str, seed: int, scratch: Path) -> None:
    hold(kind, seed, scratch)
