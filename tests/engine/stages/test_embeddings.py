"""The embeddings stage: which outputs it asks for, when, and what becomes of those without a vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic.engine.contents import Output
from panic.engine.progress import Progress
from panic.engine.session import Session
from panic.engine.stages.embeddings import EmbeddingStage
from panic.engine.stages.loops import LoopStage
from panic.engine.stages.stage import Failed, Made
from panic.errors import ModelError
from panic.models.protocol import Modality
from panic.store import Commit, Store, contents, reading
from panic.store.codec import text_digest
from tests.engine.by_hand import FRESH, answers, failing, opened, perform, waiting
from tests.store.sample import batch

MODELS = {
    "draw": {"base": "synthetic/text-to-image", "states": 20, "size": 16},
    "chain": {"base": "synthetic/image-to-text", "states": 20},
    "circle": {"base": "synthetic/state-embedding", "states": 20},
    "walk": {"base": "synthetic/walk-embedding", "dimension": 4},
}


def changes(*embeddings: str, **more: Any) -> dict[str, Any]:
    names = ("draw", "chain", *embeddings)
    return {
        "models": {name: MODELS[name] for name in names},
        "prompts": ["state 0", "state 5"],
        "embeddings": list(embeddings),
        "batch_sizes": dict.fromkeys(names, 4),
        "max_length": 4,
        **FRESH,
        **more,
    }


CHANGES = changes("circle")


def stage_of(session: Session) -> tuple[LoopStage, EmbeddingStage]:
    loops = LoopStage(session)
    return loops, EmbeddingStage(session, loops, reading.counts(session.reader, session.experiment))


def without_vectors(path: Path, **more: Any) -> None:
    """Perform the loops alone."""
    with opened(path, **CHANGES | more) as session:
        perform(session, without="embeddings")


def made(value: float, model: str = "circle") -> Made:
    return Made(Output(Modality.VECTOR, b"", np.full(2, value, np.float32)), model, 1)


def test_every_distinct_output_is_asked_for_once_prompts_included(tmp_path: Path) -> None:
    without_vectors(tmp_path / "s")
    with opened(tmp_path / "s", **CHANGES) as session:
        _, stage = stage_of(session)
        assert stage.refill(thorough=False) == 0, "no run has ended in this session"
        assert stage.refill(thorough=True) == 10
        asked = waiting(session)
        assert {lane.model for lane, _ in asked} == {"circle"}
        texts = {text_digest(f"state {number}") for number in (0, 1, 2, 5, 6, 7)}
        inputs = [item.input for _, item in asked]
        assert len(inputs) == len(set(inputs))
        assert texts < set(inputs)
        assert {item.seed for _, item in asked} == {0}
        assert stage.refill(thorough=True) == 0, "they are under way"
        assert stage.progress(Progress()).stages["embeddings"] == (0, 10)


def test_what_is_stored_is_no_longer_under_way(tmp_path: Path) -> None:
    without_vectors(tmp_path / "s", prompts=["state 0"], max_length=1)
    with opened(tmp_path / "s", **CHANGES | {"prompts": ["state 0"], "max_length": 1}) as session:
        _, stage = stage_of(session)
        assert stage.refill(thorough=True) == 2
        commit = Commit()
        for number, (_, item) in enumerate(waiting(session)):
            stage.absorb(item, made(float(number)), commit)
        assert [row.model for row in commit.embeddings] == [session.pins["circle"].model] * 2
        stage.written(commit, 1)
        assert stage.refill(thorough=True) == 0, "handed to the writer, not stored yet"
        assert stage.progress(Progress()).stages["embeddings"] == (2, 2)
        for number in range(2):  # it was never stored: once that commit counts as stored, it is missing again
            session.writer.add(Commit())
            session.writer.flush()
            assert stage.refill(thorough=True) == (2 if number == 0 else 0)


def test_outputs_of_a_run_are_asked_for_once_it_has_ended_and_is_stored(tmp_path: Path) -> None:
    with opened(tmp_path / "s", **CHANGES | {"max_length": 1}) as session:
        loops, stage = stage_of(session)
        loops.refill(thorough=True)
        (lane, item), other = waiting(session)
        commit = Commit(batches=[batch(session.store, session.number, session.pins["draw"].model)])
        number = commit.batches[0].id
        output = answers(session)(lane.model, item.input, item.seed)
        loops.absorb(item, Made(output, lane.model, number), commit)
        loops.written(commit, session.writer.add(commit))
        session.writer.flush()
        assert stage.refill(thorough=False) == 2, "the prompt and the image of the run that has ended"
        assert stage.refill(thorough=False) == 0
        assert {item.input for _, item in waiting(session)} == {item.input, output.digest}
        assert other[1].subject is not item.subject


def test_vectors_are_those_of_their_outputs(tmp_path: Path) -> None:
    with opened(tmp_path / "s", **CHANGES) as session:
        seen = perform(session)
    assert sum(size for model, size in seen.sizes if model == "circle") == 10
    with Store(tmp_path / "s") as store:
        found = contents.vectors(store, "circle")
        rows = [found.vectors[found.digests.index(text_digest(f"state {n}").hex())] for n in (0, 5)]
        np.testing.assert_allclose(rows, [[1, 0], [0, 1]], atol=1e-6)  # of 20 states


def test_each_of_two_models_gets_what_it_lacks(tmp_path: Path) -> None:
    """The second model reads texts only; the first has its vectors already."""
    both = changes("circle", "walk", max_retries=0)
    with pytest.raises(ModelError, match="6 results"), opened(tmp_path / "s", **both) as session:
        perform(session, lambda call: failing() if call.model == "walk" else None)
    with opened(tmp_path / "s", **both) as session:
        seen = perform(session)
        assert {model for model, _ in seen.sizes} == {"walk"}
        assert sum(size for _, size in seen.sizes) == 6
    with Store(tmp_path / "s") as store:
        assert contents.vectors(store, "circle").vectors.shape == (10, 2)
        assert contents.vectors(store, "walk").vectors.shape == (6, 4)


def test_lost_images_are_not_asked_for(tmp_path: Path) -> None:
    without_vectors(tmp_path / "s")
    with opened(tmp_path / "s", **CHANGES) as session:
        rows = contents.outputs(session.reader)
        session.lost |= {bytes.fromhex(row.digest) for row in rows if row.modality == "image"}
        _, stage = stage_of(session)
        assert stage.refill(thorough=True) == 6


def test_what_is_given_up_is_told_and_not_tried_again_in_this_session(tmp_path: Path) -> None:
    without_vectors(tmp_path / "s")
    with opened(tmp_path / "s", **CHANGES) as session:
        _, stage = stage_of(session)
        stage.refill(thorough=True)
        (_, item), *_ = waiting(session)
        stage.fail(item, Failed("error", "no room", model="circle"), Commit())
        name = item.input.hex()[:12]
        assert stage.given_up == [f"circle: output {name} has no vector: no room"]
        assert stage.refill(thorough=True) == 0
    changes = CHANGES | {"max_retries": 0}
    with (
        pytest.raises(ModelError, match="10 results are missing"),
        opened(tmp_path / "s", **changes) as session,
    ):
        perform(session, lambda call: failing() if call.model == "circle" else None)


def of_length(length: int) -> Made:
    return Made(Output(Modality.VECTOR, b"", np.ones(length, np.float32)), "circle", 1)


def test_vectors_of_a_model_have_the_dimension_of_its_first(tmp_path: Path) -> None:
    without_vectors(tmp_path / "s")
    with opened(tmp_path / "s", **CHANGES) as session:
        _, stage = stage_of(session)
        stage.refill(thorough=True)
        commit = Commit()
        items = [item for _, item in waiting(session)]
        for item, length in zip(items, (3, 2, 3, 4), strict=False):
            stage.absorb(item, of_length(length), commit)
        assert [row.output for row in commit.embeddings] == [items[0].input, items[2].input]
        name = items[1].input.hex()[:12]
        assert stage.given_up[0] == (
            f"circle: output {name} has no vector: a vector of 2 numbers, where the model's others have 3"
        )
        assert len(stage.given_up) == 2
        assert stage.progress(Progress()).stages["embeddings"] == (2, 10)


def test_vectors_that_are_stored_count_and_tell_the_dimension(tmp_path: Path) -> None:
    """Those of a circle have two numbers."""
    with opened(tmp_path / "s", **CHANGES | {"max_length": 2}) as session:
        perform(session)
    with opened(tmp_path / "s", **CHANGES | {"max_length": 2, "prompts": ["state 0", "hello"]}) as session:
        _, stage = stage_of(session)
        known = reading.counts(session.reader).embeddings
        assert known > 0
        assert stage.refill(thorough=True) == 1, "the prompt that is new"
        assert stage.progress(Progress()).stages["embeddings"] == (known, known + 1)
        ((_, item),) = waiting(session)
        stage.absorb(item, of_length(3), Commit())
        assert stage.given_up[0].endswith("a vector of 3 numbers, where the model's others have 2")


def test_a_vector_that_could_not_be_written_is_not_asked_for_again(tmp_path: Path) -> None:
    without_vectors(tmp_path / "s")
    with opened(tmp_path / "s", **CHANGES) as session:
        _, stage = stage_of(session)
        stage.refill(thorough=True)
        items = [item for _, item in waiting(session)]
        for number, item in enumerate(items[:2], 1):
            commit = Commit()
            stage.absorb(item, made(1.0), commit)
            stage.written(commit, number)
            session.writer.add(Commit())
        session.writer.flush()
        session.writer.incomplete.add(1)
        assert stage.refill(thorough=True) == 1
        ((_, again),) = waiting(session)
        assert again.input == items[1].input
