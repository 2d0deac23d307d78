"""The JSON of what the pages show: the records of `--json`, page by page.

Lists come as {"total": n, "next": offset or null, ...}; texts of lists are cut and say how long they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panic.cli import experiments as of_cli
from panic.cli import mark
from panic.cli.finding import known_fields
from panic.errors import NotFound, UsageError
from panic.store import Store, contents, reading, standing, wall
from panic.store.finding.fields import Target
from panic.store.finding.queries import Query, column, table
from panic.store.records import ExperimentRow, InvocationRow, RunRow
from panic.view.sources import Source

EXPERIMENT_COLUMNS = (
    "name", "id", "state", "runs", "done", "stuck", "repeated", "failed", "invocations", "created", "tags",
    "label",
)  # fmt: skip
MOST_RUNS = 500
MOST_CELLS = 6_000
MOST_STEPS = 1_000
MOST_PLACES = 200
SESSIONS = 20
PROMPT_LIMIT = 2_000
TEXT_LIMIT = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list in an order: a filter and an order as the command line has them, columns beside."""

    where: str | None
    sort: str
    columns: tuple[str, ...]
    offset: int
    limit: int

    @staticmethod
    def of(query: Mapping[str, str], most: int) -> Page:
        """What the query of an address asks for. Raises UsageError for what is no number."""
        columns = tuple(name.strip() for name in query.get("columns", "").split(",") if name.strip())
        return Page(
            where=query.get("where") or None,
            sort=query.get("sort", ""),
            columns=columns,
            offset=number(query, "offset", 0),
            limit=min(number(query, "limit", most), most),
        )

    def part(self, found: Sequence[int]) -> tuple[Sequence[int], dict[str, Any]]:
        """The rows of this page, and what is told of the list."""
        end = self.offset + self.limit
        return found[self.offset : end], {"total": len(found), "next": end if end < len(found) else None}


def number(query: Mapping[str, str], name: str, otherwise: int) -> int:
    """A whole number of an address's query. Raises UsageError for another text."""
    text = query.get(name, "")
    if not text:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise UsageError(f"{name} is a whole number from 0 on, not {text[:40]!r}.")
    return int(text)


def numbers(query: Mapping[str, str], name: str, most: int) -> list[int]:
    """Whole numbers with commas between them. Raises UsageError for other texts, none, and too many."""
    words = query.get(name, "").split(",")
    if len(words) > most:
        raise UsageError(f"{name}: at most {most:,} at once.")
    return [number({name: word}, name, 0) for word in words if word]


def experiments(source: Source, store: Store, page: Page) -> dict[str, Any]:
    """Experiments that a filter finds, the newest first where no order is given."""
    found = source.find(store, Query(target="experiment", where=page.where, sort=page.sort))
    part, told = page.part(found if page.sort else found[::-1])
    names = [*EXPERIMENT_COLUMNS, *(name for name in page.columns if name not in EXPERIMENT_COLUMNS)]
    keys = [of_cli.IN_JSON.get(name, name) for name in names]
    return {**told, "experiments": _rows(store, "experiment", part, names, keys)}


def _rows(
    store: Store, target: Target, ids: Sequence[int], names: Sequence[str], keys: Sequence[str]
) -> list[dict[str, Any]]:
    fields = known_fields()
    flags = [column(fields, name, target).type == "flag" for name in names]
    found = []
    for row in table(store, target, ids, names, fields):
        values = (_told(value, is_flag) for value, is_flag in zip(row, flags, strict=True))
        found.append(dict(zip(keys, values, strict=True)))
    return found


def _told(value: Any, is_flag: bool) -> Any:
    """A value of a list; a text may be a prompt of any length."""
    if is_flag:
        return bool(value)
    return value[:PROMPT_LIMIT] if isinstance(value, str) else value


def experiment(store: Store, row: ExperimentRow) -> dict[str, Any]:
    """One experiment, without its runs and what its sessions ran on."""
    state, counts = _standing(store, row)
    found = of_cli.experiment_as_dict(store, row, state)
    sessions = [{k: v for k, v in one.items() if k != "provenance"} for one in found["sessions"]]
    models = {one.name: one for one in reading.models(store)}
    ends = {name: one.spec.get("modality_out") for name, one in models.items()}
    return {
        **found,
        "counts": counts,
        "max_length": wall.longest(store, row.id),
        "embeddings": [one["name"] for one in found["models"] if ends.get(one["name"]) == "vector"],
        "metrics": [one.name for one in known_fields().all if one.of == "run" and "of_run" in one.needs],
        "sessions": sessions[-SESSIONS:],
    }


def _standing(store: Store, row: ExperimentRow) -> tuple[str, dict[str, int]]:
    """The state and the counts of runs and steps, which are counted fast."""
    [(_, state, *counts)] = standing.standings(store, [row.id])
    return state, dict(zip(standing.RUN_COUNTS, counts, strict=True))


def runs(source: Source, store: Store, row: ExperimentRow, query: Mapping[str, str]) -> dict[str, Any]:
    """Runs of an experiment that a filter finds; `fields` has the columns that were asked for.

    With `cells` in the address the answer has the cells of so many of them beside, as `cells` gives them: a
    wall is drawn from one answer. Raises FilterError and UsageError.
    """
    page = Page.of(query, MOST_RUNS)
    asked = Query(target="run", where=page.where, sort=page.sort, experiment=row.id)
    part, told = page.part(source.find(store, asked))
    by_id = {run.id: run for run in reading.runs(store, row.id, only=part)}
    there = [by_id[id] for id in part if id in by_id]
    found = [_shorter(one) for one in of_cli.runs_as_dicts(store, row, there)]
    if page.columns:
        ids = [run.id for run in there]
        fields = _rows(store, "run", ids, page.columns, page.columns)
        found = [{**one, "fields": of} for one, of in zip(found, fields, strict=True)]
    if num_cells := number(query, "cells", 0):
        told |= _cells(store, [run.id for run in there[:num_cells]], query)
    return {**told, "runs": found}


def values(source: Source, store: Store, row: ExperimentRow, name: str) -> dict[str, Any]:
    """One field of all runs of an experiment, run by run. Raises UsageError for what is no field of runs."""
    ids = source.find(store, Query(target="run", experiment=row.id))
    found = _rows(store, "run", ids, [name], ["value"])
    return {"field": name, "runs": ids, "values": [one["value"] for one in found]}


def _shorter(run: dict[str, Any]) -> dict[str, Any]:
    return {**run, "prompt": run["prompt"][:PROMPT_LIMIT], "prompt_length": len(run["prompt"])}


def find_run(store: Store, row: ExperimentRow, id: int) -> RunRow:
    """A run of an experiment by its number. Raises NotFound."""
    found = reading.runs(store, row.id, only=[id])
    if not found:
        raise NotFound(f"{row.name} has no run {id}.", hint="The wall lists its runs.")
    return found[0]


def run(store: Store, row: ExperimentRow, id: int) -> dict[str, Any]:
    """One run with what was said of it and how it failed before."""
    one = find_run(store, row, id)
    [found] = of_cli.runs_as_dicts(store, row, [one])
    earlier = [of_cli.failure_as_dict(failure) for failure in reading.earlier_failures(store, id)]
    steps = [step._asdict() for step in contents.interventions(store, id)]
    remarks = mark.as_dict(mark.of_run(store, one))
    return {**_shorter(found), **remarks, "earlier_failures": earlier, "interventions": steps[:MOST_STEPS]}


def steps(store: Store, row: ExperimentRow, id: int, page: Page) -> dict[str, Any]:
    """Stored steps of a run from `offset` on."""
    one = find_run(store, row, id)
    end = page.offset + page.limit
    found = [_step(step) for step in contents.invocations(store, id, page.offset, end - 1)]
    return {"total": one.num_steps, "next": end if end < one.num_steps else None, "steps": found}


def _step(step: InvocationRow) -> dict[str, Any]:
    text = step.text and step.text[:PROMPT_LIMIT]
    return of_cli.step_as_dict(step) | {"text": text, "text_length": len(step.text or "")}


def cells(store: Store, row: ExperimentRow, query: Mapping[str, str]) -> dict[str, Any]:
    """What runs put out at `step` and the `before` steps before it. Raises UsageError for too many."""
    asked = numbers(query, "runs", MOST_RUNS)
    own = [run.id for run in reading.runs(store, row.id, only=asked)]
    return _cells(store, own, query)


def _cells(store: Store, runs: Sequence[int], query: Mapping[str, str]) -> dict[str, Any]:
    before = number(query, "before", 0)
    step = None if query.get("step") == "last" else number(query, "step", 0)
    if len(runs) * (before + 1) > MOST_CELLS:
        raise UsageError(f"At most {MOST_CELLS:,} cells at once: fewer runs, or fewer steps of each.")
    found = wall.cells(store, runs, step, before)
    return {"step": step, "cells": [cell._asdict() for cell in found]}


def output(store: Store, digest: str) -> dict[str, Any]:
    """A text by its digest, and how many stored steps put it out, with the first of them."""
    total, found = wall.places(store, digest, MOST_PLACES)
    try:
        text: str | None = contents.text(store, digest)
    except NotFound:
        if not total:
            raise
        text = None
    return {
        "digest": digest, "text": text and text[:TEXT_LIMIT], "text_length": len(text or ""), "total": total,
        "places": [place._asdict() for place in found],
    }  # fmt: skip
