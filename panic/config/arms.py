"""What a config says about arms: interventions, which step into runs before some of their steps.

What they mean is in `panic.arms`; which models fit at their steps is checked with the models.

    arms:
      baseline: []
      shock: [{at: 20, model: shuffle-words}]       # once, before step 20
      noisy: [{at: 11, every: 10, noise: 0.05}]     # before steps 11, 21, ...; without `at` from `every` on
      swap: [{at: 40, text: a lighthouse}]
      branch: [{at: 30, network: [sd-turbo, blip-base]}]
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from panic.arms import BASELINE, KINDS, Intervention, arm_of, models_of
from panic.config.fields import MAX_COUNT, Count, Part, Text, Whole
from panic.config.problems import Problem

ARM_DIGITS = 8
BRANCH = re.compile(rf"rerun-[0-9]+-[0-9a-f]{{{ARM_DIGITS}}}\Z")


class InterventionSettings(Part):
    """What steps in before a step, or every so many steps: one of a model, noise, a text, a network."""

    at: Annotated[
        Whole | None, Field(ge=0, le=MAX_COUNT, description="the step before which it is made first")
    ] = None
    every: Annotated[Count | None, Field(description="it is made again after so many steps")] = None
    model: Annotated[Text | None, Field(description="its output becomes the input")] = None
    noise: Annotated[
        float | None,
        Field(gt=0, le=1, description="standard deviation of noise on an image, as a share of 255"),
    ] = None
    text: Annotated[Text | None, Field(description="becomes the input")] = None
    network: Annotated[
        list[Text] | None, Field(min_length=1, description="goes on in place of the run's network")
    ] = None

    @property
    def intervention(self) -> Intervention:
        """What it means."""
        return arm_of([self.model_dump()])[0]


def branch_name(arm: str, entries: Sequence[InterventionSettings]) -> str:
    """The name that `panic rerun --set` gives to a branch of failed runs of an arm.

    The same branch has the same name, so that the same command goes on with it, and is told from arms of the
    user's by it: a new field of InterventionSettings must not change the digests of stored branches.
    """
    said = json.dumps([entry.model_dump(mode="json") for entry in entries], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:ARM_DIGITS]
    return f"{'' if arm == BASELINE else f'{arm}-'}rerun-{entries[-1].at}-{digest}"


def arms_of_all(arms: Mapping[str, Any]) -> list[str]:
    """Those of named arms that all runs have, else the baseline: branches of failed runs are none of them.

    A branch is what is called as `branch_name` says; an arm of the user's whose name only looks so is none.
    """
    return [name for name, entries in arms.items() if not _is_branch(name, entries)] or [BASELINE]


def _is_branch(name: str, entries: Any) -> bool:
    found = BRANCH.search(name)
    if found is None or not isinstance(entries, list) or not entries:
        return False
    try:
        read = [InterventionSettings.model_validate(entry) for entry in entries]
    except ValueError:
        return False
    return branch_name(BASELINE, read) == found[0]


def arm_problems(raw: Mapping[str, Any]) -> list[Problem]:
    """Return the mistakes in the arms of a raw config that no single field shows."""
    given = raw.get("arms")
    found: list[Problem] = []
    for name, entries in given.items() if isinstance(given, Mapping) else ():
        if not isinstance(entries, list):
            continue
        if name == BASELINE and entries:
            hint = "give the interventions another name"
            message = f"{BASELINE} is the arm without interventions"
            found.append(Problem(("arms", name), message, hint=hint, on_key=True))
        elif name != BASELINE and not entries:
            message = f"the arm {name} has no interventions: its runs would be copies of the {BASELINE}"
            found.append(Problem(("arms", name), message, on_key=True))
        for place, entry in enumerate(entries):
            if isinstance(entry, Mapping):
                message = _intervention_problem(entry)
                found += [Problem(("arms", name, place), message)] if message else []
    return found


def _intervention_problem(entry: Mapping[str, Any]) -> str:
    """What is wrong with the keys of an intervention, or nothing; unknown keys are told elsewhere."""
    if any(key not in InterventionSettings.model_fields for key in entry):
        return ""
    kinds = [kind for kind in KINDS if entry.get(kind) is not None]
    if len(kinds) != 1:
        found = f", and has {' and '.join(kinds)}" if kinds else ""
        return f"an intervention has one of the keys {', '.join(KINDS)}{found}"
    if entry.get("at") is None and entry.get("every") is None:
        return "an intervention says when it is made: at: STEP, or every: N"
    if kinds == ["network"] and entry.get("every") is not None:
        return "another network takes over once: at: STEP"
    return ""


def raw_arms(raw: Mapping[str, Any]) -> dict[str, tuple[tuple[int, Intervention], ...]]:
    """The arms of a raw config as far as they have the right form, with the place of each intervention."""
    given = raw.get("arms")
    return {
        str(name): tuple((place, one) for place, entry in enumerate(entries) for one in _interventions(entry))
        for name, entries in (given.items() if isinstance(given, Mapping) else ())
        if isinstance(entries, list)
    }


def _interventions(entry: Any) -> list[Intervention]:
    """The intervention that an entry of an arm is; none where it has not the right form."""
    if not isinstance(entry, Mapping) or _intervention_problem(entry):
        return []
    try:
        return [InterventionSettings.model_validate(entry).intervention]
    except ValueError:
        return []


def named_models(raw: Mapping[str, Any]) -> list[str]:
    """The models that the arms of a raw config name, each once, as far as they have the right form."""
    arms = (tuple(one for _, one in arm) for arm in raw_arms(raw).values())
    return list(dict.fromkeys(name for arm in arms for name in models_of((), arm)))
