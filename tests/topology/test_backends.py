"""All back ends give the same bars; what is chosen, and what is refused for its size."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from panic.topology import (
    Budget,
    TopologyError,
    bottleneck,
    diagram,
    diagrams,
    estimate_bytes,
    landmarks,
    sliding_window,
)
from panic.topology.backends import persistence
from tests.patience import LONGEST_S
from tests.topology.test_diagram import circle, cloud, octahedron


def walk(n: int, d: int = 64, angle: float = 0.2, seed: int = 0) -> np.ndarray:
    """A driftless walk on the sphere, as float32 embeddings have it."""
    rng = np.random.default_rng(seed)
    points = [np.eye(d)[0]]
    for _ in range(n - 1):
        step = rng.normal(size=d)
        step -= (step @ points[-1]) * points[-1]
        points.append(np.cos(angle) * points[-1] + np.sin(angle) * step / np.linalg.norm(step))
    return np.array(points, dtype=np.float32)


def attractors(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 32))
    return (centres[rng.integers(6, size=n)] + 0.3 * rng.normal(size=(n, 32))).astype(np.float32)


def in_a_new_process(code: str, **environment: str) -> str:
    """What a new Python process prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


CLOUDS = {
    "walk": walk(60), "stuck": attractors(50), "noise": cloud(30, 8), "sphere": cloud(40, 3),
    "pair": cloud(2), "triple": cloud(3), "octahedron": octahedron(), "circle": circle(30),
    "sorted first": attractors(160),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("backend", ["annotation", "collapse"])
@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_back_ends_agree_with_giotto(name, backend, dimension):
    if name == "sorted first" and dimension == 2:
        dimension = 1  # seconds otherwise, and nothing new
    want = diagram(CLOUDS[name], max_dimension=dimension, backend="giotto")
    found = diagram(CLOUDS[name], max_dimension=dimension, backend=backend)
    for k in range(dimension + 1):
        np.testing.assert_allclose(found.bars(k), want.bars(k), rtol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "chordal"])
def test_deaths_of_components_are_exact_to_float64(metric):
    points = walk(50)
    matrix = squareform(pdist(points.astype(np.float64), "cosine" if metric == "cosine" else "euclidean"))
    from scipy.sparse.csgraph import minimum_spanning_tree

    want = np.sort(minimum_spanning_tree(matrix).data)
    scale = np.abs(np.linalg.norm(points.astype(np.float64), axis=1) - 1).max()
    assert scale < 1e-6  # so that chordal and euclidean agree to float32
    rtol = 1e-6 if metric == "chordal" else 1e-9
    np.testing.assert_allclose(diagram(points, metric=metric).bars(0)[:-1, 1], want, rtol=rtol)


@pytest.mark.parametrize("backend", ["auto", "collapse", "giotto"])
def test_what_is_alive_at_the_threshold_stays_open(backend):
    """The circle's loop is born at 0.3129 and dies at 1.7820."""
    found = diagram(circle(20), threshold=1.0, backend=backend)
    np.testing.assert_allclose(found.bars(1), [[2 * np.sin(np.pi / 20), np.inf]], rtol=1e-6)
    assert diagram(circle(20), threshold=0.3, backend=backend).bars(1).shape == (0, 2)
    assert np.isinf(diagram(circle(20), threshold=0.3, backend=backend).bars(0)[:, 1]).all()
    whole = diagram(circle(20), threshold=1.9, backend=backend).bars(1)
    np.testing.assert_allclose(whole[0, 1], 2 * np.sin(np.pi * 7 / 20), rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan])
def test_a_threshold_is_above_zero(threshold):
    with pytest.raises(TopologyError, match="threshold"):
        diagram(circle(5), threshold=threshold)


def test_an_unknown_back_end_is_refused():
    with pytest.raises(TopologyError, match="auto, annotation, collapse, giotto"):
        diagram(circle(5), backend="dionysus")


def test_many_clouds_come_back_in_their_order():
    clouds = [walk(n, seed=n) for n in (5, 80, 1, 30, 200, 30, 0)]
    found = diagrams(clouds, workers=2, max_dimension=1)
    for points, one in zip(clouds, found, strict=True):
        assert one.num_points == len(points)
        for k in (0, 1):
            np.testing.assert_array_equal(one.bars(k), diagram(points).bars(k))
    assert diagrams([]) == []
    with pytest.raises(TopologyError, match="NaN"):
        diagrams([clouds[0], [[np.nan]]])


def test_other_threads_work_meanwhile():
    """While a diagram is computed the loop below is never kept waiting for long.

    If Python's lock were held, it would wait for the longest kernel: half of all the time.
    """
    points = attractors(1000)
    diagram(points)

    def longest_wait() -> float:
        """Of the loop, as a share of the time that the diagram takes."""
        turns, done = [time.perf_counter()], threading.Event()
        thread = threading.Thread(target=lambda: (diagram(points), done.set()))
        thread.start()
        while not done.wait(0.001):
            turns.append(time.perf_counter())
        turns.append(time.perf_counter())
        thread.join()
        return float(np.diff(turns).max()) / (turns[-1] - turns[0])

    # On a busy machine this thread may have no turn meanwhile: not each time.
    assert any(longest_wait() < 0.25 for _ in range(20))


def test_a_cloud_beyond_the_first_bound_is_collapsed_and_counted():
    """C(200, 3) columns would not fit; the walk collapses to a path without any triangle."""
    points, limit = walk(200, 768, 0.05), 8 * 2**20
    assert estimate_bytes(200, 768, 2) > limit
    found = diagram(points, max_dimension=2, budget=Budget(memory_bytes=limit))
    assert len(found.bars(0)) == 200


def test_what_is_left_after_collapsing_can_be_too_much_as_well():
    half = np.triu(np.random.default_rng(0).uniform(1, 2, (150, 150)), 1)
    how: dict[str, Any] = {"metric": "precomputed", "max_dimension": 2}
    with pytest.raises(TopologyError, match=r"for each of 10,790 edges that are left after collapsing[)]"):
        diagram(half + half.T, **how, budget=Budget(memory_bytes=3_500_000))
    with pytest.raises(TopologyError, match=r"left after collapsing, and of [\d,]+ of their triangles[)]"):
        diagram(half + half.T, **how, budget=Budget(memory_bytes=6_000_000))


def test_generators_are_refused_by_the_first_bound():
    with pytest.raises(TopologyError, match=r"C\(100, 3\)"):
        diagram(cloud(100), max_dimension=2, generators=True, budget=Budget(memory_bytes=2_000_000))


def test_three_dimensional_holes():
    """The cross-polytope of four dimensions is a 3-sphere."""
    points = np.vstack([np.eye(4), -np.eye(4)])
    for backend in ("auto", "giotto"):
        (bars, _) = persistence(squareform(pdist(points)), 3, backend=backend)
        np.testing.assert_allclose(bars[3], [[np.sqrt(2), 2.0]], rtol=1e-12 if backend == "auto" else 1e-7)


@pytest.mark.parametrize("backend", ["annotation", "collapse", "giotto"])
def test_coefficients_are_of_two_elements(backend):
    """The projective plane has a loop and a hole over Z/2, and neither over a field of odd order."""
    triangles = ["012", "023", "034", "045", "015", "124", "235", "134", "245", "135"]
    faces = [frozenset(map(int, t)) for t in triangles]
    edges = {frozenset(pair) for t in faces for pair in ((*(t - {v}),) for v in t)}
    assert all(sum(edge <= t for t in faces) == 2 for edge in edges)
    simplices = [frozenset([v]) for v in range(6)] + sorted(edges, key=sorted) + faces
    # The barycentric subdivision: simplices in one another are 1 apart, all others 2.
    matrix = np.array(
        [[0.0 if a == b else 1.0 if a < b or b < a else 2.0 for b in simplices] for a in simplices]
    )
    found = diagram(matrix, metric="precomputed", max_dimension=2, backend=backend)
    assert found.bars(1).tolist() == found.bars(2).tolist() == [[1.0, 2.0]]


def test_windows_of_a_sine_make_a_loop_and_those_of_a_line_do_not():
    t = np.linspace(0, 6 * np.pi, 120, endpoint=False)
    lengths = lambda series: np.ptp(diagram(sliding_window(series, 8, 3)).bars(1), axis=1)  # noqa: E731
    assert lengths(np.sin(t)).max() > 1.0
    assert lengths(t).size == 0


def test_windows_hold_the_values_one_delay_apart():
    assert sliding_window(np.arange(6), 3, 2).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert sliding_window(np.arange(6).reshape(3, 2), 2).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    with pytest.raises(TopologyError, match="spans 5 steps, the series has 4"):
        sliding_window(np.arange(4), 3, 2)
    with pytest.raises(TopologyError, match="1 or more"):
        sliding_window(np.arange(4), 0)


def test_landmarks_state_their_error_and_bars_keep_to_it():
    points = circle(200)
    chosen, error = landmarks(points, 25)
    assert len(set(chosen.tolist())) == 25
    assert error == pytest.approx(squareform(pdist(points))[:, chosen].min(axis=1).max(), rel=1e-12)
    (whole,), (part,) = diagram(points).bars(1), diagram(points[chosen]).bars(1)
    assert np.abs(whole - part).max() <= 2 * error
    assert landmarks(points, 1000)[1] == 0.0
    assert landmarks(np.empty((0, 2)), 3)[0].size == 0
    with pytest.raises(TopologyError, match="need a metric"):
        landmarks(points, 3, metric="cosine")


def test_a_diagram_of_landmarks_states_its_error_and_keeps_to_it():
    points = np.vstack([circle(200), circle(200)[:50]])
    whole, part = diagram(points), diagram(points, landmarks=25)
    assert (part.num_points, part.num_unique, whole.num_unique) == (250, 25, 200)
    assert part.error == pytest.approx(2 * landmarks(points, 25)[1], rel=1e-9)
    for k in (0, 1):
        assert 0 < bottleneck(whole.bars(k), part.bars(k)) <= part.error
    enough = diagram(points, landmarks=200)
    assert enough.error == whole.error == 0.0
    np.testing.assert_array_equal(enough.bars(1), whole.bars(1))


def test_generators_of_landmarks_are_rows_of_all_points():
    points = circle(60)
    found = diagram(points, landmarks=20, generators=True)
    (birth, death), (a, b, c, d) = found.bars(1)[0], found.generators[1][0]
    assert np.linalg.norm(points[a] - points[b]) == pytest.approx(birth, rel=1e-6)
    assert np.linalg.norm(points[c] - points[d]) == pytest.approx(death, rel=1e-6)


def test_landmarks_of_what_has_none_are_refused():
    with pytest.raises(TopologyError, match="need a metric"):
        diagram(circle(20), landmarks=5, metric="cosine")
    with pytest.raises(TopologyError, match="chosen from points"):
        diagram(np.zeros((2, 2)), landmarks=1, metric="precomputed")
    with pytest.raises(TopologyError, match="1 or more"):
        diagram(circle(20), landmarks=0)


def test_diagrams_work_where_neither_gudhi_nor_giotto_is_installed():
    """They are imported when a back end or generators ask for them, and then it is told which is missing."""
    code = """
        import sys
        sys.modules["gudhi"] = sys.modules["gph"] = None  # so that importing them fails
        import numpy as np
        from panic.topology import TopologyError, bottleneck, diagram
        from panic.topology import landscape, persistence_image, silhouette
        points = np.random.default_rng(0).normal(size=(40, 3))
        found = diagram(points, max_dimension=2)
        assert diagram(points, threshold=1.0).bars(0).shape == (40, 2)
        bars = found.bars(1)
        assert landscape(bars).any() and silhouette(bars).any()
        assert persistence_image(bars, bandwidth=0.1).any()
        assert bottleneck(bars, found.bars(2)) > 0
        for package, how in (("gudhi", {"backend": "collapse"}), ("gudhi", {"max_dimension": 3}),
                             ("giotto-ph", {"backend": "giotto"}), ("giotto-ph", {"generators": True})):
            try:
                diagram(points[:10], **how)
            except TopologyError as error:
                assert f"{package} is needed" in str(error), error
            else:
                raise AssertionError(how)
        """
    in_a_new_process(code)


@pytest.mark.parametrize("backend", ["auto", "annotation", "collapse", "giotto"])
@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_there_are_bars_of_the_dimensions_asked_for_and_no_others(backend, dimension):
    (bars, _) = persistence(squareform(pdist(cloud(8))), dimension, backend=backend)
    assert len(bars) == dimension + 1
