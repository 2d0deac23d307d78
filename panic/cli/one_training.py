"""What commands do with one training of the store: stop it, go on with it, end it, make another of it.

panic stop mine --wait; panic again mine --set learning_rate=0.001 --trust; panic extend mine --steps 20000
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from panic.cli.common import Shared, say
from panic.cli.render import console
from panic.errors import ConflictError, Interrupted, StoreError, UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.trainings import TrainingRow
    from panic.train.config import Training

LOOK_AGAIN_S = 0.2
MOST_TOLD = 5
"""So many of the paths that nobody trusts are named."""


def stop_training(row: TrainingRow, *, wait: bool, quiet: bool) -> None:
    """Ask the process that performs a training to stop. Raises StoreError where that cannot be asked."""
    from panic.store.driver import ask_to_stop
    from panic.store.files import lock_holder

    beside = Path(f"{row.folder}.training")
    holder = lock_holder(beside)
    if holder is None:
        return console().print(f"Nobody performs {row.name}.")
    ask_to_stop(beside, holder)
    if not quiet:
        console().print(
            f"Process {holder.pid} was asked to stop: it finishes the step in flight of {row.name}."
        )
    while wait and lock_holder(beside) == holder:
        time.sleep(LOOK_AGAIN_S)
    if wait and not quiet:
        console().print(f"{row.name} has stopped. panic resume {row.name} goes on.")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is said of a training that is made from another: what was changed, its tags and its label."""

    changes: Sequence[str]
    tags: Sequence[str] = ()
    label: str | None = None


def checked_remarks(changes: Sequence[str], tags: Sequence[str], label: str | None) -> Said:
    """Return what is said of a training. Raises UsageError for what cannot be."""
    from panic.store.annotations import check_remark, check_tag

    text = None if label is None else check_remark("label", label)
    return Said(changes=changes, tags=[check_tag(tag) for tag in tags], label=text)


def made_from(
    store: Store, row: TrainingRow, overrides: Sequence[str], name: str | None, *, trust: bool
) -> list[Training]:
    """Return the trainings that the stored config of another stands for, changed, each in its own folder.

    name: of the folder, beside that of the other one; by default the next free NAME-2. Raises NotTrusted
    where the store names files or folders and nobody trusts it, ConflictError where a folder has a training.
    """
    from panic.train.config import load_stored

    said = [change.partition("=")[0].split(".")[0].strip() for change in overrides]
    # What was said of that one is not said of this one, but for what --set says.
    changes = [*(one for key, one in (("tags", "tags=[]"), ("label", "label=null")) if key not in said)]
    changes += overrides
    says_output = "output" in said
    if name is not None and (not name.strip() or Path(name).name != name):
        raise UsageError(f"{name!r} cannot be the name of a folder.", hint="--set output=PATH says a path.")
    if name is not None and says_output:
        raise UsageError("Give either --name, a folder beside that one, or --set output=PATH.")
    if not says_output:
        changes.append(f"output={json.dumps(_beside(store, row, name))}")
    loaded: list[Training] = load_stored(row.config, row.name, changes)
    _require_trust(row, loaded, overrides, trust=trust)
    for one in loaded:
        if Path(f"{one.output}.training").exists() or Path(one.output).exists():
            other = "another path: --set output=PATH" if says_output else "another name: --name NAME"
            raise ConflictError(
                f"There is a training in {one.output} already.",
                hint=f"Give {other}, or leave it out. panic resume goes on with that one.",
            )
    return loaded


def _beside(store: Store, row: TrainingRow, name: str | None) -> str:
    """The folder of this name beside that of a training, or the first of NAME-2, NAME-3, ... that is free.

    A number is taken, too, by what a sweep made of it: NAME-2-learning_rate=0.1.
    """
    from panic.store.trainings import list_trainings

    folder = Path(row.folder)
    if name is not None:
        return str(folder.with_name(name))
    taken = {
        Path(one.folder).name for one in list_trainings(store) if Path(one.folder).parent == folder.parent
    }
    with contextlib.suppress(OSError):  # there may be no such folder here
        taken |= {path.name.removesuffix(".training") for path in folder.parent.iterdir()}
    number = 2
    while any(f"{one}-".startswith(f"{folder.name}-{number}-") for one in taken):
        number += 1
    return f"{folder}-{number}"


def _require_trust(
    row: TrainingRow, loaded: Sequence[Training], overrides: Sequence[str], *, trust: bool
) -> None:
    from panic.engine.trust import NotTrusted
    from panic.train.config import named_paths

    found = {} if trust else dict.fromkeys(path for one in loaded for path in named_paths(one, overrides))
    if found:
        named = ", ".join([*found][:MOST_TOLD])
        more = f" and {len(found) - MOST_TOLD:,} more" if len(found) > MOST_TOLD else ""
        raise NotTrusted(
            f"The stored config of {row.name} names {named}{more}. Nothing was done.",
            hint="If this store is yours, or you trust its maker: --trust. Or --set says other ones.",
        )


def perform_again(shared: Shared, row: TrainingRow, loaded: Sequence[Training], said: Said) -> None:
    """Perform trainings that are made from another, which is recorded, or go on with that one itself."""

    def begun(one: Training) -> None:
        if one.output != row.folder:
            _record(shared.store_path(), row, one, said)

    from panic.cli.train import perform_trainings

    at = Path.cwd() / f"{Path(row.name).name}.yaml"  # what there is no file of: the log is called so
    try:
        perform_trainings(shared, at, loaded, begun)
    except Interrupted as error:
        raise Interrupted(error.message, hint="panic resume, with its name, goes on from there.") from error


def _record(path: Path, row: TrainingRow, made: Training, said: Said) -> None:
    """Say of a training that has begun what it was made from, with its tags and its label."""
    from panic.store.codec import canonical_json

    origin = canonical_json({"name": row.name, "uid": row.uid, "changes": list(said.changes)})
    try:
        mark_training(path, made.output, tags=said.tags, label=said.label, origin=(row, origin))
    except StoreError as error:  # as with its entry: the training goes on
        say(f"Where {made.output} comes from is not in the store: {error.message}", err=True)


def mark_training(
    path: Path,
    folder: str,
    *,
    tags: Sequence[str],
    label: str | None,
    origin: tuple[TrainingRow, str] | None = None,
) -> None:
    """Give the training in a folder tags, and a label if it has none; unsigned if it has to be.

    origin: what it was made from, and the remark that says so. Remarks are on its recipe, so one that has
    the recipe of the other was made from none, and shares tags and label with it: that is told. Raises
    StoreError.
    """
    from panic.cli.mark import training_target
    from panic.store import Store
    from panic.store.annotations import add_tags, annotate, list_annotations, marks_of
    from panic.store.signing import Author, present_author, signed_if_possible

    target = training_target(folder)
    with Store(path) as store:

        def mark(author: Author) -> None:
            known = list_annotations(store, target.kind, target.uid)
            if origin and origin[0].uid != target.uid and all(one.text != origin[1] for one in known):
                annotate(store, "origin", [(target, origin[1])], author)
            add_tags(store, [target], tags, author)
            if label and not marks_of(known).label:
                annotate(store, "label", [(target, label)], author)

        signed_if_possible(mark, present_author(), f"what is said of {folder}")
        now = marks_of(list_annotations(store, target.kind, target.uid))
    if origin and origin[0].uid == target.uid and (tags or label):
        say(f"{folder} has the recipe of {origin[0].name}: tags and label are of both.", err=True)
    if origin and label and now.label != label:
        say(f"Its label stays as it was: {now.label}. panic label gives another one.", err=True)


def resume_training(shared: Shared, row: TrainingRow, *, trust: bool, dry_run: bool) -> None:
    """Go on with a training, in its folder, as its last session had it. Raises NotTrusted, ConfigError."""
    from panic.store.trainings import COMPLETE

    if row.state == COMPLETE:
        return console().print(f"{row.name} is complete.")
    return _go_on(shared, row, (), trust=trust, dry_run=dry_run)


def extend_training(
    shared: Shared, row: TrainingRow, steps: int | None, *, trust: bool, dry_run: bool
) -> None:
    """Go on with a training in its folder up to more steps. Raises as `resume_training`, and UsageError."""
    if steps is None:
        raise UsageError(f"{row.name} is a training: --steps says how many it gets in all.")
    if steps <= row.steps:
        raise UsageError(
            f"{row.name} is to have {row.steps:,} steps already.",
            hint="A larger --steps extends it; panic end declares it complete as it is.",
        )
    _go_on(shared, row, (f"steps={steps}",), trust=trust, dry_run=dry_run)


def rerun_training(
    shared: Shared, row: TrainingRow, changes: Sequence[str], *, trust: bool, dry_run: bool
) -> None:
    """Go on with a training that has failed, from its last checkpoint. Raises as `resume_training`.

    ConflictError for changes that would make another training of it.
    """
    from panic.store.trainings import FAILED
    from panic.train.config import load_stored, recipe

    if row.state != FAILED:
        return console().print(f"{row.name} has not failed. panic show {row.name} tells how it stands.")
    stored, *changed = [load_stored(row.config, row.name, said)[0] for said in ((), changes)]
    if any((one.output, recipe(one)) != (stored.output, recipe(stored)) for one in changed):
        said = " ".join(f"--set {change}" for change in changes)
        raise ConflictError(
            f"With {said} it would be another training than {row.name}.",
            hint=f"panic again {row.name} {said} performs another one, in a folder of its own.",
        )
    return _go_on(shared, row, changes, trust=trust, dry_run=dry_run)


def end_training(shared: Shared, row: TrainingRow, *, trust: bool) -> None:
    """Declare a training complete at its last checkpoint, and write the model of it, unless it is there.

    Raises ConflictError while it is performed, UsageError where it has no checkpoint, NotTrusted.
    """
    from panic.store import Store
    from panic.store.files import lock_holder
    from panic.store.provenance import trained_step
    from panic.store.trainings import COMPLETE, RUNNING, declare_complete
    from panic.train.standing import saved_step, standing_of

    if row.state == COMPLETE:
        return console().print(f"{row.name} is complete.")
    beside = Path(f"{row.folder}.training")
    if row.state == RUNNING or lock_holder(beside) is not None:
        raise ConflictError(f"{row.name} is being performed.", hint=f"panic stop {row.folder}")
    step = saved_step(beside)
    if not step:
        raise UsageError(
            f"There is no checkpoint in {row.folder}.training that {row.name} could be complete at.",
            hint=f"panic delete {row.name} is rid of its entry.",
        )
    if standing_of(beside).step <= step == trained_step(Path(row.folder), row.uid):  # nothing after it
        with Store(shared.store_path()) as store:
            declare_complete(store, row, step)
    else:
        _go_on(shared, row, (f"steps={step}",), trust=trust, dry_run=False)
    if not shared.quiet:
        more = f"panic extend {row.name} --steps N reopens it."
        console().print(f"{row.name} is complete at step {step:,}. {more}")


def _go_on(shared: Shared, row: TrainingRow, changes: Sequence[str], *, trust: bool, dry_run: bool) -> None:
    """Perform a training in its folder as its last session had it, but for changes outside its recipe."""
    from panic.cli.train import print_trainings
    from panic.train.config import load_stored

    loaded: list[Training] = load_stored(row.config, row.name, changes)
    _require_trust(row, loaded, changes, trust=trust)
    return print_trainings(loaded) if dry_run else perform_again(shared, row, loaded, Said(changes=()))
