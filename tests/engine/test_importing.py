"""Trajectories made elsewhere: what is read, what is refused with its place, what comes into the store."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import polars
import pytest
from PIL import Image

import panic
from panic.analysis.dynamics.motion import attractor
from panic.engine.importing import images, rows
from panic.engine.importing import write as writing_imports
from panic.engine.importing.trajectories import Trajectory
from panic.engine.importing.write import COMMIT_BYTES, COMMIT_ROWS, ImportOptions, read_import, write_import
from panic.errors import ConfigError, ConflictError, Interrupted, ModelError, UsageError
from panic.models import kinds, registry
from panic.store import Commit, NewInvocation, NewOutput, Store, check, contents, reading, writing
from panic.store.codec import image_digest
from panic.store.dump import dump
from panic.store.records import NewFailure
from tests.engine.conftest import make_config
from tests.processes import Held
from tests.reads import num_bytes_read

Records = list[dict[str, Any]]
NOISY = ["p", "a", "b", "a", "c", "d"]
"""A text that comes back, and then goes on elsewhere."""
CYCLE = ["p", "a", "b", "c", "b", "c", "b"]
"""Periodic from step 2 on: the input of step 2 is `b`, as is that of step 4."""


def chain_of(texts: Iterable[str], run: Any = "r", **more: Any) -> Records:
    return [{"run": run, "step": step, "text": text, **more} for step, text in enumerate(texts)]


def jsonl(folder: Path, records: Iterable[Any], name: str = "chains.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(path: Path, *, deterministic: bool = False, **columns: str) -> list[Trajectory]:
    options = ImportOptions(name="chains", path=path, columns=columns, deterministic=deterministic)
    return read_import(options).trajectories


def write(
    store: Path, path: Path, name: str = "chains", *, deterministic: bool = False, about: str | None = None
) -> int:
    found = read_import(ImportOptions(name=name, path=path, deterministic=deterministic, about=about))
    with Store(store, write=True, create=True) as opened:
        return write_import(opened, found)


def problems(path: Path, *, deterministic: bool = False, **columns: str) -> list[str]:
    """What an import is refused for, line by line."""
    with pytest.raises(ConfigError) as caught:
        read(path, deterministic=deterministic, **columns)
    return caught.value.message.split("\n")


def dumped(store: Path) -> list[Any]:
    with Store(store) as opened:
        assert check.check(opened) == []
        return list(dump(opened))


def test_all_kinds_of_files_say_the_same(tmp_path: Path) -> None:
    records = [*chain_of(NOISY, "one, two"), *chain_of(["p", 'with "quotes"\nand lines'], "b")]
    with (tmp_path / "chains.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["run", "step", "text"])
        writer.writeheader()
        writer.writerows(records)
    polars.DataFrame(records).write_parquet(tmp_path / "chains.parquet")
    jsonl(tmp_path, records)
    found = [read(tmp_path / f"chains.{suffix}") for suffix in ("jsonl", "csv", "parquet")]
    for one in found:
        assert [(t.name, t.run) for t in one] == [(t.name, t.run) for t in found[0]]
        assert [[g.digest for g in t.outputs] for t in one] == [
            [g.digest for g in t.outputs] for t in found[0]
        ]
    assert [given.row.text for given in found[1][1].outputs] == ['with "quotes"\nand lines']


def test_packed_files_say_the_same(tmp_path: Path) -> None:
    plain = jsonl(tmp_path, chain_of(NOISY))
    packed = tmp_path / "chains.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "chains.csv.gz").write_bytes(gzip.compress(b"run,step,text\r\nr,0,p\r\nr,1,a\r\n"))
    [one], [other] = read(plain), read(packed)
    assert (one.run, one.digests) == (other.run, other.digests)
    assert other.where == "chains.jsonl.gz:2"
    [short] = read(tmp_path / "chains.csv.gz")
    assert short.digests == one.digests[:32]
    packed.write_bytes(packed.read_bytes()[:-9])
    assert "it cannot be read" in problems(packed)[0]
    packed.write_bytes(b"no gzip")
    assert problems(packed)[0].startswith("chains.jsonl.gz:1: it cannot be read (Not a gzipped file")


def test_a_line_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_LINE", 1000)
    for name, start in (("bomb.jsonl.gz", b'{"run": "'), ("bomb.csv.gz", b"run,step,text\n")):
        (tmp_path / name).write_bytes(gzip.compress(start + b" " * 5000))
        assert "a line is longer than 1,000" in problems(tmp_path / name)[0]


def test_rows_of_runs_may_be_mixed_and_in_any_order(tmp_path: Path) -> None:
    records = [*chain_of(NOISY, "a"), *chain_of(CYCLE, "b")]
    plain = read(jsonl(tmp_path, records))
    mixed = read(jsonl(tmp_path, sorted(records, key=lambda row: (-row["step"], row["run"]))))
    assert {one.name: one.digests for one in mixed} == {one.name: one.digests for one in plain}
    assert [given.row.text for given in mixed[0].outputs] == CYCLE[1:]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """All rows, their digests and places were held as objects: 600 bytes and more of each."""
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for run in range(400):
            file.writelines(json.dumps(row) + "\n" for row in chain_of(map(str, range(500)), run))
    code = (
        "import sys, tracemalloc\nfrom pathlib import Path\n"
        "from panic.engine.importing.write import ImportOptions, read_import, write_import\n"
        "from panic.store import Store\ntracemalloc.start()\n"
        "found = read_import(ImportOptions(name='long', path=Path(sys.argv[1])))\n"
        "print(tracemalloc.get_traced_memory()[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=390
    )
    assert int(done.stdout) < 100 * 200_000  # bytes of 200,000 rows


def test_the_prompt_is_a_column_or_the_text_of_step_0(tmp_path: Path) -> None:
    [own] = read(jsonl(tmp_path, chain_of(["a", "b"], prompt="p")))
    [first] = read(jsonl(tmp_path, chain_of(["p", "a", "b"])))
    assert own.run == first.run
    assert (own.run.prompt, own.run.max_length) == ("p", 2)
    assert [given.digest for given in own.outputs] == [given.digest for given in first.outputs]


def test_columns_have_other_names_are_joined_or_left_out(tmp_path: Path) -> None:
    records = [{"chain": c, "k": k, "step": s, "text": f"{c}{k}{s}", "prompt": 3}
               for c in "ab" for k in (1, 2) for s in range(3)]  # fmt: skip
    found = read(jsonl(tmp_path, records), run="chain,k", prompt="", network="chain")
    assert [(one.name, one.run.network) for one in found] == [
        *[("a / 1", ("a",)), ("a / 2", ("a",)), ("b / 1", ("b",)), ("b / 2", ("b",))],
    ]
    with pytest.raises(UsageError, match="has no 'rnu'"):
        read(jsonl(tmp_path, records), rnu="chain")


def test_a_network_is_said_or_the_shortest_list_of_models_that_repeats(tmp_path: Path) -> None:
    def networks(records: Records) -> list[tuple[str, ...]]:
        return [one.run.network for one in read(jsonl(tmp_path, records))]

    models = ["m", "m", "n", "m", "m", "n", "m"]
    steps = chain_of("abcdefg", prompt="p")
    assert networks([row | {"model": model} for row, model in zip(steps, models, strict=True)]) == [
        ("m", "m", "n")
    ]
    assert networks([row | {"network": ["m", "n"]} for row in steps]) == [("m", "n")]
    assert networks([row | {"network": '["m", "n"]'} for row in steps]) == [("m", "n")]
    assert networks(steps) == [("imported-text",)]
    assert problems(jsonl(tmp_path, [row | {"network": list("mn")} for row in steps[:1]])) == [
        "chains.jsonl:1: n gives no output in any run: leave it out"
    ]


def test_everything_wrong_is_told_with_its_line_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = [
        *(json.dumps(row) for row in chain_of("pa", "twice") + chain_of("b", "twice")),
        "{no json",
        "[1, 2]",
        *(json.dumps(row) for row in (chain_of("pabcd", "gap")[:2] + chain_of("pabcd", "gap")[4:])),
        json.dumps({"run": "x", "step": -1, "text": "t"}),
        json.dumps({"run": "x", "text": "t"}),
        json.dumps({"run": "x", "step": 0}),
        json.dumps({"run": "x", "step": 0, "text": 5}),
        json.dumps({"run": "lonely", "step": 0, "text": "only a prompt"}),
        json.dumps({"run": "half", "step": 0, "text": "p"}),
        json.dumps({"run": "half", "step": 1, "text": "\ud800"}),
        *(
            json.dumps(row)
            for row in [*chain_of("ab", "two", prompt="p"), *chain_of("xxc", "two", prompt="q")[2:]]
        ),
        *(json.dumps(row) for row in chain_of("ab", "taken", prompt="p", model="synthetic/text-to-image")),
    ]
    path.write_text("\n".join(lines))
    told = problems(path)
    assert told == [
        "bad.jsonl:4: it is no JSON (Expecting property name enclosed in double quotes: line 1 column 2"
        " (char 1))",
        "bad.jsonl:5: it is no JSON object: [1, 2]",
        "bad.jsonl:9: step should be a whole number from 0 on: -1",
        "bad.jsonl:10: step is missing",
        "bad.jsonl:11: it has neither a text nor an image",
        "bad.jsonl:12: text should be a text: 5",
        "bad.jsonl:3: run twice has step 0 at bad.jsonl:1 already",
        "bad.jsonl:8: steps 2 to 3 are missing in run gap before its step 4",
        "bad.jsonl:13: run lonely has no outputs after its prompt",
        "bad.jsonl:15: text that is not valid Unicode",
        "bad.jsonl:18: run two has another prompt at bad.jsonl:16",
        "bad.jsonl:19: the model 'synthetic/text-to-image' is a name that panic knows as another's:"
        " give it a name of its own",
    ]  # fmt: skip


def test_empty_lines_say_nothing_and_are_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path, chain_of("pab"))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n \n\n") + b"no JSON\n")
    assert [line.partition(" (")[0] for line in problems(path)] == ["chains.jsonl:10: it is no JSON"]
    path.write_bytes(path.read_bytes().removesuffix(b"no JSON\n"))
    assert len(read(path)[0]) == 2


def test_a_step_in_the_name_of_an_image_has_at_most_nine_digits(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "fox").mkdir(parents=True)
    for name in ("0.png", "123456789.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "fox" / name)
    told = "fox/123456789.png: steps 1 to 123456788 are missing in run fox before its step 123456789"
    assert problems(tmp_path / "pictures") == [told]


def test_a_run_with_a_mistake_is_compared_with_no_other(tmp_path: Path) -> None:
    """What is wrong with it is told once, and not what follows of it."""
    records = [*chain_of("pab", "one"), *chain_of("pab", "two"), *chain_of("pa", "two")[1:]]
    assert problems(jsonl(tmp_path, records), deterministic=True) == [
        "chains.jsonl:7: run two has step 1 at chains.jsonl:5 already"
    ]


def test_a_byte_order_mark_stands_at_the_beginning_of_a_file_alone(tmp_path: Path) -> None:
    mark, path = b"\xef\xbb\xbf", jsonl(tmp_path, chain_of("pab"))
    lines = path.read_bytes()
    path.write_bytes(mark + lines)
    [found] = read(path)
    assert len(found) == 2
    path.write_bytes(lines.replace(b"\n", b"\n" + mark, 1))
    assert problems(path)[0].startswith("chains.jsonl:2: it is no JSON (")


def test_a_name_that_is_there_twice_is_refused_where_it_is_read(tmp_path: Path) -> None:
    """Of two texts of a line, or two columns of one name, the last one was taken without a word."""
    (tmp_path / "a.jsonl").write_text('{"run": "a", "step": 0, "text": "one", "text": "other"}\n')
    assert problems(tmp_path / "a.jsonl") == ["a.jsonl:1: 'text' is there twice"]
    (tmp_path / "a.csv").write_text("run,step,text,text\na,0,one,other\n")
    assert problems(tmp_path / "a.csv") == ["a.csv:2: 'text' is there twice"]
    (tmp_path / "b.csv").write_text("note,run,step,text,note\nx,a,0,one,y\nx,a,1,two,y\n")
    [found] = read(tmp_path / "b.csv")
    assert [given.row.text for given in found.outputs] == ["two"]


def test_a_network_that_is_nested_too_deep_is_a_problem_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"run,step,text,network\na,0,one,{100_000 * '['}\n")
    [told] = problems(tmp_path / "a.csv")
    assert told.startswith("a.csv:2: maximum recursion depth exceeded")


def test_mixed_modalities_and_missing_models_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    image = {"run": "m", "step": 2, "image": "i.png"}
    steps = [*chain_of("pa", "m"), image, {"run": "m", "step": 3, "image": "i.png"}]
    assert "mixes texts and images in no order" in problems(jsonl(tmp_path, steps))[0]
    steps = [*chain_of("pa", "m", model="x"), image | {"model": "x"}]
    assert problems(jsonl(tmp_path, steps)) == [
        "chains.jsonl:3: x gives the modality image here, and text at chains.jsonl:2"
    ]
    steps = [*chain_of("pa", "m", model="x"), image]
    assert "model is missing" in problems(jsonl(tmp_path, steps))[0]
    assert "begins with an image: it needs a prompt" in problems(jsonl(tmp_path, [image | {"step": 0}]))[0]


def test_images_that_cannot_be_stored_or_lie_outside_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "import"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "outside.png")
    Image.new("RGB", (20_000, 1)).save(folder / "wide.png")
    Image.new("RGBA", (4, 4), (1, 2, 3, 100)).save(folder / "glass.png")
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(folder / "opaque.png")
    (folder / "damaged.png").write_bytes((tmp_path / "outside.png").read_bytes()[:40])
    (folder / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "away").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    names = ["wide.png", "glass.png", "damaged.png", "program.png", "link.png", "away/outside.png",
             "pipe.png", "../outside.png", str(tmp_path / "outside.png"), "sub", "none.png"]  # fmt: skip
    rows = [{"run": n, "step": 0, "prompt": "p", "image": name} for n, name in enumerate(names)]
    told = problems(jsonl(folder, rows))
    assert [line.split(": ")[0] for line in told] == [f"chains.jsonl:{n + 1}" for n in range(len(names))]
    for line, reason in zip(
        told,
        [
            *["a side may have at most", "transparent in places", "cannot be decoded", "cannot be decoded"],
            *["is a link", "cannot be opened, or is a link", "is no file", "leads out", "leads out"],
            *["is no file", "No such file"],
        ],
        strict=True,
    ):
        assert reason in line
    [one] = read(jsonl(folder, [{"run": 1, "step": 0, "prompt": "p", "image": "opaque.png"}]))
    assert one.run.network == ("imported-image",)


def test_a_text_that_comes_back_makes_no_run_stuck_unless_the_process_is_deterministic(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    path = jsonl(tmp_path, [*chain_of(NOISY, "n", seed=3), *chain_of(CYCLE, "c", seed=4)])
    write(store, path)
    with Store(store) as opened:
        assert [(run.state, run.seed, run.num_steps) for run in reading.runs(opened)] == [
            *[("done", -1, 5), ("done", -1, 6)],
        ]
        assert check.check(opened) == []
    assert problems(path, deterministic=True) == [
        f"chains.jsonl:{line}: from the same input another output came at chains.jsonl:{known}:"
        " the process is not deterministic"
        for line, known in ((5, 3),)
    ]  # fmt: skip


def test_a_deterministic_run_ends_where_its_state_comes_back(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store, jsonl(tmp_path, [*chain_of(CYCLE, "c", seed=5), *chain_of("qxyz", "d")]), deterministic=True)
    with Store(store) as opened:
        cycle, other = reading.runs(opened)
        assert (cycle.state, cycle.seed, cycle.entry_step, cycle.period, cycle.num_steps) == (
            "stuck",
            5,
            2,
            2,
            4,
        )
        assert (other.state, other.seed) == ("done", 0)
        assert check.check(opened) == []


@pytest.mark.parametrize(("deterministic", "seeds"), [(True, [7, 7, 7]), (False, [0, 7, 0])])
def test_a_step_has_the_seed_of_its_run_where_all_have_the_same(
    tmp_path: Path, deterministic: bool, seeds: list[int]
) -> None:
    """Of a deterministic run one row says the seed; other steps were stored with 0."""
    records = chain_of("pabc")
    records[2]["seed"] = 7
    write(tmp_path / "store", jsonl(tmp_path, records), deterministic=deterministic)
    with Store(tmp_path / "store") as opened:
        [run] = reading.runs(opened)
        assert run.seed == (7 if deterministic else -1)
        assert [step.seed for step in contents.invocations(opened, run.id)] == seeds


def test_copies_are_refused_where_they_cannot_be_told_apart(tmp_path: Path) -> None:
    same = [*chain_of("pab", "one"), *chain_of("pab", "two")]
    assert [one.run.repeat for one in read(jsonl(tmp_path, same))] == [0, 1]
    assert (
        "run two is of the same network, prompt and seed as run one"
        in (problems(jsonl(tmp_path, same), deterministic=True)[0])
    )
    said = [*chain_of("pab", "one", repeat=4), *chain_of("pcd", "two", repeat=4)]
    assert "same network, prompt and repeat" in problems(jsonl(tmp_path, said))[0]


def test_importing_again_adds_what_is_new_and_nothing_twice(tmp_path: Path) -> None:
    store, whole = tmp_path / "store", tmp_path / "whole"
    records = [*chain_of(map(str, range(200)), "a"), *chain_of("xyz", "b")]
    write(store, jsonl(tmp_path, records[:100]))
    write(store, jsonl(tmp_path, records))
    write(store, jsonl(tmp_path, records))
    write(whole, jsonl(tmp_path, records))
    assert dumped(store) == dumped(whole)


def test_an_import_that_stops_at_any_commit_goes_on(tmp_path: Path) -> None:
    store, whole = tmp_path / "store", tmp_path / "whole"
    path = jsonl(tmp_path, [*chain_of(map(str, range(150)), "a"), *chain_of("xyz", "b")])
    found = read_import(ImportOptions(name="chains", path=path))

    with Store(store, write=True, create=True) as opened:  # killed after its first transaction
        writing.start_experiment(opened, "chains", found.config.model_dump(mode="json"))
    for limit in (0, 64, 128):

        def stop(what: str, done: int, total: int, limit: int = limit) -> None:
            if done >= limit:
                raise Interrupted("stopped")

        with Store(store, write=True, create=True) as opened, pytest.raises(Interrupted):
            write_import(opened, found, stop)
        with Store(store) as opened:
            assert reading.counts(opened).invocations == limit
    write(store, path)
    write(whole, path)
    assert dumped(store) == dumped(whole)


@pytest.mark.parametrize(("num_runs", "length"), [(50, 1), (3, COMMIT_BYTES // 2)])
def test_texts_of_many_runs_are_stored_together(tmp_path: Path, num_runs: int, length: int) -> None:
    """Each run had a transaction of its own, which took as long as some hundred rows; large texts have."""
    records = [row for run in range(num_runs) for row in chain_of(["p", f"{run}" * length], run)]
    path = jsonl(tmp_path, records)
    with Store(tmp_path / "store", write=True, create=True) as opened:
        write_import(opened, read_import(ImportOptions(name="none", path=jsonl(tmp_path, chain_of("pa")))))
        before = opened.revision
        write_import(opened, read_import(ImportOptions(name="chains", path=path)))
        num_transactions = opened.revision - before
    assert num_runs + 1 <= COMMIT_ROWS
    assert 0 < num_transactions < 15


def commit_of(num_steps: int, length: int | None = 1) -> Commit:
    """A commit of so many steps that put out a text of this length, or an image."""
    made = NewOutput(digest=b"", modality="image", width=1, height=1)
    if length is not None:
        made = NewOutput(digest=b"", modality="text", text="a" * length)
    step = NewInvocation(1, 0, b"", b"", 0, 1)
    return Commit(outputs=[made] * num_steps, invocations=[step] * num_steps)


@pytest.mark.parametrize(
    ("commits", "joined"),
    [
        ([(COMMIT_ROWS - 1, 1), (1, 1)], [COMMIT_ROWS]),  # a commit counts as a row itself
        ([(COMMIT_ROWS - 2, 1), (1, 1), (3, 1)], [COMMIT_ROWS + 2]),
        ([(COMMIT_ROWS, 1), (1, 1)], [COMMIT_ROWS, 1]),
        ([(1, COMMIT_BYTES // 2)] * 3, [2, 1]),
        ([(1, COMMIT_BYTES // 2), (1, COMMIT_BYTES // 2 - 1), (1, 1), (1, 1)], [3, 1]),
        ([(1, 1), (1, None), (1, 1), (1, 1)], [2, 2]),
        ([], []),
    ],
)
def test_commits_are_joined_up_to_their_rows_and_bytes(
    commits: list[tuple[int, int | None]], joined: list[int]
) -> None:
    found = writing_imports._joined(commit_of(*one) for one in commits)
    assert [len(one.invocations) for one in found] == joined


def test_what_was_computed_with_variants_of_a_config_is_no_import(tmp_path: Path) -> None:
    """Its models have names of its config, as those of imports have."""
    panic.run(make_config(max_length=2), tmp_path / "store")
    with pytest.raises(ConflictError, match="test was not imported: its outputs are computed"):
        write(tmp_path / "store", jsonl(tmp_path, chain_of("pab")), "test")


def test_rows_of_parquet_are_counted_from_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PARQUET_ROWS", 2)
    records = chain_of("pabcd")
    for number in (1, 2, 4):
        records[number]["step"] = -1
    polars.DataFrame(records).write_parquet(tmp_path / "chains.parquet")
    told = [line.partition(": ")[0] for line in problems(tmp_path / "chains.parquet")]
    assert told[:3] == ["chains.parquet:2", "chains.parquet:3", "chains.parquet:5"]


def test_a_file_of_parquet_is_read_once_whatever_its_row_groups_are(tmp_path: Path) -> None:
    """As slices it was read once for each of them."""
    records = [row for run in range(5) for row in chain_of(map(str, range(2**15)), run)]
    for number, name in ((None, "one"), (1000, "many")):
        path = tmp_path / f"{name}.parquet"
        polars.DataFrame(records).write_parquet(path, row_group_size=number, compression="uncompressed")
        before = num_bytes_read()
        assert sum(1 for _ in rows.read_rows(path, {}, [])) == 5 * 2**15
        assert num_bytes_read() - before < 1.5 * path.stat().st_size


def test_other_outputs_of_a_known_run_are_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store, jsonl(tmp_path, chain_of("pab")))
    before = dumped(store)
    with pytest.raises(
        ConflictError, match=r"chains\.jsonl:3: the store has another output at this step of run r"
    ):
        write(store, jsonl(tmp_path, chain_of("pax")))
    with pytest.raises(ConflictError, match="deterministic: true"):
        write(store, jsonl(tmp_path, chain_of("pab")), deterministic=True)
    assert dumped(store) == before


def test_images_come_back_as_they_were_and_again_when_they_were_lost(tmp_path: Path) -> None:
    store = tmp_path / "store"
    rows: Records = []
    for step, colour in enumerate(["red", "green", "blue"]):
        Image.new("RGB", (5, 4), colour).save(tmp_path / f"{colour}.png")
        rows.append({"run": "r", "step": 2 * step, "image": f"{colour}.png", "prompt": "p"})
        rows.append({"run": "r", "step": 2 * step + 1, "text": colour, "prompt": "p"})
    path = jsonl(tmp_path, rows)
    write(store, path)
    before = dumped(store)
    (store / "images.sqlite").unlink()
    write(store, path)
    assert dumped(store) == before
    with Store(store) as opened:
        [run] = reading.runs(opened)
        assert run.network == ("imported-image", "imported-text")
        image = contents.image(opened, contents.invocations(opened, run.id)[2].output)
        assert image.getpixel((0, 0)) == (0, 128, 0)


def test_a_folder_of_images_per_run_is_read(tmp_path: Path) -> None:
    for run, first in (("fox", 0), ("owl", 1)):
        folder = tmp_path / "pictures" / run
        folder.mkdir(parents=True)
        for step in (2, 0, 1):
            Image.new("RGB", (4, 4), (step, first, 0)).save(folder / f"frame 7 step_{step + first:02}.png")
    (tmp_path / "pictures" / "owl" / "prompt.txt").write_text("an owl at night\n")
    found = read(tmp_path / "pictures")
    assert [(one.name, one.run.prompt, one.run.network) for one in found] == [
        *[("fox", "fox", ("imported-image",)), ("owl", "an owl at night", ("imported-image",))],
    ]
    assert found[1].outputs[0].row.where == "owl/frame 7 step_01.png"
    (tmp_path / "pictures" / "fox" / "frame 7 step_01.png").unlink()
    (tmp_path / "pictures" / "owl" / "notes.doc").write_text("")
    (tmp_path / "pictures" / "link").symlink_to(tmp_path)
    assert problems(tmp_path / "pictures") == [
        "link: it is no folder of images",
        "owl/notes.doc: it is no image with its step in its name, such as step_0.png",
        "fox/frame 7 step_02.png: step 1 is missing in run fox before its step 2",
    ]


def test_what_the_import_says_is_the_fingerprint_and_the_model_cannot_be_built(tmp_path: Path) -> None:
    store, path = tmp_path / "store", jsonl(tmp_path, chain_of("pab", model="gpt"))
    write(store, path)
    write(store, path, "other")
    write(store, path, "warm", about="temperature 0.8")
    with Store(store) as opened:
        cold, warm = reading.models(opened)
        assert (cold.name, warm.name) == ("gpt", "gpt")
        assert warm.spec["parameters"]["about"] == "temperature 0.8"
    spec = registry.resolve("gpt", {"gpt": {"base": "imported/text", "called": "gpt"}})
    assert registry.fingerprint(spec) == cold.fingerprint
    assert kinds.kind_of(spec).name == "imported"
    with pytest.raises(ModelError, match="gpt cannot be called: its outputs were given"):
        registry.build(spec)
    with pytest.raises(UsageError, match="there is no model imported/video"):
        registry.resolve("imported/video")


def test_the_values_of_lengths_that_are_known_come_out(tmp_path: Path) -> None:
    """Lengths that halve their distance to 40 at each step: strength 1 - 2^-k over k steps, position 40."""
    records = [
        record
        for run, start in enumerate([8, 24, 72, 104])
        for record in chain_of(["x" * (40 + (start - 40) // 2**step) for step in range(4)], run)
    ]
    write(tmp_path / "store", jsonl(tmp_path, records))
    with Store(tmp_path / "store") as opened:
        runs = reading.runs(opened)
        ends = [[len(step.text or "") for step in contents.invocations(opened, run.id)] for run in runs]
    found = attractor([one[0] for one in ends], [one[-1] for one in ends])
    assert (found.strength, found.position) == pytest.approx((0.75, 40))
    found = attractor([len(run.prompt) for run in runs], [one[-1] for one in ends])
    assert (found.strength, found.position) == pytest.approx((0.875, 40))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"run": True}, "run should be a text or a whole number: True"),
        ({"run": 1.5}, "run should be a text or a whole number: 1.5"),
        ({"image": "a.png"}, "it has both a text and an image"),
        ({"prompt": 3}, "prompt should be a text: 3"),
        ({"step": True}, "step should be a whole number from 0 on: True"),
        ({"step": 0.5}, "step should be a whole number from 0 on: 0.5"),
        ({"step": "1" * 20}, f"step should be a whole number from 0 on: {'1' * 20!r}"),
        ({"step": 2**31}, "step should be a whole number from 0 on: 2147483648"),
        ({"seed": 2**63}, "seed should be a whole number from 0 on: 9223372036854775808"),
        ({"repeat": 2**31 - 1}, "repeat should be a whole number from 0 on: 2147483647"),
        ({"network": []}, "network should be a name or a list of names: []"),
        ({"network": ["m", 1]}, "network should be a name or a list of names: ['m', 1]"),
        ({"network": 7}, "network should be a name or a list of names: 7"),
    ],
)
def test_what_a_row_may_not_say(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    assert problems(jsonl(tmp_path, [{"run": "r", "step": 0, "text": "a"} | row])) == [
        f"chains.jsonl:1: {told}"
    ]


def test_what_a_row_may_say(tmp_path: Path) -> None:
    said = {"run": 7, "text": "a", "prompt": "p", "network": "m"}
    rows = [{**said, "step": 1.0}, {**said, "step": "0", "seed": 2**63 - 1, "repeat": 2**31 - 2}]
    [found] = read(jsonl(tmp_path, rows), deterministic=True)
    assert (found.name, found.run.network, found.run.seed) == ("7", ("m",), 2**63 - 1)
    assert problems(jsonl(tmp_path, rows)) == [
        "1 networks x 1 prompts x 2147483647 seeds and repeats are 2147483647 runs, and 10000000 is the most"
    ]
    [far] = problems(jsonl(tmp_path, [{**said, "step": 2**31 - 1}]))
    assert far == "chains.jsonl:1: steps 0 to 2147483646 are missing in run 7 before its step 2147483647"


def test_files_without_rows_and_lines_with_other_cells(tmp_path: Path) -> None:
    assert problems(jsonl(tmp_path, [])) == ["chains.jsonl: it has no rows"]
    path = tmp_path / "a.csv"
    path.write_text("run,step,text\nr,0,p\nr,1\nr,2,b,c\nr,3,d\n")
    assert problems(path)[:2] == [
        f"a.csv:{line}: it has another number of cells than the first line" for line in (3, 4)
    ]
    path.write_text('run,step,text\n\nr,0,p\n\n\nr,x,"a\n\nb"\nr,y,c\n')
    assert [line.split(": ")[0] for line in problems(path)[:2]] == ["a.csv:6", "a.csv:9"]
    path.write_text('run,step,text\nr,0,p\nr,1,"open\n')
    assert problems(path)[0].startswith("a.csv:3: it cannot be read (")
    upper = path.rename(tmp_path / "A.CSV")
    upper.write_text("run,step,text\nr,0,p\nr,1,a\n")
    assert len(read(upper)) == 1


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (" ", "is empty"),
        ("a\0", "has the character NUL"),
        (f"image:{'0' * 64}", "stands for an image of a store"),
        ("\ud800", "is not valid Unicode"),
        (chr(0xDFFF), "is not valid Unicode"),
    ],
)
def test_a_text_that_is_no_prompt_is_no_model_either(tmp_path: Path, prompt: str, told: str) -> None:
    assert problems(jsonl(tmp_path, chain_of("a", prompt=prompt))) == [
        f"chains.jsonl:1: the prompt of run r {told}"
    ]
    assert f"chains.jsonl:1: the model {prompt!r} {told}" in problems(
        jsonl(tmp_path, chain_of("a", prompt="p", model=prompt))
    )
    assert len(read(jsonl(tmp_path, chain_of("a", prompt="\ue000")))) == 1


def test_what_stands_in_a_folder_of_images_beside_them(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    assert problems(pictures) == ["pictures: it has no folders of images"]
    for run, first in (("fox", 0), ("hare", 2)):
        (pictures / run).mkdir()
        for step in range(2):
            Image.new("RGB", (4, 4), (step, first, 0)).save(pictures / run / f"{step + first}.png")
    (pictures / "fox" / ".DS_Store").write_text("")
    (pictures / ".hidden").mkdir()
    assert problems(pictures) == ["hare/2.png: step 0 is missing in run hare before its step 1"], (
        "they count from 0 or 1"
    )
    for step in (2, 3):
        (pictures / "hare" / f"{step}.png").unlink()
    (pictures / "hare" / "prompt.txt").write_bytes(b"\xff")
    (pictures / "hare" / "0.png").symlink_to(pictures / "fox" / "0.png")
    (pictures / "hare" / "1234567890.png").write_bytes((pictures / "fox" / "0.png").read_bytes())
    (pictures / "notes").write_text("")
    told = problems(pictures)
    assert told[0] == "hare/0.png: it is no file"
    assert told[1].startswith("hare/1234567890.png: it is no image with its step in its name")
    assert told[2].startswith("hare/prompt.txt: it is no UTF-8")
    assert told[3:] == ["hare: it has no images", "notes: it is no folder of images"]


def test_images_inside_folders_are_read_and_what_says_too_much_or_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sub" / "inner").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "sub" / "inner" / "a.png")
    [found] = read(jsonl(tmp_path, [{"run": 1, "step": 0, "prompt": "p", "image": "sub/inner/a.png"}]))
    assert found.modalities == ("image",)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    glass = Image.new("RGBA", (4, 4), (1, 2, 3, 255))
    glass.putpixel((2, 2), (1, 2, 3, 254))
    glass.save(tmp_path / "glass.png")
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ]
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    names = {
        "moving.png": "it has several frames",
        "glass.png": "it is transparent in places: put it on a background first",
        "bomb.png": "image of more pixels than may be stored",
        ".": "'.' leads out of the folder of the file",
        "sub/../sub/inner/a.png": "'sub/../sub/inner/a.png' leads out of the folder of the file",
        "a\0b": "'a\\x00b' leads out of the folder of the file",
    }
    rows = [{"run": n, "step": 0, "prompt": "p", "image": name} for n, name in enumerate(names)]
    assert problems(jsonl(tmp_path, rows)) == [
        f"chains.jsonl:{line}: image {name!r}: {told}" for line, (name, told) in enumerate(names.items(), 1)
    ]


def test_an_image_with_damaged_exif_data_is_read_as_it_lies(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), "red").save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF at all")
    [found] = read(jsonl(tmp_path, [{"run": 1, "step": 0, "prompt": "p", "image": "a.png"}]))
    assert found.digest(0) == image_digest(Image.new("RGB", (6, 4), "red"))


def test_a_process_that_is_not_deterministic_is_seen_between_runs(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [*chain_of("pab", "one"), *chain_of("qacx", "two"), *chain_of("rcy", "three")])
    assert problems(path, deterministic=True) == [
        f"chains.jsonl:{line}: from the same input another output came at chains.jsonl:{known}:"
        " the process is not deterministic"
        for line, known in ((6, 3), (10, 7))
    ]


@pytest.mark.parametrize(("number", "more"), [(20, ""), (21, "and 1 more")])
def test_of_many_problems_the_first_twenty_are_told(tmp_path: Path, number: int, more: str) -> None:
    told = problems(jsonl(tmp_path, [{"run": "r", "step": -1, "text": "a"}] * number))
    assert (len(told), told[20:]) == (20 + bool(more), [more] if more else [])
    assert told[19].startswith("chains.jsonl:20: step should")


def test_how_far_an_import_is_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing_imports, "SHOWN_ROWS", 70)
    told: list[tuple[str, int, int]] = []

    def show(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    path = jsonl(tmp_path, [*chain_of(map(str, range(150)), "a"), *chain_of("xyz", "b")])
    found = read_import(ImportOptions(name="chains", path=path), show)
    assert told == [
        ("rows read", 70, 0),
        ("rows read", 140, 0),
        ("steps checked", 0, 153),
        ("steps checked", 150, 153),
    ]
    told.clear()
    with Store(tmp_path / "store", write=True, create=True) as store:
        write_import(store, found, show)
    assert told == [("steps written", done, 151) for done in (0, 64, 128, 149)]
    assert (found.config.max_length, found.config.repeats, found.config.seeds) == (149, 1, [-1])
    assert found.config.prompts == ["0", "x"]


def test_the_config_of_an_import_says_what_its_runs_are(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [*chain_of("pab", "a", seed=5, repeat=3), *chain_of("qa", "b", seed=4, repeat=1)])
    noisy = read_import(ImportOptions(name="chains", path=path)).config
    assert (noisy.seeds, noisy.repeats, noisy.max_length) == ([-1], 4, 2)
    fixed = read_import(ImportOptions(name="chains", path=path, deterministic=True)).config
    assert (fixed.seeds, fixed.repeats, fixed.max_length) == ([4, 5], 1, 2)
    with pytest.raises(ConfigError, match="name may have letters") as told:
        read_import(ImportOptions(name="a b", path=path))
    assert told.value.hint == "Nothing was imported."


def test_an_image_that_changes_while_it_is_imported_is_not_stored(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    path = jsonl(tmp_path, [{"run": 1, "step": 0, "prompt": "p", "image": "a.png"}])
    found = read_import(ImportOptions(name="chains", path=path))
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "a.png")
    with (
        Store(tmp_path / "store", write=True, create=True) as store,
        pytest.raises(ConfigError, match=r"chains\.jsonl:1: a\.png was changed while it was imported"),
    ):
        write_import(store, found)


def test_what_is_not_understood_is_shown_up_to_sixty_characters(tmp_path: Path) -> None:
    for length, shown in ((58, repr("x" * 58)), (59, f"'{'x' * 56}...")):
        assert problems(jsonl(tmp_path, [{"run": "r", "step": "x" * length, "text": "a"}])) == [
            f"chains.jsonl:1: step should be a whole number from 0 on: {shown}"
        ]


def test_a_line_may_be_so_long_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path, chain_of("pa"))
    longest = max(map(len, path.read_bytes().splitlines(keepends=True)))
    monkeypatch.setattr(rows, "MAX_LINE", longest + 1)
    assert len(read(path)) == 1
    monkeypatch.setattr(rows, "MAX_LINE", longest)
    assert problems(path)[0] == f"chains.jsonl:1: it cannot be read (a line is longer than {longest:,})"


def test_a_field_of_several_columns_says_nothing_where_one_of_them_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,step,text\nx,1,0,p\nx,1,1,q\nx,,2,r\n,1,2,r\n")
    assert problems(path, run="a,b") == [f"a.csv:{line}: run is missing" for line in (4, 5)]
    path.write_text("a,b,step,text\nx,1,0,p\nx,1,1,q\n")
    assert [one.name for one in read(path, run="a,,b,")] == ["x / 1"]


def test_json_that_is_nested_too_deep_is_a_problem_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text('{"run": "r", "step": 0, "text": "p"}\n' + 100_000 * "[" + "\n")
    assert problems(path)[0].startswith("deep.jsonl:2: it is no JSON (maximum recursion depth exceeded")


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_csv_without_commas_is_told_what_separates_its_cells(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"run{mark}step{mark}text\nr{mark}0{mark}p\n")
    assert problems(path) == [f"a.csv:1: its cells are separated by {mark!r}: commas are needed"]
    path.write_text(f"run,step,a{mark}b\nr,0,p\n")
    assert problems(path) == ["a.csv:2: it has neither a text nor an image"]


def test_damaged_files_are_told_by_their_names(tmp_path: Path) -> None:
    for name, data in (("a.parquet", b"PAR1 nonsense"), ("b.csv", b"run,step,text\nr,0,\xff\n")):
        (tmp_path / name).write_bytes(data)
    [told] = problems(tmp_path / "a.parquet")
    assert told.startswith("a.parquet: it cannot be read (")
    assert problems(tmp_path / "b.csv")[0].startswith(
        "b.csv:1: it cannot be read ('utf-8' codec can't decode"
    )
    packed = tmp_path / "c.jsonl.gz"
    data = bytearray(gzip.compress(b'{"run": "r", "step": 0, "text": "p"}\n' * 999))
    data[30] ^= 255
    packed.write_bytes(data)
    assert ": it cannot be read (" in problems(packed)[-1]


def test_a_file_with_marks_of_patterns_in_its_name_is_that_file(tmp_path: Path) -> None:
    for name in ("a[1]*.parquet", "a1x.parquet"):
        polars.DataFrame(chain_of(["p", name])).write_parquet(tmp_path / name)
    [found] = read(tmp_path / "a[1]*.parquet")
    assert [given.row.text for given in found.outputs] == ["a[1]*.parquet"]


def test_what_is_no_file_of_rows_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = jsonl(tmp_path, chain_of("pa"))
    (tmp_path / "chains.txt").write_text("")
    with pytest.raises(UsageError, match=r"is none of \.jsonl, \.jsonl\.gz, \.ndjson"):
        read(tmp_path / "chains.txt")
    with pytest.raises(UsageError, match="There is no file or folder") as told:
        read(tmp_path / "chain.jsonl")
    assert told.value.hint == f"Did you mean {path}?"
    with pytest.raises(UsageError, match="There is no file or folder") as told:
        read(tmp_path / "zzzzzzzzzzzz")
    assert told.value.hint == ""
    for field, hint in (
        ("promt", "Did you mean prompt?"),
        ("zzzz", "It has: run, step, text, image, network,"),
    ):
        with pytest.raises(UsageError, match=f"A row has no '{field}'") as told:
            read(path, **{field: "x"})
        assert told.value.hint.startswith(hint)


def test_columns_that_are_not_read_are_remarked_upon_once(tmp_path: Path) -> None:
    remarks: list[str] = []
    records = [row | {"z": 1, "note": "x", "b": 2, "y": 3} for row in chain_of("pab", prompt=None)]
    options = ImportOptions(name="chains", path=jsonl(tmp_path, records), columns={"model": "note"})
    read_import(options, remark=remarks.append)
    assert remarks == [
        "chains.jsonl: not read are the columns b, y, z (--column FIELD=COLUMN says what is in one)"
    ]
    remarks.clear()
    read_import(ImportOptions(name="chains", path=jsonl(tmp_path, chain_of("pa"))), remark=remarks.append)
    assert remarks == []


def test_of_a_deterministic_process_each_model_and_seed_has_outputs_of_its_own(tmp_path: Path) -> None:
    """From a one model makes b, the other c; and so does one model of another seed."""
    turns = [row | {"model": "mn"[row["step"] % 2]} for row in chain_of("bbac", "one", prompt="a", seed=1)]
    assert [one.run.network for one in read(jsonl(tmp_path, turns), deterministic=True)] == [("m", "n")]
    seeds = [*chain_of("pab", "one", seed=1), *chain_of("pac", "two", seed=2)]
    assert [one.run.seed for one in read(jsonl(tmp_path, seeds), deterministic=True)] == [1, 2]
    same = [*chain_of("pab", "one", seed=1), *chain_of("qac", "two", seed=1)]
    assert len(problems(jsonl(tmp_path, same), deterministic=True)) == 1


@pytest.mark.parametrize("name", ["imported/text", "synthetic/x", "PocketText", "local:x", "python:a.py:A"])
def test_a_model_has_no_name_that_means_another(tmp_path: Path, name: str) -> None:
    records = chain_of("ab", prompt="p", model=name)
    assert problems(jsonl(tmp_path, records)) == [
        f"chains.jsonl:1: the model {name!r} is a name that panic knows as another's: give it a name of its"
        " own"
    ]


def test_repeats_count_by_network_and_prompt(tmp_path: Path) -> None:
    records = [
        *chain_of("ab", 1, prompt="p", model="m"), *chain_of("ab", 2, prompt="p", model="m"),
        *chain_of("ab", 3, prompt="q", model="m"), *chain_of("ab", 4, prompt="p", model="n"),
        *chain_of("ab", 5, prompt="p", model="m"),
    ]  # fmt: skip
    assert [one.run.repeat for one in read(jsonl(tmp_path, records))] == [0, 1, 0, 0, 2]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are told by /proc")
def test_no_image_leaves_a_file_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a" / "b" / "c.png")
    os.mkfifo(tmp_path / "pipe.png")
    before = Held()
    names = ("a/b/c.png", "a/b/none.png", "a/none/c.png", "a/b", "pipe.png", "a", "../x")
    found = []
    for name in names:
        with contextlib.suppress(ValueError):
            found.append(images.read_image(tmp_path, name).size)
        assert before.new_files() == set(), name
    assert found == [(4, 4)]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are told by /proc")
def test_the_rows_of_a_refused_import_lie_in_no_open_file(tmp_path: Path) -> None:
    """Also where it ends while they are read or checked, and though the error holds its frames."""

    def spools() -> list[str]:
        return [target for _, target in before.new_files() if target.endswith(" (deleted)")]

    def stop(at: str, told: str, done: int, total: int) -> None:
        if told == at:
            raise Interrupted(at)

    path = jsonl(tmp_path, chain_of("ab" * 5000, prompt="p"))
    empty = ImportOptions(name="chains", path=jsonl(tmp_path, [], "empty.jsonl"))
    whole = ImportOptions(name="chains", path=path)
    before = Held()
    for options, what in ((empty, ""), (whole, "rows read"), (whole, "steps checked")):
        with pytest.raises(Interrupted if what else ConfigError) as caught:
            read_import(options, partial(stop, what))
        assert caught.tb is not None
        assert spools() == [], what
    found = read_import(whole)
    assert len(spools()) == 1
    assert [len(one.outputs) for one in found.trajectories] == [10_000], "what is not refused can be read"


def test_advice_is_given_where_folders_are_separated_otherwise(tmp_path: Path) -> None:
    for name, advice in (("a\\b.png", "; folders are separated by /"), ("b.png", "")):
        told = problems(jsonl(tmp_path, [{"run": 1, "step": 0, "prompt": "p", "image": name}]))
        assert told[0].endswith(f"(No such file or directory){advice}")


def header(width: int, height: int) -> bytes:
    """A PNG of this size that has no pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")
    ]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_a_large_image_is_refused_without_a_warning_of_pillows(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "a.png").write_bytes(header(10_000, 10_000))
    assert problems(jsonl(tmp_path, [{"run": 1, "step": 0, "prompt": "p", "image": "a.png"}])) == [
        "chains.jsonl:1: image 'a.png': image of 10,000 x 10,000 pixels: it may have at most 89,000,000"
    ]
    assert [str(one.message) for one in recwarn if "ecompression" in str(one.message)] == []


def test_an_image_is_read_without_what_stands_beside_its_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.linear_gradient("L").resize((6, 4)).convert("RGB")
    lying.save(tmp_path / "a.png", exif=exif)
    found = images.read_image(tmp_path, "a.png")
    assert (found.size, found.info, found.mode) == ((4, 6), {}, "RGB")
    assert found.tobytes() == lying.transpose(Image.Transpose.ROTATE_270).tobytes()
    Image.new("LA", (2, 2), (7, 255)).save(tmp_path / "b.png")
    assert images.read_image(tmp_path, "b.png").getpixel((1, 1)) == (7, 7, 7)
    Image.new("P", (2, 2)).save(tmp_path / "c.png")
    assert images.read_image(tmp_path, "c.png").mode == "P"


def test_images_end_in_capitals_or_not(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "fox").mkdir(parents=True)
    for number, name in enumerate(("0.PNG", "1.jpeg", "2.Webp", "3.jpg")):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "pictures" / "fox" / name)
    (tmp_path / "pictures" / "fox" / "prompt.txt").write_text("a fox\n\n")
    [found] = read(tmp_path / "pictures")
    assert (len(found), found.run.prompt) == (4, "a fox\n")


def test_what_was_said_of_an_import_is_kept_with_its_session(tmp_path: Path) -> None:
    path = jsonl(tmp_path, chain_of("pab"))
    write(tmp_path / "store", path, about="temperature 0.8")
    with Store(tmp_path / "store") as store:
        [session] = reading.sessions(store)
        assert session.provenance["import"] == {
            "path": str(path), "columns": {}, "about": "temperature 0.8", "deterministic": False
        }  # fmt: skip
        assert session.end_state == "done"
        batches = store.db.rows("SELECT device, size, padded_size, duration_s, epoch FROM batch")
        assert batches == [("given", 2, 2, 0.0, 0)]


def test_of_other_outputs_in_many_runs_twenty_are_told(tmp_path: Path) -> None:
    many = [row for run in range(23) for row in chain_of(f"p{'ab'[run % 2]}", run, prompt=str(run))]
    write(tmp_path / "store", jsonl(tmp_path, many))
    other = [row | {"text": "x"} for row in many]
    with pytest.raises(ConflictError) as refused:
        write(tmp_path / "store", jsonl(tmp_path, other))
    lines = refused.value.message.split("\n")
    assert (len(lines), lines[0]) == (
        20, "chains.jsonl:1: the store has another output at this step of run 0"
    )  # fmt: skip
    assert refused.value.hint == "Nothing was imported. Give another --name."


def test_a_run_of_which_less_is_given_than_is_there_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "store", jsonl(tmp_path, [*chain_of("pabc", 1), *chain_of("qa", 2)]))
    before = dumped(tmp_path / "store")
    write(tmp_path / "store", jsonl(tmp_path, chain_of("pa", 1)))
    assert dumped(tmp_path / "store") == before


def test_failures_of_lost_images_are_forgotten_when_they_come_back_and_no_others(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), "red")
    image.save(tmp_path / "a.png")
    rows = [
        {"run": 1, "step": 0, "prompt": "p", "image": "a.png"},
        {"run": 1, "step": 1, "prompt": "p", "text": "x"},
        *chain_of("ab", 2, prompt="q"),
    ]
    path = jsonl(tmp_path, rows)
    write(tmp_path / "store", path)
    with Store(tmp_path / "store", write=True) as store:
        first, second = (run.id for run in reading.runs(store))
        kinds = ((first, "lost"), (second, "error"))
        failures = [NewFailure(run=run, step=0, kind=kind, message="no") for run, kind in kinds]
        writing.commit(store, Commit(failures=failures))
        store.images.execute("DELETE FROM image")
    write(tmp_path / "store", path)
    with Store(tmp_path / "store") as store:
        assert [run.failure.kind for run in reading.runs(store) if run.failure] == ["error"]
        assert contents.image(store, image_digest(image)).size == (4, 4)
