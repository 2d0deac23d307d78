"""Our own back end against gudhi's Ripser, bar by bar: where lengths tie, where many classes live at once."""

from __future__ import annotations

import getpass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist, squareform

from panic.topology import TopologyError
from panic.topology.annotation import annotated
from panic.topology.annotation.bits import count, insert, lowest, remove, take, unite, youngest
from panic.topology.annotation.collapse import collapse
from panic.topology.backends import persistence
from panic.topology.graph import Graph, within
from tests.topology.test_backends import attractors, in_a_new_process, walk
from tests.topology.test_diagram import circle, cloud


def matrix_of(points: np.ndarray) -> np.ndarray:
    return squareform(pdist(points.astype(np.float64)))


def all_edges(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    graph: Graph = within(matrix)
    return graph.heads, graph.tails


def circles(num: int, points: int) -> np.ndarray:
    """Circles far from each other: as many loops alive at the same time."""
    return np.vstack([circle(points) + np.array([10 * i, 0]) for i in range(num)])


def assert_same(matrix: np.ndarray, dimension: int, threshold: float = np.inf) -> None:
    want, _ = persistence(matrix, dimension, backend="collapse", threshold=threshold)
    found, _ = persistence(matrix, dimension, backend="annotation", threshold=threshold)
    for k in range(dimension + 1):
        np.testing.assert_array_equal(found[k], want[k])


CLOUDS = {
    "walk": walk(90), "stuck": attractors(90), "noise": cloud(40, 16), "plane": cloud(70, 2),
    "sphere": cloud(60, 3) / np.linalg.norm(cloud(60, 3), axis=1, keepdims=True),
    "65 points": cloud(65, 5), "64 points": cloud(64, 5), "150 points": attractors(150),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_bars_are_those_of_ripser_to_the_bit(name, dimension):
    assert_same(matrix_of(CLOUDS[name]), dimension)


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.2])
def test_bars_up_to_a_threshold_are_those_of_ripser(threshold):
    matrix = matrix_of(attractors(60))
    for dimension in (0, 1, 2):
        assert_same(matrix, dimension, threshold * float(np.median(matrix)))


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 12), st.just(2)), elements=st.integers(0, 4), unique=False),
    st.integers(1, 2),
)
def test_bars_of_grids_where_most_lengths_tie(points, dimension):
    points = np.unique(points, axis=0)
    if len(points) > 1:
        assert_same(matrix_of(points), dimension)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 14))
def test_bars_of_matrices_that_are_no_distances(seed, n):
    """Without the triangle inequality the order of the edges is any order; 5 lengths make ties."""
    half = np.triu(np.random.default_rng(seed).integers(1, 6, (n, n)).astype(float), 1)
    for dimension in (1, 2):
        assert_same(half + half.T, dimension)


def test_more_loops_at_once_than_a_word_has_bits():
    points = circles(70, 6)
    found, _ = persistence(matrix_of(points), 1, backend="annotation")
    loops = found[1][np.isclose(found[1][:, 0], 1.0)]
    assert len(loops) == 70
    np.testing.assert_allclose(loops[:, 1], np.sqrt(3))


def test_more_cavities_at_once_than_a_word_has_bits():
    octahedron = np.vstack([np.eye(3), -np.eye(3)])
    points = np.vstack([octahedron + np.array([10 * i, 0, 0]) for i in range(66)])
    found, _ = persistence(matrix_of(points), 2, backend="annotation", threshold=3.0)
    np.testing.assert_allclose(found[2], np.tile([np.sqrt(2), 2.0], (66, 1)))


@pytest.mark.parametrize("seed", [0, 1])
def test_sums_of_classes_that_span_several_words(seed):
    """Hundreds of loops of a jittered grid are alive at once, and one that dies is a sum of many of them.

    Circles far from each other never show whether all words of a sum are told.
    """
    grid = np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0)), -1).reshape(-1, 2)
    matrix = matrix_of(grid + np.random.default_rng(seed).uniform(-0.1, 0.1, grid.shape))
    assert_same(matrix, 1)
    assert_same(matrix, 2, threshold=1.6)


def test_thousands_of_loops_alive_at_once():
    """More than 1,008 once were left to a back end that took 9 s for this cloud."""
    points = np.random.default_rng(0).normal(size=(300, 700))
    matrix = matrix_of(points / np.linalg.norm(points, axis=1, keepdims=True))
    found = annotated(within(matrix), 1)
    assert len(found[1]) == 1727
    half = matrix[:150, :150]
    assert_same(half, 1)


def test_what_it_cannot_do_is_refused_with_the_reason():
    graph = within(matrix_of(circles(70, 6)))
    with pytest.raises(TopologyError, match="up to dimension 2, 3 was asked for"):
        annotated(graph, 3)
    with pytest.raises(TopologyError, match="up to dimension 2, 3 was asked for"):
        persistence(matrix_of(cloud(5, 2)), 3, backend="annotation")
    with pytest.raises(TopologyError, match=r"8 x 256 bytes for 64 loops"):
        annotated(graph, 1, room_bytes=8 * 255)  # room for 128 loops, of which 70 are alive at once
    assert len(annotated(graph, 1, room_bytes=8 * 256)[1]) == 70
    with pytest.raises(TopologyError, match=r"10 steps.*not all of .* edges"):
        annotated(graph, 1, most_steps=10)


def test_steps_of_collapsing_are_counted():
    """They once were free: most of the work on a walk in dimension 2 is collapsing it."""
    graph = within(matrix_of(walk(90)))
    taken = collapse(90, graph.heads, graph.tails, 10**9)[3]
    assert len(graph) * 4 < taken < 10**9  # two blocks of 64 points, looked at twice, and what is dominated
    assert len(annotated(graph, 2, most_steps=2 * taken)[0]) == 90
    with pytest.raises(TopologyError, match=r"of work .*; [\d,]+ of [\d,]+ edges were collapsed"):
        annotated(graph, 2, most_steps=taken - 1)


@pytest.mark.parametrize("spread", [0.0, 1e-13, 1e-11, 1e-3])
def test_edges_of_nearly_the_same_length_are_in_order(spread):
    """Where their leading bits are equal it is the lost ones that tell."""
    half = np.triu(1 + spread * np.random.default_rng(0).random((120, 120)), 1)
    matrix = half + half.T
    graph = within(matrix)
    assert (np.diff(graph.lengths) >= 0).all()
    np.testing.assert_array_equal(matrix[graph.heads, graph.tails], graph.lengths)
    pairs = 120 * graph.heads.astype(int) + graph.tails
    assert len(np.unique(pairs)) == len(pairs) == np.count_nonzero(np.triu(matrix <= graph.lengths[-1], 1))


def test_edges_are_in_order_and_not_longer_than_the_limit():
    matrix = matrix_of(cloud(300, 3))
    graph = within(matrix, 1.5)
    assert (graph.heads < graph.tails).all()
    np.testing.assert_array_equal(matrix[graph.heads, graph.tails], graph.lengths)
    assert (np.diff(graph.lengths) >= 0).all()
    assert len(graph) == np.count_nonzero(np.triu(matrix <= 1.5, 1))


def test_collapsing_a_full_simplex_leaves_a_tree():
    """All points of a line see each other through their neighbours."""
    matrix = matrix_of(np.arange(9.0)[:, None])
    heads, tails = all_edges(matrix)
    stays, comes, num_done, _ = collapse(9, heads, tails, 10**6)
    assert num_done == len(heads)
    assert sorted(zip(heads[stays].tolist(), tails[stays].tolist(), strict=True)) == [
        (i, i + 1) for i in range(8)
    ]
    np.testing.assert_array_equal(np.sort(stays), np.sort(comes))


def test_sets_of_bits():
    members = np.zeros(2, np.uint64)
    for place in (100, 3, 63):
        insert(members, place)
    remove(members, 63)
    assert [take(members), take(members), take(members)] == [3, 100, -1]
    insert(members, 5)
    insert(members, 70)
    born = np.arange(128)[::-1].copy()
    assert youngest(members, born) == 5
    parent = np.arange(4)
    assert [unite(parent, 0, 1), unite(parent, 2, 3), unite(parent, 1, 3), unite(parent, 0, 2)] == [
        1,
        1,
        1,
        0,
    ]
    from numba import njit

    word = np.uint64(0b10110000)
    assert njit(lambda bits: (lowest(bits), count(bits)))(word) == (4, 3)


def test_importing_topology_compiles_nothing_and_touches_no_file(tmp_path):
    """Importing the kernels once made a folder, and changed numba's configuration for a moment."""
    code = """
        import numba
        numba.config.CACHE_DIR = before = numba.config.CACHE_DIR
        import panic.topology.annotation.collapse, panic.topology.annotation.loops
        import panic.topology.annotation.cavities as cavities
        assert not cavities.cavities.signatures
        assert numba.config.CACHE_DIR == before
    """
    in_a_new_process(code, XDG_CACHE_HOME=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_who_only_plans_does_not_wait_for_numba():
    """Importing it was half of the time of `panic run --dry-run`."""
    code = """
        import sys
        from panic.topology import Budget, estimate
        assert estimate(10, 100, 384, 1).most_s > 0 and Budget().steps > 0
        import panic.engine.pool, panic.engine.preview, panic.engine.stages
        print(sorted({"numba", "scipy", "torch"} & {name.split(".")[0] for name in sys.modules}))
    """
    assert in_a_new_process(code) == "[]\n"


def test_kernels_are_kept_in_the_users_cache_and_used_by_the_next_process(tmp_path):
    code = """
        from panic.topology.annotation import bits, compiling
        print(compiling.keep())
        import numpy as np
        bits.clear(np.zeros(2, np.uint64))
        print(sum(bits.clear.stats.cache_hits.values()))
    """
    folder, hits = in_a_new_process(code, XDG_CACHE_HOME=str(tmp_path)).split()
    assert (Path(folder).parent, hits) == (tmp_path / "panic", "0")
    assert len(list(Path(folder).glob("*.nbc"))) == 1
    assert in_a_new_process(code, XDG_CACHE_HOME=str(tmp_path)).split() == [folder, "1"]


def test_prepare_compiles_all_that_a_diagram_calls():
    code = """
        from panic.topology import diagram, prepare
        assert prepare() is not None
        from panic.topology.annotation import cavities, collapse, loops, pairs
        kernels = [loops.components, loops.loops, collapse.collapse, cavities.cavities,
                   pairs._centred, pairs._distances, pairs._keys, pairs._edges]
        before = [len(kernel.signatures) for kernel in kernels]
        assert all(before), before
        import numpy as np
        points = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
        read_only = points.astype(np.float64)
        read_only.flags.writeable = False
        diagram(np.frombuffer(points.tobytes(), np.float32).reshape(60, 5)), diagram(read_only)
        for dimension in (0, 1, 2):
            diagram(points, max_dimension=dimension)
            diagram(points, max_dimension=dimension, threshold=2.5)
        assert before == [len(kernel.signatures) for kernel in kernels]
    """
    in_a_new_process(code)


def test_where_nothing_can_be_kept_kernels_are_compiled_and_it_is_told(tmp_path):
    """A file where the folders should be; permissions do not stop root."""
    (tmp_path / "panic").touch()
    (tmp_path / f"panic-{getpass.getuser()}").touch()
    code = """
        from panic.topology.annotation import bits, compiling
        print(compiling.keep())
        import numpy as np
        members = np.ones(1, np.uint64)
        bits.clear(members)
        print(members[0])
    """
    told = in_a_new_process(code, XDG_CACHE_HOME=str(tmp_path), TMPDIR=str(tmp_path))
    assert told.split()[:2] == ["None", "0"]
    assert "every process compiles anew" in told


def test_where_the_users_cache_cannot_be_written_a_folder_of_temporary_files_serves(tmp_path):
    (tmp_path / "panic").touch()
    code = "from panic.topology.annotation import compiling; print(compiling.keep())"
    found = in_a_new_process(code, XDG_CACHE_HOME=str(tmp_path), TMPDIR=str(tmp_path)).strip()
    assert Path(found).parent == tmp_path / f"panic-{getpass.getuser()}"
    assert Path(found).parent.stat().st_mode & 0o077 == 0
