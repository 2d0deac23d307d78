"""`panic export --images` and `panic import` of it: a few images are in memory, and a kill does no harm."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import polars
import pytest

from panic.store import Commit, Store, check, writing
from panic.store.dump import dump
from panic.store.restore import IMAGES_AT_ONCE
from tests.store.sample import output, picture

from .conftest import Invoke

pytestmark = pytest.mark.slow
FEW, MANY, SIDE = 24, 96, 768
TOLD = """
import resource, sys
from panic.cli import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
"""`panic` that says at its end how many kB it has had."""
SIGNALLED = """
import os, sys
from panic.cli import main
from panic.store import restore
decode, last, number = restore.decode_image, int(sys.argv.pop(1)), int(sys.argv.pop(1))
def decoded(data):
    global last
    last -= 1
    if last == 0:
        os.kill(os.getpid(), number)
    return decode(data)
restore.decode_image = decoded
main()
"""
"""`panic` that sends itself a signal while it imports the image of a number.

From outside it might come too late."""


def used_kb(*arguments: str) -> int:
    """Memory that a `panic` of its own takes at most."""
    # By a shell: a process inherits the peak of whoever started it, and this one may be large.
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", TOLD, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split()[-1])


def make_store(panic: Invoke, name: str, number: int) -> None:
    """A store with an imported run and images of 1.8 MB each."""
    rows = [{"run": "r", "step": step, "text": f"text {step}"} for step in range(3)]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert panic("import", "rows.jsonl", "--name", "chains", "--store", name).exit_code == 0
    with Store(name, write=True) as store:
        for one in range(number):
            writing.commit(store, Commit(outputs=[output(picture(one, (SIDE, SIDE)))]))


def signalled(number: signal.Signals, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A `panic` that a signal comes to at its 40th image, two transactions of images after it began."""
    command = [sys.executable, "-c", SIGNALLED, "40", str(int(number)), *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True)


def num_images(store: str) -> int:
    with closing(apsw.Connection(f"{store}/images.sqlite", flags=apsw.SQLITE_OPEN_READONLY)) as images:
        return int(next(images.execute("SELECT count(*) FROM image"))[0])


def test_many_images_take_the_memory_of_a_few_and_a_kill_does_no_harm(panic: Invoke, tmp_path: Path) -> None:
    peaks = {}
    for name, number in (("few", FEW), ("many", MANY)):
        make_store(panic, name, number)
        peaks[name] = [
            used_kb("export", "--images", "-o", f"{name}-tables", "--store", name),
            used_kb("import", f"{name}-tables", "--store", f"{name}-again"),
        ]
        with Store(name) as one, Store(f"{name}-again") as again:
            assert list(dump(one)) == list(dump(again))
            assert check.check(again) == []
        assert num_images(f"{name}-again") == number
    assert polars.read_parquet("many-tables/image.parquet", columns=["digest"])["digest"].is_sorted()
    total_kb = (MANY - FEW) * SIDE * SIDE * 3 // 1024  # noise cannot be packed
    more = [many - few for few, many in zip(peaks["few"], peaks["many"], strict=True)]
    # As whole tables they took 4.7 times their size for the export, twice it for the import.

    assert max(more) < 0.7 * total_kb, (more, total_kb)

    done = signalled(signal.SIGKILL, "import", "many-tables", "--store", "killed")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert num_images("killed") == 2 * IMAGES_AT_ONCE
    assert panic("import", "many-tables", "--store", "killed").exit_code == 0
    with Store("many") as one, Store("killed") as again:
        assert list(dump(one)) == list(dump(again))
        assert check.check(again) == []


def test_an_import_of_an_export_is_shown_and_ends_at_a_signal(panic: Invoke, tmp_path: Path) -> None:
    make_store(panic, "many", MANY // 2)
    assert panic("export", "--images", "-o", "tables", "--store", "many").exit_code == 0
    done = signalled(signal.SIGINT, "import", "tables", "--store", "new")
    assert done.returncode == 130, done.stderr
    assert "tables: stopped; the same command begins anew." in done.stderr
    assert not Path("new").exists()
    assert panic("import", "tables", "--store", "new").exit_code == 0
