"""The command line: `panic` and `run-experiments`.

One file per group of commands: parse, call, render. Commands import what they need when they are called,
so that `panic --help` answers at once.

    panic --help
"""

from __future__ import annotations


def main() -> None:
    """The console script `panic`."""
    from panic.cli.app import app

    app(prog_name="panic")


def run_experiments() -> None:
    """The console script `run-experiments CONFIG...`, equal to `panic run CONFIG...`."""
    from panic.cli.app import run_experiments_app

    run_experiments_app(prog_name="run-experiments")
