"""`panic report`: an experiment as one HTML file that needs nothing else.

panic report latest --output report.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panic.cli.common import ExperimentArgument, Shared, command
from panic.cli.destinations import ForceOption, claim_file, claim_report
from panic.cli.render import console


@command
def report(
    shared: Shared,
    experiment: ExperimentArgument = "latest",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="By default reports/NAME.html in the store, which is written anew every time.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write a report of an experiment: pictures, stuck runs, time per model, drift, diagrams."""
    from panic.analysis.report import write_report
    from panic.store import reading
    from panic.store.files import own_folder

    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        if output is None:
            file = claim_report(own_folder(store.path, "reports"), f"{reading.file_stem(row.name)}.html")
        else:
            file = output
            claim_file(file, force=force)
        write_report(store, row.id, file)
    if not shared.quiet:
        console().print(f"Report: {file}")
