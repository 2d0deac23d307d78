"""What prompts are called, so that questions can group them: tags, and the group that they are compared in.

    prompts:
      - {text: a red barn, tags: [barn], group: colour}
      - {file: prompts.csv, tags: [seen]}             # of every prompt that the entry gives

Labels change no result: a stored experiment takes new ones the next time it is performed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from panic.config.fields import Part, Text
from panic.config.problems import KeyPath, Problem


def check_tag(value: str) -> str:
    """Accept tags that can stand in a list of tags."""
    if "," in value:
        raise PydanticCustomError("comma", "must not have a comma: several tags are a list")
    return value


class PromptLabels(Part):
    """The tags and the group of a prompt."""

    tags: Annotated[
        list[Annotated[Text, AfterValidator(check_tag)]], Field(description="words that any prompts share")
    ] = []
    group: Annotated[Text | None, Field(description="the prompts that it is compared with")] = None


Labels = dict[str, PromptLabels]
"""The labels of prompts, by the prompt."""


def add_labels(labels: Labels, path: KeyPath, prompts: Iterable[str], given: PromptLabels) -> list[Problem]:
    """Add what an entry of the prompts says of those that it gives; the mistakes in it.

    A prompt that several entries give has the tags of all, and cannot be in two groups.
    """
    found: list[Problem] = []
    for prompt in prompts:
        known = labels.get(prompt, PromptLabels())
        group = given.group or known.group
        if known.group not in (None, group):
            message = f"a prompt of this entry is in the group '{known.group}' already"
            found = [Problem((*path, "group"), message, found=given.group)]
            continue
        tags = list(dict.fromkeys([*known.tags, *given.tags]))
        if tags or group:
            labels[prompt] = PromptLabels(tags=tags, group=group)
    return found
