"""The tree of commands, and the command that prints what shells need to know of it.

A command's module is imported when the command is called or asked for its own help, so that the number of
commands costs nothing at the start: `panic --help` says of each what stands here.

panic --help; run-experiments --help; source <(panic completion bash)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from panic import __version__
from panic.cli.common import QuietOption, Shared, StoreOption, VerboseOption, command
from panic.cli.completion import Shell, scripts

EXPLAIN = (
    "Feedback loops of generative models: perform experiments, see where they stand, look at the results.\n\n"
    "EXPERIMENT is a name, the beginning of an id, or latest; TRAINING a name, the folder of its model, "
    "or the beginning of an id. The store is the folder (or name) given by "
    "--store, else by PANIC_STORE, else by the config, else by panic.toml, else ./panic-store."
)
COMMANDS = {
    "run": ("run:run", "Perform experiments, one after another."),
    "resume": (
        "run:resume",
        "Go on with an experiment: all that it was ever asked for, in the store that it is found in.",
    ),
    "pin": (
        "shards:pin",
        "Decide how the models of a config are called, for all of its runs, so that shards call them alike.",
    ),
    "slurm": (
        "slurm:slurm",
        "Perform experiments, in shards, or trainings as jobs of Slurm, or see where such jobs stand.",
    ),
    "again": (
        "again:again",
        "Perform a new experiment, or training, made from the stored config of another.",
    ),
    "extend": (
        "again:extend",
        "Make an experiment larger (longer runs, more prompts, repeats, networks), or a training longer.",
    ),
    "rerun": (
        "again:rerun",
        "Compute the failed runs of an experiment again, or go on with a training that has failed.",
    ),
    "optimize": (
        "optimize:optimize",
        "Look for parameters of a config for which a metric is largest or least.",
    ),
    "stop": (
        "stop:stop",
        "Ask the process that performs an experiment, or a training, to stop; it can go on later.",
    ),
    "end": ("stop:end", "Declare an experiment, or a training, complete at its present length."),
    "embed": (
        "more:embed",
        "Embed the outputs of an experiment, or files, under more models; no generative model is loaded.",
    ),
    "diagrams": (
        "more:diagrams",
        "Compute diagrams with more settings, and more of what is taken of them; no model is loaded.",
    ),
    "nulls": (
        "nulls:nulls",
        "Write null models of an experiment's runs beside it, as NAME/null-KIND, with the same diagrams.",
    ),
    "returns": (
        "returns:returns",
        "List the outputs that came up in several runs or came back within one, and where runs meet.",
    ),
    "status": (
        "status:status",
        "Show where an experiment, or a training, stands; works while it runs elsewhere.",
    ),
    "list": (
        "experiments:list_",
        "List the experiments of the store, or its runs or outputs, with a filter, an order and columns.",
    ),
    "fields": (
        "finding:fields",
        "List the fields that --where, --sort and --columns know, with their types and an example.",
    ),
    "search": (
        "search:search",
        "Search the texts of runs, prompts included: where they came up, in which runs and steps.",
    ),
    "show": (
        "experiments:show",
        "Show an experiment: its settings, models, sessions and runs; or a training, by name, id or folder.",
    ),
    "requirements": (
        "origin:requirements",
        "Print what to install to repeat an experiment, or a training: the versions of its last session.",
    ),
    "tag": ("mark:tag", "Give an experiment, a run, an output or a training tags."),
    "untag": ("mark:untag", "Take tags away."),
    "label": ("mark:label", "Give an experiment, a run, an output or a training a label: one line."),
    "comment": ("mark:comment", "Say something about a target of tags, or read what was said."),
    "project": (
        "project:project",
        "Move an experiment, or a training, to a project, or say which one it is in.",
    ),
    "trainings": (
        "trainings:trainings",
        "List trainings: how far each is, what was said of it, and which experiments used its model.",
    ),
    "stuck": (
        "stuck:stuck",
        "List the runs that are stuck: since which model call, with which period.",
    ),
    "models": (
        "models:models",
        "List all known models: modality, parameters, licence, memory, whether they are here.",
    ),
    "devices": (
        "devices:devices",
        "List the devices of this machine: memory, what is free of it, and which processes hold the rest.",
    ),
    "images": (
        "images:images",
        "Save a grid of pictures: of one run along its steps, of one step over all runs, or of runs x steps.",
    ),
    "report": (
        "report:report",
        "Write a report of an experiment: pictures, stuck runs, time per model, drift, diagrams.",
    ),
    "view": (
        "view:view",
        "Show stores in a browser: all runs side by side, live while an experiment is performed.",
    ),
    "compare": (
        "compare:compare",
        "Tell what experiments differ in: config, models, code, versions, hardware, and summary metrics.",
    ),
    "best": (
        "best:best",
        "List the experiments by the mean of a metric over their runs; or runs, or trainings, by a number.",
    ),
    "figure": (
        "ask:figure",
        "Write the figure of one question as a file; several experiments stand side by side.",
    ),
    "table": (
        "ask:table",
        "Write what one question answers as a table; rows of several experiments stand below each other.",
    ),
    "video": ("images:video", "Make a mosaic video: one tile per run, all runs side by side in time."),
    "import": (
        "import_:import_",
        "Import trajectories: rows with run, step, text or image, maybe prompt, seed, repeat, "
        "model, network.",
    ),
    "export": (
        "export:export",
        "Write the whole store as Parquet files, one per table and one of vectors per embedding model.",
    ),
    "dump": (
        "export:dump",
        "Print the canonical content as JSON lines, in a fixed order: equal results give equal dumps.",
    ),
    "snapshot": (
        "stores:snapshot",
        "Copy a store as it is now, also while it is written, and also onto a network file system.",
    ),
    "merge": (
        "stores:merge",
        "Bring the content of stores into one, each thing once, in any order and as often as you like.",
    ),
    "delete": (
        "delete:delete",
        "Delete an experiment, some of its runs, or the experiments that a filter finds; they can come back.",
    ),
    "undelete": ("delete:undelete", "Let what was deleted come back, or list what can."),
    "purge": ("delete:purge", "Remove what was deleted for good, and give its space back to the disk."),
    "check": ("check:check", "Verify the store: the files, every reference, every step, every digest."),
    "verify": (
        "verify:verify",
        "Compute random results again and compare them with the stored ones, to the bit.",
    ),
    "train": ("train:train", "Train a model, or go on where its training was stopped."),
    "evaluate": (
        "evaluate:evaluate",
        "Judge a model: FID, KID, Inception score, precision and recall, or the oracle of the pocket world.",
    ),
    "config": ("settings:config", "Show every setting: its value, and where it was said."),
    "stores": ("settings:stores", "List the named stores of the settings."),
    "help": ("topics:help_", "Explain a topic; without one, list them."),
    "completion": ("app:completion", "Print the completion script of a shell."),
    "cache": ("cache:app", "What the model cache did on devices with memory of their own."),
}
"""Where each command is, as module:name below panic.cli, and the sentence of its help, in its order."""

SETTINGS: dict[str, Any] = {
    "rich_markup_mode": None,  # plain help takes 0.1 s, rich help 0.2 s
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class Commands(Mapping[str, Any]):
    """The commands by name, each built when it is looked up."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = _built(name, COMMANDS[name][0])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _built(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f"panic.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, **SETTINGS)
    alone.command(name=name, cls=QuickCommand)(found)
    return typer.main.get_command(alone)


class QuickCommand(TyperCommand):
    """A command whose options are converted only where they need it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._quick: dict[int, Any] = {}

    def get_params(self, ctx: Any) -> list[Any]:
        """The options and arguments, that of the help included."""
        return quickened(super().get_params(ctx), self._quick)


class CommandTree(TyperGroup):
    """A group that knows what its commands are for without building them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": Commands()})
        self._quick: dict[int, Any] = {}

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, that of the help included."""
        return quickened(super().get_params(ctx), self._quick)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names with their sentences."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


class Unconverted:
    """What typer asks to convert a value: texts, lists of texts and what was not given stay as they are.

    Everything else, mistakes above all, goes typer's own way, for which it imports pydantic: 0.1 s.
    """

    def __init__(self, own: Callable[[], Any]) -> None:
        self.own = own

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value that a command is called with."""
        wanted = param.type_descriptor.annotation
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if wanted is str and isinstance(value, str):
            return value
        if wanted is Path and isinstance(value, str) and param.name == "store":
            return Path(value)
        if wanted == list[str] and isinstance(value, list | tuple):
            return list(value)
        return self.own().coerce(value, param=param, ctx=ctx)


class QuickOption(TyperOption):
    """An option that is converted only where it needs it."""

    def get_runtime_param(self) -> Any:
        """What converts the value. A version of typer without this method does not ask for it."""
        return Unconverted(super().get_runtime_param)


class QuickArgument(TyperArgument):
    """An argument that is converted only where it needs it."""

    def get_runtime_param(self) -> Any:
        """What converts the value. A version of typer without this method does not ask for it."""
        return Unconverted(super().get_runtime_param)


def quickened(parameters: Sequence[Any], known: dict[int, Any]) -> list[Any]:
    """The parameters of a command, each as its quick kind; known: those made before, which stay the same."""
    kinds: dict[type, type] = {TyperOption: QuickOption, TyperArgument: QuickArgument}
    for one in parameters:
        if id(one) not in known and type(one) in kinds:
            quick: Any = object.__new__(kinds[type(one)])
            known[id(one)] = quick
            vars(quick).update(vars(one))
    return [known.get(id(one), one) for one in parameters]


app = typer.Typer(help=EXPLAIN, cls=CommandTree, no_args_is_help=True, **SETTINGS)


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
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish or nu (nushell).")],
) -> None:
    """Print the completion script of a shell.

    \b
    bash      source <(panic completion bash)     in ~/.bashrc
    zsh       source <(panic completion zsh)      in ~/.zshrc, after compinit
    fish      panic completion fish | source      in ~/.config/fish/config.fish
    nu        save it as a file and `source` that in config.nu
    """
    programs = {"panic": app, "run-experiments": run_experiments_app()}
    trees = {name: typer.main.get_command(program) for name, program in programs.items()}
    for text in scripts(shell, trees):
        typer.echo(text)


def run_experiments_app() -> typer.Typer:
    """The program `run-experiments`, which is `panic run`."""
    from panic.cli.run import run

    program = typer.Typer(**SETTINGS)
    program.command(name="run-experiments")(run)
    return program
