"""`panic figure` and `panic table`: files in each format, what is refused, what is never overwritten."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from panic.cli import frames
from panic.cli.ask import complete_question
from panic.store import Store, reading, writing

from .conftest import Invoke

BEGINS = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF", ".html": b"<!doctype html>"}


@pytest.mark.parametrize("ending", BEGINS)
def test_a_figure_is_a_file_of_the_kind_that_its_name_says(panic: Invoke, store: Path, ending: str) -> None:
    file = Path(f"stuck{ending}")
    done = panic("figure", "stuck", "demo", "-o", file)
    assert done.exit_code == 0, done.stderr
    assert file.read_bytes().startswith(BEGINS[ending])
    assert f"Figure: {file}" in done.stdout


def test_figures_of_several_experiments_stand_side_by_side(panic: Invoke, store: Path) -> None:
    done = panic("figure", "time", "demo", "broken", "demo", "-o", "time.svg")
    assert done.exit_code == 0, done.stderr
    text = Path("time.svg").read_text()
    assert text.count(">demo: Calls<") == text.count(">broken: Calls<") == 1
    assert "broken: What took how long" in done.stdout


def test_an_experiment_without_an_answer_is_named_and_nothing_is_written(panic: Invoke, store: Path) -> None:
    for command, file in (("figure", "diagrams.svg"), ("table", "diagrams.csv")):
        done = panic(command, "diagrams", "demo", "broken", "-o", file)
        assert done.exit_code == 2
        assert "broken has no answer to diagrams: The config asks for no diagrams." in done.stderr
        assert "Leave this experiment out" in done.stderr
        assert not Path(file).exists()
    assert "nothing in it that it could be asked of" in panic("table", "entropies", "broken").stderr


def test_what_lacks_vectors_is_told_how_to_get_them(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("run,step,text\na,0,one\na,1,two\n")
    assert panic("import", "rows.csv", "--name", "rows").exit_code == 0
    assert "panic embed rows MODEL makes some" in panic("table", "vendi", "rows").stderr
    assert "panic embed" not in panic("table", "stuck", "rows").stderr  # which asks for none


def test_the_table_of_stuck_runs_is_what_the_store_knows(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        known = {run.id: run.period for run in reading.runs(opened, "demo")}
    for name in ("stuck.csv", "stuck.json", "stuck.parquet", "stuck.md", "stuck.tex"):
        done = panic("table", "stuck", "demo", "-o", name)
        assert done.exit_code == 0, done.stderr
        assert f"Table: {name}, {len(known)} rows" in done.stdout
    found = csv.DictReader(Path("stuck.csv").read_text().splitlines())
    assert {int(row["run"]): int(row["period"]) if row["period"] else None for row in found} == known
    as_json = json.loads(Path("stuck.json").read_text())
    assert {row["run"]: row["period"] for row in as_json} == known
    assert dict(pl.read_parquet("stuck.parquet").select("run", "period").iter_rows()) == known
    assert Path("stuck.md").read_text().count("\n") == len(known) + 2
    assert Path("stuck.tex").read_text().count(r"\\") == len(known) + 1
    assert {
        row["run"]: row["period"] for row in json.loads(panic("table", "stuck", "demo", "--json").stdout)
    } == (known)


def test_parts_of_an_answer_are_told_and_chosen(panic: Invoke, store: Path) -> None:
    done = panic("table", "time", "demo", "--json")
    assert "--part names another: spent, summary" in done.stderr
    (row,) = json.loads(panic("table", "time", "demo", "--part", "summary", "--json").stdout)
    assert row["experiment"] == "demo"
    assert row["wall_s"] > 0
    done = panic("table", "time", "demo", "--part", "sumary")
    assert done.exit_code == 2
    assert "frame, spent, summary" in done.stderr


def test_what_is_there_is_not_overwritten(panic: Invoke, store: Path) -> None:
    for command, name in (("figure", "mine.svg"), ("table", "mine.csv")):
        Path(name).write_text("precious")
        assert panic(command, "time", "demo", "-o", name).exit_code == 2
        assert Path(name).read_text() == "precious"
        assert panic(command, "time", "demo", "-o", name, "--force").exit_code == 0
        assert Path(name).read_text() != "precious"


def test_mistakes_are_answered(panic: Invoke, store: Path) -> None:
    assert "Did you mean drift?" in panic("figure", "dirft", "-o", "a.svg").stderr
    assert ".svg, .png, .pdf, .html" in panic("figure", "drift", "-o", "a.txt").stderr
    assert ".csv, .parquet, .json, .md, .tex" in panic("table", "drift", "-o", "a.xls").stderr
    assert "--list" in panic("table").stderr
    assert "--output" in panic("figure", "drift").stderr
    assert "Did you mean demo?" in panic("table", "time", "dmeo").stderr
    assert not [path for path in Path.cwd().iterdir() if path.suffix]


def test_questions_are_listed(panic: Invoke) -> None:
    listed = json.loads(panic("table", "--list", "--json").stdout)
    assert [row["question"] for row in listed][:3] == ["time", "stuck", "grid"]
    assert all(row["title"] and row["about"] for row in listed)
    assert "What took how long" in panic("figure", "--list").stdout


def test_the_names_that_a_shell_completes_are_those_of_the_questions() -> None:
    from panic.analysis.questions import named

    assert complete_question("") == sorted(named())
    assert complete_question("dr") == ["drift"]


@pytest.mark.parametrize("typed", ["/", "**", "d*", "../"])
def test_what_is_no_beginning_of_a_question_is_not_completed(typed: str) -> None:
    assert complete_question(typed) == []


def test_texts_of_models_are_no_commands_of_latex_or_markdown(panic: Invoke, store: Path) -> None:
    nasty = "\\input{/etc/passwd} 50% of $x_1$ & <script>|`a`\x1b[2J\nb"
    with Store(store, write=True) as opened:
        (row,) = reading.runs(opened, "demo")[:1]
        from panic.store import NewRun

        new = NewRun(network=row.network, prompt=nasty, seed=-1, repeat=9, max_length=8)
        writing.add_runs(opened, row.experiment, [new])
    for name in ("a.tex", "a.md", "a.csv", "a.json"):
        assert panic("table", "stuck", "demo", "-o", name).exit_code == 0
    latex, markdown = Path("a.tex").read_text(), Path("a.md").read_text()
    told = r"\textbackslash{}input\{/etc/passwd\} 50\% of \$x\_1\$ \& \textless{}script\textgreater{}"
    assert told in latex
    assert "<script>" not in markdown
    assert "\x1b" not in latex + markdown
    bars = [line.count("|") - line.count("\\|") for line in markdown.splitlines()]
    assert len(bars) > 2
    assert set(bars) == {len(pl.read_csv("a.csv").columns) + 1}
    assert nasty in {row["prompt"] for row in pl.read_csv("a.csv").iter_rows(named=True)}
    assert nasty in {row["prompt"] for row in json.loads(Path("a.json").read_text())}
    assert nasty not in panic("table", "stuck", "demo").stdout


def test_lists_in_lists_and_structs_are_written_in_every_format(tmp_path: Path) -> None:
    nan = float("nan")
    frame = pl.DataFrame(
        {"a": [[[1.0, nan], []], None], "b": [{"c": [2.0], "d": nan}, {"c": None, "d": 1.0}]}
    )
    a, b = [[1.0, None], []], {"c": [2.0], "d": None}
    assert frames.rows(frame)[0] == {"a": a, "b": b}
    for ending in frames.WRITERS:
        frames.write(frame, tmp_path / f"nested{ending}")
    assert json.loads((tmp_path / "nested.json").read_text())[0] == {"a": a, "b": b}
    row = pl.read_csv(tmp_path / "nested.csv").row(0, named=True)
    assert {name: json.loads(text) for name, text in row.items()} == {"a": a, "b": b}


def test_lists_and_numbers_that_are_none_are_kept(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [[1.0, float("nan")], None], "b": [float("inf"), float("nan")]})
    assert frames.rows(frame) == [{"a": [1.0, None], "b": "inf"}, {"a": None, "b": None}]
    frames.write(frame, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == ["a,b", '"[1.0, null]",inf', ",NaN"]
    frames.write(frame, tmp_path / "a.parquet")
    assert pl.read_parquet(tmp_path / "a.parquet").equals(frame)


def test_a_statistic_stands_beside_its_null_band(panic: Invoke, store: Path) -> None:
    assert panic("nulls", "demo", "shuffled").exit_code == 0
    done = panic("figure", "lag", "demo", "--null", "shuffled", "-o", "lag.svg")
    assert done.exit_code == 0, done.stderr
    assert "beside shuffled" in Path("lag.svg").read_text()
    assert "chance alone puts one place in twenty outside" in " ".join(done.stdout.split())
    rows = json.loads(panic("table", "lag", "demo", "--null", "shuffled", "--json").stdout)
    assert all(row["low"] <= row["mean"] <= row["high"] and row["num_null"] >= 3 for row in rows)


def test_what_has_no_null_band_says_why(panic: Invoke, store: Path) -> None:
    refusals = {
        ("lag", "shuffled"): "panic nulls demo shuffled makes them",
        ("lag", "shufled"): "Did you mean shuffled?",
        ("stuck", "shuffled"): "these have one: drift",
        ("effects", "shuffled"): "effects has no statistic of single runs",
    }
    for (question, kind), told in refusals.items():
        for command, file in (("figure", "band.svg"), ("table", "band.csv")):
            done = panic(command, question, "demo", "--null", kind, "-o", file)
            assert done.exit_code == 2
            assert told in " ".join(done.stderr.split())
            assert not Path(file).exists()
