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
    most: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of more pictures so many, evenly chosen.")
    ] = 400,
    force: ForceOption = False,
) -> None:
    """Save a grid of pictures: of one run along its steps, or of one step over all runs."""
    from panic.analysis.sampling import evenly
    from panic.cli.grid import Cell, draw_grid, fit
    from panic.store import contents, reading

    if (run is None) == (step is None):
        raise UsageError("Give either --run or --step.", hint="`panic show` lists the runs.")
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        part = f"run{run}" if run is not None else f"step{step}"
        file = output or Path(f"{reading.file_stem(row.name)}-{part}.png")
        if file.suffix.lower() != ".png":
            raise UsageError(f"{file} is no name for a PNG file.")
        if run is not None:
            found = of_run(store, find_run(store, row, run))
        else:
            assert step is not None
            found = of_step(store, row, step)
        claim_file(file, force=force)
        wanted = found[::every]
        shown = evenly(wanted, most)
        # One after another: at full size 400 images of 1024 px would be 1.3 GB.
        cells = [
            Cell(
                image=fit(contents.image(store, p.digest), thumbnail),
                label=p.label,
                caption=p.text if captions else "",
            )
            for p in shown
        ]
    draw_grid(cells, thumbnail=thumbnail, columns=columns).save(file, format="PNG")
    if not shared.quiet:
        console().print(f"{len(cells):,} pictures in {file}")
        if len(shown) < len(wanted):
            console().print(
                f"They are {len(shown):,} of {len(wanted):,}, evenly chosen: --most N takes more."
            )


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
        file = output or Path(f"{reading.file_stem(row.name)}.mp4")
        claim_file(file, force=force)
        runs, frames = write_video(store, row.id, file, fps=fps, size=size)
    if not shared.quiet:
        console().print(f"{runs:,} runs, {frames:,} pictures each, {frames / fps:.1f} s: {file}")


def of_run(store: Store, run: RunRow) -> list[LabelledImage]:
    """The images of a run in the order of its steps, after one that it begins with.

    Raises NotFound if it has none.
    """
    from panic.store import contents
    from panic.store.codec import is_image_prompt, prompt_digest

    text, found = run.prompt, []
    if is_image_prompt(run.prompt):
        found.append(LabelledImage(digest=prompt_digest(run.prompt).hex(), label="prompt", text=""))
        text = ""
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
    from panic.store.codec import is_image_prompt

    found: list[LabelledImage] = []
    for run in reading.runs(store, row.id):
        at = stored_step(run, step)
        if at is None:
            continue
        *before, there = contents.invocations(store, run.id, max(0, at - len(run.network)), at)
        if there.modality == "image":
            begins = "" if is_image_prompt(run.prompt) else run.prompt
            text = next((s.text for s in reversed(before) if s.text is not None), begins)
            found.append(LabelledImage(digest=there.output, label=f"run {run.id}", text=text))
    if not found:
        near = min(contents.image_steps(store, row.id), key=lambda other: abs(other - step), default=None)
        hint = "It has no pictures yet." if near is None else f"The nearest step with pictures is {near}."
        raise NotFound(f"{row.name} has no pictures at step {step}.", hint=hint)
    return found
