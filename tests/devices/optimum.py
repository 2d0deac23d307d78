"""Offline optima: the fewest bytes that a cyclic order of work can move, to compare a cache with.

Every pair of successive uses of a model leaves a gap in which its weights may stay. Choosing what stays is
interval packing on a circle: at every step, what is kept over it, the active model and its working memory
fit the capacity. In fractions a linear program; with whole models an integer one (both by HiGHS).

    least_bytes([Use("a"), Use("b")], {"a": 15, "b": 15}, capacity_bytes=20) -> 20.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from panic.devices.planning import Use
from panic.errors import ModelDoesNotFit


def least_bytes(
    cycle: Sequence[Use],
    sizes: Mapping[str, int],
    capacity_bytes: int,
    *,
    whole: bool = False,
    num_cycles: int = 1,
) -> float:
    """Bytes moved per cycle in the best steady state.

    Args:
        whole: models stay as a whole or not at all.
        num_cycles: whole models may do better with a pattern that repeats after several cycles only;
            fractions cannot (the average of such a pattern over its cycles is as good).
    Raises: ModelDoesNotFit if a use alone exceeds the capacity.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import lil_array

    uses = list(cycle) * num_cycles
    room = np.array([capacity_bytes - sizes[use.model] - use.working_bytes for use in uses], dtype=float)
    if room.min() < 0:
        worst = uses[int(room.argmin())].model
        raise ModelDoesNotFit(f"{worst} alone exceeds the capacity by {-room.min():.0f} B")
    gaps = [_gap(uses, start) for start in range(len(uses))]
    weights = np.array([sizes[use.model] for use in uses], dtype=float)
    spans = lil_array((len(uses), len(gaps)))
    for column, steps in enumerate(gaps):
        for step in steps:
            spans[step, column] = weights[column] / capacity_bytes
    solved = milp(
        c=-weights / capacity_bytes,
        constraints=LinearConstraint(spans.tocsr(), ub=room / capacity_bytes),
        bounds=Bounds(0, 1),
        integrality=np.full(len(gaps), int(whole)),
    )
    assert solved.success, solved.message
    kept = np.asarray(solved.x)
    return float((weights * (1 - kept)).sum() / num_cycles)


def _gap(uses: Sequence[Use], start: int) -> list[int]:
    """The steps strictly between a use and the next one of the same model, around the circle."""
    steps: list[int] = []
    position = (start + 1) % len(uses)
    while uses[position].model != uses[start].model:
        steps.append(position)
        position = (position + 1) % len(uses)
    return steps
