"""Prompts that are images of a folder, and outputs of another experiment: which are taken, and mistakes."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from panic.config import prompts
from panic.config.labels import PromptLabels
from panic.config.problems import Problem
from panic.config.prompt_origins import IMAGE, ImagePrompts, OutputPrompts, Where, lot, sample
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


def test_as_many_as_there_are_can_be_asked_for(photos: Path) -> None:
    assert expand(photos, {"experiment": "colours", "n": 5})[0] == ["a", "b", "c", "d", "e"]
    assert len(expand(photos, {"images": "photos", "n": 20, "seed": 3})[0]) == 20
    found, [problem] = expand(photos, {"experiment": "colours", "n": 6, "seed": 3})
    assert (found, problem.path) == ([], ("prompts", 0, "n"))


@pytest.mark.parametrize(
    ("step", "is_one"),
    [(0, True), ("last", True), (2**31 - 1, True), (2**31, False), (-1, False), (True, False), (1.0, False)],
)
def test_a_step_is_a_number_from_0_on_or_the_last(photos: Path, step: Any, is_one: bool) -> None:
    found, mistakes = expand(photos, {"experiment": "colours", "step": step})
    assert bool(found) == is_one
    assert [problem.path for problem in mistakes] == ([] if is_one else [("prompts", 0, "step")])


def test_which_runs_are_meant_is_said_by_what_runs_have() -> None:
    for where in ({"seed": -1}, {"repeat": 0}, {"network": ["a"]}, {"state": "stuck"}, {"prompt": "a"}, {}):
        assert OutputPrompts.model_validate({"experiment": "a", "where": where}).where == Where(**where)
    for where in ({"seed": -2}, {"repeat": -1}, {"network": []}, {"state": "todo"}, {"prompt": " "}):
        with pytest.raises(ValidationError):
            OutputPrompts.model_validate({"experiment": "a", "where": where})


@pytest.mark.parametrize(("num", "told"), [(4, "3: it cannot be decoded"), (5, "..."), (6, "...")])
def test_of_images_that_cannot_be_read_the_first_five_are_told(photos: Path, num: int, told: str) -> None:
    (photos / "many").mkdir()
    for number in range(num):
        (photos / "many" / f"{number}.png").write_text("x")
    origins = FileNames()
    _, [problem] = expand(photos, {"images": "many"}, origins)
    assert problem.path == ("prompts", 0, "images")
    assert problem.message.startswith(f"{photos / 'many'}: 0.png: it cannot be decoded; 1.png: it")
    assert problem.message.endswith(told.replace("3:", f"{num - 1}.png:"))
    assert len(origins.read) == min(num, 5)


def test_a_folder_that_is_misspelt_is_told_with_the_nearest(photos: Path) -> None:
    _, [problem] = expand(photos, {"images": "photoz"})
    assert problem.hint == "did you mean photos?"
    _, [problem] = expand(photos, {"images": "photos/below/c/d.png"})
    assert (problem.message, problem.hint) == (
        f"there is no folder or file {photos}/photos/below/c/d.png", ""
    )  # fmt: skip
    _, [problem] = expand(photos, {"experiment": "colour"})
    assert problem.hint == "did you mean colours?"
    _, [problem] = expand(photos, {"experiment": "colours", "step": 9, "modality": "image"})
    assert problem.message == "colours has no image at step 9 in such runs"


def test_a_lot_stays_the_same_over_versions() -> None:
    """Experiments that take more of the same have what they had."""
    assert lot(1, b"a") == int(hashlib.sha256(b"1\0a").hexdigest(), 16)
    assert sample(iter("abcab"), None, 3) == sample(iter("abcab"), None, None) == ["a", "b", "c"]
    assert sample(iter("abc"), 9, 3) == ["a", "b", "c"]
    endless = itertools.cycle("abc")
    assert sample(endless, 3, None) == ["a", "b", "c"]
    assert next(endless) == "a", "no more is read than that"
