"""What the driver does to a store: experiments, runs, sessions, and commits of results.

All functions need a store opened with `write=True`, and one thread at a time. A commit is one
transaction of `store.sqlite`, preceded by one of `images.sqlite`: pixels that nobody refers to are
harmless, references to missing pixels are not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from panic.errors import Interrupted
from panic.store import reading
from panic.store.annotations import INSERT
from panic.store.codec import (
    ENCODING,
    canonical_json,
    encode_array,
    encode_bars,
    encode_image,
    encode_vector,
    is_image_prompt,
    prompt_digest,
    readable,
)
from panic.store.indexing import INDEXED_AT_ONCE, index_some
from panic.store.missing import Shared
from panic.store.provenance import without_tokens
from panic.store.records import Commit, NewDiagram, NewEpoch, NewOutput, NewRun, NewSpending
from panic.store.store import Store

IMAGES_AT_ONCE = 32  # images that start runs, per transaction
DIGEST_CACHE_SIZE = 1 << 16  # digests of the inputs in flight; 0.2 KB each


def new_uid() -> str:
    """A name that sorts by time: 48 bits of milliseconds, 80 random bits, as 32 hexadecimal digits."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def mark_changed(store: Store, experiments: Iterable[int]) -> None:
    """Give the results of experiments another stamp, in a transaction: what was worked out of them is old."""
    store.db.connection.executemany(
        "INSERT INTO change VALUES (?, ?) ON CONFLICT DO UPDATE SET stamp = excluded.stamp",
        [(experiment, time.time_ns()) for experiment in experiments],
    )


def start_experiment(
    store: Store, name: str, config: dict[str, Any], uid: str = "", remark: tuple[Any, ...] | None = None
) -> int:
    """Create the experiment of this name, or give the one that is there this config; its row.

    uid: of a new one, by default one that nobody has. remark: on a new one, in the same transaction.
    """
    with store.transaction():
        text = json.dumps(config, ensure_ascii=False)
        known = store.db.value("UPDATE experiment SET config = ? WHERE name = ? RETURNING id", text, name)
        if known is not None:
            mark_changed(store, [int(known)])
            return int(known)
        if remark is not None:
            store.db.connection.execute(INSERT, remark)
        return store.db.insert(
            "INSERT INTO experiment (uid, name, config, created_at) VALUES (?, ?, ?, ?)",
            *(uid or new_uid(), name, text, time.time()),
        )


def add_model(
    store: Store, name: str, fingerprint: str, spec: dict[str, Any], *, is_repeatable: bool = True
) -> int:
    """The row of the model with this fingerprint; a second name for it keeps the first."""
    with store.transaction():
        known = store.db.value("SELECT id FROM model WHERE fingerprint = ?", fingerprint)
        if known is not None:
            return int(known)
        return store.db.insert(
            "INSERT INTO model (name, fingerprint, spec, is_repeatable) VALUES (?, ?, ?, ?)",
            *(name, fingerprint, canonical_json(spec), is_repeatable),
        )


def add_measure(store: Store, settings: Mapping[str, Any]) -> int:
    """The row of a vectorisation or distance with these settings."""
    text = canonical_json(settings)
    digest = hashlib.sha256(text.encode()).hexdigest()
    with store.transaction():
        known = store.db.value("SELECT id FROM measure WHERE digest = ?", digest)
        if known is not None:
            return int(known)
        return store.db.insert("INSERT INTO measure (digest, settings) VALUES (?, ?)", digest, text)


def add_epoch(
    store: Store,
    experiment: int,
    name: str,
    *,
    model: int,
    batch_size: int,
    device_kind: str,
    threads: int | None = None,
) -> int:
    """Pin the shape of the model called `name` in an experiment; the number of the epoch that opens."""
    opened = NewEpoch(name=name, model=model, batch_size=batch_size, device_kind=device_kind, threads=threads)
    return add_epochs(store, experiment, [opened])[0]


def add_epochs(store: Store, experiment: int, opened: Sequence[NewEpoch]) -> list[int]:
    """Open shape epochs of several models, all or none; their numbers."""
    with store.transaction():
        numbers = []
        for epoch in opened:
            number = store.db.value(
                "SELECT coalesce(max(number) + 1, 0) FROM epoch WHERE experiment = ? AND name = ?",
                *(experiment, epoch.name),
            )
            store.db.insert(
                "INSERT INTO epoch (experiment, name, number, model, batch_size, device_kind, threads,"
                " opened_at, reason, mates) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(experiment, epoch.name, number, epoch.model, epoch.batch_size, epoch.device_kind),
                *(epoch.threads, time.time(), epoch.reason or ("memory" if number else "start")),
                epoch.mates,
            )
            numbers.append(int(number))
    return numbers


def add_runs(
    store: Store, experiment: int, runs: Sequence[NewRun], images: Iterable[NewOutput] = ()
) -> list[int]:
    """The rows of these runs, in their order; new ones are created, max_length only grows.

    images: the images among their prompts that the store does not have; they are encoded one by one.
    """
    given, waiting = [], iter(images)
    while part := list(islice(waiting, IMAGES_AT_ONCE)):
        _store_images(store, part)
        given += [replace(image, image=None) for image in part]
    with store.transaction():
        prompts = {prompt_digest(run.prompt): run.prompt for run in runs}
        texts = [
            NewOutput(digest=digest, modality="text", text=prompt)
            for digest, prompt in prompts.items()
            if not is_image_prompt(prompt)
        ]
        ids = _insert_outputs(store, [*texts, *given])
        _find_outputs(store, ids, prompts)
        numbers = []
        for run in runs:
            number = store.db.value(
                "INSERT INTO run (experiment, network, prompt, seed, repeat, max_length, arm)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (experiment, network, prompt, seed, repeat, arm)"
                " DO UPDATE SET max_length = max(max_length, excluded.max_length) RETURNING id",
                *(experiment, canonical_json(run.network), ids[prompt_digest(run.prompt)]),
                *(run.seed, run.repeat, run.max_length, run.arm),
            )
            numbers.append(number)
        mark_changed(store, [experiment])
    return numbers


def share_steps(store: Store, shared: Sequence[Shared]) -> None:
    """Give runs the first steps of others, which are theirs, too: copies of the rows, in one transaction."""
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO invocation SELECT ?, step, input, output, seed, batch FROM invocation"
            " WHERE run = ? AND step >= ? AND step < ?",
            [(one.run, one.of, one.begin, one.end) for one in shared],
        )
        mark_changed(store, _experiments(store, {one.run for one in shared}))


def _store_images(store: Store, images: Sequence[NewOutput]) -> None:
    """Keep the bytes of images, which is done before any row refers to them."""
    if not images:
        return
    with store.images.transaction() as connection:
        connection.executemany(
            "INSERT INTO image VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING",
            [
                (o.digest, ENCODING, o.image if isinstance(o.image, bytes) else encode_image(o.image))
                for o in images
                if o.image is not None
            ],
        )


def start_session(
    store: Store,
    experiment: int,
    command: str,
    provenance: dict[str, Any],
    config: dict[str, Any] | None = None,
) -> int:
    """Record that this process works on an experiment; sessions that never ended are marked killed.

    config: what it was asked for, which may be less than the experiment was asked for in all.
    """
    with store.transaction() as connection:
        connection.execute("UPDATE session SET end_state = 'killed' WHERE end_state IS NULL")
        mark_changed(store, [experiment])
        return store.db.insert(
            "INSERT INTO session (experiment, command, pid, host, started_at, provenance, config)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(experiment, without_tokens(readable(command)), os.getpid(), socket.gethostname(), time.time()),
            *(canonical_json(provenance), None if config is None else json.dumps(config, ensure_ascii=False)),
        )


def end_session(
    store: Store,
    session: int,
    state: str,
    timeline: Sequence[dict[str, Any]] | None = None,
    measured: Mapping[str, Any] | None = None,
) -> None:
    """Record how a session ended, e.g. "done", "interrupted", "failed", and what it spent its time on.

    measured: what its provenance gets that was not known before, such as energy.
    """
    told = None if timeline is None else json.dumps(timeline, ensure_ascii=False)
    with store.transaction() as connection:
        connection.execute(
            "UPDATE session SET ended_at = ?, end_state = ?, timeline = ? WHERE id = ?",
            (time.time(), state, told, session),
        )
        if measured:
            connection.execute(
                "UPDATE session SET provenance = json_patch(provenance, ?) WHERE id = ?",
                (canonical_json(measured), session),
            )
        mark_changed(store, _of_sessions(store, [session]))


@contextlib.contextmanager
def recorded_session(
    store: Store,
    experiment: int,
    command: str,
    provenance: dict[str, Any],
    config: dict[str, Any] | None = None,
) -> Iterator[int]:
    """A session for as long as the block lasts, as `start_session` begins it; its row.

    It ends as "done", as "interrupted" by Interrupted, and as "failed" by any other exception.
    """
    session, state = start_session(store, experiment, command, provenance, config), "failed"
    try:
        yield session
        state = "done"
    except Interrupted:
        state = "interrupted"
        raise
    finally:
        end_session(store, session, state)


def next_batch_id(store: Store) -> int:
    """A number for a batch that will be committed."""
    store.last_batch_id += 1
    return store.last_batch_id


def forget_failures(
    store: Store, experiment: int, kind: str | None = None, runs: Sequence[int] | None = None
) -> int:
    """Let the failed runs of an experiment (of one kind of failure) be tried again; how many there were.

    How they failed is kept as an attempt. runs: these alone.
    """
    of_runs, parameters = reading.one_of("run", runs)
    these = (
        "FROM failure WHERE run IN (SELECT id FROM run WHERE experiment = ?) AND coalesce(kind = ?, TRUE)"
        f" AND {of_runs}"
    )
    chosen = (experiment, kind, *parameters)
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO attempt (run, step, kind, message, detail, attempts, failed_at)"
            f" SELECT run, step, kind, message, detail, attempts, failed_at {these} ORDER BY run",
            chosen,
        )
        connection.execute(f"DELETE {these}", chosen)
        number = connection.changes()
        mark_changed(store, [experiment])
        return number


def commit(store: Store, results: Commit) -> None:
    """Store results: images first, then everything else, each in one transaction.

    Outputs that are already there are kept. Everything that is referred to must be there or come along.
    Raises StoreError, before and after, if the store's files were removed or replaced.
    """
    store.require_in_place()
    _store_images(store, [output for output in results.outputs if output.image is not None])
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *(b.id, b.session, b.model, b.epoch, b.device, b.size, b.padded_size, b.bucket),
                    *(b.started_at, b.duration_s),
                )
                for b in results.batches
            ],
        )
        connection.executemany(
            "INSERT INTO answer VALUES (?, ?, ?, ?, ?)",
            [
                (a.batch, a.input_tokens, a.output_tokens, a.served_model, a.system_fingerprint)
                for a in results.answers
            ],
        )
        _insert_spending(store, results.spending)
        ids = _insert_outputs(store, results.outputs)
        _find_outputs(store, ids, (i.input for i in results.invocations))
        _find_outputs(store, ids, (i.output for i in results.invocations))
        _find_outputs(store, ids, (e.output for e in results.embeddings))
        _find_outputs(store, ids, (digest for i in results.interventions for digest in (i.input, i.output)))
        connection.executemany(
            "INSERT INTO invocation VALUES (?, ?, ?, ?, ?, ?)",
            [
                (run, step, ids[i], ids[o], seed, batch)
                for run, step, i, o, seed, batch in results.invocations
            ],
        )
        connection.executemany(
            "INSERT INTO intervention VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (run, step, place, kind, ids[i], ids[o], seed, batch)
                for run, step, place, kind, i, o, seed, batch in results.interventions
            ],
        )
        connection.executemany(
            "INSERT INTO stuck VALUES (?, ?, ?)",
            [(s.run, s.entry_step, s.period) for s in results.stuck],
        )
        connection.executemany(
            "INSERT INTO repeated VALUES (?, ?, ?, ?)",
            [(r.run, r.entry_step, r.period, r.times) for r in results.repeated],
        )
        now = time.time()
        connection.executemany(
            "INSERT INTO failure VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(f.run, f.step, f.kind, f.message, f.detail, f.attempts, now) for f in results.failures],
        )
        connection.executemany(
            "INSERT INTO embedding VALUES (?, ?, ?, ?, ?) ON CONFLICT (output, model) DO NOTHING",
            [
                (ids[e.output], e.model, e.batch, len(e.vector), encode_vector(e.vector))
                for e in results.embeddings
            ],
        )
        for diagram in results.diagrams:
            _insert_diagram(store, diagram)
        connection.executemany(
            "INSERT INTO vectorisation VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(v.diagram, v.dimension, v.measure, encode_array(v.vector)) for v in results.vectorisations],
        )
        connection.executemany(
            "INSERT INTO distance VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", results.distances
        )
        of_runs = (
            results.invocations,
            results.interventions,
            results.stuck,
            results.repeated,
            results.failures,
        )
        changed = _experiments(store, {one.run for rows in of_runs for one in rows})
        mark_changed(store, changed | _of_sessions(store, {batch.session for batch in results.batches}))
    _remember(store, ids)
    if store.last_output_id - store.last_indexed_id >= INDEXED_AT_ONCE:
        index_some(store)
    store.require_in_place()


def _experiments(store: Store, runs: set[int]) -> set[int]:
    """The experiments of runs, remembered because every commit asks."""
    known = store.experiments_of_runs
    for run in runs - known.keys():
        known[run] = store.db.value("SELECT experiment FROM run WHERE id = ?", run)
    return {known[run] for run in runs}


def _of_sessions(store: Store, sessions: Collection[int]) -> set[int]:
    """The experiments of sessions."""
    sql = "SELECT experiment FROM session WHERE id = ? AND experiment NOTNULL"
    return {experiment for session in sessions for (experiment,) in store.db.rows(sql, session)}


def record_spending(store: Store, rows: Sequence[NewSpending]) -> None:
    """Record what a session has sent to servers, or may send before it says more."""
    with store.transaction():
        _insert_spending(store, rows)


def _insert_spending(store: Store, rows: Sequence[NewSpending]) -> None:
    store.db.connection.executemany(
        "INSERT INTO spending VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " requests = excluded.requests, tokens = excluded.tokens",
        [(row.session, row.model, row.requests, row.tokens) for row in rows],
    )


def _insert_outputs(store: Store, outputs: Iterable[NewOutput]) -> dict[bytes, int]:
    """Insert outputs that are not there yet; the rows of all of them by digest."""
    known = store.output_ids
    ids = {output.digest: known[output.digest] for output in outputs if output.digest in known}
    fresh = {output.digest: output for output in outputs if output.digest not in known}
    first = store.last_output_id + 1
    store.last_output_id += len(fresh)
    connection = store.db.connection
    before = connection.total_changes()
    connection.executemany(
        "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
        [
            (number, o.digest, o.modality, o.text, o.width, o.height)
            for number, o in enumerate(fresh.values(), first)
        ],
    )
    if connection.total_changes() - before == len(fresh):
        ids.update(zip(fresh, range(first, first + len(fresh)), strict=True))
    else:
        _find_outputs(store, ids, fresh)
    return ids


def _find_outputs(store: Store, ids: dict[bytes, int], digests: Iterable[bytes]) -> None:
    """Add the rows of outputs that are in the store to `ids`; an unknown digest is a mistake of ours."""
    known, missing = store.output_ids, set()
    for digest in digests:
        if digest not in ids:
            if digest in known:
                ids[digest] = known[digest]
            else:
                missing.add(digest)
    for digest in missing:
        number = store.db.value("SELECT id FROM output WHERE digest = ?", digest)
        assert number is not None, f"no output {digest.hex()}"
        ids[digest] = number


def _remember(store: Store, ids: dict[bytes, int]) -> None:
    """Keep the rows of the latest outputs, so that the next step's inputs need no query."""
    known = store.output_ids
    known.update(ids)
    for digest in list(islice(known, max(0, len(known) - DIGEST_CACHE_SIZE))):
        del known[digest]


def _insert_diagram(store: Store, diagram: NewDiagram) -> None:
    number = store.db.insert(
        "INSERT INTO diagram (run, model, settings_digest, settings, num_points, num_unique, error,"
        " duration_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *(diagram.run, diagram.model, diagram.settings_digest, canonical_json(diagram.settings)),
        *(diagram.num_points, diagram.num_unique, diagram.error, diagram.duration_s),
    )
    for dimension, bars in sorted(diagram.bars.items()):
        generators = diagram.generators.get(dimension)
        store.db.insert(
            "INSERT INTO diagram_bars VALUES (?, ?, ?, ?)",
            *(number, dimension, encode_bars(bars)),
            None if generators is None else encode_array(generators),
        )
