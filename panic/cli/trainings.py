"""`panic trainings`: how far trainings are, with a filter, an order and columns, as `panic list` has them.

panic trainings --where "state = running"; panic trainings --sort best_loss --columns name,config.seed
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import JsonOption, ProjectOption, Shared, command, tell_options, visible
from panic.cli.finding import (
    SHOWN_ROWS,
    SHOWN_UID,
    ColumnsOption,
    CsvOption,
    LimitOption,
    Listing,
    SortOption,
    WhereOption,
    find,
    in_project,
    names_of,
    tell_rest,
)
from panic.cli.mark import as_dict
from panic.cli.origin import Use, print_origin, uses_of_trainings
from panic.cli.render import console, moment, print_json, print_table
from panic.errors import UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.records import AnnotationRow
    from panic.store.trainings import TrainingRow

SHOWN = ("step", "steps", "loss", "val_loss", "best_loss", "seconds")
FIELDS = (
    *(
        "id",
        "name",
        "project",
        "task",
        "folder",
        "state",
        *SHOWN,
        "best_step",
        "created",
        "started",
        "updated",
    ),
    *("ended", "host", "command", "log", "message"),
)
"""What is told of a training in JSON, beside remarks and uses."""
TIMES = ("created", "started", "updated", "ended")


@command
def trainings(
    shared: Shared,
    where: WhereOption = None,
    project: ProjectOption = None,
    sort: SortOption = None,
    columns: ColumnsOption = None,
    limit: LimitOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all, however many.")] = False,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """List trainings: how far each is, what was said of it, and which experiments used its model.

    Without a filter, an order or columns also those of which the store knows only remarks or uses.
    """
    from panic.store.finding.found import COLUMNS

    if as_csv and as_json:
        raise UsageError("Give either --csv or --json.")
    is_table = not (as_csv or as_json)
    tell_options({"--all": everything and (not is_table or limit is not None)}, "here")
    with shared.open_store() as store:
        found = find(store, "training", where, sort)
        if project is not None:
            of_project = in_project(store, "training", project)
            found = [id for id in found if id in of_project]
        most = limit or (len(found) if everything or not is_table else SHOWN_ROWS)
        # The newest are of most interest, and stand at the end.
        chosen = found[:most] if sort or limit else found[max(0, len(found) - most) :]
        if as_csv or columns is not None:
            listing = Listing(store, "training", names_of(columns, COLUMNS["training"]))
            told = listing.print_csv if as_csv else listing.print_json if as_json else listing.print_table
            return told(chosen)
        is_all = where is None and project is None and sort is None and limit is None
        rows = _whole(store, Listing(store, "training", FIELDS), chosen, others=is_all)
    if as_json:
        return print_json(rows)
    if not rows:
        return console().print(
            "No training is as --where says."
            if where is not None or project is not None
            else "No trainings yet. `panic train CONFIG` performs one."
        )
    _print(rows)
    return tell_rest(len(found) - len(chosen), "more" if sort or limit else "older ones")


def show_training(store: Store, row: TrainingRow, *, as_json: bool, is_config: bool) -> None:
    """Tell all that is known of a training, or print the config that performs it. Raises ConfigError."""
    from panic.analysis.origin import SHORT, mapping
    from panic.cli.mark import print_marks, print_origins
    from panic.store.annotations import list_annotations
    from panic.store.trainings import place_of

    if is_config:
        return print_json(row.config) if as_json else _print_config(row)
    [told] = _whole(store, Listing(store, "training", FIELDS), [place_of(store, row)], others=False)
    if as_json:
        said = {"config": row.config, "measures": row.measures, "provenance": row.provenance}
        return print_json(told | said)
    shown = {name: moment(told[name]) if name in TIMES and told[name] else told[name] for name in FIELDS}
    shown |= {f"measures.{name}": value for name, value in row.measures.items()}
    data = mapping(row.provenance.get("data"))
    shown["learns from"] = f"{data['from']} ({str(data.get('digest'))[:SHORT]})" if "from" in data else None
    shown["used by"] = ", ".join(f"{use['experiment']} as {use['model']}" for use in told["used_by"])
    out = console()
    for name, value in shown.items():
        if value not in (None, ""):
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            out.print(f"{f'{name}:':<18}{text}", soft_wrap=True)
    print_origins(out.print, store, row.uid, "training")
    print_marks(out.print, list_annotations(store, "training", row.uid))
    return print_origin([row])


def _print_config(row: TrainingRow) -> None:
    """Print what was said of a training as YAML that `panic train` takes. Raises ConfigError."""
    from panic.config.load import as_yaml
    from panic.train.config import load_stored

    [loaded] = load_stored(row.config, row.name)
    said = {"task": loaded.task, **loaded.model_dump(mode="json", exclude_defaults=True)}
    sys.stdout.write(visible(as_yaml(said)))


def _whole(store: Store, listing: Listing, chosen: Sequence[int], *, others: bool) -> list[dict[str, Any]]:
    """All that is known of trainings; others: also of those without an entry, which people or runs know."""
    from panic.store.annotations import list_annotations
    from panic.store.trainings import list_trainings

    said: dict[str, list[AnnotationRow]] = {}
    for row in list_annotations(store, "training"):
        said.setdefault(row.target, []).append(row)
    uses = uses_of_trainings(store)
    found = [dict(zip(FIELDS, values, strict=True)) for values in listing.rows(chosen)]
    if others:
        entered = {row.uid for gone in (False, True) for row in list_trainings(store, are_deleted=gone)}
        strange = [uid for uid in {**said, **uses} if uid not in entered]
        found = [dict.fromkeys(FIELDS) | {"id": uid} for uid in strange] + found
    return [row | _beside(row, said.get(row["id"], ()), uses.get(row["id"], ())) for row in found]


def _beside(row: dict[str, Any], said: Sequence[AnnotationRow], uses: Sequence[Use]) -> dict[str, Any]:
    """The folders of a training, what people say of it, and which experiments used its model."""
    places = [
        *(use.folder for use in uses),
        *(one.text for one in said if one.kind == "folder"),
        row["folder"],
    ]
    return {
        "folders": list(dict.fromkeys(place for place in places if place)),
        **as_dict(said),
        "used_by": [{"experiment": use.experiment, "model": use.model} for use in uses],
    }


def _print(rows: Sequence[dict[str, Any]]) -> None:
    columns = ["name", "id", "state", *(f"{name} #" for name in SHOWN), "started", "label", "tags", "used by"]
    print_table(
        columns,
        [
            (
                row["name"] or (row["folders"] or [None])[-1],
                row["id"][:SHOWN_UID],
                row["state"],
                *(f"{row[name]:.4g}" if isinstance(row[name], float) else row[name] for name in SHOWN),
                row["started"] and moment(row["started"]),
                row["label"],
                ", ".join(row["tags"]),
                ", ".join(dict.fromkeys(use["experiment"] for use in row["used_by"])),
            )
            for row in rows
        ],
    )
