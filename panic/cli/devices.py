"""`panic devices`: where models can run, how much room there is, and who uses it.

panic devices --json
panic devices --plan configs/demo.yaml
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import JsonOption, Shared, check_given, command, tell_options
from panic.cli.render import console, print_json, print_table, size
from panic.errors import StoreMissing

if TYPE_CHECKING:
    from panic.engine.placing import Placing
    from panic.engine.preview import Preview

PROCESS = re.compile(r"process +(\d+) uses +([\d.]+) MB")
"""A line of torch.cuda.list_gpu_processes (which needs nvidia-ml-py)."""


@command
def devices(
    shared: Shared,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="CONFIG", help="Which devices would serve which models of a config."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the devices of this machine: memory, what is free of it, and which processes hold the rest."""
    if plan is not None:
        return _print_places(shared, plan, as_json=as_json)
    tell_options({"--store": shared.store}, "without --plan")
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


def _print_places(shared: Shared, path: Path, *, as_json: bool) -> None:
    """Print the places of a config's models, decided from what the store has seen of them."""
    from panic.cli import logs

    logs.silence_libraries()
    from panic.devices.device import open_devices
    from panic.engine.placing import open_placing
    from panic.engine.plan import make_plan
    from panic.store import Store, reading

    checked = check_given(path, [], ask=False, store=shared.store_path)
    device = open_devices(checked.config.device)
    place = shared.store_path(checked.config.store)
    with contextlib.suppress(StoreMissing), Store(place, copy_older=True) as store:
        seen = reading.model_times(store)
        return _show(open_placing(make_plan(checked, device.kind), device, seen), as_json=as_json)
    return _show(open_placing(make_plan(checked, device.kind), device), as_json=as_json)


def _show(placing: Placing, *, as_json: bool) -> None:
    served = {
        name: [device for device in placing.devices if placing.serves(device, name)] for name in placing.sizes
    }
    if as_json:
        return print_json(
            {
                "devices": placing.devices,
                "models": {
                    name: {
                        "size_bytes": placing.sizes[name],
                        "seconds_per_item": placing.seconds[name] if name in placing.seen else None,
                        "devices": places,
                    }
                    for name, places in served.items()
                },
            }
        )
    for device, room in placing.devices.items():
        console().print(f"{device}: {size(room)} for weights")
    rows = [
        (
            name,
            size(placing.sizes[name]),
            f"{placing.seconds[name]:.3g}" if name in placing.seen else "not measured",
            ", ".join(places),
        )
        for name, places in served.items()
    ]
    print_table(["model", "size #", "seconds per item #", "served by"], rows)
    return console().print(f"{placing.described()}.")


def print_devices(plan: Preview, placing: Placing) -> None:
    """Print which of several devices serves what, and where not every device can have a batch."""
    console().print(f"devices:     {placing.described()}")
    at_once = [
        -(-model.num_ready // model.batch_size)
        for model in plan.models
        if model.order is not None and model.batch_size and not model.is_remote
    ]
    if at_once and (most := max(at_once)) < len(placing.devices):
        console().print(
            f"             at most {most} of the {len(placing.devices)} have a batch at a time;"
            " smaller batch_sizes, said before the first start, give work to more"
        )


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
