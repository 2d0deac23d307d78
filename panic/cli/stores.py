"""`panic snapshot`: stores as a whole, copied.

panic snapshot panic-store /shared/demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panic.cli.common import Shared, command, read_settings, say
from panic.cli.render import console, size


@command
def snapshot(
    shared: Shared,
    source: Annotated[
        Path, typer.Argument(metavar="STORE", help="The store (or its name); it may be in use.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The folder of the snapshot.")],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Write over a store that is no snapshot of this one.")
    ] = False,
) -> None:
    """Copy a store as it is now, also while it is written, and also onto a network file system.

    An older snapshot of the same store is replaced, and stays until the new one is complete.
    """
    from panic.cli.progress import telling
    from panic.store.snapshot import snapshot as take

    if (settings := read_settings()) is not None:
        source = settings.folder_of(source)
    with telling(str(target), quiet=shared.quiet) as tell:
        taken = take(source, target, force=force, tell=tell)
    if taken.num_lost:
        say(f"{source} has lost {taken.num_lost:,} images: the snapshot lacks them, too.", err=True)
    if not shared.quiet:
        console().print(f"Snapshot: {target} ({size(taken.num_bytes)})")


def take_up(shared: Shared, taken: Path, path: Path) -> None:
    """Put a copy of a snapshot where the store is to be, unless the store is there and has all of it."""
    from panic.cli.progress import telling
    from panic.store.snapshot import go_on_from

    with telling(str(path), quiet=shared.quiet) as tell:
        is_new = go_on_from(taken, path, tell=tell)
    if not shared.quiet:
        what = f"Begins with the snapshot {taken}" if is_new else f"Has all of the snapshot {taken}"
        say(f"{path}: {what}.", err=True)
