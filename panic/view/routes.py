"""The addresses of the server: pages, JSON, images, events, and the few things that write.

Every answer in JSON is described by `openapi.json`. Errors are {"error": ..., "hint": ...}.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from panic import __version__
from panic.cli import status as of_cli
from panic.errors import NotFound, PanicError, StoreError, UsageError
from panic.store.codec import told_json
from panic.view import records, shards, sides, tiles, trainings, writing
from panic.view.context import Context, opened
from panic.view.motion import motion
from panic.view.script import page_script
from panic.view.sources import Source, Sources
from panic.view.tiles import Endpoint
from panic.view.work import work

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


Answer = Callable[[Context, Request], Any]
Asked = tuple[Source, str, dict[str, Any]]
"""A store whose process is asked, the state of all that the answer rests on, and the question."""
Asking = Callable[[Context, Request], Asked]


def routes(context: Context) -> list[BaseRoute]:
    """All addresses."""
    one = "/api/1/stores/{store}/experiments/{experiment}"
    answers: dict[str, Answer] = {
        "/api/1/session": _session,
        "/api/1/stores": _stores,
        "/api/1/stores/{store}/experiments": _experiments,
        one: _experiment,
        f"{one}/status": _status,
        f"{one}/runs": _runs,
        f"{one}/runs/{{run:int}}": _run,
        f"{one}/runs/{{run:int}}/steps": _steps,
        f"{one}/runs/{{run:int}}/motion": _motion,
        f"{one}/cells": _cells,
        f"{one}/values/{{field}}": _values,
        f"{one}/work": _work,
        "/api/1/shards/{stores}/experiments/{experiment}/turns": shards.turns,
        "/api/1/shards/{stores}/experiments/{experiment}/counts": shards.counts,
        "/api/1/trainings": _trainings,
        "/api/1/trainings/{training}": _training,
        "/api/1/trainings/{training}/samples/{step:int}": _sample,
        "/api/1/stores/{store}/outputs/{digest}": _output,
    }
    images: dict[str, Answer] = {
        "/api/1/stores/{store}/tiles/{digest}": tiles.tile,
        "/api/1/stores/{store}/thumbnails/{side:int}/{digest}": tiles.thumbnail,
    }
    found: list[BaseRoute] = [Route(path, _answering(context, make)) for path, make in answers.items()]
    turns = asyncio.Semaphore(tiles.IMAGES_AT_ONCE)
    found += [Route(path, tiles.in_turn(turns, _answering(context, make))) for path, make in images.items()]
    pack = partial(tiles.pack, turns)
    found.append(Route("/api/1/stores/{store}/thumbnails/{side:int}", _answering(context, pack)))
    found += [
        Route(path, _answering(context, make), methods=["POST"])
        for path, make in {
            "/api/1/stores/{store}/remarks": writing.remark,
            f"{one}/stop": writing.stop,
        }.items()
    ]
    found += [
        Route(f"{one}/questions", _computing(context, _of_experiment(_asked_list))),
        Route(f"{one}/questions/{{question}}", _computing(context, _of_experiment(_asked_question))),
        Route(f"{one}/map", _computing(context, _of_experiment(_asked_map))),
        Route("/api/1/side", _computing(context, sides.asked)),
        Route("/api/1/events", context.events.answer),
        Route("/static/vega.js", _library(context)),
    ]
    pages = page_files()
    found += [Route(path, _file(name, data)) for path, (name, data) in pages.items()]
    return found


def page_files() -> dict[str, tuple[str, bytes]]:
    """What the browser runs, by address, with its name: pages/, its modules in one, and the description."""
    package = files(__package__)
    found = {
        "/api/1/openapi.json": ("openapi.json", package.joinpath("openapi.json").read_bytes()),
        "/static/page.js": ("page.js", page_script().encode()),
    }
    for one in package.joinpath("pages").iterdir():
        if one.name.rpartition(".")[2] in TYPES and not one.name.endswith(".js"):
            path = "/" if one.name == "index.html" else f"/static/{one.name}"
            found[path] = one.name, one.read_bytes()
    return found


def _file(name: str, data: bytes) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        headers = {"cache-control": "no-store" if name == "index.html" else "no-cache"}
        return Response(data, media_type=TYPES[name.rpartition(".")[2]], headers=headers)

    return answer


def _answering(context: Context, make: Answer) -> Endpoint:
    """An endpoint that makes its answer in a thread and tells errors as JSON."""

    async def answer(request: Request) -> Response:
        try:
            if request.method == "POST":
                await request.body()  # kept with the request, for whoever reads it in the thread
            found = await run_in_threadpool(make, context, request)
        except PanicError as error:
            return failed(context.sources, error)
        return found if isinstance(found, Response) else _told(found)

    return answer


def _told(found: Any) -> Response:
    text = told_json(found, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(), media_type="application/json")


def failed(sources: Sources, error: PanicError) -> JSONResponse:
    """Return the answer that tells an error, without the folders of stores."""
    status = 400 if isinstance(error, UsageError) else 500
    if isinstance(error, NotFound):
        status = 404
    elif isinstance(error, StoreError):
        status = 503
    said = {"error": error.message, "hint": error.hint}
    for source in sources.all:
        for path in (str(source.path.resolve()), str(source.path)):
            if len(path) > 1:
                said = {key: text.replace(path, source.name) for key, text in said.items()}
    return JSONResponse(said, status)


def _session(context: Context, request: Request) -> Mapping[str, Any]:
    access = context.access
    write = access.write_value(request.state.session) if access.is_writable else None
    return {"version": __version__, "write": write}


def _stores(context: Context, request: Request) -> Mapping[str, Any]:
    found = []
    for source in context.sources.all:
        try:
            state, problem = source.state(), ""
        except PanicError as error:
            state, problem = "", error.message.replace(str(source.path), source.name)
        found.append({"store": source.key, "name": source.name, "state": state, "problem": problem})
    return {"stores": found}


def _experiments(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (source, store, _):
        return records.experiments(source, store, records.Page.of(request.query_params, 200))


def _experiment(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (_, store, row):
        return records.experiment(store, row)


def _status(context: Context, request: Request) -> Mapping[str, Any]:
    def make() -> dict[str, Any]:
        with opened(context, request) as (_, store, row):
            return {**of_cli.as_dict(store, row), "revision": store.revision}

    with opened(context, request) as (source, store, row):
        key, revision = (source.key, source.files, row.uid), store.revision
    return context.computing.status(key, revision, make)


def _runs(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (source, store, row):
        found = records.runs(source, store, row, request.query_params) | {"files": source.files}
    return tiles.beside_cells(source, found, request.query_params)


def _run(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (_, store, row):
        return records.run(store, row, request.path_params["run"])


def _steps(context: Context, request: Request) -> Mapping[str, Any]:
    page = records.Page.of(request.query_params, records.MOST_STEPS)
    with opened(context, request) as (_, store, row):
        return records.steps(store, row, request.path_params["run"], page)


def _cells(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (source, store, row):
        found = records.cells(store, row, request.query_params) | {"files": source.files}
    return tiles.beside_cells(source, found, request.query_params)


def _values(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (source, store, row):
        return records.values(source, store, row, request.path_params["field"])


def _motion(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (_, store, row):
        return motion(store, row, records.find_run(store, row, request.path_params["run"]).id)


def _work(context: Context, request: Request) -> Mapping[str, Any]:
    with opened(context, request) as (_, store, row):
        return work(store, row)


def _asked_list(request: Request) -> dict[str, str]:
    return {"kind": "list"}


def _asked_question(request: Request) -> dict[str, str]:
    return {"kind": "question", "question": request.path_params["question"]}


def _asked_map(request: Request) -> dict[str, str]:
    query = request.query_params
    method = query.get("method") or "pca"
    if method not in ("pca", "umap"):
        raise UsageError(f"A map is made by pca or umap, not {method[:40]!r}.")
    return {"kind": "map", "model": query.get("model", ""), "method": method}


def _of_experiment(read: Callable[[Request], dict[str, str]]) -> Asking:
    """What is asked of the experiment of an address, of all the stores that it names."""

    def asked(context: Context, request: Request) -> Asked:
        source, state, said = shards.asked(context, request)
        return source, state, {**said, **read(request)}

    return asked


def _computing(context: Context, read: Asking) -> Callable[[Request], Any]:
    """An endpoint whose answer the process of a store makes."""

    async def answer(request: Request) -> Response:
        try:
            source, state, asked = await run_in_threadpool(read, context, request)
            found = await context.computing.ask(source, state, asked, request.is_disconnected)
        except PanicError as error:
            return failed(context.sources, error)
        return _told(found)

    return answer


def _library(context: Context) -> Endpoint:
    """The script that draws charts, which comes with the analysis and not with the pages."""

    async def answer(request: Request) -> Response:
        try:
            found = await context.computing.library(request.is_disconnected)
        except PanicError as error:
            return failed(context.sources, error)
        return Response(found, media_type=TYPES["js"], headers={"cache-control": "no-cache"})

    return answer


def _output(context: Context, request: Request) -> Mapping[str, Any]:
    digest = tiles.digest_of(request)
    with opened(context, request) as (_, store, _row):
        return records.output(store, digest)


def _trainings(context: Context, request: Request) -> Mapping[str, Any]:
    return trainings.listed(context.trainings)


def _training(context: Context, request: Request) -> Mapping[str, Any]:
    return trainings.training(_training_folder(context, request))


def _sample(context: Context, request: Request) -> Response | Mapping[str, Any]:
    found = trainings.sample(_training_folder(context, request), request.path_params["step"])
    return {"text": found} if isinstance(found, str) else Response(found, media_type="image/png")


def _training_folder(context: Context, request: Request) -> Path:
    number = request.path_params["training"]
    if not number.isascii() or not number.isdigit() or int(number[:9]) >= len(context.trainings):
        raise NotFound(f"There is no training {number[:40]!r}.", hint="panic view --training DIR names one.")
    return context.trainings[int(number[:9])]
