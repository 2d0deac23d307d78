"""Inject faults for a while: `python -m tests.faults --minutes 30 --seed 7`.

Tells what was tried, and of a failure how to try it again: `python -m tests.faults --only kill --seed 12
--cases 1`. The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.faults.cases import FAULTS, attempt
from tests.faults.interruptions import Unavailable


def main() -> int:
    """Try one kind after the other, each with a rising seed, until the time is up."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first case of every kind")
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="this kind; may be repeated")
    parser.add_argument("--cases", type=int, default=10**9, help="at most so many of every kind")
    parser.add_argument("--scratch", type=Path, help="folder to keep; the same power cuts need the same one")
    given = parser.parse_args()
    kinds = given.only or list(FAULTS)
    until = time.monotonic() + 60 * given.minutes
    tried: Counter[str] = Counter()
    broken: list[str] = []
    with scratch_folder(given.scratch) as scratch:
        for number in range(given.cases):
            for kind in list(kinds):
                if time.monotonic() > until:
                    return report(tried, broken)
                seed = given.seed + number
                try:
                    told = attempt(kind, seed, scratch)
                    tried[kind] += 1
                except Unavailable as reason:
                    kinds.remove(kind)
                    told = f"skipped: {reason}"
                except Exception:
                    traceback.print_exc()
                    broken.append(f"python -m tests.faults --only {kind} --seed {seed} --cases 1")
                    told = f"BROKEN; again with {broken[-1]}"
                print(f"{kind} {seed}: {told}", flush=True)
    return report(tried, broken)


@contextlib.contextmanager
def scratch_folder(wanted: Path | None) -> Iterator[Path]:
    """The folder that was asked for, or one that is removed at the end."""
    if wanted is not None:
        wanted.mkdir(exist_ok=True)
        yield wanted
        return
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        yield Path(scratch)


def report(tried: Counter[str], broken: list[str]) -> int:
    """Print what was done, and how to repeat what failed."""
    print(", ".join(f"{number:,} {kind}" for kind, number in sorted(tried.items())) or "nothing was tried")
    print("\n".join([f"{len(broken)} broken:", *broken]) if broken else "all promises held")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
