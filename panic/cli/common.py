r"""What all commands share: where the store is, how much is said, how errors and all texts are told safely.

A command is a function whose first parameter is `shared: Shared`; `command` gives it the options --store,
-v and -q and turns exceptions into messages and exit codes (1 failed, 2 usage, 130 interrupted).

Prompts, captions, names and messages come from configs, models and stores of other people, and a terminal
obeys what is written into them: ESC sequences rename windows and hide lines, a carriage return overwrites
what stands before it, U+202E turns what follows around. `visible` shows such characters as Python writes
them. Everything that people read passes it: consoles (`render.console`), single lines and errors (`say`),
log records (`logs.SafeFormatter`). JSON and YAML stay exact, since the same characters become escapes of
their own there; Parquet keeps the characters, and so does CSV, except on a terminal (`render.print_csv`).

What was given and has no effect in a call is named once on stderr (`tell_options`, `tell_fields`,
`tell_variables`). Consent to what might have happened (`delete -y`, `--force` where nothing would be
overwritten) is none of these. Consent to what cannot happen is one: `run -y` without --repin, `--trust` for a
config that names nothing outside its store, which whoever gives it needs to know.

    >>> visible("red\x1b[2Jcircle\u202e")
    'red\\x1b[2Jcircle\\u202e'
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import sys
import traceback
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from panic.arms import models_of
from panic.errors import Interrupted, PanicError, UsageError, nearest

if TYPE_CHECKING:
    from panic.config.settings import Resolved
    from panic.engine.plan import CheckedConfig
    from panic.store import Store

INTERRUPTED = 130
PREFIX = "PANIC_"
VARIABLES = (
    *("STORE", "MODELS", "PROJECT", "DEVICE", "MEMORY_FRACTION", "HEADROOM", "LOG_LEVEL"),
    *("DIAGRAM_WORKERS", "ENFORCE_CLEAN"),
)
SETTINGS_FILE = "panic.toml"
OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, invisible formats, halves of characters and separators of lines."""
HARMLESS = frozenset("\n\t\u200c\u200d")
"""What is kept of them: lines, tabs, and the joiners that scripts and emoji are written with."""

StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="PATH", help="Folder or name of the store (or PANIC_STORE).")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more; on errors of panic itself, the traceback.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")]
ProjectOption = Annotated[
    str | None, typer.Option("--project", metavar="NAME", help="Only what is in this project.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", "--plan", help="Print the plan, do nothing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The options that every command takes."""

    store: Path | None = None
    verbose: bool = False
    quiet: bool = False

    @property
    def stderr_level(self) -> int:
        """The least level of log messages that reach stderr."""
        return logging.ERROR if self.quiet else logging.INFO if self.verbose else logging.WARNING

    def store_path(self, of_config: Path | None = None) -> Path:
        """The folder of the store: --store, PANIC_STORE, what the config says, settings, ./panic-store."""
        from panic.store import DEFAULT_STORE

        named = self.store or os.environ.get("PANIC_STORE") or None
        if (settings := read_settings()) is not None:
            return settings.store_path(named, of_config, DEFAULT_STORE)
        return Path(named) if named else of_config or DEFAULT_STORE

    def store_for_log(self) -> Path | None:
        """Return where a command that needs no store has its log: in the store that is named or lies here."""
        path = self.store_path()
        is_named = self.store is not None or bool(os.environ.get("PANIC_STORE"))
        lies_here = (path / "store.sqlite").exists() and os.access(path, os.W_OK)
        return path if is_named or lies_here else None

    def open_store(self, *, is_whole: bool = True) -> Store:
        """The store, for reading; of an older schema a copy, which is said on stderr.

        is_whole: refuse a store that lacks tables.
        """
        from panic.store import Store

        return Store(self.store_path(), copy_older=True, is_whole=is_whole)


def user_settings() -> Path:
    """The file of settings that a user has for all projects."""
    if sys.platform == "darwin":
        folder = Path("~/Library/Application Support").expanduser()
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return folder / "panic" / SETTINGS_FILE


def settings_files() -> list[Path]:
    """The files of settings that there are: the nearest one of the project, then the user's.

    A file that somebody else laid where everybody may write, such as /tmp, is not asked.
    """
    try:
        here = Path.cwd()
    except OSError:  # it has been deleted
        here = Path("/")
    project = next((file for folder in (here, *here.parents) if (file := _settings_of(folder))), None)
    user = user_settings()
    found = [project] if project and _is_trusted(project) else []
    return found + ([user] if user != project and os.access(user, os.R_OK) else [])


def _settings_of(folder: Path) -> Path | None:
    """The file of a folder that says something of panic."""
    own, shared = folder / SETTINGS_FILE, folder / "pyproject.toml"
    if own.is_file():
        return own
    try:
        return shared if shared.is_file() and b"[tool.panic" in shared.read_bytes() else None
    except OSError:
        return None


def _is_trusted(file: Path) -> bool:
    """Whether nobody but its owner could have put a file where it lies, or its owner is this user or root."""
    if file.stat().st_uid in (0, os.getuid()) or not file.parent.stat().st_mode & 0o002:
        return True
    say(f"{file} is not asked: everybody may write in its folder, and it is not yours.", err=True)
    return False


def read_settings() -> Resolved | None:
    """Return what files of settings and the environment say; None where nothing but PANIC_STORE does.

    Raises: ConfigError.
    """
    files = settings_files()
    if not files and not any(os.environ.get(f"{PREFIX}{name}") for name in VARIABLES[2:]):
        return None
    from panic.config.settings import resolve

    return resolve(files, os.environ, user_settings())


def check_given(
    path: Path, overrides: Sequence[str], *, ask: bool, store: Callable[[Path | None], Path]
) -> CheckedConfig:
    """Read and check a config's file as `check_config` does, under what the environment and settings say.

    Every command that is given a config reads it here, so that all of them perform or plan the same.
    """
    from panic.engine.plan import check_config

    settings = read_settings()
    if settings is None:
        return check_config(path, overrides, ask=ask, store=store)
    checked = check_config(path, [*settings.over_configs(), *overrides], ask=ask, store=store)
    return replace(checked, config=settings.below(checked.config))


def complete_kind(incomplete: str) -> list[str]:
    """The kinds of null models, for the shell."""
    from panic.analysis.nulls import kinds

    return [name for name in kinds() if name.startswith(incomplete)]


def complete_experiment(context: typer.Context, incomplete: str) -> list[str]:
    """The names of experiments, for the shell; ids where no name begins so."""
    return _completed(context, incomplete, trainings=False)


def _completed(context: typer.Context, incomplete: str, *, trainings: bool) -> list[str]:
    from panic.store import Store, reading
    from panic.store.trainings import training_names

    shared, named = context.obj or Shared(), []
    try:
        with Store(Shared(store=context.params.get("store") or shared.store).store_path()) as opened:
            named = training_names(opened) if trainings else []
            named += [(row.name, row.uid) for row in reading.experiments(opened)]
    except PanicError:
        pass
    names = ["latest", *dict.fromkeys(name for name, _ in reversed(named))]
    begun = [name for name in names if name.startswith(incomplete) and name.isprintable()]
    return begun or [uid for _, uid in named if uid.startswith(incomplete)]


def complete_either(context: typer.Context, incomplete: str) -> list[str]:
    """The names of experiments and trainings, for the shell; ids where no name begins so."""
    return _completed(context, incomplete, trainings=True)


ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT", help="Name, beginning of an id, or latest.", autocompletion=complete_experiment
    ),
]

EitherArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT|TRAINING",
        help="Name, beginning of an id, or latest experiment; also the folder of a training.",
        autocompletion=complete_either,
    ),
]

OptionalExperiment = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Name, beginning of an id, or latest; by default the whole store.",
        autocompletion=complete_experiment,
        show_default=False,
    ),
]


WITHOUT_STORE = ("models", "completion", "snapshot", "merge", "slurm", "stores", "help_")
"""Commands that ask no store, or whose arguments name it."""


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Turn a function of (shared, ...) into a typer command with the shared options."""
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "shared"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        inspect.Parameter("store", keyword, default=None, annotation=StoreOption),
        inspect.Parameter("verbose", keyword, default=False, annotation=VerboseOption),
        inspect.Parameter("quiet", keyword, default=False, annotation=QuietOption),
    ]

    @functools.wraps(function)
    def call(
        *, context: typer.Context, store: Path | None, verbose: bool, quiet: bool, **arguments: Any
    ) -> None:
        outer = context.obj or Shared()
        shared = Shared(
            store=store or outer.store, verbose=verbose or outer.verbose, quiet=quiet or outer.quiet
        )
        if shared.store is not None and function.__name__ in WITHOUT_STORE:
            say("--store: without effect for this command.", err=True)
        code = guarded(lambda: _with_settings(function, shared, arguments), verbose=shared.verbose)
        if code:
            raise typer.Exit(code)

    parameters = [parameter.replace(kind=keyword) for parameter in own] + added
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _with_settings(function: Callable[..., None], shared: Shared, arguments: Mapping[str, Any]) -> None:
    """Call a command; the folder of models of a file of settings is what worker processes see, too."""
    is_told = os.environ.get("PANIC_MODELS") or function.__name__ == "config"  # which says where it stands
    if not is_told and (settings := read_settings()) and settings.models():
        os.environ["PANIC_MODELS"] = str(settings.models())
    function(shared, **arguments)


def read_devices(text: str) -> str | list[str]:
    """The devices that an option names, with commas between several. Raises UsageError as a config would."""
    from pydantic_core import PydanticCustomError

    from panic.config.fields import DEVICES, check_device
    from panic.store.codec import writable

    try:
        found: str | list[str] = check_device(writable(text))
    except PydanticCustomError as error:
        context = error.context or {}
        hint = context.get("hint") or f"Allowed: {', '.join(context.get('allowed', DEVICES))}."
        raise UsageError(f"--device {error.message()}", hint=hint) from None
    return found


def guarded(action: Callable[[], None], *, verbose: bool) -> int:
    """Perform an action and return its exit code; errors go to stderr, without a traceback."""
    try:
        action()
        sys.stdout.flush()
    except Interrupted as stop:
        say(str(stop), err=True)
        return stop.exit_code
    except PanicError as error:
        if verbose and error.__cause__ is not None:
            say_traceback(error)
        else:
            say_error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        say_error("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        drop(sys.stdout)  # the reader (`| head`) has seen enough
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        return _unexpected(error, verbose=verbose)
    return 0


def drop(stream: TextIO) -> None:
    """Forget what nobody can take: the interpreter flushes its streams once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _unexpected(error: Exception, *, verbose: bool) -> int:
    """Tell about a trouble of the machine (a full disk, a missing permission) or a mistake of ours."""
    notes = getattr(error, "__notes__", [])
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        say_error(f"{error.filename}: {what}" if error.filename else what)
        try:
            sys.stdout.flush()
        except OSError:
            drop(sys.stdout)
    elif isinstance(error, MemoryError) or "can't start new thread" in str(error):
        say_error(f"There is no memory left ({str(error) or 'an allocation failed'}).")
        notes = notes or ["What is stored is kept. Smaller batches and fewer workers need less memory."]
    else:
        say_error(f"{type(error).__name__}: {error}")
        notes = notes or ["-v shows the traceback."]
    if verbose:
        say_traceback(error)
    else:
        say_error("", "\n".join(notes))
    return 1


def say_error(message: str, hint: str = "") -> None:
    """Print an error and what to do about it, as plain text: nothing in it is markup."""
    if message:
        _echo(typer.style("Error: ", fg="red", bold=True), nl=False, err=True)
        say(message, err=True)
    if hint:
        _echo(typer.style(visible(hint), dim=True), err=True)


def _python_escape(character: str) -> str:
    """Return a character as Python and YAML write it within double quotes."""
    return character.encode("unicode_escape").decode()


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def visible(text: str, escape: Callable[[str], str] = _python_escape) -> str:
    """Return a text in which every character that a terminal might obey is written as an escape."""
    if text.isprintable():
        return text
    return "".join(escape(c) if unicodedata.category(c) in OBEYED and c not in HARMLESS else c for c in text)


def visible_json(text: str) -> str:
    """Return JSON in which the same characters are escaped as JSON does it: it still means the same."""
    escaped = visible(text, _json_escape)
    return escaped.replace("\x7f", "\\u007f")  # json leaves DEL as it is


def say(text: str, *, err: bool = False) -> None:
    """Print a text that may hold anything as a line on stdout or stderr."""
    _echo(visible(text), err=err)


def say_traceback(error: BaseException) -> None:
    """Print an exception with its traceback on stderr."""
    _echo(visible("".join(traceback.format_exception(error))), nl=False, err=True)


def _echo(text: str, *, nl: bool = True, err: bool) -> None:
    """Print a text; work goes on where nobody hears of it, but not where nobody takes its result.

    Raises: OSError for stdout, BrokenPipeError among them.
    """
    try:
        typer.echo(text, nl=nl, err=err)
    except OSError:  # the reader, the terminal or the disk has gone
        if not err:
            raise
        drop(sys.stderr)


def given_options(values: Mapping[str, object]) -> list[str]:
    """The options that were given: their values are true, or an empty text."""
    return [name for name, value in values.items() if value or value == ""]


def tell_options(values: Mapping[str, object], because: str) -> None:
    """Name the options that were given and have no effect, with the reason."""
    if names := given_options(values):
        say(f"{', '.join(names)}: without effect {because}.", err=True)


def tell_variables() -> None:
    """Name variables of the environment that look like one of ours, and what they may have meant."""
    for name in sorted(os.environ):
        own = name.removeprefix(PREFIX)
        if own not in (name, *VARIABLES) and (near := nearest(own, VARIABLES)):
            say(f"{name}: without effect; did you mean {PREFIX}{near[0]}?", err=True)


def tell_fields(checked: CheckedConfig) -> None:
    """Name the fields of a config that nothing in it uses."""
    config = checked.config
    used = [*config.embeddings, *(name for network in config.networks for name in network)]
    used += [name for arm in config.interventions.values() for name in models_of((), arm)]
    draws = any(checked.models.spec(name).modality_out == "image" for name in used)
    for name in used:  # grows: the base of a variant in use is in use
        base = config.models[name].base if name in config.models else name
        if base not in used:
            used.append(base)
    unused = [name for name in config.models if name not in used]
    notify, without = config.notify, "is without effect, for"
    found = {
        f"no network and no embedding uses {', '.join(unused)} of `models`": bool(unused),
        f"`root_seed` {without} no run has fresh noise (seed -1)": (
            "root_seed" in config.model_fields_set and -1 not in config.seeds
        ),
        f"`diagram_workers` {without} no diagrams are asked for": (
            config.diagram_workers is not None and not config.diagrams
        ),
        f"`reject_constant_images` {without} no model draws": config.reject_constant_images and not draws,
        f"`stall_minutes` of `notify` {without} `on` does not have stall": (
            notify is not None and "stall_minutes" in notify.model_fields_set and "stall" not in notify.on
        ),
    }
    for sentence in (sentence for sentence, is_so in found.items() if is_so):
        say(f"{config.name}: {sentence}.", err=True)
