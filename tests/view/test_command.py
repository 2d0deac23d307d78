"""`panic view` as it is started: what it says, what it refuses, how it ends; bundles."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from panic.cli.app import app
from panic.store import NewRun, Store, writing
from panic.view.script import classic
from tests.patience import LONGEST_S
from tests.store import sample

Known = tuple[Path, sample.Sample]


def panic(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def started(store: Path, *arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and the line that it prints."""
    command = [sys.executable, "-m", "panic", "view", str(store), *arguments]
    # In the background it is ignored, and then also by a child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["env"] = {**os.environ, **environment}
    process = subprocess.Popen(command, **pipes)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_it_says_where_it_is_and_ends_when_asked(known: tuple[Path, sample.Sample]) -> None:
    process, url = started(known[0])
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", url)
        with urllib.request.urlopen(url, timeout=LONGEST_S) as answer:
            assert answer.status == 200
        token = url.rpartition("=")[2]
        events = urllib.request.Request(
            url.partition("?")[0] + "api/1/events", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(events, timeout=LONGEST_S) as stream:
            stream.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=LONGEST_S)
        assert process.returncode == 130
        assert token not in said
        assert "Traceback" not in said
        for file in known[0].rglob("*.log"):
            assert token not in file.read_text()
    finally:
        process.kill()


def fifo(store: Path) -> None:
    (store / "store.sqlite").unlink()
    os.mkfifo(store / "store.sqlite")


def folder(store: Path) -> None:
    (store / "store.sqlite").unlink()
    (store / "store.sqlite").mkdir()


def newer(store: Path) -> None:
    with Store(store, write=True) as opened:
        opened.db.execute("PRAGMA user_version=9999")


def gone(store: Path) -> None:
    store.rename(store.with_name("elsewhere"))


@pytest.mark.parametrize("harm", [fifo, folder, newer, gone])
def test_a_store_that_cannot_be_read_is_told(
    known: tuple[Path, sample.Sample], harm: Callable[[Path], None]
) -> None:
    harm(known[0])
    done = panic("view", known[0])
    assert done.exit_code in (1, 2)
    assert "Error: " in done.stderr
    assert "Traceback" not in done.output


def test_bad_options_are_told(known: Known, tmp_path: Path) -> None:
    store = known[0]
    (tmp_path / "cert.pem").write_text("nonsense")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cases: dict[str, tuple[object, ...]] = {
            "is taken": ("--port", taken.getsockname()[1]),
            "given twice": (store,),
            "together": ("--cert", tmp_path / "cert.pem"),
            "is no file": ("--cert", tmp_path / "none.pem", "--key", tmp_path / "none.pem"),
            "no certificate": ("--cert", tmp_path / "cert.pem", "--key", tmp_path / "cert.pem"),
        }
        for told, arguments in cases.items():
            done = panic("view", store, *arguments)
            assert done.exit_code == 2, told
            assert told in done.stderr


def test_a_bundle_has_every_step_and_every_image_once(
    known: tuple[Path, sample.Sample], tmp_path: Path
) -> None:
    to = tmp_path / "bundle"
    done = panic("view", known[0], "--static", to, "-e", "alpha")
    assert done.exit_code == 0, done.output
    assert "4 runs, 4 images" in done.stderr
    name, text = (to / "data" / "steps-0.js").read_text().removeprefix("panicData(").split(",", 1)
    steps = json.loads(text.removesuffix(");\n"))
    assert name == '"steps-0"'
    assert {run: len(some) for run, some in steps.items()} == {"1": 4, "2": 4, "3": 1, "4": 0}
    images = {one["output"] for some in steps.values() for one in some if one["modality"] == "image"}
    assert {path.stem for path in (to / "images").iterdir()} == images
    page = (to / "index.html").read_text()
    assert 'type="module"' not in page
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_a_bundle_is_gone_on_with_and_spares_other_things(
    known: tuple[Path, sample.Sample], tmp_path: Path
) -> None:
    to = tmp_path / "bundle"
    assert panic("view", known[0], "--static", to, "-e", "alpha").exit_code == 0
    image = next((to / "images").iterdir())
    other = next(path for path in (to / "images").iterdir() if path != image)
    before = other.stat().st_mtime_ns
    image.unlink()  # as if it had been broken off
    assert panic("view", known[0], "--static", to, "-e", "alpha", "-q").exit_code == 0
    assert image.exists()
    assert other.stat().st_mtime_ns == before
    for wrong, told in (("beta", "another experiment's bundle"), ("nobody", "No experiment")):
        done = panic("view", known[0], "--static", to, "-e", wrong)
        assert done.exit_code == 2
        assert told in done.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    done = panic("view", known[0], "--static", tmp_path / "mine")
    assert done.exit_code == 2
    assert "other things" in done.stderr


def test_a_bundle_tells_of_no_disk_and_spares_what_was_lost(known: Known, tmp_path: Path) -> None:
    """One lost image ended it, and so did a text that begins like the name of an image."""
    said = "image: a red cat"
    with Store(known[0], write=True) as store:
        writing.commit(store, sample.Commit(outputs=[sample.output(said)]))
        writing.add_runs(
            store, known[1].alpha, [NewRun(network=("draw", "tell"), prompt=said, seed=1, max_length=2)]
        )
        with store.transaction() as connection:
            connection.execute(
                "UPDATE experiment SET config = json_set(config, '$.base_folder', '/home/me/labs')"
            )
        with store.images.transaction() as connection:
            connection.execute("DELETE FROM image WHERE rowid = (SELECT min(rowid) FROM image)")
    to = tmp_path / "bundle"
    done = panic("view", known[0], "--static", to, "-e", "alpha")
    assert done.exit_code == 0, done.output
    assert "has lost 1 images" in done.stderr
    told = (to / "data" / "experiment.js").read_text()
    assert said in told
    assert "/home/me" not in told


def test_a_browser_is_opened_without_the_token_in_its_command(known: Known, tmp_path: Path) -> None:
    """Every user of a machine can read the commands that run on it."""
    (tmp_path / "xdg-open").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\ncp "$1" {tmp_path}/page\n')
    (tmp_path / "xdg-open").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    process, url = started(known[0], "--open", PATH=path)
    try:
        deadline = time.monotonic() + LONGEST_S
        while not (tmp_path / "page").exists() or not (tmp_path / "page").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        token = url.rpartition("=")[2]
        file = Path((tmp_path / "said").read_text().strip().removeprefix("file://"))
        assert token not in str(file)
        assert token in (tmp_path / "page").read_text()
        assert file.stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGINT)
        process.wait(LONGEST_S)
        assert not file.exists()
    finally:
        process.kill()


def test_modules_become_one_classic_script() -> None:
    modules = {
        "main": 'import { a, b as c } from "./one.js";\nexport const sum = a + c();\nglobalThis.found = sum;',
        "one": "export let a = 1;\nexport function b() {\n  return a + 1;\n}\n",
        "two": "var q = 1;export{q as name};\n",
    }
    script = classic(modules, "main")
    assert "import" not in script
    assert not re.search(r"^export", script, re.MULTILINE)
    assert "get name() { return q; }" in script
