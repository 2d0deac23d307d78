"""Full text over what runs have written and were given: what a query means, and where it came up.

The index is a table of FTS5 without texts of its own. Drivers keep it (`indexing.py`); outputs that
are not in it yet are read by the search itself, in an index that lasts as long. So a store that was not
brought up to date is searched, too, only slower.

    for place in search(store, parse('"red circle" square* -blue'), limit=20):
        print(place.experiment, place.run, place.steps, place.text)

Words stand for all that have them, `"a red circle"` for words in this order, `circ*` for how words begin,
`-blue` for what is not there, OR for one of two sides. Case and accents do not matter. Nothing else is an
operator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import apsw

from panic.errors import FilterError
from panic.store.finding.syntax import Place
from panic.store.store import Store

MAX_CHARACTERS = 1_000
MAX_TERMS = 64
READ_AT_ONCE = 20_000
"""Outputs without an index that are read before the next ones: what is found first comes first."""
SPACE = re.compile(r"\s*")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
TERM = re.compile(r'(?P<minus>-?)(?:"(?P<phrase>[^"]*)"(?P<star>\*?)|(?P<word>[^\s"]+))\s*')


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionPlace:
    """Where a text came up: in which run, and there as an `output`, an `intervention` or the `prompt`.

    steps: those that put it out, or before which it stepped in; none for a prompt.
    """

    output: int
    digest: str
    text: str
    experiment: str
    run: int
    role: str
    steps: tuple[int, ...]


def parse(text: str) -> str:
    """Return a query in the words of FTS5, in which every text of the user is quoted.

    Raises FilterError, which points at the place, for one that is empty, too long or has no word.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"The query has {len(text):,} characters; {MAX_CHARACTERS:,} are the most.")
    if not text.strip():
        raise FilterError("The query is empty.", hint='For example: panic search "red circle"')
    if NO_TEXT.search(text):
        raise FilterError("The query has characters that no text has.")
    sides: list[list[re.Match[str]]] = [[]]
    for found in _terms(text):
        if found["word"] == "OR" and not found["minus"]:
            if not sides[-1]:
                raise _place(text, *found.span()).error("On one side of OR stands nothing.")
            sides.append([])
        else:
            sides[-1].append(found)
    if not sides[-1]:
        raise _place(text, len(text.rstrip()) - 2, len(text)).error("The query ends too soon.")
    if sum(map(len, sides)) > MAX_TERMS:
        raise FilterError(f"A query has at most {MAX_TERMS} words and phrases.")
    return " OR ".join(_side(text, side) for side in sides)


def _terms(text: str) -> Iterator[re.Match[str]]:
    place = SPACE.match(text).end()  # type: ignore[union-attr]
    while place < len(text):
        found = TERM.match(text, place)
        if found is None:
            raise _place(text, place, len(text)).error("A phrase is not closed.")
        yield found
        place = found.end()


def _side(text: str, terms: Sequence[re.Match[str]]) -> str:
    """One side of OR in the words of FTS5."""
    wanted = [_term(text, one) for one in terms if not one["minus"]]
    unwanted = [_term(text, one) for one in terms if one["minus"]]
    if not wanted:
        place = _place(text, terms[0].start(), terms[-1].end())
        raise place.error("Only what is not to be there is named.", "Name a word that is: circle -blue")
    without = f" NOT ({' OR '.join(unwanted)})" if unwanted else ""
    return f"(({' AND '.join(wanted)}){without})"


def _place(text: str, start: int, end: int) -> Place:
    return Place(text=text, start=start, end=end)


def _term(text: str, found: re.Match[str]) -> str:
    """A word, a phrase or how one begins, as FTS5 reads it."""
    said, star = found["phrase"], found["star"]
    if said is None:
        said = found["word"].rstrip("*")
        star = found["word"][len(said) :][:1]
        if "*" in said:
            at = found.start("word") + said.index("*")
            raise _place(text, at, at + 1).error("* stands at the end of how a word begins.")
    if not any(map(str.isalnum, said)):
        place = _place(text, found.start(), found.start() + len(found[0].rstrip()))
        raise place.error(
            "There is no letter and no digit to look for.", "Other characters are not in the index."
        )
    return f'"{said}"{star}'


def search(
    store: Store, query: str, *, limit: int | None = None, runs: Collection[int] | None = None
) -> list[CaptionPlace]:
    """Where texts that a query of `parse` finds came up, the newest texts first, then by run.

    limit: at most so many places. runs: of these runs (rows) alone. What was deleted is not found.
    """
    with store.db.snapshot():
        chosen = ""
        if runs is not None:
            chosen = "AND run.id IN (SELECT id FROM temp.searched)"
            connection = store.db.connection
            connection.execute("CREATE TEMP TABLE searched (id INTEGER PRIMARY KEY)")
            connection.executemany("INSERT INTO temp.searched VALUES (?)", ((run,) for run in runs))
        return list(islice(_places(store, query, chosen), limit))


def _places(store: Store, query: str, chosen: str) -> Iterator[CaptionPlace]:
    visible = f"run.experiment NOT IN (SELECT experiment FROM deletion) {chosen}"
    named = "JOIN experiment ON experiment.id = run.experiment"
    made = (
        "SELECT experiment.name, run.id, json_group_array(made.step) FROM {0} AS made INDEXED BY {0}_output"
        f" CROSS JOIN run ON run.id = made.run {named} WHERE made.output = ?1 AND {visible} GROUP BY made.run"
    )
    sources = {
        "output": made.format("invocation"),
        "prompt": f"SELECT experiment.name, run.id, '[]' FROM run INDEXED BY run_prompt {named}"
        f" WHERE run.prompt = ?1 AND {visible} ORDER BY run.id",
        "intervention": made.format("intervention"),
    }
    for output, digest, text in _matches(store, query):
        for role, sql in sources.items():
            for experiment, run, steps in store.db.stream(sql, output):
                yield CaptionPlace(
                    output=output,
                    digest=digest,
                    text=text,
                    experiment=experiment,
                    run=run,
                    role=role,
                    steps=tuple(json.loads(steps)),
                )


def _matches(store: Store, query: str) -> Iterator[tuple[int, str, str]]:
    """(row, digest, text) of the outputs that a query finds, the newest first."""
    last = store.db.value("SELECT coalesce(max(id), 0) FROM output")
    begin = min(last, num_indexed(store))
    for end in range(last, begin, -READ_AT_ONCE):
        yield from _read(store, query, max(begin, end - READ_AT_ONCE), end)
    yield from store.db.stream(
        "SELECT output.id, lower(hex(digest)), output.text FROM caption"
        " CROSS JOIN output ON output.id = caption.rowid"
        " WHERE caption MATCH ? AND caption.rowid <= ? ORDER BY caption.rowid DESC",
        *(query, begin),
    )


def _read(store: Store, query: str, begin: int, end: int) -> list[tuple[int, str, str]]:
    """The same of outputs that are not in the index, which have one for as long as this takes."""
    connection = store.db.connection
    connection.execute("CREATE VIRTUAL TABLE temp.read USING fts5 (text, content = '', columnsize = 0)")
    try:
        connection.execute(
            "INSERT INTO temp.read (rowid, text)"
            " SELECT id, text FROM output WHERE id > ? AND id <= ? AND text NOTNULL",
            (begin, end),
        )
        return store.db.rows(
            "SELECT output.id, lower(hex(digest)), output.text FROM temp.read"
            " CROSS JOIN output ON output.id = read.rowid WHERE read MATCH ? ORDER BY read.rowid DESC",
            query,
        )
    finally:
        connection.execute("DROP TABLE temp.read")


def num_indexed(store: Store) -> int:
    """The last row of `output` that is in the index with all before it; 0 for a store without one."""
    return max(0, store.db.value("SELECT value FROM meta WHERE key = 'captions'") or 0)


def problems(store: Store) -> Iterator[str]:
    """What the index of captions lacks, and what it has that is not there."""
    connection = store.db.connection
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab ('main', 'caption', 'instance')")
        connection.execute("CREATE TEMP TABLE known AS SELECT DISTINCT doc FROM temp.words")
    except (apsw.CorruptError, apsw.SQLError) as error:
        yield f"the index of captions is damaged ({error}): panic search --reindex makes a new one"
        return
    stale = store.db.value(
        "SELECT count(*) FROM temp.known WHERE doc NOT IN (SELECT id FROM output WHERE text NOTNULL)"
    )
    # Texts without words have no place in an index: one of those that it lacks tells which these are.
    connection.execute("CREATE VIRTUAL TABLE temp.lost USING fts5 (text, content = '', columnsize = 0)")
    connection.execute("CREATE VIRTUAL TABLE temp.lost_words USING fts5vocab ('temp', 'lost', 'instance')")
    connection.execute(
        "INSERT INTO temp.lost (rowid, text) SELECT id, text FROM output"
        " WHERE id <= ? AND text NOTNULL AND id NOT IN (SELECT doc FROM temp.known)",
        (num_indexed(store),),
    )
    lost = store.db.value("SELECT count(DISTINCT doc) FROM temp.lost_words")
    if stale or lost:
        yield (
            f"the index of captions lacks {lost:,} texts and has {stale:,} that are not there:"
            " panic search --reindex makes a new one"
        )
