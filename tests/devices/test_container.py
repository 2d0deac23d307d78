"""Limits of control groups, read from folders laid out as Linux does."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic.devices import device as devices
from panic.devices.device import CpuDevice, container_free_bytes, container_limit_bytes
from panic.engine.memory import HOST_SHARE, MemorySettings

GIB = 2**30


def lay(root: Path, files: dict[str, str | int]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_a_job_of_a_cluster_has_what_its_step_and_the_job_leave(tmp_path: Path) -> None:
    """Version 2: the step has no limit of its own, the job has 64 GiB, the machine's slice 200."""
    job = "sys/fs/cgroup/slurm/job_1"
    root = lay(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slurm/job_1/step_0",
            f"{job}/step_0/memory.max": "max",
            f"{job}/step_0/memory.current": 9 * GIB,
            f"{job}/memory.max": 64 * GIB,
            f"{job}/memory.current": 60 * GIB,
            f"{job}/memory.stat": f"anon {9 * GIB}\ninactive_file {30 * GIB}\nactive_file {20 * GIB}",
            "sys/fs/cgroup/slurm/memory.max": 200 * GIB,
            "sys/fs/cgroup/slurm/memory.current": 100 * GIB,
        },
    )
    assert container_limit_bytes(root) == 64 * GIB
    assert container_free_bytes(root) == (64 - 60 + 50) * GIB, (
        "files that were read, once or twice, count as free"
    )


def test_version_1_and_a_path_that_is_the_machines(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/docker/abc\n4:hugetlb,memory:/docker/abc\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 8 * GIB,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 6 * GIB,
            "sys/fs/cgroup/memory/memory.stat": f"cache {4 * GIB}\ntotal_inactive_file {3 * GIB}",
        },
    )
    nothing = lay(tmp_path / "open", {"sys/fs/cgroup/memory/memory.limit_in_bytes": 2**63 - 4096})
    lay(nothing, {"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB})
    assert container_limit_bytes(nothing) is None
    assert container_limit_bytes(root) == 8 * GIB
    assert container_free_bytes(root) == 5 * GIB


def test_a_full_group_has_nothing_left_and_none_has_no_limit(tmp_path: Path) -> None:
    full = {"sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/memory.current": 2 * GIB}
    assert container_free_bytes(lay(tmp_path / "full", full)) == 0
    assert container_free_bytes(lay(tmp_path / "open", {"proc/self/cgroup": "0::/"})) is None
    assert container_limit_bytes(tmp_path / "nowhere") is None


def test_groups_have_names_of_bytes(tmp_path: Path) -> None:
    root = lay(tmp_path, {"sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/memory.current": 0})
    lay(root, {"proc/self/cgroup": ""})
    (root / "proc/self/cgroup").write_bytes(b"0::/caf\xe9\n")
    assert container_limit_bytes(root) == GIB


def test_weights_in_main_memory_keep_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "container_limit_bytes", lambda: 4 * GIB)
    monkeypatch.setattr(devices, "container_free_bytes", lambda: 2**20)
    assert CpuDevice().total_bytes() == 4 * GIB
    assert CpuDevice().free_bytes() == 2**20
    assert MemorySettings(num_workers=2).host_budget() == round(HOST_SHARE * 2**20 / 2)


@pytest.mark.parametrize(("limit", "seen"), [(2**60 - 4096, 2**60 - 4096), (2**60, None)])
def test_a_limit_of_an_exbibyte_is_none(tmp_path: Path, limit: int, seen: int | None) -> None:
    files = {"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory.current": GIB}
    assert container_limit_bytes(lay(tmp_path, files)) == seen
