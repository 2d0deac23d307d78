"""Prompts from files and data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panic.config.problems import Problem
from panic.config.prompts import expand
from panic.errors import ConfigError

ROWS = [("a", "test"), ("b", "train"), ("c", "test"), ("d, e", "test"), ("a", "test"), ("f", "test")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import polars

    quoted = "".join(f'"{text}",{split}\n' for text, split in ROWS)
    (tmp_path / "p.csv").write_text(f"text,split\n{quoted}")
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"text": t, "split": s}) for t, s in ROWS))
    polars.DataFrame({"text": [t for t, _ in ROWS], "split": [s for _, s in ROWS]}).write_parquet(
        tmp_path / "p.parquet"
    )
    (tmp_path / "p.txt").write_text("".join(f"{text}\n\n" for text, _ in ROWS))
    return tmp_path


MAPPING = "a prompt that is a mapping must have one of the keys"


def texts(entry: Any, folder: Path, **options: Any) -> list[str]:
    found, mistakes, _ = expand(entry if isinstance(entry, list) else [entry], folder, **options)
    assert mistakes == []
    return found


def mistake(entry: Any, folder: Path, **options: Any) -> Problem:
    found, mistakes, _ = expand([entry], folder, **options)
    assert found == []
    (problem,) = mistakes
    return problem


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_split_keeps_the_order_and_each_text_once(name: str, folder: Path) -> None:
    assert texts({"file": name, "split": "test"}, folder) == ["a", "c", "d, e", "f"]
    assert texts({"file": name}, folder) == ["a", "b", "c", "d, e", "f"]
    assert texts({"file": name, "n": 2}, folder) == ["a", "b"]


def test_text_file_has_a_prompt_per_line(folder: Path) -> None:
    assert texts({"file": "p.txt"}, folder) == ["a", "b", "c", "d, e", "f"]


def test_line_ends_of_windows_are_no_part_of_a_prompt(folder: Path) -> None:
    (folder / "w.txt").write_bytes(b"a\r\nb\r\n")
    assert texts({"file": "w.txt"}, folder) == ["a", "b"]


def test_entries_mix_and_a_file_does_not_repeat_an_inline_prompt(folder: Path) -> None:
    assert texts(["x", "b", {"file": "p.txt"}], folder) == ["x", "b", "a", "c", "d, e", "f"]


def test_a_larger_sample_contains_the_smaller_one_whatever_the_order(tmp_path: Path) -> None:
    names = [f"prompt {number}" for number in range(200)]
    (tmp_path / "p.txt").write_text("\n".join(names))
    (tmp_path / "q.txt").write_text("\n".join(reversed(names)))
    small = texts({"file": "p.txt", "n": 20, "seed": 0}, tmp_path)
    large = texts({"file": "p.txt", "n": 50, "seed": 0}, tmp_path)
    assert len(small) == 20
    assert set(small) < set(large)
    assert small == sorted(small, key=names.index)
    assert set(texts({"file": "q.txt", "n": 20, "seed": 0}, tmp_path)) == set(small)
    assert set(texts({"file": "p.txt", "n": 20, "seed": 1}, tmp_path)) != set(small)
    numbers = [names.index(text) for text in large]
    assert 60 < sum(numbers) / len(numbers) < 140  # 100 +- 8 if all are equally likely


def test_the_sample_stays_the_same_over_versions(folder: Path) -> None:
    assert texts({"file": "p.txt", "n": 2, "seed": 0}, folder) == ["c", "f"]


def test_data_set(folder: Path) -> None:
    datasets = {"world": lambda split, n, seed: [f"{split} {seed} {i}" for i in range(n)]}
    expected = ["test 0 0", "test 0 1"]
    assert texts({"dataset": "world", "n": 2}, folder, datasets=datasets) == expected
    assert expand({"dataset": "world", "n": 2}, folder, datasets)[:2] == (expected, [])
    assert mistake({"dataset": "wrld", "n": 2}, folder, datasets=datasets).allowed == ["world"]
    assert (
        mistake({"dataset": "world"}, folder, datasets=datasets).message
        == "the key 'n' is missing in prompts.0"
    )


@pytest.mark.parametrize(
    ("entry", "path", "message"),
    [
        ({"file": "x.csv"}, "file", "there is no file FOLDER/x.csv"),
        ({"file": "p.md"}, "file", "p.md: prompts can be read from .txt, .csv, .tsv, .jsonl, .parquet"),
        ({"file": "p.csv", "column": "txt"}, "column", "p.csv has no column 'txt'"),
        ({"file": "p.txt", "split": "test"}, "split", "p.txt has no column 'split'"),
        ({"file": "p.csv", "split": "valid"}, "split", "p.csv has no rows with split 'valid'"),
        (
            {"file": "p.csv", "split": "test", "n": 5},
            "n",
            "n is 5, and p.csv has 4 different prompts with split 'test'",
        ),
        ({"file": "p.csv", "n": 0}, "n", "prompts.0.n must be at least 1"),
        ({"file": "p.csv", "sed": 0}, "sed", "unknown key 'sed' in prompts.0"),
        ({"fil": "p.csv"}, "fil", "unknown key 'fil' in prompts.0"),
        ({"file": "holes.csv"}, "file", "holes.csv has no usable text in column 'text' of rows 2, 3"),
        ({"file": "number.jsonl"}, "file", "number.jsonl has no usable text in column 'text' of row 1"),
        ({"file": "broken.jsonl"}, "file", "FOLDER/broken.jsonl:2:2: not valid JSON"),
        ({"file": "list.jsonl"}, "file", 'FOLDER/list.jsonl:1:1: a line is {"text": ...}'),
        ({"file": "latin.csv"}, "file", "FOLDER/latin.csv:2:3: byte 0xfc is not UTF-8"),
        ({"file": "commas.csv"}, "file", "FOLDER/commas.csv has more values than columns in row 2"),
        ({"file": "quote.csv"}, "file", "FOLDER/quote.csv:3:1: not valid CSV: unexpected end of data"),
        ({"file": "twice.csv"}, "file", "FOLDER/twice.csv has several columns called 'text'"),
        ({"file": "deep.jsonl"}, "file", "FOLDER/deep.jsonl:1:1: a number or nesting too large"),
        ({"file": "digits.jsonl"}, "file", "FOLDER/digits.jsonl:2:1: a number or nesting too large"),
        ({"file": "empty.txt"}, "file", "empty.txt has no prompts"),
        ({"file": "folder.txt"}, "file", "FOLDER/folder.txt cannot be read: Is a directory"),
        ({"a": "b"}, None, f"{MAPPING} dataset, file, images, experiment, text"),
        ({}, None, f"{MAPPING} dataset, file, images, experiment, text"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes(entry: dict[str, Any], path: str | None, message: str, folder: Path) -> None:
    (folder / "holes.csv").write_text('text,split\na,b\n" ",c\n,d\n')
    (folder / "number.jsonl").write_text('{"text": 3}\n{"text": "a"}')
    (folder / "broken.jsonl").write_text('{"text": "a"}\n{text}')
    (folder / "list.jsonl").write_text("[1]")
    (folder / "commas.csv").write_text("text\na\na circle, red\n")
    (folder / "quote.csv").write_text('text\na\n"never closed\n')
    (folder / "twice.csv").write_text("text,n,text\n1,2,3\n")
    (folder / "deep.jsonl").write_text("[" * 100_000)
    (folder / "digits.jsonl").write_text('{"text": "a"}\n{"text": "b", "n": ' + "9" * 5000 + "}\n")
    (folder / "latin.csv").write_bytes("text\ngrün".encode("latin-1"))
    (folder / "empty.txt").write_text("\n\n")
    (folder / "folder.txt").mkdir()
    problem = mistake(entry, folder)
    assert problem.message == message.replace("FOLDER", str(folder))
    assert problem.path == (("prompts", 0) if path is None else ("prompts", 0, path))


@pytest.mark.parametrize(
    ("num", "told"), [(1, "row 1"), (5, "rows 1, 2, 3, 4, 5"), (6, "rows 1, 2, 3, 4, 5 ...")]
)
def test_the_first_five_rows_without_a_text_are_told(num: int, told: str, folder: Path) -> None:
    (folder / "holes.jsonl").write_text('{"text": ""}\n' * num + '{"text": "a"}\n')
    assert mistake({"file": "holes.jsonl"}, folder).message.endswith(f" of {told}")


def test_only_a_number_is_helped_by_quotes(folder: Path) -> None:
    assert mistake(5, folder).hint == "put it in quotes to make it a text"
    assert mistake(None, folder).hint == mistake(["a"], folder).hint == ""
    assert mistake(None, folder).message.endswith(", and is empty")


def test_file_that_is_no_parquet(folder: Path) -> None:
    (folder / "x.parquet").write_text("no")
    assert mistake({"file": "x.parquet"}, folder).message.startswith(
        f"{folder}/x.parquet is no parquet file: "
    )


def test_nearest_file_is_named(folder: Path) -> None:
    (folder / "prompts.csv").write_text("text\na")
    assert mistake({"file": "promts.csv"}, folder).hint == "did you mean prompts.csv?"
    assert mistake({"file": "x/p.csv"}, folder).hint == f"there is no folder {folder}/x"


def test_labels_are_those_of_every_prompt_that_an_entry_gives(folder: Path) -> None:
    entries = [
        {"file": "p.txt", "tags": ["seen"]},
        {"text": "a", "group": "one"},
        {"text": "z", "tags": ["new", "new"]},
        "plain",
    ]
    found = expand(entries, folder)
    assert found.problems == []
    assert found.texts == ["a", "b", "c", "d, e", "f", "z", "plain"]
    labels = {prompt: (of.tags, of.group) for prompt, of in found.labels.items()}
    assert labels == {
        **dict.fromkeys(["b", "c", "d, e", "f"], (["seen"], None)),
        **{"a": (["seen"], "one"), "z": (["new"], None)},
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("text,split\na,x\n\nb,y\n", ["a", "b"]),
        ("\n\ntext\na\n", ["a"]),
        ("split,text\nx\ny,b\n", None),  # a short row lacks its last values: row 1 has no text
        ("text,split\na\nb,y\n", ["a", "b"]),
        ("text,more,split\na,,x\n", ["a"]),
    ],
)
def test_rows_of_a_csv_may_be_empty_or_short(text: str, found: list[str] | None, folder: Path) -> None:
    (folder / "x.csv").write_text(text)
    if found is None:
        assert mistake({"file": "x.csv"}, folder).message.endswith("of row 1")
    else:
        assert texts({"file": "x.csv"}, folder) == found


def test_rows_are_counted_from_1_without_empty_ones_in_csv_and_by_lines_else(folder: Path) -> None:
    (folder / "x.csv").write_text('text\na\n\n" "\n')
    (folder / "x.jsonl").write_text('{"text": "a"}\n\n{"text": " "}\n')
    assert mistake({"file": "x.csv"}, folder).message.endswith("of row 2")
    assert mistake({"file": "x.jsonl"}, folder).message.endswith("of row 3")
    assert mistake({"file": "p.parquet", "column": "txt"}, folder).allowed == ["text", "split"]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_which_splits_and_columns_there_are_is_told(name: str, folder: Path) -> None:
    assert mistake({"file": name, "split": "valid"}, folder).allowed == ["test", "train"]
    assert mistake({"file": name, "column": "none"}, folder).allowed == ["text", "split"]
    problem = mistake({"file": name, "n": 7}, folder)
    assert problem.message == f"n is 7, and {name} has 5 different prompts"
    assert texts({"file": name, "n": 5}, folder) == ["a", "b", "c", "d, e", "f"]


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"fil": 1}, "file"), ({"datset": 1}, "dataset"), ({"imges": 1}, "images"), ({"txt": 1}, "text"),
        ({"n": 1, "file": 3}, "file"), ({"file": 3, "dataset": 3}, "dataset"),
        ({"experimnt": 1}, "experiment"),
    ],
)  # fmt: skip
def test_what_an_entry_was_meant_to_be_is_told_by_its_keys(
    entry: dict[str, Any], kind: str, folder: Path
) -> None:
    _, mistakes, _ = expand([entry], folder)
    said = " ".join(f"{one.message} {one.allowed}" for one in mistakes)
    assert f"'{kind}'" in said or f"prompts.0.{kind}" in said


def test_files_nearby_are_those_that_can_be_read(folder: Path) -> None:
    (folder / "promptz.txt").symlink_to(folder / "nowhere")
    (folder / "prompts.md").write_text("x")
    assert mistake({"file": "prompts.txt"}, folder).hint == "did you mean p.txt?"
    (folder / "promptss.TXT").write_text("x")
    assert mistake({"file": "prompts.txt"}, folder).hint == "did you mean promptss.TXT?"
    assert texts({"file": "promptss.TXT"}, folder) == ["x"]
    assert texts({"file": str(folder / "p.txt"), "n": 1}, Path("/nowhere")) == ["a"]


def test_what_prompts_are_no_list_of(folder: Path) -> None:
    def told(raw: Any) -> tuple[str, str]:
        [problem] = expand(raw, folder).problems
        assert problem.path == ("prompts",)
        return problem.message, problem.hint

    assert told("a") == ("prompts must be a list", "write it as a list: [...]")
    assert told(3) == ("prompts must be a list", "")
    assert told(None) == ("prompts must be a list, and is empty", "")
    assert told([]) == ("there are no prompts", "give at least one text to start from")
    assert expand({"text": "a"}, folder).texts == ["a"]
    [problem] = expand({"fil": "x"}, folder).problems
    assert problem.path == ("prompts", "fil")


def test_what_a_data_set_answers_is_told_at_its_entry(folder: Path) -> None:
    def refuse(split: str, n: int, seed: int) -> list[str]:
        raise ConfigError(f"no {n} of {split} with {seed}", hint="fewer")

    problem = mistake({"dataset": "x", "n": 3, "split": "a", "seed": 7}, folder, datasets={"x": refuse})
    assert (problem.path, problem.message, problem.hint) == (("prompts", 0), "no 3 of a with 7", "fewer")
    with_images = mistake({"images": "x"}, folder)
    assert with_images.message == "images and other experiments cannot be read here"


def test_lines_of_a_text_file_are_counted_from_1(folder: Path) -> None:
    (folder / "x.txt").write_bytes(b"a\r\r\0\nb\n\0\n")
    assert mistake({"file": "x.txt"}, folder).message.endswith("of rows 3, 5")
