"""`panic delete`, `undelete` and `purge`: what goes can come back until it is purged.

panic delete demo --run 3; panic delete checkpoints/mine; panic undelete demo; panic purge
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panic.cli import render
from panic.cli.common import (
    JsonOption,
    ProjectOption,
    Shared,
    command,
    complete_either,
    say,
    tell_options,
)
from panic.cli.finding import (
    BothWhereOption,
    experiment_of,
    experiments_where,
    runs_where,
    trainings_where,
)
from panic.cli.render import console, moment, print_json, print_table
from panic.errors import NotFound, StoreError, UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.delete import Deletion
    from panic.store.records import ExperimentRow
    from panic.store.tombstones import Tombstone
    from panic.store.trainings import TrainingRow

NOTHING_DELETED = "Nothing was deleted, or all of it was purged."
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command
def delete(
    shared: Shared,
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT|TRAINING",
            help="Name, beginning of an id, or latest experiment. None where --where finds several.",
            autocompletion=complete_either,
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--run", metavar="RUN", help="Only this run; may be repeated.")
    ] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option("--network", metavar="A,B", help="Only runs of this network; may be repeated."),
    ] = None,
    where: BothWhereOption = None,
    of: Annotated[
        Literal["experiment", "training"] | None,
        typer.Option("--of", help="Which kind goes, of all that --where finds."),
    ] = None,
    project: ProjectOption = None,
    yes: YesOption = False,
) -> None:
    """Delete an experiment, some of its runs, or the experiments that a filter finds; they can come back.

    Shows first what goes. `panic undelete` brings it back. The space is given back by `panic purge`, and then
    it cannot come back. Of a training the entry goes: its model and checkpoints stay in their folder.
    """
    with shared.open_store() as store:
        trainings = _trainings(store, experiment, of, where, project)
    if trainings is not None:
        tell_options({"--run": runs, "--network": networks}, "for a training")
        return _delete_trainings(shared, trainings, yes=yes)
    if experiment is None:
        return _delete_many(shared, runs or networks, where, project, yes=yes)
    from panic.store import Store, reading
    from panic.store.delete import preview, preview_deletion
    from panic.store.signing import present_author
    from panic.store.tombstones import hide, hide_runs

    with shared.open_store() as store:
        row = experiment_of(store, experiment, project)
        chosen = None
        if runs or networks or where is not None:
            chosen = _chosen(store, row, runs or [], networks or [], where)
        goes = preview_deletion(store, row.id) if chosen is None else preview(store, chosen, are_runs=True)
        beside = [one.name for one in reading.nulls(store, row.name)] if chosen is None else []
    what = row.name if chosen is None else f"{len(chosen):,} run{'s' * (len(chosen) != 1)} of {row.name}"
    if not shared.quiet:
        console().print(_told(f"{row.name} ({row.uid[:12]})", goes, beside))
    if not _is_wanted("Delete this?", "Nothing was deleted", yes=yes):
        return
    author = present_author().name
    with Store(store.path, write=True) as store:
        if chosen is None:
            hide(store, row, author)
        else:
            hide_runs(store, row, chosen, author)
    if not shared.quiet:
        is_one = chosen is None or len(chosen) == 1
        console().print(
            f"{what} {'is' if is_one else 'are'} deleted. panic undelete {row.name} brings"
            f" {'it' if is_one else 'them'} back; panic purge gives the space back."
        )
    return None


def _trainings(
    store: Store, name: str | None, of: str | None, where: str | None, project: str | None
) -> list[TrainingRow] | None:
    """The trainings that are named, or that a filter finds; None where experiments are meant.

    Raises NotFound for what is no training, UsageError where nothing says which.
    """
    from panic.store.trainings import find_training, named_training

    if of == "experiment" or (of is None and (name is None or where is not None or project is not None)):
        return None
    if name is None:
        if where is None and project is None:
            raise UsageError("--where says which trainings.", hint='For example --where "state = failed".')
        return trainings_where(store, where, project)
    if of is not None and (where is not None or project is not None):
        raise UsageError("Name a training, or find several by --where: not both.")
    row = named_training(store, name) if of is None else find_training(store, name)
    if row is None and of is not None:
        raise NotFound(f"There is no training {name!r}.", hint="panic trainings lists them.")
    return None if row is None else [row]


def _delete_trainings(shared: Shared, rows: Sequence[TrainingRow], *, yes: bool) -> None:
    """Delete the entries of trainings; no file of theirs goes."""
    from panic.store.signing import present_author
    from panic.store.trainings import mark_deleted

    names = ", ".join(row.name for row in rows)
    if not shared.quiet:
        for row in rows:
            told = f"{row.name} ({row.uid[:12]}): a training of {row.step:,} steps, {row.state};"
            console().print(f"{told} what is in {row.folder} stays", soft_wrap=True)
    what = "this" if len(rows) == 1 else f"these {len(rows):,} trainings"
    if not _is_wanted(f"Delete {what}?", "Nothing was deleted", yes=yes):
        return
    with shared.open_store() as store:
        mark_deleted(store, rows, present_author())
    if not shared.quiet:
        told = f"{names}: deleted. panic undelete NAME brings one back, and so does going on with it."
        console().print(told, soft_wrap=True)


def _delete_many(
    shared: Shared, parts: list[str] | None, where: str | None, project: str | None, *, yes: bool
) -> None:
    """Delete the experiments that a filter finds, or those of a project, with their null models."""
    from panic.store import Store, reading
    from panic.store.delete import preview_deletion
    from panic.store.signing import present_author
    from panic.store.tombstones import hide

    if parts or (where is None and project is None):
        raise UsageError(
            "The name of an experiment is needed.",
            hint="Or --where and --project, which find several: --run and --network are of one.",
        )
    with shared.open_store() as store:
        found = experiments_where(store, where, project)
        names = {row.name for row in found}
        beside = {row.name: [null.name for null in reading.nulls(store, row.name)] for row in found}
        with_others = {null for name in names for null in beside[name]}
        rows = [row for row in found if row.name not in with_others]
        told = [
            _told(f"{row.name} ({row.uid[:12]})", preview_deletion(store, row.id), beside[row.name])
            for row in rows
        ]
    if not shared.quiet:
        console().print("\n".join(told), soft_wrap=True)
    what = "this" if len(rows) == 1 else f"these {len(rows):,} experiments"
    if not _is_wanted(f"Delete {what}?", "Nothing was deleted", yes=yes):
        return
    deleted: list[str] = []
    try:
        with Store(store.path, write=True) as store:
            for row in rows:
                hide(store, row, present_author().name)
                deleted.append(row.name)
    finally:  # somebody else may have deleted one meanwhile
        if deleted and not shared.quiet:
            console().print(
                f"{', '.join(deleted)}: deleted. panic undelete NAME brings one back;"
                " panic purge gives the space back.",
                soft_wrap=True,
            )


def _chosen(
    store: Store, row: ExperimentRow, numbers: list[str], networks: list[str], where: str | None
) -> list[int]:
    """The rows of the runs with these numbers or networks, or all, as far as a filter finds them.

    Raises NotFound, naming the nearest.
    """
    from panic.cli.finding import find_run
    from panic.errors import nearest
    from panic.store import reading

    found = dict.fromkeys(find_run(store, row, number).id for number in numbers)
    known = reading.runs(store, row.id)
    names = dict.fromkeys(",".join(run.network) for run in known)
    for network in networks:
        wanted = ",".join(part.strip() for part in network.split(","))
        if wanted not in names:
            near = nearest(wanted, names)
            there_are = f"Its networks are: {'; '.join(list(names)[:5])}."
            raise NotFound(
                f"{row.name} has no run of the network {network!r}.",
                hint=f"Did you mean {near[0]}?" if near else there_are,
            )
        found |= dict.fromkeys(run.id for run in known if ",".join(run.network) == wanted)
    if where is None:
        return list(found)
    matching = [run.id for run in runs_where(store, row, where)]
    chosen = [run for run in matching if run in found or not (numbers or networks)]
    if not chosen:
        raise NotFound(f"None of these runs of {row.name} is as --where says.")
    return chosen


def _told(what: str, goes: Deletion, beside: list[str]) -> str:
    return (
        f"{what}: {goes.runs:,} runs, {goes.invocations:,} invocations, "
        f"{goes.outputs:,} outputs that nothing else uses ({render.size(goes.image_bytes)} of pictures), "
        f"{goes.embeddings:,} embeddings, {goes.diagrams:,} diagrams"
    ) + (f"; with {', '.join(beside)}" if beside else "")


def _is_wanted(question: str, nothing: str, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{nothing}: nobody is there to be asked.", hint=f"-y {question.split()[0].lower()}s"
                         " without asking.")  # fmt: skip
    if typer.confirm(question):
        return True
    console().print(f"{nothing}.")
    return False


@command
def undelete(
    shared: Shared,
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT", help="A name, or the beginning of an id; without it, list what was deleted."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Let an experiment come back under another name.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let what was deleted come back, or list what can."""
    from panic.store import Store, reading, tombstones
    from panic.store.signing import present_author
    from panic.store.trainings import bring_back

    tell_options({"--name": name is not None and experiment is None}, "without an experiment")
    tell_options({"--json": as_json and experiment is not None}, "with an experiment")
    with shared.open_store() as store:
        if experiment is None:
            return _list(store, as_json)
        found = _deleted(store, experiment)
        if isinstance(found, list):
            tell_options({"--name": name}, "for a training, which has the name of its folder")
            bring_back(store, found, present_author())
            told = f"{found[0].name} is" if len(found) == 1 else f"{len(found):,} trainings are"
            return None if shared.quiet else console().print(f"{told} back.")
    if name is not None:
        if found.is_part or reading.is_null(found.name):
            whose = "runs" if found.is_part else "null models"
            raise UsageError(f"These are {whose}: {found.name} has its name.", hint="Leave --name out.")
        if not reading.NAME.fullmatch(name) or name == "latest":
            raise UsageError(f"{name!r} cannot be the name of an experiment.", hint="For example demo-2.")
    with Store(store.path, write=True) as store:
        left = tombstones.restore(store, found, name)
    if not shared.quiet:
        back = (
            f"{found.num_runs - left:,} runs of {found.name} are"
            if found.is_part
            else f"{name or found.name} is"
        )
        console().print(
            f"{back} back." if found.num_runs > left or not found.is_part else "Nothing came back."
        )
        if left:
            console().print(f"{left:,} runs stay deleted: {found.name} has computed them anew.")
    return None


def _list(store: Store, as_json: bool) -> None:
    from panic.store import tombstones
    from panic.store.trainings import deletion_of, list_trainings

    keys = ("name", "num_runs", "author", "at", "is_part")
    known: list[dict[str, Any]] = [
        {"id": one.uid, "kind": "experiment"} | {key: getattr(one, key) for key in keys}
        for one in tombstones.deleted(store)
    ]
    for row in list_trainings(store, are_deleted=True):
        said = deletion_of(store, row)
        known.append(
            {"id": row.uid, "kind": "training", "name": row.name, "folder": row.folder, "num_runs": None}
            | {"author": said.author, "at": said.at, "is_part": False}
        )
    if as_json:
        return print_json(known)
    if not known:
        return console().print(NOTHING_DELETED)
    rows = [
        (
            one["name"],
            one["id"][:12],
            "runs" if one["is_part"] else "training" if one["kind"] == "training" else "all",
            one["num_runs"],
            moment(one["at"]),
            one["author"],
        )
        for one in known
    ]
    return print_table(["name", "id", "what", "runs #", "deleted", "by"], rows)


def _deleted(store: Store, selector: str) -> Tombstone | list[TrainingRow]:
    """The newest deletion of a name or id, or the deleted trainings of one. Raises NotFound."""
    from panic.store import tombstones
    from panic.store.trainings import find_deleted

    try:
        return tombstones.find(store, selector)
    except NotFound:
        if found := find_deleted(store, selector):
            return found
        raise


@command
def purge(
    shared: Shared,
    experiment: Annotated[
        str | None,
        typer.Argument(metavar="EXPERIMENT", help="A name, or the beginning of an id; by default all."),
    ] = None,
    yes: YesOption = False,
) -> None:
    """Remove what was deleted for good, and give its space back to the disk.

    Of trainings it is the entry: their folders are nothing of the store's, and stay.
    """
    from panic.store import Store, tombstones
    from panic.store.trainings import list_trainings, purge_trainings

    with shared.open_store() as store:
        known, trainings = tombstones.deleted(store), list_trainings(store, are_deleted=True)
        if experiment is not None:
            found = _deleted(store, experiment)
            if isinstance(found, list):
                known, trainings = [], found
            else:
                known = [one for one in known if one.at == found.at and one.is_part == found.is_part]
                trainings = []
        goes = tombstones.preview_purge(store, known)
    if not known and not trainings:
        return console().print(NOTHING_DELETED)
    hidden = dict.fromkeys(one.name for one in known)
    names = ", ".join({**hidden, **dict.fromkeys(row.name for row in trainings)})
    if not shared.quiet:
        if known:
            console().print(_told(", ".join(hidden), goes, []))
        for row in trainings:
            console().print(f"{row.name}: the entry of a training; {row.folder} stays", soft_wrap=True)
    if not _is_wanted("Purge this for good?", "Nothing was purged", yes=yes):
        return None
    with Store(store.path, write=True) as store:
        purge_trainings(store, trainings)
        try:
            tombstones.purge(store, known)
        except StoreError as error:  # a full disk, a reader that holds a snapshot
            say(f"The space is not given back yet: {error.message}", err=True)
    if not shared.quiet:
        console().print(f"{names}: purged.")
    return None
