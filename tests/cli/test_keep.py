"""`panic delete`, `check`, `report`: keeping a store in order."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from panic.store import Store, check, delete, reading

from .conftest import Invoke, write_config


def names(store: Path) -> list[str]:
    with Store(store) as opened:
        return [row.name for row in reading.experiments(opened)]


def test_delete_shows_what_goes_and_deletes_with_yes(panic: Invoke, store: Path) -> None:
    kept = panic("dump", "broken").stdout
    with Store(store) as opened:
        goes = delete.preview_deletion(opened, "demo")
    done = panic("delete", "demo", "-y")
    assert done.exit_code == 0, done.output
    assert f"6 runs, {goes.invocations} invocations, {goes.outputs} outputs" in done.stdout
    assert "B of pictures" in done.stdout
    assert "demo is deleted." in done.stdout
    assert names(store) == ["broken"]
    assert panic("dump").stdout == kept
    assert panic("check").exit_code == 0
    done = panic("purge")
    assert done.exit_code == 2
    assert "-y purges without asking" in done.stderr
    done = panic("purge", "-y")
    assert f"6 runs, {goes.invocations} invocations, {goes.outputs} outputs" in done.stdout
    assert "demo: purged." in done.stdout
    assert panic("dump").stdout == kept
    with Store(store) as opened:
        assert check.check(opened) == []
        assert opened.db.value("SELECT count(*) FROM experiment") == 1
    assert panic("undelete", "demo").exit_code == 2
    assert "Nothing was deleted" in panic("purge").stdout


def test_what_is_deleted_comes_back_as_it_was(panic: Invoke, store: Path) -> None:
    before, shown = panic("dump").stdout, panic("show", "demo", "--json").stdout
    assert panic("delete", "demo", "-y").exit_code == 0
    assert panic("show", "demo").exit_code == 2
    (listed,) = json.loads(panic("undelete", "--json").stdout)
    assert (listed["name"], listed["num_runs"], listed["is_part"]) == ("demo", 6, False)
    assert "demo" in panic("undelete").stdout
    done = panic("undelete", "dmeo")
    assert (done.exit_code, "Deleted are: demo." in done.stderr) == (2, True)
    done = panic("undelete", listed["id"][:6])
    assert (done.exit_code, done.stdout) == (0, "demo is back.\n")
    assert panic("dump").stdout == before
    assert panic("show", "demo", "--json").stdout == shown
    assert panic("undelete").stdout == "Nothing was deleted, or all of it was purged.\n"


@pytest.fixture
def plain(panic: Invoke, tmp_path: Path) -> Path:
    """A store with the experiments `demo`, without diagrams, and `broken`, which is like it."""
    for name in ("demo", "broken"):
        assert panic("run", write_config(tmp_path, name)).exit_code == 0
    return tmp_path / "panic-store"


def test_a_deleted_name_is_free_and_what_had_it_comes_back_under_another(
    panic: Invoke, plain: Path, tmp_path: Path
) -> None:
    before = panic("dump", "demo").stdout
    assert panic("delete", "demo", "-y").exit_code == 0
    done = panic("run", write_config(tmp_path))
    assert done.exit_code == 0, done.output
    assert panic("dump", "demo").stdout == before, "and the same work gives the same results"
    done = panic("undelete", "demo")
    assert done.exit_code == 2
    assert "--name NAME lets it come back" in done.stderr
    assert panic("undelete", "demo", "--name", "a b").exit_code == 2
    assert panic("undelete", "demo", "--name", "old").exit_code == 0
    assert names(plain) == ["old", "broken", "demo"]
    assert panic("dump", "old").stdout.count("\n") == before.count("\n")
    assert panic("resume", "old").stdout == "old is complete.\n"
    assert panic("check").exit_code == 0


def test_runs_are_deleted_come_back_and_are_computed_again(panic: Invoke, plain: Path) -> None:
    before = panic("dump", "demo").stdout
    done = panic("delete", "demo", "--run", 99, "-y")
    assert (done.exit_code, "Its runs are 1 to 6" in done.stderr) == (2, True)
    done = panic("delete", "demo", "--network", "draw,chian", "-y")
    assert (done.exit_code, "Did you mean draw,chain?" in done.stderr) == (2, True)
    done = panic("delete", "demo", "--run", 2, "--run", 3, "--run", 2, "-y")
    assert "2 runs of demo are deleted." in done.stdout
    assert [run["run"] for run in json.loads(panic("show", "demo", "--json").stdout)["runs"]] == [1, 4, 5, 6]
    assert panic("check").exit_code == 0
    assert panic("undelete", "demo").stdout == "2 runs of demo are back.\n"
    assert panic("dump", "demo").stdout == before
    assert panic("delete", "demo", "--run", 2, "--run", 3, "-y").exit_code == 0
    assert panic("run", write_config(plain.parent)).exit_code == 0
    assert panic("dump", "demo").stdout == before
    done = panic("undelete", "demo")
    assert "2 runs stay deleted: demo has computed them anew." in done.stdout
    assert panic("purge", "-y").exit_code == 0
    assert panic("dump", "demo").stdout == before
    assert panic("check").exit_code == 0


def test_runs_of_a_network_are_deleted_and_their_space_is_given_back(panic: Invoke, store: Path) -> None:
    kept = panic("dump", "broken").stdout
    assert "6 runs of demo are deleted" in panic("delete", "demo", "--network", "draw,chain", "-y").stdout
    assert panic("delete", "demo", "-y").exit_code == 0
    done = panic("undelete", json.loads(panic("undelete", "--json").stdout)[0]["id"])
    assert done.exit_code == 2
    assert "which is deleted itself" in done.stderr
    assert panic("purge", "demo", "-y").exit_code == 0
    assert panic("purge", "demo", "-y").exit_code == 0
    assert panic("dump").stdout == kept
    assert panic("check").exit_code == 0


def test_delete_does_nothing_without_an_answer(panic: Invoke, store: Path) -> None:
    done = panic("delete", "demo", input="y\n")  # stdin is no terminal
    assert done.exit_code == 2
    assert "6 runs" in done.stdout
    assert "-y deletes without asking" in done.stderr
    assert names(store) == ["demo", "broken"]


def test_delete_wants_a_name_that_exists(panic: Invoke, store: Path) -> None:
    assert panic("delete").exit_code == 2
    assert panic("delete", "nope", "-y").exit_code == 2
    assert names(store) == ["demo", "broken"]


def test_delete_is_refused_while_another_writes(panic: Invoke, store: Path) -> None:
    with Store(store, write=True):
        done = panic("delete", "demo", "-y")
    assert done.exit_code == 1
    assert f"process {os.getpid()}" in done.stderr
    assert names(store) == ["demo", "broken"]


def test_check_of_a_sound_store(panic: Invoke, store: Path) -> None:
    done = panic("check")
    assert (done.exit_code, done.stdout) == (0, "The store is sound.\n")
    assert json.loads(panic("check", "--json").stdout) == {"ok": True, "problems": []}


def damaged(store: Path, file: str, sql: str) -> None:
    with sqlite3.connect(store / file) as connection:
        connection.execute(sql)


@pytest.mark.parametrize(
    ("file", "sql"),
    [
        ("images.sqlite", "DELETE FROM image WHERE rowid = (SELECT max(rowid) FROM image)"),
        ("store.sqlite", "DELETE FROM invocation WHERE run = 2 AND step = 3"),
        ("store.sqlite", "UPDATE output SET text = text || '?' WHERE text = 'state 3'"),
    ],
    ids=["picture", "step", "text"],
)
def test_check_finds_damage(panic: Invoke, store: Path, file: str, sql: str) -> None:
    damaged(store, file, sql)
    done = panic("check", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["ok"]
    assert found["problems"]
    done = panic("check")
    assert done.exit_code == 1
    assert found["problems"][0] in done.stdout
    assert "problem" in done.stdout.splitlines()[-1]


def remedy_of(text: str) -> list[str]:
    """The arguments of the command that a message names, in backquotes."""
    return text.split("`")[1].split()[1:]


@pytest.mark.parametrize("lost", ["row", "bytes", "file"])
def test_check_names_the_command_that_mends_lost_pictures(panic: Invoke, store: Path, lost: str) -> None:
    before = panic("dump").stdout
    if lost == "file":
        (store / "images.sqlite").unlink()
    else:
        change = "DELETE FROM image" if lost == "row" else "UPDATE image SET bytes = X'78'"
        damaged(store, "images.sqlite", f"{change} WHERE rowid = 1")
    problems = json.loads(panic("check", "--json").stdout)["problems"]
    [problem] = [problem for problem in problems if problem.startswith("experiment demo: ")]
    assert "missing or damaged" in problem
    lacking = panic("dump")
    assert lacking.exit_code == 1
    assert "Traceback" not in lacking.output
    done = panic(*remedy_of(problem))
    assert done.exit_code == 0, done.output
    assert panic("resume", "broken", "--repair").exit_code == 1  # its runs have failed for another reason
    assert panic("check").exit_code == 0
    assert panic("dump").stdout == before


def test_a_complete_experiment_that_has_lost_pictures_is_resumed(panic: Invoke, store: Path) -> None:
    before = panic("dump", "demo").stdout
    damaged(store, "images.sqlite", "DELETE FROM image WHERE rowid = 1")
    assert "images:      1 are missing" in panic("resume", "demo", "--dry-run").stdout
    done = panic("resume", "demo")
    assert done.exit_code == 0, done.output
    assert "WARNING: 1 of the experiment's images are missing" in done.stderr
    assert "images computed again: 1 of 1" in done.stderr
    assert panic("dump", "demo").stdout == before
    assert panic("resume", "demo").stdout == "demo is complete.\n"


def test_a_damaged_file_of_pictures_can_be_moved_away(panic: Invoke, store: Path) -> None:
    before = panic("dump", "demo").stdout
    (store / "images.sqlite").write_bytes(b"no database at all" * 1000)
    done = panic("resume", "demo", "--repair")
    assert done.exit_code == 1
    assert "Move it away" in done.stderr
    (store / "images.sqlite").rename("away")
    assert panic("resume", "demo").exit_code == 0
    assert panic("dump", "demo").stdout == before


def test_check_of_a_file_that_is_no_database_is_a_problem(panic: Invoke, store: Path) -> None:
    (store / "store.sqlite").write_bytes(b"no database at all" * 1000)
    done = panic("check", "--json")
    assert done.exit_code == 1
    [problem] = json.loads(done.stdout)["problems"]
    assert "is not a database" in problem
    assert "\n" not in problem


def test_report_is_a_file_in_the_store_or_where_it_is_wanted(panic: Invoke, store: Path) -> None:
    pytest.importorskip("panic.analysis.report")
    done = panic("report", "demo")
    assert done.exit_code == 0, done.output
    assert done.stdout == "Report: panic-store/reports/demo.html\n"
    assert "demo" in (store / "reports" / "demo.html").read_text()
    done = panic("report", "demo", "--output", "here/report.html")
    assert done.exit_code == 0, done.output
    assert Path("here/report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    done = panic("report", "demo", "--output", "here/report.html")
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert panic("report", "demo").exit_code == 0  # the report in the store is ours to overwrite
    done = panic("report", "demo", "--output", "here", "--force")
    assert done.exit_code == 2
    assert "here is a folder" in done.stderr
    done = panic("report", "nope")
    assert done.exit_code == 2
    assert "No experiment 'nope'" in done.stderr


def test_remarks_on_outputs_go_with_them(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        digests = [
            digest
            for (digest,) in opened.db.rows("SELECT lower(hex(digest)) FROM output WHERE modality = 'image'")
        ]
    for digest in digests[:2]:
        assert panic("tag", digest, "seen").exit_code == 0
    for name in ("demo", "broken"):
        assert panic("delete", name, "-y").exit_code == 0
    assert panic("purge", "-y").exit_code == 0
    with Store(store) as opened:
        assert opened.db.value("SELECT count(*) FROM annotation WHERE target_kind = 'output'") == 0
