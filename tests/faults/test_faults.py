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
    [
        *(("kill", 1), ("disk", 1), ("clock", 1), ("power", 1), ("configs", 1), ("configs", 2)),
        *(
            ("stores", seed) for seed in (86, 119, 179, 246, 252, 299, 2238, 30434)
        ),  # those that broke it once
    ],
)
@pytest.mark.timeout(600)
def test_promises_hold(kind: str, seed: int, scratch: Path) -> None:
    hold(kind, seed, scratch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cases"),
    [
        *(
            ("kill", 2),
            ("worker", 1),
            ("stop", 2),
            ("terminate", 1),
            ("driver", 1),
            ("reader", 1),
            ("memory", 2),
        ),
        *(("disk", 2), ("power", 6), ("configs", 5), ("commands", 5), ("values", 5), ("stores", 60)),
    ],
)
@pytest.mark.timeout(600)
def test_promises_hold_for_longer(kind: str, cases: int, scratch: Path) -> None:
    for seed in range(11, 11 + cases):
        hold(kind, seed, scratch)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "cases"),
    [
        ("kill", 167),
        ("power", 200),
        ("configs", 250),
        ("commands", 50),
        ("values", 250),
        ("stores", 2000),
        ("clock", 10),
        ("memory", 20),
    ],
)
@pytest.mark.timeout(4 * 3600)
def test_the_figures_of_the_guarantees(kind: str, cases: int, scratch: Path) -> None:
    for seed in range(10_000, 10_000 + cases):
        hold(kind, seed, scratch)
