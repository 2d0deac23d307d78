"""`panic search`: where texts came up, found by their words.

panic search "red circle"; panic search '"a red circle" square*' --where "state = stuck" --csv
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.analysis.shortening import shorten
from panic.cli.common import JsonOption, ProjectOption, Shared, command, say, tell_options
from panic.cli.finding import CsvOption, RunsWhereOption, find, in_project, write_csv
from panic.cli.render import print_json, print_table
from panic.errors import UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.captions import CaptionPlace

SHOWN_PLACES = 20
SHOWN_STEPS = 5
COLUMNS = ("text", "output", "experiment", "run", "role", "steps")


@command
def search(
    shared: Shared,
    query: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY",
            help='Words; "a phrase"; begin*; -without; one OR other.',
            show_default=False,
        ),
    ] = None,
    where: RunsWhereOption = None,
    project: ProjectOption = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, max=10**9, metavar="N", help="At most so many, the newest texts."),
    ] = None,
    reindex: Annotated[
        bool, typer.Option("--reindex", help="Make the index of words anew; a driver keeps it otherwise.")
    ] = False,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search the texts of runs, prompts included: where they came up, in which runs and steps."""
    if as_csv and as_json:
        raise UsageError("Give either --csv or --json.")
    if reindex:
        given = {
            "QUERY": query,
            "--where": where,
            "--project": project,
            "--limit": limit,
            "--csv": as_csv,
            "--json": as_json,
        }
        tell_options(given, "with --reindex")
        return _reindex(shared)
    from panic.store import captions

    wanted = captions.parse(" ".join(query or ()))
    most = limit or (None if as_csv or as_json else SHOWN_PLACES)
    with shared.open_store() as store:
        runs = None if where is None else find(store, "run", where)
        if project is not None:
            of_project = in_project(store, "run", project)
            runs = sorted(of_project if runs is None else of_project.intersection(runs))
        found = captions.search(store, wanted, limit=most and most + 1, runs=runs)
    return _print(found[:most], len(found) > len(found[:most]), as_csv, as_json)


def _print(found: Sequence[CaptionPlace], has_more: bool, as_csv: bool, as_json: bool) -> None:
    if as_json:
        return print_json([_as_dict(one) for one in found])
    if as_csv:
        return write_csv(COLUMNS, (_row(one) for one in found))
    if not found:
        return say("No text has this.")
    rows = [(shorten(one.text), one.experiment, one.run, _shown(one)) for one in found]
    print_table(["text", "experiment", "run #", "model calls"], rows)
    if has_more:
        say("... and more: --limit N, --csv or --json")
    return None


def _as_dict(one: CaptionPlace) -> dict[str, Any]:
    values = (one.text, one.digest, one.experiment, one.run, one.role, list(one.steps))
    return dict(zip(COLUMNS, values, strict=True))


def _row(one: CaptionPlace) -> list[Any]:
    return [*list(_as_dict(one).values())[:-1], " ".join(map(str, one.steps))]


def _shown(one: CaptionPlace) -> str:
    """The steps as people read them."""
    if one.role == "prompt":
        return "prompt"
    steps = ", ".join(f"{step:,}" for step in one.steps[:SHOWN_STEPS])
    rest = len(one.steps) - SHOWN_STEPS
    before = "before " if one.role == "intervention" else ""
    return f"{before}{steps}{f' and {rest:,} more' if rest > 0 else ''}"


def index_rest(store: Store, *, quiet: bool) -> None:
    """Take the texts that an earlier version stored into the index; what is stopped goes on the next time."""
    from panic.cli.progress import telling
    from panic.store import indexing

    with telling(f"{store.path}: index of texts", quiet=quiet) as tell:
        indexing.complete(store, lambda done, total: tell("outputs", done, total))


def _reindex(shared: Shared) -> None:
    from panic.cli.progress import telling
    from panic.store import Store, indexing

    with (
        telling("index of texts", quiet=shared.quiet, goes_on=False) as tell,
        Store(shared.store_path(), write=True) as store,
    ):
        number = indexing.reindex(store, lambda done, total: tell("outputs", done, total))
    if not shared.quiet:
        say(f"The texts of {number:,} outputs are in the index.", err=True)
