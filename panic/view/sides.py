"""Two to six runs or experiments beside each other, also of several stores: what is asked, and the answer.

An experiment may be one whose shards are in several stores, which are merged as for its questions.

The figures are those of `panic compare`; a single run is compared as an experiment of one run.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.requests import Request

from panic.cli import compare
from panic.errors import UsageError
from panic.store import Store, reading
from panic.store.records import ExperimentRow
from panic.view.context import Context
from panic.view.records import find_run, number
from panic.view.shards import sources_of
from panic.view.sources import Source

MOST = 6


def asked(context: Context, request: Request) -> tuple[Source, str, dict[str, Any]]:
    """The first store, the states of all, and what is asked.

    `of` names them: STORE/EXPERIMENT or STORE/EXPERIMENT/RUN, with commas between; STORE may be several, with
    + between them, of an experiment. Raises UsageError for too few or too many, what is named twice, and a
    run of several stores; NotFound.
    """
    names = list(filter(None, request.query_params.get("of", "").split(",")))
    if not 2 <= len(names) <= MOST:
        raise UsageError(f"Two to {MOST} runs or experiments can be compared, not {len(names)}.")
    sources: list[list[Source]] = []
    states: list[str] = []
    sides: list[dict[str, Any]] = []
    for name in names:
        key, experiment, run = [*map(unquote, name.split("/")), "", ""][:3]
        key = key.replace(" ", "+")  # which a + in the question of an address stands for
        found = sources_of(context, key)
        if run and len(found) > 1:
            raise UsageError(f"{key[:40]}: a run is in one store.", hint="Name the run of one of them.")
        for source in found:
            with source.reading() as store:
                row = reading.experiment(store, experiment)
                one = find_run(store, row, number({"run": run}, "run", 0)).id if run else None
                states.append(source.state_of(store))
        sources.append(found)
        told = row.name if one is None else f"{row.name} run {one}"
        # What is merged keeps the uid of any of them.
        uid = row.uid if len(found) == 1 else row.name
        stores = {source.key: str(source.path.resolve()) for source in found}
        sides.append({"stores": stores, "experiment": uid, "run": one, "name": told})
    if len({(frozenset(side["stores"]), side["experiment"], side["run"]) for side in sides}) < len(sides):
        raise UsageError("One of them is named twice.", hint="Name different runs or experiments.")
    known = Counter(side["name"] for side in sides)
    for found, side in zip(sources, sides, strict=True):
        if known[side["name"]] > 1:
            keys = "+".join(side["stores"])
            side["name"] = f"{side['name']} in store{'s' * (len(found) > 1)} {keys}"
    return sources[0][0], "+".join(states), {"kind": "side", "sides": sides}


class Merging(Protocol):
    """Who merges the stores of a side."""

    def side(self, place: int, stores: Mapping[str, str], folder: str) -> Path:
        """The folder of the store that these (paths by key) are together, kept while `place` has the same."""


def answer(store: Store, asked: Mapping[str, Any], loaded: Merging) -> dict[str, Any]:
    """What they differ in, their metrics, how far each is from the first, as `panic compare --json` tells.

    `sides`: {"stores" (paths by key), "experiment", "run", "name"} of each; run is null for a whole
    experiment, whose stores may be several.
    """
    from panic.analysis.contrasts import Contrast, contrasted, said
    from panic.analysis.paired import CAVEAT, paired, side

    names = [one["name"] for one in asked["sides"]]
    with contextlib.ExitStack() as stack:
        opened, rows = {asked["path"]: store}, []
        for place, one in enumerate(asked["sides"]):
            path = next(iter(one["stores"].values()))
            if len(one["stores"]) > 1:
                path = str(loaded.side(place, one["stores"], asked["folder"]))
            if path not in opened:
                opened[path] = stack.enter_context(Store(Path(path), copy_older=True))
            rows.append((opened[path], reading.experiment(opened[path], one["experiment"])))
        runs = [one["run"] for one in asked["sides"]]
        of_runs = said([_of_run(of, row, run) for (of, row), run in zip(rows, runs, strict=True)])
        found = [Contrast(section="run", field=field, values=values) for field, values in of_runs]
        found += contrasted(rows)
        metrics = paired([side(*row, run, name) for row, run, name in zip(rows, runs, names, strict=True)])
    told = compare.as_dict(names, [one for one in found if not one.is_same], metrics)
    return {**told, "caveat": CAVEAT}


def _of_run(store: Store, row: ExperimentRow, run: int | None) -> dict[str, Any]:
    """What makes a run; nothing of a whole experiment."""
    if run is None:
        return {}
    one = find_run(store, row, run)
    keys = ("prompt", "seed", "repeat", "arm", "state", "max_length")
    return {"network": " → ".join(one.network), **{key: getattr(one, key) for key in keys}}
