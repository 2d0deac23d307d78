"""Files whose names are no UTF-8, as any folder may have them: used, or refused in words."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Invoke, write_config

ODD = os.fsdecode(b"\xff")


@pytest.fixture
def odd(store: Path) -> Path:
    """The store, in a folder of such a name."""
    try:
        return store.rename(store.with_name(f"store{ODD}"))
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")


def test_results_are_written_under_such_names(panic: Invoke, odd: Path) -> None:
    """What polars wrote ended in a TypeError."""
    for ending in (".csv", ".parquet", ".json", ".md", ".tex"):
        done = panic("table", "stuck", "demo", "-o", f"a{ODD}{ending}", "--store", odd)
        assert done.exit_code == 0, done.stderr
        assert Path(f"a{ODD}{ending}").stat().st_size
    assert panic("export", "-o", f"tables{ODD}", "--images", "--store", odd).exit_code == 0
    with Path(f"tables{ODD}", "image.parquet").open("rb") as file:
        assert len(pl.read_parquet(file))


def test_a_store_in_such_a_folder_is_ranked_merged_and_copied(panic: Invoke, odd: Path) -> None:
    """Metrics are kept in a file beside it, and a merge attaches its images."""
    best = panic("best", "--by", "entropy", "--store", odd)
    assert (best.exit_code, "demo" in best.stdout) == (0, True), best.stderr
    assert (odd / "summaries.sqlite").exists()
    merged = panic("merge", odd, "--into", f"merged{ODD}")
    assert merged.exit_code == 0, merged.stderr
    assert panic("snapshot", odd, f"copy{ODD}").exit_code == 0
    for one in (odd, f"merged{ODD}", f"copy{ODD}"):
        assert panic("check", "--store", one).stdout == "The store is sound.\n"


def test_what_is_read_comes_from_such_files_or_the_reason_is_told(
    panic: Invoke, odd: Path, tmp_path: Path
) -> None:
    folder = tmp_path / f"folder{ODD}"
    folder.mkdir()
    (folder / "a.csv").write_text("run,step,text,prompt\n1,0,a,b\n")
    done = panic("import", folder / "a.csv", "--name", "imported", "--store", odd)
    assert done.exit_code == 0, done.stderr
    frame = pl.DataFrame({"run": ["1"], "step": [0], "text": ["a"], "prompt": ["b"]})
    with (folder / "a.parquet").open("wb") as file:
        frame.write_parquet(file)
    done = panic("import", folder / "a.parquet", "--name", "other", "--store", odd)
    assert done.exit_code == 2
    assert "Parquet files are found by names of UTF-8" in done.stderr
    config = write_config(folder, prompts="[{file: a.parquet, column: text}]", max_length=1)
    done = panic("run", config, "--name", "prompted", "--store", odd)
    assert done.exit_code == 2
    assert "base_folder must be a text that can be written as UTF-8" in done.stderr
    done = panic(
        "embed", "--texts", folder / "a.csv", "synthetic/state-embedding", "-o", folder / "b.parquet"
    )
    assert done.exit_code == 2
    assert "Parquet files are found by names of UTF-8" in done.stderr
    assert sorted(os.listdir(folder)) == ["a.csv", "a.parquet", "demo.yaml"]


def test_a_device_of_such_a_name_is_none(panic: Invoke) -> None:
    done = panic("run", write_config(Path.cwd()), "--device", ODD, "--dry-run")
    assert done.exit_code == 2
    assert "is not a known device" in done.stderr
