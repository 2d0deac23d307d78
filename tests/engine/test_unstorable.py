"""Results that a store cannot give back: each is its own item's failure, and the rest is stored."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panic import run
from panic.engine.contents import Output, Rejected, finish
from panic.engine.writer import Writer
from panic.errors import ModelError, StoreError
from panic.models.protocol import Modality
from panic.store import Commit, Store, check, codec, contents, reading, writing
from panic.store.codec import image_digest
from panic.store.records import NewEmbedding, NewFailure, NewInvocation, NewRun, NewStuck
from tests.engine.conftest import make_config
from tests.store.sample import batch, output, picture

MODELS = """
import numpy as np
from PIL import Image

SHAPES = {"tall": (20_000, 10, 3), "empty": (0, 3, 3), "large": (9_000, 10_000, 3)}

class Draw:
    modality_in, modality_out, size_bytes = "text", "image", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        return [np.zeros(SHAPES.get(text.split()[-1], (4, 4, 3)), np.uint8) for text in inputs]

class Tell:
    modality_in, modality_out, size_bytes = "image", "text", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        return [f"seen {seed % 1000}" for seed in seeds]
"""


def test_images_that_cannot_be_stored_end_their_runs_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MODELS)
    config = make_config(
        networks=[[f"python:{tmp_path}/own.py:Draw", f"python:{tmp_path}/own.py:Tell"]],
        models={},
        batch_sizes={},
        prompts=["good", "tall", "empty", "large", "also good"],
        seeds=[-1],
        repeats=1,
        max_length=4,
        max_retries=1,
        executor="local",
    )
    assert run(config, tmp_path / "s").state == "failed"
    with Store(tmp_path / "s") as store:
        runs = {row.prompt: row for row in reading.runs(store)}
        assert check.check(store) == []
    assert [row.state for row in runs.values()] == ["done", "failed", "failed", "failed", "done"]
    reasons = {prompt: row.failure.message for prompt, row in runs.items() if row.failure}
    assert "16,383" in reasons["tall"]
    assert "no pixels" in reasons["empty"]
    assert "89,000,000" in reasons["large"]


@pytest.mark.slow
def test_an_image_of_exactly_the_limit_is_stored_and_read_back(tmp_path: Path) -> None:
    image = Image.new("RGB", (8_900, 10_000), "teal")
    image.putpixel((8_899, 9_999), (1, 2, 3))
    assert image.width * image.height == codec.MAX_PIXELS
    made = finish(image, Modality.IMAGE, True)
    assert isinstance(made, Output)
    with Store(tmp_path / "s", write=True, create=True) as store:
        writing.commit(store, Commit(outputs=[made.as_row()]))
        assert image_digest(contents.image(store, made.digest)) == made.digest
    one_more = Image.new("RGB", (8_900, 10_001))
    assert isinstance(finish(one_more, Modality.IMAGE, False), Rejected)


def test_an_image_beyond_the_limit_is_not_decoded() -> None:
    data = codec.encode_image(Image.new("RGB", (9_500, 9_500)))
    with pytest.raises(ValueError, match="89,000,000"):
        codec.decode_image(data)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "PPM", "EPS", "TIFF"])
def test_bytes_in_another_format_than_webp_start_no_decoder(kind: str) -> None:
    import io

    file = io.BytesIO()
    picture(1).save(file, kind)
    with pytest.raises(ValueError, match="WebP"):
        codec.decode_image(file.getvalue())


def test_a_profile_of_colours_is_not_stored() -> None:
    image = picture(3)
    plain = codec.encode_image(image)
    image.info["icc_profile"] = b"x" * 1000
    image.info["exif"] = b"Exif\0\0" + b"y" * 1000
    assert codec.encode_image(image) == plain


def test_a_text_that_begins_with_nul_is_stored_or_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        for text in ("\0", "\0a", "a\0b"):
            made = finish(text, Modality.TEXT, False)
            if isinstance(made, Output):
                writing.commit(store, Commit(outputs=[made.as_row()]))
                assert contents.text(store, made.digest) == text


@pytest.fixture
def begun(tmp_path: Path) -> Any:
    with Store(tmp_path / "s", write=True, create=True) as store:
        experiment = writing.start_experiment(store, "x", {"name": "x"})
        model = writing.add_model(store, "draw", "f", {})
        writing.add_epoch(store, experiment, "draw", model=model, batch_size=8, device_kind="cpu")
        runs = [NewRun(network=("draw",), prompt=p, seed=-1, max_length=3) for p in ("one", "two")]
        ids = writing.add_runs(store, experiment, runs)
        session = writing.start_session(store, experiment, "test", {})
        yield store, ids, session, model


def mixed_commit(begun: Any) -> tuple[Commit, bytes, bytes]:
    """Steps of two runs and a vector; the output of the second run's first step is no image at all."""
    store, (one, two), session, model = begun
    good, bad = output(picture(1)), output(picture(2))
    bad = writing.NewOutput(
        digest=bad.digest, modality="image", width=20_000, height=10, image=Image.new("RGB", (20_000, 10))
    )
    number = batch(store, session, model, 2)
    prompts = [store.db.value("SELECT digest FROM output WHERE text = ?", text) for text in ("one", "two")]
    return (
        Commit(
            batches=[number],
            outputs=[bad, good],
            invocations=[
                NewInvocation(two, 0, prompts[1], bad.digest, 1, number.id),
                NewInvocation(two, 1, bad.digest, good.digest, 1, number.id),
                NewInvocation(one, 0, prompts[0], good.digest, 1, number.id),
            ],
            stuck=[NewStuck(run=two, entry_step=0, period=1)],
            embeddings=[NewEmbedding(output=good.digest, model=model, batch=number.id, vector=np.ones(2))],
        ),
        good.digest,
        bad.digest,
    )


def test_a_batch_that_cannot_be_written_is_written_item_by_item(begun: Any) -> None:
    store, (one, two), _, _ = begun
    commit, good, bad = mixed_commit(begun)
    saved: list[bytes] = []
    writer = Writer(partial(writing.commit, store), saved.append)
    writer.add(commit)
    writer.flush()
    assert saved == [good]
    assert writer.broken == {two}
    # What the run computes meanwhile is not stored either, and its end is told once.
    writer.add(Commit(failures=[NewFailure(run=two, step=2, kind="error", message="later")]))
    writer.close()
    assert writer.error is None
    rows = {row.id: row for row in reading.runs(store)}
    assert rows[one].num_steps == 1
    assert (rows[two].state, rows[two].num_steps) == ("failed", 0)
    assert rows[two].failure.step == 0
    assert re.search("cannot be stored.*16,383|cannot be stored.*16383", rows[two].failure.message)
    assert reading.counts(store).embeddings == 1
    assert not store.db.value("SELECT count(*) FROM output WHERE digest = ?", bad)


def test_a_row_that_is_no_part_of_a_run_is_told_of_and_not_asked_for_again(begun: Any) -> None:
    store, _, _, model = begun
    commit, good, _ = mixed_commit(begun)
    wrong = NewEmbedding(output=good, model=model + 77, batch=commit.batches[0].id, vector=np.ones(2))
    writer = Writer(partial(writing.commit, store), lambda digest: None)
    commit.embeddings.append(wrong)
    writer.add(commit)
    writer.close()
    assert writer.error is None
    assert reading.counts(store).embeddings == 1
    assert len(writer.problems) == 1
    assert writer.incomplete == {1}


@pytest.mark.parametrize("error", [StoreError("No space left"), MemoryError(), OSError(28, "no space")])
def test_a_full_disk_and_the_like_are_no_items_fault(begun: Any, error: Exception) -> None:
    store = begun[0]
    commit, _, _ = mixed_commit(begun)

    def fail(results: Commit) -> None:
        raise error

    writer = Writer(fail, lambda digest: None)
    writer.add(commit)
    writer.close()
    assert writer.error is error
    assert writer.broken == set()
    assert all(row.failure is None for row in reading.runs(store))


def test_a_vector_of_another_dimension_than_the_models_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        MODELS
        + """
class Measure:
    modality_in, modality_out, size_bytes = "text", "vector", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        return [np.ones(3 if text.endswith("good") else 2, np.float32) for text in inputs]
"""
    )
    config = make_config(
        models=make_config().model_dump()["models"]
        | {"measure": {"base": f"python:{tmp_path}/own.py:Measure"}},
        prompts=["good", "also good", "bad"],
        embeddings=["measure"],
        max_length=2,
        executor="local",
    )
    with pytest.raises(ModelError, match="numbers, where the model's others have"):
        run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
