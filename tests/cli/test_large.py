"""Large inputs and stores: no command takes memory or time by mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from panic.store import Store, reading

from .conftest import DIAGRAMS, Invoke, write_config


def test_of_many_pictures_a_grid_shows_some_and_says_so(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        run = next(run.id for run in reading.runs(opened, "demo") if run.state == "done")
    done = panic("images", "demo", "--run", run, "--most", 2, "-o", "some.png")
    assert "2 pictures in" in done.stdout
    assert "2 of 4, evenly chosen" in done.stdout
    assert "evenly" not in panic("images", "demo", "--run", run, "-o", "all.png").stdout


def test_the_steps_of_a_run_are_paged(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, max_length=1200, prompts=["state 0"])
    assert panic("run", config, "--set", "seeds=[-1]", "--set", "repeats=1").exit_code == 0
    page = panic("show", "--run", 1).stdout
    assert "... and 700 more: --from 500, --all or --json" in page
    last = panic("show", "--run", 1, "--from", 1190).stdout
    assert "1,199" in last
    assert "1,189" not in last
    assert "more:" not in last
    assert "more:" not in panic("show", "--run", 1, "--all").stdout


def test_deleting_gives_the_space_back(panic: Invoke, store: Path) -> None:
    def used() -> int:
        return sum(file.stat().st_size for file in store.glob("*.sqlite*"))

    with Store(store, write=True) as opened, opened.images.transaction() as connection:
        # As if the pictures had been large: what is deleted is what takes the space.
        connection.execute("UPDATE image SET bytes = zeroblob(200000)")
    before = used()
    for name in ("demo", "broken"):
        assert panic("delete", name, "--yes").exit_code == 0
    assert used() >= before
    assert panic("purge", "--yes").exit_code == 0
    assert used() < before - 1_000_000


@pytest.mark.slow
def test_a_prompt_of_a_megabyte_stands_in_a_report_once(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts=["state 1 " + "q" * 10**6, "state 2"], diagrams=DIAGRAMS)
    assert panic("run", config).exit_code == 0
    before = os.path.getsize(tmp_path / "demo.yaml")
    assert panic("report", "-o", "report.html").exit_code == 0
    text = Path("report.html").read_text(encoding="utf-8")
    assert before < len(text)
    assert text.count("q" * 2000) // 500 == 1


READ = """
import resource, sys
from panic.config import prompts
texts, mistakes, _ = prompts.expand([{"file": sys.argv[1], "n": 20, "seed": 3}], ".")
assert len(texts) == 20 and not mistakes, mistakes
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_sample_of_a_large_csv_holds_no_more_than_the_sample(tmp_path: Path) -> None:
    few, many = tmp_path / "few.csv", tmp_path / "many.csv"
    for file, number in ((few, 100), (many, 200_000)):
        file.write_text("id,text,note\n" + "".join(f"{i},a prompt {i},{'x' * 20}\n" for i in range(number)))
    used = [
        int(
            # By a shell: a process inherits the peak of whoever started it, and this one may be large.
            subprocess.run(
                ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", READ, file],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for file in (few, many)
    ]
    # The file itself, its text and a list of its characters; rows as dictionaries took 140 MB.
    assert used[1] - used[0] < 60_000, "kB"
