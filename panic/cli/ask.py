"""`panic figure` and `panic table`: one question, asked of one experiment or of several.

panic figure drift demo -o drift.pdf; panic table stuck demo other -o stuck.csv; panic table --list
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

import panic
from panic.analysis.shortening import shorten
from panic.cli.common import (
    JsonOption,
    ProjectOption,
    Shared,
    command,
    complete_experiment,
    complete_kind,
    say,
    tell_options,
)
from panic.cli.destinations import ForceOption, claim_file
from panic.cli.finding import BothWhereOption, chosen
from panic.cli.frames import WRITERS, cell, check_ending, flat, rows, write
from panic.cli.render import console, print_json, print_table
from panic.errors import NotFound, UsageError

if TYPE_CHECKING:
    import polars as pl

    from panic.analysis.answers import Answer
    from panic.analysis.evidence import Evidence
    from panic.analysis.questions import Figure, Question

    Found = TypeVar("Found", Answer, Figure)

CHART_ENDINGS = (".svg", ".png", ".pdf", ".html")
SHOWN_ROWS = 40


def complete_question(incomplete: str) -> list[str]:
    """The names of questions, for the shell; from files and entry points: importing them takes seconds."""
    folder = Path(panic.__file__).parent / "analysis" / "questions"
    names = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
    names += [point.name for point in metadata.entry_points(group="panic.questions")]
    return [name for name in sorted(set(names)) if name.startswith(incomplete) and name.isprintable()]


QuestionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="QUESTION",
        help="Its name, as --list tells it.",
        autocompletion=complete_question,
        show_default=False,
    ),
]
ExperimentsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Names, beginnings of ids, or latest (the default).",
        autocompletion=complete_experiment,
        show_default=False,
    ),
]
NullOption = Annotated[
    str | None,
    typer.Option(
        "--null",
        metavar="KIND",
        help="Its statistic beside the band that stored null models give (panic nulls).",
        autocompletion=complete_kind,
        show_default=False,
    ),
]
ListOption = Annotated[bool, typer.Option("--list", help="List the questions.")]


@command
def figure(
    shared: Shared,
    question: QuestionArgument = None,
    experiments: ExperimentsArgument = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File: .svg, .png, .pdf or .html.")
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Light on dark.")] = False,
    null: NullOption = None,
    where: BothWhereOption = None,
    project: ProjectOption = None,
    force: ForceOption = False,
    list_questions: ListOption = False,
) -> None:
    """Write the figure of one question as a file; several experiments stand side by side."""
    if list_questions:
        return _list(as_json=False)
    if output is None:
        raise UsageError("The name of a file is needed.", hint="For example --output drift.pdf.")
    check_ending(output, CHART_ENDINGS)
    from panic.analysis.answers import find, side_by_side
    from panic.analysis.charts import save
    from panic.analysis.null_bands import figures_beside
    from panic.analysis.questions import ask

    asked = find(_needed(question))
    with (
        _evidence(shared, experiments, where, project) as found,
        claim_file(output, force=force) as file,
    ):
        drawn = {
            one.experiment.name: ask(asked, one) if null is None else figures_beside(asked, one, [null])
            for one in found
        }
        bare = _without_vectors(asked, found)
        figures = {
            name: _answered(question, name, of_one, len(drawn) > 1, name in bare)
            for name, of_one in drawn.items()
        }
        save(side_by_side(figures, mode="dark" if dark else "light"), file)
    if not shared.quiet:
        for name, of_one in figures.items():
            for one in of_one:
                heading = f"{name}: {one.title}" if len(figures) > 1 else one.title
                console().print("\n".join(filter(None, [heading, one.sentence, one.caveat])))
        console().print(f"Figure: {output}")
    return None


@command
def table(
    shared: Shared,
    question: QuestionArgument = None,
    experiments: ExperimentsArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File: .csv, .tex, .md, .parquet, .json. Else the terminal.",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="PART", help="Another table of the answer, such as summary."),
    ] = None,
    null: NullOption = None,
    where: BothWhereOption = None,
    project: ProjectOption = None,
    force: ForceOption = False,
    list_questions: ListOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write what one question answers as a table; rows of several experiments stand below each other."""
    if list_questions:
        return _list(as_json=as_json)
    if output is not None:
        check_ending(output, tuple(WRITERS))
        tell_options({"--json": as_json}, "with --output")
    from panic.analysis.answers import answers, find, tables
    from panic.analysis.null_bands import answers_beside

    asked = find(_needed(question))
    with _evidence(shared, experiments, where, project) as found:
        answered = {
            one.experiment.name: answers(asked, one) if null is None else answers_beside(asked, one, null)
            for one in found
        }
        bare = _without_vectors(asked, found)
    several = len(answered) > 1
    of_parts = tables(
        {name: _answered(question, name, one, several, name in bare) for name, one in answered.items()}
    )
    chosen = _part(list(of_parts), part)
    frame = of_parts[chosen]
    if output is not None:
        with claim_file(output, force=force) as file:
            write(frame, file)
        if not shared.quiet:
            console().print(f"Table: {output}, {frame.height:,} rows")
    elif as_json:
        print_json(rows(frame))
    else:
        _show(frame)
    if len(of_parts) > 1 and part is None and not shared.quiet:
        others = ", ".join(name for name in of_parts if name != chosen)
        say(f"This is the part {chosen} of the answer; --part names another: {others}.", err=True)
    return None


def _part(known: Sequence[str], wanted: str | None) -> str:
    """The part of an answer that is asked for, by default its first."""
    if wanted is None or wanted in known:
        return wanted or known[0]
    raise NotFound(f"The answer has no part {wanted!r}.", hint=f"Its parts are: {', '.join(known)}.")


def _show(frame: pl.DataFrame) -> None:
    """Print the first rows of a frame."""
    columns = [f"{name} #" if kind.is_numeric() else name for name, kind in frame.schema.items()]
    body = (map(cell, row) for row in flat(frame.head(SHOWN_ROWS)).iter_rows())
    print_table(columns, [[shorten(text) for text in row] for row in body])
    if frame.height > SHOWN_ROWS:
        console().print(f"... and {frame.height - SHOWN_ROWS:,} more rows: --output FILE or --json")


def _list(*, as_json: bool) -> None:
    from panic.analysis.questions import named

    found = [
        {
            "question": name,
            "title": one.TITLE if isinstance(one.TITLE, str) else next(iter(one.TITLE.values())),
            "about": (one.__doc__ or "").split("\n", 1)[0],
        }
        for name, one in named().items()
    ]
    if as_json:
        return print_json(found)
    return print_table(["question", "title", "about"], [tuple(row.values()) for row in found])


def _needed(question: str | None) -> str:
    if question is None:
        raise UsageError("A question is needed.", hint="--list tells which there are.")
    return question


@contextmanager
def _evidence(
    shared: Shared, experiments: Sequence[str] | None, where: str | None, project: str | None
) -> Iterator[list[Evidence]]:
    """What figures rest on, of each experiment once, while the store is open."""
    from panic.analysis.evidence import Evidence
    from panic.store import standing

    with shared.open_store() as store, chosen(store, experiments, where, project) as (rows, told):
        if told and not shared.quiet:
            say(told, err=True)
        yield [
            Evidence.of(store, row, is_over=standing.standing(store, row).is_over)
            for row in {row.id: row for row in rows}.values()
        ]


def _without_vectors(question: Question, found: Sequence[Evidence]) -> set[str]:
    """The experiments that lack the vectors which a question is asked under."""
    from panic.analysis.evidence import once

    return {one.experiment.name for one in found if question.views is not once and not one.views}


def _answered(
    question: str | None, experiment: str, found: Sequence[Found], several: bool, lacks_vectors: bool
) -> list[Found]:
    """Those of the answers or figures that there are; what is missing of one experiment is said on stderr.

    NotFound with the reason where an experiment has none: a comparison with nothing would mislead.
    """
    good = [one for one in found if not one.missing]
    reasons = list(dict.fromkeys(one.missing.rstrip(".") for one in found if one.missing))
    if good:
        for reason in reasons:
            say(f"{experiment}: {reason}.", err=True)
        return good
    why = "; ".join(reasons) or "there is nothing in it that it could be asked of"
    hints = [f"It has no vectors: panic embed {experiment} MODEL makes some."] if lacks_vectors else []
    hints += ["Leave this experiment out, and the others are shown."] if several else []
    raise NotFound(f"{experiment} has no answer to {question}: {why}.", hint=" ".join(hints))
