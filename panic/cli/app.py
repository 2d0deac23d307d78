"""The tree of commands.

panic --help; run-experiments --help
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panic import __version__
from panic.cli import (
    cache,
    check,
    completion,
    devices,
    evaluate,
    experiments,
    export,
    images,
    models,
    report,
    run,
    status,
    train,
    video,
)
from panic.cli.common import QuietOption, Shared, StoreOption, VerboseOption

EXPLAIN = (
    "Feedback loops of generative models: perform experiments, see where they stand, look at the results.\n\n"
    "EXPERIMENT is a name, the beginning of an id, or latest. The store is the folder given by --store, "
    "else by PANIC_STORE, else by the config, else ./panic-store."
)

app = typer.Typer(
    help=EXPLAIN,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help takes 0.1 s, rich help 0.2 s
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run_experiments_app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def shared_options(
    context: typer.Context,
    store: StoreOption = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that every command takes, too."""
    context.obj = Shared(store=Path(store) if store else None, verbose=verbose, quiet=quiet)


for command in (
    run.run,
    run.resume,
    status.status,
    experiments.list_,
    experiments.show,
    experiments.stuck,
    models.models,
    devices.devices,
    images.images,
    report.report,
    video.video,
    export.export,
    export.dump,
    experiments.delete,
    check.check,
    train.train,
    evaluate.evaluate,
    completion.completion,
):
    app.command(name=command.__name__.rstrip("_"), context_settings={"help_option_names": ["-h", "--help"]})(
        command
    )
app.add_typer(cache.app, name="cache")
run_experiments_app.command(name="run-experiments")(run.run)
