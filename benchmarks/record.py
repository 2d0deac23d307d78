"""Where benchmark figures are kept: one JSON list per topic under benchmarks/results/.

`record` adds an entry, or replaces the one of the same name, so that a rerun updates the figure and
nothing else. An entry is {name, value, unit, baseline, ratio, limit, hardware, versions, command, date}:
`baseline` is what the value was compared with in the same run, `limit` the bar it has to pass; `load`
in `hardware` tells whether the machine was quiet.

    from benchmarks.record import record
    record("engine.invocations_per_s", 2450.0, unit="1/s", limit=2000.0, file="engine")
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "panic", "torch", "numpy", "diffusers", "transformers", "polars", "pillow", "apsw", "giotto-ph", "gudhi",
)  # fmt: skip


def record(
    name: str,
    value: float,
    *,
    unit: str,
    baseline: float | None = None,
    ratio: float | None = None,
    limit: float | None = None,
    command: str | None = None,
    file: str = "benchmarks",
    folder: Path = RESULTS,
    **extra: Any,
) -> dict[str, Any]:
    """Write one figure to `folder/file.json` and return the entry; `extra` fields are stored as given."""
    entry = {
        "name": name,
        "value": value,
        "unit": unit,
        "baseline": baseline,
        "ratio": ratio,
        "limit": limit,
        **extra,
        "hardware": hardware(),
        "versions": versions(),
        "command": command or command_line(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = folder / f"{file}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    entries = sorted([e for e in old if e["name"] != name] + [entry], key=lambda e: str(e["name"]))
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return entry


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB, load when recorded, and the GPU where torch is loaded and sees one."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return facts


def versions() -> dict[str, str]:
    """Python and the installed ones of `PACKAGES`."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """How this process was started, without the machine's folders."""
    program = Path(sys.argv[0])
    if program.name in {"__main__.py", "pytest", "py.test"} and "pytest" in sys.modules:
        return shlex.join(["pytest", *sys.argv[1:]])
    return shlex.join(["python", f"{program.parent.name}/{program.name}", *sys.argv[1:]])


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
