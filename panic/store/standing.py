"""Where an experiment stands, read from the store alone, so that any process can tell.

    standing(store, reading.experiment(store, "latest")).state

States: `running` (a live driver works on it), `complete` (nothing left to do of all that was ever asked for),
`failed` (ended, but some runs or the session failed), `interrupted` (stopped or killed before the end),
`budget spent` (what endpoints may be sent is used up, a larger budget goes on),
`incomplete` (never begun, or the last session was asked for less).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from panic.errors import ConfigError
from panic.store import missing, reading, summaries
from panic.store.codec import decode_object, sound_config
from panic.store.records import Counts, ExperimentRow
from panic.store.store import Store

RECENT_BATCHES = 200
ENDED_WELL = ("complete", "done")


class LastSession(NamedTuple):
    """The newest session of an experiment; `end_state` is None while it works or if it was killed.

    config: what it was asked for, as JSON. is_union: whether that is, to the letter, the experiment's config.
    """

    id: int
    pid: int
    host: str
    started_at: float
    ended_at: float | None
    end_state: str | None
    is_alive: bool
    config: str | None
    is_union: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """State of an experiment, its counts, and the process that works on it."""

    state: str
    counts: Counts
    session: LastSession | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: all runs have ended, and nobody works on them."""
        return self.state != "running" and not self.counts.todo + self.counts.running

    @property
    def pid(self) -> int | None:
        return self.session.pid if self.session is not None and self.session.is_alive else None


def last_sessions(store: Store, experiments: Sequence[int] | None = None) -> dict[int, LastSession]:
    """The newest session of each of these experiments, or of all, and whether its process works on it."""
    driver = store.lock_holder
    these, parameters = reading.one_of("experiment", experiments)
    newest = f"SELECT max(id) FROM session WHERE experiment NOTNULL AND {these} GROUP BY experiment"
    rows = store.db.rows(
        "SELECT experiment, session.id, pid, host, started_at, ended_at, end_state, session.config,"
        " session.config IS experiment.config FROM session JOIN experiment ON experiment.id = experiment"
        f" WHERE session.id IN ({newest})",
        *parameters,
    )
    driver_pid = None if driver is None else driver.pid
    return {
        experiment: LastSession(
            id=id,
            pid=pid,
            host=host,
            started_at=started_at,
            ended_at=ended_at,
            end_state=end_state,
            is_alive=end_state is None and pid == driver_pid,
            config=config,
            is_union=bool(is_union),
        )
        for experiment, id, pid, host, started_at, ended_at, end_state, config, is_union in rows
    }


def standing(store: Store, row: ExperimentRow, session: LastSession | None = None) -> Standing:
    """Where an experiment stands; `session` saves asking for it again."""
    session = session or last_sessions(store, [row.id]).get(row.id)
    counts = reading.counts(store, row.id)
    state = _state(counts.failed, counts.todo + counts.running, session)
    if state == "complete" and not _has_all(store, row, session):
        state = "incomplete"
    return Standing(state=state, counts=counts, session=session)


RUN_COUNTS = summaries.COUNTS
"""What `standings` counts, in its order; `begun` runs are those of the state "running"."""


def standings(store: Store, experiments: Sequence[int] | None = None) -> Iterator[tuple[Any, ...]]:
    """(experiment, state, *RUN_COUNTS) of these rows of experiments, or of all: their standings at once."""
    is_at_rest = store.lock_holder is None
    settled, unknown = summaries.settled(store, experiments)
    sessions = last_sessions(store, [row for row, _, _ in unknown] if settled else experiments)
    counted = {row[0]: row[1:] for row in summaries.run_counts(store, experiments, exact=is_at_rest)}
    known: dict[int, ExperimentRow] = {}
    if experiments is None:
        experiments = [id for (id,) in store.db.rows(f"SELECT id FROM experiment WHERE id {reading.VISIBLE}")]
    # Only what has a stamp from before, where nobody writes before or after: else it may be older than that.
    stamps = {row: (uid, stamp) for row, uid, stamp in unknown} if is_at_rest else {}
    settling = []
    for experiment in experiments:
        counts = counted.get(experiment, (0,) * len(RUN_COUNTS))
        if experiment in settled:
            yield experiment, settled[experiment], *counts
            continue
        _, todo, begun, *_, failed, _ = counts
        session = sessions.get(experiment)
        state = _state(failed, todo + begun, session)
        if experiment in stamps and session is not None and session.is_union and not session.is_alive:
            settling.append((*stamps[experiment], state))
        if state == "complete" and session is not None and not session.is_union:
            known = known or {row.id: row for row in reading.experiments(store)}
            state = "complete" if _has_all(store, known[experiment], session) else "incomplete"
        yield experiment, state, *counts
    summaries.keep_settled(store, settling)


def _state(failed: int, unended: int, session: LastSession | None) -> str:
    if session is None:
        return "incomplete"
    if session.is_alive:
        return "running"
    if session.end_state in (None, "killed", "interrupted"):
        return "interrupted"
    if session.end_state == "budget spent":
        return "budget spent"
    if failed or session.end_state not in ENDED_WELL:
        return "failed"
    return "incomplete" if unended else "complete"


def _has_all(store: Store, row: ExperimentRow, session: LastSession | None) -> bool:
    """Whether nothing is missing of what was ever to be taken of the runs.

    A session that ended well has left nothing of what it was asked for; only if that was less than all,
    the store is searched.
    """
    if session is None or session.config is None or session.is_union:
        return True
    if decode_object(session.config) == row.config:
        return True
    # Not imported where nobody has to know: listing experiments would take longer.
    from panic.config import asks_all, stored
    from panic.store import coverage

    try:
        union = stored(row.config, row.name)
        return asks_all(stored(decode_object(session.config), row.name), union) or coverage.is_complete(
            store, row.id, union
        )
    except ConfigError:
        return True  # of another version, which said itself when it was done


def eta_s(store: Store, row: ExperimentRow, now: Standing) -> float | None:
    """Seconds until a running experiment ends, at the speed of the recent batches; None if nobody can say.

    An upper bound: a run that gets stuck ends early.
    """
    if now.state != "running" or now.session is None:
        return None
    items, begin, end = store.db.row(
        "SELECT sum(size), min(started_at), max(started_at + duration_s) FROM"
        " (SELECT size, started_at, duration_s FROM batch WHERE session = ? ORDER BY id DESC LIMIT ?)",
        *(now.session.id, RECENT_BATCHES),
    )
    if not items or end <= begin:
        return None
    steps_left = sum(
        run.max_length - run.num_steps
        for run in reading.runs(store, row.id)
        if run.state in ("todo", "running")
    )
    vectors_per_step = now.counts.embeddings / max(1, now.counts.invocations)
    items_left = steps_left * (1 + vectors_per_step) + _missing_vectors(store, row)
    return float(items_left / items * (end - begin))


def _missing_vectors(store: Store, row: ExperimentRow) -> int:
    wanted = set(sound_config(row.config).get("embeddings", []))
    modalities = {model.id: model.spec.get("modalities_in", ["text"]) for model in reading.models(store)}
    models = {epoch.model for epoch in reading.epochs(store, row.id) if epoch.name in wanted}
    return sum(len(missing.embeddings(store, row.id, model, modalities[model])) for model in models)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """What one device has computed, in seconds; named as the config names it."""

    device: str
    batches: int
    items: int
    duration_s: float


def devices_of(store: Store, session: int) -> list[str]:
    """Return what a session has computed on."""
    return [name for (name,) in store.db.rows("SELECT DISTINCT device FROM batch WHERE session = ?", session)]


def device_times(store: Store, experiment: int) -> list[DeviceTime]:
    """Batches, items and seconds per device of an experiment; without endpoints."""
    rows = store.db.rows(
        "SELECT device, count(*), sum(size), sum(duration_s)"
        " FROM batch JOIN session ON session.id = batch.session"
        " WHERE experiment = ? AND batch.id NOT IN (SELECT batch FROM answer)"
        " GROUP BY device ORDER BY device",
        experiment,
    )
    names = DeviceTime.__slots__
    return [DeviceTime(**dict(zip(names, row, strict=True))) for row in rows]
