"""`panic check`: is the store sound?

panic check && echo sound; panic check demo --run 3
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panic.cli.common import JsonOption, OptionalExperiment, Shared, command
from panic.cli.finding import RunOption, find_run
from panic.cli.render import console, print_json
from panic.errors import StoreCorrupt


@command
def check(
    shared: Shared,
    experiment: OptionalExperiment = None,
    run: RunOption = None,
    allowed_signers: Annotated[
        Path | None,
        typer.Option(
            "--allowed-signers",
            metavar="FILE",
            help="Also verify signed remarks. Its lines are an address and a public key (ssh-keygen).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the store: the files, every reference, every step, every digest. Exit code 1 for problems.

    Of an experiment or a run its own rows, images and vectors are checked, and not the files as a whole.
    """
    from panic.store import reading
    from panic.store.annotations import verify_remarks
    from panic.store.check import check as check_store

    row, number, remarks = None, None, None
    try:
        with shared.open_store(is_whole=False) as store:
            if experiment is not None or run is not None:
                row = reading.experiment(store, experiment or "latest")
            if row is not None and run is not None:
                number = find_run(store, row, run).id
            problems = check_store(store, None if row is None else row.id, run=number)
            remarks = None if allowed_signers is None else verify_remarks(store, allowed_signers)
            problems += [] if remarks is None else remarks.problems
    except StoreCorrupt as error:
        problems = [f"{error.message} {error.hint}".strip()]
    if as_json:
        signed = {} if remarks is None else {"signed": remarks.signed, "unsigned": remarks.unsigned}
        print_json({"ok": not problems, "problems": problems} | signed)
    else:
        for problem in problems:
            console().print(problem)
        if not shared.quiet:
            told = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
            if remarks is not None:
                console().print(
                    f"Remarks: {remarks.signed:,} signed by whom they name, {remarks.unsigned:,} by nobody."
                )
            sound = "The store is sound." if row is None else f"What was checked of {row.name} is sound."
            console().print(told if problems else sound)
    if problems:
        raise typer.Exit(1)
