"""`panic requirements`; where results come from, for `panic show`; what `--enforce-clean` refuses.

panic requirements demo > requirements.txt
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import EitherArgument, Shared, command, read_settings, visible
from panic.cli.render import console, print_table
from panic.errors import UsageError

if TYPE_CHECKING:
    from panic.analysis.origin import Told
    from panic.store import Store

SHOWN_CHANGES = 10
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
CleanOption = Annotated[
    bool | None,
    typer.Option(
        "--enforce-clean/--allow-dirty",
        help="Refuse what no commit has: changes in the repository of the config.",
        show_default=False,
    ),
]


def enforce_clean(
    asked: bool | None, files: Sequence[Path], apart: Sequence[Path], hidden: Collection[str] = ()
) -> None:
    """Refuse configs of a repository with changes, where that is asked for, here or by the settings.

    apart: folders of results, which need no commit. hidden: variables that git does not get, as they hold
    secrets of the configs. Raises UsageError.
    """
    if asked is None and (settings := read_settings()) is not None:
        said = settings.values.get("enforce_clean")
        asked = bool(said and said.value)
    if not asked:
        return
    from panic.store.provenance import uncommitted

    for file in files:
        changes = uncommitted(file, apart, hidden)
        if changes is None:
            raise UsageError(
                f"{file} is in no git repository with a commit, and --enforce-clean wants one.",
                hint="git init, git add and git commit make one; without the option nothing is asked for.",
            )
        if changes:
            rest = len(changes) - SHOWN_CHANGES
            lines = [*changes[:SHOWN_CHANGES], *([f"and {rest:,} more"] if rest > 0 else [])]
            raise UsageError(
                "\n  ".join([f"The repository of {file} has what no commit has:", *lines]),
                hint="git commit -a (git add for new files), or leave out --enforce-clean.",
            )


def print_origin(sessions: Sequence[Told]) -> None:
    """Print where the results of sessions come from, and their models."""
    from panic.analysis.origin import SHORT, facts, models

    if told := facts(sessions):
        told.pop("command", None)  # stands with the sessions
        print_table(["", "what"], list(told.items()), "Provenance")
    rows = [
        (
            name,
            one.get("source") or one.get("adapter"),
            str(one["revision"])[:SHORT] if one.get("revision") else None,
            str(one["digest"])[:SHORT] if one.get("digest") else None,
            str(one["training"])[:SHORT] if one.get("training") else None,
        )
        for name, one in models(sessions).items()
    ]
    if rows:
        print_table(["model", "source", "revision", "digest", "training"], rows, "Origin of the models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """An experiment that used the model of a training, by which name, and where the model lay."""

    experiment: str
    model: str
    folder: str


def uses_of_trainings(store: Store) -> dict[str, list[Use]]:
    """The experiments that used models of trainings, by the training's uid."""
    from panic.analysis.origin import models
    from panic.store import reading
    from panic.store.trainings import naming_trainings

    found: dict[str, list[Use]] = {}
    for row in naming_trainings(store):
        for name, one in models(reading.sessions(store, row.id)).items():
            if one.get("training"):
                use = Use(experiment=row.name, model=name, folder=str(one.get("folder") or ""))
                found.setdefault(str(one["training"]), []).append(use)
    return found


@command
def requirements(
    shared: Shared,
    experiment: EitherArgument = "latest",
    everything: Annotated[
        bool, typer.Option("--all", help="All packages that were installed, not only what panic needs.")
    ] = False,
) -> None:
    """Print what to install to repeat an experiment, or a training: the versions of its last session.

    As a file of requirements, which pip and uv take; what no index has, and what is not known, stands in
    comments.
    """
    with shared.open_store() as store:
        name, sessions = _sessions(store, experiment)
    for line in requirement_lines(name, sessions, everything):
        console().print(visible(line).replace("\n", "\\n"), soft_wrap=True)


def _sessions(store: Store, selector: str) -> tuple[str, Sequence[Told]]:
    """What an experiment or a training is called, and all of its sessions that the store knows."""
    from panic.store import reading
    from panic.store.trainings import named_training

    if training := named_training(store, selector):
        return training.name, [training]
    row = reading.experiment(store, selector)
    return row.name, reading.sessions(store, row.id)


def requirement_lines(name: str, sessions: Sequence[Told], everything: bool) -> Iterator[str]:
    """The lines of a file of requirements. Raises UsageError where nothing was recorded."""
    from panic.analysis.origin import last_provenance, mapping, models

    known = last_provenance(sessions)
    packages = known.get("packages")
    if not isinstance(packages, Mapping) or not packages:
        raise UsageError(f"No session of {name} has recorded its packages.", hint="An import has none.")
    yield f"# To repeat {name}, as its last session had it."
    yield f"# Python {str(known.get('python', 'of an unknown version')).split(' ')[0]}"
    yield from _panic_lines(known)
    chosen = set(packages) if everything else _needed(packages)
    for package in sorted(chosen, key=str.lower):
        version = str(packages[package])
        if package == "panic":
            continue
        if not (PACKAGE.fullmatch(package) and VERSION.fullmatch(version)):  # no store is trusted
            yield f"# {package} {version} is no name and version of a package"
            continue
        if "+" in version:
            yield f"# {package} {version} is of an index of its own; the package's site says of which"
        yield f"{package}=={version}"
    yield from _differences(sessions, chosen)
    if not everything:
        yield f"# {len(packages) - len(chosen):,} packages that panic does not need were there, too: --all"
    for model, one in models(sessions).items():
        if one.get("revision"):
            yield f"# model {model}: hf download {one.get('source')} --revision {one['revision']}"
        elif one.get("folder"):
            yield f"# model {model}: the folder {one['folder']}, files of digest {one.get('digest')}"
        elif "digest" not in one and ":" in str(one.get("source", "")):
            yield f"# model {model}: {one.get('source')}, of which no version is known"
    if data := mapping(known.get("data")):
        yield f"# data: {data.get('from')}, of digest {data.get('digest')}"


def _panic_lines(known: Mapping[str, Any]) -> Iterator[str]:
    from panic.analysis.origin import mapping

    git = mapping(known.get("git"))
    version = mapping(known.get("packages")).get("panic")
    said = [f"version {version}"] if version else []
    said += [f"commit {git['commit']}"] if git.get("commit") else []
    said += [f"with a patch, sha256 {git.get('patch_sha256')}"] if git.get("dirty") else []
    digest = known.get("source_digest")
    yield f"# panic: {', '.join(said) or 'of an unknown version'}; digest of its source {digest or 'unknown'}"


def _needed(packages: Mapping[str, Any]) -> set[str]:
    """Those of the recorded packages that panic needs, as the packages here say what they need."""
    from importlib import metadata

    by_key = {re.sub(r"[-_.]+", "-", name).lower(): name for name in packages}
    found: set[str] = set()
    waiting = ["panic", *DIRECT]
    while waiting:
        key = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if key in found:
            continue
        found.add(key)
        try:
            needed = metadata.requires(key) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [re.split(r"[\s;<>=!~\[(]", one, maxsplit=1)[0] for one in needed if "extra ==" not in one]
    return {by_key[key] for key in found if key in by_key}


DIRECT = (
    *("accelerate", "aiohttp", "altair", "apsw", "diffusers", "giotto-ph", "gudhi", "huggingface-hub"),
    *(
        "isal",
        "jinja2",
        "lark",
        "llvmlite",
        "numba",
        "numpy",
        "peft",
        "pillow",
        "polars",
        "psutil",
        "pydantic",
    ),
    *("pyyaml", "regex", "rich", "safetensors", "scikit-learn", "scipy", "statsmodels", "threadpoolctl"),
    *("tokenizers", "torch", "transformers", "truststore", "typer", "vl-convert-python"),
)
"""What panic needs itself, where it runs from a checkout and no package says so; a test compares them."""


def _differences(sessions: Sequence[Told], chosen: set[str]) -> Iterator[str]:
    """Packages that earlier sessions had in other versions."""
    versions: dict[str, dict[str, None]] = {}
    for session in sessions:
        packages = session.provenance.get("packages")
        for package in chosen & set(packages if isinstance(packages, Mapping) else ()):
            versions.setdefault(package, {})[str(session.provenance["packages"][package])] = None
    for package, seen in sorted(versions.items()):
        if len(seen) > 1:
            yield f"# earlier sessions had {package} {', '.join(list(seen)[:-1])}"
