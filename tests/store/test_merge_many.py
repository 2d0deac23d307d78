"""Fifty stores are one, merged by a process that is killed again and again; its memory does not grow."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from panic import run
from panic.engine.pins import calibrate, lay
from panic.engine.plan import CheckedConfig, expanded_runs
from panic.engine.shards import Shard
from panic.store import Store, reading
from panic.store.check import check
from panic.store.merging.merge import merge
from tests.engine.conftest import dump, make_config
from tests.store.test_merge import rows

ROOT = Path(__file__).parents[2]
STORES = 50
KILLS = 12
MERGER = """
import json, re, sys
from pathlib import Path
from panic.store.merging.merge import merge

print("ready", flush=True)


def tell(what, done, total):
    print("told", flush=True)
    sys.stdin.readline()


merged = merge([Path(path) for path in sys.argv[2:]], Path(sys.argv[1]), tell=tell)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
peak_bytes = 0 if peak is None else 1024 * int(peak[1])
print(json.dumps({"conflicts": merged.conflicts, "peak_bytes": peak_bytes}))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """An experiment in one store, and in a store for each of its shards; some have no runs."""
    folder = tmp_path_factory.mktemp("shards")
    config = make_config(
        prompts=[f"prompt {number}" for number in range(30)],
        models={
            "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16, "distinct": True},
            "chain": {"base": "synthetic/image-to-text", "states": 7, "kernel": "cycle", "epsilon": 0.3},
        },
        arms={"baseline": [], "swap": [{"at": 4, "text": "state 3"}]},
        embeddings=["synthetic/state-embedding"],
        max_length=8,
    )
    run(config, folder / "whole")
    checked = CheckedConfig.of(config, ask=True)
    pins, stores = calibrate(checked), []
    for number in range(1, STORES + 1):
        stores.append(folder / str(number))
        with Store(stores[-1], write=True, create=True) as store:
            lay(pins, checked, store)
        run(checked, stores[-1], runs=Shard(number=number, count=STORES).runs(expanded_runs(config)))
    return folder / "whole", stores


def start(into: Path, sources: Sequence[Path]) -> subprocess.Popen[str]:
    """A process that merges, and waits for a line whenever it has told how far it is."""
    return subprocess.Popen(
        [sys.executable, "-c", MERGER, into, *sources],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def num_sources(into: Path) -> int:
    """How many sources have come: each has one session."""
    with Store(into) as store:
        assert check(store) == []
        return len(reading.sessions(store))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_stores_merged_by_a_process_that_is_killed_are_one(
    shards: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """In another order after each kill; a kill leaves whole sources, never fewer than the one before."""
    whole, sources = shards
    rng, into, came = random.Random(1), tmp_path / "into", [0]
    for _ in range(KILLS):
        process = start(into, rng.sample(sources, STORES))
        assert process.stdout is not None
        assert process.stdin is not None
        for _ in range(rng.randint(1, 2 * STORES // KILLS + came[-1])):
            process.stdout.readline()
            with contextlib.suppress(BrokenPipeError):  # it has ended
                process.stdin.write("\n")
                process.stdin.flush()
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
        if (into / "store.sqlite").exists():
            came.append(num_sources(into))
    print("sources after each kill", came)
    assert came == sorted(came)
    assert len({number for number in came if 0 < number < STORES}) > 2, "the kills hit no merge at work"
    out, _ = start(into, rng.sample(sources, STORES)).communicate()
    assert json.loads(out.splitlines()[-1])["conflicts"] == []
    assert num_sources(into) == STORES
    assert dump(into) == dump(whole)
    before = rows(into)
    again = merge(rng.sample(sources, STORES), into)
    assert (again.num_runs, again.num_invocations, again.num_images, again.conflicts) == (0, 0, 0, [])
    assert rows(into) == before
    assert dump(into) == dump(whole)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process' peak")
@pytest.mark.timeout(600)
def test_the_memory_of_a_merge_does_not_grow_with_the_number_of_stores(
    shards: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """What is kept open, or kept in mind, of one source after another would show in fifty."""
    peaks = []
    for number in (1, STORES):
        out, _ = start(tmp_path / str(number), shards[1][:number]).communicate()
        peaks.append(json.loads(out.splitlines()[-1])["peak_bytes"])
    assert peaks[1] - peaks[0] < 32 * 2**20
