"""The images stage by hand: what it asks for, what it takes, and whose runs end where an image stays lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from panic.engine.contents import Output, finish
from panic.engine.progress import Progress
from panic.engine.queue import Item, Lane
from panic.engine.session import LOST, Session
from panic.engine.stages.images import ImageStage
from panic.engine.stages.stage import Failed, Made
from panic.models.protocol import Modality
from panic.store import Commit, contents, missing, reading
from panic.store.codec import text_digest
from panic.store.records import NewFailure
from tests.engine.by_hand import FRESH, answers, opened, perform, states, waiting

CHANGES: dict[str, Any] = {
    "draw": {"distinct": True},
    "prompts": states(2),
    "max_length": 4,
    "batch_sizes": {"draw": 3, "chain": 4},
    **FRESH,
}


@contextmanager
def after_a_loss(path: Path, **changes: Any) -> Iterator[tuple[Session, ImageStage]]:
    """A session of an experiment whose pixels are gone, and the stage."""
    with opened(path, **CHANGES | changes) as session:
        perform(session)
        session.writer.flush()
        session.store.images.execute("DELETE FROM image")
    with opened(path, **CHANGES | changes) as session:
        yield session, ImageStage(session, reading.counts(session.reader, session.experiment))


def answer(session: Session, lane: Lane, item: Item) -> Made:
    return Made(answers(session)(lane.model, item.input, item.seed), lane.model, 1)


def other(lane: Lane) -> Made:
    found = finish(Image.new("RGB", (2, 2), "red"), Modality.IMAGE, False)
    assert isinstance(found, Output)
    return Made(found, lane.model, 1)


def images(session: Session) -> dict[tuple[int, int], bytes]:
    """The digests of images by run and step."""
    return {
        (run, row.step): bytes.fromhex(row.output)
        for run in session.run_ids
        for row in contents.invocations(session.reader, run)
        if row.modality == "image"
    }


def failures(session: Session) -> dict[int, Any]:
    return {row.id: row.failure for row in reading.runs(session.reader, session.experiment) if row.failure}


def test_nothing_is_asked_for_where_nothing_is_lost(tmp_path: Path) -> None:
    with opened(tmp_path / "s", **CHANGES) as session:
        perform(session)
        stage = ImageStage(session, reading.counts(session.reader, session.experiment))
        assert stage.refill(thorough=True) == 0
        assert failures(session) == {}
        now = stage.progress(Progress())
        assert (now.runs_total, now.runs_ended, now.runs_stuck, now.runs_failed) == (2, 2, 0, 0)
        assert (now.invocations, now.invocations_total, now.message) == (8, 8, "")


def test_lost_images_are_asked_for_as_they_were_made_and_come_back(tmp_path: Path) -> None:
    with after_a_loss(tmp_path / "s") as (session, stage):
        lost = images(session)
        assert stage.refill(thorough=False) == 0
        assert stage.refill(thorough=True) == 4
        assert stage.progress(Progress()).message == "images computed again: 0 of 4"
        asked = waiting(session)
        assert {(lane.model, lane.batch_size, lane.stage) for lane, _ in asked} == {("draw", 3, stage)}
        assert {item.subject.digest for _, item in asked} == set(lost.values())
        commit = Commit()
        for lane, item in asked:
            stage.absorb(item, answer(session, lane, item), commit)
        assert {row.digest for row in commit.outputs} == set(lost.values())
        assert stage.progress(Progress()).message == "images computed again: 4 of 4"
        assert session.contents.get(lost[1, 0], Modality.IMAGE).size == (16, 16)  # type: ignore[union-attr]
        session.writer.add(commit)
        session.writer.flush()
        assert stage.refill(thorough=True) == 0
        assert list(missing.images(session.reader, session.experiment)) == []
        assert (session.lost, failures(session)) == (set(), {})


def test_images_of_models_that_are_not_asked_for_are_not_counted(tmp_path: Path) -> None:
    """Of four lost images two are of another model, which the config of this session does not have."""
    both: dict[str, Any] = {
        "networks": [["draw", "chain"], ["other", "chain"]],
        "models": {
            "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16},
            "other": {"base": "synthetic/text-to-image", "states": 7, "size": 8},
            "chain": {"base": "synthetic/image-to-text", "states": 7},
        },
        "prompts": states(1), "batch_sizes": {},
    }  # fmt: skip
    with opened(tmp_path / "s", **CHANGES | both) as session:
        perform(session)
        session.writer.flush()
        session.store.images.execute("DELETE FROM image")
    of_one = CHANGES | both | {"networks": [["draw", "chain"]]}
    with opened(tmp_path / "s", **of_one) as session:
        stage = ImageStage(session, reading.counts(session.reader, session.experiment))
        assert stage.refill(thorough=True) == 2
        assert {lane.model for lane, _ in waiting(session)} == {"draw"}
        assert stage.progress(Progress()).message == "images computed again: 0 of 2"


def test_an_image_that_comes_out_otherwise_ends_its_runs_where_it_was_put_out_first(tmp_path: Path) -> None:
    """The first run loses both of its images; the second had failed before, and keeps that failure."""
    with after_a_loss(tmp_path / "s") as (session, stage):
        lost, (first, second) = images(session), session.run_ids
        before = NewFailure(run=second, step=3, kind="error", message="before")
        session.writer.add(Commit(failures=[before]))
        session.writer.flush()
        stage.refill(thorough=True)
        commit = Commit()
        for lane, item in waiting(session):
            if item.subject.digest == lost[first, 2]:
                stage.fail(item, Failed("error", "no room", model=lane.model), commit)
            else:
                stage.absorb(item, other(lane), commit)
        assert commit.outputs == []
        assert stage.refill(thorough=True) == 0
        found = failures(session)
        assert (found[first].step, found[first].kind) == (0, LOST)
        told = "draw gives another picture now"
        assert found[first].message == f"image {lost[first, 0].hex()} is lost: {told}"
        of_first = {lost[first, 0].hex(), lost[first, 2].hex()}
        assert set(found[first].detail.split("\n")) == of_first
        assert found[second].message == "before"
        assert session.lost == set(lost.values())
        assert session.writer.committed == session.writer.added
    with opened(tmp_path / "s", **CHANGES) as session:
        stage = ImageStage(session, reading.counts(session.reader, session.experiment))
        assert stage.refill(thorough=True) == 2, "those of the second run, which nobody knows to be lost"
        assert session.lost == {lost[first, 0], lost[first, 2]}
        now = stage.progress(Progress())
        assert (now.runs_total, now.runs_ended, now.runs_failed) == (2, 2, 2)


def test_the_first_image_that_is_lost_is_told(tmp_path: Path) -> None:
    with after_a_loss(tmp_path / "s", prompts=states(1)) as (session, stage):
        lost, (run,) = images(session), session.run_ids
        stage.refill(thorough=True)
        commit = Commit()
        for lane, item in waiting(session):
            if item.subject.digest == lost[run, 2]:
                stage.fail(item, Failed("error", "no room", model=lane.model), commit)
            else:
                stage.absorb(item, answer(session, lane, item), commit)
        session.writer.add(commit)
        stage.refill(thorough=True)
        (failure,) = failures(session).values()
        assert (failure.step, failure.detail) == (2, lost[run, 2].hex())
        assert failure.message.endswith(" is lost: draw gives none now: no room")
        assert session.lost == {lost[run, 2]}
        told = session.writer.added
        assert stage.refill(thorough=True) == 0
        assert session.writer.added == told, "once"
        assert stage.progress(Progress()).message == "images computed again: 1 of 2"


NEGATIVE = """
from PIL import ImageChops
class Negative:
    modality_in = modality_out = "image"
    size_bytes = 0
    def load(self, device): pass
    def invoke(self, inputs, seeds): return [ImageChops.invert(image) for image in inputs]
"""


def with_negatives(folder: Path) -> dict[str, Any]:
    """A run that draws a picture and makes another one of it."""
    (folder / "negative.py").write_text(NEGATIVE)
    return {
        **FRESH,
        "networks": [["draw", "negative", "chain"]],
        "models": {
            "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16, "distinct": True},
            "chain": {"base": "synthetic/image-to-text", "states": 7},
            "negative": {"base": f"python:{folder}/negative.py:Negative"},
        },
        "prompts": states(1), "max_length": 2, "batch_sizes": {}, "executor": "local",
    }  # fmt: skip


@pytest.mark.parametrize("is_back", [True, False])
def test_what_is_made_from_an_image_waits_for_it(tmp_path: Path, is_back: bool) -> None:
    changes = with_negatives(tmp_path)
    with opened(tmp_path / "s", **changes) as session:
        perform(session)
        session.writer.flush()
        session.store.images.execute("DELETE FROM image")
    with opened(tmp_path / "s", **changes) as session:
        stage = ImageStage(session, reading.counts(session.reader, session.experiment))
        lost, (run,) = images(session), session.run_ids
        assert stage.refill(thorough=True) == 1
        ((lane, item),) = waiting(session)
        assert (lane.model, item.input) == ("draw", text_digest("state 0"))
        commit = Commit()
        stage.absorb(item, answer(session, lane, item) if is_back else other(lane), commit)
        session.writer.add(commit)
        session.writer.flush()
        if is_back:
            assert stage.refill(thorough=True) == 1
            ((lane, item),) = waiting(session)
            assert (lane.model, item.input) == ("negative", lost[run, 0])
        else:
            assert stage.refill(thorough=True) == 0
            assert session.lost == set(lost.values())
            (failure,) = failures(session).values()
            assert failure.step == 0
            assert len(failure.detail.split("\n")) == 2


def test_what_was_made_from_an_image_that_was_lost_before_is_lost_too(tmp_path: Path) -> None:
    """The missing input was asked for, which ended every session at its start."""
    changes = with_negatives(tmp_path)
    with opened(tmp_path / "s", **changes) as session:
        perform(session)
        session.writer.flush()
        lost, (run,) = images(session), session.run_ids
        session.store.images.execute(f"DELETE FROM image WHERE digest = x'{lost[run, 0].hex()}'")
    with opened(tmp_path / "s", **changes) as session:
        stage = ImageStage(session, reading.counts(session.reader, session.experiment))
        assert stage.refill(thorough=True) == 1
        ((lane, item),) = waiting(session)
        stage.absorb(item, other(lane), Commit())
        assert stage.refill(thorough=True) == 0
        assert session.lost == {lost[run, 0]}
        session.store.images.execute("DELETE FROM image")
    with opened(tmp_path / "s", **changes) as session:
        stage = ImageStage(session, reading.counts(session.reader, session.experiment))
        assert stage.refill(thorough=True) == 0
        assert waiting(session) == []
        assert session.lost == {*lost.values()}
        (failure,) = failures(session).values()
        assert failure.detail == lost[run, 0].hex(), "the run keeps the failure that it has"


def test_an_image_that_a_run_has_twice_is_lost_at_the_first_of_its_steps(tmp_path: Path) -> None:
    twice: dict[str, Any] = {"draw": {}, "chain": {"kernel": "identity"}, "prompts": states(1)}
    with after_a_loss(tmp_path / "s", **twice) as (session, stage):
        assert [step for _, step in images(session)] == [0, 2]
        assert stage.refill(thorough=True) == 1
        ((lane, item),) = waiting(session)
        stage.absorb(item, other(lane), Commit())
        stage.refill(thorough=True)
        (failure,) = failures(session).values()
        assert (failure.step, failure.detail) == (0, item.subject.digest.hex())


def test_what_was_made_from_an_image_that_is_left_alone_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its model is one that the config asks for, but what it was made from does not come back."""
    changes = with_negatives(tmp_path)
    both = {
        **changes,
        "networks": [["draw", "negative", "chain"], ["other", "negative", "chain"]],
        "models": changes["models"] | {"other": {**changes["models"]["draw"], "size": 8}},
    }
    with opened(tmp_path / "s", **both) as session:
        perform(session)
        session.writer.flush()
        session.store.images.execute("DELETE FROM image")
    of_one = both | {"networks": changes["networks"]}
    with opened(tmp_path / "s", **of_one) as session:
        stage = ImageStage(session, reading.counts(session.reader, session.experiment))
        caplog.clear()
        caplog.set_level("INFO", "panic.engine")
        assert stage.refill(thorough=True) == 1
        assert stage.progress(Progress()).message == "images computed again: 0 of 2"
        assert caplog.messages == [
            "4 of the experiment's images are missing: computing them again",
            "2 of them are of models that this config does not ask for: left alone",
        ]
        for back in (1, 2):
            ((lane, item),) = waiting(session)
            commit = Commit()
            stage.absorb(item, answer(session, lane, item), commit)
            session.writer.add(commit)
            session.writer.flush()
            assert stage.refill(thorough=True) == 2 - back
        assert caplog.messages[-1] == "2 of 2 images are back"
        assert (session.lost, failures(session)) == (set(), {})


def test_all_images_that_a_run_has_lost_are_told_with_its_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with after_a_loss(tmp_path / "s", prompts=states(1), max_length=6) as (session, stage):
        lost, (run,) = images(session), session.run_ids
        stage.refill(thorough=True)
        for lane, item in reversed(waiting(session)):
            stage.absorb(item, other(lane), Commit())
        stage.refill(thorough=True)
        (failure,) = failures(session).values()
        assert failure.step == 0
        assert set(failure.detail.split("\n")) == {lost[run, step].hex() for step in (0, 2, 4)}
        assert f"run {run}, step 0: image {lost[run, 0].hex()} is lost" in caplog.text
