"""What runs are grouped by, in words: their network, and their arm if anything steps in.

course_name(run)                                     # "draw → tell · shock"
grouped_by(["draw → tell", "draw → tell · shock"])   # "arm": what these tell apart
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from panic.arms import BASELINE
from panic.store.records import RunRow

ARROW = " → "
IN_ARM = " · "
UNBROKEN = {" ·": "\u00a0·", "· ": "·\u00a0"}
"""How a dot in the name of a model or an arm is written: with spaces that do not break, which look alike."""
LONGEST_NAME = 500
"""Characters of a network's name. Charts cut longer ones, and could not tell two that begin alike apart.
A name that has more is a beginning and a digest."""


def network_name(network: tuple[str, ...] | list[str]) -> str:
    """A network as people read it; of one that nobody would read to its end, its beginning and a digest.

    So what it consists of is told by `RunRow.network` and not by its name.
    """
    name = ARROW.join(network)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}… {hashlib.sha256(name.encode()).hexdigest()[:12]}"


def course_name(run: RunRow) -> str:
    """What runs are grouped by: their network, and their arm if anything steps in.

    The only IN_ARM in it is that between the two, whatever models and arms are called.
    """
    network = _inside(network_name(run.network))
    return network if run.arm == BASELINE else f"{network}{IN_ARM}{_inside(run.arm)}"


def _inside(name: str) -> str:
    for dot, unbroken in UNBROKEN.items():
        name = name.replace(dot, unbroken)
    return name


def grouped_by(names: Iterable[str], number: int = 1) -> str:
    """What names of `course_name` tell apart: "network", "arm" or "network and arm"; or in the plural."""
    parts = [name.partition(IN_ARM) for name in names]
    networks, arms = {network for network, *_ in parts}, {arm for *_, arm in parts}
    ending = "" if number == 1 else "s"
    if len(arms) < 2:
        return f"network{ending}"
    return f"arm{ending}" if len(networks) == 1 else f"network{ending} and arm{ending}"


def untold(names: Iterable[str], told: int) -> str:
    """How many of these names a sentence does not speak of, after the first so many; "" of none."""
    found = list(dict.fromkeys(names))
    num_more = len(found) - told
    if num_more <= 0:
        return ""
    return f" {num_more:,} more {grouped_by(found, num_more)} {'is' if num_more == 1 else 'are'} not told."
