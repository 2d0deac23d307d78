"""Who works on an experiment: the last call of each device, what that says of itself, the log's end."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panic.cli.common import visible
from panic.store import Store, standing, wall
from panic.store.records import ExperimentRow
from panic.store.standing import LastSession

LOG_NAME = re.compile(r"[\w.-]+\.log")
NUMBER = re.compile(r"[0-9]{1,4}")
"""Of a card; what a store or a process says may be any text."""
TAIL_BYTES = 16_384
MOST_LOGS = 200


def work(store: Store, row: ExperimentRow) -> dict[str, Any]:
    """What the last session of an experiment did last, and its log as far as it is here."""
    session = standing.last_sessions(store, [row.id]).get(row.id)
    if session is None:
        return {"is_alive": False, "devices": [], "log_name": "", "log": ""}
    keys = ("device", "model", "started_at", "duration_s", "size", "padded_size")
    is_here = session.is_alive and session.host == socket.gethostname()
    devices = [
        {**dict(zip(keys, call, strict=True)), "now": gpu(call[0], session.pid) if is_here else None}
        for call in wall.recent_calls(store, session.id)
    ]
    name, text = log_of(store.path / "logs", session)
    return {"is_alive": session.is_alive, "devices": devices, "log_name": name, "log": text}


def log_of(folder: Path, session: LastSession) -> tuple[str, str]:
    """The name and the end of the log that a session's process wrote; empty where it is not here.

    Characters that a terminal obeys are shown as escapes. Links and what is no file are left alone.
    """
    wanted = f" {session.host} {session.pid} "
    try:
        names = sorted((name for name in os.listdir(folder) if LOG_NAME.fullmatch(name)), reverse=True)
    except OSError:
        return "", ""
    for name in names[:MOST_LOGS]:
        with contextlib.suppress(OSError):
            opened = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(opened, "rb") as file:
                about = os.fstat(opened)
                if not stat.S_ISREG(about.st_mode) or wanted not in file.read(400).decode(errors="replace"):
                    continue
                file.seek(max(0, about.st_size - TAIL_BYTES))
                return name, visible(file.read(TAIL_BYTES).decode(errors="replace"))
    return "", ""


def gpu(device: str, pid: int) -> dict[str, Any] | None:
    """Memory, temperature and power of a CUDA device of a process here, as far as the driver tells."""
    kind, _, index = device.partition(":")
    if kind != "cuda" or not NUMBER.fullmatch(index):
        return None
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        variables = environment(pid)
        handle = _handle(cuda_name(int(index), variables), variables)
        if handle is None:
            return None
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return {
            "memory_used_bytes": int(memory.used),
            "memory_total_bytes": int(memory.total),
            "temperature_c": _told(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            "power_w": _told(lambda of: pynvml.nvmlDeviceGetPowerUsage(of) / 1000, handle),
        }
    except pynvml.NVMLError:
        return None


def environment(pid: int) -> Mapping[str, str] | None:
    """The variables that a process was started with; None where they cannot be read.

    Of a process that is about to become its command, or has just ended, the system tells an empty list: its
    variables are not known, which is not the same as that there are none.
    """
    try:
        said = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return None
    parts = (part.partition("=") for part in said.split("\0"))
    return {name: value for name, is_set, value in parts if is_set} or None


def cuda_name(index: int, variables: Mapping[str, str] | None) -> str:
    """What the driver knows the CUDA device `index` of a process by: a number in the order of the bus, or
    the beginning of a UUID. "" where the process cannot have it, or where its variables are not known.

    In the ordinary order, "fastest first", numbers are those of the bus where all cards are of one model.
    """
    if variables is None:
        return ""
    said = variables.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return str(index)
    names = [name.strip() for name in said.split(",")]
    is_good = [bool(NUMBER.fullmatch(name)) or name.startswith(("GPU-", "MIG-")) for name in names]
    known = names[: [*is_good, False].index(False)]  # CUDA heeds what stands before the first mistake
    return known[index] if index < len(known) else ""


def _handle(name: str, variables: Mapping[str, str] | None) -> Any:
    """What NVML calls the device of a name by; None if there is none, or not only one that it may be."""
    import pynvml

    if variables is None or not name:
        return None
    all_handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
    if name.isdigit():
        models = {str(pynvml.nvmlDeviceGetName(handle)) for handle in all_handles}
        is_sure = len(models) == 1 or variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        return all_handles[int(name)] if is_sure and int(name) < len(all_handles) else None
    if name.startswith("MIG-"):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    found = [one for one in all_handles if str(pynvml.nvmlDeviceGetUUID(one)).startswith(name)]
    return found[0] if len(found) == 1 else None


def _told(ask: Any, *arguments: Any) -> float | None:
    """A number that a driver tells, or None where it does not."""
    import pynvml

    try:
        return float(ask(*arguments))
    except pynvml.NVMLError:
        return None
