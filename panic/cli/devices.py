"""`panic devices`: where models can run, how much room there is, and who uses it.

panic devices --json
"""

from __future__ import annotations

import os
import re
from typing import Any

from panic.cli.common import JsonOption, Shared, command
from panic.cli.render import print_json, print_table, size

PROCESS = re.compile(r"process +(\d+) uses +([\d.]+) MB")
"""A line of torch.cuda.list_gpu_processes (which needs nvidia-ml-py)."""


@command
def devices(shared: Shared, as_json: JsonOption = False) -> None:
    """List the devices of this machine: memory, what is free of it, and which processes hold the rest."""
    found = [as_dict(name) for name in _names()]
    if as_json:
        return print_json(found)
    rows = [
        (
            device["name"],
            device["kind"],
            size(device["total_bytes"]),
            size(device["free_bytes"]),
            ", ".join(f"{size(user['bytes'])} by {user['pid']} ({user['name']})" for user in device["users"]),
        )
        for device in found
    ]
    return print_table(["device", "kind", "memory #", "free #", "used by"], rows)


def as_dict(name: str) -> dict[str, Any]:
    """The JSON of a device."""
    from panic.devices.device import open_device

    device = open_device(name)
    return {
        "name": device.name,
        "kind": device.kind,
        "total_bytes": device.total_bytes(),
        "free_bytes": device.free_bytes(),
        "users": _users(name),
    }


def _names() -> list[str]:
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    return [*(f"cuda:{index}" for index in range(num_gpus)), *(["mps"] if has_mps else []), "cpu"]


def _users(name: str) -> list[dict[str, Any]]:
    """Processes with memory on a GPU, as its driver knows them; empty if it does not say."""
    if not name.startswith("cuda:"):
        return []
    import torch

    try:
        listed = torch.cuda.list_gpu_processes(int(name[5:]))
    except Exception:  # the driver's own kinds of errors; containers often may not ask
        return []
    return [
        {"pid": int(pid), "name": _process_name(int(pid)), "bytes": round(float(mib) * 2**20)}
        for pid, mib in PROCESS.findall(listed)
        if int(pid) != os.getpid()  # asking takes some memory, too
    ]


def _process_name(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "elsewhere"
