"""`panic video`: all runs of an experiment as one mosaic video.

panic video latest --fps 8 --output demo.mp4
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panic.cli.common import ExperimentArgument, Shared, command
from panic.cli.outputs import ForceOption, claim_file
from panic.cli.render import console


@command
def video(
    shared: Shared,
    experiment: ExperimentArgument = "latest",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=".mp4, .webm or .gif; by default NAME.mp4."),
    ] = None,
    fps: Annotated[float, typer.Option(min=0.1, max=120, metavar="N", help="Pictures per second.")] = 8.0,
    size: Annotated[
        int, typer.Option(min=16, max=1024, metavar="PIXELS", help="Size of a run's tile.")
    ] = 128,
    force: ForceOption = False,
) -> None:
    """Make a mosaic video: one tile per run, all runs side by side in time. Needs ffmpeg."""
    from panic.analysis.video import find_ffmpeg, write_video
    from panic.store import reading

    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        find_ffmpeg()
        file = output or Path(f"{row.name}.mp4")
        claim_file(file, force=force)
        runs, frames = write_video(store, row.id, file, fps=fps, size=size)
    if not shared.quiet:
        console().print(f"{runs:,} runs, {frames:,} pictures each, {frames / fps:.1f} s: {file}")
