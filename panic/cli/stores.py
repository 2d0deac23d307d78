"""`panic snapshot`, `panic merge`: stores as a whole, copied and put together.

panic snapshot panic-store /shared/demo; panic merge shards/* --into merged
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from panic.cli.common import Shared, command, read_settings, say, say_error
from panic.cli.render import console, size

if TYPE_CHECKING:
    from panic.store.merging.merge import Merged

SHOWN_CONFLICTS = 20


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

    source = _folder_of(source)
    with telling(str(target), quiet=shared.quiet, goes_on=False) as tell:
        taken = take(source, target, force=force, tell=tell)
    if taken.num_lost:
        say(f"{source} has lost {taken.num_lost:,} images: the snapshot lacks them, too.", err=True)
    if not shared.quiet:
        console().print(f"Snapshot: {target} ({size(taken.num_bytes)})")


@command
def merge(
    shared: Shared,
    sources: Annotated[
        list[Path], typer.Argument(metavar="STORE...", help="Stores (or their names), which may be in use.")
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="STORE", help="The store (or its name) that they come into.")
    ],
    keep: Annotated[
        Literal["mine", "theirs"] | None,
        typer.Option(help="Of runs with other content: keep those of --into, or take those of STORE."),
    ] = None,
) -> None:
    """Bring the content of stores into one, each thing once, in any order and as often as you like.

    Nothing is taken of runs that have other content in two stores: they are listed, and the exit code is 1.
    What is taken of all runs together, such as distances, is completed by performing the config there.
    """
    from panic.cli.progress import telling
    from panic.store.merging.merge import merge as bring_together

    sources, into = [_folder_of(source) for source in sources], _folder_of(into)
    with telling(str(into), quiet=shared.quiet) as tell:
        merged = bring_together(sources, into, keep=keep, tell=tell)
    for sentence in merged.shrunk:
        say(f"{sentence}.", err=True)
    if not shared.quiet:
        console().print("\n".join([*_told(merged), f"Store: {into}"]))
    if merged.conflicts:
        more = len(merged.conflicts) - SHOWN_CONFLICTS
        lines = merged.conflicts[:SHOWN_CONFLICTS] + ([f"and {more:,} more"] if more > 0 else [])
        say_error(
            "\n  ".join(["Not everything agrees, and nothing of this was taken:", *lines]),
            "--keep mine or --keep theirs settles runs with other content; other settings need other names.",
        )
        raise typer.Exit(1)


def _folder_of(store: Path) -> Path:
    """The folder of a store that is named by its folder or by its name in the settings."""
    settings = read_settings()
    return store if settings is None else settings.folder_of(store)


def _told(merged: Merged) -> list[str]:
    """Sentences on what a merge has done."""
    found = [
        f"New: {merged.num_runs:,} runs, {merged.num_invocations:,} invocations, {merged.num_images:,} images"
    ]
    if merged.num_meeting:
        found.append(f"Runs that met runs of other stores, equal to the bit: {merged.num_meeting:,}")
    if merged.num_settled:
        found.append(f"{merged.num_settled:,} runs had other content; one of each was kept")
    if merged.num_vectors:
        found.append(
            f"{merged.num_vectors:,} outputs had two vectors: the one with the smaller digest stays;"
            f" {merged.num_diagrams:,} diagrams of them are to be computed again (panic resume)"
        )
    return found


def take_up(shared: Shared, taken: Path, path: Path) -> None:
    """Put a copy of a snapshot where the store is to be, unless the store is there and has all of it."""
    from panic.cli.progress import telling
    from panic.store.snapshot import go_on_from

    taken = _folder_of(taken)
    with telling(str(path), quiet=shared.quiet, goes_on=False) as tell:
        is_new = go_on_from(taken, path, tell=tell)
    if not shared.quiet:
        what = f"Begins with the snapshot {taken}" if is_new else f"Has all of the snapshot {taken}"
        say(f"{path}: {what}.", err=True)
