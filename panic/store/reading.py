"""What a store knows of experiments, models, runs and sessions, answered with records.

An experiment is given by its row number, its name, the beginning of its uid, or "latest".

    with Store("panic-store") as store:
        for run in reading.runs(store, "latest"):
            print(run.prompt, run.state)
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from panic.arms import Arm, arms_of, models_of
from panic.errors import NotFound, StoreCorrupt, nearest
from panic.store.codec import PROMPT, decode_json, decode_network, decode_object, readable
from panic.store.records import (
    ENDED,
    Counts,
    EpochRow,
    ExperimentRow,
    FailureRow,
    ModelRow,
    Repeated,
    RunRow,
    SessionRow,
)
from panic.store.store import Store
from panic.store.stuck import Stuck

Selector = int | str
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What the config's schema accepts, without the libraries that it needs; a test compares them."""
NULL_NAME = re.compile(rf"({NAME.pattern})/null-[A-Za-z0-9._-]+")
"""What an experiment of null models is called, after the one that it is of; no config can say it."""
HIDDEN = "deleted/"
"""How the name of an experiment begins that was deleted (`panic.store.tombstones`); no config can say it."""

# Pieces of SQL that several questions share; ?1 is an experiment's row, unless it is said otherwise.

VISIBLE = "NOT IN (SELECT experiment FROM deletion)"
"""What is so of the row of an experiment that was not deleted."""
IN_RUNS = f"IN (SELECT run.id FROM run WHERE run.experiment {VISIBLE})"
IN_USE = (
    f"(EXISTS (SELECT 1 FROM run AS begun WHERE begun.prompt = output.id AND begun.experiment {VISIBLE})"
    f" OR EXISTS (SELECT 1 FROM invocation AS made WHERE made.output = output.id AND +made.run {IN_RUNS})"
    f" OR EXISTS (SELECT 1 FROM intervention AS made WHERE made.output = output.id AND +made.run {IN_RUNS}))"
)
"""Whether an output is the prompt of a run that is not deleted, or what a step or an intervention put out."""
USED_OUTPUTS = (
    "SELECT prompt FROM run WHERE experiment = ?1 UNION"
    " SELECT output FROM run JOIN invocation ON invocation.run = run.id WHERE experiment = ?1 UNION"
    " SELECT output FROM run JOIN intervention ON intervention.run = run.id WHERE experiment = ?1"
)
"""Rows of the outputs that an experiment's runs have, prompts included."""
RUN_OUTPUTS = (
    "SELECT prompt FROM run WHERE id = ?1 UNION SELECT output FROM invocation WHERE run = ?1"
    " UNION SELECT output FROM intervention WHERE run = ?1"
)
"""Rows of the outputs of run ?1, its prompt included."""
NUM_STEPS = "coalesce((SELECT max(step) + 1 FROM invocation WHERE invocation.run = run.id), 0)"
"""How many steps a row of `run` has."""
RUN_STATE = (
    "CASE WHEN failure.run NOTNULL THEN 'failed' WHEN stuck.run NOTNULL THEN 'stuck'"
    " WHEN repeated.run NOTNULL THEN 'repeated'"
    f" WHEN {NUM_STEPS} >= max_length THEN 'done' WHEN {NUM_STEPS} THEN 'running' ELSE 'todo' END"
)
"""The state of a row of `run`, with what stands of it in `stuck`, `repeated` and `failure`."""
RUN_ENDS = (
    "LEFT JOIN stuck ON stuck.run = run.id LEFT JOIN repeated ON repeated.run = run.id"
    " LEFT JOIN failure ON failure.run = run.id"
)
"""What joins these three to rows of `run`."""
IMAGE_STEPS = (
    "FROM run CROSS JOIN invocation AS i ON i.run = run.id"
    " JOIN output AS made ON made.id = i.output AND made.modality = 'image'"
)
"""Every step that put out an image, as `run`, `i` and `made`; of all experiments."""
IMAGE_INTERVENTIONS = IMAGE_STEPS.replace("invocation AS i", "intervention AS i")
"""Every intervention that put out an image, in the same words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTime:
    """Work per model: its batches, the items in them, seconds of model time; and what padding took of it.

    padding_items: places in batches that no item filled. padding_s: their share of `duration_s`.
    """

    model: str
    batches: int
    items: int
    padding_items: int
    duration_s: float
    padding_s: float


def current_diagrams(where: str) -> str:
    """The diagrams with most points, among those that `where` chooses from `diagram JOIN run`.

    One row (id, run, model, settings_digest, metric, num_points, num_unique) per run, model and settings.
    """
    return (
        "SELECT diagram.id AS id, run, model, settings_digest, diagram.settings ->> 'metric' AS metric,"
        " max(num_points) AS num_points, num_unique"
        f" FROM diagram JOIN run ON run.id = run {where} GROUP BY run, model, settings_digest"
    )


CURRENT = current_diagrams("WHERE experiment = ?1 AND model = ?2 AND settings_digest = ?3")
"""The current diagrams of an experiment under model ?2, of settings ?3."""


def experiments(store: Store) -> list[ExperimentRow]:
    """All experiments, oldest first, without those that were deleted (`panic.store.tombstones`).

    Raises StoreCorrupt for a name or id that is none: both become parts of names of files.
    """
    return experiment_rows(store, [id for id, _, _ in _names(store)])


def _names(store: Store, called: str | None = None) -> list[tuple[int, str, str]]:
    """(row, uid, name) of what `experiments` gives, oldest first: thousands of configs take their time.

    called: of the one of this name alone.
    """
    these = "" if called is None else "name = ? AND "
    sql = f"SELECT id, uid, name FROM experiment WHERE {these}id {VISIBLE} ORDER BY id"
    rows = store.db.rows(sql, *([] if called is None else [called]))
    for id, uid, name in rows:
        if not is_uid(uid) or not is_name(name):
            what = f"a name that is none: {name!r}" if is_uid(uid) else f"an id that is none: {uid!r}"
            raise StoreCorrupt(f"{store.path}: experiment {id} has {what}.", hint="Do not trust this store.")
    return rows


def experiment_rows(store: Store, ids: Sequence[int]) -> list[ExperimentRow]:
    """The experiments with these rows, oldest first."""
    rows = store.db.rows(
        "SELECT id, uid, name, config, created_at FROM experiment"
        " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        json.dumps(list(ids)),
    )
    return [
        ExperimentRow(
            id=id,
            uid=uid,
            name=name,
            config=decode_object(config),
            created_at=created_at,
        )
        for id, uid, name, config, created_at in rows
    ]


def is_uid(text: str) -> bool:
    """Whether a text has the form of an experiment's id."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def is_name(text: str) -> bool:
    """Whether a text can be an experiment's name, which is a part of names of files (`file_stem`)."""
    return (NAME.fullmatch(text) is not None and text != "latest") or is_null(text)


def is_null(name: str) -> bool:
    """Whether an experiment of this name holds null models of another."""
    return NULL_NAME.fullmatch(name) is not None


def nulls(store: Store, name: str) -> list[ExperimentRow]:
    """The experiments of null models of the experiment called so."""
    found = [id for id, _, known in _names(store) if is_null(known) and known.split("/")[0] == name]
    return experiment_rows(store, found)


def file_stem(name: str) -> str:
    """An experiment's name as a part of a file's."""
    return name.replace("/", "-")


def named(store: Store, name: str) -> ExperimentRow | None:
    """The experiment of this name, if there is one."""
    return next(iter(experiment_rows(store, [id for id, _, _ in _names(store, name)])), None)


def experiment(
    store: Store, selector: Selector = "latest", *, among: Container[int] | None = None
) -> ExperimentRow:
    """One experiment. "latest" is the one last worked on (of the rows `among`), null models apart.

    Raises NotFound, naming the nearest, also when several uids begin as given.
    """
    if isinstance(selector, int):
        sql = f"SELECT id FROM experiment WHERE id = ? AND id {VISIBLE}"
        if found := experiment_rows(store, [id for (id,) in store.db.rows(sql, selector)]):
            return found[0]
    elif among is None and is_name(selector) and (called_so := named(store, selector)):
        return called_so
    known = [one for one in _names(store) if among is None or one[0] in among]
    if selector == "latest" and known:
        own = [id for id, _, name in known if not is_null(name)] or [id for id, _, _ in known]
        last = store.db.value(
            "SELECT experiment FROM session WHERE experiment IN (SELECT value FROM json_each(?))"
            " ORDER BY id DESC",
            json.dumps(own),
        )
        selector = last or own[-1]
    same = [id for id, _, name in known if selector in (id, name)]
    begun = [row for row in known if len(str(selector)) >= 4 and row[1].startswith(str(selector))]
    if same or len(begun) == 1:
        return experiment_rows(store, [same[-1] if same else begun[0][0]])[0]
    if begun:
        raise NotFound(
            f"Several experiments in {store.path} begin with {selector!r}.",
            hint=f"They are: {', '.join(f'{uid} ({name})' for _, uid, name in begun[-10:])}.",
        )
    names = list(dict.fromkeys(name for _, _, name in known))
    near = nearest(str(selector), names)
    if not names:
        hint = "The store holds no experiments yet."
    else:
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names[-10:])}."
    if any(uid.startswith(str(selector)) for _, uid, _ in known):
        hint = "The beginning of a uid has at least 4 characters."
    of_training = "SELECT 1 FROM training WHERE name = ?1 OR folder = ?1 LIMIT 1"
    if among is None and store.db.value(of_training, readable(str(selector))):
        told = "panic show, status, compare and report --of training tell of those there are."
        hint = f"A training is called so, or was: {told}"
    raise NotFound(f"No experiment {str(selector)!r} in {store.path}.", hint=hint)


def scope(
    store: Store, selector: Selector | None, clause: str = "WHERE experiment = ?1"
) -> tuple[str, tuple[int, ...]]:
    """What to add to a query, and its parameters, to restrict it to an experiment.

    For None to all that were not deleted, which is nothing to add where none was.
    """
    if selector is None:
        has_hidden = store.db.value("SELECT 1 FROM deletion LIMIT 1")
        return clause.replace(
            "experiment = ?1", f"coalesce(experiment, 0) {VISIBLE}"
        ) if has_hidden else "", ()
    return clause, (selector if isinstance(selector, int) else experiment(store, selector).id,)


def models(store: Store) -> list[ModelRow]:
    """Every model that was used."""
    rows = store.db.rows("SELECT id, name, fingerprint, spec, is_repeatable FROM model ORDER BY id")
    return [
        ModelRow(
            id=id, name=name, fingerprint=fingerprint, spec=decode_object(spec), is_repeatable=bool(is_it)
        )
        for id, name, fingerprint, spec, is_it in rows
    ]


def model(store: Store, selector: Selector) -> ModelRow:
    """One model by row number, fingerprint or name; of several with a name the newest. NotFound otherwise."""
    known = models(store)
    found = [row for row in known if selector in (row.id, row.fingerprint, row.name)]
    if found:
        return found[-1]
    near = nearest(str(selector), (row.name for row in known))
    raise NotFound(
        f"No model {str(selector)!r} was used in {store.path}.",
        hint=f"Did you mean {near[0]}?" if near else "",
    )


def unrepeatable(store: Store) -> set[tuple[int, str]]:
    """(experiment, name) of the models whose results are not repeatable."""
    rows = store.db.rows(
        # CROSS: models, of which there are few, come first.
        "SELECT DISTINCT experiment, epoch.name FROM model CROSS JOIN epoch ON model.id = epoch.model"
        " WHERE NOT is_repeatable"
    )
    return {(experiment, name) for experiment, name in rows}


def runs(
    store: Store, experiment: Selector | None = None, *, only: Sequence[int] | None = None
) -> list[RunRow]:
    """Runs with their state, in the order in which they were asked for; only: those of these rows."""
    where, parameters = scope(store, experiment)
    chosen: tuple[object, ...] = parameters
    if only is not None:
        where = f"{where or 'WHERE TRUE'} AND run.id IN (SELECT value FROM json_each(?2))"
        chosen = (*(parameters or (None,)), json.dumps(list(only)))
    rows = store.db.rows(
        f"SELECT run.id, experiment, network, {PROMPT}, seed, repeat, max_length, arm, {NUM_STEPS},"
        f" {RUN_STATE},"
        " stuck.entry_step, stuck.period, repeated.entry_step, repeated.period, times,"
        " failure.step, kind, message, detail, attempts, failed_at"
        f" FROM run JOIN output ON output.id = run.prompt {RUN_ENDS} {where} ORDER BY run.id",
        *chosen,
    )
    networks: dict[str, tuple[str, ...]] = {}
    others = unrepeatable(store)
    meanings = {of: arms(store, of) for of in {row[1] for row in rows}} if others else {}
    found = []
    for id, of, network, prompt, seed, repeat, max_length, arm, num_steps, state, *ends in rows:
        (entry_step, period), repeated, failed = ends[:2], ends[2:5], ends[5:]
        if network not in networks:
            networks[network] = decode_network(network)
        failure = None
        if failed[0] is not None:
            step, kind, message, detail, attempts, failed_at = failed
            failure = FailureRow(
                step=step, kind=kind, message=message, detail=detail, attempts=attempts, failed_at=failed_at
            )
        found.append(
            RunRow(
                id=id,
                experiment=of,
                network=networks[network],
                prompt=prompt,
                seed=seed,
                repeat=repeat,
                max_length=max_length,
                num_steps=num_steps,
                state=state,
                entry_step=entry_step,
                period=period,
                failure=failure,
                repeated=None if repeated[0] is None else Repeated(*repeated),
                is_repeatable=not others
                or others.isdisjoint(
                    (of, name) for name in models_of(networks[network], meanings[of].get(arm, ()))
                ),
                arm=arm,
            )
        )
    return found


def arms(store: Store, experiment: int) -> dict[str, Arm]:
    """What the arms of an experiment (row number) mean, by name; empty where it has the baseline alone.

    Raises StoreCorrupt for a stored config whose arms are none.
    """
    text = store.db.value("SELECT json_extract(config, '$.arms') FROM experiment WHERE id = ?", experiment)
    if text in (None, "{}"):
        return {}
    try:
        return arms_of({"arms": decode_object(text)})
    except (AttributeError, LookupError, StopIteration, TypeError, ValueError):
        raise StoreCorrupt(f"{store.path}: the arms of experiment {experiment} are none.") from None


def is_stuck(store: Store, run: int) -> Stuck | None:
    """Did this run (`RunRow.id`) end because its state came back? Then its cycle, else None: true or false.

    A run that reached its full length before a state came back is not stuck, nor is one that failed, has not
    ended yet, or has fresh noise at every step. Raises NotFound for a run that is not in the store.
    """
    found = store.db.rows(
        "SELECT entry_step, period FROM run LEFT JOIN stuck ON stuck.run = run.id WHERE run.id = ?", run
    )
    for entry_step, period in found:
        return None if period is None else Stuck(entry_step=entry_step, period=period)
    raise NotFound(f"No run {run} in {store.path}.")


def counts(store: Store, experiment: Selector | None = None) -> Counts:
    """How many runs (by state), invocations, embeddings, diagrams and so on there are."""
    where, parameters = scope(store, experiment)
    rows = store.db.rows(f"SELECT {NUM_STEPS}, {RUN_STATE} FROM run {RUN_ENDS} {where}", *parameters)
    states = [state for _, state in rows]
    used, _ = scope(store, experiment, f"WHERE output IN ({USED_OUTPUTS})")
    made, _ = scope(store, experiment, "WHERE run IN (SELECT id FROM run WHERE experiment = ?1)")
    return Counts(
        runs=len(states),
        **{state: states.count(state) for state in ("todo", "running", *ENDED)},
        invocations=sum(row[0] for row in rows),
        embeddings=store.db.value(f"SELECT count(*) FROM embedding {used}", *parameters),
        diagrams=store.db.value(f"SELECT count(*) FROM diagram {made}", *parameters),
        vectorisations=store.db.value(
            f"SELECT count(*) FROM diagram JOIN vectorisation ON diagram = diagram.id {made}", *parameters
        ),
        distances=store.db.value(
            f"SELECT count(*) FROM diagram JOIN distance ON a = diagram.id {made}", *parameters
        ),
    )


def earlier_failures(store: Store, run: int) -> list[FailureRow]:
    """How a run failed before it was tried again, oldest first."""
    names = FailureRow.__slots__
    rows = store.db.rows(f"SELECT {', '.join(names)} FROM attempt WHERE run = ? ORDER BY rowid", run)
    return [FailureRow(**dict(zip(names, row, strict=True))) for row in rows]


def one_of(column: str, chosen: Sequence[Any] | None) -> tuple[str, list[str]]:
    """A condition, and its parameters: that a column is one of these; of None anything is.

    One that decides both when it is asked (`? ISNULL OR ...`) is held against every row of a table.
    """
    if chosen is None:
        return "TRUE", []
    return f"{column} IN (SELECT value FROM json_each(?))", [json.dumps(list(chosen))]


def run_counts(store: Store, experiments: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    """(experiment, runs, todo, running, done, stuck, repeated, failed, invocations) by row of experiment.

    Of these experiments, or of all, as far as they have runs.
    """
    states = ", ".join(f"sum(state = '{state}')" for state in ("todo", "running", *ENDED))
    these, parameters = one_of("experiment", experiments)
    rows: list[tuple[int, ...]] = store.db.rows(
        f"WITH counted AS (SELECT experiment, {NUM_STEPS} AS num_steps, {RUN_STATE} AS state"
        f" FROM run {RUN_ENDS} WHERE {these})"
        f" SELECT experiment, count(*), {states}, sum(num_steps) FROM counted GROUP BY experiment",
        *parameters,
    )
    return rows


def epochs(store: Store, experiment: Selector) -> list[EpochRow]:
    """Shape epochs of an experiment, by model name and number."""
    where, parameters = scope(store, experiment)
    names = EpochRow.__slots__
    rows = store.db.rows(
        "SELECT experiment, epoch.name, number, model, fingerprint, batch_size, device_kind, threads,"
        f" opened_at, reason, mates FROM epoch JOIN model ON model.id = epoch.model {where}"
        " ORDER BY epoch.name, number",
        *parameters,
    )
    return [EpochRow(**dict(zip(names, row, strict=True))) for row in rows]


def sessions(store: Store, experiment: Selector | None = None) -> list[SessionRow]:
    """Sessions, oldest first."""
    where, parameters = scope(store, experiment)
    names = SessionRow.__slots__
    rows = store.db.rows(f"SELECT {', '.join(names)} FROM session {where} ORDER BY id", *parameters)
    return [
        SessionRow(
            **dict(
                zip(names, (*row, decode_object(provenance), config and decode_object(config)), strict=True)
            )
        )
        for *row, provenance, config in rows
    ]


def timelines(store: Store, experiment: Selector | None = None) -> dict[int, list[dict[str, Any]]]:
    """What sessions that have ended spent their time on, by session; empty where that was not recorded.

    Each row has place, name, model, start_s (since the session began), width_s and seconds.
    """
    where, parameters = scope(store, experiment)
    rows = store.db.rows(f"SELECT id, timeline FROM session {where} ORDER BY id", *parameters)
    return {session: decode_json(timeline) for session, timeline in rows if timeline is not None}


def model_times(store: Store, experiment: Selector | None = None) -> list[ModelTime]:
    """Batches, items, padding and seconds per model, of an experiment's sessions or of all."""
    where, parameters = scope(store, experiment)
    names = ModelTime.__slots__
    rows = store.db.rows(
        "SELECT name, count(*), sum(size), sum(padded_size - size), sum(duration_s),"
        " sum(duration_s * (padded_size - size) / padded_size)"
        " FROM batch JOIN model ON model.id = batch.model JOIN session ON session.id = batch.session"
        f" {where} GROUP BY model.id ORDER BY model.id",
        *parameters,
    )
    return [ModelTime(**dict(zip(names, row, strict=True))) for row in rows]
