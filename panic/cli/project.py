"""`panic project`: which project an experiment or a training is in.

panic project demo night; panic project checkpoints/mine night; panic list --project night
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import EitherArgument, Shared, command
from panic.cli.mark import Selected, UnsignedOption, marking
from panic.cli.render import console

if TYPE_CHECKING:
    from panic.store import Store


@command
def project(
    shared: Shared,
    experiment: EitherArgument,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help='Its project; "" for what its config says.')
    ] = None,
    unsigned: UnsignedOption = False,
) -> None:
    """Move an experiment, or a training, to a project, or say which one it is in. No result changes."""
    from panic.store import reading
    from panic.store.annotations import annotate, check_project
    from panic.store.trainings import find_training

    if name:
        check_project(name)
    with marking(shared, Selected(experiment, None, None), unsigned=unsigned) as (store, targets, author):
        [target] = targets
        config: Mapping[str, Any] = {}
        called = target.name
        if target.kind == "training":
            trained = find_training(store, target.uid)
            config = trained.config if trained else {}
        else:
            row = reading.experiment(store, experiment)
            config, called = row.config, row.name
        now = project_of(store, target.uid, config, target.kind)
        if name is not None and (name or config.get("project")) != now:
            annotate(store, "project", [(target, name)], author)
            now = project_of(store, target.uid, config, target.kind)
        if name is None or not shared.quiet:
            console().print(f"{called} is in {f'the project {now}' if now else 'no project'}")


def project_of(store: Store, uid: str, config: Mapping[str, Any], kind: str = "experiment") -> str | None:
    """Return the project of an experiment or a training: what was said last, else what its config says."""
    from panic.store.annotations import list_annotations

    said = [row.text for row in list_annotations(store, kind, uid) if row.kind == "project"]
    return said[-1] if said and said[-1] else config.get("project")
