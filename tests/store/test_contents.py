"""What goes in comes out: outputs, steps, vectors, diagrams."""

import numpy as np
import pytest

from panic.errors import NotFound
from panic.store import (
    NewRun,
    contents,
    reading,
    writing,
)
from panic.store.codec import image_digest, text_digest
from tests.store.sample import NETWORK, SETTINGS, picture


def test_steps_of_a_run(store, sample):
    first, *_, last = contents.invocations(store, sample.stuck)
    assert (first.step, first.model, first.modality, first.text) == (0, "draw", "image", None)
    assert first.input == text_digest("a").hex()
    assert first.output == image_digest(picture(1)).hex()
    assert (last.step, last.model, last.text, last.seed, last.device) == (3, "tell", "b", 42, "cpu")
    assert (last.batch_size, last.duration_s) == (8, 0.25)


def test_outputs_are_kept_once_and_exactly(store, sample):
    assert [row.text or row.width for row in contents.outputs(store, run=sample.stuck)] == ["a", 8, "b", 8]
    shared = {row.digest for row in contents.outputs(store, "alpha")} & {
        row.digest for row in contents.outputs(store, "beta")
    }
    assert shared == {text_digest("a").hex(), image_digest(picture(1)).hex()}
    assert len(contents.outputs(store)) == 10
    digest = image_digest(picture(2))
    assert (
        contents.image(store, digest).tobytes()
        == contents.image(store, digest.hex()).tobytes()
        == picture(2).tobytes()
    )
    assert contents.text(store, text_digest("d")) == "d"
    with pytest.raises(NotFound, match="No image"):
        contents.image(store, text_digest("d"))
    with pytest.raises(NotFound, match="No text"):
        contents.text(store, digest)


def test_texts_of_any_kind_come_back(writer):
    experiment = writing.start_experiment(writer, "texts", {})
    texts = [
        "\0",
        "a\0b",
        "  spaces ",
        "1e5",
        "0x10",
        "naïve \U0001f642",
        "line\nline\r\n",
        "'; DROP TABLE run",
    ]
    writing.add_runs(
        writer, experiment, [NewRun(network=NETWORK, prompt=text, seed=1, max_length=1) for text in texts]
    )
    assert [run.prompt for run in reading.runs(writer, experiment)] == texts
    assert [contents.text(writer, text_digest(text)) for text in texts] == texts


def test_vectors_and_bars(store, sample):
    found = contents.vectors(store, "embed")
    assert found.vectors.shape == (4, 3)
    assert found.vectors.dtype == np.float32
    rows = dict(zip(found.digests, found.vectors[:, 0], strict=True))
    assert rows == {text_digest(text).hex(): ord(text) for text in "abcd"}
    assert len(contents.vectors(store, "embed", "beta").digests) == 2
    assert contents.vectors(store, "draw").vectors.shape == (0, 0)
    assert contents.bars(store, sample.stuck, "embed", 0).tolist() == [[0, 0.5], [0, np.inf]]
    assert contents.bars(store, sample.stuck, sample.embed, 1, "settings").shape == (0, 2)
    assert contents.generators(store, sample.stuck, "embed", 0).tolist() == [[0, 1, 2]]
    assert contents.generators(store, sample.stuck, "embed", 1) is None
    (diagram,) = contents.diagrams(store, "alpha")
    assert (diagram.run, diagram.dimensions, diagram.settings) == (sample.stuck, (0, 1), SETTINGS)
    assert (diagram.num_points, diagram.num_unique) == (2, 1)
    for wrong in (
        (sample.noisy, "embed", 0),
        (sample.stuck, "embed", 2),
        (sample.stuck, "embed", 0, "other"),
    ):
        with pytest.raises(NotFound, match="No diagram"):
            contents.bars(store, *wrong)
    with pytest.raises(NotFound, match="Did you mean embed"):
        contents.vectors(store, "embd")
