"""The stream of changes, one step of it at a time: what comes while a listener is being told is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from panic.view import events as of_view
from panic.view.events import Events
from panic.view.sources import Sources


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """Of no store; a listener that is left waiting hears so soon."""
    monkeypatch.setattr(of_view, "SAY_SOMETHING_S", 0.05)
    return Events(sources=Sources([]))


def told_by_hand(events: Events) -> AsyncIterator[str]:
    """A stream of states that nobody but the test looks at."""
    events._looking = asyncio.get_running_loop().create_future()
    return events._stream("")


def test_a_change_while_a_listener_is_being_told_is_told_next(events: Events) -> None:
    """It was forgotten until the next one, or for 15 seconds."""

    async def listen() -> list[str]:
        stream = told_by_hand(events)
        told = [await anext(stream)]
        events._states = {"0": "1-1"}
        told.append(await anext(stream))
        events._states = {"0": "1-2"}  # what is yielded is still on its way to the listener
        events._wake()
        told.append(await anext(stream))
        return told

    told = [one.partition("\n")[0] for one in asyncio.run(listen())]
    assert told == ["retry: 1000", "id: 0:1-1", "id: 0:1-2"]


def test_a_server_that_stops_while_a_listener_is_being_told_waits_for_none(events: Events) -> None:
    async def listen() -> None:
        stream = told_by_hand(events)
        await anext(stream)
        events._states = {"0": "1-1"}
        await anext(stream)
        events.stop()
        await asyncio.sleep(0)  # a turn of the loop, in which listeners are woken
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(listen())
