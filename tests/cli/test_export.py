"""`panic export` and `panic dump`: what leaves the store is what is in it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from panic.cli import import_
from panic.store import Commit, Store, contents, reading, writing
from tests.reads import num_bytes_read
from tests.store.sample import output

from .conftest import Invoke


def test_every_table_is_exported(panic: Invoke, store: Path) -> None:
    done = panic("export", "--output", "tables")
    assert done.exit_code == 0, done.output
    frames = {path.stem: pl.read_parquet(path) for path in Path("tables").iterdir()}
    with Store(store) as opened:
        tables = {name for (name,) in opened.db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        special = {"meta", "embedding", "diagram_bars", "change"}
        special |= {name for name in tables if name.startswith("caption")}  # the index of panic search
        assert {"bars", "embedding-circle"} == set(frames) - tables
        assert tables - special <= set(frames)
        for name in tables - special:
            assert frames[name].height == opened.db.value(f"SELECT count(*) FROM {name}"), name
        assert f"run.parquet: {frames['run'].height:,} rows" in done.stdout
        run = next(run for run in reading.runs(opened, "demo") if run.state == "done")
        steps = frames["invocation"].filter(pl.col("run") == run.id).join(
            frames["output"], left_on="output", right_on="id"
        )  # fmt: skip
        assert steps.sort("step")["digest"].to_list() == [
            s.output for s in contents.invocations(opened, run.id)
        ]


def test_vectors_are_arrays_of_fixed_size(panic: Invoke, store: Path) -> None:
    panic("export", "--output", "tables")
    frame = pl.read_parquet("tables/embedding-circle.parquet")
    assert frame.schema["vector"] == pl.Array(pl.Float32, 2)
    with Store(store) as opened:
        vectors = contents.vectors(opened, "circle")
    by_digest = dict(zip(vectors.digests, vectors.vectors, strict=True))
    assert len(by_digest) == frame.height > 0
    for digest, vector in frame.select("digest", "vector").iter_rows():
        np.testing.assert_array_equal(np.float32(vector), by_digest[digest])


def test_bars_are_exported_one_by_one(panic: Invoke, store: Path) -> None:
    panic("export", "--output", "tables")
    bars = pl.read_parquet("tables/bars.parquet")
    with Store(store) as opened:
        for diagram in contents.diagrams(opened, "demo"):
            for dimension in diagram.dimensions:
                mine = bars.filter(pl.col("diagram") == diagram.id, pl.col("dimension") == dimension)
                stored = contents.bars(opened, diagram.run, "circle", dimension)
                np.testing.assert_array_equal(mine.select("birth", "death").to_numpy(), stored)
    assert bars.height > 0


def test_pictures_are_exported_on_request(panic: Invoke, store: Path) -> None:
    panic("export", "--output", "tables")
    assert not Path("tables/image.parquet").exists()
    panic("export", "--output", "with-images", "--images")
    frame = pl.read_parquet("with-images/image.parquet")
    with Store(store) as opened:
        digest, data = frame.select("digest", "bytes").row(0)
        with Image.open(io.BytesIO(data)) as image:
            assert image.convert("RGB").tobytes() == contents.image(opened, digest).tobytes()


def test_a_folder_with_things_in_it_is_refused(panic: Invoke, store: Path) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    done = panic("export", "--output", "mine")
    assert done.exit_code == 2
    assert "mine is not empty" in done.stderr
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]
    assert panic("export", "--output", "mine", "--force").exit_code == 0
    assert Path("mine/notes.txt").read_text() == "mine"
    assert Path("mine/run.parquet").exists()
    done = panic("export", "--output", "mine/notes.txt")
    assert done.exit_code == 2
    assert "is a file" in done.stderr
    assert panic("export").exit_code == 2
    done = panic("export", "--output", "mine/notes.txt/tables")
    assert done.exit_code == 2
    assert "mine/notes.txt is a file; a folder is needed." in done.stderr


def test_large_tables_are_written_in_several_row_groups_and_read_once(panic: Invoke, tmp_path: Path) -> None:
    """As slices a file was read once for each of them, each from where its row group begins."""
    letters = np.random.default_rng(0).integers(97, 123, (100, 200_000), dtype=np.uint8)
    with Store("panic-store", write=True, create=True) as opened:
        writing.commit(opened, Commit(outputs=[output(row.tobytes().decode()) for row in letters]))
    assert panic("export", "--output", "tables").exit_code == 0
    file = Path("tables/output.parquet")
    frame = pl.read_parquet(file)
    assert frame.n_chunks() == 5  # row groups
    frame.write_parquet("one.parquet", row_group_size=100)  # as they were written before
    for path in (file, Path("one.parquet")):
        rows = import_.Rows(path, lambda what, done, total: None)
        before = num_bytes_read()
        assert [row["text"] for row in rows] == frame["text"].to_list()
        assert num_bytes_read() - before < 1.5 * path.stat().st_size


def test_an_export_without_a_store_leaves_no_folder(panic: Invoke) -> None:
    assert panic("export", "--output", "tables").exit_code == 2
    assert not Path("tables").exists()


def test_dump_is_json_lines_of_one_or_all_experiments(panic: Invoke, store: Path) -> None:
    every = [json.loads(line) for line in panic("dump").stdout.splitlines()]
    one = [json.loads(line) for line in panic("dump", "demo").stdout.splitlines()]
    assert {"experiment", "run", "invocation", "stuck"} <= {line["kind"] for line in one}
    names = [[line["name"] for line in lines if line["kind"] == "experiment"] for lines in (every, one)]
    assert names == [["broken", "demo"], ["demo"]]
    assert len(one) < len(every)
    assert panic("dump", "nope").exit_code == 2


FULL = """
import resource, sys
from panic.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
main()
"""
"""`panic` on a disk that takes no file of more than 64 KiB."""


def test_a_full_disk_is_told_with_the_file_and_leaves_nothing(panic: Invoke, store: Path) -> None:
    text = np.random.default_rng(0).bytes(100_000).hex()  # which cannot be packed to less than half
    Path("large.jsonl").write_text(json.dumps({"run": "r", "step": 0, "prompt": "p", "text": text}))
    assert panic("import", "large.jsonl", "--name", "large").exit_code == 0
    command = [sys.executable, "-c", FULL, "export", "--output", "tables"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "rows" not in done.stdout, "of files that are nowhere"
    assert re.search(r"tables/output.parquet cannot be written: .*File too large", done.stderr)
    assert not Path("tables").exists()
