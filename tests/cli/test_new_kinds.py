"""Networks of texts alone and of images alone, from the command line, in every command that shows them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

Panic = Callable[..., Result]
WORDS = """\
name: words
networks: [[drop-words], [shuffle-words, upper-case]]
prompts: [the quick brown fox jumps over the lazy dog again and again]
seeds: [1, -1]
repeats: 3
max_length: 12
device: cpu
"""


@pytest.fixture
def words(panic: Panic) -> None:
    Path("words.yaml").write_text(WORDS)
    done = panic("run", "words.yaml")
    assert done.exit_code == 0, done.output


def test_a_network_of_texts_alone_is_shown(panic: Panic, words: None) -> None:
    shown = json.loads(panic("show", "words", "--run", 2, "--json").stdout)
    assert len(shown["steps"]) == 12
    assert all(step["text"] for step in shown["steps"])
    assert panic("stuck", "words").exit_code == 0
    assert panic("export", "-o", "tables").exit_code == 0
    done = panic("images", "words", "--step", 0)
    assert done.exit_code == 2
    assert "pictures" in done.stderr


@pytest.mark.slow
def test_a_network_of_texts_alone_has_a_report(panic: Panic, words: None) -> None:
    more = ["--set", "embeddings=[PocketText]", "--set", "diagrams={max_dimension: 1}"]
    assert panic("run", "words.yaml", *more).exit_code == 0
    assert panic("report", "words", "-o", "report.html").exit_code == 0
    assert "drop-words" in Path("report.html").read_text()


@pytest.fixture
def photos() -> Path:
    """Three images of different sizes, and one of them again as another file."""
    folder = Path("photos")
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 30)), ("b.webp", (64, 64)), ("c.png", (16, 48))):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size)
        coarse.save(folder / name, lossless=True)
    Image.open(folder / "a.png").save(folder / "d.png", compress_level=0)
    return folder


IMAGES = """\
name: pictures
networks: [[jpeg, noise], [blur]]
models: {jpeg: {base: jpeg, quality: 30}, blur: {base: blur, radius: 3}}
prompts: {images: photos}
seeds: [5, -1]
max_length: 9
device: cpu
"""


@pytest.fixture
def pictures(panic: Panic, photos: Path) -> None:
    Path("pictures.yaml").write_text(IMAGES)
    done = panic("run", "pictures.yaml")
    assert done.exit_code == 0, done.output


def dumped(panic: Panic, *more: str) -> str:
    done = panic("dump", *more)
    assert done.exit_code == 0
    return done.stdout


def test_a_network_of_images_alone_is_shown(panic: Panic, pictures: None) -> None:
    shown = json.loads(panic("show", "pictures", "--json").stdout)
    assert len(shown["runs"]) == 3 * 2 * 2
    assert len({run["prompt"] for run in shown["runs"]}) == 3
    assert all(prompt.startswith("image:") for prompt in shown["config"]["prompts"])
    (lineage,) = shown["sessions"][0]["provenance"]["prompts"]
    assert [given["file"] for given in lineage["prompts"]] == ["a.png", "b.webp", "c.png"]
    assert "3 prompts of images photos" in panic("show", "pictures").stdout
    assert {run["state"] for run in shown["runs"] if run["network"] == ["blur"]} >= {"done"}
    for command in (["images", "--run", 1], ["images", "--step", 0, "-o", "s.png"], ["check"], ["stuck"]):
        done = panic(*command)
        assert done.exit_code == 0, (command, done.output)
    assert panic("verify", "pictures", "--sample", 4).exit_code == 0


def test_images_begin_runs_without_their_files_once_they_are_stored(panic: Panic, photos: Path) -> None:
    Path("pictures.yaml").write_text(IMAGES)
    assert panic("run", "pictures.yaml", "--set", "max_length=4").exit_code == 0
    Path("again.yaml").write_text(panic("show", "pictures", "--config").stdout)
    shutil.rmtree(photos)
    done = panic("run", "pictures.yaml")
    assert done.exit_code == 2
    assert "there is no folder or file" in done.stderr
    assert panic("run", "again.yaml", "--set", "max_length=9").exit_code == 0
    first = dumped(panic)
    photos.mkdir()
    other = panic("run", "again.yaml", "--store", "elsewhere")
    assert other.exit_code in (1, 2)
    assert "in this store" in other.stderr
    assert "Traceback" not in other.output
    assert '"prompt": "image:' in first


def test_a_store_of_image_prompts_is_the_same_after_an_export_and_an_import(
    panic: Panic, pictures: None
) -> None:
    assert panic("export", "-o", "tables", "--images").exit_code == 0
    done = panic("import", "tables", "--store", "copy")
    assert done.exit_code == 0, done.output
    assert dumped(panic, "--store", "copy") == dumped(panic)


def test_renamed_and_recoded_files_are_the_same_prompts(panic: Panic, pictures: None, photos: Path) -> None:
    before = dumped(panic)
    Image.open(photos / "a.png").save(photos / "y.webp", lossless=True)
    for name in ("a.png", "d.png"):
        (photos / name).unlink()
    assert panic("run", "pictures.yaml").exit_code == 0
    assert dumped(panic) == before


def refused(panic: Panic, networks: str, prompts: str) -> str:
    """What is said of a config with a mistake, on one line."""
    Path("x.yaml").write_text(
        f"name: x\nnetworks: {networks}\nprompts: {prompts}\nseeds: [-1]\nmax_length: 2\ndevice: cpu\n"
    )
    done = panic("run", "x.yaml")
    assert done.exit_code == 2
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("networks", "prompts", "told"),
    [
        ("[[blur]]", "[a text]", "blur takes image, but a network begins with a prompt, which is text"),
        ("[[upper-case]]", "{images: photos}", "upper-case takes text, but a network begins with a prompt"),
        ("[[blur], [upper-case]]", "[a text, {images: photos}]", "begins with each prompt, one is"),
    ],
)
def test_prompts_fit_their_networks(
    panic: Panic, photos: Path, networks: str, prompts: str, told: str
) -> None:
    assert told in refused(panic, networks, prompts)


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ("[{experiment: nosuch}]", "No experiment 'nosuch'"),
        ("{images: nowhere}", "nowhere"),
        ("[{images: photos, n: 0}]", "prompts.0.n must be at least 1"),
    ],
)
def test_a_mistake_in_a_prompt_is_the_only_one_that_is_told(
    panic: Panic, pictures: None, photos: Path, prompts: str, told: str
) -> None:
    """Of prompts that could not be read it was said that they are texts, and do not fit."""
    said = refused(panic, "[[blur]]", prompts)
    assert told in said
    assert "a network begins with" not in said


def test_a_file_that_is_no_image_is_told(panic: Panic, photos: Path) -> None:
    Path("pictures.yaml").write_text(IMAGES)
    (photos / "b.webp").write_bytes(b"RIFF" + b"\0" * 20)
    (photos / "e.png").symlink_to("a.png")
    done = panic("run", "pictures.yaml")
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "b.webp: it cannot be decoded" in said
    assert "e.png: 'e.png' cannot be opened, or is a link" in said
    assert not Path("panic-store").exists()


def test_prompts_from_another_experiment(panic: Panic, words: None, photos: Path) -> None:
    from_words = "{experiment: words, where: {network: [drop-words], seed: -1}, n: 2, seed: 0}"
    Path("next.yaml").write_text(
        f"name: next\nnetworks: [[upper-case]]\nprompts: [start, {from_words}]\nseeds: [-1]\nmax_length: 2\n"
        "device: cpu\n"
    )
    done = panic("run", "next.yaml")
    assert done.exit_code == 0, done.output
    shown = json.loads(panic("show", "next", "--json").stdout)
    source = json.loads(panic("show", "words", "--json").stdout)
    (lineage,) = shown["sessions"][0]["provenance"]["prompts"]
    assert lineage["uid"] == source["id"]
    prompts = [run["prompt"] for run in shown["runs"]]
    assert len(prompts) == 1 + len(lineage["prompts"])
    for given in lineage["prompts"]:
        steps = json.loads(panic("show", "words", "--run", given["run"], "--json").stdout)["steps"]
        assert steps[-1]["output"] == given["digest"]
        assert steps[-1]["step"] == given["step"]
        assert steps[-1]["text"] in prompts
    assert "prompts of experiment words" in panic("show", "next").stdout
    before = dumped(panic, "next")
    assert panic("delete", "words", "-y").exit_code == 0
    assert dumped(panic, "next") == before, "what others begin with stays"
    assert panic("resume", "next").exit_code == 0
    done = panic("run", "next.yaml")
    assert done.exit_code == 2
    assert "words" in done.stderr


def test_an_experiment_cannot_begin_with_itself(panic: Panic, words: None) -> None:
    Path("next.yaml").write_text(WORDS.replace("prompts: [", "prompts: [{experiment: words}, "))
    done = panic("run", "next.yaml")
    assert done.exit_code == 2
    assert "next.yaml:3:24: an experiment cannot begin with its own outputs" in done.stderr
    lines = WORDS.splitlines(keepends=True)
    alone = ["prompts: {experiment: words}\n" if line.startswith("prompts:") else line for line in lines]
    Path("next.yaml").write_text("".join(alone))
    done = panic("run", "next.yaml")
    assert done.exit_code == 2, "a single entry is one, too"
    assert "next.yaml:3:23: an experiment cannot begin with its own outputs" in done.stderr


def test_the_latest_experiment_is_none_that_prompts_can_name(panic: Panic, words: None) -> None:
    """Performed again, a config began with its own outputs: they became more of its prompts."""
    text = WORDS.replace("name: words", "name: next").replace(
        "prompts: [", "prompts: [{experiment: latest}, "
    )
    Path("next.yaml").write_text(text)
    done = panic("run", "next.yaml")
    assert done.exit_code == 2
    assert "latest is another experiment after each run" in done.stderr


def test_images_of_another_experiment_begin_runs(panic: Panic, pictures: None) -> None:
    Path("next.yaml").write_text(
        "name: next\nnetworks: [[blur]]\nprompts: [{experiment: pictures, step: 2, where: {state: done}}]\n"
        "seeds: [1]\nmax_length: 2\ndevice: cpu\n"
    )
    done = panic("run", "next.yaml")
    assert done.exit_code == 0, done.output
    assert "image:" in dumped(panic, "next")


def test_a_lost_image_that_runs_begin_with_is_told_and_comes_back_with_its_file(
    panic: Panic, pictures: None
) -> None:
    before = dumped(panic)
    prompt = json.loads(panic("show", "--json").stdout)["runs"][0]["prompt"]
    with sqlite3.connect("panic-store/images.sqlite") as images:
        images.execute("DELETE FROM image WHERE digest = ?", (bytes.fromhex(prompt.removeprefix("image:")),))
    images.close()
    done = panic("resume", "pictures", "--repair")
    assert done.exit_code == 1
    assert "is lost: runs begin with it" in json.dumps(json.loads(panic("show", "--json").stdout)["runs"])
    assert panic("run", "pictures.yaml", "--repair").exit_code == 0
    assert dumped(panic) == before


@pytest.mark.slow
def test_a_network_of_images_alone_has_a_report(panic: Panic, pictures: None) -> None:
    diagrams = "diagrams={max_dimension: 1, modality: image}"
    more = ["--set", "embeddings=[PocketPixels]", "--set", diagrams]
    assert panic("run", "pictures.yaml", *more).exit_code == 0
    shown = json.loads(panic("show", "pictures", "--json").stdout)
    assert {run["state"] for run in shown["runs"]} <= {"done", "stuck"}
    done = panic("report", "pictures", "-o", "report.html")
    assert done.exit_code == 0, done.output
    assert "the image that the run begins with" in Path("report.html").read_text()
