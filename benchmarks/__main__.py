"""Run all benchmarks, one file after another, each in a process of its own; then print the figures.

A machine with nothing else to do is a condition, not a nicety: see README.md beside this file.

    python -m benchmarks                    # everything: about 20 minutes on two quiet cores
    python -m benchmarks engine cli         # some of them
    python -m benchmarks --show             # only the figures that are there
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.record import RESULTS

HERE = Path(__file__).parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider")
NAMES = sorted(path.stem.removeprefix("test_") for path in HERE.glob("test_*.py"))


def main() -> int:
    """Exit code: 1 if a benchmark failed or a figure missed its limit, 2 for a wrong name."""
    asked = sys.argv[1:] or NAMES
    if asked == ["--show"]:
        asked = []
    if unknown := [name for name in asked if name not in NAMES]:
        print(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = [
        name
        for name in asked
        if subprocess.run(
            [*PYTEST, f"benchmarks/test_{name}.py"],
            cwd=HERE.parent,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        ).returncode
    ]
    show()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def show() -> None:
    """Print every figure on record."""
    for path in sorted(RESULTS.glob("*.json")):
        entries = json.loads(path.read_text(encoding="utf-8"))
        print(f"\n{path.stem}")
        for entry in entries if isinstance(entries, list) else []:
            limit = "" if entry["limit"] is None else f"  limit {entry['limit']:g}"
            baseline = "" if entry["baseline"] is None else f"  against {entry['baseline']:.4g}"
            value = f"{entry['value']:10.4g} {entry['unit']}"
            print(
                f"  {entry['name']:<68}{value}{baseline}{limit}  (load {entry['hardware'].get('load', '?')})"
            )


if __name__ == "__main__":
    sys.exit(main())
