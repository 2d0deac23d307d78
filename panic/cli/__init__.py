"""The command line: `panic` and `run-experiments`.

One file per group of commands: parse, call, render. Commands import what they need when they are called,
so that `panic --help` answers at once.

    panic --help
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper


def main() -> None:
    """The console script `panic`."""
    from panic.cli.app import app
    from panic.cli.common import tell_variables

    _prepare_streams()
    tell_variables()
    app(prog_name="panic")


def run_experiments() -> None:
    """The console script `run-experiments CONFIG...`, equal to `panic run CONFIG...`."""
    from panic.cli.app import run_experiments_app
    from panic.cli.common import tell_variables

    _prepare_streams()
    tell_variables()
    run_experiments_app()(prog_name="run-experiments")


def _prepare_streams() -> None:
    """Escape what a terminal's encoding lacks, instead of failing on it; closed streams take anything."""
    if sys.stdout is None:  # `panic list >&-`: Python has no stream then
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
