"""`panic check`: is the store sound?

panic check && echo sound
"""

from __future__ import annotations

import typer

from panic.cli.common import JsonOption, Shared, command
from panic.cli.render import console, print_json
from panic.errors import StoreCorrupt


@command
def check(shared: Shared, as_json: JsonOption = False) -> None:
    """Verify the store: the files, every reference, every step, every digest. Exit code 1 for problems."""
    from panic.store.check import check as check_store

    try:
        with shared.open_store() as store:
            problems = check_store(store)
    except StoreCorrupt as error:
        problems = [f"{error.message} {error.hint}".strip()]
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    else:
        for problem in problems:
            console().print(problem)
        if not shared.quiet:
            number = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
            console().print(number if problems else "The store is sound.")
    if problems:
        raise typer.Exit(1)
