"""Count how often sentences are true, and write the page.

python -m tests.referee --replicates 200 -o docs/truth.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.referee.counting import count
from tests.referee.designs import DESIGNS
from tests.referee.page import page


def main() -> None:
    """Parse the command line, count, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.referee", description=__doc__)
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--short", action="store_true", help="ask of each design only what it is plain for")
    parser.add_argument("--design", action="append", choices=list(DESIGNS), help="one of them (repeat)")
    parser.add_argument("-o", "--output", type=Path, help="where the page is written (default: the screen)")
    options = parser.parse_args()
    designs = options.design or [name for name, one in DESIGNS.items() if one.is_small or not options.short]
    counts = count(designs, options.replicates, asks_all=not options.short, processes=options.processes)
    text = page(counts, options.replicates, is_short=options.short)
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
