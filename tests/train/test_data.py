"""Pictures in folders: what kinds are read, how classes are balanced, and what is said about bad data."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from panic.pocket.oracle import read
from panic.pocket.scene import place
from panic.pocket.world import describe, parse
from panic.train.config import Data
from panic.train.data import DataError, World, _near_objects
from panic.train.folder import Folder
from panic.train.training import open_data
from tests.train import small

SIZE = 8


def flat(mode, colour):
    return Image.new(mode, (12, 9), colour)


def deep(value):
    return Image.fromarray(np.full((9, 12), value, np.uint16))


@pytest.mark.parametrize(
    ("name", "picture", "expected"),
    [
        ("grey.png", flat("L", 100), (100, 100, 100)),
        ("bits.png", flat("1", 1), (255, 255, 255)),
        ("palette.gif", flat("RGB", (200, 0, 0)).quantize(4), (200, 0, 0)),
        ("clear.png", flat("RGBA", (0, 0, 255, 0)), (255, 255, 255)),
        ("half.png", flat("RGBA", (0, 0, 0, 128)), (127, 127, 127)),
        ("greyalpha.png", flat("LA", (10, 0)), (255, 255, 255)),
        ("deep.png", deep(25700), (100, 100, 100)),
        ("inks.jpg", flat("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
    ],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, name, picture, expected):
    picture.save(tmp_path / name)
    (tmp_path / name).with_suffix(".txt").write_text("a picture\n")
    (item,) = Folder(tmp_path, size=SIZE).validation(9)
    assert item.image.shape == (SIZE, SIZE, 3)
    assert item.texts == ("a picture",)
    assert abs(item.image.reshape(-1, 3).astype(int) - expected).max() <= 2  # JPEG is lossy


def test_the_middle_is_seen_upright(tmp_path):
    lying = Image.new("RGB", (30, 10), "red")
    lying.paste("blue", (15, 0, 30, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    lying.save(tmp_path / "a.png", exif=exif)
    (tmp_path / "a.txt").write_text("x")
    picture = Folder(tmp_path, size=SIZE).validation(1)[0].image
    assert tuple(picture[0, 0]) == (255, 0, 0)
    assert tuple(picture[-1, -1]) == (0, 0, 255)
    assert tuple(picture[0, -1]) == (255, 0, 0)


def captioned(folder, text="a red square"):
    flat("RGB", "red").save(folder / "a.png")
    if text is not None:
        (folder / "a.txt").write_text(text)


def bad_caption(folder):
    captioned(folder, None)


def empty_caption(folder):
    captioned(folder, " \n")


def latin(folder):
    captioned(folder)
    (folder / "a.txt").write_bytes("caf\xe9".encode("latin-1"))


def corrupt(folder):
    captioned(folder)
    (folder / "a.png").write_bytes(b"no picture")


def cut_off(folder):
    dots = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(dots).save(folder / "a.jpg")
    content = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(content[: len(content) // 2])
    (folder / "a.txt").write_text("dots")


def no_range(folder):
    Image.fromarray(np.ones((9, 9), np.float32)).save(folder / "a.tif")
    (folder / "a.txt").write_text("x")


def nothing(folder):
    (folder / "notes.txt").write_text("x")


def columns(folder):
    captioned(folder)
    (folder / "metadata.csv").write_text("name,caption\na.png,red\n")


def stranger(folder):
    captioned(folder)
    (folder / "metadata.csv").write_text("file_name,text\na.png,red\nb.png,blue\n")


def gap(folder):
    captioned(folder)
    flat("RGB", "blue").save(folder / "b.png")
    (folder / "metadata.csv").write_text("file_name,text\na.png,red\n")


def table_latin(folder):
    captioned(folder)
    (folder / "metadata.csv").write_bytes("file_name,text\na.png,caf\xe9\n".encode("latin-1"))


def no_json(folder):
    captioned(folder)
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "red"}\n{oops\n')


def long_number(folder):
    captioned(folder)
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": {"9" * 5000}}}\n')


def deep(folder):
    captioned(folder)
    (folder / "metadata.jsonl").write_text("[" * 200_000)


def large_field(folder):
    captioned(folder)
    (folder / "metadata.csv").write_text(f"file_name,text\na.png,{'x' * 200_000}\n")


def other_format(folder):
    """A decoder that a name does not speak of is not started: that of EPS starts Ghostscript."""
    captioned(folder)
    flat("RGB", (1, 2, 3)).save(folder / "a.png", "PPM")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad_caption, r"a\.png: this picture has no caption: there is no a\.txt beside it"),
        (empty_caption, r"a\.png: this picture has no caption: a\.txt is empty"),
        (latin, r"a\.txt: not UTF-8 \(byte 3 is 0xe9\)"),
        (corrupt, r"a\.png: this picture cannot be read"),
        (cut_off, r"a\.jpg: this picture cannot be read \(.*truncated"),
        (no_range, r"a\.tif: this picture cannot be read \(pixels of mode F have no known range"),
        (nothing, "no pictures in this folder"),
        (columns, r"metadata\.csv: row 1 has no file_name and no text\n.*this one has name, caption"),
        (stranger, r"metadata\.csv: 1 rows name no picture, the first one .*b\.png"),
        (gap, r"b\.png: this picture has no caption: .*metadata\.csv has no text for it"),
        (table_latin, r"metadata\.csv: not UTF-8"),
        (no_json, r"metadata\.jsonl: line 2 is no JSON"),
        (long_number, r"metadata\.jsonl: line 1 is no JSON"),
        (deep, r"metadata\.jsonl: line 1 is no JSON"),
        (large_field, r"metadata\.csv is no CSV file: field larger than field limit"),
        (other_format, r"a\.png: this picture cannot be read: it is none of PNG, JPEG"),
    ],
)
def test_bad_data_are_told_with_the_file(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        Folder(tmp_path, size=SIZE)


def test_names_and_captions_may_be_what_no_text_ends_with(tmp_path):
    """A name that is no UTF-8 ended in an error of Python, and U+2028 in a caption in "no JSON"."""
    name = os.fsdecode(b"caf\xe9.png")
    flat("RGB", (1, 2, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "a\u2028b"}))
    assert list(Folder(tmp_path, size=SIZE).captions()) == ["a\u2028b"]
    raw = '{"file_name": "b.png", "text": "a\u2028b"}\n'
    (tmp_path / name).rename(tmp_path / "b.png")
    (tmp_path / "metadata.jsonl").write_text(raw, encoding="utf-8")
    assert list(Folder(tmp_path, size=SIZE).captions()) == ["a\u2028b"]


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        Folder(tmp_path / "nowhere", size=SIZE)


def test_balance_needs_classes(tmp_path):
    with pytest.raises(
        DataError, match="balance needs at least two classes, and there is only the class 'red'"
    ):
        Folder(small.pictures(tmp_path / "one", colours=("red",)), size=SIZE, balance=True)
    captioned(tmp_path)
    (tmp_path / "one" / "red").rename(tmp_path / "one" / "blue")
    flat("RGB", "red").save(tmp_path / "one" / "loose.png")
    (tmp_path / "one" / "loose.txt").write_text("x")
    with pytest.raises(DataError, match="no subfolders with names of classes"):
        Folder(tmp_path / "one", size=SIZE, balance=True)


def test_tables_texts_and_subfolders_give_captions(tmp_path):
    folder = small.pictures(tmp_path / "p", each=1, colours=("light_blue", "red"))
    assert [i.texts[0] for i in Folder(folder, size=SIZE, held_back=0).training(0, 0, 2, range(2))] in (
        [["light blue", "red"], ["red", "light blue"]]
    )
    (folder / "metadata.csv").write_text(
        '\ufefffile_name,text\nlight_blue/0.png,"two\nlines"\nred/0.png,rouge\n', encoding="utf-8"
    )
    assert set(Folder(folder, size=SIZE).captions()) == {"two\nlines", "rouge"}
    rows = [{"file_name": "light_blue/0.png", "text": "bleu"}, {"file_name": "red/0.png", "text": "rouge"}]
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(map(json.dumps, rows)))
    assert set(Folder(folder, size=SIZE, captions=str(other)).captions()) == {"bleu", "rouge"}


def test_hidden_files_are_no_pictures(tmp_path):
    captioned(tmp_path)
    (tmp_path / "._a.png").write_bytes(b"what some systems leave behind")
    assert len(list(Folder(tmp_path, size=SIZE).captions())) == 1


def drawn(folder, n=3000, **how):
    data = Folder(folder, size=SIZE, held_back=0, **how)
    labels = [data._rows[data.index(0, i)][2] for i in range(n)]
    return np.bincount(labels, minlength=len(data.labels)) / n


def test_classes_are_balanced(tmp_path):
    small.pictures(tmp_path, each=18, colours=("red",))
    small.pictures(tmp_path, each=2, colours=("blue",))
    assert abs(drawn(tmp_path, balance=True) - 0.5).max() < 4 * 0.5 / np.sqrt(3000)
    assert drawn(tmp_path) == pytest.approx([0.1, 0.9])  # blue, red: whole epochs


def test_epochs_show_every_picture_once_and_not_in_the_same_order(tmp_path):
    data = Folder(small.pictures(tmp_path, each=6), size=SIZE, held_back=0)
    epochs = [[data.index(3, 12 * epoch + i) for i in range(12)] for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]


def test_validation_is_never_trained_on_and_stays_when_pictures_come(tmp_path):
    def split(each):
        data = Folder(small.pictures(tmp_path, each=each), size=SIZE, held_back=0.3)
        return {row[0] for row in data._held}, {row[0] for row in data._rows}

    held, trained = split(20)
    assert not held & trained
    assert 5 <= len(held) <= 20
    held_later, trained_later = split(30)
    assert held < held_later
    assert trained < trained_later


def test_the_world_has_one_size():
    with pytest.raises(DataError, match="pictures of 64x64, and image_size is 32"):
        open_data(Data(dataset="pocket-world"), 32)


def test_a_world_of_another_style_and_bias():
    plain = World().training(5, 7, 4, range(4))
    for item in open_data(Data(dataset="pocket-world", styles="terse"), 64).training(5, 7, 4, range(4)):
        assert len(item.texts) == 1
        assert item.texts[0].startswith(("a plain", "a striped", "a dotted", "a checkered"))
    biased = open_data(Data(dataset="pocket-world", background_shift=1), 64).training(5, 7, 4, range(4))
    assert not any((a.image == b.image).all() for a, b in zip(plain, biased, strict=True))


def test_a_world_of_tidy_pairs_in_plain_words():
    data = Data(dataset="pocket-world", styles="plain", tidy=1.0, objects=2)
    for item in open_data(data, 64).training(5, 7, 8, range(8)):
        (text,) = item.texts
        scene = parse(text)
        assert len(scene.objects) == 2
        assert describe(scene) == text
        seen = read(item.image).seen
        middle = np.mean([[s.x for s in seen], [s.y for s in seen]], axis=1)
        assert np.abs(middle - 32).max() < 14


def test_what_is_inside_of_something_counts_as_the_small_thing_it_is():
    """The box of its holder once took its weight: 58 % of such pairs came back from the autoencoder."""
    scene = parse("a small red circle inside a large blue square on a green background")
    layout = place(scene, np.random.default_rng(0))
    mask = _near_objects(scene, layout)
    assert mask[int(layout.y[0]), int(layout.x[0])] == pytest.approx((10 / layout.radius[0]) ** 2)
    edge = int(layout.x[1] + 0.8 * layout.radius[1])
    assert mask[int(layout.y[1]), edge] == pytest.approx((10 / layout.radius[1]) ** 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of folder and dataset"),
        ({"dataset": "pocket-world", "balance": True}, "only a folder has balance"),
        (
            {"folder": "x", "styles": "terse", "background_shift": 1},
            "only a dataset has background_shift, styles",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Data(**given)


def test_the_world_gives_the_same_items_by_parts():
    whole = World().training(5, 7, 6, range(6))
    parts = [item for i in (4, 2, 0) for item in World().training(5, 7, 6, range(i, i + 2))]
    for a, b in zip(whole, [*parts[4:], *parts[2:4], *parts[:2]], strict=True):
        assert (a.image == b.image).all()
        assert a.texts == b.texts
