"""Whether interventions fit: they take what is about to be the input of their step, and give what the model
of that step takes.

Of an intervention that comes again every step is looked at until its phase in the network has come round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from panic.arms import Arm, Intervention, due, model_at
from panic.config.problems import KeyPath, Problem
from panic.errors import PanicError
from panic.models.protocol import Modality, ModelSpec

Get = Callable[[str], ModelSpec | PanicError]
Given = set[Modality]
"""What is given or taken; empty where that is not known."""
MOST_STEPS = 10_000
"""Steps of an intervention that are looked at, at most: phases may come round late."""


def misfits(
    get: Get,
    network: Sequence[str],
    numbered: Sequence[tuple[int, Intervention]],
    begins: Given,
    path: KeyPath,
) -> Iterator[Problem]:
    """The first intervention of an arm that does not fit into a network, if there is one.

    Args:
        get: gives the spec of a model, or why it has none.
        numbered: the interventions with their places in the arm, which is at `path` in the config.
        begins: what prompts are.
    """
    arm = tuple(one for _, one in numbered)
    places = {id(one): (*path, place, one.kind) for place, one in numbered}
    for step in _steps(network, arm):
        given = begins if step == 0 else _gives(get, model_at(network, arm, step - 1))
        last = path
        for one in due(arm, step):
            last = places[id(one)]
            if problem := _misfit(get, one, given):
                message = f"before step {step} of {' → '.join(network)} {problem}"
                yield Problem(last, message, hint=_fitting_start(get, network, arm, one))
                return
            given = _after(get, one, given)
        model = model_at(network, arm, step)
        if (takes := _takes(get, model)) and not given <= takes:
            message = f"{_named(given)} comes of it, and step {step} is {model}, which takes {_named(takes)}"
            yield Problem(last, message)
            return


def _steps(network: Sequence[str], arm: Arm) -> list[int]:
    """The steps before which something is made, until all phases have been seen."""
    lengths = [len(network), *(len(one.value) for one in arm if one.kind == "network")]
    round_ = math.lcm(*lengths, *(one.every for one in arm if one.every is not None))
    end = max((one.first for one in arm), default=0) + round_
    found = {one.first for one in arm}
    for one in arm:
        found.update(range(one.first, end, one.every)[:MOST_STEPS] if one.every is not None else ())
    return sorted(found)


def _misfit(get: Get, one: Intervention, given: Given) -> str:
    """Why an intervention cannot take what is given, or nothing."""
    if one.kind == "text":
        takes, what = {Modality.TEXT}, "a text replaces a text"
    elif one.kind == "noise":
        takes, what = {Modality.IMAGE}, "noise is added to an image"
    else:
        name = one.value[0] if one.kind == "network" else one.model
        takes = _takes(get, name)
        what = f"{name} takes {_named(takes)}"
    return f"there is {_named(given)}, and {what}" if takes and not given <= takes else ""


def _after(get: Get, one: Intervention, given: Given) -> Given:
    """What an intervention gives."""
    if one.kind == "model":
        return _gives(get, one.model)
    return {Modality.TEXT} if one.kind == "text" else given


def _fitting_start(get: Get, network: Sequence[str], arm: Arm, one: Intervention) -> str:
    """The hint of another first step, near the one that is said, at which an intervention would fit."""
    others = tuple(other for other in arm if other is not one)
    for first in range(one.first + 1, one.first + 1 + len(network)):
        moved = one._replace(first=first)
        steps = [step for step in _steps(network, (moved,)) if step >= first]
        kinds = [_gives(get, model_at(network, others, step - 1)) for step in steps]
        if all(given and not _misfit(get, one, given) for given in kinds):
            return f"at: {first}{f', every: {one.every}' if one.every else ''} would fit"
    return ""


def _gives(get: Get, name: str) -> Given:
    spec = get(name)
    return {spec.modality_out} if isinstance(spec, ModelSpec) and not spec.unread else set()


def _takes(get: Get, name: str) -> Given:
    spec = get(name)
    return set(spec.modalities_in) if isinstance(spec, ModelSpec) and not spec.unread else set()


def _named(kinds: Given) -> str:
    """Modalities in words, as in "a text or an image"."""
    return " or ".join(f"{'an' if kind is Modality.IMAGE else 'a'} {kind}" for kind in sorted(kinds))
