"""An experiment whose shards are in several stores: one order of its runs, and what is asked of all together.

Each store gives its runs in the order that was asked for, so that the stores' turns are all that is needed:
[0, 0, 1, 0] is the first two runs of the first store, the first of the second one, the third of the first.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from starlette.requests import Request

from panic.cli.finding import known_fields
from panic.errors import UsageError
from panic.store import reading, standing
from panic.store.finding.queries import Query, table
from panic.view.context import Context
from panic.view.merged import each_once
from panic.view.sources import Source

MOST_STORES = 64


def turns(context: Context, request: Request) -> dict[str, Any]:
    """The turns of stores, named with + between them, in the order of the address's `where` and `sort`.

    copies: the places among them of runs that another store has as well, and counts for. Raises UsageError
    for too many stores and FilterError; NotFound where one has no such experiment.
    """
    sort = request.query_params.get("sort", "")
    names = [name.strip() for name in sort.split(",") if name.strip()]
    sources = sources_of(context, request.path_params["stores"])
    copies = _together(context, sources, request.path_params["experiment"])["copies"]
    lists = []
    for number, source in enumerate(sources):
        with source.reading() as store:
            row = reading.experiment(store, request.path_params["experiment"])
            where = request.query_params.get("where") or None
            found = source.find(store, Query(target="run", where=where, sort=sort, experiment=row.id))
            columns = [name.lstrip("+-") for name in names]
            values = table(store, "run", found, columns, known_fields()) if names else [()] * len(found)
        runs = zip(values, found, strict=True)
        lists.append([(_rank(one, names), number, (source.key, run) in copies) for one, run in runs])
    order = list(heapq.merge(*lists, key=itemgetter(0, 1)))
    return {
        "turns": [number for _, number, _ in order],
        "copies": [place for place, (*_, is_copy) in enumerate(order) if is_copy],
    }


def counts(context: Context, request: Request) -> Mapping[str, Any]:
    """How many runs stores have together, and in which states: a run that several of them have counts once.

    Counted again once in a while only, as standings are. Raises UsageError for too many stores; NotFound.
    """
    sources = sources_of(context, request.path_params["stores"])
    found = _together(context, sources, request.path_params["experiment"])
    return {name: value for name, value in found.items() if name != "copies"}


def _together(context: Context, sources: Sequence[Source], name: str) -> Mapping[str, Any]:
    """Counts of an experiment of this name in several stores, and which runs (store, number) do not count."""
    states, uids = [], []
    for source in sources:
        with source.reading() as store:
            states.append((source.key, source.files, store.revision))
            uids.append(reading.experiment(store, name).uid)

    def make() -> dict[str, Any]:
        parts = []
        for source in sources:
            with source.reading() as store:
                parts.append((source.key, reading.runs(store, reading.experiment(store, name).id)))
        taken = each_once(parts, name).values()
        copies = {(key, run.id) for key, runs in parts for run in runs} - {
            (key, run.id) for key, run in taken
        }
        runs = [run for _, run in taken]
        found = dict.fromkeys(standing.RUN_COUNTS, 0)
        for run in runs:
            found["begun" if run.state == "running" else run.state] += 1
        found |= {"runs": len(runs), "invocations": sum(run.num_steps for run in runs)}
        return {"counts": found, "revision": revision, "copies": copies}

    revision = sum(of for *_, of in states)
    files = (f"{key}-{files}" for key, files, _ in states)
    return context.computing.status(("counts", *files, *uids), revision, make)


def asked(context: Context, request: Request) -> tuple[Source, str, dict[str, Any]]:
    """The first of an address's stores, the states of all, and what is asked: an experiment of `stores`.

    Raises UsageError for too many stores; NotFound where one has no such experiment.
    """
    states, rows, stores = [], [], {}
    sources = sources_of(context, request.path_params["store"])
    for source in sources:
        with source.reading() as store:
            rows.append(reading.experiment(store, request.path_params["experiment"]))
            states.append(source.state_of(store))
        stores[source.key] = str(source.path.resolve())
    experiment = (
        rows[0].uid if len(rows) == 1 else rows[0].name
    )  # what is merged keeps the uid of any of them
    return sources[0], "+".join(states), {"experiment": experiment, "stores": stores}


def sources_of(context: Context, keys: str) -> list[Source]:
    """The stores that an address names, with + between them. Raises UsageError for too many, and NotFound."""
    found = dict.fromkeys(keys.split("+"))
    if len(found) > MOST_STORES:
        raise UsageError(f"At most {MOST_STORES} stores at once.")
    return [context.sources[key] for key in found]


def _rank(values: tuple[Any, ...], names: list[str]) -> tuple[Any, ...]:
    """What runs are compared by, as SQLite does: numbers before texts, what there is not last."""
    return tuple(
        (1, ()) if value is None else (0, _Falling(_plain(value)) if name.startswith("-") else _plain(value))
        for name, value in zip(names, values, strict=True)
    )


def _plain(value: Any) -> tuple[bool, Any]:
    if isinstance(value, list):
        return True, json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return isinstance(value, str), value


class _Falling:
    """A value that is the smaller, the larger it is."""

    def __init__(self, value: tuple[bool, Any]) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Falling) and self.value == other.value

    def __lt__(self, other: _Falling) -> bool:
        return other.value < self.value
