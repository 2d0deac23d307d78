"""What all answers are made from, and the store that a request is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from panic.store import Store, reading
from panic.view.access import Access
from panic.view.computing import Computing
from panic.view.events import Events
from panic.view.sources import Source, Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The stores, who may ask, and what is kept between requests."""

    sources: Sources
    access: Access
    events: Events
    computing: Computing
    trainings: list[Path] = field(default_factory=list)


@contextmanager
def opened(context: Context, request: Request) -> Iterator[tuple[Source, Store, Any]]:
    """The store that an address names, its open files, and the experiment (its row), if it names one."""
    source = context.sources[request.path_params["store"]]
    with source.reading() as store:
        name = request.path_params.get("experiment")
        yield source, store, None if name is None else reading.experiment(store, name)
