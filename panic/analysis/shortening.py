"""The beginning of a text, for where there is room for a line of it.

shorten("a  red\ncircle", 8)                         # "a red c…"
"""

from __future__ import annotations

import re


def shorten(text: str, length: int = 60) -> str:
    """A text on one line, cut with an ellipsis where that has more than `length` characters.

    What lies beyond is not read: a text of megabytes takes no longer. `textwrap.shorten` splits all of it.
    """
    line = ""
    for word in re.finditer(rf"(?<!\S)\S{{1,{length + 1}}}", text):
        line = f"{line} {word[0]}" if line else word[0]
        if len(line) > length:
            return line[: length - 1].rstrip() + "…"
    return line
