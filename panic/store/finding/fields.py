"""What a filter, a sort order and a column can name: fields of experiments, of runs, and of configs.

A field is a piece of SQL, with the tables that it needs beside `experiment`. What is worked out from results
(`Metric`) comes from whoever calls: the store does not know how.

    >>> Fields().known("run")["period"].type
    'number'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from panic.errors import UsageError, nearest
from panic.store.codec import PROMPT
from panic.store.reading import NUM_STEPS, RUN_STATE, VISIBLE
from panic.store.store import Store

Target = Literal["experiment", "run", "output", "training"]
Type = Literal["text", "number", "time", "flag", "texts", "state", "any"]

EXPERIMENT_STATES = ("running", "complete", "failed", "interrupted", "budget spent", "incomplete")
RUN_STATES = ("todo", "running", "done", "stuck", "repeated", "failed")
TRAINING_STATES = ("running", "complete", "out of time", "interrupted", "failed")
STATES: dict[Target, tuple[str, ...]] = {
    "experiment": EXPERIMENT_STATES, "run": RUN_STATES, "training": TRAINING_STATES,
}  # fmt: skip

RUN_PROMPT = PROMPT.replace("text", "prompt.text").replace("digest", "prompt.digest")
JOINS = {
    "run": "JOIN run ON run.experiment = experiment.id",
    "stuck": "LEFT JOIN stuck ON stuck.run = run.id",
    "repeated": "LEFT JOIN repeated ON repeated.run = run.id",
    "failure": "LEFT JOIN failure ON failure.run = run.id",
    "prompt": "JOIN output AS prompt ON prompt.id = run.prompt",
    "labelled": "LEFT JOIN temp.labelled AS labelled ON labelled.experiment = experiment.id"
    f" AND labelled.prompt = {RUN_PROMPT}",
    "standing": "LEFT JOIN temp.standing AS standing ON standing.experiment = experiment.id",
    "last": "LEFT JOIN session AS last ON last.id ="
    " (SELECT max(session.id) FROM session WHERE session.experiment = experiment.id)",
    "of_run": "LEFT JOIN temp.run_metric AS of_run ON of_run.run = run.id",
    "of_experiment": "LEFT JOIN temp.experiment_metric AS of_experiment"
    " ON of_experiment.experiment = experiment.id",
}
"""Tables beside `experiment`, in the order in which they can be joined; all but `run` add no rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What can be asked of an experiment or a run.

    type: "texts" has several texts, "any" is what a config says. sql: its value; of several texts a query
    with one column `value`. needs: names of JOINS. values: all that there can be. path: of a place in
    JSON, such as a config, which stands in a `column`.
    """

    name: str
    of: Target
    type: Type
    sql: str
    about: str
    example: str
    needs: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    path: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that is worked out from the results of a run or an experiment, as a field."""

    name: str
    of: Target
    about: str
    example: str

    @property
    def field(self) -> Field:
        """The field of this name."""
        source = "of_run" if self.of == "run" else "of_experiment"
        return Field(
            name=self.name, of=self.of, type="number", sql=f"{source}.{self.name}", about=self.about,
            example=self.example, needs=("run", source) if self.of == "run" else (source,),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The names of fields that are metrics, as a query needs them."""

    of_runs: tuple[str, ...]
    of_experiments: tuple[str, ...]


def _field(of: Target, name: str, type: Type, sql: str, about: str, example: str, *needs: str) -> Field:
    values = STATES[of] if type == "state" else ()
    names = ("run", *needs) if of == "run" else needs
    return Field(
        name=name, of=of, type=type, sql=sql, about=about, example=example, needs=names, values=values
    )


def _experiment(name: str, type: Type, sql: str, about: str, example: str, *needs: str) -> Field:
    return _field("experiment", name, type, sql, about, example, *needs)


def _run(name: str, type: Type, sql: str, about: str, example: str, *needs: str) -> Field:
    return _field("run", name, type, sql, about, example, *needs)


def _output(name: str, type: Type, sql: str, about: str, example: str) -> Field:
    return _field("output", name, type, sql, about, example)


def _training(name: str, type: Type, sql: str, about: str, example: str) -> Field:
    return _field("training", name, type, sql, about, example)


def _remarks(kind: str, uid: str) -> str:
    return f"annotation.target_kind = '{kind}' AND annotation.target = {uid}"


def _tags(where: str) -> str:
    """Tags that were given and not taken back since."""
    return (
        f"SELECT annotation.text AS value FROM annotation WHERE {where}"
        " AND annotation.kind IN ('tag', 'untag') GROUP BY annotation.text"
        " HAVING max(annotation.id) = max(CASE annotation.kind WHEN 'tag' THEN annotation.id END)"
    )


def _said(where: str, kind: str) -> str:
    """The last remark of a kind, NULL where it is empty."""
    return (
        f"(SELECT nullif(annotation.text, '') FROM annotation WHERE {where} AND annotation.kind = '{kind}'"
        " ORDER BY annotation.id DESC LIMIT 1)"
    )


def _comments(where: str) -> str:
    return f"SELECT annotation.text AS value FROM annotation WHERE {where} AND annotation.kind = 'comment'"


def _made(what: str) -> str:
    return f"(SELECT count(*) FROM {what} WHERE made.experiment = experiment.id)"


RUN_UID = f"panic_run_uid(experiment.name, run.network, {RUN_PROMPT}, run.seed, run.repeat, run.arm)"
OF_EXPERIMENT = _remarks("experiment", "experiment.uid")
OF_RUN = _remarks("run", RUN_UID)
OF_OUTPUT = _remarks("output", "lower(hex(output.digest))")
CAME_UP = (
    "invocation AS made JOIN run AS in_run ON in_run.id = made.run JOIN experiment AS its"
    f" ON its.id = in_run.experiment WHERE made.output = output.id AND its.id {VISIBLE}"
)
# `+`: the steps of an output are looked up by the output, and not with each of all runs.
OF_TRAINING = _remarks("training", "training.uid")
TRAINING_STATE = "panic_training_state(training.end_state, training.host, training.pid, training.started_at)"
COMMAND = "(SELECT group_concat(value, ' ') FROM json_each(training.provenance, '$.command'))"
PROJECT = f"coalesce({_said(OF_EXPERIMENT, 'project')}, json_extract(experiment.config, '$.project'))"
PROMPT_TAGS = "SELECT value FROM json_each(labelled.tags)"
OF_DIAGRAMS = "run AS made JOIN diagram ON diagram.run = made.id"
EMBEDDINGS = (
    "(SELECT count(*) FROM embedding WHERE embedding.output IN"
    " (SELECT made.prompt FROM run AS made WHERE made.experiment = experiment.id UNION"
    "  SELECT invocation.output FROM run AS made JOIN invocation ON invocation.run = made.id"
    "  WHERE made.experiment = experiment.id UNION"
    "  SELECT intervention.output FROM run AS made JOIN intervention ON intervention.run = made.id"
    "  WHERE made.experiment = experiment.id))"
)

FIELDS: tuple[Field, ...] = (
    _experiment("name", "text", "experiment.name", "its name", "name like 'night%'"),
    _experiment("id", "text", "experiment.uid", "its id", "id like '019a%'"),
    _experiment(
        "project", "text", PROJECT, "its project: what `panic project` says, else its config",
        "project = colours",
    ),
    _experiment("state", "state", "standing.state", "where it stands", "state = complete", "standing"),
    _experiment("runs", "number", "standing.runs", "how many runs it has", "runs >= 100", "standing"),
    *(
        _experiment(name, "number", f"standing.{name}", f"how many of its runs {what}", example, "standing")
        for name, what, example in (
            ("todo", "have not begun", "todo > 0"),
            ("begun", "are under way", "begun > 0"),
            ("done", "reached their length", "done = 0"),
            ("stuck", "are stuck", "stuck > 10"),
            ("repeated", "were ended as repeated", "repeated > 0"),
            ("failed", "failed", "failed > 0"),
        )
    ),
    _experiment(
        "invocations", "number", "standing.invocations", "how many steps are stored", "invocations > 1e6",
        "standing",
    ),
    _experiment("embeddings", "number", EMBEDDINGS, "how many vectors its outputs have", "embeddings = 0"),
    _experiment("diagrams", "number", _made(OF_DIAGRAMS), "how many diagrams it has", "diagrams > 0"),
    _experiment(
        "vectorisations", "number",
        _made(f"{OF_DIAGRAMS} JOIN vectorisation ON vectorisation.diagram = diagram.id"),
        "how many vectorisations it has", "vectorisations > 0",
    ),
    _experiment(
        "distances", "number", _made(f"{OF_DIAGRAMS} JOIN distance ON distance.a = diagram.id"),
        "how many distances it has", "distances > 0",
    ),
    _experiment("created", "time", "experiment.created_at", "when it was created", "created > 2026-11-01"),
    _experiment("started", "time", "last.started_at", "when its last session began", "started > -6h", "last"),
    _experiment("ended", "time", "last.ended_at", "when its last session ended", "ended is null", "last"),
    _experiment("host", "text", "last.host", "the host of its last session", "host = node7", "last"),
    _experiment(
        "command", "text", "last.command", "the command line of its last session", "command like '%--set%'",
        "last",
    ),
    _experiment(
        "is_null", "flag", "experiment.name GLOB '*/null-*'", "whether it holds null models",
        "is_null = false",
    ),
    _experiment("tags", "texts", _tags(OF_EXPERIMENT), "its tags", "'baseline' in tags"),
    _experiment("label", "text", _said(OF_EXPERIMENT, 'label'), "its label", "label like '%blue%'"),
    _experiment("comments", "texts", _comments(OF_EXPERIMENT), "its comments", "comments like '%odd%'"),
    _run("run", "number", "run.id", "its number", "run in (1, 2, 3)"),
    _run("uid", "text", RUN_UID, "its uid", "uid like '3f9c%'", "prompt"),
    _run(
        "network", "text", "(SELECT group_concat(value, ' → ') FROM json_each(run.network))",
        "its models in order, with arrows between them", "network like '%Captioner'",
    ),
    _run(
        "model", "texts", "SELECT value FROM json_each(run.network)", "the models of its network",
        "model = sd-turbo",
    ),
    _run("prompt", "text", RUN_PROMPT, "what it begins with", "prompt like '%horse%'", "prompt"),
    _run(
        "prompt_tags", "texts", PROMPT_TAGS, "the tags of its prompt in the config", "'barn' in prompt_tags",
        "prompt", "labelled",
    ),
    _run(
        "group", "text", "labelled.in_group", "the group of its prompt in the config", "group = colour",
        "prompt", "labelled",
    ),
    _run("seed", "number", "run.seed", "its seed; -1 is fresh noise", "seed = -1"),
    _run("repeat", "number", "run.repeat", "which repeat it is", "repeat = 0"),
    _run("arm", "text", "run.arm", "its arm, or baseline", "arm != baseline"),
    _run("length", "number", "run.max_length", "how many steps it is to have", "length >= 100"),
    _run("steps", "number", NUM_STEPS, "how many steps (model calls) it has", "steps < 10"),
    _run(
        "state", "state", f"({RUN_STATE})", "where it stands", "state = stuck", "stuck", "repeated", "failure"
    ),
    _run("period", "number", "stuck.period", "its period (model calls)", "period > 2", "stuck"),
    _run(
        "entry_step", "number", "stuck.entry_step", "stuck since this model call", "entry_step < 10", "stuck"
    ),
    _run("failure", "text", "failure.kind", "the kind of its failure", "failure = timeout", "failure"),
    _run("message", "text", "failure.message", "the message of its failure", "message ~ 'NaN'", "failure"),
    _run(
        "tags", "texts", f"{_tags(OF_RUN)} UNION {_tags(OF_EXPERIMENT)}", "its tags and its experiment's",
        "'odd' in tags", "prompt",
    ),
    _run(
        "label", "text", f"coalesce({_said(OF_RUN, 'label')}, {_said(OF_EXPERIMENT, 'label')})",
        "its label, or its experiment's", "label = first", "prompt",
    ),
    _run("comments", "texts", _comments(OF_RUN), "its comments", "comments ~ 'horse'", "prompt"),
    _output("digest", "text", "lower(hex(output.digest))", "its digest", "digest like '3f9c%'"),
    _output("modality", "text", "output.modality", "text or image", "modality = image"),
    _output("text", "text", "output.text", "what it says, if it is a text", "text like '%horse%'"),
    _output("width", "number", "output.width", "how wide an image is, in pixels", "width > 64"),
    _output("height", "number", "output.height", "how high an image is, in pixels", "height > 64"),
    _output(
        "experiment", "texts", f"SELECT DISTINCT its.name AS value FROM {CAME_UP}",
        "the experiments of whose steps one put it out", "'night' in experiment",
    ),
    _output(
        "runs", "number", f"(SELECT count(DISTINCT made.run) FROM {CAME_UP})",
        "in how many runs a step put it out", "runs > 1",
    ),
    _output(
        "invocations", "number", f"(SELECT count(*) FROM {CAME_UP})", "how many steps put it out",
        "invocations > 10",
    ),
    _output("tags", "texts", _tags(OF_OUTPUT), "its tags", "'odd' in tags"),
    _output("label", "text", _said(OF_OUTPUT, "label"), "its label", "label like '%blue%'"),
    _output("comments", "texts", _comments(OF_OUTPUT), "its comments", "comments like '%odd%'"),
    _training("name", "text", "training.name", "the last part of its folder", "name like 'quick%'"),
    _training("id", "text", "training.uid", "its id: what it learns from what, and how", "id like '3f9c%'"),
    _training("task", "text", "training.task", "what it trains", "task = diffusion"),
    _training("folder", "text", "training.folder", "where its model is", "folder like '%/mine'"),
    _training(
        "project", "text",
        f"coalesce({_said(OF_TRAINING, 'project')}, json_extract(training.config, '$.project'))",
        "its project: what `panic project` says, else its config", "project = colours",
    ),
    _training("state", "state", TRAINING_STATE, "where it stands", "state = running"),
    *(
        _training(name, "number", f"training.{name}", about, example)
        for name, about, example in (
            ("step", "how many steps it has", "step >= 1000"),
            ("steps", "how many steps it is to have", "steps > 1e4"),
            ("loss", "its loss, of its last steps", "loss < 0.1"),
            ("val_loss", "its loss on validation items, of the last evaluation", "val_loss < 0.1"),
            ("best_loss", "the least loss on validation items", "best_loss < 0.1"),
            ("best_step", "the step of the least loss on validation items", "best_step > 500"),
            ("seconds", "how long it was performed, in all", "seconds > 3600"),
        )
    ),
    _training("created", "time", "training.created_at", "when it first began", "created > 2026-11-01"),
    _training("started", "time", "training.started_at", "when its last session began", "started > -6h"),
    _training("updated", "time", "training.updated_at", "when it was last heard of", "updated > -5min"),
    _training("ended", "time", "training.ended_at", "when its last session ended", "ended is null"),
    _training("host", "text", "training.host", "the host of its last session", "host = node7"),
    _training("command", "text", COMMAND, "the command line of its last session", "command like '%--set%'"),
    _training("log", "text", "training.log", "the log of its last session", "log like '%mine%'"),
    _training("message", "text", "training.message", "why its last session ended", "message like '%number%'"),
    _training("tags", "texts", _tags(OF_TRAINING), "its tags", "'baseline' in tags"),
    _training("label", "text", _said(OF_TRAINING, "label"), "its label", "label like '%blue%'"),
    _training("comments", "texts", _comments(OF_TRAINING), "its comments", "comments like '%odd%'"),
)  # fmt: skip
"""All fields but those of configs and metrics."""


OTHERS: dict[Target, Target] = {"experiment": "run", "run": "experiment"}
"""Whose fields can be asked for beside a target's own."""
IN_JSON = ("config", "measures")
"""Columns whose parts are fields: what a config says, and what the last evaluation of a training told."""


class Fields:
    """The fields that there are, found by name.

    Args:
        metrics: what is worked out from results, beside FIELDS.
        show: puts metrics into `temp.run_metric` and `temp.experiment_metric`, of these rows of experiments
            or of all.
    """

    def __init__(
        self,
        metrics: Sequence[Metric] = (),
        show: Callable[[Store, Asked, Sequence[int] | None], None] | None = None,
    ) -> None:
        self.show = show
        self.all = (*FIELDS, *(metric.field for metric in metrics))

    def known(self, target: Target) -> dict[str, Field]:
        """Fields by name, as they are meant where experiments, runs, outputs or trainings are asked for.

        A plain name is first one of what is asked for; `experiment.` or `run.` before it says which.
        Outputs and trainings have none of either.
        """
        asked = [of for of in (OTHERS.get(target), target) if of]
        plain = {f.name: f for of in asked for f in self.all if f.of == of}
        return {**plain, **{f"{f.of}.{f.name}": f for f in self.all if f.of in asked}}

    def find(self, name: str, target: Target) -> Field:
        """Return the field of this name. Raises UsageError, naming the nearest."""
        known = self.known(target)
        if name in known:
            return known[name]
        has_config = target != "output" and name.startswith("config")
        if name.split(".")[0] in IN_JSON and (has_config or target == "training"):
            return config_field(name, "training" if target == "training" else "experiment")
        raise UsageError(
            f"There is no field {name!r}.",
            hint=f"{meant(name, known)}`panic fields` lists those of new ones.",
        )

    def other_meaning(self, field: Field) -> Field | None:
        """Return the field that has the same name for the other target, if there is one."""
        return next((f for f in self.all if f.name == field.name and f.of == OTHERS.get(field.of)), None)


def meant(word: str, candidates: Iterable[str]) -> str:
    """Return a question for what a misspelt word may have meant, or nothing."""
    near = nearest(word, candidates)
    return f"Did you mean {near[0]}? " if near else ""


def config_field(name: str, of: Target = "experiment") -> Field:
    """Return the field of a place in a config, as in config.models.quick.steps, or in a training's measures.

    Parts with other characters stand in double quotes; a number without them is a place in a list.

    Raises UsageError.
    """
    source = name.split(".")[0]
    path = _path(name.removeprefix(source))
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise UsageError(f"There is no field {name!r}: it has bytes in it that are not UTF-8.")
    example = "measures.accuracy > 0.9" if source == "measures" else EXAMPLES[of]
    if path == "$":
        raise UsageError(f"{source} is no field by itself.", hint=f"For example {example}.")
    about = "what its last evaluation told" if source == "measures" else "what its config says there"
    return Field(
        name=name, of=of, type="any", sql=f"json_extract({of}.{source}, {{path}})", about=about,
        example=example, path=path, column=f"{of}.{source}",
    )  # fmt: skip


EXAMPLES: dict[Target, str] = {
    "experiment": "config.max_length = 100", "training": "config.learning_rate < 0.001",
}  # fmt: skip


def _path(name: str) -> str:
    """The path of a dotted name below a column, as JSON has it; a part in quotes may have dots in it."""
    path = "$"
    for place, piece in enumerate(name.split('"')):
        parts = [piece] if place % 2 else [part for part in piece.split(".") if part]
        for part in parts:
            is_place = not place % 2 and re.fullmatch("[0-9]+", part)
            path += f"[{part}]" if is_place else f'."{part}"'
    return path


def as_column(field: Field) -> Field:
    """Return a field whose SQL is one value also where it has several texts, which are then one JSON list."""
    if field.type != "texts":
        return field
    return replace(field, sql=f"(SELECT json_group_array(value) FROM ({field.sql}))")
