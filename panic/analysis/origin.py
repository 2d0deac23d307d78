"""Where the results of an experiment come from, as facts that people read: code, machine, versions, models.

A training tells so of its last session.

with Store("panic-store") as store:
    facts(reading.sessions(store, 1))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

PACKAGES = ("panic", "torch", "diffusers", "transformers", "numpy", "giotto-ph", "pillow", "polars", "altair")
SHORT = 12
"""Characters of a commit or digest that are shown."""


class Told(Protocol):
    """A session, or a training as of its last one."""

    @property
    def host(self) -> str: ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...


def facts(sessions: Sequence[Told]) -> dict[str, str]:
    """Return what the last session that said so tells of itself, and the hosts and energy of all, by name."""
    known = last_provenance(sessions)
    hardware, packages = mapping(known.get("hardware")), mapping(known.get("packages"))
    memory = positive(hardware.get("memory_bytes"))
    told = {
        "command": " ".join(map(str, listed(known.get("command")))),
        "folder": str(known.get("folder") or ""),
        "processor": f"{hardware.get('processor', '')}, {hardware.get('num_cpus', '?')} cores"
        if hardware
        else "",
        "memory": f"{memory / 2**30:.0f} GiB" if memory else "",
        "GPUs": "; ".join(map(str, listed(hardware.get("gpus")))),
        "CUDA": ", cuDNN ".join(str(hardware[k]) for k in ("cuda", "cudnn") if hardware.get(k)),
        "GPU energy": _energy(sessions),
        "system": str(hardware.get("platform", "")),
        "hosts": ", ".join(_hosts(sessions)),
        "python": str(known.get("python", "")).split(" ")[0],
        "packages": ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages),
        "panic": _checkout(known.get("git")),
        "source": str(known.get("source_digest", ""))[:SHORT],
        "repository": _checkout(known.get("repository")),
    }
    return {name: text for name, text in told.items() if text}


def mapping(said: Any) -> Mapping[str, Any]:
    """Return what a store says where a mapping is expected; nothing where it is none: no store is trusted."""
    return said if isinstance(said, Mapping) else {}


def listed(said: Any) -> list[Any]:
    """Return what a store says where a list is expected; nothing where it is none."""
    return said if isinstance(said, list) else []


def positive(said: Any) -> float:
    """Return a positive number that a store says, or 0."""
    try:
        found = float(said) if isinstance(said, int | float) else 0.0
    except OverflowError:
        return 0.0
    return found if 0 < found < float("inf") else 0.0


def last_provenance(sessions: Sequence[Told]) -> Mapping[str, Any]:
    """Return the provenance of the last session that has any."""
    return next((one.provenance for one in reversed(sessions) if one.provenance), {})


def models(sessions: Sequence[Told]) -> dict[str, Mapping[str, Any]]:
    """Return where the models of an experiment come from, by name, as the last session says that had each."""
    found: dict[str, Mapping[str, Any]] = {}
    for session in sessions:
        said = session.provenance.get("models")
        if isinstance(said, Mapping):
            found |= {str(name): one for name, one in said.items() if isinstance(one, Mapping)}
    return found


def _checkout(said: Any) -> str:
    git = mapping(said)
    if not git.get("commit"):
        return ""
    where = f"{git['root']} " if git.get("root") else ""
    is_unknown = "dirty" in git and git["dirty"] is None
    changed = " with changes" if git.get("dirty") else ", changes not known" if is_unknown else ""
    return f"{where}{str(git['commit'])[:SHORT]}{changed}"


def _hosts(sessions: Sequence[Told]) -> list[str]:
    """The hosts of all sessions and of those that were asked over HTTP, each once."""
    found: dict[str, None] = {}
    for session in sessions:
        said = session.provenance.get("hosts")
        found |= dict.fromkeys([session.host, *(map(str, said) if isinstance(said, list) else ())])
    return list(found)


def _energy(sessions: Sequence[Told]) -> str:
    """What whole GPUs have used in all sessions that could tell."""
    used = [
        positive(joules)
        for session in sessions
        for joules in mapping(session.provenance.get("gpu_energy_j")).values()
    ]
    return f"{sum(used) / 1000:.3g} kJ of {len(sessions)} sessions, as the GPUs tell" if used else ""
