"""Whether the sentence of the question is true, for the referee of a checkout: `python -m tests.referee`."""

import re

from tests.referee.rulings import Ruling


def longest_text(case):
    """The longest of so many texts, prompts among them, has so many letters."""
    texts = {*case.world.prompts, *(text for run in case.world.runs for text in run.texts)}
    told = [int(number) for number in re.findall(r"\d+", case.sentence)]
    right = told == [len(texts), max(map(len, texts))]
    yield Ruling(claim="the longest has so many letters", said=1, is_true=right)
