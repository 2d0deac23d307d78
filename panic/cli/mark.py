"""`panic tag`, `untag`, `label`, `comment`: what people say of experiments, runs, outputs and trainings.

panic tag demo baseline keep; panic comment demo "looks odd" --run 3; panic label checkpoints/mine "first try"
panic tag odd --of training --where "val_loss > 1"
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from panic.cli.common import Shared, command, complete_either
from panic.cli.finding import RunOption, RunsWhereOption, find, find_run, known_fields, runs_where
from panic.cli.render import console, moment
from panic.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from panic.store import Store
    from panic.store.annotations import Marks, Target
    from panic.store.records import AnnotationRow, RunRow
    from panic.store.signing import Author
    from panic.store.trainings import TrainingRow

SHOWN_COMMENTS = 20
Kind = Literal["experiment", "run", "output", "training"]


class Selected(NamedTuple):
    """What a remark is on, as it was given: a target, one of its runs, or a filter.

    of: the filter finds targets of this kind in the whole store, and none is named.
    """

    target: str
    run: str | None
    where: str | None
    of: Kind | None = None


TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="An experiment, the beginning of an output's digest, or a training: its name, id, or folder.",
        autocompletion=complete_either,
    ),
]
TagsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TAG", help="Words to find it by.", show_default=False)
]
MarkOfOption = Annotated[
    Kind | None,
    typer.Option("--of", help="Mark all of this kind that --where finds in the store, instead of a TARGET."),
]
UnsignedOption = Annotated[
    bool, typer.Option("--unsigned", help="Without a signature, also where git signs with an SSH key.")
]


@command
def tag(
    shared: Shared,
    target: TargetArgument,
    tags: TagsArgument = None,
    run: RunOption = None,
    where: RunsWhereOption = None,
    of: MarkOfOption = None,
    unsigned: UnsignedOption = False,
) -> None:
    """Give an experiment, a run, an output or a training tags."""
    from panic.store.annotations import add_tags, check_tag

    selected, words = _selected(Selected(target, run, where, of), tags or [])
    for one in _needed(words, "A tag"):
        check_tag(one)
    with marking(shared, selected, unsigned=unsigned) as (store, targets, author):
        number = add_tags(store, targets, words, author)
        if not shared.quiet:
            told = _told(store, targets)
            console().print(told if number else f"{told}, as before")


@command
def untag(
    shared: Shared,
    target: TargetArgument,
    tags: TagsArgument = None,
    run: RunOption = None,
    where: RunsWhereOption = None,
    of: MarkOfOption = None,
    unsigned: UnsignedOption = False,
) -> None:
    """Take tags away. That they were there is kept, with who took them away and when."""
    from panic.store.annotations import remove_tags

    selected, words = _selected(Selected(target, run, where, of), tags or [])
    _needed(words, "A tag")
    with marking(shared, selected, unsigned=unsigned) as (store, targets, author):
        remove_tags(store, targets, words, author)
        if not shared.quiet:
            console().print(_told(store, targets))


@command
def label(
    shared: Shared,
    target: TargetArgument,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT", help='One line in place of the label; "" for none.', show_default=False
        ),
    ] = None,
    run: RunOption = None,
    where: RunsWhereOption = None,
    of: MarkOfOption = None,
    unsigned: UnsignedOption = False,
) -> None:
    """Give an experiment, a run, an output or a training a label: one line."""
    selected, words = _selected(Selected(target, run, where, of), [] if text is None else [text])
    [said] = _needed(words, "A label", most=1)
    _say(shared, selected, "label", said, unsigned=unsigned)


@command
def comment(
    shared: Shared,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="As that of `panic tag`; not with --of.",
            autocompletion=complete_either,
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Without it, print what was said so far.")
    ] = None,
    run: RunOption = None,
    where: RunsWhereOption = None,
    of: MarkOfOption = None,
    unsigned: UnsignedOption = False,
) -> None:
    """Say something about a target of tags, or read what was said."""
    from panic.store.annotations import list_annotations

    given = [one for one in (target, text) if one is not None]
    if of is None:
        _needed(given, "A target")
    selected, words = _selected(Selected(given[0] if given else "", run, where, of), given[1:])
    if of is not None and not given:
        words = []
    if words:
        [said_now] = _needed(words, "A comment", most=1)
        return _say(shared, selected, "comment", said_now, unsigned=unsigned)
    with shared.open_store() as store:
        found = _find(store, selected)
        said = {one.name: list_annotations(store, one.kind, one.uid) for one in found}
    for name, rows in said.items():
        lines = [f"{name}:", *map(line_of, rows)] if rows else [f"Nothing was said of {name}."]
        console().print("\n".join(lines), soft_wrap=True)
    return None


def _selected(given: Selected, words: Sequence[str]) -> tuple[Selected, list[str]]:
    """What is selected, and what is said of it: with --of no target is named, and all words are said.

    Raises UsageError.
    """
    if given.of is None:
        return given, list(words)
    if given.where is None or given.run is not None:
        raise UsageError(
            "With --of, --where says which ones, and --run is of a TARGET.",
            hint=f"For example --of {given.of} --where \"name like 'night%'\".",
        )
    return given._replace(target=""), [given.target, *words]


def _needed(words: Sequence[str], what: str, *, most: int | None = None) -> Sequence[str]:
    """Return words. Raises UsageError where there are none, or too many."""
    if not words:
        raise UsageError(f"{what} is needed.", hint="It stands behind the TARGET; with --of there is none.")
    if most is not None and len(words) > most:
        raise UsageError(f"{what} is one text: put it in quotes.", hint="With --of there is no TARGET.")
    return words


def _say(shared: Shared, selected: Selected, kind: str, text: str, *, unsigned: bool) -> None:
    from panic.store.annotations import annotate, check_remark

    check_remark(kind, text)
    with marking(shared, selected, unsigned=unsigned) as (store, targets, author):
        annotate(store, kind, [(one, text) for one in targets], author)
        if not shared.quiet:
            console().print(_told(store, targets))


@contextmanager
def marking(
    shared: Shared, selected: Selected, *, unsigned: bool
) -> Iterator[tuple[Store, list[Target], Author]]:
    """The store, what a command is about, and who says it."""
    from panic.store.signing import present_author

    author = present_author()
    author = replace(author, key=None) if unsigned else author
    with shared.open_store() as store:
        targets = _find(store, selected)
        yield store, targets, author
        recipe = _recipe(selected.target)
        if selected.of is None and targets[0].kind == "training" and recipe.is_file():
            _record_folder(store, targets[0], author, recipe.parent.absolute())


def _record_folder(store: Store, target: Target, author: Author, checkpoints: Path) -> None:
    """Record where the model of a training lies, which its name does not tell."""
    from panic.store.annotations import annotate, list_annotations
    from panic.store.codec import readable

    folder = readable(str(checkpoints)).removesuffix(".training")
    rows = list_annotations(store, target.kind, target.uid)
    if folder not in [row.text for row in rows if row.kind == "folder"]:
        annotate(store, "folder", [(target, folder)], author)


def _find(store: Store, selected: Selected) -> list[Target]:
    """What a text names, or those of its runs that are meant.

    A text with a slash is the folder of a training, others are so if nothing else is. Raises NotFound.
    """
    from panic.store import reading
    from panic.store.annotations import find_target, run_target
    from panic.store.trainings import find_training

    selector, run, where, of = selected
    if of is not None:
        return _all_of(store, of, where)
    if run is not None and where is not None:
        raise UsageError("Give either --run or --where.")
    if run is not None or where is not None:
        row = reading.experiment(store, selector)
        runs = [find_run(store, row, run)] if run is not None else runs_where(store, row, where)
        return [run_target(row.name, one) for one in runs]
    if os.sep not in selector:
        try:
            return [find_target(store, selector)]
        except NotFound:
            if known := find_training(store, selector):
                return [target_of(known)]
            if not _recipe(selector).is_file():
                raise
    try:
        return [training_target(selector)]
    except NotFound:
        if known := find_training(store, selector):
            return [target_of(known)]
        raise


def _all_of(store: Store, of: Kind, where: str | None) -> list[Target]:
    """The targets of a kind that a filter finds in the store. Raises NotFound for none."""
    from panic.store import reading
    from panic.store.annotations import Target, run_target
    from panic.store.finding.queries import table
    from panic.store.trainings import trainings_at

    found = find(store, of, where)
    if not found:
        raise NotFound(f"No {of} in {store.path} is as --where says.")
    if of == "output":
        digests = table(store, of, found, ["digest", "modality"], known_fields())
        return [Target(kind=of, uid=uid, name=f"{modality} {uid[:12]}") for uid, modality in digests]
    if of == "training":  # one recipe in several folders is one target
        return list({row.uid: target_of(row) for row in trainings_at(store, found)}.values())
    chosen, experiments = set(found), reading.experiments(store)
    if of == "run":
        names = {row.id: row.name for row in experiments}
        return [run_target(names[one.experiment], one) for one in reading.runs(store) if one.id in chosen]
    return [Target(kind=of, uid=row.uid, name=row.name) for row in experiments if row.id in chosen]


def target_of(row: TrainingRow) -> Target:
    """Return a training that the store knows as what a remark can be on."""
    from panic.store.annotations import Target

    return Target(kind="training", uid=row.uid, name=f"training {row.uid[:12]} ({row.name})")


def _recipe(folder: str) -> Path:
    """The file that says what a training is, given the folder of its model or of its checkpoints."""
    plain = Path(folder).expanduser()
    if not plain.name:
        return plain / "recipe.json"
    beside = plain if plain.name.endswith(".training") else plain.with_name(f"{plain.name}.training")
    return beside / "recipe.json"


def training_target(folder: str) -> Target:
    """Return the training whose model or checkpoints lie in a folder: known by the digest of its recipe.

    The recipe has the digest of the data in it, so that the same training elsewhere has the same name.

    Raises NotFound for a folder without one.
    """
    from panic.store.annotations import Target
    from panic.store.provenance import training_uid

    path = _recipe(folder)
    try:
        recipe = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise NotFound(
            f"{folder} is the folder of no training: there is no {path}.",
            hint="Name the `output` of a training, as panic train says where its model is.",
        ) from None
    uid = training_uid(recipe)
    return Target(kind="training", uid=uid, name=f"training {uid[:12]} ({folder})")


def _told(store: Store, targets: Sequence[Target]) -> str:
    from panic.store.annotations import list_annotations, marks_of

    if len(targets) != 1:
        return f"{len(targets):,} {targets[0].kind}s"
    [target] = targets
    rows = list_annotations(store, target.kind, target.uid)
    found = marks_of(rows)
    parts = [f"tags {', '.join(found.tags)}"] if found.tags else []
    parts += [f"label {found.label}"] if found.label else []
    number = sum(row.kind == "comment" for row in rows)
    parts += [f"{number:,} comment{'s' * (number != 1)}"] if number else []
    return f"{target.name}: {'; '.join(parts) or 'no tags, no label'}"


def line_of(row: AnnotationRow) -> str:
    """Return a remark as a line: when, who, whether it is signed, and what."""
    signed = ", signed" if row.signature else ""
    what = row.text if row.kind == "comment" else f"{row.kind}: {row.text or '(none)'}"
    return f"{moment(row.at)}  {row.author}{signed}  {what}"


def as_dict(rows: Sequence[AnnotationRow]) -> dict[str, Any]:
    """Return the JSON of what is said of one target."""
    from panic.store.annotations import marks_of

    found = marks_of(rows)
    keys = ("kind", "text", "author", "at")
    remarks = [
        {key: getattr(row, key) for key in keys} | {"is_signed": row.signature is not None} for row in rows
    ]
    return {"tags": list(found.tags), "label": found.label, "remarks": remarks}


def print_marks(out: Callable[[str], None], rows: Sequence[AnnotationRow]) -> None:
    """Print tags, label and comments of one target, the last comments only where there are many."""
    from panic.store.annotations import marks_of

    found = marks_of(rows)
    if found.label:
        out(f"label:            {found.label}")
    if found.tags:
        out(f"tags:             {', '.join(found.tags)}")
    comments = [row for row in rows if row.kind == "comment"]
    if len(comments) > SHOWN_COMMENTS:
        out(f"and {len(comments) - SHOWN_COMMENTS:,} earlier comments: panic comment TARGET")
    for row in comments[-SHOWN_COMMENTS:]:
        out(f"comment:          {line_of(row)}")


def beside(told: str, found: Marks) -> str:
    """Return what is told of a run with its label and tags, where it has any."""
    label = f"  “{found.label}”" if found.label else ""
    return told + label + (f"  [{' '.join(found.tags)}]" if found.tags else "")


def of_run(store: Store, run: RunRow) -> list[AnnotationRow]:
    """Return the remarks on a run."""
    from panic.store import reading
    from panic.store.annotations import list_annotations, run_uid

    return list_annotations(store, "run", run_uid(reading.experiment(store, run.experiment).name, run))


def of_runs(store: Store, experiment: str, runs: Sequence[RunRow]) -> list[Marks]:
    """Return the marks of runs of the experiment of this name, in their order."""
    from panic.store.annotations import NO_MARKS, marks, run_uid

    found = marks(store, "run")
    return [found.get(run_uid(experiment, run), NO_MARKS) if found else NO_MARKS for run in runs]


def print_origins(out: Callable[[str], None], store: Store, uid: str, kind: str = "experiment") -> None:
    """Print which experiment, or training, this one was made from, and which were made from it."""
    from panic.store.annotations import origins

    for one in origins(store, kind):
        made = json.loads(one.text)
        changes = f", with {', '.join(map(str, made['changes']))}" if made["changes"] else ""
        if one.target == uid:
            out(f"made from:        {made['name']} ({made['uid'][:12]}){changes}")
        elif made["uid"] == uid and (name := _name_of(store, one.target, kind)):
            out(f"again as:         {name} ({one.target[:12]}){changes}")


def _name_of(store: Store, uid: str, kind: str) -> str | None:
    from panic.store import reading
    from panic.store.trainings import list_trainings

    known = list_trainings(store) if kind == "training" else reading.experiments(store)
    return next((row.name for row in known if row.uid == uid), None)
