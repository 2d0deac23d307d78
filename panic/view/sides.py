"""Two to six runs or experiments beside each other, also of several stores: what is asked, and the answer.

The figures are those of `panic compare`; a single run is compared as an experiment of one run.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from panic.cli import compare
from panic.errors import UsageError
from panic.store import Store, reading
from panic.store.records import ExperimentRow
from panic.view.context import Context
from panic.view.records import find_run, number
from panic.view.sources import Source

MOST = 6


def asked(context: Context, request: Request) -> tuple[Source, str, dict[str, Any]]:
    """The first store, the states of all, and what is asked.

    `of` names them: STORE/EXPERIMENT or STORE/EXPERIMENT/RUN, with commas between. Raises UsageError for
    too few or too many, and what is named twice; NotFound.
    """
    names = list(filter(None, request.query_params.get("of", "").split(",")))
    if not 2 <= len(names) <= MOST:
        raise UsageError(f"Two to {MOST} runs or experiments can be compared, not {len(names)}.")
    sources, states, sides = [], [], []
    for name in names:
        key, experiment, run = [*map(unquote, name.split("/")), "", ""][:3]
        source = context.sources[key]
        with source.reading() as store:
            row = reading.experiment(store, experiment)
            one = find_run(store, row, number({"run": run}, "run", 0)).id if run else None
            states.append(source.state_of(store))
        sources.append(source)
        told = row.name if one is None else f"{row.name} run {one}"
        sides.append({"path": str(source.path.resolve()), "experiment": row.uid, "run": one, "name": told})
    if len({(side["path"], side["experiment"], side["run"]) for side in sides}) < len(sides):
        raise UsageError("One of them is named twice.", hint="Name different runs or experiments.")
    known = Counter(side["name"] for side in sides)
    for source, side in zip(sources, sides, strict=True):
        if known[side["name"]] > 1:
            side["name"] = f"{side['name']} in store {source.key}"
    return sources[0], "+".join(states), {"kind": "side", "sides": sides}


def answer(store: Store, asked: Mapping[str, Any], loaded: object) -> dict[str, Any]:
    """What they differ in, their metrics, how far each is from the first, as `panic compare --json` tells.

    `sides`: {"path", "experiment", "run", "name"} of each; run is null for a whole experiment.
    """
    from panic.analysis.contrasts import Contrast, contrasted, said
    from panic.analysis.paired import CAVEAT, paired, side

    names = [one["name"] for one in asked["sides"]]
    with contextlib.ExitStack() as stack:
        stores = {asked["path"]: store}
        for path in dict.fromkeys(one["path"] for one in asked["sides"] if one["path"] != asked["path"]):
            stores[path] = stack.enter_context(Store(Path(path), copy_older=True))
        rows = [
            (stores[one["path"]], reading.experiment(stores[one["path"]], one["experiment"]))
            for one in asked["sides"]
        ]
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
