"""Diagrams and their distances against the usual way, both sides in one run, on the same cores.

- `diagrams` on all cores against `ripser_parallel(points)` run after run, on one thread and on torch's own
  number of cores, whichever is faster; H0-H1 and H0-H2, walks on the sphere and runs stuck at six attractors.
- Peak memory of the stage's processes over a whole experiment, against that of one diagram.
- Distances of 200 diagrams against persim (`pip install persim`; it is no dependency).

The baseline of the slowest cases runs on a part of the clouds and is scaled up; `measured_on` says on how
many. Figures go to benchmarks/results/topology.json.

    pytest benchmarks/test_topology.py -m slow
    PANIC_BENCHMARK_SHARE=0.1 pytest benchmarks/test_topology.py -m slow     # a tenth of the runs
"""

from __future__ import annotations

import os
import queue
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.record import record
from benchmarks.vectors_store import build
from panic.config import DiagramSettings
from panic.engine.pool import JobResult, Pool
from panic.engine.stages.diagrams import DiagramJob
from panic.topology import diagram, diagrams, distance_matrix
from panic.topology.budget import estimate_bytes

SHARE = float(os.environ.get("PANIC_BENCHMARK_SHARE", "1"))
CORES = os.cpu_count() or 1
# kind, runs, points, highest dimension, target, clouds of the baseline
CASES = [
    ("walk", 1000, 100, 1, 4.0, 300),
    ("stuck", 1000, 100, 1, 4.0, 300),
    ("walk", 1000, 100, 2, 15.0, 60),
    ("stuck", 1000, 100, 2, 15.0, 60),
    ("walk", 50, 1000, 1, None, 8),
    ("stuck", 50, 1000, 1, 2.5, 12),
    ("stuck", 50, 1000, 2, 10.0, 2),
]


def walk(n: int, seed: int, d: int = 768, angle: float = 0.2) -> np.ndarray:
    """A driftless walk on the unit sphere, float32."""
    rng = np.random.default_rng(seed)
    points = np.empty((n, d))
    points[0] = rng.normal(size=d)
    points[0] /= np.linalg.norm(points[0])
    for i in range(1, n):
        step = rng.normal(size=d)
        step -= (step @ points[i - 1]) * points[i - 1]
        points[i] = np.cos(angle) * points[i - 1] + np.sin(angle) * step / np.linalg.norm(step)
    return points.astype(np.float32)


def stuck(n: int, seed: int, d: int = 768) -> np.ndarray:
    """A run that stays at one of six attractors and moves to another every ten steps or so, float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, d))
    moves = rng.random(n) > 0.9
    at = rng.integers(6, size=n)[np.maximum.accumulate(np.where(moves, np.arange(n), 0))]
    return (centres[at] + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "runs", "points", "dimension", "target", "sample"), CASES)
def test_diagrams_of_an_experiment(kind, runs, points, dimension, target, sample):
    from gph import ripser_parallel

    make = {"walk": walk, "stuck": stuck}[kind]
    runs = max(2, round(runs * SHARE))
    clouds = [make(points, seed) for seed in range(runs)]
    some = clouds[: max(2, min(runs, round(sample * SHARE)))]
    diagrams(clouds[:2], max_dimension=dimension)  # imports
    ripser_parallel(clouds[0][:20], maxdim=dimension)

    def loop(threads: int) -> None:
        for cloud in some:
            ripser_parallel(cloud, maxdim=dimension, n_threads=threads)

    cpu = time.process_time()
    one_s = seconds(lambda: loop(1)) * runs / len(some)
    baseline_cpu_s = (time.process_time() - cpu) * runs / len(some)
    all_s = seconds(lambda: loop(CORES)) * runs / len(some)
    with threadpool_limits(1, user_api="blas"):  # its distances wait for BLAS threads on a busy machine
        one_s = min(one_s, seconds(lambda: loop(1)) * runs / len(some))
    cpu = time.process_time()
    ours_s = min(seconds(lambda: diagrams(clouds, max_dimension=dimension)) for _ in range(2))
    cpu_s = (time.process_time() - cpu) / 2
    with threadpool_limits(1, user_api="blas"):
        single_s = seconds(lambda: [diagram(c, max_dimension=dimension) for c in some]) * runs / len(some)
    baseline = min(one_s, all_s)
    record(
        f"diagrams, {kind}, {runs} x {points} points, H0-H{dimension}",
        ours_s,
        unit="s",
        baseline=baseline,
        ratio=baseline / ours_s,
        limit=target,
        file="topology",
        one_core_s=single_s,
        cpu_s=cpu_s,
        baseline_cpu_s=baseline_cpu_s,
        baseline_one_thread_s=one_s,
        baseline_all_threads_s=all_s,
        measured_on=len(some),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        bound_mib=CORES * estimate_bytes(points, 768, dimension) / 2**20,
    )


def stage(folder: Path, model: int, runs: Sequence[int], workers: int) -> tuple[float, list[int]]:
    """Seconds for the diagrams of some runs, and the peak bytes of each process; nothing is written."""
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    known = {child.pid for child in psutil.Process().children()}
    pool = Pool(folder, [DiagramSettings()], inbox.put, num_workers=workers)
    start = time.perf_counter()
    try:
        for run in runs:
            pool.submit(DiagramJob(run, model, 0), None)
        answers = [inbox.get(timeout=3600) for _ in runs]
        took = time.perf_counter() - start
        assert all(answer.rows is not None for answer in answers), answers[0].problem
        mine = [child.pid for child in psutil.Process().children() if child.pid not in known]
        return took, [peak_bytes(pid) for pid in mine]
    finally:
        pool.close()


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "runs", "points"), [("walk", 1000, 100), ("stuck", 50, 1000)])
def test_memory_of_the_stage(kind, runs, points, tmp_path):
    """All processes together, against as many that compute one diagram; above a process of two points.

    That one diagram is the one that needs most, of up to 50 that each have a process of their own.
    """
    make = {"walk": walk, "stuck": stuck}[kind]
    runs = max(2 * CORES, round(runs * SHARE))
    few, every = tmp_path / "few", tmp_path / "all"
    few_model = build(few, CORES, lambda seed: make(2, seed))[1]
    model = build(every, runs, lambda seed: make(points, seed))[1]
    idle = float(np.median([max(stage(few, few_model, [1], 1)[1]) for _ in range(5)]))
    each = [max(stage(every, model, [run], 1)[1]) - idle for run in range(1, min(runs, 50) + 1)]
    one = max(each)
    took, peaks = stage(every, model, range(1, runs + 1), CORES)
    above = [peak - idle for peak in peaks]
    bound = estimate_bytes(points, 768, 1)
    record(
        f"memory of the diagrams stage, {kind}, {runs} x {points} points, H0-H1",
        sum(above) / 2**20,
        unit="MiB",
        baseline=CORES * one / 2**20,
        ratio=sum(above) / (CORES * one),
        limit=1.0,
        file="topology",
        processes=len(peaks),
        one_diagram_mib=one / 2**20,
        median_diagram_mib=float(np.median(each)) / 2**20,
        most_of_a_process_mib=max(above) / 2**20,
        idle_process_mib=idle / 2**20,
        estimate_mib=bound / 2**20,
        diagrams_per_s=runs / took,
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("dimension", [0, 1])
@pytest.mark.parametrize("kind", ["wasserstein", "bottleneck"])
def test_distances_of_diagrams(kind, dimension):
    persim = pytest.importorskip("persim", reason="pip install persim")
    count = max(10, round(200 * SHARE**0.5))
    found = diagrams([(walk if i % 2 else stuck)(100, i) for i in range(count)])
    bars = [d.bars(dimension) for d in found]
    bars = [b[np.isfinite(b[:, 1])] for b in bars]
    theirs = {"wasserstein": persim.wasserstein, "bottleneck": persim.bottleneck}[kind]
    pairs = [(i, j) for i in range(count) for j in range(i)]
    some = [
        pairs[k] for k in np.random.default_rng(0).choice(len(pairs), min(len(pairs), 1000), replace=False)
    ]
    want: list[float] = []
    baseline = (
        seconds(lambda: want.extend(theirs(bars[i], bars[j]) for i, j in some)) * len(pairs) / len(some)
    )
    alone = seconds(lambda: distance_matrix(bars, kind))
    matrix: list[np.ndarray] = []
    both = seconds(lambda: matrix.append(distance_matrix(bars, kind, workers=CORES)))
    np.testing.assert_allclose([matrix[0][i, j] for i, j in some], want, atol=1e-5)  # persim loses digits
    best = min(alone, both)
    record(
        f"{kind} distances of {count} diagrams, H{dimension}",
        best,
        unit="s",
        baseline=baseline,
        ratio=baseline / best,
        limit=10.0,
        file="topology",
        one_core_s=alone,
        measured_on=len(some),
        mean_bars=float(np.mean([len(b) for b in bars])),
    )
