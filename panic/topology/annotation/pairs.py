"""Which pairs of points are near each other, from a matrix of all distances."""

from __future__ import annotations

from typing import Any

import numpy as np

from panic.topology.annotation.compiling import compiled, keep


def short_pairs(matrix: Any, limit: float) -> tuple[Any, Any, Any]:
    """Ends i < j (m,) int32 of the pairs of a distance matrix (n, n) up to `limit`, and their distances."""
    keep()
    return _short_pairs(matrix, limit)


@compiled
def _short_pairs(matrix: Any, limit: float) -> tuple[Any, Any, Any]:
    size = len(matrix)
    most = size * (size - 1) // 2
    heads, tails, lengths = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most)
    found = 0
    for i in range(size):
        for j in range(i + 1, size):
            if matrix[i, j] <= limit:
                heads[found], tails[found], lengths[found] = i, j, matrix[i, j]
                found += 1
    return heads[:found], tails[:found], lengths[:found]
