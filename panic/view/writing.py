"""The few things that the pages may do: say something of an experiment or run, and ask a driver to stop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from panic.errors import UsageError
from panic.store import Store, reading, standing
from panic.store.annotations import (
    Target,
    add_tags,
    annotate,
    check_remark,
    remove_tags,
    run_target,
)
from panic.store.driver import ask_to_stop
from panic.store.signing import Author, present_author
from panic.view.context import Context
from panic.view.records import find_run

KINDS = ("tag", "untag", "label", "comment")
MOST_BYTES = 500_000


def remark(context: Context, request: Request) -> Mapping[str, Any]:
    """Add a remark: {"experiment": name, "run": number or null, "kind": one of KINDS, "text": ...}.

    Nothing is signed: a signature may need a passphrase, which nobody is there to give.
    """
    said = _body(request)
    kind, text = said.get("kind"), said.get("text")
    if kind not in KINDS or not isinstance(text, str):
        raise UsageError(f"A remark has a text and one of the kinds {', '.join(KINDS)}.")
    author = Author(name=present_author().name)
    with context.sources[request.path_params["store"]].reading() as store:
        target = _target(store, said)
        if kind == "tag":
            number = add_tags(store, [target], [text], author)
        elif kind == "untag":
            number = remove_tags(store, [target], [text], author)
        else:
            text = check_remark(kind, text)
            number = annotate(store, kind, [(target, text)], author)
    return {"added": number}


def _target(store: Store, said: Mapping[str, Any]) -> Target:
    row = reading.experiment(store, str(said.get("experiment", "")))
    if said.get("run") is None:
        return Target(kind="experiment", uid=row.uid, name=row.name)
    if not isinstance(said["run"], int):
        raise UsageError("A run is named by its number.")
    return run_target(row.name, find_run(store, row, said["run"]))


def stop(context: Context, request: Request) -> Mapping[str, Any]:
    """Ask the process that performs an experiment to stop, if there is one."""
    with context.sources[request.path_params["store"]].reading() as store:
        row = reading.experiment(store, request.path_params["experiment"])
        [session] = [standing.last_sessions(store, [row.id]).get(row.id)]
        holder = store.lock_holder
        if session is None or not session.is_alive or holder is None:
            return {"asked": None}
        ask_to_stop(store.path, holder)
        return {"asked": session.pid}


def _body(request: Request) -> Mapping[str, Any]:
    data: bytes = request._body
    if len(data) > MOST_BYTES:
        raise UsageError(f"At most {MOST_BYTES:,} bytes.")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("A JSON object is needed.")
    return found
