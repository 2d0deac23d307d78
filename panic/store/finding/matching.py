"""Regular expressions over what is in a store, under a limit of time: some take longer than anybody waits.

`regex` is the engine, since Python's own has no limit: `(a+)+b` over thirty letters takes minutes there.
"""

from __future__ import annotations

import math
import re
import time
from typing import Any

from panic.errors import UsageError

MAX_PATTERN = 1_000  # characters
MAX_REPEATS = 10_000
"""The product of all counted repeats, such as {1000}: compiling copies what is repeated so often."""
COUNTED = re.compile(r"\{(?:\d*,)?(\d+),?\}")
BUDGET_S = 1.0
"""Processor time of all matching of one query together."""
RECURSIVE = re.compile(r"(?<!\\)\(\?(?:R|&|P>|[-+]?\d)")
"""How a part that calls the pattern or a group again begins, which may take all memory before any time."""


class TooSlow(UsageError):
    """The regular expressions of a filter have used up their time."""


class Matcher:
    """Matches patterns with texts until the time of one query, which it is made for, is used up."""

    def __init__(self, budget_s: float = BUDGET_S) -> None:
        self.budget_s = budget_s
        self.left_s = budget_s
        self._compiled: dict[str, Any] = {}

    def add(self, pattern: str) -> None:
        """Compile a pattern. Raises UsageError for one that is none, or too long."""
        import regex  # 65 ms, which only filters with a pattern need

        if len(pattern) > MAX_PATTERN:
            raise UsageError(f"A regular expression has at most {MAX_PATTERN:,} characters.")
        if math.prod(max(1, int(count)) for count in COUNTED.findall(pattern)) > MAX_REPEATS:
            raise UsageError(f"Repeats within repeats of a regular expression are at most {MAX_REPEATS:,}.")
        if RECURSIVE.search(pattern):
            raise UsageError("A regular expression that calls itself, with (?R) or (?1), is not taken.")
        try:
            self._compiled[pattern] = regex.compile(pattern)
        except (regex.error, OverflowError, RecursionError) as error:
            raise UsageError(f"This is no regular expression: {error}.") from None

    def __call__(self, *asked: Any) -> bool:
        """Return whether a pattern is found anywhere in a text, the second argument; in None it is not.

        Raises TooSlow, also out of the query that asks.
        """
        pattern, text = asked
        if text is None:
            return False
        begun = time.process_time()
        try:
            if self.left_s <= 0:
                raise TimeoutError
            return self._compiled[pattern].search(str(text), timeout=self.left_s) is not None
        except TimeoutError:
            raise TooSlow(
                f"The regular expression {pattern[:60]!r} takes longer than {self.budget_s:g} s.",
                hint="`like '%word%'` is fast; in a regular expression, `(a+)+` and the like are not.",
            ) from None
        finally:
            self.left_s -= time.process_time() - begun
