"""Which items a folder or a file of texts has: ids, what is refused, what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from panic.errors import PanicError, UsageError
from panic.extraction.inputs import Unusable, list_images, list_texts, listed, pattern_of, read

from .conftest import draw


def test_ids_are_paths_without_endings_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a 1.JPG", "below/c.webp", ".hidden.png", ".git/d.png", "notes.txt"):
        draw(tmp_path / name.replace(".txt", ".png")).rename(tmp_path / name)
    found = list_images(str(tmp_path))
    assert [item.id for item in found.items] == ["a 1", "b", "below/c"]
    assert found.others == {".txt": 1}


def test_a_pattern_gives_ids_without_leading_zeros(tmp_path: Path) -> None:
    for name in ("COCO_000042.png", "COCO_000000.png", "COCO_7.png"):
        draw(tmp_path / name)
    found = list_images(str(tmp_path), pattern_of(r"_(\d+)$")).items
    assert {item.place: item.id for item in found} == {
        "COCO_000000.png": "0",
        "COCO_000042.png": "42",
        "COCO_7.png": "7",
    }
    (tmp_path / "COCO_7.png").unlink()
    assert [item.id for item in list_images(str(tmp_path), pattern_of(r"(CO_0+)")).items] == [
        "CO_000000",
        "CO_0000",
    ]


def test_equal_ids_are_refused_with_both_files(tmp_path: Path) -> None:
    draw(tmp_path / "x_007.png")
    draw(tmp_path / "y_7.png")
    with pytest.raises(UsageError, match=r"x_007.png and y_7.png \(7\)"):
        list_images(str(tmp_path), pattern_of(r"_(\d+)$"))
    draw(tmp_path / "x_007.jpg")
    with pytest.raises(UsageError, match=r"x_007.jpg and x_007.png"):
        list_images(str(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "says"), [("(", "no regular"), ("a", "0 groups"), ("(a)(b)", "2 groups")]
)
def test_wrong_patterns_are_refused(pattern: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        pattern_of(pattern)


def test_names_that_a_pattern_does_not_match_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a1.png")
    draw(tmp_path / "b.png")
    with pytest.raises(UsageError, match=r"nothing in b\.png"):
        list_images(str(tmp_path), pattern_of(r"(\d+)"))


def test_hostile_names_have_ids_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    draw(folder / "new\nline.png")
    os.rename(draw(folder / "raw.png"), os.fsencode(folder) + b"/raw\xff.png")
    (folder / "loop").symlink_to(folder)
    found = list_images(str(folder))
    assert sorted(item.id for item in found.items) == ["new\nline", r"raw\xff"]
    assert found.others == {"link to a folder": 1}
    assert all(read(item).value.size == (8, 8) for item in found.items)


def test_a_folder_named_twice_is_refused_however_it_is_spelt(photos: str) -> None:
    found = list_images(photos)
    with pytest.raises(UsageError, match="also as photos"):
        listed([photos, "./photos"], [found, found])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 99, "cannot be decoded"),
        (b"GIF89a", "cannot be decoded"),
    ],
)
def test_what_is_damaged_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Unusable, match=says):
        read(list_images(str(tmp_path)).items[0])


def test_what_is_cut_off_too_large_or_transparent_is_told(tmp_path: Path) -> None:
    whole = draw(tmp_path / "a.png", (300, 300)).read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (16_384, 2)).save(tmp_path / "b.png")
    Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(tmp_path / "c.png")
    (tmp_path / "d.png").symlink_to(tmp_path / "c.png")
    reasons = []
    for item in list_images(str(tmp_path)).items:
        with pytest.raises(Unusable) as caught:
            read(item)
        reasons.append(str(caught.value))
    assert ["decoded" in reasons[0], "16" in reasons[1], *("transparent" in one for one in reasons[2:])] == [
        True
    ] * 4


def test_an_image_is_turned_as_its_orientation_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read(list_images(str(tmp_path)).items[0]).value.size == (4, 8)


def test_texts_of_three_forms(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\nthree\r\n", encoding="utf-8-sig")
    (tmp_path / "b.csv").write_text('id,caption\n7,"a, b"\n008,c\n')
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n\n{"text": "y", "id": 9}\n')
    found = [
        [(item.id, item.text) for item in list_texts(str(tmp_path / name), column).items]
        for name, column in (("a.txt", "text"), ("b.csv", "caption"), ("c.jsonl", "text"))
    ]
    assert found == [
        [("1", "one"), ("3", "three")],
        [("7", "a, b"), ("008", "c")],
        [("1", "x"), ("9", "y")],
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "id,txt\n1,a\n", "row 1 has no text in a column 'text'"),
        ("a.csv", 'text\n"a\n', "not valid CSV"),
        ("a.jsonl", '{"text": "a"}\n{"text"\n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", '{"text": 1}\n', "what row 1 has in the column 'text' is no text"),
        ("a.jsonl", '{"text": "a", "id": 2}\n{"text": "b"}\n', r"rows .* have the same id: 1 and 2 \(2\)"),
        ("a.jsonl", '{"text": "a", "id": "\\ud800"}\n', "the id of row 1 is not valid Unicode"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "a.jsonl:1: 'text' is there twice"),
        ("a.csv", "text,text\na,b\n", "has several columns called 'text'"),
        ("a.csv", "text\na house, red\n", "row 1 has more values than there are columns"),
        ("a.csv", "id,text\n1,a\n1,b\n", r"rows .* have the same id: 1 and 2 \(1\)"),
        ("a.txt", "\n", "no texts"),
        ("a.txt", b"\xff", "not UTF-8"),
        ("a.pdf", "a", "read from .txt"),
    ],
)
def test_what_is_wrong_with_texts_is_told(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(PanicError, match=says):
        list_texts(str(tmp_path / name))


def test_what_is_no_folder_is_told_and_an_empty_name_is_not_this_folder(tmp_path: Path) -> None:
    """A variable that was empty meant the folder of the command; a file had itself for the nearest name."""
    (tmp_path / "a.png").write_bytes(b"")
    for name, says in (("", "An empty name is no folder"), (str(tmp_path / "a.png"), "a.png is no folder")):
        with pytest.raises(UsageError, match=says):
            list_images(name)


def test_the_way_out_of_equal_ids_is_one_that_there_is(tmp_path: Path) -> None:
    """--id has no effect for texts."""
    (tmp_path / "a.csv").write_text("id,text\n1,a\n1,b\n")
    with pytest.raises(UsageError) as caught:
        list_texts(str(tmp_path / "a.csv"))
    assert caught.value.hint == "The ids are those of the column 'id'."
