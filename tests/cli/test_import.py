"""`panic import`: from the command line, with what is asked of the experiment afterwards."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from panic.store import Store, check, reading
from panic.store.dump import dump

from .conftest import Invoke, write_config

PAGE = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
FILES = dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()
]


@pytest.fixture
def chains(panic: Invoke, tmp_path: Path) -> Path:
    """A store with the page's imported experiment `chains`."""
    (tmp_path / "chains.jsonl").write_text(FILES["chains.jsonl"])
    done = panic("import", "chains.jsonl", "--name", "chains")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("chains: 2 runs (0 stuck), 6 outputs\n")
    return tmp_path / "panic-store"


@pytest.mark.parametrize(
    "commands",
    [[line for line in COMMANDS if "import" in line], pytest.param(COMMANDS, marks=pytest.mark.slow)],
    ids=["imports", "all"],
)
def test_the_page_s_examples_do_what_it_says(panic: Invoke, tmp_path: Path, commands: list[str]) -> None:
    assert set(FILES) == {"chains.jsonl", "telephone.csv", "wheel.jsonl"}
    assert (len(COMMANDS), len(commands)) in ((6, 3), (6, 6))
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    for line in commands:
        done = panic(*shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.stderr)
    with Store("panic-store") as store:
        assert check.check(store) == []
        assert reading.counts(store, "chains").embeddings == (7 if commands == COMMANDS else 0)
        assert [run.state for run in reading.runs(store, "telephone")] == ["done", "done"]
        assert [(run.entry_step, run.period) for run in reading.runs(store, "wheel")] == [(1, 2)]
    (tmp_path / "pictures" / "owl").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "owl" / "step_000.png")
    assert panic("import", "pictures", "--name", "pictures").exit_code == 0


def test_columns_that_are_not_read_are_named(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("run,step,text,mood\n1,0,a,x\n1,1,b,y\n")
    done = panic("import", "c.csv", "--name", "c")
    assert done.stderr == (
        "Warning: c.csv: not read are the columns mood (--column FIELD=COLUMN says what is in one)\n"
    )


def test_mistakes_are_told_before_a_store_is_made(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("run,step,text\n1,0,a\n1,2,b\n")
    done = panic("import", "bad.csv", "--name", "bad")
    assert done.exit_code == 2
    assert "bad.csv:3: step 1 is missing in run 1 before its step 2" in done.stderr
    assert "FIELD=COLUMN" in panic("import", "bad.csv", "--name", "bad", "--column", "run").stderr
    assert "There is no file or folder none.csv" in panic("import", "none.csv", "--name", "bad").stderr
    Path("chains.csv").write_text("run;step;text\na;0;x\n")
    done = panic("import", "chain.csv", "--name", "bad")
    assert (done.exit_code, done.stderr.splitlines()[1]) == (2, "Did you mean chains.csv?")
    Path("pictures.bak").touch()  # which is nearer, and cannot be imported
    Path("pictures_bak").mkdir()
    assert "Did you mean pictures_bak?" in panic("import", "pictures.ba", "--name", "bad").stderr
    done = panic("import", "chains.csv", "--name", "bad")
    assert "chains.csv:1: its cells are separated by ';': commas are needed" in done.stderr
    assert done.stderr.count("\n") == 2  # and nothing of the lines below
    Path("windows.jsonl").write_text('{"run": "a", "step": 0, "prompt": "p", "image": "a\\\\b.png"}')
    assert "folders are separated by /" in panic("import", "windows.jsonl", "--name", "bad").stderr
    assert "is none of .jsonl" in panic("import", write_config(tmp_path), "--name", "bad").stderr
    (tmp_path / "good.csv").write_text("run,step,text\n1,0,a\n1,1,b\n")
    assert "name" in panic("import", "good.csv", "--name", "../bad").stderr
    assert not (tmp_path / "panic-store").exists()


@pytest.mark.slow
def test_embeddings_and_diagrams_are_taken_of_imported_runs(panic: Invoke, chains: Path) -> None:
    assert panic("embed", "chains", "PocketText").exit_code == 0
    done = panic("diagrams", "chains", "--metric", "euclidean")
    assert done.exit_code == 0, done.stderr
    assert "2 diagrams" in done.stdout
    assert panic("resume", "chains").stdout == "chains is complete.\n"
    with Store(chains) as store:
        counts = reading.counts(store, "chains")
    assert (counts.done, counts.embeddings, counts.diagrams) == (2, 7, 2)


def test_imported_outputs_are_counted_apart_where_results_are_computed_again(
    panic: Invoke, chains: Path
) -> None:
    alone = panic("verify", "chains", "--json")
    assert alone.exit_code == 1
    assert json.loads(alone.stdout)["counts"] == {"given": 6}
    panic("embed", "chains", "PocketText")
    done = panic("verify", "chains", "--strict", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["counts"] == {"given": 6, "same": 7}


def test_a_verification_of_given_outputs_alone_says_why_nothing_could_be_compared(
    panic: Invoke, chains: Path
) -> None:
    done = panic("verify", "chains")
    assert done.exit_code == 1
    assert done.stdout == "0 results computed again: 6 given\n"
    assert "all 6 results are outputs that an import gave" in done.stderr
    assert "panic embed chains MODEL" in done.stderr
    panic("embed", "chains", "PocketText")
    assert panic("verify", "chains").stdout.endswith("7 results computed again: 6 given, 7 same\n")


def test_nothing_is_computed_in_an_imported_experiment(panic: Invoke, chains: Path, tmp_path: Path) -> None:
    with Store(chains) as store:
        before = list(dump(store))
        config = reading.experiment(store, "chains").config
    longer = tmp_path / "longer.json"
    longer.write_text(json.dumps(config | {"max_length": 9}))
    own = write_config(tmp_path, "chains")
    new = tmp_path / "new.json"
    new.write_text(json.dumps(config | {"name": "new"}))
    for path in (longer, own, new):
        for options in ((), ("--repin", "-y")):
            done = panic("run", path, *options)
            assert done.exit_code == 2, path
            assert "are imported and cannot be computed" in done.stderr
    with Store(chains) as store:
        assert list(dump(store)) == before


def test_imported_outputs_are_embedded_on_any_kind_of_device(
    panic: Invoke, chains: Path, tmp_path: Path
) -> None:
    with Store(chains) as store:
        config = reading.experiment(store, "chains").config
    more = config | {"embeddings": ["synthetic/state-embedding"], "device": "sim:1GiB"}
    (tmp_path / "more.json").write_text(json.dumps(more))
    done = panic("run", tmp_path / "more.json", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "All runs have ended." in done.stdout
    done = panic("run", tmp_path / "more.json")
    assert done.exit_code == 0, done.stderr
    assert "chains is complete: 2 runs (0 stuck, 0 failed), 6 invocations, 7 embeddings" in done.stdout
    (tmp_path / "chains.jsonl").write_text(FILES["chains.jsonl"] + '{"run": "a", "step": 4, "text": "new"}\n')
    assert panic("import", "chains.jsonl", "--name", "chains").exit_code == 0
    assert json.loads(panic("status", "chains", "--json").stdout)["state"] == "incomplete"
    assert "7 invocations, 8 embeddings" in panic("resume", "chains").stdout


def test_a_computed_experiment_takes_no_import(panic: Invoke, store: Path, tmp_path: Path) -> None:
    (tmp_path / "chains.jsonl").write_text(FILES["chains.jsonl"])
    done = panic("import", "chains.jsonl", "--name", "demo")
    assert done.exit_code == 2
    assert "demo was not imported" in done.stderr


def test_runs_whose_images_are_lost_end_and_an_import_brings_them_back(panic: Invoke, tmp_path: Path) -> None:
    for step in range(3):
        Image.new("RGB", (8, 8), (step, 0, 0)).save(tmp_path / f"{step}.png")
    rows = [{"run": 1, "step": step, "image": f"{step}.png", "prompt": "p"} for step in range(3)]
    (tmp_path / "i.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert panic("import", "i.jsonl", "--name", "i").exit_code == 0
    (tmp_path / "panic-store" / "images.sqlite").unlink()
    done = panic("resume", "i")
    assert done.exit_code == 1
    assert "its outputs were given by an import" in done.stderr
    assert panic("import", "i.jsonl", "--name", "i").exit_code == 0
    with Store("panic-store") as opened:
        assert check.check(opened) == []
        assert reading.counts(opened).done == 1


MEASURES = ["--vectorisation", "{kind: landscape, range: [0, 2]}", "--distance", "bottleneck"]


@pytest.mark.parametrize("measures", [[], pytest.param(MEASURES, marks=pytest.mark.slow)])
def test_an_export_is_imported_as_computed(
    panic: Invoke, store: Path, chains: Path, measures: list[str]
) -> None:
    assert store == chains  # demo and broken were computed, chains was imported
    if measures:
        assert panic("diagrams", "demo", *measures).exit_code == 0
    assert panic("export", "-o", "plain").exit_code == 0
    assert "panic export --images" in panic("import", "plain", "--store", "new").stderr
    assert panic("export", "-o", "tables", "--images").exit_code == 0
    for _ in range(2):
        done = panic("import", "tables", "--store", "new")
        assert done.exit_code == 0, done.stderr
        assert done.stdout.startswith("Imported: demo, broken, chains\n")
    with Store(store) as old, Store("new") as new:
        assert list(dump(old)) == list(dump(new))
        assert check.check(new) == []
        assert reading.epochs(new, "demo") == reading.epochs(old, "demo")
    assert panic("resume", "demo", "--store", "new").stdout == "demo is complete.\n"
    other = panic("import", "tables")
    assert other.exit_code == 0  # nothing is new
    assert panic("import", "chains.jsonl", "--name", "demo", "--store", "taken").exit_code == 0
    done = panic("import", "tables", "--store", "taken")
    assert "has experiments of these names: demo" in done.stderr


@pytest.mark.slow
def test_diagrams_with_generators_are_computed_again_after_an_export(panic: Invoke, store: Path) -> None:
    assert panic("diagrams", "demo", "--generators", "--max-dimension", 1).exit_code == 0
    assert panic("export", "-o", "tables", "--images").exit_code == 0
    assert panic("import", "tables", "--store", "new").exit_code == 0
    with Store(store) as old, Store("new") as new:
        assert reading.counts(new).diagrams < reading.counts(old).diagrams
    assert "demo is complete" in panic("resume", "demo", "--store", "new").stdout
    with Store(store) as old, Store("new") as new:
        assert list(dump(old)) == list(dump(new))


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("output", "text", "other", "cannot be imported: ValueError: text"),
        ("image", "bytes", b"RIFF", "cannot be decoded"),
        ("stuck", "period", 4, "stuck is recorded"),
        ("run", "experiment", 77, "KeyError"),
        ("model", "x) VALUES (1); --", 1, "model has no columns"),
        ("experiment", "name", "../up", "a name that is none"),
        ("diagram", "settings", "x", "has no settings"),
        ("bars", "diagram", 999, "bars are of diagrams that are not there"),
    ],
)
def test_an_export_that_is_not_sound_is_refused(
    panic: Invoke, store: Path, table: str, column: str, value: object, reason: str
) -> None:
    import polars

    assert panic("export", "-o", "tables", "--images").exit_code == 0
    path = Path("tables") / f"{table}.parquet"
    frame = polars.read_parquet(path)
    assert frame.height
    old = polars.col(column) if column in frame.columns else polars.lit(None)
    first = polars.int_range(polars.len()) == 0
    frame.with_columns(polars.when(first).then(polars.lit(value)).otherwise(old).alias(column)).write_parquet(
        path
    )
    done = panic("import", "tables", "--store", "new")
    assert done.exit_code == 1
    assert reason in done.stderr
    assert not Path("new").exists()


def test_an_export_without_the_uids_of_experiments_is_none(panic: Invoke, store: Path) -> None:
    """It was answered as a mistake of panic's own: KeyError, and -v for the traceback."""
    import polars

    assert panic("export", "-o", "tables", "--images").exit_code == 0
    path = Path("tables") / "experiment.parquet"
    polars.read_parquet(path).drop("uid").write_parquet(path)
    done = panic("import", "tables", "--store", "new")
    assert done.exit_code == 1
    assert "The export cannot be imported: KeyError: 'uid'" in done.stderr
    assert not Path("new").exists()


KILLED = """
import os, signal, sys, threading
from panic.cli import main
from panic.store import writing

commit, left = writing.commit, [int(sys.argv.pop(1))]

def counted(store, new):
    commit(store, new)
    left[0] -= len(new.invocations)
    if left[0] < 0:  # a moment later, in the middle of whatever comes
        threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGKILL)).start()

writing.commit = counted
main()
"""
"""`panic` that ends so, once it has stored so many steps."""


@pytest.mark.slow
def test_a_killed_import_goes_on(panic: Invoke, tmp_path: Path) -> None:
    rows = [{"run": run, "step": step, "text": f"{run} {step}"} for run in range(300) for step in range(100)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for most in (0, 3000, 3000):
        command = [sys.executable, "-c", KILLED, str(most), "import", "long.jsonl", "--name", "long"]
        assert subprocess.run(command).returncode == -signal.SIGKILL
    with Store("panic-store") as store:
        assert 0 < reading.counts(store).invocations < 300 * 99
    assert panic("import", "long.jsonl", "--name", "long").exit_code == 0
    assert panic("import", "long.jsonl", "--name", "long", "--store", "whole").exit_code == 0
    with Store("panic-store") as killed, Store("whole") as whole:
        assert check.check(killed) == []
        assert list(dump(killed)) == list(dump(whole))
