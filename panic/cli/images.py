"""`panic images` and `panic video`: the images of a run, of one step over all runs, or of all runs in time.

panic images latest --run 1 --output run.png --captions
panic video latest --fps 8 --output demo.mp4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panic.cli.common import ExperimentArgument, Shared, command
from panic.cli.destinations import ForceOption, claim_file
from panic.cli.experiments import find_run
from panic.cli.render import console
from panic.errors import NotFound, UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.records import ExperimentRow, RunRow


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image in the store, what it is labelled with, and the text it was drawn from."""

    digest: str
    label: str
    text: str


@command
def images(
    shared: Shared,
    experiment: ExperimentArgument = "latest",
    run: Annotated[int | None, typer.Option(metavar="RUN", help="All pictures of this run, by step.")] = None,
    step: Annotated[int | None, typer.Option(min=0, metavar="STEP", help="This step of all runs.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The PNG file.")
    ] = None,
    captions: Annotated[bool, typer.Option("--captions", help="Write what was drawn below.")] = False,
    thumbnail: Annotated[
        int, typer.Option("--size", min=16, max=2048, metavar="PIXELS", help="Size of a thumbnail.")
    ] = 128,
    columns: Annotated[int | None, typer.Option(min=1, metavar="N", help="Thumbnails in a row.")] = None,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Only every n-th picture.")] = 1,
    force: ForceOption = False,
) -> None:
    """Save a grid of pictures: of one run along its steps, or of one step over all runs."""
    from panic.cli.grid import Cell, draw_grid
    from panic.store import contents, reading

    if (run is None) == (step is None):
        raise UsageError("Give either --run or --step.", hint="`panic show` lists the runs.")
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        file = output or Path(f"{row.name}-{f'run{run}' if run is not None else f'step{step}'}.png")
        if file.suffix.lower() != ".png":
            raise UsageError(f"{file} is no name for a PNG file.")
        if run is not None:
            found = of_run(store, find_run(store, row, run))
        else:
            assert step is not None
            found = of_step(store, row, step)
        claim_file(file, force=force)
        cells = [
            Cell(image=contents.image(store, p.digest), label=p.label, caption=p.text if captions else "")
            for p in found[::every]
        ]
    draw_grid(cells, thumbnail=thumbnail, columns=columns).save(file, format="PNG")
    if not shared.quiet:
        console().print(f"{len(cells):,} pictures in {file}")


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


def of_run(store: Store, run: RunRow) -> list[LabelledImage]:
    """The images of a run in the order of its steps. Raises NotFound if it has none."""
    from panic.store import contents

    text, found = run.prompt, []
    for step in contents.invocations(store, run.id):
        if step.text is not None:
            text = step.text
        else:
            found.append(LabelledImage(digest=step.output, label=f"step {step.step}", text=text))
    if not found:
        raise NotFound(f"Run {run.id} has no pictures yet.")
    return found


def of_step(store: Store, row: ExperimentRow, step: int) -> list[LabelledImage]:
    """The image at a step of every run that has one; a stuck run shows what it would have drawn.

    Raises NotFound, which names a step with images.
    """
    from panic.analysis.whereabouts import stored_step
    from panic.store import contents, reading

    found: list[LabelledImage] = []
    nearest: set[int] = set()
    for run in reading.runs(store, row.id):
        steps = contents.invocations(store, run.id)
        at = stored_step(run, step)
        nearest.update(s.step for s in steps if s.modality == "image")
        if at is not None and steps[at].modality == "image":
            text = next((s.text for s in reversed(steps[:at]) if s.text is not None), run.prompt)
            found.append(LabelledImage(digest=steps[at].output, label=f"run {run.id}", text=text))
    if not found:
        near = min(nearest, key=lambda other: abs(other - step), default=None)
        hint = "It has no pictures yet." if near is None else f"The nearest step with pictures is {near}."
        raise NotFound(f"{row.name} has no pictures at step {step}.", hint=hint)
    return found
