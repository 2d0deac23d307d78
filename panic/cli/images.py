"""`panic images` and `panic video`: the images of a run, of a step, of runs x steps, or of all runs in time.

panic images latest --run 1 --output run.png --captions
panic images latest --grid --steps 0,10,20 --output grid.png
panic video latest --fps 8 --output demo.mp4
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panic.cli.common import ExperimentArgument, ProjectOption, Shared, command, tell_options
from panic.cli.destinations import ForceOption, claim_file
from panic.cli.finding import (
    RunOption,
    RunsWhereOption,
    experiment_of,
    find_run,
    runs_where,
)
from panic.cli.render import console
from panic.errors import NotFound, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from panic.cli.grid import Cell
    from panic.store import Store
    from panic.store.records import ExperimentRow, RunRow

DEFAULT_COLUMNS = 10
"""Steps of a grid of runs x steps, where nobody says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image in the store, what it is labelled with, and the text it was drawn from.

    is_again: it stands for one that a stuck run would draw like this one.
    """

    digest: str
    label: str
    text: str
    is_again: bool = False


@command
def images(
    shared: Shared,
    experiment: ExperimentArgument = "latest",
    run: RunOption = None,
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
    grid: Annotated[
        bool, typer.Option("--grid", help="A row per run and a column per step; framed is what repeats.")
    ] = False,
    steps: Annotated[str | None, typer.Option(metavar="STEP,STEP,...", help="The columns of --grid.")] = None,
    where: RunsWhereOption = None,
    project: ProjectOption = None,
    force: ForceOption = False,
) -> None:
    """Save a grid of pictures: of one run along its steps, of one step over all runs, or of runs x steps."""
    from panic.store import reading

    if (run is not None) + (step is not None) + grid != 1:
        raise UsageError("Give either --run or --step or --grid.", hint="`panic show` lists the runs.")
    tell_options({"--where": where is not None and run is not None}, "with --run")
    tell_options({"--steps": steps is not None and not grid}, "without --grid")
    tell_options({"--every": steps is not None and grid and every > 1}, "with --steps")
    tell_options({"--columns": columns is not None and grid}, "with --grid")
    with shared.open_store() as store:
        row = experiment_of(store, experiment, project)
        one = None if run is None else find_run(store, row, run)
        part = "grid" if grid else f"run{one.id}" if one is not None else f"step{step}"
        file = output or Path(f"{reading.file_stem(row.name)}-{part}.png")
        if file.suffix.lower() != ".png":
            raise UsageError(f"{file} is no name for a PNG file.")
        runs = runs_where(store, row, where)
        with claim_file(file, force=force) as new:
            if grid:
                at = chosen_steps(store, row, steps, every)
                chosen = chosen_runs(store, row, runs, most, at)
                drawn, said = _runs_by_steps(store, chosen, at, thumbnail, captions)
            else:
                found = of_step(store, row, runs, step or 0) if one is None else of_run(store, one)
                drawn, said = _one_by_one(store, found[::every], most, columns, thumbnail, captions)
            drawn.save(new, format="PNG")
    if not shared.quiet:
        console().print(said.replace("\n", f" in {file}\n", 1).rstrip())


def _one_by_one(
    store: Store,
    found: Sequence[LabelledImage],
    most: int,
    columns: int | None,
    thumbnail: int,
    captions: bool,
) -> tuple[Image, str]:
    """A grid of images, and what is said of it."""
    from panic.analysis.sampling import evenly
    from panic.cli.grid import draw_grid, refuse_size

    shown = evenly(list(found), most)
    refuse_size(1, len(shown), thumbnail, has_captions=captions)
    # One after another: at full size 400 images of 1024 px would be 1.3 GB.
    cells = [_cell(store, one, thumbnail, captions) for one in shown]
    said = f"{len(cells):,} pictures\n"
    if len(shown) < len(found):
        said += f"They are {len(shown):,} of {len(found):,}, evenly chosen: --most N takes more."
    return draw_grid(cells, thumbnail=thumbnail, columns=columns), said


def _runs_by_steps(
    store: Store, runs: Sequence[RunRow], steps: Sequence[int], thumbnail: int, captions: bool
) -> tuple[Image, str]:
    """A row per run and a column per step, and what is said of it."""
    from panic.cli.grid import Row, draw_rows, refuse_size

    refuse_size(len(runs), len(steps), thumbnail, has_captions=captions)
    rows = (
        Row(
            label=_whose(run),
            cells=[
                None if (one := at_step(store, run, step)) is None else _cell(store, one, thumbnail, captions)
                for step in steps
            ],
        )
        for run in runs
    )
    headings = [f"step {step}" for step in steps]
    drawn = draw_rows(rows, headings, num_rows=len(runs), thumbnail=thumbnail, captions=captions)
    return drawn, f"{len(runs):,} runs x {len(steps):,} steps\n"


def _cell(store: Store, one: LabelledImage, thumbnail: int, captions: bool) -> Cell:
    from panic.cli.grid import Cell, fit
    from panic.store import contents

    image = fit(contents.image(store, one.digest), thumbnail)
    return Cell(image=image, label=one.label, caption=one.text if captions else "", is_again=one.is_again)


def _whose(run: RunRow) -> str:
    from panic.store.codec import prompt_label

    noise = "fresh noise" if run.seed == -1 else f"seed {run.seed}"
    return f"run {run.id}, {noise}: {prompt_label(run.prompt)}"


def chosen_steps(store: Store, row: ExperimentRow, steps: str | None, every: int) -> list[int]:
    """The steps that are asked for, or some of those at which there are images: every n-th, or a few.

    Raises UsageError for what are no steps, NotFound where there are no images.
    """
    from panic.analysis.sampling import evenly
    from panic.store import contents

    known = contents.image_steps(store, row.id)
    if not known:
        raise NotFound(f"{row.name} has no pictures at any step yet.")
    if steps is None:
        return known[::every] if every > 1 else evenly(known, DEFAULT_COLUMNS)
    if re.fullmatch(r"\d{1,9}(,\d{1,9})*", steps, re.ASCII) is None:
        raise UsageError(f"--steps {steps}: it is whole numbers with commas, for example 0,10,20.")
    return list(dict.fromkeys(map(int, steps.split(","))))


def chosen_runs(
    store: Store, row: ExperimentRow, runs: Sequence[RunRow], most: int, steps: Sequence[int]
) -> list[RunRow]:
    """Those of the runs that a grid shows, spread over networks and prompts where `most` images are too few.

    Raises NotFound, which names a step with images, for a step at which no run has one.
    """
    from panic.analysis.sampling import spread

    runs = [run for run in runs if run.num_steps]
    for step in steps:
        if not any(at_step(store, run, step) for run in runs):
            raise _no_images(store, row, step)
    return spread(runs, max(1, most // len(steps)))


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
        with claim_file(file, force=force) as new:
            runs, frames = write_video(store, row.id, new, fps=fps, size=size)
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


def of_step(store: Store, row: ExperimentRow, runs: Sequence[RunRow], step: int) -> list[LabelledImage]:
    """The image at a step of each of these runs that has one; a stuck run shows what it would have drawn.

    Raises NotFound, which names a step with images.
    """
    found = [
        replace(one, label=f"run {run.id}", is_again=False)
        for run in runs
        if (one := at_step(store, run, step))
    ]
    if not found:
        raise _no_images(store, row, step)
    return found


def at_step(store: Store, run: RunRow, step: int) -> LabelledImage | None:
    """The image that a run has at a step, or if it is stuck would have drawn, without a label."""
    from panic.analysis.whereabouts import stored_step
    from panic.store import contents
    from panic.store.codec import is_image_prompt

    at = stored_step(run, step)
    if at is None:
        return None
    *before, there = contents.invocations(store, run.id, max(0, at - len(run.network)), at)
    if there.modality != "image":
        return None
    begins = "" if is_image_prompt(run.prompt) else run.prompt
    text = next((s.text for s in reversed(before) if s.text is not None), begins)
    return LabelledImage(digest=there.output, label="", text=text, is_again=at != step)


def _no_images(store: Store, row: ExperimentRow, step: int) -> NotFound:
    from panic.store import contents

    near = min(contents.image_steps(store, row.id), key=lambda other: abs(other - step), default=None)
    hint = "It has no pictures yet." if near is None else f"The nearest step with pictures is {near}."
    return NotFound(f"{row.name} has no pictures at step {step}.", hint=hint)
