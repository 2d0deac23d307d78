"""Who works on an experiment: the last call of each device, what that says of itself, the log's end."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

from panic.cli.common import visible
from panic.store import Store, standing, wall
from panic.store.records import ExperimentRow
from panic.store.standing import LastSession

LOG_NAME = re.compile(r"[\w.-]+\.log")
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
        {**dict(zip(keys, call, strict=True)), "now": gpu(call[0]) if is_here else None}
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


def gpu(device: str) -> dict[str, Any] | None:
    """Memory, temperature and power of a CUDA device of this machine, as far as its driver tells."""
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdigit():
        return None
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(index))
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return {
            "memory_used_bytes": int(memory.used),
            "memory_total_bytes": int(memory.total),
            "temperature_c": _told(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            "power_w": _told(lambda of: pynvml.nvmlDeviceGetPowerUsage(of) / 1000, handle),
        }
    except pynvml.NVMLError:
        return None


def _told(ask: Any, *arguments: Any) -> float | None:
    """A number that a driver tells, or None where it does not."""
    import pynvml

    try:
        return float(ask(*arguments))
    except pynvml.NVMLError:
        return None
