"""The index of captions: what queries mean, what they find, and that the index stays what the texts are."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from panic.errors import FilterError
from panic.store import NewRun, Store, captions, delete, indexing, reading, tombstones, writing
from panic.store.captions import parse, search
from panic.store.check import check
from panic.store.codec import prompt_digest
from panic.store.records import Commit, NewBatch, NewInvocation, NewOutput

WORDS = ("red", "blue", "circle", "square", "ÉTOILE", "straße", "left-of", "42", "circular", "a", "or", "not")
STEPS = 6


def fill(store: Store, name: str, prompts: int, seed: int = 0) -> None:
    """An experiment of runs of texts made of WORDS; as many commits as there are steps."""
    rng = random.Random(seed)
    experiment = writing.start_experiment(store, name, {"name": name})
    model = writing.add_model(store, "tell", "tell-fingerprint", {})
    if not store.db.value("SELECT 1 FROM epoch WHERE experiment = ?", experiment):
        writing.add_epoch(store, experiment, "tell", model=model, batch_size=prompts, device_kind="cpu")
    session = writing.start_session(store, experiment, "test", {})
    texts = [f"{name} {i} red square" for i in range(prompts)]
    runs = [NewRun(network=("tell",), prompt=text, seed=-1, max_length=STEPS) for text in texts]
    rows = writing.add_runs(store, experiment, runs)
    last = [prompt_digest(text) for text in texts]
    for step in range(STEPS):
        commit, batch = Commit(), writing.next_batch_id(store)
        shape = {"size": prompts, "padded_size": prompts, "started_at": 1.0, "duration_s": 1.0}
        commit.batches.append(
            NewBatch(id=batch, session=session, model=model, epoch=0, device="cpu", **shape)
        )
        for place, run in enumerate(rows):
            text = " ".join(rng.choices(WORDS, k=4))
            digest = prompt_digest(text)
            commit.outputs.append(NewOutput(digest=digest, modality="text", text=text))
            commit.invocations.append(NewInvocation(run, step, last[place], digest, 1, batch))
            last[place] = digest
        writing.commit(store, commit)
    writing.end_session(store, session, "done")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store(tmp_path / "s", write=True, create=True) as opened:
        fill(opened, "first", 5, seed=1)
        fill(opened, "second", 4, seed=2)
        indexing.complete(opened)
        yield opened


def places(store: Store, query: str, **more: object) -> set[tuple[str, str, int, str, tuple[int, ...]]]:
    found = search(store, parse(query), **more)  # type: ignore[arg-type]
    return {(one.text, one.experiment, one.run, one.role, one.steps) for one in found}


def by_hand(store: Store, test) -> set[tuple[str, str, int, str, tuple[int, ...]]]:
    """The same by reading every row."""
    names = {row.id: row.name for row in reading.experiments(store)}
    found: dict[tuple[str, str, int, str], list[int]] = {}
    for experiment, run, text in store.db.rows(
        "SELECT experiment, run.id, text FROM run JOIN output ON output.id = prompt"
    ):
        if experiment in names and test(text.lower().split()):
            found[text, names[experiment], run, "prompt"] = []
    for experiment, run, step, text in store.db.rows(
        "SELECT experiment, run, step, text FROM invocation JOIN output ON output.id = output"
        " JOIN run ON run.id = run ORDER BY step"
    ):
        if experiment in names and test(text.lower().split()):
            found.setdefault((text, names[experiment], run, "output"), []).append(step)
    return {(*key, tuple(steps)) for key, steps in found.items()}


def pair(words: list[str], one: str, other: str) -> bool:
    return (one, other) in itertools.pairwise(words)


TESTS = {
    "red": lambda w: "red" in w,
    "RED circle": lambda w: "red" in w and "circle" in w,
    '"red circle"': lambda w: pair(w, "red", "circle"),
    "circ*": lambda w: any(one.startswith("circ") for one in w),
    '"red circ*"': lambda w: pair(w, "red", "circ"),  # within quotes nothing is an operator
    '"red circ"*': lambda w: pair(w, "red", "circle") or pair(w, "red", "circular"),
    "red -blue": lambda w: "red" in w and "blue" not in w,
    "red OR blue": lambda w: "red" in w or "blue" in w,
    "red or": lambda w: "red" in w and "or" in w,  # a word, as small letters
    "a -red OR 42 blue": lambda w: ("a" in w and "red" not in w) or ("42" in w and "blue" in w),
    "etoile": lambda w: "étoile" in w,
    "left-of": lambda w: "left-of" in w,
    "nothing": lambda w: False,
}


@pytest.mark.parametrize("query", TESTS)
def test_what_is_found_is_what_reading_all_finds(store: Store, query: str) -> None:
    expected = by_hand(store, TESTS[query])
    assert places(store, query) == expected
    assert expected or query in ("nothing", '"red circ*"')
    with store.db.transaction() as connection:  # the same without the index, and with half of it
        connection.execute("INSERT INTO caption (caption) VALUES ('delete-all')")
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'captions'")
    assert places(store, query) == expected
    half = store.last_output_id // 2
    with store.db.transaction() as connection:
        connection.execute(
            "INSERT INTO caption (rowid, text) SELECT id, text FROM output WHERE id <= ?", (half,)
        )
        connection.execute("UPDATE meta SET value = ? WHERE key = 'captions'", (half,))
    assert places(store, query) == expected


def test_some_runs_and_at_most_so_many(store: Store) -> None:
    all_of_it = search(store, parse("red"))
    assert search(store, parse("red"), limit=3) == all_of_it[:3]
    assert [one.output for one in all_of_it] == sorted((one.output for one in all_of_it), reverse=True)
    assert {one.run for one in search(store, parse("red"), runs=[2, 3])} == {2, 3}
    assert search(store, parse("red"), runs=[]) == []


BROKEN = (
    ("", "is empty"),
    ("  ", "is empty"),
    ('"red', "not closed"),
    ('red "', "not closed"),
    ("OR red", "One side|one side"),
    ("red OR", "ends too soon"),
    ("red OR OR blue", "one side"),
    ("-red", "Only what is not"),
    ("red OR -blue", "Only what is not"),
    ("***", "no letter"),
    ('red ""', "no letter"),
    ("a*b", "stands at the end"),
    ("*red", "stands at the end"),
    ("x\0y", "characters that no text has"),
    ("\udcff", "characters that no text has"),
    ("x" * 1_001, "1,000 are the most"),
    ("x " * 65, "at most 64"),
)


@pytest.mark.parametrize(
    ("query", "start", "width"),
    [
        ('red "blue', 4, 5),
        ("  OR red", 2, 3),
        ("red OR OR blue", 7, 3),
        ("red OR", 4, 2),
        ("red OR  ", 4, 4),
        ("-red -blue", 0, 10),
        ("green OR -red -blue", 9, 10),
        ("red *** blue", 4, 3),
        ('red "" blue', 4, 2),
        ("red a*b", 5, 1),
        ("red *b", 4, 1),
        ("red -a*b", 6, 1),
    ],
)
def test_the_place_of_a_mistake_is_pointed_at(query: str, start: int, width: int) -> None:
    with pytest.raises(FilterError) as raised:
        parse(query)
    _, line, carets = raised.value.message.split("\n")
    assert line == f"  {query}"
    assert carets == f"  {' ' * start}{'^' * width}"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("red", '(("red"))'),
        ("  red blue ", '(("red" AND "blue"))'),
        ('"a red" circ*', '(("a red" AND "circ"*))'),
        ('"a red"*', '(("a red"*))'),
        ("a**", '(("a"*))'),
        ("red -blue -circ*", '(("red") NOT ("blue" OR "circ"*))'),
        ("a OR b -c", '(("a")) OR (("b") NOT ("c"))'),
        ("red -OR", '(("red") NOT ("OR"))'),
        ('red "OR"', '(("red" AND "OR"))'),
        ("x" * 1_000, f'(("{"x" * 1_000}"))'),
        ("x " * 64, "((" + " AND ".join(['"x"'] * 64) + "))"),
    ],
)
def test_a_query_in_the_words_of_the_index(query: str, words: str) -> None:
    assert parse(query) == words


def test_what_is_not_indexed_is_read_in_parts_the_newest_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [one.output for one in search(store, parse("red"))]
    monkeypatch.setattr(captions, "READ_AT_ONCE", 7)
    last = store.last_output_id
    for num in (0, 1, 7, last - 7, last - 1, last, last + 5):
        with store.db.transaction() as connection:
            connection.execute("INSERT INTO caption (caption) VALUES ('delete-all')")
            connection.execute(
                "INSERT INTO caption (rowid, text) SELECT id, text FROM output WHERE id <= ?", (num,)
            )
            connection.execute("UPDATE meta SET value = ? WHERE key = 'captions'", (num,))
        assert captions.num_indexed(store) == num
        assert [one.output for one in search(store, parse("red"))] == expected, num
    with store.db.transaction() as connection:
        connection.execute("UPDATE meta SET value = -1 WHERE key = 'captions'")
    assert captions.num_indexed(store) == 0
    with store.db.transaction() as connection:
        connection.execute("DELETE FROM meta WHERE key = 'captions'")
    assert captions.num_indexed(store) == 0
    assert [one.output for one in search(store, parse("red"))] == expected


def test_where_a_text_came_up_is_told_by_role_and_run(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        fill(store, "first", 2, seed=1)
        [[prompt, row]] = store.db.rows(
            "SELECT text, prompt FROM run JOIN output ON output.id = prompt LIMIT 1"
        )
        with store.transaction() as connection:
            connection.execute("UPDATE invocation SET output = ? WHERE step IN (2, 4) AND run = 2", (row,))
            connection.execute(
                "INSERT INTO intervention VALUES (1, 3, 0, 'text', ?, ?, NULL, NULL)", (row, row)
            )
        digest = prompt_digest(prompt).hex()
        found = search(store, parse(f'"{prompt}"'))
        assert [(one.digest, one.experiment, one.run, one.role, one.steps) for one in found] == [
            (digest, "first", 2, "output", (2, 4)),
            (digest, "first", 1, "prompt", ()),
            (digest, "first", 1, "intervention", (3,)),
        ]


def test_texts_without_words_are_no_hole_in_the_index(store: Store) -> None:
    new = NewOutput(digest=prompt_digest("..."), modality="text", text="...")
    writing.commit(store, Commit(outputs=[new]))
    indexing.complete(store)
    assert captions.num_indexed(store) == store.db.value("SELECT max(id) FROM output")
    assert list(captions.problems(store)) == []


@pytest.mark.parametrize(("query", "message"), BROKEN)
def test_what_is_broken_is_told_with_its_place(query: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        parse(query)


def test_no_query_makes_an_error_of_sql(store: Store) -> None:
    rng = random.Random(3)
    pieces = [
        *WORDS,
        '"',
        "'",
        "*",
        "-",
        "OR",
        "AND",
        "NOT",
        "NEAR(",
        ")",
        "(",
        "^",
        ":",
        "text:",
        "+",
        "{",
        ";",
        "--",
    ]
    for _ in range(2_000):
        query = rng.choice(("", " ")).join(rng.choices(pieces, k=rng.randint(1, 8)))
        try:
            asked = parse(query)
        except FilterError:
            continue
        search(store, asked, limit=5)


def test_what_was_deleted_is_not_found_and_comes_back(store: Store) -> None:
    everything = places(store, "red")
    tombstones.hide(store, reading.experiment(store, "first"), "me")
    assert {place[1] for place in places(store, "red")} == {"second"}
    tombstones.restore(store, tombstones.deleted(store)[-1])
    assert places(store, "red") == everything
    tombstones.hide_runs(store, reading.experiment(store, "first"), [1, 2], "me")
    assert not {1, 2} & {place[2] for place in places(store, "red")}
    tombstones.purge(store, tombstones.deleted(store))
    assert places(store, "red") == by_hand(store, TESTS["red"])
    assert check(store) == []


def test_after_deleting_rows_of_outputs_are_given_again(store: Store) -> None:
    delete.delete_experiment(store, "second")
    assert captions.num_indexed(store) == store.db.value("SELECT max(id) FROM output")
    path = store.path
    store.close()
    with Store(path, write=True) as again:
        fill(again, "third", 7, seed=5)
        assert places(again, "red OR 42") == by_hand(again, lambda w: "red" in w or "42" in w)
        assert check(again) == []


def test_check_finds_an_index_that_lacks_texts_or_has_too_many(store: Store) -> None:
    with store.db.transaction() as connection:
        (row, text) = connection.execute(
            "SELECT id, text FROM output WHERE text LIKE '%red%' LIMIT 1"
        ).fetchone()
        connection.execute("INSERT INTO caption (caption, rowid, text) VALUES ('delete', ?, ?)", (row, text))
        connection.execute("INSERT INTO caption (rowid, text) VALUES (999999, 'a ghost')")
    (problem,) = check(store)
    assert "lacks 1 texts and has 1 that are not there" in problem
    assert indexing.reindex(store) == store.last_output_id
    assert check(store) == []


def test_so_many_are_taken_into_the_index_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind them has its turn later, and each is there once."""
    last = store.last_output_id
    monkeypatch.setattr(indexing, "INDEXED_AT_ONCE", 7)
    with store.db.transaction() as connection:
        connection.execute("INSERT INTO caption (caption) VALUES ('delete-all')")
        connection.execute("CREATE VIRTUAL TABLE temp.seen USING fts5vocab ('main', 'caption', 'instance')")
    store.last_indexed_id = 0
    for end in (7, 14):
        assert indexing.index_some(store) == captions.num_indexed(store) == end
        assert store.db.value("SELECT max(doc) FROM temp.seen") <= end
    told: list[tuple[int, int]] = []
    assert indexing.complete(store, lambda done, total: told.append((done, total))) == last
    assert told == [(min(end, last), last) for end in range(21, last + 7, 7)]
    assert indexing.index_some(store) == 0
    assert (
        store.db.value("SELECT count(*) FROM temp.seen GROUP BY doc, term, offset HAVING count(*) > 1")
        is None
    )


def test_a_damaged_index_costs_no_result(store: Store) -> None:
    before = len(reading.runs(store))
    store.close()
    other = sqlite3.connect(store.path / "store.sqlite")
    other.execute("UPDATE caption_data SET block = x'00ff00ff' WHERE id > 1")
    other.commit()
    other.close()
    with Store(store.path, write=True) as again:
        fill(again, "third", 3)
        assert len(reading.runs(again)) == before + 3
        told: list[int] = []
        indexing.complete(again, lambda done, total: told.append(done))
        assert told == []
        assert again.last_indexed_id == indexing.NEVER
        assert any("index" in problem for problem in check(again))
        indexing.reindex(again)
        assert check(again) == []
        assert places(again, "red") == by_hand(again, TESTS["red"])


KILLED = """
import sys, time
from panic.store import Store, indexing
indexing.INDEXED_AT_ONCE = 7

def tell(done, total, told=[]):
    told.append(done)
    print(done, flush=True)
    if len(told) == 2:
        time.sleep(600)

with Store(sys.argv[1], write=True) as store:
    indexing.reindex(store, tell)
"""


def test_an_index_that_is_killed_is_gone_on_with(store: Store) -> None:
    path, expected = store.path, places(store, "red")
    store.close()
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    done = [int(process.stdout.readline()) for _ in range(2)][-1]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Store(path) as reader:
        known = captions.num_indexed(reader)
        assert done <= known < reader.db.value("SELECT max(id) FROM output")
        assert places(reader, "red") == expected
    with Store(path, write=True) as again:
        told: list[int] = []
        indexing.complete(again, lambda done, total: told.append(done))
        assert told[0] > known
        assert places(again, "red") == expected
        assert check(again) == []


def test_a_read_only_store_is_searched(store: Store, tmp_path: Path) -> None:
    expected = places(store, "red")
    store.close()
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    for file in copy.iterdir():
        file.chmod(0o444)
    copy.chmod(0o555)
    try:
        with Store(copy) as reader:
            assert places(reader, "red") == expected
    finally:
        copy.chmod(0o755)
