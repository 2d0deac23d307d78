"""The graph that a Rips filtration grows: points, and the edges between them, shortest first.

Of points with a small threshold only neighbours are looked for, in a tree or block by block; no matrix of all
distances is made then. What happens beyond the least radius at which one point sees all others is left out,
since nothing is born or dies there.

    graph = within(matrix, 1.5)                       # distances (n, n)
    graph = neighbours(rows, "euclidean", 0.2)        # points (n, d)
    graph = given(matrix)[0]                          # somebody else's distances, dense or sparse
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.topology.budget import refuse
from panic.topology.distances import CLOSE, TopologyError, directions, lengths_of, moderate, unmasked

_BLOCK = 2**21  # distances at a time: 16 MiB
_TREE_UP_TO = 8  # coordinates; beyond, a tree looks at nearly all pairs
_LARGEST = float(np.finfo(np.float64).max)
_ASYMMETRY = 1e-4  # of the largest distance, in a given matrix
_DIAGONAL = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Edges in order of length: `heads` < `tails` (m,) int32 and `lengths` (m,) float64."""

    num_points: int
    heads: NDArray[np.int32]
    tails: NDArray[np.int32]
    lengths: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.lengths)

    def matrix(self) -> NDArray[np.float64]:
        """Distances (n, n), inf where there is no edge."""
        matrix = np.full((self.num_points,) * 2, np.inf)
        matrix[self.heads, self.tails] = matrix[self.tails, self.heads] = self.lengths
        np.fill_diagonal(matrix, 0.0)
        return matrix

    def among(self, kept: NDArray[np.intp]) -> Graph:
        """The same of some of the points, which are numbered anew in their order."""
        number = np.full(self.num_points, -1, dtype=np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        ends = number[self.heads], number[self.tails]
        there = (ends[0] >= 0) & (ends[1] >= 0)
        return Graph(
            num_points=len(kept), heads=ends[0][there], tails=ends[1][there], lengths=self.lengths[there]
        )


def within(matrix: NDArray[np.float64], limit: float = np.inf) -> Graph:
    """Edges up to `limit` of a symmetric matrix of distances (n, n); inf is no edge."""
    from panic.topology.annotation.pairs import pairs_in_order

    heads, tails, lengths = pairs_in_order(matrix, min(limit, _LARGEST))
    return Graph(num_points=len(matrix), heads=heads, tails=tails, lengths=lengths)


def neighbours(rows: NDArray[np.float64], metric: str, limit: float, room_bytes: int = 2**62) -> Graph:
    """Edges up to a finite `limit` between points (n, d), without a matrix of all distances.

    Raises TopologyError as soon as so many are found that they need more than `room_bytes`.
    """
    if metric == "cosine":
        graph = neighbours(rows, "chordal", float(np.sqrt(2 * limit)), room_bytes)
        return replace(graph, lengths=graph.lengths**2 / 2)
    points = rows if metric == "euclidean" else directions(rows)
    if points.shape[1] <= _TREE_UP_TO and moderate(points)[1] == 0:
        from scipy.spatial import cKDTree

        tree, radius = cKDTree(points), limit * (1 + 1e-9)
        count = (int(tree.count_neighbors(tree, radius)) - len(points)) // 2
        refuse(len(points), points.shape[1], 1, room_bytes, num_edges=count)
        pairs = tree.query_pairs(radius, output_type="ndarray")
        heads, tails = pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.int32)
        lengths = lengths_of(points, heads, tails)
        short = lengths <= limit
        return _sorted(len(points), heads[short], tails[short], lengths[short])
    return _by_blocks(points, limit, room_bytes)


def _by_blocks(points: NDArray[np.float64], limit: float, room_bytes: int) -> Graph:
    points, exponent = moderate(points)
    x = points - points.mean(axis=0)
    squares = np.einsum("nd,nd->n", x, x)
    close_square = CLOSE**2 * float(squares.max(initial=0.0))
    limit = float(np.ldexp(limit, -exponent))
    farthest = np.zeros(len(x))
    found: list[tuple[NDArray[Any], ...]] = []
    height = max(_BLOCK // max(len(x), 1), 1)
    for start in range(0, len(x), height):
        stop = min(start + height, len(x))
        block = squares[start:stop, None] + squares[None, start:] - 2 * (x[start:stop] @ x[start:].T)
        np.maximum(farthest[start:stop], block.max(axis=1), out=farthest[start:stop])
        np.maximum(farthest[start:], block.max(axis=0), out=farthest[start:])
        block[np.tril_indices(stop - start)] = np.inf
        near = np.flatnonzero(block.ravel() <= max(limit**2 * (1 + 1e-9), close_square))
        i, j = np.divmod(near, block.shape[1])
        square = np.maximum(block.ravel()[near], 0.0)
        heads, tails = (i + start).astype(np.int32), (j + start).astype(np.int32)
        lengths = np.sqrt(square)
        close = square < close_square
        lengths[close] = lengths_of(points, heads[close], tails[close])
        short = lengths <= limit
        found.append((heads[short], tails[short], lengths[short]))
        refuse(len(points), points.shape[1], 1, room_bytes, num_edges=sum(len(part[0]) for part in found))
    heads, tails, lengths = (np.concatenate(part) for part in zip(*found, strict=True))
    inside = lengths <= np.sqrt(farthest.min()) * (1 + 1e-9)  # what is a little longer changes nothing
    return _sorted(len(x), heads[inside], tails[inside], np.ldexp(lengths[inside], exponent))


def given(distances: ArrayLike, limit: float = np.inf) -> tuple[Graph | NDArray[np.float64], float, str]:
    """Somebody else's distances, checked: a matrix (n, n) or a graph, and what made them symmetric.

    Dense with inf for "no edge", or a scipy sparse matrix, in which what is not stored is no edge and one
    triangle is enough. Where the two numbers of a pair differ, by up to 1e-4 of the largest, the smaller one
    is taken; the float is the largest difference, by which births and deaths may be off, the text says so.
    Raises TopologyError for what are no distances.
    """
    from scipy.sparse import issparse

    found, asymmetry, largest = (
        _given_sparse(distances, limit) if issparse(distances) else _given_dense(distances)
    )
    if asymmetry > _ASYMMETRY * largest:
        raise TopologyError(
            f"a distance matrix must be symmetric, and numbers of a pair differ by up to {asymmetry:.3g}",
            hint=f"up to {_ASYMMETRY:g} of the largest distance the smaller one is taken",
        )
    if asymmetry <= 1e-12 * largest:
        return found, 0.0, ""
    told = (
        f"the matrix is not symmetric: the smaller number of each pair was taken, up to {asymmetry:.3g} less"
    )
    return found, asymmetry, told


def _given_dense(distances: ArrayLike) -> tuple[NDArray[np.float64], float, float]:
    array = unmasked(distances)
    if array.dtype.kind not in "biuf" or array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise TopologyError(f"a distance matrix must be square, found {array.shape} of {array.dtype}")
    matrix = array.astype(np.float64)
    _check_values(matrix)
    there = np.isfinite(matrix)
    if (there != there.T).any():
        raise TopologyError(
            "a distance matrix must be symmetric: some pairs have an edge in one direction only"
        )
    largest = float(matrix.max(initial=0.0, where=there))
    if not np.abs(np.diag(matrix)).max(initial=0.0) <= _DIAGONAL * largest:
        raise TopologyError("a distance matrix must have a diagonal of zeros")
    with np.errstate(invalid="ignore"):
        asymmetry = float(np.abs(matrix - matrix.T).max(initial=0.0, where=there))
    matrix = np.minimum(matrix, matrix.T)
    np.fill_diagonal(matrix, 0.0)
    return matrix, asymmetry, largest


def _given_sparse(distances: Any, limit: float) -> tuple[Graph, float, float]:
    if distances.shape[0] != distances.shape[1]:
        raise TopologyError(f"a distance matrix must be square, found {distances.shape}")
    coo = distances.tocoo()
    row, column, value = (np.asarray(part) for part in (coo.row, coo.col, coo.data))
    value = value.astype(np.float64)
    _check_values(value)
    largest = float(value.max(initial=0.0, where=np.isfinite(value)))
    if (value[row == column] > _DIAGONAL * largest).any():
        raise TopologyError("a distance matrix must have a diagonal of zeros")
    used = (row != column) & np.isfinite(value)
    heads, tails = np.minimum(row, column)[used], np.maximum(row, column)[used]
    order = np.lexsort((value[used], tails, heads))
    heads, tails, lengths = heads[order], tails[order], value[used][order]
    starts = np.flatnonzero(np.diff(heads, prepend=-1) | np.diff(tails, prepend=-1))
    most = np.maximum.reduceat(lengths, starts) if len(starts) else lengths
    asymmetry = float((most - lengths[starts]).max(initial=0.0))
    starts = starts[lengths[starts] <= limit]
    graph = _sorted(
        distances.shape[0], heads[starts].astype(np.int32), tails[starts].astype(np.int32), lengths[starts]
    )
    return graph, asymmetry, largest


def _check_values(values: NDArray[np.float64]) -> None:
    if np.isnan(values).any():
        raise TopologyError("a distance matrix must not hold NaN", hint="inf means that there is no edge")
    if (values < 0).any():
        raise TopologyError("a distance matrix must not hold negative numbers")


def _sorted(num_points: int, heads: Any, tails: Any, lengths: Any) -> Graph:
    order = np.argsort(lengths)
    return Graph(num_points=num_points, heads=heads[order], tails=tails[order], lengths=lengths[order])
