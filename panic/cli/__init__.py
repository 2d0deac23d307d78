"""The command line: `panic` and `run-experiments`.

One file per group of commands: parse, call, render. Commands import what they need when they are called,
so that `panic --help` answers at once.

    panic --help
"""

from __future__ import annotations

import sys
from io import TextIOWrapper


def main() -> None:
    """The console script `panic`."""
    from panic.cli.app import app

    _print_anything()
    app(prog_name="panic")


def run_experiments() -> None:
    """The console script `run-experiments CONFIG...`, equal to `panic run CONFIG...`."""
    from panic.cli.app import run_experiments_app

    _print_anything()
    run_experiments_app(prog_name="run-experiments")


def _print_anything() -> None:
    """Escape what a terminal's encoding lacks, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
