"""Which steps are meant, in words and on axes: a step is a model call; the rest counts outputs of one kind.

A cycle of two models that comes back after 16 model calls comes back after 8 texts. So a number of a step is
always told as that of a model call, from 0, and what counts texts or images says so.

    at_call(31)                     # model call 31
    between_calls(9, 11)            # model calls 9 to 11
    counted(1007, "text")           # 1,007 texts
"""

from __future__ import annotations

from typing import Any

import altair as alt

CALL = "model call of the run (step, from 0)"
WHOLE = "datum.value % 1 ? '' : format(datum.value, ',')"  # of a short axis Vega marks halves, too
STEPS = alt.Axis(grid=False, tickMinStep=1, labelExpr=WHOLE)


def call_axis(field: str = "step", title: str = CALL, **how: Any) -> alt.X:
    """A horizontal axis of steps."""
    return alt.X(f"{field}:Q", title=title, axis=STEPS, **how)


def call_tip(field: str = "step", title: str = "model call") -> alt.Tooltip:
    """The step of what is pointed at."""
    return alt.Tooltip(f"{field}:Q", title=title)


def at_call(step: float) -> str:
    """A step in a sentence."""
    return f"model call {step:,g}"


def between_calls(first: int, last: int) -> str:
    """A stretch of steps in a sentence, both ends included."""
    return at_call(first) if first == last else f"model calls {first:,} to {last:,}"


def counted(number: int, modality: str = "output") -> str:
    """So many outputs of one modality, in a sentence."""
    return f"{number:,} {modality}{'s' if number != 1 else ''}"
