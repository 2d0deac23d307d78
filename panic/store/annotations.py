"""Remarks of people on experiments, runs, outputs, sessions and trainings: tags, labels, comments.

A remark is a row that is only ever added: a tag that is taken away is a row of the kind `untag`, and the last
row of a label is what it says. Whoever may write the store may remark, at any time and without the driver's
lock: each call is one short transaction. Remarks are no results: no dump, digest or cycle knows of them.

    with Store("panic-store") as store:
        add_tags(store, [find_target(store, "demo")], ["baseline"], Author(name="me"))
        marks(store, "experiment")
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panic.arms import BASELINE
from panic.errors import NotFound, StoreReadOnly, UsageError, nearest
from panic.store import reading
from panic.store.codec import canonical_json, decode_object, run_key
from panic.store.files import Database, has_content, log_of, refuse_network
from panic.store.records import AnnotationRow, RunRow
from panic.store.signing import Author, require_signers, sign, verify
from panic.store.store import Store

MAX_COMMENT = 100_000
PREFIX_LENGTH = 8
"""The least of an output's digest that names it."""
VERIFIERS = 8
INSERT = (
    "INSERT INTO annotation (target_kind, target, kind, text, author, at, signature)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a remark is on: a kind, a uid or digest, and a name for people.

    run: row of a run, whose uid is made of what it is.
    """

    kind: str
    uid: str
    name: str
    run: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What is said of one target now."""

    tags: tuple[str, ...] = ()
    label: str | None = None


NO_MARKS = Marks()


def find_target(store: Store, selector: str) -> Target:
    """Return what a text names: an experiment, or an output by the beginning of its digest.

    What only deleted experiments have is not there. Raises NotFound, naming the nearest.
    """
    try:
        row = reading.experiment(store, selector)
    except NotFound:
        if found := _output(store, selector):
            return found
        raise
    return Target(kind="experiment", uid=row.uid, name=row.name)


def _output(store: Store, selector: str) -> Target | None:
    prefix = selector.lower().removeprefix("image:")
    if not re.fullmatch(rf"[0-9a-f]{{{PREFIX_LENGTH},64}}", prefix):
        return None
    low, high = (bytes.fromhex(prefix.ljust(64, digit)) for digit in "0f")
    sql = f"SELECT lower(hex(digest)), modality FROM output WHERE digest BETWEEN ? AND ? AND {reading.IN_USE}"
    rows = store.db.rows(f"{sql} LIMIT 2", low, high)
    if len(rows) > 1:
        raise NotFound(f"Several outputs begin with {selector!r}.", hint="Give more of the digest.")
    return Target(kind="output", uid=rows[0][0], name=f"{rows[0][1]} {rows[0][0][:12]}") if rows else None


def run_uid(experiment: str, run: RunRow) -> str:
    """Return what stands for a run of the experiment of this name: made of what a run is, as in a dump."""
    in_arm = () if run.arm == BASELINE else (run.arm,)
    return run_key(experiment, run.network, run.prompt, run.seed, run.repeat, *in_arm)


def run_target(experiment: str, run: RunRow) -> Target:
    """Return a run of the experiment of this name."""
    return Target(kind="run", uid=run_uid(experiment, run), name=f"run {run.id} of {experiment}", run=run.id)


# --- writing


def annotate(store: Store, kind: str, said: Sequence[tuple[Target, str]], author: Author) -> int:
    """Add remarks of a kind, pairs of a target and a text, in one transaction; how many.

    Anyone may, any time. With a key they are signed, before anything is stored. Raises StoreReadOnly for a
    temporary copy of a store, NotFound for a target that is not there, SigningError.
    """
    if store.is_copy:
        raise StoreReadOnly(
            f"{store.path} has an older schema and is read from a copy.",
            hint="panic resume brings the store up to date.",
        )
    for target in dict.fromkeys(target for target, _ in said):
        _require_known(store, target)
    at = time.time()
    rows = [row_of(target, kind, text, author, at) for target, text in said]
    if rows:
        with short_transaction(store) as db:
            db.connection.executemany(INSERT, rows)
    return len(rows)


@contextmanager
def short_transaction(store: Store) -> Iterator[Database]:
    """A transaction of a connection of its own, which a driver that writes meanwhile hardly notices."""
    if store.db.write:
        with store.transaction():
            yield store.db
        return
    refuse_network(store.path)
    keep_log = has_content(log_of(store.db.path))
    db = Database(store.db.path, "store", write=True)
    try:
        with db.transaction():
            db.raise_revision()
            yield db
    finally:
        db.close(keep_log=keep_log)


def _require_known(store: Store, target: Target) -> None:
    """Raise NotFound for a target that the store does not have; of a training it knows nothing."""
    match target.kind:
        case "experiment":
            known = store.db.value("SELECT 1 FROM experiment WHERE uid = ?", target.uid)
        case "output":
            known = store.db.value(
                f"SELECT 1 FROM output WHERE digest = unhex(?) AND {reading.IN_USE}", target.uid
            )
        case "run":
            known = store.db.value("SELECT 1 FROM run WHERE id = ?", target.run)
        case "session":
            known = store.db.value("SELECT 1 FROM session WHERE id = CAST(? AS INTEGER)", target.uid)
        case _:
            known = target.kind == "training" and re.fullmatch(r"[0-9a-f]{64}", target.uid)
    if not known:
        raise NotFound(f"There is no {target.kind} {target.uid!r} in {store.path}.")


def row_of(target: Target, kind: str, text: str, author: Author, at: float) -> tuple[Any, ...]:
    """Return a remark as INSERT takes it, signed if its author has a key. Raises SigningError."""
    said = (target.kind, target.uid, kind, text, author.name, at)
    return (*said, sign(message_of(*said), author.key) if author.key else None)


def message_of(target_kind: str, target: str, kind: str, text: str, author: str, at: float) -> bytes:
    """Return what is signed of a remark: all of it, so that no signature fits another one."""
    return canonical_json(["panic remark", target_kind, target, kind, text, author, at]).encode()


def check_tag(tag: str) -> str:
    """Return a tag. Raises UsageError with the nearest that can be one."""
    from panic.config.fields import TAG  # with the parser of configs, which listing does without

    if TAG.fullmatch(tag):
        return tag
    near = "-".join(re.sub(r"[,\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", tag).split()).lstrip("-")[:64]
    raise UsageError(
        f"{tag!r} is no tag: a tag is one word of at most 64 characters, no comma in it and no - before it.",
        hint=f"For example {near}." if near else "",
    )


def check_remark(kind: str, text: str) -> str:
    """Return the text of a label or comment. Raises UsageError for one that cannot be."""
    from panic.config.fields import MAX_LABEL

    most = MAX_LABEL if kind == "label" else MAX_COMMENT
    if len(text) > most:
        raise UsageError(f"A {kind} has at most {most:,} characters, and this has {len(text):,}.")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"A {kind} is a text that can be written as UTF-8, without the character NUL.")
    if kind == "label" and "\n" in text:
        raise UsageError("A label is one line.", hint="panic comment takes several.")
    if kind == "comment" and not text.strip():
        raise UsageError("A comment says something.")
    return text


def check_project(name: str) -> str:
    """Return the name of a project. Raises UsageError with the nearest that can be one."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return name
    near = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    raise UsageError(
        f"{name!r} cannot be the name of a project: it has letters, digits, '.', '_' and '-', and begins with"
        " a letter or digit.",
        hint=f"For example {near}." if near else "",
    )


def add_tags(store: Store, targets: Sequence[Target], tags: Sequence[str], author: Author) -> int:
    """Give every target the tags that it lacks; how many were given. Raises as `annotate`, and UsageError."""
    wanted = list(dict.fromkeys(map(check_tag, tags)))
    known = _marks_of(store, targets)
    said = [(target, tag) for target in targets for tag in wanted if tag not in known[target.uid].tags]
    return annotate(store, "tag", said, author)


def remove_tags(store: Store, targets: Sequence[Target], tags: Sequence[str], author: Author) -> int:
    """Take tags away; how many there were.

    Raises NotFound, before anything is stored, for one that none has.
    """
    known = _marks_of(store, targets)
    present = list(dict.fromkeys(tag for target in targets for tag in known[target.uid].tags))
    for tag in tags:
        if tag not in present:
            near = nearest(tag, present)
            there_are = f"Its tags are {', '.join(present[:10])}." if present else "It has no tags."
            raise NotFound(
                f"{targets[0].name} has no tag {tag!r}."
                if len(targets) == 1
                else f"None has the tag {tag!r}.",
                hint=f"Did you mean {near[0]}?" if near else there_are,
            )
    gone = dict.fromkeys(tags)
    said = [(target, tag) for target in targets for tag in gone if tag in known[target.uid].tags]
    return annotate(store, "untag", said, author)


def mark_as_configured(store: Store, experiment: int, config: Mapping[str, Any], author: Author) -> None:
    """Say of an experiment the tags and the label of its config, as far as its last session's had others."""
    [uid, name] = store.db.row("SELECT uid, name FROM experiment WHERE id = ?", experiment)
    text = store.db.value(
        "SELECT config FROM session WHERE experiment = ? ORDER BY id DESC LIMIT 1", experiment
    )
    before = decode_object(text) if text else {}
    say_configured(store, Target(kind="experiment", uid=uid, name=name), before, config, author)


def say_configured(
    store: Store, target: Target, before: Mapping[str, Any], config: Mapping[str, Any], author: Author
) -> None:
    """Say of a target the tags and the label of its config, as far as the one before had others.

    So what people said since holds, and a config that goes back to an earlier label says it again.
    """
    now = marks_of(list_annotations(store, target.kind, target.uid))
    had = before.get("tags")
    known = [*now.tags, *(had if isinstance(had, list) else ())]
    tags = [tag for tag in config["tags"] if tag not in known]
    annotate(store, "tag", [(target, tag) for tag in tags], author)
    label = config["label"]
    if label and label not in (before.get("label"), now.label):
        annotate(store, "label", [(target, label)], author)


# --- reading


def list_annotations(store: Store, kind: str | None = None, uid: str | None = None) -> list[AnnotationRow]:
    """Return remarks, oldest first: all, those on targets of a kind, or those on one target."""
    names = AnnotationRow.__slots__
    wanted = {"target_kind = ?": kind, "target = ?": uid}
    clauses = [clause for clause, value in wanted.items() if value is not None]
    where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
    rows = store.db.rows(
        f"SELECT {', '.join(names)} FROM annotation {where} ORDER BY id",
        *(value for value in wanted.values() if value is not None),
    )
    return [AnnotationRow(**dict(zip(names, row, strict=True))) for row in rows]


def origins(store: Store, kind: str = "experiment") -> list[AnnotationRow]:
    """Return what is said of which experiment, or training, was made from which.

    That is JSON with name, uid and changes.
    """
    names = AnnotationRow.__slots__
    rows = store.db.rows(
        f"SELECT {', '.join(names)} FROM annotation INDEXED BY annotation_origin"
        " WHERE kind = 'origin' AND target_kind = ? AND CASE WHEN json_valid(text) THEN"
        " json_type(text, '$.name') = 'text' AND json_type(text, '$.uid') = 'text'"
        " AND json_type(text, '$.changes') = 'array' END ORDER BY id",
        kind,
    )
    return [AnnotationRow(**dict(zip(names, row, strict=True))) for row in rows]


def marks(store: Store, kind: str) -> Mapping[str, Marks]:
    """Return the tags, oldest first, and the label of every target of a kind that has any, by uid."""
    tags: dict[str, list[tuple[int, str]]] = {}
    for target, text, last, place in store.db.stream(
        "SELECT target, text, kind, max(id) FROM annotation INDEXED BY annotation_tag"
        " WHERE target_kind = ? AND kind IN ('tag', 'untag') GROUP BY target, text",
        kind,
    ):
        if last == "tag":
            tags.setdefault(target, []).append((place, text))
    labels = {
        target: text
        for target, text, _ in store.db.stream(
            "SELECT target, text, max(id) FROM annotation INDEXED BY annotation_label"
            " WHERE target_kind = ? AND kind = 'label' GROUP BY target",
            kind,
        )
        if text
    }
    return {
        uid: Marks(tags=tuple(tag for _, tag in sorted(tags.get(uid, ()))), label=labels.get(uid))
        for uid in tags.keys() | labels.keys()
    }


def has_marks(store: Store, kind: str) -> tuple[bool, bool]:
    """Whether any target of a kind has a label, and whether any has a tag."""
    label = (
        "SELECT 1 FROM (SELECT text, max(id) FROM annotation INDEXED BY annotation_label"
        " WHERE target_kind = ? AND kind = 'label' GROUP BY target) WHERE text <> '' LIMIT 1"
    )
    tag = (
        "SELECT 1 FROM (SELECT kind AS last, max(id) FROM annotation INDEXED BY annotation_tag"
        " WHERE target_kind = ? AND kind IN ('tag', 'untag') GROUP BY target, text)"
        " WHERE last = 'tag' LIMIT 1"
    )
    return bool(store.db.rows(label, kind)), bool(store.db.rows(tag, kind))


def marks_of(rows: Sequence[AnnotationRow]) -> Marks:
    """Return what the remarks on one target, oldest first, say now."""
    tags: dict[str, None] = {}
    label = None
    for row in rows:
        if row.kind == "tag":
            tags.setdefault(row.text)
        elif row.kind == "untag":
            tags.pop(row.text, None)
        elif row.kind == "label":
            label = row.text or None
    return Marks(tags=tuple(tags), label=label)


def _marks_of(store: Store, targets: Sequence[Target]) -> Mapping[str, Marks]:
    if len(targets) == 1:
        return {targets[0].uid: marks_of(list_annotations(store, targets[0].kind, targets[0].uid))}
    found: dict[str, Marks] = {target.uid: NO_MARKS for target in targets}
    for kind in dict.fromkeys(target.kind for target in targets):
        found |= {uid: one for uid, one in marks(store, kind).items() if uid in found}
    return found


# --- verifying


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How many remarks are signed by whom they name, how many by nobody, and what is wrong with others."""

    signed: int
    unsigned: int
    problems: list[str]


def verify_remarks(store: Store, allowed_signers: Path) -> Verdict:
    """Verify every signature against a file of allowed signers. Raises UsageError if it cannot be read."""
    from concurrent.futures import ThreadPoolExecutor

    require_signers(allowed_signers)
    rows = list_annotations(store)
    signed = [row for row in rows if row.signature is not None]

    def problem(row: AnnotationRow) -> str:
        said = message_of(row.target_kind, row.target, row.kind, row.text, row.author, row.at)
        why = verify(said, row.signature or "", row.author, row.at, allowed_signers)
        return why and f"{row.kind} {row.id} on {row.target_kind} {row.target[:12]}, by {row.author}: {why}"

    with ThreadPoolExecutor(VERIFIERS) as threads:
        problems = [text for text in threads.map(problem, signed) if text]
    return Verdict(signed=len(signed) - len(problems), unsigned=len(rows) - len(signed), problems=problems)
