"""Count how often sentences are true, and write the page.

python -m tests.referee --replicates 200 -o docs/truth.md
python -m tests.referee --replicates 200 --whole-every 10 --minutes 30 --keep counted.jsonl -o docs/truth.md

Questions that installed packages add are counted like ours, by the predicates that these bring.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from panic.errors import UsageError
from tests.referee.counting import Round, judged, work_through
from tests.referee.designs import DESIGNS
from tests.referee.keeping import Kept
from tests.referee.page import page


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, count, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.referee", description=__doc__)
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--whole-every", type=int, default=1, metavar="N",
        help="ask a design only what it is plain for, but for every N-th replicate (0: for all)",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no replicate after so many"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FILE",
        help="where every replicate is kept: the same command goes on where it was ended",
    )  # fmt: skip
    parser.add_argument("--design", action="append", choices=list(DESIGNS), help="one of them (repeat)")
    parser.add_argument("-o", "--output", type=Path, help="where the page is written (default: the screen)")
    options = parser.parse_args(arguments)
    try:
        judged()
        kept = Kept(options.keep)
    except (LookupError, OSError, UsageError) as error:
        parser.error(str(error))

    def write(found: Round) -> None:
        """Write the page of what is counted so far: whoever ends the count early has it."""
        if options.output is not None:
            options.output.write_text(page(found), encoding="utf-8")

    found = work_through(
        options.design or list(DESIGNS),
        options.replicates,
        whole_every=options.whole_every,
        processes=options.processes,
        limit_s=60 * options.minutes,
        after=write,
        kept=kept,
    )
    if options.output is None:
        sys.stdout.write(page(found))


if __name__ == "__main__":
    main()
