"""`panic list`, `show`, `status`, `stuck`, `models`: what there is, for people and for programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from panic import is_stuck
from panic.cli.app import COMMANDS, app
from panic.store import Store, contents, reading, writing
from panic.store.stuck import first_repeat
from tests.patience import LONGEST_S
from tests.processes import Held

from .conftest import Invoke, write_config

LOOKING = [["list"], ["status"], ["show"], ["stuck"], ["check"]]


def as_json(panic: Invoke, *arguments: object) -> Any:
    done = panic(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_list(panic: Invoke, store: Path) -> None:
    rows = as_json(panic, "list")
    assert [(row["name"], row["state"], row["runs"]) for row in rows] == [
        ("demo", "complete", 6),
        ("broken", "failed", 6),
    ]
    assert rows[0]["done"] + rows[0]["stuck"] == 6
    assert rows[0]["diagrams"] == 6
    text = panic("list").stdout
    assert rows[0]["id"][:12] in text
    assert "complete" in text


def test_list_of_an_empty_store_says_how_to_begin(panic: Invoke, tmp_path: Path) -> None:
    Store(tmp_path / "panic-store", write=True, create=True).close()
    assert as_json(panic, "list") == []
    assert "panic run CONFIG" in panic("list").stdout
    done = panic("status")
    assert done.exit_code == 2
    assert "no experiments yet" in done.stderr


def test_status(panic: Invoke, store: Path) -> None:
    status = as_json(panic, "status", "demo")
    models = {model["model"]: model for model in status.pop("models")}
    for name, batch_size in (("draw", 6), ("chain", 6), ("circle", 32)):
        places = models[name]["items"] + models[name]["padding_items"]
        assert places == batch_size * models[name]["batches"]
    [device] = status.pop("devices")
    assert device.pop("duration_s") > 0
    assert device == {
        "device": "cpu",
        "batches": sum(model["batches"] for model in models.values()),
        "items": sum(model["items"] for model in models.values()),
    }
    with Store(store) as opened:
        counts = reading.counts(opened, "demo")
    assert status == {
        "state": "complete",
        "runs": {"total": 6, "done": counts.done, "stuck": counts.stuck, "repeated": 0, "failed": 0},
        "invocations": counts.invocations,
        "embeddings": counts.embeddings,
        "diagrams": 6,
        "vectorisations": 0,
        "distances": 0,
        "eta_s": None,
        "pid": None,
        "endpoints": [],
        "budget": None,
    }
    assert as_json(panic, "status")["state"] == "failed"  # the latest
    text = panic("status", "demo").stdout
    assert "6 of 6" in text
    assert "circle" in text
    told = re.sub(" +", " ", text)
    assert f"invocations {counts.invocations:,}" in told
    assert "diagrams 6" in told
    assert "vectorisations" not in text, "there are none"
    assert re.search(r"circle +\d+ +10 +\d+% ", text)


def test_an_extended_experiment_is_incomplete(panic: Invoke, store: Path) -> None:
    with Store(store, write=True) as opened:
        row = reading.experiment(opened, "demo")
        run = reading.runs(opened, row.id)[-1]
        from panic.store import NewRun

        more = NewRun(network=run.network, prompt="state 4", seed=-1, repeat=0, max_length=8)
        writing.add_runs(opened, row.id, [more])
    assert as_json(panic, "status", "demo")["state"] == "incomplete"


def test_an_experiment_is_found_by_name_id_and_latest(panic: Invoke, store: Path) -> None:
    ids = {row["name"]: row["id"] for row in as_json(panic, "list")}
    for selector in ("demo", ids["demo"], ids["demo"][:12]):
        assert as_json(panic, "show", selector)["id"] == ids["demo"]
    assert as_json(panic, "show", "latest")["id"] == ids["broken"]
    done = panic("show", "dmeo")
    assert done.exit_code == 2
    assert "Did you mean demo?" in done.stderr


def test_show(panic: Invoke, store: Path) -> None:
    shown = as_json(panic, "show", "demo")
    assert shown["config"]["max_length"] == 8
    assert {model["name"] for model in shown["models"]} == {"draw", "chain", "circle"}
    assert [session["end_state"] for session in shown["sessions"]] == ["done"]
    assert [run["seed"] for run in shown["runs"]] == [7, -1, -1, 7, -1, -1]
    text = panic("show", "demo").stdout
    assert "draw → chain" in text
    assert "8 of 8 model calls" in text
    assert "synthetic failure at state 1" in panic("show", "broken").stdout


def test_show_one_run(panic: Invoke, store: Path) -> None:
    run = next(run for run in as_json(panic, "show", "demo")["runs"] if run["state"] == "done")
    steps = as_json(panic, "show", "demo", "--run", run["run"])["steps"]
    assert [step["step"] for step in steps] == list(range(8))
    assert [step["modality"] for step in steps] == ["image", "text"] * 4
    text = panic("show", "demo", "--run", run["run"]).stdout
    assert steps[1]["text"] in text
    assert f"image {steps[0]['output'][:12]}" in text
    done = panic("show", "demo", "--run", 999)
    assert done.exit_code == 2
    assert "Its runs are 1 to 6." in done.stderr


def test_show_config_prints_a_file_that_reruns_it(panic: Invoke, store: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    again = tmp_path / "elsewhere" / "again.yaml"
    again.write_text(panic("show", "demo", "--config").stdout)
    assert panic("run", again, "--store", "other").exit_code == 0
    assert panic("dump", "--store", "other").stdout == panic("dump", "demo").stdout
    assert as_json(panic, "show", "demo", "--config")["name"] == "demo"
    assert panic("show", "demo", "--config", "--run", 1).exit_code == 2


def test_a_terminal_without_unicode_is_served(panic: Invoke, tmp_path: Path) -> None:
    panic("run", write_config(tmp_path, prompts=["état 0"]))
    command = [sys.executable, "-P", "-m", "panic"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for arguments in (["show"], ["stuck"], ["show", "--json"]):
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=LONGEST_S
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["config"]["prompts"] == ["état 0"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_stop_nothing(store: Path, closed: str) -> None:
    command = f"{shlex.quote(sys.executable)} -P -m panic list {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=LONGEST_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_stuck_tells_what_the_trajectories_say(panic: Invoke, store: Path) -> None:
    rows = as_json(panic, "stuck", "demo")
    assert rows
    assert set(rows[0]) == {"run", "network", "prompt", "seed", "repeat", "arm", "entry_step", "period"}
    with Store(store) as opened:
        for row in rows:
            steps = contents.invocations(opened, row["run"])
            found = first_repeat([steps[0].input, *(step.output for step in steps)], len(row["network"]))
            assert found == is_stuck(opened, row["run"])
            assert found is not None
            assert (found.entry_step, found.period) == (row["entry_step"], row["period"])
    assert "draw → chain" in panic("stuck", "demo").stdout


def test_nothing_stuck_is_said(panic: Invoke, tmp_path: Path) -> None:
    panic("run", write_config(tmp_path), "--set", "seeds=[-1]")
    assert as_json(panic, "stuck") == []
    assert "No run of demo is stuck." in panic("stuck").stdout


@pytest.mark.parametrize("command", LOOKING, ids=lambda command: command[0])
def test_a_missing_store_is_told(panic: Invoke, command: list[str]) -> None:
    done = panic(*command)
    assert done.exit_code == 2
    assert "There is no store at panic-store" in done.stderr
    assert not Path("panic-store").exists()


@pytest.mark.parametrize("command", LOOKING[:-1], ids=lambda command: command[0])
def test_a_file_that_is_no_database_is_told(panic: Invoke, store: Path, command: list[str]) -> None:
    (store / "store.sqlite").write_bytes(b"no database at all" * 1000)
    done = panic(*command)
    assert done.exit_code == 1
    assert "is not a database" in done.stderr
    assert "Traceback" not in done.output


def test_a_newer_schema_is_told(panic: Invoke, store: Path) -> None:
    with contextlib.closing(sqlite3.connect(store / "store.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = Held()
    done = panic("list")
    assert done.exit_code == 1
    assert "schema version 999" in done.stderr
    if Path("/proc/self/fd").is_dir():
        assert before.new_files() == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_store_is_told(panic: Invoke, store: Path) -> None:
    (store / "store.sqlite").chmod(0)
    done = panic("list")
    assert done.exit_code == 1
    assert "permissions" in done.stderr


def test_a_copy_of_a_store_answers_the_same(panic: Invoke, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    assert as_json(panic, "list", "--store", tmp_path / "copy") == as_json(panic, "list")


def test_models(panic: Invoke) -> None:
    models = {model["name"]: model for model in as_json(panic, "models")}
    synthetic = models["synthetic/text-to-image"]
    assert (synthetic["modalities_in"], synthetic["modality_out"]) == (["text"], "image")
    assert synthetic["present"]
    turbo = models["sd-turbo"]
    assert turbo["parameters"] > 1e9
    assert turbo["memory_bytes"] == 2 * turbo["parameters"]
    assert turbo["licence"]
    text = panic("models").stdout
    assert "image → text" in text
    assert "2.58 GB" in text
    assert {model["present"] for model in as_json(panic, "models", "--present")} == {True}


def test_models_of_a_folder(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shout.py").write_text(
        "class Shout:\n    modality_in = modality_out = 'text'\n    size_bytes = 0\n"
        "    def load(self, device): pass\n    def invoke(self, inputs, seeds): return inputs\n"
    )
    names = [model["name"] for model in as_json(panic, "models", "--model-folder", "mine")]
    assert "Shout" in names
    (tmp_path / "mine" / "wrong.py").write_text("class Wrong(\n")
    done = panic("models", "--model-folder", "mine")
    assert done.exit_code == 1
    assert "wrong.py" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_all_says_what_the_command_says_of_itself(name: str) -> None:
    own = typer.main.get_command(app).commands[name].get_short_help_str(500)  # type: ignore[attr-defined]
    assert own.rstrip(".") == COMMANDS[name][1].rstrip(".")


def test_a_command_imports_no_other() -> None:
    code = (
        "import sys\nfrom panic.cli import main\nsys.argv = ['panic', 'status', '--help']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print('\\n', *sorted(name for name in sys.modules if name.startswith('panic.cli.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST_S, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "panic.cli.status" in loaded
    modules = {f"panic.cli.{place.partition(':')[0]}" for place, _ in COMMANDS.values()}
    assert loaded & modules == {"panic.cli.app", "panic.cli.status"}


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_looking_loads_no_heavy_packages(store: Path, arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom panic.cli import main\nsys.argv = ['panic', *{arguments}]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print('\\n', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST_S, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"torch", "transformers", "diffusers", "polars", "altair", "PIL", "numpy", "scipy", "yaml"}
    assert not loaded & heavy
    if arguments == ["--help"]:
        assert not loaded & {"pydantic", "rich", "apsw"}


def test_times_without_bounds_ended_in_an_error_of_python(panic: Invoke, store: Path) -> None:
    connection = sqlite3.connect(store / "store.sqlite")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE batch SET started_at = -9e999, duration_s = 9e999")
    connection.commit()
    connection.close()
    assert panic("status", "demo").exit_code == 0
    done = panic("show", "demo", "--run", "1", "--json")
    assert done.exit_code == 0
    json.loads(done.stdout, parse_constant=pytest.fail)
