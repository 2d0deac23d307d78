"""`panic pin`, and what `panic run` does with pins and shards.

panic pin demo.yaml -o pins.json; panic run demo.yaml --shard 3/8 --pins pins.json --store shard-3
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panic.cli.common import Shared, check_given, command, say
from panic.cli.render import console

if TYPE_CHECKING:
    from panic.engine.plan import CheckedConfig
    from panic.store.records import NewRun


@command
def pin(
    shared: Shared,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Experiment config: YAML, JSON or TOML.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the pins go, as JSON.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting.")
    ] = None,
) -> None:
    """Decide how the models of a config are called, for all of its runs, so that shards call them alike.

    Batch sizes are tried out and proven on the device of the config, as performing it would.
    """
    from panic.cli.logs import silence_libraries
    from panic.engine import pins

    silence_libraries()
    pins.require_place(output)
    found = pins.calibrate(check_given(config, overrides or [], ask=True, store=shared.store_path))
    pins.write(found, output)
    if not shared.quiet:
        for name, one in found.models.items():
            console().print(f"{name}: batches of {one.batch_size} on {one.device_kind}")
        console().print(f"Pins: {output}")


def begin_shard(
    checked: CheckedConfig,
    config: Path,
    path: Path,
    *,
    shard: str | None,
    pins: Path | None,
    allow_epochs: bool,
) -> tuple[CheckedConfig, list[NewRun] | None]:
    """Lay pins into the store at `path`; the config to perform there, and its runs if these are a shard's.

    Raises UsageError for a shard without pins whose config does not say all batch sizes.
    """
    from panic.devices.device import open_devices
    from panic.engine.plan import expanded_runs, make_plan
    from panic.engine.shards import Shard, require_shapes
    from panic.store import Store

    wanted = None if shard is None else Shard.parse(shard, os.environ)
    if pins is None:
        is_here = checked.config.executor != "ray"  # what devices a cluster has does not matter yet
        kind = open_devices(checked.config.device).kind if is_here else "cpu"
        require_shapes(make_plan(checked, kind, []), str(config))
    else:
        from panic.engine.pins import lay, read

        found = read(pins)
        with Store(path, write=True, create=True) as store:
            lay(found, checked, store)
    kept = replace(checked, keeps_shapes=not allow_epochs)
    if wanted is None:
        return kept, None
    runs = expanded_runs(checked.config)
    mine = wanted.runs(runs)
    say(f"{checked.config.name}: shard {wanted} has {len(mine):,} of {len(runs):,} runs.", err=True)
    return kept, mine
