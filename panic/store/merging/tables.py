"""What the rows of each table are by nature, wherever they are: the list that a merge walks.

Row numbers mean something in one store only. A row is told by its key, in which numbers of other rows stand
for what those are. A table that is not listed here and whose name does not begin as `DERIVED` says is a
mistake that a test finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from panic.store.reading import HIDDEN
from panic.store.trainings import DELETIONS, deleted_of
from panic.store.trainings import NAMES as TRAINING_COLUMNS

DERIVED = ("caption", "change", "derived")
"""How the names of tables begin that are made anew from all others, and not merged."""
WALKED_APART = ("meta", "experiment")
"""Tables that the walk does not copy: experiments are joined one by one (`experiments.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of a store.

    key: the columns by which a row is told; without any, all of them. refers: columns that are numbers of
    rows, by the table that these are in. owners: the columns of these whose rows have to come along, or this
    one does not. is_numbered: others refer to its rows by `id`. agrees: columns that are the same in both
    stores, or the run is in conflict. written: what is written into a column, by {s} (the source's row) and
    the columns' own values in braces. only: which rows come at all, by {s}. joined, if_joined: what becomes
    of a row that both have, and when, in SQL: `t` is the target's, {s} the source's.
    """

    name: str
    key: tuple[str, ...] = ()
    refers: Mapping[str, str] = field(default_factory=dict)
    owners: tuple[str, ...] = ()
    is_numbered: bool = False
    agrees: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    only: str = "TRUE"
    joined: str = ""
    if_joined: str = "TRUE"


_OF_RUN = {"run": "run"}
_OF_STEP = {"run": "run", "input": "output", "output": "output", "batch": "batch"}
_RENAMED = "(SELECT new FROM temp.renamed WHERE old = {s}.target)"
_SESSION = (
    "(SELECT CAST(new AS TEXT) FROM temp.map_session"
    " WHERE {s}.target_kind = 'session' AND old = CAST({s}.target AS INTEGER))"
)
_STAYS_DELETED = (
    "EXISTS (SELECT 1 FROM main.experiment AS own WHERE own.id = m_experiment.new"
    f" AND own.name GLOB '{HIDDEN}*' AND own.id > (SELECT experiment FROM temp.first))"
)
"""Deletions that come: of experiments that came, and that no source has as they were."""
_LATER_TRAINING = ", ".join(f"{n} = {{s}}.{n}" for n in TRAINING_COLUMNS if n not in ("uid", "folder"))
_IS_LATER = "{s}.updated_at > t.updated_at"

BEFORE_RUNS = (
    Table(name="model", key=("fingerprint",), is_numbered=True),
    Table(name="measure", key=("digest",), is_numbered=True),
    Table(name="output", key=("digest",), is_numbered=True),
    Table(
        name="epoch",
        key=("experiment", "name", "number"),
        refers={"experiment": "experiment", "model": "model"},
        owners=("experiment",),
    ),
    Table(
        name="session",
        key=("started_at", "host", "pid"),
        refers={"experiment": "experiment"},
        owners=("experiment",),
        is_numbered=True,
        joined="(ended_at, end_state, timeline, provenance) ="
        " ({s}.ended_at, {s}.end_state, {s}.timeline, {s}.provenance)",
        if_joined="t.ended_at IS NULL AND {s}.end_state NOTNULL",
    ),
    Table(
        name="batch",
        key=(
            *("session", "model", "epoch", "device", "size", "padded_size", "bucket"),
            *("started_at", "duration_s"),
        ),
        refers={"session": "session", "model": "model"},
        owners=("session",),
        is_numbered=True,
    ),
    Table(name="answer", key=("batch",), refers={"batch": "batch"}, owners=("batch",)),
    Table(
        name="spending",
        key=("session", "model"),
        refers={"session": "session", "model": "model"},
        owners=("session",),
        joined="requests = max(t.requests, {s}.requests), tokens = max(t.tokens, {s}.tokens)",
    ),
    Table(
        name="run",
        key=("experiment", "network", "prompt", "seed", "repeat", "arm"),
        refers={"experiment": "experiment", "prompt": "output"},
        owners=("experiment",),
        is_numbered=True,
        joined="max_length = {s}.max_length",
        if_joined="t.max_length < {s}.max_length",
    ),
)
"""Up to the runs, in the order in which they are written: what refers comes after what it refers to."""
OF_RUNS = (
    Table(
        name="invocation",
        key=("run", "step"),
        refers=_OF_STEP,
        owners=("run",),
        agrees=("seed", "input", "output"),
    ),
    Table(
        name="intervention",
        key=("run", "step", "place"),
        refers=_OF_STEP,
        owners=("run",),
        agrees=("kind", "seed", "input", "output"),
    ),
    Table(name="stuck", key=("run",), refers=_OF_RUN, owners=("run",), agrees=("entry_step", "period")),
    Table(
        name="repeated",
        key=("run",),
        refers=_OF_RUN,
        owners=("run",),
        agrees=("entry_step", "period", "times"),
    ),
    Table(
        name="failure",
        key=("run",),
        refers=_OF_RUN,
        owners=("run",),
        joined="(step, kind, message, detail, attempts, failed_at) ="
        " ({s}.step, {s}.kind, {s}.message, {s}.detail, {s}.attempts, {s}.failed_at)",
        if_joined="({s}.step, {s}.kind) > (t.step, t.kind)",
    ),
    Table(name="attempt", refers=_OF_RUN, owners=("run",)),
    Table(
        name="embedding",
        key=("output", "model"),
        refers={"output": "output", "model": "model", "batch": "batch"},
        owners=("batch",),
        joined="(batch, dimension, vector) = ({s}.batch, {s}.dimension, {s}.vector)",
        if_joined="{s}.vector <> t.vector AND sha256({s}.vector) < sha256(t.vector)",
    ),
    Table(
        name="diagram",
        key=("run", "model", "settings_digest", "num_points"),
        refers={"run": "run", "model": "model"},
        owners=("run",),
        is_numbered=True,
    ),
    Table(
        name="diagram_bars", key=("diagram", "dimension"), refers={"diagram": "diagram"}, owners=("diagram",)
    ),
    Table(
        name="vectorisation",
        key=("diagram", "dimension", "measure"),
        refers={"diagram": "diagram", "measure": "measure"},
        owners=("diagram",),
    ),
    Table(
        name="distance",
        key=("a", "b", "dimension", "measure"),
        refers={"a": "diagram", "b": "diagram", "measure": "measure"},
        owners=("a", "b"),
        written={"a": "min({a}, {b})", "b": "max({a}, {b})"},
    ),
    Table(
        name="annotation",
        written={
            "target": f"coalesce({_SESSION}, {_RENAMED}, {{s}}.target)",
            "signature": f"CASE WHEN {_RENAMED} IS NULL THEN {{s}}.signature END",
        },
        only=f"({{s}}.target_kind <> 'session' OR {_SESSION} NOTNULL)"
        f" AND NOT ({{s}}.target_kind = 'training' AND {{s}}.kind IN ({DELETIONS}))"
        " AND ({s}.target_kind, {s}.target) NOT IN (SELECT kind, target FROM temp.silent)",
    ),
    Table(
        name="deletion",
        key=("experiment",),
        refers={"experiment": "experiment", "origin": "experiment"},
        owners=("experiment",),
        only=_STAYS_DELETED,
        joined="(name, author, at) = ({s}.name, {s}.author, {s}.at)",
        if_joined="({s}.at, {s}.author) < (t.at, t.author)",
    ),
    Table(
        name="training",
        key=("uid", "folder"),
        only=f"NOT {deleted_of('{s}', 'theirs.annotation')}",
        joined=_LATER_TRAINING,
        if_joined=_IS_LATER,
    ),
    Table(
        name="working_memory",
        key=("fingerprint", "device_kind", "bucket", "batch_size"),
        joined="peak_bytes = {s}.peak_bytes",
        if_joined="{s}.peak_bytes > t.peak_bytes",
    ),
    Table(name="invariance", key=("fingerprint", "batch_size", "threads", "surroundings")),
)
"""From the runs on, and what belongs to no experiment."""
TABLES = BEFORE_RUNS + OF_RUNS
