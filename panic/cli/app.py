"""The tree of commands, and the command that prints what shells need to know of it.

panic --help; run-experiments --help; source <(panic completion bash)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panic import __version__
from panic.cli import (
    ask,
    cache,
    check,
    devices,
    evaluate,
    experiments,
    export,
    images,
    import_,
    models,
    more,
    nulls,
    report,
    returns,
    run,
    status,
    train,
    verify,
)
from panic.cli.common import QuietOption, Shared, StoreOption, VerboseOption, command
from panic.cli.completion import Shell, scripts

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


@command
def completion(
    shared: Shared,
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish or nushell.")],
) -> None:
    """Print the completion script of a shell.

    \b
    bash      source <(panic completion bash)     in ~/.bashrc
    zsh       source <(panic completion zsh)      in ~/.zshrc, after compinit
    fish      panic completion fish | source      in ~/.config/fish/config.fish
    nushell   save it as a file and `source` that in config.nu
    """
    programs = {"panic": app, "run-experiments": run_experiments_app}
    trees = {name: typer.main.get_command(program) for name, program in programs.items()}
    for text in scripts(shell, trees):
        typer.echo(text)


for function in (
    run.run,
    run.resume,
    more.embed,
    more.diagrams,
    nulls.nulls,
    returns.returns,
    status.status,
    experiments.list_,
    experiments.show,
    experiments.stuck,
    models.models,
    devices.devices,
    images.images,
    report.report,
    ask.figure,
    ask.table,
    images.video,
    import_.import_,
    export.export,
    export.dump,
    experiments.delete,
    check.check,
    verify.verify,
    train.train,
    evaluate.evaluate,
    completion,
):
    app.command(name=function.__name__.rstrip("_"), context_settings={"help_option_names": ["-h", "--help"]})(
        function
    )
app.add_typer(cache.app, name="cache")
run_experiments_app.command(name="run-experiments")(run.run)
