"""`panic help TOPIC`: what no single command's help has room for, in texts of a screen or two.

panic help configs; panic help filters
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated

import typer

from panic.cli.common import Shared, command, say
from panic.errors import UsageError, nearest

TOPICS = {
    "configs": "what a config says, and where values come from",
    "filters": "--where, --sort and --columns",
    "stores": "where results are, how to copy, move and join them",
    "models": "which models there are, variants, models of your own",
    "clusters": "several devices, several machines, batch systems",
    "guarantees": "what holds after a kill, and what makes results equal",
}
"""The topics; each is a text of this name in the folder help."""


def complete_topic(incomplete: str) -> list[str]:
    """The topics, for the shell."""
    return [name for name in TOPICS if name.startswith(incomplete)]


@command
def help_(
    shared: Shared,
    topic: Annotated[
        str | None,
        typer.Argument(metavar="TOPIC", help=f"One of {', '.join(TOPICS)}.", autocompletion=complete_topic),
    ] = None,
) -> None:
    """Explain a topic; without one, list them. `panic COMMAND --help` explains a command."""
    if topic is None:
        width = max(map(len, TOPICS))
        return say("\n".join(f"{name:<{width}}  {about}" for name, about in TOPICS.items()))
    if topic not in TOPICS:
        from panic.cli.app import COMMANDS

        if topic in COMMANDS:
            raise UsageError(f"{topic} is a command.", hint=f"panic {topic} --help explains it.")
        near = nearest(topic, [*TOPICS, *COMMANDS])
        there_are = f"There are {', '.join(TOPICS)}."
        raise UsageError(
            f"There is no topic {topic!r}.", hint=f"Did you mean {near[0]}?" if near else there_are
        )
    return say(resources.files("panic.cli").joinpath("help", f"{topic}.txt").read_text("utf-8").rstrip())
