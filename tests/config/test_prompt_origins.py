"""Prompts that are images of a folder, and outputs of another experiment: which are taken, and mistakes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from panic.config import prompts
from panic.config.labels import PromptLabels
from panic.config.problems import Problem
from panic.config.prompt_origins import IMAGE, ImagePrompts, OutputPrompts
from panic.errors import ConfigError
from panic.store.codec import image_prompt, is_image_prompt, prompt_digest, prompt_modality, text_digest


@dataclass
class FileNames:
    """It reads what a file holds as the number of an image, and gives five outputs of an experiment."""

    read: list[str] = field(default_factory=list)
    noted: list[list[str]] = field(default_factory=list)

    def image(self, folder: Path, name: str) -> str:
        self.read.append(name)
        content = (folder / name).read_text()
        if not content.isdigit():
            raise ConfigError("it cannot be decoded")
        return f"image:{int(content):064x}"

    def outputs(self, wanted: OutputPrompts, store: Path | None) -> list[str]:
        if wanted.experiment != "colours":
            raise ConfigError("there is no experiment of this name", hint="did you mean colours?")
        return [] if wanted.step == 9 else ["a", "b", "c", "d", "e"]

    def note_file(self, wanted: PromptLabels, file: Path, num_prompts: int) -> None:
        self.noted.append([file.name, str(num_prompts)])

    def note(self, wanted: ImagePrompts | OutputPrompts, given: Sequence[str]) -> None:
        self.noted.append(list(given))


def expand(folder: Path, entry: Any, origins: FileNames | None = None) -> tuple[list[str], list[Problem]]:
    known = origins or FileNames()
    return prompts.expand([entry], folder, origins=lambda: known)[:2]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty different images a00 to a19, one of them twice, and what is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"a{number:02}.png").write_text(str(number))
    (folder / "z.JPG").write_text("3")
    (folder / ".hidden.png").write_text("x")
    (folder / "notes.txt").write_text("x")
    (folder / "below").mkdir()
    (folder / "below" / "b.png").write_text("99")
    return tmp_path


def numbers(found: list[str]) -> list[int]:
    return [int(prompt.removeprefix("image:"), 16) for prompt in found]


def test_all_images_of_a_folder_in_the_order_of_their_names_each_once(photos: Path) -> None:
    origins = FileNames()
    found, mistakes = expand(photos, {"images": "photos"}, origins)
    assert not mistakes
    assert numbers(found) == list(range(20))
    assert origins.noted == [found]
    assert numbers(expand(photos, {"images": "photos", "n": 4})[0]) == [0, 1, 2, 3]
    assert numbers(expand(photos, {"images": "photos/below"})[0]) == [99]
    assert numbers(expand(photos, {"images": "photos/a07.png"})[0]) == [7]


def test_more_images_keep_the_earlier_ones_and_no_other_is_read(photos: Path) -> None:
    few, more = (numbers(expand(photos, {"images": "photos", "n": n, "seed": 1})[0]) for n in (5, 12))
    assert set(few) < set(more)
    assert few == sorted(few)
    assert few != numbers(expand(photos, {"images": "photos", "n": 5, "seed": 2})[0])
    origins = FileNames()
    expand(photos, {"images": "photos", "n": 5, "seed": 1}, origins)
    assert len(origins.read) <= 6


def test_a_name_of_any_bytes_can_be_drawn(photos: Path) -> None:
    with open(os.fsencode(photos) + b"/photos/\xff.png", "w") as file:
        file.write("50")
    assert len(expand(photos, {"images": "photos", "n": 21, "seed": 1})[0]) == 21


@pytest.mark.parametrize(
    ("entry", "path", "told"),
    [
        ({"images": "fotos"}, "images", "there is no folder or file"),
        ({"images": "photos", "n": 21}, "n", "n is 21, and"),
        ({"images": "photos", "m": 2}, "m", "unknown key"),
        ({"image": "photos"}, "image", "unknown key"),
        ({"images": "photos", "n": 0}, "n", "at least 1"),
        ({"images": "empty"}, "images", "holds no images (.jpeg, .jpg, .png, .webp)"),
        ({"images": "broken"}, "images", "a.png: it cannot be decoded; b.png: it cannot be decoded"),
        ({"experiment": "colour"}, "experiment", "there is no experiment of this name"),
        ({"experiment": "colours", "step": 9}, "experiment", "colours has no output at step 9"),
        ({"experiment": "colours", "step": "first"}, "step", "must be a step's number"),
        ({"experiment": "colours", "n": 6}, "n", "n is 6, and colours has 5 different outputs"),
        ({"experiment": "colours", "where": {"sed": 1}}, "where", "unknown key"),
    ],
)
def test_mistakes_are_told_with_their_place(
    photos: Path, entry: dict[str, Any], path: str, told: str
) -> None:
    for name in ("empty", "broken"):
        (photos / name).mkdir()
    for name in ("a.png", "b.png"):
        (photos / "broken" / name).write_text("x")
    found, mistakes = expand(photos, entry)
    assert not found
    assert any(told in problem.message for problem in mistakes), mistakes
    assert any(path in problem.path for problem in mistakes), mistakes


def test_outputs_are_drawn_like_texts_of_a_file(photos: Path) -> None:
    assert expand(photos, {"experiment": "colours"})[0] == ["a", "b", "c", "d", "e"]
    assert expand(photos, {"experiment": "colours", "n": 2})[0] == ["a", "b"]
    (photos / "p.txt").write_text("a\nb\nc\nd\ne\n")
    for seed in range(5):
        drawn = expand(photos, {"experiment": "colours", "n": 3, "seed": seed})[0]
        origins = FileNames()
        assert drawn == expand(photos, {"file": "p.txt", "n": 3, "seed": seed}, origins)[0]
        assert origins.noted == [["p.txt", "3"]]


def test_without_anything_that_reads_them_neither_can_be_named(photos: Path) -> None:
    for entry in ({"images": "photos"}, {"experiment": "colours"}):
        (problem,) = prompts.expand([entry], photos)[1]
        assert "cannot be read here" in problem.message


def test_the_store_and_the_config_agree_on_what_stands_for_an_image() -> None:
    digest = bytes(range(32))
    prompt = image_prompt(digest)
    assert prompt_digest(prompt) == digest
    assert prompt_modality(prompt) == "image"
    assert IMAGE.fullmatch(prompt)
    for text in (prompt[:-1], prompt + "0", prompt.upper(), f" {prompt}", prompt + "\n", "image:"):
        assert prompt_digest(text) == text_digest(text)
        assert not is_image_prompt(text)
        assert not IMAGE.fullmatch(text)
