"""Promise 5: pixels that the store has lost come back, the very same ones, or are said to be lost."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.errors import Interrupted, ModelDoesNotFit
from panic.store import Store, check, contents, missing, reading
from tests import tiny
from tests.engine.conftest import dump, interrupt_when, make_config


def full_config(**changes: Any) -> ExperimentConfig:
    """All pictures differ, two models read them: the captioner and an embedding model."""
    models = {
        "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16, "distinct": True},
        "chain": {"base": "synthetic/image-to-text", "states": 7, "epsilon": 0.3},
        "circle": {"base": "synthetic/state-embedding", "states": 7},
    }
    given = {"models": models, "embeddings": ["circle"], "max_length": 12}
    return make_config(**given | changes)


def spoil(store: Path, sql: str, *parameters: object) -> int:
    """Change the file of pixels behind the store's back; how many rows that concerned."""
    with contextlib.closing(sqlite3.connect(store / "images.sqlite", isolation_level=None)) as other:
        return other.execute(sql, parameters).rowcount


def image_digests(store: Path) -> list[bytes]:
    with Store(store) as opened:
        return [bytes.fromhex(row.digest) for row in contents.outputs(opened) if row.modality == "image"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that lacks nothing, only to be copied."""
    path = tmp_path_factory.mktemp("whole") / "s"
    run(full_config(), path)
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "s")
    return tmp_path / "s"


def test_lost_rows_come_back_and_nothing_else_is_computed(whole: Path, store: Path) -> None:
    digests = image_digests(store)
    for digest in digests[::3]:
        assert spoil(store, "DELETE FROM image WHERE digest = ?", digest) == 1
    assert sum("its pixels are missing" in line for line in dump(store)) == len(digests[::3])
    assert run(full_config(), store).state == "complete"
    assert dump(store) == dump(whole)
    with Store(store) as opened:
        assert check.check(opened) == []
        with Store(whole) as other:
            assert reading.model_times(opened) == reading.model_times(other)


def test_a_lost_file_comes_back(whole: Path, store: Path) -> None:
    (store / "images.sqlite").unlink()
    run(full_config(), store)
    assert dump(store) == dump(whole)


def test_a_run_goes_on_from_a_picture_that_was_lost(tmp_path: Path) -> None:
    """The last output of every run is a picture: the next step needs its pixels."""
    run(full_config(max_length=5), tmp_path / "grown")
    (tmp_path / "grown" / "images.sqlite").unlink()
    run(full_config(), tmp_path / "grown")
    run(full_config(), tmp_path / "once")
    assert dump(tmp_path / "grown") == dump(tmp_path / "once")


def test_lost_pictures_of_models_that_a_config_does_not_ask_for_are_left_to_one_that_does(
    tmp_path: Path,
) -> None:
    """It ended with a KeyError."""
    one = full_config()
    models = one.model_dump()["models"]
    models["other"] = models["draw"] | {"size": 32}
    both = full_config(models=models, networks=[["draw", "chain"], ["other", "chain"]])
    run(both, tmp_path / "s")
    (tmp_path / "s" / "images.sqlite").unlink()
    assert run(one, tmp_path / "s").state == "complete"
    with Store(tmp_path / "s") as opened:
        assert len(list(missing.images(opened, 1))) > 0, "those of `other`"
    run(both, tmp_path / "s")
    with Store(tmp_path / "s") as opened:
        assert check.check(opened) == []


@pytest.mark.parametrize("broken", [b"nonsense", "half", "other"])
def test_damaged_pixels_are_told_and_repaired_on_request(
    whole: Path, store: Path, broken: bytes | str
) -> None:
    digest, other, *_ = image_digests(store)
    with Store(store) as opened:
        good = {
            "half": contents.image_bytes(opened, digest)[:30],
            "other": contents.image_bytes(opened, other),
        }
    data = broken if isinstance(broken, bytes) else good[broken]
    assert spoil(store, "UPDATE image SET bytes = ? WHERE digest = ?", data, digest) == 1
    run(full_config(), store)  # looks for what is missing, not for what is damaged
    with Store(store) as opened:
        problem, remedy = check.check(opened)
        assert digest.hex() in problem
        assert f"panic resume test --repair --store {store}" in remedy
    run(full_config(), store, repair=True)
    assert dump(store) == dump(whole)


def test_pictures_made_from_pictures_come_back_in_order(tmp_path: Path) -> None:
    (tmp_path / "negative.py").write_text(
        "from PIL import ImageChops\n"
        "class Negative:\n"
        "    modality_in = modality_out = 'image'\n"
        "    size_bytes = 0\n"
        "    def load(self, device): pass\n"
        "    def invoke(self, inputs, seeds): return [ImageChops.invert(image) for image in inputs]\n"
    )
    config = full_config(
        networks=[["draw", "negative", "negative", "negative", "chain"]],
        models={
            "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16},
            "chain": {"base": "synthetic/image-to-text", "states": 7},
            "negative": {"base": f"python:{tmp_path}/negative.py:Negative"},
            "circle": {"base": "synthetic/state-embedding", "states": 7},
        },
        max_length=20,
    )
    run(config, tmp_path / "s")
    before = dump(tmp_path / "s")
    (tmp_path / "s" / "images.sqlite").unlink()
    run(config, tmp_path / "s")
    assert dump(tmp_path / "s") == before


SHAPED = """
import os
from panic.errors import OutOfMemory
from panic.models.synthetic import TextToImage
class Shaped(TextToImage):
    calls = 0
    def __init__(self): super().__init__(size=16)
    def invoke(self, inputs, seeds):
        Shaped.calls += 1
        has_room = Shaped.calls <= int(os.environ["CALLS"]) or len(inputs) <= int(os.environ["LARGEST"])
        if not has_room: raise OutOfMemory("no room")
        images = super().invoke(inputs, seeds)
        for image in images: image.putpixel((9, 9), (len(inputs), 0, 0))
        return images
"""


def test_every_picture_comes_back_in_the_shape_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose pictures show the batch size runs out of memory in the middle: two shape epochs."""
    (tmp_path / "shaped.py").write_text(SHAPED)
    config = full_config(
        models={
            "draw": {"base": f"python:{tmp_path}/shaped.py:Shaped"},
            "chain": {"base": "synthetic/image-to-text", "epsilon": 0.3},
            "circle": {"base": "synthetic/state-embedding"},
        },
        seeds=[-1],
    )
    monkeypatch.setenv("LARGEST", "2")
    monkeypatch.setenv("CALLS", "5")  # three of them show that it does not depend on batch mates
    run(config, tmp_path / "s")
    before = dump(tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert [row.batch_size for row in reading.epochs(store, "latest") if row.name == "draw"] == [4, 2]
    (tmp_path / "s" / "images.sqlite").unlink()
    monkeypatch.setenv("CALLS", "2")
    with pytest.raises(ModelDoesNotFit, match="no room") as caught:
        run(config, tmp_path / "s")
    assert "in the shape that made them, batches of 4" in caught.value.hint
    monkeypatch.setenv("LARGEST", "4")
    run(config, tmp_path / "s")
    assert dump(tmp_path / "s") == before


MOODY = """
from pathlib import Path
from panic.models.synthetic import TextToImage
class Moody(TextToImage):
    def __init__(self): super().__init__(states=7, size=16)
    def invoke(self, inputs, seeds):
        mood = Path(__file__).with_suffix(".txt").read_text()
        if mood == "broken" and "state 3" in inputs: raise RuntimeError("no picture today")
        images = super().invoke(inputs, seeds)
        for text, image in zip(inputs, images):
            if mood == "other" and text == "state 3": image.putpixel((9, 9), (1, 2, 3))
        return images
"""


@pytest.mark.parametrize(
    ("mood", "told"), [("other", "gives another picture now"), ("broken", "gives none now: RuntimeError")]
)
def test_what_does_not_come_back_ends_its_runs_and_nothing_wrong_is_stored(
    tmp_path: Path, mood: str, told: str
) -> None:
    """A model that no longer draws state 3 as it did, though nothing that is fingerprinted has changed."""
    (tmp_path / "moody.py").write_text(MOODY)
    (tmp_path / "moody.txt").write_text("same")
    config = full_config(
        models={
            "draw": {"base": f"python:{tmp_path}/moody.py:Moody"},
            "chain": {"base": "synthetic/image-to-text", "states": 7, "kernel": "identity"},
            "circle": {"base": "synthetic/state-embedding", "states": 7},
        },
        prompts=["state 2", "state 3"],
        seeds=[42, -1],
        repeats=1,
    )
    path = tmp_path / "s"
    run(config, path)
    before = dump(path)
    (path / "images.sqlite").unlink()
    (tmp_path / "moody.txt").write_text(mood)
    for _ in range(2):  # the second time nothing is tried again
        outcome = run(config, path)
        assert (outcome.state, outcome.counts.failed) == ("failed", 2)
        with Store(path) as store:
            failed = {row.prompt: row.failure for row in reading.runs(store) if row.failure}
            assert set(failed) == {"state 3"}
            assert (failed["state 3"].step, failed["state 3"].kind) == (0, "lost")
            assert told in failed["state 3"].message
            problem, _ = check.check(store)
            assert "its pixels are missing" in problem
            since = failed["state 3"].failed_at
    longer = config.model_copy(update={"max_length": 14})
    assert run(longer, path).counts.done == 1
    (tmp_path / "moody.txt").write_text("same")
    run(config, path)
    with Store(path) as store:
        assert {row.failure.failed_at for row in reading.runs(store) if row.failure} == {since}
        assert len(list(missing.images(store, 1))) == 1
    run(longer, path, repair=True)
    run(longer, tmp_path / "longer")
    assert dump(path) == dump(tmp_path / "longer")
    assert len(before) < len(dump(path))


def test_a_stop_keeps_what_is_back(whole: Path, store: Path) -> None:
    (store / "images.sqlite").unlink()
    interrupt = interrupt_when(lambda progress: "computed again: 4 of" in progress.message)
    with pytest.raises(Interrupted):
        run(full_config(), store, on_progress=interrupt)
    kept = spoil(store, "UPDATE image SET encoding = encoding")
    assert 4 <= kept < len(image_digests(store))
    run(full_config(), store)
    assert dump(store) == dump(whole)


def test_real_pictures_come_back_to_the_bit(tmp_path: Path) -> None:
    """Tiny Stable Diffusion and BLIP."""
    draw, say = tiny.build_stable_diffusion(tmp_path / "sd"), tiny.build_blip(tmp_path / "blip")
    config = make_config(
        networks=[["draw", "say"]],
        models={
            "draw": {"base": f"local:{draw}", "steps": 2, "width": 64, "height": 64},
            "say": {"base": f"local:{say}", "max_new_tokens": 8},
        },
        prompts=["a red circle", "two dogs", "x"],
        batch_sizes={"draw": 4, "say": 4},
        max_length=5,
        threads=1,
    )
    run(config, tmp_path / "s")
    before = dump(tmp_path / "s")
    first, *rest = image_digests(tmp_path / "s")
    assert len(rest) > 10
    spoil(tmp_path / "s", "DELETE FROM image WHERE digest <> ?", first)
    run(config, tmp_path / "s")
    assert dump(tmp_path / "s") == before
