"""`panic verify`: are the results of an experiment still reproducible on this machine?

panic verify latest --sample 20
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.analysis.shortening import shorten
from panic.cli.common import ExperimentArgument, JsonOption, Shared, command, say
from panic.cli.render import console, print_json, print_table
from panic.cli.stored import trusted_config

if TYPE_CHECKING:
    from panic.engine.verify import Verification

SHOW_EVERY_S = 10.0


@command
def verify(
    shared: Shared,
    experiment: ExperimentArgument = "latest",
    sample: Annotated[
        int, typer.Option(min=1, help="At most so many invocations, embeddings and diagrams each.")
    ] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Chooses which.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="What cannot be compared counts as a failure, too.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Use files of models that the store names; they may run code.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute random results again and compare them with the stored ones, to the bit. Writes nothing.

    Exit code 1 if a result differs or is damaged, or if nothing could be compared.
    """
    from panic.cli.logs import silence_libraries
    from panic.engine.plan import CheckedConfig
    from panic.store import reading

    silence_libraries()
    from panic.engine import verify as verification

    shown_at = 0.0

    def show(done: int, total: int) -> None:
        nonlocal shown_at
        if not shared.quiet and time.monotonic() - shown_at > SHOW_EVERY_S:
            say(f"{done:,} of {total:,} computed again", err=True)
            shown_at = time.monotonic()

    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        checked = CheckedConfig.of(trusted_config(row, trust=trust), ask=True)
        found = verification.verify(checked, store, row.id, sample=sample, seed=seed, on_progress=show)
    bad = {"different", "damaged"} | ({"changed", "not comparable"} if strict else set())
    is_good = found.num_compared > 0 and not bad & found.counts.keys()
    if as_json:
        print_json(as_dict(found) | {"ok": is_good})
    else:
        _print(found, row.name, quiet=shared.quiet)
    if not is_good:
        raise typer.Exit(1)


def as_dict(found: Verification) -> dict[str, Any]:
    """The JSON of a verification."""
    keys = ("kind", "what", "verdict", "detail", "difference")
    return {
        "counts": found.counts,
        "findings": [{key: getattr(finding, key) for key in keys} for finding in found.findings],
        "differs_here": {name: {"there": a, "here": b} for name, (a, b) in found.surroundings.items()},
    }


def _print(found: Verification, name: str, *, quiet: bool) -> None:
    rows = [
        (f.kind, f.what, f.verdict, None if f.difference is None else f"{f.difference:.3g}", f.detail)
        for f in found.findings
        if f.verdict not in ("same", "given")
    ]
    if rows:
        print_table(["", "result", "verdict", "largest difference #", "detail"], rows)
    if found.surroundings:
        changes = [(k, shorten(str(a)), shorten(str(b))) for k, (a, b) in found.surroundings.items()]
        print_table(["differs here", "where they were made", "here"], changes)
    if not quiet:
        told = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(found.counts.items()))
        num_again = len(found.findings) - found.counts.get("given", 0)
        console().print(f"{num_again:,} results computed again: {told or 'there are none'}")
    if not found.num_compared:
        say(f"Nothing could be compared: {why_nothing(found, name)}.", err=True)


def why_nothing(found: Verification, name: str) -> str:
    """Why no result of an experiment could be compared."""
    num_given = found.counts.get("given", 0)
    if not found.findings:
        return f"{name} has no results yet"
    if num_given < len(found.findings):
        return "the table says why"
    return (
        f"all {num_given:,} results are outputs that an import gave, which nothing here can make again."
        f" Embeddings and diagrams could be compared: panic embed {name} MODEL"
    )
